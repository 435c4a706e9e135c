"""Both notebooks of every lesson from one source: `python -m labkit build [NN ...] [--execute] [--check]`.

`solutions/NN_name.py` becomes `solutions/NN_name.ipynb` (everything) and `notebooks/NN_name.ipynb`
(for learners). Building twice gives the same bytes, and outputs of unchanged cells stay.
"""

import argparse
import copy
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat

from labkit import paths
from labkit.build import source
from labkit.build.learner import learner
from labkit.build.outputs import carry
from labkit.errors import LabkitError

BLOCK = re.compile(r"(<!-- generated:([\w.:-]+) -->\n)(.*?)(<!-- end -->)", re.S)


def _fill(name, lesson):
    from labkit.records import tables

    return tables.fill(name, lesson)


def _points(exercise):
    from labkit.exercises import find

    return find(exercise).points


@dataclass(frozen=True)
class Course:
    """The folders that a build reads and writes, and where its tables and points come from.

    `fill(name, lesson)` gives the text of a placeholder or of a generated block (lesson:
    `"00_start_here"`, or None in a README); `points(exercise)` the points of exercise `"00.1"`.
    """

    solutions: Path = paths.SOLUTIONS
    notebooks: Path = paths.NOTEBOOKS
    readmes: tuple = (
        *(folder / "README.md" for folder in (paths.ROOT, paths.NOTEBOOKS, paths.SOLUTIONS, paths.DATA)),
        paths.DATA / "CLAIMS.md",
    )
    fill: Callable = _fill
    points: Callable = _points


