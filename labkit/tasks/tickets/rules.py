"""The rules of the tickets family (which fields an intent needs) and the knobs for how hard its rows are."""

from __future__ import annotations

import hashlib

KEYS = ["intent", "product", "order", "quantity", "date", "urgency", "missing"]
FACT_KEYS = ["product", "order", "quantity", "date"]
NEEDS = {
    "order_status": ["order"],
    "return": ["order"],
    "exchange": ["order"],
    "refund": ["order"],
    "cancel": ["order"],
    "warranty": ["product"],
    "stock": ["product"],
    "change_address": ["order"],
    "invoice": ["order"],
    "change_quantity": ["order", "quantity"],
}
INTENTS = list(NEEDS)
SPLITS = {"train": 4000, "validation": 500, "test": 5000}

# ---- Knobs: how hard the rows are -----------------------------------------------------------------------
LEVELS = {"easy": 0.60, "medium": 0.28, "hard": 0.12}  # shares of the rows
NOISE = {  # probabilities of each kind of noise at a level
    #                 easy  medium hard
    "greeting":      (0.25, 0.55, 0.65),
    "padding":       (0.05, 0.40, 0.60),
    "closing":       (0.25, 0.50, 0.60),
    "distractor":    (0.00, 0.50, 1.00),
    "distractor_2":  (0.00, 0.00, 0.35),
    "lead":          (0.05, 0.20, 0.35),  # a fact before the main sentence
    "key_value":     (0.10, 0.20, 0.25),  # left-over facts as "order: ..., date: ..."
    "correction":    (0.00, 0.05, 0.22),
    "typo":          (0.00, 0.015, 0.06),  # per word
    "abbreviation":  (0.00, 0.15, 0.40),
    "lower_case":    (0.08, 0.15, 0.30),
    "no_marks":      (0.05, 0.15, 0.35),  # commas, apostrophes and the last full stop left out
    "misspelt":      (0.00, 0.02, 0.08),  # the product's own name; training products only
    "nickname":      (0.00, 0.02, 0.06),  # "my Kestrel"; training products only
}
INLINE = 0.7  # a fact goes into the main sentence where that has room for it
GIVEN = {  # how often a message gives product, order, quantity, date
    "order_status": (0.45, 0.70, 0.10, 0.30),
    "return": (0.80, 0.70, 0.15, 0.35),
    "exchange": (0.80, 0.70, 0.12, 0.25),
    "refund": (0.60, 0.70, 0.08, 0.50),
    "cancel": (0.50, 0.75, 0.10, 0.30),
    "warranty": (0.85, 0.30, 0.05, 0.65),
    "stock": (0.85, 0.00, 0.60, 0.35),
    "change_address": (0.30, 0.70, 0.00, 0.55),
    "invoice": (0.40, 0.65, 0.05, 0.55),
    "change_quantity": (0.75, 0.70, 0.75, 0.20),
}
URGENCY_SHARES = {"normal": 0.60, "low": 0.18, "high": 0.22}
QUANTITIES = {2: 0.30, 3: 0.24, 4: 0.15, 5: 0.09, 6: 0.08, 1: 0.04, 8: 0.04, 10: 0.03, 12: 0.03}
NEW_PRODUCT_IN_TEST = 0.15  # share of the test's products that training never shows
HELD_OUT_COMBINATIONS = 10  # one combination of intent, urgency and facts given in so many is only in test
# ---------------------------------------------------------------------------------------------------------


def digest(text: str) -> int:
    """A number from a text, the same on every machine (unlike `hash`)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def held_out(intent: str, urgency: str, given: list[str]) -> bool:
    """Whether this combination of intent, urgency and facts given is kept from training."""
    return digest("/".join([intent, urgency, *given])) % HELD_OUT_COMBINATIONS == 0
