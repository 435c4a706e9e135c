"""Methods by name: what each trains, that seeds decide all that is drawn, and how a module adds one."""

import sys

import pytest
import torch

from labkit import base_model, env, methods
from labkit.errors import LabkitError
from labkit.train import fit

NAMES = ["full", "partial-1", "lora-r4", "dora-r4", "qlora-r4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny):
    """A tiny base as a folder: 4-bit weights are made while a model is loaded from files."""
    path = tmp_path_factory.mktemp("base")
    tiny().save_pretrained(path)
    return path


@pytest.fixture
def small(monkeypatch, tiny, folder):
    """Methods start from a tiny base on the CPU instead of the real one."""

    def load_model():
        with torch.random.fork_rng():  # a model that is read from files draws nothing
            return tiny()

    monkeypatch.delenv("LABKIT_MODEL", raising=False)
    monkeypatch.setattr("labkit.load_model", load_model, raising=False)
    monkeypatch.setattr(base_model, "fetch", lambda: folder)
    monkeypatch.setattr(env, "device", lambda: torch.device("cpu"))


def trained(model):
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


# ---- names


@pytest.mark.parametrize("asked, name, about", [
    ("full", "full", "every weight"),
    ("partial-8", "partial-8", "last 8 blocks"),
    ("lora", "lora-r16", "rank 16"),
    ("lora-r16", "lora-r16", "rank 16"),
    ("lora-r1", "lora-r1", "rank 1 "),
    ("dora", "dora-r16", "DoRA of rank 16"),
    ("qlora-r64", "qlora-r64", "rank 64 on a 4-bit"),
])  # fmt: skip
def test_a_name_may_carry_a_number_and_always_comes_back_in_full(asked, name, about):
    found = methods.find(asked)
    assert found.name == name and about in found.about
    assert len(found.rates) == 4 and found.options == {} and found.module.startswith("labkit/methods/")


@pytest.mark.parametrize("name", ["lora-r0", "lora-16", "lora-r", "full-2", "LoRA", "lora-r4-x", "", "."])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    known = r"dora-rN.*full.*lora-rN \(lora is lora-r16\).*partial-N"
    with pytest.raises(LabkitError, match=f"no method.*{known}"):
        methods.find(name)


def test_partial_alone_is_refused_since_it_has_no_usual_number():
    with pytest.raises(LabkitError, match="partial wants a number: partial-N"):
        methods.find("partial")


def test_naming_methods_loads_neither_torch_nor_peft(labkit_command):
    script = "import sys; from labkit import methods; methods.find('qlora'); print(sorted(sys.modules))"
    done = labkit_command(script=script)
    assert done.returncode == 0 and "'labkit.methods.lora'" in done.stdout
    assert not any(f"'{heavy}'" in done.stdout for heavy in ("torch", "peft", "transformers"))


# ---- models


@pytest.mark.parametrize("name", NAMES)
def test_a_prepared_model_is_fp32_apart_from_frozen_4_bit_weights_and_has_something_to_train(small, name):
    model = methods.find(name).prepare(0)
    kinds = {(weight.dtype, weight.requires_grad) for weight in model.parameters()}
    frozen = {(torch.uint8, False)} if name.startswith("qlora") else set()
    assert kinds - {(torch.float32, False)} == {(torch.float32, True)} | frozen
    assert {weight.device.type for weight in model.parameters()} == {"cpu"}


@pytest.mark.parametrize("name", ["lora-r4", "dora-r4", "qlora-r4"])
def test_a_seed_decides_the_new_weights(small, name):
    first, again, other = (trained(methods.find(name).prepare(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(first[one], again[one]) for one in first)
    assert any(not torch.equal(first[one], other[one]) for one in first)


@pytest.mark.parametrize("name", ["full", "partial-1", "lora-r4", "dora-r4"])
def test_before_training_a_method_answers_as_the_base_does(small, tiny, name):
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(methods.find(name).prepare(3)(ids).logits, tiny()(ids).logits, atol=1e-5)


def test_full_trains_every_weight_and_partial_the_last_blocks_and_the_final_norm(small, tiny):
    every = dict(tiny().named_parameters())
    assert set(trained(methods.find("full").prepare(0))) == set(every)
    last = {name for name in every if name.startswith(("model.layers.1.", "model.norm."))}
    found = trained(methods.find("partial-1").prepare(0))
    assert set(found) == last and any("layernorm" in name for name in last)
    assert not any("embed" in name or "lm_head" in name for name in found)


def test_more_blocks_than_the_base_has_are_refused(small):
    assert len(trained(methods.find("partial-2").prepare(0))) == 19
    with pytest.raises(LabkitError, match="partial-3: this base has 2 blocks"):
        methods.find("partial-3").prepare(0)


def test_partial_refuses_a_model_whose_blocks_it_does_not_know(small, monkeypatch):
    from transformers import GPT2Config, GPT2LMHeadModel

    other = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=16, n_positions=8))
    monkeypatch.setattr("labkit.load_model", lambda: other)
    with pytest.raises(LabkitError, match="GPT2Model has no `layers`"):
        methods.find("partial-1").prepare(0)


@pytest.mark.parametrize("name, dora", [("lora-r4", False), ("dora-r4", True), ("qlora-r4", False)])
def test_adapters_are_on_all_linear_layers_with_alpha_twice_the_rank(small, name, dora):
    model = methods.find(name).prepare(0)
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.use_dora) == (4, 8, dora)
    down = [one for one in trained(model) if "lora_A" in one]
    assert len(down) == 2 * 7 and not any("lm_head" in one for one in down)  # 7 linear layers a block


