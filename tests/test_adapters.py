"""Bottlenecks, added biases, norms and IA3: by definition, as in peft, in every use, and mixed in a batch."""

import copy
import re

import pytest
import torch
from peft import BeftConfig, IA3Config, LNTuningConfig, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import gelu
from transformers import AutoConfig, GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from labkit import base_model, env, methods
from labkit.errors import LabkitError
from labkit.evaluate import generate
from labkit.methods import adapters, per_row
from labkit.train import fit
from labkit.train.blocks import blocks_of

# What each method trains, as the names of its weights end.
NAMES = {
    "houlsby-w8": r"(o_proj|down_proj)\.(down|up)\.(weight|bias)$|norm\.weight$",
    "biases": r"_proj\.bias$",
    "norms": r"norm\.weight$",
    "ia3": r"(k_proj|v_proj|down_proj)\.ia3_l\.default$",
    "lora-r4": r"_proj\.lora_[AB]\.default\.weight$",
}
IDS = torch.tensor([[5, 17, 300, 4, 99, 1000, 7, 8, 20, 31]])
every_method = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def little(tiny, request):
    """`tiny` with a hidden size of 32, and weights so large that every layer matters to the answer."""
    words = 49152 if "tokenizer" in request.fixturenames else 1024
    shape = {"hidden_size": 32, "intermediate_size": 48, "initializer_range": 0.3,
             "tie_word_embeddings": False, "vocab_size": words}  # fmt: skip
    return lambda **changes: tiny(**{**shape, **changes})


