"""Builder of the sql rows, deterministic on every machine and Python version.

A question is kept only if its query has an answer, its order has no ties, and no wrong version of the query
(a condition dropped, a comparison turned round, another column, ...) gives the same answer.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.draw import digest, pick, share, shuffled
from labkit.tasks.sql import store_build
from labkit.tasks.sql.frames import FRAMES
from labkit.tasks.sql.kinds import KINDS, Draft, Drawing
from labkit.tasks.sql.nouns import Writer
from labkit.tasks.sql.query import Query, mutants, normal, render, stricter
from labkit.tasks.sql.store import connect

SPLITS = {"train": 3000, "validation": 300, "test": 5000}
# Which query belongs to which split, by the last figure of its digest: no query serves two splits.
HOMES = {"train": range(0, 4), "validation": range(4, 5), "test": range(5, 10)}
MOST_ROWS = 100  # of an answer
LONGEST = 320  # characters of a query, figures counted four times: to the model each is a token of its own
HELD_OUT_COMBINATIONS = 7  # one combination of a kind and its conditions in so many is only in test
MORE_HELD_OUT = 0.08  # share of the test's drafts that must be such a combination
TRIES = 3000


def held_out(features: list[str]) -> bool:
    """Whether this combination of kind, what it is about, and conditions is kept from training."""
    return digest("/".join([features[0], *sorted(features[1:])])) % HELD_OUT_COMBINATIONS == 0


def build(split: str, n: int, seed: int | str = 0, diversity: float = 1.0) -> list[dict[str, Any]]:
    """Build n rows of a split: dicts with id, question, query, phrasing, level and features.

    The first k of n rows are the rows of `build(split, k, ...)`. Questions are unique within a split; queries
    never occur in two splits, whatever n, seed and diversity are. `diversity` in (0, 1] is the share of the
    training phrasings (frames and ways to say a condition) that may be used; it does not change test. Raises
    LabkitError for an unknown split, a diversity outside (0, 1], or when no new questions can be found.
    """
    if split not in SPLITS:
        raise LabkitError(f"sql has no split {split!r}: use one of {', '.join(SPLITS)}.")
    if not 0 < diversity <= 1:
        raise LabkitError(f"diversity is {diversity}, but must be above 0 and at most 1.")
    if split == "test":
        diversity = 1.0
    rng = Random(f"sql/{split}/{seed}")
    rows: list[dict[str, Any]] = []
    questions: set[str] = set()
    queries: set[str] = set()
    block: list[str] = []
    while len(rows) < n:
        if not block:
            block = shuffled(rng, [kind for kind, (number, _) in KINDS.items() for _ in range(number)])
        kind = block.pop()
        insist = split == "test" and rng.random() < MORE_HELD_OUT
        for attempt in range(TRIES):
            row = _row(kind, rng, split, diversity, insist)
            # a query may come back in other words where a kind has few
            if (
                row
                and row["question"] not in questions
                and (row["query"] not in queries or attempt > TRIES // 2)
            ):
                break
        else:
            raise LabkitError(
                f"No new question ({kind}) found after {len(rows)} {split} rows: ask for fewer."
            )
        questions.add(row["question"])
        queries.add(row["query"])
        rows.append({"id": f"sql-{split}-{len(rows):05d}", **row})
    return rows


@cache
def frames_for(kind: str, split: str, diversity: float = 1.0) -> list[tuple[str, str]]:
    """The (phrasing id, frame) pairs of a kind that a split may use."""
    train, test = FRAMES[kind]
    return test if split == "test" else share(train, diversity, key=lambda pair: pair[0])


def _row(kind: str, rng: Random, split: str, diversity: float, insist: bool) -> dict[str, Any] | None:
    """One row, or None if what was drawn is no good."""
    draft = KINDS[kind][1](Drawing(Writer(rng, split, diversity), _store()))
    if not draft:
        return None
    sql = render(draft.query)
    home = digest(render(normal(draft.query))) % 10
    if home not in HOMES[split] or len(sql) + 3 * sum(map(str.isdigit, sql)) > LONGEST:
        return None
    features = [kind, draft.detail, *draft.keys] if draft.detail else [kind, *draft.keys]
    apart = held_out(features)
    if (apart and split != "test") or (insist and not apart):
        return None
    if split == "test" and draft.keys and not draft.new and kind not in ("lookup", "sales", "sales per"):
        return None  # test says at least one condition in its own words
    if weakness(draft.query):
        return None
    phrasing, frame = pick(rng, frames_for(kind, split, diversity))
    return {
        "question": fill(frame, draft),
        "query": sql,
        "phrasing": phrasing,
        "level": level(draft.query),
        "features": features,
    }


def fill(frame: str, draft: Draft) -> str:
    """The question: a frame with the words of a draft."""
    slots = dict(draft.slots)
    for name in ("np", "x"):
        if name in slots:
            slots[name.capitalize()] = slots[name][0].upper() + slots[name][1:]
    return re.sub(r"{(\w+)}", lambda m: str(slots[m[1]]), frame)


def level(query: Query) -> str:
    """easy, medium or hard, by tables, groups, order and subselects (the data card says how)."""
    tables = len(query.aliases())
    if (
        query.inner()
        or query.wrap
        or tables > 2
        or (tables > 1 and query.group and (query.order or query.having))
    ):
        return "hard"
    return "medium" if tables > 1 or query.group or query.order else "easy"


# ---- which queries are kept -----------------------------------------------------------------------------


@cache
def _store() -> sqlite3.Connection:
    return connect(store_build.make())


Rows = list[tuple]


def answer(query: Query, most: int = MOST_ROWS) -> Rows:
    """The rows of a query, at most one more than `most`, ties broken; sorted unless the query sorts them."""
    rows = _store().execute(render(query, total=True)).fetchmany(most + 1)
    rows = [tuple(round(value, 6) if isinstance(value, float) else value for value in row) for row in rows]
    return (
        rows if query.order else sorted(rows, key=lambda row: [(value is not None, value) for value in row])
    )


def weakness(query: Query) -> str:
    """Why a query makes no good row, or ""."""
    gold = answer(query)
    if not gold or all(value in (None, 0, "") for row in gold for value in row):
        return "empty"
    if len(gold) > MOST_ROWS:
        return "long"
    if query.group and not query.wrap and not query.limit and len(gold) < 2:
        return "one group"
    if query.order and tied(query):
        return "tie"
    for name, wrong in mutants(query):
        if answer(wrong, len(gold)) == gold:
            return name
    if not query.limit and not query.distinct:  # these often cannot show it
        for name, wrong in stricter(query):
            if answer(wrong, len(gold)) == gold:
                return name
    return ""


def tied(query: Query) -> bool:
    """Whether two rows, up to the first that is cut off, are equal in what they are sorted by."""
    more = replace(query, select=(query.order,), limit=query.limit and query.limit + 1)
    keys = [row[0] for row in answer(more)]
    return len(set(keys)) < len(keys)
