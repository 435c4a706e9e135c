"""`bench merging`: choices by validation, shares kept, jobs on a tiny model, and a record to judge from."""

import functools
import json
import math
from types import SimpleNamespace

import pytest
import torch

from labkit import tasks
from labkit.bench import jobs, markdown, merging_jobs, merging_more, merging_report, merging_values
from labkit.bench import main as bench_main
from labkit.bench import merging as bench
from labkit.errors import LabkitError
from labkit.methods import merging
from labkit.records import judge, ledger, stats, store

CLAIMS = [claim for claim in ledger.ledger() if claim["record"] == bench.NAME]


def right(share, rows=2000):
    """Packed flags of which this share is right, spread evenly."""
    return stats.pack_rows([int((row + 1) * share) > int(row * share) for row in range(rows)])


# ---- a world in which the claims hold -------------------------------------------------------------------

ALONE = {"tickets": 0.8, "sql": 0.6, "voice": 0.7}  # a specialist's test share; its validation share is 1
SIZES = {"tickets": 1000, "sql": 1000, "voice": 400}  # test rows that are scored
# Share of the gain kept by the best setting; a step of the grid away from it keeps 0.1 less.
MERGED = {"average": 0.5, "task-arithmetic": 0.9, "slerp-models": 0.5, "slerp-deltas": 0.6, "ties": 0.95,
          "ties-untrimmed": 0.97, "ties-unelected": 0.4, "dare": 0.85, "dare-ties": 0.7}  # fmt: skip
BEST = 2  # place of the best setting in a grid that has so many


def size(task):
    """Test rows of a task that this profile scores."""
    return min(SIZES[task], bench.settings()["rows"])


def kept(world, method, setting):
    """{task: share of the gain that a merge keeps on validation rows}."""
    if (method, setting) in world.validation:
        return world.validation[method, setting]
    names = [merging_jobs.written(one) for one in merging_jobs.GRID[method]]
    away = abs(names.index(setting) - min(BEST, len(names) - 1))
    return dict.fromkeys(ALONE, MERGED[method] - 0.1 * min(away, 5))


