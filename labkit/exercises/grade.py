"""Grade submitted notebooks on inputs drawn from a secret seed; answers are compared in this process only."""

import argparse
import functools
import hashlib
import json
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from labkit.errors import LabkitError
from labkit.exercises import notebook, sandbox, vary
from labkit.exercises.check import Verdict, judge, one_line, trial
from labkit.exercises.report import Parts, Result, totals, write_report
from labkit.exercises.spec import lessons, of_lesson

LIMITS = sandbox.Limits()
CLAIM, CLAIM_NOTEBOOK = "claim.json", "claim.ipynb"  # of a re-tested claim; the notebook is not graded


@dataclass(frozen=True)
class Submission:
    """A notebook as read: its set-up sources and answers, or the Unreadable that says why not."""

    name: str
    path: Path
    content: bytes
    read: tuple | Exception


@dataclass(frozen=True)
class Terms:
    """What all submissions of a run are graded on."""

    seed: str
    limits: sandbox.Limits
    hidden: frozenset
    variants: dict
    asked: str  # a digest of the variants


def grade(submissions, seed, report=None, limits=LIMITS, lesson=None, *, json_path=None, feedback=None,
          jobs=1, resume=False, variants=None, adapter_rows=0):  # fmt: skip
    """Grade a folder of notebooks, or a list of files, and return the Results, by submission and exercise.

    seed: secret text; the same seed draws the same inputs for every submission. report: path of a CSV file;
    JSON and feedback pages go to json_path and feedback, else beside it, and results of single submissions
    to a folder `<report>.parts`, where `resume` finds them. lesson: "00", for notebooks whose name does not
    say. jobs: submissions graded at a time. variants: an instructor's file (see `vary`). adapter_rows: score
    submitted adapters too, on this many rows (see `adapters`). A submission that cannot be graded gets rows
    with 0 points; raises LabkitError only where there is nothing to grade.
    """
    files, folders, claims = collect(submissions, bool(adapter_rows))
    if files and not sandbox.available():
        print(sandbox.MISSING, file=sys.stderr, flush=True)
    hidden = frozenset(path.resolve().parent for path in files.values())
    asked = (vary.read(variants), vary.digest(variants)) if variants else ({}, "")
    terms = Terms(seed, limits, hidden, *asked)
    parts = Parts(f"{report}.parts" if report else None, resume)
    results = _notebooks(files, terms, lesson, jobs, parts)
    if folders:
        from labkit.exercises import adapters  # it loads torch

        results += adapters.grade(folders, seed, adapter_rows, parts)
    retested = []
    if claims:
        from labkit.exercises.retest import page

        retested = page.grade(claims, report)
        results += [result for one in retested for result in one.results]
    if report is not None:
        write_report(results, report, json_path, feedback, sandbox.available())
    if retested and report is not None:
        page.write(retested, feedback or Path(report).parent / "feedback")
    return results


def collect(submissions, adapters=False):
    """Name what there is to grade, without hidden files: {name: path} of notebooks, adapters and claims."""
    if isinstance(submissions, str | Path):
        submissions = [submissions]
    files, folders, claims = {}, {}, {}
    for given in map(Path, submissions):
        if not given.exists():
            raise LabkitError(f"{given}: no such file or folder: name the folder that holds the notebooks")
        for path in sorted(given.rglob("*.ipynb")) if given.is_dir() else [given]:
            if path.name != CLAIM_NOTEBOOK or not path.with_name(CLAIM).exists():
                _add(files, path, given, path.stem)
        if given.is_dir():
            for path in sorted({p.parent for p in given.rglob(CLAIM)}):
                _add(claims, path, given, path.resolve().name)
        if adapters and given.is_dir():
            for path in sorted({p.parent for p in given.rglob("adapter_model.*")}):
                _add(folders, path, given, path.resolve().name)
    if not files and not folders and not claims:
        what = f"notebooks (*.ipynb), re-tested claims ({CLAIM})"
        what += " or adapters (adapter_model.*)" if adapters else ""
        raise LabkitError(f"no {what} in {', '.join(map(str, submissions))}: nothing to grade")
    return files, folders, claims


def _add(found, path, given, alone):
    if any(part.startswith(".") for part in path.relative_to(given).parts):
        return  # .ipynb_checkpoints
    name = alone if path == given else str(path.relative_to(given)).removesuffix(".ipynb")
    while name in found:
        name += "-again"
    found[name] = path


def _notebooks(files, terms, lesson, jobs, parts):
    given = [_read(name, path) for name, path in files.items()]
    known = set(lessons())
    seen = sorted({n for s in given for n in _lessons_of(s)} & known)
    stop = threading.Event()

    def one(submission):
        mine = [lesson] if lesson else _lessons_of(submission) or seen
        key = _key(submission, mine, terms)
        found = parts.get(key, submission.name)
        if found is None and not stop.is_set():
            found = list(_grade_one(submission, mine, terms, stop))
            if not stop.is_set():
                parts.put(key, found)
        return found or []

    def safely(submission):
        try:
            return one(submission)
        except Exception as error:  # whatever a submission does to us, the others get their grades
            why = one_line(f"could not be graded: {type(error).__name__}: {error}")
            return [Result(submission.name, "-", 0, 0, why)]

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        try:
            return [result for results in pool.map(safely, given) for result in results]
        except BaseException:  # Ctrl-C: end after the exercises that run now
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _read(name, path):
    content = b""
    try:
        if path.is_symlink() or not path.is_file():
            raise notebook.Unreadable("not a plain file: submit the notebook itself, not a link")
        content = notebook.read_bytes(path)
        return Submission(name, path, content, notebook.answers(notebook.cells_of(content)))
    except notebook.Unreadable as error:
        return Submission(name, path, content, error)


