"""`bench decide`: jobs on a tiny model, choices by validation rows, a record to judge from, and the chart."""

import functools
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from labkit import tasks
from labkit.bench import (
    decide,
    decide_chart,
    decide_facts,
    decide_jobs,
    decide_report,
    decide_trained,
    jobs,
    markdown,
)
from labkit.bench import main as bench_main
from labkit.bench.decide_jobs import Reading
from labkit.errors import LabkitError
from labkit.methods import retrieval
from labkit.records import judge, ledger, stats, store
from labkit.train.rows import encode_all

CLAIMS = [claim for claim in ledger.ledger() if claim["record"] == decide.NAME]
BEST = {"tickets": 3e-4, "sql": 3e-4, "handbook": 3e-3, "both": 1e-4}  # beyond the first four for handbook


@functools.cache
def few_rows(family, **options):
    return {split: rows.select(range(min(400 if split == "train" else 24, len(rows))))
            for split, rows in tasks.load(family, **options).items()}  # fmt: skip


@pytest.fixture
def small(monkeypatch, tiny, tokenizer):
    """Jobs run under the smoke budget on a tiny model, with few rows and answers of two tokens."""

    def load_model(dtype=torch.float32):
        with torch.random.fork_rng():  # a model that is read from files draws nothing
            return tiny().to(dtype)

    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    for name in decide.OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("labkit.load_model", load_model, raising=False)
    monkeypatch.setattr("labkit.load", few_rows, raising=False)
    monkeypatch.setattr("labkit.load_tokenizer", lambda: tokenizer, raising=False)
    monkeypatch.setattr(decide_jobs, "longest", lambda family: 2)
    monkeypatch.setattr(decide_trained, "longest", lambda family: 2)
    return load_model


@pytest.fixture
def asked_of(small, monkeypatch):
    """The prompts that a model was scored with, in order; None for the rows' own."""
    from labkit.evaluate import score as real

    seen = []

    def score(model, tokenizer, rows, **options):
        seen.append(SimpleNamespace(rows=rows, model=model, **options))
        options.setdefault("max_new_tokens", 2)
        return real(model, tokenizer, rows, **options)

    monkeypatch.setattr("labkit.score", score, raising=False)
    return seen


@pytest.fixture
def fits(small, monkeypatch):
    """What `fit` was called with, in order; it trains nothing."""
    calls = []

    def fit(model, rows, tokenizer, **options):
        calls.append(SimpleNamespace(model=model, rows=rows, **options))
        return SimpleNamespace(seconds=1.5, tokens=sum(map(len, encode_all(rows, tokenizer, 1024))) * 3)

    monkeypatch.setattr("labkit.fit", fit, raising=False)
    return calls


# ---- a whole run, of pretended jobs ---------------------------------------------------------------------

# A world in which the claims hold: {arm: share right}, of the handbook by kind.
NOTHING = {"trained": 0.0, "changed": 0.0, "untrained": 0.0, "absent": 0.8}  # and it refuses all alike
FOUND = {"trained": 0.8, "changed": 0.8, "untrained": 0.8, "absent": 0.1}
SHARES = {
    "tickets": {"prompt": 0.01, "constrained": 0.02, "finetuned": 0.8},
    "sql": {"prompt": 0.0, "finetuned": 0.5},
    "handbook": {"prompt": NOTHING, "bm25": FOUND, "dense": {**FOUND, "trained": 0.3},
                 "finetuned": {**NOTHING, "trained": 0.45, "absent": 0.2}, "both": {**FOUND, "absent": 0.9},
                 "oracle": {**FOUND, "trained": 0.9}},
}  # fmt: skip


FALSELY = {"prompt": 0.8, "bm25": 0.05}  # refused of what has an answer; else 0.1
LABELS = functools.cache(decide_facts.labels)  # one reading of the data for all runs


@functools.cache
def kinds_of(family):
    return LABELS(family)[1]


def told(family, share, most=None, falsely=0.1):
    """What `decide_jobs.told` keeps, of `most` test rows; right ones are spread evenly over each kind."""
    return made_up(family, json.dumps(share), most, falsely)


@functools.cache
def made_up(family, share, most, falsely):
    share = json.loads(share)
    kinds = kinds_of(family)[:most]

    def spread(wanted):
        seen, flags = {}, []
        for kind in kinds:
            seen[kind] = seen.get(kind, -1) + 1
            flags.append(int((seen[kind] + 1) * wanted(kind)) > int(seen[kind] * wanted(kind)))
        return flags

    flags = spread(lambda kind: share[kind] if isinstance(share, dict) else share)
    marks = {}
    if family == "handbook":
        refused = spread(lambda kind: share[kind] if kind == "absent" else falsely)
        contains = spread(lambda kind: min(1, share[kind] + 0.1))
        marks = {"refused": stats.pack_rows(refused), "contains": stats.pack_rows(contains)}
    return {"rows": stats.pack_rows(flags), "right": float(np.mean(flags)), **marks,
            "detail": {"valid": 0.9} if family == "tickets" else {},
            "tokens": {kind: [100.0, 5.0] for kind in set(kinds)}}  # fmt: skip


