"""Random choices that are the same on every machine and Python version.

Only `random.Random(<string>).random()` is used, which never changes between versions.
"""

from __future__ import annotations

import hashlib
import math
from random import Random
from typing import Any


def pick(rng: Random, items: Any) -> Any:
    """One item of a sequence, each as likely."""
    return items[int(rng.random() * len(items))]


def weighted(rng: Random, shares: dict[Any, float]) -> Any:
    """One key of `shares`, as likely as its value says."""
    # fsum and not sum, which adds floats differently from Python 3.12 on
    x = rng.random() * math.fsum(shares.values())
    for key, share in shares.items():
        x -= share
        if x < 0:
            return key
    return key


def shuffled(rng: Random, items: list[Any]) -> list[Any]:
    """The items in random order, as a new list."""
    return [item for _, _, item in sorted((rng.random(), i, item) for i, item in enumerate(items))]


def digest(text: str) -> int:
    """A whole number from a text, the same everywhere (unlike `hash`)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def share(items: list[Any], diversity: float, key: Any = str) -> list[Any]:
    """The first `diversity` (0 to 1, at least one) of the items in an order fixed by digest.

    A smaller share is a subset of a larger one; the items stay in their own order.
    """
    kept = sorted(items, key=lambda item: digest("diversity/" + key(item)))
    kept = kept[: max(1, math.ceil(diversity * len(items)))]
    return [item for item in items if item in kept]
