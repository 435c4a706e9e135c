"""What is to be predicted, traced or measured: one training step or one generation, fully described."""

from dataclasses import asdict, dataclass, replace

from labkit.errors import LabkitError
from labkit.memory.shapes import Shape, shape_of

METHODS = (
    "inference",
    "full",
    "partial",
    "lora",
    "dora",
    "qlora",
    "ia3",
    "adapter",
    "prompt",
    "prefix",
    "dpo",
)
PRECISIONS = ("fp32", "bf16 autocast", "bf16")
OPTIMIZERS = ("adamw", "fused", "8-bit", "paged", "paged 8-bit", "sgd")
ATTENTION = ("flash", "math", "eager")


@dataclass(frozen=True)
class Setting:
    """One step whose memory is asked for.

    shape          a `Shape`, or the name of one in `SHAPES`
    method         full; partial (the last `blocks` blocks and the final norm); lora, dora, qlora (`rank` on
                   `targets`, no dropout); ia3 (peft's default targets for Llama: k_proj, v_proj, down_proj);
                   adapter (Houlsby: `bottleneck` after attention and MLP, SiLU between); prompt and prefix
                   (`tokens` virtual tokens, no reparametrisation); dpo (full policy, frozen reference in the
                   same dtype; `batch` pairs are 2 x batch rows, policy with gradients, then reference
                   without); inference (no gradients: `seq` tokens of prompt, then `new_tokens` with a KV
                   cache)
    batch, seq     rows, and tokens in each; labels are the ids, so every token but a row's first counts
    precision      fp32; bf16 autocast (weights fp32, autocast to bf16 in the forward pass); bf16 (weights,
                   activations, gradients, states)
    adapters       dtype of what an adapter method trains: fp32 (peft's default whatever the base's) or bf16
    optimizer      adamw (torch's default, foreach on CUDA), fused, 8-bit (bitsandbytes AdamW8bit), paged
                   (PagedAdamW32bit), paged 8-bit (PagedAdamW8bit), sgd (torch's, no momentum)
    checkpointing  every block's activations are recomputed in the backward pass (not reentrant)
    attention      flash (torch's SDPA, choosing its best kernel), math (SDPA, score matrices in full), eager
    targets        "all-linear" (all but the head), or names joined by commas: "q_proj,v_proj" or "q,v"
    fused_loss     logits exist for 1,024 tokens at a time (`labkit.train.loss.weighted_nll`)
    new_tokens     tokens decoded after the prompt; inference only

    Errors: `LabkitError` for what cannot be, naming what to change.
    """

    shape: Shape | str
    method: str = "full"
    batch: int = 1
    seq: int = 512
    precision: str = "bf16 autocast"
    optimizer: str = "adamw"
    checkpointing: bool = False
    attention: str = "flash"
    rank: int = 16
    targets: str = "all-linear"
    adapters: str = "fp32"
    blocks: int = 2
    tokens: int = 20
    bottleneck: int = 64
    fused_loss: bool = False
    new_tokens: int = 0

    def __post_init__(self):
        object.__setattr__(self, "shape", shape_of(self.shape))
        for field, allowed in (("method", METHODS), ("precision", PRECISIONS), ("optimizer", OPTIMIZERS),
                               ("attention", ATTENTION), ("adapters", ("fp32", "bf16"))):  # fmt: skip
            if getattr(self, field) not in allowed:
                raise LabkitError(
                    f"{field}={getattr(self, field)!r} is unknown. Take one of: {', '.join(allowed)}"
                )
        for field in ("batch", "seq", "rank", "blocks", "tokens", "bottleneck", "new_tokens"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < (field != "new_tokens"):
                raise LabkitError(
                    f"{field}={value!r} must be a whole number of at least {int(field != 'new_tokens')}"
                )
        for field in ("checkpointing", "fused_loss"):
            if not isinstance(getattr(self, field), bool):
                raise LabkitError(f"{field}={getattr(self, field)!r} must be True or False")
        self._refuse_impossible()
        object.__setattr__(
            self, "targets", ",".join(self.adapted()) if self.targets != "all-linear" else self.targets
        )

    def _refuse_impossible(self):
        method = self.method
        if self.seq < 2 and method != "inference":
            raise LabkitError("seq=1 has no token to predict. Take seq=2 or more")
        if self.new_tokens and method != "inference":
            raise LabkitError(f"new_tokens are for method='inference', not {method!r}. Leave new_tokens at 0")
        if method == "inference" and (self.checkpointing or self.fused_loss):
            raise LabkitError(
                "inference has no backward pass and no loss. Leave checkpointing and fused_loss off"
            )
        if method == "partial" and self.blocks > self.shape.layers:
            raise LabkitError(
                f"blocks={self.blocks}, but {self.shape.name} has {self.shape.layers}. "
                "Take fewer, or method='full'"
            )
        if self.checkpointing and method == "prefix":
            raise LabkitError(
                "prefix tuning keeps its prefix in the KV cache, which checkpointing turns off. "
                "Take checkpointing=False, or method='prompt'"
            )
        if self.fused_loss and method in ("dpo", "prompt", "prefix"):
            raise LabkitError(
                f"fused_loss cannot be had with {method!r}, which needs logits. Take fused_loss=False"
            )
        if self.adapters == "bf16" and self.precision != "bf16":
            raise LabkitError(
                "adapters='bf16' are for precision='bf16': "
                f"with {self.precision!r} the trained weights are fp32"
            )

    def adapted(self):
        """Full names of the linear layers that LoRA and its kin adapt, in the order of the block."""
        names = list(self.shape.linears())
        if self.targets == "all-linear":
            return names
        asked = [name.strip() for name in self.targets.split(",")]
        full = [name if name.endswith("_proj") else f"{name}_proj" for name in asked]
        strange = [name for name, whole in zip(asked, full, strict=True) if whole not in names]
        if strange:
            raise LabkitError(
                f"targets: no linear layer is called {', '.join(strange)}. Take from {', '.join(names)}"
            )
        return [name for name in names if name in full]

    def but(self, **changes):
        """This setting with some fields changed."""
        return replace(self, **changes)

    def to_dict(self):
        """Plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data):
        """The setting that `to_dict` wrote; `shape` may also be a known name."""
        data = dict(data)
        if isinstance(data.get("shape"), dict):
            data["shape"] = Shape(**data["shape"])
        unknown = set(data) - set(cls.__dataclass_fields__)
        if unknown or "shape" not in data:
            raise LabkitError(
                f"a setting needs `shape` and knows no {', '.join(sorted(unknown)) or 'other field'}"
            )
        return cls(**data)
