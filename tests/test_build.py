"""The notebook build: deterministic, honest about what is stale, and strict with its sources."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from labkit import build as command
from labkit import execute, magic, paths
from labkit.build import Course, build, outputs, stale
from labkit.errors import LabkitError

SAMPLE = Path(__file__).parent / "fixtures" / "00_sample.py"
CHECK_CELL = '# %%\ncheck("00.1", double)\n'
# What nbgrader 0.9's v3.json allows: field, type, and the pattern of ids.
NBGRADER = {
    "schema_version": int, "grade": bool, "solution": bool, "locked": bool, "task": bool,
    "points": (int, float), "grade_id": str,
}  # fmt: skip


@pytest.fixture
def course(tmp_path):
    (tmp_path / "solutions").mkdir()
    shutil.copy(SAMPLE, tmp_path / "solutions")
    (tmp_path / "README.md").write_text("# Course\n<!-- generated:syllabus -->\nold\n<!-- end -->\nkept\n")
    tables = {"card": "| budget |", "syllabus": "| lessons |"}
    return Course(
        solutions=tmp_path / "solutions",
        notebooks=tmp_path / "notebooks",
        readmes=(tmp_path / "README.md",),
        fill=lambda name, lesson: f"{tables[name]} {lesson}\n",
        points=lambda exercise: {"00.1": 2}[exercise],
    )


def edit(course, old, new):
    source = course.solutions / SAMPLE.name
    text = source.read_text()
    assert text.count(old) >= 1, old
    source.write_text(text.replace(old, new, 1))


def notebook(folder):
    return nbformat.read(folder / "00_sample.ipynb", as_version=4)


def cell(folder, part):
    return next(c for c in notebook(folder).cells if part in c.source)


def pretend_executed(course):
    """Give each code cell of the stored solution notebook an output, without a kernel."""
    path = course.solutions / "00_sample.ipynb"
    stored = notebook(course.solutions)
    for number, c in enumerate((c for c in stored.cells if c.cell_type == "code"), 1):
        c.execution_count = number
        c.outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"output {number}\n")]
    nbformat.write(stored, path)
    build(course=course)


def contents(course):
    return {p: p.read_bytes() for p in sorted(course.solutions.parent.rglob("*")) if p.is_file()}


def test_a_second_build_writes_nothing_and_a_fresh_one_gives_the_same_bytes(course):
    assert build(course=course)
    first = contents(course)
    assert build(course=course) == []
    for path in first:
        if path.suffix == ".ipynb":
            path.unlink()
    build(course=course)
    assert contents(course) == first
    assert all(data.endswith(b"}\n") for path, data in first.items() if path.suffix == ".ipynb")


def test_equal_cells_get_different_ids(course):
    build(course=course)
    ids = [c.id for c in notebook(course.solutions).cells]
    assert len(set(ids)) == len(ids)


def test_outputs_stay_with_unchanged_cells_and_leave_changed_ones(course):
    build(course=course)
    pretend_executed(course)
    edit(course, 'print("sum:"', 'print("total:"')
    edit(course, "# ## Take-away", "# ## Other words")
    build(course=course)
    assert cell(course.solutions, "total:").outputs == []
    assert cell(course.solutions, "total:").execution_count is None
    assert cell(course.solutions, "the end").outputs[0].text.startswith("output")
    assert cell(course.notebooks, "the end").outputs[0].text.startswith("output")


def test_a_new_tag_or_a_new_number_in_a_table_costs_no_outputs(course):
    build(course=course)
    pretend_executed(course)
    edit(course, '# %%\nprint("the end")', '# %% tags=["nbval-check-output"]\nprint("the end")')
    renewed = Course(
        course.solutions, course.notebooks, course.readmes, lambda name, lesson: "other", course.points
    )
    assert build(course=renewed)
    assert all(c.outputs for c in notebook(course.solutions).cells if c.cell_type == "code")
    assert "other" in notebook(course.notebooks).cells[0].source


def test_the_learner_gets_a_stub_and_neither_solution_nor_its_outputs(course):
    build(course=course)
    pretend_executed(course)
    text = (course.notebooks / "00_sample.ipynb").read_text()
    for secret in ("SOLUTION", "secret_factor", "for instructors only"):
        assert secret in (course.solutions / "00_sample.ipynb").read_text()
        assert secret not in text
    exercise = cell(course.notebooks, "def double")
    lines = exercise.source.splitlines()
    assert lines[-2:] == ["    # YOUR CODE HERE", "    raise NotImplementedError"]
    compile(exercise.source, "cell", "exec")
    for c in (exercise, cell(course.notebooks, 'check("00.1"')):
        assert (c.outputs, c.execution_count) == ([], None)
    assert cell(course.notebooks, "sum:").outputs


def test_nbgrader_metadata_follows_schema_3(course):
    build(course=course)
    for folder in (course.solutions, course.notebooks):
        graded = [c for c in notebook(folder).cells if "nbgrader" in c.metadata]
        exercise, checked = (c.metadata["nbgrader"] for c in graded)
        assert exercise == dict(
            schema_version=3, grade=False, solution=True, locked=False, task=False, grade_id="00-1"
        )
        assert checked == dict(
            schema_version=3, grade=True, solution=False, locked=True, task=False, points=2,
            grade_id="00-1-check",
        )  # fmt: skip
        for meta in (exercise, checked):
            assert all(isinstance(value, NBGRADER[key]) for key, value in meta.items())
            assert meta["grade_id"].replace("-", "").isalnum()  # nbgrader allows no dot in an id
        assert [c.metadata["labkit"]["exercise"] for c in graded] == ["00.1", "00.1"]
        assert "check" in graded[1].metadata["tags"]


def test_both_notebooks_get_the_real_magic(course):
    build(course=course)
    for folder in (course.solutions, course.notebooks):
        assert cell(folder, "only with a card").source.startswith("%%gpu\n")


def test_placeholders_and_blocks_are_filled_and_unknown_ones_are_named(course):
    build(course=course)
    assert notebook(course.notebooks).cells[0].source.endswith("| budget | 00_sample")
    readme = course.readmes[0].read_text()
    assert "-->\n| lessons | None\n<!-- end -->\nkept" in readme and "old" not in readme
    edit(course, "{{card}}", "{{crad}}")
    with pytest.raises(LabkitError, match=r"00_sample.py, cell 1 .*`crad`"):
        build(course=course)
    course.readmes[0].write_text("<!-- generated:syllabus -->\nno end\n")
    edit(course, "{{crad}}", "{{card}}")
    with pytest.raises(LabkitError, match="README.md: .*without its"):
        build(course=course)


def test_check_names_the_stale_file_and_the_cell_and_writes_nothing(course):
    build(course=course)
    assert stale(course=course) == []
    edit(course, '"the end"', '"The End"')
    course.readmes[0].write_text(course.readmes[0].read_text().replace("| lessons |", "| typed |"))
    (course.notebooks / "07_orphan.ipynb").write_text("{}")
    before = contents(course)
    lines = stale(course=course)
    assert contents(course) == before
    assert len(lines) == 4
    assert lines[0].startswith("solutions/00_sample.ipynb: cell 11 (print(\"The End\")) differs in source")
    assert "notebooks/00_sample.ipynb: cell 10" in lines[1]
    assert "07_orphan.ipynb: has no source" in lines[2]
    assert "README.md: the generated block `syllabus` differs" in lines[3]


def test_check_sees_a_learner_notebook_edited_by_hand_or_missing(course):
    build(course=course)
    target = course.notebooks / "00_sample.ipynb"
    target.write_text(target.read_text().replace("raise NotImplementedError", "return 4"))
    assert "notebooks/00_sample.ipynb: cell 7 (def double(x):) differs in source" in stale(course=course)
    target.unlink()
    assert stale(course=course) == ["notebooks/00_sample.ipynb: is missing"]


def test_the_command_checks_with_exit_code_1(course, monkeypatch, capsys):
    monkeypatch.setattr(command, "Course", lambda: course)
    assert command.main(["--check"]) == 1
    assert command.main(["0"]) == 0
    assert command.main(["--check"]) == 0
    assert "is missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    # END SOLUTION\n", "", r"cell 7 \(def double\(x\):\): `# BEGIN SOLUTION` without"),
        ("    # BEGIN SOLUTION\n", "", "`# END SOLUTION` without `# BEGIN"),
        ("    # END SOLUTION\n", "    # BEGIN SOLUTION\n", "a second"),
        ("    # END SOLUTION", "        # END SOLUTION", "indented differently"),
        ('# %% tags=["exercise"]', "# %%", "without the tag `exercise`"),
        ('# %% tags=["solution"]', '# %% tags=["exercise"]', "holds no `# BEGIN"),
        ('# %% tags=["solution"]', '# %% tags=["soltuion"]', "unknown tag soltuion"),
        ('# %% tags=["solution"]', '# %% tags=["gpu"]', "does not begin with `%%gpu`"),
        (CHECK_CELL, "", "no `check.*` follows this exercise"),
        (CHECK_CELL, CHECK_CELL + CHECK_CELL, "no exercise cell stands before"),
        (CHECK_CELL, CHECK_CELL + "print(1)\n", "in a cell of its own"),
        ('check("00.1"', 'check("03.1"', "belongs to another lesson"),
        ('check("00.1"', 'check("one"', "must be an exercise id"),
    ],
)
def test_a_faulty_source_is_refused_with_file_and_cell(course, old, new, message):
    edit(course, old, new)
    with pytest.raises(LabkitError, match=message) as caught:
        build(course=course)
    assert str(caught.value).startswith("solutions/00_sample.py, cell ")
    assert not (course.solutions / "00_sample.ipynb").exists()


def test_an_exercise_without_specification_is_named(course):
    edit(course, 'check("00.1"', 'check("00.99"')
    with pytest.raises(LabkitError, match=r"00_sample.py, cell 8 .*no points for exercise 00.99"):
        build(course=course)
    with pytest.raises(LabkitError, match="no exercise '00.99'"):
        Course().points("00.99")
    assert Course().points("00.1") > 0


def test_an_unknown_lesson_is_refused_with_the_list_of_those_there(course):
    with pytest.raises(LabkitError, match="no lesson 42 .*00_sample"):
        build(["42"], course=course)


def test_a_broken_stored_notebook_is_named_and_not_overwritten(course):
    build(course=course)
    (course.solutions / "00_sample.ipynb").write_text("<<<<<<< conflict")
    with pytest.raises(LabkitError, match="00_sample.ipynb is no valid notebook"):
        build(course=course)


def test_execution_stores_clean_outputs_in_both_notebooks(course, monkeypatch):
    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    setup = "from labkit import magic\nmagic._has_gpu = lambda: False\nmagic.register()\n"
    edit(course, "import sys\n", "import sys\n" + setup)
    build(execute=True, course=course)
    first = contents(course)
    code = [c for c in notebook(course.solutions).cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    noisy = cell(course.notebooks, "step 1").outputs
    assert noisy[0].text == "step 3\n" and noisy[1].data["text/plain"] == "<object at 0x...>"
    assert "no recorded run" in cell(course.notebooks, "%%gpu").outputs[0].text
    assert stale(course=course) == []
    build(execute=True, course=course)
    assert contents(course) == first


def test_a_failing_cell_leaves_everything_as_it_was(course):
    build(course=course)
    edit(course, 'print("the end")', "1 / 0")
    edit(course, '# %% tags=["gpu"]\n# %%gpu\n', "# %%\n")
    before = contents(course)
    with pytest.raises(LabkitError, match=r"00_sample, cell 11 \(1 / 0\) failed: ZeroDivisionError"):
        build(execute=True, course=course)
    assert contents(course) == before


def code_notebook(*sources):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def test_a_run_reports_seconds_and_peak_memory_and_adds_no_cell(tmp_path):
    cost = {}
    sources = ("import time; time.sleep(0.3)", "", "x = bytearray(10**6)")
    nb, seconds, each = execute.run(code_notebook(*sources), tmp_path, progress=False, cost=cost)
    assert sorted(each) == [1, 3] and 0.3 < each[1] < seconds
    assert len(nb.cells) == 3 and cost["process"] > 10**7 and cost["cuda"] is None
    text = execute.report("00_x", nb, seconds, each, cost)
    assert "cell 1: import time" in text and "GiB" in text and "profile" in text


def test_asking_for_the_peak_leaves_no_name_no_count_and_no_cell_behind(tmp_path):
    seen = "print(sorted({'json', 'sys', 'resource', 'torch', '_labkit_peak'} & set(globals())))"
    nb, _, _ = execute.run(code_notebook("import sys", seen), tmp_path, progress=False, cost={})
    assert nb.cells[1].outputs[0].text == "['sys']\n"  # the lesson's own, and the control
    assert [c.execution_count for c in nb.cells] == [1, 2] and len(nb.cells) == 2


def test_the_peak_of_a_run_is_the_largest_seen_though_counting_began_anew():
    cost = {}
    for found in ({"process": 5, "cuda": None}, {"process": 9, "cuda": 7}, {}, {"process": 9, "cuda": 3}):
        execute._keep_largest(cost, found)
    assert cost == {"process": 9, "cuda": 7}


def test_refresh_runs_only_the_cells_that_print_records(course):
    heading = "# %% [markdown]\n# ## Exercise"
    edit(course, heading, f'# %% tags=["recorded"]\nprint("from a record:", bool(sys.argv))\n\n{heading}')
    build(course=course)
    pretend_executed(course)
    before = {c.id: c for c in notebook(course.solutions).cells}
    assert any("solutions" in name for name in build(course=course, refresh=True))
    after = {c.id: c for c in notebook(course.solutions).cells}
    changed = [c for name, c in after.items() if c != before[name]]
    assert ["".join(o.text for o in c.outputs) for c in changed] == ["from a record: True\n"]
    assert changed[0].execution_count == before[changed[0].id].execution_count
    assert cell(course.notebooks, "from a record").outputs == changed[0].outputs
    assert build(course=course, refresh=True) == []


def test_refresh_runs_what_comes_before_the_imports_too_and_a_recorded_cell_there_once(course):
    early = '# %% tags=["recorded"]\nearly = 1\nprint("early")'
    edit(course, "# %%\nimport", f"{early}\n\n# %%\nfrom labkit import env\nimport")
    edit(course, '# %%\nprint("the end")', '# %% tags=["recorded"]\nprint(early, env.profile())')
    build(course=course)
    pretend_executed(course)
    build(course=course, refresh=True)
    assert cell(course.solutions, "early, env").outputs[0].text.startswith("1 ")
    assert [one.text for one in cell(course.solutions, 'print("early")').outputs] == ["early\n"]


def test_refresh_counts_new_cells_as_a_run_of_the_whole_would(course):
    build(course=course)
    pretend_executed(course)
    edit(course, '# %%\nprint("the end")', '# %% tags=["recorded"]\nprint("new")\n\n# %%\nprint("the end")')
    edit(course, "# %%\nimport", "# %%\nfrom labkit import env\nimport")
    build(course=course)
    counts = [c.execution_count for c in notebook(course.solutions).cells if c.cell_type == "code"]
    assert counts.count(None) == 2
    build(course=course, refresh=True)
    counts = [c.execution_count for c in notebook(course.solutions).cells if c.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_a_cell_keeps_its_outputs_when_only_comments_or_docstrings_change(course):
    build(course=course)
    pretend_executed(course)
    before = cell(course.solutions, "def double")
    edit(course, "def double(x):\n", "def double(x):  # twice\n")
    build(course=course)
    after = cell(course.solutions, "# twice")
    assert (after.outputs, after.execution_count) == (before.outputs, before.execution_count) != ([], None)
    edit(course, "def double(x):  # twice\n", "def double(x, y=1):\n")
    build(course=course)
    assert (after := cell(course.solutions, "y=1")).outputs == [] and after.execution_count is None


def test_refresh_of_a_cell_that_wants_more_than_imports_names_it_and_writes_nothing(course):
    edit(course, '# %%\nprint("the end")', '# %% tags=["recorded"]\nprint(double)')
    build(course=course)
    before = contents(course)
    with pytest.raises(LabkitError, match=r"print\(double\).*NameError"):
        build(course=course, refresh=True)
    assert contents(course) == before


def test_the_lesson_command_runs_the_learner_notebook_and_changes_no_file(course, monkeypatch, capsys):
    edit(course, '# %% tags=["gpu"]\n# %%gpu\n', "# %%\n")
    build(course=course)
    monkeypatch.setattr(paths, "SOLUTIONS", course.solutions)
    monkeypatch.setattr(paths, "NOTEBOOKS", course.notebooks)
    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    before = contents(course)
    assert execute.main(["00"]) == 0
    printed = capsys.readouterr()
    assert "00_sample: 0." in printed.out and "profile smoke" in printed.out and "GiB" in printed.out
    assert "00_sample: Take-away" in printed.err  # the progress bar names the section
    assert contents(course) == before
    (course.notebooks / "00_sample.ipynb").unlink()
    with pytest.raises(LabkitError, match="not built yet"):
        execute.main(["0"])


def test_a_dead_kernel_and_an_endless_cell_are_told_apart(tmp_path):
    with pytest.raises(LabkitError, match="cell 1 .*kernel died"):
        execute.run(code_notebook("import os; os._exit(1)"), tmp_path, progress=False)
    with pytest.raises(LabkitError, match="cell 1 .*still running after 1 s"):
        execute.run(code_notebook("while True: pass"), tmp_path, progress=False, timeout=1)


def test_control_c_stops_the_kernel(tmp_path):
    sources = ["import os; open('pid', 'w').write(str(os.getpid()))", "import time; time.sleep(60)"]
    script = (
        "import nbformat; from labkit.execute import run\n"
        f"run(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in {sources!r}]), '.')"
    )
    environment = {**os.environ, "PYTHONPATH": str(paths.ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background shells ignore it
    )  # fmt: skip
    pid_file = tmp_path / "pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text())
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in child.communicate(timeout=20)[1]
    with pytest.raises(ProcessLookupError):
        wait_until(lambda: os.kill(int(pid_file.read_text()), 0))


def wait_until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def test_widget_views_go_and_progress_bars_keep_their_last_line():
    new = nbformat.v4.new_output
    nb = code_notebook("x")
    nb.cells[0].outputs = [
        new("display_data", {outputs.WIDGET: {"model_id": "1"}, "text/plain": "HBox()"}),
        new("stream", name="stderr", text="\r 10%|#  |\r"),
        new("stream", name="stderr", text="100%|###|\ndone\n\r 5%\r       \r"),
        new("stream", name="stdout", text="\n"),
        new("display_data", {"text/plain": "kept"}),
    ]
    outputs.clean(nb)
    assert [o.get("text", o.get("data")) for o in nb.cells[0].outputs] == [
        "100%|###|\ndone\n",
        "\n",
        {"text/plain": "kept"},
    ]


@pytest.fixture
def shell(monkeypatch, tmp_path):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr(paths, "MEASUREMENTS", tmp_path)
    magic.register()
    return shell


def test_a_lesson_whose_notebook_is_behind_its_source_is_not_recorded(monkeypatch):
    ran, behind = [], ["solutions/00_start_here.ipynb: cell 3 differs"]
    recorder = "labkit.records.lesson.run_and_record"
    monkeypatch.setattr(recorder, lambda *args: ran.append(args) or (None, 1, {}, {}))
    monkeypatch.setattr("labkit.execute.report", lambda *args: "")
    monkeypatch.setattr("labkit.build.stale", lambda lessons: behind)
    with pytest.raises(LabkitError, match="cell 3 differs.*labkit build"):
        execute.main(["00", "--record"])
    assert not ran
    behind[0] = "notebooks/00_start_here.ipynb: card differs"
    assert execute.main(["00", "--record"]) == 0 and len(ran) == 1


def test_a_gpu_cell_is_recorded_on_a_card_and_read_out_elsewhere(shell, monkeypatch, tmp_path, capsys):
    record = tmp_path / "00_sample.json"
    record.write_text(json.dumps({"machine": {"device": "Card X"}, "scores": [1]}))
    source = "y = 20\nprint('loss', y)\ny + 1  "
    monkeypatch.setenv("LABKIT_RECORD", str(record))
    monkeypatch.setattr(magic, "_has_gpu", lambda: True)
    assert shell.run_cell_magic("gpu", "", source) == 21
    assert shell.user_ns["y"] == 20 and capsys.readouterr().out == "loss 20\n"
    assert json.loads(record.read_text())["scores"] == [1]

    monkeypatch.setattr(magic, "_has_gpu", lambda: False)
    del shell.user_ns["y"]
    shell.run_cell_magic("gpu", "", source + "\n")
    printed = capsys.readouterr().out
    assert printed == "(no GPU here: this is what the recorded run on Card X printed)\nloss 20\n21\n"
    assert "y" not in shell.user_ns
    shell.run_cell_magic("gpu", "", "print('another')")
    assert "no recorded run" in capsys.readouterr().out


def test_a_progress_bar_is_no_part_of_what_a_gpu_cell_printed(shell, monkeypatch, tmp_path):
    record, widget = tmp_path / "r.json", "application/vnd.jupyter.widget-view+json"
    monkeypatch.setenv("LABKIT_RECORD", str(record))
    monkeypatch.setattr(magic, "_has_gpu", lambda: True)
    bar = {"text/plain": "0%| |", widget: {}}
    source = f"for data in ({bar}, {{'text/plain': 'kept'}}):\n    shell.display_pub.publish(data)"
    shell.user_ns["shell"] = shell
    monkeypatch.setattr(shell.display_pub, "publish", lambda *_, **__: None)  # kernels print nothing
    shell.run_cell_magic("gpu", "", source)
    assert list(json.loads(record.read_text())[magic.KEY].values()) == ["kept\n"]


def test_a_failing_gpu_cell_raises_and_records_nothing(shell, monkeypatch, tmp_path):
    record = tmp_path / "r.json"
    monkeypatch.setenv("LABKIT_RECORD", str(record))
    monkeypatch.setattr(magic, "_has_gpu", lambda: True)
    out = sys.stdout
    with pytest.raises(ZeroDivisionError):
        shell.run_cell_magic("gpu", "", "print('begun')\n1 / 0")
    assert not record.exists() and sys.stdout is out


def test_figures_and_silenced_values_of_a_gpu_cell_are_no_text(shell, monkeypatch):
    assert magic._as_text({"image/png": "x", "text/plain": "<Figure>"}).startswith("(a figure")
    assert magic._as_text({"text/markdown": "*x*", "text/plain": "<object>"}) == "*x*\n"
    monkeypatch.setattr(magic, "_has_gpu", lambda: True)
    monkeypatch.delenv("LABKIT_RECORD", raising=False)
    assert shell.run_cell_magic("gpu", "", "5;") is None


def test_the_tee_writes_and_remembers():
    parts, stream = [], io.StringIO()
    print("a", 1, file=magic._Tee(stream, parts))
    assert stream.getvalue() == "".join(parts) == "a 1\n"