def test_qlora_holds_doubly_quantized_nf4_and_multiplies_in_bf16(small):
    from bitsandbytes.nn import Linear4bit

    model = methods.find("qlora-r4").prepare(0)
    linear = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert len(linear) == 2 * 7
    state = linear[0].weight.quant_state
    assert state.quant_type == "nf4" and state.nested and linear[0].compute_dtype == torch.bfloat16
    assert not model.is_gradient_checkpointing


@pytest.mark.parametrize("name", NAMES)
def test_fit_trains_what_a_method_prepares_and_nothing_else(small, tokenizer, tickets, name):
    model = methods.find(name).prepare(0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    run = fit(model, tickets[:8], tokenizer, steps=2, lr=1e-2, batch=1, length=256, seed=0, progress=False)
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert run.trainable == sum(weight.numel() for weight in trained(model).values())
    assert moved and moved <= set(trained(model))


# ---- adding one


@pytest.fixture
def registry(monkeypatch):
    """What a test registers is forgotten afterwards."""
    methods.known()
    monkeypatch.setattr(methods, "_KNOWN", dict(methods._KNOWN))
    return methods


def test_a_new_module_in_the_package_is_a_new_method(registry, monkeypatch, tmp_path):
    source = (
        "from labkit.methods import register\n"
        "@register('planted', 'something {}', rates=(1, 3, 10, 30), letter='k', options={'warmup': 0.2})\n"
        "def planted(k):\n"
        "    return ['model', k]\n"
    )
    (tmp_path / "planted_here.py").write_text(source)
    with pytest.raises(LabkitError, match="no method"):
        registry.find("planted-k7")
    monkeypatch.setattr(registry, "__path__", [*registry.__path__, str(tmp_path)])
    found = registry.find("planted-k7")
    sys.modules.pop("labkit.methods.planted_here")
    assert found.prepare(0) == ["model", 7] and found.options == {"warmup": 0.2}
    assert (found.about, found.module) == ("something 7", "labkit/methods/planted_here.py")


@pytest.mark.parametrize("name, changes, words", [
    ("lora", {}, "'lora' is taken"),
    ("a_b", {}, "no name for a method"),
    ("a/b", {}, "no name for a method"),
    ("new", {"rates": (1e-4, 3e-4, 1e-3)}, "four learning rates"),
    ("new", {"rates": (1e-3, 3e-4, 1e-4, 3e-5)}, "four learning rates"),
    ("new", {"rates": (1e-4, 1e-3, 1e-2, 1e-1)}, "about 3 times"),
    ("new", {"options": {"steps": 1000}}, "steps must be the same for all methods"),
    ("new", {"options": {"seed": 7, "warmup": 0}}, "seed must be the same for all methods"),
])  # fmt: skip
def test_a_method_that_would_not_compare_cannot_be_registered(registry, name, changes, words):
    usual = {"rates": (1e-4, 3e-4, 1e-3, 3e-3), "options": {"warmup": 0}}
    with pytest.raises(LabkitError, match=words):
        registry.register(name, "about", **{**usual, **changes})(lambda: None)
    registry.register("new", "about", **usual)(lambda: None)
    assert registry.find("new").options == {"warmup": 0}
