"""Model merging: each method by hand, against peft and mergekit; adapters, stacking, probes, specialists."""

import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import peft
import pytest
import safetensors.torch
import torch
from peft.utils import merge_utils

from labkit import base_model, env
from labkit.errors import LabkitError
from labkit.methods import merging
from labkit.methods.lora import adapted
from labkit.methods.merging import specialists
from labkit.train import RESULTS

SMALL = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4,
         "num_key_value_heads": 2}  # fmt: skip
# What mergekit 0.1.5 writes for models whose up_proj is BASE, A and B (run whole, in fp32).
BASE = [[0.11, -0.42, 0.33, 0.08], [-0.27, 0.19, -0.05, 0.61], [0.36, -0.14, 0.52, -0.23]]
A = [[0.21, -0.49, 0.36, 0.03], [-0.38, 0.21, 0.07, 0.55], [0.32, -0.05, 0.51, -0.31]]
B = [[0.09, -0.31, 0.42, 0.01], [-0.32, 0.05, -0.09, 0.73], [0.51, -0.17, 0.58, -0.33]]
MERGEKIT = {
    "linear, weights 0.3 and 0.7": [
        [0.126, -0.364, 0.402, 0.016], [-0.338, 0.098, -0.042, 0.676], [0.453, -0.134, 0.559, -0.324]],
    "task_arithmetic, weights 0.4 and -0.8": [
        [0.166, -0.536, 0.27, 0.116], [-0.274, 0.31, 0.03, 0.49], [0.224, -0.08, 0.468, -0.182]],
    "ties, density 0.5, lambda 0.7": [
        [0.18, -0.343, 0.393, 0.08], [-0.347, 0.092, 0.034, 0.694], [0.465, -0.077, 0.52, -0.293]],
    "slerp, t 0.3": [
        [0.1760218, -0.4412731, 0.3829421, 0.024273], [-0.3665315, 0.1637996, 0.0220073, 0.6120411],
        [0.3821521, -0.0873067, 0.5379179, -0.3200797]],
}  # fmt: skip


def one(*values):
    """A state of one tensor."""
    return {"w": torch.tensor(values)}


def near(left, right, atol=1e-6):
    return torch.allclose(torch.as_tensor(left), torch.as_tensor(right), atol=atol, rtol=0)


def drawn(number, shape=(60, 50)):
    """So many deltas of one random tensor."""
    generator = torch.Generator().manual_seed(number)
    return [{"w": torch.randn(shape, generator=generator)} for _ in range(number)]


def zeros(deltas):
    return {"w": torch.zeros_like(deltas[0]["w"])}


# ---- by hand


def test_averages_and_deltas_by_hand():
    states = [one(1.0, 4.0), one(3.0, 0.0)]
    assert near(merging.average(states)["w"], [2.0, 2.0])
    assert near(merging.average(states, [0.75, 0.25])["w"], [1.5, 3.0])
    assert near(merging.delta(states[1], states[0])["w"], [2.0, -4.0])


def test_task_arithmetic_adds_takes_away_and_gives_the_specialist_back_at_scale_1():
    base, deltas = one(1.0, 1.0), [one(0.5, 0.0), one(0.0, -2.0)]
    assert near(merging.task_arithmetic(base, deltas)["w"], [1.5, -1.0])
    assert near(merging.task_arithmetic(base, deltas, [1, -0.5])["w"], [1.5, 2.0])
    assert near(merging.task_arithmetic(base, deltas[:1], -1)["w"], [0.5, 1.0])
    assert near(base["w"], [1.0, 1.0]) and near(deltas[0]["w"], [0.5, 0.0])  # arguments stay as they are


def test_slerp_keeps_the_length_that_an_average_loses():
    a, b = one(1.0, 0.0), one(0.0, 1.0)
    assert merging.slerp(a, b, 0.5)["w"].norm() == pytest.approx(1)
    assert merging.average([a, b])["w"].norm() == pytest.approx(0.7071, abs=1e-4)
    third = merging.slerp(a, b, 1 / 3)["w"]  # 30 degrees of 90
    assert near(third, [3**0.5 / 2, 0.5])
    assert near(merging.slerp(a, b, 0)["w"], a["w"]) and near(merging.slerp(a, b, 1)["w"], b["w"])


