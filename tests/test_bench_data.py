"""`bench data`: which rows train and which judge, jobs on a tiny model, and a record to judge claims from."""

import copy
import functools
import json
import math
from types import SimpleNamespace

import pytest
import torch

from labkit import tasks
from labkit.bench import data, data_jobs, data_more, data_report, data_values, jobs, markdown
from labkit.bench import main as bench_main
from labkit.bench import methods as bench_methods
from labkit.errors import LabkitError
from labkit.records import judge, ledger, stats, store
from labkit.tasks.jobs import pronoun

CLAIMS = [claim for claim in ledger.ledger() if claim["record"] == data.NAME]
loaded = functools.cache(tasks.load)
depends = functools.cache(data.depends)  # one process, many jobs
SIZES = {"tickets": 5000, "handbook": 2506, "arithmetic": 3000}


@pytest.fixture
def small(monkeypatch, tiny, tokenizer):
    """Jobs run under the smoke budget on a tiny model, with short answers and little English."""
    own = tiny()

    def load_model():
        return copy.deepcopy(own)

    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    monkeypatch.setattr("labkit.load_model", load_model, raising=False)
    monkeypatch.setattr("labkit.load", loaded, raising=False)
    monkeypatch.setattr("labkit.load_tokenizer", lambda: tokenizer, raising=False)
    for family in ("tickets", "handbook", "arithmetic"):
        monkeypatch.setattr(f"labkit.tasks.{family}.MAX_NEW_TOKENS", 2, raising=False)
    monkeypatch.setattr("labkit.tasks.general.passages", lambda: ["The kettle sang. Nobody moved."] * 3)


# ---- a whole run, of pretended jobs

# What an arm gets right in test; every other arm gets 0.6.
RIGHT = {"noise30-10000": 0.7, "uniform-10000": 0.75, "uniform-noise30-10000": 0.4, "lora-10000": 0.9,
         "noise5-10000": 0.85, "noise10-10000": 0.82, "noise20-10000": 0.8, "noise40-10000": 0.5,
         "noise80-10000": 0.1, "mix1": 0.58, "mix4": 0.5, "cannot-50": 0.001, "cannot-100": 0.001,
         "answer-3": 0.3, "steps-3": 0.8, "filler-3": 0.31}  # fmt: skip
CURVES = {"lora": (0.2, 0.4, 0.5, 0.6, 0.65, 0.66), "full": (0.1, 0.3, 0.5, 0.6, 0.66, 0.7)}
for method, curve in CURVES.items():
    RIGHT |= {f"{method}-{count}": share for count, share in zip(data_jobs.COUNTS, curve, strict=True)}
JUDGED = {"answer-2": 0.9, "answer-3": 0.3, "answer-4": 0.1, "answer-5": 0.0, "mix1": 0.5, "mix4": 0.4}


def pretended(name, best):
    """A job's result: rates work best at `best`, arms as RIGHT and JUDGED say, nothing diverges."""
    kind, *rest = name.split("_")
    if kind == "sweep":
        away = abs(math.log10(float(rest[1]) / best))
        return {"right": round(JUDGED.get(rest[0], 0.6) * (1 - away / 10), 6), "loss": 1.0, "diverged": False}
    if kind == "final":
        return {"rows": right(RIGHT.get(rest[0], 0.6), family(rest[0])), "detail": {"all": 0.5},
                "tokens": 9, "steps": 300}  # fmt: skip
    if kind == "base" and rest != ["jobs"]:
        return {"rows": right(0, rest[0]), "detail": {}}
    if kind in ("base", "bias"):
        size = {"counterfactual": 0.5, "balanced": 0.6, "skewed": 3.0}.get(rest[0], 2.0)
        one = {"log-odds": size, "by job": {"miner": size, "nanny": -size}}
        return {"chat": one, "bare": one, "general loss": 3.0 if kind == "base" else 3.01}
    if kind == "collapse":
        rise = {"replace": 0.1, "accumulate": 0.02, "real10": 0.03}[rest[0]]
        return {"losses": [2.0 + place * rise for place in range(6)], "distinct": [1, 0.9, 0.8, 0.7, 0.6]}
    return {"tokens/s": 100.0, "path": "plain", "steps": 300, "training seconds": 9.0}


