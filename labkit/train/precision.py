"""Mixed precision: the autocast context, and linear weights cast once a step instead of at every use."""

from contextlib import nullcontext

import torch

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device_type, precision):
    """The autocast context of a precision name; fp32 has none.

    Casts are not remembered: the weights that matter are cast by `Weights`, and a CUDA graph must not
    depend on what an earlier step left behind.
    """
    if precision not in TYPES:
        return nullcontext()
    return torch.autocast(device_type, TYPES[precision], cache_enabled=False)


class Weights:
    """Inside (`with Weights(model, precision)`) linear weights are held in 16 bits, afterwards in fp32.

    Autocast would cast a weight each time it is used, and its gradient back each time. Here the model
    computes with 16-bit copies while the fp32 originals, the *masters*, are what the optimizer steps:
    `gather` brings gradients to the masters, `spread` brings stepped masters to the copies, each in one
    kernel for all weights. The numbers are those of autocast, except that the gradient of a trained head that
    is no embedding adds up over chunks of the loss in 16 bits. Costs 2 bytes a weight for the copy, which
    autocast would save for the backward pass anyway, and 2 more for a trained weight's 16-bit gradient.
    """

    def __init__(self, model, precision):
        weights = list(_linear_weights(model)) if precision in TYPES else []
        self.pairs = [(weight, weight.data, weight.data.to(TYPES[precision])) for weight in weights]
        self.masters = {}  # id of a trained weight -> the parameter that the optimizer steps
        for weight, full, _ in self.pairs:
            if weight.requires_grad:
                self.masters[id(weight)] = torch.nn.Parameter(full)
        trained = [(weight, half) for weight, _, half in self.pairs if weight.requires_grad]
        self.trained = [weight for weight, _ in trained]
        self.copies = [half for _, half in trained]

    def stepped(self, trainable):
        """name -> what the optimizer steps, for `trainable` parameters (name -> parameter)."""
        return {name: self.masters.get(id(weight), weight) for name, weight in trainable.items()}

    def __enter__(self):
        for weight, full, half in self.pairs:
            half.copy_(full)  # the originals may have changed since the copies were made
            weight.data = half
        return self

    def __exit__(self, *_):
        for weight, full, _ in self.pairs:
            weight.data = full

    @torch.no_grad()
    def gather(self):
        """Add the gradients of the 16-bit copies to those of their masters, and forget the former."""
        found = [(weight, self.masters[id(weight)]) for weight in self.trained if weight.grad is not None]
        fresh = [(weight, master) for weight, master in found if master.grad is None]
        later = [(weight, master) for weight, master in found if master.grad is not None]
        for _, master in fresh:
            master.grad = torch.empty_like(master)
        for pairs, combine in ((fresh, torch._foreach_copy_), (later, torch._foreach_add_)):
            if pairs:
                combine([master.grad for _, master in pairs], [weight.grad for weight, _ in pairs])
        for weight, _ in found:
            weight.grad = None

    @torch.no_grad()
    def spread(self):
        """Copy the stepped masters into the 16-bit copies."""
        if self.copies:
            torch._foreach_copy_(self.copies, [self.masters[id(weight)] for weight in self.trained])


def _linear_weights(model):
    # What else than a matrix product reads a weight must go on reading it in fp32: an embedding tied to
    # the head, and variants of LoRA such as DoRA, which take norms of the base's and the adapter's weights.
    others = set()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            others.add(id(module.weight))
        elif getattr(module, "lora_variant", None):
            others.update(id(weight) for weight in module.parameters())
    seen = set()
    for module in model.modules():
        if type(module) is torch.nn.Linear and module.weight.dtype == torch.float32:
            if id(module.weight) not in others | seen:
                seen.add(id(module.weight))
                yield module.weight
