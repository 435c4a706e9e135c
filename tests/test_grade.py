"""Grading: points are what an answer earned, whatever the notebook around it does."""

import csv
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labkit.errors import LabkitError
from labkit.exercises import find, notebook, sandbox
from labkit.exercises.grade import draw_seed, grade, main
from labkit.exercises.sandbox import Limits

QUICK = Limits(seconds=10, memory=2**30)

LABELS = "def loss_labels(prompt_ids, answer_ids):\n    return [-100] * len(prompt_ids) + answer_ids\n"
MATCH = """\
def exact_match(answers, golds):
    right = 0
    for a, g in zip(answers, golds):
        try:
            right += json.loads(a) == g
        except ValueError:
            pass
    return right / len(golds)
"""
SETUP = "%matplotlib inline\nimport json\nfrom labkit import check, load\nrows = load('tickets')\nimport math"


def cell(source, *tags, **nbgrader):
    metadata = {"tags": list(tags)} | ({"nbgrader": nbgrader} if nbgrader else {})
    return {"cell_type": "code", "id": "x", "metadata": metadata, "source": source, "outputs": [],
            "execution_count": None}


def exercise_cells(first=LABELS, second=MATCH):
    return [
        cell(SETUP, "setup"),
        {"cell_type": "markdown", "id": "m", "metadata": {}, "source": ["# Text"]},
        cell(first, "exercise"), cell('check("00.2", loss_labels)'),
        cell(second, "exercise"), cell('check("00.1", exact_match)'),
    ]


def submit(folder, name, cells):
    path = folder / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))
    return path


def points(results):
    return {(r.submission, r.exercise): r.points for r in results}


def one(tmp_path, cells, limits=QUICK, **options):
    """Grade one submission and return its two results, that of `loss_labels` first."""
    results = grade(submit(tmp_path, "00_x", cells), "secret", limits=limits, **options)
    return sorted(results, key=lambda result: result.exercise != "00.2")


@pytest.fixture
def bwrap():
    if sandbox.available():
        return
    if os.environ.get("LABKIT_REQUIRE_TOOLS") == "1":
        pytest.fail("bubblewrap is required here (LABKIT_REQUIRE_TOOLS=1) and does not work")
    pytest.skip("bubblewrap is not installed, or user namespaces are not allowed here")


@pytest.fixture
def no_bwrap(monkeypatch):
    monkeypatch.setattr(sandbox, "available", lambda: False)


def test_each_submission_gets_the_points_it_earned_in_every_report(tmp_path):
    work = tmp_path / "work"
    submit(work, "ada/00_first", exercise_cells())
    submit(work, "bob/00_first", exercise_cells(second=find("00.1").stub))
    unmasked = LABELS.replace("[-100] * len(prompt_ids)", "prompt_ids")
    submit(work, "cyd/00_first", exercise_cells(first=unmasked))
    submit(work, "ada/.ipynb_checkpoints/00_first-checkpoint", exercise_cells())
    (work / "dan").mkdir()
    (work / "dan/00_first.ipynb").write_text('{"cells": [')
    submit(work, "=eve|<b>/00_first", [c for c in exercise_cells() if "exact_match" not in c["source"]])
    report = tmp_path / "out" / "grades.csv"
    results = grade(work, "secret", report, QUICK)
    assert points(results) == {
        ("=eve|<b>/00_first", "00.2"): 2, ("=eve|<b>/00_first", "00.1"): 0,
        ("ada/00_first", "00.2"): 2, ("ada/00_first", "00.1"): 2,
        ("bob/00_first", "00.2"): 2, ("bob/00_first", "00.1"): 0,
        ("cyd/00_first", "00.2"): 0, ("cyd/00_first", "00.1"): 2,
        ("dan/00_first", "00.2"): 0, ("dan/00_first", "00.1"): 0,
    }
    messages = {(r.submission[:3], r.exercise): r.message for r in results}
    assert messages["ada", "00.2"] == "correct"
    assert messages["bob", "00.1"] == "not attempted yet"
    assert messages["cyd", "00.2"] == "nothing is masked: the prompt's labels must be -100"
    assert messages["dan", "00.2"].startswith("not a readable notebook")
    assert messages["=ev", "00.1"] == "the exercise cell is missing"

    rows = list(csv.DictReader(report.open(newline="")))
    assert list(rows[0]) == ["submission", "exercise", "points", "max_points", "message"]
    assert len(rows) == 10 and rows[0]["submission"].startswith("'=")     # not a formula
    totals = json.loads(report.with_suffix(".json").read_text())["submissions"]
    assert [s["points"] for s in totals] == [2, 4, 2, 2, 0] and {s["max_points"] for s in totals} == {4}
    pages = sorted(str(p.relative_to(report.parent)) for p in report.parent.rglob("*.md"))
    assert pages == [f"feedback/{n}/00_first.md" for n in ("=eve|<b>", "ada", "bob", "cyd", "dan")]
    assert "**2 of 4 points**" in (report.parent / "feedback/cyd/00_first.md").read_text()
    assert "secret" not in "".join(p.read_text() for p in report.parent.rglob("*.*") if p.is_file())


