"""Profiles, budgets and the choice of precision."""

import io

import pytest
import torch

from labkit import env
from labkit.errors import LabkitError


@pytest.fixture
def hardware(monkeypatch):
    """Pretend to this hardware: a card of some compute capability, or none; a CPU with bf16, or without."""

    def pretend(capability=None, fast_cpu=False):
        monkeypatch.delenv("LABKIT_PROFILE", raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(env, "cpu_has_fast_bf16", lambda: fast_cpu)

    return pretend


def test_the_hardware_decides_the_profile_where_nothing_is_set(hardware):
    hardware()
    assert env.profile() == "cpu"
    hardware(capability=(9, 0))
    assert env.profile() == "gpu"


@pytest.mark.parametrize("value, profile", [("smoke", "smoke"), (" CPU ", "cpu"), ("", "cpu")])
def test_the_variable_decides_the_profile_where_it_is_set(hardware, monkeypatch, value, profile):
    hardware()
    monkeypatch.setenv("LABKIT_PROFILE", value)
    assert env.profile() == profile


def test_the_cpu_profile_may_be_asked_for_on_a_machine_with_a_card(hardware, monkeypatch):
    hardware(capability=(9, 0))
    monkeypatch.setenv("LABKIT_PROFILE", "cpu")
    assert env.profile() == "cpu"


def test_an_unknown_profile_is_refused_with_the_known_ones(monkeypatch):
    monkeypatch.setenv("LABKIT_PROFILE", "fast")
    with pytest.raises(LabkitError, match="'fast'; it may be cpu, gpu, smoke"):
        env.profile()


def test_the_gpu_profile_without_a_card_is_refused(hardware, monkeypatch):
    hardware()
    monkeypatch.setenv("LABKIT_PROFILE", "gpu")
    with pytest.raises(LabkitError, match="no CUDA card.*Unset it"):
        env.profile()


@pytest.mark.parametrize("profile, steps", [("cpu", 1), ("smoke", 3)])
def test_a_budget_holds_the_numbers_of_the_profile(monkeypatch, profile, steps):
    monkeypatch.setenv("LABKIT_PROFILE", profile)
    assert env.budget(cpu={"steps": 1}, gpu={"steps": 2}, smoke={"steps": 3}).steps == steps


def test_a_budget_whose_profiles_differ_in_their_names_is_refused():
    with pytest.raises(LabkitError, match=r"cpu and smoke differ in \['rows', 'steps'\]"):
        env.budget(cpu={"steps": 1}, gpu={"steps": 2}, smoke={"rows": 3})
    with pytest.raises(LabkitError, match="cpu and gpu differ"):
        env.budget(cpu={"steps": 1}, gpu={}, smoke={"steps": 3})


@pytest.mark.parametrize("capability, fast_cpu, chosen", [
    ((7, 5), True, "fp16"), ((7, 0), False, "fp16"), ((8, 0), False, "bf16"), ((9, 0), False, "bf16"),
    (None, True, "bf16"), (None, False, "fp32"),
])  # fmt: skip
def test_the_precision_follows_the_hardware(hardware, capability, fast_cpu, chosen):
    hardware(capability, fast_cpu)
    assert env.precision() == chosen


@pytest.mark.parametrize("cpuinfo, fast", [
    ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16\n", True),
    ("flags\t\t: fpu avx2 amx_bf16 amx_tile\n", True),
    ("Features\t: fp asimd bf16 i8mm\n", True),
    ("flags\t\t: fpu avx2 avx512f\n", False),
    ("model name : Something avx512_bf16\nflags\t\t: fpu\n", False),
    ("", False),
])  # fmt: skip
def test_fast_bf16_is_read_from_the_flags_of_the_cpu(monkeypatch, cpuinfo, fast):
    monkeypatch.setattr(env, "open", lambda *a, **k: io.StringIO(cpuinfo), raising=False)
    assert env.cpu_has_fast_bf16() is fast


def test_a_machine_without_cpuinfo_is_taken_to_have_no_fast_bf16(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(env, "open", missing, raising=False)
    assert env.cpu_has_fast_bf16() is False


def test_a_seed_repeats_all_three_generators():
    import random

    import numpy

    def draw(seed):
        env.seed_everything(seed)
        return random.random(), numpy.random.rand(), torch.rand(1).item()

    assert draw(2**40 + 1) == draw(2**40 + 1)
    assert all(a != b for a, b in zip(draw(1), draw(2), strict=True))


def test_the_machine_line_names_the_cores(hardware):
    hardware(fast_cpu=True)
    assert env.machine() == f"{env.cores()}-core CPU (fast bf16)"