def _lessons_of(submission):
    """The lessons a submission is about: by its name (00_first.ipynb), else by the exercises found in it."""
    named = re.match(r"(\d\d)[_-]", submission.path.name)
    return [named[1]] if named else _found_in(submission.read)


def _found_in(read):
    known = set(lessons())
    return [] if isinstance(read, Exception) else sorted({i.split(".")[0] for i in read[1]} & known)


def _key(submission, mine, terms):
    """A digest of all that the results depend on, the name of the submission apart."""
    why = str(submission.read) if isinstance(submission.read, Exception) else ""
    content = hashlib.sha256(submission.content).hexdigest()
    about = [content, why, mine, terms.seed, asdict(terms.limits), terms.asked, sandbox.available(),
             exercises_digest()]  # fmt: skip
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()


@functools.cache
def exercises_digest():
    """A digest of the exercises and of what grades them."""
    found = hashlib.sha256(sys.version.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def _grade_one(submission, mine, terms, stop):
    exercises = [terms.variants.get(e.id, e) for number in mine for e in of_lesson(number)]
    for exercise in exercises:
        if stop.is_set():
            return
        if isinstance(submission.read, Exception):
            verdict = Verdict(0, str(submission.read))
        else:
            verdict = _verdict(exercise, submission.read, terms)
        yield Result(submission.name, exercise.id, verdict.points, exercise.points, verdict.message)
    if not exercises:
        why = str(submission.read) if isinstance(submission.read, Exception) else NO_EXERCISE
        yield Result(submission.name, "-", 0, 0, why)


NO_EXERCISE = "no exercise of a known lesson: give --lesson"


def _verdict(exercise, read, terms):
    setup, found = read
    answer = found.get(exercise.id)
    if answer is None or not answer.cells:
        others = [number for number in _found_in(read) if number != exercise.lesson]
        wrong = f": this is a notebook of lesson {others[0]}" if others and exercise.lesson not in _found_in(
            read) else ""  # fmt: skip
        return Verdict(0, "the exercise cell is missing" + wrong)
    t = trial(exercise, draw_seed(terms.seed, exercise))
    name = answer.function or exercise.function_name
    try:
        outcomes = sandbox.run(setup, answer.cells, name, t.inputs, terms.limits, terms.hidden)
    except sandbox.Failed as error:
        verdict = Verdict(0, one_line(str(error)))
    else:
        verdict = judge(t, outcomes)
    return replace(verdict, message=verdict.message + _remarks(exercise, answer, verdict))


def _remarks(exercise, answer, verdict):
    """What a learner and an instructor should know beside the verdict."""
    said = ""
    if verdict.message.startswith("raises NameError"):
        said += "; only imports, set-up and exercise cells are run: define it there"
    if answer.copies > 1:
        said += f"; {answer.copies} cells carry this exercise: run in order, the last definition counts"
    if answer.claimed not in (None, exercise.points):
        said += f"; the notebook states {str(answer.claimed)[:12]} points: not counted"
    return said


def draw_seed(seed, exercise):
    """The number an exercise's inputs are drawn with; no exercise's says anything about another's."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{exercise.id}".encode()).digest()[:8])


def main(argv=None):
    """The command `python -m labkit grade`; returns the exit code."""
    options = _parser().parse_args(argv)
    if options.lesson and options.lesson not in lessons():
        raise LabkitError(f"lesson {options.lesson} has no exercises: choose from {', '.join(lessons())}")
    limits = sandbox.Limits(options.seconds, int(options.memory * 2**30))
    report = Path(options.report)
    json_path = Path(options.json or report.with_suffix(".json"))
    feedback = Path(options.feedback or report.parent / "feedback")
    results = grade(
        options.submissions, options.seed, report, limits, options.lesson, json_path=json_path,
        feedback=feedback, jobs=options.jobs, resume=options.resume, variants=options.variants,
        adapter_rows=options.adapters,
    )  # fmt: skip
    for page in totals(results):
        print(f"{one_line(page['submission']):<40}  {page['points']} of {page['max_points']} points")
    print(f"written: {report}, {json_path}, {feedback}")
    return 0


def _parser():
    parser = argparse.ArgumentParser(prog="python -m labkit grade", description=__doc__)
    add = parser.add_argument
    add("submissions", nargs="+", help="a folder of notebooks, or notebooks")
    add("--seed", required=True, help="secret text that draws the inputs")
    add("--report", default="grades.csv", help="CSV to write (default grades.csv)")
    add("--json", metavar="FILE", help="JSON to write (default: the report's name with .json)")
    add("--feedback", metavar="FOLDER", help="pages for learners (default: feedback, beside the report)")
    add("--lesson", help="two digits, for notebooks whose names do not begin with them")
    add("--jobs", type=int, default=1, help="submissions graded at a time (default 1)")
    add("--resume", action="store_true", help="go on with a stopped run: keep what its .parts folder holds")
    add("--seconds", type=float, default=60, help="time limit for one exercise (default 60)")
    add("--memory", type=float, default=4, help="memory limit in GiB (default 4)")
    add("--variants", metavar="FILE", help="the instructor's file that `exercises vary` wrote")
    add("--adapters", type=int, default=0, metavar="ROWS", help="score submitted adapters on this many rows")
    return parser
