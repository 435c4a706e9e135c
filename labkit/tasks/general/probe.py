"""The general-knowledge probe: which of four answers does a model find likeliest?"""

from __future__ import annotations

import math
from typing import Any

from labkit.tasks.general.likelihood import log_probabilities
from labkit.tasks.general.source import Row, read
from labkit.tasks.scores import Scores, check_lengths, tally


def items() -> list[Row]:
    """The committed questions: id, subject, question, options (four) and answer (the right one's index)."""
    return read("probe")


def prompt(item: Row, blind: bool = False) -> str:
    """The plain text after which an option is scored: no chat template, no list of the options."""
    return "Answer:" if blind else f"Question: {item['question']}\nAnswer:"


def probe_accuracy(model: Any, tokenizer: Any, items: Any = None, *, batch_size: int = 32,
                   blind: bool = False, progress: bool = True) -> Scores:
    """Share of questions whose right option is the likeliest continuation of "Question: ...\\nAnswer:".

    The likelihood of an option is the sum of its tokens' log-probabilities divided by its length in bytes,
    the leading space included, so that long options are not worse for being long and models with different
    tokenizers compare. Of equal options the first counts. `items` are rows of the probe (default: all that
    are committed); `blind` leaves the question out, which shows how much the options alone give away.

    Returns Scores: `exact` is the accuracy, `exact_rows` the verdict on every item, `answers` the options
    chosen, `detail` the accuracy of each subject. Raises LabkitError if there are no items.
    """
    rows = read("probe") if items is None else list(items)
    check_lengths(rows, rows)
    pieces, texts = [], []
    for row in rows:
        begin = tokenizer(prompt(row, blind), add_special_tokens=False).input_ids
        for option in row["options"]:
            texts.append(" " + option)
            pieces.append((begin + tokenizer(texts[-1], add_special_tokens=False).input_ids, len(begin)))
    found = log_probabilities(model, tokenizer, pieces, batch_size, "probe", progress)
    values = [math.fsum(each) / len(text.encode()) for each, text in zip(found, texts, strict=True)]
    chosen, verdicts = [], []
    for row in rows:
        own, values = values[: len(row["options"])], values[len(row["options"]) :]
        best = own.index(max(own))
        chosen.append(row["options"][best])
        verdicts.append(best == row["answer"])
    return tally(chosen, verdicts, by_subject(rows, verdicts))


def by_subject(rows: list[Row], verdicts: list[bool]) -> dict[str, float]:
    """The share of right verdicts of each subject, in the order in which the subjects first occur."""
    sets: dict[str, list[bool]] = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        sets.setdefault(row["subject"], []).append(verdict)
    return {subject: sum(own) / len(own) for subject, own in sets.items()}