def test_slerp_of_nearly_parallel_or_opposite_tensors_is_linear():
    a, b = one(1.0, 0.0), one(2.0, 0.02)
    assert merging.cosines(a, b)["w"] == pytest.approx(0.99995, abs=1e-6)
    assert near(merging.slerp(a, b, 0.25)["w"], [1.25, 0.005])
    assert not near(merging.slerp(a, b, 0.25, parallel=1.0)["w"], [1.25, 0.005], atol=1e-7)
    assert near(merging.slerp(a, one(-3.0, 0.0), 0.25)["w"], [0.0, 0.0])
    assert near(merging.slerp(a, a, 0.3, parallel=1.0)["w"], a["w"])  # no angle to divide by
    assert near(merging.slerp(one(0.0, 0.0), a, 0.5)["w"], [0.5**0.5, 0.0])  # no direction: a right angle


def test_the_inner_product_of_states_is_that_of_one_long_vector():
    generator = torch.Generator().manual_seed(0)
    sizes = {"w": (3, 70_001), "v": (5,), "nothing": (0,)}  # more than a piece, less, and none
    a, b = ({name: torch.randn(size, generator=generator) for name, size in sizes.items()} for _ in "ab")
    long = [torch.cat([part.double().flatten() for part in one.values()]) for one in (a, b)]
    assert merging.dot(a, b) == pytest.approx((long[0] @ long[1]).item(), rel=1e-12)
    assert merging.dot(a, a) == pytest.approx(long[0].square().sum().item(), rel=1e-12)
    assert merging.dot({"w": torch.zeros(4)}, {"w": torch.ones(4)}) == 0
    with pytest.raises(LabkitError, match="no states of one model"):
        merging.dot(a, {"w": a["w"]})


def test_the_cosine_of_large_tensors_is_exact_and_never_above_1():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(20_000_000, generator=generator)  # the base's embedding has 28 million
    b = a + 0.003 * torch.randn(a.shape, generator=generator)
    found, truth = merging.cosines({"w": a}, {"w": b})["w"], (1 + 0.003**2) ** -0.5
    assert found <= 1 and found == pytest.approx(truth, abs=1e-8)
    assert found == pytest.approx((a.double() @ b.double() / a.double().norm() / b.double().norm()).item())
    assert merging.cosines({"w": a}, {"w": -a})["w"] == pytest.approx(-1, abs=1e-12)
    assert 1 >= merging.cosines({"w": a}, {"w": a})["w"] > 1 - 1e-12
    assert abs((a.norm() * b.norm()).item() / (a.double().norm() * b.double().norm()).item() - 1) > 1e-8


def test_ties_trims_elects_and_averages_what_agrees():
    base = one(1.0, 1.0, 1.0, 1.0, 1.0)
    deltas = [one(0.4, -0.6, 0.05, 0.3, 0.0), one(0.2, 0.5, -0.7, 0.01, 0.0)]
    # Trimmed to 3 of 5: [.4 -.6 0 .3 0] and [.2 .5 -.7 0 0]; signs + - - + (+).
    expected = [1 + 0.3, 1 - 0.6, 1 - 0.7, 1 + 0.3, 1.0]
    assert near(merging.ties(base, deltas, density=0.6)["w"], expected)
    assert near(merging.ties(base, deltas, density=0.6, scale=0.5)["w"], [(1 + v) / 2 for v in expected])
    unelected = merging.ties(base, deltas, density=0.6, elect=False)["w"]
    assert near(unelected, [*expected[:1], 0.95, *expected[2:]])  # the conflict cancels: not 0.4
    whole = merging.ties(base, deltas, density=1, elect=False)["w"]  # neither trimmed nor elected: the mean
    assert near(whole, 1 + torch.stack([part["w"] for part in deltas]).sum(0) / torch.tensor([2, 2, 2, 2, 1]))


