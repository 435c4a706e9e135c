"""Compiling a model's blocks: one block is compiled, and serves for all that are built alike."""

import os
from contextlib import contextmanager

import torch

# Seen with the course's base model on an H200, by `bench train`: seconds that compiling takes, and that it
# saves, at each step and for each of its tokens, of a step that is a CUDA graph already.
COST = 10.0
SAVED = (0.004, 3e-6)
SHAPES = 64  # versions of a block that may be compiled: adapters and lengths make some


def blocks_of(model):
    """The repeated blocks of a causal language model: the ModuleList that holds most of its weights."""
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return list(max(lists, key=lambda some: sum(weight.numel() for weight in some.parameters()), default=[]))


@contextmanager
def compiled_blocks(model, wanted):
    """Inside, the blocks of `model` run compiled by `torch.compile`, if `wanted`; afterwards as before."""
    blocks = [block for block in blocks_of(model) if block._compiled_call_impl is None] if wanted else []
    before = torch._dynamo.config.recompile_limit if blocks else None
    if blocks:
        torch._dynamo.config.recompile_limit = max(before, SHAPES)
    for block in blocks:
        block.compile(dynamic=False)
    try:
        yield
    finally:
        for block in blocks:
            block._compiled_call_impl = None
        if blocks:
            torch._dynamo.config.recompile_limit = before


def worth_compiling(steps, tokens):
    """Does a run of so many steps, of so many tokens each, win back the time that compiling takes?

    Where processes share a card (LABKIT_BESIDE says how many), what one saves there they all gain.
    """
    return steps * (SAVED[0] + SAVED[1] * tokens) * int(os.environ.get("LABKIT_BESIDE") or 1) > COST
