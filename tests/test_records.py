"""Records: kept whole, stale when code changes; intervals that cover the truth."""

import json
import os

import numpy as np
import pytest
import torch

from labkit.errors import LabkitError
from labkit.records import judge, record, stats, store, syntax

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
    ("# %%\nprint", "# %%\n# only a comment\n# %%\nprint"),
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


MODULES = {
    "method.py": 'def train(rows, lr=1e-3):\n    """Train."""\n    return load(rows), lr\n',
    "base.py": 'NAME = "base"\n\n\ndef load(rows):\n    return [row for row in rows]\n',
    "score.py": "def exact(a, b):\n    return a == b\n",
}


@pytest.fixture
def module_set(course):
    """A record that depends on three modules and a data family, and no lesson."""
    for name, text in MODULES.items():
        (course / name).write_text(text)
    write("methods", digest={**store.code_digest(*MODULES), **store.data_digest("family")})
    return course


@pytest.mark.parametrize("name, old, new", [
    ("method.py", '"""Train."""', '"""Train, and say more."""'),
    ("method.py", "    return load", "    # why\n    return load"),
    ("method.py", "lr=1e-3", "lr=0.001"),
    ("method.py", "def train(rows, lr=1e-3)", "def train(\n    rows,\n    lr=1e-3,\n)"),
    ("base.py", '"base"', "'base'"),
    ("base.py", 'NAME = "base"', '"""A module docstring."""\n\nNAME = "base"  # the name'),
    ("score.py", "a == b", "(a == b)"),
])  # fmt: skip
def test_prose_and_layout_of_any_module_leave_a_record_of_many_fresh(module_set, name, old, new):
    assert store.stale("methods") == [] and old in MODULES[name]
    (module_set / name).write_text(MODULES[name].replace(old, new))
    (module_set / "solutions" / "00_one.py").write_text("# %%\nprint('another lesson')\n")
    (module_set / "module.py").write_text("NUMBER = 5\n")  # it does not depend on this one
    assert store.stale("methods") == []


@pytest.mark.parametrize("name, old, new", [
    ("method.py", "1e-3", "2e-3"), ("base.py", '"base"', '"bass"'), ("base.py", "row for", "row + 1 for"),
    ("score.py", "a == b", "a is b"), ("score.py", "a, b", "b, a"),
])  # fmt: skip
def test_code_of_any_module_makes_a_record_of_many_stale(module_set, name, old, new):
    (module_set / name).write_text(MODULES[name].replace(old, new))
    assert store.stale("methods") == [f"{name} changed since methods.json was recorded"]
    (module_set / name).unlink()
    assert store.stale("methods") == [f"{name} changed since methods.json was recorded"]


def test_a_function_that_is_only_a_docstring_may_change_it():
    assert syntax.tree('def f():\n    """One."""') == syntax.tree('def f():\n    """Two."""')
    assert syntax.tree('async def f():\n    """One."""\n    go()') == syntax.tree("async def f():\n    go()")
    assert syntax.tree('def f():\n    """One."""') != syntax.tree("def g():\n    pass")
    assert syntax.tree('x = """One."""') != syntax.tree('x = """Two."""')


def test_a_cell_that_is_not_python_is_compared_as_it_stands():
    assert syntax.tree("%%bash\necho one | wc") != syntax.tree("%%bash\necho two | wc")
    assert syntax.tree("%matplotlib inline\nx = 1 # a") == syntax.tree("%matplotlib inline\nx = 1")
    assert syntax.tree("%matplotlib inline\nx = 1") != syntax.tree("x = 1")


def cells_digest(tmp_path, *cells):
    source = tmp_path / "00_cells.py"
    source.write_text("\n".join(cells))
    return store._cells_digest(source)


def test_a_cell_that_prints_records_may_change_and_so_may_the_imports_that_it_alone_uses(tmp_path):
    imports, measured = "# %%\nimport re, torch\nfrom a import b\n", "# %%\nprint(torch.ones(2), b)\n"
    one = cells_digest(tmp_path, imports, measured, '# %% tags=["recorded"]\nprint(re)\n')
    assert one == cells_digest(tmp_path, imports.replace("re, ", ""), measured)
    assert one == cells_digest(tmp_path, imports, '# %% tags=["recorded"]\nclaims()\n', measured)
    assert one != cells_digest(tmp_path, imports, measured, "# %%\nprint(re)\n")
    assert one != cells_digest(tmp_path, imports, measured, "# %%\nprint(1)\n")
    assert one != cells_digest(tmp_path, imports.replace("from a", "from c"), measured)
    assert one != cells_digest(tmp_path, imports.replace("import b", "import c as b"), measured)
    timed = [cells_digest(tmp_path, imports, call) for call in ("# %%\n# %time re.sub\n", "# %%\n1\n")]
    assert timed[0] != cells_digest(tmp_path, imports.replace("re, ", ""), "# %%\n# %time re.sub\n")
    assert timed[1] == cells_digest(tmp_path, imports.replace("re, ", ""), "# %%\n1\n")
    star = cells_digest(tmp_path, imports, "# %%\nfrom c import *\n", measured)
    assert one != star != cells_digest(tmp_path, imports, "# %%\nfrom d import *\n", measured)


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


