"""The kinds of question: each draws a query and the words that fill one of its frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from labkit.tasks.draw import pick, weighted
from labkit.tasks.sql import kinds_grouped as grouped
from labkit.tasks.sql.columns import (
    COLUMNS,
    DISTINCT,
    KEY,
)
from labkit.tasks.sql.drawing import Draft, Drawing, plain
from labkit.tasks.sql.nouns import the
from labkit.tasks.sql.phrases import (
    AGGREGATE_WORDS,
    DATE_AGGREGATE_WORDS,
    SORTS,
    SUPERLATIVES,
)
from labkit.tasks.sql.query import Query, Where
from labkit.tasks.sql.values import column

_ALL = {"c": 0.26, "p": 0.28, "o": 0.25, "r": 0.15, "s": 0.06}


def _list(d: Drawing, either: bool = False) -> Draft:
    e = d.entity({**_ALL, "s": 0.0 if either else _ALL["s"]})
    columns = d.columns(e)
    np = d.writer.noun(e, 2, either=True) if either else d.noun(e, related=0.35)
    query = Query(e, plain(columns), np.where, glue="OR" if either else "AND")
    return Draft(query, {"np": np.text, "cols": d.words(columns)}, np.keys, np.new, e)


def _either(d: Drawing) -> Draft:
    return _list(d, either=True)


def _count(d: Drawing) -> Draft:
    e = d.entity(_ALL)
    np = d.noun(e, related=0.45)
    return Draft(Query(e, ("COUNT(*)",), np.where), {"np": np.text}, np.keys, np.new, e)


def _aggregate(d: Drawing) -> Draft:
    e = d.entity({"p": 0.5, "r": 0.3, "c": 0.08, "o": 0.12})
    select, words, name = d.aggregate_of(e)
    np = d.noun(e, related=0.3, without=(name,))
    return Draft(Query(e, select, np.where), {"np": np.text, "agg": words}, np.keys, np.new, "+".join(select))


def _lookup(d: Drawing) -> Draft:
    e = d.entity({"p": 0.42, "c": 0.28, "o": 0.18, "r": 0.08, "s": 0.04})
    columns: list[str] = []
    for _ in range(weighted(d.rng, {1: 0.5, 2: 0.4, 3: 0.1})):
        new = pick(d.rng, COLUMNS[e])
        if new not in columns:
            columns.append(new)
    if e in "or":
        value: Any = pick(d.rng, column({"o": "orders", "r": "returns"}[e], "id"))
        x = f"{'order' if e == 'o' else 'return'} {value}"
    else:
        value = d.writer.values.choice(KEY[e])
        x = the(e, value)
        if e != "p" and d.rng.random() < 0.3:
            x = f"{'customer' if e == 'c' else 'supplier'} {x}"
    query = Query(e, plain(columns), (Where(KEY[e], "=", (value,)),))
    slots = {"x": x, "cols": d.words(columns, plural=False), "is": "is" if len(columns) == 1 else "are"}
    return Draft(query, slots, [f"{KEY[e]}="], detail="+".join(columns))


def _distinct(d: Drawing) -> Draft:
    e = d.entity({"c": 0.3, "p": 0.3, "o": 0.25, "r": 0.1, "s": 0.05})
    name = pick(d.rng, DISTINCT[e])
    np = d.noun(e, related=0.25, without=plain([name]))
    slots = {"np": np.text, "cols": d.words([name])}
    return Draft(Query(e, plain([name]), np.where, distinct=True), slots, np.keys, np.new, name)


def _count_distinct(d: Drawing) -> Draft:
    draft = _distinct(d)
    query = replace(draft.query, select=(f"COUNT(DISTINCT {draft.query.select[0]})",), distinct=False)
    return replace(draft, query=query)


def _sorted(d: Drawing) -> Draft:
    name, descending = pick(d.rng, list(SORTS))
    e = name[0]
    columns = d.columns(e)
    np = d.noun(e, related=0.2)
    train, test = SORTS[name, descending]
    slots = {"np": np.text, "cols": d.words(columns), "order": pick(d.rng, test if d.test else train)}
    query = Query(e, plain(columns), np.where, order=name, descending=descending)
    return Draft(query, slots, np.keys, np.new, f"{name} {descending}")


def _top(d: Drawing) -> Draft:
    name, descending = pick(d.rng, list(SUPERLATIVES))
    e = name[0]
    columns = d.columns(e)
    np = d.noun(e, related=0.2, without=(name,))
    k, number = d.how_many()
    words = SUPERLATIVES[name, descending]
    before, after = words[2:] if d.test else words[:2]
    i = int(d.rng.random() * (len(before) + len(after)))
    if i < len(before):
        top = f"{number} {before[i]} {np.text}"
    else:
        phrase = after[i - len(before)]
        top = f"{number} {np.text} {phrase}"
    query = Query(e, plain(columns), np.where, order=name, descending=descending, limit=k)
    return Draft(query, {"top": top, "cols": d.words(columns)}, np.keys, np.new, f"{name} {descending}")


def _extreme(d: Drawing) -> Draft:
    name, descending = pick(d.rng, list(SUPERLATIVES))
    e = name[0]
    columns = d.columns(e)
    np = d.noun(e, related=0.2, without=(name,))
    table = DATE_AGGREGATE_WORDS if name[2:] in ("joined", "day") else AGGREGATE_WORDS
    high = table["MAX" if descending else "MIN"][d.test and d.rng.random() < 0.5]
    slots = {
        "np": np.text,
        "col": d.words(columns, plural=False),
        "high": high,
        "what": d.words([name], plural=False),
    }
    query = Query(e, plain(columns), np.where, order=name, descending=descending, limit=1)
    return Draft(query, slots, np.keys, np.new, f"{name} {descending}")


# Kind -> (how many of each 50 rows, what draws it).
KINDS: dict[str, tuple[int, Callable[[Drawing], Draft | None]]] = {
    "list": (6, _list),
    "either": (2, _either),
    "count": (5, _count),
    "aggregate": (5, _aggregate),
    "lookup": (4, _lookup),
    "distinct": (2, _distinct),
    "count distinct": (1, _count_distinct),
    "sorted": (3, _sorted),
    "top": (3, _top),
    "extreme": (2, _extreme),
    "group": (3, grouped.group),
    "group aggregate": (1, grouped.group_aggregate),
    "having": (1, grouped.having),
    "having count": (1, grouped.having_count),
    "top related": (2, grouped.top_related),
    "top related value": (1, grouped.top_related_value),
    "having related": (2, grouped.having_related),
    "sales": (3, grouped.sales),
    "sales per": (2, grouped.sales_per),
    "average per": (1, grouped.average_per),
}
