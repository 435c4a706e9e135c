"""Workshop schedules, made from each lesson's minutes and from which lesson builds on which.

A plan is filled in two rounds: lessons in the order of `PRIORITY`, each with all that it builds on, as long
as every lesson keeps two thirds of its exercise minutes; then the other exercises, the easier ones first.
"""

import math
from dataclasses import dataclass, field

from labkit.errors import LabkitError
from labkit.records import teaching

# What a workshop is for, the most wanted first.
PRIORITY = ("05", "13", "06", "04", "09", "10", "08", "07")
ROOM = 0.1  # of each slot, kept free for questions
OPENING = 10  # minutes: everybody has JupyterLab open and `python -m labkit doctor` is content
PIECE = 15  # minutes: no shorter part of a lesson stands before or after a break
IN_CLASS = 2 / 3
START = 9 * 60

# Minutes of teaching and, at the odd places, of breaks.
HALF_DAY = (95, 15, 100)
ONE_DAY = (90, 15, 85, 45, 90, 15, 80)
PLANS = (("Half a day", (HALF_DAY,)), ("One day", (ONE_DAY,)), ("Two days", (ONE_DAY, ONE_DAY)))


@dataclass
class Slot:
    """Time between two breaks: `start` in minutes of the day, `length`, and [(what, minutes)]."""

    day: int
    start: int
    length: int
    entries: list = field(default_factory=list)

    @property
    def used(self):
        """Minutes that entries take."""
        return sum(minutes for _, minutes in self.entries)

    @property
    def free(self):
        """Minutes that may still be given away; `ROOM` is kept."""
        return math.floor(self.length * (1 - ROOM)) - self.used


def slots_of(days):
    """Empty Slots of a plan's days, the opening in the first."""
    made = []
    for number, day in enumerate(days, 1):
        start = START
        for place, length in enumerate(day):
            if place % 2 == 0:
                made.append(Slot(number, start, length))
            start += length
    made[0].entries.append(("opening", OPENING))
    return made


def pack(days, wanted):
    """Slots of `days` that hold `wanted`, [(name, minutes)], in this order.

    A lesson may go on after a break, and not on another day, when its kernel is gone. LabkitError, naming the
    first that does not fit, rather than a slot with less than `ROOM` of it left.
    """
    slots, at = slots_of(days), 0
    for name, minutes in wanted:
        placed = None
        for day in sorted({slot.day for slot in slots[at:]}):
            places = [place for place in range(at, len(slots)) if slots[place].day == day]
            placed = _placed(minutes, places, slots)
            if placed:
                break
        if not placed:
            raise LabkitError(f"lesson {name} ({minutes} minutes) does not fit what is left of this plan: "
                              "leave out a lesson or some exercises, or make the plan longer")  # fmt: skip
        for part, (place, size) in enumerate(placed):
            slots[place].entries.append((f"{name}, continued" if part else name, size))
        at = placed[-1][0]
    return slots


def _placed(minutes, places, slots):
    """[(slot's place, minutes)] of a lesson within a day, cut at breaks only; None where it does not fit."""
    left, parts = minutes, []
    for place in places:
        free = slots[place].free
        size = left if left <= free else min(free, left - PIECE)
        if size == left or size >= PIECE:
            parts.append((place, size))
            left -= size
        if left == 0:
            return parts
    return None


def closure(number, by_number):
    """A lesson's number and those of all that it builds on; LabkitError for one that there is not."""
    if number not in by_number:
        raise LabkitError(f"a lesson builds on {number}, and there is no such lesson: mend its card")
    return {number}.union(*(closure(one, by_number) for one in by_number[number].needs))


def fill(days, some):
    """(slots, {number: exercises done in class}) of a plan, from the Lessons `some`, in their order."""
    by_number, assumed = {one.number: one for one in some}, teaching.assumed_run(some)
    chosen = {}

    def packed(trial):
        wanted = [(number, teaching.minutes(one, assumed, trial[number]))
                  for number, one in by_number.items() if number in trial]  # fmt: skip
        try:
            return pack(days, wanted)
        except LabkitError:
            return None

    for goal in (number for number in PRIORITY if number in by_number):
        more = {number: _core(by_number[number]) for number in closure(goal, by_number) - set(chosen)}
        if packed(chosen | more):
            chosen |= more
    if not chosen:
        raise LabkitError(f"a plan of {sum(map(sum, days))} minutes holds no lesson: make it longer")
    rest = sorted((each for number in chosen for each in by_number[number].exercises
                   if each not in chosen[number]), key=_by_ease)  # fmt: skip
    for each in rest:
        trial = chosen | {each.lesson: (*chosen[each.lesson], each)}
        if packed(trial):
            chosen = trial
    return packed(chosen), chosen


def _core(lesson):
    """The easiest exercises of a lesson that make up at least `IN_CLASS` of its exercise minutes."""
    kept = []
    for each in sorted(lesson.exercises, key=_by_ease):
        if sum(one.minutes for one in kept) < IN_CLASS * lesson.exercise_minutes:
            kept.append(each)
    return tuple(kept)


def _by_ease(exercise):
    return exercise.difficulty, exercise.minutes, exercise.id


def schedules(stems):
    """All plans as markdown: a table each, with what slack is left, and the exercises that stay for home."""
    some = teaching.lessons(stems)
    parts = [_plan(name, days, some) for name, days in PLANS]
    parts.append(
        f"A slot is filled to {1 - ROOM:.0%} at most; slack is what is left of it. In the opening everybody "
        "gets JupyterLab open. A lesson goes on after a break, not on another day. At least two thirds of a "
        "lesson's exercise minutes are in class, the easier exercises first. Minutes are those of the table "
        "above; on slower machines runs take longer."
    )
    return "\n\n".join(parts)


def _plan(name, days, some):
    slots, chosen = fill(days, some)
    lines = [f"**{name}**, {sum(map(sum, days)) / 60:g} hours with breaks:", "",
             "| when | lessons, minutes | slack |", "|---|---|---|"]  # fmt: skip
    for slot in slots:
        day = f"day {slot.day}, " if len(days) > 1 else ""
        what = "; ".join(f"{entry} ({minutes})" for entry, minutes in slot.entries)
        lines.append(f"| {day}{_clock(slot.start)} to {_clock(slot.start + slot.length)} | {what} "
                     f"| {slot.length - slot.used} |")  # fmt: skip
    home = [each for one in some if one.number in chosen for each in one.exercises
            if each not in chosen[one.number]]  # fmt: skip
    left = f"{', '.join(each.id for each in home)} ({sum(each.minutes for each in home)} minutes)"
    return "\n".join([*lines, "", f"Exercises for home: {left if home else 'none'}."])


def _clock(minutes):
    return f"{minutes // 60:02}:{minutes % 60:02}"
