"""Methods that train few weights: bottlenecks in the blocks, added biases, norms, IA3.

What a run has learned is `state(model)`, to be kept in a safetensors file; `restore` puts it into a model
prepared in the same way. The layers `Bottleneck` and `IA3Linear` are written inside a function, since `find`
imports this module and torch is slow to load.
"""

from functools import cache

from labkit.errors import LabkitError
from labkit.methods import register

WIDTH = 64  # 4,497,216 weights: 3.34% of the base's
AFTER = ("o_proj", "down_proj")  # the last layers of attention and MLP: the residual addition follows
OUTPUT, INPUT = ("k_proj", "v_proj"), ("down_proj",)  # IA3 scales what those put out, and what this takes in


@register(
    "houlsby", "bottleneck adapters of width {} after attention and MLP of each block, and the norms",
    rates=(3e-4, 1e-3, 3e-3, 1e-2), letter="w", default=WIDTH,
)  # fmt: skip
def houlsby(width):
    """The base with two bottlenecks a block; they and the norms are trained (see `add_bottlenecks`)."""
    from labkit import load_model

    return add_bottlenecks(load_model(), width)


@register("biases", "a bias added to every linear layer but the head", rates=(1e-3, 3e-3, 1e-2, 3e-2))
def biases():
    """The base with added biases, 0.116% of its weights: it has none that BitFit could train."""
    from labkit import load_model

    return add_biases(load_model())


@register("norms", "the weights of the norms alone", rates=(1e-3, 3e-3, 1e-2, 3e-2))
def norms():
    """The base with its RMSNorm weights trainable, 0.026% of all."""
    from labkit import load_model

    return train_norms(load_model())


@register("ia3", "scales on keys, values and the MLP's inner activations", rates=(3e-3, 1e-2, 3e-2, 1e-1))
def ia3():
    """The base with peft's IA3, 0.043% of its weights (Liu et al. 2022, arXiv:2205.05638, section 3.3)."""
    from peft import IA3Config, get_peft_model

    from labkit import load_model

    config = IA3Config(
        target_modules=[*OUTPUT, *INPUT], feedforward_modules=list(INPUT), task_type="CAUSAL_LM"
    )
    return get_peft_model(load_model(), config)


# ---- layers ---------------------------------------------------------------------------------------------


@cache
def _layers():
    """The layers of this module, by name."""
    from torch import nn
    from torch.nn.functional import gelu

    class Bottleneck(nn.Module):
        """y + U gelu(D y + d) + u, where y = W x is what a frozen linear layer puts out.

        D (width, out) starts as torch starts a linear layer, U (out, width) and u at zero, so that nothing
        changes at first. 2 out width + width + out weights. It cannot be merged into W: gelu is between.
        Raises LabkitError for a width below 1. Source: Houlsby et al. 2019 (arXiv:1902.00751), figure 2.
        """

        def __init__(self, linear, width):
            super().__init__()
            if width < 1:
                raise LabkitError(f"the width is {width}: it must be at least 1")
            like = {"device": linear.weight.device, "dtype": linear.weight.dtype}
            self.linear = linear.requires_grad_(False)
            self.down = nn.Linear(linear.out_features, width, **like)
            self.up = nn.Linear(width, linear.out_features, **like)
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

        def forward(self, x):
            y = self.linear(x)
            return y + self.up(gelu(self.down(y)))

    class IA3Linear(nn.Module):
        """l * (W x + b) of a frozen linear layer, or W (l * x) + b with `on_input`; l starts at one.

        l has as many numbers as what it scales. Source: Liu et al. 2022 (arXiv:2205.05638), section 3.3.
        """

        def __init__(self, linear, on_input):
            super().__init__()
            self.linear, self.on_input, self.merged = linear.requires_grad_(False), on_input, False
            self.scale = nn.Parameter(linear.weight.new_ones(linear.weight.shape[1 if on_input else 0]))

        def forward(self, x):
            if self.merged:
                return self.linear(x)
            if self.on_input:
                return self.linear((self.scale * x).to(x.dtype))
            y = self.linear(x)
            return (self.scale * y).to(y.dtype)

        def merge(self):
            """Scale W's columns, or W's rows and b, so that forward is one product.

            Raises LabkitError if that has been done. There is no way back where a scale is zero.
            """
            if self.merged:
                raise LabkitError("this layer is merged already: merging twice would scale its weight twice")
            scale = self.scale.detach()
            self.linear.weight.data *= scale if self.on_input else scale[:, None]
            if self.linear.bias is not None and not self.on_input:
                self.linear.bias.data *= scale
            self.merged = True

    return {"Bottleneck": Bottleneck, "IA3Linear": IA3Linear}


def __getattr__(name):
    if name in ("Bottleneck", "IA3Linear"):
        return _layers()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# ---- what is trained ------------------------------------------------------------------------------------


