"""Find and count everything that a child process started, from outside, through /proc.

The system's own limits are not enough: the limit on processes does not bind root, and the one on memory holds
for each process alone. In bubblewrap all that a submission starts descends from the child. Without it, a
process that leaves the family is still known by a mark in its environment.
"""

import contextlib
import os
import signal
import time

MARK = "LABKIT_GRADING"


def family(pid, mark=None):
    """Process ids of the child, of its descendants, and of whatever carries the mark (None: do not look)."""
    children, others = {}, []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = _read(f"/proc/{entry}/stat").rpartition(b")")[2].split()
            if len(stat) > 1 and stat[0] != b"Z":
                children.setdefault(int(stat[1]), []).append(int(entry))
                others.append(int(entry))
    found = {pid} if pid in others else set()
    waiting = [pid]
    while waiting:
        new = children.get(waiting.pop(), [])
        found.update(new)
        waiting += new
    if mark:
        wanted = f"{MARK}={mark}".encode()
        found.update(p for p in others if p not in found and wanted in _read(f"/proc/{p}/environ"))
    return found


def usage(pids):
    """Tasks (processes and their threads) and bytes of memory that are theirs, shared memory included."""
    tasks = memory = 0
    for pid in pids:
        for line in _read(f"/proc/{pid}/status").splitlines():
            if line.startswith(b"Threads:"):
                tasks += int(line.split()[1])
            elif line.startswith((b"RssAnon:", b"RssShmem:")):
                memory += int(line.split()[1]) * 1024
        memory += _nameless_files(pid)
    return tasks, memory


def _nameless_files(pid):
    """Bytes of files in memory that a process holds open: nothing else counts those that are not mapped."""
    held = {}
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                path = f"/proc/{pid}/fd/{number}"
                if os.readlink(path).startswith("/memfd:"):
                    status = os.stat(path)
                    held[status.st_ino] = status.st_blocks * 512
    return sum(held.values())


def end(pid, mark=None, seconds=5):
    """Stop, then kill, the child, its group and family, again and again until none is left.

    Stopped first, so that none can start another while its brothers are killed.
    """
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    deadline = time.monotonic() + seconds
    while mark and time.monotonic() < deadline:
        left = family(pid, mark)
        if not left:
            return
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for one in left:
                with contextlib.suppress(OSError):
                    os.kill(one, number)


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
