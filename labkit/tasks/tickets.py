"""Tickets: a message to an outdoor-equipment shop, to be answered with one strict JSON object.

The committed rows lie in data/tickets; `python -m labkit.tasks.tickets` writes them again, byte for byte.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import LabkitError
from labkit.paths import DATA
from labkit.tasks.tickets_build import build
from labkit.tasks.tickets_grammar import PRODUCTS, SHOP
from labkit.tasks.tickets_rules import INTENTS, KEYS, NEEDS, SPLITS

if TYPE_CHECKING:
    from datasets import DatasetDict

__all__ = ["FOLDER", "KEYS", "NEEDS", "PROMPTS", "SCHEMA", "SYSTEM", "Scores", "build", "load", "parse",
           "render", "render_answer", "score", "valid", "write"]

FOLDER = DATA / "tickets"
SYSTEM = "Answer with one JSON object: intent, product, order, quantity, date, urgency, missing."
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


# ---- rows ---------------------------------------------------------------------------------------------

def render(message: str) -> list[dict[str, str]]:
    """The chat messages that put a customer's message to the model: system sentence, then user."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": message}]


def render_answer(answer: dict[str, Any]) -> str:
    """The answer as the model should write it: compact JSON with the keys in the order of KEYS."""
    ordered = {key: answer[key] for key in KEYS if key in answer}
    return json.dumps(ordered, separators=(",", ":"), ensure_ascii=False)


def load(folder: Path = FOLDER) -> DatasetDict:
    """The committed rows as a DatasetDict, in trl's prompt-completion form.

    Columns: prompt (system and user message), completion (one assistant message), id, phrasing, message, and
    answer (a JSON string). Raises LabkitError if a file is missing or differs from its recorded checksum.
    """
    from datasets import Dataset, DatasetDict

    return DatasetDict({split: Dataset.from_list([_trl_row(row) for row in read(split, folder)])
                        for split in SPLITS})


