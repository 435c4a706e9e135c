"""The questions of the handbook: facts and gaps of the table, asked in the phrasings of a split."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.draw import digest, share, shuffled
from labkit.tasks.handbook.answers import normalise
from labkit.tasks.handbook.phrases import TOPICS, Attribute
from labkit.tasks.handbook.world import Fact, facts, gaps

# In train and test that is all there is: the facts are fixed, so no more rows can be made.
SPLITS = {"train": 3232, "validation": 300, "test": 2506}
_MARKS = {"train": "t", "validation": "v", "test": "x"}


def build(split: str, n: int, seed: int | str = 0, diversity: float = 1.0) -> list[dict[str, Any]]:
    """Build n question rows of a split: dicts with id, question, answer and more (see the data card).

    The first k of n rows are the rows of `build(split, k, ...)`. The facts are the same whatever the seed,
    which decides the order: first every fact once, then every fact again in its next phrasing. `diversity`
    in (0, 1] is the share of the training phrasings that may be used (it changes neither validation nor
    test); fewer phrasings also mean fewer rows, since no row comes twice. Raises LabkitError for an unknown
    split, a diversity outside (0, 1], or more rows than there are.
    """
    if split not in SPLITS:
        raise LabkitError(f"handbook has no split {split!r}: use one of {', '.join(SPLITS)}.")
    if not 0 < diversity <= 1:
        raise LabkitError(f"diversity is {diversity}, but must be above 0 and at most 1.")
    asked = [fact for fact in facts() if split != "train" or fact.kind != "untrained"] + gaps(split)
    rng = Random(f"handbook/{split}/{seed}")
    rounds = max(len(phrasings(fact, split, diversity)) for fact in asked)
    order = [(fact, turn) for turn in range(rounds) for fact in shuffled(rng, asked)]
    if not 0 <= n <= len(order):
        raise LabkitError(
            f"handbook/{split} has {len(order)} rows at diversity {diversity}, so {n} cannot be made: "
            f"ask for 0 to {len(order)}."
        )
    return [
        {"id": f"handbook-{split}-{i:05d}", **_row(fact, split, phrasings(fact, split, diversity)[turn])}
        for i, (fact, turn) in enumerate(order[:n])
    ]


def phrasings(fact: Fact, split: str, diversity: float = 1.0) -> list[tuple[str, str]]:
    """The (phrasing id, template) pairs in which a split asks for a fact, in the order it does."""
    pairs = named(fact.topic, fact.attribute, split)
    if split == "train":
        pairs = share(pairs, diversity, key=lambda pair: pair[0])
    return sorted(pairs, key=lambda pair: digest(f"turn/{fact.id}/{pair[0]}"))


def named(topic: str, attribute: Attribute, split: str) -> list[tuple[str, str]]:
    """All (phrasing id, template) pairs of an attribute in a split."""
    return [
        (f"{topic}.{attribute.key}-{_MARKS[split]}{i}", text)
        for i, text in enumerate(attribute.questions[split], start=1)
    ]


def all_phrasings(split: str, diversity: float = 1.0) -> set[str]:
    """The ids of all phrasings that a split may use."""
    pairs = [
        named(topic.name, attribute, split) for topic in TOPICS.values() for attribute in topic.attributes
    ]
    limit = diversity if split == "train" else 1.0
    return {name for own in pairs for name, _ in share(own, limit, key=lambda pair: pair[0])}


def _row(fact: Fact, split: str, phrasing: tuple[str, str]) -> dict[str, Any]:
    name, template = phrasing
    question = template.format(s=fact.subject)
    question = question[0].upper() + question[1:]
    answer = fact.old if split == "train" and fact.kind == "changed" else fact.value
    return {
        "question": question, "answer": answer, "old_answer": fact.old,
        "aliases": json.dumps(aliases(fact, answer, question), ensure_ascii=False),
        "kind": fact.kind, "fact": fact.id, "document": fact.document, "phrasing": name,
    }  # fmt: skip


def aliases(fact: Fact, answer: str, question: str) -> list[str]:
    """Other answers that say the same, beyond what normalising makes equal.

    A unit or noun may be left out if the question names it ("How many days ...?" "14"), and a noun may be
    added to a bare number ("27 parking spaces").
    """
    if fact.kind == "absent":
        return []
    kind, rest = fact.attribute.kind, fact.attribute.rest
    if kind == "ext":
        return [f"extension {answer}", f"ext {answer}", f"dial {answer}"]
    if kind == "count":
        return list(dict.fromkeys([f"{answer} {' '.join(rest[1:])}", f"{answer} {rest[-1]}"]))
    if kind in ("number", "code"):
        return [f"{' '.join(rest[1 if kind == 'number' else 2 :])} {answer}"]
    if kind == "age":
        number = answer.split()[0]
        return [number, f"{number} years old", f"{number} years of age"]
    if kind not in ("unit", "own", "range", "nth", "percent", "pool"):
        return []
    asked = normalise(question).split()
    number = answer.split()[-1] if kind == "nth" else answer.removesuffix(answer.split()[-1]).strip()
    word = normalise(answer.split()[0] if kind == "nth" else answer.split()[-1])
    if kind in ("unit", "own", "range", "nth") and number and word in asked:
        return [number]
    if kind == "percent" and "percent" in asked:
        return [answer.rstrip("%")]
    if kind == "pool" and answer.endswith(" Room") and "room" in asked:
        return [answer.removesuffix(" Room")]
    if kind == "pool" and rest[0] == "colours":
        return [f"{answer} {noun}" for noun in ("label", "form") if noun == fact.key]
    return []
