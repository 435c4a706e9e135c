"""What an exercise is: data plus functions, and where to find one by its id."""

import importlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labkit.errors import LabkitError


class UnknownExercise(LabkitError):
    """No lesson has registered an exercise with this id."""


@dataclass(frozen=True)
class Mistake:
    """A known wrong implementation, and the hint a learner who wrote it deserves (64 characters or fewer)."""

    name: str
    function: Callable
    hint: str


def exact(got, want):
    """Whether two values of plain data are equal in value and in type, all the way down (True is not 1)."""
    return _same(got, want, lambda a, b: type(a) is type(b) and a == b)


def close(rtol=1e-6, atol=1e-9):
    """A comparison like `exact` that lets numbers differ by `rtol * |want| + atol`, an int equal a float."""

    def compare(got, want):
        return _same(got, want, leaf)

    def leaf(a, b):
        if _is_number(a) and _is_number(b):
            if math.isnan(a) or math.isnan(b):
                return math.isnan(a) and math.isnan(b)
            return a == b or abs(a - b) <= rtol * abs(b) + atol
        return type(a) is type(b) and a == b

    return compare


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(got, want, leaf):
    if type(want) in (list, tuple):
        return (
            type(got) is type(want)
            and len(got) == len(want)
            and all(_same(a, b, leaf) for a, b in zip(got, want, strict=True))
        )
    if type(want) is dict:
        same_keys = type(got) is dict and got.keys() == want.keys()
        return same_keys and all(_same(got[k], want[k], leaf) for k in want)
    return leaf(got, want)


@dataclass(frozen=True, eq=False)
class Exercise:
    """One exercise: what the learner sees, and how an answer is drawn for, judged and explained.

    draw(seed: int) returns a list of argument tuples of plain data (None, bool, int, float, str, bytes, list,
    tuple, dict, set); `runner.encode` is the place that later lessons extend for tensors. reference(*args) is
    right by definition. compare(got, want) sees plain data only. The stub is the text of the learner's cell.
    """

    id: str
    title: str
    points: int
    draw: Callable[[int], list[tuple]]
    reference: Callable
    stub: str
    compare: Callable = exact
    mistakes: Sequence[Mistake] = field(default=())
    difficulty: int = 1
    minutes: int = 5
    hint: str = ""

    @property
    def lesson(self):
        """The number of the lesson, as text: "00"."""
        return self.id.split(".")[0]

    @property
    def function_name(self):
        """The name that the stub defines."""
        return re.search(r"^def (\w+)\(", self.stub, re.M)[1]


_registry = {}


def register(exercise):
    """Make an exercise known under its id; a lesson module calls this once for each of its exercises."""
    if not re.fullmatch(r"\d\d\.\d+", exercise.id):
        raise LabkitError(f"exercise id {exercise.id!r}: write lesson, point, number, as in 05.2")
    if exercise.id in _registry:
        raise LabkitError(f"exercise {exercise.id} is registered twice: give one of them another number")
    _registry[exercise.id] = exercise
    return exercise


def lessons():
    """The numbers of the lessons that have exercises, in order: ["00", ...]."""
    return sorted(path.stem[-2:] for path in Path(__file__).parent.glob("lesson_[0-9][0-9].py"))


def of_lesson(lesson):
    """The exercises of one lesson ("00"), in order; an empty list where the lesson has none."""
    if lesson not in lessons():
        return []
    importlib.import_module(f"labkit.exercises.lesson_{lesson}")
    mine = [e for e in _registry.values() if e.lesson == lesson]
    return sorted(mine, key=lambda e: int(e.id.split(".")[1]))


def find(exercise_id):
    """The exercise with this id ("00.1"); raises UnknownExercise."""
    of_lesson(str(exercise_id).split(".")[0])
    if not isinstance(exercise_id, str) or exercise_id not in _registry:
        raise UnknownExercise(f"there is no exercise {exercise_id!r}: is the id mistyped?")
    return _registry[exercise_id]


def solve(exercise_id):
    """The reference implementation, so that no later cell of a lesson depends on a learner's answer."""
    return find(exercise_id).reference