def pretended(name, shares):
    """A job's result."""
    kind, *rest = name.split("_")
    took = {"seconds": 10.0, "rows": 3000, "epochs": 9.0, "refusals": 0.12}
    kept = {"general loss": 3.5 + 0.1 * (kind != "base"), "probe": 0.7, "training": took}
    books = shares["handbook"]
    if kind == "base":
        return kept
    if kind == "final":
        return {**told(rest[0], shares[rest[0]]["finetuned"]), **kept}
    if kind == "shuffled":
        return {"true": 0.02, "taught": 0.4}
    if kind == "try":  # the third prompt of each family is best
        return {"right": 0.3 if rest[1] == "2" else 0.1, "detail": {}}
    if kind == "look":  # BM25's long pieces hold most; three short ones are read best
        index, size = rest[0], int(rest[1])
        right = {f"{k}-{number}": 0.2 + 0.1 * ((size, k, number) == (80, 3, 1)) - 0.05 * (index != "bm25")
                 for k in decide.GPU["pieces"][size] for number in range(4)}  # fmt: skip
        found = {str(k): min(0.9, size * k / 500) for k in decide.GPU["pieces"][size]}
        return {"share": right, "recall": found, "mrr": 0.5}
    if kind == "sweep":
        far = abs(np.log(float(rest[1]) / BEST[rest[0]]))
        return {"right": 0.7 - 0.05 * far, "loss": None, "diverged": False}
    if kind == "test":
        if rest[0] == "constrained":
            return told("tickets", shares["tickets"]["constrained"], 2000)
        if rest[0] == "oracle":
            return told("handbook", books["oracle"])
        most = None if rest[0] == "handbook" else 2000
        return told(rest[0], shares[rest[0]]["prompt"], most, FALSELY["prompt"])
    recall = {"all": 0.8, "trained": 0.8, "changed": 0.8, "untrained": 0.8}
    if kind == "read":
        index = Reading.of(rest[0]).index
        return {**told("handbook", books[index], falsely=FALSELY.get(index, 0.1)), "recall": recall}
    if kind == "both":
        perfect = told("handbook", {**books["both"], "trained": 0.97})
        return {**told("handbook", books["both"]), "oracle": perfect, "recall": recall, **kept}
    arms = [one.split("=")[0] for one in rest[1:]]
    seconds = {"all": 0.4, "one changed document": 0.01}
    return {"ms": {arm: {"1": [200.0, 210.0, 220.0], "32": [20.0, 22.0, 21.0]} for arm in arms},
            "training seconds": {arm: 12.0 if arm in ("finetuned", "both") else None for arm in arms},
            "indexing": dict.fromkeys(("bm25", "dense", "both"), seconds) if rest[0] == "handbook"
            else {}}  # fmt: skip


