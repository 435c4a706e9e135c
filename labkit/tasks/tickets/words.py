"""Small changes to words and sentences."""

from __future__ import annotations

import re
from random import Random

from labkit.tasks.tickets.grammar import MONTHS

OPEN, CLOSE = "\x01", "\x02"  # around text that noise must leave alone


def plural(name: str) -> str:
    """The plural of a countable product name: "Orbit torch" to "Orbit torches"."""
    return name + ("es" if name.endswith(("ch", "sh", "s", "x")) else "s")


def write_date(form: str, month: int, day: int) -> str:
    """A date in one of the DATE_FORMS, e.g. "the 3rd of March"."""
    suffix = "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    name = MONTHS[month - 1]
    return form.format(d=day, dth=f"{day}{suffix}", month=name, mon=name[:3])


def misspell(rng: Random, word: str) -> str:
    """The word with two letters swapped, one lost or one doubled, never the first."""
    i = 1 + int(rng.random() * (len(word) - 2))
    kind = int(rng.random() * 3)
    if kind == 0 and word[i] != word[i + 1]:
        return word[:i] + word[i + 1] + word[i] + word[i + 2:]
    if kind == 1:
        return word[:i] + word[i + 1:]
    return word[:i] + word[i] + word[i:]


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    i = 1 if text.startswith(OPEN) else 0
    return text[:i] + text[i].upper() + text[i + 1:]


def lower_first(text: str) -> str:
    """The text with a small first letter, unless that letter belongs to "I" or to a name."""
    if re.match(r"I\b", text) or (text.startswith(OPEN) and not re.match(f"{OPEN}(My|The|A) ", text)):
        return text
    i = 1 if text.startswith(OPEN) else 0
    return text[:i] + text[i].lower() + text[i + 1:]
