"""Model merging: one model out of several finetunes of one base, without training.

Names are imported on first use, because `labkit.methods` imports its modules to look for methods, and torch
is slow to load.
"""

from importlib import import_module

_HOME = {
    "state": "arithmetic", "put": "arithmetic", "average": "arithmetic", "greedy_soup": "arithmetic",
    "delta": "arithmetic", "task_arithmetic": "arithmetic", "slerp": "arithmetic",
    "dot": "arithmetic", "cosines": "arithmetic",
    "trim": "arithmetic", "elected": "arithmetic", "disjoint_mean": "arithmetic", "ties": "arithmetic",
    "drop_out": "arithmetic", "dare": "arithmetic", "dare_ties": "arithmetic",
    "with_adapters": "lora", "combine": "lora", "relative_error": "lora",
    "upscaled": "stacking", "stack": "stacking",
    "concatenated": "representations", "last_token": "representations", "probe": "representations",
    "specialist": "specialists", "score_all": "specialists", "kept": "specialists",
}  # fmt: skip
__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