def pretended(name, world):
    """A job's result."""
    kind, *rest = name.split("_")
    if kind == "base":
        return {"validation": dict.fromkeys(ALONE, 0.0),
                "rows": {task: right(0, size(task)) for task in ALONE},
                "tickets loss": 2.0, "general loss": 3.5}  # fmt: skip
    if kind == "specialist":
        own = {task: world.alone[task] if task == rest[0] else 0.0 for task in ALONE}
        return {"validation": {task: float(bool(share)) for task, share in own.items()},
                "rows": {task: right(share, size(task)) for task, share in own.items()}}  # fmt: skip
    if kind == "joint":
        share = world.joint[float(rest[0])]
        return {"validation": dict.fromkeys(merging_jobs.SETS["pair"], share),
                "rows": {task: right(share * ALONE[task], size(task)) for task in merging_jobs.SETS["pair"]}}
    if kind == "adapter":
        return {"validation": {}, "rows": {task: right(0.5, 1000) for task in merging_jobs.LORA_RATES}}
    if kind == "sweep":
        away = abs(math.log10(float(rest[1]) / world.rate))
        return {"right": 0.0, "loss": 1 + away, "diverged": False}
    if kind == "tune":
        names = [merging_jobs.written(one) for one in merging_jobs.GRID[rest[1]]]
        return {"shares": {setting: {task: kept(world, rest[1], setting)[task]
                                     for task in merging_jobs.SETS[rest[0]]} for setting in names},
                "counts": dict.fromkeys(merging_jobs.SETS[rest[0]], 200)}  # fmt: skip
    if kind == "final":
        some, method, setting, _ = rest
        share = world.final.get(method, kept(world, method, setting)["tickets"])
        return {"rows": {task: right(share * ALONE[task], size(task)) for task in merging_jobs.SETS[some]}}
    if kind == "dare":
        return {"rows": {"rescaled": right(world.dare.get(float(rest[0]), 0.8)), "as it is": right(0.4)}}
    if kind == "soup":
        parents = dict.fromkeys(merging_more.groups(bench.GPU)[rest[0]], 0.98)
        return {"rows": {name: right(share) for name, share in world.soup.items()}, "parents": parents,
                "parents on test": {name: right(world.soup["best parent"]) for name in parents},
                "members": list(parents)[:2]}  # fmt: skip
    if kind == "lora":
        error = {"cat": 1e-7, "svd": 0.4, "linear": 1.0}[rest[0]]
        weights = {"0.5": error, "0.7": error, "1": error}
        scored = dict.fromkeys(merging_jobs.LORA_RATES, 0.5)
        return {"error": weights, "validation": dict.fromkeys(weights, scored), "weight": "0.7",
                "rows": {task: right(0.5, 1000) for task in scored}}  # fmt: skip
    if kind == "grow":
        spike, after = (2.0, world.after) if rest[0] == "stacked" else (0.0, -0.2 * (rest[0] == "longer"))
        before, last = ({"text": 3 + gap, "general": 3.5 + gap} for gap in (spike, after - 1))
        return {"before": before, "after": last, "layers": 45, "weights": 190_000_000,
                "steps": 418 if rest[0] == "longer" else 300, "tokens": 1_200_000, "passes": 4.7,
                "curve": [[0, before["text"]], [30, 2.5], [300, last["text"]]]}  # fmt: skip
    if kind == "probe":
        one = {"penalty": 0.1, "size": 576, "rows": right(0.9, 1000)}
        return {"probes": dict.fromkeys(merging_more.PROBED, one)}
    one = {"right": 0.0, "tickets loss": 4.0, "general loss": 3.6}
    return {"specialist": one, "negated": one}


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Real main, jobs.run and files, but pretended jobs."""
    made = SimpleNamespace(
        started=[], folder=tmp_path / "out", profile="gpu", rate=3e-4, alone=dict(ALONE), validation={},
        final={}, dare={}, joint={1e-4: 0.5, 2e-4: 0.9, 3e-4: 0.8},
        soup={"soup": 0.85, "greedy soup": 0.84, "best parent": 0.8}, after=-0.1,
    )  # fmt: skip

    def job(name, folder):
        return {**pretended(name, made), "seconds": 1.0, "peak_bytes": 5}

    def start(bench_name, name, folder, card, beside=1):
        made.started.append(name)
        (folder / f"{name}.log").write_text("")
        code = bench.main(["--job", name, "--folder", str(folder)])
        return SimpleNamespace(exitcode=code, kill=lambda: None)

    monkeypatch.setattr(bench, "job", job)
    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(store, "code_digest", functools.cache(store.code_digest))  # one process, many jobs
    monkeypatch.setattr(store, "data_digest", functools.cache(store.data_digest))
    monkeypatch.setattr(ledger, "bands", functools.cache(ledger.bands))
    monkeypatch.setattr(jobs, "cards", lambda: [None] * 99)  # all at once: `run` sleeps between rounds
    monkeypatch.setattr(jobs.time, "sleep", lambda _: None)
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    monkeypatch.setattr(bench.env, "profile", lambda: made.profile)
    return made


def run(world):
    assert bench_main(["merging", "--folder", str(world.folder)]) == 0
    return store.read("merging")


def verdicts(whole):
    source = judge.Recorded(whole)
    return {claim["id"]: ledger.conclusion(ledger.judge_all(claim, source)) for claim in CLAIMS}


HOLD = dict.fromkeys(("merge-soup", "merge-multitask", "merge-dare", "merge-stack"), "reproduced")


def test_a_run_leaves_a_record_with_every_value_and_score_that_the_claims_name(world, capsys):
    whole = run(world)
    source = judge.Recorded(whole)
    for claim in CLAIMS:
        for band in [*claim["bands"], *claim["beside"]]:
            assert judge.estimate(band, source) is not None, (claim["id"], band)
    assert verdicts(whole) == HOLD
    assert {claim["id"] for claim in CLAIMS} <= set(whole["claims"])
    assert store.stale("merging") == []
    printed = capsys.readouterr().out
    assert printed.count("\n| --- |") == 8 and "tickets + sql: TIES *" in printed
    assert merging_report.lines() == merging_report.lines(whole["values"])


def test_a_second_run_starts_nothing_and_without_a_gpu_there_is_no_record(world, capsys):
    run(world)
    before = len(world.started)
    run(world)
    assert len(world.started) == before == len(set(world.started))
    store.path_of("merging").unlink()
    world.profile = "smoke"
    assert bench_main(["merging", "--folder", str(world.folder)]) == 0
    assert len(world.started) > before  # the results of another profile do not count
    assert store.read("merging") is None and "a trial" in capsys.readouterr().out
    assert merging_report.lines() == [markdown.missing("merging")]
    assert merging_report.sweep_points() == {}


def test_a_stage_waits_for_what_it_reads(world):
    run(world)
    kinds = [name.partition("_")[0] for name in world.started]
    first = {kind: kinds.index(kind) for kind in kinds}
    last = {kind: len(kinds) - 1 - kinds[::-1].index(kind) for kind in kinds}
    trained = max(last[kind] for kind in ("specialist", "adapter", "base", "sweep"))
    assert all(trained < first[kind] for kind in ("tune", "dare", "soup", "negate", "lora", "grow", "probe"))
    assert last["tune"] < first["final"]
    needed = set(merging_more.groups(bench.GPU)["all"])
    for seed in (0, 1, 2):
        needed |= {merging_jobs.specialist_of(task, seed) for task in ALONE}
        needed |= {merging_jobs.adapter_of(task, seed) for task in merging_jobs.LORA_RATES}
    assert needed == {name for name in world.started if name.startswith(("specialist", "adapter"))}


# ---- choices


def test_settings_are_chosen_on_validation_with_one_seed_and_tested_with_all(world):
    whole = run(world)
    finals = [name for name in world.started if name.startswith("final_")]
    assert "final_pair_ties_0.2-1.5_2" in finals and "final_pair_task-arithmetic_0.5_1" in finals
    assert "final_three_average_none_0" in finals and not any("three_slerp" in name for name in finals)
    assert len(finals) == (9 + 5) * 3  # one setting a method, every seed
    assert not any(name.startswith("tune_") and name[-1].isdigit() for name in world.started)
    found = whole["values"]
    assert found["best"] == {"pair": "ties", "three": "ties"}
    assert found["merges"]["pair"]["ties"]["setting"] == "0.2-1.5"
    assert found["kept"]["sql"]["each"] == pytest.approx([0.95] * 3, abs=0.01)


def test_test_rows_have_no_say_in_which_method_is_best(world):
    world.final = {"dare": 1.0, "ties": 0.5}  # on test rows the order is another
    whole = run(world)
    assert whole["values"]["best"]["pair"] == "ties"
    assert whole["values"]["kept"]["tickets"]["each"] == pytest.approx([0.5] * 3, abs=0.01)
    assert verdicts(whole) == {**HOLD, "merge-multitask": "contradicted here"}


def test_the_best_merge_is_the_one_whose_worse_task_keeps_most(world):
    world.validation = {
        ("ties", "0.2-0.5"): {"tickets": 1.0, "sql": 0.94, "voice": 0.0},  # the better mean of two
        ("ties", "0.5-2"): {"tickets": 0.96, "sql": 0.96, "voice": 0.96},
    }
    merges = run(world)["values"]["merges"]
    assert merges["pair"]["ties"]["setting"] == merges["three"]["ties"]["setting"] == "0.5-2"
    assert merging_jobs.worth({"a": 0.2, "b": 0.9}) > merging_jobs.worth({"a": 0.1, "b": 1.0})
    assert merging_jobs.worth({"a": 0.2, "b": 0.9}) > merging_jobs.worth({"a": 0.2, "b": 0.8})
    assert merging_jobs.worth({"a": None, "b": 0.8}) == (0, 0.4)


def test_controls_are_never_best_and_methods_within_one_standard_error_of_the_best_are_marked(world):
    found = run(world)["values"]
    assert found["best"]["pair"] == "ties"  # untrimmed keeps more
    assert found["near best"] == {"pair": ["ties", "ties-untrimmed"], "three": ["ties"]}
    assert found["merges"]["pair"]["ties"]["error"] == pytest.approx(0.0157, abs=1e-3)  # of 95% of 200 rows
    assert merging_values.error(0.5, 200, 0.5) == pytest.approx(2 * (0.25 / 200) ** 0.5)
    assert merging_values.error(1.0, 200, 1.0) > 0 == merging_values.error(0.5, 200, 0.0)
    table = "\n".join(merging_report.merges_table())
    assert "control: TIES, nothing trimmed ~ | scale 1.5 |" in table and "DARE ~" not in table
    assert "task arithmetic | scale 0.5 |" in table and "| density 0.2 (end), scale 1.5 |" in table


def test_ends_of_a_grid_are_known_and_a_single_setting_has_none():
    tried = [merging_jobs.written(one) for one in merging_jobs.GRID["ties"]]
    assert merging_jobs.at_ends("0.2-1.5", tried) == [0] and merging_jobs.at_ends("0.5-2", tried) == [0, 1]
    scales = [merging_jobs.written(one) for one in merging_jobs.GRID["task-arithmetic"]]
    assert merging_jobs.at_ends("0.3", scales) == [0] and merging_jobs.at_ends("0.4", scales) == []
    assert merging_jobs.at_ends("none", ["none"]) == []


def test_training_on_both_tasks_has_a_rate_of_its_own_and_stands_beside_the_merges(world):
    found = run(world)["values"]
    assert found["joint"]["rate"] == 2e-4 and not found["joint"]["at an end"]
    assert found["joint"]["steps"] == 2 * bench.GPU["steps"]
    assert found["kept by training on both"]["sql"]["each"] == pytest.approx([0.9] * 3, abs=0.01)
    table = " ".join(merging_report.merges_table())
    assert "trained on both: tickets + sql | rate 0.0002, 600 steps" in table


def test_a_specialist_without_a_gain_leaves_the_claim_undecided(world):
    world.alone["sql"] = 0.0
    whole = run(world)
    assert whole["values"]["kept"]["sql"] == [None] * 3 != whole["values"]["kept"]["tickets"]
    assert verdicts(whole)["merge-multitask"] == "undecided"
    assert "no gain" in " ".join(merging_report.merges_table())


# ---- what would contradict


def test_other_results_contradict_the_claims(world):
    world.soup, world.final = {"soup": 0.9, "greedy soup": 0.75, "best parent": 0.8}, {"ties": 0.7}
    world.dare, world.after = {0.9: 0.7}, 0.1
    assert verdicts(run(world)) == dict.fromkeys(HOLD, "contradicted here")


def test_a_dropped_delta_that_does_better_contradicts_too_and_no_other_claim(world):
    world.dare = {0.9: 0.9, 0.99: 0.1}
    assert verdicts(run(world)) == {**HOLD, "merge-dare": "contradicted here"}


def test_a_stack_is_judged_against_a_base_that_read_the_same_at_the_best_rate_of_its_own(world):
    world.rate = 1e-5
    found = run(world)["values"]
    swept = [name.split("_")[1:3] for name in world.started if name.startswith("sweep_")]
    each = [{float(rate) for arm, rate in swept if arm == one} for one in ("base", "stacked")]
    assert each[0] == each[1] >= set(bench.TEXT_RATES) and min(each[0]) < 1e-5
    assert found["stack"]["base"]["sweep"]["best"] == found["stack"]["stacked"]["sweep"]["best"] == 1e-5
    assert found["before"] == pytest.approx(2.0) and found["after"] == pytest.approx([-0.1] * 3)
    assert found["general after"] == pytest.approx([-0.1] * 3)
    assert found["after, equal compute"] == pytest.approx([0.1] * 3) and found["longer"]["steps"] == 418
    assert {name for name in world.started if "longer" in name} == {
        f"grow_longer_1e-05_{seed}" for seed in (0, 1, 2)}  # at the base's rate, and not swept
    printed = " ".join(merging_report.stack_table())
    assert "equal compute: the base 418 steps" in printed and "4.7 passes" in printed


def test_pre_training_that_diverges_at_every_rate_stops_the_run(world, monkeypatch):
    real = bench.job

    def job(name, folder):
        bad = {"right": 0.0, "loss": None, "diverged": True, "seconds": 1.0, "peak_bytes": 5}
        return bad if name.startswith("sweep_stacked_") else real(name, folder)

    monkeypatch.setattr(bench, "job", job)
    with pytest.raises(LabkitError, match="pre-training of stacked failed at every rate"):
        run(world)


# ---- plots


def test_points_of_the_plots_are_numbers_of_the_tables(world):
    whole = run(world)["values"]
    points = merging_report.sweep_points()
    assert set(points["three"]) == set(ALONE) and set(points["pair"]) == {"tickets", "sql"}
    assert [scale for scale, _ in points["pair"]["sql"]] == pytest.approx([s / 10 for s in range(3, 11)])
    assert dict(points["pair"]["sql"])[0.5] == whole["tuned"]["pair"]["task-arithmetic"]["0.5"]["sql"] == 0.9


# ---- jobs on a tiny model -------------------------------------------------------------------------------


@functools.cache
def few_rows(family, **options):
    return {split: rows.select(range(min(24, len(rows))))
            for split, rows in tasks.load(family, **options).items()}  # fmt: skip


@pytest.fixture
def small(monkeypatch, tiny, tokenizer, tmp_path):
    """Real jobs under the smoke budget on a tiny model, with a few rows, and short answers."""

    def load_model(dtype=torch.float32):
        with torch.random.fork_rng():  # a model that is read from files draws nothing
            return tiny().to(dtype)

    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    monkeypatch.setattr("labkit.load_model", load_model, raising=False)
    monkeypatch.setattr("labkit.load", few_rows, raising=False)
    monkeypatch.setattr("labkit.load_tokenizer", lambda: tokenizer, raising=False)
    for module in (merging_jobs, merging_more):
        monkeypatch.setattr(module, "english", lambda *_: 3.5)
    for task in merging_jobs.RATES:
        monkeypatch.setattr(f"labkit.tasks.{task}.MAX_NEW_TOKENS", 2, raising=False)
    return SimpleNamespace(job=lambda name: bench.job(name, tmp_path), folder=tmp_path, load=load_model)


@pytest.fixture
def fits(small, monkeypatch):
    """What `fit` was called with, in order; it still trains."""
    from labkit.train import fit

    calls = []

    def spy(model, rows, tokenizer, **options):
        calls.append(SimpleNamespace(model=model, rows=rows, **options))
        return fit(model, rows, tokenizer, **options)

    monkeypatch.setattr("labkit.fit", spy, raising=False)
    return calls


@pytest.fixture
def kin(small, monkeypatch):
    """Specialists without a training, {name: state}, and `scored`: the states that were, and on which rows.

    `kin.score` gives (share right, loss) of a state on rows.
    """
    base = merging.state(small.load())
    names = [*merging_more.groups(bench.SMOKE)["all"],
             *(merging_jobs.specialist_of(task, 0) for task in merging_jobs.RATES)]  # fmt: skip
    made = SimpleNamespace(base=base, states={}, scored=[], score=lambda *_: (1.0, 1.0))
    for number, name in enumerate(dict.fromkeys(names)):
        generator = torch.Generator().manual_seed(number)
        made.states[name] = {key: weight + 0.1 * torch.randn(weight.shape, generator=generator)
                             for key, weight in base.items()}  # fmt: skip
        merging_jobs.keep(small.folder, name, made.states[name])

    def scored(model, tokenizer, rows):
        state, found = merging.state(model), {}
        for task, some in rows.items():
            made.scored.append((state, task, some))
            count = round(made.score(state, some)[0] * len(some))
            found[task] = SimpleNamespace(exact=count / len(some),
                                          exact_rows=[row < count for row in range(len(some))])  # fmt: skip
        return found

    def nats(model, tokenizer, rows):
        return made.score(merging.state(model), rows)[1]

    for module in (merging_jobs, merging_more):
        monkeypatch.setattr(module, "scored", scored)
        monkeypatch.setattr(module, "nats", nats)
    return made


def deltas(kin, *tasks):
    """The embedding's part of the deltas of these specialists, as vectors."""
    return [(kin.states[merging_jobs.specialist_of(task, 0)][PLACE] - kin.base[PLACE]).flatten()
            for task in tasks]  # fmt: skip


