"""Records and claims: kept whole, stale when code changes, judged against bands fixed beforehand."""

import json
import os

import numpy as np
import pytest
import torch

from labkit.errors import LabkitError
from labkit.records import ledger, record, stats, store

LESSON = '''# %% [markdown]
# # Prose
# %%
def train(rows):
    """Train on rows."""
    # a comment
    return len(rows)
# %%
print(train([1, 2]), load("family"))
'''


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course folder with one lesson, one module and one data family."""
    for name in ("solutions", "data/family", "data/measurements"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "solutions" / "00_one.py").write_text(LESSON)
    (tmp_path / "module.py").write_text('"""A module."""\n\nNUMBER = 3\n')
    (tmp_path / "data" / "family" / "checksums.json").write_text('{"rows": "abc"}')
    monkeypatch.setattr(store, "ROOT", tmp_path)
    monkeypatch.setattr(store, "SOLUTIONS", tmp_path / "solutions")
    monkeypatch.setattr(store, "DATA", tmp_path / "data")
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path / "data" / "measurements")
    return tmp_path


def write(name="00_one", profile="gpu", **changes):
    digest = {**store.lesson_digest("00_one"), **store.code_digest("module.py")}
    whole = {"seed": 1, "seconds": 12.345, "peak_bytes": 7.0, "digest": digest, **changes}
    return store.write(name, profile, **whole)


# ---- the store


def test_a_record_reads_back_as_written(course):
    sections = {"scores": {"s": {"rows": []}}, "claims": {"c": "d"}, "gpu_cells": {"1": "text"}}
    path = write(values={"exact": 0.5}, **sections)
    whole = store.read("00_one")
    assert path.name == "00_one.json" and json.loads(path.read_text()) == whole
    assert whole["schema"] == store.SCHEMA and whole["seconds"] == 12.3 and whole["peak_bytes"] == 7
    assert whole["values"] == {"exact": 0.5} and whole["claims"] == {"c": "d"}
    assert whole["gpu_cells"] == {"1": "text"} and whole["scores"] == {"s": {"rows": []}}
    assert whole["versions"]["torch"] and whole["machine"]["cores"] >= 1


def test_each_profile_has_its_own_file(course):
    write(profile="cpu", values={"a": 1})
    assert store.read("00_one") is None
    assert store.read("00_one", "cpu")["values"] == {"a": 1}


@pytest.mark.parametrize("text, words", [
    ("{", "not valid JSON.*git checkout"),
    ("", "not valid JSON"),
    ("[]", "schema None"),
    ('{"schema": 999}', "schema 999.*Record it again"),
    ("{}", "schema None"),
])  # fmt: skip
def test_a_damaged_record_or_one_of_another_schema_is_refused(course, text, words):
    path = write()
    path.write_text(text)
    with pytest.raises(LabkitError, match=words) as caught:
        store.read("00_one")
    assert str(path) in str(caught.value)


def test_a_record_is_written_whole_or_not_at_all(course, monkeypatch):
    path = write(values={"a": 1})
    before = path.read_text()
    with pytest.raises(TypeError):
        write(values={"a": object()})

    def fail(*_):
        raise OSError("planted")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="planted"):
        patch.setattr(os, "replace", fail)
        write(values={"a": 2})
    assert path.read_text() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_record_notes_numbers_only_while_a_record_is_made(tmp_path, monkeypatch):
    monkeypatch.delenv("LABKIT_RECORD", raising=False)
    record(nothing=1)
    path = tmp_path / "record.json"
    monkeypatch.setenv("LABKIT_RECORD", str(path))
    record(loss=1 / 3, steps=10)
    record(exact=np.float32(0.25), tensor=torch.tensor(2.0), words="text")
    values = json.loads(path.read_text())["values"]
    assert values == {"loss": 0.333333, "steps": 10, "exact": 0.25, "tensor": 2.0, "words": "text"}


def test_a_recorded_value_is_read_and_a_missing_one_refused(course):
    write(values={"best prompt": 3})
    assert store.recorded("00_one", "best prompt") == 3
    for name, value in (("00_one", "worst prompt"), ("none", "best prompt")):
        with pytest.raises(LabkitError, match=f"no recorded value '{value}' in {name}.json"):
            store.recorded(name, value)


# ---- staleness


def test_a_fresh_record_is_not_stale(course):
    write()
    assert store.stale("00_one") == []


def test_a_record_that_was_never_made_says_so(course):
    assert store.stale("00_one") == ["00_one.json was never recorded"]


@pytest.mark.parametrize("old, new", [
    ("# # Prose", "# # Other prose, longer"),
    ("# a comment", "# another comment"),
    ("    # a comment\n", ""),
    ('"""Train on rows."""', '"""Say it in other words."""'),
    ("len(rows)", "len( rows )"),
    ("# %%\nprint", '# %% tags=["gpu"]\nprint'),
])  # fmt: skip
def test_prose_comments_docstrings_tags_and_layout_leave_a_record_fresh(course, old, new):
    write()
    assert old in LESSON
    (course / "solutions" / "00_one.py").write_text(LESSON.replace(old, new))
    assert store.stale("00_one") == []


@pytest.mark.parametrize("old, new", [
    ("len(rows)", "len(rows) + 1"), ("[1, 2]", "[1, 3]"), ("print", "%time print")
])  # fmt: skip
def test_a_change_of_code_makes_a_record_stale(course, old, new):
    write()
    (course / "solutions" / "00_one.py").write_text(LESSON.replace(old, new))
    assert store.stale("00_one") == ["cells changed since 00_one.json was recorded"]


def test_a_change_of_a_module_or_of_data_makes_a_record_stale(course):
    write()
    (course / "module.py").write_text('"""Other words."""\n\n# why\nNUMBER = 3\n')
    assert store.stale("00_one") == []
    (course / "module.py").write_text("NUMBER = 4\n")
    (course / "data" / "family" / "checksums.json").write_text('{"rows": "abd"}')
    assert [reason.split()[0] for reason in store.stale("00_one")] == ["data/family", "module.py"]
    # Another family may come or change: this lesson does not load it.
    (course / "data" / "family" / "checksums.json").write_text('{"rows": "abc"}')
    (course / "data" / "other").mkdir()
    (course / "data" / "other" / "checksums.json").write_text("{}")
    assert [reason.split()[0] for reason in store.stale("00_one")] == ["module.py"]
    (course / "data" / "family" / "checksums.json").unlink()
    assert [reason.split()[0] for reason in store.stale("00_one")] == ["data/family", "module.py"]
    (course / "module.py").unlink()
    (course / "solutions" / "00_one.py").unlink()
    assert len(store.stale("00_one")) == 3


def test_a_function_that_is_only_a_docstring_may_change_it():
    assert store._tree('def f():\n    """One."""') == store._tree('def f():\n    """Two."""')
    assert store._tree('async def f():\n    """One."""\n    go()') == store._tree("async def f():\n    go()")
    assert store._tree('def f():\n    """One."""') != store._tree("def g():\n    pass")
    assert store._tree('x = """One."""') != store._tree('x = """Two."""')


def test_a_cell_that_is_not_python_is_compared_as_it_stands():
    assert store._tree("%%bash\necho one | wc") != store._tree("%%bash\necho two | wc")
    assert store._tree("%matplotlib inline\nx = 1 # a") == store._tree("%matplotlib inline\nx = 1")
    assert store._tree("%matplotlib inline\nx = 1") != store._tree("x = 1")


# ---- statistics


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_rows_packed_to_text_unpack_to_the_same(count):
    flags = np.random.default_rng(count).random(count) < 0.3
    text = stats.pack_rows(flags.tolist())
    assert stats.unpack_rows(text).tolist() == flags.tolist()
    assert len(text) <= count / 4 + 8


def clustered(seed, clusters=60, size=20, spread=1.0):
    """Flags whose rows succeed and fail with their cluster; the true share is a half."""
    random = np.random.default_rng(seed)
    level = np.where(random.random(clusters) < 0.5, 0.5 + spread / 2.5, 0.5 - spread / 2.5)
    names = np.repeat(np.arange(clusters), size)
    return random.random(clusters * size) < level[names], names


def test_the_clustered_interval_covers_the_truth_and_the_naive_one_does_not(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 400)
    hits, naive_hits, widths = 0, 0, []
    for seed in range(100):
        flags, names = clustered(seed)
        _, low, high = stats.interval(flags, names)
        _, naive_low, naive_high = stats.interval(flags, np.arange(len(flags)))
        hits += low <= 0.5 <= high
        naive_hits += naive_low <= 0.5 <= naive_high
        widths.append((high - low) / (naive_high - naive_low))
    assert hits >= 88
    assert naive_hits <= 70
    assert np.mean(widths) > 2


def test_without_clustering_both_intervals_agree():
    flags, names = clustered(0, clusters=300, size=5, spread=0.0)
    _, low, high = stats.interval(flags, names)
    _, naive_low, naive_high = stats.interval(flags, np.arange(len(flags)))
    assert high - low == pytest.approx(naive_high - naive_low, rel=0.15)
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(1500), rel=0.15)


def test_seeds_are_pooled_and_the_interval_is_the_same_every_time():
    flags, names = clustered(3)
    both = np.stack([flags, ~flags])
    assert stats.interval(both, names)[0] == pytest.approx(0.5)
    assert stats.interval(flags, names) == stats.interval(flags, names)
    mean, low, high = stats.interval(flags, [str(name) for name in names])
    assert mean == pytest.approx(flags.mean()) and low < mean < high


def test_where_all_rows_agree_the_interval_still_has_width():
    names = np.repeat(np.arange(10), 30)
    assert stats.interval(np.ones(300), names) == (1.0, pytest.approx(0.9874, abs=1e-4), 1.0)
    assert stats.interval(np.zeros((3, 300)), names) == (0.0, 0.0, pytest.approx(0.0126, abs=1e-4))


def test_one_more_success_never_lowers_the_interval():
    names, lows = np.repeat(np.arange(120), 40), []
    for failures in (40, 10, 3, 1, 0):
        flags = np.ones(4800)
        flags[::100][:failures] = 0
        lows.append(stats.interval(flags, names)[1])
    assert lows == sorted(lows)


def test_results_and_labels_of_different_number_are_refused():
    with pytest.raises(ValueError, match="5 results but 4 cluster labels"):
        stats.interval([1, 0, 1, 0, 1], [1, 2, 3, 4])


# ---- verdicts


@pytest.mark.parametrize("band, low, high, verdict", [
    ({"at_least": 0.9}, 0.92, 0.95, "reproduced"),
    ({"at_least": 0.9}, 0.90, 0.95, "reproduced"),
    ({"at_least": 0.9}, 0.80, 0.85, "contradicted here"),
    ({"at_least": 0.9}, 0.85, 0.95, "undecided"),
    ({"at_most": 0.5}, 0.30, 0.45, "reproduced"),
    ({"at_most": 0.5}, 0.55, 0.60, "contradicted here"),
    ({"at_most": 0.5}, 0.45, 0.55, "undecided"),
    ({"at_least": 0.4, "at_most": 0.6}, 0.45, 0.55, "reproduced"),
    ({"at_least": 0.4, "at_most": 0.6}, 0.65, 0.70, "contradicted here"),
    ({"at_least": 0.4, "at_most": 0.6}, 0.35, 0.65, "undecided"),
])  # fmt: skip
def test_an_interval_is_inside_a_band_outside_it_or_across_its_edge(band, low, high, verdict):
    assert ledger.verdict(band, low, high) == verdict


def test_a_claim_stands_only_if_all_its_bands_do():
    yes, no, open_ = "reproduced", "contradicted here", "undecided"
    assert ledger.overall([yes, yes]) == yes
    assert ledger.overall([yes, open_]) == open_
    assert ledger.overall([open_, no, yes]) == no


@pytest.fixture
def judged(course, monkeypatch):
    """A ledger with one claim, and a function that records rows for it."""
    import labkit.tasks

    claim = {"id": "one", "lesson": "00", "claim": "It works", "record": "one",
             "bands": [{"score": "s", "says": "share", "at_least": 0.6}], "beside": []}  # fmt: skip
    names = [f"phrasing-{number // 10}" for number in range(400)]
    monkeypatch.setattr(labkit.tasks, "load", lambda task: {"test": {"phrasing": names}})
    monkeypatch.setattr(ledger, "LEDGER", course / "data" / "claims.json")
    ledger.LEDGER.write_text(json.dumps({"claims": [claim]}))

    def run(share):
        flags = np.random.default_rng(0).random(400) < share
        score = {"task": "tickets", "split": "test", "rows": [stats.pack_rows(flags)] * 3}
        write("one", scores={"s": score}, claims=ledger.digests("one"))

    return run, claim


@pytest.mark.parametrize("share, verdict", [
    (0.9, "reproduced"), (0.2, "contradicted here"), (0.6, "undecided")
])  # fmt: skip
def test_the_table_shows_band_interval_machine_and_verdict(judged, share, verdict, capsys):
    run, _ = judged
    run(share)
    ledger.claims("00")
    out = capsys.readouterr().out
    assert "one: It works" in out and "band: at least 60%" in out
    assert f"\n  {verdict}; recorded on" in out and "400 rows" in out and "3 seeds: " in out


def test_a_claim_that_was_not_measured_says_so(judged):
    assert ledger.table("00") == ["one: It works", "  not measured yet"]


def test_moving_a_band_after_recording_is_refused(judged):
    run, claim = judged
    run(0.55)
    assert any("undecided" in line or "contradicted" in line for line in ledger.table("00"))
    claim["bands"][0]["at_least"] = 0.5
    ledger.LEDGER.write_text(json.dumps({"claims": [claim]}))
    with pytest.raises(LabkitError, match="band of one changed after one was recorded.*Put it back"):
        ledger.table("00")


def test_a_lesson_without_claims_is_refused(judged):
    with pytest.raises(LabkitError, match="no claim of lesson 77"):
        ledger.table("77")


def test_the_committed_ledger_is_complete():
    found = ledger.ledger()
    assert len({claim["id"] for claim in found}) == len(found) > 0
    for claim in found:
        assert {"id", "lesson", "claim", "measure", "record", "bands", "beside"} <= set(claim)
        assert all({"score", "says"} < set(band) for band in claim["bands"])


def test_a_digest_of_code_is_the_same_on_every_python():
    source = '''def f(a, b=1):
    """Doc."""
    return f"{a!r:>{b}} it's {a['k']}" "tail" + 'x'
'''
    assert store._sha(store._tree(source)) == "d1582bb281f26db1"
    assert store._sha(store._tree(source.replace("tail", "tale"))) != "d1582bb281f26db1"
