"""Soft prompts: a frozen base and n learned vectors before each row, which pack like words.

A prompt of n vectors is n new words, with the ids V to V + n - 1 behind the base's V words. `fit` puts them
before each row that it packs, `generate` before the first token of each row that it is given. Text without
them runs through the base itself: a soft prompt can be left off, and that is what likelihood code, such as
the probe of general knowledge, sees.

Names are imported on first use, because `labkit.methods` imports its modules to look for methods, and torch
is slow to load.
"""

from importlib import import_module

from labkit.methods import register

DEFAULT = 100  # at 32 prompt tuning of this base learns far less
_HOME = {
    "Table": "modules", "Encoder": "modules", "PrefixAttention": "modules",
    "prompt_tuning": "modules", "p_tuning": "modules", "prefix_tuning": "modules", "put_before": "modules",
    "fold": "tools", "state": "tools", "restore": "tools", "join": "tools", "nearest": "tools",
}  # fmt: skip
__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _register(name, about, rates):
    """Register `name` of modules.py, which is the file that its measurements depend on."""

    def make(n):
        return getattr(import_module(make.__module__), name)(n)

    make.__module__ = f"{__name__}.modules"
    register(name, about, rates=rates, letter="n", default=DEFAULT)(make)


_register("prompt", "prompt tuning: {} learned vectors before the text", (0.03, 0.1, 0.3, 1.0))
_register("ptuning", "P-tuning: {} vectors from a learned encoder before the text", (3e-4, 1e-3, 3e-3, 1e-2))
_register("prefix", "prefix tuning: {} learned keys and values in every layer", (0.01, 0.03, 0.1, 0.3))
