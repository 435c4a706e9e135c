"""CSV and its kin, read strictly: a row that is not like the header is told, never guessed at."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from labkit.errors import LabkitError
from labkit.tasks.own_data.problems import Problems, listed, quote
from labkit.tasks.own_data.records import MOST_CHARACTERS, Record, Source

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
QUOTES = (
    'Inside a quoted field a quotation mark is written twice (""), and every opening one needs a closing one.'
)


def read_csv(text: str, shown: str, known: set[str]) -> Source:
    """The rows below the header line; commas, semicolons, tabs and bars are told apart by the header."""
    text = re.sub(r"\Asep=.(?=[\r\n])", "", text)  # Excel's own line; it stays, but blank
    delimiter = _delimiter(text, known)
    rows = _rows(text, shown, delimiter)
    _, _, header = next(rows, (0, 0, []))
    header = [name.strip() for name in header]
    while header and not header[-1]:
        header.pop()  # delimiters at the end of the line
    twice = [name for name, count in Counter(filter(None, header)).items() if count > 1]
    if twice:
        raise LabkitError(
            f"{shown} has two columns named {quote(twice[0])}. Its header line: {listed(header)}. "
            "Rename or remove one."
        )
    problems, records, total = Problems(shown), [], 0
    for first, last, fields in rows:
        total += 1
        where = f"line {first}" if first == last else f"lines {first} to {last}"
        while len(fields) > len(header) and not fields[-1].strip():
            fields = fields[:-1]  # delimiters at the end of a line
        if len(fields) != len(header):
            count = f"{len(fields)} field{'s' * (len(fields) > 1)}"
            few = "Add what is missing (an empty field keeps its delimiter), or remove the row."
            many = f"Fields are separated by {DELIMITERS[delimiter]}: text with one goes in quotation marks."
            problems.add(where, f"{count}, but the header has {len(header)} ({listed(header)})",
                         few if len(fields) < len(header) else many)  # fmt: skip
            continue
        if [field.strip() for field in fields] == header:
            problems.add(where, "repeats the header line", "Remove it: two exports were pasted together.")
            continue
        records.append(Record(where, dict(pair for pair in zip(header, fields, strict=True) if pair[0])))
    _check_swallowed(records, problems, delimiter)
    problems.stop(total)
    return Source(shown, [name for name in header if name], records, True)


def _rows(text: str, shown: str, delimiter: str) -> Iterator[tuple[int, int, list[str]]]:
    """(first line, last line, fields) of each row that is not blank."""
    # newline="" leaves the line ends to the csv module, which takes all three kinds.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        first = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise LabkitError(_csv_trouble(shown, first, reader.line_num, str(error))) from None
        if any(len(field) > MOST_CHARACTERS for field in fields):  # if somebody raised csv's own limit
            raise LabkitError(_csv_trouble(shown, first, reader.line_num, "field larger than field limit"))
        if any(field.strip() for field in fields):
            yield first, reader.line_num, fields


def _csv_trouble(shown: str, first: int, last: int, reason: str) -> str:
    if "field larger" in reason:
        return (
            f"{shown}, line {first}: a field has more than {MOST_CHARACTERS:,} characters. If it begins with "
            f"a quotation mark, the closing one is missing. {QUOTES} Otherwise shorten the text."
        )
    if "unexpected end" in reason:
        return (
            f"{shown}, line {first}: a quotation mark opens a field and is never closed, so that it swallows "
            f"the rest of the file. {QUOTES}"
        )
    if "expected after" in reason:
        reach = "" if first == last else f" The field that opened in line {first} ends there."
        return f"{shown}, line {last}: there is text right after a closing quotation mark.{reach} {QUOTES}"
    return f"{shown}, line {last}: {reason}. Correct the line, or export the file again."


def _delimiter(text: str, known: set[str]) -> str:
    """The delimiter under which the header has most known names, then rows like it, then fields."""
    start = text[:200_000]

    def fit(delimiter: str) -> tuple[int, int, int]:
        lines = csv.reader(io.StringIO(start, newline=""), delimiter=delimiter)
        try:
            rows = [row for row in islice(lines, 20) if any(field.strip() for field in row)]
        except csv.Error:  # too long a field; the strict reading will say where
            rows = []
        header = rows[0] if rows else []
        hits = sum(name.strip().casefold() in known for name in header)
        alike = sum(len(row) == len(header) for row in rows) if len(header) > 1 else 0
        return hits if len(header) > 1 else 0, alike, len(header)

    return max(DELIMITERS, key=fit)


def _check_swallowed(records: list[Record], problems: Problems, delimiter: str) -> None:
    """Note rows whose quoted text holds whole rows of the table: two stray quotes had made them one.

    It shows only where the first or last column holds labels: then every line of the text begins or ends
    with one of them.
    """
    single = [list(record.values.values()) for record in records if record.where.startswith("line ")]
    labels = []
    for at in (0, -1):
        counts = Counter(row[at] for row in single)
        labels.append({*counts} - {""} if len(counts) < len(single) / 3 else set())
    for record in records:
        if record.where.startswith("line "):
            continue
        for value in record.values.values():
            pieces = [piece for piece in re.split(r"\r\n|\r|\n", value) if piece.strip()]
            starts = [
                piece.partition(delimiter)[0] in labels[0] and delimiter in piece for piece in pieces[1:]
            ]
            ends = [
                piece.rpartition(delimiter)[2] in labels[1] and delimiter in piece for piece in pieces[:-1]
            ]
            if (starts and all(starts)) or (ends and all(ends)):
                problems.add(record.where, "a quoted field holds what looks like other rows", QUOTES)