def moved(state, kin):
    return (state[PLACE] - kin.base[PLACE]).flatten()


PLACE = "model.layers.0.mlp.up_proj.weight"


def test_a_specialist_leaves_its_weights_and_is_scored_on_all_tasks_at_its_own_rate(fits, small):
    found = small.job("specialist_voice_0.0001_0")
    assert set(found["rows"]) == set(found["validation"]) == {"tickets", "sql", "voice"}
    assert (fits[-1].lr, fits[-1].steps, fits[-1].seed) == (1e-4, 1, 0)
    assert fits[-1].rows[0]["completion"][0]["content"] == fits[-1].rows[0]["reply"]  # gold, no draft
    left = merging_jobs.recall(small.folder, "specialist_voice_0.0001_0")
    assert all(torch.equal(left[name], weight) for name, weight in merging.state(fits[-1].model).items())
    assert not torch.equal(left[PLACE], merging.state(small.load())[PLACE])
    assert small.job("specialist_tickets_0.001_0")["rows"] == {}


def test_training_on_both_reads_as_many_rows_of_each_for_the_steps_of_both(fits, small):
    found = small.job("joint_0.0002_0")
    assert set(found["rows"]) == set(found["validation"]) == {"tickets", "sql"}
    assert (fits[-1].lr, fits[-1].steps, fits[-1].seed) == (2e-4, 2, 0)
    texts = [str(row["prompt"]) for row in fits[-1].rows]
    both = [{str(row["prompt"]) for row in few_rows(task)["train"]} for task in ("tickets", "sql")]
    assert [sum(text in one for text in texts) for one in both] == [24, 24] and len(texts) == 48


