"""Every lesson as a learner goes through it: JupyterLab in a browser, run all, look, solve an exercise.

CI takes two lessons, in the small budget of the checks (smoke): LABKIT_PROFILE chooses another.
`make browser-test` takes all of them, with the budget of a machine without a GPU. LABKIT_SCREENSHOTS=FOLDER
keeps pictures of what was seen.
"""

import os
import shutil

import nbformat
import pytest

from labkit import paths
from labkit.build import source
from labkit.exercises import find
from labkit.records.tables import SYLLABUS

if os.environ.get("LABKIT_REQUIRE_TOOLS") != "1":  # a GPU machine has no need of a browser
    pytest.importorskip("playwright")
import browser  # noqa: E402
import page_checks  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.browser]

PROFILE = os.environ.get("LABKIT_PROFILE") or "smoke"
SECONDS = 300 if PROFILE == "smoke" else 1800
IN_CI = ("00_start_here", "01_memory_math")  # the first, and the one with widgets
ALL = os.environ.get("LABKIT_BROWSER_LESSONS") == "all"
CONTROL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def lessons():
    """A parameter for each lesson that has a notebook; skipped where CI alone is asked for."""
    skip = pytest.mark.skipif(not ALL, reason="`make browser-test` runs it")
    stems = [stem for stem, _ in SYLLABUS if (paths.SOLUTIONS / f"{stem}.py").exists()]
    return [pytest.param(stem, marks=[] if stem in IN_CI else [skip]) for stem in stems]


@pytest.fixture
def tools(demand):
    demand(browser.chromium(), "chromium")


def exercise(notebook):
    """(id, index of the cell, index of its check) of the first exercise of a notebook."""
    of = {}
    for i, cell in enumerate(notebook.cells):
        for kind in {"exercise", "check"} & set(cell.metadata.get("tags", [])):
            of.setdefault(cell.metadata["labkit"]["exercise"], {})[kind] = i
    name = min(of)
    return name, of[name]["exercise"], of[name]["check"]


def solved(page, name, cell, check, answer):
    """Whether the check's line turns from red to passed when `answer` is typed into the exercise's cell."""
    points = find(name).points
    before = page_checks.run_cell(page, check)
    page_checks.run_cell(page, cell, answer)
    after = page_checks.run_cell(page, check)
    red = before.startswith(name) and "correct" not in before and f" 0 of {points} " in before
    return red and after.startswith(f"{name}  correct") and f" {points} of {points} " in after


@pytest.mark.parametrize("stem", lessons())
def test_a_lesson_runs_is_readable_and_an_exercise_can_be_solved(stem, tools, tmp_path):
    root = tmp_path / "served"
    kept = shutil.ignore_patterns("out", ".ipynb_checkpoints")
    shutil.copytree(paths.NOTEBOOKS, root / "notebooks", ignore=kept)
    notebook = nbformat.read(root / "notebooks" / f"{stem}.ipynb", as_version=4)
    solution = nbformat.read(paths.SOLUTIONS / f"{stem}.ipynb", as_version=4)
    name, cell, check = exercise(notebook)
    typed = solution.cells[exercise(solution)[1]].source.splitlines()
    answer = "\n".join(line for line in typed if line.strip() not in (source.BEGIN, source.END))
    interactive = any("memory_calculator(" in cell.source for cell in notebook.cells)

    server = browser.jupyterlab(root, tmp_path, profile=PROFILE)
    with server as address, browser.opened(address, f"notebooks/{stem}.ipynb") as page:
        page_checks.run_all(page, SECONDS)
        try:
            assert page_checks.faults(page) == []
            count, dead = page_checks.dead_controls(page)
            assert dead == [] and bool(count) == interactive
            assert solved(page, name, cell, check, answer)
            assert page.errors == []
        finally:
            if os.environ.get("LABKIT_SCREENSHOTS"):
                browser.shoot(page, os.environ["LABKIT_SCREENSHOTS"], stem)


# Negative controls: every check, on a planted defect and on its sound twin.

