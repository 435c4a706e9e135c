"""A dataset by its name on the Hugging Face hub, as sources like those of files."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.own_data.places import SPLIT_OF
from labkit.tasks.own_data.problems import listed
from labkit.tasks.own_data.records import Record, Source


def sources(name: str, config: str | None = None) -> dict[str, Source]:
    """The splits of a hub dataset. Without a network the hub's cache is asked.

    Raises LabkitError where the dataset is not to be had, or has splits whose names say nothing.
    """
    import datasets

    from labkit import own_model

    online = own_model.hub_answers()
    try:
        with _quiet(datasets, online):
            data = datasets.load_dataset(name, config)
    except Exception as error:  # a dozen types, of four packages
        raise LabkitError(_refusal(name, error, online)) from error
    named: dict[str, list[str]] = {}
    for split in data:
        named.setdefault(SPLIT_OF.get(split.lower(), "other"), []).append(split)
    other = named.pop("other", [])
    if not named and len(other) == 1:
        named = {"train": other}
    twice = [split for split, names in named.items() if len(names) > 1]
    if "train" not in named or twice:
        raise LabkitError(
            f"The hub dataset {name} has the splits {listed(data)}, which cannot be told apart as train, "
            "validation and test. Save those you want as files of a folder: "
            f"`datasets.load_dataset({name!r}, split='...').to_json('mydata/train.jsonl')`."
        )
    return {split: _source(data[names[0]], f"{name} ({names[0]})") for split, names in named.items()}


def _source(part: Any, shown: str) -> Source:
    """One split; numbers of a class label become its names."""
    names = {
        column: feature.names for column, feature in part.features.items() if hasattr(feature, "int2str")
    }

    def text(column: str, value: Any) -> Any:
        known = column in names and isinstance(value, int) and 0 <= value < len(names[column])
        return names[column][value] if known else value

    records = [
        Record(f"row {number}", {column: text(column, value) for column, value in row.items()})
        for number, row in enumerate(part, 1)
    ]
    if not records:
        raise LabkitError(f"{shown} has no rows. Name another dataset.")
    return Source(shown, list(part.column_names), records, False)


def _refusal(name: str, error: Exception, online: bool) -> str:
    if not online:
        return (
            f"There is no file or folder {name} here, and if it names a dataset on the hub: the hub does not "
            "answer, and the dataset is not in its cache. Correct the path, connect to the network, or fetch "
            "it elsewhere with `datasets.load_dataset` and save it as JSON Lines (`.to_json('train.jsonl')`)."
        )
    reason = "\n".join(f"  {line}" for line in str(error).strip().splitlines()[:4])
    return (
        f"The hub dataset {name} could not be loaded:\n{reason}\n"
        "Check the name (and config=... where it has several), or bring the data as a file."
    )


@contextmanager
def _quiet(datasets: Any, online: bool):
    """No progress bars; offline, no attempts at the network that wait and retry."""
    import huggingface_hub.constants as constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    bars = datasets.utils.logging.is_progress_bar_enabled()
    if not online:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    datasets.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
        if bars:
            datasets.utils.logging.enable_progress_bar()