def test_a_specialist_that_diverges_says_so_and_leaves_nothing(small, monkeypatch):
    def fit(*args, **options):
        raise LabkitError("the loss is nan at step 3")

    monkeypatch.setattr("labkit.fit", fit, raising=False)
    with pytest.raises(LabkitError, match="full on sql diverged at 0.0002"):
        small.job("specialist_sql_0.0002_0")
    assert not merging_jobs.state_file(small.folder, "specialist_sql_0.0002_0").exists()


def test_weights_are_kept_whole_or_not_at_all_and_missing_or_damaged_ones_are_named(tmp_path, monkeypatch):
    state = {"w": torch.arange(3.0)}
    merging_jobs.keep(tmp_path, "one", state)
    assert torch.equal(merging_jobs.recall(tmp_path, "one")["w"], state["w"])

    def failing(*_):
        raise OSError("full")

    monkeypatch.setattr(merging_jobs.os, "replace", failing)
    with pytest.raises(OSError):
        merging_jobs.keep(tmp_path, "two", state)
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["one.safetensors"]
    merging_jobs.state_file(tmp_path, "one").write_bytes(b"1234567890")
    for name in ("one", "two"):
        with pytest.raises(LabkitError, match=f"delete {name}.json"):
            merging_jobs.recall(tmp_path, name)


