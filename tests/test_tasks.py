"""What the data families share: files, draws, scores, duplicates."""

import gzip
import json
from random import Random

import pytest

from labkit.errors import LabkitError
from labkit.paths import DATA
from labkit.tasks import FAMILIES, card, draw, files, load
from labkit.tasks.duplicates import near_duplicates
from labkit.tasks.scores import check_lengths, tally

ROWS = [{"id": "a", "text": "tea for two\u2028please"}, {"id": "b", "text": "größer\n"}]


@pytest.fixture
def folder(tmp_path):
    files.write(tmp_path / "demo", {"train": ROWS, "test": ROWS[:1]})
    return tmp_path / "demo"


def test_rows_come_back_as_they_were_written_and_twice_in_the_same_bytes(folder, tmp_path):
    assert files.read(folder, "train") == ROWS and files.read(folder, "test") == ROWS[:1]
    files.write(tmp_path / "again", {"train": ROWS, "test": ROWS[:1]})
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def _change(path):
    path.write_bytes(gzip.compress(files.dump(ROWS[::-1])))


def _forget(path):
    path.with_name("checksums.json").write_text("{}")


@pytest.mark.parametrize("damage", [
    lambda path: path.unlink(),
    lambda path: path.write_bytes(path.read_bytes()[:-9]),
    lambda path: path.write_bytes(b"not gzip"),
    lambda path: path.with_name("checksums.json").write_text("{"),
    _change,
    _forget,
], ids=["missing", "cut short", "not gzip", "broken checksums", "changed", "no checksum"])  # fmt: skip
def test_a_missing_or_damaged_file_is_named_with_the_remedy(folder, damage):
    damage(folder / "train.jsonl.gz")
    with pytest.raises(LabkitError, match=r"(train.jsonl.gz|checksums)(.|\n)*python -m labkit.tasks.demo"):
        files.read(folder, "train")


def test_every_part_of_a_family_is_verified(folder):
    assert files.verify(folder) == {"train": 2, "test": 1}
    _change(folder / "test.jsonl.gz")
    with pytest.raises(LabkitError, match="test.jsonl.gz"):
        files.verify(folder)
    (folder / "checksums.json").unlink()
    with pytest.raises(LabkitError, match="checksums.json is missing"):
        files.verify(folder)


def test_a_smaller_diversity_keeps_a_subset_in_the_same_order():
    items = [f"phrase {number}" for number in range(50)]
    kept = [draw.share(items, diversity) for diversity in (0.001, 0.1, 0.5, 1.0)]
    assert [len(some) for some in kept] == [1, 5, 25, 50]
    for few, more in zip(kept, kept[1:], strict=False):
        assert set(few) < set(more) and more == sorted(more, key=items.index)
    assert kept[2] != items[:25]  # not simply the first ones


def test_weights_decide_how_often_a_key_is_drawn():
    rng = Random("weights")
    drawn = [draw.weighted(rng, {"a": 3, "b": 1, "never": 0}) for _ in range(4000)]
    assert 0.72 < drawn.count("a") / 4000 < 0.78 and drawn.count("never") == 0
    assert sorted(draw.shuffled(rng, list("abcde"))) == list("abcde")
    assert {draw.pick(rng, "xyz") for _ in range(100)} == set("xyz")


def test_scores_count_verdicts_and_need_one_text_a_row():
    scores = tally(["a", "b"], [True, False], {"close": 1.0})
    assert (scores.exact, scores.n, scores.detail, scores.answers) == (0.5, 2, {"close": 1.0}, ["a", "b"])
    check_lengths(["a"], [1])
    for answers, rows in ((["a"], [1, 2]), ([], [])):
        with pytest.raises(LabkitError, match="one text a row"):
            check_lengths(answers, rows)


def test_near_duplicates_are_found_whatever_their_digits_and_case():
    pool = ["Please cancel order 12345 today as I am away", "The tent has a hole in its floor"]
    texts = ["please cancel order 99999 today as I am away", "A new stove would be nice to have"]
    assert [(i, j) for i, j, _ in near_duplicates(texts, pool)] == [(0, 0)]


def test_a_card_states_rows_size_and_checksum_of_each_part(folder):
    columns = {"letters": lambda rows: len(rows[0]["text"])}
    text = card.files(folder, {"train": ROWS, "test": ROWS[:1]}, columns)
    sums = json.loads((folder / "checksums.json").read_text())
    assert "| part | rows | letters | kB |" in text
    assert f"| train | 2 | 18 | 0 | `{sums['train.jsonl.gz']}` |" in text
    assert card.percent([1, 2, 3, 4], lambda x: x > 3) == "25.0%"


@pytest.mark.parametrize("name, option", [("tickets", "answr"), ("my.csv", "label"), ("voice", "form")])
def test_an_unknown_option_of_load_is_told_with_the_known_ones(name, option):
    with pytest.raises(LabkitError, match=f"{name}.*no option '{option}'. It has: "):
        load(name, **{option: 1})


def test_what_is_no_name_and_no_path_is_refused():
    with pytest.raises(LabkitError, match="path of a file or folder"):
        load([{"prompt": "a", "completion": "b"}])


def test_every_family_says_at_the_top_of_its_card_how_it_is_loaded():
    assert set(card.AT_A_GLANCE) == set(FAMILIES)
    for family in FAMILIES:
        text = (DATA / family / "README.md").read_text()
        assert text.split("\n\n")[1] == card.at_a_glance(family) and f'load("{family}"' in text
