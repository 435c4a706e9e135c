"""The ledger: every verdict from synthetic records, what would decide, live beside recorded, moved bands."""

import json
import re

import numpy as np
import pytest

import labkit.tasks
from labkit.errors import LabkitError
from labkit.paths import MEASUREMENTS
from labkit.records import judge, ledger, stats, store, tables

NAMES = [f"phrasing-{number // 10}" for number in range(2000)]
YES, NO, OPEN = "reproduced", "contradicted here", "undecided"


@pytest.fixture
def course(tmp_path, monkeypatch):
    """`state(claim, ...)` writes the ledger; `measure(scores, values)` a record `one` of it."""
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    monkeypatch.setattr(ledger, "LEDGER", tmp_path / "claims.json")
    splits = {"test": {"phrasing": NAMES}, "validation": {"phrasing": NAMES}}
    monkeypatch.setattr(labkit.tasks, "load", lambda task: splits)
    return Course()


class Course:
    def state(self, *claims):
        """Write a ledger; what a claim leaves out is filled in."""
        usual = {"id": "one", "lesson": "05", "kind": "measured", "claim": "It works", "measure": "rows",
                 "record": "one", "bands": [], "beside": []}  # fmt: skip
        ledger.LEDGER.write_text(json.dumps({"claims": [usual | claim for claim in claims]}))

    def measure(self, scores=None, values=None, split="test", claims=None):
        """Write the record `one`; `scores` are flags (seeds, rows) by name, `claims` digests of bands."""
        packed = {
            name: {"task": "tickets", "split": split, "rows": [stats.pack_rows(row) for row in flags]}
            for name, flags in (scores or {}).items()
        }
        store.write("one", "gpu", seed=0, seconds=1, peak_bytes=1, digest={}, scores=packed, values=values,
                    claims=ledger.digests("one") if claims is None else claims)  # fmt: skip


def rows(share, seeds=3, count=2000, shift=(0, 0, 0)):
    """Flags of `seeds` runs: rows with the same difficulty in all; `shift` moves single seeds."""
    dice = np.random.default_rng(0).random(count)
    noise = np.random.default_rng(1).random((seeds, count)) < 0.02
    return (dice < share + np.resize(shift, (seeds, 1))) ^ noise


def text(lesson="05", live=None):
    return "\n".join(ledger.table(lesson, live))


# ---- one band


@pytest.mark.parametrize("band, low, high, said", [
    ({"at_least": 0.9}, 0.92, 0.95, YES),
    ({"at_least": 0.9}, 0.90, 0.95, YES),
    ({"at_least": 0.9}, 0.80, 0.85, NO),
    ({"at_least": 0.9}, 0.85, 0.95, OPEN),
    ({"at_least": 0.9}, 0.85, 0.90, OPEN),
    ({"above": 0.9}, 0.90, 0.95, OPEN),
    ({"above": 0.9}, 0.85, 0.90, NO),
    ({"above": 0.9}, 0.91, np.inf, YES),
    ({"at_most": 0.5}, 0.30, 0.45, YES),
    ({"at_most": 0.5}, 0.55, 0.60, NO),
    ({"at_most": 0.5}, 0.45, 0.55, OPEN),
    ({"below": 0.5}, 0.45, 0.50, OPEN),
    ({"below": 0.5}, 0.50, 0.55, NO),
    ({"below": 0.5}, -np.inf, 0.49, YES),
    ({"at_least": 0.4, "at_most": 0.6}, 0.45, 0.55, YES),
    ({"at_least": 0.4, "at_most": 0.6}, 0.65, 0.70, NO),
    ({"at_least": 0.4, "at_most": 0.6}, 0.20, 0.30, NO),
    ({"at_least": 0.4, "at_most": 0.6}, 0.35, 0.65, OPEN),
    ({"at_least": 0.4, "at_most": 0.6}, -np.inf, np.inf, OPEN),
])  # fmt: skip
def test_an_interval_is_inside_a_band_outside_it_or_across_its_edge(band, low, high, said):
    assert ledger.verdict(band, low, high) == said


