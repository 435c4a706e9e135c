"""From a record to a row that fit, score and trl train on, or the reason why it is none."""

from __future__ import annotations

import math
from typing import Any

from labkit.tasks.own_data.columns import Mapping
from labkit.tasks.own_data.parsing import kind_of
from labkit.tasks.own_data.problems import Problems, quote
from labkit.tasks.own_data.records import MOST_CHARACTERS, Record, Source

Row = dict[str, Any]
Message = dict[str, str]

TURNS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}

EMPTY = "Fill it in, or remove the row."
AS_TEXT = "Write it as text (in JSON: in double quotes), or remove the row."
SHORTEN = "Shorten it, or remove the row."
ORDER = "Turns are: system (if any), then user and assistant in turn, and the last is the assistant's."


class _BadRow(Exception):
    """Why a record is no row, and what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)


def rows_of(source: Source, mapping: Mapping, name: str, labels: list[str] | None = None) -> list[Row]:
    """Every record as a row; `labels` names the numbers in the answer column.

    Raises LabkitError that names the rows which cannot be used. `name` goes before the place in each id.
    """
    problems, rows = Problems(source.shown), []
    numeric = _mostly_numbers(source, mapping.answer) if mapping.answer else False
    for record in source.records:
        try:
            rows.append({**_row(record, mapping, numeric, labels), "id": f"{name}, {record.where}"})
        except _BadRow as bad:
            problems.add(record.where, *bad.args)
    problems.stop(len(source.records))
    return [{key: row[key] for key in _ORDER if key in row} for row in rows]


_ORDER = ("prompt", "completion", "chosen", "rejected", "id", "message", "answer")


def _row(record: Record, mapping: Mapping, numeric: bool, labels: list[str] | None) -> Row:
    if mapping.chat:
        turns = _turns(_value(record, mapping.chat, "chat"), mapping.chat, mapping)
        return _pair(_with_system(turns[:-1], record, mapping), turns[-1]["content"])
    if mapping.chosen:
        return _preference(record, mapping)
    prompt = _prompt(record, mapping)
    value = _value(record, mapping.answer, "answer")
    if isinstance(value, list):
        return _pair(prompt, _reply(value, mapping.answer, "answer"))
    answer = _answer(value, mapping.answer, numeric)
    if labels and numeric:
        answer = _label(answer, labels, mapping.answer)
    return _pair(prompt, answer)


def _pair(prompt: list[Message], answer: str) -> Row:
    return {
        "prompt": prompt,
        "completion": [{"role": "assistant", "content": answer}],
        "message": prompt[-1]["content"],
        "answer": answer,
    }


def _preference(record: Record, mapping: Mapping) -> Row:
    sides = {side: _value(record, getattr(mapping, side), side) for side in ("chosen", "rejected")}
    if mapping.prompt:
        prompt = _prompt(record, mapping)
        texts = {
            side: _reply(value, getattr(mapping, side), side)
            if isinstance(value, list)
            else _text(value, getattr(mapping, side), side)
            for side, value in sides.items()
        }
    else:
        chats = {side: _turns(value, getattr(mapping, side), mapping) for side, value in sides.items()}
        if chats["chosen"][:-1] != chats["rejected"][:-1]:
            raise _BadRow(
                "chosen and rejected answer different prompts", "Both chats are the same up to the last turn."
            )
        prompt = _with_system(chats["chosen"][:-1], record, mapping)
        texts = {side: turns[-1]["content"] for side, turns in chats.items()}
    if texts["chosen"] == texts["rejected"]:
        raise _BadRow(
            "the chosen and the rejected answer are the same, so there is nothing to prefer",
            "Correct one of them, or remove the row.",
        )
    replies = {side: [{"role": "assistant", "content": text}] for side, text in texts.items()}
    return {"prompt": prompt, **replies, "message": prompt[-1]["content"]}


def _prompt(record: Record, mapping: Mapping) -> list[Message]:
    values = [(column, record.values.get(column)) for column in mapping.prompt]
    if len(values) == 1:
        value = _value(record, mapping.prompt[0], "prompt")
        if isinstance(value, list):
            turns = _turns(value, mapping.prompt[0], mapping, ends="user")
            return _with_system(turns, record, mapping)
        text = _text(value, mapping.prompt[0], "prompt")
    else:
        # The first is the question and must be there; what belongs to it may be absent.
        parts = [_text(_value(record, values[0][0], "prompt"), values[0][0], "prompt")]
        parts += [
            _text(value, column, "prompt")
            for column, value in values[1:]
            if value is not None and (not isinstance(value, str) or value.strip())
        ]
        text = "\n\n".join(parts)
    return _with_system([{"role": "user", "content": text}], record, mapping)


def _with_system(turns: list[Message], record: Record, mapping: Mapping) -> list[Message]:
    """The turns with the system sentence before them, unless they have one of their own."""
    sentence = mapping.sentence
    if mapping.system:
        value = record.values.get(mapping.system)
        sentence = "" if value is None or value == "" else _text(value, mapping.system, "system sentence")
    if not sentence or turns[0]["role"] == "system":
        return turns
    return [{"role": "system", "content": sentence}, *turns]


def _turns(value: Any, column: str, mapping: Mapping, ends: str = "assistant") -> list[Message]:
    """A chat list, in OpenAI's or ShareGPT's way of writing, with its roles checked."""
    if not isinstance(value, list):
        raise _BadRow(
            f"column {quote(column)} holds {kind_of(value)}, not a list of messages",
            'A chat is a list like [{"role": "user", "content": "..."}, ...], which takes a .jsonl or .json '
            "file; in a CSV use columns for prompt and answer.",
        )
    turns = []
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, dict):
            raise _BadRow(
                f"message {number} of {quote(column)} is {kind_of(turn)}, not an object",
                'Each message is {"role": "...", "content": "..."}.',
            )
        name, text = ("from", "value") if "from" in turn else ("role", "content")
        role = TURNS.get(turn[name]) if isinstance(turn.get(name), str) else None
        if role is None:
            raise _BadRow(f"message {number} of {quote(column)} has the {name} {turn.get(name)!r}", ORDER)
        turns.append({"role": role, "content": _text(turn.get(text), column, f"content of message {number}")})
    body = [turn["role"] for turn in turns[turns[:1] != [] and turns[0]["role"] == "system" :]]
    if body != [("user", "assistant")[at % 2] for at in range(len(body))] or not body:
        raise _BadRow(
            f"the turns of {quote(column)} are {' '.join(turn['role'] for turn in turns) or 'none'}", ORDER
        )
    if body[-1] != ends:
        remedy = ORDER if ends == "assistant" else "The prompt's last turn is the user's."
        raise _BadRow(f"the last turn of {quote(column)} is the {body[-1]}'s", remedy)
    return turns


def _reply(value: list[Any], column: str, what: str) -> str:
    """The text of a completion in trl's form: a list of one assistant message."""
    one = value[0] if len(value) == 1 and isinstance(value[0], dict) else {}
    if one.get("role") != "assistant":
        raise _BadRow(
            f"the {what} (column {quote(column)}) is a list, but not of one assistant message",
            'Write [{"role": "assistant", "content": "..."}], or plain text.',
        )
    return _text(one.get("content"), column, what)


