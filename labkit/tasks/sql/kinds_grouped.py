"""The kinds of question whose query groups: counts per city, the most of something, sums over order lines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from labkit.tasks.draw import pick, weighted
from labkit.tasks.sql.columns import (
    AVERAGES,
    DIMENSIONS,
    KEY,
    METRICS,
    SALES,
)
from labkit.tasks.sql.drawing import Draft, Drawing
from labkit.tasks.sql.nouns import Noun, the
from labkit.tasks.sql.query import Query, Where, render

# The conditions that say whose sales are counted.
_ITEMS = ["p.category=", "p.category=", "p.category in", "p.category<>", "p.price>", "p.price<", "p.weight>",
          "p.name has", "p to x", "p to s"]  # fmt: skip


def _dimension(d: Drawing, e: str) -> tuple[str, dict[str, str], tuple[str, ...]]:
    """What to group by: expression, words for it, and the column that no condition may be on."""
    expression, dim, dims = pick(d.rng, DIMENSIONS[e])
    # grouping by year or month goes well with a condition on the day
    without = () if "(" in expression else (expression,)
    return expression, {"dim": dim, "dims": dims, "by": dim.split(" (")[0]}, without


def group(d: Drawing) -> Draft:
    """How many of a noun there are for each city, month or the like."""
    e = d.entity({"c": 0.25, "p": 0.25, "o": 0.3, "r": 0.18, "s": 0.02})
    expression, words, without = _dimension(d, e)
    np = d.noun(e, less=d.rng.random() < 0.1, without=without)
    query = Query(e, (expression, "COUNT(*)"), np.where, group=expression)
    return Draft(query, {"np": np.text, **words}, np.keys, np.new, expression)


def group_aggregate(d: Drawing) -> Draft:
    """An average, sum or extreme for each city, month or the like."""
    e = d.entity({"p": 0.6, "r": 0.4})
    expression, words, without = _dimension(d, e)
    select, agg, name = d.aggregate_of(e)
    np = d.noun(e, less=d.rng.random() < 0.1, without=(*without, name))
    query = Query(e, (expression, *select), np.where, group=expression)
    slots = {"np": np.text, "agg": agg, **words}
    return Draft(query, slots, np.keys, np.new, f"{expression} {'+'.join(select)}")


def _threshold(d: Drawing, query: Query, expression: str, sums: bool) -> tuple[Query, dict[str, Any]] | None:
    """The query with HAVING, compared with a value that occurs, and the words for the comparison."""
    counting = replace(query, select=(expression,), order="", limit=0)
    found = sorted(row[0] for row in d.store.execute(render(counting)))
    if len(found) < 3 or found[0] == found[-1]:
        return None
    n = found[int(len(found) * (0.35 + 0.6 * d.rng.random()))]
    op = pick(d.rng, [">", ">=", ">"] if sums else [">", ">=", ">", "="])
    more = {">": "more than {n}", ">=": "at least {n}", "=": "exactly {n}"}[op]
    if d.test and op != "=":
        more = {">": "over {n}", ">=": "{n} or more"}[op]
    above = {">": "above", ">=": "of at least", "=": "of"}[op]
    # one piece, one order: the noun would have to be singular
    if n < 2:
        return None
    return replace(query, having=(expression, op, n)), {"q": more.format(n=n), "above": above, "n": n}


def having(d: Drawing, count: bool = False) -> Draft | None:
    """The cities, months or the like that have many of a noun."""
    e = d.entity({"c": 0.35, "p": 0.25, "o": 0.25, "r": 0.15})
    expression, words, without = _dimension(d, e)
    np = d.noun(e, less=d.rng.random() < 0.3, without=without)
    select = (expression, "COUNT(*)") if count else (expression,)
    found = _threshold(d, Query(e, select, np.where, group=expression), "COUNT(*)", sums=False)
    if not found:
        return None
    query, bound = found
    return Draft(query, {"np": np.text, **words, **bound}, np.keys, np.new, expression)


def having_count(d: Drawing) -> Draft | None:
    """The same with the numbers."""
    return having(d, count=True)


@dataclass
class Metric:
    """Rows with something in other tables that they may have much of: grouped, not yet sorted or cut."""

    query: Query
    expression: str
    noun: Noun
    most: str  # "the most orders placed by phone"
    more: str  # "{q} orders placed by phone"
    value: str  # "number of orders"
    keys: list[str]
    new: bool

    def draft(self, query: Query, **slots: Any) -> Draft:
        slots |= {"np": self.noun.text, "value": self.value}
        detail = f"{query.first} {self.expression} {query.also}".strip()
        return Draft(query, slots, self.keys, self.new, detail)


def _metric(d: Drawing) -> Metric:
    e = d.entity({"c": 0.38, "p": 0.32, "s": 0.16, "o": 0.14})
    related, expression, most, more, value = pick(d.rng, METRICS[e])
    own = int(d.rng.random() < 0.45)
    np = d.writer.noun(e, own) if own or related else d.noun(e)
    inner = d.writer.noun(related, int(not own or d.rng.random() < 0.5)) if related else Noun("")
    within = f" in {inner.text}" if inner.keys else ""
    # what names the order lines needs no orders, unless they have conditions
    also = "" if "l." in expression and not inner.keys else related
    query = Query(e, (KEY[e],), np.where + inner.where, group=KEY[e], also=also)
    most, more = (text.replace("{r}", inner.text).replace("{within}", within) for text in (most, more))
    return Metric(query, expression, np, most, more, value, np.keys + inner.keys, np.new or inner.new)


def top_related(d: Drawing, with_value: bool = False) -> Draft:
    """The few rows that have most of something in other tables."""
    metric = _metric(d)
    k, number = d.how_many()
    key = metric.query.select[0]
    select = (key, metric.expression) if with_value else (key,)
    query = replace(metric.query, select=select, order=metric.expression, descending=True, limit=k)
    return metric.draft(query, k=number, most=metric.most, cols=d.words([key]))


def top_related_value(d: Drawing) -> Draft:
    """The same with the numbers."""
    return top_related(d, with_value=True)


def having_related(d: Drawing) -> Draft | None:
    """The rows that have more of something in other tables than a bound."""
    metric = _metric(d)
    found = _threshold(d, metric.query, metric.expression, sums=metric.expression != "COUNT(*)")
    if not found:
        return None
    query, words = found
    return metric.draft(query, more=metric.more.format(**words), cols=d.words([query.select[0]]))


def sales(d: Drawing) -> Draft:
    """Revenue or pieces sold, of some products or in some orders."""
    expression, what, of = pick(d.rng, SALES)
    where: tuple[Where, ...] = ()
    keys: list[str] = []
    new = False
    slots = {"what": what, "of": "", "within": ""}
    shape = weighted(d.rng, {"p": 0.2, "x": 0.15, "o": 0.2, "po": 0.2, "xo": 0.25})
    if "x" in shape:
        name = d.writer.values.choice("p.name")
        where, keys, slots["of"] = (Where("p.name", "=", (name,)),), ["p.name="], f"{of} {the('p', name)}"
    if "p" in shape:
        np = d.writer.assemble("p", [pick(d.rng, _ITEMS)])
        where, keys, new, slots["of"] = np.where, np.keys, np.new, f"{of} {np.text}"
    if "o" in shape:
        np = d.noun("o", related=0.0) if shape == "o" else d.writer.noun("o", 1)
        if d.rng.random() < 0.2:
            np = d.writer.assemble("o", ["o to c"])
        where, keys, new = where + np.where, keys + np.keys, new or np.new
        slots["within"] = f" in {np.text}"
    return Draft(Query("l", (expression,), where), slots, keys, new, expression)


def sales_per(d: Drawing) -> Draft | None:
    """The same for each category, month or the like."""
    draft = sales(d)
    expression, words, without = _dimension(d, "l")
    if set(without) & {w.left for w in draft.query.where}:
        return None
    query = replace(draft.query, select=(expression, *draft.query.select), group=expression)
    return replace(draft, query=query, slots={**draft.slots, **words}, detail=f"{draft.detail} {expression}")


def average_per(d: Drawing) -> Draft:
    """An average over orders of what their lines sum up to."""
    expression, what, per = pick(d.rng, AVERAGES)
    np = d.noun("o", related=0.2)
    query = Query("o", (expression,), np.where, group="o.id", also="l", wrap="AVG")
    return Draft(query, {"np": np.text, "what": what, "per": per}, np.keys, np.new, expression)
