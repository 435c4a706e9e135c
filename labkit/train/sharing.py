"""`fit` as everyone calls it: the loop, within this process's share of a card, with advice if memory ends."""

import functools
import inspect

import torch

from labkit import env
from labkit.errors import LabkitError
from labkit.train import loop
from labkit.workshop import share

_SIGNATURE = inspect.signature(loop.fit)


@functools.wraps(loop.fit)
def fit(model, rows, tokenizer, **options):
    asked = _SIGNATURE.bind(model, rows, tokenizer, **options)
    asked.apply_defaults()
    on = next(model.parameters()).device
    budget = {
        "batch": asked.arguments["batch"], "length": asked.arguments["length"],
        "accumulate": asked.arguments["accumulate"],
        "precision": asked.arguments["precision"] or env.precision(on),
        "checkpointing": asked.arguments["gradient_checkpointing"],
    }  # fmt: skip
    advice = share.advisor(model, on, **budget)
    with share.turn(model, on, **budget):
        try:
            return loop.fit(model, rows, tokenizer, **options)
        except LabkitError as error:
            better = isinstance(error.__cause__, torch.cuda.OutOfMemoryError) and advice()
            if not better:
                raise
            raise LabkitError(f"the GPU ran out of memory. {better}") from error.__cause__
