"""4-bit copies and the way back; merging into fresh weights is exact, into used 4-bit weights it is not."""

import pytest
import torch
from torch import nn

from labkit.errors import LabkitError
from labkit.methods import lora
from labkit.methods.four_bit import dequantized, four_bit_of, in_16_bits, merge_into
from labkit.methods.quantize import FORMATS, linears, relative_error

IDS = torch.arange(5, 29).reshape(2, 12)


@pytest.fixture(scope="module")
def four(tiny):
    """A 4-bit copy that is only read, and never run."""
    return four_bit_of(tiny())


def adapt(model, seed=1, scale=0.07, rank=4, **options):
    """LoRA on `model` with an update of the size of the base's weights."""
    torch.manual_seed(seed)
    adapted = lora.adapted(model, rank, **options)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            nn.init.normal_(weight, std=scale)
    return adapted.eval()


@torch.no_grad()
def logits(model):
    return model(IDS).logits


def weights(model):
    return {name: layer.weight.detach().float() for name, layer in linears(model).items()}


def far(first, second):
    """The largest relative error of a linear layer of two plain models."""
    return max(relative_error(w, weights(second)[name]) for name, w in weights(first).items())


# ---- there and back


def test_a_four_bit_copy_holds_the_models_own_weights_as_the_course_rounds_them(tiny, four):
    layer = four.model.layers[1].mlp.down_proj
    state = layer.weight.quant_state
    assert layer.weight.dtype == torch.uint8 and state.quant_type == "nf4" and state.nested
    assert layer.compute_dtype == torch.bfloat16
    assert four.model.embed_tokens.weight.dtype == four.model.norm.weight.dtype == torch.float32
    assert type(four.lm_head) is nn.Linear and four.lm_head.weight is four.model.embed_tokens.weight
    restored, form = weights(dequantized(four)), FORMATS["nf4 double"]
    for name, w in weights(tiny()).items():
        assert relative_error(form.round(w), restored[name]) < 1e-3 < relative_error(w, restored[name])
    assert far(dequantized(four), tiny(seed=1)) > 1               # another model's weights are other weights


def test_a_four_bit_copy_is_what_the_method_qlora_trains_on(tiny, four, tmp_path, monkeypatch):
    tiny().save_pretrained(tmp_path)
    monkeypatch.setattr("labkit.base_model.fetch", lambda: tmp_path)
    monkeypatch.setattr("labkit.base_model.is_default", lambda: True)
    monkeypatch.setattr("labkit.env.device", lambda: torch.device("cpu"))
    course, own = lora.four_bit_base().state_dict(), four.state_dict()
    assert set(course) == set(own) and any("quant_state" in name for name in own)
    assert all(torch.equal(course[name], own[name]) for name in own)


def test_a_restored_model_is_plain_computes_the_same_and_leaves_the_other_as_it_was(four):
    plain = dequantized(four)
    assert all(type(layer) is nn.Linear for layer in linears(plain).values())
    assert all(weight.dtype == torch.float32 for weight in plain.parameters())
    assert four.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
    assert far(dequantized(four_bit_of(plain)), plain) < 0.02      # its weights lie on the grid already
    with torch.no_grad():
        computed = four.train()(IDS).logits                        # in training weights are not repacked
    four.eval()
    assert 1e-6 < relative_error(logits(plain), computed) < 0.03   # bf16 products on one side


def test_sixteen_bits_round_linear_weights_and_nothing_else(tiny):
    def rounded(weight):
        return weight.to(torch.bfloat16).float()

    model, plain = in_16_bits(tiny()), tiny()
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert 0 < far(model, plain) < 0.01 and logits(model).dtype == torch.float32
    before, names = plain.state_dict(), {f"{name}.weight" for name in linears(model)}
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, rounded(before[name]) if name in names else before[name]), name
        assert name in names or weight.dim() == 1 or not torch.equal(weight, rounded(weight))


# ---- merging


def test_merging_gives_the_function_that_base_and_adapter_were(tiny):
    adapted = adapt(tiny())
    merged = merge_into(tiny(), adapted)
    assert relative_error(logits(adapted), logits(merged)) < 1e-5
    assert relative_error(logits(adapted), logits(tiny())) > 0.1   # the update is not nothing
    assert relative_error(logits(adapted), logits(merge_into(tiny(), adapt(tiny(), seed=2)))) > 0.1
    assert far(merged, adapt(tiny()).merge_and_unload()) < 1e-6    # what peft makes of it
    assert not hasattr(merged, "peft_config") and adapted.peft_config


