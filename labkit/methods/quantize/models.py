"""Whole models: round their linear layers, count what they would store, find the base's grid and blur it."""

import torch
from torch import nn

from labkit.errors import LabkitError
from labkit.methods.quantize.integers import groups

GRID_BLOCK, GRID_STEPS = 32, 15  # of a Q4_1 file: 16 codes for each block of 32 weights


def linears(model, skip=("lm_head",)):
    """name -> layer of the linear layers that a quantizer replaces: all but the head.

    Raises LabkitError where there are none.
    """
    found = {name: layer for name, layer in model.named_modules()
             if isinstance(layer, nn.Linear) and name.rsplit(".", 1)[-1] not in skip}  # fmt: skip
    if not found:
        raise LabkitError("this model has no linear layer beside its head: is it a language model?")
    return found


@torch.no_grad()
def round_linears(model, form):
    """Replace the weights of the linear layers by what `form` (a Format) leaves; returns the model."""
    for layer in linears(model).values():
        layer.weight.copy_(form.round(layer.weight))
    return model


def weight_bits(model, form):
    """Stored bits for each weight of the linear layers, scales and offsets included, on average."""
    weights = [layer.weight for layer in linears(model).values()]
    return sum(_bits(form, w) for w in weights) / sum(w.numel() for w in weights)


def file_bytes(model, form):
    """Bytes of the whole model: linear layers in `form`, everything else in 16 bits, tied weights once."""
    rounded = {id(layer.weight): layer.weight for layer in linears(model).values()}
    rest = sum(p.numel() for p in model.parameters() if id(p) not in rounded)
    return sum(_bits(form, w) for w in rounded.values()) / 8 + 2 * rest


def _bits(form, w):
    """Counting needs the shape only, so zeros will do and the weights stay where they are."""
    shape = tuple(w.shape)
    if (form.name, shape) not in _counted:
        _counted[form.name, shape] = form.bits(torch.zeros(shape))
    return _counted[form.name, shape]


_counted = {}


def grid(w, block=GRID_BLOCK, steps=GRID_STEPS):
    """(minimum, step) of the even grid from each block's smallest to its largest weight, each (blocks, 1)."""
    x = groups(w.float(), block)
    low = x.amin(dim=1, keepdim=True)
    return low, (x.amax(dim=1, keepdim=True) - low) / steps


def on_grid(w, tolerance=1e-3, **shape):
    """Share of weights that lie on their block's grid, to `tolerance` of a step.

    The smallest and largest of a block define its grid, so 2 of 32 always lie on it.
    """
    low, step = grid(w, **shape)
    place = (groups(w.float(), shape.get("block", GRID_BLOCK)) - low) / step.clamp_min(1e-12)
    return ((place - place.round()).abs() < tolerance).float().mean().item()


@torch.no_grad()
def dither(model, seed):
    """Add uniform noise, one grid step wide, to every weight of the linear layers; returns the model.

    A model that came from 4-bit codes lies about as far from its grid afterwards as the original weights did,
    each block's smallest and largest farther: they were stored nearly exactly. The noise is drawn on the CPU,
    so that it is the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in linears(model).values():
        w = layer.weight
        _, step = grid(w)
        noise = torch.rand(groups(w, GRID_BLOCK).shape, generator=generator).to(w.device) - 0.5
        w.add_((noise * step).reshape(w.shape).to(w.dtype))
    return model