SHOW = "from labkit import plots\nfig, _ = plots.figure('A finding')\nplots.show(fig, 'An empty plot.')"
BARE = "from IPython import display\nfrom labkit import plots\ndisplay.Image(plots.png(plots.figure('')[0]))"
SLIDER = """import ipywidgets
from IPython.display import display
said = ipywidgets.Label('1')
chosen = ipywidgets.BoundedIntText(1)
chosen.observe(lambda change: setattr(said, 'value', str(change.new)), 'value')
display(ipywidgets.VBox([chosen, said]))"""
STUB = "def loss_labels(prompt_ids, answer_ids):\n    raise NotImplementedError"
RIGHT = "def loss_labels(prompt_ids, answer_ids):\n    return [-100] * len(prompt_ids) + list(answer_ids)"
WRONG = "def loss_labels(prompt_ids, answer_ids):\n    return prompt_ids + answer_ids"


def html(text):
    return f"from IPython.display import HTML\nHTML({text!r})"


def styled(alt, style):
    """A cell that shows a figure with this CSS."""
    code = "base64.b64encode(plots.png(plots.figure('')[0])).decode()"
    tag = f"""'<img alt="{alt}" style="{style}" src="data:image/png;base64,' + {code} + '">'"""
    return f"import base64\nfrom IPython.display import HTML\nfrom labkit import plots\nHTML({tag})"


def opened(tmp_path, *cells):
    """The folder and name of a small notebook: markdown where a text begins with #, else code."""
    new = nbformat.v4
    made = [new.new_markdown_cell(c) if c.startswith("#") else new.new_code_cell(c) for c in cells]
    root = tmp_path / "served"
    root.mkdir()
    nbformat.write(new.new_notebook(cells=made, metadata=CONTROL), root / "small.ipynb")
    return root


def test_a_sound_notebook_has_no_faults_and_a_wrong_answer_is_not_passed(tools, tmp_path):
    check = "from labkit import check\ncheck('00.2', loss_labels)"
    dark = html("<div style='background: #222'><p style='color: #eee'>light on dark</p></div>")
    root = opened(tmp_path, "# One", SHOW, "## Two", SLIDER, dark, "### Three", "## Four", STUB, check)
    with browser.jupyterlab(root, tmp_path) as address, browser.opened(address, "small.ipynb") as page:
        page_checks.run_all(page, 60)
        assert page_checks.faults(page) == []
        assert page_checks.dead_controls(page) == (1, [])
        assert not solved(page, "00.2", 7, 8, WRONG)
        page_checks.run_cell(page, 7, STUB)
        assert solved(page, "00.2", 7, 8, RIGHT)
        assert not solved(page, "00.2", 7, 8, RIGHT)  # it was passed before


def test_every_fault_is_found(tools, tmp_path):
    cells = [
        "# One", "### Three",
        BARE, styled("hidden", "display: none"), styled("squeezed", "width: 700px; height: 90px"),
        styled("faded", "opacity: 0"), html("<img alt='gone' src='data:image/png;base64,AAAA'>"),
        html("<p style='color: #888'>grey</p><p style='opacity: 0.5'>pale</p>"),
        html("<p style='color: #555; background: #777'>mud</p><p style='color: #fff0'>ghost</p>"),
        html("<details>ok<p style='color: yellow'>folded</p></details><p style='color: #666'>enough</p>"),
        "print('Traceback (most recent call last)')", "import ipywidgets\nipywidgets.BoundedIntText(1)",
        "# Another", "1 / 0", "print('never run')",
    ]  # fmt: skip
    root = opened(tmp_path, *cells)
    with browser.jupyterlab(root, tmp_path) as address, browser.opened(address, "small.ipynb") as page:
        page_checks.run_all(page, 60)
        found = page_checks.faults(page)
        assert page_checks.dead_controls(page, seconds=3)[1] == ["keyboard: nothing reacts to number"]
    by_kind = {}
    for fault in found:
        by_kind.setdefault(fault.split(":")[0], []).append(fault)
    assert [text.split(":")[1] for text in by_kind["error"]] == [" cell 11", " cell 14"]
    assert [text.split("(")[1] for text in by_kind["alt"]] == ["no alt)"]
    assert [text.split("(")[1] for text in by_kind["invisible"]] == ["hidden)", "faded)", "gone)"]
    assert len(by_kind["size"]) == 1 and "squeezed" in by_kind["size"][0]
    assert len(by_kind["heading"]) == 2 and "h1 is followed by h3" in by_kind["heading"][0]
    said = [text.rsplit(": ")[-1] for text in by_kind["contrast"]][:5]  # then colours of the traceback
    assert said == ["grey", "pale", "mud", "ghost", "folded"]