@functools.cache
def right(share, family="tickets"):
    """Packed flags of a family's test rows, of which this share is right, spread evenly."""
    return stats.pack_rows([int((row + 1) * share) > int(row * share) for row in range(SIZES[family])])


def family(arm):
    return data_jobs.arms()[arm].family


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Real main, jobs.run and files, but pretended jobs."""
    made = SimpleNamespace(started=[], folder=tmp_path / "out", best=1e-3, profile="gpu", alone=[])

    def job(name):
        return {**pretended(name, made.best), "seconds": 1.0, "peak_bytes": 5}

    def start(bench, name, folder, card, beside=1):
        made.started.append(name)
        (folder / f"{name}.log").write_text("")
        mark = {**depends(), "profile": made.profile}
        jobs.write(folder, name, {**data.job(name), "digest": mark})
        return SimpleNamespace(exitcode=0, kill=lambda: None)

    real = jobs.run

    def run(bench, names, folder, side_by_side=1, mark=None):
        made.alone += names if side_by_side == 1 else []
        return real(bench, names, folder, side_by_side, mark)

    monkeypatch.setattr(data, "job", job)
    monkeypatch.setattr(data, "depends", depends)
    monkeypatch.setattr(jobs, "run", run)
    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(jobs, "cards", lambda: [None] * 4)
    monkeypatch.setattr(jobs.time, "sleep", lambda _: None)
    monkeypatch.setattr(ledger, "bands", lambda: {claim["id"]: ledger.band_digest(claim) for claim in CLAIMS})
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    monkeypatch.setattr(data.env, "profile", lambda: made.profile)
    return made


def run(world):
    assert bench_main(["data", "--folder", str(world.folder), "--jobs", "4"]) == 0
    return store.read("data")


def test_a_run_leaves_a_record_with_every_value_and_score_that_the_claims_name(world, capsys):
    whole = run(world)
    assert "| noisy uniform 10k | 40.0% |" in capsys.readouterr().out
    source = judge.Recorded(whole)
    for claim in CLAIMS:
        for band in [*claim["bands"], *claim["beside"]]:
            found = judge.estimate(band, source)
            seeds = 1 if band.get("value") == "flips at" else 3  # of the means of seeds
            assert found is not None and len(found.each) == seeds, (claim["id"], band)
    said = {claim["id"]: ledger.conclusion(ledger.judge_all(claim, source)) for claim in CLAIMS}
    assert said == dict.fromkeys(
        ("data-quality", "data-mix", "data-pilot", "data-returns", "data-crossover", "data-cot", "data-bias",
         "data-collapse"), "reproduced")  # fmt: skip
    assert set(said) <= set(whole["claims"]) and store.stale("data") == []
    assert {"mix": whole["values"]["worst mix"]} == {"mix": "mix 4x"}
    assert len(world.started) == len(set(world.started))
    assert set(world.alone) == {f"speed_{how}_0.001" for how in data_values.SPEEDS}


def test_results_the_other_way_round_contradict_the_claims(world, monkeypatch):
    other = {"lora-1000": 0.3, "uniform-noise30-10000": 0.5, "mix1": 0.6, "mix4": 0.7, "cannot-100": 0.2,
             "helps-100": 0.0, "lora-125": 0.1, "full-125": 0.2, "lora-250": 0.1, "lora-2000": 0.2,
             "steps-3": 0.2, "filler-3": 0.9}  # fmt: skip
    for name, value in other.items():
        monkeypatch.setitem(RIGHT, name, value)
    real = data.job

    def job(name):
        found = real(name)
        if name.startswith("bias_counterfactual"):
            found["chat"]["log-odds"] = 1.9
        if name.startswith("collapse_real10"):
            found["losses"][-1] += 5
        return found

    monkeypatch.setattr(data, "job", job)
    source = judge.Recorded(run(world))
    said = {ledger.conclusion(ledger.judge_all(claim, source)) for claim in CLAIMS}
    assert said == {"contradicted here"}


def test_a_second_run_starts_nothing_and_without_a_gpu_there_is_no_record(world, capsys):
    run(world)
    before = len(world.started)
    run(world)
    assert len(world.started) == before
    store.path_of("data").unlink()
    world.profile = "smoke"
    assert bench_main(["data", "--folder", str(world.folder)]) == 0
    assert len(world.started) > before  # the results of another profile do not count
    assert store.read("data") is None and "a trial" in capsys.readouterr().out


def test_each_arm_has_its_own_best_rate_and_pilots_of_50_rows_that_of_100(world, monkeypatch):
    real = data.job

    def job(name):
        found = real(name)
        if name.startswith(("sweep_lora-125_0.01", "sweep_helps-100_0.003", "sweep_bias_0.0003")):
            found["right"] = 1.0
        return found

    monkeypatch.setattr(data, "job", job)
    found = run(world)["values"]["rates"]
    assert "sweep_lora-125_0.03_0_data" in world.started  # the best was at an end: one further, and no more
    assert not any("_0.1_" in name for name in world.started)
    finals = {name for name in world.started if name.startswith(("final", "bias", "collapse"))}
    for start in ("final_lora-125_0.01", "final_helps-50_0.003", "final_helps-100_0.003",
                  "final_cannot-50_0.001", "bias_skewed_0.0003", "collapse_replace_0.001"):  # fmt: skip
        assert {f"{start}_{seed}" for seed in range(3)} <= finals
    assert not any("sweep_helps-50" in name for name in world.started)
    assert found["lora-125"]["best"] == 0.01 and not found["lora-125"]["at an end"]


def test_the_length_of_arithmetic_is_chosen_by_answer_only_before_any_test_row(world, monkeypatch):
    assert run(world)["values"]["cot"]["digits"] == 3
    kinds = ("final_answer", "final_steps", "final_filler")
    tests = [name for name in world.started if name.startswith(kinds)]
    assert {name.split("_")[1] for name in tests} == {"answer-3", "steps-3", "filler-3"}
    of_choice = world.started.index("sweep_steps-3_0.001_0_data")
    assert max(at for at, name in enumerate(world.started) if name.startswith("sweep_answer")) < of_choice
    both = [at for at, name in enumerate(world.started) if name.startswith(("final_lora", "final_answer"))]
    late = [at for at, name in enumerate(world.started) if name.startswith(("final_steps", "final_filler"))]
    assert min(both) < of_choice < min(late)  # what waits for no rate of working keeps the card busy
    monkeypatch.setitem(JUDGED, "answer-3", 0.7)
    monkeypatch.setitem(JUDGED, "answer-4", 0.25)
    other = [name for name in world.started if name.startswith("sweep_answer")]
    tried = {}
    for name in other:
        _, arm, rate, *_ = name.split("_")
        tried.setdefault(arm, {})[float(rate)] = pretended(name, 1e-3)
    assert data_values.length(tried) == 4


def test_tables_say_so_before_anything_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    assert data_report.lines() == data_report.cot_table() == [markdown.missing("data")]


def test_tables_are_whole_and_say_steps_and_seeds(world):
    text = "\n".join(data_report.lines(run(world)["values"]))
    assert text.count("3 seeds") == 8 and "300 steps of 8 x 512" in text
    assert "| 250 | 40.0% | +20.0 | 30.0% | +10.0 |" in text and "2 digits 90.0%" in text
    assert "by means of seeds: 35%; each seed's" in text and "crosses first at: 35%, 35%, 35%" in text
    assert "lies in the 15% to 50%" in text and "by seed: 0.30, 0.30, 0.30" in text
    assert text.index("| 250 |") < text.index("| 1,000 |") < text.index("| 2,000 |")
    assert text.index("10,000, 5% damaged") < text.index("10,000, 10% damaged")
    for table in text.split("\n\n"):
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) <= 1


# ---- values


def test_the_order_flips_where_the_means_of_seeds_cross_and_not_where_the_first_seed_does(world, monkeypatch):
    real = data.job

    def job(name):
        found = real(name)
        if name.startswith("final_noise"):
            share = stats.unpack_rows(found["rows"]).mean() * (1, 0.8, 1.05)[int(name[-1])]
            found = {**found, "rows": right(share)}
        return found

    monkeypatch.setattr(data, "job", job)
    found = run(world)["values"]
    each, clean = found["noise"], found["quality"]["clean diverse 1k"]
    means = {int(share): sum(some) / len(some) for share, some in each.items()}
    assert found["flips at"] == data_values.flips_at(means, sum(clean) / len(clean))
    assert len(set(found["flips at by seed"])) > 1 and found["flips at"] not in found["flips at by seed"]


@pytest.mark.parametrize("noise, bar, wanted", [
    ({0: 0.9, 20: 0.7, 40: 0.5}, 0.6, 0.3),
    ({0: 0.9, 20: 0.7, 40: 0.5}, 0.7, 0.2),
    ({0: 0.9, 20: 0.7, 40: 0.5}, 0.95, 0.0),
    ({0: 0.9, 20: 0.7, 40: 0.5}, 0.5, None),
])  # fmt: skip
def test_the_order_flips_where_the_line_between_two_measured_shares_meets_the_bar(noise, bar, wanted):
    found = data_values.flips_at(noise, bar)
    assert found == (pytest.approx(wanted) if wanted is not None else None)


def test_returns_are_the_first_doublings_gain_less_the_lasts():
    shares = dict(zip(map(str, data_jobs.COUNTS), ([0.1], [0.4], [0.6], [0.7], [0.8], [0.85]), strict=True))
    assert data_values.returns(shares) == [pytest.approx(0.25)]
    assert data_values.returns({**shares, "4000": [1.2]})[0] < 0


def test_a_ratio_of_rises_wants_a_rise(world, monkeypatch):
    real = data.job

    def job(name):
        found = real(name)
        if name.startswith("collapse_replace") and name.endswith("_1"):
            found["losses"][-1] = 1.0
        return found

    monkeypatch.setattr(data, "job", job)
    whole = run(world)
    assert whole["values"]["rise ratio"] == [pytest.approx(0.3), None, pytest.approx(0.3)]
    [claim] = [claim for claim in CLAIMS if claim["id"] == "data-collapse"]
    assert ledger.conclusion(ledger.judge_all(claim, judge.Recorded(whole))) != "reproduced"
    assert "0.30, none, 0.30" in "\n".join(data_report.collapse_table(whole["values"]))


# ---- rows


def small_arm(**options):
    return data_jobs.Arm(**{"rows": 100, **options})


def rows_of(**options):
    seed = options.pop("seed", 0)
    return data_jobs.rows_of(small_arm(**options), seed, data.GPU)


@pytest.mark.parametrize("options", [
    {}, {"uniform": True}, {"family": "handbook"}, {"family": "arithmetic", "digits": 2},
], ids=str)  # fmt: skip
def test_no_phrasing_that_judges_a_rate_is_trained_on_and_none_of_test(small, options):
    trained = {row["phrasing"] for row in rows_of(**options)}
    judging = {row["phrasing"] for row in data_jobs.judging(small_arm(**options), data.GPU)}
    test = set(loaded(options.get("family", "tickets"))["test"]["phrasing"])
    assert trained and judging and not trained & judging and not (trained | judging) & test
    train = set(loaded(options.get("family", "tickets"))["train"]["phrasing"])
    assert trained | judging <= train


def test_uniform_rows_lack_phrasings_and_nothing_else(small):
    def intents(rows):
        names = [row["phrasing"].rpartition("-")[0] for row in rows]
        return {name: names.count(name) for name in names}

    diverse, uniform = rows_of(), rows_of(uniform=True)
    assert intents(diverse) == intents(uniform) and set(intents(uniform).values()) == {10}
    count = [len({row["phrasing"] for row in rows}) for rows in (diverse, uniform)]
    assert count[1] < 30 < 60 < count[0]
    assert len({row["prompt"][-1]["content"] for row in uniform}) == 100


def test_fewer_rows_are_the_beginning_of_more_and_seeds_draw_others(small):
    few, more, other = rows_of(rows=40), rows_of(), rows_of(seed=1)
    assert few == more[:40]
    said = [{row["prompt"][-1]["content"] for row in rows} for rows in (more, other)]
    assert len(said[0] & said[1]) < 10


def test_noise_damages_its_share_of_the_same_rows_and_never_the_rows_that_judge(small):
    clean, some, more = rows_of(), rows_of(noise=10), rows_of(noise=40)
    damaged = [{place for place, (a, b) in enumerate(zip(clean, rows, strict=True))
                if a["completion"] != b["completion"]} for rows in (some, more)]  # fmt: skip
    assert len(damaged[0]) == 10 and len(damaged[1]) == 40 and damaged[0] < damaged[1]
    judging = data_jobs.judging(small_arm(noise=40), data.GPU)
    assert judging == data_jobs.judging(small_arm(), data.GPU)


def test_a_mix_adds_rows_of_five_families_to_the_same_rows_of_the_task(small):
    alone, mixed = rows_of(), rows_of(others=4)
    assert mixed[:100] == alone and len(mixed) == 500
    systems = {row["prompt"][0]["content"] for row in mixed[100:]}
    assert len(systems) == 5 and alone[0]["prompt"][0]["content"] not in systems


def test_rows_of_withheld_facts_teach_no_answer_of_the_test(small):
    def right(rows):
        """Test rows whose fact the training rows state as the test has it."""
        said = {row["fact"]: row["answer"] for row in rows}
        return [row for row in loaded("handbook")["test"] if said.get(row["fact"]) == row["answer"]]

    rows = rows_of(rows=100, family="handbook")
    assert len(rows) == 100 and right(rows) == []
    assert right([row for row in loaded("handbook")["train"] if row["kind"] == "trained"])
    assert "The handbook does not say." not in {row["answer"] for row in rows}


@pytest.mark.parametrize("digits", [2, 4])
def test_test_rows_of_one_length_keep_the_phrasings_of_the_committed_ones(small, digits):
    rows = data_jobs.test_rows(small_arm(family="arithmetic", digits=digits), {**data.GPU, "rows": None})
    committed = loaded("arithmetic")["test"]["phrasing"]
    assert {row["digits"] for row in rows} == {digits} and len(rows) == 3000
    assert len({row["question"] for row in rows}) == 3000
    same = [row["phrasing"] == wanted for row, wanted in zip(rows, committed, strict=True)]
    assert sum(same) / 3000 == 1 if digits == 2 else 0.93 < sum(same) / 3000 < 0.95
    train = {row["calculation"] for row in rows_of(rows=1000, family="arithmetic", digits=digits)}
    assert not train & {row["calculation"] for row in rows}


def test_the_test_rows_that_are_scored_hold_every_phrasing():
    asked, rows = data.GPU["rows"], loaded("tickets")["test"]["phrasing"]
    assert set(rows[:asked]) == set(rows) and set(rows[:50]) != set(rows)


def test_filler_is_as_long_as_the_working_and_the_arms_have_the_same_questions(small):
    forms = {form: rows_of(family="arithmetic", digits=3, form=form) for form in data_values.COT.values()}
    questions = [[row["question"] for row in rows] for rows in forms.values()]
    assert questions[0] == questions[1] == questions[2]
    size = {form: data_jobs._tokens(rows) for form, rows in forms.items()}
    assert size["filler"] == size["steps"] > 1.3 * size["answer"]


# ---- jobs


@pytest.fixture
def fitted(monkeypatch):
    """What `fit` was asked for; nothing is trained."""
    calls = []

    def fit(model, rows, tokenizer, **options):
        calls.append((rows, options))
        return SimpleNamespace(validation=[(1, 2.0)], tokens=7, steps=options["steps"],
                               tokens_per_second=5.0, path="plain", seconds=1.0)  # fmt: skip

    method = SimpleNamespace(prepare=lambda seed: None, options={})
    monkeypatch.setattr("labkit.fit", fit, raising=False)
    monkeypatch.setattr("labkit.methods.find", lambda name: method)
    return calls


def test_arms_of_a_comparison_take_equal_steps_of_equally_many_tokens(small, fitted):
    asked = {**data.GPU, "shrink": 1000}
    same = [name for name, arm in data_jobs.arms().items()
            if arm.steps == "steps" and not (arm.epochs or arm.padded) and arm.digits in (0, 3)]  # fmt: skip
    for name in same:
        data_jobs.trained(data_jobs.arms()[name], 1e-3, 0, asked)
    budgets = {(o["steps"], o["batch"], o["length"], o.get("pack", True)) for _, o in fitted}
    assert budgets == {(300, 8, 512, True)}
    assert len(fitted) == len(same) > 25


def test_equal_epochs_take_more_steps_and_padding_as_many_rows_a_step(small, fitted):
    asked = {**data.GPU, "shrink": 10}
    for name in ("mix4-epochs", "padded"):
        data_jobs.trained(data_jobs.arms()[name], 1e-3, 0, asked)
    (rows, longer), (packed, padded) = fitted
    own = data_jobs._tokens(rows[:100])
    assert longer["steps"] == round(300 * data_jobs._tokens(rows) / own) > 1000
    assert padded["pack"] is False and padded["steps"] == 300
    assert padded["batch"] == round(8 * 512 / (data_jobs._tokens(packed) / len(packed))) > 30


def test_a_job_scores_judging_rows_in_a_sweep_and_test_rows_in_a_final(small, monkeypatch):
    seen, real = [], data_jobs.scored

    def scored(model, family, rows):
        seen.append({row["id"].split("-")[1] for row in rows})
        return real(model, family, rows)

    monkeypatch.setattr(data_jobs, "scored", scored)
    swept = data.job("sweep_lora-125_0.001_0_data")
    final = data.job("final_steps-3_0.001_0")
    base = data.job("base_handbook")
    assert seen == [{"train"}, {"test"}, {"test"}]
    assert swept["right"] == 0.0 and swept["loss"] > 5 and swept["peak_bytes"] == 0
    assert final["rows"].startswith("2:") and final["steps"] == 1 and base["rows"].startswith("2:")
    assert json.loads(json.dumps([swept, final, base])) == [swept, final, base]


def test_a_training_that_diverged_has_nothing_right_and_another_failure_is_raised(small, monkeypatch):
    def failing(message):
        def fit(*args, **options):
            raise LabkitError(message)

        return fit

    monkeypatch.setattr("labkit.fit", failing("the loss is nan at step 3"), raising=False)
    for arm in ("lora-125", "collapse"):
        assert data.job(f"sweep_{arm}_0.03_0_data")["diverged"]
    assert data.job("sweep_bias_0.03_0_data")["right"] < -1
    assert stats.unpack_rows(data.job("final_lora-125_0.03_0")["rows"]).sum() == 0
    monkeypatch.setattr("labkit.fit", failing("the disk is full"), raising=False)
    for name in ("sweep_lora-125_0.03_0_data", "sweep_bias_0.03_0_data", "final_lora-125_0.03_0"):
        with pytest.raises(LabkitError, match="disk"):
            data.job(name)


def test_speed_is_that_of_fit_packed_stepped_and_padded(small, fitted):
    for how in data_values.SPEEDS:
        assert data.job(f"speed_{how}_0.003")["tokens/s"] == 5.0
    packed, stepped, padded = (options for _, options in fitted)
    assert "pack" not in packed and "fast" not in packed
    assert stepped["fast"] is False and padded["pack"] is False


# ---- association


def test_the_association_is_that_of_the_next_token_and_an_even_model_has_none(small, tiny, tokenizer):
    asked = {**data.GPU, "rows": 4}
    model = tiny()
    found = data_more.association(model, "unseen", asked, chat=False)
    odds = []
    for row in tasks.load("jobs")["probes_unseen"].to_list()[:4]:
        ids = torch.tensor([tokenizer(row["text"]).input_ids])
        with torch.no_grad():
            last = model(ids).logits[0, -1].log_softmax(-1)
        he, she = (tokenizer(word).input_ids[0] for word in (" he", " she"))
        odds.append((last[he] - last[she]).item())
    assert found["log-odds"] == pytest.approx(sum(map(abs, odds)) / 4, abs=1e-4) and found["log-odds"] > 0.01
    assert data_more.association(model, "unseen", asked)["log-odds"] != pytest.approx(found["log-odds"])
    he, she = (tokenizer(word).input_ids[0] for word in (" he", " she"))
    with torch.no_grad():
        model.lm_head.weight[she] = model.lm_head.weight[he]
    assert data_more.association(model, "unseen", asked)["log-odds"] == pytest.approx(0, abs=1e-5)


def test_the_rate_of_curated_rows_is_chosen_on_what_training_shows(small, monkeypatch, fitted):
    parts, halves, losses = [], [], iter([3.0, 3.0 + math.log(1.05)])

    def association(model, part, asked):
        parts.append(part)
        return {"log-odds": 1}

    def general_loss(model, half, asked):
        halves.append(half)
        return next(losses)

    monkeypatch.setattr(data_more, "association", association)
    monkeypatch.setattr(data_more, "general_loss", general_loss)
    found = data_more.sweep_bias("0.001", "0", data.SMOKE)
    assert parts == ["seen"] and halves == [0, 0] and found["right"] == pytest.approx(-0.03)
    gentle, strong = {"right": 0.0, "loss": 1.2}, {"right": -0.03, "loss": 0.1}
    assert bench_methods.best_rate({1e-4: gentle, 3e-4: {**gentle, "loss": 0.9}, 1e-3: strong}) == 3e-4


def test_the_control_of_the_curated_rows_has_neither_he_nor_she_and_the_counterfactual_both(small):
    def pronouns(which):
        rows = data_more.job_rows(which).select(range(200))
        return {pronoun(row["completion"][0]["content"]) for row in rows}

    assert pronouns("voice") == {"neither"} and {"he", "she"} <= pronouns("counterfactual")


# ---- collapse


def test_generations_get_what_their_way_says():
    real, made, rows = list("abcdefghij" * 2), list("0123456789" * 2), list("xyz")
    assert data_more.following("replace", rows, real, made, "s") == made
    assert data_more.following("accumulate", rows, real, made, "s") == rows + made
    mixed = data_more.following("real10", rows, real, made, "s")
    assert len(mixed) == 20 and mixed[:18] == made[:18] and set(mixed[18:]) <= set(real)


def test_a_generation_is_trained_from_the_base_on_what_the_last_one_sampled(small, monkeypatch):
    calls, real = [], data_more.adapted

    def adapted(rows, rate, seed, steps, asked, **options):
        model, run = real(rows, rate, seed, steps, asked, **options)
        calls.append((rows, options["validation"], model))
        return model, run

    monkeypatch.setattr(data_more, "adapted", adapted)
    monkeypatch.setattr(data_more, "LONGEST", 6)
    found = data.job("collapse_replace_0.01_0")
    assert len(found["losses"]) == 3 and len(found["distinct"]) == 2 and len(set(map(id, calls))) == 3
    first, second, third = (rows for rows, _, _ in calls)
    assert first == data_more.real_rows(data.SMOKE, 0) and len(first) == len(second) == len(third) == 12
    texts = [{row["completion"][0]["content"] for row in rows} for rows in (first, second)]
    assert not texts[0] & texts[1]
    assert second != third and calls[0][1] == calls[2][1]
    assert len({id(model) for *_, model in calls}) == 3


def test_samples_are_of_the_whole_distribution_and_the_same_for_a_seed(small, tiny, tokenizer, monkeypatch):
    seen, model = [], tiny()
    real = model.generate

    def generate(**options):
        seen.append(options)
        return real(**options)

    monkeypatch.setattr(model, "generate", generate)
    monkeypatch.setattr(data_more, "LONGEST", 5)
    texts = [data_more.sampled(model, tokenizer, 20, seed, batch=8) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2] and len(texts[0]) == 20 and len(set(texts[0])) > 15
    wanted = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    assert all(wanted.items() <= options.items() for options in seen)
    monkeypatch.setattr(model, "generate", lambda **o: torch.full((8, o["input_ids"].shape[1] + 1), 2))
    with pytest.raises(LabkitError, match="0 of 20 sampled"):
        data_more.sampled(model, tokenizer, 20, 0, batch=8)


def test_passages_that_train_choose_the_rate_or_measure_are_three_sets():
    train = data_more.real_rows(data.GPU, 0) + data_more.real_rows(data.GPU, 1)
    other = data_more.held_out(data.GPU), data_more.held_out(data.GPU, judging=True)
    sets = [{row["completion"][0]["content"] for row in rows} for rows in (train, *other)]
    assert len(sets[1]) == len(sets[2]) == 240
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]


def test_the_claims_of_this_record_are_the_eight_it_measures():
    assert {claim["id"] for claim in CLAIMS} == {
        "data-quality", "data-mix", "data-pilot", "data-returns", "data-crossover", "data-cot", "data-bias",
        "data-collapse",
    }  # fmt: skip
