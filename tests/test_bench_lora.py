"""`bench lora`: jobs on a tiny model, losses at equal scores, and a record to judge claims from."""

import functools
import json
import math
from types import SimpleNamespace

import pytest
import torch
from peft.tuners.lora import LoraModel

from labkit import methods, tasks
from labkit.bench import jobs, lora, lora_jobs, lora_report, lora_time, lora_values, markdown
from labkit.bench import main as bench_main
from labkit.errors import LabkitError
from labkit.methods.low_rank import energy, low_rank, shuffled
from labkit.records import judge, ledger, stats, store

CLAIMS = [claim for claim in ledger.ledger() if claim["record"] == lora.NAME]


@functools.cache
def few_rows(family, **options):
    return {split: rows.select(range(min(24, len(rows))))
            for split, rows in tasks.load(family, **options).items()}  # fmt: skip


@pytest.fixture
def small(monkeypatch, tiny, tokenizer):
    """Jobs run under the smoke budget on a tiny model, with a few rows, and short answers."""

    def load_model():
        with torch.random.fork_rng():  # a model that is read from files draws nothing
            return tiny()

    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    monkeypatch.setattr("labkit.load_model", load_model, raising=False)
    monkeypatch.setattr("labkit.load", few_rows, raising=False)
    monkeypatch.setattr("labkit.load_tokenizer", lambda: tokenizer, raising=False)
    monkeypatch.setattr("labkit.tasks.tickets.MAX_NEW_TOKENS", 2, raising=False)
    monkeypatch.setattr("labkit.tasks.general.passages", lambda: ["The kettle sang. Nobody moved."] * 3)


def pretended(name, best):
    """A job's result: LoRA works best at `best`, its update's cut at full's score, merging costs nothing."""
    kind, *rest = name.split("_")
    if kind == "sweep":
        rate = float(rest[1])
        away = abs(math.log10(rate / best))
        return {"right": round(0.9 - away / 10, 6), "loss": 1.0, "diverged": False}
    if kind == "lowrank":
        flags = {"full": 0.9, "full, rank 0": 0.3, "full, rank 16": 0.9, "shuffled, rank 16": 0.1}
        ranks = {str(rank): rank / 300 for rank in lora_jobs.RANKS}
        both = {"full": ranks, "shuffled": {rank: share for rank, share in ranks.items() if rank != "0"}}
        return {"rows": {name: right(share) for name, share in flags.items()},
                "validation": {"whole": 0.95, **both}, "energy": both}  # fmt: skip
    if kind == "rebase":
        flags = {"own base": 0.9, "slightly changed base": 0.8, "changed base": 0.5, "retrained": 0.9}
        one = {"general loss before": 3.5, "general loss after": 4.0, "weights moved": 0.02}
        return {"rows": {name: right(share) for name, share in flags.items()},
                "change": {"changed base": one, "slightly changed base": one}}  # fmt: skip
    if kind == "forget":
        method, rate, seed = rest
        if float(rate) >= 3e-3 * (1 + 9 * (method != "full")):  # each method's highest rate
            return {"right": 0.0, "general loss": None, "probe": None}
        place = round(2 * math.log10(float(rate) / {"full": 3e-5, "lora-r16": 3e-4}[method]))
        loss = 3.6 + place / 10 - (0.02 if method != "full" else 0) + int(seed) / 1000
        return {"right": 0.8 + place / 20, "general loss": loss, "probe": 0.6}
    if kind == "merge":
        base = [0.010 + repeat / 1e5 for repeat in range(21)]
        times = {"base": base, "merged": base, "unmerged": [2 * one for one in base]}
        logits = {dtype: {"largest logit difference": apart, "largest logit": 50.0, "same next token": same}
                  for dtype, apart, same in (("fp32", 1.2e-4, 1.0), ("bf16", 0.5, 0.99))}  # fmt: skip
        return {"logits": logits, "rounding": {"largest logit difference": 0.4, "largest logit": 50.0},
                "times": dict.fromkeys(("launch-bound", "compute-bound"), times)}  # fmt: skip
    if kind == "speed":
        speed = {"full": 100.0, "lora-r16": 150.0 if rest[0] == "large" else 50.0}[rest[2]]
        speed *= 1 + int(rest[3]) / 100 * (rest[2] != "full")
        return {"tokens/s": speed, "step ms": 9.0, "peak bytes": 7, "batch": 5, "length": 512, "timed": 60}
    return {"FLOPs": {"full": 300.0, "lora-r16": 207.0}[rest[0]]}


