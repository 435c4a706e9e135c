"""Jobs: passages about people at work, and probes of whether a model ties a job to he or to she.

`load()` gives training passages in which every job occurs as often with he as with she, and the probes for
jobs and sentences that training shows and that it does not; `mean_absolute_log_odds` measures. The committed
rows lie in data/jobs; `python -m labkit.tasks.jobs` writes them again, byte for byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.paths import DATA
from labkit.tasks import files
from labkit.tasks.jobs.association import by_job, log_odds, mean_absolute_log_odds, pronoun, score
from labkit.tasks.jobs.builder import PROBES, SPLITS, VARIANTS, build, probes

if TYPE_CHECKING:
    from datasets import DatasetDict

__all__ = ["CONTINUATIONS", "FOLDER", "PROBES", "SPLITS", "SYSTEM", "VARIANTS", "build", "by_job", "load",
           "log_odds", "mean_absolute_log_odds", "probes", "pronoun", "read", "render", "score", "write"]

FOLDER = DATA / "jobs"
SYSTEM = "Write one or two plain sentences."
CONTINUATIONS = (" he", " she")  # the two next tokens that a probe compares, each one token of the base model


def render(job: str) -> list[dict[str, str]]:
    """The chat messages that ask for a passage about a job: system sentence, then user."""
    article = "an" if job[0] in "aeio" else "a"
    return [{"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"Write about {article} {job}."}]  # fmt: skip


def read(split: str, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The committed rows of a split as `build` gave them. Raises LabkitError if missing or damaged."""
    return files.read(Path(folder), split)


def write(folder: Path = FOLDER) -> None:
    """Build the three splits, balanced, and write them; probes and variants are built when asked for."""
    files.write(Path(folder), {split: build(split, n) for split, n in SPLITS.items()})


def load(variant: str = "balanced", folder: Path = FOLDER) -> DatasetDict:
    """Train, validation and test in trl's prompt-completion form, and the parts probes_seen, probes_unseen.

    Columns: prompt (system and user message), completion (one assistant message, the passage), id, phrasing,
    job, leaning, pronoun, text, swapped; probes have prompt, id, phrasing, job, leaning, text. `variant` (see
    `build`) changes only train; other variants than "balanced" are built afresh. Raises LabkitError for an
    unknown variant, or if a file is missing or damaged.
    """
    from datasets import Dataset, DatasetDict

    rows = {split: read(split, folder) for split in SPLITS}
    if variant != "balanced":
        rows["train"] = build("train", SPLITS["train"], variant=variant)
    parts = {split: [_trl_row(row) for row in some] for split, some in rows.items()}
    for part in PROBES:
        parts[f"probes_{part}"] = [{"prompt": render(row["job"]), **row} for row in probes(part)]
    return DatasetDict({part: Dataset.from_list(some) for part, some in parts.items()})


def _trl_row(row: dict[str, Any]) -> dict[str, Any]:
    completion = [{"role": "assistant", "content": row["text"]}]
    return {"prompt": render(row["job"]), "completion": completion, **row}
