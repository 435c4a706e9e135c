"""What only a CUDA card can show: precisions, compiling, memory and its exhaustion."""

import gc

import pytest
import torch

from labkit import env
from labkit.errors import LabkitError
from labkit.evaluate import generate
from labkit.train import fit

pytestmark = pytest.mark.gpu
OPTIONS = {"lr": 1e-4, "batch": 4, "length": 512, "progress": False}


@pytest.fixture
def model():
    """The real base model on the card, freed afterwards."""
    from labkit import load_model

    yield load_model(on=torch.device("cuda"))
    gc.collect()
    torch.cuda.empty_cache()


def assert_usable(model):
    """The model has its head, evaluates, and holds no gradients."""
    with torch.no_grad():
        logits = model(torch.tensor([[5, 6, 7]], device="cuda")).logits
    assert logits.shape == (1, 3, 49152) and torch.isfinite(logits).all()
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_ten_steps_lower_the_loss_of_the_real_model(model, tokenizer, tickets, precision):
    if precision == "bf16" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this card has no bf16 units")
    run = fit(model, tickets, tokenizer, steps=10, precision=precision, **OPTIONS)
    assert run.precision == precision and run.steps == 10
    assert sum(run.losses[-3:]) < sum(run.losses[:3])
    assert model.dtype == torch.float32
    # fp32 weights, their gradients and two moments of Adam are 16 bytes a weight.
    assert run.peak_bytes > 16 * run.trainable
    assert_usable(model)


def test_the_hardware_chooses_the_precision(model, tokenizer, tickets):
    run = fit(model, tickets, tokenizer, steps=1, **OPTIONS)
    assert run.precision == env.precision() != "fp32"


def test_losses_are_kept_for_every_step_though_looked_at_every_tenth(tiny, tokenizer, tickets):
    run = fit(tiny().cuda(), tickets, tokenizer, steps=13, precision="fp32", **OPTIONS)
    whole = fit(tiny(), tickets, tokenizer, steps=13, precision="fp32", **OPTIONS)
    assert run.losses == pytest.approx(whole.losses, abs=2e-2)
    assert run.losses[0] == pytest.approx(whole.losses[0], abs=1e-3)


def test_a_nan_between_two_looks_names_its_own_step(tiny, tokenizer, tickets, monkeypatch):
    from labkit.train import step as stepping

    real, calls = stepping.batch_nll, []

    def spoil(*arguments):
        calls.append(1)
        return real(*arguments) * (float("nan") if len(calls) == 4 else 1)

    monkeypatch.setattr(stepping, "batch_nll", spoil)
    with pytest.raises(LabkitError, match="the loss is nan at step 4 "):
        fit(tiny().cuda(), tickets, tokenizer, steps=13, precision="fp32", **OPTIONS)


@pytest.mark.slow
def test_the_compiled_path_equals_eager(model, tokenizer, tickets):
    precision = env.precision()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    eager = fit(model, tickets, tokenizer, steps=5, precision=precision, **OPTIONS)
    model.load_state_dict(before)
    compiled = fit(model, tickets, tokenizer, steps=5, precision=precision, compile=True, **OPTIONS)
    assert compiled.losses == pytest.approx(eager.losses, abs=0.05)
    assert_usable(model)


def test_gradient_checkpointing_gives_the_losses_of_eager_with_less_memory(model, tokenizer, tickets):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = {**OPTIONS, "steps": 3, "length": 1024, "batch": 8}
    plain = fit(model, tickets, tokenizer, **options)
    model.load_state_dict(before)
    saved = fit(model, tickets, tokenizer, gradient_checkpointing=True, **options)
    assert saved.losses == pytest.approx(plain.losses, abs=0.02)
    assert saved.peak_bytes < 0.8 * plain.peak_bytes


def test_running_out_of_memory_names_the_budget_and_leaves_a_usable_model(model, tokenizer, tickets):
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    # Room for weights, gradients and Adam, but not for the activations of 64 x 1024 tokens.
    torch.cuda.set_per_process_memory_fraction(min(1.0, 6e9 / total))
    try:
        with pytest.raises(LabkitError, match=r"ran out of memory.*room for [3-6]\.\d GB\. Pass batch="):
            fit(model, tickets, tokenizer, steps=2, lr=1e-4, batch=64, length=1024, progress=False)
        gc.collect()
        torch.cuda.empty_cache()
        assert_usable(model)
        run = fit(model, tickets, tokenizer, steps=1, lr=1e-4, batch=2, length=256, progress=False)
        assert run.steps == 1
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_killed_run_goes_on_to_nearly_the_same_losses(tiny, tokenizer, tickets, tmp_path, monkeypatch):
    from labkit.train import step as stepping

    options = {**OPTIONS, "steps": 6, "precision": "fp32", "checkpoint_every": 2}
    straight = fit(tiny().cuda(), tickets, tokenizer, **options)
    real, calls = stepping.batch_nll, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stepping, "batch_nll", killed)
        fit(tiny().cuda(), tickets, tokenizer, checkpoint=tmp_path / "run.pt", **options)
    assert (tmp_path / "run.pt").exists()
    resumed = fit(tiny().cuda(), tickets, tokenizer, checkpoint=tmp_path / "run.pt", **options)
    assert resumed.losses == pytest.approx(straight.losses, abs=1e-3)


def test_generation_on_the_card_equals_the_cpu_on_a_short_prompt(model, base, tokenizer):
    prompts = [[{"role": "user", "content": "What is the capital of France?"}]]
    options = {"max_new_tokens": 8, "progress": False}
    on_card = generate(model, tokenizer, prompts, **options)
    assert on_card == generate(base, tokenizer, prompts, **options)
    assert on_card == ["The capital of France is Paris."]
