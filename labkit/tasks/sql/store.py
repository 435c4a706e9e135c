"""The store of the shop as an SQLite database in memory, made from the committed rows."""

from __future__ import annotations

import sqlite3
from functools import cache
from pathlib import Path

from labkit.paths import DATA
from labkit.tasks import files
from labkit.tasks.sql.store_build import TODAY, Tables

FOLDER = DATA / "sql"
# Table -> its columns, and the letter that stands for it wherever a query joins tables.
COLUMNS = {
    "customers": ["id", "name", "city", "tier", "joined"],
    "products": ["id", "name", "category", "price", "stock", "weight", "supplier_id"],
    "suppliers": ["id", "name", "country"],
    "orders": ["id", "customer_id", "day", "status", "channel"],
    "order_lines": ["order_id", "product_id", "quantity", "price"],
    "returns": ["id", "order_id", "product_id", "day", "reason", "refund"],
}
ALIASES = {
    "c": "customers",
    "p": "products",
    "s": "suppliers",
    "o": "orders",
    "l": "order_lines",
    "r": "returns",
}
_NUMBERS = {"price", "stock", "weight", "quantity", "refund"}
# child, its column, parent: how tables join.
LINKS = [
    ("o", "customer_id", "c"),
    ("l", "order_id", "o"),
    ("l", "product_id", "p"),
    ("p", "supplier_id", "s"),
    ("r", "order_id", "o"),
    ("r", "product_id", "p"),
]


def schema() -> str:
    """The schema as the prompt shows it: one line a table, with its alias."""
    lines = [f"{table} {alias}: {', '.join(COLUMNS[table])}" for alias, table in ALIASES.items()]
    return f"Today is {TODAY.isoformat()}.\n" + "\n".join(lines)


@cache
def tables(folder: Path = FOLDER) -> Tables:
    """The committed rows of every table. Raises LabkitError if the file is missing or damaged."""
    out: Tables = {table: [] for table in COLUMNS}
    for row in files.read(folder, "store"):
        out[row["table"]].append(row["row"])
    return out


def rows(made: Tables) -> list[files.Row]:
    """Tables as the lines of store.jsonl."""
    return [{"table": table, "row": row} for table in COLUMNS for row in made[table]]


def create() -> list[str]:
    """The statements that create the empty store."""
    out = []
    for table, columns in COLUMNS.items():
        parts = []
        for column in columns:
            if column == "id":
                parts.append("id INTEGER PRIMARY KEY")
            elif column.endswith("_id"):
                parts.append(f"{column} INTEGER REFERENCES {column[:-3]}s (id)")
            else:
                parts.append(f"{column} {'INTEGER' if column in _NUMBERS else 'TEXT'}")
        out.append(f"CREATE TABLE {table} ({', '.join(parts)})")
    # Indexes only make joins quick: no result depends on them.
    for child, column, _ in LINKS:
        rest = [other for other in COLUMNS[ALIASES[child]] if other not in ("id", column)]
        out.append(f"CREATE INDEX {child}_{column} ON {ALIASES[child]} ({', '.join([column, *rest])})")
    return out


def connect(made: Tables | None = None) -> sqlite3.Connection:
    """A new database in memory that holds the store: the committed rows, or the tables given.

    The database belongs to the caller and can be written to; nothing goes to disk.
    """
    made = tables() if made is None else made
    # Without a cache of statements the guard of `labkit.tasks.sql.judge` is asked every time.
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)
    connection.execute("BEGIN")
    for statement in create():
        connection.execute(statement)
    for table, columns in COLUMNS.items():
        marks = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", made[table])
    connection.execute("COMMIT")
    return connection
