"""What the model is asked: the sentence of training, and the prompts tried on the untuned base."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.tickets.answers import render_answer
from labkit.tasks.tickets.grammar import SHOP
from labkit.tasks.tickets.rules import INTENTS, NEEDS

SYSTEM = "Answer with one JSON object: intent, product, order, quantity, date, urgency, missing."


def render(message: str) -> list[dict[str, str]]:
    """The chat messages that put a customer's message to the model: system sentence, then user."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": message}]


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