def test_the_sign_elected_is_that_of_the_greater_total_and_not_of_more_models():
    parts = [torch.tensor([-0.9, 0.1]), torch.tensor([0.2, 0.1]), torch.tensor([0.3, -0.2])]
    assert merging.elected(parts).tolist() == [-1, 1]  # two of three are +; the sum is −; 0 goes to +
    assert near(merging.disjoint_mean(parts, merging.elected(parts)), [-0.9, 0.1])


def test_dare_keeps_the_mean_and_only_by_rescaling():
    deltas = drawn(1)
    base, truth = zeros(deltas), deltas[0]["w"]

    def mean(**options):
        merges = [merging.dare(base, deltas, 0.8, seed=seed, **options)["w"] for seed in range(300)]
        return sum(merges) / len(merges)

    def slope(part):
        return ((part * truth).sum() / truth.square().sum()).item()

    assert slope(mean()) == pytest.approx(1, abs=0.01)
    assert slope(mean(rescale=False)) == pytest.approx(0.2, abs=0.01)
    kept = merging.dare(base, deltas, 0.8, seed=0)["w"]
    assert (kept != 0).float().mean() == pytest.approx(0.2, abs=0.03)
    assert near(kept[kept != 0], truth[kept != 0] * 5, atol=1e-4)


def test_dare_drops_by_seed_nothing_at_0_and_apart_in_each_delta():
    deltas = drawn(1) * 2
    base = zeros(deltas)
    assert near(merging.dare(base, deltas, 0)["w"], 2 * deltas[0]["w"])
    again = [merging.dare(base, deltas, 0.5, seed=seed)["w"] for seed in (1, 1, 2)]
    assert torch.equal(again[0], again[1]) and not torch.equal(again[0], again[2])
    hits = (again[0] / deltas[0]["w"] / 2).round()
    assert {0, 1, 2} == set(hits.unique().tolist())  # 1: kept in one delta, dropped in the other


def test_a_greedy_soup_takes_what_helps_the_best_first():
    states = [one(0.0), one(9.0), one(3.0), one(1.0)]
    soup, members = merging.greedy_soup(states, lambda state: -abs(state["w"].item() - 1.5))
    assert members == [3, 2]  # with 3 as good as before, which is enough
    soup, members = merging.greedy_soup(states, lambda state: -abs(state["w"].item() - 2))
    assert members == [2, 3] and near(soup["w"], [2.0])  # 3 and 1 are as good alone; with 0 or 9 it is worse
    assert merging.greedy_soup(states[:2], lambda state: state["w"].item())[1] == [1]


# ---- against peft and mergekit


@pytest.mark.parametrize("density", [0.2, 0.55])
def test_ties_is_that_of_peft(density):
    deltas = drawn(3)
    parts, weights = [delta["w"] for delta in deltas], torch.full((3,), 0.7)
    ours = merging.ties(zeros(deltas), deltas, density, scale=0.7)["w"]
    assert near(ours, merge_utils.ties(parts, weights, density))
    assert not near(ours, merge_utils.ties(parts, weights, density, "frequency"))


def test_trimming_and_task_arithmetic_are_those_of_peft():
    deltas, weights = drawn(3), [0.5, -1.0, 0.3]
    parts = [delta["w"] for delta in deltas]
    ours = merging.task_arithmetic(zeros(deltas), deltas, weights)["w"]
    assert near(ours, merge_utils.task_arithmetic(parts, torch.tensor(weights)))
    trimmed = [{"w": merging.trim(part, 0.3)} for part in parts]
    ours = merging.task_arithmetic(zeros(deltas), trimmed, weights)["w"]
    assert near(ours, merge_utils.magnitude_prune(parts, torch.tensor(weights), 0.3))


def test_dare_is_that_of_peft_with_the_same_draws():
    deltas, weights = drawn(2), torch.tensor([0.6, 0.6])
    parts = [delta["w"] for delta in deltas]
    for ours, theirs in ((merging.dare, merge_utils.dare_linear), (merging.dare_ties, merge_utils.dare_ties)):
        torch.manual_seed(5)
        expected = theirs(parts, weights, 1 - 0.7)
        assert near(ours(zeros(deltas), deltas, 0.7, 0.6, seed=5)["w"], expected, atol=1e-5)
        assert not near(ours(zeros(deltas), deltas, 0.7, 0.6, seed=6)["w"], expected, atol=0.1)


