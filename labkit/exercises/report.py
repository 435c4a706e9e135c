"""What grading leaves: results, their reports, and one file a submission so that a run can go on."""

import csv
import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """One row of the report."""

    submission: str
    exercise: str
    points: int
    max_points: int
    message: str


class Parts:
    """Results of single submissions, each written whole as it comes; `resume` finds those of earlier runs.

    A key says all that a result depends on (content, seed, limits, exercises) and does not reveal it. The
    submission's name is not part of it: who handed in does not change what it earns.
    """

    def __init__(self, folder, resume=False):
        self.folder = Path(folder) if folder else None
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in [] if resume else self.folder.glob("*.json"):
                path.unlink()

    def get(self, key, name):
        """The stored Results of a key, under this name; None where there are none, or no readable ones."""
        if not self.folder:
            return None
        try:
            rows = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
            return [Result(name, **row) for row in rows]
        except (OSError, ValueError, TypeError):
            return None

    def put(self, key, results):
        if self.folder:
            part = self.folder / f"{key}.part"
            part.write_text(json.dumps([_row(r) for r in results]), encoding="utf-8")
            os.replace(part, self.folder / f"{key}.json")


def write_report(results, csv_path, json_path=None, feedback=None, sandboxed=True):
    """Write a CSV, JSON with totals, and a folder with a Markdown page a submission.

    json_path and feedback default to the CSV's name with `.json` and to `feedback`, both beside the CSV.
    """
    csv_path = Path(csv_path)
    json_path = Path(json_path or csv_path.with_suffix(".json"))
    for path in (csv_path, json_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with csv_path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["submission", "exercise", "points", "max_points", "message"])
        for r in results:
            writer.writerow([csv_cell(r.submission), r.exercise, r.points, r.max_points, csv_cell(r.message)])
    pages = totals(results)
    data = {"sandboxed": sandboxed, "submissions": pages}
    json_path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    for page in pages:
        _write_page(Path(feedback or csv_path.parent / "feedback"), page)


def _write_page(folder, page):
    """A page under the submission's name; under a digest of it where another page is in the way."""
    name = page["submission"]
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    for path in (folder / f"{name}.md", folder / f"{digest}.md"):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_feedback(page), encoding="utf-8", errors="backslashreplace")
            return
        except (OSError, ValueError):
            continue


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
            "exercises": [_row(r) for r in rows],
        }
        for name, rows in grouped.items()
    ]


def _row(result):
    return {k: v for k, v in asdict(result).items() if k != "submission"}


def csv_cell(text):
    """Text that no spreadsheet takes for a formula."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return "'" + text if text[:1] in "=+-@\t\r" else text


def _feedback(page):
    lines = [
        f"# {plain(page['submission'])}", "",
        f"**{page['points']} of {page['max_points']} points**", "",
        "| Exercise | Points | Result |", "|---|---|---|",
    ]  # fmt: skip
    for row in page["exercises"]:
        points = f"{row['points']} of {row['max_points']}"
        lines.append(f"| {row['exercise']} | {points} | {plain(row['message'])} |")
    return "\n".join(lines) + "\n"


def plain(text):
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]|<>#!])", r"\\\1", text)
