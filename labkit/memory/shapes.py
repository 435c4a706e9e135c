"""The sizes of a Llama-like model, which are all that memory depends on, and those of models people know."""

from dataclasses import dataclass, replace

from labkit.errors import LabkitError


@dataclass(frozen=True)
class Shape:
    """What decides how many weights a Llama-like model has and how large its activations are.

    `hidden` the width, `layers` the blocks, `heads` and `kv_heads` query and key/value heads of `head_dim`,
    `inter` the width inside the MLP, `vocab` the token ids, `tied` whether the head is the embedding,
    `positions` the longest sequence.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inter: int
    vocab: int
    tied: bool = False
    positions: int = 4096

    @property
    def query(self):
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def key(self):
        """Width of all key heads together, and of all value heads."""
        return self.kv_heads * self.head_dim

    def linears(self):
        """The linear layers of one block in the order a step meets them: {name: (inputs, outputs)}."""
        return {
            "q_proj": (self.hidden, self.query), "k_proj": (self.hidden, self.key),
            "v_proj": (self.hidden, self.key), "o_proj": (self.query, self.hidden),
            "gate_proj": (self.hidden, self.inter), "up_proj": (self.hidden, self.inter),
            "down_proj": (self.inter, self.hidden),
        }  # fmt: skip

    def linear_weights(self):
        """Weights in the linear layers of one block."""
        return sum(a * b for a, b in self.linears().values())

    def block_weights(self):
        """Weights of one block: its linear layers and two norms."""
        return self.linear_weights() + 2 * self.hidden

    def weights(self):
        """Weights of the whole model, exactly; a tied head counts once."""
        tables = 1 if self.tied else 2
        return tables * self.vocab * self.hidden + self.layers * self.block_weights() + self.hidden


_KNOWN = [
    Shape("smollm2-135m", 576, 30, 9, 3, 64, 1536, 49152, True, 8192),
    Shape("1b", 2048, 16, 32, 8, 64, 8192, 128256, True, 131072),  # Llama-3.2-1B
    Shape("7b", 4096, 32, 32, 32, 128, 11008, 32000),  # Llama-2-7B
    Shape("mistral-7b", 4096, 32, 32, 8, 128, 14336, 32000, False, 32768),
    Shape("13b", 5120, 40, 40, 40, 128, 13824, 32000),  # Llama-2-13B
    Shape("65b", 8192, 80, 64, 64, 128, 22016, 32000, False, 2048),  # Llama-65B
    Shape("70b", 8192, 80, 64, 8, 128, 28672, 32000),  # Llama-2-70B
]
SHAPES = {shape.name: shape for shape in _KNOWN}


def shape_of(model, name=None):
    """The `Shape` of a known name, a `Shape`, a transformers config or a model that has one.

    Errors: `LabkitError` for a name that is not in `SHAPES`, and for an architecture that is not Llama's
    (biases, experts, a different count of weights): use `labkit.memory.trace` for those.
    """
    if isinstance(model, Shape):
        return replace(model, name=name) if name else model
    if isinstance(model, str):
        if model not in SHAPES:
            raise LabkitError(
                f"no model shape is called {model!r}. Take one of {', '.join(SHAPES)}, or a `Shape`"
            )
        return SHAPES[model]
    config = getattr(model, "config", model)
    missing = [key for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                               "vocab_size") if not isinstance(getattr(config, key, None), int)]  # fmt: skip
    if missing:
        raise LabkitError(
            f"{type(config).__name__} has no {', '.join(missing)}, so it is no Llama-like config. "
            "Use `labkit.memory.trace`, which takes any model"
        )
    heads = config.num_attention_heads
    shape = Shape(
        name or getattr(config, "name_or_path", "") or getattr(config, "model_type", "") or "unnamed",
        config.hidden_size, config.num_hidden_layers, heads,
        getattr(config, "num_key_value_heads", None) or heads,
        getattr(config, "head_dim", None) or config.hidden_size // heads,
        config.intermediate_size, config.vocab_size, bool(getattr(config, "tie_word_embeddings", False)),
        getattr(config, "max_position_embeddings", None) or 4096,
    )  # fmt: skip
    _refuse_strangers(config, shape)
    return shape


def _refuse_strangers(config, shape):
    """Raise unless transformers' own model for `config` has exactly as many weights as `shape` says."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        found = sum(weight.numel() for weight in model.parameters())
    except (ValueError, KeyError) as error:
        raise LabkitError(
            f"{type(config).__name__} is no causal language model that transformers can build. "
            "Use `labkit.memory.trace` with a factory of yours"
        ) from error
    if found != shape.weights():
        raise LabkitError(
            f"this {getattr(config, 'model_type', 'model')} has {found:,} weights where a Llama of its sizes "
            f"has {shape.weights():,}: it has other parts. Use `labkit.memory.trace`, which takes any model"
        )