def test_merges_are_those_that_mergekit_writes():
    base, a, b = one(*BASE), one(*A), one(*B)
    deltas = [merging.delta(state, base) for state in (a, b)]
    ours = [
        merging.average([a, b], [0.3, 0.7]),
        merging.task_arithmetic(base, deltas, [0.4, -0.8]),
        merging.ties(base, deltas, 0.5, 0.7),
        merging.slerp(a, b, 0.3),
    ]
    for merged, expected in zip(ours, MERGEKIT.values(), strict=True):
        assert near(merged["w"], expected)
    for merged, expected in itertools.permutations(zip(ours, MERGEKIT.values(), strict=True), 2):
        assert not near(merged[0]["w"], expected[1])


# ---- wrong arguments


@pytest.mark.parametrize("merge, says", [
    (lambda a, b: merging.average([a, {"v": b["w"]}]), "v is"),
    (lambda a, b: merging.average([a, {"w": b["w"][:1]}]), r"w is \(1,\) in one and \(2,\) in another"),
    (lambda a, b: merging.average([a, b], [0.5, 0.6]), "add up to 1.1"),
    (lambda a, b: merging.average([a, b], [1.0]), "1 numbers for 2 models"),
    (lambda a, b: merging.average([]), "nothing to merge"),
    (lambda a, b: merging.average([a, {"w": b["w"].bfloat16()}]), "w is torch.bfloat16"),
    (lambda a, b: merging.slerp(a, {}, 0.5), "missing"),
    (lambda a, b: merging.delta(a, {}), "missing"),
    (lambda a, b: merging.task_arithmetic(a, []), "no delta"),
    (lambda a, b: merging.task_arithmetic(a, [b], [1, 2]), "2 numbers for 1 models"),
    (lambda a, b: merging.ties(a, [b], density=0), "density is 0"),
    (lambda a, b: merging.dare(a, [b], drop=1), "drop rate is 1"),
    (lambda a, b: merging.dare_ties(a, [b], drop=-0.1), "drop rate is -0.1"),
])  # fmt: skip
def test_what_cannot_be_merged_is_refused(merge, says):
    with pytest.raises(LabkitError, match=says):
        merge(one(1.0, 2.0), one(3.0, 4.0))


# ---- models


@torch.no_grad()
def test_a_merge_put_into_a_model_keeps_tied_weights_tied(tiny):
    models = [tiny(seed, **SMALL) for seed in (0, 1)]
    states = [merging.state(model) for model in models]
    assert "lm_head.weight" not in states[0] and "model.embed_tokens.weight" in states[0]
    half = merging.put(tiny(2, **SMALL), merging.average(states))
    weight = (models[0].lm_head.weight + models[1].lm_head.weight) / 2
    assert half.lm_head.weight is half.model.embed_tokens.weight and near(half.lm_head.weight, weight)
    ids = torch.tensor([[5, 6, 7]])
    whole = merging.put(half, states[1])
    assert torch.equal(whole(ids).logits, models[1](ids).logits)
    assert not near(whole(ids).logits, models[0](ids).logits, atol=1e-3)


def test_a_state_is_a_copy_in_fp32_and_another_models_is_refused_whole(tiny):
    model = tiny(**SMALL).bfloat16()
    state = merging.state(model)
    assert all(weight.dtype == torch.float32 for weight in state.values())
    with pytest.raises(LabkitError, match="norm.weight is missing"):
        some = {name: weight + 1 for name, weight in state.items() if name != "model.norm.weight"}
        merging.put(model, some)
    with pytest.raises(LabkitError, match="no states of one model"):
        merging.put(model, merging.state(tiny(**{**SMALL, "hidden_size": 16})))
    assert all(torch.equal(state[name], weight.float()) for name, weight in model.named_parameters())
    model = model.float()
    state = merging.state(model)
    with torch.no_grad():
        model.model.norm.weight.add_(1)
    assert not torch.equal(state["model.norm.weight"], model.model.norm.weight)


