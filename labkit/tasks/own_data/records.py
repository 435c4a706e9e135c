"""Rows as they stand in a file, before it is known which column is what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MOST_CHARACTERS = 131_072  # of one field: the csv module's own limit, and far beyond any context length


@dataclass(frozen=True)
class Record:
    """One row as it stands in the file."""

    where: str  # "line 17", "record 3"
    values: dict[str, Any]


@dataclass(frozen=True)
class Source:
    """The records of one file (or hub split), in order."""

    shown: str  # as the learner named it
    columns: list[str]
    records: list[Record]
    table: bool  # does a header line give the columns?
