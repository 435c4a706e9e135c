"""Grade submitted notebooks on inputs drawn from a secret seed; answers are compared in this process only."""

import argparse
import csv
import hashlib
import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from labkit.errors import LabkitError
from labkit.exercises import notebook, sandbox
from labkit.exercises.check import Verdict, judge, one_line, trial
from labkit.exercises.spec import lessons, of_lesson


@dataclass(frozen=True)
class Result:
    """One row of the report."""

    submission: str
    exercise: str
    points: int
    max_points: int
    message: str


def grade(submissions, seed, report=None, limits=sandbox.Limits(), lesson=None):  # noqa: B008 (frozen)
    """Grade a folder of notebooks, or a list of files, and return the Results, by submission and exercise.

    seed: secret text; the same seed draws the same inputs for every submission. report: path of a CSV file;
    a JSON file and a folder `feedback` of one page a submission are written beside it. lesson: "00", for
    notebooks whose name does not say. A submission that cannot be graded gets rows with 0 points; raises
    LabkitError only where there is nothing to grade.
    """
    files = collect(submissions)
    if not sandbox.available():
        print(sandbox.MISSING, file=sys.stderr, flush=True)
    hidden = {path.resolve().parent for path in files.values()}
    read = {name: _read(path) for name, path in files.items()}
    seen = {n for name, path in files.items() for n in _lessons_of(path, read[name])} & set(lessons())
    results = []
    for name, path in files.items():
        mine = [lesson] if lesson else _lessons_of(path, read[name]) or sorted(seen)
        try:
            results += _grade_one(name, read[name], mine, seed, limits, hidden)
        except Exception as error:          # whatever a submission does to us, the others get their grades
            why = one_line(f"could not be graded: {type(error).__name__}: {error}")
            results.append(Result(name, "-", 0, 0, why))
    if report is not None:
        write_report(results, Path(report))
    return results


def collect(submissions):
    """Name the notebooks to grade: {submission name: path}."""
    if isinstance(submissions, str | Path):
        submissions = [submissions]
    files = {}
    for given in map(Path, submissions):
        if not given.exists():
            raise LabkitError(f"{given}: no such file or folder: name the folder that holds the notebooks")
        found = sorted(given.rglob("*.ipynb")) if given.is_dir() else [given]
        for path in found:
            if any(part.startswith(".") for part in path.relative_to(given).parts):
                continue                    # .ipynb_checkpoints
            name = str(path.relative_to(given).with_suffix("")) if given.is_dir() else path.stem
            while name in files:
                name += "-again"
            files[name] = path
    if not files:
        raise LabkitError(f"no notebooks (*.ipynb) in {', '.join(map(str, submissions))}: nothing to grade")
    return files


def _read(path):
    """The set-up sources and answers of a notebook, or the Unreadable that says why not."""
    try:
        if path.is_symlink() or not path.is_file():
            raise notebook.Unreadable("not a plain file: submit the notebook itself, not a link")
        return notebook.answers(notebook.read_cells(path))
    except notebook.Unreadable as error:
        return error


def _lessons_of(path, read):
    """The lessons a submission is about: by its name (00_first.ipynb), else by the exercises found in it."""
    named = re.match(r"(\d\d)[_-]", path.name)
    if named:
        return [named[1]]
    known = set(lessons())
    return [] if isinstance(read, Exception) else sorted({i.split(".")[0] for i in read[1]} & known)


def _grade_one(name, read, mine, seed, limits, hidden):
    results = []
    for exercise in [e for number in mine for e in of_lesson(number)]:
        if isinstance(read, Exception):
            verdict = Verdict(0, str(read))
        else:
            verdict = _verdict(exercise, read, seed, limits, hidden)
        results.append(Result(name, exercise.id, verdict.points, exercise.points, verdict.message))
    if not results:
        why = str(read) if isinstance(read, Exception) else "no exercise of a known lesson: give --lesson"
        results.append(Result(name, "-", 0, 0, why))
    return results


