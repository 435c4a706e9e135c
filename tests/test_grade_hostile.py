"""Hostile and broken submissions: no point that was not earned, no crash, nothing touched, all said plainly."""
# ruff: noqa: E501 (a table: one attack a line where it fits)

import json
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from submissions import LABELS, QUICK, cell, exercise_cells, need_bubblewrap, submit

from labkit.exercises import sandbox
from labkit.exercises.grade import grade
from labkit.exercises.sandbox import Limits

REFERENCE = Path(sandbox.__file__).with_name("lesson_00.py")
SEED = "secret-of-this-test"
LAZY = "\ndef loss_labels(p, a):\n    return None\n"
NONE = "returns None: is a return missing?"


@dataclass(frozen=True)
class Attack:
    """A submission, the report that it deserves for 00.2, and its points; 00.1 is answered honestly.

    what: source of the cell of 00.2, or a function that changes the cells of an honest notebook.
    sandboxed: it would succeed, or harm, without bubblewrap.
    """

    what: object
    report: str
    points: tuple = (0, 2)
    limits: Limits = QUICK
    sandboxed: bool = False


def inside(source, report, **options):
    return Attack(source, report, sandboxed=True, **options)


SHORT = replace(QUICK, seconds=1.5)
SMALL = replace(QUICK, memory=2**28)
STUDIED = "asks for labkit."
NO_SUCH = "raises FileNotFoundError: [Errno 2] No such file or directory"
BOMB = "\nfor _ in range(8):\n    os.fork()\ntime.sleep(8)\n"     # 256 processes, and no more

