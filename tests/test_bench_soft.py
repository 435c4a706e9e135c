"""`bench soft`: jobs on a tiny model, starts of a prompt, arms tuned alike, tables and figure of a record."""

import functools
import json
import math
from types import SimpleNamespace

import pytest
import torch

from labkit import methods, tasks
from labkit.bench import jobs, markdown, soft, soft_report
from labkit.bench import main as bench_main
from labkit.errors import LabkitError
from labkit.methods.soft_prompts.modules import START
from labkit.records import judge, ledger, stats, store

BUDGET = {"steps": 300, "batch": 8, "length": 512, "rows": None}
LORA_RATES = {"0.0003": 0.7, "0.001": 0.8, "0.003": 0.9, "0.01": 0.1}


@functools.cache
def few_rows(family, **options):
    return {split: rows.select(range(min(24, len(rows))))
            for split, rows in tasks.load(family, **options).items()}  # fmt: skip


@pytest.fixture
def fits(monkeypatch, tiny, tokenizer):
    """Jobs run under the smoke budget on a tiny model with few rows; what `fit` was called with, in order."""
    from labkit.train import fit

    calls = []

    def load_model():
        with torch.random.fork_rng():  # a model that is read from files draws nothing
            return tiny()

    def spy(model, rows, tokenizer, **options):
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        calls.append(SimpleNamespace(model=model, rows=rows, before=before, **options))
        return fit(model, rows, tokenizer, **options)

    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    monkeypatch.setattr("labkit.load_model", load_model, raising=False)
    monkeypatch.setattr("labkit.load", few_rows, raising=False)
    monkeypatch.setattr("labkit.load_tokenizer", lambda: tokenizer, raising=False)
    monkeypatch.setattr("labkit.tasks.tickets.MAX_NEW_TOKENS", 2, raising=False)
    monkeypatch.setattr("labkit.fit", spy, raising=False)
    return calls


# A world in which more vectors help, words are the best start, and a prefix beats a prompt of its size.
SHARES = {"prompt-n1": 0.02, "prompt-n5": 0.05, "prompt-n20": 0.2, "prompt-n100": 0.3, "prefix-n5": 0.4,
          "prefix-n20": 0.5, "prompt-n20+rows": 0.1, "prompt-n20+numbers": 0.05, "ptuning-n20": 0.15,
          "prompt-n20+1200": 0.4, "prompt-n20+3600": 0.5, "lora-r16": 0.8, "lora-r16+1200": 0.82}  # fmt: skip


@functools.cache
def right(share, rows=2000):
    """Packed flags of rows, of which this share is right, spread evenly."""
    return stats.pack_rows([math.floor((row + 1) * share) > math.floor(row * share) for row in range(rows)])