def main(argv):
    """The command `build`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m labkit build", description=__doc__.splitlines()[0])
    parser.add_argument("lessons", nargs="*", metavar="NN", help="lesson numbers (default: all)")
    parser.add_argument("--execute", action="store_true", help="run the lessons and store their outputs")
    parser.add_argument("--record", action="store_true", help="with --execute: write data/measurements too")
    parser.add_argument("--refresh", action="store_true", help="run only cells that print records (recorded)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is stale")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds a cell may take (default: 1800)")
    options = parser.parse_args(argv)
    if options.check + options.execute + options.refresh > 1:
        parser.error("--check, --execute and --refresh exclude each other")
    if options.check:
        lines = stale(options.lessons)
        for line in lines:
            print(line)
        print(f"{len(lines)} stale: run `python -m labkit build`" if lines else "everything is up to date")
        return 1 if lines else 0
    if options.record and not options.execute:
        parser.error("--record needs --execute")
    how = {"timeout": options.timeout, "record": options.record, "refresh": options.refresh}
    for name in build(options.lessons, options.execute, **how):
        print("wrote", name)
    return 0


def build(lessons=(), execute=False, course=None, timeout=1800, record=False, refresh=False):
    """Write what is out of date and return the names of the files written.

    With `execute`, each solution notebook is run under the current profile first; a lesson that
    fails leaves its files as they were. `record` also writes what each run cost and measured. `refresh` runs
    only cells tagged `recorded`, whose output is the same on any machine, and keeps the others' outputs.
    Raises `LabkitError` for a faulty source or a failing cell.
    """
    course = course or Course()
    written = []
    for path in source.find(lessons, course.solutions):
        run = _executed(path, course, timeout, record) if execute else None
        if refresh:
            run = _refreshed(path, course, timeout)
        written += _write(wanted(path, course, run))
    return written + _write(wanted_readmes(course))


def stale(lessons=(), course=None):
    """One line for each file that a build would change: its name and why."""
    course = course or Course()
    sources = source.find(lessons, course.solutions)
    lines = []
    for path in sources:
        for target, text in wanted(path, course).items():
            if _text(target) != text:
                lines.append(f"{_name(target)}: {_difference(_text(target), text)}")
    if not lessons:
        stems = {path.stem for path in sources}
        for folder in (course.solutions, course.notebooks):
            for file in sorted(folder.glob("*.ipynb")):
                if file.stem not in stems:
                    lines.append(f"{_name(file)}: has no source {course.solutions.name}/{file.stem}.py")
    for target, text in wanted_readmes(course).items():
        if _text(target) != text:
            names = zip(BLOCK.findall(_text(target)), BLOCK.findall(text), strict=True)
            block = next(new[1] for old, new in names if old != new)
            lines.append(f"{_name(target)}: the generated block `{block}` differs")
    return lines


def wanted(path, course, executed=None):
    """`{file: text}` of both notebooks of the lesson source at `path`.

    Outputs come from `executed` where given, else from the stored solution notebook.
    """
    target = path.with_suffix(".ipynb")
    notebook = source.read(path, course.points)
    if executed is not None:
        carry(notebook, executed)
    elif target.exists():
        try:
            carry(notebook, nbformat.read(target, as_version=4))
        except (ValueError, nbformat.ValidationError, AttributeError) as error:
            raise LabkitError(
                f"{_name(target)} is no valid notebook ({str(error).splitlines()[0]}); "
                "restore it, or delete it and build with --execute"
            ) from error
    source.fill_placeholders(notebook, path, course.fill, path.stem)
    return {
        target: _serialised(notebook, target),
        course.notebooks / target.name: _serialised(learner(notebook), course.notebooks / target.name),
    }


def wanted_readmes(course):
    """`{file: text}` of every README there is, its generated blocks renewed."""
    texts = {}
    for path in course.readmes:
        if path.exists():
            texts[path] = _renewed(_text(path), course.fill, _name(path))
    return texts


def _renewed(text, fill, name):
    if text.count("<!-- generated:") != len(BLOCK.findall(text)):
        raise LabkitError(f"{name}: a `<!-- generated:NAME -->` line without its `<!-- end -->`")
    return BLOCK.sub(lambda found: f"{found[1]}{source.filled(fill, found[2], None, name)}\n{found[4]}", text)


def _executed(path, course, timeout, record):
    from labkit.execute import run
    from labkit.records.lesson import run_and_record

    if record:
        return run_and_record(source.read(path, course.points), path.parent, path.stem, timeout)[0]
    return run(source.read(path, course.points), path.parent, timeout=timeout, name=path.stem)[0]


def _refreshed(path, course, timeout):
    """The stored notebook, of which the first code cells (imports) and those tagged `recorded` ran anew."""
    from labkit.execute import run

    notebook = source.read(path, course.points)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    again = [cell for cell in code if "recorded" in source.tags(cell)]
    if path.with_suffix(".ipynb").exists():
        carry(notebook, nbformat.read(path.with_suffix(".ipynb"), as_version=4))
    if again:
        labkit = re.compile(r"^(import|from) labkit\b", re.MULTILINE)
        first = next((number for number, cell in enumerate(code) if labkit.search(cell.source)), 0)
        wanted = {cell["id"] for cell in again}
        # Imports that ran before keep what they printed.
        cells = [copy.deepcopy(cell) if cell["id"] not in wanted and cell.execution_count else cell
                 for number, cell in enumerate(code) if number <= first or cell["id"] in wanted]  # fmt: skip
        part = nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)
        run(part, path.parent, timeout=timeout, name=path.stem)
    for number, cell in enumerate(code, 1):
        if cell.execution_count is not None:
            cell.execution_count = number  # what a run of the whole gives it
    return notebook


def _serialised(notebook, path):
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        raise LabkitError(f"{_name(path)} would be no valid notebook: {error.message}") from error
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def _write(texts):
    """Write what differs: all temporary files first, then the renames. Returns names."""
    changed = {path: text for path, text in texts.items() if _text(path) != text}
    temporary = {path: path.with_name(f".{path.name}.tmp{os.getpid()}") for path in changed}
    try:
        for path, text in changed.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary[path].write_text(text, encoding="utf-8", newline="\n")
        for path in changed:
            os.replace(temporary[path], path)
    finally:
        for file in temporary.values():
            file.unlink(missing_ok=True)
    return [_name(path) for path in changed]


def _text(path):
    """The file's text with its line ends as they are, or None where there is no file."""
    return path.read_bytes().decode("utf-8", errors="replace") if path.exists() else None


def _name(path):
    return f"{path.parent.name}/{path.name}" if path.parent != paths.ROOT else path.name


def _difference(old, new):
    """Where a stored notebook first differs from the one a build would write, in one line."""
    if old is None:
        return "is missing"
    try:
        old_cells, new_cells = json.loads(old)["cells"], json.loads(new)["cells"]
    except (ValueError, KeyError, TypeError):
        return "is no notebook"
    for number, (before, after) in enumerate(zip(old_cells, new_cells, strict=False), 1):
        if before != after:
            first = next((line.strip() for line in after["source"] if line.strip()), "")
            keys = ("source", "cell_type", "metadata", "outputs")
            what = next((key for key in keys if before.get(key) != after.get(key)), "its id or count")
            return f"cell {number} ({first[:60]}) differs in {what}"
    if len(old_cells) != len(new_cells):
        return f"has {len(old_cells)} cells, not {len(new_cells)}"
    return "differs in notebook metadata or in formatting"


