"""Noise on demand: damage a stated share of training rows, of any family, in a named way."""

from __future__ import annotations

import copy
import json
import re
from random import Random
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.draw import pick, shuffled

KINDS = ["wrong_label", "wrong_field", "truncated", "duplicated", "near_duplicate", "off_topic"]
WRONG = ["wrong_label", "wrong_field", "truncated", "off_topic"]  # those that make answers wrong
OFF_TOPIC = [
    "Copper roofs turn green after some years in the rain.",
    "A sourdough starter wants fresh flour and water every day.",
    "In chess, a knight in the corner has only two moves.",
    "Violets grow best in half shade and in soil that stays moist.",
    "The old library keeps its maps in long flat drawers.",
]


def corrupt(rows: Any, rate: float, seed: int | str = 0, kinds: Any = None, task: str = "") -> Any:
    """A copy of the rows in which exactly round(rate * n) are damaged: same type, length and order.

    `rows` is a datasets.Dataset or a list of dicts, with `prompt` and `completion` as lists of messages.
    `kinds` is one name or a list of names from KINDS (WRONG unless given), each used equally often:

    - `wrong_label`: the answer of another row whose answer differs.
    - `wrong_field`: one value of a JSON object replaced by the value that another row has there; in any other
      answer one digit of the last number changed, or, without a number, one word by that of another answer.
    - `truncated`: the answer cut at 30 to 80 percent of its length.
    - `duplicated`: the whole row, every column, replaced by an exact copy of another row.
    - `near_duplicate`: the same, with a small edit of its prompt (case, punctuation, a word in front).
    - `off_topic`: an answer about something else.

    Each row gets a column `damage`: the kind, or "" if it is clean. Damage is done to `completion` (and to
    `prompt` by near_duplicate): other columns (`answer` of tickets, say) keep the gold, so that damage can be
    measured. Duplicates keep right answers; what suffers is the variety. A damaged answer differs from the
    gold, but a family's scorer may still accept it: a few do in sql and handbook, most of `wrong_field` in
    voice. So measure the share of wrong answers, and do not take it from `rate`. Which rows are damaged, and
    how, depends on `seed` and `task` (any name; give each family its own) and not on the rate: what is
    damaged at 0.1 is damaged in the same way at 0.2. Raises LabkitError for a rate outside [0, 1], unknown
    kinds, no rows, rows in another form or already damaged, or rows that offer no wrong answer to take.
    """
    kinds = WRONG if kinds is None else [kinds] if isinstance(kinds, str) else list(kinds)
    gold = rows.to_list() if hasattr(rows, "to_list") else list(rows)
    _check(gold, rate, kinds)
    order = shuffled(Random(f"corrupt/{task}/{seed}"), list(range(len(gold))))
    damage = {i: kinds[place % len(kinds)] for place, i in enumerate(order[: round(rate * len(gold))])}
    answers = [row["completion"][-1]["content"] for row in gold]
    made = []
    for i in range(len(gold)):
        kind = damage.get(i, "")
        rng = Random(f"corrupt/{task}/{seed}/{i}/{kind}")
        copied = kind in ("duplicated", "near_duplicate")
        row = copy.deepcopy(gold[_other(rng, gold, i) if copied else i])
        if kind == "near_duplicate":
            message = [turn for turn in row["prompt"] if turn["role"] == "user"][-1]
            message["content"] = _edited(rng, message["content"])
        elif kind in _WRITERS:
            row["completion"][-1]["content"] = _WRITERS[kind](rng, answers, i)
        made.append({**row, "damage": kind})
    if not hasattr(rows, "to_list"):
        return made
    from datasets import Features, Value

    return type(rows).from_list(made, features=Features({**rows.features, "damage": Value("string")}))


