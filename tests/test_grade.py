"""Grading: points are what an answer earned, whatever the notebook around it does."""

import csv
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from submissions import LABELS, QUICK, cell, exercise_cells, need_bubblewrap, submit

from labkit.errors import LabkitError
from labkit.exercises import find, lessons, notebook, of_lesson, sandbox
from labkit.exercises.grade import draw_seed, grade, main
from labkit.exercises.sandbox import Limits
from labkit.paths import NOTEBOOKS, SOLUTIONS


def points(results):
    return {(r.submission, r.exercise): r.points for r in results}


def one(tmp_path, cells, limits=QUICK, **options):
    """Grade one submission and return its two results, that of `loss_labels` first."""
    results = grade(submit(tmp_path, "00_x", cells), "secret", limits=limits, **options)
    return sorted(results, key=lambda result: result.exercise != "00.2")


@pytest.fixture
def bwrap():
    need_bubblewrap()


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


@pytest.mark.parametrize("lesson", sorted({p.name[:2] for p in SOLUTIONS.glob("*.ipynb")} & set(lessons())))
def test_the_courses_own_solutions_get_every_point(lesson):
    (path,) = SOLUTIONS.glob(f"{lesson}_*.ipynb")
    results = grade(path, "s", limits=Limits(seconds=60), jobs=2)
    assert [(r.exercise, r.message) for r in results if r.message != "correct"] == []
    assert [r.points for r in results] == [e.points for e in of_lesson(lesson)]


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_learner_notebooks_carry_what_nbgrader_wants(path):
    """nbgrader's schema 3 and its validator's rules: ids of [A-Za-z0-9_-], once each, points if graded."""
    metadata = [c["metadata"] for c in json.loads(path.read_text())["cells"]]
    marked = [m["nbgrader"] for m in metadata if "nbgrader" in m]
    assert len({m["grade_id"] for m in marked}) == len(marked)
    for m in marked:
        flags = {key: m[key] for key in ("grade", "solution", "locked", "task")}
        assert set(map(type, flags.values())) == {bool} and m["schema_version"] == 3
        assert re.fullmatch(r"[A-Za-z0-9_-]+", m["grade_id"]) and ("points" in m) == m["grade"]
        assert m["locked"] == m["grade"] != m["solution"] and not m["task"]
    points = [m["points"] for m in marked if m["grade"]]
    assert sorted(points) == sorted(e.points for e in of_lesson(path.name[:2]))


def test_reports_go_where_they_are_told(tmp_path):
    path = submit(tmp_path, "00_x", exercise_cells())
    report, json_path, pages = (tmp_path / "out" / name for name in ("a/g.csv", "b/g.json", "c"))
    arguments = ["--report", str(report), "--json", str(json_path), "--feedback", str(pages), "--jobs", "2"]
    assert main([str(path), "--seed", "s", *arguments]) == 0
    assert report.exists() and not report.with_suffix(".json").exists()
    assert json.loads(json_path.read_text())["submissions"][0]["points"] == 4
    assert [p.name for p in pages.iterdir()] == ["00_x.md"]


@pytest.fixture
def runs(monkeypatch):
    """Counts the exercises that are run in a sandbox; `runs.stop_at` ends the grader as Ctrl-C does."""
    class Runs:
        count, stop_at = 0, None

    run, runs = sandbox.run, Runs()

    def counted(*args):
        runs.count += 1
        if runs.count == runs.stop_at:
            raise KeyboardInterrupt
        return run(*args)

    monkeypatch.setattr(sandbox, "run", counted)
    return runs


def test_a_stopped_run_goes_on_where_it_stopped(tmp_path, runs):
    work, report = tmp_path / "work", tmp_path / "out/grades.csv"
    for n in range(3):
        submit(work, f"{n}/00_x", exercise_cells(LABELS + f"# {n}"))
    runs.stop_at = 4                                     # in the middle of the second submission
    with pytest.raises(KeyboardInterrupt):
        grade(work, "s", report, QUICK)
    assert not report.exists() and len(list(tmp_path.glob("out/grades.csv.parts/*.json"))) == 1
    runs.count, runs.stop_at = 0, None
    resumed = grade(work, "s", report, QUICK, resume=True)
    assert runs.count == 4 and report.exists()
    assert resumed == grade(work, "s", limits=QUICK) and [r.points for r in resumed] == [2] * 6