def test_the_command_writes_reports_and_prints_totals(tmp_path, capsys):
    submit(tmp_path / "in", "00_ada", exercise_cells())
    report = tmp_path / "grades.csv"
    assert main([str(tmp_path / "in"), "--seed", "s", "--report", str(report), "--seconds", "20"]) == 0
    assert re.search(r"^00_ada +4 of 4 points$", capsys.readouterr().out, re.M)
    assert report.exists() and (tmp_path / "feedback/00_ada.md").exists()


@pytest.mark.parametrize("arguments, message", [
    (["nowhere", "--seed", "s"], "no such file"), ([".", "--seed", "s"], "no notebooks"),
    ([".", "--seed", "s", "--lesson", "98"], "lesson 98 has no exercises"),
])
def test_the_command_says_what_is_wrong_with_its_arguments(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabkitError, match=message):
        main(arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_seed_decides_the_inputs_so_public_answers_learned_by_heart_earn_nothing(tmp_path):
    exercise = find("00.2")
    table = {repr(args): exercise.reference(*args) for args in exercise.draw(0)}
    by_heart = f"table = {table!r}\ndef loss_labels(p, a):\n    return table.get(repr((p, a)))\n"
    first, second = one(tmp_path, exercise_cells(by_heart))
    assert (first.points, second.points) == (0, 2)
    assert draw_seed("a", exercise) != draw_seed("b", exercise) != draw_seed("b", find("00.1"))


def test_cells_are_found_by_grade_id_by_check_cell_and_without_any_tags():
    marked = [cell("A", solution=True, grade=False, grade_id="exercise-00-1"),
              cell("B", solution=True, grade=False, grade_id="00.2"),
              cell("C", solution=False, grade=True, grade_id="test-00-2")]
    _, found = notebook.answers([notebook._cell(c) for c in marked])
    assert {k: v.cells for k, v in found.items()} == {"00.1": ["A"], "00.2": ["B"]}
    for tags in (["exercise"], []):
        between = [cell("print(2)")] if tags else []
        cells = [cell("def f(): 1", *tags), *between, cell('x = 1\ncheck("00.2", f)')]
        _, found = notebook.answers([notebook._cell(c) for c in cells])
        assert found["00.2"].cells == ["def f(): 1"] and found["00.2"].function == "f"
    unrelated = [cell("def g(): 1"), cell('check("00.2", f)')]
    _, found = notebook.answers([notebook._cell(c) for c in unrelated])
    assert found["00.2"].cells == []


def test_a_renamed_function_counts_and_a_missing_import_is_explained(tmp_path):
    renamed = exercise_cells(LABELS.replace("loss_labels", "mine"))
    renamed[3] = cell("check('00.2', mine)")
    assert one(tmp_path, renamed)[0].points == 2
    unimported = one(tmp_path, exercise_cells()[1:])[1]
    assert unimported.points == 0
    assert unimported.message.startswith("raises NameError: name 'json' is not defined")
    assert unimported.message.endswith("only set-up and exercise cells are run: define it there")


def test_a_notebook_of_another_name_is_still_graded_on_every_exercise_of_its_lesson(tmp_path):
    submit(tmp_path, "ada", exercise_cells()[:4])
    (tmp_path / "bob.ipynb").write_text("not json")
    assert points(grade(tmp_path, "s", limits=QUICK)) == {
        ("ada", "00.2"): 2, ("ada", "00.1"): 0, ("bob", "00.2"): 0, ("bob", "00.1"): 0,
    }
    (result,) = grade(tmp_path / "bob.ipynb", "s")
    assert (result.exercise, result.points, result.max_points) == ("-", 0, 0)
    assert [r.exercise for r in grade(tmp_path / "bob.ipynb", "s", lesson="00")] == ["00.1", "00.2"]


def test_a_link_to_someone_elses_notebook_is_not_a_submission(tmp_path):
    solved = submit(tmp_path / "elsewhere", "00_solved", exercise_cells())
    (tmp_path / "work").mkdir()
    (tmp_path / "work/00_me.ipynb").symlink_to(solved)
    assert [r.points for r in grade(tmp_path / "work", "s", limits=QUICK)] == [0, 0]


LAZY = "\ndef loss_labels(p, a):\n    return None\n"
HOSTILE = {
    "exit at the top": "import sys\nsys.exit(0)",
    "exit in the call": "import sys\ndef loss_labels(p, a):\n    sys.exit(0)",
    "hard exit": "import os\ndef loss_labels(p, a):\n    os._exit(0)",
    "kill everything": "import os\ndef loss_labels(p, a):\n    os.kill(os.getpid(), 9)",
    "endless loop": "while True: pass",
    "endless call": "def loss_labels(p, a):\n    while True: pass",
    "memory bomb": "x = []\nwhile True: x.append(bytearray(2**26))",
    "memory bomb in the call": "def loss_labels(p, a):\n    return [0] * 2**33",
    "huge answer": "def loss_labels(p, a):\n    return 'x' * 10**7",
    "huge integer": "def loss_labels(p, a):\n    return [10**5000]",
    "deep answer": "def loss_labels(p, a):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x",
    "equal to everything": (
        "class Yes(list):\n    def __eq__(self, other): return True\n    __len__ = lambda self: 4\n"
        "def loss_labels(p, a):\n    return Yes()"
    ),
    "patched json": "import json\njson.dumps = lambda *a, **k: '2'\njson.loads = json.dumps" + LAZY,
    "patched builtins": (
        "import builtins\nbuiltins.len = lambda x: 0\nbuiltins.isinstance = lambda *a: True\n"
        "builtins.type = lambda x: list\nbuiltins.all = lambda x: True" + LAZY
    ),
    "patched runner": (
        "import sys, gc\nfor f in gc.get_objects():\n"
        "    if getattr(f, '__name__', '') == 'encode' and hasattr(f, '__code__'):\n"
        "        f.__code__ = (lambda value, depth=0: 'correct').__code__" + LAZY
    ),
    "forged output": (
        "import os\nfor fd in range(16):\n    try: os.write(fd, b'{\"outcomes\": [], \"points\": 2}\\n')\n"
        "    except OSError: pass" + LAZY
    ),
    "forged outcomes": (
        "import os\nfor fd in range(3, 16):\n"
        "    try: os.write(fd, b'{\"outcomes\": ' + str([{'value': ['other', 'list'], 'changed': 0}] * 10)"
        ".replace(\"'\", '\"').encode() + b'}\\n')\n    except OSError: pass" + LAZY
    ),
    "unreadable outcomes": (
        "import os\nfor fd in range(3, 16):\n    try: os.write(fd, b'[' * 10**5 + b'\\n')\n"
        "    except OSError: pass" + LAZY
    ),
    "endless trickle of output": (
        "import os, time\nwhile True:\n    for fd in range(3, 16):\n"
        "        try: os.write(fd, b' ')\n        except OSError: pass\n    time.sleep(0.01)"
    ),
    "printed verdict": "print('00.2  correct  2 of 2 points')" + LAZY,
    "no function": "loss_labels = 2",
    "syntax error": "def loss_labels(p, a:",
    "null byte": "x = '\0'",
    "import of the reference": "from labkit.exercises import solve\nloss_labels = solve('00.2')",
    "patched check": "import labkit\nlabkit.check = lambda *a: 2" + LAZY,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_exercise_earns_nothing_and_does_not_poison_the_next(tmp_path, name):
    limits = Limits(seconds=1.5, memory=2**30) if "endless" in name else QUICK
    hostile, right = one(tmp_path, exercise_cells(HOSTILE[name]), limits)
    assert hostile.points == 0 and hostile.message.isprintable() and len(hostile.message) < 400
    assert (right.points, right.message) == (2, "correct")


@pytest.mark.parametrize("content", [
    "", "[]", "null", '{"cells": 3}', '{"cells": [3]}', '{"cells": [{"cell_type": 1}]}', "[" * 10**5, "\0",
    json.dumps({"cells": [cell("check(" + "-" * 1900 + "1)"), cell("check(" + "(" * 1900)]}),
    json.dumps({"cells": [{"cell_type": "code", "source": [1], "metadata": []}]}),
    json.dumps({"cells": [{"cell_type": "code", "source": "x", "metadata": {"tags": [[]], "nbgrader": 1}}]}),
])
def test_a_broken_notebook_does_not_stop_the_rest(tmp_path, content):
    (tmp_path / "00_bad.ipynb").write_text(content)
    submit(tmp_path, "00_good", exercise_cells())
    assert [r.points for r in grade(tmp_path, "s", limits=QUICK)] == [0, 0, 2, 2]


def test_a_failure_of_the_grader_itself_is_one_row_and_does_not_stop_the_rest(tmp_path, monkeypatch):
    run, broken = sandbox.run, iter([True])

    def fail_once(*args):
        if next(broken, False):
            raise RuntimeError("disk on fire")
        return run(*args)

    monkeypatch.setattr(sandbox, "run", fail_once)
    submit(tmp_path, "00_a", exercise_cells())
    submit(tmp_path, "00_b", exercise_cells())
    results = grade(tmp_path, "s", limits=QUICK)
    assert results[0].message == "could not be graded: RuntimeError: disk on fire"
    assert [r.points for r in results] == [0, 2, 2]


def running(marker):
    return [p for p in Path("/proc").glob("[0-9]*/cmdline") if marker in _read(p)]


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


BACKGROUND = """
import subprocess, sys
marker = "left-" + "over-{id}"
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", marker], start_new_session={detached})
"""


@pytest.mark.parametrize("detached", [True, False])
def test_background_processes_die_with_the_sandbox(tmp_path, bwrap, detached):
    code = BACKGROUND.format(id=tmp_path.name, detached=detached)
    assert [r.points for r in one(tmp_path, exercise_cells(code + LABELS))] == [2, 2]
    time.sleep(0.2)
    assert running(f"left-over-{tmp_path.name}".encode()) == []


def eventually(holds, seconds=10):
    """Whether `holds()` comes true within a while: a killed process takes a moment to go."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


def test_background_processes_of_the_group_die_without_bubblewrap_too(tmp_path, no_bwrap):
    code = BACKGROUND.format(id=tmp_path.name, detached=False)
    assert one(tmp_path, exercise_cells(code + LABELS))[0].points == 2
    assert eventually(lambda: running(f"left-over-{tmp_path.name}".encode()) == [])
    control = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "left-over-control"])
    assert eventually(lambda: len(running(b"left-over-control")) == 1)
    control.kill()
    control.wait()


PROBE = """
import os, socket
def probe(root, path, port):
    seen = {"file": os.path.exists(path), "labkit": False, "network": False, "write": False}
    seen["home"] = os.path.exists("/etc/passwd")
    seen["processes"] = sum(p.isdigit() for p in os.listdir("/proc"))
    for folder, _, files in os.walk(root):
        if folder.startswith(("/proc", "/sys", "/dev")):
            continue
        if "lesson_00.py" in files:
            seen["labkit"] = True
            break
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        seen["network"] = True
    except OSError:
        pass
    for folder in ("/", "/dev", "/dev/shm", os.path.dirname(os.__file__)):
        try:
            name = os.path.join(folder, "labkit-probe")
            open(name, "w").close()
            os.remove(name)
            seen["write"] = True
        except OSError:
            pass
    return seen
"""


def probe(root):
    """What a submission sees, of the files under root and elsewhere: its own word, from inside."""
    reference = Path(sandbox.__file__).with_name("lesson_00.py")
    with socket.create_server(("127.0.0.1", 0)) as server:
        inputs = [(str(root), str(reference), server.getsockname()[1])]
        (outcome,) = sandbox.run([], [PROBE], "probe", inputs, Limits(seconds=30))
    return sandbox.runner.decode(outcome["value"])


def test_the_sandbox_hides_the_reference_the_disk_the_network_and_other_processes(bwrap):
    seen = probe("/")
    assert seen.pop("processes") <= 3
    assert seen == {"file": False, "labkit": False, "network": False, "write": False, "home": False}


def test_the_probe_of_the_sandbox_sees_all_of_this_without_bubblewrap(no_bwrap):
    seen = probe(Path(sandbox.__file__).parent.parent)
    assert seen.pop("processes") > 3
    assert seen == {"file": True, "labkit": True, "network": True, "write": True, "home": True}


def test_a_labkit_among_the_libraries_and_the_submissions_are_covered(tmp_path, monkeypatch, bwrap):
    (tmp_path / "labkit").mkdir()
    (tmp_path / "labkit/lesson_00.py").write_text("reference = 1")
    folders, links = sandbox.system_folders()
    monkeypatch.setattr(sandbox, "system_folders", lambda: ([*folders, str(tmp_path)], links))
    (tmp_path / "work").mkdir()
    (tmp_path / "work/00_else.ipynb").write_text("{}")
    look = f"import os\ndef look():\n    return list(os.walk({str(tmp_path)!r}))"
    (seen,) = sandbox.run([], [look], "look", [()], QUICK)
    assert "lesson_00.py" in str(seen) and "00_else" in str(seen)               # the control
    monkeypatch.syspath_prepend(tmp_path)
    (hidden,) = sandbox.run([], [look], "look", [()], QUICK, hidden=[tmp_path / "work"])
    assert "labkit" in str(hidden) and "lesson_00.py" not in str(hidden) and "00_else" not in str(hidden)


def test_without_bubblewrap_the_grader_warns_loudly_and_still_grades(tmp_path, capsys, no_bwrap):
    report = tmp_path / "grades.csv"
    results = grade(submit(tmp_path, "00_x", exercise_cells(HOSTILE["exit in the call"])), "s", report, QUICK)
    assert {r.exercise: r.points for r in results} == {"00.1": 2, "00.2": 0}
    err = capsys.readouterr().err
    assert err.count("WARNING") >= 3 and "bubblewrap" in err
    assert json.loads(report.with_suffix(".json").read_text())["sandboxed"] is False


def test_with_bubblewrap_there_is_no_warning(tmp_path, capsys, bwrap):
    one(tmp_path, exercise_cells())
    assert capsys.readouterr().err == ""


def test_numpy_can_be_imported_within_the_limits(tmp_path):
    pytest.importorskip("numpy")
    code = "import numpy as np\n" + LABELS.replace("answer_ids\n", "[np.int64(a) for a in answer_ids]\n")
    assert one(tmp_path, exercise_cells(code), Limits(seconds=30))[0].message == "correct"