def _check(rows: list[Any], rate: float, kinds: list[str]) -> None:
    if not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
        raise LabkitError(f"rate is {rate!r}, but must be a share from 0 to 1.")
    for kind in kinds or [None]:
        if kind not in KINDS:
            raise LabkitError(f"There is no kind of damage {kind!r}: use one or more of {', '.join(KINDS)}.")
    if not rows:
        raise LabkitError("There are no rows to damage: pass at least one.")
    for i, row in enumerate(rows):
        try:
            roles = [turn["role"] for turn in row["prompt"]]
            usable = "user" in roles and row["completion"][-1]["content"]
        except (TypeError, KeyError, IndexError):
            usable = False
        if not usable:
            message = "has no user message in `prompt` or no answer in `completion`, as lists of messages"
            raise LabkitError(f"Row {i} {message}: pass rows as labkit.load gives them.")
        if "damage" in row:
            raise LabkitError("The rows have a column `damage` already: pass the clean rows.")


def _other(rng: Random, items: list, i: int, fits: Any = lambda item: True) -> int:
    """The index of another item than i that fits: the first one from a random place on."""
    start = int(rng.random() * len(items))
    for j in [*range(start, len(items)), *range(start)]:
        if j != i and fits(items[j]):
            return j
    raise LabkitError(f"Row {i} finds no row to be damaged with: pass more rows, or name other kinds.")


def _wrong_label(rng: Random, answers: list[str], i: int) -> str:
    return answers[_other(rng, answers, i, lambda answer: answer != answers[i])]


def _wrong_field(rng: Random, answers: list[str], i: int) -> str:
    text, fields = answers[i], _fields(answers[i])
    for key, value in shuffled(rng, list(fields.items())):
        def differs(answer: str, key: str = key, value: str = value) -> bool:
            return _fields(answer).get(key, value) != value

        if any(map(differs, answers)):
            fields[key] = _fields(answers[_other(rng, answers, i, differs)])[key]
            comma, colon = (", ", ": ") if '": ' in text else (",", ":")
            return "{" + comma.join(json.dumps(name) + colon + fields[name] for name in fields) + "}"
    if numbers := list(re.finditer("[0-9]+", text)):
        start, end = numbers[-1].span()
        at = start + int(rng.random() * (end - start))
        digits = "123456789" if at == start < end - 1 else "0123456789"  # no 0 in front
        return text[:at] + pick(rng, digits.replace(text[at], "")) + text[at + 1:]
    old = pick(rng, _words(text) or [re.match("(?s).", text)])

    def news(answer: str) -> list[str]:
        return [word[0].lower() for word in _words(answer) if word[0].lower() not in text.lower()]

    new = pick(rng, news(answers[_other(rng, answers, i, news)]))
    return text[:old.start()] + (new.capitalize() if old[0][0].isupper() else new) + text[old.end():]


def _fields(text: str) -> dict[str, str]:
    """The fields of the JSON object that a text is, each value as JSON text; none if it is something else."""
    try:
        value = json.loads(text) if text.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        value = None
    separators = None if '": ' in text else (",", ":")
    fields = value.items() if isinstance(value, dict) else ()
    return {key: json.dumps(value, separators=separators, ensure_ascii=False) for key, value in fields}


def _words(text: str) -> list[re.Match[str]]:
    """The words of a text, only those of four and more letters if there are any."""
    words = list(re.finditer(r"[^\W\d_]+", text))
    return [word for word in words if len(word[0]) > 3] or words


def _truncated(rng: Random, answers: list[str], i: int) -> str:
    length = len(answers[i])
    beginning = answers[i][: min(length - 1, max(1, int(length * (0.3 + 0.5 * rng.random()))))]
    return beginning.rstrip() or beginning


def _off_topic(rng: Random, answers: list[str], i: int) -> str:
    return pick(rng, [text for text in OFF_TOPIC if text != answers[i]])


def _edited(rng: Random, text: str) -> str:
    edits = [text.lower(), text.rstrip(".!?"), text.rstrip(".!?") + "!", f"Hello, {text}",
             text[:1].swapcase() + text[1:]]  # fmt: skip
    return pick(rng, [edit for edit in edits if edit != text])


_WRITERS = {"wrong_label": _wrong_label, "wrong_field": _wrong_field,
            "truncated": _truncated, "off_topic": _off_topic}  # fmt: skip
