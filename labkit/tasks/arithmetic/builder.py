"""Builder of the arithmetic rows, deterministic on every machine and Python version."""

from __future__ import annotations

import re
from random import Random
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.arithmetic import phrases as p
from labkit.tasks.arithmetic.steps import partial_results, working
from labkit.tasks.draw import digest, pick, share, shuffled

SPLITS = {"train": 4000, "validation": 300, "test": 3000}
DIGITS = {"train": (2, 3, 4), "validation": (2, 3, 4), "test": (2, 3, 4, 5, 6)}
KINDS = ["add", "subtract", "word"]
LONGEST = 6  # digits; MAX_NEW_TOKENS is measured up to here
TWO_OPERATIONS = 3  # up to so many digits half of the scenes have two operations: that keeps steps short


def phrasings_for(split: str, diversity: float = 1.0) -> dict[str, list[tuple[str, str, str]]]:
    """The (phrasing id, calculation, text) that a split may use, by kind: add, subtract, word1, word2."""
    if split == "test":
        return p.TEST
    return {kind: share(items, diversity, key=lambda item: item[0]) for kind, items in p.TRAIN.items()}


def build(split: str, n: int, seed: int = 0, diversity: float = 1.0,
          digits: tuple[int, ...] | None = None) -> list[dict[str, Any]]:  # fmt: skip
    """Build n rows of a split: id, phrasing, question, answer, calculation, kind, digits and steps.

    `digits` are the lengths of the longest number, each as frequent (train and validation 2 to 4, test 2 to
    6 unless given). The first k of n rows are the rows of `build(split, k, ...)`. A calculation (in either
    order if it is one sum) belongs to one split only, whatever n, seed and digits are. `diversity` in (0, 1]
    is the share of the training phrasings that may be used (it does not change test). Raises LabkitError for
    an unknown split, n below 0, a diversity outside (0, 1], unusable digits, or when no new row can be found.
    """
    digits = _checked(split, n, diversity, digits)
    rng = Random(f"arithmetic/{split}/{seed}/{','.join(map(str, digits))}")
    phrasings = phrasings_for(split, diversity)
    home = list(SPLITS).index(split)
    rows: list[dict[str, Any]] = []
    seen = set()
    block: list[tuple[str, int]] = []
    while len(rows) < n:
        if not block:
            block = shuffled(rng, [(kind, length) for kind in KINDS for length in digits])
        kind, length = block.pop()
        for _ in range(3000):
            row = _row(rng, split, phrasings, kind, length)
            # A third of all calculations belongs to each split: that keeps the splits apart for any n.
            if digest(identity(row["calculation"])) % 3 == home and row["question"] not in seen:
                break
        else:
            raise LabkitError(
                f"No new {kind} question of {length} digits found after {len(rows)} {split} rows: "
                "ask for fewer rows, more digits or more diversity."
            )
        seen.add(row["question"])
        rows.append({"id": f"arithmetic-{split}-{len(rows):05d}", **row})
    return rows


def identity(calculation: str) -> str:
    """A calculation as text, one sum of two numbers with the smaller number first."""
    numbers = calculation.split("+")
    if len(numbers) == 2 and "-" not in calculation:
        numbers.sort(key=int)
    return "+".join(numbers)


def _checked(split: str, n: int, diversity: float, digits: tuple[int, ...] | None) -> tuple[int, ...]:
    if split not in SPLITS:
        raise LabkitError(f"arithmetic has no split {split!r}: use one of {', '.join(SPLITS)}.")
    if n < 0:
        raise LabkitError(f"Cannot build {n} rows of arithmetic: n must be 0 or more.")
    if not 0 < diversity <= 1:
        raise LabkitError(f"diversity is {diversity}, but must be above 0 and at most 1.")
    digits = DIGITS[split] if digits is None else digits
    usable = isinstance(digits, (tuple, list, range)) and len(digits) > 0
    if not usable or not all(type(length) is int and 1 <= length <= LONGEST for length in digits):
        raise LabkitError(f"digits is {digits!r}, but must list lengths from 1 to {LONGEST}, e.g. (2, 3).")
    return tuple(digits)


def _row(rng: Random, split: str, phrasings: dict[str, list], kind: str, length: int) -> dict[str, Any]:
    group = kind
    if kind == "word":
        group = "word2" if length <= TWO_OPERATIONS and rng.random() < 0.5 else "word1"
    phrasing, form, template = pick(rng, phrasings[group])
    numbers = _numbers(rng, form, length)
    calculation = form.translate(str.maketrans(numbers))
    question = _fill(rng, split, template, numbers, length)
    return {
        "phrasing": phrasing,
        "question": question,
        "answer": str(partial_results(calculation)[-1]),
        "calculation": calculation,
        "kind": kind,
        "digits": length,
        "steps": working(calculation),
    }


def _numbers(rng: Random, form: str, length: int) -> dict[str, str]:
    """Numbers for the letters of a form, the longest of `length` digits, every partial result above 0."""
    while True:
        found = {"a": _number(rng, length)}
        for letter in "bc":
            if letter in form:
                shorter = length > 1 and rng.random() < 0.3
                found[letter] = _number(rng, 1 + int(rng.random() * (length - 1)) if shorter else length)
        if rng.random() < 0.5:
            found["a"], found["b"] = found["b"], found["a"]
        numbers = {letter: str(number) for letter, number in found.items()}
        if min(partial_results(form.translate(str.maketrans(numbers)))) > 0:
            return numbers


def _number(rng: Random, length: int) -> int:
    lowest = max(2, 10 ** (length - 1))  # no 1, so that every plural is right
    return lowest + int(rng.random() * (10**length - lowest))


def _fill(rng: Random, split: str, template: str, numbers: dict[str, str], length: int) -> str:
    """A phrasing with its numbers and with goods, a person, towns, a day and months."""
    test = split == "test"
    small, products = (p.TEST_SMALL, p.TEST_GOODS) if test else (p.TRAIN_SMALL, p.TRAIN_GOODS)
    lists = {
        "goods": small + products if length <= 3 else small,
        "name": p.TEST_NAMES if test else p.TRAIN_NAMES,
        "town": p.TEST_TOWNS if test else p.TRAIN_TOWNS,
        "day": p.DAYS,
        "month": p.MONTHS,
    }
    fills: dict[str, str] = dict(numbers)
    for slot in re.findall(r"\{(\w{2,})\}", template):
        if slot not in fills:
            other = fills.get(slot[:-1])  # "town2" is another one than "town"
            fills[slot] = pick(rng, [item for item in lists[slot.rstrip("2")] if item != other])
    return template.format(**fills)