def test_each_method_merges_as_its_name_says(kin, small):
    a, b = deltas(kin, "tickets", "sql")
    named = {
        "average_none": (a + b) / 2, "task-arithmetic_0.4": 0.4 * (a + b),
        "slerp-deltas_0.5": (a + b) / 2**0.5,  # of nearly one length and nearly at right angles
    }  # fmt: skip
    for name, wanted in named.items():
        small.job(f"final_pair_{name}_0")
        there = moved(kin.scored[-1][0], kin)
        assert (there - wanted).norm() < 0.03 * wanted.norm(), name
        assert (there - 0.7 * wanted).norm() > 0.2 * wanted.norm(), name
    small.job("final_pair_ties_0.2-2_0")
    assert 0.2 < (moved(kin.scored[-1][0], kin).abs() > 1e-6).double().mean() < 0.4
    small.job("final_pair_ties-untrimmed_1_0")
    agree = (a.sign() == b.sign()).float()  # untrimmed: the mean of two that agree, else the larger one
    wanted = agree * (a + b) / 2 + (1 - agree) * torch.where(a.abs() > b.abs(), a, b)
    assert (moved(kin.scored[-1][0], kin) - wanted).norm() < 1e-3 * wanted.norm()
    small.job("final_pair_ties-unelected_0.5-1_0")
    there, (first, second) = moved(kin.scored[-1][0], kin), (merging.trim(one, 0.5) for one in (a, b))
    both = (first != 0) & (second != 0)
    assert torch.allclose(there[both], ((first + second) / 2)[both], atol=1e-6)  # whatever their signs
    small.job("final_pair_dare_0.9-0.6_0")
    there = moved(kin.scored[-1][0], kin)
    alone = there[(there.abs() > 1e-5)]
    assert len(alone) / len(there) == pytest.approx(0.19, abs=0.02)
    ratios = torch.stack([(there / one - 6).abs() for one in (a, b)]).amin(0)[there.abs() > 1e-5]
    assert (ratios < 1e-3).double().mean() > 0.9  # 0.6 / 0.1 of one delta, but where both are kept


