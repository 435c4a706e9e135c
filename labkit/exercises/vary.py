"""Variants: exercises that ask something else of every cohort, so that the course's answers do not fit.

The hooks of `variants.py` lie open like the rest of the course: a variant turns pasting an answer into
understanding one, and no more. For an exam, write hooks of your own in a file that you keep (`--hooks`).
"""

import argparse
import copy
import hashlib
import json
import random
import re
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

from labkit.errors import LabkitError
from labkit.exercises.check import NOT_ATTEMPTED, Trial, confusions, judge, one_line
from labkit.exercises.runner import call
from labkit.exercises.spec import Mistake, find, lessons
from labkit.paths import NOTEBOOKS

COURSES = "this answers the course's own exercise: read what is asked here"
NOTE = (
    "> **Your cohort's variant of exercise {id}.** It asks something else than the text and the hint around "
    "it: what the docstring says counts. The cell after it compares with examples; grading draws others.\n"
)
_hooks = {}


def variant(exercise_id):
    """Register `hook(rng)`: from a random.Random, the fields of an Exercise that differ, as a dict.

    Always `stub`, `reference` and `mistakes`; `draw`, `compare` and `hint` where they differ.
    """

    def registered(hook):
        _hooks[exercise_id] = hook
        return hook

    return registered


def hooks(own=None):
    """The hooks known, {exercise id: hook}, those of the file `own` included. Raises LabkitError."""
    from labkit.exercises import variants  # noqa: F401 (registers)

    if own is None:
        return dict(_hooks)
    before = dict(_hooks)
    try:
        runpy.run_path(str(own))
        return dict(_hooks)
    except Exception as error:
        raise LabkitError(f"{own}: the hooks cannot be loaded: {type(error).__name__}: {error}") from error
    finally:
        _hooks.clear()
        _hooks.update(before)


def make(exercise_id, cohort, hook):
    """A cohort's variant: an Exercise with the same id, points and name; raises LabkitError if unfit."""
    course = find(exercise_id)
    changed = hook(random.Random(f"{cohort}\n{exercise_id}"))
    made = replace(course, **{"hint": "", **changed})
    if made.function_name != course.function_name or made.id != course.id or made.points != course.points:
        raise LabkitError(f"variant of {exercise_id}: id, points and function name must stay the course's")
    outcomes = [call(course.reference, args) for args in made.draw(0)]
    if judge(Trial(made, 0), outcomes).points:
        raise LabkitError(f"variant of {exercise_id}: the course's own answer is right for it: change more")
    if not any("raised" in outcome for outcome in outcomes):
        made = replace(made, mistakes=(*made.mistakes, Mistake("the course's", course.reference, COURSES)))
    if confused := confusions(made, 0):
        raise LabkitError(f"variant of {exercise_id}: its inputs cannot tell apart {confused[0]}")
    return made


def make_all(cohort, own=None, only=None):
    """All variants of a cohort, {exercise id: Exercise}; only: numbers of lessons."""
    chosen = {i: h for i, h in sorted(hooks(own).items()) if only is None or i.split(".")[0] in only}
    return {i: make(i, cohort, hook) for i, hook in chosen.items()}


def write(cohort, folder, only=None, own=None):
    """Write learners' notebooks and the instructor's file, in folders of their own; returns the file's path.

    Raises LabkitError where no exercise of the chosen lessons has a hook.
    """
    made = make_all(cohort, own, only)
    if not made:
        chosen = ", ".join(only or lessons())
        raise LabkitError(f"no variants for lessons {chosen}: write hooks for them (--hooks)")
    learners, instructor = Path(folder, "learners"), Path(folder, "instructor")
    for each in (learners, instructor):
        each.mkdir(parents=True, exist_ok=True)
    for number in sorted({e.lesson for e in made.values()}):
        mine = {i: e for i, e in made.items() if e.lesson == number}
        for path in NOTEBOOKS.glob(f"{number}_*.ipynb"):
            cells = _learner_notebook(json.loads(path.read_text(encoding="utf-8")), mine)
            (learners / path.name).write_text(json.dumps(cells, indent=1, ensure_ascii=False) + "\n")
    if own:
        shutil.copyfile(own, instructor / "hooks.py")
    file = instructor / "variants.json"
    data = {"cohort": cohort, "hooks": "hooks.py" if own else None, "exercises": _digests(made)}
    file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return file


