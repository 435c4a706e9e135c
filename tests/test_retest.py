"""A claim re-tested: points are what data shows, whatever a submission says or does."""

import csv
import json
import os
import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from labkit import __main__ as command_line
from labkit.errors import LabkitError
from labkit.exercises.grade import grade
from labkit.exercises.retest import files, numbers, rubric, tuning, twins
from labkit.exercises.retest import page as pages
from labkit.exercises.retest.checks import CHECKS
from labkit.exercises.retest.learner import Retest, make, seal
from labkit.records import judge, ledger, stats, store

METHODS = ("lora-r16", "full")
SEEDS, ROWS, STEPS = (0, 1, 2), 240, 60
PROGRAM = [one.id for one in rubric.read().criteria if one.by == "program"]
PERSON = [one.id for one in rubric.read().criteria if one.by == "person"]


def course():
    return rubric.phrasings("tickets", "test")


def flags_of(rows, seeds=SEEDS, shift=0.0):
    """Right or wrong as of two methods: some rows are hard for both, and every run has luck of its own."""
    rng = np.random.default_rng(7)
    hard = rng.random(len(rows))
    luck = {name: rng.normal(0, 0.25, (len(seeds), len(rows))) for name in METHODS}
    return {name: (hard + luck[name] + shift * (name == "full") < 0.75).astype(int) for name in METHODS}


def answer(folder, flags, rows, **changes):
    """Conclude rightly from what was handed in, but for `changes`."""
    found = stats.gap(flags["lora-r16"], flags["full"], [course()[row] for row in rows])
    band = Retest(folder).claim["bands"][0]
    verdict, _ = judge.judged(band, found)
    times, seeds = None, None
    if not np.isnan(found.mean):
        times, seeds = judge.enough(band, found) or (None, None)
    if len(found.each) < 3:
        times, seeds = 1, 3
    if found.phrasings < 10:
        times, seeds = 10 / found.phrasings, len(found.each)
    given = {
        "bands": [{"mean": found.mean, "low": found.low, "high": found.high, "verdict": verdict}],
        "verdict": verdict, "words": "Not decided on these rows.",
        "accuracy": {name: each.mean(axis=1).tolist() for name, each in flags.items()},
        "would_decide": {"rows": times and times * len(rows) if (times or 0) * len(rows) <= 5000 else None,
                         "seeds": seeds},
    }  # fmt: skip
    Retest(folder).conclude(**{**given, **changes})
    return found


def build(folder, seeds=SEEDS, rows=None, flags=None, design=(), **changes):
    """A whole submission, honest but for what is asked for; returns its folder."""
    rows = list(course())[:ROWS] if rows is None else rows
    flags = flags_of(rows, seeds) if flags is None else flags
    retest = Retest(make("lora-match", folder))
    chances = {"reproduced": 0.3, "contradicted here": 0.1, "undecided": 0.6}
    retest.predict(chances, [0.0], "Rank 16 holds what these rows teach.")
    rates = {name: {"rates": [0.001, 0.003]} for name in METHODS}
    planned = {"methods": rates, "seeds": list(seeds), "steps": STEPS, "rows": len(rows)}
    planned |= {"held_equal": "rows, steps", "differs": "what is trained", "objection": "few steps"}
    retest.design(**{**planned, **dict(design)})
    retest.seal()
    for name, rate in retest.untried():
        retest.tried(name, rate, 0.5 if rate == 0.003 else 0.7)
    for at, seed in enumerate(seeds):
        runs = {name: {"steps": STEPS, "tokens": 61_000 + at, "lr": 0.003} for name in METHODS}
        retest.add(seed, rows, {name: flags[name][at] for name in METHODS}, runs)
    answer(folder, flags, rows, **changes)
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return build(tmp_path_factory.mktemp("honest") / "ada")


@pytest.fixture
def honest(template, tmp_path):
    return shutil.copytree(template, tmp_path / "ada")


def judged(folder):
    """{criterion: Result} of a submission."""
    (graded,) = rubric.grade({"ada": folder})
    return {one.exercise.removeprefix("claim."): one for one in graded.results}


def missed(results):
    return {name: one.message for name, one in results.items() if name in PROGRAM and not one.points}


def edit(folder, name, change):
    """Change a JSON file in place."""
    data = json.loads((folder / name).read_text())
    change(data)
    (folder / name).write_text(json.dumps(data))


def edit_lines(folder, change):
    """Change the lines of results.jsonl in place; a change that returns None drops the line."""
    path = folder / files.RESULTS
    lines = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line))


def reseal(folder):
    """Seal again what was changed since, and let the results name it: no trace is left."""
    (folder / files.SEAL).unlink()
    receipt = {"claim": "lora-match", "sealed": datetime.now(UTC).isoformat()}
    receipt["files"] = {name: files.digest((folder / name).read_bytes()) for name in files.SEALED}
    receipt["seal"] = files.seal_of(receipt)
    (folder / files.SEAL).write_text(json.dumps(receipt))
    later = datetime.now(UTC).isoformat()
    edit_lines(folder, lambda line: {"seal": receipt["seal"], "started": later} if "seal" in line else line)