@pytest.fixture(autouse=True)
def small(monkeypatch, little):
    """Methods start from a tiny base on the CPU, and evaluation is in fp32."""

    def load_model():
        with torch.random.fork_rng():  # a model that is read from files draws nothing
            return little()

    monkeypatch.setattr("labkit.load_model", load_model, raising=False)
    monkeypatch.setattr(env, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(env, "precision", lambda on=None: "fp32")


def trained(model):
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def moved(model, seed=1):
    """`model` with noise on everything that it trains, so that every part of a formula shows."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in trained(model).values():
            weight += 0.3 * torch.randn(weight.shape, generator=noise)
    return model


def prepared(name, seed=1):
    return moved(methods.find(name).prepare(0), seed)


def gradients(model, ids=IDS):
    model.zero_grad()
    model(ids, labels=ids, use_cache=False).loss.backward()
    return {name: weight.grad.clone() for name, weight in trained(model).items()}


def close(one, other, atol=1e-5):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[name], other[name], atol) for name in one)
    return torch.allclose(one, other, atol=atol, rtol=1e-4)


# ---- the matrix: every method in every use --------------------------------------------------------------


@every_method
def test_it_starts_as_the_base_and_trains_what_it_says(little, name):
    model, base = methods.find(name).prepare(0), little()
    assert all(re.search(NAMES[name], one) for one in trained(model))
    assert close(model(IDS).logits, base(IDS).logits, 1e-6)
    assert not close(moved(model)(IDS).logits, base(IDS).logits, 1e-2)
    found = methods.find(name)
    assert len(found.rates) == 4 and not found.options


def test_bottlenecks_have_the_usual_width_64():
    assert methods.find("houlsby").name == "houlsby-w64"


@pytest.mark.parametrize("name, share", [
    ("houlsby-w8", None), ("houlsby-w64", 0.0334), ("biases", 0.00116), ("norms", 0.00026), ("ia3", 0.00043),
])  # fmt: skip
def test_counts_on_the_real_base_follow_their_formulas(monkeypatch, name, share):
    config = AutoConfig.from_pretrained(base_model.fetch())
    with torch.device("meta"):
        base = LlamaForCausalLM(config)
    weights = sum(weight.numel() for weight in base.parameters())
    monkeypatch.setattr("labkit.load_model", lambda: base, raising=False)
    found = sum(weight.numel() for weight in trained(methods.find(name).prepare(0)).values())
    layers, d, inner, kv = 30, 576, 1536, 192
    width = int(name.partition("-w")[2] or 0)
    formula = {
        "houlsby": 2 * layers * (2 * d * width + width + d) + (2 * layers + 1) * d,
        "biases": layers * (d + kv + kv + d + 2 * inner + d),
        "norms": (2 * layers + 1) * d,
        "ia3": layers * (kv + kv + inner),
    }[name.partition("-")[0]]
    assert found == formula
    assert share is None or found / weights == pytest.approx(share, rel=0.02)


@every_method
def test_checkpointing_gives_the_same_gradients(name):
    model = prepared(name).train()
    calls = []
    block = blocks_of(model)[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    plain = gradients(model)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again = gradients(model)
    block.remove()
    assert len(calls) == 3  # once, and then once and again in the backward pass
    assert close(plain, again, 1e-6) and all(one.abs().max() > 0 for one in plain.values())


def continued(model, ids, **options):
    """(tokens, logits of every step) of 5 more tokens."""
    out = model.generate(input_ids=ids, max_new_tokens=5, min_new_tokens=5, do_sample=False, pad_token_id=2,
                         output_logits=True, return_dict_in_generate=True, **options)  # fmt: skip
    return out.sequences[:, ids.shape[1] :], torch.stack(out.logits, 1)


@every_method
def test_generation_is_the_same_with_and_without_a_cache_and_left_of_padding(name):
    model = prepared(name)
    short, padded = IDS[:, 4:], torch.cat([torch.full((1, 4), 2), IDS[:, 4:]], 1)
    batch, mask = torch.cat([IDS, padded]), torch.ones(2, 10, dtype=torch.long)
    mask[1, :4] = 0
    tokens, logits = continued(model, batch, attention_mask=mask)
    for row, alone in enumerate((IDS, short)):
        for cache in (True, False):
            wanted = continued(model, alone, attention_mask=torch.ones_like(alone), use_cache=cache)
            assert torch.equal(tokens[row], wanted[0][0]) and close(logits[row], wanted[1][0])
    # The control: without a mask padding is read, and the answer is another.
    assert not close(continued(model, batch, attention_mask=torch.ones_like(mask))[1][1], logits[1], 1e-3)


@every_method
def test_labkit_generates_the_same_in_a_batch_as_alone(tokenizer, name):
    prompts = ["One tent, two tents. " * 20 + end for end in ("Three", "And four, it said", "Hi")]
    model, options = prepared(name), {"max_new_tokens": 4, "progress": False}
    alone = [generate(model, tokenizer, [prompt], **options)[0] for prompt in prompts]
    assert generate(model, tokenizer, prompts, **options) == alone


@every_method
def test_what_was_saved_comes_back_and_another_shape_is_refused(tmp_path, name):
    model, other = prepared(name), methods.find(name).prepare(7)
    save_file(adapters.state(model), tmp_path / "adapter.safetensors")
    saved = load_file(tmp_path / "adapter.safetensors")
    assert saved.keys() == trained(model).keys() and not close(other(IDS).logits, model(IDS).logits, 1e-3)
    before = adapters.state(other)
    first = next(iter(saved))
    for wrong, words in [
        ({**saved, first: torch.zeros(3)}, r"is \(3,\) in the state"),
        ({one: saved[one] for one in saved if one != first}, f"the state lacks {first}"),
        ({**saved, "strange": torch.zeros(3)}, "the state alone has strange"),
    ]:  # fmt: skip
        with pytest.raises(LabkitError, match=words):
            adapters.restore(other, wrong)
    assert all(torch.equal(weight, before[one]) for one, weight in trained(other).items())
    assert torch.equal(adapters.restore(other, saved)(IDS).logits, model(IDS).logits)


@every_method
def test_fit_lowers_the_loss_and_moves_nothing_else(tokenizer, tickets, name):
    model = methods.find(name).prepare(0)
    before = {one: weight.detach().clone() for one, weight in model.named_parameters()}
    run = fit(model, tickets[:2], tokenizer, steps=8, lr=3e-2, batch=1, length=256, progress=False,
              precision="bf16", validation=tickets[:2], validate_every=4)  # fmt: skip
    after = {one for one, weight in model.named_parameters() if not torch.equal(weight, before[one])}
    assert after == set(trained(model)) and run.validation[-1][1] < run.validation[0][1] - 0.02
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@every_method
def test_compiled_blocks_give_the_same(name):
    model = prepared(name).train()
    plain = gradients(model)
    torch._dynamo.reset()
    for block in blocks_of(model):
        block.compile(backend="eager", dynamic=False, fullgraph=True)
    assert close(gradients(model), plain, 1e-6)
    torch._dynamo.reset()


@pytest.mark.gpu
@pytest.mark.parametrize("compile", [False, True])
@every_method
def test_steps_are_captured_as_a_cuda_graph(tokenizer, tickets, name, compile):
    start = methods.find(name).prepare(0)
    losses = {}
    for fast in (False, True):
        model = copy.deepcopy(start).to("cuda")
        run = fit(model, tickets, tokenizer, steps=24, lr=1e-2, batch=2, length=256, warmup=0.0,
                  progress=False, fast=fast, compile=compile and fast, precision="bf16")  # fmt: skip
        assert ("CUDA graph" in run.path, "compiled" in run.path) == (fast, compile and fast)
        losses[fast] = run.losses
    assert losses[True][0] == pytest.approx(losses[False][0], abs=0.02)
    assert sum(losses[True][-8:]) / 8 == pytest.approx(sum(losses[False][-8:]) / 8, abs=0.1)
    assert losses[True][-1] < losses[True][0] - 0.2  # more than the two may differ by


# ---- bottlenecks, by definition -------------------------------------------------------------------------


def watched(layers, run):
    """What each of `layers` put out while `run` ran."""
    seen = [None] * len(layers)

    def hook(number):
        return lambda _, inputs, out: seen.__setitem__(number, out[0] if isinstance(out, tuple) else out)

    hooks = [layer.register_forward_hook(hook(number)) for number, layer in enumerate(layers)]
    run()
    for one in hooks:
        one.remove()
    return seen


def test_a_bottleneck_stands_before_each_residual_addition():
    model = prepared("houlsby-w8")
    block = model.model.layers[1]
    parts = [block.self_attn.o_proj, block.mlp.down_proj]
    seen = watched([model.model.layers[0], parts[0].linear, parts[1].linear, block], lambda: model(IDS))
    before, attended, fed, after = seen

    def bottleneck(part, y):
        down, up = part.down, part.up
        return y + gelu(y @ down.weight.T + down.bias) @ up.weight.T + up.bias

    wanted = before + bottleneck(parts[0], attended) + bottleneck(parts[1], fed)
    assert close(after, wanted)
    assert not close(after, before + attended + bottleneck(parts[1], fed), 1e-2)
    assert not close(after, wanted - attended, 1e-2)


def test_at_step_0_only_the_way_up_has_a_gradient_and_nothing_of_the_base():
    model = methods.find("houlsby-w8").prepare(0)
    found = gradients(model)
    zero = {name for name, one in found.items() if one.abs().max() == 0}
    assert zero == {name for name in found if ".down.weight" in name or ".down.bias" in name}
    assert all(weight.grad is None for weight in model.parameters() if not weight.requires_grad)


def test_a_base_without_such_layers_a_second_time_and_a_width_of_0_are_refused(little):
    gpt = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=16, n_positions=8))
    model = little()
    before = [weight.requires_grad for weight in model.parameters()]
    with pytest.raises(LabkitError, match="no linear layer of this model is called down_proj, o_proj"):
        adapters.add_bottlenecks(gpt, 4)
    with pytest.raises(LabkitError, match="the width is 0"):
        adapters.add_bottlenecks(model, 0)
    assert [weight.requires_grad for weight in model.parameters()] == before
    for add in (lambda one: adapters.add_bottlenecks(one, 4), adapters.add_ia3):
        model = add(little())
        with pytest.raises(LabkitError, match="no linear layer of this model is called"):
            add(model)


@pytest.mark.parametrize("layer, how", [("Bottleneck", 4), ("IA3Linear", False), ("IA3Linear", True)])
def test_in_mixed_precision_a_layer_puts_out_what_the_plain_one_would(layer, how):
    linear, x = nn.Linear(6, 6), torch.randn(2, 3, 6)
    made = moved(getattr(adapters, layer)(linear, how))
    with torch.autocast("cpu", torch.bfloat16):
        assert made(x).dtype == linear(x).dtype == torch.bfloat16
    if layer == "IA3Linear":  # fp32 scales over a base in bf16
        linear.to(torch.bfloat16)
        assert made(x.bfloat16()).dtype == torch.bfloat16


# ---- biases and norms -----------------------------------------------------------------------------------


def test_added_biases_equal_peft(little):
    ours = moved(adapters.add_biases(little()))
    theirs = get_peft_model(little(), BeftConfig(target_modules=r".*_proj", task_type="CAUSAL_LM"))
    for name, weight in trained(theirs).items():
        twin = re.search(r"base_model\.model\.(.*)\.beft_bias", name)[1]
        weight.data.copy_(ours.get_submodule(twin).bias)
    assert len(trained(theirs)) == len(trained(ours)) == 14
    assert close(ours(IDS).logits, theirs(IDS).logits)
    assert not close(ours(IDS).logits, little()(IDS).logits, 1e-2)


def test_added_biases_survive_save_pretrained(little, tmp_path):
    model = moved(adapters.add_biases(little()))
    model.save_pretrained(tmp_path)
    assert close(LlamaForCausalLM.from_pretrained(tmp_path)(IDS).logits, model(IDS).logits)


def test_norms_equal_peft(little):
    ours = moved(adapters.train_norms(little()))
    theirs = get_peft_model(little(), LNTuningConfig(task_type="CAUSAL_LM"))
    for weight, twin in zip(trained(ours).values(), trained(theirs).values(), strict=True):
        twin.data.copy_(weight)
    assert close(ours(IDS).logits, theirs(IDS).logits)
    for one, other in zip(gradients(ours).values(), gradients(theirs).values(), strict=True):
        assert close(one, other, 1e-6)


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=49152, n_positions=256,
                                      bos_token_id=1, eos_token_id=2, initializer_range=0.3))  # fmt: skip


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_biases_that_a_model_has_are_trained_and_no_others(little, tokenizer, tickets, kind):
    model = gpt2() if kind == "gpt2" else little(attention_bias=True, mlp_bias=True)
    names = {name for name, _ in model.named_parameters() if name.endswith(".bias")}
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    assert set(trained(adapters.train_biases(model))) == names
    assert len(names) == (2 * 6 + 1 if kind == "gpt2" else 2 * 7)
    run = fit(model, tickets[:2], tokenizer, steps=6, lr=3e-2, batch=1, length=256, progress=False,
              validation=tickets[:2], validate_every=3)  # fmt: skip
    after = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert after == names and run.validation[-1][1] < run.validation[0][1] - 0.01


def test_a_model_with_biases_gets_none_added_and_one_without_has_none_to_train(little):
    with pytest.raises(LabkitError, match="q_proj has a bias already.*train_biases"):
        adapters.add_biases(little(attention_bias=True))
    with pytest.raises(LabkitError, match="no biases to train.*add_biases"):
        adapters.train_biases(little())
    with pytest.raises(LabkitError, match="no layer of this Linear is called a norm"):
        adapters.train_norms(nn.Linear(2, 2))


# ---- IA3 ------------------------------------------------------------------------------------------------


def ia3_twins(base):
    """IA3 written out, and peft's with the same scales."""
    ours = moved(adapters.add_ia3(copy.deepcopy(base)))
    config = IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"],
                       task_type="CAUSAL_LM")  # fmt: skip
    theirs = get_peft_model(copy.deepcopy(base), config).eval()
    for weight, twin in zip(trained(ours).values(), trained(theirs).values(), strict=True):
        twin.data.copy_(weight.view_as(twin))
    return ours, theirs


