"""A query as a small tree that can be printed as SQL: the one style in which all gold queries are written.

Keywords in capitals, text in single quotes, `<>` for unequal. A query over one table has no alias; where
tables are joined each has its letter (customers c, products p, suppliers s, orders o, order_lines l, returns
r) and every column carries it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from labkit.tasks.sql.store import ALIASES, LINKS

# The tables on the way from the first table of a query to another one.
PATHS = {
    "c": {"o": "o", "l": "ol", "p": "olp", "s": "olps", "r": "or"},
    "p": {"s": "s", "l": "l", "o": "lo", "c": "loc", "r": "r"},
    "s": {"p": "p", "l": "pl", "o": "plo", "c": "ploc", "r": "pr"},
    "o": {"c": "c", "l": "l", "p": "lp", "s": "lps", "r": "r"},
    "l": {"o": "o", "c": "oc", "p": "p", "s": "ps"},
    "r": {"o": "o", "c": "oc", "p": "p", "s": "ps"},
}
_ALIAS = re.compile(r"\b([cpsolr])\.")
FLIPPED = {
    "=": "<>",
    "<>": "=",
    ">": "<=",
    "<=": ">",
    "<": ">=",
    ">=": "<",
    "BETWEEN": "NOT BETWEEN",
    "IN": "NOT IN",
    "NOT IN": "IN",
    "LIKE": "NOT LIKE",
}
STRICTER = {">": ">=", ">=": ">", "<": "<=", "<=": "<"}


@dataclass(frozen=True)
class Where:
    """One condition: `left` is an expression with aliases ("c.city"), `right` values or a subselect."""

    left: str
    op: str
    right: tuple[str | int, ...] | Query


@dataclass(frozen=True)
class Query:
    """One SELECT. Expressions carry aliases ("p.price"), which printing leaves out if there is one table."""

    first: str  # alias of the first table
    select: tuple[str, ...]
    where: tuple[Where, ...] = ()
    distinct: bool = False
    glue: str = "AND"
    group: str = ""
    having: tuple[str, str, int] | None = None
    order: str = ""
    descending: bool = False
    limit: int = 0
    also: str = ""  # aliases of tables that are joined although no expression names them
    wrap: str = ""  # an aggregate over the values of the groups

    def aliases(self) -> list[str]:
        """The tables of the query in joining order."""
        texts = [
            *self.select,
            *(w.left for w in self.where),
            self.group,
            self.order,
            self.having[0] if self.having else "",
        ]
        named = set(_ALIAS.findall(" ".join(texts))) | set(self.also)
        used = {self.first}.union(*(PATHS[self.first][a] for a in named - {self.first}))
        return [self.first, *(a for a in "olrcps" if a in used - {self.first})]

    def inner(self) -> list[Query]:
        """The subselects of the conditions."""
        return [w.right for w in self.where if isinstance(w.right, Query)]


def normal(query: Query) -> Query:
    """The query with its conditions and listed values sorted: their order makes no other query."""

    def values(w: Where) -> tuple[str | int, ...] | Query:
        if isinstance(w.right, Query):
            return normal(w.right)
        return tuple(sorted(w.right, key=str)) if w.op in ("IN", "NOT IN") else w.right

    ordered = (replace(w, right=values(w)) for w in query.where)
    return replace(query, where=tuple(sorted(ordered, key=lambda w: (w.left, w.op, str(w.right)))))


def render(query: Query, total: bool = False) -> str:
    """The query as SQL. With `total`, the columns break ties in its order, so that it has one result."""
    tables = query.aliases()
    single = len(tables) == 1

    def bare(expression: str) -> str:
        return _ALIAS.sub("", expression) if single else expression

    parts = ["SELECT", "DISTINCT"] if query.distinct else ["SELECT"]
    columns = ", ".join(map(bare, query.select))
    parts += [f"{columns} AS n" if query.wrap else columns, "FROM", _joined(tables)]
    if query.where:
        conditions = [f"{bare(w.left)} {w.op} {_right(w, total)}" for w in query.where]
        parts += ["WHERE", f" {query.glue} ".join(conditions)]
    if query.group:
        parts += ["GROUP BY", bare(query.group)]
    if query.having:
        left, op, number = query.having
        parts += ["HAVING", f"{bare(left)} {op} {number}"]
    if query.order:
        last = [bare(s) for s in query.select if s != query.order] if total else []
        parts += ["ORDER BY", ", ".join([bare(query.order) + (" DESC" if query.descending else ""), *last])]
    if query.limit:
        parts += ["LIMIT", str(query.limit)]
    text = " ".join(parts)
    return f"SELECT {query.wrap}(n) FROM ({text})" if query.wrap else text


def _joined(tables: list[str]) -> str:
    if len(tables) == 1:
        return ALIASES[tables[0]]
    text, left = f"{ALIASES[tables[0]]} {tables[0]}", [tables[0]]
    todo = tables[1:]
    while todo:
        child, column, parent = next(
            (a, column, b) for a, column, b in LINKS if (a in left and b in todo) or (a in todo and b in left)
        )
        new = child if child in todo else parent
        text += f" JOIN {ALIASES[new]} {new} ON {child}.{column} = {parent}.id"
        left.append(new)
        todo.remove(new)
    return text


def _right(where: Where, total: bool) -> str:
    if isinstance(where.right, Query):
        return f"({render(where.right, total)})"
    values = [str(v) if isinstance(v, int) else "'" + v.replace("'", "''") + "'" for v in where.right]
    if "BETWEEN" in where.op:
        return " AND ".join(values)
    return f"({', '.join(values)})" if "IN" in where.op else values[0]


# ---- wrong queries that resemble a right one --------------------------------------------------------------

_SAME_KIND = {  # the other column of the same type that is most easily mistaken for it
    "p.price": "p.stock",
    "p.stock": "p.price",
    "p.weight": "p.price",
    "c.city": "c.tier",
    "c.tier": "c.city",
    "o.id": "o.customer_id",
    "r.id": "r.order_id",
    "r.refund": "r.id",
    "o.status": "o.channel",
    "o.channel": "o.status",
}
_OTHER_AGGREGATE = {"MIN": "MAX", "MAX": "MIN", "SUM": "AVG", "AVG": "SUM"}


def mutants(query: Query, inside: bool = False) -> list[tuple[str, Query]]:
    """Wrong versions of a query, each with what was done: none may give the right result."""
    out = []
    for i, w in enumerate(query.where):
        rest = query.where[:i] + query.where[i + 1 :]
        out.append((f"drop {w.left} {w.op}", replace(query, where=rest, also=_kept(query))))
        if isinstance(w.right, Query):
            out += [
                (
                    f"inner {name}",
                    replace(query, where=(*query.where[:i], replace(w, right=q), *query.where[i + 1 :])),
                )
                for name, q in mutants(w.right, inside=True)
            ]
        flip = replace(w, op=FLIPPED[w.op])
        out.append(
            (f"flip {w.left} {w.op}", replace(query, where=(*query.where[:i], flip, *query.where[i + 1 :])))
        )
    if len(query.where) > 1:
        out.append(("other glue", replace(query, glue="OR" if query.glue == "AND" else "AND")))
    if query.distinct:
        out.append(("all", replace(query, distinct=False)))
    if query.having:
        left, op, number = query.having
        out.append(("drop having", replace(query, having=None)))
        out.append(("flip having", replace(query, having=(left, FLIPPED[op], number))))
    if query.wrap:
        out += [(f"{wrap} for {query.wrap}", replace(query, wrap=wrap)) for wrap in ("MAX", "SUM")]
        out.append(("no groups", replace(query, group="")))
    if query.limit and not inside:
        out.append(("more rows", replace(query, limit=query.limit + 1)))
    if query.order:
        out.append(("other order", replace(query, descending=not query.descending)))
    for i, s in enumerate(query.select):
        for new in _others(s):
            # a subselect with other ids means little, and need not differ
            if not inside or "(" in s:
                out.append(
                    (
                        f"{new} for {s}",
                        replace(query, select=(*query.select[:i], new, *query.select[i + 1 :])),
                    )
                )
    return out


def stricter(query: Query) -> list[tuple[str, Query]]:
    """Versions in which one comparison with a number takes `>` for `>=` or the like."""
    out = []
    for i, w in enumerate(query.where):
        if w.op in STRICTER and not isinstance(w.right, Query):
            other = replace(w, op=STRICTER[w.op])
            out.append(
                (
                    f"stricter {w.left} {w.op}",
                    replace(query, where=(*query.where[:i], other, *query.where[i + 1 :])),
                )
            )
    if query.having and query.having[1] in STRICTER:
        left, op, number = query.having
        out.append(("stricter having", replace(query, having=(left, STRICTER[op], number))))
    return out


def _kept(query: Query) -> str:
    # dropping a condition keeps its tables: the join alone may change the result, too
    return "".join(query.aliases()[1:])


def _others(expression: str) -> list[str]:
    if expression in _SAME_KIND:
        return [_SAME_KIND[expression]]
    name, _, inner = expression.partition("(")
    out = []
    if name in _OTHER_AGGREGATE:
        out.append(f"{_OTHER_AGGREGATE[name]}({inner}")
    if expression.startswith("COUNT(DISTINCT "):
        out.append(expression.replace("DISTINCT ", ""))
    if inner.rstrip(")") in _SAME_KIND and name in _OTHER_AGGREGATE:
        out.append(f"{name}({_SAME_KIND[inner.rstrip(')')]})")
    return out
