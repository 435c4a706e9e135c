"""Measuring on a card, each in a process of its own."""

import subprocess
import sys

import pytest

from labkit.errors import LabkitError
from labkit.memory import Setting, machine, measure, predict, trace
from labkit.memory.apart import measure_apart
from labkit.paths import ROOT


def measured(**fields):
    return measure_apart(Setting("smollm2-135m", **fields))  # other tests of this process hold the card


@pytest.mark.gpu
@pytest.mark.parametrize(
    "fields",
    [{}, {"optimizer": "fused", "checkpointing": True}, {"method": "lora"},
     {"method": "qlora", "precision": "bf16"},
     {"optimizer": "paged 8-bit"}, {"method": "dpo", "precision": "bf16"},
     {"method": "inference", "seq": 1024, "new_tokens": 4}],
    ids=lambda fields: " ".join(map(str, fields.values())) or "full",
)  # fmt: skip
def test_trace_and_formula_foretell_what_a_card_shows(fields):
    setting, found = Setting("smollm2-135m", **fields), measured(**fields)
    # Measuring warms up with a backward pass, which leaves a workspace that inference never takes.
    extra = machine.H100.workspace if setting.method == "inference" else 0
    # The formula leaves out what blocks waste. Paged 8-bit states of this small model it misses by 11.5%.
    missed = setting.optimizer == "paged 8-bit"
    for engine, error in ((trace, 0.01), (predict, 0.05)):
        said = engine(setting)
        assert said.peak_allocated == pytest.approx(found.peak_allocated - extra, rel=error)
        close = said.process == pytest.approx(found.process - extra, rel=0.1)
        assert close != (missed and engine is predict)  # once it is met, the exception goes
        assert said.moment == found.moment


@pytest.mark.gpu
def test_the_parts_that_are_measured_sum_to_the_peak():
    found = measured(method="lora")
    inside = {
        name: size for name, size in found.categories.items() if name not in ("context", "optimizer paged")
    }
    assert sum(inside.values()) == found.peak_allocated <= found.peak_reserved < found.process
    assert found.categories["workspace"] > 0 and found.categories["context"] > 100e6


@pytest.mark.gpu
def test_a_card_in_use_is_refused():
    import torch

    held = torch.zeros(3 * 2**30, dtype=torch.uint8, device="cuda")
    command = [sys.executable, "-m", "labkit.memory.measure", '{"shape": "smollm2-135m"}']
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert held.is_cuda and done.returncode == 1
    assert "in use by other processes" in done.stderr


def test_without_a_card_measuring_says_so(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(LabkitError, match="no CUDA card"):
        measure(Setting("smollm2-135m"))


def test_a_card_that_cannot_be_asked_is_a_warning_and_a_busy_one_an_error(monkeypatch):
    import importlib

    module = importlib.import_module("labkit.memory.measure")
    monkeypatch.setattr(module, "card_use", lambda: None)
    with pytest.warns(UserWarning, match="nvidia-smi does not answer"):
        assert module._used_before(alone=True) == 0
    monkeypatch.setattr(module, "card_use", lambda: 5 * 2**30)
    with pytest.raises(LabkitError, match="in use by other processes"):
        module._used_before(alone=True)
    assert module._used_before(alone=False) == 5 * 2**30
    monkeypatch.setattr(module, "card_use", lambda: 2**28)
    assert module._used_before(alone=True) == 2**28


def test_what_is_asked_for_must_be_a_setting_in_json():
    import importlib

    module = importlib.import_module("labkit.memory.measure")
    for given, wrong in (([], "one argument"), (["{"], "not JSON"), (['{"seq": 3}'], "needs `shape`")):
        with pytest.raises(LabkitError, match=wrong):
            module.main(given)


def test_on_a_pretended_card_peaks_are_told_apart_by_moment(monkeypatch):
    import importlib

    import torch

    from labkit.memory import Shape, recipe

    module = importlib.import_module("labkit.memory.measure")
    tiny = Setting(Shape("tiny", 64, 2, 4, 4, 16, 128, 1000, True, 512), seq=16, optimizer="fused")
    peaks = iter([10, *[100, 300, 200] * 3])  # loading, then forward, backward and optimizer of each step
    held = iter([50, 60, 90, 70, *[80, 90, 70, 80] * 3])
    real = recipe.Recipe
    monkeypatch.setattr(recipe, "Recipe", lambda setting, device: real(setting, "cpu"))
    monkeypatch.setattr(module, "_warm_up", lambda: 20)
    monkeypatch.setattr(module, "card_use", lambda: 5)
    for name, answer in (
        ("is_available", True), ("is_initialized", False), ("init", None), ("empty_cache", None),
        ("synchronize", None), ("reset_peak_memory_stats", None), ("mem_get_info", (400, 1000)),
        ("max_memory_reserved", 350),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: next(peaks))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: next(held, 70))
    found = measure(tiny)
    assert (found.moment, found.peak_allocated, found.peak_reserved) == ("backward", 300, 350)
    assert found.process == 1000 - 400 - 5 and found.categories["context"] == found.process - 350
    assert found.categories["weights"] == 50 - 20 and found.categories["workspace"] == 20
    gradients = next(term.bytes for term in found.terms if term.name == "held when the optimizer begins")
    assert gradients == 4 * tiny.shape.weights()
    assert next(peaks, None) is None  # every moment of every step was asked once
