"""Reading a lesson's source (jupytext percent format) and checking it.

`read` gives a notebook with cell ids made from content, tags, exercise ids and nbgrader metadata,
and no outputs. Nothing here writes a file.
"""

import ast
import hashlib
import re

import jupytext
import nbformat

from labkit.errors import LabkitError

TAGS = {
    "check", "exercise", "gpu", "recorded", "setup", "solution",  # ours
    "nbval-check-output", "nbval-ignore-output", "nbval-raises-exception", "nbval-skip",
    "raises-exception", "smoke-skip-compare", "hide-input", "hide-output",
}  # fmt: skip
BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"
PLACEHOLDER = re.compile(r"\{\{([A-Za-z][\w.:-]*)\}\}")
EXERCISE_ID = re.compile(r"\d\d\.\d+")


def find(numbers, solutions):
    """Paths of the lesson sources with these numbers (`"00"`, `"00_start_here"`), or of all lessons.

    Raises `LabkitError` for a number that no file in `solutions` has.
    """
    files = sorted(solutions.glob("[0-9][0-9]_*.py"))
    wanted = []
    for number in numbers:
        stem = number.zfill(2) if number.isdigit() else number
        found = [file for file in files if file.stem == stem or file.stem[:2] == stem]
        if not found:
            there = ", ".join(file.stem for file in files) or "none yet"
            raise LabkitError(f"no lesson {number} in {solutions.name}/; there are: {there}")
        wanted += found
    return sorted(set(wanted)) if numbers else files


def where(path, number, cell):
    """`solutions/00_x.py, cell 3 (def f(x):)`: how every message of the build names a cell."""
    first = next((line for line in cell.source.splitlines() if line.strip()), "")
    return f"{path.parent.name}/{path.name}, cell {number} ({first.strip()[:60]})"


def read(path, points):
    """The notebook of a lesson source, checked, without outputs.

    `points(exercise_id)` gives the points that nbgrader metadata states. Raises `LabkitError`
    naming file and cell where markers, tags or checks are not as they must be.
    """
    raw = jupytext.read(path, fmt="py:percent")
    cells = [_plain(cell) for cell in raw.cells]
    if cells and cells[0].cell_type == "code" and _only_comments(cells[0].source):
        cells = cells[1:]  # the comment that opens the file
    _give_ids(cells)
    for number, cell in enumerate(cells, 1):
        _check_tags(cell, where(path, number, cell))
        if cell.cell_type == "code":
            solution_spans(cell, where(path, number, cell))
    _pair_exercises(path, cells, points)
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    return notebook


def solution_spans(cell, at):
    """Line ranges `(begin, end)` of the marker pairs in a code cell, markers included."""
    tagged = "exercise" in tags(cell)
    spans, begin = [], None
    lines = cell.source.splitlines()
    for i, line in enumerate(lines):
        text = line.strip()
        if text == BEGIN:
            if begin is not None:
                raise LabkitError(f"{at}: a second `{BEGIN}` before `{END}`")
            begin = i
        elif text == END:
            if begin is None:
                raise LabkitError(f"{at}: `{END}` without `{BEGIN}`")
            if _indent(line) != _indent(lines[begin]):
                raise LabkitError(f"{at}: `{BEGIN}` and `{END}` are indented differently")
            if not _indent(line):
                raise LabkitError(
                    f"{at}: the markers stand at the left margin, so the learner's cell would stop "
                    "`Run All`; put the solution inside a function"
                )
            spans.append((begin, i))
            begin = None
        elif BEGIN in line or END in line:
            raise LabkitError(f"{at}: a marker must stand on a line of its own: {text}")
    if begin is not None:
        raise LabkitError(f"{at}: `{BEGIN}` without `{END}`")
    if tagged and not spans:
        raise LabkitError(f"{at}: tagged `exercise`, but holds no `{BEGIN}` ... `{END}`")
    if spans and not tagged and "solution" not in tags(cell):
        raise LabkitError(f"{at}: holds `{BEGIN}` without the tag `exercise`: the learner would see it")
    return spans


def tags(cell):
    """The cell's tags, a list that may be empty."""
    return cell.metadata.get("tags", [])


def fill_placeholders(notebook, path, fill, lesson):
    """Replace each `{{name}}` in markdown cells by `fill(name, lesson)`, in place."""
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "markdown":
            at = where(path, number, cell)
            cell.source = PLACEHOLDER.sub(
                lambda found, at=at: filled(fill, found[1], lesson, at), cell.source
            )