def test_a_claim_stands_only_if_all_its_bands_do():
    assert ledger.overall([YES, YES]) == YES
    assert ledger.overall([YES, OPEN]) == OPEN
    assert ledger.overall([YES, OPEN, judge.MISSING]) == judge.MISSING
    assert ledger.overall([OPEN, NO, YES, judge.MISSING]) == NO
    assert ledger.overall([]) == "measured"


@pytest.mark.parametrize("band, said", [
    ({"score": "a", "at_least": 0.7}, YES),
    ({"score": "a", "at_least": 0.9}, NO),
    ({"score": "a", "at_least": 0.8}, OPEN),
    ({"gap": ["a", "b"], "above": 0.05}, YES),
    ({"gap": ["a", "b"], "at_least": -0.01, "at_most": 0.01}, NO),
    ({"gap": ["b", "a"], "below": 0}, YES),
    ({"gap": ["a", "b"], "at_least": 0.1}, OPEN),
    ({"ratio": ["b", "a"], "at_least": 0.8}, YES),
    ({"ratio": ["b", "a"], "at_least": 0.95}, NO),
    ({"ratio": ["b", "a"], "at_least": 0.875}, OPEN),
    ({"value": "peak.full", "unit": "GB", "at_least": 50e9, "at_most": 62e9}, YES),
    ({"value": "peak.full", "unit": "GB", "at_most": 16e9}, NO),
    ({"value": "loss", "below": 0}, YES),
    ({"value": "loss", "above": 0}, NO),
    ({"value": "loss", "below": -0.2}, OPEN),
])  # fmt: skip
def test_shares_gaps_ratios_and_values_are_judged_against_their_bands(course, band, said):
    course.state({"bands": [{"says": "what", **band}]})
    course.measure(
        {"a": rows(0.8), "b": rows(0.7)}, {"peak": {"full": 57.25e9}, "loss": [-0.20, -0.25, -0.18]}
    )
    out = text()
    assert f"{ledger.band_text(band)}" in out and f"  {said}; recorded on " in out
    assert re.search(rf"\b{said}\b(?!;)", out)


def test_the_table_shows_value_interval_band_rows_seeds_and_machine(course, capsys):
    course.state(
        {"bands": [{"says": "LoRA minus full", "gap": ["a", "b"], "at_least": -0.01, "at_most": 0.01}]}
    )
    course.measure({"a": rows(0.8), "b": rows(0.7)})
    ledger.claims("05")
    out = capsys.readouterr().out
    machine = store.read("one")["machine"]["device"]
    assert out.startswith("one: It works\n  LoRA minus full\n")
    assert re.search(
        r"\+9\.\d\d points  \[\+\d\.\d\d, \+1\d\.\d\d\] +-1 to \+1 points +contradicted here", out
    )
    assert "2,000 rows, 3 seeds +" in out
    assert out.endswith(
        f"  contradicted here; recorded on {machine}; 95% intervals over phrasings and seeds\n"
    )
    assert text() == text()


@pytest.mark.parametrize("bands, over", [
    ([{"score": "a"}], " over phrasings and seeds"),
    ([{"score": "once"}], " over phrasings"),
    ([{"value": "speed", "of": "repeats"}], " over repeats"),
    ([{"value": "speed"}], " over seeds"),
    ([{"value": "speed", "of": "repeats"}, {"value": "speed"}], " over repeats and seeds"),
    ([{"value": "speed"}, {"score": "once"}], " over phrasings and seeds"),
    ([{"value": "bits"}, {"value": "missing"}], ""),
])  # fmt: skip
def test_the_last_line_names_what_the_intervals_are_over(course, bands, over):
    course.state({"beside": [{"says": "what", **band} for band in bands]})
    course.measure({"a": rows(0.8), "once": rows(0.8, seeds=1)}, {"speed": [1.0, 1.1, 1.2], "bits": 4.5})
    machine = store.read("one")["machine"]["device"]
    assert text().endswith(f"  measured; recorded on {machine}" + (f"; 95% intervals{over}" if over else ""))


