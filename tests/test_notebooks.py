"""What every committed notebook must be, and proof that these checks and nbval can fail."""

import os
import re
import statistics
import subprocess
import symtable
import sys

import nbformat
import pytest

from labkit import paths
from labkit.build import stale
from labkit.build.learner import learner, solution_bodies, stub
from labkit.nbval_plugin import FLAGS
from labkit.records.ledger import table

SOLUTIONS = sorted(paths.SOLUTIONS.glob("*.ipynb"))
LEARNERS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
BLANKED = {"exercise", "check"}  # a learner's notebook stores no outputs of these
COMPARED = 6


def read(path):
    return nbformat.read(path, as_version=4)


def tags(cell):
    return set(cell.metadata.get("tags", []))


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def unexecuted(notebook, blanked=frozenset()):
    return [c.source for c in code(notebook) if c.execution_count is None and not tags(c) & blanked]


def errors(notebook):
    allowed = {"raises-exception", "nbval-raises-exception"}
    return [
        output.ename
        for cell in code(notebook)
        for output in cell.outputs
        if output.output_type == "error" and not tags(cell) & allowed
    ]


def compared(notebook):
    """Cells whose stored output nbval compares on any machine; claims tables read records."""
    return [
        cell
        for cell in code(notebook)
        if "nbval-check-output" in tags(cell)
        and not tags(cell) & {"gpu", "nbval-skip"}
        and cell.outputs
        and "claims(" not in cell.source
    ]


def old_claims(notebook):
    """Lessons whose claims are stored as they are no more: `labkit build --refresh` prints them anew."""
    found = []
    for cell in code(notebook):
        asked = re.fullmatch(r'claims\("(\d\d)"\)', cell.source.strip())
        if asked and "".join(out.get("text", "") for out in cell.outputs).splitlines() != table(asked[1]):
            found.append(asked[1])
    return found


def wrong_lengths(notebook):
    lengths = [len(cell.source.splitlines()) for cell in code(notebook)]
    faults = [f"a cell of {n} lines" for n in lengths if n > 40]
    if lengths and statistics.median(lengths) >= 10:
        faults.append(f"median {statistics.median(lengths)} lines")
    return faults


def from_records(notebook):
    """Names that a cell reads and only cells tagged `recorded` bind: those cells are no part of a record."""
    bound, wanted = {True: set(), False: set()}, set()
    for cell in code(notebook):
        prints = "recorded" in tags(cell)
        lines = [line for line in cell.source.splitlines() if not line.lstrip().startswith(("%", "!"))]
        scopes = [symtable.symtable("\n".join(lines), "cell", "exec")]
        bound[prints] |= {s.get_name() for s in scopes[0].get_symbols() if s.is_assigned() or s.is_imported()}
        while scopes and not prints:
            scope = scopes.pop()
            scopes += scope.get_children()
            wanted |= {s.get_name() for s in scope.get_symbols() if s.is_referenced() and not s.is_local()}
            if scope.get_type() == "module":
                wanted |= {s.get_name() for s in scope.get_symbols() if s.is_referenced()}
    return sorted(wanted & (bound[True] - bound[False]))


def broken_fences(notebook):
    """Lines of prose with a code fence that does not stand alone, and notebooks' cells with one left open."""
    found = []
    for cell in notebook.cells:
        fences = [line for line in cell.source.splitlines() if cell.cell_type == "markdown" and "```" in line]
        found += [line for line in fences if not re.fullmatch(r" *```\w*", line)]
        found += [cell.source] * (len(fences) % 2)
    return found


def images_without_alt(notebook):
    """Sources of cells that show an image with no alt text: in its metadata or its text form."""
    without = []
    for cell in code(notebook):
        for output in cell.outputs:
            for kind in (k for k in output.get("data", {}) if k.startswith("image/")):
                described = output.metadata.get("alt") or output.metadata.get(kind, {}).get("alt")
                text = output.data.get("text/plain", "")
                if not described and re.match(r"<Figure size|$", text):
                    without.append(cell.source)
    return without


