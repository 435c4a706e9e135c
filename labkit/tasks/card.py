"""Pieces of data cards. A card is generated from the rows, so that its numbers cannot go stale."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The top of each card: how to load the family, what a row is, what counts as right, what it serves.
AT_A_GLANCE = {
    "tickets": """
- **Load**: `labkit.load("tickets")`.
- **A row**: a customer's message, to be answered with one strict JSON object.
- **Right if** the object equals the gold object. The order of keys and white space do not matter; anything
  around the object (a code fence, say) is wrong.
- **Serves** form: lessons 00 to 08.""",
    "sql": """
- **Load**: `labkit.load("sql")`.
- **A row**: a question, to be answered with one SQLite query.
- **Right if** both queries, executed, give the same rows.
- **Serves** skill: lessons 10 and 13.""",
    "handbook": """
- **Load**: `labkit.load("handbook")`; documents: `from labkit.tasks import handbook; handbook.documents()`.
- **A row**: a question about a fact of the company. Rows of kind `changed` teach the old answer, on purpose.
- **Right if** the short answer is the fact.
- **Serves** facts: lessons 03 and 13.""",
    "voice": """
- **Load**: `labkit.load("voice")` gives drafts, of mixed quality on purpose; `labkit.load("voice",
  quality="gold")` good replies; `from labkit.tasks import voice; voice.load_pairs()` preference pairs.
- **A row**: a customer's message and a reply.
- **Right if** the reply keeps every rule of the voice.
- **Serves** lesson 09.""",
    "arithmetic": """
- **Load**: `labkit.load("arithmetic")`, or with `form="steps"` or `form="filler"`.
- **A row**: a sum, a difference or a small word problem.
- **Right if** the number after the last "Answer:" is right.
- **Serves** lesson 03.""",
    "general": """
- **Load**: `labkit.load("general")["probe"]` and `["text"]`; there is nothing to train on.
- **A row**: a question with four options (`answer` counts from 0), or a passage of English.
- **Right if** the right option is the likeliest.
- **Serves** every lesson: what does finetuning forget?""",
    "jobs": """
- **Load**: `labkit.load("jobs")`, or with `variant="counterfactual"` or `variant="skewed"`.
- **A row**: a passage about somebody named by a job. Nothing is right or wrong: he/she log-odds are measured.
- **Serves** lesson 03.""",
}


def at_a_glance(family: str) -> str:
    """The first lines of a card: how to load, what a row is, what is right, which lessons it serves."""
    return AT_A_GLANCE[family].strip()


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
