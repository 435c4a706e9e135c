"""The fast path on a CUDA card: the losses of plain steps, reuse, and what happens where it cannot be."""

import gc
import weakref

import pytest
import torch

from labkit.errors import LabkitError
from labkit.train import fit
from labkit.train import graph as graphs

pytestmark = pytest.mark.gpu
OPTIONS = {"batch": 4, "length": 512, "progress": False}
RATES = {"full": 1e-4, "lora": 1e-3, "dora": 1e-3, "qlora": 1e-3}


@pytest.fixture(autouse=True)
def _freed():
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this card has no bf16 units, and the fast path wants bf16")
    yield
    gc.collect()
    torch.cuda.empty_cache()


def make(method, dropout=0.0):
    """The base model on the card, made ready for `method` with a fixed seed."""
    from labkit import methods

    model = methods.find(method).prepare(seed=0)
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleDict) and "default" in module and dropout:
            if isinstance(module["default"], torch.nn.Identity):  # where peft puts its dropout
                module["default"] = torch.nn.Dropout(dropout)
    return model


def alike(left, right):
    """The same training to bf16's accuracy: first losses near, then means of ten steps.

    Single steps may differ more: a sign of a gradient near 0 is noise, and AdamW begins with signs.
    """
    def means(losses):
        return [sum(losses[n : n + 10]) / len(losses[n : n + 10]) for n in range(0, len(losses), 10)]

    return left[0] == pytest.approx(right[0], abs=0.01) and means(left) == pytest.approx(
        means(right), rel=0.1, abs=0.03
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", list(RATES))
def test_fifty_steps_of_the_graph_have_the_losses_of_plain_steps(method, tokenizer, tickets):
    options = {**OPTIONS, "steps": 50, "lr": RATES[method]}
    plain = fit(make(method), tickets, tokenizer, fast=False, compile=False, **options)
    graph = fit(make(method), tickets, tokenizer, compile=False, **options)
    assert (plain.path, graph.path) == ("plain", "CUDA graph")
    assert alike(graph.losses, plain.losses)
    assert graph.losses[-1] < 0.3 * graph.losses[0]
    half = fit(make(method), tickets, tokenizer, compile=False, **{**options, "lr": RATES[method] / 2})
    assert not alike(half.losses, plain.losses)  # the control


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_compiled_blocks_have_the_losses_of_plain_steps(method, tokenizer, tickets):
    options = {**OPTIONS, "steps": 50, "lr": RATES[method]}
    plain = fit(make(method), tickets, tokenizer, fast=False, compile=False, **options)
    both = fit(make(method), tickets, tokenizer, compile=True, validation=tickets[:9], **options)
    assert both.path == "CUDA graph, compiled blocks"
    assert alike(both.losses, plain.losses)


def _causal_only(batch):
    length = batch.ids.shape[1]
    return torch.ones(length, length, dtype=torch.bool, device=batch.ids.device).tril().expand(
        len(batch.ids), 1, -1, -1
    )


def test_attention_by_boundaries_equals_attention_by_mask(tokenizer, tickets, monkeypatch):
    options = {**OPTIONS, "steps": 30, "lr": 1e-4, "fast": False, "compile": False}
    by_boundaries = fit(make("full"), tickets, tokenizer, **options)
    monkeypatch.setattr("labkit.train.engine.maskless", lambda *_: False)
    by_mask = fit(make("full"), tickets, tokenizer, **options)
    assert alike(by_boundaries.losses, by_mask.losses)
    assert by_boundaries.losses != by_mask.losses  # otherwise both went the same way
    monkeypatch.setattr("labkit.train.packing.Batch.mask", _causal_only)
    leaking = fit(make("full"), tickets, tokenizer, **options)
    assert not alike(leaking.losses, by_mask.losses)  # the control: rows that see each other


def test_a_second_run_of_the_same_shape_uses_the_graph_again(tokenizer, tickets):
    model = make("lora")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = {**OPTIONS, "steps": 30, "lr": 1e-3, "compile": False}
    first = fit(model, tickets, tokenizer, **options)
    held = graphs._kept[model]
    model.load_state_dict(before)
    again = fit(model, tickets, tokenizer, **options)
    assert graphs._kept[model] is held
    assert alike(again.losses, first.losses)
    assert again.peak_bytes == pytest.approx(first.peak_bytes, rel=0.1)
    fit(model, tickets, tokenizer, **{**options, "batch": 2})
    assert graphs._kept[model] is not held  # the control: another shape
    with torch.no_grad():
        logits = model(torch.tensor([[5, 6, 7]], device="cuda")).logits
    assert torch.isfinite(logits).all() and logits.dtype == torch.float32


def test_dropout_differs_from_step_to_step_in_the_graph(tokenizer, tickets):
    options = {**OPTIONS, "steps": 30, "lr": 0.0, "compile": False}
    one_row = tickets[:1] * 16
    dropped = fit(make("lora", dropout=0.0), one_row, tokenizer, **options)
    assert len(set(dropped.losses[5:])) == 1  # at rate 0 nothing moves
    model = make("lora", dropout=0.5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
    dropped = fit(model, one_row, tokenizer, **options)
    assert len(set(dropped.losses[5:])) > 20


def test_accumulated_batches_give_the_losses_of_plain_steps(tokenizer, tickets):
    options = {**OPTIONS, "steps": 24, "lr": 1e-4, "batch": 2, "accumulate": 2, "compile": False}
    plain = fit(make("full"), tickets, tokenizer, fast=False, **options)
    graph = fit(make("full"), tickets, tokenizer, **options)
    assert graph.path == "CUDA graph"
    assert alike(graph.losses, plain.losses)


class Waits(torch.autograd.Function):
    """Changes nothing, and looks at a value on the way, which no capture allows."""

    @staticmethod
    def forward(context, hidden, where):
        context.where = where
        if where == "forward":
            hidden.sum().item()
        return hidden.clone()

    @staticmethod
    def backward(context, gradient):
        if context.where == "backward":
            gradient.sum().item()
        return gradient, None


def waiting(where):
    """A model with LoRA whose fourth block waits for the card in its forward or its backward pass."""
    model = make("lora")
    layer = model.get_base_model().model.layers[3]
    real = layer.forward
    layer.forward = lambda hidden, *args, **kwargs: Waits.apply(real(hidden, *args, **kwargs), where)
    return model


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_step_that_cannot_be_captured_goes_on_plain_and_says_why(tokenizer, tickets, capsys, where):
    options = {**OPTIONS, "steps": 25, "lr": 1e-3, "compile": False}
    plain = fit(make("lora"), tickets, tokenizer, fast=False, **options)
    run = fit(waiting(where), tickets, tokenizer, **{**options, "progress": True})
    assert run.path == "plain" and alike(run.losses, plain.losses)
    assert "without a CUDA graph: capturing failed" in capsys.readouterr().out
    # The card is as it was: memory can be had and given back, the current stream is the default one, and
    # dropout and another capture work.
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    big = torch.empty(2**30, device="cuda", dtype=torch.uint8)
    del big
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert fit(make("lora", dropout=0.1), tickets, tokenizer, **options).path == "CUDA graph"


def test_hooks_on_the_model_and_other_scalings_are_not_lost(tokenizer, tickets, capsys):
    options = {**OPTIONS, "steps": 25, "lr": 1e-3, "compile": False}
    model, seen = make("lora"), []
    assert fit(model, tickets, tokenizer, **options).path == "CUDA graph"
    held = graphs._kept[model]
    for module in model.modules():
        if hasattr(module, "set_scale"):
            module.set_scale("default", 3.0)
    fit(model, tickets, tokenizer, **options)
    assert graphs._kept[model] is not held
    model.register_forward_hook(lambda *_: seen.append(1))
    assert fit(model, tickets, tokenizer, **{**options, "progress": True}).path == "plain"
    assert len(seen) >= 25 and "hooks on the model" in capsys.readouterr().out


def test_an_interrupted_run_that_used_a_kept_graph_lets_the_model_go(tokenizer, tickets, monkeypatch):
    model, options = make("lora"), {**OPTIONS, "steps": 25, "lr": 1e-3, "compile": False}
    fit(model, tickets, tokenizer, **options)
    real = graphs.GraphStep.__call__

    def interrupted(self, batches, rate):
        if self.taken == 30:
            raise KeyboardInterrupt
        return real(self, batches, rate)

    monkeypatch.setattr(graphs.GraphStep, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(model, tickets, tokenizer, **options)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None and not graphs._kept


def test_what_stands_in_the_way_is_printed(tokenizer, tickets, capsys):
    options = {**OPTIONS, "steps": 20, "lr": 1e-3, "progress": True}
    run = fit(make("lora"), tickets, tokenizer, gradient_checkpointing=True, **options)
    assert run.path == "plain"
    assert "without a CUDA graph: gradient checkpointing" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_is_found_in_the_graph_and_names_its_step(tokenizer, tickets, monkeypatch):
    real = graphs.GraphStep.__call__

    def poisoned(self, batches, rate):
        if self.taken == 11:  # so many steps are behind it: this is the twelfth, and a replay
            self.step.weights.copies[0].fill_(float("nan"))
        return real(self, batches, rate)

    monkeypatch.setattr(graphs.GraphStep, "__call__", poisoned)
    with pytest.raises(LabkitError, match="the loss is nan at step 12 "):
        fit(make("full"), tickets, tokenizer, steps=30, lr=1e-4, **OPTIONS)