def leaks(solution, shown):
    """Solution text found in a learner's notebook."""
    found = [cell.source for cell in code(shown) if "BEGIN SOLUTION" in cell.source]
    lines = {c.id: "\n".join(line.strip() for line in c.source.splitlines() if line.strip())
             for c in shown.cells}  # fmt: skip
    for cell in solution.cells:
        if "solution" in tags(cell) and cell.id in lines:
            found.append(cell.source)
        if "exercise" in tags(cell):
            for body in map("\n".join, solution_bodies(cell)):
                # A short body such as `return x` may well stand in another cell.
                places = lines.values() if len(body) > 40 else [lines.get(cell.id, "")]
                found += [body for place in places if body in place]
    return found


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_a_solution_notebook_was_executed_to_the_end_without_errors(path):
    assert unexecuted(read(path)) == []
    assert errors(read(path)) == []


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_a_lesson_has_enough_compared_cells(path):
    assert len(compared(read(path))) >= COMPARED


@pytest.mark.parametrize("path", SOLUTIONS + LEARNERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_cells_are_short_and_the_notebook_travels(path):
    assert wrong_lengths(read(path)) == []
    assert path.stat().st_size < 600_000


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_what_is_measured_wants_nothing_of_cells_that_print_records(path):
    assert from_records(read(path)) == []


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_text_set_as_code_stays_apart_from_prose(path):
    assert broken_fences(read(path)) == []


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_every_figure_has_alt_text(path):
    assert images_without_alt(read(path)) == []


@pytest.mark.parametrize("path", LEARNERS, ids=lambda path: path.stem)
def test_a_learner_notebook_shows_no_solution_and_keeps_demonstrations(path):
    shown = read(path)
    assert leaks(read(paths.SOLUTIONS / path.name), shown) == []
    assert unexecuted(shown, BLANKED) == [] and errors(shown) == []


def test_nothing_committed_is_stale():
    assert stale() == []


# Negative controls: each rule above, on a planted defect and on its sound twin.


def cell(source, *tag, text=None, count=1):
    new = nbformat.v4.new_code_cell(source, metadata={"tags": list(tag)} if tag else {})
    new.execution_count = count
    if text is not None:
        new.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    return new


def of(*cells):
    return nbformat.v4.new_notebook(cells=list(cells))


def test_the_rules_notice_unexecuted_cells_errors_and_long_cells():
    assert unexecuted(of(cell("x"))) == [] and unexecuted(of(cell("x", count=None))) == ["x"]
    assert unexecuted(of(cell("x", "check", count=None)), BLANKED) == []
    failed = cell("1/0")
    failed.outputs = [nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]
    assert errors(of(failed)) == ["E"]
    failed.metadata["tags"] = ["raises-exception"]
    assert errors(of(failed)) == []
    assert wrong_lengths(of(cell("x\n" * 41), cell("x"), cell("x"))) == ["a cell of 41 lines"]
    assert wrong_lengths(of(cell("x\n" * 10))) == ["median 10 lines"]


def test_the_rules_notice_what_is_read_from_cells_that_print_records():
    prints = cell("shown = [1]\nimport re\nfor one in shown:\n    print(one)", "recorded")
    alone = [cell("def f(shown):\n    return shown"), cell("%%gpu\nprint([one for one in range(2)])")]
    assert from_records(of(prints, *alone, cell("other = 1"), cell("other", "recorded"))) == []
    read = [cell("print(shown)"), cell("def f():\n    return one")]
    assert from_records(of(prints, *read)) == ["one", "shown"]
    assert from_records(of(prints, cell("re.sub"), cell("shown = 2"), cell("shown"))) == ["re"]


def test_the_rules_notice_a_fence_within_prose():
    def prose(text):
        return of(nbformat.v4.new_markdown_cell(text))

    assert broken_fences(prose("a\n\n```text\nx  | y\n```\n\nb `c`")) == []
    assert broken_fences(prose("```text x | y\n```")) == ["```text x | y"]
    assert len(broken_fences(prose("```\nx"))) == 1


def test_the_rules_count_only_what_nbval_really_compares():
    tag = "nbval-check-output"
    assert len(compared(of(cell("x", tag, text="1")))) == 1
    assert compared(of(cell("x", text="1"), cell("x", tag), cell("x", tag, "gpu", text="1"))) == []
    assert compared(of(cell("claims('00')", tag, text="1"))) == []


def test_the_rules_notice_an_image_without_alt_text():
    shown = cell("plot()")
    data = {"image/png": "x", "text/plain": "<Figure size 1>"}
    shown.outputs = [nbformat.v4.new_output("display_data", data)]
    assert images_without_alt(of(shown)) == ["plot()"]
    shown.outputs[0].metadata = {"image/png": {"alt": "Loss falls"}}
    assert images_without_alt(of(shown)) == []


def test_the_rules_notice_a_solution_that_leaks():
    body = "    scale = weights.abs().amax(dim=1)\n    return weights / scale"
    exercise = cell(f"def f(weights):\n    # BEGIN SOLUTION\n{body}\n    # END SOLUTION", "exercise")
    solution = of(exercise, cell("print('note')", "solution"))
    assert leaks(solution, learner(solution)) == []
    assert len(leaks(solution, solution)) == 3
    pasted = learner(solution)
    pasted.cells.append(cell(f"def g(weights):\n{body}"))
    assert len(leaks(solution, pasted)) == 1
    assert body not in stub(exercise)


def nbval(folder, notebook, **environment):
    """Run nbval with the project's flags on a notebook; returns the exit code and the report."""
    path = folder / "tiny.ipynb"
    nbformat.write(notebook, path)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *FLAGS, "-rs", "-q", "-p", "no:cacheprovider", "-c", os.devnull,
         "--rootdir", str(folder), str(path)],
        cwd=folder, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(paths.ROOT), **environment},
    )  # fmt: skip
    return run.returncode, run.stdout


