"""A learner's own data: a CSV, TSV, JSON or JSON Lines file, a folder of them, or a dataset on the hub.

Every row is checked, nothing is written, and the result looks like that of a course family, so that `fit`,
`score` and trl take it unchanged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import LabkitError
from labkit.tasks.own_data import classes, columns, convert, parsing, places, reading, splits
from labkit.tasks.own_data.classes import labels, score
from labkit.tasks.own_data.problems import Problems
from labkit.tasks.own_data.records import Source
from labkit.tasks.own_data.splits import SPLITS

if TYPE_CHECKING:
    from datasets import DatasetDict

__all__ = ["SPLITS", "check_lengths", "labels", "load", "score"]

Row = dict[str, Any]


def load(
    name: str | os.PathLike[str],
    *,
    prompt: str | Sequence[str] | None = None,
    answer: str | None = None,
    chosen: str | None = None,
    rejected: str | None = None,
    messages: str | None = None,
    system: str | None = None,
    labels: Sequence[str] | bool | None = None,
    overlap: str | None = None,
    encoding: str | None = None,
    config: str | None = None,
    tokenizer: Any = None,
    length: int | None = None,
) -> DatasetDict:
    """Load a file, a folder or a hub dataset (`owner/name`) as train, validation and test.

    Columns of the result: prompt (chat messages) and completion (one assistant message), or prompt, chosen
    and rejected; id (file and place), message and answer (text, white space at both ends removed).

    `prompt` (a column, or several, joined by blank lines), `answer`, `chosen`, `rejected` and `messages` name
    columns; without them well-known names are looked for. `system` is a sentence put before every prompt, or
    a column of them. `labels` names the numbers in the answer column; without it a file such as
    categories.json beside the data does, unless it is False. A folder has train.csv and may have validation
    and test files; what is missing is taken from train, 5% each, the same on every machine. `overlap` says
    what to do with test prompts that stand in train too: "drop" them from train, "keep" them, "error", or
    (without it) drop a few with a warning. `encoding` is that of the files, `config` the hub's. With a
    `tokenizer`, rows of more than `length` tokens are refused.
    Raises LabkitError that names the file, the place in it, and what to do.
    """
    place = places.locate(name)
    shown = os.fspath(name)
    folder = None
    if isinstance(place, str):
        from labkit.tasks.own_data import hub

        sources = {"train": [], **{split: [source] for split, source in hub.sources(place, config).items()}}
    else:
        folder = place if place.is_dir() else place.parent
        sources = _local(place, shown, encoding, _wanted(prompt, answer, chosen, rejected, messages))
    names, origin = _names(labels, folder)
    options = {"prompt": prompt, "answer": answer, "chosen": chosen, "rejected": rejected,
               "messages": messages, "system": system}  # fmt: skip
    parts = {
        split: [row for source in some for row in _rows(source, options, names)]
        for split, some in sources.items()
    }
    _check(parts, shown)
    whole = splits.separate(splits.complete(splits.separate(parts, overlap), shown), overlap)
    everything = [row for split in SPLITS for row in whole[split]]
    is_named = names and _is_named(everything, names, origin, labels)
    known = names if is_named else classes.few(everything)
    data = _datasets(whole, {"source": shown, "labels": known})
    if tokenizer is not None:
        check_lengths(data, tokenizer, length)
    return data


def check_lengths(data: Any, tokenizer: Any, length: int | None = None) -> None:
    """Raise LabkitError naming the rows that have more than `length` tokens.

    `data` is a DatasetDict, a Dataset or a list of rows. Without `length` the tokenizer's limit counts.
    """
    from labkit.train.rows import encode

    limit = length or min(tokenizer.model_max_length, 2048)  # tokenizers without a limit state an absurd one
    parts = list(data.values()) if hasattr(data, "values") else [data]
    problems, frames, total = Problems(""), {}, 0
    for number, row in enumerate(row for part in parts for row in part):
        total += 1
        for reply in ("completion", "chosen", "rejected"):
            turns = [*row["prompt"], *row[reply]] if row.get(reply) else []
            if not turns or _bytes(turns, tokenizer, frames) <= limit:
                continue  # a token is at least a byte, and most rows are too short to be worth encoding
            tokens = len(encode({"prompt": row["prompt"], "completion": row[reply]}, tokenizer))
            if tokens > limit:
                problems.add(
                    row.get("id") or f"row {number}",
                    f"{tokens:,} tokens, more than the limit of {limit:,}",
                    "Shorten or remove the row, or allow more tokens with length=..., as far as the model's "
                    "context and the memory go.",
                )
                break
    problems.stop(total)


def _bytes(turns: list[dict[str, str]], tokenizer: Any, frames: dict[tuple[str, ...], int]) -> int:
    """The bytes of a chat as the model sees it; what the template adds is found once per order of roles."""
    said = sum(len(turn["content"].encode()) for turn in turns)
    roles = tuple(turn["role"] for turn in turns)
    if roles not in frames:
        frames[roles] = len(tokenizer.apply_chat_template(turns, tokenize=False).encode()) - said
    return said + frames[roles]


def _local(place: Path, shown: str, encoding: str | None, wanted: set[str]) -> dict[str, list[Source]]:
    """The sources of a file or folder by split."""
    paths = {"train": [place]}
    if place.is_dir():
        paths = places.files_in(place, shown)

    def read(path: Path) -> Source:
        name = shown if path == place else os.path.join(shown, path.name)
        text = reading.read_text(path, name, encoding)
        return parsing.parse(text, name, reading.FORMATS[path.suffix.lower()], wanted)

    return {split: [read(path) for path in some] for split, some in paths.items()}


def _wanted(*options: Any) -> set[str]:
    """Column names to look for in a header: the well-known ones and those that the options name."""
    named = {str(name).casefold() for option in options for name in columns.as_list(option)}
    return {*columns.KNOWN, *named}


def _rows(source: Source, options: dict[str, Any], names: list[str] | None) -> list[Row]:
    mapping = columns.choose(source, **options)
    return convert.rows_of(source, mapping, os.path.basename(source.shown), names)


def _names(labels: Any, folder: Path | None) -> tuple[list[str] | None, str]:
    if labels is False:
        return None, ""
    if labels is not None:
        return classes.given_names(labels), "labels"
    return classes.names_beside(folder) if folder else (None, "")


def _is_named(rows: list[Row], names: list[str], origin: str, labels: Any) -> bool:
    if any("answer" not in row for row in rows):
        return False
    return classes.check_names(rows, names, origin, strict=labels is not None)


def _check(parts: dict[str, list[Row]], shown: str) -> None:
    """What no single row can show: one form throughout, and answers that are not the prompts."""
    rows = [row for some in parts.values() for row in some]
    if len({"answer" in row for row in rows}) > 1:
        raise LabkitError(
            f"{shown} mixes files with one answer a row and files with chosen and rejected. Load them "
            "one by one."
        )
    if len(rows) > 1 and all(row.get("answer") == row["message"] for row in rows):
        raise LabkitError(
            f"{shown}: in every row the answer is the same as the prompt, so there is nothing to learn. "
            "Are the right columns named? load(..., prompt='...', answer='...')"
        )


def _datasets(parts: dict[str, list[Row]], about: dict[str, Any]) -> DatasetDict:
    from datasets import Dataset, DatasetDict, DatasetInfo

    description = json.dumps(about)
    return DatasetDict(
        {
            split: Dataset.from_list(rows, info=DatasetInfo(description=description))
            for split, rows in parts.items()
        }
    )
