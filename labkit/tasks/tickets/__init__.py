"""Tickets: a message to an outdoor-equipment shop, to be answered with one strict JSON object.

The committed rows lie in data/tickets; `python -m labkit.tasks.tickets` writes them again, byte for byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.paths import DATA
from labkit.tasks import files
from labkit.tasks.tickets.answers import SCHEMA, Scores, parse, render_answer, score, valid
from labkit.tasks.tickets.builder import build
from labkit.tasks.tickets.prompts import PROMPTS, SYSTEM, examples, render
from labkit.tasks.tickets.rules import KEYS, NEEDS, SPLITS

if TYPE_CHECKING:
    from datasets import DatasetDict

__all__ = [
    "FOLDER",
    "KEYS",
    "NEEDS",
    "PROMPTS",
    "SCHEMA",
    "SPLITS",
    "SYSTEM",
    "Scores",
    "build",
    "examples",
    "load",
    "parse",
    "read",
    "render",
    "render_answer",
    "score",
    "valid",
]

FOLDER = DATA / "tickets"


def read(split: str, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The committed rows of a split as `build` gave them. Raises LabkitError if missing or damaged."""
    return files.read(Path(folder), split)


def load(folder: Path = FOLDER) -> DatasetDict:
    """The committed rows as a DatasetDict, in trl's prompt-completion form.

    Columns: prompt (system and user message), completion (one assistant message), id, phrasing, message, and
    answer (a JSON string). Raises LabkitError if a file is missing or differs from its recorded checksum.
    """
    from datasets import Dataset, DatasetDict

    return DatasetDict({split: Dataset.from_list([_trl_row(row) for row in read(split, folder)])
                        for split in SPLITS})


def _trl_row(row: dict[str, Any]) -> dict[str, Any]:
    answer = render_answer(row["answer"])
    return {
        "prompt": render(row["message"]),
        "completion": [{"role": "assistant", "content": answer}],
        "id": row["id"],
        "phrasing": row["phrasing"],
        "message": row["message"],
        "answer": answer,
    }
