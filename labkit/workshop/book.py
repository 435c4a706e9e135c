"""Who on a machine may still take memory of a card: so that those who look at once do not all take the same.

Each process keeps one file in a folder that belongs to the card, locked for as long as it lives. The system
drops the lock of a process that ends, however it ends, and its file counts no more.
"""

import fcntl
import os
import tempfile
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

SIZE = 80  # bytes of a file: four numbers and blanks
PATIENCE = 5  # seconds to wait for the folder's lock; who holds it longer was stopped, not busy
AGAIN = 0.02  # seconds between tries


class Note(NamedTuple):
    """What a process noted, in bytes: it may still take `most`, or `now` by what it holds at present."""

    most: int
    now: int
    share: int  # of the card, its own
    held: int  # by its allocator


class Book:
    """The book of one card, named by its UUID; None for no book, where every method does nothing.

    Nothing here raises for a folder that cannot be used: then each process looks at the card alone.
    """

    def __init__(self, card, root=None):
        self.folder = Path(root or tempfile.gettempdir()) / f"labkit-gpu-{card}" if card else None
        self.path = self.file = None

    @contextmanager
    def alone(self):
        """Inside, no other process reads the book and writes a promise."""
        lock = None
        with suppress(OSError):
            lock = self._locked() if self.folder else None
        try:
            yield
        finally:
            if lock is not None:
                os.close(lock)

    def others(self):
        """What the other living processes noted last, a `Note` each."""
        found, paths = [], []
        with suppress(OSError):
            paths = [path for path in self.folder.iterdir() if path != self.path] if self.folder else []
        for path in paths:
            with suppress(OSError, ValueError, TypeError):
                found += _read(path)
        return found

    def note(self, most, now, share, held):
        """Write this process's `Note`. The first time, do it inside `alone`."""
        if self.folder:
            text = " ".join(str(int(size)) for size in (most, now, share, held))
            with suppress(OSError):
                if self.file is None:
                    self._begin()
                os.pwrite(self.file, text.ljust(SIZE).encode(), 0)

    def _locked(self):
        """The folder, open and locked; open but not locked where another keeps it for too long."""
        with suppress(FileExistsError):
            self.folder.mkdir()
            self.folder.chmod(0o1777)  # learners may be different users, each with files of their own
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        began = time.monotonic()
        while not _lock(folder, fcntl.LOCK_EX) and time.monotonic() - began < PATIENCE:
            time.sleep(AGAIN)
        return folder

    def _begin(self):
        path = self.folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        os.fchmod(file, 0o644)  # whatever the umask: others must be able to read it
        _lock(file, fcntl.LOCK_EX)
        self.path, self.file = path, file


def _read(path):
    """The Note in a process's file, in a list; none, and the file goes, if the process has ended."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if _lock(file, fcntl.LOCK_SH):
            with suppress(OSError):  # another user's: it stays, and counts as little
                path.unlink()
            return []
        return [Note(*map(int, os.pread(file, SIZE, 0).split()))]
    finally:
        os.close(file)


def _lock(file, kind):
    """Lock an open file or folder if that can be had at once; returns whether."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