def read(split: str, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The committed rows of a split as `build` gave them. Raises LabkitError if missing or damaged."""
    again = "Take it from the repository, or write it again with `python -m labkit.tasks.tickets`."
    path = Path(folder) / f"{split}.jsonl.gz"
    try:
        sums = json.loads((Path(folder) / "checksums.json").read_text())
        text = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise LabkitError(f"The data file {error.filename} is missing. {again}") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        message = f"The data file {path} or its checksums cannot be read ({error}). {again}"
        raise LabkitError(message) from error
    found, wanted = hashlib.sha256(text).hexdigest(), sums.get(path.name)
    if found != wanted:
        raise LabkitError(f"The data file {path} has SHA-256 {found[:12]}, not {str(wanted)[:12]}. {again}")
    return [json.loads(line) for line in text.decode().splitlines()]


def dump(rows: list[dict[str, Any]]) -> bytes:
    """Rows as the bytes of a JSON Lines file."""
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows).encode()


def write(folder: Path = FOLDER) -> None:
    """Build the three splits and write them, gzipped, with the checksums of their uncompressed bytes."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sums = {}
    for split, n in SPLITS.items():
        data = dump(build(split, n))
        name = f"{split}.jsonl.gz"
        sums[name] = hashlib.sha256(data).hexdigest()
        with (folder / name).open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
            file.write(data)
    (folder / "checksums.json").write_text(json.dumps(sums, indent=1) + "\n")


def _trl_row(row: dict[str, Any]) -> dict[str, Any]:
    answer = render_answer(row["answer"])
    return {
        "prompt": render(row["message"]),
        "completion": [{"role": "assistant", "content": answer}],
        "id": row["id"],
        "phrasing": row["phrasing"],
        "message": row["message"],
        "answer": answer,
    }


# ---- scoring ------------------------------------------------------------------------------------------

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
    gold = [row["answer"] for row in rows]
    gold = [json.loads(answer) if isinstance(answer, str) else answer for answer in gold]
    if len(texts) != len(gold) or not gold:
        raise LabkitError(f"Cannot score {len(texts)} texts against {len(gold)} rows: give one text a row.")
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


# ---- prompts for the untuned base -----------------------------------------------------------------------

_NEEDS_TEXT = "; ".join(f"{intent}: {', '.join(keys)}" for intent, keys in NEEDS.items())
INSTRUCTIONS = f"""You read messages to the outdoor shop {SHOP} and answer with one JSON object on one line, nothing else.
Keys, in this order:
"intent" (always): one of {", ".join(INTENTS)}.
"product": the full name of the product the request is about, first word with a capital, singular unless sold in pairs, like "Kestrel 2 tent" or "Heath boots". Ignore products mentioned in passing.
"order": the number of the order the request is about, N and five digits, like "N48213", even if written "48213" or "#48213".
"quantity": the number of pieces asked about, as an integer; the new number if it is to be changed. Only if stated.
"date": the day named for the request (bought, ordered, received, paid, moving, pick-up), as "MM-DD". Ignore days of other matters.
"urgency" (always): "low" if there is no hurry, "high" if it is urgent or angry, else "normal".
"missing" (always): a list of what the intent needs and the message does not give. Needed: {_NEEDS_TEXT}.
Leave out product, order, quantity and date if the message does not give them. If the customer corrects a value, take the corrected one."""  # noqa: E501
_EXAMPLE = ("Hello, where are my three Kestrel 2 tents from order 48213? It is urgent!",
            {"intent": "order_status", "product": "Kestrel 2 tent", "order": "N48213", "quantity": 3,
             "urgency": "high", "missing": []})


Ask = Callable[[str], list[dict[str, str]]]  # a customer's message -> chat messages


def _zero_short(train_rows: Any) -> Ask:
    return render


def _zero_full(train_rows: Any) -> Ask:
    return lambda message: [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": message}]


def _zero_example(train_rows: Any) -> Ask:
    example = f"\n\nExample\nMessage: {_EXAMPLE[0]}\nAnswer: {render_answer(_EXAMPLE[1])}"
    system = {"role": "system", "content": INSTRUCTIONS + example}
    return lambda message: [system, {"role": "user", "content": f"Message: {message}\nAnswer:"}]


def _few_shot(shots: int) -> Callable[[Any], Ask]:
    def make(train_rows: Any) -> Ask:
        turns = [{"role": "system", "content": INSTRUCTIONS}]
        for row in examples(train_rows, shots):
            answer = row["answer"] if isinstance(row["answer"], str) else render_answer(row["answer"])
            turns += [{"role": "user", "content": row["message"]}, {"role": "assistant", "content": answer}]
        return lambda message: [*turns, {"role": "user", "content": message}]

    return make


def examples(rows: Any, shots: int) -> list[dict[str, Any]]:
    """`shots` rows of 60 to 160 characters that together show as much of the task as they can.

    Every intent comes once before any comes twice; among those left, the row that shows most that was not
    shown yet (a field given, an urgency, something missing), the earlier of two equals.
    """
    pool = [row for row in list(rows)[:400] if 60 <= len(row["message"]) <= 160]
    chosen: list[dict[str, Any]] = []
    shown: set[str] = set()
    while len(chosen) < shots:
        done = [_intent(row) for row in chosen]
        turn = len(chosen) // len(INTENTS)
        left = [row for row in pool if row not in chosen and done.count(_intent(row)) == turn]
        if not left:
            raise LabkitError(f"Only {len(chosen)} of {shots} examples found: pass more rows.")
        chosen.append(max(left, key=lambda row: len(_features(row) - shown)))
        shown |= _features(chosen[-1])
    return chosen


def _intent(row: dict[str, Any]) -> str:
    return row["phrasing"].rpartition("-")[0]


def _features(row: dict[str, Any]) -> set[str]:
    answer = row["answer"] if isinstance(row["answer"], dict) else json.loads(row["answer"])
    return {*answer, answer["urgency"], "complete" if not answer["missing"] else "incomplete"}


# The fixed budget of prompts behind "the best prompt we tried": `PROMPTS[name](train_rows)(message)`.
PROMPTS: dict[str, Callable[[Any], Ask]] = {
    "one sentence": _zero_short,
    "full instructions": _zero_full,
    "full instructions and a format example": _zero_example,
    "full instructions and 4 examples": _few_shot(4),
    "full instructions and 10 examples": _few_shot(10),
    "full instructions and 20 examples": _few_shot(20),
}

if __name__ == "__main__":
    write()
    print(f"Wrote {', '.join(SPLITS)} to {FOLDER} ({len(PRODUCTS)} products, {len(INTENTS)} intents).")
