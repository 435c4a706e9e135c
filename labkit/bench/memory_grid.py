"""Which settings `bench memory` predicts and measures: a covering grid, one of each kind, a seeded draw."""

import hashlib
import itertools
import json
import random
from functools import cache

from labkit.errors import LabkitError
from labkit.memory import Setting, predict

# The product that the grid covers and that settings are drawn from.
AXES = {
    "method": ("full", "lora", "qlora", "adapter", "prompt"),
    "checkpointing": (False, True),
    "precision": ("fp32", "bf16 autocast", "bf16"),
    "optimizer": ("adamw", "fused", "8-bit", "paged"),
    "seq": (512, 1024, 2048),
    "shape": ("smollm2-135m", "1b", "7b"),
}
# One of each kind that the product leaves out, and the largest model that one card can train.
OTHERS = (
    {"shape": "65b", "method": "qlora", "precision": "bf16", "adapters": "bf16", "rank": 64,
     "checkpointing": True, "optimizer": "paged"},
    {"shape": "smollm2-135m", "method": "dora"},
    {"shape": "smollm2-135m", "method": "ia3", "precision": "bf16"},
    {"shape": "smollm2-135m", "method": "partial", "blocks": 4},
    {"shape": "smollm2-135m", "method": "prefix", "batch": 4},
    {"shape": "smollm2-135m", "method": "dpo", "precision": "bf16", "batch": 2},
    {"shape": "smollm2-135m", "optimizer": "sgd", "batch": 8},
    {"shape": "smollm2-135m", "optimizer": "paged 8-bit", "batch": 4, "seq": 1024},
    {"shape": "smollm2-135m", "fused_loss": True, "batch": 8, "seq": 1024},
    {"shape": "smollm2-135m", "method": "lora", "targets": "q,v", "rank": 8, "batch": 8},
    {"shape": "1b", "method": "inference", "precision": "bf16", "batch": 4, "seq": 2048, "new_tokens": 16},
    {"shape": "7b", "method": "inference", "precision": "bf16", "seq": 4000, "new_tokens": 16},
    {"shape": "1b", "method": "lora", "attention": "math", "precision": "bf16"},
)  # fmt: skip
SIZE, DRAWN = 60, 36


def settings(seed, room):
    """{set: {name: Setting}} of "grid", "others" and "drawn" (by `seed`), all within `room` by formula."""
    every, grid = _possible(room)
    left = [one for one in every if one not in grid]
    if len(left) < DRAWN:
        raise LabkitError(
            f"{room / 1e9:.0f} GB hold too few of the settings to draw {DRAWN}: use a larger card"
        )
    drawn = random.Random(seed).sample(left, DRAWN)
    others = [one for one in (Setting(**fields) for fields in OTHERS) if predict(one).process <= room]
    sets = {"grid": grid, "others": others, "drawn": drawn}
    return {kind: {name(kind, one): one for one in ones} for kind, ones in sets.items()}


@cache
def _possible(room):
    every = [one for one in map(_setting, _product()) if one is not None and predict(one).process <= room]
    return every, covering(every, SIZE)


def covering(every, size):
    """`size` of the settings, such that pairs of values of two axes occur early and often.

    One after another the setting is taken that adds most pairs not seen yet, or else seldom seen.
    """
    seen, taken, left = {}, [], list(every)
    while left and len(taken) < size:
        best = max(left, key=lambda one: sum(1 / (1 + seen.get(pair, 0)) ** 4 for pair in pairs(one)))
        left.remove(best)
        taken.append(best)
        for pair in pairs(best):
            seen[pair] = seen.get(pair, 0) + 1
    return taken


def pairs(setting):
    """The pairs of values of two axes that a setting has."""
    values = [(axis, setting.shape.name if axis == "shape" else getattr(setting, axis)) for axis in AXES]
    return list(itertools.combinations(values, 2))


def name(kind, setting):
    """A job's name: set, method, shape, and a digest of the whole setting."""
    text = json.dumps(setting.to_dict(), sort_keys=True)
    return f"{kind}-{setting.method}-{setting.shape.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _product():
    for values in itertools.product(*AXES.values()):
        yield dict(zip(AXES, values, strict=True))


def _setting(fields):
    try:
        return Setting(**fields)
    except LabkitError:
        return None
