"""From text to records: CSV, JSON and JSON Lines, each row read strictly and remembered by its place."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.own_data.problems import Problems, quote
from labkit.tasks.own_data.records import Record, Source
from labkit.tasks.own_data.tables import DELIMITERS, read_csv


def parse(text: str, shown: str, kind: str, known: set[str]) -> Source:
    """The records of a text of kind csv, jsonl or json; `known` are column names to look for in a header.

    Raises LabkitError that names the lines which cannot be read.
    """
    if not text.strip(" \r\n" + "".join(DELIMITERS)):
        raise LabkitError(f"{shown} holds only blank lines. Save the rows again, or name another file.")
    source = {"csv": read_csv, "jsonl": _jsonl, "json": _json}[kind](text, shown, known)
    if not source.records:
        what = "has a header line and no rows below it" if source.table else "has no rows"
        raise LabkitError(f"{shown} {what}. Add rows, or name another file.")
    return source


class _Refused(ValueError):
    """Valid for Python's json module or not, this is nothing to train on: what is wrong, and what to do."""


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    whole = dict(items)
    if len(whole) != len(items):
        twice = next(name for name, count in Counter(name for name, _ in items).items() if count > 1)
        raise _Refused(
            f"the key {quote(twice)} stands twice in one object", "Rename or remove one of the two."
        )
    return whole


def _constant(name: str) -> None:
    raise _Refused(
        f"{name} is not JSON", "If it marks a missing value (in pandas: `df.dropna()`), remove the row."
    )


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def _value(text: str) -> Any:
    """The value of a JSON text, or _Refused with what is wrong in a learner's words."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _Refused(_json_trouble(text, error), JSON_REMEDY) from None
    except _Refused:
        raise
    except ValueError:  # Python refuses to convert whole numbers of more than 4,300 digits
        raise _Refused(
            "a number has more digits than can be read", "Write it as text in double quotes."
        ) from None
    except RecursionError:
        raise _Refused(
            "lists or objects are nested too deeply", "Keep only the prompt and the answer."
        ) from None


def _json_trouble(text: str, error: json.JSONDecodeError) -> str:
    place = (
        f"character {error.colno:,}"
        if error.lineno == 1
        else f"line {error.lineno:,}, character {error.colno:,}"
    )
    what = f"not valid JSON at {place} ({error.msg.removesuffix(' starting at')})"
    if re.match(r"\s*[\[{]*\s*'", text):
        return f"{what}; it uses single quotes, as Python prints, and JSON wants double ones"
    if re.match(r"\s*[\]}]", text[error.pos :]) and text[: error.pos].rstrip().endswith(","):
        return f"{what}; there is a comma before a closing bracket"
    return what


def _failing(text: str) -> str:
    """`record N: ` for the item of a JSON list at which reading it fails, where the text is a list at all."""
    start, number = re.match(r"\s*\[", text), 1
    at = start.end() if start else -1
    while at >= 0:
        try:
            _, at = _DECODER.raw_decode(text, re.compile(r"\s*").match(text, at).end())
        except (ValueError, RecursionError):
            break
        comma = re.compile(r"\s*,").match(text, at)
        if not comma:
            break
        at, number = comma.end(), number + 1
    return f", record {number}" if start else ""


JSON_REMEDY = "Write each row with `json.dumps(row)`, or remove it."


def _jsonl(text: str, shown: str, known: set[str]) -> Source:
    # Not splitlines, which also splits at characters that JSON strings may hold as they are.
    lines = re.split(r"\r\n|\r|\n", text)
    problems, records, total = Problems(shown), [], 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        total += 1
        try:
            value = _value(line)
        except _Refused as error:
            if total == 1 and line.strip() == "[":
                raise LabkitError(_array_in_lines(shown)) from None
            problems.add(f"line {number}", *error.args)
            continue
        if isinstance(value, list) and total == 1:
            raise LabkitError(_array_in_lines(shown))
        if not isinstance(value, dict):
            problems.add(
                f"line {number}",
                f"{kind_of(value)} instead of an object",
                'Each line is one object: {"prompt": "...", "completion": "..."}.',
            )
            continue
        records.append(Record(f"line {number}", value))
    problems.stop(total)
    return Source(shown, _columns(records), records, False)


def _array_in_lines(shown: str) -> str:
    return f"{shown} holds one JSON list, not one object a line. Rename it so that it ends in .json."


def _json(text: str, shown: str, known: set[str]) -> Source:
    try:
        value = _value(text)
    except _Refused as error:
        if _is_object(text.strip().splitlines()[0]):
            raise LabkitError(
                f"{shown} has one object a line, not one list. Rename it to end in .jsonl."
            ) from None
        what, remedy = error.args
        if remedy == JSON_REMEDY:
            remedy = "Write the file with `json.dump(rows, file)`, where rows is a list of dicts."
        raise LabkitError(f"{shown}{_failing(text)}: {what}. {remedy}") from None
    if not isinstance(value, list):
        inside = (
            [name for name, part in value.items() if isinstance(part, list)]
            if isinstance(value, dict)
            else []
        )
        hint = f" Its key {quote(inside[0])} holds a list: save that alone." if inside else ""
        raise LabkitError(
            f"{shown} holds {kind_of(value)}, not a list of rows.{hint} Wanted: "
            '[{"prompt": "...", "completion": "..."}, ...].'
        )
    problems, records = Problems(shown), []
    for number, row in enumerate(value, 1):
        if isinstance(row, dict):
            records.append(Record(f"record {number}", row))
        else:
            problems.add(
                f"record {number}",
                f"{kind_of(row)} instead of an object",
                'Each record is an object: {"prompt": "...", "completion": "..."}.',
            )
    problems.stop(len(value))
    return Source(shown, _columns(records), records, False)


def _is_object(text: str) -> bool:
    try:
        return isinstance(_value(text), dict)
    except _Refused:
        return False


def _columns(records: list[Record]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record.values))


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