def test_an_honest_retest_earns_all_that_a_program_gives_and_leaves_the_rest_open(honest):
    results = judged(honest)
    assert missed(results) == {}
    assert sum(one.points for one in results.values()) == 21
    assert {name: one.message for name, one in results.items() if name in PERSON} == dict.fromkeys(
        PERSON, rubric.WAITS)  # fmt: skip


def test_the_rubrics_program_criteria_are_the_checks_there_are():
    assert sorted(PROGRAM) == sorted(CHECKS) and len(PERSON) >= 2


# Each of these is whole and honest but for one thing.
def after_the_seal(folder):
    edit(build(folder), files.PREDICTION, lambda data: data.update(why="I knew it"))


def chances_of_less_than_one(folder):
    build(folder)
    edit(folder, files.PREDICTION, lambda data: data["probabilities"].update(undecided=0.1))
    reseal(folder)


def one_score_less(folder):
    flags, rows = flags_of(list(course())[:ROWS]), list(course())[:ROWS]
    build(folder, flags=flags)
    edit_lines(folder, lambda line: {**line, "scores": {"full": line["scores"]["full"]}}
               if line.get("row") == rows[-1] and line["seed"] == 1 else line)  # fmt: skip
    answer(folder, {name: each[:, :-1] for name, each in flags.items()}, rows[:-1])


def few_phrasings(folder):
    few = sorted(set(course().values()))[:6]
    build(folder, rows=[row for row, phrasing in course().items() if phrasing in few])


def one_run_twice(folder):
    flags = flags_of(list(course())[:ROWS])
    flags["full"][2] = flags["full"][0]
    build(folder, flags=flags)


def the_record(folder):
    score = store.read("methods_tickets")["scores"]["full"]["rows"]
    flags = flags_of(list(course())[:ROWS])
    flags["full"][1] = stats.unpack_rows(score[2])[:ROWS]
    flags["full"][1, 5] ^= 1  # one row changed does not hide it
    build(folder, flags=flags)


def wrong_interval(folder):
    flags, rows = flags_of(list(course())[:ROWS]), list(course())[:ROWS]
    build(folder, flags=flags)
    found = stats.gap(flags["lora-r16"], flags["full"], [course()[row] for row in rows])
    band = {"mean": found.mean, "low": found.mean - 0.2, "high": found.mean + 0.2, "verdict": "undecided"}
    answer(folder, flags, rows, bands=[band])


def wished_for(folder):
    edit(build(folder), files.CONCLUSION, lambda data: data["bands"][0].update(verdict="reproduced"))


def other_claim_verdict(folder):
    build(folder, verdict="reproduced")


