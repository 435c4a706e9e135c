"""Noun phrases with conditions ("gold customers from Cork who joined in 2025"), in words and in SQL."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

from labkit.tasks.draw import pick, share, shuffled
from labkit.tasks.sql.phrases import ADJECTIVES, HOW, NOUNS, OWN, PHRASES
from labkit.tasks.sql.query import Query, Where
from labkit.tasks.sql.store import ALIASES
from labkit.tasks.sql.values import CATEGORICAL, RELATIVE, Values, words

TEST_PHRASE = 0.6  # how often test says a condition in words that training never uses
# Relations that lead to one row of another table: they become a join. All others become a subselect.
TO_ONE = ["o to c", "o to x", "p to s", "p to x", "r to p", "r to x", "r to o", "r to c"]
_COMPARED = {"p.price", "p.stock", "p.weight", "r.refund"}


@dataclass
class Noun:
    """A noun phrase in the plural, its conditions, and their keys in `phrases.py`."""

    text: str
    where: tuple[Where, ...] = ()
    keys: list[str] = field(default_factory=list)
    new: bool = False  # says something in words of test


# The column that each condition is about, or the condition itself.
_ABOUT = {key: (re.match(r"\w\.\w+", key) or [key])[0] for key in PHRASES}


@cache
def own_keys(entity: str) -> list[str]:
    """The keys of the conditions on an entity's own columns."""
    return [key for key in OWN if key[0] == entity]


@cache
def related_keys(entity: str) -> list[str]:
    """The keys of the conditions on an entity that need another table or a subselect."""
    return [key for key in PHRASES if key[0] == entity and key not in OWN]


