"""What a training step takes: predicted by formula, traced on tensors without memory, measured on a card.

Three engines, one question (a `Setting`), one form of answer (a `Report`, in bytes).
"""

import sys
from importlib import import_module
from types import ModuleType

_HOME = {
    "predict": "labkit.memory.predict", "trace": "labkit.memory.trace", "measure": "labkit.memory.measure",
    "Setting": "labkit.memory.setting", "Report": "labkit.memory.report",
    "SHAPES": "labkit.memory.shapes", "Shape": "labkit.memory.shapes", "shape_of": "labkit.memory.shapes",
}  # fmt: skip
__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'labkit.memory' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOME])


class _Package(ModuleType):
    """Importing a submodule sets its name here: where an engine has its module's name, the engine is
    meant."""

    def __setattr__(self, name, value):
        if name in _HOME and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
