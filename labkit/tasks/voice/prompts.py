"""The chat messages of the family, and a fixed budget of prompts for the untuned base."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.voice.rules import LONG_SENTENCE, MAX_WORDS, MIN_WORDS

SYSTEM = "You answer messages to the outdoor shop Wren & Fell in the voice of the shop."

GUIDE = f"""You answer messages to the outdoor shop Wren & Fell in the voice of the shop. Its style guide:
Start with Hello or Hi, never with Dear Sir or Dear customer. Thank the customer or show that you understand, at once.
Call the product by its name and answer what was asked.
Say what happens next or what the customer can do.
End with one offer of help, and with only one. Sign with Wren & Fell on the last line.
Speak as "we", never as "I".
Write {MIN_WORDS} to {MAX_WORDS} words in whole sentences of at most {LONG_SENTENCE} words each.
Write plain text: no lists, links, emoji, bold or words in capitals, and no exclamation marks.
Write words in full ("we will", not "we'll"). Say nothing twice.
Name no day, date or number of days. Promise no refund, discount, voucher or anything free of charge.
Never blame the customer ("you should have"), and give no orders ("you must", "you need to", "make sure").
Do not use "unfortunately", "sadly" or "we are afraid".
Do not write like an office ("please be advised", "as per", "kindly") or like an advertisement ("amazing", "perfect").
Answer with the reply only."""  # noqa: E501

Ask = Callable[[str], list[dict[str, str]]]  # a customer's message -> chat messages


def render(message: str) -> list[dict[str, str]]:
    """The chat messages that put a customer's message to the model: system sentence, then user."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": message}]


def examples(rows: Any, shots: int) -> list[dict[str, Any]]:
    """The first `shots` rows with messages of 8 to 30 words and a different topic each."""
    chosen: list[dict[str, Any]] = []
    for row in list(rows)[:400]:
        if (
            row["topic"] not in {other["topic"] for other in chosen}
            and 8 <= len(row["message"].split()) <= 30
        ):
            chosen.append(row)
        if len(chosen) == shots:
            return chosen
    raise LabkitError(f"Only {len(chosen)} of {shots} examples found: pass more rows.")


def _sentence(train_rows: Any) -> Ask:
    return render


def _guide(shots: int) -> Callable[[Any], Ask]:
    def make(train_rows: Any) -> Ask:
        turns = [{"role": "system", "content": GUIDE}]
        for row in examples(train_rows, shots) if shots else []:
            turns += [
                {"role": "user", "content": row["message"]},
                {"role": "assistant", "content": row["reply"]},
            ]
        return lambda message: [*turns, {"role": "user", "content": message}]

    return make


# The fixed budget behind "the best prompt we tried": `PROMPTS[name](train_rows)(message)`. Its examples are
# gold replies.
PROMPTS: dict[str, Callable[[Any], Ask]] = {
    "one sentence": _sentence,
    "style guide": _guide(0),
    "style guide and 3 examples": _guide(3),
    "style guide and 6 examples": _guide(6),
}
