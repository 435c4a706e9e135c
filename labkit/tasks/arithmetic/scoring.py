"""Scoring of arithmetic answers: the number after the last "Answer:", and nothing else after it."""

from __future__ import annotations

import re
from typing import Any

from labkit.tasks.scores import Scores, check_lengths, tally

MARK = "Answer:"
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")


def parse(text: str) -> str | None:
    """What follows the last "Answer:", or None if there is no "Answer:".

    White space around it, one full stop behind it and commas between thousands do not count.
    """
    _, mark, rest = text.rpartition(MARK)
    rest = rest.strip().removesuffix(".")
    return (rest.replace(",", "") if _THOUSANDS.fullmatch(rest) else rest) if mark else None


def score(texts: list[str], rows: Any) -> Scores:
    """Compare model texts with rows that have `answer`, `kind` and `digits`.

    A text is right if the gold number, written as in `answer`, is all that follows its last "Answer:"; what
    comes before does not matter, so all forms are judged alike. `detail` has the share of texts with an
    "Answer:" ("answered") and the share right per kind ("add"), per number of digits ("3 digits") and per
    both ("add, 3 digits"). Raises LabkitError if the lengths differ or there is nothing to score.
    """
    rows = list(rows)
    check_lengths(texts, rows)
    found = [parse(text) for text in texts]
    verdicts = [answer == row["answer"] for answer, row in zip(found, rows, strict=True)]
    groups: dict[str, list[bool]] = {"answered": [answer is not None for answer in found]}
    for row, right in zip(rows, verdicts, strict=True):
        length = f"{row['digits']} digits"
        for name in (row["kind"], length, f"{row['kind']}, {length}"):
            groups.setdefault(name, []).append(right)
    detail = {name: sum(group) / len(group) for name, group in sorted(groups.items())}
    return tally(texts, verdicts, detail)
