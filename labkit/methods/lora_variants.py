"""LoRA with one choice changed: which layers carry adapters, and how an update is scaled as the rank grows.

The scaled ones have the scaling 2 of `lora-r16` at rank 16, so that all variants meet there.
"""

from labkit.methods import register
from labkit.methods.lora import DEFAULT, RATES


@register("lora-qv", "LoRA of rank {} on the query and value projections", rates=RATES, letter="r",
          default=DEFAULT)  # fmt: skip
def lora_qv(rank):
    """Adapters where Hu et al. (2021, arXiv:2106.09685, section 5.1) had them, alpha = 2r."""
    return _adapted(rank, targets=["q_proj", "v_proj"])


@register("lora-attn", "LoRA of rank {} on the four attention projections", rates=RATES, letter="r",
          default=DEFAULT)  # fmt: skip
def lora_attn(rank):
    """Adapters on query, key, value and output projections, alpha = 2r."""
    return _adapted(rank, targets=["q_proj", "k_proj", "v_proj", "o_proj"])


@register("lora-mlp", "LoRA of rank {} on the three MLP projections", rates=RATES, letter="r",
          default=DEFAULT)  # fmt: skip
def lora_mlp(rank):
    """Adapters on gate, up and down projections, alpha = 2r."""
    return _adapted(rank, targets=["gate_proj", "up_proj", "down_proj"])


@register("rslora", "rank-stabilized LoRA of rank {} on all linear layers", rates=RATES, letter="r",
          default=DEFAULT)  # fmt: skip
def rslora(rank):
    """Scaling alpha / sqrt(r), alpha = 8: 2 at rank 16 (Kalajdzievski 2023, arXiv:2312.03732)."""
    return _adapted(rank, alpha=8, use_rslora=True)


@register("lora-a32", "LoRA of rank {} with alpha 32 on all linear layers", rates=RATES, letter="r",
          default=DEFAULT)  # fmt: skip
def lora_a32(rank):
    """Scaling 32 / r, whatever the rank: at rank 16 this is `lora-r16`."""
    return _adapted(rank, alpha=32)


def _adapted(rank, targets="all-linear", alpha=None, **options):
    """The base with fresh adapters; `alpha` is twice the rank unless given, `options` go to peft."""
    from peft import LoraConfig, get_peft_model

    from labkit import load_model

    config = LoraConfig(
        r=rank, lora_alpha=alpha or 2 * rank, target_modules=targets, task_type="CAUSAL_LM", **options
    )
    return get_peft_model(load_model(), config)
