"""What an instructor gets of re-tested claims: a page for each, and a CSV whose empty points a person fills.

The CSV stands beside the report (`grades.claims.csv`). Grading again reads it, adds what is new and counts
what is filled in. A row belongs to one version of a submission: points for another do not count.
"""

import csv
import io
import math
import os
import sys
from dataclasses import replace
from pathlib import Path

from labkit.errors import LabkitError
from labkit.exercises.check import one_line
from labkit.exercises.report import csv_cell, plain
from labkit.exercises.retest import checks, files, numbers, rubric, tuning, twins
from labkit.records import judge, ledger

COLUMNS = ("submission", "criterion", "version", "points", "max_points", "remark")
LONGEST = 3000  # characters of a learner's text
NOTHING = "(nothing)"
PROOF = (
    "The seal shows that prediction and design were not changed after it. That they came before the results "
    "it shows only if you were sent it then: its time is the learner's own clock's."
)


def grade(folders, report=None):
    """A Graded for each re-tested claim, {name: folder}, with the points of a person from beside `report`."""
    graded = rubric.grade(folders)
    if report is None:
        return graded
    path = Path(report).with_suffix(".claims.csv")
    graded = marked(graded, path)
    open_rows = sum(result.message == rubric.WAITS for one in graded for result in one.results)
    if open_rows:
        print(f"{open_rows} criteria wait for a person: fill in {path}, then grade again", file=sys.stderr)
    return graded


def marked(graded, path):
    """The Gradeds with the points that a person wrote into the CSV at `path`, which gets the rows it lacks.

    LabkitError for a file that is none of these, or points that are no whole number up to the most.
    """
    path = Path(path)
    rows = _rows(path)
    known = {(row["submission"], row["criterion"], row["version"]): row for row in rows}
    done = []
    for one in graded:
        results = []
        for result in one.results:
            if result.message == rubric.WAITS or result.exercise == twins.OTHERS:
                key = (csv_cell(one.name).strip(), result.exercise, version(one.case.folder))
                if key not in known:
                    remark = "" if result.message == rubric.WAITS else csv_cell(result.message)
                    values = (*key, "", result.max_points, remark)
                    known[key] = dict(zip(COLUMNS, map(str, values), strict=True))
                    rows.append(known[key])
                result = _filled(result, known[key], path)
            results.append(result)
        done.append(replace(one, results=tuple(results)))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text.getvalue(), encoding="utf-8")
    os.replace(temporary, path)
    return done


def version(folder):
    """A digest of all that a person judges of a submission, 8 hexadecimal digits."""
    found = []
    for name in (files.PREDICTION, files.DESIGN, tuning.TUNING, files.CONCLUSION, files.RESULTS):
        try:
            found.append(files.digest(files.read_bytes(Path(folder) / name, files.LARGEST_RESULTS)))
        except files.Refused:
            found.append("")
    return files.digest("".join(found).encode())[:8]


def _rows(path):
    """The rows of a CSV, however a spreadsheet saved it."""
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        rows = list(csv.DictReader(io.StringIO(text), delimiter=";" if first.count(";") > 3 else ","))
        return [{column: (row[column] or "").strip() for column in COLUMNS} for row in rows]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        wanted = f"it wants the columns {', '.join(COLUMNS)}, in UTF-8"
        raise LabkitError(f"{path} is no list of points for claims: {wanted} ({error!r:.80})") from error


def _filled(result, row, path):
    if not row["points"]:
        return result
    where = f"{path}: {row['submission']}, {row['criterion']}"
    try:
        points = int(row["points"])
    except ValueError:
        points = -1
    if not 0 <= points <= result.max_points:
        wanted = f"a whole number from 0 to {result.max_points}"
        raise LabkitError(f"{where}: points are {row['points'][:20]!r}, wanted is {wanted}, or nothing yet")
    return replace(result, points=points, message=one_line(row["remark"] or "judged", rubric.WIDEST))


def write(graded, folder):
    """Write the page of each submission, in place of the plain one that `write_report` left."""
    for one in graded:
        name = files.digest(one.name.encode("utf-8", "surrogateescape"))[:16]  # as `write_report` names it
        for path in (Path(folder) / f"{one.name}.md", Path(folder) / f"{name}.md"):
            try:
                path.write_text(page(one), encoding="utf-8", errors="backslashreplace")
                break
            except Exception:  # whatever a submission does to us, the plain page is there
                continue


def page(graded):
    """The page of one submission, in Markdown."""
    results, case = graded.results, graded.case
    points, of = sum(r.points for r in results), sum(r.max_points for r in results)
    open_points = sum(r.max_points for r in results if r.message == rubric.WAITS)
    waits = f"; {open_points} wait for a person" if open_points else ""
    lines = [f"# {plain(graded.name)}", "", f"**{points} of {of} points{waits}**", "", *_about(case), ""]
    lines += ["| Criterion | Points | Result |", "|---|---|---|"]
    for result in results:
        earned = "☐" if result.message == rubric.WAITS else result.points
        name = result.exercise.removeprefix("claim.")
        lines.append(f"| {name} | {earned} of {result.max_points} | {plain(result.message)} |")
    lines += ["", "## What the rows give", "", *_numbers(case), "", "## For a person", "", *_person(graded)]
    return "\n".join(lines) + "\n"


