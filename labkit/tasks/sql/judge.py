"""Runs queries that a model wrote, safely, and compares their results with those of the gold queries.

A query gets a database in memory that it can only read, a whitelist of functions, no recursion, and a budget
of steps of SQLite's virtual machine. The budget is counted, not timed, so that a verdict is the same on every
run.
"""

from __future__ import annotations

import math
import re
import sqlite3
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.scores import Scores, check_lengths, tally
from labkit.tasks.sql.store import COLUMNS, connect
from labkit.tasks.sql.store_build import TODAY

MOST_CHARACTERS = 2000  # of a query
MOST_STEPS = 1_000_000  # of the virtual machine; the gold queries need far less
STRIDE = 10_000  # steps between two looks at the counter
MOST_BYTES = 500  # of one value or row
TOLERANCE = 1e-6  # relative, between two numbers
FUNCTIONS = frozenset(
    "abs avg coalesce count date dense_rank glob ifnull iif instr julianday length like lower ltrim max min "
    "nullif rank round row_number rtrim strftime substr substring sum total trim upper".split()
)
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: MOST_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 4 * MOST_CHARACTERS,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 50,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 8,
    sqlite3.SQLITE_LIMIT_COLUMN: 100,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 25_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 8,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 30,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_FENCE = re.compile(r"```\w*[ \t]*\n(.*)\n[ \t]*```", re.S)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")


@dataclass(frozen=True)
class Result:
    """What a query gave: its rows (at most one more than asked for) and the tables it read."""

    rows: tuple[tuple[Any, ...], ...]
    tables: frozenset[str]


def query_of(text: str) -> str | None:
    """The query in a model's text, or None: surrounding space, one ``` fence and one semicolon may go.

    What is left must be one SELECT (or WITH) without comments, of at most MOST_CHARACTERS.
    """
    text = text.strip() if len(text) <= 2 * MOST_CHARACTERS else ""
    fenced = _FENCE.fullmatch(text)
    query = (fenced[1] if fenced else text).strip().removesuffix(";").rstrip()
    bare = _QUOTED.sub("''", query)
    if len(query) > MOST_CHARACTERS or any(mark in bare for mark in (";", "--", "/*", "```")):
        return None
    return query if re.match(r"(select|with)\b", query, re.I) else None


def sorts(query: str) -> bool:
    """Whether the outermost SELECT has an ORDER BY, so that the order of the rows counts."""
    bare = _QUOTED.sub("''", query)
    while (inner := re.sub(r"\([^()]*\)", "", bare)) != bare:
        bare = inner
    return re.search(r"\border\s+by\b", bare, re.I) is not None


class Judge:
    """The store behind a guard: `run` gives a query's result, or None if it is forbidden or does not end."""

    def __init__(self) -> None:
        self._store = connect()
        # Tables that SQLite makes up by itself, as json_each.
        self._made_up = {row[0] for row in self._store.execute("SELECT name FROM pragma_module_list")}
        self._store.execute("PRAGMA temp_store = MEMORY")
        self._store.execute("PRAGMA query_only = ON")
        for name in ("strftime", "date", "julianday"):
            self._store.create_function(name, -1, lambda *a, name=name: _day(name, *a), deterministic=True)
        for limit, value in _LIMITS.items():
            self._store.setlimit(limit, value)
        self._read: set[str] = set()
        self._strides = 0
        self._store.set_authorizer(self._allowed)
        self._store.set_progress_handler(self._tick, STRIDE)
        self._gold: dict[str, Result] = {}

    def run(self, query: str, most: int) -> Result | None:
        """The rows of a query, at most `most` + 1, or None. Never raises because of the query."""
        self._read, self._strides = set(), 0
        try:
            cursor = self._store.execute(query)
            try:
                rows = cursor.fetchmany(most + 1)
            finally:
                cursor.close()
        except Exception:  # whatever a query can cause: errors of SQL, of encodings, of size
            return None
        return Result(tuple(rows), frozenset(self._read))

    def gold(self, query: str) -> Result:
        """The result of a gold query. Raises LabkitError if it has none."""
        if query not in self._gold:
            result = self.run(query, 10_000)
            if result is None:
                raise LabkitError(
                    f"The gold query {query!r} does not run on the store. Check the row's `query`."
                )
            self._gold[query] = result
        return self._gold[query]

    def close(self) -> None:
        self._store.close()

    def _allowed(self, action: int, one: str | None, two: str | None, *_: Any) -> int:
        if action == sqlite3.SQLITE_SELECT:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and two and two.lower() in FUNCTIONS:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ and one in COLUMNS:
            self._read.add(one)
            return sqlite3.SQLITE_OK
        # With no column, a table may also be a subselect under a name of its own.
        own = one and one not in self._made_up and not one.lower().startswith(("sqlite_", "pragma_"))
        if action == sqlite3.SQLITE_READ and not two and own:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY

    def _tick(self) -> bool:
        self._strides += 1
        return self._strides > MOST_STEPS // STRIDE