def test_a_tuning_tries_the_grid_on_validation_rows_and_a_final_one_setting_on_test_rows(
    kin, small, monkeypatch
):
    monkeypatch.setattr(bench, "settings", lambda: {**bench.SMOKE, "settings": 3})
    kin.score = lambda state, rows: (float(moved(state, kin).norm() > 0), 1.0)
    job = small.job("tune_three_dare")
    found = job["shares"]
    assert job["counts"] == dict.fromkeys(found["0.5-0.4"], 2)
    assert set(found) == {"0.5-0.4", "0.5-0.6", "0.5-0.8"}
    assert all(shares == {"tickets": 1.0, "sql": 1.0, "voice": 1.0} for shares in found.values())
    assert all("validation" in rows[0]["id"] for _, _, rows in kin.scored) and len(kin.scored) == 9
    kin.scored.clear()
    assert set(small.job("final_pair_dare_0.5-0.4_0")["rows"]) == {"tickets", "sql"}
    assert all("-test-" in rows[0]["id"] for _, _, rows in kin.scored)


def test_a_setting_is_written_and_read_back():
    for settings in merging_jobs.GRID.values():
        for setting in settings:
            text = merging_jobs.written(setting)
            assert merging_jobs._read(text) == pytest.approx(setting) and "_" not in text
    assert set(merging_jobs.GRID) == set(merging_jobs.MERGES) == set(merging_report.SETTINGS)
    assert merging_report.setting("ties", "0.2-1.5") == "density 0.2, scale 1.5"
    assert merging_report.setting("average", "none") == ""


def test_dare_drops_from_the_tickets_delta_and_compares_the_claimed_rates_on_more_rows(kin, small):
    (delta,) = deltas(kin, "tickets")
    for name, size, times in (("dare_0.9_0", 3, (10, 1)), ("dare_0.5_0", 2, (2, 1))):
        kin.scored.clear()
        found = small.job(name)["rows"]
        assert set(found) == {"rescaled", "as it is"} and found["rescaled"].startswith(f"{size}:")
        for (state, _, _), factor in zip(kin.scored, times, strict=True):
            there = moved(state, kin)
            left = there.abs() > 1e-6
            assert left.double().mean() == pytest.approx(1 / times[0], abs=0.03)
            assert torch.allclose(there[left], factor * delta[left], rtol=1e-2, atol=1e-4)
    kin.scored.clear()
    found = small.job("dare_0_0")["rows"]
    assert len(kin.scored) == 1 and found["rescaled"] == found["as it is"]
    assert torch.allclose(moved(kin.scored[0][0], kin), delta, atol=1e-5)


def test_negation_takes_the_delta_away(kin, small):
    (delta,) = deltas(kin, "tickets")
    found = small.job("negate_0")
    assert set(found["negated"]) == {"right", "tickets loss", "general loss"}
    for (state, _, _), sign in zip(kin.scored, (1, -1), strict=True):
        assert torch.allclose(moved(state, kin), sign * delta, atol=1e-5)


