"""Measuring in a process of its own: what comes back, and what a failure says."""

import pytest

from labkit.errors import LabkitError
from labkit.memory import Setting, apart


def test_the_report_of_the_other_process_comes_back(monkeypatch):
    monkeypatch.setattr(apart, "CODE", apart.CODE.replace("measure(", "predict(").replace(
        "import Setting, measure", "import Setting, predict").replace(", alone=False", ""))  # fmt: skip
    setting = Setting("smollm2-135m", method="lora", seq=64)
    from labkit.memory import predict

    assert apart.measure_apart(setting).to_dict() == predict(setting).to_dict()


def test_a_failure_of_the_other_process_is_told(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(LabkitError, match="no CUDA card here"):
        apart.measure_apart(Setting("smollm2-135m"))
