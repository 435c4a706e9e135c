"""The values that conditions are about: drawn from the store, some of them kept for test."""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache
from random import Random
from typing import Any

from labkit.tasks.draw import digest, pick
from labkit.tasks.sql.store import ALIASES, COLUMNS
from labkit.tasks.sql.store_build import FIRST_DAY, TODAY, make

CATEGORICAL = {
    "c.city": "customers",
    "c.tier": "customers",
    "p.category": "products",
    "s.country": "suppliers",
    "o.status": "orders",
    "o.channel": "orders",
    "r.reason": "returns",
}
NAMES = {"c": "customers", "p": "products", "s": "suppliers"}
# One value in so many is kept for test.
HELD_OUT = {"c.city": 5, "c.name": 5, "p.name": 5, "s.name": 5}
FROM_WITNESS = 0.85  # how often a condition takes its value from the row that was taken
STARTS = {"c.joined": date(2022, 1, 1), "o.day": FIRST_DAY, "r.day": date(2025, 1, 20)}
ALIAS_OF = {table: alias for alias, table in ALIASES.items()}
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
RELATIVE = {
    "last month": "2026-05",
    "this month": "2026-06",
    "last year": "2025",
    "this year": "2026",
    "yesterday": "2026-06-17",
    "in the first quarter of 2026": ("2026-01-01", "2026-03-31"),
    "in the first quarter of 2025": ("2025-01-01", "2025-03-31"),
    "in the second quarter of 2025": ("2025-04-01", "2025-06-30"),
    "in the third quarter of 2025": ("2025-07-01", "2025-09-30"),
    "in the last quarter of 2025": ("2025-10-01", "2025-12-31"),
}


@cache
def column(table: str, name: str) -> list:
    """The sorted values of a column of the store, as often as they occur."""
    place = COLUMNS[table].index(name)
    return sorted(row[place] for row in make()[table])


def held_out(name: str, value: str) -> bool:
    """Whether a city or a name occurs only in questions of test."""
    return name in HELD_OUT and digest(f"{name}/{value}") % HELD_OUT[name] == 0


@cache
def rare(name: str) -> list:
    """The values of a column that only test knows."""
    return [value for value in choices(name, True) if held_out(name, value)]


@cache
def choices(name: str, test: bool) -> list:
    """The values of a column ("c.city") that questions of a split may be about, each once."""
    table = NAMES.get(name[0]) or CATEGORICAL[name]
    values = sorted(set(column(table, name[2:])))
    return [value for value in values if test or not held_out(name, value)]


@cache
def witnesses(entity: str, test: bool) -> list[list]:
    """The rows of a table that hold no value kept for test, or all of them for test."""
    table = ALIASES[entity]
    places = {i: f"{entity}.{name}" for i, name in enumerate(COLUMNS[table])}
    return [
        row
        for row in make()[table]
        if test or not any(held_out(name, str(row[i])) for i, name in places.items())
    ]


@cache
def words(test: bool) -> list[str]:
    """Last words of product names that are never only a part of a word, as "pan" is of "panel"."""
    names = " ".join(choices("p.name", True)).lower()
    last = sorted({name.split()[-1] for name in choices("p.name", test)})
    return [word for word in last if names.count(word) == names.split().count(word)]


class Values:
    """Draws values and writes days, in one manner throughout a question."""

    def __init__(self, rng: Random, test: bool):
        self.rng, self.test = rng, test
        self.day_style = pick(rng, ["iso", "dmy", "mdy", "short"] + ["ordinal", "ordinal"] * test)
        self.month_style = pick(rng, ["long", "long", "iso"] + ["short"] * test)
        self.witness: dict[str, Any] = {}

    def see(self, entity: str) -> None:
        """Take one row of a table, from which the values to come are mostly drawn.

        So several conditions are met by some row, and bounds lie where they matter.
        """
        row = pick(self.rng, witnesses(entity, self.test))
        self.witness = {f"{entity}.{name}": v for name, v in zip(COLUMNS[ALIASES[entity]], row, strict=True)}

    def seen(self, name: str) -> Any:
        """The value of the row that was taken, or None: now and then, and if it is of another table."""
        return self.witness.get(name) if self.rng.random() < FROM_WITNESS else None

    def choice(self, name: str) -> str:
        seen = self.seen(name)
        if seen is not None:
            return seen
        values = choices(name, self.test)
        if self.test and name in HELD_OUT and self.rng.random() < 0.2:
            values = rare(name)
        return pick(self.rng, values)

    def other(self, name: str) -> str:
        """A value that the row which was taken does not have."""
        found = pick(self.rng, choices(name, self.test))
        while found == self.witness.get(name):
            found = pick(self.rng, choices(name, self.test))
        return found

    def two(self, name: str) -> tuple[str, str]:
        first = second = self.choice(name)
        while second == first:
            second = self.choice(name)
        return first, second

    def number(self, table: str, name: str) -> int:
        """A value that occurs in a column, rarely an extreme one."""
        seen = self.seen(f"{ALIAS_OF[table]}.{name}")
        if seen is not None:
            return seen
        values = column(table, name)
        return values[int(len(values) * (0.08 + 0.84 * self.rng.random()))]

    def numbers(self, table: str, name: str) -> tuple[int, int]:
        low = high = self.number(table, name)
        while low == high:
            high = self.number(table, name)
        return min(low, high), max(low, high)

    def day(self, name: str) -> str:
        seen = self.seen(name)
        if seen is not None:
            return seen
        start = STARTS[name]
        span = (TODAY - start).days
        return (start + timedelta(days=int(span * (0.06 + 0.88 * self.rng.random())))).isoformat()

    def days(self, name: str) -> tuple[str, str]:
        low = high = self.day(name)
        while low == high:
            high = self.day(name)
        return min(low, high), max(low, high)

    def write_day(self, day: str) -> str:
        year, month, number = day[:4], MONTHS[int(day[5:7]) - 1], int(day[8:])
        ending = "th" if 10 < number < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
        return {
            "iso": day,
            "dmy": f"{number} {month} {year}",
            "mdy": f"{month} {number}, {year}",
            "short": f"{number} {month[:3]} {year}",
            "ordinal": f"the {number}{ending} of {month} {year}",
        }[self.day_style]

    def write_month(self, month: str) -> str:
        name = MONTHS[int(month[5:]) - 1]
        return {"long": f"{name} {month[:4]}", "iso": month, "short": f"{name[:3]} {month[:4]}"}[
            self.month_style
        ]
