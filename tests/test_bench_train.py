"""`bench train`: which jobs it runs, what it makes of them, and the table."""

import pytest

from labkit.bench import jobs, main, train, train_engines, train_report
from labkit.errors import LabkitError
from labkit.records import store

NOT_WHOLE = ("whole seconds", "start seconds", "loss")  # what a job without a whole run leaves empty
SPEED = {"eager": 100.0, "plain": 25.0}  # milliseconds a step; the rest as slow as eager


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """No training: each repeat is a millisecond slower. Returns (names of jobs, records written)."""
    names, written = [], []

    def run(bench, wanted, folder, count, digest):
        names.extend(wanted)
        assert (bench, count) == ("train", 1)  # engines must not share a card
        return {name: result(name) for name in wanted}

    def result(name):
        size, method, engine, repeat = name.split("-")
        step = SPEED.get(engine, 100.0) + int(repeat)
        return {
            "size": size, "method": method, "engine": engine, "step ms": step, "tokens/s": 1e6 / step,
            "whole seconds": 9.0, "start seconds": 1.0, "wall": 10.0, "peak bytes": 2e9, "loss": 0.5,
            **(dict.fromkeys(NOT_WHOLE) if int(repeat) or name[:-2] in train.STEPS_ONLY else {}),
        }  # fmt: skip

    monkeypatch.setattr(jobs, "run", run)
    monkeypatch.setattr(store, "write", lambda *a, **k: written.append(k) or tmp_path / "train.json")
    monkeypatch.setattr(train.env, "profile", lambda: "gpu")
    return names, written


def test_a_whole_run_has_every_engine_method_and_size_in_each_repeat(pretend, capsys):
    names, written = pretend
    assert main(["train"]) == 0
    suited = [engine for size in ("small", "large") for engine in train.SUITED[size]]
    again = [engine for engine in suited if engine not in train.ONCE]
    first = len(train.METHODS) * len(suited)
    assert len(names) == len(set(names)) == first + 2 * len(train.METHODS) * len(again)
    assert {name.rpartition("-")[2] for name in names[:first]} == {"0"}  # repeats are interleaved
    (record,) = written
    full = record["values"]["small"]["full"]
    assert (full["plain"]["step ms"], full["plain"]["step ms to"], full["plain"]["runs"]) == (26.0, 27.0, 3)
    assert (full["plain"]["whole seconds"], full["graph"]["whole seconds"]) == (None, 9.0)
    assert "wrote train.json" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--engines", "plain"], ["--sizes", "small"], ["--methods", "lora"]])
def test_a_part_of_it_is_a_trial_and_writes_no_record(pretend, options):
    names, written = pretend
    main(["train", "--repeats", "1", *options])
    assert names and not written
    main(["train", "--repeats", "1"])
    assert written  # the control


def test_on_a_cpu_the_engines_that_want_a_card_are_left_out(pretend, monkeypatch):
    names, _ = pretend
    monkeypatch.setattr(train.env, "profile", lambda: "cpu")
    main(["train", "--repeats", "1"])
    assert {name.split("-")[0] for name in names} == {"cpu"}
    assert {name.split("-")[2] for name in names} == {"eager", "plain", "trl", "trlpadded"}


def test_no_repeat_is_refused(pretend):
    with pytest.raises(LabkitError, match="--repeats 0"):
        main(["train", "--repeats", "0"])


def test_the_table_compares_by_tokens_with_eager_of_the_same_run(pretend):
    main(["train", "--repeats", "2"])
    lines = train_report.table(pretend[1][0]["values"])
    rows = [line for line in lines if line.startswith("| `fit`, step by step")]
    assert len(rows) == 2 and all("| 25.5 (25.0 to 26.0) | 3.94x |" in row for row in rows)
    assert all(row.endswith("| 2.0 |  |  |") for row in rows)  # its whole run was not made; eager's was
    eager = [line for line in lines if line.startswith("| transformers, eager")]
    assert all("| 1.00x |" in line and line.endswith("| 9.0 | 0.500 |") for line in eager)


def test_a_whole_run_shorter_than_its_steps_marks_the_price_as_unsteady(pretend):
    main(["train", "--repeats", "1"])
    values = pretend[1][0]["values"]
    assert "nsteady" not in "\n".join(train_report.table(values))  # the control
    values["large"]["full"]["eager"] |= {"whole seconds": 12.7, "start seconds": -11.1}
    lines = train_report.table(values)
    assert sum(", unsteady |" in line for line in lines) == 1 and "Unsteady: the whole run" in lines[-1]


@pytest.mark.parametrize(("name", "whole"), [("smoke-full-eager-0", True), ("smoke-full-eager-1", False)])
def test_a_job_without_a_whole_run_gives_neither_its_time_nor_its_loss(monkeypatch, name, whole):
    taken = {"whole seconds": 3.0, "start seconds": 1.0, "loss": 0.5, "step ms": 9.0}
    monkeypatch.setitem(train_engines.ENGINES, "eager", lambda *a, **k: dict(taken))
    method = type("Method", (), {"prepare": lambda self, seed: None})()
    monkeypatch.setattr("labkit.methods.find", lambda name: method)
    monkeypatch.setattr(train, "_own_cache", lambda *a, **k: None)
    found = train.job(name)
    assert found["step ms"] == 9.0
    assert [found[part] for part in NOT_WHOLE] == ([3.0, 1.0, 0.5] if whole else [None] * 3)


def test_engines_on_the_same_rows_start_from_the_same_loss(tiny, tokenizer, monkeypatch):
    from labkit import load

    rows = load("tickets")["train"].select(range(40))
    options = {"rate": 1e-3, "batch": 2, "length": 256, "whole": 1, "timed": 1}
    names = ("eager", "plain")
    found = {name: train_engines.ENGINES[name](tiny(), rows, tokenizer, **options) for name in names}
    assert found["eager"]["loss"] == pytest.approx(found["plain"]["loss"], abs=0.02)
    assert all(one["tokens/s"] > 0 and one["step ms"] > 0 for one in found.values())
    other = train_engines.eager(tiny(), rows.select(range(9, 40)), tokenizer, **options)
    assert other["loss"] != pytest.approx(found["plain"]["loss"], abs=1e-4)  # the control: other rows
