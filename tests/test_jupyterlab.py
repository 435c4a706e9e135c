"""Both versions of a lesson as a person meets them: in JupyterLab, in a browser."""

import os
import shutil

import nbformat
import pytest

from labkit import paths

if os.environ.get("LABKIT_REQUIRE_TOOLS") != "1":  # a GPU machine has no need of a browser
    pytest.importorskip("playwright")
import browser  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.browser]

LESSONS = ["notebooks/00_start_here.ipynb", "solutions/00_start_here.ipynb"]
FIRST = 4  # cells: imports and the profile
DRAWN = """() => window.jupyterapp.shell.currentWidget.content.widgets.map(cell => ({
    type: cell.model.type,
    text: cell.node.innerText.trim(),
    output: (cell.node.querySelector('.jp-Cell-outputWrapper') ?? {innerText: ''}).innerText.trim(),
    raw: cell.model.sharedModel.getSource(),
    rendered: cell.rendered ?? null,
    tables: cell.node.querySelectorAll('table').length,
}))"""


@pytest.fixture
def tools(demand):
    demand(browser.chromium(), "chromium")


def served(folder, *notebooks):
    """A folder for JupyterLab to serve, with copies of notebooks of the course."""
    folder.mkdir()
    for path in notebooks:
        if not (paths.ROOT / path).is_file():
            pytest.fail(f"{path} is missing: run `python -m labkit build --execute`")
        (folder / path).parent.mkdir(exist_ok=True)
        shutil.copy(paths.ROOT / path, folder / path)
    return folder


def unrendered(cells):
    """The markdown cells that show their source, or a table that stayed text."""
    return [
        cell["raw"]
        for cell in cells
        if cell["type"] == "markdown"
        and (not cell["rendered"] or not cell["text"] or ("\n|--" in cell["raw"]) != bool(cell["tables"]))
    ]


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_opens_is_drawn_whole_and_its_first_cells_run(lesson, tools, tmp_path):
    root = served(tmp_path / "served", lesson)
    count = len(nbformat.read(root / lesson, as_version=4).cells)
    server = browser.jupyterlab(root, tmp_path, profile="smoke")
    with server as address, browser.opened(address, lesson) as page:
        before = page.evaluate(DRAWN)
        assert len(before) == count and unrendered(before) == []
        browser.run(page, FIRST, seconds=50)
        after = page.evaluate(DRAWN)
        assert not [cell["output"] for cell in after[:FIRST] if "Traceback" in cell["output"]]
        assert "profile smoke" in " ".join(cell["output"] for cell in after[:FIRST])
        assert unrendered(after) == []
        if os.environ.get("LABKIT_SCREENSHOTS"):
            browser.shoot(page, os.environ["LABKIT_SCREENSHOTS"], lesson.replace("/", "_")[: -len(".ipynb")])
        else:
            page.screenshot(path=tmp_path / "lesson.png")
        assert page.errors == []


def test_widgets_and_tables_are_drawn_and_failures_are_noticed(tools, tmp_path):
    new = nbformat.v4
    cells = [
        new.new_markdown_cell("# Small\n\n| a | b |\n|---|---|\n| 1 | 2 |"),
        new.new_code_cell("import ipywidgets\nipywidgets.IntSlider(value=3, description='rank')"),
        new.new_code_cell("from IPython.display import HTML\nHTML('<b id=\"shown\">bold</b>')"),
        new.new_code_cell("1 / 0"),
    ]
    root = served(tmp_path / "served")
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(new.new_notebook(cells=cells, metadata=kernel), root / "small.ipynb")
    with browser.jupyterlab(root, tmp_path) as address, browser.opened(address, "small.ipynb") as page:
        browser.run(page, 3)
        page.wait_for_selector(".jupyter-widgets.widget-slider", timeout=15_000)
        page.wait_for_selector("#shown", timeout=5_000)
        drawn = page.evaluate(DRAWN)
        assert unrendered(drawn) == [] and "rank" in drawn[1]["output"]
        assert "ZeroDivisionError" not in drawn[3]["output"]  # only the first three ran

        # The controls: an error, source in place of its rendering, and a script that fails are all seen.
        browser.run(page)
        page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.widgets[0].rendered = false; }")
        page.evaluate("() => { setTimeout(() => { throw new Error('planted'); }); }")
        page.wait_for_timeout(300)
        drawn = page.evaluate(DRAWN)
        assert "ZeroDivisionError" in drawn[3]["output"] and "Traceback" in drawn[3]["output"]
        assert unrendered(drawn) == [cells[0].source]
        assert any("planted" in error for error in page.errors)
