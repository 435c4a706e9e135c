"""Whether a short answer is right: the gold answer itself, once spelling and format are made equal.

Made equal are case, articles, punctuation around words, one preposition in front, titles ("Ms"), number
words and digits, spaces and names of units, currency, per cent, kilograms and grams, times of day, dates,
and ranges. A sentence that contains the answer is not the answer.
"""

from __future__ import annotations

import json
import re
import unicodedata
from decimal import Decimal
from functools import lru_cache
from typing import Any

from labkit.tasks.handbook.world import KINDS, REFUSAL
from labkit.tasks.scores import Scores, check_lengths, tally

LIMIT = 2000  # characters of an answer that are read; no gold answer is near that

_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen""".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_WORDS = {word: n for n, word in enumerate(_ONES)} | {word: 10 * n for n, word in enumerate(_TENS, start=2)}
_TENS_ONES = re.compile(rf"\b({'|'.join(_TENS)})[- ]({'|'.join(_ONES[1:10])})\b")
_WORD = re.compile(rf"\b({'|'.join([*_ONES, *_TENS])})\b")
_MONTHS = "january february march april may june july august september october november december".split()
_MONTH = "(" + "|".join(f"{m[:3]}t?{'(?:' + m[3:] + ')?' if m[3:] else ''}" for m in _MONTHS) + r")\b\.?"
_UNITS = {
    "g": "gram grams gr", "kg": "kilo kilos kilogram kilograms kgs",
    "cm": "centimetre centimetres centimeter centimeters cms", "hour": "hours hr hrs",
    "minute": "minutes min mins", "person": "people persons",
}  # fmt: skip
_UNITS |= {
    word: word + "s"
    for word in "day week month year piece space room helper place seat job pallet "
    "monday tuesday wednesday thursday friday saturday".split()
}
_UNIT = {variant: unit for unit, variants in _UNITS.items() for variant in variants.split()}
_DROPPED = {"a", "an", "the", "mr", "mrs", "ms", "miss", "dr"}
_IN_FRONT = {"on", "at", "in", "by", "for", "after", "within", "until", "from", "to"}


def normalise(text: str) -> str:
    """The text as tokens with one space between, in which answers that mean the same are the same."""
    return _normalised(text[:LIMIT])


@lru_cache(maxsize=20_000)  # gold answers come back, and a text is looked at from several sides
def _normalised(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub("[‐‑‒–—−]", "-", text)
    text = re.sub(r"(?<=[a-z])['’](?=[a-z])", "", text)
    text = re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", text)
    text = _TENS_ONES.sub(lambda m: str(_WORDS[m[1]] + _WORDS[m[2]]), text)
    text = _WORD.sub(lambda m: str(_WORDS[m[1]]), text)
    text = _times(_dates(text))
    text = re.sub(r"(?<![0-9.])([0-9]+)\.0+(?![0-9.])", r"\1", text)
    text = re.sub(r"(?:£|\bgbp) ?([0-9]+(?:\.[0-9]+)?)(?: ?(?:pounds?|gbp)\b)?", r" \1 pound ", text)
    text = re.sub(r"([0-9]) ?(?:£|(?:gbp|pounds?)\b)", r"\1 pound ", text)
    text = re.sub(r"%|\bper cent\b", " percent ", text)
    text = re.sub(r"\b([b-z])[- ]?([0-9]+)\b", r"\1x\2", text)  # codes: "K-417", "K 417" and "K417"
    text = re.sub(r"\b(?:between|from) ([0-9]+) (?:and|to) (?=[0-9])", r"\1 to ", text)
    text = re.sub(r"([0-9]) ?- ?(?=[0-9])", r"\1 to ", text)
    text = re.sub(r"\b([0-9]+)(?=[a-z])", r"\1 ", text)  # "14kg"
    text = re.sub(r"(?<![0-9])\.|\.(?![0-9])|[^\w.]|_", " ", text)
    tokens = [_UNIT.get(token, token) for token in text.split() if token not in _DROPPED]
    if len(tokens) > 1 and tokens[0] in _IN_FRONT:
        tokens = tokens[1:]
    return re.sub(
        r"\b([0-9]{1,9}(?:\.[0-9]{1,9})?) kg\b",
        lambda m: f"{_plain(Decimal(m[1]) * 1000)} g",
        " ".join(tokens),
    )


def _plain(number: Decimal) -> str:
    return format(number.normalize(), "f")


def _dates(text: str) -> str:
    """Day and month as "14 may", whichever comes first."""

    def month(name: str) -> str:
        return next(m for m in _MONTHS if m.startswith(name[:3]))

    day = r"\b([0-9]{1,2})(?:st|nd|rd|th)?"
    text = re.sub(rf"\b{day} (?:of )?{_MONTH}", lambda m: f"{int(m[1])} {month(m[2])}", text)
    return re.sub(rf"\b{_MONTH} (?:the )?{day}\b(?![0-9:])", lambda m: f"{int(m[2])} {month(m[1])}", text)


def _times(text: str) -> str:
    """Times of day as one token, "t0940", on the 24-hour clock."""

    def clock(match: re.Match[str]) -> str:
        hours, minutes, half = int(match[1]), int(match[2] or 0), (match[3] or "")[:1]
        if half == "p" and hours < 12:
            hours += 12
        elif half == "a" and hours == 12:
            hours = 0
        return f" t{hours:02d}{minutes:02d} "

    half = r" ?(a\.?m\b\.?|p\.?m\b\.?)"
    text = re.sub(rf"\b([01]?[0-9]|2[0-3])[:.]([0-5][0-9]){half}", clock, text)
    text = re.sub(rf"\b(1[0-2]|0?[1-9])(){half}", clock, text)
    text = re.sub(r"\b([01]?[0-9]|2[0-3]) ?()(o'? ?clock)\b", clock, text)
    return re.sub(r"\b([01]?[0-9]|2[0-3]):([0-5][0-9])()(?![0-9:])(?: ?(?:h|hrs|hours)\b)?", clock, text)


def right(text: str, row: dict[str, Any]) -> bool:
    """Whether a text is the answer to a row: equal to `answer` or one of `aliases`, and nothing besides."""
    text = text.strip()
    if len(text) > LIMIT:
        return False
    listed = row.get("aliases") or []
    listed = json.loads(listed) if isinstance(listed, str) else listed
    return normalise(text) in {normalise(gold) for gold in [row["answer"], *listed]}


def contains(text: str, answer: str) -> bool:
    """Whether the tokens of an answer stand in the text, one after the other."""
    return f" {normalise(answer)} " in f" {normalise(text)} "


def refuses(text: str) -> bool:
    """Whether a text is the sentence for "there is no answer", and nothing besides."""
    return len(text.strip()) <= LIMIT and normalise(text) == normalise(REFUSAL)


def score(texts: list[str], rows: Any) -> Scores:
    """Score one text per row.

    `exact` is the share of right answers. `detail` holds it per kind (trained, changed, untrained, absent);
    and `contains`, the share of texts in which the answer occurs at all (generous: a text that lists many
    values passes); `stale`, the share of `changed` rows answered with the old value; `refused`, the share
    of rows with an answer that got the refusal instead. A share over no rows is left out.
    """
    rows = list(rows)
    check_lengths(texts, rows)
    verdicts = [right(text, row) for text, row in zip(texts, rows, strict=True)]
    marks: dict[str, list[bool]] = {kind: [] for kind in [*KINDS, "contains", "stale", "refused"]}
    for text, row, verdict in zip(texts, rows, verdicts, strict=True):
        if row["kind"] in KINDS:
            marks[row["kind"]].append(verdict)
        marks["contains"].append(contains(text, row["answer"]))
        if row["kind"] == "changed":
            marks["stale"].append(right(text, {"answer": row["old_answer"]}))
        if row["kind"] != "absent":
            marks["refused"].append(refuses(text))
    return tally(texts, verdicts, {name: sum(own) / len(own) for name, own in marks.items() if own})
