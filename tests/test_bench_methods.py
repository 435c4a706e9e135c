"""`bench methods`: the sweep, equal treatment, resuming, merging, and one method failing among others."""

import json
import math
from types import SimpleNamespace

import pytest

from labkit.bench import jobs, methods, methods_report
from labkit.bench import main as bench_main
from labkit.errors import LabkitError
from labkit.records import ledger, stats, store

SETTINGS = {"task": "tickets", "loading": {}, "steps": 1, "batch": 1, "length": 256, "seeds": [0],
            "rows": 2, "model": "tiny", "jobs": 1, "digest": "d"}  # fmt: skip
RECORD = "methods_tickets"


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Real jobs.run and real files, but no processes and no training: `best` and `lose` say what is found."""
    made = SimpleNamespace(started=[], best={}, lose={}, kill=set(), folder=tmp_path / "out")

    def job(name, settings):
        cost = {"device": "a card", "jobs": settings["jobs"], "seconds": 10.0}
        general = {"probe": 0.7, "probe rows": "4:c0", "general loss": 3.5}
        if name == "base":
            return {**general, "weights": 1000, **cost}
        stage, method, rate, seed, _ = name.split("_")
        if (method, stage) in made.lose:
            raise made.lose[method, stage]
        away = abs(math.log10(float(rate) / made.best.get(method, 3e-4)))
        validation = round(0.9 - away / 10, 6)
        if stage == "sweep":
            return {"validation": validation, "loss": away, "diverged": False, **cost}
        flags = [number % (int(seed) + 2) > 0 for number in range(40)]
        costs = {"training seconds": 5.0 + int(seed), "tokens/s": 100.0, "trainable": 10, "peak bytes": 7,
                 "path": "plain"}  # fmt: skip
        scores = {"test": sum(flags) / 40, "rows": stats.pack_rows(flags), "validation": validation}
        return {**scores, **costs, **general, "general loss": 3.6, **cost}

    def start(bench, name, folder, card):
        assert bench == "methods"
        made.started.append(name)
        (folder / f"{name}.log").write_text("Killed")
        code = -9 if methods._method_of(name) in made.kill else methods._one(folder, name)
        return SimpleNamespace(exitcode=code, kill=lambda: None)

    monkeypatch.setattr(methods, "job", job)
    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(jobs, "cards", lambda: [None])
    monkeypatch.setattr(jobs.time, "sleep", lambda _: None)
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    monkeypatch.delenv("LABKIT_MODEL", raising=False)
    monkeypatch.setenv("LABKIT_PROFILE", "cpu")
    return made


def run(world, *arguments):
    """(exit code, jobs started by this call)."""
    before = len(world.started)
    code = bench_main(["methods", *arguments, "--folder", str(world.folder)])
    return code, world.started[before:]


def record():
    return store.read(RECORD, "cpu")


def rates(started, method="full", stage="sweep"):
    return [float(name.split("_")[2]) for name in started if name.startswith(f"{stage}_{method}_")]


def swept(**validation):
    """{rate: result}, from `r3=0.5` (rate 1e-3) or `r3=(0.5, loss)`."""
    found = {}
    for name, value in validation.items():
        share, loss = value if isinstance(value, tuple) else (value, None)
        found[10.0 ** -int(name[1:])] = {"validation": share, "loss": loss}
    return found


# ---- the sweep


def test_four_rates_are_tried_and_every_seed_is_trained_at_the_best(world):
    code, started = run(world, "--methods", "full", "--seeds", "3")
    assert code == 0 and started[0] == "base" and len(started) == 8
    assert rates(started) == [3e-5, 1e-4, 3e-4, 1e-3]
    assert rates(started, stage="final") == [3e-4] * 3
    found = record()["values"]["methods"]["full"]
    assert found["rate"] == 3e-4 and found["at an end"] is False
    assert found["rates"] == {"3e-05": 0.8, "0.0001": 0.852288, "0.0003": 0.9, "0.001": 0.847712}


@pytest.mark.parametrize("best, more, last, at_an_end", [
    (3e-3, [3e-3, 1e-2], 3e-3, False),
    (1.0, [3e-3, 1e-2, 3e-2], 3e-2, True),
    (1e-5, [1e-5, 3e-6], 1e-5, False),
    (1e-9, [1e-5, 3e-6, 1e-6], 1e-6, True),
])  # fmt: skip
def test_while_the_best_is_at_an_end_one_more_rate_is_tried_at_most_three_on_a_side(
    world, capsys, best, more, last, at_an_end
):
    world.best["full"] = best
    _, started = run(world, "--methods", "full", "--seeds", "1")
    assert rates(started)[4:] == more and rates(started, stage="final") == [last]
    found = record()["values"]["methods"]["full"]
    assert found["at an end"] is at_an_end and found["rate"] == last and len(found["rates"]) == 4 + len(more)
    assert ("still the lowest or highest" in capsys.readouterr().out) is at_an_end


def test_rates_of_ones_own_replace_those_of_every_method_and_are_extended_alike(world):
    world.best |= {"full": 2e-3, "lora-r4": 1e-3}
    _, started = run(world, "--methods", "full,lora-r4", "--seeds", "1", "--rates", "1e-3,5e-4")
    assert rates(started, "full") == [5e-4, 1e-3, 3e-3, 1e-2]
    assert rates(started, "lora-r4") == [5e-4, 1e-3, 3e-3]


def test_extending_a_rate_upwards_and_downwards_keeps_to_ones_and_threes():
    up, down = [1e-4], [1e-3]
    for _ in range(4):
        up.append(methods._beside(up[-1], up=True))
        down.append(methods._beside(down[-1], up=False))
    assert up == [1e-4, 3e-4, 1e-3, 3e-3, 1e-2] and down == [1e-3, 3e-4, 1e-4, 3e-5, 1e-5]
    assert 2 < methods._beside(2e-4, up=True) / 2e-4 < 5 and 2 < 5e-4 / methods._beside(5e-4, up=False) < 5


@pytest.mark.parametrize("tried, best", [
    (swept(r4=0.5, r3=0.6), 1e-3),
    (swept(r4=(0.5, 2.0), r3=(0.6, 9.0)), 1e-3),
    (swept(r4=(0.5, 2.0), r3=(0.5, 1.0), r2=(0.5, 3.0)), 1e-3),
    (swept(r4=(0.5, 1.0), r3=(0.5, 1.0)), 1e-4),
    (swept(r4=0.5, r3=0.5), 1e-4),
    (swept(r4=0.0, r3=(0.0, 5.0)), 1e-3),
], ids=["more right", "loss decides nothing else", "lower loss", "lower rate", "no loss", "not the diverged"])
def test_among_equals_the_lower_validation_loss_then_the_lower_rate_is_best(tried, best):
    assert methods.best_rate(tried) == pytest.approx(best)


# ---- equal treatment


@pytest.fixture(scope="module")
def data():
    """The first rows of tickets, loaded once."""
    from labkit import load

    return {split: rows.select(range(4)) for split, rows in load("tickets").items()}


@pytest.fixture
def seen(monkeypatch, tiny, data):
    """Real jobs of a tiny model on a few rows, whose calls of `fit` are kept."""
    from labkit import train

    calls = []

    def fit(model, rows, tokenizer, **options):
        calls.append({**options, "rows": rows["id"], "model": model})
        return train.fit(model, rows, tokenizer, **options)

    monkeypatch.setattr("labkit.load", lambda task: data if task == "tickets" else {}, raising=False)
    monkeypatch.setattr("labkit.load_model", tiny, raising=False)
    monkeypatch.setattr("labkit.fit", fit, raising=False)
    return calls


def test_all_methods_train_on_the_same_rows_with_the_same_budget_and_seed(seen, monkeypatch):
    monkeypatch.setattr(methods, "_exact", lambda *_: SimpleNamespace(exact=1.0, exact_rows=[True]))
    monkeypatch.setattr(methods, "_general", lambda *_: {})
    for method in ("full", "lora-r2"):
        for stage, rate in (("sweep", "0.0003"), ("final", "0.001")):
            methods.job(f"{stage}_{method}_{rate}_5_x", SETTINGS)
    same = ("steps", "batch", "length", "seed")
    assert len(seen) == 4 and len({tuple(call[name] for name in same) for call in seen}) == 1
    assert all(call["rows"] == seen[0]["rows"] and call["seed"] == 5 for call in seen)
    assert [call["lr"] for call in seen] == [3e-4, 1e-3] * 2
    others = [set(call) - {*same, "rows", "model", "lr", "progress"} for call in seen]
    assert others == [{"validation", "validate_every"}, set()] * 2


def test_a_sweep_scores_validation_rows_only_and_a_final_both_splits_and_what_was_forgotten(seen):
    sweep = methods.job("sweep_lora-r2_0.001_0_x", SETTINGS)
    assert set(sweep) == {"validation", "loss", "diverged", "device", "jobs", "seconds"}
    assert 0 < sweep["loss"] < 20 and sweep["diverged"] is False
    final = methods.job("final_lora-r2_0.001_0_x", SETTINGS)
    assert {"test", "rows", "general loss", "probe"} <= set(final) and final["rows"].startswith("2:")
    assert final["trainable"] == sum(w.numel() for w in seen[-1]["model"].parameters() if w.requires_grad)
    assert "validation" in seen[0] and "validation" not in seen[1]  # it would count as training time
    base = methods.job("base", SETTINGS)
    assert base["weights"] > final["trainable"] and base["probe rows"].startswith("2:")


def test_what_was_forgotten_is_measured_on_the_trained_model(seen):
    base = methods.job("base", SETTINGS)
    spoilt = methods.job("final_full_0.1_0_x", SETTINGS)
    assert abs(spoilt["general loss"] - base["general loss"]) > 1e-3
    assert methods.job("base", SETTINGS)["general loss"] == base["general loss"]


def test_a_rate_at_which_training_diverges_is_a_bad_rate_and_no_failure(seen):
    longer = {**SETTINGS, "steps": 4}
    found = methods.job("sweep_full_1e+30_0_x", longer)
    assert found["diverged"] is True and found["validation"] == 0 and found["loss"] is None
    with pytest.raises(LabkitError, match="^the loss is"):
        methods.job("final_full_1e+30_0_x", longer)
    with pytest.raises(LabkitError, match="more than the packed row length"):  # what any rate would meet
        methods.job("sweep_full_0.001_0_x", {**SETTINGS, "length": 16})


# ---- jobs and resuming


def test_a_second_run_trains_nothing_anew_and_gives_the_same_record(world):
    run(world, "--methods", "full,lora-r4", "--seeds", "2")
    first = record()
    assert run(world, "--methods", "full,lora-r4", "--seeds", "2", "--resume") == (0, [])
    assert record() == first


def test_an_interrupted_run_goes_on_where_it_stopped(world):
    world.lose["full", "final"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(world, "--methods", "full", "--seeds", "2")
    assert record() is None and len(world.started) == 6
    world.lose.clear()
    code, started = run(world, "--methods", "full", "--seeds", "2")
    assert code == 0 and [name[:12] for name in started] == ["final_full_0"] * 2


def test_other_settings_or_a_changed_method_are_trained_anew_and_only_they(world, monkeypatch):
    few = ("--seeds", "1", "--rows", "2")  # a trial: no record that could be in the way
    run(world, "--methods", "full,lora-r4", *few)
    assert len(run(world, "--methods", "full,lora-r4", *few, "--steps", "7")[1]) == 11
    real = store.code_digest
    monkeypatch.setattr(store, "code_digest", lambda *files: {
        file: "changed " + digest if "lora" in file else digest for file, digest in real(*files).items()
    })  # fmt: skip
    _, started = run(world, "--methods", "full,lora-r4", *few)
    assert len(started) == 5 and all("lora-r4" in name for name in started)


def test_methods_are_known_before_anything_starts(world):
    with pytest.raises(LabkitError, match="no method 'lorra'"):
        run(world, "--methods", "full,lorra")
    with pytest.raises(LabkitError, match="name the methods.*lora-rN"):
        run(world)
    assert world.started == []


def test_two_names_of_one_method_are_one(world):
    _, started = run(world, "--methods", "lora,lora-r16", "--seeds", "1")
    assert len(started) == 7  # base, four rates, a further one below them, one final
    assert all("lora-r16" in name for name in started[1:])


# ---- one that fails


@pytest.mark.parametrize("stage", ["sweep", "final"])
def test_a_failing_method_is_reported_and_the_others_are_recorded(world, capsys, stage):
    world.lose["dora-r4", stage] = RuntimeError("CUDA out of memory")
    code, _ = run(world, "--methods", "dora-r4,full", "--seeds", "2")
    shown = capsys.readouterr()
    assert code == 1 and "dora-r4 FAILED" in shown.err and "CUDA out of memory" in shown.err
    assert set(record()["values"]["methods"]) == set(record()["scores"]) == {"full"}
    assert "| full |" in shown.out and "dora-r4" not in shown.out
    world.lose.clear()
    code, started = run(world, "--methods", "dora-r4,full", "--seeds", "2")
    assert code == 0 and started and all("dora-r4" in name for name in started)
    assert set(record()["scores"]) == {"dora-r4", "full"}


def test_a_method_whose_process_is_killed_loses_only_itself(world, capsys):
    world.kill.add("dora-r4")
    code, _ = run(world, "--methods", "dora-r4,full", "--seeds", "1", "--jobs", "4")
    assert code == 1 and "dora-r4 FAILED" in capsys.readouterr().err
    assert set(record()["scores"]) == {"full"}


def test_nothing_is_recorded_where_all_fail(world, capsys):
    world.lose["full", "sweep"] = RuntimeError("no")
    assert run(world, "--methods", "full")[0] == 1
    assert record() is None and "full FAILED" in capsys.readouterr().err
    world.kill.add("base")
    with pytest.raises(LabkitError, match="the base itself(.|\n)*Killed"):
        run(world, "--methods", "full", "--steps", "9")


def test_a_method_that_diverges_at_every_rate_fails(world, capsys, monkeypatch):
    real = methods.job

    def job(name, settings):
        wild = name.startswith("sweep") and {"validation": 0.0, "loss": None, "diverged": True}
        return {**real(name, settings), **(wild or {})}

    monkeypatch.setattr(methods, "job", job)
    assert run(world, "--methods", "full", "--seeds", "1")[0] == 1
    assert "full FAILED at every rate from 1e-06 to 0.001: it diverged" in capsys.readouterr().err


# ---- the record


def test_a_record_holds_rows_of_every_seed_and_all_that_was_measured(world):
    run(world, "--methods", "full,lora-r4", "--seeds", "3")
    whole = record()
    assert set(whole["scores"]) == {"full", "lora-r4"} and whole["seed"] == 0
    score = whole["scores"]["full"]
    assert (score["task"], score["split"], len(score["rows"])) == ("tickets", "test", 3)
    assert [stats.unpack_rows(rows).mean() for rows in score["rows"]] == [0.5, 0.65, 0.75]
    found = whole["values"]["methods"]["full"]
    assert found["test"] == [0.5, 0.65, 0.75] and found["seconds"] == [5, 6, 7]
    assert found["general loss"] == [3.6] * 3 and found["probe"] == [0.7] * 3
    assert found["trainable"] == 10 and found["peak bytes"] == 7 and found["tokens/s"] == [100] * 3
    assert whole["values"]["base"]["general loss"] == 3.5
    asked = whole["values"]["settings"]
    assert (asked["task"], asked["steps"], asked["seeds"], asked["rows"]) == ("tickets", 300, [0, 1, 2], None)
    # seven jobs of full, and of lora-r4 one more, for a further rate; ten seconds each
    assert whole["seconds"] == 150 and found["seconds of all jobs"] == 70


def test_a_record_goes_stale_with_measuring_code_methods_and_rows_and_not_with_its_table(world, monkeypatch):
    run(world, "--methods", "full", "--seeds", "1")
    assert store.stale(RECORD, "cpu") == []
    parts = {"labkit/bench/methods.py", "labkit/methods/full.py", "data/tickets", "data/general"}
    assert set(record()["digest"]) == parts
    real = store.code_digest
    changed = "labkit/methods/full.py"
    monkeypatch.setattr(store, "code_digest", lambda *files: {**real(*files), changed: "new"})
    assert store.stale(RECORD, "cpu") == [f"{changed} changed since {RECORD}.cpu.json was recorded"]


def test_a_later_run_with_other_methods_joins_the_record(world):
    run(world, "--methods", "full", "--seeds", "2")
    before = record()
    _, started = run(world, "--methods", "lora-r4", "--seeds", "2")
    whole = record()
    assert all("lora-r4" in name for name in started)
    assert set(whole["scores"]) == set(whole["values"]["methods"]) == {"full", "lora-r4"}
    assert whole["scores"]["full"] == before["scores"]["full"]
    assert whole["values"]["methods"]["full"] == before["values"]["methods"]["full"]
    assert "labkit/methods/lora.py" in whole["digest"] and whole["seconds"] > before["seconds"]


def test_a_band_moved_between_two_runs_that_join_stays_detected(world, monkeypatch):
    claim = {"id": "c", "lesson": "05", "record": RECORD, "claim": "", "beside": [],
             "bands": [{"score": "full", "says": "full", "at_least": 0.9}]}  # fmt: skip
    monkeypatch.setattr(ledger, "ledger", lambda: [claim])
    run(world, "--methods", "full", "--seeds", "1")
    before = record()["claims"]
    claim["bands"] = [{"score": "full", "says": "full", "at_least": 0.1}]
    run(world, "--methods", "lora-r4", "--seeds", "1")
    assert record()["claims"] == before
    run(world, "--methods", "full,lora-r4", "--seeds", "1")  # all measured under the band of now
    assert record()["claims"]["c"] == ledger.band_digest(claim) != before["c"]


@pytest.mark.parametrize("other", [("--steps", "200"), ("--seeds", "2"), ("--batch", "4")])
def test_other_settings_are_refused_before_any_work_and_the_record_stays(world, other):
    run(world, "--methods", "full", "--seeds", "1")
    before, started = record(), len(world.started)
    words = rf"other settings: {other[0][2:]} .* there and .*move the file away"
    with pytest.raises(LabkitError, match=words):
        run(world, "--methods", "lora-r4", "--seeds", "1", *other)
    assert record() == before and len(world.started) == started


def test_after_a_change_of_code_all_methods_of_a_record_must_be_measured_again(world, monkeypatch):
    run(world, "--methods", "full", "--seeds", "1")
    real = store.code_digest
    changed = {"labkit/methods/full.py": "new"}
    monkeypatch.setattr(store, "code_digest", lambda *files: {
        file: changed.get(file, digest) for file, digest in real(*files).items()
    })  # fmt: skip
    with pytest.raises(LabkitError, match=r"methods/full.py changed since .*measure them again \(full\)"):
        run(world, "--methods", "lora-r4", "--seeds", "1")
    assert run(world, "--methods", "lora-r4,full", "--seeds", "1")[0] == 0
    assert set(record()["scores"]) == {"full", "lora-r4"} and store.stale(RECORD, "cpu") == []


# ---- trials and the table


def test_a_trial_scores_few_rows_tries_no_further_rates_and_writes_no_record(world, capsys):
    world.best["full"] = 1.0
    code, started = run(world, "--methods", "full", "--seeds", "1", "--rows", "4")
    assert code == 0 and rates(started) == [3e-5, 1e-4, 3e-4, 1e-3]
    assert record() is None and "A trial: no record was written." in capsys.readouterr().out


def test_the_smoke_profile_is_a_trial_of_two_steps(world, monkeypatch):
    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    run(world, "--methods", "full", "--seeds", "1")
    [settings] = [json.loads(path.read_text()) for path in world.folder.glob("*/settings.json")]
    assert (settings["steps"], settings["batch"], settings["rows"]) == (2, 1, 4)
    assert store.read(RECORD, "smoke") is None


def test_the_table_has_a_line_a_method_with_intervals_gaps_and_what_was_forgotten(world, capsys):
    run(world, "--methods", "full,lora-r4", "--seeds", "3", "--jobs", "4")
    lines = methods_report.lines(record())
    assert "\n".join(lines) in capsys.readouterr().out
    widths = {line.count("|") for line in lines if line.startswith("|")}
    assert widths == {12} and lines[2].startswith("| full |")
    cells = [cell.strip() for cell in lines[3].split("|")[1:-1]]
    assert cells[:3] == ["lora-r4", "10 (1%)", "0.0003"] and cells[3].startswith("63.3% [")
    assert cells[4] == "50.0% to 75.0%" and cells[5].startswith("+0.0 [")
    assert cells[6:] == ["6 s", "100", "0.0 GB", "+0.100", "+0.0"]
    assert lines[2].split("|")[6].strip() == ""  # full has no gap to itself
    assert "a card, 4 at a time" in lines[-1] and "300 steps of 8 x 512" in " ".join(lines)


def test_a_readme_without_a_record_says_how_to_measure(world):
    assert "bench methods --task tickets" in methods_report.text()
    run(world, "--methods", "full", "--seeds", "1")
    store.path_of(RECORD, "cpu").rename(store.path_of(RECORD))
    assert methods_report.text().startswith(methods_report.HEAD)


@pytest.mark.parametrize("option, value", [
    ("--task", "general"), ("--rates", "2"), ("--seeds", "0"), ("--rows", "-1")
])  # fmt: skip
def test_arguments_that_cannot_be_are_refused_with_the_usage(world, capsys, option, value):
    with pytest.raises(SystemExit):
        run(world, "--methods", "full", option, value)
    assert option in capsys.readouterr().err and world.started == []