def test_values_are_shown_in_the_unit_of_their_band(course):
    beside = [
        {"says": "memory", "value": "peak", "unit": "GiB"},
        {"says": "error", "value": "error", "unit": "%"},
        {"says": "speed", "value": "speed", "unit": "times", "of": "repeats"},
    ]
    course.state({"beside": beside})
    course.measure(values={"peak": 6.25 * 2**30, "error": 0.0123, "speed": [1.0, 1.1, 1.2]})
    out = text()
    assert "6.25 GiB  one number" in out and "1.2%  one number" in out
    assert "1.1×  [0.8516, 1.348]" in out and "3 repeats 1 to 1.2" in out
    assert "  measured; recorded on" in out


def test_lines_fit_110_characters(course):
    long = "a claim that goes on and on " * 6
    band = {"says": long, "gap": ["a", "b"], "at_least": -0.0125, "at_most": 0.0125}
    shown = {"id": "two", "kind": "arithmetic", "record": None, "shown": long}
    course.state({"claim": long, "reproduced_if": long, "bands": [band]}, shown)
    course.measure({"a": rows(0.8), "b": rows(0.79, shift=(0.01, 0, -0.01))})
    live = {"one": {"scores": {"a": rows(0.8), "b": rows(0.79)}, "phrasing": NAMES}}
    assert max(map(len, ledger.table("05", live))) <= 110
    assert ledger.table("05", live) == ledger.table("05", live)


# ---- what would decide