# ---- single values --------------------------------------------------------------------------------------


def _value(record: Record, column: str, what: str) -> Any:
    if column not in record.values:
        raise _BadRow(f"there is no {quote(column)}, the {what}", EMPTY)
    return record.values[column]


def _text(value: Any, column: str, what: str) -> str:
    place = f"the {what} (column {quote(column)})"
    if not isinstance(value, str):
        raise _BadRow(f"{place} is {kind_of(value)}, not text", EMPTY if value is None else AS_TEXT)
    text = value.strip()
    if not text:
        raise _BadRow(f"{place} is empty" if not value else f"{place} holds only white space", EMPTY)
    if len(text) > MOST_CHARACTERS:
        raise _BadRow(f"{place} has {len(text):,} characters, more than any model here reads", SHORTEN)
    if "\0" in text:
        raise _BadRow(f"{place} has a NUL character", "Remove it: text.replace('\\0', '').")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _BadRow(
            f"{place} has half of a surrogate pair (\\ud800 to \\udfff), which is no character",
            "An emoji was probably cut in two: remove that character.",
        ) from None
    return text


def _answer(value: Any, column: str, numeric: bool) -> str:
    """The answer as text; numbers are taken where the column holds numbers throughout."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and not numeric:
        raise _BadRow(
            f"the answer (column {quote(column)}) is the number {value}, and text in most rows", AS_TEXT
        )
    if number:
        if isinstance(value, float) and not math.isfinite(value):
            raise _BadRow(f"the answer (column {quote(column)}) is not a finite number", EMPTY)
        return str(value)
    if numeric and isinstance(value, str) and not _is_number(value) and value.strip():
        raise _BadRow(
            f"the answer (column {quote(column)}) is {quote(value)}, and a number in most rows",
            "Write a number as everywhere else, or remove the row.",
        )
    return _text(value, column, "answer")


def _mostly_numbers(source: Source, column: str) -> bool:
    """Is the column one of JSON numbers, or of CSV fields that are all numbers?"""
    values = [record.values.get(column) for record in source.records]
    typed = sum(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if typed:
        return typed > len(values) / 2
    return all(isinstance(value, str) and _is_number(value) for value in values if value)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _label(answer: str, labels: list[str], column: str) -> str:
    """The name that a number stands for."""
    number = float(answer)
    if not number.is_integer() or not 0 <= number < len(labels):
        raise _BadRow(
            f"the answer (column {quote(column)}) is {answer}, and the {len(labels)} labels are numbered "
            f"from 0 to {len(labels) - 1}",
            "Correct the number or the list of labels, or pass labels=False.",
        )
    return labels[int(number)]