ALONE = {
    "sealed": (after_the_seal, "prediction.json is not the file that was sealed"),
    "prediction": (chances_of_less_than_one, "add up to 0.5"),
    "seeds": (lambda folder: build(folder, seeds=(0, 1)), "2; the bands ask for 3"),
    "same_rows": (one_score_less, "lora-r16, seed 1 lacks 1 rows that others have; 239 were compared"),
    "phrasings": (few_phrasings, "6; at least 10 are wanted"),
    "as_planned": (lambda folder: build(folder, design={"rows": 500}), "500 rows were planned, 240 scored"),
    "equal": (lambda folder: build(folder, design={"steps": 90}), "took 60 steps, the design says 90"),
    "tuned": (lambda folder: build(folder, design={"methods": {"full": {"rates": [0.003]}, "lora-r16": {
        "rates": [0.001, 0.003]}}}), "2 learning rates for lora-r16, 1 learning rates for full"),
    "adds_up": (lambda folder: build(folder, accuracy={"lora-r16": [0.9] * 3, "full": [0.7] * 3}),
                "lora-r16, seed 0: 0."),
    "own_rows": (one_run_twice, "full, seed 0 and full, seed 2 agree in 100.0% of the rows"),
    "interval": (wrong_interval, "claimed"),
    "verdict": (wished_for, "give undecided, not reproduced"),
    "decides": (lambda folder: build(folder, would_decide={"rows": 10**6, "seeds": 3}),
                "1,000,000 rows claimed"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAM)
def test_each_criterion_can_be_missed_alone(name, tmp_path):
    spoil, words = ALONE[name]
    spoil(tmp_path / "ada")
    said = missed(judged(tmp_path / "ada"))
    assert list(said) == [name] and words in said[name]


RIGHT = {"wrong": lambda shape: np.zeros(shape, int), "right": lambda shape: np.ones(shape, int)}


@pytest.mark.parametrize("all_are", RIGHT)
def test_rows_that_tell_nothing_earn_neither_interval_nor_verdict(tmp_path, all_are):
    rows = list(course())[:400]
    same = RIGHT[all_are]((3, 400))
    build(tmp_path / "ada", rows=rows, flags={name: same for name in METHODS})
    conclusion = json.loads((tmp_path / "ada" / files.CONCLUSION).read_text())
    assert conclusion["verdict"] == "reproduced"  # the interval of such rows is narrow
    said = missed(judged(tmp_path / "ada"))
    assert sorted(said) == ["decides", "interval", "verdict"]
    right = 1200 if all_are == "right" else 0
    words = f"lora-r16 has {right} right and {1200 - right} wrong answers"
    assert all(words in one for one in said.values())
    (graded,) = rubric.grade({"ada": tmp_path / "ada"})
    assert "On the claim: **nothing**, these rows tell nothing" in pages.page(graded)


@pytest.mark.parametrize("right, earned", [(9, False), (10, True)])
def test_ten_right_answers_of_each_method_are_enough(tmp_path, right, earned):
    flags = flags_of(list(course())[:ROWS])
    flags["full"] = np.zeros_like(flags["full"])
    flags["full"].flat[: 70 * right : 70] = 1
    build(tmp_path / "ada", flags=flags)
    results = judged(tmp_path / "ada")
    assert bool(results["interval"].points) is earned and bool(results["verdict"].points) is earned


def course_of(rows, phrasings):
    return {f"row {at}": f"phrasing {at % phrasings}" for at in range(rows)}


@pytest.mark.parametrize("least, rows, seeds, words", [
    # rows, phrasings and seeds that it takes, of a split of 5,000 rows and 120 phrasings
    ((400, 80, 3), 700, 3, ""),
    ((400, 80, 3), 900, 3, "900 rows claimed; if the mean stayed, 400 would"),
    ((400, 80, 3), None, 3, "rows are missing"),
    ((400, 80, 30), 400, 3, "3 seeds claimed"),
    ((1400, 590, 11), 1400, 11, ""),
    ((1400, 590, 11), 5000, 40, ""),  # a lower bound: more of the same phrasings help less
    ((1400, 590, 11), None, None, ""),
    ((1400, 590, 11), 1400, None, "seeds are missing"),
    ((1400, 590, 11), 600, 11, "600 rows claimed"),
    ((1400, 590, 11), 6000, 11, "6,000 rows claimed"),
    ((18000, 2100, 62), 18000, 62, "the split has 5,000 rows of 120 phrasings: give None for rows"),
    ((18000, 2100, 62), None, 62, ""),
    ((18000, 2100, 62), None, 3, "3 seeds claimed"),
])  # fmt: skip
def test_what_would_decide_is_held_within_what_the_split_has(least, rows, seeds, words):
    given = {"rows": rows, "seeds": seeds}
    said = numbers.unfit(given, numbers.Needed(*least), course_of(5000, 120), "here")
    assert words in said if words else said == ""


def test_what_would_decide_is_a_lower_bound_on_the_courses_own_rows():
    """The rule says how far the reach over rows shrinks from 240 rows to 5,000; it shrinks less."""
    scores = store.read("methods_tickets")["scores"]
    one, other = ([stats.unpack_rows(text) for text in scores[name]["rows"]] for name in METHODS)
    labels = list(course().values())
    found = [stats.gap(np.array(one)[:, :n], np.array(other)[:, :n], labels[:n]) for n in (240, 5000)]
    few, whole = (each.rows_high - each.rows_low for each in found)
    assert 1.5 * few / (5000 / 240) ** 0.5 < whole < few


def two_bands(folder, shifts, would_decide):
    """lora-sensitive, whose two bands compare four methods; `shifts` of the first method of each pair."""
    retest = Retest(make("lora-sensitive", folder))
    rows = list(course())[:ROWS]
    names = files.methods_of(retest.claim)
    retest.predict({"reproduced": 0.3, "contradicted here": 0.1, "undecided": 0.6}, [0.0, 0.0], "")
    words = {"held_equal": "", "differs": "", "objection": ""}
    retest.design({name: {"rates": [0.1]} for name in names}, [0, 1, 2], 9, len(rows), **words)
    retest.seal()
    for name in names:
        retest.tried(name, 0.1, 1.0)
    rng = np.random.default_rng(0)
    hard = rng.random(len(rows))
    flags = {name: (hard + rng.normal(0, 0.2, (3, len(rows))) + shifts.get(name, 0) < 0.6).astype(int)
             for name in names}  # fmt: skip
    for seed in range(3):
        runs = {name: {"steps": 9, "tokens": 99, "lr": 0.1} for name in names}
        retest.add(seed, rows, {name: each[seed] for name, each in flags.items()}, runs)
    source = judge.Live({"scores": flags, "phrasing": [course()[row] for row in rows]})
    found = [(band, judge.estimate(band, source)) for band in retest.claim["bands"]]
    said = [judge.judged(band, one)[0] for band, one in found]
    bands = [{"mean": one.mean, "low": one.low, "high": one.high, "verdict": verdict}
             for (_, one), verdict in zip(found, said, strict=True)]  # fmt: skip
    accuracy = {name: each.mean(axis=1).tolist() for name, each in flags.items()}
    retest.conclude(bands, judge.overall(said), accuracy, would_decide, "")
    return said


def test_a_claim_that_one_band_contradicts_needs_no_word_on_the_other(tmp_path):
    nothing = {"rows": None, "seeds": None}
    band = rubric.read().claim("lora-sensitive")["bands"][0]
    said = two_bands(tmp_path / "ada", {band["gap"][0]: 0.3}, nothing)
    assert said == ["contradicted here", "undecided"]
    assert missed(judged(tmp_path / "ada")) == {}
    assert two_bands(tmp_path / "bob", {}, {"rows": 1, "seeds": 1}) == ["undecided", "undecided"]
    assert list(missed(judged(tmp_path / "bob"))) == ["decides"]


def test_a_band_whose_ratio_is_to_nothing_has_no_numbers_to_give(tmp_path):
    retest = Retest(make("lora-95", tmp_path))
    case = retest._case()
    (band,) = case.claim["bands"]
    flags = {name: np.array([[1, 0] * 20, [1, 0] * 20, [0, 1] * 20], float) for name in band["ratio"]}
    flags[band["ratio"][1]][2] = 0  # one seed of the second method has none right
    source = judge.Live({"scores": flags, "phrasing": list(range(40))})
    case.parts["estimates"] = [judge.estimate(band, source)]
    empty = {"mean": None, "low": None, "high": None, "verdict": "undecided"}
    retest.conclude([empty], "undecided", {}, {}, "")
    case.parts["table"] = files.Table([0, 1, 2], list(range(40)), list(range(40)), flags)
    assert CHECKS["interval"](case) == "" and CHECKS["verdict"](case) == ""
    equal = dict.fromkeys(band["ratio"], flags[band["ratio"][0]])
    source = judge.Live({"scores": equal, "phrasing": list(range(40))})
    case.parts["estimates"] = [judge.estimate(band, source)]
    with pytest.raises(files.Refused, match="mean, low and high are empty"):
        CHECKS["interval"](case)


def drop_a_rate(lines):
    return [line for line in lines if not (line["method"] == "full" and line["lr"] == 0.001)]


def other_rate_better(lines):
    return [{**line, "loss": 0.1} if line["lr"] == 0.001 else line for line in lines]


@pytest.mark.parametrize("change, words", [
    (drop_a_rate, "tuning.jsonl has no line for full at 0.001"),
    (other_rate_better, "lora-r16 ran at 0.003, but 0.001 has the lowest loss (0.001: 0.100, 0.003: 0.500)"),
    (lambda lines: lines + lines[:1], "line 5: lora-r16 at 0.001 stands twice"),
    (lambda lines: [{**line, "loss": "low"} for line in lines], "line 1: loss must be a number"),
    (lambda lines: [{**line, "loss": None} for line in lines], "but none has a loss"),
    (lambda lines: [{**line, "method": ["full"]} for line in lines], "compares lora-r16 and full"),
    (lambda lines: [{"method": "full", "lr": n, "loss": 1} for n in range(1001)], "more than 1000 lines"),
])  # fmt: skip
def test_tuning_is_paid_for_its_results_alone(honest, change, words):
    path = honest / tuning.TUNING
    lines = sorted(map(json.loads, path.read_text().splitlines()), key=lambda line: line["method"] == "full")
    path.write_text("".join(json.dumps(line) + "\n" for line in change(lines)))
    said = missed(judged(honest))
    assert list(said) == ["tuned"] and words in said["tuned"]


def test_tuning_goes_on_where_it_stopped_and_skips_what_diverged(tmp_path, capsys):
    retest = Retest(make("lora-match", tmp_path))
    words = {"held_equal": "", "differs": "", "objection": ""}
    retest.predict({"reproduced": 0.3, "contradicted here": 0.1, "undecided": 0.6}, [0.0], "")
    retest.design({name: {"rates": [0.1, 0.2]} for name in METHODS}, [0], 1, 1, **words)
    with pytest.raises(LabkitError, match="no plain file seal.json"):
        retest.tried("full", 0.1, 1.0)
    retest.seal()
    retest.tried("full", 0.1, 2.0)
    retest.tried("full", 0.2, float("nan"))
    assert retest.untried() == [("lora-r16", 0.1), ("lora-r16", 0.2)]
    with pytest.raises(LabkitError, match="full at 0.1 is noted already"):
        retest.tried("full", 0.1, 0.1)
    assert retest.best() == {"lora-r16": None, "full": 0.1}
    assert "0.1: 2.000, 0.2: diverged" in capsys.readouterr().out


def others(folders):
    """{submission: what is said of others that say the same}."""
    return {result.submission: result.message for one in rubric.grade(folders)
            for result in one.results if result.exercise == twins.OTHERS}  # fmt: skip


def test_equal_submissions_are_named_to_both_and_lose_nothing(honest, tmp_path):
    copy = shutil.copytree(honest, tmp_path / "bob")
    own = build(tmp_path / "eve", flags={name: each[:, ::-1] for name, each in flags_of(
        list(course())[:ROWS]).items()})  # fmt: skip
    said = others({"ada": honest, "bob": copy, "eve": own})
    assert set(said) == {"ada", "bob"} and "the same seal as bob" in said["ada"]
    reseal(copy)
    assert "the same score in every row as ada" in others({"ada": honest, "bob": copy, "eve": own})["bob"]
    both = rubric.grade({"ada": honest, "bob": copy})
    assert [sum(one.points for one in graded.results) for graded in both] == [21, 21]


def test_zeros_in_all_rows_are_no_sign_of_a_copy(tmp_path):
    zeros = {name: np.zeros((3, ROWS), int) for name in METHODS}
    assert others({name: build(tmp_path / name, flags=zeros) for name in ("ada", "bob")}) == {}


def test_equal_submissions_get_a_row_for_a_person(honest, tmp_path):
    folder = tmp_path / "in"
    for name in ("ada", "bob"):
        shutil.copytree(honest, folder / name)
    grade(folder, "s", tmp_path / "grades.csv")
    rows = [row for row in marks(tmp_path) if row["criterion"] == twins.OTHERS]
    assert [(row["submission"], row["max_points"]) for row in rows] == [("ada", "0"), ("bob", "0")]
    assert "the same seal as bob" in rows[0]["remark"]
    assert "the same seal as ada" in (tmp_path / "feedback/bob.md").read_text()
    assert total(grade(folder, "s", tmp_path / "grades.csv")) == 42


def test_tokens_are_compared_within_a_seed_since_other_seeds_draw_other_rows(honest):
    def double(which):
        return lambda line: {**line, "tokens": 2 * line["tokens"]} if which(line) else line

    edit_lines(honest, double(lambda line: "tokens" in line and line["seed"] == 1))
    assert missed(judged(honest)) == {}
    edit_lines(honest, double(lambda line: line.get("method") == "full" and line["seed"] == 2))
    said = missed(judged(honest))
    assert list(said) == ["equal"] and said["equal"].endswith("seed 2 differ: lora-r16 61,002, full 122,004")


def test_a_wish_for_the_whole_claim_does_not_follow_either(tmp_path):
    other_claim_verdict(tmp_path / "ada")
    assert missed(judged(tmp_path / "ada"))["verdict"].endswith("make the claim undecided, not reproduced")


def test_a_verdict_that_follows_from_a_wrong_interval_costs_the_interval_alone(tmp_path):
    band = {"mean": 0.001, "low": -0.004, "high": 0.006, "verdict": "reproduced"}
    build(tmp_path / "ada", bands=[band], verdict="reproduced")
    assert list(missed(judged(tmp_path / "ada"))) == ["interval"]


def test_a_decided_result_needs_no_word_on_what_would_decide(tmp_path):
    rows = list(course())[:ROWS]
    build(tmp_path / "ada", flags=flags_of(rows, shift=0.5), would_decide={"rows": None, "seeds": None})
    assert judged(tmp_path / "ada")["verdict"].points == 2 and missed(judged(tmp_path / "ada")) == {}


def mistaken(found, flags, labels):
    """Intervals as people get them wrong, and the words that each deserves."""
    apart = (flags["lora-r16"] - flags["full"]).mean(axis=0)
    reach = 1.96 * apart.std() / len(apart) ** 0.5
    one, other = (stats.share(flags[name], labels) for name in METHODS)
    return {
        "not percent": (100 * found.mean, 100 * found.low, 100 * found.high),
        "first score minus the second": (-found.mean, -found.high, -found.low),
        "training seeds is missing": (found.mean, found.rows_low, found.rows_high),
        "draw whole phrasings": (found.mean, found.mean - reach, found.mean + reach),
        "pair the methods row by row": (found.mean, one.low - other.high, one.high - other.low),
    }


def test_known_mistakes_of_the_interval_are_named(tmp_path):
    rows = list(course())[:ROWS]
    rng = np.random.default_rng(3)
    labels = [course()[row] for row in rows]
    hard = {label: rng.random() for label in labels}  # whole phrasings are hard for one method alone
    flags = {name: np.array([[int(hard[label] < limit and rng.random() < rate) for label in labels]
                             for rate in rates])
             for name, limit, rates in (("lora-r16", 0.6, (0.99, 0.8, 0.95)),
                                        ("full", 0.9, (0.9, 0.95, 0.85)))}  # fmt: skip
    build(tmp_path / "ada", flags=flags)
    found = stats.gap(flags["lora-r16"], flags["full"], labels)
    for words, (mean, low, high) in mistaken(found, flags, labels).items():
        answer(tmp_path / "ada", flags, rows,
               bands=[{"mean": mean, "low": low, "high": high, "verdict": "undecided"}])  # fmt: skip
        assert words in missed(judged(tmp_path / "ada"))["interval"], words


def test_rows_of_the_courses_record_are_found_though_one_was_changed(tmp_path):
    the_record(tmp_path / "ada")
    said = missed(judged(tmp_path / "ada"))
    assert list(said) == ["own_rows"]
    assert "seed 1 agrees in 99.5% of the rows with the course's record of full, run 3" in said["own_rows"]
    assert "kappa 0.985, from 0.95 on" in said["own_rows"]
    assert "separate runs of the record reach 0." in said["own_rows"]


def test_separate_runs_of_the_course_are_not_taken_for_copies():
    whole = store.read("methods_tickets")
    scores = numbers.runs_of(whole)
    assert set(scores) == set(whole["values"]["methods"]) and set(whole["scores"]) - set(scores) >= {"lora"}
    runs = [stats.unpack_rows(text)[:ROWS] for score in scores.values() for text in score["rows"]]
    pairs = [(a, b) for at, a in enumerate(runs) for b in runs[at + 1 :]]
    assert not any(numbers.alike(a, b) for a, b in pairs)
    assert numbers.alike(runs[0], runs[0])


def as_bytes(folder, name, content):
    (folder / name).write_bytes(content)


def first_row(**changes):
    def change(line):
        return {**line, **changes} if line.get("row", "").endswith("00000") and line["seed"] == 0 else line

    return lambda folder: edit_lines(folder, change)


def link(folder):
    (folder / files.CONCLUSION).unlink()
    (folder / files.CONCLUSION).symlink_to("/etc/passwd")


def pipe(folder):
    (folder / files.DESIGN).unlink()
    os.mkfifo(folder / files.DESIGN)


def other_claim(folder):
    edit(folder, files.CLAIM, lambda data: data.update(
        claim="lora-dora", bands=ledger.bands()["lora-dora"]))  # fmt: skip


def backwards(folder):
    early = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    edit_lines(folder, lambda line: {**line, "started": early} if "started" in line else line)


# Each of these: what is done, a criterion that it costs, the words, and one that stands for the others.
HOSTILE = {
    "NaN as a mean": (lambda f: as_bytes(f, files.CONCLUSION, b'{"bands": [{"mean": NaN}]}'),
                      "interval", "NaN is no number", "sealed"),
    "infinity": (lambda f: edit_lines(f, lambda line: {**line, "lr": 1e999} if "lr" in line else line),
                 "tuned", "not readable JSON: Infinity is no number", "prediction"),
    "infinity by overflow": (lambda f: as_bytes(f, files.CONCLUSION, (
        f / files.CONCLUSION).read_bytes().replace(b'"mean": ', b'"mean": 1e999, "was": ')),
                             "interval", "mean must be a number", "adds_up"),
    "NaN as a score": (lambda f: as_bytes(f, files.RESULTS, (f / files.RESULTS).read_bytes().replace(
        b'"full": 1', b'"full": NaN', 1)), "interval", "NaN is no number", "prediction"),
    "a score of 2": (first_row(scores={"full": 2}), "interval", "a score is 0 or 1, not 2", "prediction"),
    "rows of one method only": (lambda f: edit_lines(f, lambda line: {**line, "scores": {"full": 1}}
                                                     if "row" in line else line),
                                "interval", "nothing to pair", "sealed"),
    "rows of the training split": (first_row(row="tickets-train-00001"), "same_rows",
                                   "'tickets-train-00001' is no row of the split", "prediction"),
    "a row twice": (first_row(row="tickets-test-00001"), "own_rows", "was scored before", "prediction"),
    "an unknown method": (first_row(scores={"gpt": 1}), "interval",
                          "compares lora-r16 and full, not 'gpt'", "prediction"),
    "a file of 17 MB": (lambda f: as_bytes(f, files.RESULTS, b" " * 17_000_000), "interval",
                        "larger than 16,777,216 bytes", "prediction"),
    "a line of a megabyte": (lambda f: as_bytes(f, files.RESULTS, b"[" * 1_000_000), "interval",
                             "line 1 is longer than 2000 bytes", "prediction"),
    "nesting": (lambda f: as_bytes(f, files.DESIGN, b'{"a":' + b"[" * 30_000), "as_planned",
                "design.json is not readable JSON", "interval"),
    "nesting that parses": (lambda f: as_bytes(f, files.DESIGN, b'{"seeds":' + b"[" * 200 + b"]" * 200
                                               + b"}"), "as_planned", "nested too deeply", "interval"),
    "a number of 50,000 digits": (lambda f: as_bytes(f, files.PREDICTION, b'{"why": ' + b"9" * 50_000 + b"}"),
                                  "prediction", "prediction.json is not readable JSON", "interval"),
    "a name twice": (lambda f: as_bytes(f, files.CONCLUSION, b'{"verdict": "reproduced", "verdict": ""}'),
                     "verdict", "a name stands twice", "sealed"),
    "no text": (lambda f: as_bytes(f, files.CONCLUSION, b"\xff\xfe\x00"), "verdict",
                "conclusion.json is not readable JSON", "sealed"),
    "a list": (lambda f: as_bytes(f, files.PREDICTION, b"[1]"), "prediction", "not a JSON object",
               "interval"),
    "a link": (link, "verdict", "no plain file conclusion.json", "sealed"),
    "a pipe": (pipe, "as_planned", "no plain file design.json", "interval"),
    "no seal": (lambda f: (f / files.SEAL).unlink(), "sealed", "no plain file seal.json", "interval"),
    "results before the seal": (backwards, "sealed", "the seal is of", "interval"),
    "a seal with an earlier time": (lambda f: edit(f, files.SEAL, lambda data: data.update(
        sealed="2020-01-01T00:00:00+00:00")), "sealed", "was changed after it was written", "interval"),
    "the seal of other results": (lambda f: edit_lines(f, lambda line: {**line, "seal": "0" * 16}
                                                       if "seal" in line else line),
                                  "sealed", "names another seal", "interval"),
    "another claim": (other_claim, "interval", "compares dora-r16 and lora-r16, not 'full'", "prediction"),
    "wider bands": (lambda f: edit(f, files.CLAIM, lambda data: data.update(bands="0")), "verdict",
                    "not those of the ledger", "fair"),
    "a claim that is no claim": (lambda f: edit(f, files.CLAIM, lambda data: data.update(claim=[1])),
                                 "verdict", "names no claim of this exercise", "fair"),
    "too few bands": (lambda f: edit(f, files.CONCLUSION, lambda data: data.update(bands=[])), "interval",
                      "must be a list of 1", "sealed"),
    "a mean outside its interval": (lambda f: edit(f, files.CONCLUSION, lambda data: data["bands"][0].update(
        mean=3)), "verdict", "the mean lies outside its interval", "sealed"),
    "probabilities above 1": (lambda f: edit(f, files.PREDICTION, lambda data: data["probabilities"].update(
        undecided=1.5, reproduced=-0.6)), "prediction", "must be a number from 0 to 1", "interval"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_broken_or_hostile_submission_gets_words_and_no_point_it_did_not_earn(what, honest):
    attack, costs, words, _ = HOSTILE[what]
    attack(honest)
    (graded,) = rubric.grade({"ada": honest})
    results = {one.exercise.removeprefix("claim."): one for one in graded.results}
    assert results[costs].points == 0 and words in results[costs].message
    assert "could not be checked" not in " ".join(one.message for one in graded.results)  # all was foreseen
    page = pages.page(graded)
    assert "## For a person" in page and page.count("☐") == 2 * len(PERSON)


@pytest.mark.parametrize("what", [what for what, case in HOSTILE.items() if case[3] in PROGRAM])
def test_what_is_broken_costs_no_more_than_what_needs_it(what, honest):
    HOSTILE[what][0](honest)
    assert judged(honest)[HOSTILE[what][3]].points


def marks(folder):
    with (folder / "grades.claims.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def give(folder, points, remark="", delimiter=","):
    """Fill the CSV in, as a spreadsheet would save it."""
    rows = marks(folder)
    for row, value in zip(rows, points, strict=True):
        row.update(points=value, remark=remark)
    with (folder / "grades.claims.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def total(results):
    return sum(one.points for one in results)


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_what_a_person_gives_is_read_from_the_csv_and_added(honest, tmp_path, delimiter, capsys):
    out = tmp_path / "out"
    assert total(grade(honest, "s", out / "grades.csv")) == 21
    assert [(row["criterion"], row["points"], row["max_points"]) for row in marks(out)] == [
        ("claim.fair", "", "4"), ("claim.reasoned", "", "2"), ("claim.worded", "", "3")]  # fmt: skip
    page = (out / "feedback/ada.md").read_text()
    assert "**21 of 30 points; 9 wait for a person**" in page and "> why: Rank 16 holds" in page
    shares = ", ".join(f"{share:.3f}" for share in flags_of(list(course())[:ROWS])["full"].mean(axis=1))
    assert f"| full | 0.001: 0.700, 0.003: 0.500 | 0.003 | {shares} |" in page
    assert f"3 criteria wait for a person: fill in {out / 'grades.claims.csv'}" in capsys.readouterr().err
    give(out, ["4", "", "1"], "wider than the evidence", delimiter)
    assert total(grade(honest, "s", out / "grades.csv")) == 26
    page = (out / "feedback/ada.md").read_text()
    assert "**26 of 30 points; 2 wait for a person**" in page
    assert "| 1 of 3 | wider than the evidence |" in page
    assert "claim.fair,4,4" in (out / "grades.csv").read_text()


def test_points_are_for_one_version_of_a_submission(honest, tmp_path):
    grade(honest, "s", tmp_path / "grades.csv")
    give(tmp_path, ["4", "2", "3"])
    edit(honest, files.CONCLUSION, lambda data: data.update(words="LoRA is always better."))
    assert total(grade(honest, "s", tmp_path / "grades.csv")) == 21
    assert [row["points"] for row in marks(tmp_path)] == ["4", "2", "3", "", "", ""]  # none is thrown away


@pytest.mark.parametrize("points", ["5", "-1", "many", "1.5"])
def test_points_that_cannot_be_are_refused_by_name(honest, tmp_path, points):
    grade(honest, "s", tmp_path / "grades.csv")
    give(tmp_path, [points, "", ""])
    with pytest.raises(LabkitError, match="ada, claim.fair: points are .* from 0 to 4"):
        grade(honest, "s", tmp_path / "grades.csv")


def test_a_table_of_something_else_is_refused(honest, tmp_path):
    (tmp_path / "grades.claims.csv").write_text("name,mark\nada,1\n")
    with pytest.raises(LabkitError, match="no list of points for claims: it wants the columns submission"):
        grade(honest, "s", tmp_path / "grades.csv")


def test_the_course_of_a_learner_and_an_instructor_by_commands_alone(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "in/ada/retest"
    assert command_line.main(["exercises", "claim", "--id", "lora-match", "--out", str(folder)]) == 0
    assert command_line.main(["exercises", "seal", str(folder)]) == 1
    assert "no plain file prediction.json" in capsys.readouterr().err
    report = tmp_path / "grades.csv"
    assert command_line.main(["grade", str(tmp_path / "in"), "--seed", "s", "--report", str(report)]) == 0
    assert "ada/retest" in capsys.readouterr().out
    rows = list(csv.DictReader(report.open(newline="")))
    assert {row["submission"] for row in rows} == {"ada/retest"}  # its notebook is none of a lesson
    assert [row["exercise"] for row in rows] == [f"claim.{name}" for name in PROGRAM + PERSON]
    assert {row["points"] for row in rows} == {"0"}


def test_sealing_comes_between_the_prediction_and_the_results(tmp_path):
    retest = Retest(make("lora-match", tmp_path))
    retest.predict({"reproduced": None, "contradicted here": 0.5, "undecided": 0.5}, [0.0], "")
    with pytest.raises(LabkitError, match="of reproduced must be a number from 0 to 1, not empty"):
        seal(tmp_path)
    retest.predict({"reproduced": 0.0, "contradicted here": 0.5, "undecided": 0.5}, [0.0], "")
    with pytest.raises(LabkitError, match="no plain file design.json"):
        seal(tmp_path)
    rates = {name: {"rates": [0.1]} for name in METHODS}
    words = {"held_equal": "", "differs": "", "objection": ""}
    retest.design(methods={"full": rates["full"]}, seeds=[0], steps=1, rows=1, **words)
    with pytest.raises(LabkitError, match="not sealed yet: the design has the methods full"):
        seal(tmp_path)
    retest.design(methods=rates, seeds=[0], steps=1, rows=1, **words)
    with pytest.raises(LabkitError, match="no plain file seal.json"):
        retest.left([0])
    assert seal(tmp_path) == json.loads((tmp_path / files.SEAL).read_text())["seal"]
    with pytest.raises(LabkitError, match="sealed: a change now would show"):
        retest.predict({}, [], "")
    with pytest.raises(LabkitError, match="delete it to seal anew"):
        seal(tmp_path)
    assert retest.left([0, 1]) == [0, 1]


def test_results_are_added_a_seed_at_a_time_and_never_twice(honest):
    retest = Retest(honest)
    assert retest.left([0, 2, 5]) == [5]
    before = (honest / files.RESULTS).read_text()
    with pytest.raises(LabkitError, match="has seed 0 already"):
        retest.add(0, [], {}, {})
    with pytest.raises(LabkitError, match="full: 1 flags for 2 rows"):
        retest.add(5, list(course())[:2], {"full": [1]}, {})
    assert (honest / files.RESULTS).read_text() == before
    (honest / files.SEAL).unlink()
    with pytest.raises(LabkitError, match="seal before anything is run"):
        seal(honest)


@pytest.mark.parametrize("claim_id", rubric.read().claims)
def test_every_claim_of_the_rubric_has_a_notebook_that_can_be_run(claim_id, tmp_path):
    folder = make(claim_id, tmp_path / "one")
    notebook = json.loads((folder / "claim.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) == 10
    for source in cells:
        compile(source, "cell", "exec")
    assert all(line == line.rstrip() and len(line) < 120 for source in cells for line in source.splitlines())
    assert Retest(folder).claim["id"] == claim_id
    again = make(claim_id, tmp_path / "two")
    assert (again / "claim.ipynb").read_bytes() == (folder / "claim.ipynb").read_bytes()
    with pytest.raises(LabkitError, match="holds a re-test already"):
        make(claim_id, folder)


def test_the_notebooks_own_cells_predict_and_seal(tmp_path, monkeypatch, capsys):
    folder = make("lora-sensitive", tmp_path / "one")  # four methods, two bands
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    notebook, names = json.loads((folder / "claim.ipynb").read_text()), {}
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    exec(cells[0], names)
    exec(cells[1].replace('": None', '": 1/3').replace("[None, None]", "[0.03, 0.0]"), names)
    exec(cells[2], names)
    exec(cells[3], names)
    assert "send this to your instructor" in capsys.readouterr().out
    assert set(json.loads((folder / files.DESIGN).read_text())["methods"]) == {
        "lora-r16", "lora-r1", "lora-r256", "lora-r64"}  # fmt: skip


@pytest.mark.parametrize("old, new, words", [
    ('id = "sealed"', 'id = "sealedd"', "no check is called sealedd"),
    ('"lora-match"', '"hp-lr"', "hp-lr has no bands over rows"),
    ('"lora-match"', '"lora-mtch"', "'lora-mtch' is no claim"),
    ("points = 3", "points = 0", "points a whole number"),
    ('id = "fair"', 'id = "worded"', "two criteria have one id"),
    ('by = "person"', "by = ", "is no rubric"),
])  # fmt: skip
def test_a_damaged_rubric_is_refused(tmp_path, old, new, words):
    path = tmp_path / "rubric.toml"
    text = rubric.RUBRIC.read_text().replace(old, new, 1)
    path.write_text(text)
    with pytest.raises(LabkitError, match=words):
        rubric.read(path)
