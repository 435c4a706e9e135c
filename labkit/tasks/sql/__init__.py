"""SQL: a question about the store of the shop, to be answered with one SQLite query.

The committed rows and the store lie in data/sql; `python -m labkit.tasks.sql` writes them again, byte for
byte, and `python -m labkit.tasks.sql --check` only compares.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.tasks import files
from labkit.tasks.sql.builder import SPLITS, build
from labkit.tasks.sql.judge import Judge, query_of, score
from labkit.tasks.sql.prompts import PROMPTS, SYSTEM, examples, render
from labkit.tasks.sql.store import FOLDER, connect, rows, schema
from labkit.tasks.sql.store_build import make

if TYPE_CHECKING:
    from datasets import DatasetDict

__all__ = [
    "FOLDER",
    "MAX_NEW_TOKENS",
    "PROMPTS",
    "SPLITS",
    "SYSTEM",
    "Judge",
    "build",
    "connect",
    "examples",
    "load",
    "parts",
    "query_of",
    "read",
    "render",
    "schema",
    "score",
    "write",
]

MAX_NEW_TOKENS = 120  # the longest gold query has fewer


def read(split: str, folder: Path = FOLDER) -> list[files.Row]:
    """The committed rows of a split as `build` gave them. Raises LabkitError if missing or damaged."""
    return files.read(folder, split)


def load(folder: Path = FOLDER) -> DatasetDict:
    """The committed rows as a DatasetDict, in trl's prompt-completion form.

    Columns: prompt (system and user message), completion (one assistant message), id, question, query,
    phrasing, level, and features (kinds and conditions, joined by "; "). Raises LabkitError if a file is
    missing or differs from its recorded checksum.
    """
    from datasets import Dataset, DatasetDict

    return DatasetDict(
        {split: Dataset.from_list([_trl_row(row) for row in read(split, folder)]) for split in SPLITS}
    )


def parts() -> dict[str, list[files.Row]]:
    """Everything that data/sql holds, built anew: the store and the three splits."""
    return {"store": rows(make()), **{split: build(split, n) for split, n in SPLITS.items()}}


def write(folder: Path = FOLDER) -> None:
    """Build the store and the splits, and write them with their checksums."""
    files.write(folder, parts())


def _trl_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt": render(row["question"]),
        "completion": [{"role": "assistant", "content": row["query"]}],
        **{key: row[key] for key in ("id", "question", "query", "phrasing", "level")},
        "features": "; ".join(row["features"]),
    }
