"""Weights of -1, 0 and 1, and training through rounding: the straight-through estimator, BitLinear."""

import torch
from torch import nn
from torch.nn import functional as F

from labkit.errors import LabkitError

# Smallest scale, as in transformers (integrations/bitnet.py); the paper adds a small number to the scale.
EPSILON = 1e-5


def ternary(w):
    """Codes -1, 0 and 1: q = clip(round(w / scale)), where scale is the mean |w| of the whole matrix.

    Returns codes (same shape, int8) and the scale, a scalar. Source: Ma et al. 2024 (arXiv:2402.17764), eq. 1
    to 3.
    """
    scale = w.float().abs().mean().clamp_min(EPSILON)
    return torch.round(w.float() / scale).clamp(-1, 1).to(torch.int8), scale


def straight_through(exact, rounded):
    """`rounded` in the forward pass, and in the backward pass the gradient of `exact`, as if not rounded.

    Source: Bengio et al. 2013 (arXiv:1308.3432).
    """
    return rounded.detach() + (exact - exact.detach())


class RoundedLinear(nn.Linear):
    """A linear layer whose weights are rounded at every use and trained through it; `rounding` is w -> w'."""

    rounding = None

    def rounded(self):
        """The weights that the layer multiplies with, which gradients pass through."""
        return straight_through(self.weight, self.rounding(self.weight).to(self.weight.dtype))

    def forward(self, x):
        return F.linear(x, self.rounded(), self.bias)


class BitLinear(RoundedLinear):
    """The layer of BitNet b1.58: ternary weights, and inputs rounded to 8 bits, one scale a token.

    The norm before it is left to the model, which has one before every block's first linear layers.
    """

    @staticmethod
    def rounding(w):
        codes, scale = ternary(w)
        return codes * scale

    def forward(self, x):
        scale = x.detach().abs().amax(dim=-1, keepdim=True).float().clamp_min(EPSILON) / 127
        rounded = (torch.round(x.float() / scale).clamp(-128, 127) * scale).to(x.dtype)
        return F.linear(straight_through(x, rounded), self.rounded(), self.bias)


def replace_linears(model, kind, rounding=None, skip=("lm_head",)):
    """Turn every linear layer of `model` but those named in `skip` into a `kind`; returns the model.

    The weights stay the same parameters. Raises LabkitError where there is nothing to replace.
    """
    count = 0
    for name, layer in list(model.named_modules()):
        if type(layer) is not nn.Linear or name.rsplit(".", 1)[-1] in skip:
            continue
        new = kind(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        new.weight, new.bias = layer.weight, layer.bias
        if rounding is not None:
            new.rounding = rounding
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, new.train(layer.training))
        count += 1
    if not count:
        raise LabkitError("no linear layer to replace: is this model quantized, or were they replaced?")
    return model
