"""Attention inside packed rows: a token sees earlier tokens of its own row only.

Two ways to the same numbers: SDPA with a mask of (length, length) a packed row, everywhere; and on CUDA
cards from compute capability 8.0 on, flash attention over rows of varying length, which needs no mask.
"""

import inspect
from contextlib import contextmanager

import torch

from labkit.errors import LabkitError

NAME = "labkit_packed"
_grouping = {}  # see _ask_for_grouping; known only where attention without a mask is
LARGEST_HEAD = 256  # what the flash kernels take
SPECIAL = ("sliding_window", "attn_logit_softcapping", "attention_chunk_size", "attention_dropout",
           "attn_pdrop")  # fmt: skip
WINDOWS = ("sliding_window", "attention_chunk_size")
# Layers that carry a state along a row would carry it from one packed row into the next.
STATEFUL = ("mamba", "conv_", "linear_conv", "ssm_", "rwkv")
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


def check_attention(model, length, pack=True):
    """Raise LabkitError unless rows of at most `length` tokens can be kept apart in this model.

    Its attention must be SDPA, the one kind that obeys `Batch.mask`; peft's soft prompts shift positions, and
    layers with a state of their own know no mask at all; and the mask knows no window.
    """
    adapter = getattr(model, "active_peft_config", None)
    if getattr(adapter, "is_prompt_learning", False) and not getattr(model, "prompt_ids", None):
        raise LabkitError(
            f"fit cannot train soft prompts of peft ({adapter.peft_type.value}): they come before a packed "
            "row, not before each row in it. Use labkit.methods.soft_prompts, or trl's SFTTrainer, unpacked"
        )
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - ATTENTION
    kinds |= {name for name in vars(config) if name.startswith(STATEFUL) and getattr(config, name)}
    if pack and kinds:
        raise LabkitError(
            f"this model has layers that are no attention ({', '.join(sorted(kinds))}), in which packed rows "
            "would see each other. Pass pack=False"
        )
    windows = [size for name in WINDOWS if (size := getattr(config, name, None))]
    if windows and length > min(windows) and getattr(config, "use_sliding_window", True):
        raise LabkitError(
            f"layers of this model look back {min(windows)} tokens, and rows may have {length}: fit would "
            f"show them all. Pass length={min(windows)}, or use trl's SFTTrainer, without packing"
        )
    kind = getattr(model.config, "_attn_implementation", None)
    if kind not in (None, "sdpa"):
        raise LabkitError(
            f"the model uses {kind!r} attention, under which packed rows would see each other. "
            "Call model.set_attn_implementation('sdpa') before fit"
        )


def maskless(model, on, precision):
    """Can this model do without a mask? It takes a card from 8.0 on, 16 bits and plain causal attention."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = inner.config
    heads = getattr(config, "num_attention_heads", 0)
    size = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    return (
        on.type == "cuda"
        and precision != "fp32"
        and torch.cuda.get_device_capability(on) >= (8, 0)
        and getattr(inner, "_supports_attention_backend", False)
        and 0 < size <= LARGEST_HEAD
        and size % 8 == 0
        and not any(getattr(config, setting, None) for setting in SPECIAL)
        and set(getattr(config, "layer_types", None) or ()) <= {"full_attention"}
        and getattr(config, "v_head_dim", None) in (None, size)
        and not any(hasattr(module, "sinks") for module in inner.modules())
    )


@contextmanager
def packed_attention(model, without_mask):
    """Inside, the model attends by `cu_seq_lens_q`, the boundaries of rows, where `without_mask` says so."""
    if not without_mask:
        yield
        return
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _packed)
    _grouping.update(_ask_for_grouping())
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = inner.config._attn_implementation
    # The setter of the model would look the name up among the implementations of the hub; this is local.
    inner.config._attn_implementation = NAME
    try:
        yield
    finally:
        inner.config._attn_implementation = before


def _packed(module, query, key, value, attention_mask, cu_seq_lens_q, max_length_q, scaling=None, **_):
    """Causal attention inside each row; query (batch, heads, length, size), key and value alike."""
    from torch.nn.attention.varlen import varlen_attn

    batch, _, length, size = query.shape
    kind = value.dtype if value.dtype != torch.float32 else torch.get_autocast_dtype("cuda")
    flat = (part.transpose(1, 2).reshape(batch * length, -1, size).to(kind) for part in (query, key, value))
    out = varlen_attn(
        *flat, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q,
        scale=scaling, window_size=(-1, 0), **_grouping,
    )  # fmt: skip
    return out.view(batch, length, -1, size), None


def _ask_for_grouping():
    """torch 2.11 shares key heads among query heads without being asked; later versions want to be."""
    from torch.nn.attention.varlen import varlen_attn

    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