# ---- LoRA


def adapter(tiny, seed, rank=4, scale=0.3):
    """The state of a LoRA adapter whose update is not zero."""
    state = peft.get_peft_model_state_dict(adapted(tiny(**SMALL), rank))
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(weight.shape, generator=generator) for name, weight in state.items()}


@pytest.fixture
def adapters(tiny):
    return merging.with_adapters(tiny(**SMALL), {"one": adapter(tiny, 1), "two": adapter(tiny, 2)})


def test_cat_is_the_sum_of_updates_linear_is_not_and_svd_cuts(adapters):
    weights = {"one": 0.7, "two": -0.4}
    for way in ("cat", "linear", "svd"):
        merging.combine(adapters, weights, way, name=way)
        assert adapters.active_adapters == [way]
    assert merging.relative_error(adapters, weights, "cat") < 1e-5
    assert merging.relative_error(adapters, weights, "linear") > 0.1
    assert merging.relative_error(adapters, weights, "svd") > 0.1  # rank 4 cannot hold rank 8
    assert merging.relative_error(adapters, {"one": 0.7, "two": 0.4}, "cat") > 0.1  # other weights: seen
    assert [adapters.peft_config[way].r for way in ("cat", "linear", "svd")] == [8, 4, 4]
    adapters.add_weighted_adapter(list(weights), list(weights.values()), "wide", "svd", svd_rank=8)
    assert merging.relative_error(adapters, weights, "wide") < 1e-5  # rank 8 can


@torch.no_grad()
def test_cat_has_the_outputs_of_both_updates_in_the_weights(adapters, tiny):
    ids = torch.tensor([[3, 4, 5, 6]])
    by_hand = tiny(**SMALL)
    for name, layer in adapters.base_model.model.named_modules():
        if hasattr(layer, "lora_A"):
            update = 0.5 * layer.get_delta_weight("one") + 1.5 * layer.get_delta_weight("two")
            by_hand.get_submodule(name).weight += update
    expected = by_hand(ids).logits
    assert near(merging.combine(adapters, {"one": 0.5, "two": 1.5})(ids).logits, expected, atol=1e-4)
    linear = merging.combine(adapters, {"one": 0.5, "two": 1.5}, "linear", name="linear")
    assert not near(linear(ids).logits, expected, atol=1e-2)


@torch.no_grad()
def test_adapters_of_other_ranks_concatenate_and_a_state_comes_in_as_it_was(tiny):
    ids, states = torch.tensor([[3, 4, 5]]), {"one": adapter(tiny, 1), "two": adapter(tiny, 2, rank=2)}
    model = merging.with_adapters(tiny(**SMALL), states)
    for name, state in states.items():
        back = peft.get_peft_model_state_dict(model, adapter_name=name)
        assert back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)
        alone = adapted(tiny(**SMALL), 4 if name == "one" else 2).eval()
        peft.set_peft_model_state_dict(alone, state)
        model.set_adapter(name)
        assert near(model(ids).logits, alone(ids).logits)
        assert not near(model(ids).logits, tiny(**SMALL)(ids).logits, atol=0.01)
    weights = {"one": 1.0, "two": 1.0}
    assert merging.relative_error(merging.combine(model, weights), weights) < 1e-5


@pytest.mark.parametrize("weights, options, says", [
    ({"one": 1.0, "three": 1.0}, {}, "no adapter 'three'"),
    ({"one": 1.0, "two": 1.0}, {"how": "mean"}, "no way 'mean'"),
    ({"one": 1.0, "two": 1.0}, {"name": "one"}, "'one' already"),
    ({"one": 1.0}, {}, "two adapters"),
])  # fmt: skip
def test_adapters_that_cannot_be_combined_are_refused(adapters, weights, options, says):
    with pytest.raises(LabkitError, match=says):
        merging.combine(adapters, weights, **options)


