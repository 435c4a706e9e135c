"""The committed records: readable, current, and the source of every generated number."""

import pytest

from labkit.paths import MEASUREMENTS, SOLUTIONS
from labkit.records import store, tables
from labkit.records.ledger import ledger

FILES = sorted(MEASUREMENTS.glob("*.json"))


def parts(path):
    """(name, profile) of a measurement file."""
    name, _, profile = path.stem.partition(".")
    return name, profile or "gpu"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_record_still_speaks_for_the_code_it_was_made_with(path):
    assert store.stale(*parts(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_record_says_what_made_it(path):
    whole = store.read(*parts(path))
    assert (whole["name"], whole["profile"]) == parts(path)
    assert whole["machine"]["device"] and whole["machine"]["python"] and whole["versions"]["torch"]
    assert whole["seconds"] > 0 and whole["peak_bytes"] > 0
    if whole["profile"] == "gpu":
        assert "NVIDIA" in whole["machine"]["device"]


@pytest.mark.parametrize("source", sorted(SOLUTIONS.glob("[0-9][0-9]_*.py")), ids=lambda path: path.stem)
def test_every_lesson_has_a_record_of_both_profiles_and_a_line_in_the_syllabus(source):
    assert (store.read(source.stem, "cpu") is None) == (source.stem in tables.WAITING_CPU)
    assert (store.read(source.stem, "gpu") is None) == (source.stem in tables.WAITING)
    assert source.stem in dict(tables.SYLLABUS)
    assert f"[{source.stem}]" in tables.syllabus()


WHOLE = 5000  # rows of the test split of tickets
# qlora: each of its models is scored as it is and merged in five ways. lora: each update is scored whole and
# cut, each adapter on three bases.
FEWER = {"qlora": 2000, "lora": 2000}

MEASURED = [claim for claim in ledger() if claim["record"] and store.read(claim["record"])]


def test_some_claim_is_measured():
    assert MEASURED


@pytest.mark.parametrize("claim", MEASURED, ids=lambda claim: claim["id"])
def test_the_rows_behind_a_verdict_are_the_whole_test_split_with_three_seeds_or_said_to_be_fewer(claim):
    scores = store.read(claim["record"])["scores"]
    scored = FEWER.get(claim["record"], WHOLE)
    bands = [*claim["bands"], *claim["beside"]]
    names = {
        name for band in bands for name in [band.get("score"), *band.get("gap", []), *band.get("ratio", [])]
    }
    found = [scores[name]["rows"] for name in names & set(scores)]
    assert all(int(one.split(":")[0]) >= 2000 for rows in found for one in rows)
    trained = [rows for rows in found if len(rows) > 1]
    assert all(len(rows) >= 3 and rows[0].startswith(f"{scored}:") for rows in trained)
    assert trained or not found
