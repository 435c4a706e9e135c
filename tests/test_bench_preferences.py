"""`bench preferences`: its stages, wins at equal length, the spread at equal KL, and jobs on a tiny model."""

import functools
import json
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from labkit import tasks
from labkit.bench import (
    jobs,
    markdown,
    preferences,
    preferences_jobs,
    preferences_report,
    preferences_scores,
    preferences_start,
)
from labkit.bench import main as bench_main
from labkit.bench import preferences_values as values
from labkit.errors import LabkitError
from labkit.methods import lora
from labkit.methods import preferences as pr
from labkit.records import judge, ledger, stats, store
from labkit.tasks import voice

CLAIMS = [claim for claim in ledger.ledger() if claim["record"] == preferences.NAME]
ROWS = 400


# ---- pretended jobs: a world in which DPO wins at equal length, and its seeds lie close together


def policy(seed, kept=5.0, reward=0.9, tokens=60.0, kl=5.0, words=50):
    """Scores whose held-out rules kept are about `kept` of 7, alike in distribution for every arm."""
    draw, rows = np.random.default_rng(seed), preferences.settings()["rows"] or ROWS
    held = np.clip(np.round(draw.normal(kept, 1.0, rows)), 0, 7).astype(int)
    return {"KL": kl, "reward": reward, "tokens": tokens, "cut off": 0.0, "held": held.tolist(),
            "words": draw.integers(words - 10, words + 10, rows).tolist(), "reply": [True] * rows,
            "held-out": kept / 7, "greedy reward": reward, "general loss": 3.5,
            "examples": ["a", "b", "c"]}  # fmt: skip


def path(seed, spread):
    """Four looks: the reward rises with KL, at a height of its own for each seed."""
    height = spread * (seed - 3.5)
    return [{"step": 25 * at, "KL": 2.0 * at, "reward": 0.7 + 0.05 * at + height} for at in range(1, 5)]


def pair(longer):
    said = [[{"role": "assistant", "content": " ".join(["word"] * size)}] for size in (20 + longer, 20)]
    return {"prompt": "p", "chosen": said[0], "rejected": said[1]}


