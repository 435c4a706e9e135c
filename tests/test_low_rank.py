"""LoRA written out: equal to peft's, merged and counted; and low-rank approximation on known matrices."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from labkit.errors import LabkitError
from labkit.exercises.spec import find
from labkit.methods.low_rank import (
    LoRALinear,
    add_lora,
    energy,
    linear_shapes,
    lora_weights,
    low_rank,
    shuffled,
    updates,
)

IDS = torch.tensor([[5, 17, 300, 4, 99, 1000]])


def filled(model):
    """`model` with LoRA whose B is not zero, so that wrong formulas show."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.lora_B, std=0.5)
    return model


def layer(r=3, alpha=12, **options):
    torch.manual_seed(0)
    made = LoRALinear(nn.Linear(10, 6, bias=True), r, alpha, **options)
    nn.init.normal_(made.lora_B)
    return made


def peft_twin(base, ours, **options):
    """peft's LoRA on `base` with the weights of `ours`."""
    theirs = get_peft_model(base, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", **options))
    for name, module in ours.named_modules():
        if isinstance(module, LoRALinear):
            twin = theirs.get_submodule(f"base_model.model.{name}")
            twin.lora_A["default"].weight.data = module.lora_A.data.clone()
            twin.lora_B["default"].weight.data = module.lora_B.data.clone()
    return theirs


@pytest.mark.parametrize("rslora", [False, True])
def test_it_equals_peft_in_logits_and_gradients(tiny, rslora):
    base = tiny()
    ours = filled(add_lora(copy.deepcopy(base), 4, 16, rslora=rslora))
    theirs = peft_twin(copy.deepcopy(base), ours, r=4, lora_alpha=16, use_rslora=rslora)
    logits = [model(IDS).logits for model in (ours, theirs)]
    assert torch.allclose(*logits, atol=1e-5)
    assert not torch.allclose(logits[0], base(IDS).logits, atol=1e-2)
    for each in logits:
        each.square().mean().backward()
    here = [weight.grad for weight in ours.parameters() if weight.requires_grad]
    there = [weight.grad for weight in theirs.parameters() if weight.requires_grad]
    assert len(here) == len(there) == 2 * 2 * 7
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(here, there, strict=True))


def test_another_scaling_does_not_equal_peft(tiny):
    base = tiny()
    ours = filled(add_lora(copy.deepcopy(base), 4, 16, rslora=True))
    theirs = peft_twin(copy.deepcopy(base), ours, r=4, lora_alpha=16)
    assert not torch.allclose(ours(IDS).logits, theirs(IDS).logits, atol=1e-3)


def test_step_0_changes_nothing_and_B_alone_has_a_gradient(tiny):
    base = tiny()
    expected = base(IDS).logits
    ours = add_lora(base, 4, 16)
    assert torch.equal(ours(IDS).logits, expected)
    ours(IDS).logits.square().mean().backward()
    some = ours.model.layers[0].mlp.up_proj
    assert some.lora_A.grad.abs().max() == 0 < some.lora_B.grad.abs().max()
    assert some.linear.weight.grad is None


def test_it_starts_in_the_range_that_peft_starts_in():
    wide = LoRALinear(nn.Linear(400, 8), 50, 16).lora_A
    assert 0.98 / 20 < wide.abs().max() <= 1 / 20      # 1/sqrt(400), all but reached by 20,000 numbers


def test_merging_gives_the_same_output_and_unmerging_the_old_weight():
    made, x = layer(), torch.randn(5, 10)
    weight, expected = made.linear.weight.clone(), made(x)
    made.merge()
    assert torch.allclose(made(x), expected, atol=1e-5)
    assert torch.allclose(made.linear.weight - weight, made.delta(), atol=1e-6)
    assert not torch.allclose(made.linear.weight, weight, atol=0.1)
    made.unmerge()
    assert torch.allclose(made.linear.weight, weight, atol=1e-6)
    assert torch.allclose(made(x), expected, atol=1e-5)


def test_it_merges_once_only():
    made = layer()
    with pytest.raises(LabkitError, match="not merged"):
        made.unmerge()
    made.merge()
    weight = made.linear.weight.clone()
    with pytest.raises(LabkitError, match="merging twice"):
        made.merge()
    assert torch.equal(made.linear.weight, weight)


def test_dropout_is_on_the_adapter_alone_and_in_training_only():
    made, x = layer(dropout=0.5), torch.randn(5, 10)
    plain = layer()
    assert torch.equal(made.eval()(x), plain(x))
    assert not torch.allclose(made.train()(x), plain(x))
    made.dropout = 1.0
    assert torch.equal(made(x), made.linear(x))


