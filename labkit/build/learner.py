"""The learner's notebook: the solution notebook without what the learner is to find out."""

import copy

from labkit.build.outputs import blank
from labkit.build.source import solution_spans, tags


def learner(notebook):
    """A copy for learners: solution cells dropped, solutions replaced by a stub, answers blanked.

    Exercise and check cells lose their outputs; those of demonstrations stay.
    """
    copied = copy.deepcopy(notebook)
    copied.cells = [cell for cell in copied.cells if "solution" not in tags(cell)]
    for cell in copied.cells:
        if "exercise" in tags(cell):
            cell.source = stub(cell)
        if {"exercise", "check"} & set(tags(cell)):
            blank(cell)
    return copied


def stub(cell):
    """The source of an exercise cell with every marked solution replaced by a stub."""
    lines = cell.source.splitlines()
    for begin, end in reversed(solution_spans(cell, "exercise cell")):
        indent = lines[begin][: len(lines[begin]) - len(lines[begin].lstrip())]
        lines[begin : end + 1] = [f"{indent}# YOUR CODE HERE", f"{indent}raise NotImplementedError"]
    return "\n".join(lines)


def solution_bodies(cell):
    """The marked solutions of an exercise cell: one list of stripped, non-empty lines each."""
    lines = cell.source.splitlines()
    return [
        [line.strip() for line in lines[begin + 1 : end] if line.strip()]
        for begin, end in solution_spans(cell, "exercise cell")
    ]
