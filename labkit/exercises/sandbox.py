"""Run `runner.py` in a child with limits on time, memory, processes and output, in bubblewrap if it works.

In bubblewrap there is no network, no other process, and of the disk only the interpreter, its libraries and
the runner; a labkit that lies among them is covered by an empty folder. Without bubblewrap the limits hold,
but a submission can read what the grader's account can read, the reference solutions included.
"""

import contextlib
import functools
import json
import os
import secrets
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from labkit.exercises import runner, watch
from labkit.paths import ROOT, SOLUTIONS

RUNNER = Path(runner.__file__)
RUNNER_INSIDE = "/runner.py"
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
}
OURS = ("labkit.methods", "labkit.exercises", "labkit.solve")
LOOK = 0.05                   # seconds between two looks at what the child's family uses
MISSING = (
    "WARNING: bubblewrap (bwrap) is not available or not allowed here. Submissions run with the rights\n"
    "WARNING: of this account: they can read its files, the reference solutions and the seed included,\n"
    "WARNING: use the network, and stop the grader.\n"
    "WARNING: Install it (apt-get install bubblewrap) before you trust these grades."
)


@dataclass(frozen=True)
class Limits:
    """What one exercise of one submission may use, with all that it starts.

    Seconds of wall clock, bytes of memory and of answer, processes and threads together.
    """

    seconds: float = 60
    memory: int = 4 * 2**30
    answer: int = 2**20
    tasks: int = 64


class Failed(Exception):
    """The child gave no usable answer; the message is for the learner."""


def system_folders():
    """What the interpreter needs of the disk: (folders to show, symbolic links to make)."""
    shown, links = set(), []
    for prefix in (sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix)):
        if Path(prefix) in (Path("/"), Path("/usr"), Path("/usr/local")):
            shown |= {f"{prefix}/bin", f"{prefix}/lib"}
        else:
            shown.add(prefix)
    shown |= {"/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"}
    for name in ("/lib", "/lib64", "/bin"):
        if os.path.islink(name):
            links.append((os.readlink(name), name))
        elif name != "/bin":
            shown.add(name)
    return sorted(p for p in shown if os.path.exists(p)), links


def bwrap_command(hidden=()):
    """The command line that runs the runner in bubblewrap, with `hidden` folders covered."""
    shown, links = system_folders()
    covered = {str(Path(p).resolve()) for p in (ROOT, SOLUTIONS, RUNNER.parent.parent, *hidden)}
    covered |= {str(Path(p, "labkit")) for p in sys.path if p and Path(p, "labkit").is_dir()}
    # A course in /tmp: the way to the environment inside it would be writable as /tmp is.
    in_tmp = {str(ROOT.resolve())} if ROOT.resolve().is_relative_to("/tmp") else set()
    covered = {c for c in covered if any(Path(c).is_relative_to(p) for p in shown)} | in_tmp
    size = ["--size", str(2**28)] if "--size" in _bwrap_help() else []
    mounts = [("/proc", ["--proc", "/proc"]), ("/dev", ["--dev", "/dev"])]
    mounts += [("/tmp", [*size, "--tmpfs", "/tmp"])]
    mounts += [(c, ["--tmpfs", c]) for c in covered]
    mounts += [(p, ["--ro-bind", p, p]) for p in shown]
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    # Parents before children: a virtual environment inside a covered folder, or in /tmp, stays visible.
    for _, mount in sorted(mounts, key=lambda m: len(Path(m[0]).parts)):
        command += mount
    for target, name in links:
        command += ["--symlink", target, name]
    command += ["--ro-bind", str(RUNNER), RUNNER_INSIDE, "--chdir", "/tmp"]
    for folder in ("/", "/dev", *covered):              # else files there are memory without a limit
        command += ["--remount-ro", folder]
    return command + [sys.executable, "-I", "-B", RUNNER_INSIDE]


@functools.cache
def _bwrap_help():
    return subprocess.run(["bwrap", "--help"], capture_output=True, text=True).stdout


@functools.cache
def available():
    """Whether bubblewrap is installed and allowed to start our interpreter here."""
    if not shutil.which("bwrap"):
        return False
    try:
        request = {"setup": [], "cells": ["def f(): return 1"], "function": "f", "inputs": [["tuple", []]]}
        return "outcomes" in _exchange(bwrap_command(), request, Limits(seconds=30))
    except (Failed, OSError):
        return False


