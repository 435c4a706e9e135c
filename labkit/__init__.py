"""labkit: the helper package of the Finetuning Workbook.

`from labkit import ...` gives a lesson everything it needs; each name is imported on first use,
so that `import labkit` is quick and does not load torch.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "LabkitError": "labkit.errors",
    "budget": "labkit.env",
    "device": "labkit.env",
    "machine": "labkit.env",
    "profile": "labkit.env",
    "seed_everything": "labkit.env",
    "load_model": "labkit.base_model",
    "load_tokenizer": "labkit.base_model",
    "load": "labkit.tasks",
    "fit": "labkit.train",
    "Run": "labkit.train",
    "generate": "labkit.evaluate",
    "score": "labkit.evaluate",
    "check": "labkit.exercises",
    "solve": "labkit.exercises",
    "catch_up": "labkit.workshop",
    "progress": "labkit.workshop",
    "record": "labkit.records",
    "recorded": "labkit.records",
    "claims": "labkit.records",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name == "plots":
        return import_module("labkit.plots")
    raise AttributeError(f"module 'labkit' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOME])


def in_notebook():
    """Is a notebook or IPython shell running? Then lessons may use the %%gpu magic."""
    import sys

    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


if in_notebook():
    import logging
    import warnings

    from labkit.magic import register

    # peft and trl ask transformers by old names; nothing a learner could do about it.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*is deprecated")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on some CPUs it asks for an optional package

    register()
