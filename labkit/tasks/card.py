"""Pieces of data cards. A card is generated from the rows, so that its numbers cannot go stale."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def table(head: list[str], rows: list[list[Any]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def percent(rows: list[Any], test: Callable[[Any], Any]) -> str:
    """The share of rows that pass `test`, as text."""
    return f"{100 * sum(bool(test(row)) for row in rows) / len(rows):.1f}%"


def files(folder: Path, parts: dict[str, list], columns: dict[str, Callable[[list], Any]]) -> str:
    """A table with one line per part: rows, the given columns, size on disk, and checksum."""
    sums = json.loads((folder / "checksums.json").read_text())
    return table(
        ["part", "rows", *columns, "kB", "SHA-256 of the JSON Lines"],
        [[part, len(rows), *(count(rows) for count in columns.values()),
          round((folder / f"{part}.jsonl.gz").stat().st_size / 1000), f"`{sums[f'{part}.jsonl.gz']}`"]
         for part, rows in parts.items()],
    )  # fmt: skip
