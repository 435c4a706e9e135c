"""`bench peaks`: one way of taking steps for all, a rank correlation, and a record to judge its claim by."""

import functools
from types import SimpleNamespace

import pytest

from labkit.bench import jobs, peaks
from labkit.bench import main as bench_main
from labkit.errors import LabkitError
from labkit.records import judge, ledger, store

CLAIMS = [claim for claim in ledger.ledger() if claim["record"] == peaks.NAME]
SIZES = {"full": (30, 3e9), "lora-r16": (10, 1e9), "lora-r64": (20, 2e9), "prompt-n100": (1, 9e9)}


def entry(name):
    where = "soft_prompts/modules" if name.startswith("prompt") else "lora"
    return {"module": f"labkit/methods/{where}.py", "rate": 0.001, "path": ["CUDA graph"]}


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Real main, jobs.run and files; pretended jobs, and a record that names four methods."""
    made = SimpleNamespace(started=[], profile="gpu", path={}, sizes=dict(SIZES), folder=tmp_path / "out")
    entries = {name: entry(name) for name in SIZES}
    made.source = {"values": {"settings": {"batch": 8, "length": 512}, "methods": entries}}

    def start(bench, name, folder, card, beside=1):
        made.started.append(name)
        (folder / f"{name}.log").write_text("")
        code = peaks.main(["--job", name, "--folder", str(folder)])
        return SimpleNamespace(exitcode=code, kill=lambda: None)

    def job(name):
        name = name.removeprefix("peak_")
        weights, peak = made.sizes[name]
        return {"trainable": weights, "peak bytes": peak, "path": made.path.get(name, "plain"),
                "seconds": 1.0, "peak_bytes": int(peak)}  # fmt: skip

    def read(name, *more, real=store.read):
        return made.source if name == peaks.SOURCE else real(name, *more)

    monkeypatch.setattr(peaks, "job", job)
    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(jobs, "cards", lambda: [None])
    monkeypatch.setattr(jobs.time, "sleep", lambda _: None)
    monkeypatch.setattr(store, "code_digest", functools.cache(store.code_digest))
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    monkeypatch.setattr(store, "read", read)
    monkeypatch.setattr(peaks.env, "profile", lambda: made.profile)
    return made


def run(world):
    assert bench_main(["peaks", "--folder", str(world.folder)]) == 0
    return store.read("peaks")


def test_a_run_leaves_a_record_that_decides_its_claim(world, capsys):
    whole = run(world)
    assert world.started == [f"peak_{name}" for name in SIZES]
    assert whole["values"]["settings"] == {"steps": peaks.STEPS, "batch": 8, "length": 512}
    out = capsys.readouterr().out
    assert "| full | 30 | 3.00 GB |  |" in out and "left out: 1.00." in out
    (claim,) = CLAIMS
    assert claim["id"] == "adapter-params"
    (band,) = claim["bands"]
    assert judge.estimate(band, judge.Recorded(whole)).mean == pytest.approx(1)


def test_soft_prompts_are_no_part_of_the_correlation_and_every_other_method_is(world):
    assert run(world)["values"]["rank correlation"] == pytest.approx(1)  # with the prompt: -0.2
    world.source["values"]["methods"]["prompt-n100"]["module"] = "labkit/methods/lora.py"
    assert run(world)["values"]["rank correlation"] == pytest.approx(-0.2)


def test_what_is_done_is_not_done_again_unless_the_settings_changed(world):
    run(world), run(world)
    assert len(world.started) == len(SIZES)
    world.source["values"]["settings"]["batch"] = 4
    run(world)
    assert len(world.started) == 2 * len(SIZES)


def test_a_method_without_a_rate_that_trains_is_left_out_and_two_ways_are_refused(world):
    world.source["values"]["methods"]["lora-r64"]["path"] = ["diverged"]
    assert run(world)["values"]["rank correlation"] is None  # two methods say nothing
    assert "peak_lora-r64" not in world.started
    world.path["full"] = "CUDA graph"
    world.folder = world.folder / "afresh"
    with pytest.raises(LabkitError, match="CUDA graph, plain"):
        run(world)


def test_without_a_record_of_methods_the_error_says_how_to_make_one(world):
    world.source = None
    with pytest.raises(LabkitError, match="bench methods"):
        run(world)


def test_correlation_is_of_ranks():
    assert peaks.correlation([1, 2, 3], [10, 20, 21]) == pytest.approx(1)
    assert peaks.correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert peaks.correlation([1, 2, 2, 4], [1, 3, 5, 5]) == pytest.approx(0.8333, abs=1e-4)
    assert peaks.correlation([1, 2, 3], [7, 7, 7]) is None


def test_a_real_job_takes_plain_steps_of_the_method_it_is_named_for(monkeypatch, tiny, tokenizer):
    monkeypatch.setattr("labkit.load_model", tiny, raising=False)
    monkeypatch.setattr("labkit.load_tokenizer", lambda: tokenizer, raising=False)
    counted = {}
    for name in ("full", "lora-r16"):
        found = peaks.job(f"peak_{name}")
        assert found["path"] == "plain" and found["peak bytes"] > 0
        counted[name] = found["trainable"]
    assert 0 < counted["lora-r16"] < counted["full"] == sum(one.numel() for one in tiny().parameters())
