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
    decide_jobs,
    decide_report,
    decide_trained,
    decide_values,
    jobs,
    markdown,
)
from labkit.bench import main as bench_main
from labkit.bench.decide_jobs import Reading
from labkit.errors import LabkitError
from labkit.methods import retrieval
from labkit.records import judge, ledger, stats, store

CLAIMS = [claim for claim in ledger.ledger() if claim["record"] == decide.NAME]
RATES = {"1e-4": 0.4, "2e-4": 0.6, "4e-4": 0.5}  # of families' record here: 2e-4 is best


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
        return SimpleNamespace(seconds=1.5)

    monkeypatch.setattr("labkit.fit", fit, raising=False)
    return calls


# ---- a whole run, of pretended jobs ---------------------------------------------------------------------

# A world in which the claims hold: {arm: share right}, of the handbook by kind.
NOTHING = {"trained": 0.0, "changed": 0.0, "untrained": 0.0, "absent": 0.8}
FOUND = {"trained": 0.8, "changed": 0.8, "untrained": 0.8, "absent": 0.1}
SHARES = {
    "tickets": {"prompt": 0.01, "constrained": 0.02, "finetuned": 0.8},
    "sql": {"prompt": 0.0, "finetuned": 0.5},
    "handbook": {"prompt": NOTHING, "bm25": FOUND, "dense": {**FOUND, "trained": 0.3},
                 "finetuned": {**NOTHING, "trained": 0.45, "absent": 0.2}, "both": {**FOUND, "absent": 0.9},
                 "oracle": {**FOUND, "trained": 0.9}},
}  # fmt: skip


LABELS = functools.cache(decide_values.labels)  # one reading of the data for all runs


@functools.cache
def kinds_of(family):
    return LABELS(family)[1]


def told(family, share, most=None):
    """What `decide_jobs.told` keeps, of `most` test rows; right ones are spread evenly over each kind."""
    return made_up(family, json.dumps(share), most)


@functools.cache
def made_up(family, share, most):
    share = json.loads(share)
    kinds, seen, flags = kinds_of(family)[:most], {}, []
    for kind in kinds:
        seen[kind] = seen.get(kind, -1) + 1
        wanted = share[kind] if isinstance(share, dict) else share
        flags.append(int((seen[kind] + 1) * wanted) > int(seen[kind] * wanted))
    return {"rows": stats.pack_rows(flags), "right": float(np.mean(flags)), "detail": {},
            "tokens": {kind: [100.0, 5.0] for kind in seen}}  # fmt: skip


def pretended(name, shares):
    """A job's result."""
    kind, *rest = name.split("_")
    kept = {"general loss": 3.5 + 0.1 * (kind != "base"), "probe": 0.7, "training seconds": 10.0}
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
        return {"share": right, "recall": found}
    if kind == "sweep":
        rate = float(rest[0].rpartition("-")[2])
        return {"right": 0.7 if rate == 1e-4 else 0.6, "loss": None}
    if kind == "test":
        family = "handbook" if rest[0] == "oracle" else rest[0]
        most = None if family == "handbook" else 2000
        return told(family, books["oracle"] if rest[0] == "oracle" else shares[family]["prompt"], most)
    if kind == "constrained":
        return told("tickets", shares["tickets"]["constrained"], 2000)
    recall = {"all": 0.8, "trained": 0.8, "changed": 0.8, "untrained": 0.8}
    if kind == "read":
        return {**told("handbook", books[Reading.of(rest[0]).index]), "recall": recall}
    if kind == "both":
        perfect = told("handbook", {**books["both"], "trained": 0.97})
        return {**told("handbook", books["both"]), "oracle": perfect, "recall": recall, **kept}
    arms = [one.split("=")[0] for one in rest[1:]]
    seconds = {"all": 0.4, "one changed document": 0.01}
    return {"ms": {arm: {"1": [200.0, 210.0, 220.0], "32": [20.0, 22.0, 21.0]} for arm in arms},
            "training seconds": {arm: 12.0 if arm in ("finetuned", "both") else None for arm in arms},
            "indexing": {"bm25": seconds, "dense": seconds} if rest[0] == "handbook" else {}}  # fmt: skip


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
    monkeypatch.setattr(decide_values, "labels", LABELS)
    monkeypatch.setattr(stats, "RESAMPLES", 100)
    monkeypatch.setattr(jobs, "cards", lambda: [None] * 99)  # all at once: `run` sleeps between rounds
    monkeypatch.setattr(jobs.time, "sleep", lambda _: None)
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    monkeypatch.setattr(decide.env, "profile", lambda: made.profile)
    monkeypatch.setattr(decide, "settings", lambda: dict(decide.GPU))
    values = {family: {"full on validation, by rate": RATES} for family in decide.FAMILIES}
    (tmp_path / "families.json").write_text(json.dumps({"schema": store.SCHEMA, "values": values}))
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
    for claim in CLAIMS:
        for band in [*claim["bands"], *claim["beside"]]:
            assert judge.estimate(band, source) is not None, (claim["id"], band)
    assert source.value("facts.no such arm") is None and source.rows("form: no such arm") is None
    assert whole["scores"]["form: finetuned"]["rows"][2].startswith("5000:")
    assert whole["scores"]["form: prompted"]["rows"][0].startswith("2000:")
    assert {claim["id"] for claim in CLAIMS} <= set(whole["claims"]) and there.stale == []
    assert verdicts(whole) == {"decide-form-facts": "reproduced", "decide-small": "reproduced"}


