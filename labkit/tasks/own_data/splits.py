"""Train, validation and test: taken from one another by digest, and kept apart."""

from __future__ import annotations

import json
import warnings
from itertools import chain
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.draw import digest
from labkit.tasks.own_data.problems import quote

Row = dict[str, Any]
SPLITS = ("train", "validation", "test")
SHARE = 0.05  # of the training rows for validation, and as much for test, where a file of its own lacks
FEW = 0.01  # up to this share of a split may stand in train too and is dropped there with a warning


def complete(parts: dict[str, list[Row]], shown: str) -> dict[str, list[Row]]:
    """The three splits, those that lack taken from train.

    Rows with the same prompt go to the same split, and which is decided by its digest: the order of rows does
    not matter, and nothing is drawn. Raises LabkitError where there are too few rows.
    """
    lacking = [split for split in ("validation", "test") if split not in parts]
    train = parts["train"]
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(train):
        groups.setdefault(" ".join(key(row).casefold().split()), []).append(number)
    need = 1 + len(lacking)
    if len(groups) < need:
        have = "1 row" if len(train) == 1 else f"{len(train)} rows"
        if len(train) > len(groups):
            have += f" with {len(groups)} different prompt{'s' * (len(groups) > 1)}"
        names = f"{', '.join(['train', *lacking][:-1])} and {lacking[-1]}"
        raise LabkitError(
            f"{shown} has {have}. At least {need} rows with different prompts are needed, for {names}, and "
            "some hundreds to learn from. Add rows."
        )
    order = sorted(
        groups.values(), key=lambda numbers: digest("own data/" + key(train[numbers[0]]).strip().casefold())
    )
    whole = dict(parts)
    for split in lacking:
        taken = _take(order, max(1, round(SHARE * len(train))))
        gone = {numbers[0] for numbers in taken}
        order = [numbers for numbers in order if numbers[0] not in gone]
        whole[split] = [train[number] for number in sorted(chain(*taken))]
    whole["train"] = [train[number] for number in sorted(chain(*order))]
    return {split: whole[split] for split in SPLITS}


def _take(order: list[list[int]], rows: int) -> list[list[int]]:
    """The first groups that together have at most `rows` rows, at least one: the smallest if none fits."""
    taken: list[list[int]] = []
    for numbers in order:
        if len(numbers) <= rows:
            taken.append(numbers)
            rows -= len(numbers)
        if not rows:
            break
    return taken or [min(order, key=len)]


def separate(parts: dict[str, list[Row]], overlap: str | None) -> dict[str, list[Row]]:
    """The splits without rows whose prompt stands in a split that is scored on.

    `overlap` is "drop" (remove them from the split that is trained on), "keep", "error", or None: a few are
    dropped with a warning, many are an error.
    """
    if overlap not in (None, "drop", "keep", "error"):
        raise LabkitError(f"overlap={overlap!r}: it may be 'drop', 'keep' or 'error', or be left out.")
    if overlap == "keep":
        return parts
    parts = dict(parts)
    for earlier, later in (("train", "test"), ("validation", "test"), ("train", "validation")):
        if earlier not in parts or later not in parts:
            continue
        first = {key(row): row for row in reversed(parts[earlier])}
        both = [row for row in parts[later] if key(row) in first]
        if not both:
            continue
        count, of = len(both), len(parts[later])
        one = both[0]
        found = (
            f"{count:,} of {of:,} {later} prompts stand{'s' * (count == 1)} in {earlier} too, the first: "
            f"{quote(one['message'])} ({one['id']}; {first[key(one)]['id']})."
        )
        if overlap is None and count <= FEW * of:
            warnings.warn(f"{found} Dropped from {earlier}; overlap='keep' keeps them.", stacklevel=4)
        elif overlap != "drop":
            raise LabkitError(
                f"{found} A model is not to be scored on rows that it has seen. Pass overlap='drop' to "
                f"leave them out of {earlier}, or overlap='keep' to leave everything as it is."
            )
        scored = {key(row) for row in both}
        parts[earlier] = [row for row in parts[earlier] if key(row) not in scored]
        if not parts[earlier]:
            raise LabkitError(
                f"Every row of {earlier} stands in {later} too, so that none is left to use. Give {earlier} "
                f"and {later} different rows, or one file alone, which is split."
            )
    return parts


def key(row: Row) -> str:
    """What makes two rows the same question: the prompt's turns but the system sentence."""
    turns = [turn["content"].strip() for turn in row["prompt"] if turn["role"] != "system"]
    return turns[0] if len(turns) == 1 else json.dumps(turns)