# ---- intervals of shares, gaps and ratios over phrasings and seeds


def methods(seed, better=0.0, spread=0.02, phrasings=80, size=6, seeds=3):
    """Flags (seeds, rows) of two methods on the same rows, and phrasings, with random phrasings and seeds.

    The first is `better` on average. Rows are hard or easy for both alike, as rows are.
    """
    random = np.random.default_rng(seed)
    level = np.repeat(random.normal(0.5, 0.15, phrasings), size)
    dice = random.random((seeds, phrasings * size))  # shared: what is hard for one is hard for the other
    names = np.repeat(np.arange(phrasings), size)
    shift = random.normal(0, spread, (2, seeds, 1))
    return dice < level + better + shift[0], dice < level + shift[1], names


def coverage(measure, truth, **options):
    """The share of 200 draws in which the interval holds the truth."""
    estimates = [measure(*methods(seed, **options)) for seed in range(200)]
    return np.mean([found.low <= truth <= found.high for found in estimates])


@pytest.mark.parametrize("spread", [0.0, 0.03, 0.1])
def test_intervals_cover_the_truth_whether_phrasings_or_seeds_differ_more(monkeypatch, spread):
    monkeypatch.setattr(stats, "RESAMPLES", 300)
    assert coverage(stats.gap, 0.05, better=0.05, spread=spread) >= 0.88
    assert coverage(lambda first, second, names: stats.share(first, names), 0.5, spread=spread) >= 0.88
    assert coverage(stats.ratio, 1.1, better=0.05, spread=spread) >= 0.88


def test_an_interval_over_phrasings_alone_misses_the_truth_where_seeds_differ(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 300)

    def plain(first, second, names):
        found = stats.gap(first, second, names)
        return stats.Estimate(found.mean, found.rows_low, found.rows_high, (), 0, 0, 0)

    assert coverage(plain, 0.05, better=0.05, spread=0.1) < 0.7


def test_drawing_three_seeds_anew_would_pretend_to_know_their_spread():
    """Why seeds get Student's t: the bootstrap of three values holds the truth three times in four."""
    random = np.random.default_rng(0)
    values = random.normal(0, 1, (1000, 3))
    draws = values[:, random.integers(3, size=(400, 3))].mean(axis=2)
    low, high = np.quantile(draws, [0.025, 0.975], axis=1)
    assert np.mean((low <= 0) & (high >= 0)) < 0.85
    found = [stats.of_values(row) for row in values]
    assert 0.93 <= np.mean([one.low <= 0 <= one.high for one in found]) <= 0.97


def test_a_paired_gap_is_narrower_than_the_difference_of_two_intervals():
    first, second, names = methods(1, better=0.03, spread=0.0)
    paired = stats.gap(first, second, names)
    one, two = stats.share(first, names), stats.share(second, names)
    unpaired = np.hypot(one.high - one.low, two.high - two.low)
    assert paired.mean == pytest.approx(one.mean - two.mean)
    assert paired.high - paired.low < unpaired / 2
    shuffled = np.random.default_rng(0).permutation(len(names))  # negative control: rows that do not match
    apart = stats.gap(first, second[:, shuffled], names)
    assert apart.high - apart.low > 2 * (paired.high - paired.low)


def test_the_spread_of_seeds_widens_an_interval_and_one_seed_does_not():
    first, second, names = methods(2, spread=0.0)
    worse = first.copy()
    worse[0, ::3] = False  # one seed went wrong
    for measure in (stats.gap, stats.ratio):
        calm, wild = measure(first, second, names), measure(worse, second, names)
        assert wild.seeds_reach > 5 * calm.seeds_reach and wild.high - wild.low > 2 * (calm.high - calm.low)
    assert stats.share(worse, names).seeds_reach > 3 * stats.share(first, names).seeds_reach
    alone = stats.share(first[0], names)
    assert (alone.mean, alone.low, alone.high) == stats.interval(first[0], names) and alone.seeds_reach == 0
    same = stats.share(np.stack([first[0]] * 3), names)
    assert (same.low, same.high) == pytest.approx((alone.low, alone.high))


