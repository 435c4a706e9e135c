"""`bench quant`: its jobs on a tiny model, the sweep, and a record that the claims can be judged from."""

import functools
import json
import math
from types import SimpleNamespace

import pytest
import torch

from labkit import tasks
from labkit.bench import jobs, quant, quant_report, quant_time, quant_train, quant_values
from labkit.bench import main as bench_main
from labkit.errors import LabkitError
from labkit.methods import quantize as Q
from labkit.methods.quantize import formats
from labkit.records import judge, ledger, store

CLAIMS = [claim for claim in ledger.ledger() if claim["id"].startswith("quant-")]


@functools.cache
def few_rows(family, **options):
    return {split: rows.select(range(40)) for split, rows in tasks.load(family, **options).items()}


@pytest.fixture
def small(monkeypatch, tiny):
    """Jobs run under the smoke budget on a tiny model, with a few formats and rows."""
    some = ("bf16", "nf4 64", "int4 asym 32", "int3", "int2")
    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    monkeypatch.setattr("labkit.load_model", tiny, raising=False)
    monkeypatch.setattr(formats, "FORMATS", {name: Q.FORMATS[name] for name in some})
    monkeypatch.setattr("labkit.load", few_rows, raising=False)
    monkeypatch.setattr("labkit.tasks.general.passages", lambda: ["The kettle sang. Nobody moved."] * 3)


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Real main, jobs.run and files, but pretended jobs: NF4 is best by 2%, training works best at 3e-4."""
    made = SimpleNamespace(started=[], folder=tmp_path / "out", best=3e-4, profile="gpu")

    def job(name):
        cost = {"seconds": 1.0, "peak_bytes": 5}
        kind, _, rest = name.partition("_")
        if kind in ("formats", "gaussian"):
            error = {form: 0.100 if form.startswith("nf4") else 0.102 for form in Q.FORMATS}
            if kind == "gaussian":
                count = quant.settings()["dithers"]
                return {"error": {form: [one] * count for form, one in error.items()}, **cost}
            says = {form: 300 * one for form, one in error.items()}
            return {"not rounded": 20.0, "error": error, "perplexity": says, **cost}
        if kind == "bytes":
            bits = {"nf4 double": 4.127, "int8 row": 8.05, "bf16": 16, "int2": 2.5}
            return {"bits": dict.fromkeys(Q.FORMATS, 4.5) | bits,
                    "bytes": dict.fromkeys(Q.FORMATS, 4.0) | {"bf16": 8.0}, **cost}  # fmt: skip
        if kind == "time":
            ratios = {"matmul": [1.1, 1.2], "decode": [0.5, 0.5], "step": [1.3, 1.4]}
            return {"time ratio": ratios, "times": {}, **cost}
        _, arm, rate, _ = rest.split("_")
        loss = {"exact": 1.0, "ternary": 1.2, "int3": 1.1, "int2": 2.0}[arm]
        loss += abs(math.log10(float(rate) / made.best)) / 10
        return {"loss": loss, "after": {"int3": 3.0, "int2": 9.0}, "diverged": False, "losses": [], **cost}

    def start(bench, name, folder, card, beside=1):
        made.started.append(name)
        (folder / f"{name}.log").write_text("")
        code = quant.main(["--job", name, "--folder", str(folder)])
        return SimpleNamespace(exitcode=code, kill=lambda: None)

    monkeypatch.setattr(quant, "job", job)
    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(store, "code_digest", functools.cache(store.code_digest))  # one process, sixty jobs
    monkeypatch.setattr(store, "data_digest", functools.cache(store.data_digest))
    monkeypatch.setattr(jobs, "cards", lambda: [None])
    monkeypatch.setattr(jobs.time, "sleep", lambda _: None)
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    monkeypatch.setattr(quant.env, "profile", lambda: made.profile)
    return made


def run(world):
    assert bench_main(["quant", "--folder", str(world.folder)]) == 0
    return store.read("quant")


# ---- the whole run


def test_a_run_leaves_a_record_with_every_value_that_the_claims_name(world, capsys):
    whole = run(world)
    assert "nf4 double" in capsys.readouterr().out
    source = judge.Recorded(whole)
    for claim in CLAIMS:
        for band in [*claim["bands"], *claim["beside"]]:
            assert judge.estimate(band, source) is not None, (claim["id"], band)
    assert source.value("no.such.value") is None
    said = {claim["id"]: ledger.conclusion(ledger.judge_all(claim, source)) for claim in CLAIMS}
    assert said == {"quant-bytes": "reproduced", "quant-nf4": "reproduced", "quant-dq": "reproduced",
                    "quant-qat": "reproduced", "quant-ternary": "reproduced",
                    "quant-slow": "undecided"}  # fmt: skip  two repeats are too few
    assert {claim["id"] for claim in CLAIMS} <= set(whole["claims"])
    assert store.stale("quant") == []


def test_every_claim_of_quantization_reads_this_record():
    assert len(CLAIMS) == 6 and {claim["record"] for claim in CLAIMS} == {quant.NAME}


def test_a_second_run_starts_nothing_and_without_a_gpu_there_is_no_record(world, capsys):
    run(world)
    before = len(world.started)
    run(world)
    assert len(world.started) == before and len(set(world.started)) == before
    store.path_of("quant").unlink()
    world.profile = "smoke"
    assert bench_main(["quant", "--folder", str(world.folder)]) == 0
    assert len(world.started) > before                         # the results of another profile do not count
    assert store.read("quant") is None and "a trial" in capsys.readouterr().out


def test_a_sweep_whose_best_rate_is_an_end_goes_on_beyond_it(world):
    world.best = 1e-5
    whole = run(world)
    rates = [float(rate) for rate in whole["values"]["training"]["int2"]["rates"]["not rounded"]]
    assert min(rates) == pytest.approx(3e-5 / 9, rel=1e-4) and max(rates) == 1e-3
    assert len([name for name in world.started if name.startswith("tune_tickets_exact_")]) == 6
    finals = {name.split("_")[3] for name in world.started if name.startswith("final_tickets_exact_")}
    assert finals == {"1e-05"}


def test_a_best_rate_inside_the_sweep_ends_it(world):
    run(world)
    assert len([name for name in world.started if name.startswith("tune_tickets_int2_")]) == 4
    finals = [name for name in world.started if name.startswith("final_tickets_int2_")]
    assert finals == [f"final_tickets_int2_0.0003_{seed}" for seed in quant.SEEDS]


# ---- values


def test_the_margin_is_the_best_other_over_the_best_nf4_at_each_seed():
    values = {"a": [2.0, 3.0], "b": [1.0, 4.0], "x": [1.5, 1.5], "y": [5.0, 1.0]}
    assert quant_values.margins(values, {"nf4": ("a", "b"), "others": ("x", "y")}) == [1.5, 1 / 3]


def test_the_gap_to_close_ends_at_a_guess_where_rounding_is_worse():
    assert quant_values.closed(1.0, 9.0, 3.0) == 0.75
    guess = quant_train.GUESSING
    assert 10.8 < guess < 10.81 and quant_values.closed(1.0, 15.0, guess) == 0
    assert quant_values.closed(1.0, 15.0, 3.0) == quant_values.closed(1.0, guess, 3.0) < 12 / 14


def test_the_vocabulary_of_a_guess_is_the_bases(tokenizer):
    assert quant_train.GUESSING == math.log(len(tokenizer))


def test_a_band_that_moves_between_two_jobs_shows_in_the_record(world, monkeypatch):
    real, before = quant.job, ledger.bands()

    def job(name):
        if name == "time":                                     # the last job
            monkeypatch.setattr(ledger, "bands", lambda: {**before, "quant-slow": "moved"})
        return real(name)

    monkeypatch.setattr(quant, "job", job)
    assert run(world)["claims"] == {**before, "quant-slow": ledger.MOVED}


def test_another_format_that_is_better_at_one_level_decides_against_nf4(world, monkeypatch):
    real = quant.job

    def job(name):
        found = real(name)
        if name == "gaussian":
            found["error"]["int4 full 32"] = [0.09] * 5
        return found

    monkeypatch.setattr(quant, "job", job)
    values = run(world)["values"]
    assert values["weight error, best other over NF4"] == pytest.approx([0.9] * 5)
    assert values["best other over NF4"]["4.13 bits"]["weight error"]["gaussian"] == pytest.approx([1.02] * 5)
    [claim] = [claim for claim in CLAIMS if claim["id"] == "quant-nf4"]
    rows = ledger.judge_all(claim, judge.Recorded({"values": values}))
    assert ledger.conclusion(rows) == "contradicted here"


def test_a_ternary_run_that_diverged_is_counted_and_leaves_no_gap(world, monkeypatch):
    real = quant.job

    def job(name):
        broken = name.startswith("final_random_ternary") and name.endswith("_1")
        return {**real(name), **({"loss": None, "diverged": True} if broken else {})}

    monkeypatch.setattr(quant, "job", job)
    values = run(world)["values"]
    assert values["diverged"] == 1 and len(values["loss gap"]) == 2
    [claim] = [claim for claim in CLAIMS if claim["id"] == "quant-ternary"]
    rows = ledger.judge_all(claim, judge.Recorded({"values": values}))
    assert ledger.conclusion(rows) == "contradicted here"


@pytest.mark.parametrize("losses, said", [
    ([5 - i / 30 for i in range(100)], False), ([3.0] * 90 + [4.0] * 10, True), ([2.0, 1.0], False),
    ([3.0] * 50 + [6.0] * 30 + [3.2] * 20, False), ([3.0] * 50 + [math.nan] * 50, True), ([], False),
])  # fmt: skip
def test_a_run_has_diverged_if_it_ends_above_its_best_tenth(losses, said):
    assert quant_train.diverged(losses) is said


# ---- jobs


def test_a_job_of_formats_measures_error_and_perplexity_on_the_base_or_dithered(small):
    base, dithered = quant.job("formats_base"), quant.job("formats_0")
    assert base["error"]["bf16"] < base["error"]["nf4 64"] < base["error"]["int2"]
    assert base["not rounded"] != dithered["not rounded"] and base["seconds"] > 0
    assert base["perplexity"]["bf16"] == pytest.approx(base["not rounded"], rel=0.01)
    assert base["perplexity"]["int2"] != pytest.approx(base["not rounded"], rel=1e-4)


def test_gaussian_errors_and_bytes_are_the_formats_own(small):
    found = quant.job("gaussian_")["error"]
    assert 0.08 < found["nf4 64"][0] < 0.1 and len(found["nf4 64"]) == 2
    sizes = quant.job("bytes")
    assert sizes["bits"]["nf4 64"] == 4.5 and sizes["bytes"]["int2"] < sizes["bytes"]["bf16"]


@pytest.mark.parametrize("arm", ["exact", "int2"])
def test_a_job_of_training_gives_the_held_out_loss_and_the_exact_arm_also_after_rounding(small, arm):
    found = quant.job(f"final_tickets_{arm}_0.001_1")
    assert 5 < found["loss"] < 15 and found["diverged"] is False
    assert (set(found["after"]) == set(quant_train.ROUNDED)) if arm == "exact" else found["after"] is None
    assert json.loads(json.dumps(found)) == found


def test_models_from_random_weights_read_every_family_and_start_alike(small, monkeypatch):
    monkeypatch.setattr(quant_train, "FAMILIES", ("tickets", "voice"))
    found = quant.job("tune_random_ternary_0.001_0")
    assert 8 < found["loss"] < 13 and len(found["losses"]) == 10 and found["after"] is None
    plain, ternary, other = (quant_train.start("random", arm, seed) for arm, seed in
                             (("exact", 3), ("ternary", 3), ("exact", 4)))  # fmt: skip
    weights = [model.model.layers[0].mlp.up_proj.weight for model in (plain, ternary, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert isinstance(ternary.model.layers[0].mlp.up_proj, Q.BitLinear)


def test_a_loss_that_is_not_finite_is_a_result_and_another_failure_is_not(small, monkeypatch):
    def failing(message):
        def fit(*args, **options):
            raise LabkitError(message)

        return fit

    monkeypatch.setattr("labkit.fit", failing("the loss is nan at step 3"), raising=False)
    assert quant.job("tune_tickets_exact_0.1_0")["diverged"] is True
    monkeypatch.setattr("labkit.fit", failing("the disk is full"), raising=False)
    with pytest.raises(LabkitError, match="disk"):
        quant.job("tune_tickets_exact_0.1_0")


def test_the_answer_loss_is_the_models_own_on_answer_tokens(tiny, tokenizer, tickets):
    model = tiny()
    found = quant_train.answer_loss(model, tokenizer, tickets[:3])
    total = count = 0
    for row in tickets[:3]:
        start = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        ids = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=False)
        labels = [-100] * len(start) + ids[len(start):]
        with torch.no_grad():
            loss = model(torch.tensor([ids]), labels=torch.tensor([labels])).loss.item()
        total, count = total + loss * (len(ids) - len(start)), count + len(ids) - len(start)
    assert found == pytest.approx(total / count, rel=1e-4)
    assert quant_train.answer_loss(model, tokenizer, tickets[:3], whole=True) != found
    assert quant_train.answer_loss(model, tokenizer, tickets[3:6]) != pytest.approx(found, rel=1e-4)


def test_rows_longer_than_a_packed_row_are_left_out(tokenizer, tickets):
    kept = quant_train.fitting(tickets, tokenizer, 150)
    assert 0 < len(kept) < len(tickets) and set(kept[0]) == {"prompt", "completion"}
    assert len(quant_train.fitting(tickets, tokenizer, 1000)) == len(tickets)


def test_times_are_taken_for_products_single_tokens_and_steps(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = quant_time.measure(repeats=2)
    assert set(found) == {"trial"}                             # no ratio is a measurement without a GPU
    assert all(len(found["trial"][what]) == 2 for what in ("matmul", "decode", "step"))


def test_a_four_bit_layer_is_quantized_and_nearly_its_plain_twin():
    torch.manual_seed(0)
    weight = torch.randn(128, 64)
    plain, four = (quant_time.linear(64, 128, torch.device("cpu"), bits, weight) for bits in (False, True))
    assert four.weight.dtype == torch.uint8 and four.weight.quant_state.nested
    x = torch.randn(8, 64, dtype=torch.bfloat16)
    error = Q.relative_error(plain(x), four(x))
    assert 0.05 < error < 0.15


# ---- tables


def test_tables_and_figure_say_so_before_anything_is_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    assert quant_report.format_table() == quant_report.training_table() == [quant_report.MISSING]
    quant_report.plot()
    assert "bench quant" in capsys.readouterr().out


def test_tables_show_every_format_and_arm_and_the_figure_its_numbers(world, monkeypatch):
    values = run(world)["values"]
    lines = quant_report.format_table(values)
    assert len(lines) == len(Q.FORMATS) + 3 and max(map(len, lines)) <= 100
    arms = quant_report.training_table(values)[2:4]
    assert "95% of the gap closed" in arms[0] and "88% of the gap closed" in arms[1]
    shown = []
    monkeypatch.setattr("labkit.plots.show", lambda fig, alt: shown.append(alt))
    quant_report.plot(values)
    assert "nf4 double 4.13 bits 30.00" in shown[0]


@pytest.mark.parametrize("two, ends", [(50_000, "worse than a guess"), (48_000, "at least 1200.00 times")])
def test_the_title_gives_the_range_near_4_bits_and_names_a_guess_only_beyond_it(two, ends):
    points = {"bf16": (16, 40.0), "best": (4.5, 44.0), "worst": (4.13, 60.0), "five": (5.0, 41.0),
              "int2": (2.5, two), "ternary": (1.6, 1e6)}  # fmt: skip
    said = quant_report._finding(points)
    assert said == f"Perplexity at 4 to 4.6 bits: 1.10 to 1.50 times bf16's; below 3: {ends}"