@pytest.mark.parametrize("change", ["seed", "content", "limits", "exercises", "nothing", "damaged part"])
def test_what_a_result_depends_on_is_graded_again_when_it_changes(tmp_path, monkeypatch, runs, change):
    path, report = submit(tmp_path, "00_x", exercise_cells()), tmp_path / "out/grades.csv"
    grade(path, "s", report, QUICK)
    seed, limits = ("other", QUICK) if change == "seed" else ("s", QUICK)
    if change == "content":
        submit(tmp_path, "00_x", exercise_cells(LABELS + "# changed"))
    if change == "limits":
        limits = Limits(seconds=11, memory=2**30)
    if change == "exercises":
        monkeypatch.setattr("labkit.exercises.grade.exercises_digest", lambda: "other")
    if change == "damaged part":
        (part,) = tmp_path.glob("out/*.parts/*.json")
        part.write_text(part.read_text()[:-9])
    runs.count = 0
    assert [r.points for r in grade(path, seed, report, limits, resume=True)] == [2, 2]
    assert runs.count == (0 if change == "nothing" else 2)


def test_parts_do_not_tell_the_seed_and_go_when_a_run_starts_anew(tmp_path):
    path, report = submit(tmp_path, "00_x", exercise_cells()), tmp_path / "out/grades.csv"
    grade(path, "hidden-seed", report, QUICK)
    (part,) = tmp_path.glob("out/*.parts/*")
    assert "hidden-seed" not in part.name + part.read_text() and "00_x" not in part.read_text()
    grade(path, "another", report, QUICK)
    assert part not in set(tmp_path.glob("out/*.parts/*")) and len(list(tmp_path.glob("out/*.parts/*"))) == 1


def test_jobs_change_nothing_but_the_time(tmp_path):
    for n, answer in enumerate((LABELS, "def loss_labels(p, a):\n    raise SystemExit", "x", LABELS + "# 2")):
        submit(tmp_path, f"{n}/00_x", exercise_cells(answer))
    one_by_one = grade(tmp_path, "s", limits=QUICK)
    assert grade(tmp_path, "s", limits=QUICK, jobs=3) == one_by_one
    assert [r.points for r in one_by_one if r.exercise == "00.2"] == [2, 0, 0, 2]


def test_other_cells_give_the_imports_an_answer_uses_and_nothing_else(tmp_path):
    other = cell("import json\nimport os\nos.kill(os.getpid(), 9)")
    assert one(tmp_path, [other, *exercise_cells()[1:]])[1].message == "correct"
    renamed = [cell("import json as json"), *exercise_cells()[1:]]
    assert one(tmp_path, renamed)[1].message == "correct"
    assert "NameError" in one(tmp_path, [cell("json = 1"), *exercise_cells()[1:]])[1].message
    leaving = cell("import json, this_module_does_not_exist as nothing")
    assert one(tmp_path, [leaving, *exercise_cells()[1:]])[1].message == "correct"


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
    assert unimported.message.endswith("only imports, set-up and exercise cells are run: define it there")


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


@pytest.mark.parametrize("detached", [True, False])
def test_background_processes_die_without_bubblewrap_too(tmp_path, no_bwrap, detached):
    code = BACKGROUND.format(id=tmp_path.name, detached=detached)
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
    for folder, inside, files in os.walk(root):
        if folder in ("/proc", "/sys", "/dev"):
            inside.clear()
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
        (outcome,) = sandbox.run([], [PROBE], "probe", inputs, Limits(seconds=120))  # it walks a whole disk
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


@pytest.mark.parametrize("root, covered", [("/tmp/course", True), ("/srv/course", False)])
def test_a_course_in_tmp_cannot_be_written_beside_its_environment(monkeypatch, bwrap, root, covered):
    monkeypatch.setattr(sandbox, "ROOT", Path(root))
    command = " ".join(sandbox.bwrap_command())
    assert (f"--tmpfs {root}" in command) == (f"--remount-ro {root}" in command) == covered


def test_without_bubblewrap_the_grader_warns_loudly_and_still_grades(tmp_path, capsys, no_bwrap):
    report = tmp_path / "grades.csv"
    leaving = exercise_cells("def loss_labels(p, a):\n    raise SystemExit")
    results = grade(submit(tmp_path, "00_x", leaving), "s", report, QUICK)
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
