"""`bench full`: jobs on a tiny model, what matches full, slopes near the best, and a record to judge from."""

import functools
import json
import math
from types import SimpleNamespace

import pytest
import torch

from labkit import methods, tasks
from labkit.bench import full, full_jobs, full_report, full_values, jobs, markdown
from labkit.bench import main as bench_main
from labkit.errors import LabkitError
from labkit.records import judge, ledger, stats, store

CLAIMS = [claim for claim in ledger.ledger() if claim["record"] == full.NAME]


@functools.cache
def few_rows(family, **options):
    return {split: rows.select(range(min(24, len(rows))))
            for split, rows in tasks.load(family, **options).items()}  # fmt: skip


@pytest.fixture
def small(monkeypatch, tiny, tokenizer):
    """Jobs run under the smoke budget on a tiny model, with a few rows, and short answers."""

    def load_model(dtype=torch.float32):
        with torch.random.fork_rng():  # a model that is read from files draws nothing
            return tiny().to(dtype)

    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    monkeypatch.setattr("labkit.load_model", load_model, raising=False)
    monkeypatch.setattr("labkit.load", few_rows, raising=False)
    monkeypatch.setattr("labkit.load_tokenizer", lambda: tokenizer, raising=False)
    monkeypatch.setattr("labkit.tasks.tickets.MAX_NEW_TOKENS", 2, raising=False)
    monkeypatch.setattr("labkit.tasks.handbook.MAX_NEW_TOKENS", 2, raising=False)
    return lambda name: full.job(name)


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


# A world in which the claims hold: 11 blocks match full and 8 do not, the loss rises by 0.1 a tenfold rate.
SHARES = {"full": 0.9, "partial-1": 0.5, "partial-2": 0.6, "partial-4": 0.7, "partial-8": 0.8,
          "partial-11": 0.9, "partial-13": 0.9, "partial-15": 0.9, "partial-22": 0.9, "random": 0.02,
          "random-long": 0.1}  # fmt: skip


def pretended(name, best, shares):
    """A job's result."""
    kind, *rest = name.split("_")
    if kind in ("sweep", "batch"):
        return {"right": round(0.9 - abs(math.log10(float(rest[1]) / best)) / 10, 6), "loss": 1.0,
                "diverged": False}  # fmt: skip
    if kind == "final":
        blocks = int(rest[0].partition("-")[2]) if rest[0].startswith("partial") else 30
        return {"rows": right(shares[rest[0]]), "trained": 79 * blocks, "weights": 3000}
    if kind == "curve":
        right_at = {"full": {"50": 0.1, "100": 0.5, "300": 0.9}, "random": {"50": 0.0, "300": 0.02},
                    "random-long": {"600": 0.05, "1200": 0.1}}  # fmt: skip
        return {"right": right_at[rest[0]]}
    if kind == "forget":
        rate, away = float(rest[0]), abs(math.log10(float(rest[0]) / 3e-4))
        if rate == 3e-3:
            return {"right": 0.0, "general loss": None, "probe": None}
        return {"right": 0.9 - away / 20, "general loss": 3.6 + 0.1 * math.log10(rate), "probe": 0.5}
    if kind == "facts":
        return {"right": 0.4, "contains": 0.5}
    if kind == "epochs":
        one = {"steps": 40, "kept step": 20, "loss": 0.5, "validation": [[20, 0.5], [40, 0.6]], "right": 0.7}
        return {"epochs": {name: one for name in ("1", "2", "4", "8", "stopped")}}
    by_rate = {f"{rate:g}": {"loss": 0.4, "moved": 0.02} for rate in full_jobs.ROUNDING}
    return {"rounding": {"autocast": by_rate, "pure bf16": by_rate}}