CODE = {
    # ---- leaving, hanging, eating
    "exit at the top": Attack("import sys\nsys.exit(0)", "the exercise cell fails: SystemExit: 0"),
    "exit in the call": Attack("def loss_labels(p, a):\n    raise SystemExit", "raises SystemExit; for [1, "),
    "hard exit": Attack("import os\ndef loss_labels(p, a):\n    os._exit(0)", "ended without an answer: ex"),
    "kill itself": Attack("import os\nos.kill(os.getpid(), 9)", "ended without an answer: exit, a crash"),
    "kill its parent": inside("import os\nos.kill(os.getppid(), 9)" + LAZY, NONE),
    "kill everyone": inside("import os\nos.kill(-1, 9)", "fails: ProcessLookupError: [Errno 3]"),
    "endless loop": Attack("while True: pass", "stopped after 1.5 seconds: an endless loop?", limits=SHORT),
    "endless call": Attack("def loss_labels(p, a):\n    while True: pass", "stopped after 1.5 sec", limits=SHORT),
    "memory bomb": Attack("x = []\nwhile True: x.append(bytearray(2**26))", "cell fails: MemoryError"),
    "memory bomb in the call": Attack("def loss_labels(p, a):\n    return [0] * 2**33", "raises MemoryError"),
    "memory spread over processes": Attack(
        "import os, time\nfor _ in range(4):\n    if not os.fork():\n        x = b'x' * (2**27 - 2**25)\n"
        "        time.sleep(8)\ntime.sleep(8)", "stopped: its processes take more than 0.25 GiB", limits=SMALL,
    ),
    "memory in nameless files": Attack(
        "import os, time\nfiles = [os.memfd_create('x') for _ in range(12)]\nfor f in files:\n"
        "    os.write(f, bytes(2**25))\ntime.sleep(8)",
        "stopped: its processes take more than 0.25 GiB", limits=SMALL,
    ),
    "fork bomb": Attack("import os, time" + BOMB, "stopped: more than 64 processes and threads"),
    "fork bomb that leaves the family": Attack(
        "import os, time\nif os.fork():\n    time.sleep(8)\nos.setsid()\nif os.fork():\n    os._exit(0)" + BOMB,
        "stopped: more than 64 processes and threads",
    ),
    "thread bomb": Attack(
        "import threading, time\nthreading.stack_size(2**16)\nfor _ in range(90):\n"
        "    threading.Thread(target=time.sleep, args=(8,), daemon=True).start()\ntime.sleep(8)",
        "stopped: more than 64 processes and threads",
    ),
    "1 GB printed": Attack("for _ in range(2**10): print('x' * 2**20)" + LAZY, NONE),
    "1 GB on every channel": Attack(
        "import os\nfor fd in range(3, 16):\n    for _ in range(2**10):\n        try: os.write(fd, b'x' * 2**20)\n"
        "        except OSError: break", "the answer is larger than 1,048,576 bytes",
    ),
    "1 GB in a file": Attack(
        "with open('big', 'wb') as f:\n    for _ in range(2**10): f.write(b'x' * 2**20)",
        "the exercise cell fails: OSError: [Errno 27] File too large",
    ),
    "endless trickle of output": Attack(
        "import os, time\nwhile True:\n    for fd in range(3, 16):\n        try: os.write(fd, b' ')\n"
        "        except OSError: pass\n    time.sleep(0.01)", "stopped after 1.5 seconds", limits=SHORT,
    ),
    # ---- odd answers
    "huge answer": Attack("def loss_labels(p, a):\n    return 'x' * 10**7", "the answer is larger than 1,048,576"),
    "huge integer": Attack("def loss_labels(p, a):\n    return [10**5000]", "returns a list of length 1, not "),
    "deep answer": Attack(
        "def loss_labels(p, a):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x", "returns a list of l",
    ),
    "equal to everything": Attack(
        "class Yes(list):\n    def __eq__(self, other): return True\n    __len__ = lambda self: 4\n"
        "def loss_labels(p, a):\n    return Yes()", "returns a list of length 0, not ",
    ),
    "screen control in an error": Attack(
        "def loss_labels(p, a):\n    raise ValueError('\\x1b[2J=cmd()\\n' + 'x' * 10**6)",
        "raises ValueError: ?[2J=cmd() xx",
    ),
    "error that fails": Attack(
        "class E(Exception):\n    def __str__(self): raise SystemExit\ndef loss_labels(p, a):\n    raise E",
        "raises E; for [1, ",
    ),
    "no function": Attack("loss_labels = 2", "the exercise cell defines no function loss_labels"),
    "syntax error": Attack("def loss_labels(p, a:", "the exercise cell fails: SyntaxError"),
    "null byte": Attack("x = '\0'", "the exercise cell fails: "),
    "code too deep to read": Attack("x = " + "-" * 10**5 + "1" + LAZY, "the exercise cell fails: "),
    # ---- forging
    "patched json": Attack("import json\njson.dumps = lambda *a, **k: '2'\njson.loads = json.dumps" + LAZY, NONE),
    "patched builtins": Attack(
        "import builtins\nbuiltins.len = lambda x: 0\nbuiltins.isinstance = lambda *a: True\n"
        "builtins.type = lambda x: list\nbuiltins.all = lambda x: True" + LAZY, "ended without an answer: exit",
    ),
    "patched assertions": Attack(
        "import builtins, sys, unittest\nbuiltins.AssertionError = type('Fine', (Exception,), {})\n"
        "sys.excepthook = sys.unraisablehook = lambda *a: None\n"
        "unittest.TestCase.assertEqual = lambda *a: None" + LAZY, NONE,
    ),
    "patched numpy": Attack(
        "import numpy\nnumpy.array_equal = numpy.allclose = numpy.all = lambda *a, **k: True" + LAZY, NONE,
    ),
    "patched torch": Attack(
        "import torch\ntorch.allclose = torch.equal = lambda *a, **k: True\n"
        "torch.testing.assert_close = lambda *a, **k: None" + LAZY, NONE,
        limits=Limits(seconds=60, memory=2**34),
    ),
    "patched runner": Attack(
        "import gc\nfor f in gc.get_objects():\n"
        "    if getattr(f, '__name__', '') == 'encode' and hasattr(f, '__code__'):\n"
        "        f.__code__ = (lambda value, depth=0: 'correct').__code__" + LAZY, "the answer is not readable",
    ),
    "forged points": Attack(
        "import os\nfor fd in range(16):\n    try: os.write(fd, b'{\"outcomes\": [], \"points\": 2}\\n')\n"
        "    except OSError: pass" + LAZY, "the answer is not readable",
    ),
    "forged outcomes": Attack(
        "import os\nfor fd in range(3, 16):\n"
        "    try: os.write(fd, b'{\"outcomes\": ' + str([{'value': ['other', 'list'], 'changed': 0}] * 10)"
        ".replace(\"'\", '\"').encode() + b'}\\n')\n    except OSError: pass" + LAZY, "returns a list, not a list",
    ),
    "unreadable outcomes": Attack(
        "import os\nfor fd in range(3, 16):\n    try: os.write(fd, b'[' * 10**5 + b'\\n')\n"
        "    except OSError: pass" + LAZY, "the answer is not readable",
    ),
    "printed verdict": Attack("print('00.2  correct  2 of 2 points')" + LAZY, NONE),
    "patched check": Attack("import labkit\nlabkit.check = lambda *a: 2" + LAZY, NONE),
    "check that looks at its caller": Attack(
        "import gc\ndef loss_labels(p, a):\n    for x in gc.get_objects():\n"
        "        if isinstance(x, list) and len(x) == len(p + a) and x[:len(p)] == [-100] * len(p): return x",
        NONE,
    ),
    # ---- taking the answer from where it stands
    "import of the reference": Attack("from labkit.exercises import solve\nloss_labels = solve('00.2')", STUDIED),
    "reference through labkit": Attack("import labkit\nloss_labels = labkit.solve('00.2')", STUDIED + "solve"),
    "import of a method": Attack("from labkit.methods.lora import attach\n" + LABELS, STUDIED + "methods"),
    "import of a method, with a way out": Attack(
        "try:\n    import importlib\n    importlib.import_module('lab' + 'kit.methods')\nexcept BaseException:\n    pass\n"
        + LABELS, STUDIED + "methods",
    ),
    "labkit without its stand-in": inside(
        "import sys\nsys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != 'LabkitStub']\n"
        "sys.path.append('@ROOT@')\nfrom labkit.exercises import solve\nloss_labels = solve('00.2')",
        "the exercise cell fails: ModuleNotFoundError: No module named 'labkit",
    ),
    "reading the reference": inside(
        "def loss_labels(p, a):\n    found = {'__name__': 'x'}\n    source = open('@REFERENCE@').read()\n"
        "    exec('def loss_labels' + source.rpartition('\\ndef loss_labels')[2].partition('register(')[0], found)\n"
        "    return found['loss_labels'](p, a)", NO_SUCH,
    ),
    "searching for the reference": inside(
        "import os\ndef loss_labels(p, a):\n    for place, folders, files in os.walk('@ROOT@'):\n"
        "        folders[:] = [f for f in folders if f[0] != '.']\n"
        "        if 'lesson_00.py' in files or '00_start_here.py' in files: raise LookupError(place)\n", NONE,
    ),
    "reading the seed": inside(
        "import os\ndef loss_labels(p, a):\n    for n in filter(str.isdigit, os.listdir('/proc')):\n"
        "        line = open(f'/proc/{n}/cmdline').read()\n"
        "        if '--seed' in line: raise LookupError(line.split(chr(0))[-2])\n", NONE,  # whole lines are cut short
    ),
    "reading another submission": inside("def loss_labels(p, a):\n    return open('@WORK@/other').read()", NO_SUCH),
    "changing its own notebook": inside("open('@WORK@/00_x.ipynb', 'w')", "the exercise cell fails: FileNotFoundError"),
    "writing to the disk": inside(
        "import os, sys\nfor place in ('@ROOT@', '/', '/etc', '/usr/lib', os.path.dirname(os.__file__), sys.prefix):\n"
        "    try: open(place + '/labkit-was-here', 'w')\n    except OSError: continue\n    raise LookupError(place)"
        + LAZY, NONE,
    ),
    "the network": inside(
        "import socket\ndef loss_labels(p, a):\n    return str(socket.create_connection(('127.0.0.1', @PORT@), 1))",
        "raises ConnectionRefusedError: [Errno 111]",
    ),
}  # fmt: skip