def pretended(name, world):
    kind, *rest = name.split("_")
    seed = int(rest[-1]) if kind != "sweep" else 0
    if kind == "sweep":
        arm, number = rest[0], float(rest[1])
        best = world.best.get(arm, 1.0 if arm in preferences_jobs.KIN else 3e-4)
        away = abs(np.log10(number / best))
        away += 0.1 * (arm in ("sft-1", "sft-4"))  # half of the steps are best
        right, loss = (0.0, 1.0 + away) if arm == "start" else (round(0.9 - away / 10, 6), None)
        return {"right": right, "loss": loss, "diverged": False}
    if kind == "start":
        return {"policy": policy(seed, 4.5, 0.7, 55.0, 0.0), "held-out loss": 1.2}
    if kind == "pairs":
        kept = [[0.5, 0.6, 0.7, 0.8]] * 10
        lengths = [[10 + world.longer * step + (row % 3) for step in range(4)] for row in range(10)]
        apart, ended = [[0.8, 0.7, 0.6, 0.5]] * 10, [[True, True, False, True]] * 10
        return {"pairs": [pair(3), pair(3), pair(-3)], "balanced": [pair(3), pair(-3)], "kept": kept,
                "kept apart": apart, "ended": ended, "lengths": lengths, "samples": []}  # fmt: skip
    if kind == "sft":
        return {"policy": policy(100 + seed, 5.0, 0.8, 58.0, 3.0), "steps": 213}
    if kind == "reward":
        both = {"raw": 0.9, "balanced": 0.8}
        return {"accuracy": both, "calibration error": both, "correlation": 0.4 if rest[0] == "raw" else 0.1}
    scores = world.policies.get(kind, {})
    found = {"policy": policy(200 + seed, **{"kept": 5.0, **scores})}
    if kind == "grpo":
        return {**found, "path": path(seed, world.spread["grpo"])}
    steps = np.linspace(0, 1, 10).tolist()
    found["history"] = {"loss": steps, "margin": steps, "accuracy": steps,
                        "chosen_logp": [-60 - 30 * step for step in steps],
                        "rejected_logp": [-60 - 90 * step for step in steps],
                        "chosen_reward": [-0.03 * step for step in steps],
                        "rejected_reward": [-1.03 * step for step in steps]}  # fmt: skip
    return {**found, **({"path": path(seed, world.spread["dpo"])} if name.startswith("dpo_0.1_") else {})}


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Real main, jobs.run and files, but pretended jobs."""
    made = SimpleNamespace(started=[], folder=tmp_path / "out", best={}, profile="gpu", longer=2,
                           policies={"dpo": {"kept": 6.0, "tokens": 66.0}},
                           spread={"dpo": 0.001, "grpo": 0.02})  # fmt: skip

    def job(name, folder):
        return {**pretended(name, made), "seconds": 1.0, "peak_bytes": 5}

    def start(bench, name, folder, card, beside=1):
        made.started.append(name)
        (folder / f"{name}.log").write_text("")
        code = preferences.main(["--job", name, "--folder", str(folder)])
        return SimpleNamespace(exitcode=code, kill=lambda: None)

    monkeypatch.setattr(preferences, "job", job)
    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(store, "code_digest", functools.cache(store.code_digest))  # one process, many jobs
    monkeypatch.setattr(store, "data_digest", functools.cache(store.data_digest))
    monkeypatch.setattr(ledger, "bands", functools.cache(ledger.bands))
    monkeypatch.setattr(jobs, "cards", lambda: [None] * 99)  # all at once: `run` sleeps between rounds
    monkeypatch.setattr(jobs.time, "sleep", lambda _: None)
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    monkeypatch.setattr(preferences.env, "profile", lambda: made.profile)
    return made


def run(world):
    assert bench_main(["preferences", "--folder", str(world.folder)]) == 0
    return store.read("preferences")


def verdicts(whole):
    source = judge.Recorded(whole)
    return {claim["id"]: ledger.conclusion(ledger.judge_all(claim, source)) for claim in CLAIMS}


# ---- the whole run


def test_a_run_leaves_a_record_with_every_value_that_the_claims_name(world, capsys):
    whole = run(world)
    source = judge.Recorded(whole)
    assert {claim["id"] for claim in CLAIMS} == {"pref-dpo", "pref-length", "pref-stable"}
    for claim in CLAIMS:
        for band in [*claim["bands"], *claim["beside"]]:
            assert judge.estimate(band, source) is not None, (claim["id"], band)
    assert verdicts(whole) == {"pref-dpo": "reproduced", "pref-length": "measured",
                               "pref-stable": "reproduced"}  # fmt: skip
    assert {claim["id"] for claim in CLAIMS} <= set(whole["claims"]) and store.stale("preferences") == []
    printed = capsys.readouterr().out
    assert printed.count("\n| --- |") == 5 and "| GRPO |" in printed and "| DPO, beta 0.001 |" in printed
    assert preferences_report.lines() == preferences_report.lines(whole["values"])
    assert "100.0% of more SFT's greedy answers are replies" in printed
    assert "both reply to, DPO wins" in printed
    assert set(whole["values"]["arms"]) == {
        "start", "sft", "dpo 0.001", "dpo 0.03", "dpo 0.1", "dpo 0.3", "dpo 1", "ready", "balanced", "ipo",
        "norm", "grpo"}  # fmt: skip
    sizes = {label: len(one["KL"]) for label, one in whole["values"]["arms"].items()}
    assert {label for label, size in sizes.items() if size == 8} == {"start", "sft", "dpo 0.1", "grpo"}
    assert set(sizes.values()) == {3, 8}


def test_a_second_run_starts_nothing_and_without_a_gpu_there_is_no_record(world, capsys):
    run(world)
    before = len(world.started)
    assert before == len(set(world.started))
    run(world)
    assert len(world.started) == before
    store.path_of("preferences").unlink()
    world.profile = "smoke"
    assert bench_main(["preferences", "--folder", str(world.folder)]) == 0
    assert len(world.started) > before  # the results of another profile do not count
    assert store.read("preferences") is None and "a trial" in capsys.readouterr().out
    assert preferences_report.lines() == [markdown.missing("preferences")]


def test_a_job_never_starts_before_those_whose_results_it_reads(world):
    run(world)
    place = {name: number for number, name in enumerate(world.started)}

    def last(start):
        return max(number for name, number in place.items() if name.startswith(start))

    def first(start):
        return min(number for name, number in place.items() if name.startswith(start))

    assert last("sweep_start") < first("start_") and last("start_") < first("pairs_")
    readers = ("sft_", "dpo_", "ready_", "balanced_", "grpo_", "reward_", "sweep_sft", "sweep_dpo",
               "sweep_grpo", "sweep_ipo")  # fmt: skip
    assert all(last("pairs_") < first(reader) for reader in readers)
    assert last("sweep_dpo") < first("sweep_ipo") and last("sweep_ipo") < first("ipo_")
    assert max(map(last, ("sft_", "dpo_", "ready_", "balanced_", "reward_", "ipo_"))) < first("grpo_")


def test_every_arm_is_tuned_alike_by_one_seed_and_the_best_number_is_the_one_used(world):
    world.best = {"dpo": 3e-5, "grpo": 1e-4, "ipo": 3.0}
    whole = run(world)
    swept = {}
    for name in world.started:
        kind, arm, *rest = name.split("_")
        if kind == "sweep":
            assert rest[1] == "0" and rest[2] == ("3e-05" if arm in ("ipo", "norm") else "validation")
            swept.setdefault(arm, set()).add(float(rest[0]))
    assert set(swept) == {"start", "sft-1", "sft-2", "sft-4", "dpo", "grpo", "reward-raw", "reward-balanced",
                          "ipo", "norm"}  # fmt: skip
    assert swept["grpo"] == set(preferences.RATES)
    assert swept["sft-1"] == swept["sft-4"] == swept["reward-raw"] == set(preferences.ADAPTED)
    assert swept["dpo"] == {1e-5, *preferences.RATES}  # extended at the end
    assert swept["ipo"] == {0.3, 1.0, 3.0, 10.0} and swept["norm"] == {0.3, 1.0, 3.0, 10.0}
    assert {"dpo_0.1_3e-05_4", "dpo_0.001_3e-05_2", "balanced_0.1_3e-05_0", "ipo_3_3e-05_2", "norm_1_3e-05_0",
            "grpo_0.0001_4", "sft_0.0003_2_4", "start_0.0003_4"} <= set(world.started)  # fmt: skip
    assert not whole["values"]["sweeps"]["dpo"]["at an end"]


def test_an_arm_that_diverges_at_every_rate_stops_the_run_with_its_name(world, monkeypatch):
    real = preferences.job

    def job(name, folder):
        diverged = {"right": 0.0, "loss": None, "diverged": True, "seconds": 1.0, "peak_bytes": 5}
        return diverged if name.startswith("sweep_grpo_") else real(name, folder)

    monkeypatch.setattr(preferences, "job", job)
    with pytest.raises(LabkitError, match="grpo failed at every rate"):
        run(world)


# ---- win rates


def test_dpo_as_good_as_sft_leaves_the_claim_undecided_and_worse_contradicts_it(world):
    world.policies["dpo"] = {"kept": 5.0}
    whole = run(world)
    one = whole["values"]["wins"]["dpo 0.1"]["controlled"]
    assert one["low"] < 0.5 < one["high"] and verdicts(whole)["pref-dpo"] == "undecided"
    world.policies["dpo"], world.folder = {"kept": 4.0}, world.folder / "again"
    assert verdicts(run(world))["pref-dpo"] == "contradicted here"


def test_the_band_reads_the_interval_over_phrasings_and_seeds_and_not_over_seeds_alone(world):
    whole = run(world)
    one = whole["values"]["wins"]["dpo 0.1"]["controlled"]
    read = judge.estimate(CLAIMS[0]["bands"][0], judge.Recorded(whole))
    assert read.mean == pytest.approx(one["mean"]) and read.low == pytest.approx(one["low"])
    assert len(read.each) == 8 and read.low != pytest.approx(stats.of_values(one["each"]).low, abs=1e-4)
    assert whole["values"]["dpo wins plain"] == whole["values"]["wins"]["dpo 0.1"]["plain"]


def test_verdicts_from_counts_are_those_of_the_judge_on_the_answers():
    rows = voice.read("test")[:40]
    drafts, replies = ([row[column] for row in rows] for column in ("draft", "reply"))
    ours, theirs = (
        {"held": [sum(voice.kept(row["message"], text, voice.HELD_OUT_RULES).values())
                  for row, text in zip(rows, texts, strict=True)],
         "words": [pr.words_of(text) for text in texts]}
        for texts in (replies, drafts)
    )  # fmt: skip
    for sides, texts in (((ours, theirs), (replies, drafts)), ((theirs, ours), (drafts, replies))):
        found, gaps = values.verdicts(*sides)
        wanted = pr.compare(rows, *texts)
        assert found.tolist() == wanted[0] and gaps.tolist() == wanted[1]
    assert set(found.tolist()) == {0.0, 0.5}


def test_a_judge_of_words_alone_wins_plainly_and_not_at_equal_length(world):
    draw = np.random.default_rng(0)

    def side(longer):
        words = draw.integers(40, 60, ROWS) + longer
        return {"policy": {"held": words.tolist(), "words": words.tolist(),  # more words, more rules kept
                           "reply": [True] * ROWS}}  # fmt: skip

    labels = preferences.phrasings(preferences.GPU)
    runs, sft = ({seed: side(longer) for seed in range(3)} for longer in (4, 0))
    found = values.against_sft(runs, sft, labels)
    assert found["plain"]["low"] > 0.55 and found["controlled"]["low"] < 0.5 < found["controlled"]["high"]
    assert found["words longer"] == pytest.approx(4, abs=1) and len(labels) == ROWS
    assert found["both reply"] == 1 and found["of replies"] == pytest.approx(found["plain"]["mean"])


def test_a_win_over_what_is_no_reply_is_not_one_among_replies(world):
    """Half of the other side's texts are none, and lose on every held-out rule; the others tie."""
    replied = [row % 2 == 0 for row in range(ROWS)]
    sft = {0: {"policy": {"held": [5 * one for one in replied], "words": [40] * ROWS, "reply": replied}}}
    ours = {0: {"policy": {"held": [5] * ROWS, "words": [40] * ROWS, "reply": [True] * ROWS}}}
    found = values.against_sft(ours, sft, preferences.phrasings(preferences.GPU))
    assert found["plain"]["mean"] == 0.75 and found["of replies"] == 0.5 and found["both reply"] == 0.5
    none = {0: {"policy": {**sft[0]["policy"], "reply": [False] * ROWS}}}
    assert values.against_sft(ours, none, preferences.phrasings(preferences.GPU))["of replies"] is None


