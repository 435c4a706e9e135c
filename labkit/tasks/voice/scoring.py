"""Scores, rewards and verdicts, all from the executable rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from labkit.tasks.scores import Scores, check_lengths, tally
from labkit.tasks.voice.rules import HELD_OUT_RULES, PAIR_RULES, RULES, is_reply, kept
from labkit.tasks.voice.texts import product_of, words


def score(texts: list[str], rows: Any) -> Scores:
    """Judge one reply to each row's `message`.

    `exact` is the share of replies that keep every rule. `detail` has the mean shares of rules kept ("all
    rules", "pair rules", "held-out rules"), the share of replies that keep each rule (by its name), "is a
    reply", "words" (mean number) and "distinct" (replies that differ in more than the product, as a share;
    near 0 for a canned reply). Raises LabkitError if the lengths differ or there is nothing to score.
    """
    rows = list(rows)
    check_lengths(texts, rows)
    found = [kept(row["message"], text) for text, row in zip(texts, rows, strict=True)]
    n = len(texts)
    detail = {
        "all rules": _mean(found, list(RULES)),
        "pair rules": _mean(found, list(PAIR_RULES)),
        "held-out rules": _mean(found, list(HELD_OUT_RULES)),
        "is a reply": sum(is_reply(row["message"], text) for text, row in zip(texts, rows, strict=True)) / n,
        "words": sum(len(words(text)) for text in texts) / n,
        "distinct": len({_masked(row["message"], text) for text, row in zip(texts, rows, strict=True)}) / n,
        **{name: sum(one[name] for one in found) / n for name in RULES},
    }
    return tally(list(texts), [all(one.values()) for one in found], detail)


def reward(message: str, reply: str, rules: Iterable[str] | None = tuple(PAIR_RULES)) -> float:
    """The share of rules that a reply keeps (0 to 1): by default of the pair rules, so that the held-out
    rules stay unseen; of all rules if `rules` is None. A text that is no reply to the message gets 0."""
    verdicts = kept(message, reply, rules)
    return sum(verdicts.values()) / len(verdicts)


def judge(message: str, a: str, b: str, rules: Iterable[str] | None = tuple(HELD_OUT_RULES)) -> float:
    """1 if reply a keeps more of the rules than b, 0 if fewer, 0.5 if as many: for win rates.

    By default it judges on the held-out rules; `rules` chooses others, None takes all.
    """
    names = None if rules is None else list(rules)
    ours, theirs = reward(message, a, names), reward(message, b, names)
    return 0.5 if ours == theirs else float(ours > theirs)


def _mean(found: list[dict[str, bool]], names: list[str]) -> float:
    return sum(one[name] for one in found for name in names) / (len(found) * len(names))


def _masked(message: str, text: str) -> str:
    """A reply without the words of the product's name, so that a form letter shows as one."""
    name = set(words(product_of(message) or ""))
    return " ".join(word for word in words(text) if word not in name)