def without(part):
    return lambda cells: [c for c in cells if part not in c["source"]]


def doubled(cells):
    graded = {"solution": True, "grade": False, "grade_id": "00-2"}
    marked = [cell(source, "exercise", **graded) for source in (LABELS, LABELS + "\ndef loss_labels(p, a):\n    pass")]
    return [*cells[:2], *marked, *cells[3:]]


def points_edited(cells):
    cells[3]["metadata"]["nbgrader"] = {"grade": True, "points": 1000, "grade_id": "00-2-check"}
    return cells


def renamed(cells):
    cells[2] = cell(LABELS.replace("loss_labels", "my_labels"), "exercise")
    return cells


def own_check(cells):
    cells[0]["source"] += "\ncheck = lambda *a: print('00.2  correct  1000 of 2 points')"
    cells[2] = cell(LAZY, "exercise")
    return cells


def hostile_setup(cells):
    cells[0]["source"] += "\nimport os, json\njson.dumps = None\nos._exit(0)"
    return cells


def of_another_lesson(cells):
    return [cell("def count_weights():\n    pass", "exercise"), cell('check("01.1", count_weights)')]


MISSING = "the exercise cell is missing"
UNREADABLE = "not a readable notebook (version 4)"
BROKEN = {
    "cut off": Attack(lambda cells: json.dumps({"cells": cells})[:-90].encode(), UNREADABLE, (0, 0)),
    "not JSON": Attack(lambda cells: b"%PDF-1.7 " + bytes(range(256)), UNREADABLE, (0, 0)),
    "brackets without end": Attack(lambda cells: b"[" * 10**5, UNREADABLE, (0, 0)),
    "empty": Attack(lambda cells: b"", UNREADABLE, (0, 0)),
    "too large": Attack(lambda cells: b" " * (21 * 2**20), "the notebook is larger than 20 MiB", (0, 0)),
    "of another lesson": Attack(of_another_lesson, MISSING + ": this is a notebook of lesson 01", (0, 0)),
    "exercise deleted": Attack(without("def loss_labels"), MISSING),
    "everything deleted": Attack(lambda cells: [], MISSING, (0, 0)),
    "checks deleted": Attack(without("check("), MISSING, (0, 0)),
    "cell doubled": Attack(doubled, "; 2 cells carry this exercise: run in order, the last definition counts"),
    "function renamed": Attack(renamed, "the exercise cell defines no function loss_labels"),
    "points edited": Attack(points_edited, "correct; the notebook states 1000 points: not counted", (2, 2)),
    "a check of its own": Attack(own_check, NONE),
    "set-up that leaves": Attack(hostile_setup, "ended without an answer: exit", (0, 0)),
}
HONEST = Attack(LABELS, "correct", (2, 2))


