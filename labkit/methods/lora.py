"""LoRA and its kin through peft: low-rank updates beside every linear weight but the head's, alpha = 2r."""

from labkit.methods import register

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
DEFAULT = 16


@register("lora", "LoRA of rank {} on all linear layers", rates=RATES, letter="r", default=DEFAULT)
def lora(rank):
    """The base with LoRA adapters (Hu et al. 2021, arXiv:2106.09685)."""
    from labkit import load_model

    return adapted(load_model(), rank)


@register("dora", "DoRA of rank {} on all linear layers", rates=RATES, letter="r", default=DEFAULT)
def dora(rank):
    """The base with DoRA adapters: magnitude and direction apart (Liu et al. 2024, arXiv:2402.09353)."""
    from labkit import load_model

    return adapted(load_model(), rank, use_dora=True)


@register("qlora", "LoRA of rank {} on a 4-bit base (NF4)", rates=RATES, letter="r", default=DEFAULT)
def qlora(rank):
    """LoRA adapters over linear weights in 4-bit NF4 (Dettmers et al. 2023, arXiv:2305.14314)."""
    from peft import prepare_model_for_kbit_training

    # Norms and embedding are loaded in fp32 already: what peft prepares here is that all of it is frozen.
    return adapted(prepare_model_for_kbit_training(four_bit_base(), use_gradient_checkpointing=False), rank)


def adapted(model, rank, **options):
    """`model` with fresh adapters of `rank` on all its linear layers but the head; `options` go to peft."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM", **options
    )
    return get_peft_model(model, config)


def four_bit_base():
    """The base with its linear weights in NF4, doubly quantized, multiplied in bf16; the rest in fp32."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from labkit import base_model, env
    from labkit.own_model import load_own_model

    options = {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
        "dtype": torch.float32,
        "device_map": {"": env.device()},
    }  # fmt: skip
    if base_model.is_default():
        return AutoModelForCausalLM.from_pretrained(base_model.fetch(), **options).eval()
    return load_own_model(**options).eval()
