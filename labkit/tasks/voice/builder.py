"""Builds messages with replies and preference pairs, deterministic on every machine and Python version."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.draw import digest, pick, share, shuffled, weighted
from labkit.tasks.tickets.grammar import TEST_PRODUCTS, UNITS
from labkit.tasks.voice import matters as m
from labkit.tasks.voice.replies import feasible, fill, forms_of, write_reply
from labkit.tasks.voice.rules import HELD_OUT_RULES, PAIR_RULES, RULES
from labkit.tasks.voice.texts import words

Row = dict[str, Any]

# ---- Knobs ----------------------------------------------------------------------------------------------
SPLITS = {"train": 1500, "validation": 100, "test": 400}
PAIR_SPLITS = {"train": 2600, "test": 400}
NEW_PRODUCT_IN_TEST = 0.25  # share of test messages about a product that training never shows, where one fits
GREETED, ASIDE, CLOSED = 0.45, 0.3, 0.35  # shares of messages with a greeting, an aside and a closing
# How likely a draft of middling care breaks each rule, and what care does to that.
BREAKS = {
    "greeting": 0.25,
    "acknowledgement": 0.27,
    "product": 0.27,
    "topic": 0.13,
    "no_dates": 0.32,
    "no_exclamation": 0.33,
    "not_too_long": 0.14,
    "not_too_short": 0.10,
    "offer": 0.33,
    "signature": 0.28,
    "no_blame": 0.23,
    "says_we": 0.28,
    "no_promises": 0.29,
    "no_capitals": 0.17,
    "no_repeats": 0.12,
    "plain_text": 0.19,
    "sentences": 0.15,
    "no_regrets": 0.32,
    "no_orders": 0.32,
    "no_stiffness": 0.30,
    "no_hype": 0.32,
    "full_words": 0.33,
    "short_sentences": 0.30,
    "next_step": 0.25,
}
CARE = {"careful": 0.35, "middling": 0.40, "careless": 0.25}  # shares of the drafts
CARE_FACTOR = {"careful": 0.35, "middling": 1.0, "careless": 1.8}
HELD_OUT_IN_PAIRS = 0.25  # each held-out rule is broken in this share of pairs, by both replies alike
SHORT_IN_PAIRS = 0.08  # in this share of pairs the rejected reply may be too short
HOW_MANY = {1: 0.40, 2: 0.35, 3: 0.25}  # rules that the rejected reply of a pair breaks
# In every 20 pairs the chosen reply is longer in both sets; longer only in `pairs`; or shorter in both.
LENGTHS = ["longer"] * 10 + ["mixed"] * 4 + ["shorter"] * 6
# ---------------------------------------------------------------------------------------------------------


def check(split: str, diversity: float, splits: dict[str, int]) -> None:
    """Raise LabkitError for a split or a diversity that does not exist."""
    if split not in splits:
        raise LabkitError(f"voice has no split {split!r} here: use one of {', '.join(splits)}.")
    if not 0 < diversity <= 1:
        raise LabkitError(f"diversity is {diversity}, but must be above 0 and at most 1.")


# ---- messages and their replies -------------------------------------------------------------------------


def build(split: str, n: int, seed: int | str = 0, diversity: float = 1.0) -> list[Row]:
    """Build n rows: dicts with id, phrasing, topic, product, message, reply (keeps every rule) and draft.

    The first k of n rows are the rows of `build(split, k, ...)`. Messages are unique, and a message of one
    split never occurs in another. `diversity` in (0, 1] is the share of the training phrasings that may be
    used (it does not change test). Raises LabkitError for bad arguments or when no new message can be found.
    """
    check(split, diversity, SPLITS)
    rows = _asked(split, n, seed, diversity)
    for i, row in enumerate(rows):
        rng = Random(f"voice/replies/{split}/{seed}/{i}")
        row["reply"] = _written(rng, row, lambda _: set())
        row["draft"] = _written(rng, row, _draft_plan)
    return rows


def _asked(split: str, n: int, seed: int | str, diversity: float) -> list[Row]:
    """The rows of `build` before anybody has answered them."""
    rng = Random(f"voice/{split}/{seed}")
    home = list(SPLITS).index(split)
    templates = {name: templates_for(split, matter, diversity) for name, matter in m.MATTERS.items()}
    rows: list[Row] = []
    seen: set[str] = set()
    block: list[str] = []
    while len(rows) < n:
        block = block or shuffled(rng, m.TOPICS)
        topic = block.pop()
        for _ in range(2000):
            matter = pick(rng, [matter for matter in m.MATTERS.values() if matter.topic == topic])
            phrasing, template = pick(rng, templates[matter.name])
            product = _product(rng, split, matter)
            message = _message(rng, split, template, product)
            # A third of all possible messages belongs to each split: that keeps the splits apart for any n.
            if digest(message) % 3 == home and message not in seen:
                break
        else:
            raise LabkitError(f"No new {topic} message found after {len(rows)} {split} rows: ask for fewer.")
        seen.add(message)
        rows.append(
            {
                "id": f"voice-{split}-{len(rows):05d}",
                "phrasing": phrasing,
                "topic": topic,
                "product": product,
                "message": message,
            }
        )
    return rows


def templates_for(split: str, matter: m.Matter, diversity: float = 1.0) -> list[tuple[str, str]]:
    """The (phrasing id, template) pairs of a matter that a split may use."""
    if split == "test":
        return list(matter.test)
    return share(list(matter.train), diversity, key=lambda pair: pair[0])


def _product(rng: Random, split: str, matter: m.Matter) -> str:
    fits = [product for product, kind in m.KIND.items() if kind in matter.kinds]
    new = [product for product in fits if product in TEST_PRODUCTS]
    if split == "test" and new and rng.random() < NEW_PRODUCT_IN_TEST:
        return pick(rng, new)
    return pick(rng, [product for product in fits if product not in TEST_PRODUCTS])


def _message(rng: Random, split: str, template: str, product: str) -> str:
    test = split == "test"
    pools = {slot: pick(rng, pool) for slot, pool in m.POOLS.items()}
    said = [fill(template, {**forms_of(product, UNITS[product]), **pools})]
    if rng.random() < ASIDE:
        said.insert(pick(rng, [0, 1, 1]), pick(rng, m.ASIDES[test]))
    if rng.random() < GREETED:
        first = said[0] if re.match(r"I\b", said[0]) else said[0][:1].lower() + said[0][1:]
        said[:1] = [pick(rng, m.GREETINGS[test]), first]
    if rng.random() < CLOSED:
        said.append(pick(rng, m.CLOSINGS[test]))
    return " ".join(said)


def _draft_plan(rng: Random) -> set[str]:
    """Which rules a draft breaks: a careless writer breaks more of all of them."""
    factor = CARE_FACTOR[weighted(rng, CARE)]
    return {name for name in RULES if rng.random() < min(0.9, factor * BREAKS[name])}


def _written(rng: Random, row: Row, plan: Callable[[Random], set[str]]) -> str:
    """A reply written to a plan; another plan is drawn where one cannot be carried out."""
    for _ in range(60):
        text = write_reply(rng, row["message"], row["product"], row["phrasing"], feasible(plan(rng)))
        if text is not None:
            return text
    raise LabkitError(f"No reply to {row['message']!r} could be written as planned: report this message.")


# ---- preference pairs -----------------------------------------------------------------------------------


def build_pairs(split: str, n: int, seed: int | str = 0, diversity: float = 1.0) -> list[Row]:
    """Build n preference pairs for the messages of `build(split, ...)`, taken in turn.

    A pair is a dict with id, phrasing, message_id, chosen, rejected, breaks (rules that only the rejected
    reply breaks) and the same three as rejected_balanced, breaks_balanced for the length-balanced set. The
    first k of n pairs are the pairs of a smaller call. Raises LabkitError for bad arguments.
    """
    check(split, diversity, PAIR_SPLITS)
    rows = _asked(split, min(n, SPLITS[split]), seed, diversity)
    return [_pair(rows[i % SPLITS[split]], i, split, seed) for i in range(n)]


@lru_cache(4096)
def _lengths(split: str, seed: int | str, block: int) -> tuple[str, ...]:
    return tuple(shuffled(Random(f"voice/lengths/{split}/{seed}/{block}"), LENGTHS))


def _pair(row: Row, i: int, split: str, seed: int | str) -> Row:
    rng = Random(f"voice/pairs/{split}/{seed}/{i}")
    length = _lengths(split, seed, i // len(LENGTHS))[i % len(LENGTHS)]
    for _ in range(60):
        # What both replies of the pair break, so that no held-out rule tells them apart.
        common = {name for name in HELD_OUT_RULES if rng.random() < HELD_OUT_IN_PAIRS}
        if rng.random() < SHORT_IN_PAIRS:  # which leaves room for no other sentence
            common &= {"next_step"}
        chosen = write_reply(rng, row["message"], row["product"], row["phrasing"], common)
        if chosen is None:
            continue
        first = _rejected(rng, row, chosen, common, length != "shorter")
        second = first if length != "mixed" else _rejected(rng, row, chosen, common, False)
        if first and second:
            break
    else:
        raise LabkitError(f"No pair could be written for {row['message']!r}: report this message.")
    return {
        "id": f"voice-pairs-{split}-{i:05d}",
        "phrasing": row["phrasing"],
        "message_id": row["id"],
        "chosen": chosen,
        "rejected": first[0],
        "breaks": first[1],
        "rejected_balanced": second[0],
        "breaks_balanced": second[1],
    }


def _rejected(rng: Random, row: Row, chosen: str, common: set[str], chosen_longer: bool) -> Any:
    """A worse reply of the wanted length, with the names of the pair rules that it breaks; None if none came
    out."""
    for _ in range(12):
        number = weighted(rng, HOW_MANY)
        extra = set(
            shuffled(rng, [name for name in PAIR_RULES if _possible(name, common, chosen_longer)])[:number]
        )
        text = write_reply(rng, row["message"], row["product"], row["phrasing"], common | extra)
        if text is None:
            continue
        gap = len(words(chosen)) - len(words(text))
        if gap and (gap > 0) == chosen_longer:
            return text, [name for name in PAIR_RULES if name in extra]
    return None


def _possible(name: str, common: set[str], chosen_longer: bool) -> bool:
    if name == "not_too_short":
        return chosen_longer and common <= {"next_step"}
    return name != "not_too_long" or not chosen_longer