# ---- length


def test_correlation_and_lengths_are_by_seed_and_have_the_sign_of_what_was_sampled(world):
    found = run(world)["values"]
    assert len(found["reward-length correlation"]) == 8 and min(found["reward-length correlation"]) > 0.8
    assert min(found["reward-length correlation within messages"]) == pytest.approx(1)
    assert max(found["reward-length correlation without length rules"]) < -0.8  # their sign is another
    assert min(found["reward-length correlation of ended answers"]) > 0.8
    assert found["samples that ended"] == [0.75] * 8
    assert found["length"]["before"] == [55.0] * 8 and found["length"]["after"] == [66.0] * 8
    assert found["length"]["after balanced"] == [60.0] * 3
    assert found["pairs"]["pairs"]["chosen is longer"] == [pytest.approx(2 / 3)] * 8
    assert found["pairs"]["balanced"]["words longer"] == [0.0] * 8
    world.longer, world.folder = -2, world.folder / "again"
    assert max(run(world)["values"]["reward-length correlation"]) < -0.8


# ---- the spread at equal KL


@pytest.mark.parametrize("level, wanted", [(0.0, 0.5), (1.0, 0.55), (2.0, 0.6), (3.0, 0.7), (4.0, 0.8)])
def test_a_path_is_read_where_it_first_reaches_the_divergence(level, wanted):
    there = [(0.0, 0.5), (2.0, 0.6), (4.0, 0.8), (3.0, 0.2), (5.0, 0.9)]
    assert values.at_kl(there, level) == pytest.approx(wanted)
    assert values.at_kl([(0.0, 0.5), (0.0, 0.7)], 0.0) == 0.7  # no way, no line