def right(share):
    """Packed flags of 5,000 rows, of which this share is right, spread evenly."""
    return stats.pack_rows([int((row + 1) * share) > int(row * share) for row in range(5000)])


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Real main, jobs.run and files, but pretended jobs."""
    made = SimpleNamespace(started=[], folder=tmp_path / "out", best=3e-4, profile="gpu", shares=dict(SHARES))

    def job(name):
        return {**pretended(name, made.best, made.shares), "seconds": 1.0, "peak_bytes": 5}

    def start(bench, name, folder, card, beside=1):
        made.started.append(name)
        (folder / f"{name}.log").write_text("")
        code = full.main(["--job", name, "--folder", str(folder)])
        return SimpleNamespace(exitcode=code, kill=lambda: None)

    monkeypatch.setattr(full, "job", job)
    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(store, "code_digest", functools.cache(store.code_digest))  # one process, many jobs
    monkeypatch.setattr(store, "data_digest", functools.cache(store.data_digest))
    monkeypatch.setattr(ledger, "bands", functools.cache(ledger.bands))
    monkeypatch.setattr(jobs, "cards", lambda: [None] * 99)  # all at once: `run` sleeps between rounds
    monkeypatch.setattr(jobs.time, "sleep", lambda _: None)
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    monkeypatch.setattr(full.env, "profile", lambda: made.profile)
    return made


def run(world):
    assert bench_main(["full", "--folder", str(world.folder)]) == 0
    return store.read("full")


def verdicts(whole):
    source = judge.Recorded(whole)
    return {claim["id"]: ledger.conclusion(ledger.judge_all(claim, source)) for claim in CLAIMS}


# ---- the whole run


def test_a_run_leaves_a_record_with_every_value_and_score_that_the_claims_name(world, capsys):
    whole = run(world)
    source = judge.Recorded(whole)
    for claim in CLAIMS:
        for band in [*claim["bands"], *claim["beside"]]:
            assert judge.estimate(band, source) is not None, (claim["id"], band)
    assert source.value("no.such.value") is None and source.rows("no such score") is None
    assert verdicts(whole) == {"full-transfer": "reproduced", "full-partial": "reproduced",
                               "full-forget": "reproduced"}  # fmt: skip
    assert {claim["id"] for claim in CLAIMS} <= set(whole["claims"])
    assert store.stale("full") == []
    printed = capsys.readouterr().out
    assert printed.count("\n| --- |") == 7 and "at least 12, at least 12" in printed
    assert full_report.lines() == full_report.lines(whole["values"])


def test_a_second_run_starts_nothing_and_without_a_gpu_there_is_no_record(world, capsys):
    run(world)
    before = len(world.started)
    run(world)
    assert len(world.started) == before == len(set(world.started))
    store.path_of("full").unlink()
    world.profile = "smoke"
    assert bench_main(["full", "--folder", str(world.folder)]) == 0
    assert len(world.started) > before  # the results of another profile do not count
    assert store.read("full") is None and "a trial" in capsys.readouterr().out
    assert full_report.lines() == [markdown.missing("full")]


def test_every_arm_is_tuned_alike_and_none_by_more_seeds_or_by_test_rows(world):
    world.best = 1e-6
    whole = run(world)
    swept = {}
    for name in world.started:
        kind, arm, *rest = name.split("_")
        if kind == "sweep":
            assert rest[1:] == ["0", "unseen"]
            swept.setdefault(arm, []).append(float(rest[0]))
    assert set(swept) == set(full.arms(full.GPU)) == set(whole["values"]["sweeps"])
    assert {len(rates) for rates in swept.values()} == {4 + 3}  # the best is still an end: three further each
    assert "sweep_random_3e-06_0_unseen" in world.started and "final_random_3e-06_2" in world.started
    assert all(one["at an end"] for one in whole["values"]["sweeps"].values())


def test_rates_that_the_record_of_methods_tried_are_not_tried_again(world, tmp_path):
    rates = {"0.0001": 0.7, "0.0003": 0.8, "0.001": 0.9, "0.003": 0.1}
    entry = {"rates": rates, "losses": dict.fromkeys(rates, 1.0), "rate": 1e-3}
    asked = {"steps": 300, "batch": 8, "length": 512, "rows": None}
    methods_of = {"full": entry, "partial-8": entry, "lora-r16": entry}
    there = {"schema": store.SCHEMA, "values": {"settings": asked, "methods": methods_of}}
    (tmp_path / "methods_tickets.json").write_text(json.dumps(there))
    found = run(world)["values"]["sweeps"]
    assert not any(name.startswith(("sweep_full_", "sweep_partial-8_")) for name in world.started)
    assert any(name.startswith("sweep_partial-4_") for name in world.started)
    assert found["full"]["right"] == rates and found["full"]["best"] == 1e-3 and "lora-r16" not in found
    assert {"final_full_0.001_0", "batch_8_0.001_0", "epochs_0.001_0"} <= set(world.started)
    there["values"]["settings"]["steps"] = 100  # of another budget: not to be compared
    (tmp_path / "methods_tickets.json").write_text(json.dumps(there))
    run(world)
    assert any(name.startswith("sweep_full_") for name in world.started)


def test_an_arm_that_diverges_at_every_rate_stops_the_run_with_its_name(world, monkeypatch):
    real = full.job

    def job(name):
        diverged = {"right": 0.0, "loss": None, "diverged": True, "seconds": 1.0, "peak_bytes": 5}
        return diverged if name.startswith("sweep_random_") else real(name)

    monkeypatch.setattr(full, "job", job)
    with pytest.raises(LabkitError, match="random failed at every rate"):
        run(world)


# ---- the start


CURVE = {"50": 0.1, "100": 0.25, "300": 0.9}


@pytest.mark.parametrize("random, pretrained, wanted", [
    ({"50": 0.0, "300": 0.19, "1200": 0.2}, CURVE, (12.0, False)),
    ({"50": 0.0, "300": 0.1, "1200": 0.19}, CURVE, (12.0, True)),  # never reached: at least 1,200 / 100
    (CURVE, CURVE, (1.0, False)),
    ({"50": 0.3, "100": 0.1}, CURVE, (0.5, False)),
    (CURVE, {"50": 0.0, "300": 0.1}, (None, False)),
], ids=["reached late", "never", "alike", "random is faster", "pre-trained never"])  # fmt: skip
def test_steps_to_a_score_are_compared_by_seed_and_never_reached_is_a_lower_bound(random, pretrained, wanted):
    assert full_values.ratio(random, pretrained) == wanted


def test_random_weights_that_learn_as_fast_and_as_well_contradict_the_claim(world, monkeypatch):
    world.shares["random"] = 0.95
    real = full.job

    def job(name):
        return real(name.replace("curve_random_", "curve_full_"))

    monkeypatch.setattr(full, "job", job)
    whole = run(world)
    assert whole["values"]["steps ratio"] == [1.0] * 3
    assert whole["values"]["steps ratio is a lower bound"] == [False] * 3
    assert verdicts(whole)["full-transfer"] == "contradicted here"


# ---- the share of weights


def arm(fraction, low, high):
    return {"fraction": fraction, "matches": full_values.matches(low, high)}


@pytest.mark.parametrize("arms, wanted", [
    ([arm(0.1, -0.05, -0.03), arm(0.2, -0.009, 0.02), arm(0.4, -0.005, 0.03)], (0.1, 0.2)),
    ([arm(0.1, -0.05, -0.005), arm(0.2, -0.009, 0.02)], (0.0, 0.2)),  # 0.1 may match, or not
    ([arm(0.1, -0.05, -0.03), arm(0.2, -0.02, 0.02), arm(0.4, -0.03, 0.01)], (0.1, 1.0)),
    ([arm(0.1, -0.05, -0.03), arm(0.2, -0.05, -0.011)], (0.2, 1.0)),
    ([arm(0.2, -0.009, 0.02), arm(0.4, -0.02, 0.02)], (0.0, 0.2)),  # an open larger one changes nothing
    ([arm(0.1, 0.02, 0.03)], (0.0, 0.1)),  # better than full: no shortfall
    ([arm(0.1, -0.02, 0.02), arm(0.2, -0.05, -0.03), arm(0.4, 0.0, 0.02)], (0.0, 0.4)),  # open below a "no"
], ids=["known", "open below", "none shown", "none matches", "open above", "better", "no order"])  # fmt: skip
def test_the_smallest_fraction_lies_between_what_falls_short_and_what_matches(arms, wanted):
    found = full_values.smallest(arms[::-1])
    assert (found["low"], found["high"]) == wanted and found["each"] == [found["mean"]] == [wanted[1]]


def test_partial_finetuning_is_judged_by_its_gap_to_full_on_test_rows(world):
    found = run(world)["values"]
    assert {blocks: one["matches"] for blocks, one in found["partial"].items()} == {
        "2": "no", "4": "no", "8": "no", "11": "yes", "13": "yes", "15": "yes", "22": "yes"}  # fmt: skip
    assert found["partial"]["4"]["gap"] == pytest.approx(-0.2)
    size = found["smallest matching fraction"]
    assert (size["low"], size["high"]) == pytest.approx((8 * 79 / 3000, 11 * 79 / 3000))
    assert found["test"]["partial-4"] == [0.7] * 3


def test_few_blocks_enough_or_many_wanted_contradict_and_a_gap_about_the_margin_leaves_undecided(world):
    world.shares |= {"partial-2": 0.6, "partial-4": 0.9}  # from 5.3 to 10.5% of the weights
    assert verdicts(run(world))["full-partial"] == "contradicted here"
    world.shares |= dict.fromkeys((f"partial-{blocks}" for blocks in (2, 4, 8, 11, 13, 15, 22)), 0.8)
    world.folder = world.folder / "none"
    assert verdicts(run(world))["full-partial"] == "contradicted here"
    world.shares |= {"partial-8": 0.89, "partial-11": 0.9}
    world.folder = world.folder / "again"
    whole = run(world)
    assert whole["values"]["partial"]["8"]["matches"] == "open"
    assert verdicts(whole)["full-partial"] == "undecided"
    assert "above 10.5%, at most 29.0%" in " ".join(full_report.partial_table())


# ---- forgetting


def test_a_slope_is_least_squares_over_the_logarithm_of_the_rate():
    line = {rate: 3.0 + 0.25 * math.log10(rate) for rate in full.FORGET}
    assert full_values.slope(line) == pytest.approx(0.25)
    assert full_values.slope({1e-4: 1.0, 1e-3: 3.0, 1e-2: 2.0}) == pytest.approx(0.5)
    assert full_values.slope({1e-4: 1.0}) is None and full_values.slope({}) is None


def test_only_runs_within_five_points_of_their_seeds_best_count_and_none_that_diverged():
    def one(score, loss):
        return {"right": score, "general loss": loss, "probe": 0.5}

    runs = {1e-5: one(0.849, 9.0), 1e-4: one(0.85, 3.5), 3e-4: one(0.9, 3.6), 1e-3: one(0.88, 3.7),
            3e-3: one(0.95, math.nan), 1e-2: one(0.0, None)}  # fmt: skip
    assert set(full_values.close(runs)) == {1e-4, 3e-4, 1e-3}
    assert set(full_values.close({1e-5: one(0.5, 3.0), **runs})) == {1e-4, 3e-4, 1e-3}
    assert full_values.close({1e-2: one(0.0, None)}) == {}


def test_slopes_are_by_seed_over_rates_near_the_best_in_every_seed(world, monkeypatch):
    found = run(world)["values"]
    assert found["slope"] == pytest.approx([0.1] * 3) and found["probe slope"] == pytest.approx([0.0] * 3)
    assert found["rates near the best"] == [[3e-5, 1e-4, 3e-4, 6e-4, 1e-3]] * 3
    real = full.job

    def worse(kept):
        def job(name):
            bad = name.startswith("forget_") and name.endswith("_1") and not any(one in name for one in kept)
            return {**real(name), **({"right": 0.1} if bad else {})}

        return job

    monkeypatch.setattr(full, "job", worse(("_0.0003_", "_0.001_")))
    world.folder = world.folder / "two"
    found = run(world)["values"]
    assert found["rates of the slope"] == [3e-4, 1e-3] and len(found["rates near the best"][0]) == 5
    assert found["slope"] == pytest.approx([0.1] * 3)
    monkeypatch.setattr(full, "job", worse(("_0.0003_",)))
    world.folder = world.folder / "one"
    whole = run(world)
    assert whole["values"]["slope"] == [None] * 3 and verdicts(whole)["full-forget"] == "undecided"


# ---- jobs


def test_a_random_start_has_the_shape_of_the_base_and_weights_of_its_seed_alone(small):
    base, one = methods.find("full").prepare(0), full_jobs.random_start(1)
    same, other = full_jobs.random_start("1"), full_jobs.random_start(2)
    place = "model.layers.0.mlp.up_proj.weight"
    weights = [model.state_dict()[place] for model in (base, one, same, other)]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[1], weights[3]) and not torch.equal(weights[0], weights[1])
    assert weights[1].std().item() == pytest.approx(one.config.initializer_range, rel=0.1)
    assert [w.shape for w in one.parameters()] == [w.shape for w in base.parameters()]
    assert one.lm_head.weight is one.model.embed_tokens.weight and one.dtype == torch.float32


def test_a_final_trains_what_its_arm_says_on_all_training_rows(fits):
    base = {name: weight.clone() for name, weight in methods.find("full").prepare(0).state_dict().items()}
    every = sum(weight.numel() for name, weight in base.items() if name != "lm_head.weight")
    for name, share in (("final_partial-1_0.01_0", 1 / 2), ("final_full_0.01_0", 1)):
        found = full.job(name)
        assert found["rows"].startswith("2:") and found["weights"] == every
        blocks = sum(weight.numel() for name, weight in base.items() if ".layers." in name)
        wanted = every if share == 1 else blocks // 2 + 64  # the norm after the blocks
        assert found["trained"] == wanted
        assert len(fits[-1].rows) == 24 and (fits[-1].steps, fits[-1].lr) == (1, 0.01)
        moved = {name for name, weight in fits[-1].model.state_dict().items()
                 if not torch.equal(weight, base[name])}  # fmt: skip
        assert ("model.layers.0.mlp.up_proj.weight" in moved) == (share == 1)
        assert "model.layers.1.mlp.up_proj.weight" in moved
    assert full.job("final_random-long_0.01_0")["rows"] and fits[-1].steps == full.SMOKE["long"][-1]


def test_a_final_that_diverges_has_no_row_right_and_another_error_is_raised(small, monkeypatch):
    def failing(message):
        def fit(*args, **options):
            raise LabkitError(message)

        return fit

    monkeypatch.setattr("labkit.fit", failing("the loss is nan at step 3"), raising=False)
    found = full.job("final_full_0.01_0")
    assert not stats.unpack_rows(found["rows"]).any() and found["rows"].startswith("2:")
    assert full.job("sweep_random_0.01_0_unseen")["diverged"]
    assert full.job("curve_full_0.01_0")["right"] == {"1": 0.0}
    assert full.job("facts_both_0.1_0.1_0")["right"] == 0.0
    assert full.job("rounding_0")["rounding"]["pure bf16"]["0.0001"]["loss"] is None
    monkeypatch.setattr("labkit.fit", failing("the disk is full"), raising=False)
    with pytest.raises(LabkitError, match="disk"):
        full.job("final_full_0.01_0")


def test_a_sweep_trains_on_phrasings_other_than_those_that_judge_it(fits, monkeypatch):
    found = full.job("sweep_partial-1_0.01_0_unseen")
    assert 0 <= found["right"] <= 1 and found["loss"] > 0 and not found["diverged"]
    assert not set(fits[0].rows["phrasing"]) & set(fits[0].validation["phrasing"])
    monkeypatch.setattr(full, "settings", lambda: {**full.SMOKE, "steps": 2, "batch": 2})
    full.job("sweep_batch-4_0.01_0_unseen")
    full.job("batch_1_0.01_1")
    assert [(one.batch, one.steps, one.validate_every, one.seed) for one in fits[1:]] == [
        (4, 1, 1, 0), (1, 4, 4, 1)]  # fmt: skip


def test_a_curve_is_a_training_of_its_own_for_each_number_of_steps(fits, monkeypatch):
    monkeypatch.setattr(full, "settings", lambda: {**full.SMOKE, "looks": (1, 2)})
    assert set(full.job("curve_full_0.01_0")["right"]) == {"1", "2"}
    assert [one.steps for one in fits] == [1, 2] and fits[0].model is not fits[1].model
    _, unseen = full_jobs.bench_methods.apart(few_rows("tickets")["train"])
    assert not any(set(one.rows["phrasing"]) & set(unseen["phrasing"]) for one in fits)
    monkeypatch.setattr(full, "settings", lambda: {**full.SMOKE, "long": (3,)})
    assert set(full.job("curve_random-long_0.01_0")["right"]) == {"3"}


def test_facts_are_learned_from_questions_or_documents_or_both_and_asked_in_test_phrasings(fits, monkeypatch):
    asked, real = [], full_jobs.bench_methods._exact

    def exact(model, tokenizer, rows, settings):
        asked.append((rows, settings["task"]))
        return real(model, tokenizer, rows, settings)

    monkeypatch.setattr(full_jobs.bench_methods, "_exact", exact)

    def stages(name):
        fits.clear()
        assert set(full.job(name)) == {"right", "contains", "seconds", "peak_bytes"}
        return [("text" if isinstance(one.rows[0]["prompt"], str) else "questions", one.lr, one.steps,
                 getattr(one, "prompt_loss_weight", 0.0)) for one in fits]  # fmt: skip

    assert stages("facts_base_0_0_0") == []
    assert stages("facts_pretrain_0.01_0_0") == [("text", 0.01, 1, 1.0)]
    assert stages("facts_sft_0_0.02_0") == [("questions", 0.02, 1, 0.0)]
    assert stages("facts_both_0.01_0.02_0") == [("text", 0.01, 1, 1.0), ("questions", 0.02, 1, 0.0)]
    assert stages("facts_sft-long_0_0.02_0") == [("questions", 0.02, 2, 0.0)]
    assert all(task == "handbook" and set(rows["kind"]) == {"trained"} for rows, task in asked)
    assert all(row_id.startswith("handbook-test") for rows, _ in asked for row_id in rows["id"])


def test_continued_pretraining_reads_documents_and_no_question_and_sft_the_reverse():
    from labkit.tasks import handbook

    text, options = full_jobs.handbook_rows("pretrain")
    whole = " ".join(row["prompt"] + row["completion"] for row in text)
    assert len(text) == len(handbook.documents()) and options == {"prompt_loss_weight": 1.0}
    questions, options = full_jobs.handbook_rows("sft")
    assert len(questions) == 2228 and set(questions["kind"]) == {"trained"} and not options
    test = full_jobs.of_trained_facts("test")
    assert not set(test["phrasing"]) & set(questions["phrasing"]) and set(test["fact"]) == set(
        questions["fact"])  # fmt: skip
    assert not any(row["question"] in whole for row in test)
    assert sum(row["answer"] in whole for row in test) > 0.9 * len(test)  # what is asked can be learned there


def test_a_sweep_over_the_handbook_is_judged_by_its_validation_rows_of_trained_facts(fits):
    for arm_name in ("sft", "pretrain"):
        assert full.job(f"sweep_{arm_name}_0.01_0_unseen")["loss"] > 0
        assert set(fits[-1].validation["kind"]) == {"trained"}
        assert all(name.startswith("handbook-validation") for name in fits[-1].validation["id"])


def test_epochs_count_passes_over_few_rows_and_early_stopping_looks_at_phrasings_of_its_own(
    fits, monkeypatch
):
    scored, real = [], full_jobs.exact

    def exact(model, tokenizer, data, split, asked):
        scored.append(data[split])
        return real(model, tokenizer, data, split, asked)

    monkeypatch.setattr(full_jobs, "exact", exact)
    monkeypatch.setattr(full_jobs, "EPOCHS", (1, 4))
    found = full.job("epochs_0.001_0")["epochs"]
    assert set(found) == {"1", "4", "stopped"}
    assert [one.patience for one in fits] == [None, None, full_jobs.PATIENCE]
    assert fits[2].steps == fits[1].steps > fits[0].steps
    for one, judging in zip(fits, scored, strict=True):
        assert len(one.rows) == 4
        labels = [set(rows["phrasing"]) for rows in (one.rows, one.validation, judging)]
        assert not labels[0] & labels[1] and not labels[0] & labels[2] and not labels[1] & labels[2]
    losses = dict(map(tuple, found["stopped"]["validation"]))
    assert found["stopped"]["loss"] == min(losses.values()) == losses[found["stopped"]["kept step"]]
    assert found["4"]["kept step"] == found["4"]["steps"] == len(dict(found["4"]["validation"]))


def test_an_epoch_has_the_steps_that_show_as_many_rows_as_there_are(tokenizer):
    from labkit.train.packing import plan
    from labkit.train.rows import encode_all

    rows, asked = few_rows("tickets")["train"], {"batch": 1, "length": 512}
    lengths = [len(one) for one in encode_all(rows, tokenizer, 512)]
    once = full_jobs.steps_of(rows, tokenizer, 1, 0, asked)
    bins = plan(lengths, 1, 512, 0)
    shown = [len(next(bins)[0]) for _ in range(once)]
    assert sum(shown) >= len(rows) > sum(shown[:-1])
    assert full_jobs.steps_of(rows, tokenizer, 0.5, 0, asked) < once
    four = full_jobs.steps_of(rows, tokenizer, 4, 0, asked)
    assert 4 * sum(lengths) / 512 - 1 <= four <= 4 * once + 2 and four > 3 * once


def test_pure_bf16_leaves_weights_where_they_were_that_autocast_moves(fits):
    found = full.job("rounding_0")["rounding"]
    assert [one.model.dtype for one in fits] == [torch.float32] * 3 + [torch.bfloat16] * 3
    assert {one.precision for one in fits} == {"bf16"} and {one.steps for one in fits} == {1}
    low, high = "1e-05", "0.0003"
    assert found["autocast"][low]["moved"] > 0.9 > 0.5 > found["pure bf16"][low]["moved"]
    assert found["pure bf16"][low]["moved"] < found["pure bf16"][high]["moved"]
    assert all(one["loss"] > 0 for each in found.values() for one in each.values())


def test_forgetting_is_that_of_the_lora_bench_with_full_finetuning(small, monkeypatch):
    seen = []

    def forget(method, rate, seed, asked):
        seen.append((method, rate, seed))
        return {"right": 0.5, "general loss": 3.5, "probe": 0.5}

    monkeypatch.setattr(full.lora_jobs, "forget", forget)
    assert full.job("forget_0.0006_2")["right"] == 0.5 and seen == [("full", "0.0006", "2")]
