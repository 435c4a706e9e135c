"""Voice: messages to an outdoor-equipment shop with replies in its brand voice, judged by executable rules.

`load()` gives rows for supervised finetuning whose replies are drafts of mixed quality,
`load(quality="gold")` the same messages with replies that keep every rule, and `load_pairs()` preference
pairs. `score`, `reward` and `judge` apply the rules. The committed rows lie in data/voice; `python -m
labkit.tasks.voice` writes them again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import LabkitError
from labkit.paths import DATA
from labkit.tasks import files
from labkit.tasks.voice.builder import PAIR_SPLITS, SPLITS, build, build_pairs
from labkit.tasks.voice.prompts import GUIDE, PROMPTS, SYSTEM, render
from labkit.tasks.voice.rules import HELD_OUT_RULES, PAIR_RULES, RULES, WHY, broken, is_reply, kept
from labkit.tasks.voice.scoring import judge, reward, score

if TYPE_CHECKING:
    from datasets import DatasetDict

__all__ = [
    "FOLDER",
    "GUIDE",
    "HELD_OUT_RULES",
    "MAX_NEW_TOKENS",
    "PAIR_RULES",
    "PAIR_SPLITS",
    "PROMPTS",
    "RULES",
    "SPLITS",
    "SYSTEM",
    "WHY",
    "broken",
    "build",
    "build_pairs",
    "is_reply",
    "judge",
    "kept",
    "load",
    "load_pairs",
    "read",
    "render",
    "reward",
    "score",
]

FOLDER = DATA / "voice"
MAX_NEW_TOKENS = 110
QUALITIES = {"draft": "draft", "gold": "reply"}  # the name a caller gives -> the column


def read(part: str, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The committed rows of a split, or of pairs_train and pairs_test, as the builder gave them.

    Raises LabkitError if a file is missing or damaged.
    """
    return files.read(Path(folder), part)


def load(quality: str = "draft", folder: Path = FOLDER) -> DatasetDict:
    """The committed rows as a DatasetDict, in trl's prompt-completion form.

    Columns: prompt (system and user message), completion (one assistant message: the draft, or with
    quality="gold" the reply that keeps every rule), id, phrasing, topic, product, message, reply, draft.
    Raises LabkitError for another quality, or if a file is missing or differs from its checksum.
    """
    from datasets import Dataset, DatasetDict

    if quality not in QUALITIES:
        raise LabkitError(f"voice has no replies of quality {quality!r}: use one of {', '.join(QUALITIES)}.")
    column = QUALITIES[quality]
    return DatasetDict(
        {
            split: Dataset.from_list(
                [
                    {"prompt": render(row["message"]), "completion": _said(row[column]), **row}
                    for row in read(split, folder)
                ]
            )
            for split in SPLITS
        }
    )


def load_pairs(balanced: bool = False, folder: Path = FOLDER) -> DatasetDict:
    """The committed preference pairs as a DatasetDict with train and test, in trl's preference form.

    Columns: prompt (system and user message), chosen and rejected (one assistant message each), id, phrasing,
    message, and breaks (the rules that only the rejected reply breaks, with spaces between). In the default
    set chosen replies tend to be longer; with balanced=True they are longer as often as shorter. Both sets
    have the same prompts and chosen replies. Raises LabkitError if a file is missing or differs from its
    checksum.
    """
    from datasets import Dataset, DatasetDict

    end = "_balanced" if balanced else ""
    out = {}
    for split in PAIR_SPLITS:
        messages = {row["id"]: row["message"] for row in read(split, folder)}
        out[split] = Dataset.from_list(
            [
                {
                    "prompt": render(messages[pair["message_id"]]),
                    "chosen": _said(pair["chosen"]),
                    "rejected": _said(pair[f"rejected{end}"]),
                    "id": pair["id"],
                    "phrasing": pair["phrasing"],
                    "message": messages[pair["message_id"]],
                    "breaks": " ".join(pair[f"breaks{end}"]),
                }
                for pair in read(f"pairs_{split}", folder)
            ]
        )
    return DatasetDict(out)


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