def test_all_runs_are_read_at_the_largest_divergence_that_each_of_them_reaches(world, monkeypatch):
    real = preferences.job

    def job(name, folder):
        found = real(name, folder)
        if name.startswith("grpo_") and name.endswith("_3"):
            found["path"][2:] = [{**look, "KL": 3.0} for look in found["path"][2:]]  # never beyond 4 nats
        return found

    monkeypatch.setattr(preferences, "job", job)
    one = run(world)["values"]["spread"]
    assert one["KL"] == 4.0
    assert one["reward"]["dpo"] == pytest.approx([0.8 + 0.001 * (seed - 3.5) for seed in range(8)])
    assert one["mean"] == pytest.approx(0.05) and one["low"] < 0.05 < one["high"] < 1


@pytest.mark.parametrize("dpo, grpo, wanted", [
    (0.001, 0.02, "reproduced"), (0.02, 0.001, "contradicted here"), (0.01, 0.015, "undecided"),
])  # fmt: skip
def test_only_a_clear_ratio_of_spreads_decides(world, dpo, grpo, wanted):
    world.spread = {"dpo": dpo, "grpo": grpo}
    assert verdicts(run(world))["pref-stable"] == wanted


def test_the_interval_of_a_ratio_of_spreads_holds_the_truth_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(values, "DRAWS", 4000)
    draw = np.random.default_rng(1)
    held = []
    for _ in range(200):
        found = values.ratio_of_spreads(2 * draw.normal(size=5), draw.normal(size=5))
        held.append(found["low"] < 2 < found["high"])
    assert 0.9 < np.mean(held) < 0.99
    assert values.ratio_of_spreads([1.0, 1.0], [1.0, 2.0])["mean"] is None
    assert values.ratio_of_spreads([1.0], [2.0])["mean"] is None


