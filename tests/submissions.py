"""Submitted notebooks for the tests of the grader: honest ones, to be broken by the test."""

import json
import os
import sys
from pathlib import Path

import pytest

from labkit.exercises import sandbox
from labkit.exercises.sandbox import Limits
from labkit.paths import SOLUTIONS

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


def need_bubblewrap():
    """Skip where bubblewrap does not work; fail where it must (LABKIT_REQUIRE_TOOLS=1)."""
    if sandbox.available():
        return
    if os.environ.get("LABKIT_REQUIRE_TOOLS") == "1":
        pytest.fail("bubblewrap is required here (LABKIT_REQUIRE_TOOLS=1) and does not work")
    pytest.skip("bubblewrap is not installed, or user namespaces are not allowed here")


def class_of(number, lesson, folder):
    """Write `number` different submissions of a lesson, its solutions: for timing the grader by hand."""
    (path,) = SOLUTIONS.glob(f"{lesson}_*.ipynb")
    for n in range(number):
        data = json.loads(path.read_text())
        for c in data["cells"]:
            if "exercise" in c["metadata"].get("tags", []):
                c["source"] = f"# learner {n}\n" + "".join(c["source"])
        submit(Path(folder), f"learner{n:03}/{path.stem}", data["cells"])


if __name__ == "__main__":  # python tests/submissions.py 100 05 FOLDER
    class_of(int(sys.argv[1]), *sys.argv[2:])