@pytest.mark.parametrize("targets", [None, ["q_proj", "v_proj"], ["down_proj"]])
def test_the_count_is_what_add_lora_trains(tiny, targets):
    model = tiny()
    counted = lora_weights(linear_shapes(model), 4, targets)
    add_lora(model, 4, 8, targets)
    assert counted == sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def test_the_count_of_a_layer_by_hand():
    shapes = {"a.q_proj": (576, 576), "a.v_proj": (192, 576), "lm_head": (49152, 576)}
    assert lora_weights(shapes, 8) == 8 * (1152 + 768)
    assert lora_weights(shapes, 8, ["v_proj"]) == 8 * 768
    assert lora_weights({"w": (4096, 4096)}, 16) == 131_072


def test_an_unknown_target_or_rank_is_refused(tiny):
    with pytest.raises(LabkitError, match="no linear layer is called query. There are: down_proj"):
        add_lora(tiny(), 4, 8, ["query", "v_proj"])
    with pytest.raises(LabkitError, match="the rank is 0"):
        add_lora(tiny(), 0, 8)


def test_the_nearest_matrix_of_a_rank_keeps_the_largest_values():
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, 4))[0] for n in (9, 6))
    values = torch.tensor([5.0, 3.0, 2.0, 1.0])
    update = (left * values) @ right.T
    for rank in (1, 2, 3):
        cut = low_rank(update, rank)
        assert torch.linalg.matrix_rank(cut) == rank
        # Eckart and Young: what is lost are the other singular values, and no matrix of this rank loses less
        assert (update - cut).norm() == pytest.approx(values[rank:].norm().item(), rel=1e-5)
    assert torch.allclose(low_rank(update, 4), update, atol=1e-5)
    assert torch.allclose(energy(update)[:4], (values**2).cumsum(0).double() / 39, atol=1e-6)


def test_exercise_05_4_accepts_whoever_decomposes_the_matrix_anew():
    exercise = find("05.4")

    def anew(U, S, V, rank):
        whole = torch.tensor(U) @ torch.diag(torch.tensor(S)) @ torch.tensor(V)
        return low_rank(whole, rank).tolist()

    def rough(U, S, V, rank):
        return [[round(value, 2) for value in row] for row in anew(U, S, V, rank)]

    for seed in range(20):
        inputs = exercise.draw(seed)
        wanted = [exercise.reference(*one) for one in inputs]
        assert all(exercise.compare(anew(*one), want) for one, want in zip(inputs, wanted, strict=True))
        assert not any(exercise.compare(rough(*one), want) for one, want in zip(inputs, wanted, strict=True))
        for U, S, V, _ in inputs:
            for rows in (torch.tensor(U).T, torch.tensor(V)):
                assert torch.allclose(rows @ rows.T, torch.eye(len(S)), atol=1e-5)
            assert all(a - b > 0.3 for a, b in zip(S, [*S[1:], 0.0], strict=True))


def test_the_dtype_stays():
    assert low_rank(torch.randn(8, 8, dtype=torch.bfloat16), 2).dtype is torch.bfloat16


def test_shuffling_keeps_the_numbers_and_loses_the_structure():
    update = torch.outer(torch.arange(1.0, 41), torch.arange(1.0, 31))
    mixed = shuffled(update, 0)
    assert torch.equal(mixed.flatten().sort().values, update.flatten().sort().values)
    assert torch.equal(mixed, shuffled(update, 0)) and not torch.equal(mixed, shuffled(update, 1))
    assert energy(update)[0] > 0.999 > 0.9 > energy(mixed)[0]


def test_updates_are_those_of_the_linear_layers(tiny):
    before, after = tiny(), tiny()
    with torch.no_grad():
        for weight in after.parameters():
            weight += 0.25
    found = updates(before.state_dict(), after.state_dict())
    assert set(found) == {f"{name}.weight" for name in linear_shapes(before) if name != "lm_head"}
    assert all(torch.allclose(delta, torch.full_like(delta, 0.25)) for delta in found.values())


def test_updates_refuse_other_models_and_a_state_dict_that_followed_its_model(tiny):
    model = tiny()
    with pytest.raises(LabkitError, match="same tensor in both"):
        updates(model.state_dict(), model.state_dict())
    with pytest.raises(LabkitError, match="different models"):
        updates(model.state_dict(), tiny(num_hidden_layers=1).state_dict())
