"""`catch_up`: go on without an answer of one's own, or without having trained."""

import difflib
import os

from labkit.errors import LabkitError
from labkit.workshop import log


def catch_up(what):
    """Take the course's answer to an exercise ("05.2"), or what a lesson trains from its archive ("05").

    In a notebook the answer is put under the exercise's function name, trained models under the lesson's
    names, and a line says so; elsewhere the function, or a dict of models by name, is returned. An exercise
    counts as shown from then on: it brings no points any more, but those earned before stay.
    Raises LabkitError for an unknown id (naming the nearest), a lesson without an archive, and while grading.
    """
    from labkit.exercises import find, lessons, of_lesson

    lesson = str(what).partition(".")[0]
    if what in _lessons():
        from labkit.workshop.archive import load

        return _hand_over(load(what), lambda name: f"{what}: `{name}` is what the archived run trained")
    if what not in [e.id for e in of_lesson(lesson)]:
        ids = [e.id for number in lessons() for e in of_lesson(number)]
        known = ids if "." in str(what) else _lessons()
        nearest = difflib.get_close_matches(str(what), known, n=1, cutoff=0)[0]
        raise LabkitError(f"there is no exercise or lesson {what!r}. The nearest is {nearest!r}")
    if os.environ.get("NBGRADER_EXECUTION"):
        raise LabkitError(f"catch_up({what!r}) is not available while exercises are graded")
    exercise = find(what)
    says = _mark_shown(exercise)
    name = exercise.function_name
    line = f"{what}: `{name}` is the course's now; {says}"
    found = _hand_over({name: exercise.reference}, lambda _: line)
    return found and found[name]


def _lessons():
    from labkit.records.tables import SYLLABUS

    return [stem[:2] for stem, _ in SYLLABUS]


def _mark_shown(exercise):
    """Note that the solution was shown; what to say of the points."""
    from labkit.workshop.progress import standing

    try:
        best, shown, _ = standing(log.read())
    except LabkitError:  # an unreadable log is no reason to be stuck; `note` warns of it
        best, shown = {}, set()
    points = best.get(exercise.id, 0)
    if points >= exercise.points and exercise.id not in shown:
        return f"you solved it before and keep your {points} points"
    log.note(exercise.id, shown=True)
    return "it counts as shown and brings no points"


def _hand_over(values, line):
    """Put values under their names into the notebook, a line for each; return them where there is none."""
    try:
        from IPython import get_ipython

        shell = get_ipython()
    except ImportError:
        shell = None
    if shell is None:
        return values
    for name, value in values.items():
        before = shell.user_ns.get(name)
        both = isinstance(before, dict) and isinstance(value, dict)
        shell.user_ns[name] = {**before, **value} if both else value
        print(line(name))
    return None
