"""Course data: one module per family, all loaded the same way; and your own data by the same door.

A family module offers `load() -> datasets.DatasetDict`; a new one is one more line in `FAMILIES`.
"""

from __future__ import annotations

import importlib
import inspect
import os
from types import ModuleType
from typing import TYPE_CHECKING, Any

from labkit.errors import LabkitError

if TYPE_CHECKING:
    from datasets import DatasetDict

FAMILIES = {
    "tickets": "labkit.tasks.tickets",
    "sql": "labkit.tasks.sql",
    "handbook": "labkit.tasks.handbook",
    "voice": "labkit.tasks.voice",
    "arithmetic": "labkit.tasks.arithmetic",
    "general": "labkit.tasks.general",
    "jobs": "labkit.tasks.jobs",
}
OWN = "own_data"  # what is not a family: a file, a folder or a hub name


def load(name: str | os.PathLike[str], **options: Any) -> DatasetDict:
    """Load a data family by name, or your own data by path or hub name, as a DatasetDict.

    Rows are in trl's prompt-completion form (preference pairs: prompt, chosen, rejected), in the splits
    train, validation and test (`general`, which nothing trains on: probe and text). `options` say how: see
    the family's own `load`, and `own_data.load` for which columns to use. Raises LabkitError for an
    unknown name, and for files missing or damaged.
    """
    known = isinstance(name, str) and name in FAMILIES
    loader = family(name if known else OWN).load
    allowed = [option for option in inspect.signature(loader).parameters if option != "name"]
    for option in options:
        if option not in allowed:
            raise LabkitError(f"load({name!r}) has no option {option!r}. It has: {', '.join(allowed)}.")
    return loader(**options) if known else loader(name, **options)


def family(name: str) -> ModuleType:
    """The module of a data family, or of `own_data`, which renders prompts and scores answers."""
    if name == OWN:
        return importlib.import_module("labkit.tasks.own_data")
    if name not in FAMILIES:
        raise LabkitError(f"There is no data family {name!r}. Known: {', '.join(FAMILIES)}.")
    return importlib.import_module(FAMILIES[name])
