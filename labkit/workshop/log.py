"""The learner's log: one line of JSON for each result of `check`, in a folder of the learner's own.

A line holds `exercise`, `points`, `correct`, `shown` (the solution was taken) and `when` (UTC). Lines are
only ever added, under a lock: two notebooks at once lose nothing, and a killed one spoils at most its last.
"""

import fcntl
import json
import os
import warnings
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from labkit.errors import LabkitError
from labkit.paths import SOLUTIONS

# Set by pytest (for nbval's kernels too), by nbgrader, by a recording run, and by the usual CI services.
NOT_A_LEARNER = ("PYTEST_VERSION", "LABKIT_RECORD", "CI")
_TYPES = {"exercise": str, "points": int, "correct": bool, "shown": bool, "when": str}


def home():
    """The learner's folder: `LABKIT_HOME`, else `~/.local/share/labkit`. LabkitError where there is none."""
    own = os.environ.get("LABKIT_HOME")
    try:
        if own:
            return Path(own).expanduser()
        return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "labkit"
    except RuntimeError as error:  # an account without a home
        raise LabkitError("there is no home folder. Set LABKIT_HOME to a folder of your own") from error


def path():
    """The log's file."""
    return home() / "progress.jsonl"


def wanted():
    """Are results noted here? Never while nbgrader runs; else as `LABKIT_PROGRESS` (on or off) says.

    Where that is unset: for learners, and not in tests, nbval, smoke runs, recordings, CI or solutions/.
    Raises LabkitError for another value.
    """
    asked = os.environ.get("LABKIT_PROGRESS", "").strip().lower()
    if asked not in ("", "on", "off"):
        raise LabkitError(f"LABKIT_PROGRESS is {asked!r}; it may be on or off, or unset")
    if os.environ.get("NBGRADER_EXECUTION") or asked == "off":
        return False
    if asked == "on":
        return True
    smoke = os.environ.get("LABKIT_PROFILE", "").strip().lower() == "smoke"
    return not smoke and not any(map(os.environ.get, NOT_A_LEARNER)) and Path.cwd() != SOLUTIONS


def note(exercise_id, points=0, correct=False, shown=False):
    """Add one result to the log where that is wanted. Never raises: what cannot be noted is warned of."""
    try:
        if wanted():
            now = datetime.now(UTC).isoformat(timespec="seconds")
            result = {"points": points, "correct": correct, "shown": shown}
            append({"exercise": exercise_id, **result, "when": now})
    except (OSError, LabkitError) as error:
        warnings.warn(f"{_trouble(error)}. Results are not kept until then", stacklevel=3)


def append(entry):
    """Add an entry as one line. Raises OSError where the file cannot be written."""
    home().mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path(), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        with _lock(descriptor, fcntl.LOCK_EX):
            size = os.fstat(descriptor).st_size
            # A process that was killed may have left half a line: it must not spoil this one.
            whole = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
            data = (b"" if whole else b"\n") + json.dumps(entry).encode() + b"\n"
            while data:
                data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)


def read():
    """All entries, in the order they were noted; damaged lines are skipped with a warning that numbers them.

    Raises LabkitError for a file that cannot be read.
    """
    try:
        with open(path(), "rb") as file, _lock(file.fileno(), fcntl.LOCK_SH):
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LabkitError(_trouble(error)) from error
    found = [(number, _entry(line)) for number, line in enumerate(lines, 1) if line.strip()]
    damaged = [str(number) for number, entry in found if entry is None]
    if damaged:
        some = ", ".join(damaged[:5]) + (", ..." if len(damaged) > 5 else "")
        says = f"{len(damaged)} damaged lines skipped ({some}); all others count"
        warnings.warn(f"{path()}: {says}", stacklevel=3)
    return [entry for _, entry in found if entry is not None]


def _entry(line):
    """The entry that a line holds; None for a damaged line."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    sound = isinstance(entry, dict) and all(type(entry.get(key)) is kind for key, kind in _TYPES.items())
    return entry if sound else None


@contextmanager
def _lock(descriptor, kind):
    """Hold a lock until the block ends; a disk that knows no locks goes without."""
    with suppress(OSError):
        fcntl.flock(descriptor, kind)
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _trouble(error):
    if isinstance(error, LabkitError):
        return str(error)
    return f"{path()} cannot be used ({error.strerror}). Set LABKIT_HOME to a folder that you may write to"
