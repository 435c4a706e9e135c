"""Submissions of one run of the grader that say the same: named to a person, and nothing taken off."""

import json
from collections import defaultdict

from labkit.errors import LabkitError
from labkit.exercises.retest import files, numbers

OTHERS = "claim.others"
SEALS = "the same seal as {others}: one of them was copied, or both were made together"
SCORES = (
    "the same score in every row as {others}: copied, or the same seeds and rates on the same kind of "
    "machine; ask for the log of the runs"
)


def among(graded):
    """{name: words} for each Graded whose seal, or whose score in every row, another has too."""
    said = {}
    for words, mark in ((SCORES, _scores), (SEALS, _seal)):  # the second says more, and stands
        groups = defaultdict(list)
        for one in graded:
            try:
                groups[mark(one.case)].append(one.name)
            except (files.Refused, LabkitError):
                continue
        for names in groups.values():
            for name in names if len(names) > 1 else ():
                said[name] = words.format(others=", ".join(other for other in names if other != name))
    return said


def _seal(case):
    return str(case.seal["seal"]) if "seal" in case.seal else _none()


def _scores(case):
    """A digest of all scores; where they tell nothing, such as zeros in all rows, equal ones mean nothing."""
    if numbers.silent(case.table):
        _none()
    scores = case.results.scores.items()
    rows = sorted((method, seed, sorted(flags.items())) for (method, seed), flags in scores)
    return case.claim["id"], files.digest(json.dumps(rows).encode())


def _none():
    raise files.Refused("nothing to compare")
