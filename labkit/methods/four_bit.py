"""4-bit copies of a loaded model, the way back, and merging LoRA into weights that were never quantized."""

import copy
import re
import tempfile

from labkit.errors import LabkitError

PARTS = r"\.(lora_\w+|modules_to_save)\."  # in the names of what an adapter adds
FRESH = "on a CPU a forward pass in eval mode repacks 4-bit weights. Make a fresh copy, with four_bit_of"


def four_bit_of(model):
    """A copy of a loaded model with its linear weights, but the head's, in NF4, doubly quantized.

    They are multiplied in bf16, and the rest is in fp32, as in `labkit.methods.lora.four_bit_base`; the copy
    lies where `model` does. Raises LabkitError for a model with adapters or one that is quantized already.
    Source: Dettmers et al. 2023 (arXiv:2305.14314), section 3.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from labkit.base_model import _quiet

    _without_adapters(model)
    if _four_bit_layers(model):
        raise LabkitError("this model is in 4 bits already. Pass a plain one, or dequantized(model)")
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, _quiet():
        model.save_pretrained(folder)
        return AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=config, dtype=torch.float32, device_map={"": model.device}
        ).eval()


def dequantized(model):
    """A plain fp32 copy of a 4-bit model, whose linear weights are what the 4-bit codes stand for.

    Raises LabkitError for a model with adapters or without 4-bit layers, and for one whose weights a CPU has
    repacked: they would come back as garbage.
    """
    import torch

    from labkit.base_model import _quiet

    _without_adapters(model)
    layers = _four_bit_layers(model)
    if not layers:
        raise LabkitError("this model has no 4-bit layer to restore. Make one with four_bit_of(model)")
    if any(getattr(layer.weight.quant_state, "packing_format_for_cpu", False) for layer in layers):
        raise LabkitError(f"these weights cannot be restored: {FRESH}")
    with _quiet():
        plain = copy.deepcopy(model).dequantize(torch.float32)
    plain.is_loaded_in_4bit = False
    return plain.eval()


def in_16_bits(model):
    """The model with its linear weights, but the head's, rounded to bf16, in place.

    They go on being stored in their dtype, and the rest stays as it is, so that two models that differ in
    these weights compute alike.
    """
    import torch

    from labkit.methods.quantize import linears

    for layer in linears(model).values():
        layer.weight.data = layer.weight.data.to(torch.bfloat16).to(layer.weight.dtype)
    return model


def merge_into(base, adapter_model):
    """Add the LoRA update of a peft model to the weights of `base`, in place: W + s B A; returns `base`.

    `base` is a plain model, freshly loaded; `adapter_model` is left as it is, and its own base weights are
    not read: those may be in 4 bits, or repacked. Sums are taken in fp32 and kept in the dtype of `base`.
    Raises LabkitError where `base` is in 4 bits or has other layers, and where the adapter is more than
    LoRA's two matrices a layer. Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    _without_adapters(base)
    _only_low_rank(adapter_model)
    for name, adapter in adapter_model.get_base_model().named_modules():
        if not isinstance(adapter, LoraLayer):
            continue
        weight = _plain_weight(base, name)
        for one in adapter.active_adapters:
            if one in adapter.lora_A:
                with torch.no_grad():
                    update = adapter.get_delta_weight(one).to(weight.device).float()
                    weight.copy_(weight.float() + update)
    return base


def _four_bit_layers(model):
    import bitsandbytes as bnb

    return [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]


def _without_adapters(model):
    if hasattr(model, "peft_config"):
        raise LabkitError("this model has adapters. Pass the base without them, freshly loaded")


def _only_low_rank(model):
    if not hasattr(model, "peft_config"):
        raise LabkitError("this model has no adapter to merge. Pass what peft's get_peft_model returned")
    # By parameters: to ask for a state dict would unpack weights that a CPU has repacked, and change them.
    names = [name for name, _ in model.named_parameters() if re.search(PARTS, name)]
    others = [name for name in names if not re.search(r"\.lora_[AB]\.\w+\.weight$", name)]
    biases = [getattr(config, "bias", "none") for config in model.peft_config.values()]
    others += [f"bias={bias!r}" for bias in biases if bias != "none"]
    if others or not names:
        raise LabkitError(
            f"only plain LoRA updates can be merged, and this adapter has {others[0] if others else 'none'}. "
            "Merge it with peft's merge_and_unload, on a freshly loaded base"
        )


def _plain_weight(base, name):
    from torch import nn

    try:
        layer = base.get_submodule(name)
    except AttributeError as error:
        raise LabkitError(f"the base has no layer {name}: the adapter belongs to another model") from error
    if type(layer) is not nn.Linear:
        raise LabkitError(
            f"{name} of the base is a {type(layer).__name__}, not a plain linear layer. "
            "Merge into a base loaded in 16 or 32 bits"
        )
    return layer.weight