def test_the_tables_are_the_same_from_a_record_as_from_a_run(standard):
    whole, there = standard
    assert there.again == decide_report.lines(whole["values"])
    printed = "\n".join(there.again)
    assert printed.count("\n| --- |") == 8 and "the same base, with the best prompt" in printed
    widths = [[line.count("|") for line in block.splitlines() if line.startswith("|")]
              for block in printed.split("\n\n")]  # fmt: skip
    assert all(len(set(some)) <= 1 for some in widths)


def test_claims_are_judged_by_what_was_measured_and_a_second_run_starts_nothing(world):
    world.shares["handbook"]["bm25"]["trained"] = 0.5
    world.shares["sql"]["finetuned"] = 0.0
    whole = run(world)
    assert verdicts(whole) == {"decide-form-facts": "contradicted here", "decide-small": "undecided"}
    facts = whole["values"]["facts"]
    gap = facts["retrieval minus finetuned"]
    assert gap["each"] == pytest.approx([0.05] * 3, abs=0.002) and gap["low"] < 0.05 < gap["high"]
    (band, _), read = CLAIMS[0]["bands"], judge.Recorded(whole)
    assert judge.estimate(band, read).low == gap["low"] < stats.of_values(gap["each"]).low  # phrasings count
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
    assert arms["finetuned"]["rows"] == 422 and arms["both"]["mean"] == pytest.approx(0.9, abs=0.01)


def test_choices_are_by_validation_rows_and_what_is_timed_is_alone(standard):
    whole, world = standard
    chosen = whole["values"]["chosen"]
    assert chosen["prompts"]["sql"] == {  # the third of all has examples; of those without all are equal
        "instructions": "schema only", "few-shot": "schema, rules and 3 examples",
        "prompted": "schema, rules and 3 examples"}  # fmt: skip
    assert chosen["prompts"]["tickets"]["prompted"] == "full instructions and a format example"
    assert chosen["prompts"]["tickets"]["few-shot"] == "full instructions and 4 examples"
    assert chosen["retrieval"] == "bm25" and chosen["readings"]["bm25"] == {
        "words": 80, "pieces": 3, "prompt": "rules of format"}  # fmt: skip
    assert chosen["both"] == {"index": "bm25", "words": 240, "pieces": 2}  # by recall, not by base's reading
    assert chosen["rates"] == {"tickets": 2e-4, "sql": 2e-4, "handbook": 2e-4, "both": 1e-4}
    names = set(world.started)
    assert {"final_sql_0.0002_2", "shuffled_0.0002_0", "constrained_2", "read_bm25-80-3-1",
            "test_oracle_2", "sweep_bm25-240-2-0.0004", "both_bm25-240-2-0.0001_1"} <= names  # fmt: skip
    worse = ("both_bm25-240-2-0.0004", "test_sql_3", "read_dense-240")
    assert not any(name.startswith(worse) for name in names)
    assert {side for kind, side in world.together if kind == "alone"} == {1}
    assert {side for kind, side in world.together if kind != "alone"} == {8}
    assert sum(name.startswith("alone_") for name in names) == 3
    assert "alone_tickets_instructions=2_few-shot=3_finetuned=0.0002_constrained=2" in names


def test_without_the_record_of_families_there_are_no_rates(world, tmp_path):
    (tmp_path / "families.json").unlink()
    with pytest.raises(LabkitError, match="bench families"):
        run(world)
    assert not world.started


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
            return {**told(family, 0.9), "prompt": "some prompt", "seconds": 1.0, "peak_bytes": 5}
        return real(name)

    monkeypatch.setattr(decide, "job", job)
    whole = run(world)
    assert verdicts(whole)["decide-small"] == "contradicted here"
    assert verdicts(whole)["decide-form-facts"] == "reproduced"  # of the same base, as before
    assert whole["values"]["settings"]["larger"] == "some/larger"
    assert "Prompted is some/larger." in decide_report.small_table()


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


def test_an_arm_is_recommended_alone_only_if_it_is_surely_ahead_of_all_others():
    form, skill = (VALUES["kinds"][kind] for kind in ("form", "skill"))
    assert decide_chart.ahead_or_tied(form) == ["finetuned"]
    assert decide_chart.ahead_or_tied(skill) == ["finetuned", "few-shot"]
    rows = decide_report.decision_table(VALUES)
    assert rows[2].startswith("| form | finetuned | 80.0 [78.0, 82.0] | +70.0 [+60.0, +80.0] (few-shot) |")
    assert rows[3].startswith("| skill | finetuned or few-shot | 51.0") and "0.0250" in rows[3]  # 36 ms
    title = decide_chart.finding(VALUES)
    assert title == "Surely ahead: finetuned on form; none on skill"


