"""Arithmetic: additions, subtractions and small word problems, each with steps, with filler or bare.

The three forms hold the same rows and end in the same line, "Answer: 834", so that one scorer serves all:
`load(form="answer")`, `load(form="steps")`, and `load(form="filler")`, which has as many tokens as the steps
but says nothing. The committed rows lie in data/arithmetic; `python -m labkit.tasks.arithmetic` writes them
again, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import LabkitError
from labkit.paths import DATA
from labkit.tasks import files
from labkit.tasks.arithmetic.builder import DIGITS, KINDS, SPLITS, build
from labkit.tasks.arithmetic.scoring import MARK, parse, score
from labkit.tasks.arithmetic.steps import filler, working

if TYPE_CHECKING:
    from datasets import DatasetDict

__all__ = ["DIGITS", "FOLDER", "FORMS", "KINDS", "MAX_NEW_TOKENS", "PROMPTS", "SPLITS", "SYSTEM", "build",
           "load", "parse", "read", "render", "render_answer", "score", "write"]

FOLDER = DATA / "arithmetic"
SYSTEM = 'Solve the problem. End with a line "Answer: " and the number.'
FORMS = ["answer", "steps", "filler"]
MAX_NEW_TOKENS = 128  # the longest steps have 112 tokens of the base model, the end token included
_DERIVED = ("steps",)  # columns that are worked out again on reading instead of stored


def render(question: str) -> list[dict[str, str]]:
    """The chat messages that put a question to the model, the same for every form: system sentence, user."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


def render_answer(row: dict[str, Any], form: str = "answer") -> str:
    """The answer to a row as the model should write it, in one of the FORMS; the last line is the same."""
    if form not in FORMS:
        raise LabkitError(f"arithmetic has no form {form!r}: use one of {', '.join(FORMS)}.")
    before = {"answer": "", "steps": row["steps"] + "\n", "filler": filler(row["calculation"]) + "\n"}
    return f"{before[form]}{MARK} {row['answer']}"


def read(split: str, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The committed rows of a split as `build` gives them. Raises LabkitError if missing or damaged."""
    return [{**row, "steps": working(row["calculation"])} for row in files.read(Path(folder), split)]


def write(folder: Path = FOLDER) -> None:
    """Build the three splits and write them; the steps are left out, since `read` can work them out again."""
    files.write(Path(folder), {split: stored(build(split, n)) for split, n in SPLITS.items()})


def stored(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without the columns that need not be stored."""
    return [{key: value for key, value in row.items() if key not in _DERIVED} for row in rows]


def load(form: str = "answer", folder: Path = FOLDER) -> DatasetDict:
    """The committed rows as a DatasetDict, in trl's prompt-completion form.

    Columns: prompt (system and user message), completion (one assistant message in the given form), id,
    phrasing, question, answer (the number as text), calculation, kind, digits, steps. Only `completion`
    differs between the forms. Raises LabkitError for an unknown form, or if a file is missing or damaged.
    """
    from datasets import Dataset, DatasetDict

    if form not in FORMS:
        raise LabkitError(f"arithmetic has no form {form!r}: use one of {', '.join(FORMS)}.")
    return DatasetDict({split: Dataset.from_list([_trl_row(row, form) for row in read(split, folder)])
                        for split in SPLITS})  # fmt: skip


def _trl_row(row: dict[str, Any], form: str) -> dict[str, Any]:
    answer = [{"role": "assistant", "content": render_answer(row, form)}]
    return {"prompt": render(row["question"]), "completion": answer, **row}


# ---- prompts for the untuned base -----------------------------------------------------------------------

Ask = Callable[[str], list[dict[str, str]]]  # a question -> chat messages

STEP_BY_STEP = ('Solve the problem. Think step by step: write down each step on its own line. '
                'Then end with a line "Answer: " and the number, and write nothing after it.')  # fmt: skip


def _one_sentence(train_rows: Any) -> Ask:
    return render


def _step_by_step(train_rows: Any) -> Ask:
    system = {"role": "system", "content": STEP_BY_STEP}
    return lambda question: [system, {"role": "user", "content": question}]


def _worked(shots: int) -> Callable[[Any], Ask]:
    def make(train_rows: Any) -> Ask:
        turns = [{"role": "system", "content": STEP_BY_STEP}]
        for row in examples(train_rows, shots):
            turns += [{"role": "user", "content": row["question"]},
                      {"role": "assistant", "content": render_answer(row, "steps")}]  # fmt: skip
        return lambda question: [*turns, {"role": "user", "content": question}]

    return make


def examples(rows: Any, shots: int) -> list[dict[str, Any]]:
    """The first `shots` rows that take turns in kind (add, subtract, word), each of another phrasing."""
    chosen: list[dict[str, Any]] = []
    for row in rows:
        if len(chosen) < shots and row["kind"] == KINDS[len(chosen) % len(KINDS)]:
            if row["phrasing"] not in [other["phrasing"] for other in chosen]:
                chosen.append(row)
    if len(chosen) < shots:
        raise LabkitError(f"Only {len(chosen)} of {shots} examples found: pass more rows.")
    return chosen


# The fixed budget of prompts behind "the best prompt we tried": `PROMPTS[name](train_rows)(question)`.
PROMPTS: dict[str, Callable[[Any], Ask]] = {
    "one sentence": _one_sentence,
    "think step by step": _step_by_step,
    "4 worked examples": _worked(4),
    "8 worked examples": _worked(8),
}