def test_an_adapter_of_a_four_bit_base_merges_exactly_into_the_restored_weights(tiny):
    adapted = adapt(four_bit_of(tiny()))
    with torch.no_grad():
        trained = adapted.train()(IDS).logits
    exact, other = merge_into(dequantized(four_bit_of(tiny())), adapted), merge_into(tiny(), adapted)
    assert relative_error(trained, logits(exact)) < 0.02 < relative_error(trained, logits(other))
    update = {name: w - weights(tiny())[name] for name, w in weights(other).items()}
    layer = adapted.base_model.model.model.layers[0].mlp.up_proj
    expected = 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert torch.allclose(update["model.layers.0.mlp.up_proj"], expected, atol=1e-5)


def test_peft_merging_into_fresh_four_bit_weights_rounds_restored_weights_plus_update(tiny):
    peft = dequantized(adapt(four_bit_of(tiny())).merge_and_unload())
    adapted = adapt(four_bit_of(tiny()))
    exact = merge_into(dequantized(four_bit_of(tiny())), adapted)
    assert far(dequantized(four_bit_of(exact)), peft) < 1e-5
    assert far(exact, peft) > 0.05


def test_weights_that_a_cpu_has_repacked_are_refused_and_do_not_spoil_a_merge(tiny):
    used = adapt(four_bit_of(tiny()))
    before = logits(used)
    assert far(merge_into(tiny(), used), merge_into(tiny(), adapt(four_bit_of(tiny())))) == 0
    assert torch.equal(logits(used), before)
    state = used.base_model.model.model.layers[0].mlp.up_proj.base_layer.weight.quant_state
    if not getattr(state, "packing_format_for_cpu", False):
        pytest.skip("this CPU has no avx512_bf16: nothing is repacked")
    with pytest.raises(LabkitError, match="repacks"):
        dequantized(used.unload())
    fresh, late = (adapt(four_bit_of(tiny()), scale=0.01) for _ in range(2))
    logits(late)
    fresh, late = (dequantized(one.merge_and_unload()) for one in (fresh, late))
    assert far(fresh, tiny()) < 0.2 and far(late, tiny()) > 1     # the trap is real


def test_a_merge_keeps_the_bases_precision_and_rounds_once(tiny):
    adapted = adapt(tiny())
    half = merge_into(tiny().to(torch.bfloat16), adapted)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    whole = merge_into(in_16_bits(tiny()), adapted)
    assert all(torch.equal(w.to(torch.bfloat16), weights(half)[name].to(torch.bfloat16))
               for name, w in weights(whole).items())  # fmt: skip


def test_rounding_to_four_bits_takes_a_small_update_from_restored_weights_and_not_from_the_checkpoints(tiny):
    def share(start, model):
        """The share of the update that has arrived, all layers together."""
        moved = [((w - weights(start)[name]) * updates[name]).sum() for name, w in weights(model).items()]
        return (sum(moved) / sum(update.square().sum() for update in updates.values())).item()

    adapted = adapt(tiny(), scale=0.01)
    fresh, restored = merge_into(tiny(), adapted), merge_into(dequantized(four_bit_of(tiny())), adapted)
    updates = {name: w - weights(tiny())[name] for name, w in weights(fresh).items()}
    assert 0.002 < max(u.norm() / weights(tiny())[name].norm() for name, u in updates.items()) < 0.05
    held = dequantized(four_bit_of(tiny()))
    assert share(held, dequantized(four_bit_of(restored))) < 0.2
    assert 0.8 < share(held, dequantized(four_bit_of(fresh))) < 1.2


# ---- refusals


def test_what_cannot_be_copied_restored_or_merged_is_refused(tiny, four):
    adapted = adapt(tiny())
    with pytest.raises(LabkitError, match="already"):
        four_bit_of(four)
    with pytest.raises(LabkitError, match="has adapters"):
        four_bit_of(adapted)
    with pytest.raises(LabkitError, match="no 4-bit layer"):
        dequantized(tiny())
    with pytest.raises(LabkitError, match="Linear4bit"):
        merge_into(four, adapted)
    with pytest.raises(LabkitError, match="has adapters"):
        merge_into(adapted, adapted)
    with pytest.raises(LabkitError, match="no adapter"):
        merge_into(tiny(), tiny())
    with pytest.raises(LabkitError, match="belongs to another"):
        merge_into(tiny(num_hidden_layers=1), adapted)


@pytest.mark.parametrize("options, part", [
    ({"use_dora": True}, "magnitude"), ({"modules_to_save": ["norm"]}, "modules_to_save"),
    ({"bias": "all"}, "bias='all'"),
])  # fmt: skip
def test_an_adapter_of_more_than_two_matrices_a_layer_is_refused(tiny, options, part):
    with pytest.raises(LabkitError, match=part):
        merge_into(tiny(), adapt(tiny(), **options))
