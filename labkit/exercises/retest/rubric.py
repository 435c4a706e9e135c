"""A claim of the ledger re-tested: a folder of data is judged criterion by criterion, by the rubric file.

A submission is JSON and no code of it runs. What a program can check it checks (`checks`); what needs
a person comes out as an empty box, and the points that a person gives are read from a CSV (`page`).
"""

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from labkit.errors import LabkitError
from labkit.exercises.check import one_line
from labkit.exercises.report import Result
from labkit.exercises.retest import twins
from labkit.exercises.retest.checks import CHECKS
from labkit.exercises.retest.files import Case, Refused
from labkit.records import judge, ledger

RUBRIC = Path(__file__).parent / "claim.toml"
PROGRAM, PERSON = "program", "person"
WAITS = "for a person to judge"
WIDEST = 600  # characters of a message


@dataclass(frozen=True)
class Criterion:
    """One line of the rubric; `missed` are the words for who misses it, {found} what was found."""

    id: str
    points: int
    by: str
    earns: str
    missed: str = ""


@dataclass(frozen=True)
class Rubric:
    """What earns points, for which claims, on rows of which data."""

    task: str
    split: str
    claims: tuple
    criteria: tuple

    def claim(self, claim_id):
        """The claim of the ledger with this id; LabkitError where it is none of the rubric's."""
        found = [c for c in ledger.ledger() if c["id"] == claim_id and claim_id in self.claims]
        if not found:
            known = ", ".join(self.claims)
            raise LabkitError(f"{claim_id!r} is no claim that can be re-tested here: choose one of {known}")
        return found[0]


@dataclass(frozen=True)
class Graded:
    """A submission as graded: its Results, and what the page shows beside them."""

    name: str
    case: Case
    rubric: Rubric
    results: tuple


def read(path=RUBRIC):
    """The Rubric in a TOML file; LabkitError where it is damaged, or names a check or claim there is not."""
    try:
        given = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        criteria = tuple(Criterion(**one) for one in given.pop("criterion"))
        found = Rubric(given["task"], given["split"], tuple(given["claims"]), criteria)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LabkitError(f"{path} is no rubric ({type(error).__name__}: {error})") from error
    for one in criteria:
        if one.by not in (PROGRAM, PERSON) or type(one.points) is not int or one.points < 1:
            raise LabkitError(f"{path}: criterion {one.id}: by is program or person, points a whole number")
        if one.by == PROGRAM and one.id not in CHECKS:
            raise LabkitError(f"{path}: no check is called {one.id}; there are {', '.join(CHECKS)}")
    if len({one.id for one in criteria}) < len(criteria):
        raise LabkitError(f"{path}: two criteria have one id")
    for claim_id in found.claims:
        bands = found.claim(claim_id)["bands"]
        if not bands or any(judge.kind_of(band) == "value" for band in bands):
            raise LabkitError(f"{path}: {claim_id} has no bands over rows, so it cannot be re-tested here")
    return found


def grade(folders, rubric=None):
    """A Graded for each submitted folder, {name: folder}; one bad submission does not stop the rest.

    Where two say the same, each gets a Result more, without points, that names the other.
    """
    rubric = rubric or read()
    graded = [_one(name, Path(folder), rubric) for name, folder in folders.items()]
    said = {name: one_line(words, WIDEST) for name, words in twins.among(graded).items()}
    return [replace(one, results=(*one.results, Result(one.name, twins.OTHERS, 0, 0, said[one.name])))
            if one.name in said else one for one in graded]  # fmt: skip


def case_of(folder, rubric):
    """A submitted folder, ready to be read."""
    return Case(folder, rubric, phrasings(rubric.task, rubric.split))


def _one(name, folder, rubric):
    case = case_of(folder, rubric)
    results = [_result(name, case, criterion) for criterion in rubric.criteria]
    return Graded(name, case, rubric, tuple(results))


def _result(name, case, criterion):
    """Points and words for one criterion."""
    earned, said = 0, WAITS
    if criterion.by == PROGRAM:
        try:
            found = CHECKS[criterion.id](case)
            said = criterion.missed.replace("{found}", found) if found else "yes"
            earned = 0 if found else criterion.points
        except (Refused, LabkitError) as error:
            said = str(error)
        except Exception as error:  # whatever a submission does to us, the others get their grades
            said = f"could not be checked: {type(error).__name__}: {error}"
    return Result(name, f"claim.{criterion.id}", earned, criterion.points, one_line(said, WIDEST))


@cache
def phrasings(task, split):
    """{id: phrasing} of the rows that a re-test may use, in the course's order."""
    from labkit import tasks

    rows = tasks.load(task)[split]
    return dict(zip(rows["id"], rows["phrasing"], strict=True))
