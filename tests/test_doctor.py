"""The doctor: one line a check, with a remedy where it fails, and never a traceback."""

import pytest

from labkit import base_model, doctor, env
from labkit.doctor import compare
from labkit.errors import LabkitError


@pytest.mark.parametrize("name, found, pinned, state", [
    ("torch", "2.13.0", "2.13.0", "OK"),
    ("torch", "2.13.0+cpu", "2.13.0", "OK"),
    ("torch", "2.13.0+cu130", "2.13.0", "OK"),
    ("torch", "2.11.0+cu130", "2.13.0", "DIFFERS"),
    ("torch", "2.12.1", "2.13.0", "DIFFERS"),
    ("torch", "2.10.0", "2.13.0", "FAIL"),
    ("torch", "2.14.0", "2.13.0", "FAIL"),
    ("torch", None, "2.13.0", "FAIL"),
    ("peft", "0.21.3", "0.21.2", "DIFFERS"),
    ("peft", "0.22.0", "0.21.2", "FAIL"),
    ("peft", None, "0.21.2", "FAIL"),
])  # fmt: skip
def test_a_version_is_ok_as_pinned_differs_if_tested_and_fails_elsewhere(name, found, pinned, state):
    finding = compare(name, found, pinned)
    assert finding.state == state
    assert bool(finding.remedy) == (state != "OK")
    assert pinned in finding.detail or found.startswith(pinned)


def test_pins_are_read_without_comments_and_ranges():
    text = "# torch==1.0\ntorch==2.13.0   # why\n\nouter-lines==0.2 ; python_version > '3'\nloose>=1\n"
    assert doctor.pins(text) == {"torch": "2.13.0", "outer-lines": "0.2"}
    assert {"torch", "transformers", "trl", "nbval", "ruff"} <= set(doctor.pins())


def test_a_missing_package_fails_and_names_the_remedy(monkeypatch):
    monkeypatch.setattr(doctor, "pins", lambda: {"no-such-package": "1.0", "torch": doctor_torch()})
    findings = {finding.what: finding for finding in doctor._versions()}
    assert findings["no-such-package"].state == "FAIL" and "make lab" in findings["no-such-package"].remedy
    assert findings["packages"].detail.startswith("1 of 2")


def doctor_torch():
    """The version of torch that is here, so that it counts as pinned."""
    import importlib.metadata

    return importlib.metadata.version("torch").split("+")[0]


def run_with(monkeypatch, capsys, *checks):
    """Run the doctor with these checks alone; returns exit code and output."""
    names = ("_python", "_versions", "_cores", "_memory", "_disk", "_gpu", "_bf16", "_bitsandbytes",
             "_base_model", "_data")  # fmt: skip
    for number, name in enumerate(names):
        check = checks[number] if number < len(checks) else lambda: iter(())
        monkeypatch.setattr(doctor, name, check)
    return doctor.main(), capsys.readouterr().out


def test_a_broken_check_is_a_failure_with_exit_code_1_and_no_traceback(monkeypatch, capsys):
    def broken_check():
        raise RuntimeError("the library\nis broken")
        yield

    def refused():
        raise LabkitError("delete the folder")
        yield

    code, out = run_with(monkeypatch, capsys, broken_check, refused)
    assert code == 1
    assert "FAIL     broken check" in out and "RuntimeError: the library" in out
    assert "-> run `make lab`" in out and "-> delete the folder" in out
    assert "2 of 2 checks failed" in out and "Traceback" not in out


def test_differing_is_no_failure(monkeypatch, capsys):
    finding = doctor.Finding("x", "DIFFERS", "a bit", "nothing to do")
    code, out = run_with(monkeypatch, capsys, lambda: [finding])
    assert code == 0
    assert out.splitlines()[0].split() == ["DIFFERS", "x", "a", "bit"]
    assert "-> nothing to do" in out and "ready" in out


@pytest.mark.parametrize("name, change, state", [
    ("_python", ("sys.version_info", (3, 10, 0)), "FAIL"),
    ("_python", ("sys.version_info", (3, 12, 0)), "OK"),
    ("_python", ("sys.version_info", (3, 13, 0)), "FAIL"),
    ("_cores", ("env.cores", lambda: 1), "DIFFERS"),
    ("_cores", ("env.cores", lambda: 2), "OK"),
    ("_memory", ("MEMORY_BYTES", 1e18), "FAIL"),
    ("_memory", ("MEMORY_BYTES", 1), "OK"),
    ("_disk", ("DISK_BYTES", 1e18), "FAIL"),
    ("_disk", ("DISK_BYTES", 1), "OK"),
    ("_bf16", ("env.precision", lambda: "bf16"), "OK"),
    ("_bf16", ("env.precision", lambda: "fp16"), "DIFFERS"),
    ("_bf16", ("env.precision", lambda: "fp32"), "DIFFERS"),
])  # fmt: skip
def test_each_check_of_the_machine_can_pass_and_not(monkeypatch, name, change, state):
    monkeypatch.setattr(f"labkit.doctor.{change[0]}", change[1])
    (finding,) = getattr(doctor, name)()
    assert finding.state == state
    assert bool(finding.remedy) == (state != "OK")


def test_a_missing_or_damaged_base_model_fails_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.delenv("LABKIT_MODEL", raising=False)
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    (finding,) = doctor._base_model()
    assert (finding.state, finding.remedy) == ("FAIL", "python -m labkit fetch")
    folder = base_model.model_dir()
    folder.mkdir()
    (folder / "complete.json").write_text('{"sizes": {"model.safetensors": 5}}')
    damaged = [finding for finding in doctor.examine() if finding.what == "base model"]
    assert damaged[0].state == "FAIL" and f"Delete {folder}" in damaged[0].remedy


def test_a_model_of_ones_own_is_pointed_out(monkeypatch):
    monkeypatch.setenv("LABKIT_MODEL", "owner/name")
    (finding,) = doctor._base_model()
    assert finding.state == "DIFFERS" and "owner/name" in finding.detail


def test_bitsandbytes_is_tried_and_not_only_imported(monkeypatch):
    (finding,) = doctor._bitsandbytes()
    assert finding.state == "OK"
    monkeypatch.setattr("bitsandbytes.functional.dequantize_4bit", lambda packed, state: packed * 0 + 9)
    monkeypatch.setattr("bitsandbytes.functional.quantize_4bit", lambda weight: (weight, None))
    (finding,) = doctor._bitsandbytes()
    assert finding.state == "FAIL" and "reinstall" in finding.remedy


def test_nothing_fails_on_this_machine(capsys):
    code = doctor.main()
    out = capsys.readouterr().out
    assert code == 0, out
    assert "tickets" in out and env.machine() not in ("", None)
