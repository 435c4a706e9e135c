"""Linear layers with 4-bit weights, made by hand: at random, and at once as small as they end up."""

import torch
from torch import nn

SCALE = 0.02  # of the random scales


def lay_out(model, precision):
    """Put bitsandbytes' NF4 layers in place of the linear layers of a model's body, on the meta device."""
    import bitsandbytes as bnb

    compute = torch.float32 if precision == "fp32" else torch.bfloat16
    for module in list(model.model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                layer = bnb.nn.Linear4bit(
                    child.in_features, child.out_features, bias=False, compute_dtype=compute,
                    compress_statistics=True, quant_type="nf4", device="meta",
                )  # fmt: skip
                setattr(module, name, layer)
    model.is_loaded_in_4bit = True


def is_one(module):
    """Is this a layer of NF4 weights?"""
    return type(module).__name__ == "Linear4bit" and hasattr(module, "quant_state")


def fill(layer, device, code):
    """Packed weights and a doubly quantized state of the sizes that bitsandbytes' own quantization gives.

    `code` is a `table` that layers share.
    """
    import bitsandbytes as bnb

    if not layer.weight.is_meta:
        return
    count = layer.in_features * layer.out_features
    blocks = -(-count // 64)
    outer = -(-blocks // 256)

    def codes(*size):
        return torch.randint(0, 256, size, dtype=torch.uint8, device=device)

    state2 = bnb.functional.QuantState(
        absmax=torch.full((outer,), SCALE, device=device), blocksize=256, dtype=torch.float32,
        code=code,
    )  # fmt: skip
    state = bnb.functional.QuantState(
        absmax=codes(blocks), shape=torch.Size((layer.out_features, layer.in_features)),
        dtype=layer.compute_dtype, blocksize=64, quant_type="nf4",
        code=torch.linspace(-1, 1, 16, device=device),
        offset=torch.full((), 2 * SCALE, device=device), state2=state2,
    )  # fmt: skip
    layer.weight = bnb.nn.Params4bit(
        codes(-(-count // 2), 1), requires_grad=False, quant_state=state, quant_type="nf4",
        compress_statistics=True, bnb_quantized=True, module=layer,
    )  # fmt: skip
    layer.quant_state = state


def table(device):
    """The 256 values that 8-bit scales stand for, of which bitsandbytes keeps one a device."""
    return torch.linspace(-1, 1, 256, device=device)
