"""Who on a machine may still take memory of a card: so that those who look at once do not all take the same.

Each process keeps one file in a folder, locked for as long as it lives. The system drops the lock of a
process that ends, however it ends, and its file counts no more. The folder is `labkit-gpu` among the
machine's temporary files if root has made it for all users (mode 1777), else one of the user's own.
"""

import fcntl
import os
import re
import stat
import tempfile
import threading
import time
import uuid
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

NAME = "labkit-gpu"
SIZE = 80  # bytes of a file: four numbers and blanks
PATIENCE = 60  # seconds to wait for the folder's lock: thirty who start together take their turns
AGAIN = 0.02  # seconds between tries

_books = weakref.WeakSet()


class Note(NamedTuple):
    """What a process noted, in bytes: it may still take `most`, or `now` by what it holds at present."""

    most: int
    now: int
    share: int  # of the card, its own
    held: int  # by its allocator


class Book:
    """The book of one card, named by its UUID; "" for no book, where every method does nothing.

    Nothing here raises for a folder that cannot be used: then each process looks at the card alone.
    """

    def __init__(self, card, root=None):
        self.card, self.root = card, root or tempfile.gettempdir()
        self.name = self.file = None
        self._folder = None  # open and locked, while this process is alone
        _books.add(self)

    @contextmanager
    def alone(self):
        """Inside, no other process reads the book and writes a promise; yields whether that is so.

        False: others kept the lock for all of PATIENCE. None: there is no book, or no folder to be used.
        """
        with self._open(make=True) as folder:
            locked = None if folder is None else _take(folder)
            self._folder = folder if locked else None
            try:
                yield locked
            finally:
                self._folder = None
                if locked:  # closing is not enough where a forked child has the folder open too
                    fcntl.flock(folder, fcntl.LOCK_UN)

    def others(self):
        """What the other living processes noted last, a `Note` each."""
        found, names = [], re.compile(re.escape(self.card) + r"-\d+-[0-9a-f]{8}")
        with self._open() as folder, suppress(OSError):
            for name in [] if folder is None else os.listdir(folder):
                if name != self.name and names.fullmatch(name):
                    with suppress(OSError, ValueError, TypeError):
                        found += _read(name, folder)
        return found

    def note(self, most, now, share, held):
        """Write this process's `Note`. The first counts only inside `alone`."""
        text = " ".join(str(int(size)) for size in (most, now, share, held))
        with suppress(OSError):
            if self.file is None and self._folder is not None:
                self._begin()
            if self.file is not None:
                os.pwrite(self.file, text.ljust(SIZE).encode(), 0)

    def forget(self):
        """Leave the file to the process that this one was forked from."""
        if self.file is not None:
            os.close(self.file)
        self.name = self.file = self._folder = None

    @contextmanager
    def _open(self, make=False):
        folder = _folder_in(self.root, make) if self.card else None
        try:
            yield folder
        finally:
            if folder is not None:
                os.close(folder)

    def _begin(self):
        name = f"{self.card}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=self._folder)
        os.fchmod(file, 0o644)  # whatever the umask: others must be able to read it
        _lock(file, fcntl.LOCK_EX)
        self.name, self.file = name, file


class Teller:
    """A thread that calls `tell` every so many seconds, until that returns true or `end` is called."""

    def __init__(self, tell, every):
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(tell, every), daemon=True, name=NAME)
        self._thread.start()

    def end(self):
        """Tell no more; returns when nothing is being told."""
        self._ended.set()
        self._thread.join()

    def _work(self, tell, every):
        while not self._ended.wait(every) and not tell():
            pass


def _folder_in(root, make):
    """The folder, open; None where there is none that can be trusted."""
    own = f"{NAME}-{os.geteuid()}"
    for name, trusted in ((NAME, _for_all), (own, _ours)):
        with suppress(OSError):
            if make and name == own:
                with suppress(FileExistsError):
                    os.mkdir(Path(root, name), 0o700)
            folder = os.open(Path(root, name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            if trusted(os.fstat(folder)):
                return folder
            os.close(folder)
    return None


def _for_all(about):
    """Root's, and nobody can remove another's files there."""
    return about.st_uid == 0 and stat.S_IMODE(about.st_mode) & 0o1777 == 0o1777


def _ours(about):
    """This user's, and nobody else can write there."""
    return about.st_uid == os.geteuid() and not about.st_mode & 0o022


def _take(folder):
    """Wait for the folder's lock: had or not; None where this file system has no locks."""
    began = time.monotonic()
    with suppress(OSError):
        while not _lock(folder, fcntl.LOCK_EX):
            if time.monotonic() - began >= PATIENCE:
                return False
            time.sleep(AGAIN)
        return True
    return None


def _read(name, folder):
    """The Note in a process's file, in a list; none, and our own file goes, if the process has ended."""
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)  # a FIFO would block
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            return []
        if _lock(file, fcntl.LOCK_SH):
            if about.st_uid == os.geteuid():
                os.unlink(name, dir_fd=folder)
            return []
        return [Note(*(max(0, int(size)) for size in os.pread(file, SIZE, 0).split()))]
    finally:
        os.close(file)


def _lock(file, kind):
    """Lock an open file or folder if that can be had at once; returns whether."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _forget_all():
    for book in list(_books):
        book.forget()


os.register_at_fork(after_in_child=_forget_all)
