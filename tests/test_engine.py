"""How a step is taken: what stands in a graph's way, what a graph depends on, and what is put back after."""

import gc
import weakref
from types import SimpleNamespace

import peft
import pytest
import torch

from labkit.errors import LabkitError
from labkit.train import attention, blocks, engine, fit
from labkit.train import graph as graphs
from labkit.train import step as stepping

CARD = torch.device("cuda")  # only its name is asked for here


def with_lora(model, **options):
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **options)
    return peft.get_peft_model(model, config)


# ---- what stands in the way of a graph


def obstacle(model, on=CARD, precision="bf16", checkpointing=False, pack=True, steps=100):
    return graphs.obstacle(model, on, precision, checkpointing, pack, steps)


@pytest.mark.parametrize("setting, says", [
    ({"on": torch.device("cpu")}, "no CUDA card"), ({"precision": "fp16"}, "loss scaling"),
    ({"checkpointing": True}, "gradient checkpointing"), ({"pack": False}, "not packed"),
    ({"steps": 5}, "fewer than"),
])  # fmt: skip
def test_what_stands_in_the_way_of_a_graph_is_named(tiny, setting, says):
    model = with_lora(tiny())
    assert obstacle(model) is None
    assert says in obstacle(model, **setting)


@pytest.mark.parametrize("register", [
    lambda model: model.model.layers[1].register_forward_hook(lambda *_: None),
    lambda model: model.lm_head.register_full_backward_hook(lambda *_: None),
    lambda model: model.model.norm.weight.register_hook(lambda gradient: gradient),
    lambda model: model.model.norm.weight.register_post_accumulate_grad_hook(lambda weight: None),
])  # fmt: skip
def test_hooks_stand_in_the_way_until_they_are_removed(tiny, register):
    model = tiny().requires_grad_(True)
    handle = register(model)
    assert "hooks" in obstacle(model)
    handle.remove()
    assert obstacle(model) is None


# ---- what a captured graph depends on


def scale(model):
    next(m for m in model.modules() if hasattr(m, "set_scale")).set_scale("default", 5.0)


def freeze(model):
    next(w for w in model.parameters() if w.requires_grad).requires_grad_(False)


def move(model):
    weight = next(model.parameters())
    weight.data = weight.data.clone()


def disable(model):
    model.base_model.disable_adapter_layers()


def drop(model):
    for module in model.modules():
        if "default" in getattr(module, "lora_dropout", ()):
            module.lora_dropout["default"] = torch.nn.Dropout(0.1)


@pytest.mark.parametrize("change", [scale, freeze, move, disable, drop])
def test_a_model_that_changed_has_another_signature(tiny, change):
    model = with_lora(tiny())
    before = graphs.signature(model, clip=1.0)
    model.train()
    model.eval()
    assert graphs.signature(model, clip=1.0) == before
    assert graphs.signature(model, clip=None) != before
    change(model)
    assert graphs.signature(model, clip=1.0) != before