def test_undecided_says_how_many_rows_would_decide_and_that_many_do(course):
    def said(count):
        flags = rows(0.8, seeds=1, count=count)
        found = stats.share(flags, np.arange(count) // 10)
        return judge.judged({"score": "a", "at_least": 0.765}, found)

    verdict, why = said(400)
    assert verdict == OPEN
    phrasings, wanted = (
        int(number.replace(",", "")) for number in re.findall(r"([\d,]+) (?:phrasings|rows)", why)
    )
    assert why.endswith("would decide; here 40") and wanted == pytest.approx(10 * phrasings, rel=0.1)
    found = stats.Estimate(0.785, 0.77, 0.80, (0.785,), 0.77, 0.80, 0.0, 400, 40)
    assert judge.enough({"at_least": 0.78}, found) == (pytest.approx(9.0), 1)
    assert judge.enough({"at_least": 0.80}, found) == (pytest.approx(1.0), 1)
    # An estimate from one sample, so with a wide margin: eight times as many decide, an eighth does not.
    assert said(8 * wanted)[0] == YES and said(wanted // 8)[0] == OPEN


def test_undecided_by_few_seeds_asks_for_seeds(course):
    found = stats.of_values([0.010, 0.020, 0.045])
    verdict, why = judge.judged({"value": "x", "above": 0}, found)
    times, seeds = judge.enough({"above": 0}, found)
    assert verdict == OPEN and why == f"if the mean stayed, about {seeds} seeds would decide; here 3"
    spread = np.std(found.each, ddof=1)
    assert stats.student(seeds - 1) * spread / seeds**0.5 < found.mean
    assert stats.student(seeds - 2) * spread / (seeds - 1) ** 0.5 >= found.mean
    assert times == 1


def test_undecided_by_both_asks_for_both():
    found = stats.Estimate(0.02, -0.02, 0.06, (0, 0.02, 0.04), -0.01, 0.05, 0.03, 1000, 100)
    times, seeds = judge.enough({"above": 0}, found)
    reach = stats.student(seeds - 1) * (0.03 * 3**0.5 / stats.student(2)) / seeds**0.5
    assert times > 1 and seeds > 3 and np.hypot(0.03 / times**0.5, reach) <= 0.02
    why = judge.judged({"score": "a", "above": 0}, found)[1]
    wanted = r"[\d,]+ phrasings \([\d,]+ rows\) and \d+ seeds"
    assert re.fullmatch(f"if the mean stayed, about {wanted} would decide; here 100 and 3", why)


@pytest.mark.parametrize("each, reach", [((0.8,), 0.0), ((0.7, 0.8, 0.9), 0.2)])
def test_on_the_edge_no_number_of_rows_is_likely_to_decide(each, reach):
    found = stats.Estimate(0.8, 0.7, 0.9, each, 0.7, 0.9, reach, 1000, 100)
    for edge in (0.8, 0.8005, 0.7995):
        verdict, why = judge.judged({"score": "a", "at_least": edge}, found)
        assert verdict == OPEN and "lies on the band's edge or near it: even 100 times the phrasings" in why
    assert "edge" not in judge.judged({"score": "a", "at_least": 0.72}, found)[1]


def test_fewer_seeds_or_phrasings_than_asked_for_are_undecided(course):
    band = {"says": "share", "score": "a", "at_least": 0.5, "seeds": 3}
    course.state({"bands": [band]})
    course.measure({"a": rows(0.9, seeds=1)})
    assert "1 seed; the band asks for at least 3" in text() and f"  {OPEN}; recorded" in text()
    course.measure({"a": rows(0.9)})
    assert f"  {YES}; recorded" in text()
    course.measure({"a": rows(0.9)[:, :40]})
    assert "4 phrasings; an interval wants at least 10" in text() and f"  {OPEN}; recorded" in text()


SIDES = {"a": 0.9, "b": 0.7}
GAP, RATIO = {"gap": ["a", "b"], "above": 0.1}, {"ratio": ["a", "b"], "above": 1.1}


@pytest.mark.parametrize("seeds, band, short", [
    ({"a": 3, "b": 3}, GAP, 0),
    ({"a": 3, "b": 1}, GAP, 1),
    ({"a": 1, "b": 3}, GAP, 1),
    ({"a": 3, "b": 1}, RATIO, 1),
    ({"a": 2, "b": 2}, GAP, 2),
    ({"a": 3, "b": 1}, GAP | {"fixed": ["b"]}, 0),
    ({"a": 3, "b": 1}, RATIO | {"fixed": ["b"]}, 0),
    ({"a": 1, "b": 3}, GAP | {"fixed": ["a"]}, 0),
    ({"a": 3, "b": 1}, GAP | {"fixed": ["a"]}, 1),  # the wrong side
    ({"a": 1, "b": 1}, GAP | {"fixed": ["b"]}, 1),
    ({"a": 1, "b": 1}, GAP | {"fixed": ["a", "b"]}, 1),
    ({"a": 1}, {"score": "a", "above": 0.8}, 1),
    ({"a": 3}, {"score": "a", "above": 0.8}, 0),
])  # fmt: skip
def test_each_side_that_training_seeds_touch_needs_as_many_as_asked_for(course, seeds, band, short):
    course.state({"bands": [{"says": "what", "seeds": 3, **band}]})
    scores = {name: rows(SIDES[name], seeds=count) for name, count in seeds.items()}
    course.measure(scores)
    out = text()
    assert f"  {OPEN if short else YES}; recorded on" in out
    assert ("the band asks for at least 3" in out) is bool(short)
    if short:
        assert f"{short} seed{'s' if short > 1 else ''}; the band asks" in out
    course.state({"bands": [{"says": "what", **band}]})  # which asks for none
    course.measure(scores)
    assert f"  {YES}; recorded on" in text()
    if seeds.get("b") == 1:  # live, one list of flags is one seed too
        live = {"scores": {"a": scores["a"], "b": scores["b"][0]}, "phrasing": NAMES}
        assert judge.estimate(band, judge.Live(live)) == judge.estimate(
            band, judge.Recorded(store.read("one"))
        )


def test_an_estimate_knows_the_seeds_of_its_poorer_side(course):
    course.measure({"a": rows(0.9), "b": rows(0.7, seeds=1)}, {"loss": [1, 2]}, claims={})
    source = judge.Recorded(store.read("one"))
    fewest = {str(fixed): judge.estimate(GAP | {"fixed": fixed}, source).fewest
              for fixed in ([], ["a"], ["b"], ["a", "b"])}  # fmt: skip
    assert fewest == {"[]": 1, "['a']": 1, "['b']": 3, "['a', 'b']": 0}
    assert judge.estimate({"value": "loss"}, source).fewest == 0
    assert len(judge.estimate(GAP, source).each) == 3


def test_a_value_that_a_diverged_seed_lacks_is_undecided(course):
    course.state({"bands": [{"says": "loss", "value": "loss", "below": 5}]})
    course.measure(values={"loss": [1.0, 1.1, None]})
    assert "a seed has no number: its training diverged" in text() and f"  {OPEN}; recorded" in text()
    course.measure(values={"loss": [1.0, 1.1, 1.2]})
    assert f"  {YES}; recorded" in text()


# ---- other kinds, and what was not measured


@pytest.mark.parametrize("kind", ["arithmetic", "source wrong", "not testable here"])
def test_claims_that_no_measurement_decides_show_what_does(course, kind):
    course.state({"kind": kind, "record": None, "shown": "4 x 1000 = 4,000"})
    assert ledger.table("05") == ["one: It works", f"  {kind}: 4 x 1000 = 4,000"]


def test_a_claim_not_testable_here_still_shows_what_was_measured_beside(course):
    beside = [{"says": "added biases minus full", "gap": ["a", "b"]}]
    course.state({"kind": "not testable here", "shown": "no biases", "beside": beside})
    assert "not measured yet" not in text()
    course.measure({"a": rows(0.7), "b": rows(0.8)})
    assert "added biases minus full" in text() and "  not testable here; recorded on" in text()
    assert YES not in text() and NO not in text()


def test_a_claim_that_was_not_measured_says_so(course):
    band = {"says": "share", "score": "a", "at_least": 0.5}
    course.state({"bands": [band]}, {"id": "two", "record": None, "bands": [band], "reproduced_if": "both"})
    assert ledger.table("05") == ["one: It works", "  not measured yet",
                                  "two: It works", "  reproduced if: both", "  not measured yet"]  # fmt: skip


def test_a_record_that_lacks_some_scores_of_a_claim_leaves_it_open(course):
    course.state(
        {
            "bands": [
                {"says": "one", "score": "a", "at_least": 0.5},
                {"says": "two", "gap": ["a", "later"], "above": 0},
            ]
        }
    )
    course.measure({"a": rows(0.9)})
    assert "  not measured yet; recorded on" in text() and YES in text() and "two" not in text()
    course.measure({"other": rows(0.9)})  # and one that has none of them names no machine
    assert text().endswith("\n  not measured yet")
    assert tables.fill("claims", None).splitlines()[-1].endswith("| not measured yet |")


def test_scores_of_different_rows_are_not_paired(course):
    course.state({"bands": [{"says": "gap", "gap": ["a", "b"], "above": 0}]})
    course.measure({"a": rows(0.9), "b": rows(0.8)[:, :1000]})
    assert "1,000 rows" in text()  # the first rows, which both have
    whole = store.read("one")
    whole["scores"]["b"]["split"] = "validation"
    store.path_of("one").write_text(json.dumps(whole))
    with pytest.raises(LabkitError, match="a and b of one are of different tasks or splits"):
        text()
    course.measure({"a": rows(0.9), "b": rows(0.8, seeds=2)})
    with pytest.raises(LabkitError, match="a and b: cannot pair"):
        text()


def test_a_ratio_to_nothing_is_undecided(course):
    course.state({"bands": [{"says": "ratio", "ratio": ["a", "b"], "at_least": 1}]})
    course.measure({"a": rows(0.9), "b": np.zeros((3, 2000))})
    assert "the second score is 0" in text() and f"  {OPEN}; recorded" in text()


def test_a_claim_of_two_lessons_is_shown_in_both_and_an_unknown_lesson_refused(course):
    course.state({"lesson": "01, 06", "record": None})
    assert text("01") == text("06")
    for lesson in ("77", "0", "1, 06"):
        with pytest.raises(LabkitError, match=f"no claim of lesson {lesson}"):
            text(lesson)


# ---- live


def test_live_results_are_judged_by_the_same_code_beside_the_recorded_ones(course):
    course.state(
        {
            "bands": [
                {"says": "gap", "gap": ["a", "b"], "above": 0.05},
                {"says": "loss", "value": "loss", "below": 0},
            ]
        }
    )
    given = {"scores": {"a": rows(0.8).tolist(), "b": rows(0.7)}, "phrasing": NAMES, "values": {"loss": -1.0}}
    assert "not measured yet" in text(live={"one": given}) and f"  {YES}; live, on this machine" in text(
        live={"one": given}
    )
    course.measure({"a": rows(0.8), "b": rows(0.7)}, {"loss": -1.0})
    recorded, live = (
        re.findall(rf"^    {name} +(.*)$", text(live={"one": given}), re.M) for name in ("recorded", "live")
    )
    assert len(live) == 2 and recorded == live
    worse = {**given, "scores": {"a": rows(0.7)[0], "b": rows(0.8)[0]}}
    out = text(live={"one": worse})
    assert f"  {YES}; recorded on" in out and f"  {NO}; live, on this machine" in out
    assert "live" not in text()


def test_what_a_live_run_did_not_measure_says_so(course):
    course.state({"bands": [{"says": "gap", "gap": ["a", "b"], "above": 0.05}]})
    course.measure({"a": rows(0.8), "b": rows(0.7)})
    out = text(live={"one": {"scores": {"a": rows(0.8)}, "phrasing": NAMES}})
    assert "    live     not measured yet" in out and "  not measured yet; live, on this machine" in out


@pytest.mark.parametrize("live, words", [
    ({"two": {}}, "lesson 05 has no claim 'two' to judge live; it has one"),
    ({"one": {"score": {}}}, "not score"),
    ({"one": {"scores": {"a": [True], "b": [True]}}}, 'want "phrasing"'),
    ({"one": {"scores": {"a": [True], "b": [True]}, "phrasing": ["x", "y"]}}, "'a': 1 rows, but 2 phrasings"),
])  # fmt: skip
def test_live_results_that_cannot_be_judged_are_refused(course, live, words):
    course.state({"bands": [{"says": "gap", "gap": ["a", "b"], "above": 0}], "record": None})
    with pytest.raises(LabkitError, match=words):
        text(live=live)


def test_a_band_that_names_nothing_or_two_things_is_refused(course):
    for band in ({"at_least": 0}, {"score": "a", "value": "b", "at_least": 0}):
        course.state({"bands": [{"says": "what", **band}]})
        course.measure({"a": rows(0.8)})
        with pytest.raises(LabkitError, match="a band names one of"):
            text()


# ---- moved bands

BANDS = (
    {"says": "share", "score": "a", "at_least": 0.5},
    {"says": "gap", "gap": ["a", "b"], "at_least": -0.01, "at_most": 0.01},
    {"says": "ratio", "ratio": ["a", "b"], "above": 0.95, "seeds": 3, "fixed": ["b"]},
    {"says": "value", "value": "loss", "below": 0, "unit": "nats"},
)


@pytest.mark.parametrize("change", [
    {"at_least": 0.4}, {"at_most": 0.02}, {"above": 0.9}, {"below": 1}, {"seeds": 1}, {"unit": "%"},
    {"value": "easier.loss"}, {"gap": ["a", "c"]}, {"fixed": ["a", "b"]},
])  # fmt: skip
def test_moving_a_band_after_recording_is_refused(course, change):
    band = next(band for band in BANDS if set(change) <= set(band))
    course.state({"bands": [band]})
    course.measure({"a": rows(0.8), "b": rows(0.7)}, {"loss": [-1, -2, -3]})
    assert "recorded on" in text()
    course.state({"bands": [band | change]})
    with pytest.raises(LabkitError, match="band of one changed after one was recorded.*Put it back"):
        text()


@pytest.mark.parametrize("before, after", [("both", "either"), (None, "either"), ("both", None)])
def test_rewording_the_condition_after_recording_is_refused(course, before, after):
    def words(condition):
        return {"bands": [BANDS[0]]} | ({"reproduced_if": condition} if condition else {})

    course.state(words(before))
    course.measure({"a": rows(0.8)})
    course.state(words(before) | {"claim": "other words", "measure": "more words", "beside": [BANDS[1]]})
    assert "recorded on" in text()  # what may change
    course.state(words(after))
    with pytest.raises(LabkitError, match="band of one changed"):
        text()


def test_bands_are_those_of_all_claims_and_digests_of_those_that_read_a_record(course):
    first, other = {"bands": [BANDS[0]]}, {"id": "two", "record": "other", "bands": [BANDS[1]]}
    course.state(first, other, {"id": "three", "record": None})
    found = ledger.bands()
    assert set(found) == {"one", "two", "three"} and len(set(found.values())) == 3
    assert ledger.digests("one") == {"one": found["one"]}
    course.state(first | {"bands": [BANDS[0] | {"at_least": 0.1}]}, other)
    assert ledger.bands()["two"] == found["two"] and ledger.bands()["one"] != found["one"]


def under(**bands):
    return {"bands": bands, "seconds": 1.0}


@pytest.mark.parametrize("results, stamped", [
    ([], {}),
    ([under(c="1", d="2")], {"c": "1", "d": "2"}),
    ([under(c="1", d="2"), under(d="2", c="1")], {"c": "1", "d": "2"}),
    ([under(c="1", d="2"), under(c="1", d="3")], {"c": "1", "d": ledger.MOVED}),
    ([under(c="1"), under(c="2"), under(c="1")], {"c": ledger.MOVED}),
    ([under(c="1"), under(c="1", late="2")], {"c": "1"}),
    ([under(c="1", gone="2"), under(c="1")], {"c": "1"}),
    ([under(), under(c="1")], {}),
])  # fmt: skip
def test_a_record_is_stamped_with_the_bands_that_all_its_results_were_measured_under(results, stamped):
    assert ledger.stamp(results) == stamped


@pytest.mark.parametrize("stamped, before, merged", [
    ({"c": "1", "d": "2"}, None, {"c": "1", "d": "2"}),
    ({"c": "1", "late": "2"}, {"c": "1"}, {"c": "1"}),
    ({"c": "1"}, {"c": "1", "gone": "2"}, {"c": "1"}),
    ({"c": "2"}, {"c": "1"}, {"c": ledger.MOVED}),
    ({"c": ledger.MOVED}, {"c": "1"}, {"c": ledger.MOVED}),
    ({"c": "1"}, {"c": ledger.MOVED}, {"c": ledger.MOVED}),
    ({"c": "1"}, {}, {}),
])  # fmt: skip
def test_results_that_join_a_record_leave_it_the_bands_that_both_were_measured_under(stamped, before, merged):
    assert ledger.merged(stamped, before) == merged


def test_a_claim_that_a_record_was_made_without_is_not_measured_yet(course):
    claim = {"bands": [BANDS[0]]}
    course.state(claim)
    course.measure({"a": rows(0.8)}, claims={"another": "digest"})
    assert ledger.table("05") == ["one: It works", "  not measured yet"]
    assert tables.fill("claims", None).splitlines()[-1].endswith("| not measured yet |")
    course.measure({"a": rows(0.8)}, claims={"another": "digest"} | ledger.bands())
    assert f"  {YES}; recorded on" in text()


def test_a_band_that_moved_while_it_was_measured_is_refused_whatever_it_is_now(course):
    for band in BANDS[:2]:
        course.state({"bands": [band]})
        course.measure({"a": rows(0.8), "b": rows(0.8)}, claims={"one": ledger.MOVED})
        with pytest.raises(LabkitError, match="band of one changed while one was measured.*a new claim"):
            text()


# ---- the committed ledger


def test_the_committed_ledger_is_complete():
    found = ledger.ledger()
    assert len({claim["id"] for claim in found}) == len(found) == 65
    optional = {"reproduced_if", "shown"}
    for claim in found:
        wanted = {"id", "lesson", "kind", "claim", "measure", "record", "bands", "beside"}
        assert wanted <= set(claim) <= wanted | optional, claim["id"]
        assert claim["kind"] in ledger.KINDS
        assert ("shown" in claim) == (claim["kind"] != "measured"), claim["id"]
        assert claim["bands"] or claim["kind"] != "measured" or "reproduced_if" in claim, claim["id"]
        assert all(judge.bounded(band) for band in claim["bands"])
        assert not any(judge.bounded(band) for band in claim["beside"])
        for band in [*claim["bands"], *claim["beside"]]:
            known = {"says", "score", "gap", "ratio", "value", "seeds", "fixed", "unit", "of"}
            assert judge.kind_of(band) and set(band) <= known | {"at_least", "above", "at_most", "below"}
            assert set(band.get("fixed", [])) <= set(band.get("gap", band.get("ratio", [])))
            assert band["says"] and len(band.get("gap", [1, 2])) == len(band.get("ratio", [1, 2])) == 2


def test_the_lessons_of_the_ledger_are_in_the_syllabus_and_print():
    lessons = {number for claim in ledger.ledger() for number in claim["lesson"].split(", ")}
    assert lessons <= {stem[:2] for stem, _ in tables.SYLLABUS}
    for lesson in lessons:
        assert max(map(len, ledger.table(lesson))) <= 110


def test_every_band_stands_as_it_did_when_its_record_was_made():
    stored = {(path.name.split(".")[0], claim, digest) for path in MEASUREMENTS.glob("*.json")
              for claim, digest in json.loads(path.read_text())["claims"].items()}  # fmt: skip
    now = {(claim["record"], claim["id"]): ledger.band_digest(claim) for claim in ledger.ledger()}
    # A record has bands of all claims that were there when it was made; those that read it are judged by it.
    assert all(now.get((record, claim), digest) == digest for record, claim, digest in stored)
    assert ("form_json", "form-json", "c3ab67502a3b9639") in stored


def test_the_generated_page_lists_every_claim_under_its_lesson(course):
    course.state(
        {"bands": [{"says": "share|s", "score": "a", "at_least": 0.5}]},
        {"id": "two", "lesson": "01, 06", "record": None, "reproduced_if": "both"},
        {"id": "three", "kind": "source wrong", "shown": "not so", "record": None},
    )
    course.measure({"a": rows(0.9)})
    lines = tables.fill("claims", None).splitlines()
    assert lines[0] == "## 01: Where does the memory go?" and "## 05: Low-rank adaptation" in lines
    assert "| two | It works | both | not measured yet |" in lines
    assert "| three | It works |  | **source wrong**: not so |" in lines
    row = next(line for line in lines if line.startswith("| one "))
    assert re.search(r"\| share\\\|s: at least 50% \| \*\*reproduced\*\*: 8\d.\d% \[.*%\] on ", row)


def test_the_committed_page_lists_the_whole_ledger():
    page = (MEASUREMENTS.parent / "CLAIMS.md").read_text()
    assert re.findall(r"^\| ([a-z]+-[a-z0-9-]+) \|", page, re.M) == [
        claim["id"] for claim in sorted(ledger.ledger(), key=lambda claim: claim["lesson"][:2])
    ]
