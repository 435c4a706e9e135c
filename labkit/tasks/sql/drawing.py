"""What every kind of question draws from, and what it gives."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any

from labkit.tasks.draw import pick, weighted
from labkit.tasks.sql.columns import (
    AGGREGATES,
    COLUMNS,
    KEY,
    NUMBER_WORDS,
)
from labkit.tasks.sql.nouns import Noun, Writer
from labkit.tasks.sql.phrases import (
    AGGREGATE_WORDS,
    COLUMN_WORDS,
    DATE_AGGREGATE_WORDS,
)
from labkit.tasks.sql.query import Query


@dataclass
class Draft:
    """A question before its frame is chosen: the query, the words, and the keys of its conditions."""

    query: Query
    slots: dict[str, Any]
    keys: list[str]
    new: bool = False
    detail: str = ""  # what else tells questions of a kind apart, as "AVG" or the dimension


@dataclass
class Drawing:
    """What a kind draws from."""

    writer: Writer
    store: sqlite3.Connection
    rng: Any = field(init=False)
    test: bool = field(init=False)

    def __post_init__(self) -> None:
        self.rng, self.test = self.writer.rng, self.writer.test

    def noun(self, entity: str, related: float = 0.0, less: int = 0, **options: Any) -> Noun:
        """A noun phrase with one to three conditions, or one less; with that chance, one reaches further."""
        further = self.rng.random() < related
        own = weighted(self.rng, {0: 0.4, 1: 0.5, 2: 0.1} if further else {1: 0.5, 2: 0.42, 3: 0.08})
        return self.writer.noun(entity, max(own - less, 0), further, **options)

    def words(self, columns: list[str], plural: bool = True) -> str:
        """Columns in words: "names, cities and tiers"."""
        new = self.test and self.rng.random() < 0.5
        words = [COLUMN_WORDS[name][new].split("/")[plural] for name in columns]
        return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" and {words[-1]}"

    def columns(self, entity: str) -> list[str]:
        """The key of an entity and up to two further columns, the key mostly first."""
        more = weighted(self.rng, {0: 0.45, 1: 0.4, 2: 0.15})
        out = [KEY[entity]]
        for _ in range(more):
            new = pick(self.rng, COLUMNS[entity])
            if new not in out:
                out.append(new)
        return out[::-1] if self.rng.random() < 0.15 else out

    def aggregate_of(self, e: str) -> tuple[tuple[str, ...], str, str]:
        """One or two aggregates of a column: their SQL, their words, and the column."""
        name, function = pick(self.rng, AGGREGATES[e])
        functions = [function]
        if function in ("MIN", "MAX") and self.rng.random() < 0.25:
            functions = ["MIN", "MAX"]
        table = DATE_AGGREGATE_WORDS if name in ("c.joined", "o.day") else AGGREGATE_WORDS
        new = self.test and self.rng.random() < 0.5
        words = " and ".join(table[f][new] for f in functions) + " " + self.words([name], plural=False)
        return tuple(f"{f}({name})" for f in functions), words, name

    def how_many(self) -> tuple[int, str]:
        """How many rows of the top are wanted, and that number in words or figures."""
        k = weighted(self.rng, {2: 0.2, 3: 0.35, 4: 0.15, 5: 0.25, 6: 0.05})
        return k, NUMBER_WORDS[k] if self.rng.random() < 0.4 else str(k)

    def entity(self, shares: dict[str, float]) -> str:
        """An entity, as likely as its share."""
        return weighted(self.rng, shares)


def plain(columns: list[str]) -> tuple[str, ...]:
    """Columns as SQL: "o>c.name" is "c.name"."""
    return tuple(name.split(">")[-1] for name in columns)
