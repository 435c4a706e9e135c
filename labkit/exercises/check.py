"""`check`: tell a learner, in one line, whether an answer is right and if not, which mistake it is.

`judge` is shared with the grader, so that the notebook and the grade never disagree about an outcome.
"""

import contextlib
import functools
import io
import os
from dataclasses import dataclass

from labkit.errors import LabkitError
from labkit.exercises.runner import Other, call, decode, encode
from labkit.exercises.spec import find

PUBLIC_SEED = 0          # what `check` draws with; grading draws with a seed that learners do not know
NOT_ATTEMPTED = "not attempted yet"


@dataclass(frozen=True)
class Verdict:
    """Points earned and the message to show."""

    points: int
    message: str


class Trial:
    """An exercise's inputs for one seed, with what the reference and every known mistake make of them."""

    def __init__(self, exercise, seed):
        self.exercise = exercise
        self.inputs = exercise.draw(seed)
        self.right = [call(exercise.reference, args) for args in self.inputs]
        for args, outcome in zip(self.inputs, self.right, strict=True):
            if "raised" in outcome or outcome["changed"]:
                what = "reference fails or changes its arguments"
                raise LabkitError(f"exercise {exercise.id}: the {what} for {show_args(args)}")

    @functools.cached_property
    def wrong(self):
        return [(m, [call(m.function, args) for args in self.inputs]) for m in self.exercise.mistakes]

    def same(self, outcome, other):
        """Whether two outcomes agree: equal values, or exceptions of which one is a kind of the other."""
        if "raised" in outcome or "raised" in other:
            ours, theirs = outcome.get("raised"), other.get("raised")
            return bool(ours and theirs) and (ours[0] in theirs or theirs[0] in ours)
        try:
            return bool(self.exercise.compare(decode(outcome["value"]), decode(other["value"])))
        except Exception:                    # tripping over an odd answer is not finding it equal
            return False

    def agree(self, outcomes, others):
        return all(self.same(a, b) for a, b in zip(outcomes, others, strict=True))


@functools.lru_cache(maxsize=64)
def trial(exercise, seed):
    """The (cached) Trial of an exercise for a seed."""
    return Trial(exercise, seed)


def confusions(exercise, seed):
    """Pairs among reference and mistakes that the inputs of this seed cannot tell apart; wanted: none."""
    t = trial(exercise, seed)
    named = [("reference", t.right)] + [(m.name, outcomes) for m, outcomes in t.wrong]
    return [
        (a, b) for i, (a, ours) in enumerate(named) for b, theirs in named[i + 1:] if t.agree(theirs, ours)
    ]


def judge(t, outcomes):
    """Judge the outcomes (see `runner.call`) of an answer on all inputs of a Trial."""
    if all(o.get("raised", [""])[0] == "NotImplementedError" for o in outcomes):
        return Verdict(0, NOT_ATTEMPTED)
    differing = [trio for trio in zip(t.inputs, outcomes, t.right, strict=True) if not t.same(*trio[1:])]
    if not differing:
        changed = [args for args, o in zip(t.inputs, outcomes, strict=True) if o["changed"]]
        if changed:
            return Verdict(0, one_line(f"changes its arguments: work on a copy; for {show_args(changed[0])}"))
        return Verdict(t.exercise.points, "correct")
    for mistake, wrong in t.wrong:
        if t.agree(outcomes, wrong):
            return Verdict(0, mistake.hint)
    args, got, want = differing[0]
    if "raised" in got:
        text = f": {show(got['text'], 90, str)}" if got["text"] else ""
        return Verdict(0, one_line(f"raises {got['raised'][0]}{text}; for {show_args(args)}"))
    got, want = decode(got["value"]), decode(want["value"])
    return Verdict(0, one_line(f"{difference(got, want, t.exercise.compare)}; for {show_args(args)}"))


def difference(got, want, compare):
    """Say where two values differ: kind first, then length, then the first place, then the values."""
    ending = f"got {show(got)}, wanted {show(want)}"
    if got is None:
        return f"returns None: is a return missing? wanted {show(want)}"
    if type(got) is not type(want) and not (isinstance(got, int) and isinstance(want, float)):
        return f"returns {a_kind(got)}, not {a_kind(want)}: {ending}"
    if isinstance(want, list | tuple | dict) and len(got) != len(want):
        return f"returns {a_kind(got)} of length {len(got)}, not {len(want)}: {ending}"
    if isinstance(want, list | tuple):
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            if not compare(a, b):
                return f"wrong at index {i}: got {show(a)}, wanted {show(b)}"
    return f"wrong: {ending}"


def a_kind(value):
    name = "None" if value is None else value.kind if isinstance(value, Other) else type(value).__name__
    return name if name == "None" else f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def show(value, width=60, to_text=repr):
    """A value as text of at most `width` characters."""
    text = to_text(value)
    return text if len(text) <= width else text[: width - 23] + " ... " + text[-18:]


def show_args(args):
    return ", ".join(show(a, 50) for a in args)


def one_line(text, width=320):
    """Text as one printable line: what a submission says must not move a cursor, or break a report."""
    text = " ".join(text.split())
    return show("".join(c if c.isprintable() else "?" for c in text), width, str)


def line(exercise_id, message, points, of):
    """The one line that learners see."""
    return f"{exercise_id}  {message:<64}  {points} of {of} point{'' if of == 1 else 's'}"


def check(exercise_id, function):
    """Print in one line whether a function solves an exercise, and if not, why.

    Never raises, except an AssertionError with the same line while nbgrader grades, and KeyboardInterrupt.
    """
    of = 0
    try:
        exercise = find(exercise_id)
        of = exercise.points
        if callable(function):
            t = trial(exercise, PUBLIC_SEED)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                outcomes = [call(function, args) for args in t.inputs]
            verdict = judge(t, outcomes)
        else:
            kind = a_kind(decode(encode(function)))
            verdict = Verdict(0, one_line(f"check wants your function, not {kind}"))
    except KeyboardInterrupt:
        raise
    except LabkitError as error:
        verdict = Verdict(0, one_line(str(error)))
    except BaseException as error:
        verdict = Verdict(0, f"could not be checked: {type(error).__name__}")
    text = line(one_line(str(exercise_id), 20), verdict.message, verdict.points, of)
    print(text)
    if of and verdict.message != NOT_ATTEMPTED:
        from labkit.workshop import log

        log.note(exercise_id, verdict.points, correct=verdict.points == of)
    if os.environ.get("NBGRADER_EXECUTION") == "autograde" and (of == 0 or verdict.points < of):
        raise AssertionError(text)
