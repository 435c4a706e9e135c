"""LoRA written out, and what it rests on: how much of a finetuning update a low rank holds.

The methods of `bench` use peft's LoRA (`labkit.methods.lora`); this one is to be read, and is equal to it.
"""

import math

import torch
from torch import nn
from torch.nn.functional import dropout, linear

from labkit.errors import LabkitError

NO_TARGETS = ("lm_head", "embed_tokens")  # what LoRA on "all linear layers" leaves alone


class LoRALinear(nn.Module):
    """y = W x + s B A x: a frozen linear layer and a trainable change of rank r (Hu et al. 2021, eq. 3).

    Shapes as peft stores them: W (out, in), A (r, in), B (out, r). s = alpha / r, or alpha / sqrt(r) with
    `rslora` (Kalajdzievski 2023). A starts as peft's does, B at zero. `dropout` acts on the input of A, in
    training only. Raises LabkitError for a rank below 1.
    """

    def __init__(self, linear, r, alpha, dropout=0.0, rslora=False):
        super().__init__()
        if r < 1:
            raise LabkitError(f"the rank is {r}: it must be at least 1")
        self.linear = linear.requires_grad_(False)
        self.lora_A = nn.Parameter(linear.weight.new_empty(r, linear.in_features))
        self.lora_B = nn.Parameter(linear.weight.new_zeros(linear.out_features, r))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # uniform between -1/sqrt(in) and 1/sqrt(in)
        self.scaling = alpha / math.sqrt(r) if rslora else alpha / r
        self.dropout = dropout
        self.merged = False

    def forward(self, x):
        y = self.linear(x)
        if self.merged:
            return y
        x = dropout(x, self.dropout, self.training)
        return y + self.scaling * linear(linear(x, self.lora_A), self.lora_B)

    def delta(self):
        """s B A: the change of W, (out, in)."""
        return self.scaling * (self.lora_B @ self.lora_A)

    @torch.no_grad()
    def merge(self):
        """Add the change to W, so that forward is one product. Raises LabkitError if it is in W already."""
        if self.merged:
            raise LabkitError("this layer is merged already: merging twice would add its change twice")
        self.linear.weight += self.delta()
        self.merged = True

    @torch.no_grad()
    def unmerge(self):
        """Take the change out of W again, to rounding. Raises LabkitError if it is not in W."""
        if not self.merged:
            raise LabkitError("this layer is not merged: there is nothing to take out of its weight")
        self.linear.weight -= self.delta()
        self.merged = False


def add_lora(model, r, alpha, targets=None, **options):
    """Freeze `model` and replace linear layers by LoRALinear, in place; returns the model.

    `targets` are last parts of layers' names (`["q_proj", "v_proj"]`); None means every linear layer but the
    head. `options` go to LoRALinear. Raises LabkitError for a target that no layer has.
    """
    chosen = _chosen({name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)},
                     targets)  # fmt: skip
    model.requires_grad_(False)
    for name, layer in chosen.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, LoRALinear(layer, r, alpha, **options))
    return model


def linear_shapes(model):
    """{name: (out, in)} of every linear layer of a model."""
    return {name: tuple(layer.weight.shape) for name, layer in model.named_modules()
            if isinstance(layer, nn.Linear)}  # fmt: skip


def lora_weights(shapes, r, targets=None):
    """How many weights LoRA of rank r trains: r (out + in) for each layer of {name: (out, in)}.

    `targets` as for `add_lora`, and the same LabkitError.
    """
    return sum(r * (out + inside) for out, inside in _chosen(shapes, targets).values())


def _chosen(layers, targets):
    """The entries of a dict by layer name that `targets` mean."""
    last = {name: name.rpartition(".")[2] for name in layers}
    if targets is None:
        return {name: layer for name, layer in layers.items() if last[name] not in NO_TARGETS}
    if missing := sorted(set(targets) - set(last.values())):
        there = ", ".join(sorted(set(last.values())))
        raise LabkitError(f"no linear layer is called {', '.join(missing)}. There are: {there}")
    return {name: layer for name, layer in layers.items() if last[name] in targets}


# ---- is an update low-rank? -----------------------------------------------------------------------------


def updates(before, after):
    """{name: after - before} of the weights of linear layers, from two state dicts of one model.

    Embedding, head and norms are left out; names are those of the state dicts. Raises LabkitError where the
    two are not of one model, or are the same tensors (a state dict follows its model: copy it first).
    """
    if before.keys() != after.keys():
        strange = ", ".join(sorted(before.keys() ^ after.keys())[:3])
        raise LabkitError(f"these are state dicts of different models: only one of them has {strange}")
    names = [name for name, weight in before.items()
             if weight.dim() == 2 and not set(name.split(".")) & set(NO_TARGETS)]  # fmt: skip
    if shared := [name for name in names if before[name].data_ptr() == after[name].data_ptr()]:
        raise LabkitError(
            f"{shared[0]} is the same tensor in both: a state dict follows its model as it trains. "
            "Take a deepcopy before training, or the state dict of a freshly loaded base"
        )
    return {name: after[name].detach() - before[name].detach().to(after[name].device) for name in names}


def low_rank(update, rank):
    """The matrix of `rank` nearest to `update` (out, in): its largest singular values and their directions.

    Nearest in the Frobenius norm (Eckart and Young 1936). Computed in fp32; the dtype stays.
    """
    u, s, vh = torch.linalg.svd(update.float(), full_matrices=False)
    return ((u[:, :rank] * s[:rank]) @ vh[:rank]).to(update.dtype)


def shuffled(update, seed):
    """`update` with its entries in a random order: the same numbers, hence the same norm, no structure."""
    order = torch.randperm(update.numel(), generator=torch.Generator().manual_seed(seed))
    return update.flatten()[order.to(update.device)].reshape(update.shape)


def energy(update):
    """Share of ‖update‖² that the first 1, 2, 3, ... singular directions hold: (min(out, in),), ends at 1."""
    squares = torch.linalg.svdvals(update.float()).double().square()
    return squares.cumsum(0) / squares.sum()