def _about(case):
    claim = _part(lambda: case.claim)
    if claim is None:
        return ["*No claim of this exercise.*"]
    seal = _part(lambda: case.seal) or {}
    named = f"`{plain(one_line(str(seal['seal']), 20))}`" if "seal" in seal else "none"
    at = f", {plain(one_line(str(seal.get('sealed')), 40))}" if "sealed" in seal else ""
    return [f"Claim **{claim['id']}**: {plain(claim['claim'])}.", "", f"Seal: {named}{at}. {PROOF}"]


def _numbers(case):
    """What was claimed and found for each band, the course's own record, the prediction's score."""
    estimates = _part(lambda: case.estimates)
    if estimates is None:
        return ["Nothing: the rows cannot be read, see above."]
    claimed = _part(lambda: checks.claimed_bands(case)) or [None] * len(estimates)
    table = case.table
    about = f"{len(table.rows)} rows of {len(set(table.phrasings))} phrasings, seeds {table.seeds}."
    lines = [about, "", *_runs(case, table), ""]
    lines += ["| Band | | Mean | 95% interval | Verdict |", "|---|---|---|---|---|"]
    said, silent = [], numbers.silent(table)
    record = _part(lambda: ledger.record_of(case.claim))
    for band, one, found in zip(case.claim["bands"], claimed, estimates, strict=True):
        follows, why = judge.judged(band, found)
        said.append(follows)
        name = f"{plain(band['says'])}, {ledger.band_text(band)}"
        if one:
            claimed_numbers, given = one
            lines.append(_row(name, "claimed", *claimed_numbers, plain(given)))
            name = ""
        verdict = "none" if silent else f"{follows}{why and ': '}{why}"
        lines.append(_row(name, "found", found.mean, found.low, found.high, verdict))
        course = record and judge.estimate(band, judge.Recorded(record))
        if course:
            verdict = judge.judged(band, course)[0]
            lines.append(_row("", "the course's record", course.mean, course.low, course.high, verdict))
    if silent:
        return [*lines, "", f"On the claim: **nothing**, {silent}."]
    return [*lines, "", f"On the claim: **{judge.overall(said)}**.{_foreseen(case, judge.overall(said))}"]


def _runs(case, table):
    """A table of what each method reached, what its tuning found, and at which rates its runs were."""
    lines = ["| Method | Tuned, held-out loss | Learning rate | Accuracy, by seed |", "|---|---|---|---|"]
    tried = _part(lambda: tuning.read(case.folder, case.methods)) or {}
    for name in case.methods:
        rates = {run["lr"] for (method, _), run in case.results.runs.items() if method == name}
        reached = ", ".join(f"{share:.3f}" for share in table.flags[name].mean(axis=1))
        used = ", ".join(f"{rate:g}" for rate in sorted(rates))
        lines.append(f"| {name} | {tuning.shown(tried, name) or 'none'} | {used} | {reached} |")
    return lines


def _foreseen(case, came):
    """What the prediction gave to the verdict that came, and its Brier score (Brier 1950)."""
    given = _part(lambda: checks.probabilities(case))
    if given is None or came not in given:
        return ""
    brier = sum((p - (said == came)) ** 2 for said, p in given.items())
    about = "Brier score, 0 at best, 0.67 for thirds, 2 at worst; it earns no points"
    return f" The prediction gave it {given[came]:.0%} ({brier:.2f}: {about})."


def _person(graded):
    """Each criterion that a person judges, as a box with what earns points; then the learner's own words."""
    lines = []
    points = {result.exercise: result for result in graded.results}
    for one in graded.rubric.criteria:
        if one.by == rubric.PERSON:
            result = points[f"claim.{one.id}"]
            box = "☐" if result.message == rubric.WAITS else f"☑ {result.points}"
            lines += [f"- {box} of {one.points}, **{one.id}**. {one.earns}"]
    case = graded.case
    for part, keys in (("prediction", ("probabilities", "expected", "why")),
                       ("design", ("methods", "steps", "held_equal", "differs", "objection")),
                       ("conclusion", ("verdict", "would_decide", "words"))):  # fmt: skip
        given = _part(lambda part=part: getattr(case, part)) or {}
        lines += ["", f"**The learner's {part}**", ""]
        for key in keys:
            lines += [f"> {key.replace('_', ' ')}: {_quoted(given.get(key))}", ">"]
    return lines


def _quoted(value):
    text = value if isinstance(value, str) else repr(value)
    empty = value is None or not text.strip()
    return NOTHING if empty else plain(one_line(text, LONGEST))


def _row(name, whose, mean, low, high, verdict):
    return f"| {name} | {whose} | {_text(mean)} | {_text(low)} to {_text(high)} | {verdict} |"


def _text(value):
    return f"{value:.4f}" if value is not None and math.isfinite(value) else "none"


def _part(read):
    """A part of a submission, or None where it cannot be used: the table of criteria says why."""
    try:
        return read()
    except (files.Refused, LabkitError):
        return None