def filled(fill, name, lesson, at):
    """`fill(name, lesson)`, with the place in the message when the name is unknown."""
    try:
        text = fill(name, lesson)
    except (LabkitError, LookupError) as error:
        raise LabkitError(f"{at}: cannot fill `{name}`: {error}") from error
    return text.strip("\n")


def _plain(cell):
    """The cell with its tags and without what jupytext adds (a random id, line counts)."""
    metadata = {key: value for key, value in cell.metadata.items() if key != "lines_to_next_cell"}
    new = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}
    return new.get(cell.cell_type, nbformat.v4.new_raw_cell)(cell.source, metadata=metadata)


def _only_comments(source):
    return all(not line.strip() or line.lstrip().startswith("#") for line in source.splitlines())


def _indent(line):
    return line[: len(line) - len(line.lstrip())]


def _give_ids(cells):
    seen = {}
    for cell in cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def _check_tags(cell, at):
    unknown = set(tags(cell)) - TAGS
    if unknown:
        raise LabkitError(f"{at}: unknown tag {', '.join(sorted(unknown))}; known: {', '.join(sorted(TAGS))}")
    starts = cell.cell_type == "code" and re.match(r"%%gpu\b", cell.source)
    if starts and "gpu" not in tags(cell):
        cell.metadata["tags"] = [*tags(cell), "gpu"]
    if not starts and "gpu" in tags(cell):
        raise LabkitError(f"{at}: tagged `gpu`, but does not begin with `%%gpu`")


def _checked_id(cell, at):
    """The exercise id that a check cell names, or None for any other cell."""
    try:
        body = ast.parse(cell.source).body
    except SyntaxError:
        return None  # a cell with magic lines; the kernel will judge the rest
    calls = [
        node.value
        for node in body
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "check"
    ]
    if not calls:
        return None
    if len(body) > 1:
        raise LabkitError(f"{at}: `check(...)` must stand in a cell of its own")
    first = calls[0].args[0] if calls[0].args else None
    name = first.value if isinstance(first, ast.Constant) else None
    if not isinstance(name, str) or not EXERCISE_ID.fullmatch(name):
        raise LabkitError(f'{at}: the first argument of `check` must be an exercise id such as "00.1"')
    return name


def _pair_exercises(path, cells, points):
    """Tie each exercise cell to the check cell that follows it, and write their metadata."""
    waiting, done = None, set()
    for number, cell in enumerate(cells, 1):
        at = where(path, number, cell)
        if "exercise" in tags(cell):
            if cell.cell_type != "code":
                raise LabkitError(f"{at}: only a code cell can be tagged `exercise`")
            if waiting:
                raise LabkitError(f"{waiting[1]}: no `check(...)` before the next exercise")
            waiting = cell, at
        name = _checked_id(cell, at) if cell.cell_type == "code" else None
        if name is None:
            if "check" in tags(cell):
                raise LabkitError(f"{at}: tagged `check`, but is no call of `check`")
            continue
        if not waiting:
            raise LabkitError(f"{at}: no exercise cell stands before this check")
        if name in done or name[:2] != path.stem[:2]:
            raise LabkitError(f"{at}: exercise {name} is checked twice, or belongs to another lesson")
        _describe(waiting[0], name, solution=True)
        _describe(cell, name, points=_points(points, name, at))
        cell.metadata["tags"] = [*(tag for tag in tags(cell) if tag != "check"), "check"]
        done.add(name)
        waiting = None
    if waiting:
        raise LabkitError(f"{waiting[1]}: no `check(...)` follows this exercise")


def _points(points, name, at):
    try:
        return points(name)
    except (LabkitError, LookupError) as error:
        raise LabkitError(f"{at}: no points for exercise {name}: {error}") from error


def _describe(cell, name, solution=False, points=None):
    """nbgrader schema 3. Its ids allow no dot, so exercise 00.1 is `00-1` there."""
    grade_id = name.replace(".", "-")
    cell.metadata["labkit"] = {"exercise": name}
    cell.metadata["nbgrader"] = {
        "schema_version": 3,
        "grade": not solution,
        "solution": solution,
        "locked": not solution,
        "task": False,
        "grade_id": grade_id if solution else f"{grade_id}-check",
    }
    if not solution:
        cell.metadata["nbgrader"]["points"] = points