@lru_cache(maxsize=50_000, typed=True)
def _day(name: str, *arguments: Any) -> Any:
    """SQLite's own function on dates, for which now is the store's today and no clock or time zone exists."""
    words = [a.strip().lower() if isinstance(a, str) else a for a in arguments]
    if {"localtime", "utc", "subsec", "subsecond"} & set(words):
        raise ValueError("depends on the machine")
    given = [TODAY.isoformat() if word == "now" else a for a, word in zip(arguments, words, strict=True)]
    if len(given) == (name == "strftime"):
        given.append(TODAY.isoformat())
    marks = ", ".join("?" * len(given))
    return _plain().execute(f"SELECT {name}({marks})", given).fetchone()[0]


@lru_cache(maxsize=1)
def _plain() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", check_same_thread=False)


# ---- comparing ------------------------------------------------------------------------------------------


def same(found: tuple, wanted: tuple, ordered: bool) -> bool:
    """Whether two results are equal: in order, or with each row as often in one as in the other.

    Numbers are equal within TOLERANCE, whole or not; text must be exact.
    """
    if len(found) != len(wanted) or (wanted and len(found[0]) != len(wanted[0])):
        return False
    if ordered:
        return all(map(_same_row, found, wanted))
    found, wanted = tuple(sorted(found, key=_key)), tuple(sorted(wanted, key=_key))
    if all(map(_same_row, found, wanted)):
        return True
    # Numbers that are nearly equal may have been sorted apart: match rows whose other values agree.
    ours = [(key, list(rows)) for key, rows in groupby(found, _exact_part)]
    theirs = [(key, list(rows)) for key, rows in groupby(wanted, _exact_part)]
    return [key for key, _ in ours] == [key for key, _ in theirs] and all(
        _matched(a, b) for (_, a), (_, b) in zip(ours, theirs, strict=True)
    )


def _matched(found: list[tuple], wanted: list[tuple]) -> bool:
    if len(found) != len(wanted) or len(found) > 200:
        return False
    left = list(wanted)
    for row in found:
        match = next((i for i, other in enumerate(left) if _same_row(row, other)), None)
        if match is None:
            return False
        del left[match]
    return True


def _number(value: Any) -> bool:
    return isinstance(value, int | float)


def _exact_part(row: tuple) -> tuple:
    # type names first, as SQLite's values of different types do not compare in Python
    return tuple(("number", "") if _number(v) else (type(v).__name__, "" if v is None else v) for v in row)


def _key(row: tuple) -> tuple:
    return _exact_part(row), tuple(v for v in row if _number(v))


def _same_row(found: tuple, wanted: tuple) -> bool:
    return len(found) == len(wanted) and all(map(_same_value, found, wanted))


def _same_value(found: Any, wanted: Any) -> bool:
    if _number(found) and _number(wanted):
        return math.isclose(found, wanted, rel_tol=TOLERANCE, abs_tol=1e-9)
    return type(found) is type(wanted) and found == wanted


# ---- scoring --------------------------------------------------------------------------------------------


def score(texts: list[str], rows: Any) -> Scores:
    """Scores of texts against rows with a gold `query`: right if the query runs and gives the gold result.

    `detail` holds the share whose query runs (`runs`), that read the same tables as the gold query
    (`tables`), and the share of right ones among easy, medium and hard rows, where the rows say so.
    """
    texts, rows = list(texts), list(rows)
    check_lengths(texts, rows)
    judge = Judge()
    try:
        verdicts = [_verdict(judge, text, row["query"]) for text, row in zip(texts, rows, strict=True)]
    finally:
        judge.close()
    right = [verdict[0] for verdict in verdicts]
    detail = {
        "runs": sum(v[1] for v in verdicts) / len(rows),
        "tables": sum(v[2] for v in verdicts) / len(rows),
    }
    for level in ("easy", "medium", "hard"):
        own = [ok for ok, row in zip(right, rows, strict=True) if row.get("level") == level]
        if own:
            detail[level] = sum(own) / len(own)
    return tally(texts, right, detail)


def _verdict(judge: Judge, text: str, gold: str) -> tuple[bool, bool, bool]:
    """(right, runs, reads the right tables) of one text."""
    wanted = judge.gold(gold)
    query = query_of(text) if isinstance(text, str) else None
    if query == gold:
        return True, True, True
    found = judge.run(query, len(wanted.rows)) if query else None
    if found is None:
        return False, False, False
    return same(found.rows, wanted.rows, sorts(gold)), True, found.tables == wanted.tables