class Writer:
    """Draws conditions and puts them into words, for one question."""

    def __init__(self, rng: Random, split: str, diversity: float = 1.0):
        self.rng, self.test, self.diversity = rng, split == "test", diversity
        self.values = Values(rng, self.test)

    # -- noun phrases

    def noun(
        self,
        entity: str,
        own: int,
        related: bool = False,
        without: tuple[str, ...] = (),
        either: bool = False,
    ) -> Noun:
        """A noun phrase with `own` conditions on own columns, and perhaps one that reaches further.

        Columns in `without` get no condition. With `either`, the conditions are alternatives.
        """
        keys: list[str] = []
        taken = set(without)
        for key in shuffled(self.rng, own_keys(entity)):
            name = _ABOUT[key]
            # "not from Cork or on the gold tier" could be read in two ways
            if len(keys) < own and name not in taken and not (either and key.endswith("<>")):
                keys.append(key)
                taken.add(name)
        if related:
            fitting = [key for key in related_keys(entity) if _ABOUT[key] not in taken]
            keys.append(pick(self.rng, fitting))
        return self.assemble(entity, keys, either)

    def assemble(self, entity: str, keys: list[str], either: bool = False) -> Noun:
        """The noun phrase with the given conditions."""
        out = Noun(NOUNS[entity])
        said: list[tuple[int, str, tuple[Where, ...]]] = []
        self.values.see(entity)
        nested = any(key not in OWN for key in keys)
        for i, key in enumerate(keys):
            where, slots, inner = self.condition(key)
            last = nested and i == len(keys) - 1 and key not in OWN
            clause = last and any(place == 2 for place, _, _ in said)
            text, new = self.phrase(
                key, avoid_clause=nested and not last, want_clause=clause, no_adjective=either
            )
            if inner:
                slots["np"] = inner.text
                out.keys += inner.keys
            text = re.sub(r"{(\w+)}", lambda m, slots=slots: str(slots[m[1]]), text)
            said.append((0 if text[0] == "^" else 2 if _clause(text) else 1, text, where))
            out.keys.append(key)
            out.new |= new or bool(inner and inner.new)
        # Adjectives stand first and clauses last; the query has its conditions in the order of the words.
        said.sort(key=lambda part: part[0])
        out.where = tuple(w for _, _, where in said for w in where)
        out.text = " ".join([*(text[1:] for place, text, _ in said if not place), out.text])
        parts = [text for place, text, _ in said if place]
        for i, part in enumerate(parts):
            out.text += " "
            if i:
                out.text += "or " if either else "and " if _needs_and(parts[i - 1], part) else ""
            out.text += part
        return out

    def phrase(self, key: str, avoid_clause: bool, want_clause: bool, no_adjective: bool) -> tuple[str, bool]:
        """One way to say a condition, and whether only test says it so."""
        train, test = PHRASES[key]
        new = self.test and self.rng.random() < TEST_PHRASE
        pool = test if new else _some(key, self.diversity)
        if no_adjective:
            pool = [text for text in pool if text[0] != "^"] or [text for text in train if text[0] != "^"]
        if avoid_clause or want_clause:
            pool = [text for text in pool if _clause(text) == want_clause] or pool
        return pick(self.rng, pool), new

    # -- conditions

    def condition(self, key: str) -> tuple[tuple[Where, ...], dict[str, Any], Noun | None]:
        """The SQL of a condition, the values its words need, and the noun phrase inside it, if any."""
        if key in OWN:
            where, slots = self._own(key)
            return (where,), slots, None
        return self._related(key)

    def _own(self, key: str) -> tuple[Where, dict[str, Any]]:
        name = _ABOUT[key]
        kind = key[len(name) :].strip()
        values = self.values
        if name in CATEGORICAL:
            if kind == "in":
                two = values.two(name)
                return Where(name, "IN", two), {"v": two[0], "w": two[1]}
            one = values.other(name) if kind == "<>" else values.choice(name)
            extra = {"how": HOW.get(one, ""), "a": ADJECTIVES.get(one, "")}
            return Where(name, kind, (one,)), {"v": one, **extra}
        if kind == "first":
            letter = values.choice("c.name")[0]
            return Where(name, "LIKE", (f"{letter}%",)), {"v": letter}
        if kind == "last":
            last = values.choice("c.name").split()[1]
            return Where(name, "LIKE", (f"% {last}",)), {"v": last}
        if kind == "has":
            word = pick(self.rng, words(self.test))
            return Where(name, "LIKE", (f"%{word}%",)), {"v": word}
        if name in _COMPARED:
            table = ALIASES[name[0]]
            if kind == "between":
                low, high = values.numbers(table, name[2:])
                return Where(name, "BETWEEN", (low, high)), {"n": low, "m": high}
            number = 0 if key == "p.stock=" else values.number(table, name[2:])
            return Where(name, kind, (number,)), {"n": number}
        return self._date(name, kind)

    def _date(self, name: str, kind: str) -> tuple[Where, dict[str, Any]]:
        values = self.values
        if kind == "year":
            year = values.day(name)[:4]
            return Where(f"strftime('%Y', {name})", "=", (year,)), {"v": year}
        if kind == "month":
            month = values.day(name)[:7]
            return Where(f"strftime('%Y-%m', {name})", "=", (month,)), {"v": values.write_month(month)}
        if kind == "relative":
            words = pick(self.rng, list(RELATIVE))
            value = RELATIVE[words]
            if isinstance(value, tuple):
                return Where(name, "BETWEEN", value), {"v": words}
            left = {4: f"strftime('%Y', {name})", 7: f"strftime('%Y-%m', {name})", 10: name}[len(value)]
            return Where(left, "=", (value,)), {"v": words}
        if kind == "between":
            days = values.days(name)
            return Where(name, "BETWEEN", days), {
                "d": values.write_day(days[0]),
                "e": values.write_day(days[1]),
            }
        day = values.day(name)
        return Where(name, kind, (day,)), {"d": values.write_day(day)}

    def _related(self, key: str) -> tuple[tuple[Where, ...], dict[str, Any], Noun | None]:
        entity, _, rest = key.partition(" ")
        if "." in entity:
            return self._compared(key)
        if rest.startswith("to "):
            target = rest[3:]
            if target == "x":
                target = {"o": "c", "p": "s", "r": "p"}[entity]
                name = self.values.choice(f"{target}.name")
                return (Where(f"{target}.name", "=", (name,)),), {"x": the(target, name)}, None
            inner = self.noun(target, 1)
            return inner.where, {}, inner
        some, target = rest.split(" ")[:2]
        op = "IN" if some == "some" else "NOT IN"
        if target == "x":
            name = self.values.choice("p.name")
            where, slots, inner = (Where("p.name", "=", (name,)),), {"x": the("p", name)}, None
        elif rest.endswith("at all"):
            where, slots, inner = (), {}, None
        else:
            inner = self.noun(target, 1)
            where, slots = inner.where, {}
        first, column = _SUBSELECTS[entity, "p" if target == "x" else target]
        return (Where(f"{entity}.id", op, Query(first, (column,), where)),), slots, inner

    def _compared(self, key: str) -> tuple[tuple[Where, ...], dict[str, Any], Noun | None]:
        """A comparison with an average, or with one product or person."""
        left, _, what = key.partition(" ")
        name = left.rstrip("<>")
        table = name[0]
        if what.startswith("avg"):
            category = self.values.choice("p.category") if what == "avg in" else None
            inner = (Where("p.category", "=", (category,)),) if category else ()
            return (Where(name, left[-1], Query(table, (f"AVG({name})",), inner)),), {"v": category}, None
        column = "p.supplier_id" if name == "p.supplier" else name
        other = self.values.choice(f"{table}.name")
        inner = Query(table, (column,), (Where(f"{table}.name", "=", (other,)),))
        op = left[-1] if left[-1] in "<>" else "="
        return (Where(column, op, inner),), {"x": the(table, other)}, None


# (entity, related entity) -> first table of the subselect, and its column with the ids of the entity.
_SUBSELECTS = {
    ("c", "o"): ("o", "o.customer_id"),
    ("c", "p"): ("o", "o.customer_id"),
    ("c", "r"): ("o", "o.customer_id"),
    ("p", "o"): ("l", "l.product_id"),
    ("p", "r"): ("r", "r.product_id"),
    ("s", "p"): ("p", "p.supplier_id"),
    ("o", "p"): ("l", "l.order_id"),
    ("o", "r"): ("r", "r.order_id"),
}


@cache
def _some(key: str, diversity: float) -> list[str]:
    return share(PHRASES[key][0], diversity, key=lambda text: key + text)


def the(entity: str, name: str) -> str:
    """How one row is named inside a sentence."""
    return f"the {name}" if entity == "p" else name


def _clause(text: str) -> bool:
    return text.startswith(("who ", "that ", "whose ", "which ", "of which ", "to whom "))


_PREPOSITIONS = {"from", "in", "by", "on", "with", "of", "at", "for", "outside", "without", "not"}


def _needs_and(left: str, right: str) -> bool:
    a, b = left.split()[0], right.split()[0]
    if _clause(left) or _clause(right):
        return _clause(left)
    return a == b or not {a, b} & _PREPOSITIONS