SOUND = cell("print(2 + 2)", "nbval-check-output", text="4\n")
WRONG = cell("print(2 + 2)", "nbval-check-output", text="5\n")


def test_nbval_fails_on_a_planted_wrong_output_and_passes_its_twin(tmp_path):
    assert nbval(tmp_path, of(SOUND, cell("print(3)", text="not compared")))[0] == 0
    status, report = nbval(tmp_path, of(SOUND, WRONG))
    assert status == 1 and "1 failed, 1 passed" in report


def test_what_libraries_say_on_stderr_is_not_compared(tmp_path):
    warned = "import sys; print('a warning', file=sys.stderr); print(2 + 2)"
    right, wrong = (cell(warned, "nbval-check-output", text=text) for text in ("4\n", "5\n"))
    assert "1 failed, 1 passed" in nbval(tmp_path, of(right, wrong))[1]


def test_the_plugin_skips_gpu_cells_without_a_card_and_nothing_else(tmp_path):
    pretend = {"CUDA_VISIBLE_DEVICES": ""}  # so that this also holds on a GPU machine
    status, report = nbval(tmp_path, of(cell("1 / 0", "gpu"), SOUND, cell("1 / 0")), **pretend)
    assert status == 1 and "1 failed, 1 passed, 1 skipped" in report and "no CUDA card" in report


def test_smoke_executes_cells_it_does_not_compare(tmp_path):
    loose = cell("print(2 + 2)", "nbval-check-output", "smoke-skip-compare", text="5\n")
    notebook = of(loose, cell("1 / 0", "smoke-skip-compare"))
    assert "1 failed, 1 passed" in nbval(tmp_path, notebook, LABKIT_PROFILE="smoke")[1]
    assert "2 failed" in nbval(tmp_path, notebook, LABKIT_PROFILE="cpu")[1]


@pytest.mark.parametrize("path", [*SOLUTIONS, *LEARNERS], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_claims_are_stored_as_the_ledger_prints_them_now(path):
    notebook = read(path)
    assert old_claims(notebook) == []
    (cell,) = (cell for cell in code(notebook) if "claims(" in cell.source and "import" not in cell.source)
    cell.outputs[0].text = cell.outputs[0].text.replace(":", ";", 1)
    assert old_claims(notebook) == [path.name[:2]]  # the control