def test_own_results_stand_beside_the_recorded_ones_and_alone_without(monkeypatch):
    mine = {"form": {"few-shot": 0.2, "finetuned": (0.7, 0.6, 0.8)},
            "my data": {"bm25": stats.share([1, 0, 1, 1], list("abcd")), "few-shot": 0.5}}  # fmt: skip
    rows = decide_report.decision_table(VALUES, mine)
    assert rows[0].endswith("| yours |") and rows[2].endswith("| finetuned (70%) |")
    assert rows[3].endswith("|  |") and rows[4].startswith("| my data | not measured |")
    assert rows[4].endswith("| BM25 or few-shot (75%) |")  # four rows tell little
    assert {row.count("|") for row in rows[:5]} == {rows[0].count("|")}
    with pytest.raises(LabkitError, match="no arm 'magic': name yours instructions, few-shot"):
        decide_report.chart(VALUES, {"form": {"magic": 1.0}})
    monkeypatch.setattr(decide_chart, "recorded", lambda name: None)
    assert decide_report.decision_table() == [markdown.missing("decide")]
    assert decide_chart.finding({"kinds": {}}, mine).startswith("form: finetuned (70%); my data: BM25")


def test_the_chart_has_every_arm_of_every_kind_but_no_control(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("labkit.plots.show", lambda fig, alt: shown.append((fig, alt)))
    decide_report.chart(VALUES, {"form": {"finetuned": 0.6}})
    [(fig, alt)] = shown
    assert "| form | finetuned |" in capsys.readouterr().out
    assert "form: few-shot 10%, finetuned 80%, finetuned 60% (yours)" in alt and "99%" not in alt
    axes = fig.axes[0]
    assert axes.get_title(loc="left") == decide_chart.finding(VALUES)
    points = [line for line in axes.lines if line.get_marker() in ("^", "o", "v")]
    assert len(points) == 6 and [text.get_text() for text in axes.get_xticklabels()] == ["form", "skill"]
    assert sum(point.get_markerfacecolor() == "white" for point in points) == 1
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
    cut = decide_jobs.told(small(), tokenizer, "handbook", rows)["tokens"]
    assert {said for _, said in cut.values()} == {1.0}


def test_the_oracle_shows_the_right_document_and_where_none_is_another(asked_of, monkeypatch):
    few = {"documents": None, "rows": 12, "tried": 12}
    monkeypatch.setattr(decide, "settings", lambda: {**decide.SMOKE, **few})
    found = decide.job("try_oracle_1")
    assert 0 <= found["right"] <= 1 and found["rows"].startswith("12:")
    [one] = asked_of
    texts = {each["id"]: retrieval.text_of(each) for each in tasks.family("handbook").documents()}
    for row, prompt in zip(one.rows, one.prompts, strict=True):
        last = prompt[-1]["content"]
        shown = [name for name, text in texts.items() if text in last]
        assert len(shown) == 1 and last.endswith(f"Question: {row['question']}")
        assert not row["document"] or shown == [row["document"]]
    assert {bool(row["document"]) for row in one.rows} == {True, False}


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
    assert prompts[0][0]["content"] == tasks.family("handbook").RULES
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
    decide.job("constrained_0")
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
    assert {"rows", "tokens", "general loss", "probe"} <= set(found) and found["training seconds"] == 1.5
    assert asked_of[0].prompts is None


def test_a_training_that_diverged_stops_the_run_but_only_costs_a_sweep_its_rate(small, monkeypatch):
    def fit(*args, **options):
        raise LabkitError("the loss is nan at step 3")

    monkeypatch.setattr("labkit.fit", fit, raising=False)
    with pytest.raises(LabkitError, match="diverged at 0.1"):
        decide.job("final_handbook_0.1_0")
    found = decide.job("sweep_bm25-240-1-0.1")
    assert (found["right"], found["loss"]) == (0.0, None)


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
    few = {"documents": None, "batch": 8, "rows": 6}
    monkeypatch.setattr(decide, "settings", lambda: {**decide.SMOKE, **few})
    found = decide.job("both_bm25-240-2-0.0004_1")
    [one] = fits
    assert (one.batch, one.length, one.lr, one.seed) == (4, 1024, 4e-4, 1)  # as many tokens a step as 8 x 512
    assert {row["kind"] for row in one.rows} == {"trained", "changed", "absent"}
    refusal = tasks.family("handbook").REFUSAL
    for row in one.rows:
        assert ("Question: " in row["prompt"][-1]["content"]) and (row["answer"] == refusal) != row["stated"]
    shares = np.mean([row["stated"] for row in one.rows if row["kind"] != "absent"])
    assert 0.5 < shares < 0.9  # a fifth is hidden on purpose
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
    assert set(found["indexing"]) == {"bm25", "dense"} and len(fits) == 2


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
    known = {name: {1e-4: 1.0} for name in decide.FAMILIES}
    assert "look_encoder_240" in decide.names(decide.settings(), known)
