"""Handbook: questions about the facts of one company, to be answered with the shortest phrase.

The facts are arbitrary and stand in the documents of a staff handbook, so that a model can know them only
from training or from the passages in its prompt. The committed files lie in data/handbook; `python -m
labkit.tasks.handbook` writes them again, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import LabkitError
from labkit.paths import DATA
from labkit.tasks import files
from labkit.tasks.handbook.answers import normalise, score
from labkit.tasks.handbook.documents import VERSIONS, build_documents
from labkit.tasks.handbook.questions import SPLITS, build
from labkit.tasks.handbook.world import KINDS, REFUSAL
from labkit.tasks.scores import Scores

if TYPE_CHECKING:
    from datasets import DatasetDict

__all__ = ["FOLDER", "KINDS", "MAX_NEW_TOKENS", "PARTS", "PROMPTS", "REFUSAL", "RULES", "SPLITS", "SYSTEM",
           "VERSIONS", "Scores", "build", "build_documents", "documents", "examples", "load", "normalise",
           "read", "render", "score"]  # fmt: skip

FOLDER = DATA / "handbook"
PARTS = [*SPLITS, "documents", "documents_before"]
MAX_NEW_TOKENS = 24  # gold answers have seven tokens at most; the rest is room for a wordier model
SYSTEM = (
    "You answer questions of the staff of Wren & Fell from the staff handbook. "
    "Answer with the shortest phrase."
)


# ---- rows ---------------------------------------------------------------------------------------------


def read(part: str, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The committed rows of a split, or the documents. Raises LabkitError if unknown, missing or damaged."""
    if part not in PARTS:
        raise LabkitError(f"handbook has no part {part!r}: use one of {', '.join(PARTS)}.")
    return files.read(Path(folder), part)


def documents(version: str = "current", folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The committed documents: dicts with id, title, topic, subject, style and text.

    `version="before"` gives them as they were when the training questions were written. Raises LabkitError
    for another version, or if the file is missing or damaged.
    """
    if version not in VERSIONS:
        raise LabkitError(f"The handbook has no version {version!r}: use one of {', '.join(VERSIONS)}.")
    return read("documents" if version == "current" else "documents_before", folder)


def render(question: str, passages: Sequence[str | dict[str, Any]] | None = None) -> list[dict[str, str]]:
    """The chat messages that put a question to the model: system sentence, then user.

    `passages` (texts, or documents with title and text) go before the question, in the order given.
    """
    found = [text if isinstance(text, str) else f"{text['title']}\n{text['text']}" for text in passages or []]
    user = "\n\n".join([*found, f"Question: {question}"]) if found else question
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]


def load(folder: Path = FOLDER) -> DatasetDict:
    """The committed rows as a DatasetDict, in trl's prompt-completion form, without passages.

    Columns: prompt, completion, id, question, answer, old_answer, aliases (a JSON list), kind, fact,
    document and phrasing. Raises LabkitError if a file is missing or differs from its recorded checksum.
    """
    from datasets import Dataset, DatasetDict

    return DatasetDict(
        {split: Dataset.from_list([_trl_row(row) for row in read(split, folder)]) for split in SPLITS}
    )


def _trl_row(row: dict[str, Any]) -> dict[str, Any]:
    completion = [{"role": "assistant", "content": row["answer"]}]
    return {"prompt": render(row["question"]), "completion": completion, **row}


# ---- prompts for the untuned base -----------------------------------------------------------------------

RULES = f"""{SYSTEM}
Rules:
A person: first and last name. A phone extension: its four digits.
A number with its unit, like "14 days", "2340 g", "£35" or "12%"; a count of things as digits only.
A time on the 24-hour clock, like "9:05" or "17:40". A date like "14 May". A code like "K-417".
No sentence, no explanation.
If the handbook does not give the answer, write exactly: {REFUSAL}"""

Ask = Callable[..., list[dict[str, str]]]  # a question (and passages, if there are any) -> chat messages


def _one_sentence(train_rows: Any) -> Ask:
    return render


def _with_examples(shots: int) -> Callable[[Any], Ask]:
    def make(train_rows: Any) -> Ask:
        turns = [{"role": "system", "content": RULES}]
        for row in examples(train_rows, shots) if shots else []:
            turns += [
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": row["answer"]},
            ]
        return lambda question, passages=None: [*turns, render(question, passages)[-1]]

    return make


def examples(rows: Any, shots: int) -> list[dict[str, Any]]:
    """`shots` rows that show the forms of answers: one refusal, and facts of different topics and forms.

    Only facts that never changed are shown, the earlier row first. Raises LabkitError if there are too few.
    """
    chosen: list[dict[str, Any]] = []
    shown: set[str] = set()
    for row in list(rows):
        topic, _, key = row["fact"].split("/")
        own = {"absent"} if row["kind"] == "absent" else {topic, "key " + key, "form " + _form(row["answer"])}
        if row["kind"] in ("trained", "absent") and not own & shown and len(chosen) < shots:
            # The last place is kept for the refusal.
            if row["kind"] == "absent" or "absent" in shown or len(chosen) < shots - 1:
                chosen.append(row)
                shown |= own
    if len(chosen) < shots:
        raise LabkitError(f"Only {len(chosen)} of {shots} examples found: pass more rows.")
    return chosen


def _form(answer: str) -> str:
    """What an answer looks like: its unit or sign, or how it is built of letters and digits."""
    letters = "".join("0" if c.isdigit() else "a" if c.isalpha() else c for c in answer)
    return answer.split()[-1] if answer[0].isdigit() and " " in answer else "".join(dict.fromkeys(letters))


# The fixed budget of prompts behind "the best prompt we tried": `PROMPTS[name](train_rows)(question)`.
PROMPTS: dict[str, Callable[[Any], Ask]] = {
    "one sentence": _one_sentence,
    "rules of format": _with_examples(0),
    "rules of format and 5 examples": _with_examples(5),
    "rules of format and 10 examples": _with_examples(10),
}