def test_gaps_and_ratios_of_equal_rows_still_have_width_and_stay_in_range():
    names, ones = np.repeat(np.arange(20), 10), np.ones((3, 200))
    gap, ratio = stats.gap(ones, ones, names), stats.ratio(ones, ones, names)
    assert gap.mean == 0 and -0.05 < gap.low < 0 < gap.high < 0.05
    assert ratio.mean == 1 and 0.95 < ratio.low < 1 < ratio.high < 1.05
    assert stats.gap(ones, np.zeros((3, 200)), names).high == 1
    assert stats.ratio(np.zeros((3, 200)), ones, names).low == 0


def test_a_ratio_to_nothing_is_no_number():
    names = np.repeat(np.arange(20), 10)
    found = stats.ratio(np.ones(200), np.zeros(200), names)
    assert np.isnan(found.mean) and (found.low, found.high) == (-np.inf, np.inf)


def test_the_share_of_a_gain_that_is_kept_has_an_interval_over_phrasings_and_seeds():
    own, merged, names = methods(4, better=0.3)
    base = np.zeros(own.shape[1])
    base[::10] = 1
    found = stats.kept(merged, base, own, names)
    gain = own.mean() - base.mean()
    assert found.mean == pytest.approx((merged.mean() - base.mean()) / gain)
    assert len(found.each) == 3 and found.low < found.rows_low < found.mean < found.rows_high < found.high
    alone = stats.of_values(found.each)
    assert found.high - found.low > alone.high - alone.low  # seeds alone would promise more than they know
    same = stats.kept(own, base, own, names)
    assert same.mean == 1 and 0.95 < same.low < 1 < same.high < 1.05
    assert np.isnan(stats.kept(merged, np.ones(own.shape[1]), own, names).mean)  # nothing was gained
    little = own[0].astype(float)
    little[:5] = 0  # own gains five rows at most over this: no established gain
    unsure = stats.kept(merged, little, own[:1].repeat(3, axis=0), names)
    assert (unsure.low, unsure.high) == (-np.inf, np.inf)


def test_one_prompted_score_stands_against_every_seed():
    first, second, names = methods(3)
    found = stats.gap(first, second[0], names)
    assert len(found.each) == 3 and found.each == pytest.approx(first.mean(axis=1) - second[0].mean())


@pytest.mark.parametrize("first, second", [((3, 12), (2, 12)), ((3, 12), (3, 10))])
def test_scores_that_cannot_be_paired_are_refused(first, second):
    with pytest.raises(ValueError, match="cannot pair"):
        stats.gap(np.ones(first), np.ones(second), np.arange(12))


@pytest.mark.parametrize(
    "freedom, wanted", [(1, 12.706), (2, 4.303), (10, 2.228), (11, 2.201), (30, 2.042), (100, 1.984)]
)
def test_students_t_is_the_printed_table(freedom, wanted):
    assert stats.student(freedom) == pytest.approx(wanted, abs=3e-3)
    assert stats.student(0) == np.inf


def test_values_of_seeds_have_an_interval_and_a_single_number_has_none():
    found = stats.of_values([1.0, 2.0, 3.0])
    assert (found.mean, found.high - found.mean) == (2.0, pytest.approx(4.303 / 3**0.5))
    single = stats.of_values(2.5)
    assert (single.mean, single.low, single.high, single.each) == (2.5, 2.5, 2.5, (2.5,))


def test_results_and_labels_of_different_number_are_refused():
    with pytest.raises(ValueError, match="5 results but 4 cluster labels"):
        stats.interval([1, 0, 1, 0, 1], [1, 2, 3, 4])


def test_a_digest_of_code_is_the_same_on_every_python():
    source = '''def f(a, b=1):
    """Doc."""
    return f"{a!r:>{b}} it's {a['k']}" "tail" + 'x'
'''
    assert store._sha(syntax.tree(source)) == "d1582bb281f26db1"
    assert store._sha(syntax.tree(source.replace("tail", "tale"))) != "d1582bb281f26db1"


def test_a_value_may_bring_the_interval_that_its_benchmark_worked_out():
    band = {"value": "ratio", "below": 1}
    said = {"mean": 0.5, "low": 0.3, "high": 0.9, "each": [0.4, 0.5, 0.6]}

    def found(**change):
        values = {"ratio": {**said, **change, "other": 7}}
        return judge.estimate(band, judge.Live({"values": values}))

    assert (found().mean, found().low, found().high, found().each) == (0.5, 0.3, 0.9, (0.4, 0.5, 0.6))
    assert judge.judged(band, found())[0] == "reproduced"
    undecided, why = judge.judged(band, found(high=1.4))
    assert undecided == "undecided" and "seeds would decide" in why  # the same numbers, a wider interval
    assert "reaches over the band's edge" in judge.judged(band, found(high=1.4, each=[0.5]))[1]
    assert found(mean=None) is None