def test_the_frontier_begins_at_the_start_and_rises_in_divergence(world):
    whole = run(world)["values"]
    assert preferences_report.frontier_title(whole) == "Pair rules kept at 8.0 nats: DPO 90%, GRPO 90%"
    whole["spread"]["reward"]["dpo"] = [0.6, 0.7]
    assert "DPO 65%, GRPO 90%" in preferences_report.frontier_title(whole)
    found = preferences_report.frontier(whole)
    assert {name: len(points) for name, points in found.items()} == {
        "DPO, by beta": 5, "DPO, by step": 5, "GRPO, by step": 5}  # fmt: skip
    for points in found.values():
        assert points[0] == (0.0, pytest.approx(0.7)) and points == sorted(points)
    assert found["GRPO, by step"][-1] == (8.0, pytest.approx(0.9))


def test_the_failure_shows_a_margin_that_rises_while_the_chosen_answers_fall(world):
    found = run(world)["values"]
    row = next(line for line in preferences_report.failure_table(found) if line.startswith("| 0.001 |"))
    assert "| +1000.0 | -30.0 | -1030.0 | 100.0% |" in row  # in nats, not times beta, and they add up
    history = [{name: float(step) for name in preferences_scores.HISTORY} for step in range(25)]
    assert preferences_scores.tenths(history)["loss"] == [1, 4, 7, 10, 13, 16, 19, 22, 24]


# ---- jobs


@functools.cache
def few_rows(family, **options):
    return {split: rows.select(range(min(12, len(rows))))
            for split, rows in tasks.load(family, **options).items()}  # fmt: skip