def run(setup, cells, function, inputs, limits=Limits(), hidden=()):  # noqa: B008 (frozen)
    """Run cells, call the function they define on every input, and return the outcomes (see `runner.call`).

    setup: pairs as of `notebook.answers`; cells: sources; inputs: list of argument tuples. Raises Failed.
    """
    encoded = [runner.encode(tuple(args)) for args in inputs]
    request = {"setup": setup, "cells": cells, "function": function, "inputs": encoded}
    command = bwrap_command(hidden) if available() else [sys.executable, "-I", "-B", str(RUNNER)]
    reply = _exchange(command, request, limits)
    _refuse_labkit(reply.get("asked"))
    if "cell" in reply:
        error = _valid_error(reply["cell"])
        raise Failed(f"the exercise cell fails: {error['raised'][0]}: {error['text']}".rstrip(": "))
    if reply.get("missing"):
        raise Failed(f"the exercise cell defines no function {function}")
    outcomes = reply.get("outcomes")
    if not isinstance(outcomes, list) or len(outcomes) != len(inputs):
        raise Failed("the answer is not readable")
    return [_valid(o) for o in outcomes]


def _refuse_labkit(asked):
    """Raise Failed where an answer asked labkit for what it should write itself."""
    for name in asked if isinstance(asked, list) else ():
        if isinstance(name, str) and name.startswith(OURS):
            raise Failed(f"asks for {name[:60]}: an answer that takes it from labkit earns nothing")


def _valid_error(outcome):
    kinds = outcome.get("raised") if isinstance(outcome, dict) else None
    if not kinds or not isinstance(kinds, list) or not all(isinstance(k, str) for k in kinds):
        raise Failed("the answer is not readable")
    return {"raised": [k[:80] for k in kinds[:20]], "text": str(outcome.get("text", ""))[:300]}


def _valid(outcome):
    """Rebuild an outcome from what the child sent: everything in it is the submission's word."""
    if isinstance(outcome, dict) and "value" in outcome:
        try:
            value = runner.encode(runner.decode(outcome["value"]))
            return {"value": value, "changed": bool(outcome.get("changed"))}
        except (ValueError, TypeError, RecursionError):
            raise Failed("the answer is not readable") from None
    return _valid_error(outcome)


def _exchange(command, request, limits):
    """Start the child, hand it the request, take one line of JSON back, and leave no process behind."""
    with contextlib.ExitStack() as stack:
        stdin = stack.enter_context(tempfile.TemporaryFile())      # a pipe could block
        stdin.write(json.dumps(request | {"memory": limits.memory}).encode())
        stdin.seek(0)
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        libraries = {k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"}    # some Pythons need it
        mark = None if command[0] == "bwrap" else secrets.token_hex(16)
        child = subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=ENVIRONMENT | libraries | ({watch.MARK: mark} if mark else {}), cwd=folder,
            start_new_session=True,
        )
        stack.callback(_end, child, mark)
        text = _read_line(child, limits, mark)
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        raise Failed("the answer is not readable") from None
    if not isinstance(reply, dict):
        raise Failed("the answer is not readable")
    return reply


def _read_line(child, limits, mark):
    """One line of what the child writes, while its time lasts and its family stays within the limits."""
    deadline = time.monotonic() + limits.seconds
    look = time.monotonic() + LOOK
    data = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            ready = selector.select(LOOK)
            if time.monotonic() > deadline:
                raise Failed(f"stopped after {limits.seconds:g} seconds: an endless loop?")
            if time.monotonic() > look:
                _check_usage(child, limits, mark)
                look = time.monotonic() + LOOK
            if not ready:
                continue
            chunk = os.read(child.stdout.fileno(), 2**16)
            if not chunk:
                raise Failed("ended without an answer: exit, a crash, or out of memory")
            data += chunk
            if len(data) > limits.answer:
                raise Failed(f"the answer is larger than {limits.answer:,} bytes")
            if b"\n" in chunk:
                return bytes(data).partition(b"\n")[0]


def _check_usage(child, limits, mark):
    tasks, memory = watch.usage(watch.family(child.pid, mark))
    if tasks > limits.tasks:
        raise Failed(f"stopped: more than {limits.tasks} processes and threads")
    if memory > limits.memory:
        raise Failed(f"stopped: its processes take more than {limits.memory / 2**30:g} GiB of memory")


def _end(child, mark):
    """Kill the child and all that it started; bubblewrap's process namespace dies with bubblewrap."""
    watch.end(child.pid, mark)
    child.wait()
    child.stdout.close()
