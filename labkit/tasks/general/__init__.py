"""General: what a finetune may forget. A knowledge probe and plain English text, for evaluation only.

`probe_accuracy` asks 448 four-way questions, `perplexity` reads 187 passages; take both before and after a
finetune. Nothing may train on them. The committed rows lie in data/general beside their readable sources;
`python -m labkit.tasks.general` writes the rows again, byte for byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labkit.tasks.general.probe import by_subject, items, probe_accuracy, prompt
from labkit.tasks.general.source import FOLDER, PARTS, build, read
from labkit.tasks.general.text import TextLoss, passages, perplexity

if TYPE_CHECKING:
    from datasets import DatasetDict

__all__ = ["FOLDER", "PARTS", "TextLoss", "build", "by_subject", "items", "load", "passages", "perplexity",
           "probe_accuracy", "prompt", "read"]


def load(folder: Path = FOLDER) -> DatasetDict:
    """The committed rows as a DatasetDict with the parts probe and text; there is no training split.

    probe: id, subject, question, options (four), answer (index of the right one). text: id, kind, genre,
    source, text. The first n rows of a part spread evenly over its subjects or genres. Raises LabkitError if
    a file is missing or differs from its recorded checksum.
    """
    from datasets import Dataset, DatasetDict

    return DatasetDict({part: Dataset.from_list(read(part, folder)) for part in PARTS})
