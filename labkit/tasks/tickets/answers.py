"""The answers of tickets: their schema, how text becomes one, and how it is scored."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from labkit.tasks.scores import check_lengths
from labkit.tasks.tickets.rules import INTENTS, KEYS

URGENCIES = ["low", "normal", "high"]

# A JSON Schema, for constrained decoding; `valid` checks the same with exact types.
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "intent": {"type": "string", "enum": INTENTS},
        "product": {"type": "string", "minLength": 1, "maxLength": 40},
        "order": {"type": "string", "pattern": "^N[0-9]{5}$"},
        "quantity": {"type": "integer", "minimum": 1},
        "date": {"type": "string", "pattern": "^(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"},
        "urgency": {"type": "string", "enum": URGENCIES},
        "missing": {"type": "array", "uniqueItems": True, "maxItems": 3,
                    "items": {"type": "string", "enum": ["product", "order", "quantity", "date"]}},
    },
    "required": ["intent", "urgency", "missing"],
    "additionalProperties": False,
}


def render_answer(answer: dict[str, Any]) -> str:
    """The answer as the model should write it: compact JSON with the keys in the order of KEYS."""
    ordered = {key: answer[key] for key in KEYS if key in answer}
    return json.dumps(ordered, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class Scores:
    """Shares (0 to 1) over n rows; `exact_rows` and `valid_rows` keep the single verdicts."""

    exact: float  # the whole object equals the gold object
    valid: float  # one JSON object that satisfies the schema
    parses: float  # one JSON object of any kind
    fields: dict[str, float]  # per key: same value as gold, or absent in both
    exact_rows: list[bool]
    valid_rows: list[bool]
    n: int
    answers: list[str]  # the texts that were scored


def load_object(text: str) -> dict[str, Any] | None:
    """The JSON object that the whole text is, or None; duplicate keys and NaN are errors."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(items)) != len(items):
            raise ValueError("duplicate key")
        return dict(items)

    def constant(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        value = json.loads(text.strip(), object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def valid(value: Any) -> bool:
    """Whether a parsed value satisfies SCHEMA (with exact types: neither true nor 2.0 is an integer)."""
    if type(value) is not dict or not set(SCHEMA["required"]) <= set(value) <= set(SCHEMA["properties"]):
        return False
    return all(_fits(value[key], SCHEMA["properties"][key]) for key in value)


def _fits(value: Any, rule: dict[str, Any]) -> bool:
    kind = {"string": str, "integer": int, "array": list}[rule["type"]]
    if type(value) is not kind:
        return False
    if kind is list:
        return (all(_fits(item, rule["items"]) for item in value) and len(set(value)) == len(value)
                and len(value) <= rule["maxItems"])
    if kind is int:
        return value >= rule["minimum"]
    pattern = rule.get("pattern", "(?s:.*)")
    return (value in rule.get("enum", [value]) and re.fullmatch(pattern, value) is not None
            and rule.get("minLength", 0) <= len(value) <= rule.get("maxLength", len(value)))


def parse(text: str) -> dict[str, Any] | None:
    """The answer object in a model's text, or None unless the whole text is one object that fits SCHEMA."""
    value = load_object(text)
    return value if valid(value) else None


def score(texts: list[str], rows: Any) -> Scores:
    """Compare model texts with the gold answers of rows.

    Rows are dicts or Dataset rows with `answer` as a dict or JSON text. The order of keys does not matter,
    that of `missing` does. Raises LabkitError if the lengths differ or there is nothing to score.
    """
    rows = list(rows)
    check_lengths(texts, rows)
    gold = [row["answer"] for row in rows]
    gold = [json.loads(answer) if isinstance(answer, str) else answer for answer in gold]
    objects = [load_object(text) for text in texts]
    valid_rows = [valid(value) for value in objects]
    answers = [value if ok else None for value, ok in zip(objects, valid_rows, strict=True)]
    exact_rows = [answer == wanted for answer, wanted in zip(answers, gold, strict=True)]
    absent = object()  # equal only to itself: an absent key matches an absent key
    fields = {key: _share([answer is not None and answer.get(key, absent) == wanted.get(key, absent)
                           for answer, wanted in zip(answers, gold, strict=True)]) for key in KEYS}
    return Scores(_share(exact_rows), _share(valid_rows), _share([value is not None for value in objects]),
                  fields, exact_rows, valid_rows, len(gold), list(texts))


def _share(verdicts: list[bool]) -> float:
    return sum(verdicts) / len(verdicts)