def by_text(message, text, rules=None):
    """A judge of which every text keeps rules of its own."""
    return {rule: zlib.crc32((rule + text).encode()) % 3 > 0 for rule in (rules or voice.RULES)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a start and its pairs lie; the first test that wants them makes them."""
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture
def small(monkeypatch, tiny, tokenizer, folder):
    """Jobs run under the smoke budget on a tiny model, with a few rows, and short answers."""

    def load_model(dtype=torch.float32):
        with torch.random.fork_rng():  # a model that is read from files draws nothing
            return tiny(num_hidden_layers=1, hidden_size=32).to(dtype)

    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    monkeypatch.setattr("labkit.load_model", load_model, raising=False)
    monkeypatch.setattr("labkit.load", few_rows, raising=False)
    monkeypatch.setattr("labkit.load_tokenizer", lambda: tokenizer, raising=False)
    monkeypatch.setattr("labkit.tasks.voice.kept", by_text)
    monkeypatch.setattr("labkit.tasks.voice.scoring.kept", by_text)
    monkeypatch.setattr(preferences, "SMOKE", {**preferences.SMOKE, "new": 4, "passages": 1, "rows": 2})

    def do(name):
        found = preferences.job(name, folder)
        jobs.write(folder, name, found)
        return found

    for name in ("start_0.01_0", "pairs_0"):
        if not jobs.result_file(folder, name).exists():
            do(name)
    return do


def read(folder, name):
    return json.loads(jobs.result_file(folder, name).read_text())


def test_a_start_leaves_its_weights_and_jobs_begin_from_them(small, folder):
    one = read(folder, "start_0.01_0")
    assert one["held-out loss"] > 0 and one["policy"]["KL"] == 0 and len(one["policy"]["held"]) == 2
    from labkit import load_model

    there, plain = preferences_start.started("0", folder), dict(load_model().named_parameters())
    moved = [name for name, weight in there.named_parameters() if not torch.equal(weight, plain[name])]
    assert "model.layers.0.mlp.up_proj.weight" in moved and not list(folder.glob(".part-*"))
    assert there.lm_head.weight is there.model.embed_tokens.weight
    with pytest.raises(LabkitError, match="delete the start"):
        preferences_start.started("7", folder)
    tried = small("sweep_start_0.01_0_validation")
    assert tried["right"] == 0 and tried["loss"] == pytest.approx(one["held-out loss"], abs=1e-3)


def test_results_from_another_start_than_the_one_that_lies_there_are_refused(small, folder):
    names = ("start_0.01_0", "pairs_0")
    found = {name: read(folder, name) for name in names}
    assert found["pairs_0"]["begun"] == found["start_0.01_0"]["weights"]
    assert len(found["pairs_0"]["begun"]) == 16
    preferences_start.refuse_mixed(found)
    found["start_0.01_0"] = {**found["start_0.01_0"], "weights": "other"}
    with pytest.raises(LabkitError, match="of pairs_0: delete these results"):
        preferences_start.refuse_mixed(found)


def test_pairs_come_from_the_start_and_the_pair_rules_alone(small, folder):
    one = read(folder, "pairs_0")
    asked = preferences.settings()
    assert len(one["lengths"]) == len(one["samples"]) == asked["messages"]
    assert {len(some) for some in (*one["lengths"], *one["kept"])} == {asked["answers"]}
    for found in one["pairs"]:
        assert found["chosen_kept"] > found["rejected_kept"]
        said = found["chosen"][0]["content"]
        assert found["chosen_kept"] == pytest.approx(voice.reward(found["message"], said))
    assert {rule for found in one["pairs"] for rule in found["breaks"].split()} <= set(voice.PAIR_RULES)
    assert len(one["balanced"]) <= len(one["pairs"])


def test_no_message_that_arms_learn_from_has_a_phrasing_of_those_that_choose_rates():
    data = preferences_scores.voice_rows()
    chosen = preferences_start.messages(preferences.GPU)
    judging = set(data["validation"]["phrasing"])
    assert len(chosen) == preferences.GPU["messages"] and not judging & set(chosen["phrasing"])
    assert judging & set(data["train"]["phrasing"])  # or nothing had to be left out


def test_more_sft_reads_as_many_tokens_as_dpo_with_its_reference(small, folder, tokenizer):
    asked = {"steps": 10, "pairs": 4, "batch": 2, "length": 64}
    found = read(folder, "pairs_0")["pairs"]
    whole = [tokenizer.apply_chat_template([*one["prompt"], *one[side]], tokenize=False)
             for one in found for side in ("chosen", "rejected")]  # fmt: skip
    tokens = sum(len(tokenizer(text, add_special_tokens=False).input_ids) for text in whole) / len(found)
    read_by_dpo = 2 * tokens * 10 * 4
    steps = preferences_jobs.sft_steps(found, asked)
    assert 0 <= steps * 2 * 64 - read_by_dpo < 2 * 64
    assert preferences_jobs.sft_steps(found, {**asked, "steps": 20}) == pytest.approx(2 * steps, abs=1)


def test_more_sft_starts_from_the_start_and_takes_its_share_of_the_steps(small, folder):
    found, asked = small("sft_0.01_1_0"), preferences.settings()
    steps = preferences_jobs.sft_steps(read(folder, "pairs_0")["pairs"], asked)
    assert found["steps"] == steps >= 2 and small("sweep_sft-2_0.01_0_validation")["right"] > 0
    assert small("sft_0.01_2_0")["steps"] == steps // 2 and found["policy"]["KL"] > 0
    assert set(found["policy"]) == {*values.OF_POLICY, "held", "words", "reply", "examples"}


@pytest.mark.parametrize("name, loss", [
    ("dpo_0.1_0.01_0", "sigmoid"), ("ready_0.1_0.01_0", "sigmoid"), ("balanced_0.1_0.01_0", "sigmoid"),
    ("sweep_norm_3_0_0.01", "sigmoid_norm"),
])  # fmt: skip
def test_arms_of_pairs_train_on_their_own_pairs_with_their_own_loss(
    small, folder, monkeypatch, name, loss
):
    seen, real = [], pr.dpo
    kind = name.split("_")[0]

    def spy(model, data, tokenizer, **options):
        seen.append((data if isinstance(data, list) else data.to_list(), options))
        return (real if kind == "dpo" else untrained)(model, data, tokenizer, **options)

    monkeypatch.setattr("labkit.methods.preferences.trained.dpo", spy)
    found = small(name)
    (data, options), left = seen[0], read(folder, "pairs_0")
    wanted = {"balanced": left["balanced"], "ready": None}.get(kind, left["pairs"])
    assert data == wanted if wanted else len(data) == len(left["pairs"]) and "source" not in data[0]
    beta = 3.0 if kind == "sweep" else 0.1
    assert (options["loss"], options["beta"], options["lr"]) == (loss, beta, 0.01)
    assert len(found["history"]["loss"]) == 2 and found["history"]["chosen_logp"][0] < 0
    assert ("path" in found) == (kind == "dpo")
    if kind == "sweep":
        assert 0 < found["right"] < 1 and "policy" not in found
    elif kind == "dpo":
        assert found["path"][0]["KL"] == 0 < found["path"][1]["KL"] == found["policy"]["KL"]


def untrained(model, data, tokenizer, *, steps, after_step, **options):
    """What `pr.dpo` returns, without the training."""
    for step in range(1, steps + 1):
        after_step(step)
    entry = dict.fromkeys(preferences_scores.HISTORY, -1.0)
    return lora.adapted(model, 2).eval(), [entry] * steps


def test_looks_are_scored_with_the_adapters_of_their_step(small):
    found = small("grpo_0.01_0")
    assert [look["step"] for look in found["path"]] == [1, 2]
    assert found["path"][0]["KL"] == 0 < found["path"][1]["KL"]  # trl's first step has a rate of 0
    assert found["path"][1] == {"step": 2, **{key: found["policy"][key] for key in ("KL", "reward")}}
    tried = small("sweep_grpo_0.01_0_validation")
    assert 0 < tried["right"] < 1 and not tried["diverged"]


def test_adapters_that_are_no_numbers_are_seen(tiny):
    model = tiny(num_hidden_layers=1)
    lora.adapted(model, 2)
    looks = preferences_scores.Looks(model, 10, 4)
    assert looks.wanted == {10, 5, 2, 1} and looks.finite()
    assert preferences_scores.Looks(model, 100, 6).wanted == {100, 50, 25, 12, 6, 3}
    with torch.no_grad():
        looks._adapters()[0][1][0, 0] = torch.nan
    assert not looks.finite()


def test_a_training_that_diverges_has_nothing_right_in_a_sweep_and_stops_what_is_final(small, monkeypatch):
    monkeypatch.setattr("labkit.methods.preferences.trained.dpo", untrained)
    assert small("sweep_dpo_0.01_0_validation")["right"] > 0
    monkeypatch.setattr(preferences_scores.Looks, "finite", lambda self: False)
    found = small("sweep_dpo_0.01_0_validation")
    assert (found["right"], found["loss"], found["diverged"]) == (0.0, None, True)
    with pytest.raises(LabkitError, match="diverged"):
        small("dpo_1_0.01_0")


def test_reward_models_are_tuned_on_other_phrasings_and_judged_on_test_pairs_of_both_kinds(
    small, monkeypatch
):
    pairs = {kind: {split: rows.select(range(30)) for split, rows in voice.load_pairs(kind).items()}
             for kind in (False, True)}  # fmt: skip
    monkeypatch.setattr("labkit.tasks.voice.load_pairs", lambda balanced=False: pairs[balanced])
    seen, real = [], pr.reward_model

    def spy(model, rows, tokenizer, **options):
        seen.append(rows)
        return real(model, rows, tokenizer, **options)

    monkeypatch.setattr("labkit.methods.preferences.trained.reward_model", spy)
    found = small("reward_balanced_0.01_0")
    assert set(found["accuracy"]) == set(found["calibration error"]) == {"raw", "balanced"}
    assert -1 <= found["correlation"] <= 1 and seen[0].to_list() == pairs[True]["train"].to_list()
    tried = small("sweep_reward-raw_0.01_0_validation")
    assert 0 <= tried["right"] <= 1 and set(seen[1]["phrasing"]) < set(pairs[False]["train"]["phrasing"])
