"""Find the set-up and exercise cells of a submitted notebook, read as hostile data: nothing here runs it."""

import ast
import json
import re
from dataclasses import dataclass

LARGEST = 20 * 2**20            # bytes of a submitted notebook
LONGEST_CHECK = 2000            # characters of a cell that is searched for a call of check


class Unreadable(Exception):
    """The file is not a notebook; the message is for the learner."""


@dataclass
class Answer:
    """An exercise's cells and the name of the function they define (None where there is no check cell).

    copies: how many cells carry the exercise's own grade_id. claimed: the points that its check cell states.
    """

    cells: list
    function: str | None = None
    copies: int = 0
    claimed: float | None = None


def read_bytes(path):
    """The content of a submitted file; raises Unreadable where it is too large or cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError:
        raise Unreadable("the file cannot be read") from None
    if len(content) > LARGEST:
        raise Unreadable(f"the notebook is larger than {LARGEST // 2**20} MiB: clear its outputs")
    return content


def cells_of(content):
    """The code cells of a notebook's bytes as (source, tags, nbgrader metadata); raises Unreadable."""
    try:
        cells = json.loads(content)["cells"]
        return [_cell(c) for c in cells if c["cell_type"] == "code"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Unreadable("not a readable notebook (version 4): save it again from JupyterLab") from None


def _cell(cell):
    source, metadata = cell["source"], cell.get("metadata", {})
    tags, nbgrader = metadata.get("tags", []), metadata.get("nbgrader", {})
    return (
        source if isinstance(source, str) else "".join(source),
        [t for t in tags if isinstance(t, str)] if isinstance(tags, list) else [],
        nbgrader if isinstance(nbgrader, dict) else {},
    )


def check_call(source):
    """The (id, name) of a cell's call `check("00.1", name)`, or None."""
    if "check" not in source or len(source) > LONGEST_CHECK:
        return None
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in nodes:
        match node:
            case ast.Call(func=ast.Name("check"), args=[ast.Constant(str(exercise_id)), ast.Name(name)]):
                return exercise_id, name
    return None


def grade_id(nbgrader):
    """The exercise id in a solution cell's grade_id ("exercise-00-1", "00.1"), or None."""
    if not nbgrader.get("solution"):
        return None
    found = re.search(r"(?<!\d)(\d\d)[._-](\d+)(?!\d)", str(nbgrader.get("grade_id", ""))[:100])
    return f"{found[1]}.{found[2]}" if found else None


def answers(cells):
    """Sort code cells into (set-up cells, {exercise id: Answer}).

    A cell belongs to the exercise that its nbgrader grade_id names, else to the next check cell's. Set-up
    cells are pairs (source, whole): of those without the tag, only imports that an answer needs will run.
    """
    setup, found, waiting, last = [], {}, [], ""
    for source, tags, nbgrader in cells:
        named = grade_id(nbgrader)
        call = check_call(source)
        if "exercise" in tags or named:
            if named:
                answer = found.setdefault(named, Answer([]))
                answer.cells.append(source)
                answer.copies += 1
            else:
                waiting.append(source)
        elif call:
            exercise_id, name = call
            answer = found.setdefault(exercise_id, Answer([]))
            answer.function = name
            if isinstance(nbgrader.get("points"), int | float):
                answer.claimed = nbgrader["points"]
            defines = re.compile(rf"^def {re.escape(name)}\b", re.M)
            if not waiting and not answer.cells and defines.search(last):
                waiting = [last]                # a notebook whose tags were lost on the way
            answer.cells += waiting
            waiting = []
        else:
            setup.append((source, "setup" in tags))
        last = source
    return setup, found