def read(file):
    """The variants of an instructor's file, {exercise id: Exercise}; raises LabkitError if hooks changed."""
    file = Path(file)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        cohort, own, digests = data["cohort"], data["hooks"], data["exercises"]
        only = {i.split(".")[0] for i in digests}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        why = f"{file} is no file of `exercises vary` ({type(error).__name__}): name variants.json"
        raise LabkitError(why) from error
    made = make_all(cohort, file.parent / own if own else None, only)
    made = {i: e for i, e in made.items() if i in digests}
    for exercise_id, digest in digests.items():
        if _digests(made).get(exercise_id) != digest:
            why = "asks something else now: grade with the version of the course (and hooks) that wrote it"
            raise LabkitError(f"{file}: exercise {exercise_id} {why}")
    return made


def digest(file):
    """A digest of an instructor's file and of the hooks beside it: what is asked and what is right."""
    found = hashlib.sha256()
    for path in (Path(file), Path(file).parent / "hooks.py"):
        found.update(path.read_bytes() if path.exists() else b"")
    return found.hexdigest()


def _digests(made):
    return {i: hashlib.sha256(e.stub.encode()).hexdigest() for i, e in made.items()}


def _learner_notebook(data, made):
    """A learner's notebook with the cells of these exercises exchanged for their variants."""
    cells = []
    for cell in data["cells"]:
        cell = copy.deepcopy(cell)
        exercise = made.get(cell["metadata"].get("labkit", {}).get("exercise"))
        if exercise and "exercise" in cell["metadata"].get("tags", []):
            digest = hashlib.sha256(exercise.stub.encode()).hexdigest()
            note = {"cell_type": "markdown", "id": digest[:12], "metadata": {}}
            cells.append({**note, "source": NOTE.format(id=exercise.id)})
            cell["source"] = re.sub(r"^( +)(raise NotImplementedError)", r"\1# YOUR CODE HERE\n\1\2",
                                    exercise.stub.rstrip("\n"), flags=re.M)  # fmt: skip
        elif exercise and "check" in cell["metadata"].get("tags", []):
            cell["source"] = _examples_cell(exercise)
            cell["metadata"].pop("nbgrader", None)  # it would give points for cells that never raise
        cells.append(cell)
    return {**data, "cells": cells}


def _examples_cell(exercise, count=2):
    """A cell that compares the answer with the shortest of some drawn examples, which hold no code."""
    inputs = sorted(exercise.draw(0), key=lambda args: len(repr(args)))[:count]
    lines = [f"    ({args!r},\n     {exercise.reference(*args)!r})," for args in inputs]
    return "\n".join(["from labkit.exercises.vary import examples", "",
                      f'examples("{exercise.id}", {exercise.function_name}, [', *lines, "])"])  # fmt: skip


def examples(exercise_id, function, pairs):
    """Print for each pair of arguments and value whether a variant's answer gives it; never raises.

    pairs: list of (tuple of arguments, wanted value).
    """
    compare = find(exercise_id).compare
    for args, wanted in pairs:
        outcome = call(function, args)
        if "raised" in outcome:
            kind = outcome["raised"][0]
            said = NOT_ATTEMPTED if kind == "NotImplementedError" else f"raises {kind}: {outcome['text']}"
        else:
            got = function(*copy.deepcopy(args))
            said = "as wanted" if compare(got, wanted) else f"got {got!r}, wanted {wanted!r}"
        print(f"{exercise_id}  {one_line(said)}")


def main(argv=None):
    """The command `python -m labkit exercises`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m labkit exercises", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("vary", help="make a cohort's own variants").add_argument
    add("--seed", required=True, metavar="COHORT", help="text that decides the variants")
    add("--lesson", action="append", choices=lessons(), help="a lesson, again for more (default: all)")
    add("--hooks", metavar="FILE", help="hooks of your own, in Python (see labkit/exercises/variants.py)")
    add("--out", default="cohort", help="folder to write (default: cohort)")
    options = parser.parse_args(argv)
    file = write(options.seed, options.out, options.lesson, options.hooks)
    for exercise in read(file).values():
        print(f"{exercise.id}  {exercise.title}: {exercise.points} points")
    print(f"hand out: {Path(options.out, 'learners')}; keep: {file.parent}")
    print(f"grade with: python -m labkit grade FOLDER --seed SECRET --variants {file}")
    return 0