def trained(arm):
    """As many weights as an arm trains on the course's base."""
    method, number = arm.partition("+")[0].split("-")
    return int(number[1:]) * {"prompt": 576, "prefix": 11520, "ptuning": 30000, "lora": 305280}[method]


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Real main, jobs.run and files, but pretended jobs."""
    made = SimpleNamespace(started=[], folder=tmp_path / "out", best={}, profile="gpu", shares=dict(SHARES))

    def job(name):
        kind, arm, rate, *_ = name.split("_")
        cost = {"seconds": 1.0, "peak_bytes": 5}
        if kind == "sweep":
            away = abs(math.log10(float(rate) / made.best.get(arm, 0.1)))
            return {"right": round(0.9 - away / 10, 6), "loss": 1.0, "diverged": False, **cost}
        share = made.shares.get(arm, 0.5)  # a trial has other arms
        return {"rows": right(share), "loss": 1 - share, "training seconds": 7.0, "trained": trained(arm),
                **cost}  # fmt: skip

    def start(bench, name, folder, card, beside=1):
        made.started.append(name)
        (folder / f"{name}.log").write_text("")
        code = soft.main(["--job", name, "--folder", str(folder)])
        return SimpleNamespace(exitcode=code, kill=lambda: None)

    monkeypatch.setattr(soft, "job", job)
    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(stats, "RESAMPLES", 200)
    monkeypatch.setattr(store, "code_digest", functools.cache(store.code_digest))  # one process, many jobs
    monkeypatch.setattr(store, "data_digest", functools.cache(store.data_digest))
    monkeypatch.setattr(ledger, "bands", functools.cache(ledger.bands))
    monkeypatch.setattr(jobs, "cards", lambda: [None] * 99)  # all at once: `run` sleeps between rounds
    monkeypatch.setattr(jobs.time, "sleep", lambda _: None)
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    monkeypatch.setattr(soft.env, "profile", lambda: made.profile)
    return made


def run(world):
    assert bench_main(["soft", "--folder", str(world.folder)]) == 0
    return store.read("soft")


def methods_tickets(folder, budget=BUDGET):
    """Leave a record of `bench methods` with LoRA and full; those after 2,000 of 5,000 rows are wrong."""
    entry = {"rates": LORA_RATES, "losses": dict.fromkeys(LORA_RATES, 1.0)}
    flags = [*stats.unpack_rows(right(0.8)), *[False] * 3000]
    score = {"task": "tickets", "split": "test", "rows": [stats.pack_rows(flags)] * 3}
    whole = {"schema": store.SCHEMA, "scores": {"lora-r16": score, "full": score},
             "values": {"settings": budget, "methods": {"lora-r16": entry, "full": entry}}}  # fmt: skip
    (folder / "methods_tickets.json").write_text(json.dumps(whole))


# ---- the whole run


def test_a_run_leaves_a_record_of_every_arm_and_a_second_run_starts_nothing(world, capsys):
    whole = run(world)
    asked, found = soft.GPU, whole["values"]
    assert set(found["arms"]) == set(whole["scores"]) == set(SHARES)
    assert store.stale("soft") == []
    for arm, share in SHARES.items():
        one = found["arms"][arm]
        assert one["test"] == pytest.approx([share] * 3) and one["loss"] == pytest.approx([1 - share] * 3)
        assert one["exact"]["low"] < share < one["exact"]["high"]
    finals = [name for name in world.started if name.startswith("final_")]
    assert len(finals) == len(set(finals)) == len(SHARES) * len(asked["seeds"])  # an arm is trained once
    assert all(name.startswith("final_prompt-n20+3600_") for name in finals[:3])  # the longest first
    before = len(world.started)
    assert run(world)["values"] == found and len(world.started) == before
    assert capsys.readouterr().out.count("\n| --- |") == 2 * 3
    assert soft_report.lines() == soft_report.lines(found)


def test_without_a_gpu_there_is_a_trial_and_no_record(world, capsys):
    world.profile = "smoke"
    assert bench_main(["soft", "--folder", str(world.folder)]) == 0
    assert store.read("soft") is None and "a trial" in capsys.readouterr().out
    assert soft_report.lines() == [markdown.missing("soft")]
    before = len(world.started)
    world.profile = "gpu"
    run(world)
    assert len(world.started) > 1.5 * before  # a trial's results are none of a measurement's


def test_every_arm_is_tuned_alike_and_its_finals_have_its_best_rate(world):
    world.best = {"prompt-n1": 1e-6, "prompt-n20": 1.0, "prompt-n20+1200": 0.3, "lora-r16+1200": 1e-3}
    found = run(world)["values"]
    swept = {}
    for name in world.started:
        kind, arm, rate, seed, *rest = name.split("_")
        if kind == "sweep":
            assert (seed, rest) == ("0", ["unseen"])
            swept.setdefault(arm, []).append(float(rate))
    assert set(swept) == set(SHARES) - {"prompt-n20+3600"} == set(found["sweeps"])
    assert len(swept["prompt-n1"]) == 4 + 3 and found["sweeps"]["prompt-n1"]["at an end"]
    assert sorted(swept["prompt-n20"]) == [0.03, 0.1, 0.3, 1.0, 3.0]  # the best was an end: one further
    assert sorted(swept["prompt-n20+rows"]) == [0.03, 0.1, 0.3, 1.0]
    assert sorted(swept["lora-r16+1200"]) == sorted(methods.find("lora-r16").rates)
    for arm, rate in (("prompt-n20", "1"), ("prompt-n20+1200", "0.3"), ("prompt-n20+3600", "0.3"),
                      ("lora-r16+1200", "0.001")):  # fmt: skip
        rates = {name.split("_")[2] for name in world.started if name.startswith(f"final_{arm}_")}
        assert rates == {rate}, arm
    assert "| 0.001 |" in " ".join(soft_report.steps_table(found))
    assert "| 0.001* |" not in " ".join(soft_report.steps_table(found))


def test_rates_that_bench_methods_tried_with_this_budget_are_not_tried_again(world, tmp_path):
    methods_tickets(tmp_path)
    found = run(world)["values"]
    assert not any(name.startswith("sweep_lora-r16_") for name in world.started)
    assert found["sweeps"]["lora-r16"]["right"] == LORA_RATES and "full" not in found["sweeps"]
    assert any(name.startswith("sweep_lora-r16+1200_") for name in world.started)  # of another budget
    assert {f"final_lora-r16_0.003_{seed}" for seed in (0, 1, 2)} <= set(world.started)
    methods_tickets(tmp_path, {**BUDGET, "steps": 100})
    run(world)
    assert any(name.startswith("sweep_lora-r16_") for name in world.started)


def test_an_arm_that_diverges_at_every_rate_stops_the_run_with_its_name(world, monkeypatch):
    real = soft.job

    def job(name):
        diverged = {"right": 0.0, "loss": None, "diverged": True, "seconds": 1.0, "peak_bytes": 5}
        return diverged if name.startswith("sweep_prefix-n5_") else real(name)

    monkeypatch.setattr(soft, "job", job)
    with pytest.raises(LabkitError, match="prefix-n5 failed at every rate"):
        run(world)


# ---- values and tables


def test_gaps_are_those_of_the_scores_and_a_prefix_meets_the_prompt_of_its_size_alone(world):
    whole = run(world)
    found, source = whole["values"], judge.Recorded(whole)
    assert found["equally large"] == [["prefix-n5", "prompt-n100"]]
    for name, gap in found["gaps"].items():
        first, second = name.split(" minus ")
        assert gap["mean"] == pytest.approx(SHARES[first] - SHARES[second], abs=1e-9), name
        assert gap["low"] == judge.estimate({"gap": [first, second]}, source).low < gap["mean"] < gap["high"]
    world.shares |= {"prefix-n5": 0.1, "prompt-n20+rows": 0.4}
    world.folder = world.folder / "again"
    gaps = run(world)["values"]["gaps"]
    assert gaps["prefix-n5 minus prompt-n100"]["high"] < 0 < gaps["prompt-n20+rows minus prompt-n20"]["low"]


def test_tables_name_the_arms_that_each_question_compares(world):
    found = run(world)["values"]
    lengths, starts, steps = (make(found) for make in (
        soft_report.lengths_table, soft_report.starts_table, soft_report.steps_table))  # fmt: skip
    rows = [[line.strip("| ").split(" | ") for line in some[2:] if line.startswith("|")]
            for some in (lengths, starts, steps)]  # fmt: skip
    prompt, prefix = "prompt tuning", "prefix tuning"
    assert [row[:3] for row in rows[0]] == [
        [prompt, "1", "576"], [prompt, "5", "2,880"], [prompt, "20", "11,520"], [prompt, "100", "57,600"],
        [prefix, "5", "57,600"], [prefix, "20", "230,400"]]  # fmt: skip
    assert "prefix-n5 minus prompt-n100 +10.0 [" in lengths[-1] and "bench methods" not in lengths[-1]
    assert [row[3].split(" ")[0] for row in rows[1]] == ["20.0%", "10.0%", "5.0%", "15.0%"]
    assert [row[6].split(" ")[0] for row in rows[1][1:]] == ["-10.0", "-15.0", "-5.0"]
    assert [(row[1], row[3].split(" ")[0]) for row in rows[2]] == [
        ("300", "20.0%"), ("1,200", "40.0%"), ("3,600", "50.0%"), ("300", "80.0%"), ("1,200", "82.0%")]
    found["sweeps"]["prompt-n5"]["at an end"] = True
    made = soft_report.lengths_table, soft_report.starts_table, soft_report.steps_table
    assert ["*: the lowest" in make(found)[-1] for make in made] == [True, False, False]
    assert "lora-r16 minus prompt-n20+3600 +30.0 [" in steps[-1]


def test_an_arm_whose_final_runs_diverged_is_shown_with_no_row_right(world, monkeypatch):
    real = soft.job

    def job(name):
        if name.startswith("final_prompt-n5_"):
            return {"rows": right(0.0), "loss": None, "training seconds": None, "trained": 2880,
                    "seconds": 1.0, "peak_bytes": 5}  # fmt: skip
        return real(name)

    monkeypatch.setattr(soft, "job", job)
    found = run(world)["values"]
    line = next(line for line in soft_report.lengths_table(found) if "| 5 | 2,880 |" in line)
    assert line.endswith("| diverged |") and "| 0.0% [0.0%, " in line


# ---- the figure


def drawn(found, monkeypatch):
    """(title, alt text, axes) of the figure."""
    shown = []
    monkeypatch.setattr("labkit.plots.show", lambda fig, alt: shown.append((fig, alt)))
    soft_report.plot(found)
    (fig, alt), = shown
    return fig.axes[0].get_title(loc="left"), alt, fig.axes[0]


def test_the_title_is_found_in_the_data(world, monkeypatch):
    found = run(world)["values"]
    title, alt, axes = drawn(found, monkeypatch)
    assert title == ("300 steps. Prompt tuning: best with 100, the most tried, 30%.\n"
                     "A prefix with the weights of 100 vectors: 40%")  # fmt: skip
    assert "prompt tuning: 2.0% with 1, 5.0% with 5, 20.0% with 20, 30.0% with 100" in alt
    assert "prefix tuning: 40.0% with 5, 50.0% with 20" in alt and "LoRA" not in alt
    assert axes.get_xscale() == "log" and [tick.get_text() for tick in axes.get_xticklabels()] == [
        "1", "5", "20", "100"]  # fmt: skip
    found["arms"]["prompt-n1"]["test"] = [0.7, 0.5, 0.9]
    found["equally large"] = []
    title, _, axes = drawn(found, monkeypatch)
    assert title == "300 steps. Prompt tuning: best with 1, 70%"
    bars = axes.containers[0].lines[2][0].get_segments()
    assert [point[1] for point in bars[0]] == pytest.approx([50, 90])  # the worst and the best seed


def test_levels_are_those_of_bench_methods_on_the_same_rows_and_budget(world, monkeypatch, tmp_path):
    found = run(world)["values"]
    methods_tickets(tmp_path)
    assert soft_report.levels(found) == pytest.approx({"full": 0.8, "lora-r16": 0.8})  # of 5,000 rows: 0.32
    assert "full finetuning: 80.0%. LoRA of rank 16: 80.0%" in drawn(found, monkeypatch)[1]
    assert "full finetuning 80.0%, LoRA of rank 16 80.0%" in soft_report.lengths_table(found)[-1]
    methods_tickets(tmp_path, {**BUDGET, "batch": 4})
    assert soft_report.levels(found) == {}


def test_without_a_record_the_figure_is_the_sentence_that_others_print(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    soft_report.plot()
    assert capsys.readouterr().out == f"{markdown.missing('soft')}\n"


# ---- jobs


def test_an_arms_name_says_method_start_and_steps():
    said = {arm: soft.parts(arm, soft.GPU) for arm in soft.arms(soft.GPU)}
    assert set(said) == set(SHARES) and len(soft.arms(soft.GPU)) == len(SHARES)
    assert said["prompt-n20"] == ("prompt-n20", "words", 300)
    assert said["prompt-n20+rows"] == ("prompt-n20", "rows", 300)
    assert said["prompt-n20+3600"] == ("prompt-n20", "words", 3600)
    assert said["lora-r16+1200"] == ("lora-r16", "words", 1200)


def test_a_prompt_starts_as_words_rows_of_the_vocabulary_or_numbers_of_its_spread(fits, tiny, tokenizer):
    words = tiny().get_input_embeddings().weight

    def start(arm, seed="0"):
        return soft.trainee(arm, seed, soft.SMOKE)[0].soft_prompt().detach()

    def of_vocabulary(vectors):
        return (torch.cdist(vectors, words).min(dim=1).values < 1e-3).tolist()

    ids = tokenizer(START, add_special_tokens=False).input_ids
    plain, rows, numbers = start("prompt-n20"), start("prompt-n20+rows"), start("prompt-n20+numbers")
    assert torch.equal(plain, words[torch.tensor((ids * 20)[:20])])
    assert all(of_vocabulary(rows)) and not torch.equal(rows, plain)
    assert not any(of_vocabulary(numbers))
    assert numbers.std().item() == pytest.approx(words.std().item(), rel=0.1)
    assert abs(numbers.mean().item()) < 0.1 * words.std().item()
    for arm, vectors in (("prompt-n20+rows", rows), ("prompt-n20+numbers", numbers)):
        assert torch.equal(start(arm), vectors) and not torch.equal(start(arm, "1"), vectors)
    assert torch.equal(start("prompt-n20", "1"), plain)


def test_a_final_trains_its_own_weights_alone_on_all_rows_for_its_steps(fits):
    wanted = {"prompt-n20+rows": (20 * 64, 1), "prompt-n20+2": (20 * 64, 2), "prefix-n1": (2 * 2 * 32, 1)}
    for arm, (size, steps) in wanted.items():
        found = soft.job(f"final_{arm}_0.1_1")
        assert found["trained"] == size and found["rows"].startswith("2:") and found["loss"] > 0
        assert found["training seconds"] > 0
        one = fits[-1]
        assert (one.steps, one.validate_every, one.lr, one.seed) == (steps, steps, 0.1, 1)
        test = few_rows("tickets")["test"]
        assert len(one.rows) == 24 and list(one.validation["id"]) == list(test["id"])[:2]
        moved = {name for name, weight in one.model.state_dict().items()
                 if not torch.equal(weight, one.before[name])}  # fmt: skip
        assert moved and all("soft_prompt" in name for name in moved), arm
    assert torch.equal(fits[0].before["soft_prompt.vectors"],
                       soft.trainee("prompt-n20+rows", "1", soft.SMOKE)[0].soft_prompt.vectors)  # fmt: skip


def test_a_sweep_trains_on_phrasings_other_than_those_that_judge_it(fits):
    found = soft.job("sweep_prompt-n20+2_0.1_0_unseen")
    assert 0 <= found["right"] <= 1 and found["loss"] > 0 and not found["diverged"]
    assert fits[0].steps == 2 and not set(fits[0].rows["phrasing"]) & set(fits[0].validation["phrasing"])
    assert all(name.startswith("tickets-train") for name in fits[0].validation["id"])  # and no test row


def test_a_run_that_diverges_has_no_row_right_and_another_error_is_raised(fits, monkeypatch):
    def failing(message):
        def fit(*args, **options):
            raise LabkitError(message)

        return fit

    monkeypatch.setattr("labkit.fit", failing("the loss is nan at step 3"), raising=False)
    found = soft.job("final_prompt-n20_3_0")
    assert not stats.unpack_rows(found["rows"]).any() and found["rows"].startswith("2:")
    assert found["loss"] is None and found["trained"] == 20 * 64
    assert soft.job("sweep_prompt-n20_3_0_unseen")["diverged"]
    monkeypatch.setattr("labkit.fit", failing("the disk is full"), raising=False)
    with pytest.raises(LabkitError, match="disk"):
        soft.job("final_prompt-n20_3_0")


def test_a_loss_that_is_no_number_is_recorded_as_none():
    assert soft.last_loss(SimpleNamespace(validation=[(1, 0.5), (2, math.nan)])) is None
    assert soft.last_loss(SimpleNamespace(validation=[(1, math.inf), (2, 0.25)])) == 0.25
