"""One batch in which every row uses another adapter: LoRA or IA3 over a shared base.

Registers no method. Bottlenecks, biases and norms could be mixed likewise; these two are what peft makes.
"""

import re
from functools import partial

from labkit.errors import LabkitError

ADDED = r"\.(lora_|ia3_|modules_to_save\b)"  # in the names of what peft adds


def adapter_of(model):
    """What a peft model with LoRA or IA3 does to its base, for `mixed_batch`: {name of a layer: (how, ...)}.

    `("lora", A, s B)`, `("output", l)` or `("input", l)`, copied: A (r, in), B (out, r), l (out,) or (in,).
    Raises LabkitError unless one adapter is active, is not merged, and is no more than that (as DoRA is).
    """
    if not hasattr(model, "peft_config") or len(model.active_adapters) != 1:
        raise LabkitError("pass a peft model in which one adapter is active")
    one, found, taken = model.active_adapters[0], {}, 0
    for name, layer in model.get_base_model().named_modules():
        if getattr(layer, "merged", False):
            raise LabkitError(f"{name} is merged with its adapter: unmerge it, or load it anew")
        if one in getattr(layer, "ia3_l", ()):
            weights = [layer.ia3_l[one]]
            effect = "input" if layer.is_feedforward else "output", weights[0].flatten()
        elif one in getattr(layer, "lora_A", ()):
            weights = [layer.lora_A[one].weight, layer.lora_B[one].weight]
            effect = "lora", weights[0], layer.scaling[one] * weights[1]
        else:
            continue
        found[name] = (effect[0], *(weight.detach().clone() for weight in effect[1:]))
        taken += sum(weight.numel() for weight in weights)
    added = sum(weight.numel() for name, weight in model.named_parameters()
                if weight.requires_grad or re.search(rf"{ADDED}.*\.{one}\b", name))  # fmt: skip
    if taken != added or not found:
        raise LabkitError(
            f"of {added:,} weights added or trained, {taken:,} are matrices of LoRA or scales of IA3. Only "
            "those can differ from row to row: pass a model with one plain adapter"
        )
    return found


def mixed_batch(model, adapters, generate=False, **inputs):
    """`model(**inputs)`, or with `generate` `model.generate(**inputs)`, in which row i uses adapters[i].

    `model` is the plain base; adapters come from `adapter_of`, one a row, and one may recur. With LoRA row i
    is W x_i + s B_i A_i x_i, the second part in products batched over rows; with IA3 every row is scaled by
    its own l. Rows stay in their order, which `labkit.generate` would change. Raises LabkitError where
    adapters are not of the same layers and shapes, are not as many as rows, or do not fit the base.
    """
    stacked, layers, hooks = _stacked(adapters), dict(model.named_modules()), []
    for name, effect in stacked.items():
        _check(layers.get(name), name, *effect)
    try:
        for name, (how, *weights) in stacked.items():
            layer = layers[name]
            add = layer.register_forward_pre_hook if how == "input" else layer.register_forward_hook
            hooks.append(add(partial(_HOW[how], *(weight.to(layer.weight.device) for weight in weights))))
        return (model.generate if generate else model)(**inputs)
    finally:
        for hook in hooks:
            hook.remove()


def _stacked(adapters):
    """{layer: (how, weights of all rows)}, weights (rows, ...)."""
    import torch

    kinds = {str(sorted((name, how, [weight.shape for weight in weights])
                        for name, (how, *weights) in one.items())) for one in adapters}  # fmt: skip
    if len(kinds) != 1:
        raise LabkitError("give one adapter a row, all of one kind, on the same layers, in the same shapes")
    return {name: (how, *map(torch.stack, zip(*(one[name][1:] for one in adapters), strict=True)))
            for name, (how, *_) in adapters[0].items()}  # fmt: skip


def _check(layer, name, how, *weights):
    """Raise LabkitError unless the layer is linear, plain, and as large as what would change it."""
    from torch import nn

    if type(layer) is not nn.Linear:
        raise LabkitError(f"{name} is no plain linear layer of this model. Pass the base, freshly loaded")
    out, inside = layer.weight.shape
    wanted = {"lora": [inside, out], "output": [out], "input": [inside]}[how]
    found = [weights[0].shape[2], weights[1].shape[1]] if how == "lora" else [weights[0].shape[1]]
    if found != wanted:
        raise LabkitError(f"{name}: the adapters are of another base, whose layer has {found}, not {wanted}")


def _each(x, rows):
    if len(x) != rows:
        raise LabkitError(f"{rows} adapters for a batch of {len(x)} rows. Give one a row")
    return x


def _scaled(x, scale):
    return (_each(x, len(scale)) * scale[:, None]).to(x.dtype)


# What a forward hook gets is (layer, inputs, output), and a forward pre-hook (layer, inputs).
_HOW = {
    "lora": lambda A, B, _, x, y: y + (_each(x[0], len(A)) @ A.mT @ B.mT).to(y.dtype),
    "output": lambda scale, _, x, y: _scaled(y, scale),
    "input": lambda scale, _, x: (_scaled(x[0], scale),),
}