def _verdict(exercise, read, seed, limits, hidden):
    setup, found = read
    answer = found.get(exercise.id)
    if answer is None or not answer.cells:
        return Verdict(0, "the exercise cell is missing")
    t = trial(exercise, draw_seed(seed, exercise))
    try:
        outcomes = sandbox.run(
            setup, answer.cells, answer.function or exercise.function_name, t.inputs, limits, hidden
        )
    except sandbox.Failed as error:
        return Verdict(0, one_line(str(error)))
    verdict = judge(t, outcomes)
    if verdict.message.startswith("raises NameError"):
        return Verdict(0, verdict.message + "; only set-up and exercise cells are run: define it there")
    return verdict


def draw_seed(seed, exercise):
    """The number an exercise's inputs are drawn with; no exercise's says anything about another's."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{exercise.id}".encode()).digest()[:8])


def write_report(results, path):
    """Write the CSV, and beside it JSON with totals and a feedback page for each submission."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["submission", "exercise", "points", "max_points", "message"])
        for r in results:
            writer.writerow([_cell(r.submission), r.exercise, r.points, r.max_points, _cell(r.message)])
    pages = totals(results)
    data = {"sandboxed": sandbox.available(), "submissions": pages}
    path.with_suffix(".json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    for page in pages:
        feedback = path.parent / "feedback" / f"{page['submission']}.md"
        feedback.parent.mkdir(parents=True, exist_ok=True)
        feedback.write_text(_feedback(page), encoding="utf-8", errors="backslashreplace")


def totals(results):
    """The results grouped by submission, with totals, as plain data."""
    grouped = {}
    for r in results:
        grouped.setdefault(r.submission, []).append(r)
    return [
        {
            "submission": name,
            "points": sum(r.points for r in rows),
            "max_points": sum(r.max_points for r in rows),
            "exercises": [{k: v for k, v in asdict(r).items() if k != "submission"} for r in rows],
        }
        for name, rows in grouped.items()
    ]


def _cell(text):
    """Text that no spreadsheet takes for a formula."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return "'" + text if text[:1] in "=+-@\t\r" else text


def _feedback(page):
    lines = [
        f"# {_plain(page['submission'])}", "",
        f"**{page['points']} of {page['max_points']} points**", "",
        "| Exercise | Points | Result |", "|---|---|---|",
    ]
    for row in page["exercises"]:
        points = f"{row['points']} of {row['max_points']}"
        lines.append(f"| {row['exercise']} | {points} | {_plain(row['message'])} |")
    return "\n".join(lines) + "\n"


def _plain(text):
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]|<>#!])", r"\\\1", text)


def main(argv=None):
    """The command `python -m labkit grade`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m labkit grade", description=__doc__)
    parser.add_argument("submissions", nargs="+", help="a folder of notebooks, or notebooks")
    parser.add_argument("--seed", required=True, help="secret text that draws the inputs")
    parser.add_argument("--report", default="grades.csv", help="CSV to write; JSON and feedback go beside it")
    parser.add_argument("--lesson", help="two digits, for notebooks whose names do not begin with them")
    parser.add_argument("--seconds", type=float, default=60, help="time limit for one exercise (default 60)")
    parser.add_argument("--memory", type=float, default=4, help="memory limit in GiB (default 4)")
    options = parser.parse_args(argv)
    if options.lesson and options.lesson not in lessons():
        raise LabkitError(f"lesson {options.lesson} has no exercises: choose from {', '.join(lessons())}")
    limits = sandbox.Limits(options.seconds, int(options.memory * 2**30))
    results = grade(options.submissions, options.seed, options.report, limits, options.lesson)
    for page in totals(results):
        print(f"{one_line(page['submission']):<40}  {page['points']} of {page['max_points']} points")
    report = Path(options.report)
    print(f"written: {report}, {report.with_suffix('.json')}, {report.parent / 'feedback'}")
    return 0