@pytest.mark.parametrize("changes", [{}, {"attention_bias": True, "mlp_bias": True}])
def test_ia3_equals_peft_in_logits_gradients_and_when_merged(little, changes):
    base = little(**changes)
    for name, weight in base.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(weight)
    ours, theirs = ia3_twins(base)
    expected = ours(IDS).logits
    assert close(expected, theirs(IDS).logits) and not close(expected, base(IDS).logits, 1e-2)
    for one, other in zip(gradients(ours).values(), gradients(theirs).values(), strict=True):
        assert close(one, other.view_as(one), 1e-6)
    layers = [layer for layer in ours.modules() if isinstance(layer, adapters.IA3Linear)]
    for layer in layers:
        layer.merge()
    assert close(ours(IDS).logits, expected)
    assert close(theirs.merge_and_unload()(IDS).logits, ours(IDS).logits)
    with pytest.raises(LabkitError, match="merging twice"):
        layers[0].merge()


@pytest.mark.parametrize("on_input", [False, True])
def test_a_scale_on_the_other_side_is_not_what_merging_gives(on_input):
    torch.manual_seed(0)
    made, x = moved(adapters.IA3Linear(nn.Linear(6, 6), on_input)), torch.randn(4, 6)
    expected = made(x)
    made.on_input = not on_input
    assert not close(made(x), expected, 0.1)
    made.merge()
    assert not close(made(x), expected, 0.1)