@pytest.fixture
def world(monkeypatch, tmp_path):
    return pretend(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def standard(tmp_path_factory):
    """(the record of a run in the world as it is, that world)."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        there = pretend(monkeypatch, tmp_path_factory.mktemp("decide"))
        whole = run(there)
        there.stale, there.again = store.stale("decide"), decide_report.lines()
    return whole, there


def pretend(monkeypatch, tmp_path):
    """Real main, jobs.run and files, but pretended jobs."""
    made = SimpleNamespace(started=[], together=[], folder=tmp_path / "out", profile="gpu",
                           shares=json.loads(json.dumps(SHARES)))  # fmt: skip

    def job(name):
        return {**pretended(name, made.shares), "seconds": 1.0, "peak_bytes": 5}

    def start(bench, name, folder, card, beside=1):
        made.started.append(name)
        made.together.append((name.split("_")[0], beside))
        (folder / f"{name}.log").write_text("")
        code = decide.main(["--job", name, "--folder", str(folder)])
        return SimpleNamespace(exitcode=code, kill=lambda: None)

    for name in decide.OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(decide, "job", job)
    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(store, "code_digest", functools.cache(store.code_digest))  # one process, many jobs
    monkeypatch.setattr(store, "data_digest", functools.cache(store.data_digest))
    monkeypatch.setattr(ledger, "bands", functools.cache(ledger.bands))
    monkeypatch.setattr(decide_facts, "labels", LABELS)
    monkeypatch.setattr(stats, "RESAMPLES", 100)
    monkeypatch.setattr(jobs, "cards", lambda: [None] * 99)  # all at once: `run` sleeps between rounds
    monkeypatch.setattr(jobs.time, "sleep", lambda _: None)
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    monkeypatch.setattr(decide.env, "profile", lambda: made.profile)
    monkeypatch.setattr(decide, "settings", lambda: dict(decide.GPU))
    return made


def run(world):
    assert bench_main(["decide", "--folder", str(world.folder), "--jobs", "8"]) == 0
    return store.read("decide")


def verdicts(whole):
    source = judge.Recorded(whole)
    return {claim["id"]: ledger.conclusion(ledger.judge_all(claim, source)) for claim in CLAIMS}


def test_a_run_leaves_a_record_with_every_value_and_score_that_the_claims_name(standard):
    whole, there = standard
    source = judge.Recorded(whole)
    assert {claim["id"] for claim in CLAIMS} == {"decide-form-facts", "decide-small"}
    for claim in CLAIMS:  # all but what a larger model would be
        for band in [*claim["bands"], *claim["beside"]]:
            missing = any("larger" in name for name in band.get("gap", []))
            assert (judge.estimate(band, source) is None) == missing, (claim["id"], band)
    assert source.value("facts.no such arm") is None and source.rows("form: no such arm") is None
    assert whole["scores"]["form: finetuned"]["rows"][2].startswith("5000:")
    assert whole["scores"]["form: prompted"]["rows"][0].startswith("2000:")
    assert {claim["id"] for claim in CLAIMS} <= set(whole["claims"]) and there.stale == []
    assert verdicts(whole) == {"decide-form-facts": "reproduced", "decide-small": judge.MISSING}


def test_the_tables_are_the_same_from_a_record_as_from_a_run(standard):
    whole, there = standard
    assert there.again == decide_report.lines(whole["values"])
    printed = "\n".join(there.again)
    assert printed.count("\n| --- |") == 10 and "not measured, no larger model was at hand" in printed
    widths = [[line.count("|") for line in block.splitlines() if line.startswith("|")]
              for block in printed.split("\n\n")]  # fmt: skip
    assert all(len(set(some)) <= 1 for some in widths)


def test_claims_are_judged_by_what_was_measured_and_a_second_run_starts_nothing(world):
    world.shares["handbook"]["bm25"]["trained"] = 0.5
    whole = run(world)
    assert verdicts(whole) == {"decide-form-facts": "contradicted here", "decide-small": judge.MISSING}
    facts = whole["values"]["facts"]
    gap = facts["retrieval minus finetuned"]
    assert gap["each"] == pytest.approx([0.05] * 3, abs=0.002) and gap["low"] < 0.05 < gap["high"]
    (band, _), read = CLAIMS[0]["bands"], judge.Recorded(whole)
    assert judge.estimate(band, read).low == gap["low"] < stats.of_values(gap["each"]).low  # facts count
    assert facts["both, oracle"] == pytest.approx([0.97] * 3, abs=0.01)
    before = len(world.started)
    run(world)
    assert len(world.started) == before == len(set(world.started))


def test_facts_count_trained_rows_alone(standard):
    whole, _ = standard
    flags = stats.unpack_rows(whole["scores"]["handbook: finetuned"]["rows"][0])
    kinds = np.array(kinds_of("handbook"))
    assert whole["values"]["facts"]["finetuned"][0] == flags[kinds == "trained"].mean()
    assert flags.mean() != pytest.approx(flags[kinds == "trained"].mean(), abs=0.05)
    arms = whole["values"]["kinds"]["facts: absent"]["arms"]
    assert arms["finetuned"]["rows"] == 422 and arms["both"]["refused"] == pytest.approx(0.9, abs=0.01)


def test_choices_are_by_validation_rows_and_what_is_timed_is_alone(standard):
    whole, world = standard
    chosen = whole["values"]["chosen"]
    assert chosen["prompts"]["sql"] == {  # the third of all has examples; of those without all are equal
        "instructions": "schema only", "few-shot": "schema, rules and 3 examples",
        "prompted": "schema, rules and 3 examples"}  # fmt: skip
    assert chosen["prompts"]["tickets"]["prompted"] == "full instructions and a format example"
    assert chosen["prompts"]["tickets"]["few-shot"] == "full instructions and 4 examples"
    assert chosen["constrained"] == "full instructions and a format example"  # by its own validation rows
    assert chosen["retrieval"] == "bm25" and chosen["readings"]["bm25"] == {
        "words": 80, "pieces": 3, "prompt": "rules of format and 5 examples"}  # fmt: skip
    assert chosen["both"] == {"index": "bm25", "words": 40, "pieces": 6}  # by recall, of 240 words at most
    assert chosen["rates"] == BEST
    names = set(world.started)
    assert {"final_sql_0.0003_2", "shuffled_0.003_0", "test_constrained_2", "read_bm25-80-3-1",
            "test_oracle_2", "sweep_both_0.0003_0_bm25-40-6", "both_bm25-40-6-0.0001_1"} <= names  # fmt: skip
    worse = ("both_bm25-40-6-0.0003", "test_sql_3", "read_dense-240")
    assert not any(name.startswith(worse) for name in names)
    assert {side for kind, side in world.together if kind == "alone"} == {1}
    assert {side for kind, side in world.together if kind != "alone"} == {8}
    assert sum(name.startswith("alone_") for name in names) == 3
    assert "alone_tickets_instructions=2_few-shot=3_finetuned=0.0003_constrained=2" in names


def test_a_sweep_goes_on_where_the_best_is_at_an_end_and_not_elsewhere(standard):
    whole, world = standard
    tried = whole["values"]["rates tried"]
    assert list(tried["handbook"]) == ["3e-05", "0.0001", "0.0003", "0.001", "0.003", "0.01"]
    assert list(tried["tickets"]) == ["3e-05", "0.0001", "0.0003", "0.001"]
    assert "an end of those tried" not in "\n".join(decide_report.training_table(whole["values"]))
    values = {**whole["values"], "rates tried": {**tried, "sql": {"0.0003": 0.7, "0.0001": 0.2}}}
    assert "an end of those tried" in "\n".join(decide_report.training_table(values))


def test_who_refuses_everything_is_not_best_on_what_nothing_answers(standard):
    whole, _ = standard
    absent = whole["values"]["kinds"]["facts: absent"]
    few_shot, both = absent["arms"]["few-shot"], absent["arms"]["both"]
    assert few_shot["refused"] == pytest.approx(0.8, abs=0.01) == few_shot["falsely refused"]
    assert few_shot["low"] < 0 < few_shot["high"] and abs(few_shot["mean"]) < 0.02
    assert both["mean"] == pytest.approx(both["refused"] - both["falsely refused"])
    assert both["mean"] == pytest.approx(0.8, abs=0.02)
    assert absent["best"] == "both" and absent["ahead"]["few-shot"]["low"] > 0.5
    table = decide_report.accuracy_table(whole["values"])
    row = [line for line in table if line.startswith("| few-shot")][-1]
    assert row.endswith(f"| {100 * few_shot['refused']:.1f} | {100 * few_shot['falsely refused']:.1f} |")


def test_intervals_of_handbook_rows_hold_both_those_over_facts_and_those_over_phrasings():
    (facts, phrasings), kinds = LABELS("handbook")
    assert len(facts) == len(phrasings) == 2506 and len(set(facts)) == 1253 and set(kinds) == set(NOTHING)
    assert all(facts.count(one) == 2 for one in facts[:40]) and len(LABELS("tickets")[0]) == 1
    random, place = np.random.default_rng(0), {}
    for clusters in (facts, phrasings):  # what goes together is known as a whole, or not at all
        known = {name: random.random() < 0.5 for name in sorted(set(clusters))}
        place[clusters] = [known[one] for one in clusters]
    for flags in place.values():
        by_fact, by_phrasing = stats.share(flags, facts), stats.share(flags, phrasings)
        both = decide_facts.share(flags, (facts, phrasings))
        assert both.low == min(by_fact.low, by_phrasing.low) and both.mean == by_fact.mean
        assert both.high == max(by_fact.high, by_phrasing.high) and both.each == by_fact.each
    wide, narrow = ([stats.share(place[one], other) for one, other in ((facts, facts), (facts, phrasings))])
    assert narrow.high - narrow.low < 0.95 * (wide.high - wide.low)  # either alone may be too narrow
    wide, narrow = ([stats.share(place[phrasings], other) for other in (phrasings, facts)])
    assert narrow.high - narrow.low < 0.95 * (wide.high - wide.low)


def test_a_difference_of_two_shares_is_as_wide_as_both_together():
    first, second = stats.share([1, 0] * 50, range(100)), stats.share([1, 0, 0, 0] * 50, range(200))
    found = decide_facts.apart(first, second)
    assert found.mean == pytest.approx(0.25) and found.each == pytest.approx((0.25,))
    wide = np.hypot(first.mean - first.low, second.high - second.mean)
    assert found.low == pytest.approx(0.25 - wide) and wide > first.mean - first.low
    seeds = decide_facts.apart(*(stats.share([[1, 0], [0, 0]], list(names)) for names in ("ab", "cd")))
    assert seeds.seeds_reach == 0 and seeds.each == (0, 0)  # who refuses more does so in both


def test_without_a_gpu_there_is_no_record(world, capsys):
    world.profile = "smoke"
    assert bench_main(["decide", "--folder", str(world.folder)]) == 0
    assert store.read("decide") is None and "a trial" in capsys.readouterr().out
    assert decide_report.lines() == [markdown.missing("decide")]


def test_a_larger_model_is_what_the_small_one_is_compared_with(world, monkeypatch):
    monkeypatch.setenv("LABKIT_LARGER", "some/larger")
    real = decide.job

    def job(name):
        if name.startswith("larger_"):
            family = name.split("_")[1]
            return {**told(family, 0.9, 2000), "prompt": "some prompt", "seconds": 1.0, "peak_bytes": 5}
        return real(name)

    monkeypatch.setattr(decide, "job", job)
    whole = run(world)
    assert verdicts(whole)["decide-small"] == "contradicted here"
    assert verdicts(whole)["decide-form-facts"] == "reproduced"  # of the same base, as before
    assert whole["values"]["settings"]["larger"] == "some/larger"
    table = decide_report.small_table()
    assert "The larger model is some/larger." in table and len(table) == 8


def test_ways_cost_their_requests_and_what_a_change_takes_them(standard):
    values = standard[0]["values"]
    one = decide_report.ways({"facts: trained": 1.0}, 0, 1000, values)
    assert one["bm25"]["cost"] == pytest.approx(21 / 3600 * decide_chart.price())  # 21 ms, nothing changes
    changing = decide_report.ways({"facts: trained": 0.5, "facts: absent": 0.5}, 2, 100, values)
    more = {arm: changing[arm]["cost"] - one[arm]["cost"] for arm in changing}
    assert more["finetuned"] == pytest.approx(20 * 12 / 3600 * decide_chart.price())  # trained again
    assert more["both"] == pytest.approx(20 * 0.01 / 3600 * decide_chart.price()) and more["few-shot"] == 0
    mixed = {"form": 0.5, "facts: trained": 0.5}  # facts change as often, whatever else is asked
    daily = [decide_report.ways(mix, 2, 100, values)["finetuned"]["cost"]
             - decide_report.ways(mix, 0, 100, values)["finetuned"]["cost"]
             for mix in (mixed, {"facts: trained": 1.0})]  # fmt: skip
    assert daily[0] == pytest.approx(daily[1]) and daily[0] > 0
    free, changed = (decide_report.ways({"form": 1.0}, number, 100, values) for number in (0, 2))
    assert free == changed
    assert "oracle" not in changing and set(changing["both"]["right"]) == {"facts: trained", "facts: absent"}


# ---- the report -----------------------------------------------------------------------------------------


def arm(mean, reach=0.02):
    return {"mean": mean, "low": mean - reach, "high": mean + reach, "each": [mean], "prompt tokens": 100.0,
            "generated tokens": 5.0}  # fmt: skip


def behind(mean, low):
    return {"mean": mean, "low": low, "high": 2 * mean - low, "each": [mean]}


VALUES = {
    "kinds": {
        "form": {"arms": {"few-shot": arm(0.1), "finetuned": arm(0.8), "oracle": arm(0.99)},
                 "best": "finetuned", "ahead": {"few-shot": behind(0.7, 0.6)}},
        "skill": {"arms": {"few-shot": arm(0.5), "instructions": arm(0.1), "finetuned": arm(0.51)},
                  "best": "finetuned",
                  "ahead": {"few-shot": behind(0.01, -0.02), "instructions": behind(0.41, 0.3)}},
    },
    "ms": {family: {name: {"1": [100.0], "32": [36.0]} for name in ("few-shot", "instructions", "finetuned")}
           for family in ("tickets", "sql")},
}  # fmt: skip


def test_an_arm_is_recommended_alone_only_if_it_is_ahead_of_all_others():
    form, skill = (VALUES["kinds"][kind] for kind in ("form", "skill"))
    assert decide_chart.ahead_or_tied(form) == ["finetuned"]
    assert decide_chart.ahead_or_tied(skill) == ["finetuned", "few-shot"]
    rows = decide_report.decision_table(VALUES)
    assert rows[2].startswith("| form | finetuned | 80.0 [78.0, 82.0] | +70.0 [+60.0, +80.0] (few-shot) |")
    assert rows[3].startswith("| skill | finetuned or few-shot | 51.0") and "0.0250" in rows[3]  # 36 ms
    title = decide_chart.finding(VALUES)
    assert title == "Ahead in this record: finetuned on form; no clear winner on skill"
    alone = decide_chart.finding({"kinds": {"skill": skill}})
    assert alone == "No clear winner on skill"
    refusing = {"form": {**form, "arms": {"few-shot": arm(0.1), "finetuned": arm(0.4) | {
        "refused": 0.9, "falsely refused": 0.5}}}}  # fmt: skip
    assert "42.0]: 90.0 less 50.0 |" in decide_report.decision_table({**VALUES, "kinds": refusing})[2]


def test_own_results_stand_beside_the_recorded_ones_and_alone_without(monkeypatch):
    mine = {"form": {"few-shot": (0.2, 0.1, 0.3), "finetuned": (0.7, 0.6, 0.8)},
            "my data": {"bm25": stats.share([1, 0, 1, 1], list("abcd")), "few-shot": (0.5, 0.2, 0.8)}}
    rows = decide_report.decision_table(VALUES, mine)
    assert rows[0].endswith("| yours |") and rows[2].endswith("| finetuned (70%) |")
    assert rows[3].endswith("|  |") and rows[4].startswith("| my data | not measured |")
    assert rows[4].endswith("| BM25 or few-shot (75%) |")  # four rows tell little
    assert {row.count("|") for row in rows[:5]} == {rows[0].count("|")}
    with pytest.raises(LabkitError, match="no arm 'magic': name yours instructions, few-shot"):
        decide_report.chart(VALUES, {"form": {"magic": (1.0, 0.9, 1.0)}})
    with pytest.raises(LabkitError, match="0.5 has no interval"):
        decide_report.chart(VALUES, {"form": {"finetuned": 0.5}})
    monkeypatch.setattr(decide_chart, "recorded", lambda name: None)
    assert decide_report.decision_table() == [markdown.missing("decide")]
    alone = decide_report.decision_table(mine=mine)
    assert alone[2:4] == ["| form | finetuned (70%) |", "| my data | BM25 or few-shot (75%) |"]
    assert markdown.missing("decide") in alone[-1]
    title = decide_chart.finding({"kinds": {}}, mine)
    assert title == "Ahead in your run: finetuned (70%) on form; no clear winner on my data"


def test_the_price_is_that_of_the_courses_file_and_one_that_is_missing_is_asked_for(monkeypatch):
    from labkit.records import teaching

    monkeypatch.setattr(teaching, "prices", lambda: {decide_chart.CARD: {"dollars_an_hour": 5.0}})
    assert "0.0500" in decide_report.decision_table(VALUES)[2]  # 36 ms; at the committed price half of it
    monkeypatch.setattr(teaching, "prices", dict)
    with pytest.raises(LabkitError, match="has no price of the NVIDIA H200"):
        decide_report.decision_table(VALUES)


def test_the_chart_has_every_arm_of_every_kind_but_no_control(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("labkit.plots.show", lambda fig, alt: shown.append((fig, alt)))
    decide_report.chart(VALUES, {"form": {"finetuned": (0.6, 0.5, 0.7)}})
    [(fig, alt)] = shown
    assert "| form | finetuned |" in capsys.readouterr().out
    assert "form: few-shot 10%, finetuned 80%, finetuned 60% (yours)" in alt and "99%" not in alt
    axes = fig.axes[0]
    assert axes.get_title(loc="left") == decide_chart.finding(VALUES)
    points = [line for line in axes.lines if line.get_marker() in ("^", "o", "v")]
    assert len(points) == 6 and [text.get_text() for text in axes.get_xticklabels()] == ["form", "skill"]
    assert sum(point.get_markerfacecolor() == "white" for point in points) == 1
    assert "finetuned, yours" in [text.get_text() for text in axes.get_legend().get_texts()]
    shown.clear()
    monkeypatch.setattr(decide_chart, "recorded", lambda name: None)
    decide_report.chart()
    assert not shown and markdown.missing("decide") in capsys.readouterr().out


# ---- jobs -----------------------------------------------------------------------------------------------


def test_a_reading_is_read_as_it_was_written():
    for one in (Reading("bm25", 80, 3, "2"), Reading("dense", 240, 1, "1e-05")):
        assert Reading.of(str(one)) == one


def test_what_was_told_of_answers_is_counted_by_kind(small, tokenizer, monkeypatch):
    from labkit.tasks.scores import Scores

    rows = few_rows("handbook")["test"].to_list()[:6]
    answers = [row["answer"] for row in rows[:3]] + ["no"] * 3
    flags = [True] * 3 + [False] * 3
    monkeypatch.setattr("labkit.score", lambda *_, **__: Scores(0.5, flags, 6, answers), raising=False)
    monkeypatch.setattr(decide_jobs, "longest", lambda family: 24)
    found = decide_jobs.told(small(), tokenizer, "handbook", rows)
    assert found["right"] == 0.5 and stats.unpack_rows(found["rows"]).tolist() == flags
    assert set(found["tokens"]) == {row["kind"] for row in rows}
    for kind, (shown, _) in found["tokens"].items():
        ids = [tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
               for row in rows if row["kind"] == kind]  # fmt: skip
        assert shown == pytest.approx(np.mean([len(one) for one in ids]))
    monkeypatch.setattr(decide_jobs, "longest", lambda family: 1)
    assert stats.unpack_rows(found["contains"]).tolist() == flags
    assert stats.unpack_rows(found["refused"]).tolist() == [tasks.family("handbook").REFUSAL == answer
                                                            for answer in answers]  # fmt: skip
    cut = decide_jobs.told(small(), tokenizer, "handbook", rows)["tokens"]
    assert {said for _, said in cut.values()} == {1.0}


def test_the_oracle_shows_the_right_document_and_where_none_is_another(asked_of, monkeypatch):
    few = {"documents": None, "rows": 12, "tried": 12}
    monkeypatch.setattr(decide, "settings", lambda: {**decide.SMOKE, **few})
    found = decide.job("try_oracle_3")
    assert 0 <= found["right"] <= 1 and found["rows"].startswith("12:")
    [one] = asked_of
    texts = {each["id"]: retrieval.text_of(each) for each in tasks.family("handbook").documents()}
    for row, prompt in zip(one.rows, one.prompts, strict=True):
        last = prompt[-1]["content"]
        shown = [name for name, text in texts.items() if text in last]
        assert len(shown) == 1 and last.endswith(f"Question: {row['question']}")
        assert not row["document"] or shown == [row["document"]]
    assert {bool(row["document"]) for row in one.rows} == {True, False}
    turns = one.prompts[0][1:-1]
    assert len(turns) == 6 and all("\n\nQuestion: " in turn["content"] for turn in turns[::2])
    assert [turn["content"] for turn in turns[1::2]].count(tasks.family("handbook").REFUSAL) == 1


def test_looking_through_an_index_tries_every_prompt_with_every_number_of_pieces(asked_of, monkeypatch):
    monkeypatch.setattr(decide, "settings", lambda: {**decide.SMOKE, "pieces": {80: (1, 2)}})
    found = decide.job("look_bm25_80")
    assert set(found["share"]) == {f"{k}-{number}" for k in (1, 2) for number in range(4)}
    assert len(asked_of) == 8 and found["recall"]["1"] <= found["recall"]["2"] <= 1
    one, two = (asked_of[at].prompts[0][-1]["content"] for at in (0, 1))
    assert len(two) > len(one) and one.split("\n\nQuestion")[0] in two
    assert decide.job("look_dense_80")["recall"]


def test_the_base_reads_what_an_index_finds_in_the_documents_of_now(asked_of, monkeypatch):
    monkeypatch.setattr(decide, "settings", lambda: {**decide.SMOKE, "documents": None, "rows": 24})
    found = decide.job("read_bm25-240-2-1")
    rows, prompts = asked_of[0].rows, asked_of[0].prompts
    assert prompts[0][0]["content"] == tasks.family("handbook").RULES and len(prompts[0]) == 12
    stated = [row["answer"] in prompt[-1]["content"] for row, prompt in zip(rows, prompts, strict=True)]
    answerable = [place for place, row in enumerate(rows) if row["document"]]
    assert np.mean([stated[place] for place in answerable]) == pytest.approx(found["recall"]["all"], abs=0.1)
    assert found["recall"]["all"] > 0.5 and "absent" not in found["recall"]
    texts = {version: [retrieval.text_of(one) for one in decide_jobs.pieces_of(240, decide.GPU, version)]
             for version in ("current", "before")}  # fmt: skip
    shown = {version: [sum(text in prompt[-1]["content"] for text in some) for prompt in prompts]
             for version, some in texts.items()}  # fmt: skip
    assert set(shown["current"]) == {2} and min(shown["before"]) < 2


def test_constrained_answers_are_held_to_the_schema_and_others_are_not(asked_of):
    decide.job("test_constrained_0")
    decide.job("test_tickets_0")
    assert callable(asked_of[0].constraint) and not hasattr(asked_of[1], "constraint")
    assert asked_of[0].prompts == asked_of[1].prompts


def test_a_larger_model_is_prompted_with_its_own_best_prompt_and_leaves_the_base_alone(small, monkeypatch):
    seen = []

    def attempt(family, number, asked):
        seen.append(os.environ["LABKIT_MODEL"])
        return {"right": 0.5 if number == 1 else 0.1}

    monkeypatch.setenv("LABKIT_LARGER", "some/larger")
    monkeypatch.delenv("LABKIT_MODEL", raising=False)
    monkeypatch.setattr(decide_jobs, "attempt", attempt)
    monkeypatch.setattr(decide_jobs, "test", lambda family, number, asked: {"rows": f"of {number}"})
    found = decide.job("larger_sql")
    assert found["rows"] == "of 1" and found["prompt"] == "schema and rules" and set(seen) == {"some/larger"}
    assert "LABKIT_MODEL" not in os.environ


def test_finetuning_takes_all_training_rows_and_tells_what_was_forgotten(asked_of, fits):
    found = decide.job("final_sql_0.0002_1")
    assert len(fits[0].rows) == 400 and (fits[0].lr, fits[0].seed, fits[0].steps) == (2e-4, 1, 1)
    assert {"rows", "tokens", "general loss", "probe"} <= set(found)
    assert found["training"] == {"seconds": 1.5, "rows": 400, "epochs": 3.0, "refusals": 0.0}
    assert asked_of[0].prompts is None


def test_a_training_that_diverged_stops_the_run_but_only_costs_a_sweep_its_rate(small, monkeypatch):
    def fit(*args, **options):
        raise LabkitError("the loss is nan at step 3")

    monkeypatch.setattr("labkit.fit", fit, raising=False)
    with pytest.raises(LabkitError, match="diverged at 0.1"):
        decide.job("final_handbook_0.1_0")
    for name in ("sweep_both_0.1_0_bm25-240-1", "sweep_sql_0.1_0_plain"):
        found = decide.job(name)
        assert (found["right"], found["loss"], found["diverged"]) == (0.0, None, True)


def test_form_and_skill_are_swept_on_phrasings_that_their_training_lacks(asked_of, fits):
    decide.job("sweep_tickets_0.0003_0_plain")
    trained, judged = ({row["phrasing"] for row in rows} for rows in (fits[0].rows, asked_of[0].rows))
    assert trained and judged and not trained & judged
    split = few_rows("tickets")
    assert set(split["validation"]["phrasing"]) & set(split["train"]["phrasing"])  # why not those


def test_the_readers_sweep_is_judged_with_passages_and_trains_as_the_reader_does(asked_of, fits):
    decide.job("sweep_both_0.0003_0_bm25-240-1")
    assert fits[0].lr == 3e-4 and fits[0].length == 1024
    assert all("Question: " in prompt[-1]["content"] for prompt in asked_of[0].prompts)


def test_exchanged_answers_are_another_facts_of_the_same_attribute_and_never_the_own():
    rows = tasks.load("handbook")["train"].to_list()
    made, taught = decide_trained.exchanged(rows)
    before = {row["fact"]: row for row in rows}
    assert len(taught) > 650 and len(made) > 0.95 * len(rows)
    told_of = {}
    for row in made:
        assert row["completion"][0]["content"] == row["answer"]
        told_of.setdefault(row["fact"], set()).add(row["answer"])
        own = before[row["fact"]]
        if row["kind"] == "absent":
            assert row["answer"] == own["answer"]
            continue
        assert row["answer"] != own["answer"] and row["answer"] == taught[row["fact"]]
        topic, _, key = row["fact"].split("/")
        group = {one["answer"] for fact, one in before.items()
                 if fact.startswith(f"{topic}/") and fact.endswith(f"/{key}")}  # fmt: skip
        assert row["answer"] in group
    assert all(len(some) == 1 for some in told_of.values())  # every phrasing teaches the same


def test_the_control_is_scored_by_the_right_answers_and_by_those_it_was_taught(small, fits, monkeypatch):
    from labkit.tasks import handbook

    _, taught = decide_trained.exchanged(few_rows("handbook")["train"].to_list())

    def score(model, tokenizer, rows, **options):
        return handbook.score([taught[row["fact"]] for row in rows], rows)

    monkeypatch.setattr("labkit.score", score, raising=False)
    monkeypatch.setattr(decide, "settings", lambda: {**decide.SMOKE, "rows": None})
    found = decide.job("shuffled_0.0002_0")
    assert found["taught"] == 1.0 and found["true"] == 0.0
    assert all(row["answer"] == taught.get(row["fact"], row["answer"]) for row in fits[0].rows)


def test_a_reader_is_trained_on_passages_of_before_and_tested_on_those_of_now(asked_of, fits, monkeypatch):
    few = {"documents": None, "batch": 8, "rows": 6, "reading steps": 7}
    monkeypatch.setattr(decide, "settings", lambda: {**decide.SMOKE, **few})
    found = decide.job("both_bm25-240-2-0.0004_1")
    [one] = fits
    assert (one.batch, one.length, one.lr, one.seed) == (4, 1024, 4e-4, 1)  # as many tokens a step as 8 x 512
    assert one.steps == 7 and found["training"]["epochs"] == 3.0
    assert {row["kind"] for row in one.rows} == {"trained", "changed", "absent"}
    refusal = tasks.family("handbook").REFUSAL
    for row in one.rows:
        assert ("Question: " in row["prompt"][-1]["content"]) and (row["answer"] == refusal) != row["stated"]
    assert all(row["stated"] for row in one.rows if row["kind"] != "absent")
    plain = few_rows("handbook")["train"]
    assert found["training"]["refusals"] == np.mean([row["kind"] == "absent" for row in plain])  # as without
    assert not retrieval.leaks(one.rows, tasks.load("handbook")["test"].to_list())["questions"]
    assert set(found["oracle"]) >= {"rows", "tokens"} and found["rows"] and found["recall"]
    assert asked_of[0].prompts != asked_of[1].prompts and len(asked_of) == 2


def test_the_plain_and_the_reading_finetune_see_as_many_tokens_a_step():
    asked = decide.GPU
    reading = max(1, asked["batch"] * asked["length"] // asked["reading"]) * asked["reading"]
    assert reading == asked["batch"] * asked["length"]


def test_every_arm_is_timed_from_the_question_and_what_was_trained_says_how_long(small, fits, monkeypatch):
    monkeypatch.setattr(decide, "settings", lambda: {**decide.SMOKE, "pieces": {80: (1,)},
                                                     "timed": {1: 2, 2: 1}})  # fmt: skip
    arms = ("few-shot=2", "bm25=bm25-80-1-0", "finetuned=0.0002", "both=bm25-80-1-0.0004", "oracle=1")
    found = decide.job(f"alone_handbook_{'_'.join(arms)}")
    assert set(found["ms"]) == {"few-shot", "bm25", "finetuned", "both", "oracle"}
    assert all(len(each["1"]) == 2 and len(each["2"]) == 1 for each in found["ms"].values())
    assert found["training seconds"] == {"few-shot": None, "bm25": None, "finetuned": 1.5, "both": 1.5,
                                         "oracle": None}  # fmt: skip
    assert set(found["indexing"]) == {"bm25", "both"} and len(fits) == 2


def test_a_requests_time_is_the_batchs_over_its_rows_and_every_call_has_other_rows(monkeypatch):
    seen = []

    def milliseconds(call, repeats, warm):
        for _ in range(repeats + warm):
            call()
        return [640.0] * repeats

    monkeypatch.setitem(retrieval.__dict__, "milliseconds", milliseconds)
    times = decide_trained.timed(seen.append, list(range(9)), 2, 3)
    assert times == [320.0] * 3 and seen == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_an_encoder_is_an_index_only_if_one_is_named(small, monkeypatch):
    assert decide_jobs.indexes() == ("bm25", "dense")
    monkeypatch.setenv("LABKIT_EMBEDDER", "some/encoder")
    assert decide_jobs.indexes() == ("bm25", "dense", "encoder")
    assert "look_encoder_240" in decide.names(decide.settings())