def test_a_kept_graph_is_given_back_for_its_signature_only_and_lets_the_model_go(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    model, mine = tiny(), SimpleNamespace(signature="mine")
    graphs._kept[model] = mine
    assert graphs.kept(model, "mine") is mine
    assert graphs.kept(model, "other") is None and not graphs._kept
    graphs._kept[model] = mine
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None and not graphs._kept


# ---- steps


def test_an_engine_lets_go_of_the_model_and_of_gradients_when_a_step_is_broken_off(tiny, monkeypatch):
    model = tiny().requires_grad_(True)
    trainable = dict(model.named_parameters())
    options = {"on": torch.device("cpu"), "precision": "bf16", "clip": 1.0, "weight_decay": 0.0,
               "graphed": False, "compile": False, "shape": (), "reuse": True}  # fmt: skip
    with pytest.raises(KeyboardInterrupt), engine.engine(model, trainable, **options) as take:
        weight = model.model.layers[0].mlp.up_proj.weight
        weight.grad = torch.full_like(weight, 1e4)  # what a broken backward pass may leave
        assert weight.dtype == torch.bfloat16
        raise KeyboardInterrupt
    assert weight.grad is None and weight.dtype == torch.float32
    assert take.step.forward is None and take.path == "plain"


def test_what_a_broken_step_left_does_not_reach_the_next(tiny, tokenizer, tickets, monkeypatch):
    options = {"steps": 3, "lr": 1e-2, "batch": 1, "length": 256, "precision": "bf16", "progress": False}
    clean = fit(tiny(), tickets, tokenizer, **options)
    real = stepping.Step.take

    def spoiled(self, batches):
        for weight in self.weights.trained:
            weight.grad = torch.full_like(weight, 1e4)
        if forgetful:
            self.forget_gradients()
        return real(self, batches)

    monkeypatch.setattr(stepping.Step, "take", spoiled)
    forgetful = True
    assert fit(tiny(), tickets, tokenizer, **options).losses == clean.losses
    forgetful = False  # the control
    assert fit(tiny(), tickets, tokenizer, **options).losses != clean.losses


# ---- blocks and attention


def test_blocks_are_the_layers_and_run_as_before_afterwards(tiny):
    model = with_lora(tiny())
    layers = list(model.get_base_model().model.layers)
    assert blocks.blocks_of(model) == layers
    layers[0]._compiled_call_impl = "of the learner"
    with blocks.compiled_blocks(model, True):
        assert layers[1]._compiled_call_impl is not None
        assert layers[0]._compiled_call_impl == "of the learner"
    assert layers[1]._compiled_call_impl is None
    assert layers[0]._compiled_call_impl == "of the learner"
    with blocks.compiled_blocks(model, False):
        assert layers[1]._compiled_call_impl is None


def test_compiling_is_for_long_runs_and_for_cards_that_are_shared(monkeypatch):
    monkeypatch.delenv("LABKIT_BESIDE", raising=False)
    assert not blocks.worth_compiling(300, 8 * 512)
    monkeypatch.setenv("LABKIT_BESIDE", "4")  # what one process saves on a shared card, all gain
    assert blocks.worth_compiling(300, 8 * 512) and not blocks.worth_compiling(60, 8 * 512)
    monkeypatch.setenv("LABKIT_BESIDE", "1")
    assert not blocks.worth_compiling(300, 8 * 512)
    assert blocks.worth_compiling(300, 32 * 1024) and blocks.worth_compiling(5000, 2048)


def test_soft_prompts_are_refused_before_they_train_on_wrong_positions(tiny, tokenizer, tickets):
    config = peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")
    model = peft.get_peft_model(tiny(), config)
    with pytest.raises(LabkitError, match="soft prompts"):
        fit(model, tickets, tokenizer, steps=1, lr=1e-3, progress=False)


def test_layers_with_a_state_of_their_own_are_refused_for_packed_rows_only(tiny):
    model = tiny()
    attention.check_attention(model, 64)
    model.config.mamba_d_conv = 4
    with pytest.raises(LabkitError, match="mamba_d_conv.*pack=False"):
        attention.check_attention(model, 64)
    attention.check_attention(model, 64, pack=False)


@pytest.mark.parametrize("setting, value", [
    ("sliding_window", 128), ("attention_dropout", 0.1), ("v_head_dim", 32), ("head_dim", 20),
    ("layer_types", ["full_attention", "sliding_attention"]),
])  # fmt: skip
def test_attention_without_a_mask_is_for_plain_causal_attention(tiny, monkeypatch, setting, value):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda on: (9, 0))
    model = tiny()
    assert attention.maskless(model, CARD, "bf16")
    assert not attention.maskless(model, CARD, "fp32")
    assert not attention.maskless(model, torch.device("cpu"), "bf16")
    setattr(model.config, setting, value)
    assert not attention.maskless(model, CARD, "bf16")


def test_attention_is_put_back(tiny):
    model = with_lora(tiny())
    config = model.get_base_model().config
    with attention.packed_attention(model, True):
        assert config._attn_implementation == attention.NAME
    assert config._attn_implementation == "sdpa"