def test_soups_at_each_seed_have_no_parent_in_common_and_all_rates():
    found = merging_more.groups(bench.GPU)
    triples = [set(found[str(seed)]) for seed in (0, 1, 2)]
    assert len(set().union(*triples)) == 9 == len(found["all"]) and set(found["all"]) == set.union(*triples)
    assert all(len(one) == 3 for one in triples) and len({name[-1] for name in triples[1]}) == 1
    assert {name.split("_")[2] for name in found["seeds"]} == {"0.0003"} and len(found["seeds"]) == 3
    assert merging_jobs.RATES["tickets"] in merging_jobs.SOUP_RATES


def test_a_soup_stands_against_the_parent_that_validation_rows_call_best(kin, small):
    names = merging_more.groups(bench.SMOKE)["0"]
    parents = [kin.states[name][PLACE] for name in names]

    def score(state, rows):
        place = next((number for number, one in enumerate(parents) if torch.equal(state[PLACE], one)), None)
        if "validation" in rows[0]["id"]:  # the first two have as many right; the second's loss is lower
            return (1.0, (0.5, 0.1, 0.2)[place]) if place in (0, 1) else (0.5, 0.0)
        return (1.0 if place == 2 else 1 / 3 if place == 1 else 0.0), 1.0  # test rows like the third best

    kin.score = score
    found = small.job("soup_0")
    assert found["members"] == [names[1]]  # what it tried beside was worse
    assert stats.unpack_rows(found["rows"]["best parent"]).sum() == 1
    assert found["rows"]["greedy soup"] == found["rows"]["best parent"] != found["rows"]["soup"]
    assert found["parents"] == {names[0]: 1.0, names[1]: 1.0, names[2]: 0.5}
    tested = {name: stats.unpack_rows(rows).sum() for name, rows in found["parents on test"].items()}
    assert tested == {names[0]: 0, names[1]: 1, names[2]: 3}  # another choice would have met this
    uniform = next(state for state, _, rows in kin.scored if "-test-" in rows[0]["id"])
    assert torch.allclose(uniform[PLACE], sum(parents) / 3, atol=1e-5)


def test_adapters_are_exact_side_by_side_and_far_off_when_a_and_b_are_mixed(small, monkeypatch):
    for name in ("adapter_tickets_0.003_0", "adapter_sql_0.003_0"):
        assert set(small.job(name)["rows"]) == {"tickets", "sql"}
        assert all("lora_" in key for key in merging_jobs.recall(small.folder, name))
    seen, real = [], merging_more.shares

    def shares(model, tokenizer, rows):
        layer = next(part for part in model.modules() if hasattr(part, "lora_A"))
        seen.append((model.active_adapters, list(layer.merged_adapters)))
        return real(model, tokenizer, rows)

    monkeypatch.setattr(merging_more, "shares", shares)
    monkeypatch.setattr(bench, "settings", lambda: {**bench.SMOKE, "settings": 2})
    cat, linear = small.job("lora_cat_0"), small.job("lora_linear_0")
    assert set(cat["error"]) == set(cat["validation"]) == {"0.5", "0.7"} and cat["weight"] == "0.5"
    assert max(cat["error"].values()) < 1e-5 < 0.3 < min(linear["error"].values())
    assert seen[:2] == [(["weight50"], ["weight50"]), (["weight70"], ["weight70"])]  # one at a time


def test_a_stack_is_half_as_deep_again():
    assert merging_more.stacked(30) == [*range(23), *range(8, 30)] and len(merging_more.stacked(30)) == 45
    assert merging_more.stacked(32) == merging.upscaled(32, 8)  # SOLAR's
    assert merging_more.stacked(2) == [0, 1, 1]


def test_the_base_and_the_stack_read_the_same_and_are_judged_by_other_text(fits, small):
    base, stack = small.job("grow_base_0.001_0"), small.job("grow_stacked_0.001_0")
    assert (base["layers"], stack["layers"]) == (2, 3) and stack["weights"] > base["weights"]
    one, other = fits
    assert one.rows == other.rows and one.validation == other.validation
    assert (one.steps, one.seed, one.lr, one.prompt_loss_weight) == (1, 0, 0.001, 1.0)
    read = {row["prompt"] + row["completion"] for row in one.rows}
    asked = {row["prompt"] + row["completion"] for row in one.validation}
    assert not read & asked and len(asked) == 3 * 2  # of each kind, as many as the trial wants
    assert base["curve"][0] == [0, base["before"]["text"]] and base["curve"][-1][0] == 1
    assert base["after"]["text"] != base["before"]["text"]
    other_split = merging_more.unseen_text("validation", bench.SMOKE)
    judged = {row["prompt"] + row["completion"] for row in other_split}
    assert not judged & (asked | read)