def test_states_that_are_no_adapters_of_this_model_are_refused(adapters, tiny):
    for states, says in (({}, "no adapter"), ({"one": one(1.0)}, "no LoRA adapter")):
        with pytest.raises(LabkitError, match=says):
            merging.with_adapters(tiny(**SMALL), states)
    deep = {key.replace("layers.1", "layers.7"): weight for key, weight in adapter(tiny, 1).items()}
    with pytest.raises(LabkitError, match="another model"):
        merging.with_adapters(tiny(**SMALL), {"one": deep})
    nothing = {"one": 0.0, "two": 0.0}
    with pytest.raises(LabkitError, match="add up to nothing"):
        merging.relative_error(merging.combine(adapters, nothing), nothing)


# ---- stacking


def test_solars_layers_are_those_of_the_paper():
    numbers = merging.upscaled(32, 8)
    assert len(numbers) == 48 and numbers[23:25] == [23, 8] and numbers[-1] == 31
    assert merging.upscaled(3, 1) == [0, 1, 1, 2]
    with pytest.raises(LabkitError, match="leave a layer"):
        merging.upscaled(3, 3)


@torch.no_grad()
def test_a_stacked_model_runs_its_layers_in_order_and_has_copies(tiny):
    model = tiny(**SMALL, num_hidden_layers=3)
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    same = merging.stack(model, [0, 1, 2])
    deeper = merging.stack(model, [0, 1, 1, 2])
    assert torch.equal(same(ids).logits, model(ids).logits)
    assert deeper.config.num_hidden_layers == 4 and model.config.num_hidden_layers == 3
    assert deeper.model.layers[1].self_attn.config is deeper.config
    states = model(ids, output_hidden_states=True).hidden_states
    longer = deeper(ids, output_hidden_states=True).hidden_states
    assert near(longer[2], states[2], atol=1e-6)
    by_hand = model.model.norm(model.model.layers[2](
        model.model.layers[1](states[2], **_positions(model, states[2])), **_positions(model, states[2])
    ))  # fmt: skip
    assert near(deeper.base_model(ids).last_hidden_state, by_hand, atol=1e-5)
    assert deeper.lm_head.weight is deeper.model.embed_tokens.weight
    deeper.model.layers[1].mlp.up_proj.weight.add_(1)
    for untouched in (deeper.model.layers[2], model.model.layers[1]):
        assert not torch.equal(untouched.mlp.up_proj.weight, deeper.model.layers[1].mlp.up_proj.weight)
    assert merging.state(deeper).keys() > merging.state(model).keys()


def _positions(model, hidden):
    places = torch.arange(hidden.shape[1])[None]
    return {"position_embeddings": model.model.rotary_emb(hidden, places)}


@torch.no_grad()
def test_a_stacked_model_generates_with_a_cache_as_without(tiny):
    model = tiny(**SMALL, num_hidden_layers=3)
    for weight in model.parameters():
        weight.mul_(6 if weight.ndim == 2 else 1)  # sharp: what attention reads matters
    deeper = merging.stack(model, merging.upscaled(3, 1))
    assert [layer.self_attn.layer_idx for layer in deeper.model.layers] == [0, 1, 2, 3]
    ids = torch.tensor([[3, 4, 5, 6, 7, 8]])
    plain = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    uncached = deeper.generate(ids, use_cache=False, **plain)
    assert torch.equal(deeper.generate(ids, use_cache=True, **plain), uncached)
    deeper.model.layers[2].self_attn.layer_idx = 1  # the copy as it came: it shares its original's cache
    assert not torch.equal(deeper.generate(ids, use_cache=True, **plain), uncached)


def test_layers_that_are_not_there_are_refused(tiny):
    for layers in ([0, 2], [-1], []):
        with pytest.raises(LabkitError, match="0 to 1"):
            merging.stack(tiny(**SMALL), layers)


# ---- representations


