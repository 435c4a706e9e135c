"""Course data: one module per family, all loaded the same way.

A family module offers `load() -> datasets.DatasetDict`; a new one is one more line in `FAMILIES`.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from labkit.errors import LabkitError

if TYPE_CHECKING:
    from datasets import DatasetDict

FAMILIES = {
    "tickets": "labkit.tasks.tickets",
    "handbook": "labkit.tasks.handbook",
}


def load(name: str) -> DatasetDict:
    """Load a data family by name as a DatasetDict with the splits train, validation and test.

    Rows are in trl's prompt-completion form. Raises LabkitError for an unknown name, or when the family's
    files are missing or damaged.
    """
    return family(name).load()


def family(name: str) -> ModuleType:
    """The module of a data family, which renders its prompts and scores its answers."""
    if name not in FAMILIES:
        raise LabkitError(f"There is no data family {name!r}. Known: {', '.join(FAMILIES)}.")
    return importlib.import_module(FAMILIES[name])