def test_the_longer_base_takes_as_much_compute_as_the_stack(fits, small, monkeypatch):
    asked = []
    monkeypatch.setattr(merging_more, "longer", lambda *numbers: asked.append(numbers) or 2)
    found = small.job("grow_longer_0.001_0")
    base, stack = small.load(), merging.stack(small.load(), merging_more.stacked(2))
    assert asked == [(1, *(sum(one.numel() for one in model.parameters()) for model in (base, stack)))]
    assert (found["layers"], found["steps"], fits[0].steps) == (2, 2, 2) and found["curve"][-1][0] == 2
    assert 0 < found["tokens"] <= 2 * bench.SMOKE["length"] and 0.01 < found["passes"] < 0.1


def test_equal_compute_is_counted_in_weights_of_which_the_head_is_not_stacked():
    assert merging_more.longer(300, 134_515_008, 187_616_448) == 418  # not 450
    assert merging_more.longer(300, 100, 150) == 450


def test_a_rate_is_judged_by_the_loss_on_validation_text_and_may_diverge(small, monkeypatch):
    ends = iter(({"text": 2.5, "general": 4.0}, None))
    splits = []

    def pretrained(arm, rate, seed, split, asked):
        splits.append(split)
        return {"after": next(ends)}

    monkeypatch.setattr(merging_more, "_pretrained", pretrained)
    found = [bench.job("sweep_stacked_0.001_0_text", small.folder) for _ in range(2)]
    assert [(one["loss"], one["diverged"]) for one in found] == [(2.5, False), (None, True)]
    with pytest.raises(LabkitError, match="of base diverged at 0.001 with seed 2"):
        monkeypatch.setattr(merging_more, "_pretrained", lambda *_: {"after": None})
        small.job("grow_base_0.001_2")
    assert splits == ["validation"] * 2


def test_the_loss_is_that_of_fits_validation(small, tokenizer):
    from labkit import fit
    from labkit.tasks.general import perplexity

    model, rows = small.load(), few_rows("sql")["test"].select(range(3))
    run = fit(model, rows, tokenizer, steps=1, lr=0.0, batch=2, validation=rows, precision="fp32",
              progress=False)  # fmt: skip
    assert merging_jobs.nats(model, tokenizer, rows) == pytest.approx(run.validation[0][1], abs=1e-4)
    texts = [tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False) for row in rows]
    whole = perplexity(model, tokenizer, texts, progress=False).loss  # prompts too
    assert abs(whole - run.validation[0][1]) > 1e-3


def test_a_probe_reads_an_intent_from_trained_states_and_little_more_from_one_model_twice(
    kin, small, monkeypatch
):
    monkeypatch.setattr(bench, "settings", lambda: {**bench.SMOKE, "probed": 24, "judging": 8, "rows": 9})
    found = small.job("probe_0")["probes"]
    assert set(found) == set(merging_more.PROBED)
    assert {arm: one["size"] for arm, one in found.items() if " " in arm} == dict.fromkeys(
        ("tickets and sql", "tickets twice", "tickets and random"), 128)  # fmt: skip
    assert found["tickets"]["size"] == 64 and found["tickets"]["rows"].startswith("9:")
    assert all(one["penalty"] in merging_more.PENALTIES for one in found.values())


def test_a_probe_finds_what_only_one_of_two_models_knows_and_its_labels_are_intents(small, monkeypatch):
    rows = [row for split in few_rows("tickets").values() for row in split]
    known = {str(row["prompt"]): json.loads(row["answer"])["intent"] for row in rows}
    classes = sorted(set(known.values()))
    states = iter(("base", "random", "tickets", "sql"))
    now = []
    monkeypatch.setattr(merging_more.merging, "put", lambda model, state: now.append(next(states)),
                        raising=False)  # fmt: skip
    monkeypatch.setattr(merging_more, "recall", lambda *_: {})

    def hidden(model, tokenizer, prompts):
        torch.manual_seed(len(prompts))
        out = torch.randn(len(prompts), 8)
        if now and now[-1] == "sql":
            out = torch.stack([torch.eye(len(classes))[classes.index(known[str(one)])] for one in prompts])
        return out

    monkeypatch.setattr(merging_more, "_hidden", hidden)
    monkeypatch.setattr(bench, "settings", lambda: {**bench.SMOKE, "probed": 24, "judging": 8, "rows": 9})
    found = small.job("probe_0")["probes"]
    share = {arm: stats.unpack_rows(one["rows"]).mean() for arm, one in found.items()}
    assert share["sql"] > 0.7 and share["sql"] > share["tickets"] + 0.3
    assert share["tickets and sql"] > share["tickets twice"]
