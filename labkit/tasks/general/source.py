"""The readable sources in data/general, and the committed rows that are made from them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from labkit.errors import LabkitError
from labkit.paths import DATA
from labkit.tasks import files
from labkit.tasks.draw import shuffled

Row = dict[str, Any]

FOLDER = DATA / "general"
PARTS = ("probe", "text")
DIALOGUE = "dialogue"  # the genre whose kind is dialogue; all others are prose


def questions(folder: Path = FOLDER) -> list[Row]:
    """The questions as they stand in probe.jsonl."""
    path = folder / "probe.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def passages(folder: Path = FOLDER) -> list[Row]:
    """The passages as they stand in passages/<genre>.txt, one after another between lines of "---"."""
    rows = []
    for path in sorted((folder / "passages").glob("*.txt")):
        genre = path.stem
        kind = "dialogue" if genre == DIALOGUE else "prose"
        for number, text in enumerate(path.read_text(encoding="utf-8").strip().split("\n---\n"), 1):
            rows.append({"id": f"general-{genre}-{number:02d}", "kind": kind, "genre": genre,
                         "source": "written", "text": text.strip()})
    return rows


def build(part: str, n: int | None = None, seed: int | str = 0) -> list[Row]:
    """Choose n rows of a part (default: all), as evenly over its subjects or genres as can be.

    Nothing is made up here: `seed` only decides the order. The first k of n rows are the rows of
    `build(part, k, seed)`. Raises LabkitError for an unknown part, or more rows than there are.
    """
    _check(part)
    rows = questions() if part == "probe" else passages()
    n = len(rows) if n is None else n
    if not 0 <= n <= len(rows):
        raise LabkitError(f"general has {len(rows)} rows of {part}, not {n}: ask for at most {len(rows)}.")
    rng = Random(f"general/{part}/{seed}")
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["subject" if part == "probe" else "genre"], []).append(row)
    queues = [shuffled(rng, group) for group in groups.values()]
    rounds = range(max(map(len, queues)))
    return [queue[turn] for turn in rounds for queue in queues if turn < len(queue)][:n]


def read(part: str, folder: Path = FOLDER) -> list[Row]:
    """The committed rows of a part. Raises LabkitError if it is unknown, missing or damaged."""
    _check(part)
    return files.read(Path(folder), part)


def _check(part: str) -> None:
    if part not in PARTS:
        raise LabkitError(f"general has no part {part!r}: use one of {', '.join(PARTS)}.")
