"""Depth up-scaling: a deeper model out of a model's own layers."""

import copy

from torch import nn

from labkit.errors import LabkitError


def upscaled(layers, removed):
    """Numbers of layers for `stack`: a model's, without the last `removed`, then without the first.

    SOLAR is upscaled(32, 8), 48 layers (Kim et al. 2023, arXiv:2312.15166, section 2). Raises LabkitError
    where nothing would be left of a copy.
    """
    if not 0 <= removed < layers:
        raise LabkitError(f"{removed} of {layers} layers removed: at least 0, and leave a layer")
    return [*range(layers - removed), *range(removed, layers)]


def stack(model, layers):
    """A new model with copies of the layers of those numbers, in that order; the rest is copied as it is.

    A number may come up more than once; each copy has weights of its own. Raises LabkitError for numbers
    that the model does not have, and models without a list of layers.
    """
    there = getattr(model.base_model, "layers", None)
    if not isinstance(there, nn.ModuleList) or hasattr(model, "peft_config"):
        raise LabkitError(f"{type(model).__name__} has no list of layers to stack. Merge adapters first")
    if strange := [number for number in layers if not 0 <= number < len(there)] or not layers:
        raise LabkitError(f"no layers {strange}: this model has 0 to {len(there) - 1}")
    deeper = copy.deepcopy(model)
    deeper.base_model.layers = nn.ModuleList(_copied(there[number], model, deeper) for number in layers)
    deeper.config.num_hidden_layers = len(layers)
    if kinds := getattr(model.config, "layer_types", None):
        deeper.config.layer_types = [kinds[number] for number in layers]
    for number, layer in enumerate(deeper.base_model.layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):  # where attention finds its keys and values in the cache
                module.layer_idx = number
    return deeper


def _copied(layer, model, deeper):
    """A copy of a layer that shares the configuration of the deeper model, as the layers of one model do."""
    return copy.deepcopy(layer, {id(model.config): deeper.config})