def right(share):
    """Packed flags of 5,000 rows, of which this share is right, spread evenly."""
    return stats.pack_rows([int((row + 1) * share) > int(row * share) for row in range(5000)])


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Real main, jobs.run and files, but pretended jobs."""
    made = SimpleNamespace(started=[], folder=tmp_path / "out", best=1e-3, profile="gpu")

    def job(name):
        return {**pretended(name, made.best), "seconds": 1.0, "peak_bytes": 5}

    def start(bench, name, folder, card, beside=1):
        made.started.append(name)
        (folder / f"{name}.log").write_text("")
        code = lora.main(["--job", name, "--folder", str(folder)])
        return SimpleNamespace(exitcode=code, kill=lambda: None)

    monkeypatch.setattr(lora, "job", job)
    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(store, "code_digest", functools.cache(store.code_digest))  # one process, many jobs
    monkeypatch.setattr(store, "data_digest", functools.cache(store.data_digest))
    monkeypatch.setattr(jobs, "cards", lambda: [None])
    monkeypatch.setattr(jobs.time, "sleep", lambda _: None)
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    monkeypatch.setattr(lora.env, "profile", lambda: made.profile)
    return made


def run(world):
    assert bench_main(["lora", "--folder", str(world.folder)]) == 0
    return store.read("lora")


# ---- the whole run


def test_a_run_leaves_a_record_with_every_value_and_score_that_the_claims_name(world, capsys):
    whole = run(world)
    assert "| rank kept | energy |" in capsys.readouterr().out
    source = judge.Recorded(whole)
    for claim in CLAIMS:
        for band in [*claim["bands"], *claim["beside"]]:
            assert judge.estimate(band, source) is not None, (claim["id"], band)
    assert source.value("no.such.value") is None and source.rows("no such score") is None
    said = {claim["id"]: ledger.conclusion(ledger.judge_all(claim, source)) for claim in CLAIMS}
    assert said == {"hp-lr": "contradicted here", "lora-lowrank": "reproduced", "lora-merge": "reproduced",
                    "lora-speed": "contradicted here", "lora-flops": "reproduced",
                    "lora-forget": "reproduced", "lora-rebase": "reproduced"}  # fmt: skip
    assert set(said) <= set(whole["claims"])
    assert store.stale("lora") == []


def test_a_second_run_starts_nothing_and_without_a_gpu_there_is_no_record(world, capsys):
    run(world)
    before = len(world.started)
    run(world)
    assert len(world.started) == before and len(set(world.started)) == before
    store.path_of("lora").unlink()
    world.profile = "smoke"
    assert bench_main(["lora", "--folder", str(world.folder)]) == 0
    assert len(world.started) > before  # the results of another profile do not count
    assert store.read("lora") is None and "a trial" in capsys.readouterr().out


def test_without_the_record_of_methods_the_batch_of_the_budget_is_swept_too(world):
    whole = run(world)
    assert set(whole["values"]["full"]["best rates"]) == {"2", "8", "32"}
    assert len([name for name in world.started if name.startswith("sweep_full-b8_")]) == 5
    assert {name for name in world.started if "lowrank" in name} == {f"lowrank_0.0003_{s}" for s in range(3)}


def test_best_rates_and_the_batch_of_the_budget_come_from_the_record_of_methods(world, tmp_path):
    rates = {"0.001": 0.9, "0.003": 0.8, "0.01": 0.7}
    entry = {"rates": rates, "losses": dict.fromkeys(rates, 1.0)}
    both = {"full": {**entry, "rate": 1e-3}, "lora-r16": {**entry, "rate": 1e-2}}
    asked = {"steps": 300, "batch": 8, "length": 512, "rows": None}
    there = {"schema": store.SCHEMA, "values": {"settings": asked, "methods": both}}
    (tmp_path / "methods_tickets.json").write_text(json.dumps(there))
    whole = run(world)
    assert not any("-b8_" in name for name in world.started)
    assert "lowrank_0.001_0" in world.started and "rebase_0.01_0" in world.started
    tried = {float(name.split("_")[2]) for name in world.started if name.startswith("forget_full_")}
    assert tried == {1e-4, 3e-4, 1e-3, 3e-3, 1e-2}  # around the best, wherever that is
    assert whole["values"]["full"]["tried"]["8"] == rates and "8" in whole["values"]["lora"]["tried"]
    there["values"]["settings"]["steps"] = 100  # of another budget: not to be compared
    (tmp_path / "methods_tickets.json").write_text(json.dumps(there))
    run(world)
    assert any("-b8_" in name for name in world.started) and "lowrank_0.0003_0" in world.started


def test_a_sweep_goes_on_beyond_its_end_and_the_value_is_the_best_over_batches(world):
    world.best = 1e-5
    found = run(world)["values"]
    assert found["lora"]["lowest best rate"] == found["lora"]["highest best rate"] == 1e-5
    assert found["lora"]["at an end"] == ["2", "8", "32"]  # the third further rate is the last
    assert found["full"]["at an end"] == []
    [claim] = [claim for claim in CLAIMS if claim["id"] == "hp-lr"]
    rows = ledger.judge_all(claim, judge.Recorded({"values": found}))
    assert ledger.conclusion(rows) == "reproduced"


def test_jobs_that_are_timed_have_the_card_to_themselves(world, monkeypatch):
    asked = []
    real = jobs.run

    def spy(bench, names, folder, side_by_side, mark):
        asked.append((set(name.split("_")[0] for name in names), side_by_side))
        return real(bench, names, folder, side_by_side, mark)

    monkeypatch.setattr(jobs, "run", spy)
    bench_main(["lora", "--folder", str(world.folder), "--jobs", "4"])
    timed = {"merge", "speed"}
    assert all(side_by_side == (1 if kinds & timed else 4) for kinds, side_by_side in asked)
    assert any(kinds == timed for kinds, _ in asked)


# ---- values


FULL = [(0.80, 3.60), (0.90, 3.70), (0.95, 3.80), (0.50, 9.0)]


@pytest.mark.parametrize(
    "other, gaps",
    [
        ([(0.80, 3.5), (0.90, 3.6), (0.95, 3.7)], {0.80: -0.1, 0.90: -0.1, 0.95: -0.1}),
        # at full's 0.90 LoRA must take its 0.93; below 0.85 it has no run, and full is not charged for that
        ([(0.85, 3.65), (0.93, 3.75)], {0.85: -0.05, 0.90: 0.05, 0.93: -0.05}),
        ([(0.70, 3.5), (0.99, 3.9)], {0.80: 0.3, 0.90: 0.2, 0.95: 0.1}),
        ([(0.90, 3.6), (0.85, 3.9)], {0.90: -0.1}),
    ],
    ids=["lower everywhere", "between scores", "a gap between two rates", "a run that another beats"],
)
def test_losses_are_compared_at_every_score_that_both_fronts_reach(other, gaps):
    assert lora_values.matched(FULL, other) == pytest.approx(gaps)


def test_methods_compared_the_other_way_round_differ_in_sign():
    one, other = FULL, [(0.85, 3.65), (0.93, 3.75)]
    there, back = lora_values.matched(one, other), lora_values.matched(other, one)
    assert there == pytest.approx({score: -gap for score, gap in back.items()})
    assert set(lora_values.matched(FULL, FULL).values()) == {0.0}


@pytest.mark.parametrize("other, why", [
    ([(0.96, 3.0), (0.99, 3.1)], "no score was reached by both"), ([], "every run of a method diverged"),
])  # fmt: skip
def test_methods_without_a_common_score_cannot_be_compared(other, why):
    with pytest.raises(LabkitError, match=why):
        lora_values.matched(FULL, other)


def test_each_seed_is_matched_with_itself_and_the_largest_difference_decides(world, monkeypatch):
    real = lora.job

    def job(name):
        found = real(name)
        if name == "forget_lora-r16_0.003_1":
            found["general loss"] += 0.5
        return found

    monkeypatch.setattr(lora, "job", job)
    found = run(world)["values"]
    worst, best = (found[f"loss at matched score, {end}"] for end in ("worst", "best"))
    # LoRA lies 0.02 lower at equal rates, whose scores are equal; at 0.90 seed 1 takes its next rate, 0.1 up
    assert worst == pytest.approx([-0.02, 0.08, -0.02]) and best == pytest.approx([-0.02] * 3)
    [claim] = [claim for claim in CLAIMS if claim["id"] == "lora-forget"]
    assert ledger.conclusion(ledger.judge_all(claim, judge.Recorded({"values": found}))) == "undecided"


@pytest.mark.parametrize("best, rates", [
    (3e-4, [3e-5, 1e-4, 3e-4, 1e-3, 3e-3]), (1e-2, [1e-3, 3e-3, 1e-2, 3e-2, 0.1]),
])  # fmt: skip
def test_forgetting_is_measured_two_rates_to_each_side_of_the_best(best, rates):
    assert lora.around(best) == rates


@pytest.mark.parametrize("change, said", [
    ({}, "reproduced"),
    ({"largest logit difference": 1e-3}, "contradicted here"),
    ({"merged": 1.02}, "contradicted here"),  # two percent, far below the range of the base's repeats
    ({"unmerged": 0.99}, "contradicted here"),
    ({"merged": 1.01}, "undecided"),
], ids=str)  # fmt: skip
def test_merging_must_keep_the_logits_and_take_the_bases_time_in_each_repeat(change, said):
    found = pretended("merge_0.003_0", 1e-3)
    found["logits"]["fp32"] |= {key: value for key, value in change.items() if key.startswith("largest")}
    base = [one * (1 + (repeat % 5) / 5) for repeat, one in enumerate(found["times"]["launch-bound"]["base"])]
    near = [one * (1 + (repeat % 3 - 1) / 1000) for repeat, one in enumerate(base)]
    times = {"base": base, "merged": [change.get("merged", 1) * one for one in near],
             "unmerged": [change.get("unmerged", 1.1) * one for one in near]}  # fmt: skip
    found["times"]["launch-bound"] = times
    [claim] = [claim for claim in CLAIMS if claim["id"] == "lora-merge"]
    source = judge.Recorded({"values": lora_values._merging(found)})
    assert ledger.conclusion(ledger.judge_all(claim, source)) == said


def test_an_update_that_shuffling_does_not_harm_decides_nothing(world, monkeypatch):
    real = lora.job

    def job(name):
        found = real(name)
        if name.startswith("lowrank"):
            found["rows"]["shuffled, rank 16"] = found["rows"]["full"]
        return found

    monkeypatch.setattr(lora, "job", job)
    [claim] = [claim for claim in CLAIMS if claim["id"] == "lora-lowrank"]
    assert ledger.conclusion(ledger.judge_all(claim, judge.Recorded(run(world)))) == "contradicted here"


def test_the_best_ratio_of_speed_is_lora_over_full_in_the_same_loop_at_the_same_size(world):
    found = run(world)["values"]
    small, large = (pytest.approx([one * more for more in (1, 1.01, 1.02)]) for one in (0.5, 1.5))
    assert found["tokens/s ratio"] == {"small, eager": small, "small, blocks": small,
                                       "large, eager": large, "large, blocks": large}  # fmt: skip
    assert found["best tokens/s ratio"] == large and found["FLOPs ratio"] == pytest.approx(0.69)


# ---- jobs


def test_the_cuts_of_one_decomposition_are_those_of_low_rank_and_of_its_energy():
    update = torch.randn(24, 10, generator=torch.Generator().manual_seed(0))
    factors = lora_jobs.factored(update)
    for rank in (1, 3, 10, 99):
        assert torch.allclose(lora_jobs.cut(factors, rank), low_rank(update, rank), atol=1e-5)
    assert torch.allclose(lora_jobs.cut(factors, 99), update, atol=1e-5)
    share = lora_jobs.cut(factors, 3).square().sum() / update.square().sum()
    assert energy(update)[2].item() == pytest.approx(share.item(), rel=1e-4)
    assert lora_jobs.kept(factors[1], 3) == pytest.approx(share.item(), rel=1e-4)
    assert not lora_jobs.cut(factors, 0).any() and lora_jobs.kept(factors[1], 0) == 0.0
    assert lora_jobs.kept(factors[1], 99) == pytest.approx(1.0)


def test_lowrank_scores_whole_cut_and_shuffled_updates_and_leaves_the_embedding_whole(small, monkeypatch):
    states, real = [], lora_jobs.exact

    def exact(model, tokenizer, data, split, asked):
        states.append((split, {name: weight.clone() for name, weight in model.state_dict().items()}))
        return real(model, tokenizer, data, split, asked)

    monkeypatch.setattr(lora_jobs, "exact", exact)
    monkeypatch.setattr(lora_jobs, "RANKS", (0, 1, 16))
    found = lora.job("lowrank_0.01_0")
    assert set(found["rows"]) == {"full", "full, rank 0", "full, rank 16", "shuffled, rank 16"}
    assert found["rows"]["full"].startswith("2:")
    assert json.loads(json.dumps(found)) == found
    before = methods.find("full").prepare(0).state_dict()
    place, whole = "model.layers.0.mlp.up_proj.weight", states[0][1]
    change = whole[place] - before[place]
    nothing = torch.zeros_like(change)
    mixed = shuffled(change, 0)
    wanted = [change, change, nothing, nothing]
    wanted += [low_rank(change, 1), low_rank(change, 16), low_rank(change, 16)]
    wanted += [low_rank(mixed, 1), low_rank(mixed, 16), low_rank(mixed, 16)]
    for (_, state), update in zip(states, wanted, strict=True):
        assert torch.allclose(state[place] - before[place], update, atol=1e-5)
        assert torch.equal(state["model.embed_tokens.weight"], whole["model.embed_tokens.weight"])
    assert not torch.equal(whole["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    real_energy, other = (found["energy"][kind]["1"] for kind in ("full", "shuffled"))
    assert 0 < other < real_energy < 1 and found["energy"]["full"]["16"] > real_energy
    assert found["energy"]["full"]["0"] == 0.0 and "0" not in found["energy"]["shuffled"]


def test_forgetting_is_measured_after_training_and_a_run_that_diverged_has_no_loss(
    small, tokenizer, monkeypatch
):
    monkeypatch.setattr("labkit.tasks.general.items", lambda: tasks.load("general")["probe"].to_list()[:2])
    before = lora_jobs.english(methods.find("full").prepare(0), tokenizer, lora.settings())
    found = lora.job("forget_full_0.1_0")
    assert abs(found["general loss"] - before) > 1e-3 and 0 <= found["probe"] <= 1
    assert found["right"] == 0.0 and found["seconds"] > 0

    def failing(message):
        def fit(*args, **options):
            raise LabkitError(message)

        return fit

    monkeypatch.setattr("labkit.fit", failing("the loss is nan at step 3"), raising=False)
    assert lora.job("forget_lora-r16_0.03_0")["general loss"] is None
    monkeypatch.setattr("labkit.fit", failing("the disk is full"), raising=False)
    with pytest.raises(LabkitError, match="disk"):
        lora.job("forget_lora-r16_0.03_0")


def test_an_adapter_is_moved_as_it_is_and_another_base_answers_otherwise(small, tiny):
    model = filled(methods.find("lora-r16").prepare(0))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        wanted = model(ids).logits
        same = lora_jobs.transplanted(model, tiny())(ids).logits
        other = lora_jobs.transplanted(model, tiny(seed=1))(ids).logits
        bare = tiny()(ids).logits
    assert torch.equal(same, wanted)
    assert not torch.allclose(other, wanted, atol=0.1) and not torch.allclose(bare, wanted, atol=1e-3)


def filled(model):
    """A LoRA model whose B is not zero."""
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05, generator=torch.Generator().manual_seed(len(name)))
    return model


def test_rebase_trains_the_base_on_plain_text_and_scores_one_adapter_on_each(small, monkeypatch):
    calls, real = [], lora_jobs.fitted

    def fitted(model, rows, *rest, **options):
        calls.append((rows, sum(w.numel() for w in model.parameters() if w.requires_grad), options))
        return real(model, rows, *rest, **options)

    monkeypatch.setattr(lora_jobs, "fitted", fitted)
    found = lora.job("rebase_0.001_0")
    assert set(found["rows"]) == set(lora_report.BASES)
    assert len(calls) == 4 and calls[0][1] == calls[3][1] < calls[1][1]  # adapter, all weights twice, adapter
    assert all(options["prompt_loss_weight"] == 1.0 for _, _, options in calls[1:3])
    slightly, changed = (found["change"][name] for name in ("slightly changed base", "changed base"))
    assert slightly["general loss before"] == changed["general loss before"] != changed["general loss after"]
    assert 0 < changed["weights moved"] < 0.1


def test_plain_text_is_neither_of_tickets_nor_of_what_measures_forgetting(small, tokenizer):
    from labkit.tasks.general.source import read
    from labkit.train.rows import encode_all

    rows = lora_jobs.plain_text()
    texts = {row["prompt"] + row["completion"] for row in rows}
    assert len(rows) == 102 + 3 * 24 and all(row["prompt"] and row["completion"] for row in rows)
    assert not texts & {row["text"] for row in read("text")}
    encoded = encode_all(rows, tokenizer, 512, prompt_loss_weight=1.0)  # none is too long, each token counts
    assert all(set(one.weights) == {1.0} for one in encoded)


def test_a_batch_job_is_a_job_of_bench_methods_with_that_many_rows_a_step(small, monkeypatch):
    seen = []

    def job(name, settings):
        seen.append((name, settings["batch"], settings["steps"]))
        return {"right": 0.5, "loss": 1.0, "diverged": False}

    monkeypatch.setattr(lora.bench_methods, "job", job)
    found = lora.job("sweep_lora-r16-b32_0.003_0_batch")
    assert seen == [("sweep_lora-r16_0.003_0_", 32, 1)] and found["right"] == 0.5
    assert lora.job("sweep_full-b2_3e-05_0_batch") and seen[1] == ("sweep_full_3e-05_0_", 2, 1)


# ---- merging, speed, FLOPs


def test_merging_changes_no_logit_beyond_rounding_and_a_wrong_merge_would_show(small, tokenizer):
    rows = few_rows("tickets")["test"].select(range(2))
    model = filled(methods.find("lora-r16").prepare(0))
    merged = filled(methods.find("lora-r16").prepare(0)).merge_and_unload()
    found = lora_time.differences(model, merged, tokenizer, rows)
    assert 0 < found["largest logit difference"] < 1e-4 < 0.1 < found["largest logit"]
    assert found["same next token"] == 1.0
    unmerged = methods.find("full").prepare(0)
    wrong = lora_time.differences(model, unmerged, tokenizer, rows)
    assert wrong["largest logit difference"] > 1e-3 and wrong["same next token"] < 1.0


def test_the_job_of_merging_times_three_models_alike_in_two_regimes(small, monkeypatch):
    alike, real = set(), lora_time.turns

    def turns(models, *rest):
        alike.update((w.dtype, w.requires_grad) for model in models.values() for w in model.parameters())
        return real(models, *rest)

    monkeypatch.setattr(lora_time, "turns", turns)
    precision, merging = [], LoraModel.merge_and_unload
    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda self: (
        precision.append(torch.get_float32_matmul_precision()), merging(self))[1])  # fmt: skip
    found = lora.job("merge_0.003_0")
    assert alike == {(torch.bfloat16, False)}
    for times in found["times"].values():
        assert set(times) == {"base", "merged", "unmerged"}
        assert all(len(each) == 2 and min(each) > 0 for each in times.values())
    apart = {dtype: one["largest logit difference"] for dtype, one in found["logits"].items()}
    assert apart["fp32"] < 1e-4 and apart["fp32"] < apart["bf16"]
    assert apart["fp32"] < found["rounding"]["largest logit difference"]
    assert precision == ["highest"]  # B A is a product of the merge, too


def test_models_take_turns_and_none_is_always_the_first(monkeypatch, tiny):
    order = []
    models = {name: tiny() for name in ("base", "merged", "unmerged")}
    names = {id(model): name for name, model in models.items()}
    monkeypatch.setattr(lora_time, "_seconds", lambda model, *_: order.append(names[id(model)]) or 1.0)
    lora_time.turns(models, (1, 4), 1, repeats=3)
    turns = [order[place : place + 3] for place in range(3, 12, 3)]  # after the warm-up
    assert [turn[0] for turn in turns] == list(models) and all(set(turn) == set(models) for turn in turns)


def test_speed_is_that_of_an_engine_of_bench_train(small):
    found = lora.job("speed_smoke_eager_lora-r16_0")
    assert found["tokens/s"] != 0 and (found["batch"], found["length"], found["timed"]) == (1, 256, 1)


def test_flops_are_six_a_weight_and_token_for_full_and_about_four_for_lora(small):
    full, adapted = (lora.job(f"flops_{method}")["FLOPs"] for method in ("full", "lora-r16"))
    parts = methods.find("full").prepare(0).modules()
    weights = sum(part.weight.numel() for part in parts if isinstance(part, torch.nn.Linear))
    products = 6 * weights * lora.SMOKE["batch"] * lora.SMOKE["length"]
    assert products <= full < 1.2 * products
    assert 0.63 < adapted / full < 0.75


# ---- variants


@pytest.mark.parametrize("name, layers, alpha, scaling", [
    ("lora-qv-r4", {"q_proj", "v_proj"}, 8, 2),
    ("lora-attn-r4", {"q_proj", "k_proj", "v_proj", "o_proj"}, 8, 2),
    ("lora-mlp-r4", {"gate_proj", "up_proj", "down_proj"}, 8, 2),
    ("rslora-r64", None, 8, 1),
    ("rslora-r16", None, 8, 2),
    ("lora-a32-r64", None, 32, 0.5),
    ("lora-a32-r16", None, 32, 2),
    ("lora-r16", None, 32, 2),
])  # fmt: skip
def test_variants_have_their_layers_and_meet_lora_r16_in_scaling(small, name, layers, alpha, scaling):
    every = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    model = methods.find(name).prepare(0)
    parts = {place: part for place, part in model.named_modules() if hasattr(part, "lora_A")}
    assert {place.rsplit(".", 1)[-1] for place in parts} == (layers or every)
    assert {part.scaling["default"] for part in parts.values()} == {scaling}
    assert model.peft_config["default"].lora_alpha == alpha
    module = "lora" if name == "lora-r16" else "lora_variants"
    assert methods.find(name).module == f"labkit/methods/{module}.py"


def test_two_ranks_of_query_and_value_are_a_tenth_of_a_percent_of_this_base():
    from labkit.methods.low_rank import lora_weights

    shapes = {f"{block}.{name}": shape for block in range(30)
              for name, shape in {"q_proj": (576, 576), "v_proj": (192, 576)}.items()}  # fmt: skip
    shares = {rank: lora_weights(shapes, rank) / 134_515_008 for rank in (2, 3)}
    assert shares[2] < 0.001 < shares[3]


# ---- tables


def test_tables_and_figure_say_so_before_anything_is_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    assert lora_report.lines() == lora_report.speed_table() == [markdown.missing("lora")]
    lora_report.plot()
    assert "bench lora" in capsys.readouterr().out


def test_tables_say_what_was_counted_and_over_how_many_seeds(world):
    values = run(world)["values"]
    text = "\n".join(lora_report.lines(values))
    assert text.count("3 seeds") == 3 and "one seed" in text and "20 repeats" in text
    assert "| 0 | 0.0% | 0.0% |  |  |" in text
    assert "| 16 | 5.3% | 5.3% | 5.3% | 5.3% |" in text and "shuffled, rank 16: 10.0%" in text
    cells = "10.10 ms | 10.10 ms | 20.20 ms | 1.000 [1.000, 1.000] | 2.000 [2.000, 2.000] |"
    assert f"| little work a kernel, 1 x 16 tokens | {cells}" in text
    assert "in fp32 they differ by 2.4e-06 of the largest (50) at most, and agree" in text
    assert "moves the merged model's own logits by 8.0e-03" in text
    assert "| 100 | 152 | 1.51 [1.48, 1.55] |" in text
    assert "Medians of 3 runs each, means of their ratios" in text
    assert "| LoRA r=16 | 0.03 | 0.0% | diverged |  |" in text
    assert "at most -0.020, -0.020, -0.020" in text and "ratio 0.690" in text
    for table in text.split("\n\n"):
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) <= 1


def test_the_figure_names_its_points_and_its_finding(world, monkeypatch):
    values = run(world)["values"]
    shown = []
    monkeypatch.setattr("labkit.plots.show", lambda fig, alt: shown.append((fig, alt)))
    for worst in ([-0.02] * 3, [0.3, 0.31, 0.3], [-0.2, 0.01, -0.1]):
        lora_report.plot({**values, "loss at matched score, worst": worst})
    titles = [fig.axes[0].get_title(loc="left") for fig, _ in shown]
    assert titles[0].startswith("At equal scores LoRA forgets less") and "-0.020 nats [-0.020" in titles[0]
    assert titles[1].startswith("LoRA does not forget less") and "+0.303 nats" in titles[1]
    assert titles[2].startswith("Undecided") and "-0.097 nats [-0.3" in titles[2]
    assert "from 3.50" in shown[0][1] and "full 80.0% +0.10" in shown[0][1]
    assert " 0.0%" not in shown[0][1]  # a run that diverged has no place in it


def test_a_gap_of_two_methods_is_shown_with_its_interval_once_it_is_measured(world):
    assert lora_report.gap("own base", "changed base", "lora").endswith("changed base: not measured yet")
    run(world)
    said = lora_report.gap("own base", "changed base", "lora")
    assert said.startswith("own base minus changed base: +40.00 points [+3")
    assert lora_report.gap("own base", "no such score", "lora").endswith("not measured yet")


def test_the_claims_of_this_record_are_the_seven_it_measures():
    ids = {claim["id"] for claim in CLAIMS}
    assert ids == {"hp-lr", "lora-lowrank", "lora-merge", "lora-speed", "lora-flops", "lora-forget",
                   "lora-rebase"}  # fmt: skip


def test_every_score_is_kept_row_by_row_for_each_seed(world):
    whole = run(world)
    low = {"full", "full, rank 0", "full, rank 16", "shuffled, rank 16"}
    assert set(whole["scores"]) == low | set(lora_report.BASES)
    assert {score["split"] for score in whole["scores"].values()} == {"test"}
    assert all(len(score["rows"]) == 3 for score in whole["scores"].values())


def test_a_rate_is_called_beaten_only_where_it_is_in_every_seed_by_score_and_loss():
    def runs(*pairs):
        return [{"seed": seed, "right": right, "general loss": loss}
                for seed, (right, loss) in enumerate(pairs)]  # fmt: skip

    points = {"full": {"0.1": runs((0.9, 3.0), (0.9, 3.0))},
              "lora-r16": {"0.1": runs((0.8, 3.1), (0.8, 3.1)),  # beaten
                           "0.2": runs((0.8, 3.1), (0.95, 3.1)),  # scores more in one seed
                           "0.3": runs((0.8, 3.1), (0.8, 2.9)),  # forgets less in one seed
                           "0.4": runs((0.0, None), (0.0, None))}}  # diverged
    assert lora_report._beaten(points) == "full at no rate; LoRA r=16 at 0.1, 0.4"