# ---- another adapter in every row -----------------------------------------------------------------------


def several(base, name, count=3):
    """Models of one method over copies of `base`, each with other weights."""
    configs = {
        "lora": LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", task_type="CAUSAL_LM"),
        "ia3": IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"],
                         task_type="CAUSAL_LM"),
    }  # fmt: skip
    return [moved(get_peft_model(copy.deepcopy(base), configs[name]), seed).eval() for seed in range(count)]


ROWS = torch.cat([IDS, IDS.flip(1), IDS + 1])


@pytest.mark.parametrize("name", ["lora", "ia3"])
def test_a_batch_of_different_adapters_equals_its_rows_apart(little, name):
    base = little()
    models = several(base, name)
    taken = [per_row.adapter_of(model) for model in models]
    apart = torch.cat([model(row[None]).logits for model, row in zip(models, ROWS, strict=True)])
    assert close(per_row.mixed_batch(base, taken, input_ids=ROWS).logits, apart)
    wrong = per_row.mixed_batch(base, taken[::-1], input_ids=ROWS).logits
    assert close(wrong[1], apart[1]) and not close(wrong[0], apart[0], 1e-2)
    again = per_row.mixed_batch(base, [taken[0], taken[0], taken[2]], input_ids=ROWS).logits
    assert close(again[[0, 2]], apart[[0, 2]]) and not close(again[1], apart[1], 1e-2)
    assert torch.equal(base(ROWS).logits, little()(ROWS).logits)  # and nothing of it is left