@torch.no_grad()
def test_representations_stand_side_by_side_and_the_last_token_is_found(tiny):
    models = [tiny(0, **SMALL), tiny(1, **{**SMALL, "hidden_size": 16})]
    ids, mask = torch.tensor([[5, 6, 7, 0], [5, 6, 8, 9]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    both = merging.concatenated(models, ids, mask)
    assert both.shape == (2, 4, 48)
    alone = [model.base_model(ids[:1, :3]).last_hidden_state for model in models]
    assert near(both[:1, :3, :32], alone[0], atol=1e-5) and near(both[:1, :3, 32:], alone[1], atol=1e-5)
    last = merging.last_token(both, mask)
    assert torch.equal(last[0], both[0, 2]) and torch.equal(last[1], both[1, 3])
    assert torch.equal(merging.last_token(both, mask.flip(1))[0], both[0, 3])  # padded on the left
    with pytest.raises(LabkitError, match="no model"):
        merging.concatenated([], ids)


@torch.no_grad()
def test_a_model_with_an_adapter_has_the_representations_of_its_merge(adapters):
    ids = torch.tensor([[5, 6, 7]])
    (found,) = merging.concatenated([adapters], ids)
    merged = adapters.merge_and_unload()
    assert near(found, merged.base_model(ids).last_hidden_state[0], atol=1e-4)


def test_a_probe_finds_what_is_linear_and_not_what_is_not_there():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 8, generator=generator) * 3 + 5
    labels = (x[:, 0] > x[:, 1]).long() + (x[:, 2] > 9).long()
    found = merging.probe(x[:400], labels[:400], x[400:], penalty=0.01)
    assert (found == labels[400:]).float().mean() > 0.8
    blind = merging.probe(x[:400, 3:], labels[:400], x[400:, 3:], penalty=0.01)
    assert (blind == labels[400:]).float().mean() < 0.65


# ---- specialists


@pytest.fixture
def trained(monkeypatch, tiny, tokenizer, tickets, tmp_path):
    """`trained(...)` is `specialist` of a tiny base; `trained.count` says how often it trained."""
    train = specialists._train

    def loaded(*asked, **options):
        call.loads.append((*asked, options))
        return {"train": tickets[:8]}

    def counted(*arguments):
        call.count += 1
        return train(*arguments)

    def call(task="tickets", **options):
        return merging.specialist(task, **{"steps": 2, "lr": 1e-2, "batch": 1, "progress": False, **options})

    call.count, call.loads = 0, []
    monkeypatch.setattr("labkit.load_model", lambda: tiny(), raising=False)
    monkeypatch.setattr("labkit.load_tokenizer", lambda: tokenizer, raising=False)
    monkeypatch.setattr("labkit.load", loaded, raising=False)
    monkeypatch.setattr(env, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(base_model, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(specialists, "_train", counted)
    return call


def test_a_specialist_is_trained_once_and_comes_back_bit_for_bit(trained, tiny):
    first, second = trained(), trained()
    assert trained.count == 1 and len(list(specialists.folder().glob("*.safetensors"))) == 1
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    base = merging.state(tiny())
    moved = merging.delta(first, base)
    assert all(part.abs().max() > 0 for part in moved.values())
    again = merging.task_arithmetic(base, [moved])
    assert all(near(again[name], first[name]) for name in first)


@pytest.mark.parametrize("change", [
    {"seed": 1}, {"lr": 3e-3}, {"steps": 1}, {"method": "lora-r2"}, {"task": "sql"}, {"batch": 2},
    {"length": 640}, "data", "training", "base", "machine",
])  # fmt: skip
def test_whatever_decides_a_specialist_changed_it_has_another_file(monkeypatch, trained, change):
    settings = {"task": "tickets", "method": "full", "seed": 0, "steps": 2, "lr": 1e-2, "batch": 1,
                "length": 512}  # fmt: skip
    before = specialists._path(settings)
    assert specialists._path(dict(settings)) == before
    if change == "data":
        monkeypatch.setattr("labkit.records.store.data_digest", lambda *families: {"data/tickets": "other"})
    elif change == "training":
        monkeypatch.setattr("labkit.train.RESULTS", RESULTS + 1)
    elif change == "base":
        monkeypatch.setenv("LABKIT_MODEL", "/some/model")
    elif change == "machine":
        monkeypatch.setattr(env, "machine", lambda: "another card")
    else:
        settings |= change
    assert specialists._path(settings) != before


def test_a_changed_setting_trains_anew_and_lora_gives_an_adapter(trained, tiny):
    whole, other = trained(), trained(seed=1)
    assert trained.count == 2 and not torch.equal(whole["model.norm.weight"], other["model.norm.weight"])
    state = trained(method="lora-r2")
    assert trained.count == 3 and all("lora_" in name for name in state)
    model = merging.with_adapters(tiny(), {"tickets": state})
    updates = [layer.get_delta_weight("tickets") for layer in model.modules() if hasattr(layer, "lora_A")]
    assert len(updates) == 14 and all(update.abs().max() > 0 for update in updates)
    assert model.peft_config["tickets"].lora_alpha == 4


@pytest.mark.parametrize("error, raised, says", [
    (KeyboardInterrupt(), KeyboardInterrupt, None),
    (OSError(28, "No space left on device"), LabkitError, "LABKIT_CACHE"),
    (safetensors.SafetensorError("No space left on device"), LabkitError, "LABKIT_CACHE"),
], ids=["interrupted", "full disk", "full disk, as safetensors says it"])  # fmt: skip
def test_a_write_that_fails_leaves_nothing(monkeypatch, trained, error, raised, says):
    real = safetensors.torch.save_file

    def cut_short(weights, path, **options):
        real(weights, path, **options)
        path.write_bytes(path.read_bytes()[:100])
        raise error

    monkeypatch.setattr(safetensors.torch, "save_file", cut_short)
    with pytest.raises(raised, match=says):
        trained()
    assert [path.suffix for path in specialists.folder().iterdir()] == [".lock"]
    monkeypatch.setattr(safetensors.torch, "save_file", real)
    trained()
    assert trained.count == 2


def test_two_that_want_a_specialist_at_once_train_it_once(trained):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: trained(steps=1), range(2))
    assert trained.count == 1 and all(torch.equal(first[name], second[name]) for name in first)


def test_the_voice_is_learned_from_replies_that_keep_every_rule(trained):
    for task in ("voice", "sql"):
        trained(task, steps=1)
    assert trained.loads == [("voice", {"quality": "gold"}), ("sql", {})]


def test_an_own_base_is_told_by_its_files(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_MODEL", str(tmp_path))
    (tmp_path / "model.safetensors").write_text("weights")
    before = specialists._base()
    assert specialists._base() == before
    (tmp_path / "model.safetensors").write_text("other weights")
    assert specialists._base() != before


def test_a_kept_specialist_says_what_it_is_is_read_without_a_lock_and_is_named_if_damaged(trained):
    trained()
    (path,) = specialists.folder().glob("*.safetensors")
    with safetensors.safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["settings"])["task"] == "tickets"
    assert path.stat().st_mode & 0o044 == 0o044  # others may read it, where a cache is shared
    path.with_suffix(".lock").unlink()
    trained()
    assert trained.count == 1 and not path.with_suffix(".lock").exists()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(LabkitError, match="Delete it"):
        trained()


@pytest.mark.parametrize("options, says", [
    ({"method": "houlsby"}, "full or lora"), ({"method": "magic"}, "no method"),
    ({"task": "chess"}, "no task"),
])  # fmt: skip
def test_specialists_that_cannot_be_merged_or_trained_are_refused(trained, options, says):
    with pytest.raises(LabkitError, match=says):
        trained(**options)
    assert trained.count == 0


def test_the_share_of_a_gain_that_is_kept():
    assert merging.kept(0.7, 0.1, 0.9) == pytest.approx(0.75)
    assert merging.kept(0.0, 0.1, 0.9) < 0
    with pytest.raises(LabkitError, match="no gain"):
        merging.kept(0.5, 0.4, 0.4)


def test_every_task_is_scored_by_its_own_judge(monkeypatch, tiny, tokenizer):
    seen = []

    def score(model, tokenizer, rows, *, task, **options):
        seen.append((task, len(rows), options))
        return task

    monkeypatch.setattr("labkit.score", score, raising=False)
    rows = {"tickets": [1, 2], "sql": [3]}
    assert merging.score_all(None, None, rows, progress=False) == {"tickets": "tickets", "sql": "sql"}
    assert seen == [("tickets", 2, {"progress": False}), ("sql", 1, {"progress": False})]
