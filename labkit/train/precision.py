"""Mixed precision: the autocast context, and frozen weights cast once instead of at every step."""

from contextlib import contextmanager, nullcontext

import torch

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device_type, precision):
    """The autocast context of a precision name; fp32 has none."""
    return torch.autocast(device_type, TYPES[precision]) if precision in TYPES else nullcontext()


@contextmanager
def cast_once(model, precision):
    """Inside, frozen fp32 linear weights are held in the autocast type; afterwards they are fp32 again.

    Autocast casts a weight each time it is used, and remembers the cast only if the weight is trained.
    The numbers are the same either way. Costs 2 bytes a frozen weight, which autocast would
    save for the backward pass anyway.
    """
    kept = []
    try:
        for weight in _frozen_linear_weights(model) if precision in TYPES else []:
            kept.append((weight, weight.data))
            weight.data = weight.data.to(TYPES[precision])
        yield
    finally:
        for weight, data in kept:
            weight.data = data


def _frozen_linear_weights(model):
    # What else than a matrix product reads a weight must go on reading it in fp32: an embedding tied to
    # the head, and variants of LoRA such as DoRA, which take norms of the base's weight.
    others = set()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            others.add(id(module.weight))
        elif getattr(module, "lora_variant", None):
            others.add(id(module.get_base_layer().weight))
    for module in model.modules():
        if type(module) is torch.nn.Linear and module.weight.dtype == torch.float32:
            if not module.weight.requires_grad and id(module.weight) not in others:
                yield module.weight