@pytest.mark.parametrize("name", ["lora", "ia3"])
def test_a_mixed_batch_generates_left_of_padding_what_its_rows_would(little, name):
    base = little()
    models = several(base, name, 2)
    padded = torch.cat([IDS, torch.cat([torch.full((1, 4), 2), IDS[:, 4:]], 1)])
    mask = (torch.arange(10) >= torch.tensor([[0], [4]])).long()
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 2}
    found = per_row.mixed_batch(base, [per_row.adapter_of(model) for model in models], generate=True,
                                input_ids=padded, attention_mask=mask, **options)[:, 10:]  # fmt: skip
    for row, (model, ids) in enumerate(zip(models, (IDS, IDS[:, 4:]), strict=True)):
        alone = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
        assert torch.equal(found[row], alone[0, ids.shape[1] :])
    assert not torch.equal(found[0], base.generate(input_ids=IDS, **options)[0, 10:])


def test_a_mixed_batch_of_lora_equals_peft(little):
    models = several(little(), "lora", 3)
    theirs = models[0]
    for name, model in zip("bc", models[1:], strict=True):
        theirs.add_adapter(name, model.peft_config["default"])
        for one, weight in trained(model).items():
            theirs.get_parameter(one.replace("default", name)).data.copy_(weight)
    expected = theirs(ROWS, adapter_names=["default", "b", "c"]).logits
    taken = []
    for name in ("default", "b", "c"):
        theirs.set_adapter(name)
        taken.append(per_row.adapter_of(theirs))
    assert close(per_row.mixed_batch(little(), taken, input_ids=ROWS).logits, expected)


def test_a_mixed_batch_that_cannot_be_right_is_refused(little, tiny):
    base = little()
    lora, ia3 = several(base, "lora", 1)[0], several(base, "ia3", 1)[0]
    one, other = per_row.adapter_of(lora), per_row.adapter_of(ia3)
    for wrong, words, model in [
        ([one] * 2, "2 adapters for a batch of 3 rows", base),
        ([other] * 4, "4 adapters for a batch of 3 rows", base),
        ([one, other, one], "one adapter a row, all of one kind", base),
        ([], "one adapter a row, all of one kind", base),
        ([one] * 3, "no plain linear layer of this model", lora),
        ([one] * 3, "of another base", tiny()),
        ([other] * 3, "of another base", tiny()),
    ]:  # fmt: skip
        with pytest.raises(LabkitError, match=words):
            per_row.mixed_batch(model, wrong, input_ids=ROWS)
        assert torch.equal(base(ROWS).logits, little()(ROWS).logits)


def test_only_a_plain_unmerged_adapter_can_be_taken(little):
    plain = {"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    for more in ({"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["norm"]}, {"lora_bias": True},
                 {"target_modules": ["q_proj", "embed_tokens"]}):  # fmt: skip
        changes = {"attention_bias": True} if more.keys() & {"bias", "lora_bias"} else {}
        model = get_peft_model(little(**changes), LoraConfig(**{**plain, **more}))
        with pytest.raises(LabkitError, match="added or trained"):
            per_row.adapter_of(model)
    model = several(little(), "ia3", 1)[0]
    model.merge_adapter()
    with pytest.raises(LabkitError, match="merged with its adapter"):
        per_row.adapter_of(model)
    with pytest.raises(LabkitError, match="pass a peft model"):
        per_row.adapter_of(little())
