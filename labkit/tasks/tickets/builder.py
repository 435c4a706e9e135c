"""Builder of the tickets rows, deterministic on every machine and Python version.

Every random choice comes from `random.Random(<string>).random()`, which does not change between versions.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.draw import shuffled
from labkit.tasks.tickets import grammar as g
from labkit.tasks.tickets.rules import INTENTS, SPLITS, digest
from labkit.tasks.tickets.writer import Writer


def templates_for(split: str, diversity: float = 1.0) -> dict[str, list[tuple[str, str]]]:
    """The (phrasing id, template) pairs of each intent that a split may use."""
    if split == "test":
        return g.TEST_TEMPLATES
    chosen = {}
    for intent, pairs in g.TRAIN_TEMPLATES.items():
        # Ordered by digest, so that a smaller share is a subset of a larger one and not the simplest lines.
        ordered = sorted(pairs, key=lambda pair: digest("diversity/" + pair[0]))
        chosen[intent] = sorted(ordered[: max(1, math.ceil(diversity * len(pairs)))])
    return chosen


def build(split: str, n: int, seed: int = 0, diversity: float = 1.0) -> list[dict[str, Any]]:
    """Build n rows of a split: dicts with id, message, answer (a dict) and phrasing (template id).

    The first k of n rows are the rows of `build(split, k, ...)`. Messages are unique within a split, and a
    message of one split never occurs in another, whatever n, seed and diversity are. `diversity` in (0, 1] is
    the share of the training phrasings that may be used (it does not change test). Raises LabkitError for an
    unknown split, a diversity outside (0, 1], or when no new messages can be found.
    """
    if split not in SPLITS:
        raise LabkitError(f"tickets has no split {split!r}: use one of {', '.join(SPLITS)}.")
    if not 0 < diversity <= 1:
        raise LabkitError(f"diversity is {diversity}, but must be above 0 and at most 1.")
    rng = Random(f"tickets/{split}/{seed}")
    templates = templates_for(split, diversity)
    home = list(SPLITS).index(split)
    rows, seen = [], set()
    block: list[str] = []
    while len(rows) < n:
        if not block:
            block = shuffled(rng, INTENTS)
        intent = block.pop()
        for _ in range(2000):
            row = Writer(rng, split, templates[intent], intent).write()
            message = row["message"]
            # A third of all possible messages belongs to each split: that keeps the splits apart for any n.
            if digest(message) % 3 == home and message not in seen:
                break
        else:
            raise LabkitError(f"No new {intent} message found after {len(rows)} {split} rows: ask for fewer.")
        seen.add(message)
        rows.append({"id": f"tickets-{split}-{len(rows):05d}", **row})
    return rows