def add_bottlenecks(model, width):
    """Put a Bottleneck after attention and after the MLP of each block, before the residual addition.

    In place; returns the model, of which they and the norms are trained, as in the paper: with L blocks of
    hidden size d, 2 L (2 d width + width + d) + (2 L + 1) d weights. The nonlinearity is GELU, as in its
    authors' code. Raises LabkitError where a model has no layers called o_proj and down_proj.
    Source: Houlsby et al. 2019 (arXiv:1902.00751), section 2.1.
    """
    layers = _linears(model, AFTER)
    made = {name: _layers()["Bottleneck"](layer, width) for name, layer in layers.items()}
    train_norms(model)
    return _put(model, made)


def add_ia3(model):
    """Replace k_proj, v_proj and down_proj by IA3Linear, in place, and freeze all but the scales.

    Equal to peft's IA3, and returns the model. Raises LabkitError where a model has no such layers.
    """
    layers = _linears(model, [*OUTPUT, *INPUT])
    model.requires_grad_(False)
    made = _layers()["IA3Linear"]
    return _put(model, {name: made(layer, name.endswith(INPUT)) for name, layer in layers.items()})


def add_biases(model):
    """Add a bias of zero to every linear layer but the head, in place, and train nothing else.

    This stands in for BitFit on a model without biases: there the biases that pre-training has found are
    tuned, here new ones are learned. Returns the model; its config says that it has biases, where it has
    words for that. Raises LabkitError for a model that has biases.
    """
    from torch import nn

    head = model.get_output_embeddings()
    layers = {name: layer for name, layer in model.named_modules()
              if isinstance(layer, nn.Linear) and layer is not head}  # fmt: skip
    if found := [name for name, layer in layers.items() if layer.bias is not None]:
        raise LabkitError(f"{found[0]} has a bias already. Train those that there are: train_biases(model)")
    model.requires_grad_(False)
    for layer in layers.values():
        layer.bias = nn.Parameter(layer.weight.new_zeros(layer.out_features))
    for setting in ("attention_bias", "mlp_bias"):
        if hasattr(model.config, setting):  # so that save_pretrained and from_pretrained keep them
            setattr(model.config, setting, True)
    return model


def train_biases(model):
    """Freeze `model` but for the biases that it has, those of its norms among them; returns the model.

    Raises LabkitError for a model that has none. Source: BitFit, Ben Zaken et al. 2022 (arXiv:2106.10199).
    """
    found = [weight for name, weight in model.named_parameters() if name.rpartition(".")[2] == "bias"]
    return _train_only(model, found, "this model has no biases to train. Add some: add_biases(model)")


def train_norms(model):
    """Freeze `model` but for the weights of its norms; returns the model.

    Raises LabkitError where no layer is called a norm.
    """
    found = [weight for module in model.modules() if "Norm" in type(module).__name__
             for weight in module.parameters(recurse=False)]  # fmt: skip
    return _train_only(model, found, f"no layer of this {type(model).__name__} is called a norm")


def _train_only(model, weights, otherwise):
    if not weights:
        raise LabkitError(otherwise)
    model.requires_grad_(False)
    for weight in weights:
        weight.requires_grad_(True)
    return model


def _linears(model, wanted):
    """{name: layer} of the plain linear layers whose last names are `wanted`."""
    from torch import nn

    found = {name: layer for name, layer in model.named_modules()
             if type(layer) is nn.Linear and name.rpartition(".")[2] in wanted}  # fmt: skip
    if missing := set(wanted) - {name.rpartition(".")[2] for name in found}:
        raise LabkitError(
            f"no linear layer of this model is called {', '.join(sorted(missing))}. "
            "Pass a Llama or its kin, freshly loaded, without adapters and in 16 or 32 bits"
        )
    return found


def _put(model, layers):
    for name, layer in layers.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
    return model


# ---- saving ---------------------------------------------------------------------------------------------


def state(model):
    """{name: copy on the CPU} of every weight that is trained: `safetensors.torch.save_file` keeps it."""
    return {name: weight.detach().cpu().contiguous().clone()
            for name, weight in model.named_parameters() if weight.requires_grad}  # fmt: skip


def restore(model, saved):
    """Put the weights of a `state` into a model that was prepared in the same way; returns the model.

    Raises LabkitError, and changes nothing, where names or shapes differ from those of the trained weights.
    """
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if strange := sorted(trained.keys() ^ saved.keys()):
        side = "the model trains and the state lacks" if strange[0] in trained else "the state alone has"
        raise LabkitError(f"this state is of another method or base: {side} {strange[0]}. Prepare that one")
    for name, weight in trained.items():
        if weight.shape != saved[name].shape:
            raise LabkitError(
                f"{name} is {tuple(saved[name].shape)} in the state and {tuple(weight.shape)} in the model. "
                "Prepare the model with the width, rank or base that the state was made with"
            )
    for name, weight in trained.items():
        weight.data.copy_(saved[name])
    return model