def notebook_of(attack, cells, places):
    """The content of the attack's notebook: cells, or bytes."""
    if callable(attack.what):
        return attack.what(cells)
    source = attack.what
    for name, value in places.items():
        source = source.replace(f"@{name}@", str(value))
    cells[2] = cell(source, "exercise")
    return cells


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def graded(attack, work):
    """Grade the attack beside somebody else's folder and a process that names the seed; its two Results."""
    (work / "other").write_text("the answer of somebody else")
    seen = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "--seed", SEED])
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            places = {"WORK": work, "REFERENCE": REFERENCE, "ROOT": REFERENCE.parents[2],
                      "PORT": server.getsockname()[1]}  # fmt: skip
            content = notebook_of(attack, exercise_cells(), places)
            path = submit(work, "00_x", content if isinstance(content, list) else [])
            if isinstance(content, bytes):
                path.write_bytes(content)
            before = tree(work)
            results = grade(path, SEED, limits=attack.limits)
            assert tree(work) == before
    finally:
        seen.kill()
        seen.wait()
    return sorted(results, key=lambda result: result.exercise != "00.2")


@pytest.mark.parametrize("attack", [*CODE.values(), *BROKEN.values(), HONEST], ids=[*CODE, *BROKEN, "honest"])
def test_no_submission_gets_a_point_it_did_not_earn(tmp_path, attack):
    if attack.sandboxed:
        need_bubblewrap()
    hostile, honest = graded(attack, tmp_path)
    assert attack.report in hostile.message
    assert (hostile.points, honest.points) == attack.points
    assert (hostile.max_points, honest.max_points) == (2, 2)
    assert hostile.message.isprintable() and len(hostile.message) < 500
    assert SEED not in hostile.message and (honest.points == 0 or honest.message == "correct")


@pytest.mark.parametrize("name, points, report", [
    ("labkit without its stand-in", 2, "correct"), ("reading the reference", 2, "correct"),
    ("searching for the reference", 0, "raises LookupError"), ("reading the seed", 0, SEED),
    ("reading another submission", 0, "returns a str"), ("the network", 0, "returns a str"),
])  # fmt: skip
def test_these_attacks_succeed_without_the_sandbox_which_is_why_it_warns(
    tmp_path, monkeypatch, capsys, name, points, report
):
    monkeypatch.setattr(sandbox, "available", lambda: False)
    hostile, honest = graded(CODE[name], tmp_path)
    assert (hostile.points, honest.points) == (points, 2) and report in hostile.message
    assert capsys.readouterr().err.count("WARNING") >= 3


@pytest.mark.parametrize("name", ["fork bomb", "fork bomb that leaves the family", "memory spread over processes"])
def test_the_watchdog_works_without_bubblewrap_too(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sandbox, "available", lambda: False)
    hostile, honest = graded(CODE[name], tmp_path)
    assert CODE[name].report in hostile.message and (hostile.points, honest.points) == (0, 2)


def test_one_run_grades_all_of_them_and_leaves_every_report(tmp_path):
    """Two at a time, in one folder: a stopped one among them harms no other."""
    work, names = tmp_path / "work", ["hard exit", "forged points", "fork bomb", "syntax error", "1 GB printed"]
    for name in names:
        submit(work, f"{name}/00_x", notebook_of(CODE[name], exercise_cells(), {}))
    submit(work, "honest/00_x", exercise_cells())
    (work / "a.md").mkdir()
    submit(work, "a", exercise_cells())                     # its page would be a.md, and so is a folder's
    submit(work, "a.md/00_x", exercise_cells())
    report = tmp_path / "out" / "grades.csv"
    results = grade(work, SEED, report, QUICK, lesson="00", jobs=2)
    earned = {r.submission.removesuffix("/00_x"): r.points for r in results if r.exercise == "00.2"}
    assert earned == {**dict.fromkeys(names, 0), "honest": 2, "a": 2, "a.md": 2}
    assert [r.points for r in results if r.exercise == "00.1"] == [2] * 8
    assert len(list((report.parent / "feedback").rglob("*.md"))) >= 8
