"""`bench methods`: the sweep, equal treatment, resuming, merging, and one method failing among others."""

import json
import math
import random
import shutil
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset

from labkit.bench import jobs, methods, methods_report
from labkit.bench import main as bench_main
from labkit.errors import LabkitError
from labkit.paths import ROOT
from labkit.records import ledger, stats, store

SETTINGS = {"task": "tickets", "loading": {}, "steps": 1, "batch": 1, "length": 256, "seeds": [0],
            "rows": 2, "model": "tiny", "jobs": 1, "digest": "d"}  # fmt: skip
RECORD = "methods_tickets"
FINAL = {"validation", "test", "rows", "training seconds", "tokens/s", "path", "trainable", "peak bytes",
         "diverged", "general loss", "probe", "probe rows", "device", "jobs", "seconds"}  # fmt: skip


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Real jobs.run and real files, but no processes and no training.

    `best` says at which rate a method is best, `lose` what a stage of it raises, `wild` which of its stages
    diverge (a final only with the last of three seeds), `kill` whose processes are killed.
    """
    made = SimpleNamespace(started=[], best={}, lose={}, wild=set(), kill=set(), folder=tmp_path / "out")

    def job(name, settings):
        cost = {"device": "a card", "jobs": settings["jobs"], "seconds": 10.0}
        general = {"probe": 0.7, "probe rows": "4:c0", "general loss": 3.5}
        if name == "base":
            return {**general, "weights": 1000, **cost}
        stage, method, rate, seed, _ = name.split("_")
        if (method, stage) in made.lose:
            raise made.lose[method, stage]
        if (method, stage) in made.wild and stage == "sweep":
            return {"right": 0.0, "loss": None, "diverged": True, **cost}
        away = abs(math.log10(float(rate) / made.best.get(method, 3e-4)))
        if stage == "sweep":
            return {"right": round(0.9 - away / 10, 6), "loss": away, "diverged": False, **cost}
        if (method, stage) in made.wild and seed == "2":
            weights = torch.nn.Linear(2, 5, bias=False)
            return {**methods._diverged(weights, 40), **cost}
        flags = [number % (int(seed) + 2) > 0 for number in range(40)]
        costs = {"training seconds": 5.0 + int(seed), "tokens/s": 100.0, "trainable": 10, "peak bytes": 7e9,
                 "path": "plain", "diverged": False}  # fmt: skip
        scores = {"test": sum(flags) / 40, "rows": stats.pack_rows(flags), "validation": 0.8}
        forgot = {**general, "general loss": (36 + int(seed)) / 10, "probe": (70 + int(seed)) / 100}
        return {**scores, **costs, **forgot, **cost}

    def start(bench, name, folder, card, beside=1):
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


def cells(line):
    return [cell.strip() for cell in line.split("|")[1:-1]]


def swept(**right):
    """{rate: result}, from `r3=0.5` (rate 1e-3) or `r3=(0.5, loss)`."""
    found = {}
    for name, value in right.items():
        share, loss = value if isinstance(value, tuple) else (value, None)
        found[10.0 ** -int(name[1:])] = {"right": share, "loss": loss}
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


def test_rates_of_ones_own_make_a_trial_that_tries_them_and_no_others_and_writes_no_record(world, capsys):
    world.best |= {"full": 2e-3, "lora-r4": 1e-3}
    code, started = run(world, "--methods", "full,lora-r4", "--seeds", "1", "--rates", "1e-3,5e-4")
    assert code == 0 and record() is None
    for method in ("full", "lora-r4"):
        assert rates(started, method) == [5e-4, 1e-3] and rates(started, method, "final") == [1e-3]
    shown = capsys.readouterr().out
    assert "A trial: no record was written." in shown and "still the lowest or highest" in shown
    run(world, "--methods", "full", "--seeds", "1")
    before = record()
    run(world, "--methods", "full", "--seeds", "1", "--rates", "1e-3")
    assert record() == before and set(before["values"]["methods"]["full"]["rates"]) > {"3e-05", "0.003"}


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
def test_among_equals_the_lower_loss_then_the_lower_rate_is_best(tried, best):
    assert methods.best_rate(tried) == pytest.approx(best)


# ---- equal treatment


@pytest.fixture(scope="module")
def whole_tickets():
    """All splits of tickets, loaded once."""
    from labkit import load

    return load("tickets")


@pytest.fixture
def data(whole_tickets):
    """The first rows of tickets."""
    return {split: rows.select(range(4)) for split, rows in whole_tickets.items()}


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


def phrasings(rows):
    return set(rows["phrasing"])


def test_the_rows_that_judge_rates_share_no_phrasing_with_those_trained_on(whole_tickets):
    rows = whole_tickets["train"]
    inside, unseen = methods.apart(rows)
    trained, judging = phrasings(inside), phrasings(unseen)
    assert not trained & judging and trained | judging == phrasings(rows)  # all kept out judge
    assert len(judging) == round(len(phrasings(rows)) / 5) and len(unseen) == methods.JUDGING == 600
    kept_out = [name for name in rows["phrasing"] if name in judging]
    assert len(inside) + len(kept_out) == len(rows) and len(set(inside["id"])) == len(inside)
    cut = len(rows) * 4 // 5  # what a cut by rows would do
    assert phrasings(rows.select(range(cut))) & phrasings(rows.select(range(cut, len(rows))))


def test_phrasings_are_kept_out_the_same_way_every_time_and_on_every_machine():
    names = [f"p{number:02}" for number in range(50)] * 3
    rows = Dataset.from_dict({"phrasing": names})
    torn = Dataset.from_dict({"phrasing": sorted(names, reverse=True)})
    state = random.getstate()
    kept_out = [phrasings(methods.apart(one)[1]) for one in (rows, rows, torn)]
    assert random.getstate() == state
    # Pinned: the order of a set of strings is another in every process.
    assert kept_out == [set("p00 p01 p07 p12 p14 p27 p28 p36 p43 p47".split())] * 3


def test_all_methods_train_on_the_same_rows_with_the_same_budget_and_seed(seen, data, monkeypatch):
    monkeypatch.setattr(methods, "_exact", lambda *_: SimpleNamespace(exact=1.0, exact_rows=[True]))
    monkeypatch.setattr(methods, "_general", lambda *_: {})
    for method in ("full", "lora-r2"):
        for stage, rate in (("sweep", "0.0003"), ("final", "0.001")):
            methods.job(f"{stage}_{method}_{rate}_5_x", SETTINGS)
    same = ("steps", "batch", "length", "seed")
    assert len(seen) == 4 and len({tuple(call[name] for name in same) for call in seen}) == 1
    swept, final = (list(rows["id"]) for rows in (methods.apart(data["train"])[0], data["train"]))
    assert [list(call["rows"]) for call in seen] == [swept, final] * 2 and len(swept) < len(final)
    assert all(call["seed"] == 5 for call in seen)
    assert [call["lr"] for call in seen] == [3e-4, 1e-3] * 2
    others = [set(call) - {*same, "rows", "model", "lr", "progress"} for call in seen]
    assert others == [{"validation", "validate_every"}, set()] * 2


def test_a_sweep_scores_phrasings_kept_from_it_and_a_final_both_splits_and_what_was_forgotten(
    seen, data, monkeypatch
):
    scored, real = [], methods._exact

    def exact(model, tokenizer, rows, settings):
        scored.append(list(rows["id"]))
        return real(model, tokenizer, rows, settings)

    monkeypatch.setattr(methods, "_exact", exact)
    sweep = methods.job("sweep_lora-r2_0.001_0_x", SETTINGS)
    assert set(sweep) == {"right", "loss", "diverged", "device", "jobs", "seconds"}
    assert 0 < sweep["loss"] < 20 and sweep["diverged"] is False
    unseen = list(methods.apart(data["train"])[1]["id"])
    assert scored == [unseen] and list(seen[0]["validation"]["id"]) == unseen
    assert not set(unseen) & set(seen[0]["rows"])
    final = methods.job("final_lora-r2_0.001_0_x", SETTINGS)
    assert sorted(scored[1:]) == sorted(list(data[split]["id"])[:2] for split in ("validation", "test"))
    assert set(final) == FINAL and final["diverged"] is False and final["rows"].startswith("2:")
    assert final["trainable"] == sum(w.numel() for w in seen[-1]["model"].parameters() if w.requires_grad)
    assert "validation" in seen[0] and "validation" not in seen[1]  # it would count as training time
    base = methods.job("base", SETTINGS)
    assert base["weights"] > final["trainable"] and base["probe rows"].startswith("2:")


def test_what_was_forgotten_is_measured_on_the_trained_model(seen):
    base = methods.job("base", SETTINGS)
    spoilt = methods.job("final_full_0.1_0_x", SETTINGS)
    assert abs(spoilt["general loss"] - base["general loss"]) > 1e-3
    assert methods.job("base", SETTINGS)["general loss"] == base["general loss"]


def test_a_training_that_diverges_is_a_result_without_a_row_right_and_no_failure(seen, monkeypatch):
    longer = {**SETTINGS, "steps": 4}
    sweep = methods.job("sweep_full_1e+30_0_x", longer)
    assert sweep["diverged"] is True and sweep["right"] == 0 and sweep["loss"] is None
    monkeypatch.setattr(methods, "_general", lambda *_: pytest.fail("of weights that are no numbers"))
    final = methods.job("final_full_1e+30_0_x", longer)
    assert final["diverged"] is True and set(final) == FINAL
    assert final["validation"] == final["test"] == 0 and final["rows"] == stats.pack_rows([False] * 2)
    unknown = {name for name, value in final.items() if value is None}
    assert unknown == {"training seconds", "tokens/s", "general loss", "probe", "probe rows"}
    assert final["trainable"] == sum(weight.numel() for weight in seen[-1]["model"].parameters())
    for stage in ("sweep", "final"):
        with pytest.raises(LabkitError, match="more than the packed row length"):  # what any rate would meet
            methods.job(f"{stage}_full_0.001_0_x", {**SETTINGS, "length": 16})


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
    change_code(monkeypatch, "labkit/methods/lora.py")
    _, started = run(world, "--methods", "full,lora-r4", *few)
    assert len(started) == 5 and all("lora-r4" in name for name in started)


@pytest.mark.parametrize("change", ["library", "engine", "scorer", "rows"])
def test_a_job_of_another_library_engine_scorer_or_row_is_no_result(world, monkeypatch, change):
    few = ("--methods", "full", "--seeds", "1", "--rows", "2")
    run(world, *few)
    assert run(world, *few)[1] == []
    if change == "library":
        monkeypatch.setattr(store, "versions", lambda: {"torch": "0.1"})
    elif change == "engine":
        monkeypatch.setattr("labkit.train.RESULTS", 1000)
    elif change == "scorer":
        change_code(monkeypatch, "labkit/tasks/tickets/answers.py")
    else:
        monkeypatch.setattr(store, "data_digest", lambda *families: dict.fromkeys(families, "other"))
    assert len(run(world, *few)[1]) == 6


def change_code(monkeypatch, *changed):
    """Let these files have another digest."""
    real = store.code_digest
    monkeypatch.setattr(store, "code_digest", lambda *files: {
        file: f"{'changed ' if file in changed else ''}{digest}" for file, digest in real(*files).items()
    })  # fmt: skip


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


def test_a_method_that_diverges_at_every_rate_fails(world, capsys):
    world.wild.add(("full", "sweep"))
    assert run(world, "--methods", "full", "--seeds", "1")[0] == 1
    assert "full FAILED at every rate from 1e-06 to 0.001: it diverged" in capsys.readouterr().err


def test_a_seed_that_diverges_at_the_best_rate_is_in_the_record_with_no_row_right(world, capsys):
    world.wild.add(("lora-r4", "final"))
    code, _ = run(world, "--methods", "full,lora-r4", "--seeds", "3")
    shown = capsys.readouterr()
    assert code == 0 and "FAILED" not in shown.err
    found = record()["values"]["methods"]
    assert (found["full"]["diverged"], found["lora-r4"]["diverged"]) == (0, 1)
    assert found["lora-r4"]["test"] == [0.5, 0.65, 0] and found["lora-r4"]["probe"] == [0.7, 0.71, None]
    assert found["lora-r4"]["path"] == ["diverged", "plain"] and found["lora-r4"]["peak bytes"] == 7e9
    assert [stats.unpack_rows(rows).sum() for rows in record()["scores"]["lora-r4"]["rows"]] == [20, 26, 0]
    full, lora = (cells(line) for line in methods_report.lines(record())[2:4])
    assert lora[4] == "0.0% to 65.0%" and lora[6:] == ["7.0 GB", "-", "-"] and "-" not in full[7:]
    assert "A seed whose training diverged counts as no row right." in shown.out
    assert run(world, "--methods", "full,lora-r4", "--seeds", "3") == (0, [])  # it is not tried once more


def test_where_every_seed_diverged_no_peak_is_shown(world):
    world.wild.add(("full", "final"))
    run(world, "--methods", "full", "--seeds", "3")
    whole = record()
    whole["values"]["methods"]["full"]["peak bytes"] = 0
    assert cells(methods_report.lines(whole)[2])[6] == "-"


def test_all_methods_measured_again_after_a_change_make_a_record_though_one_diverges(world, monkeypatch):
    run(world, "--methods", "full,lora-r4", "--seeds", "3")
    change_code(monkeypatch, "labkit/methods/lora.py")
    world.wild.add(("lora-r4", "final"))
    assert run(world, "--methods", "full,lora-r4", "--seeds", "3")[0] == 0
    assert record()["values"]["methods"]["lora-r4"]["diverged"] == 1 and store.stale(RECORD, "cpu") == []


@pytest.mark.parametrize("stage", ["sweep", "final"])
def test_a_method_that_changed_and_fails_leaves_the_record_unlocked(world, capsys, monkeypatch, stage):
    run(world, "--methods", "full,lora-r4", "--seeds", "1")
    change_code(monkeypatch, "labkit/methods/lora.py")
    world.lose["lora-r4", stage] = RuntimeError("CUDA out of memory")
    assert run(world, "--methods", "full,lora-r4", "--seeds", "1")[0] == 1
    assert "lora-r4 FAILED" in capsys.readouterr().err
    assert set(record()["scores"]) == set(record()["values"]["methods"]) == {"full"}
    assert store.stale(RECORD, "cpu") == []


def test_a_method_that_fails_and_did_not_change_stays_in_the_record(world):
    run(world, "--methods", "full,lora-r4", "--seeds", "1")
    before = record()
    shutil.rmtree(world.folder)  # so that all is trained anew
    world.lose["lora-r4", "final"] = RuntimeError("CUDA out of memory")
    assert run(world, "--methods", "full,lora-r4", "--seeds", "1")[0] == 1
    assert record()["scores"] == before["scores"] and store.stale(RECORD, "cpu") == []


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
    assert found["general loss"] == [3.6, 3.7, 3.8] and found["probe"] == [0.7, 0.71, 0.72]
    assert found["validation"] == [0.8] * 3 and found["diverged"] == 0 and found["made"] == whole["made"]
    assert found["trainable"] == 10 and found["peak bytes"] == 7e9 and found["tokens/s"] == [100] * 3
    assert whole["values"]["base"]["general loss"] == 3.5
    asked = whole["values"]["settings"]
    assert (asked["task"], asked["steps"], asked["seeds"], asked["rows"]) == ("tickets", 300, [0, 1, 2], None)
    # seven jobs of full, and of lora-r4 one more, for a further rate; ten seconds each
    assert whole["seconds"] == 150 and found["seconds of all jobs"] == 70


def test_a_record_goes_stale_with_measuring_code_methods_and_rows_and_not_with_its_table(world, monkeypatch):
    run(world, "--methods", "full", "--seeds", "1")
    assert store.stale(RECORD, "cpu") == []
    code = {"labkit/bench/methods.py", "labkit/methods/full.py", "labkit/evaluate.py",
            "labkit/tasks/tickets/answers.py"}  # fmt: skip
    assert set(record()["digest"]) == {*code, "labkit.train.RESULTS", "data/tickets", "data/general"}
    with monkeypatch.context() as patch:
        change_code(patch, *code, "labkit/bench/methods_report.py", "labkit/methods/lora.py")
        patch.setattr("labkit.train.RESULTS", 1000)
        changed = {*code, "labkit.train.RESULTS"}
        found = set(store.stale(RECORD, "cpu"))
    assert found == {f"{what} changed since {RECORD}.cpu.json was recorded" for what in changed}
    assert store.stale(RECORD, "cpu") == []


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


def test_a_method_of_default_size_stands_under_its_short_name_too(world):
    run(world, "--methods", "lora-r16,lora-r4", "--seeds", "1")
    scores = record()["scores"]
    assert set(scores) == {"lora-r16", "lora-r4", "lora"} and scores["lora"] == scores["lora-r16"]
    assert [methods_report.methods.short(name) for name in ("lora-r16", "lora-r4", "full")] == [
        "lora", "lora-r4", "full"
    ]  # fmt: skip


def test_the_table_says_which_peaks_do_not_compare(world):
    names = ("full", "lora-r4", "lora-r16", "prompt-n4")
    run(world, "--methods", ",".join(names), "--seeds", "1")
    whole = record()
    entries = whole["values"]["methods"]

    def said():
        return "Peaks compare only" in "".join(methods_report.lines(whole))

    usual = entries["full"]["path"]
    assert not said()
    entries["lora-r16"]["path"] = ["diverged", *usual]
    entries["prompt-n4"]["path"] = ["another way"]  # its places come on top: its peak is apart anyway
    assert not said()
    entries["lora-r16"]["path"] = ["another way"]
    assert said() and "another way: lora-r16. Peaks of all" in "".join(methods_report.lines(whole))


@pytest.fixture
def ledger_of(monkeypatch):
    """`ledger_of(c=0.9, d=0.5)` makes these all the claims, with bands at these floors; the record counts."""
    monkeypatch.setattr(store, "path_of", lambda name, profile="gpu", real=store.path_of: real(name, "cpu"))
    stated = []
    monkeypatch.setattr(ledger, "ledger", lambda: stated)

    def state(**floors):
        stated[:] = [
            {"id": name, "lesson": "05", "kind": "measured", "record": RECORD, "claim": "", "beside": [],
             "bands": [{"score": "full", "says": "full", "at_least": floor}]}
            for name, floor in floors.items()
        ]  # fmt: skip
        return {claim["id"]: claim for claim in stated}

    return state


def test_a_record_holds_the_bands_that_stood_when_its_jobs_were_done(world, ledger_of):
    claims = ledger_of(c=0.9, d=0.5)
    run(world, "--methods", "full", "--seeds", "1")
    assert record()["claims"] == {name: ledger.band_digest(claim) for name, claim in claims.items()}
    assert all(ledger.record_of(claim)["name"] == RECORD for claim in claims.values())


@pytest.mark.parametrize("again", ["full", "full,lora-r4"])
def test_a_band_moved_after_measuring_shows_when_all_is_run_again_and_nothing_is_new(world, ledger_of, again):
    ledger_of(c=0.9)
    run(world, "--methods", "full,lora-r4", "--seeds", "1")
    before = record()["claims"]
    easier = ledger_of(c=0.1)["c"]
    assert run(world, "--methods", again, "--seeds", "1") == (0, [])
    assert record()["claims"] == before
    store.path_of(RECORD).unlink()  # nor does it help to make the record as if for the first time
    assert run(world, "--methods", again, "--seeds", "1") == (0, [])
    with pytest.raises(LabkitError, match="band of c changed after"):
        ledger.record_of(easier)
    assert ledger.record_of(ledger_of(c=0.9)["c"]) is not None  # put back


def test_a_band_moved_after_measuring_is_right_once_all_is_measured_under_it(world, ledger_of):
    ledger_of(c=0.9)
    run(world, "--methods", "full", "--seeds", "1")
    shutil.rmtree(world.folder)
    moved = ledger_of(c=0.1)["c"]
    run(world, "--methods", "full", "--seeds", "1")
    assert ledger.record_of(moved) is not None


def test_a_band_moved_before_other_methods_join_shows_though_it_is_put_back(world, ledger_of):
    ledger_of(c=0.9)
    run(world, "--methods", "full", "--seeds", "1")
    moved = ledger_of(c=0.1)["c"]
    run(world, "--methods", "lora-r4", "--seeds", "1")
    for claim in (moved, ledger_of(c=0.9)["c"]):
        with pytest.raises(LabkitError, match="band of c changed while"):
            ledger.record_of(claim)


def test_a_band_moved_between_a_sweep_and_its_finals_shows_by_either_band(world, ledger_of):
    ledger_of(c=0.9)
    world.lose["full", "final"] = RuntimeError("the card is gone")
    run(world, "--methods", "full", "--seeds", "1")
    world.lose.clear()
    next(world.folder.glob("*/base.json")).unlink()  # so that of what is old only the sweep is left
    moved = ledger_of(c=0.1)["c"]
    run(world, "--methods", "full", "--seeds", "1")
    for claim in (moved, ledger_of(c=0.9)["c"]):
        with pytest.raises(LabkitError, match="band of c changed while"):
            ledger.record_of(claim)


def test_results_older_than_the_record_they_join_do_not_take_its_band(world, ledger_of):
    ledger_of(c=0.9)
    run(world, "--methods", "lora-r4", "--seeds", "1")
    store.path_of(RECORD).unlink()  # what lora-r4 scored is known, and its results lie in the folder
    for name in ("base", "full"):
        for path in world.folder.glob(f"*/*{name}*.json"):
            path.unlink()
    moved = ledger_of(c=0.1)["c"]
    run(world, "--methods", "full", "--seeds", "1")
    assert ledger.record_of(moved) is not None
    assert run(world, "--methods", "lora-r4", "--seeds", "1") == (0, [])
    with pytest.raises(LabkitError, match="band of c changed while"):
        ledger.record_of(moved)


def test_a_claim_added_before_other_methods_join_is_not_this_record_s(world, ledger_of):
    ledger_of(c=0.9)
    run(world, "--methods", "full", "--seeds", "1")
    late = ledger_of(c=0.9, late=0.1)["late"]
    for names in ("lora-r4", "full,lora-r4"):  # the second takes all from the folder
        run(world, "--methods", names, "--seeds", "1")
        assert set(record()["scores"]) == {"full", "lora-r4"} and set(record()["claims"]) == {"c"}
        assert ledger.record_of(late) is None and "  not measured yet" in ledger.table("05")
    shutil.rmtree(world.folder)
    run(world, "--methods", "full,lora-r4", "--seeds", "1")
    assert set(record()["claims"]) == {"c", "late"} and ledger.record_of(late) is not None


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
    change_code(monkeypatch, "labkit/methods/full.py")
    with pytest.raises(LabkitError, match=r"methods/full.py changed since .*measure them again \(full\)"):
        run(world, "--methods", "lora-r4", "--seeds", "1")
    assert run(world, "--methods", "lora-r4,full", "--seeds", "1")[0] == 0
    assert set(record()["scores"]) == {"full", "lora-r4"} and store.stale(RECORD, "cpu") == []


def test_methods_measured_with_other_libraries_do_not_join_a_record(world, monkeypatch):
    run(world, "--methods", "full", "--seeds", "1")
    before, started = record(), len(world.started)
    monkeypatch.setattr(store, "versions", lambda: {**before["versions"], "torch": "0.1"})
    with pytest.raises(LabkitError, match=r"recorded with another torch\. .*measure them again \(full\)"):
        run(world, "--methods", "lora-r4", "--seeds", "1")
    assert record() == before and len(world.started) == started
    assert len(run(world, "--methods", "lora-r4,full", "--seeds", "1")[1]) == 12
    assert record()["versions"]["torch"] == "0.1" and set(record()["scores"]) == {"full", "lora-r4"}


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
    assert widths == {10} and lines[2].startswith("| full |")
    lora = cells(lines[3])
    assert lora[:3] == ["lora-r4", "10 (1%)", "0.0003"] and lora[3].startswith("63.3% [")
    assert lora[4] == "50.0% to 75.0%" and lora[5].startswith("+0.0 [")
    # Over three seeds: the mean, and 4.303 (Student's t) times 0.1 or 1 point over the root of 3 around it.
    assert lora[6:] == ["7.0 GB", "+0.200 [-0.048, +0.448]", "+1.0 [-1.5, +3.5]"]
    assert cells(lines[2])[5] == ""  # full has no gap to itself
    assert "diverged" not in "".join(lines) and "tokens/s" not in "".join(lines)
    assert "a card, 4 at a time" in lines[-1] and "300 steps of 8 x 512" in " ".join(lines)


def test_one_seed_has_no_interval_of_what_was_forgotten(world):
    run(world, "--methods", "full", "--seeds", "1")
    assert cells(methods_report.lines(record())[2])[6:] == ["7.0 GB", "+0.100", "+0.0"]


def test_a_soft_prompt_has_no_number_of_what_was_forgotten_and_the_table_says_why(world):
    run(world, "--methods", "full,prompt-n4", "--seeds", "1")
    whole = record()
    lines = methods_report.lines(whole)
    assert cells(lines[2])[7:] == ["+0.100", "+0.0"] and cells(lines[3])[7:] == ["-", "-"]
    assert "-: what is lost with a soft prompt on" in "\n".join(lines)
    del whole["values"]["methods"]["prompt-n4"]
    assert "soft prompt" not in "\n".join(methods_report.lines(whole))


def test_a_table_has_the_day_of_each_method(world):
    run(world, "--methods", "full,lora-r4", "--seeds", "1")
    whole = record()
    for name, day in (("full", "2026-03-02"), ("lora-r4", "2026-02-01")):
        whole["values"]["methods"][name]["made"] = day
    assert methods_report.lines(whole)[-1].endswith(". 2026-02-01, 2026-03-02.")


def test_a_readme_without_a_record_says_how_to_measure(world):
    assert "bench methods --task tickets" in methods_report.text()
    run(world, "--methods", "full", "--seeds", "1")
    store.path_of(RECORD, "cpu").rename(store.path_of(RECORD))
    assert methods_report.text().startswith("| method | trainable weights |")


@pytest.mark.parametrize("option, value", [
    ("--task", "general"), ("--rates", "2"), ("--seeds", "0"), ("--rows", "-1")
])  # fmt: skip
def test_arguments_that_cannot_be_are_refused_with_the_usage(world, capsys, option, value):
    with pytest.raises(SystemExit):
        run(world, "--methods", "full", option, value)
    assert option in capsys.readouterr().err and world.started == []


def test_the_methods_of_the_record_are_listed_in_the_code():
    record = json.loads((ROOT / "data" / "measurements" / "methods_tickets.json").read_text())
    assert sorted(record["values"]["methods"]) == sorted(methods_report.RECORDED)
