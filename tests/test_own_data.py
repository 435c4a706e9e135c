"""A learner's own data: what loads, what is refused and in which words, and that nothing is left behind."""

import codecs
import gzip
import json
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from labkit.errors import LabkitError
from labkit.paths import ROOT
from labkit.tasks import own_data
from labkit.tasks.own_data import reading

ROWS = [(f"Where is parcel number {i}?", ["lost", "late", "other"][i % 3]) for i in range(60)]
CSV = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)
JSONL = [json.dumps({"text": text, "label": label}) for text, label in ROWS]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with an empty HOME beside it."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    return work


def load(name, **options):
    return own_data.load(name, **options)


def rows(**columns):
    """JSON Lines text of three rows with these columns; {} in a text becomes the row's number."""
    lines = [{name: value.format(i) if isinstance(value, str) else value for name, value in columns.items()}
             for i in range(3)]
    return "".join(json.dumps(line) + "\n" for line in lines)


def message_of(name, **options):
    """The message with which loading `name` is refused."""
    with pytest.raises(LabkitError) as caught:
        load(name, **options)
    return str(caught.value)


# ---- what loads


@pytest.mark.parametrize("name", ["my.csv", "my.tsv", "my.jsonl", "my.json", "my.ndjson", "MY.CSV"])
def test_each_format_gives_the_same_prompt_completion_rows(here, name):
    texts = {
        ".csv": CSV, ".tsv": CSV.replace(",", "\t"), ".jsonl": "\n".join(JSONL), ".ndjson": "\n".join(JSONL),
        ".json": f"[{','.join(JSONL)}]",
    }  # fmt: skip
    Path(name).write_text(texts[Path(name).suffix.lower()])
    data = load(name)
    assert {split: len(data[split]) for split in data} == {"train": 54, "validation": 3, "test": 3}
    row = data["train"][0]
    assert list(row) == ["prompt", "completion", "id", "message", "answer"]
    assert row["prompt"] == [{"role": "user", "content": row["message"]}]
    assert row["completion"] == [{"role": "assistant", "content": row["answer"]}]
    found = {(row["message"], row["answer"]) for split in data for row in data[split]}
    assert found == set(ROWS)
    assert own_data.labels(data) == ["late", "lost", "other"] == own_data.labels(data["test"])


def test_the_line_with_which_excel_names_the_delimiter_is_skipped():
    Path("my.csv").write_text("sep=;\ntext;label\none;a\ntwo, three;b\nfour;a\n")
    data = load("my.csv")
    found = {row["id"]: row["message"] for split in data for row in data[split]}
    assert found == {"my.csv, line 3": "one", "my.csv, line 4": "two, three", "my.csv, line 5": "four"}


def test_an_id_names_the_file_and_the_place():
    Path("my.csv").write_text('text,label\n\n"Two\nlines",a\nthree,b\nfour,a\n')
    Path("my.json").write_text(json.dumps([{"text": text, "label": label} for text, label in ROWS]))
    data = load("my.csv")
    assert {row["id"]: row["message"] for split in data for row in data[split]} == {
        "my.csv, lines 3 to 4": "Two\nlines", "my.csv, line 5": "three", "my.csv, line 6": "four",
    }  # fmt: skip
    first = load("my.json")["train"][0]
    assert first["id"] == f"my.json, record {ROWS.index((first['message'], first['answer'])) + 1}"


@pytest.mark.parametrize("name, data", {
    "UTF-8 byte-order mark": codecs.BOM_UTF8 + CSV.encode(),
    "UTF-16 with byte-order mark": CSV.encode("utf-16"),
    "UTF-16 big-endian with byte-order mark": codecs.BOM_UTF16_BE + CSV.encode("utf-16-be"),
    "UTF-32 with byte-order mark": CSV.encode("utf-32"),
    "Windows line ends": CSV.replace("\n", "\r\n").encode(),
    "carriage returns only": CSV.replace("\n", "\r").encode(),
    "semicolons": CSV.replace(",", ";").encode(),
    "bars": CSV.replace(",", "|").encode(),
    "tabs in a .csv": CSV.replace(",", "\t").encode(),
    "a comma at the end of every line": CSV.replace("\n", ",\n").encode(),
    "a comma at the end of every row only": CSV.replace("\n", ",\n").replace("label,", "label", 1).encode(),
    "blank lines and rows": CSV.replace("\n", "\n\n , \n").encode(),
    "no line end at the end": CSV.rstrip("\n").encode(),
    "an index column without a name": "".join(f",{line}\n" for line in CSV.splitlines()).encode(),
    "column names in capitals": CSV.replace("text,label", " Text , LABEL").encode(),
    "white space around": CSV.replace(",", " , ").encode(),
}.items())  # fmt: skip
def test_harmless_oddities_load_as_if_they_were_not_there(name, data):
    Path("my.csv").write_bytes(data)
    loaded = load("my.csv")
    assert {(row["message"], row["answer"]) for split in loaded for row in loaded[split]} == set(ROWS), name


def test_the_encoding_may_be_given():
    Path("my.csv").write_bytes("text,label\nCafé zu?,a\nb,a\nc,b\n".encode("cp1252"))
    data = load("my.csv", encoding="cp1252")
    assert "Café zu?" in {row["message"] for split in data for row in data[split]}
    assert "encoding 'klingon'" in message_of("my.csv", encoding="klingon")
    assert "not text in ascii" in message_of("my.csv", encoding="ascii")


def test_unicode_line_separators_do_not_split_json_lines():
    Path("my.jsonl").write_text(rows(prompt="a\u2028b\x85{}", answer="x{}").encode().decode("unicode_escape"), "utf-8")
    data = load("my.jsonl")
    assert {row["message"] for split in data for row in data[split]} == {f"a\u2028b\x85{i}" for i in range(3)}


# name of columns -> prompt, answer of row 0
COLUMNS = {
    "question answer": ({"question": "q{}", "answer": "a{}"}, "q0", "a0"),
    "instruction response": ({"instruction": "q{}", "response": "a{}"}, "q0", "a0"),
    "alpaca": ({"instruction": "q{}", "input": "i{}", "output": "a{}"}, "q0\n\ni0", "a0"),
    "alpaca without input": ({"instruction": "q{}", "input": "", "output": "a{}"}, "q0", "a0"),
    "alpaca with null input": ({"input": None, "instruction": "q{}", "output": "a{}"}, "q0", "a0"),
    "other columns beside": ({"message": "q{}", "category": "a{}", "score": 3, "tags": ["x"]}, "q0", "a0"),
    "capitals": ({"Prompt": "q{}", "Completion": "a{}"}, "q0", "a0"),
    "trl": ({"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}],
             "message": "{}", "answer": "x{}"}, "q", "a"),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_well_known_columns_are_found(name):
    columns, prompt, answer = COLUMNS[name]
    text = rows(**columns)
    if name == "trl":  # different prompts, so that there is something to split
        text = "".join(line.replace('"q"', f'"q{"" if i == 0 else i}"') for i, line in enumerate(text.splitlines(True)))
    Path("my.jsonl").write_text(text)
    data = load("my.jsonl")
    found = {row["message"]: row["answer"] for split in data for row in data[split]}
    assert found[prompt] == answer and len(found) == 3


def test_columns_may_be_named_joined_and_given_a_system_sentence():
    Path("my.csv").write_text("a,text,b,c,tone\n" + "".join(f"x{i},t{i},y{i},z{i},s{i}\n" for i in range(9)))
    row = load("my.csv", prompt=["a", "B"], answer="c", system="Be brief.")["train"][0]
    number = row["answer"][1:]
    assert row["prompt"] == [{"role": "system", "content": "Be brief."},
                             {"role": "user", "content": f"x{number}\n\ny{number}"}]  # fmt: skip
    row = load("my.csv", answer="c", system="tone")["train"][0]
    assert [turn["content"][0] for turn in row["prompt"]] == ["s", "t"]


CHAT = [{"role": "system", "content": "S"}, {"role": "user", "content": "q{}"},
        {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"}]  # fmt: skip


def chats(turns, column="messages"):
    return "".join(json.dumps({column: turns}).replace("{}", str(i), 1) + "\n" for i in range(3))


def test_chats_load_in_both_ways_of_writing():
    Path("openai.jsonl").write_text(chats(CHAT))
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    share = [{"from": names[turn["role"]], "value": turn["content"]} for turn in CHAT]
    Path("share.jsonl").write_text(chats(share, "conversations"))
    for name in ("openai.jsonl", "share.jsonl"):
        row = load(name, system="Not used: the rows have their own.")["train"][0]
        assert [turn["role"] for turn in row["prompt"]] == ["system", "user", "assistant", "user"]
        assert row["prompt"][0]["content"] == "S"
        assert row["completion"] == [{"role": "assistant", "content": "d"}]
        assert (row["message"], row["answer"]) == ("c", "d")


def test_preferences_load_from_texts_and_from_chats():
    Path("texts.jsonl").write_text(rows(prompt="q{}", chosen="good{}", rejected="bad{}"))
    lines = [{side: [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"{word}{i}"}]
              for side, word in (("chosen", "good"), ("rejected", "bad"))} for i in range(3)]  # fmt: skip
    Path("chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in ("texts.jsonl", "chats.jsonl"):
        row = load(name, system="S")["train"][0]
        number = row["message"][1:]
        assert list(row) == ["prompt", "chosen", "rejected", "id", "message"]
        assert row["prompt"] == [{"role": "system", "content": "S"}, {"role": "user", "content": f"q{number}"}]
        assert row["chosen"] == [{"role": "assistant", "content": f"good{number}"}]
        assert row["rejected"] == [{"role": "assistant", "content": f"bad{number}"}]
        assert own_data.labels(load(name)) == []
        with pytest.raises(LabkitError, match="no answer to compare"):
            own_data.score(["x"], [row])


def test_rows_of_a_course_family_come_back_from_a_file():
    from labkit.tasks import load as course

    some = course("tickets")["validation"].select(range(20))
    Path("my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    data = load("my.jsonl")
    back = {row["message"]: row for split in data for row in data[split]}
    assert len(back) == 20
    for row in some:
        assert back[row["message"]]["prompt"] == row["prompt"]
        assert back[row["message"]]["completion"] == row["completion"]


# ---- labels and scores


def test_numbers_are_named_by_a_list_beside_the_data(here):
    numbered = "text,label\n" + "".join(f"{text},{i % 3}\n" for i, (text, _) in enumerate(ROWS))
    Path("my.csv").write_text(numbered)
    assert own_data.labels(load("my.csv")) == ["0", "1", "2"]
    for name, text in {"labels.txt": "lost\nlate\nother\n", "categories.json": '["lost", "late", "other"]',
                       "classes.json": '{"0": "lost", "1": "late", "2": "other"}'}.items():  # fmt: skip
        Path(name).write_text(text)
        data = load("my.csv")
        assert own_data.labels(data) == ["lost", "late", "other"]
        assert {(row["message"], row["answer"]) for split in data for row in data[split]} == set(ROWS)
        assert own_data.labels(load("my.csv", labels=False)) == ["0", "1", "2"]
        Path(name).unlink()
    assert own_data.labels(load("my.csv", labels=["x", "y", "z"])) == ["x", "y", "z"]


def test_texts_are_checked_against_a_list_that_is_theirs_and_no_other():
    Path("my.csv").write_text(CSV.replace("parcel number 7?,late", "parcel number 7?,latte"))
    Path("labels.json").write_text('["red", "green"]')  # belongs to something else
    assert own_data.labels(load("my.csv"))
    Path("labels.json").write_text('["lost", "late", "other"]')
    text = message_of("my.csv")
    assert text.startswith("my.csv, line 9: the answer") and "'latte'" in text and "labels.json (did you mean 'late'?). Correct" in text
    assert "different label names" in message_of("my.csv", labels=["a", "a"])
    assert "not among the 2 names in labels" in message_of("my.csv", labels=["red", "green"])


def test_free_text_has_no_labels():
    Path("my.csv").write_text("text,answer\n" + "".join(f"question {i},answer {i}\n" for i in range(30)))
    assert own_data.labels(load("my.csv")) == []


def test_the_score_is_exact_but_for_white_space_at_both_ends():
    Path("my.csv").write_text(CSV)
    test = load("my.csv")["test"]
    gold = test["answer"]
    scores = own_data.score([f" {text}\n" for text in gold], test)
    assert (scores.exact, scores.n, scores.detail) == (1.0, 3, {"any case": 1.0, "valid": 1.0})
    wrong = {"": 0, gold[0].upper(): 1, f"{gold[0]}.": 0, f"the label is {gold[0]}": 0, "\ud800\0" * 9: 0,
             gold[0] * 2: 0}  # fmt: skip
    for text, caseless in wrong.items():
        scores = own_data.score([text], test.select([0]))
        assert (scores.exact, scores.exact_rows, scores.detail) == (0.0, [False], {"any case": caseless, "valid": 0.0})
    assert "valid" not in own_data.score(list(gold), test.to_list()).detail  # plain rows carry no labels
    assert own_data.score(list(gold), test.to_list(), labels=["lost"]).detail["valid"] < 1
    with pytest.raises(LabkitError, match="one text a row"):
        own_data.score(["x"], test)


# ---- splits


def test_a_single_file_is_split_the_same_way_in_any_order_and_duplicates_stay_together():
    lines = CSV.splitlines()[1:]
    lines += [line.upper().replace("LOST", "lost") for line in lines[:12] if line.endswith("lost")]
    homes = []
    for order in (lines, lines[::-1]):
        Path("my.csv").write_text("text,label\n" + "\n".join(order))
        data = load("my.csv")
        homes.append({row["message"]: split for split in data for row in data[split]})
    assert homes[0] == homes[1]
    assert all(split == homes[0].get(text.upper(), split) for text, split in homes[0].items())
    assert any(text.isupper() for text in homes[0])


def test_a_large_file_is_split_ninety_five_five(here):
    Path("my.csv").write_text("text,label\n" + "".join(f"question {i},{i % 4}\n" for i in range(1000)))
    data = load("my.csv")
    assert {split: len(data[split]) for split in data} == {"train": 900, "validation": 50, "test": 50}


def test_a_folder_has_its_own_splits_and_what_is_missing_comes_from_train():
    for name, numbers in {"train": range(40), "test": range(40, 52), "dev": range(52, 60)}.items():
        Path(f"{name}.csv").write_text("text,label\n" + "".join(f"{a},{b}\n" for a, b in [ROWS[i] for i in numbers]))
    Path("README.md").write_text("my data")
    Path("notes.csv").write_text("not,data\n1,2\n")
    assert {split: len(part) for split, part in load(".").items()} == {"train": 40, "validation": 8, "test": 12}
    Path("dev.csv").unlink()
    data = load(Path.cwd())
    assert {split: len(data[split]) for split in data} == {"train": 38, "validation": 2, "test": 12}
    assert [row["message"] for row in data["test"]] == [text for text, _ in ROWS[40:52]]
    Path("test.csv").unlink()
    assert {split: len(part) for split, part in load(".").items()} == {"train": 36, "validation": 2, "test": 2}


def test_a_folder_of_several_files_without_split_names_is_one_set():
    Path("a.csv").write_text("text,label\n" + "".join(f"{a},{b}\n" for a, b in ROWS[:30]))
    Path("b.jsonl").write_text("\n".join(JSONL[30:]))
    Path("settings.json").write_text('{"not": "data"}')
    data = load(".")
    assert {row["message"] for split in data for row in data[split]} == {text for text, _ in ROWS}


def overlapping(both):
    Path("train.csv").write_text(CSV)
    test = "".join(f"new question {i},lost\n" for i in range(200 - both))
    Path("test.csv").write_text("text,label\n" + "".join(f"{a},{b}\n" for a, b in ROWS[:both]) + test)


def test_a_few_test_prompts_in_train_are_dropped_from_train_with_a_warning():
    overlapping(2)
    with pytest.warns(UserWarning, match="2 of 200 test prompts stand in train.*test.csv, line 2; train.csv, line 2"):
        data = load(".")
    assert not {row["message"] for row in data["test"]} & {row["message"] for row in data["train"]}
    assert len(data["test"]) == 200 and len(data["train"]) + len(data["validation"]) == 58
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = load(".", overlap="keep")
    assert len(kept["train"]) + len(kept["validation"]) == 60
    assert "overlap='drop'" in message_of(".", overlap="error")
    assert "it may be" in message_of(".", overlap="maybe")


def test_many_test_prompts_in_train_are_refused_until_told_what_to_do():
    overlapping(30)
    text = message_of(".")
    assert "30 of 200" in text and "test.csv, line 2; train.csv, line 2" in text and "overlap='keep'" in text
    data = load(".", overlap="drop")
    assert len(data["train"]) + len(data["validation"]) == 30
    Path("test.csv").write_text(CSV)
    assert "Every row of train stands in test" in message_of(".", overlap="drop")


# ---- what is refused: name -> (file name, its content, words that the message must have, options)

GOOD = "Where is it?,lost\nWhen does it come?,late\nHello there,other\n"
LONG = "x" * 10_000_000
# (one case a line, however long)
# ruff: noqa: E501
REFUSED = {
    # columns
    "no column for the answer": ("my.csv", "text,colour\n" + GOOD, ["'text', 'colour'", "prompt='text', answer='colour'"], {}),
    "no known column, perhaps no header": ("my.csv", GOOD, ["'Where is it?', 'lost'", "put a line with column names above it"], {}),
    "two columns could be the prompt": ("my.csv", "text,question,label\na,b,c\n", ["'text', 'question'", "prompt='text'"], {}),
    "two columns could be the answer": ("my.csv", "text,label,category\na,b,c\n", ["'label', 'category'", "answer='label'"], {}),
    "a named column is missing": ("my.csv", "text,label\n" + GOOD, ["no column 'txt'", "Did you mean 'text'?"], {"prompt": "txt"}),
    "one column for both": ("my.csv", "text,label\n" + GOOD, ["'text' cannot be both"], {"prompt": "text", "answer": "text"}),
    "a column twice": ("my.csv", "text,label,text\na,b,c\n", ["two columns named 'text'", "Rename"], {}),
    "chosen without rejected": ("my.jsonl", rows(prompt="p{}", chosen="c"), ["rejected"], {"chosen": "chosen"}),
    "pairs and preferences": ("my.jsonl", rows(prompt="p{}", answer="a", chosen="c", rejected="r"), ["preferences and as pairs", "answer='answer'"], {}),
    "preferences without a prompt": ("my.jsonl", rows(chosen="c{}", rejected="r"), ["clearly the prompt", "prompt='...'"], {}),
    "answer and chosen asked for": ("my.csv", "text,label\n" + GOOD, ["three forms"], {"answer": "label", "chosen": "text"}),
    # text and bytes
    "Latin-1": ("my.csv", "text,label\nok,a\nCafé zu?,b\n".encode("latin-1"), ["line 3", "0xe9", "'é'", "encoding='cp1252'"], {}),
    "UTF-16 without a mark": ("my.csv", CSV.encode("utf-16-le"), ["UTF-16 without", "encoding='utf-16-le'"], {}),
    "UTF-16 big-endian without a mark": ("my.csv", CSV.encode("utf-16-be"), ["encoding='utf-16-be'"], {}),
    "UTF-16 cut short": ("my.csv", CSV.encode("utf-16")[:-1], ["not text in utf-16"], {}),
    "NUL characters": ("my.csv", CSV.replace("number 3?", "number\0 3?").encode(), ["line 5", "NUL", "tr -d"], {}),
    "empty": ("my.csv", "", ["is empty"], {}),
    "blank lines only": ("my.csv", "\n \n\r\n", ["only blank lines"], {}),
    "commas only": ("my.csv", ",,\n,,\n", ["only blank lines"], {}),
    "a mark only": ("my.csv", codecs.BOM_UTF8 + b"\n", ["only blank lines"], {}),
    "header only": ("my.csv", "text,label\n", ["header line and no rows"], {}),
    "PNG": ("my.csv", b"\x89PNG\r\n\x1a\n\0\0", ["PNG picture"], {}),
    "gzip": ("my.csv", gzip.compress(CSV.encode()), ["gzip file", "gzip -dc my.csv"], {}),
    "Excel": ("my.csv", b"PK\x03\x04\x14\0xl/workbook.xml", ["zip file", "CSV (UTF-8)"], {}),
    "Parquet": ("my.csv", b"PAR1\x15\x04PAR1", ["Parquet", "to_json"], {}),
    "other binary": ("my.csv", bytes(range(256)), ["not a text file"], {}),
    "web page": ("my.csv", "<!DOCTYPE html><html></html>", ["web page"], {}),
    "Git LFS pointer": ("my.jsonl", "version https://git-lfs.github.com/spec/v1\n", ["git lfs pull"], {}),
    "unknown ending": ("my.txt", CSV, ["'.txt'", ".jsonl", "Rename"], {}),
    "no ending": ("my", CSV, ["no ending"], {}),
    # CSV
    "a quote that is never closed": ("my.csv", 'text,label\na,b\n"c,d\ne,f\n', ["line 3", "never closed", '""'], {}),
    "a quote closed by a later one": ("my.csv", 'text,label\na,b\n"c,d\ne,f\n"g, h",i\n', ["line 5", "opened in line 3"], {}),
    "bare quotes in a quoted field": ("my.csv", 'text,label\n"he said "hi" to me",b\n', ["line 2", '""'], {}),
    "rows swallowed between two stray quotes": ("my.csv", 'text,label\na,late\nb,late\nB,late\nbb,late\n"c,late\nd,late\n12",late\n', ["lines 6 to 8", "other rows"], {}),
    "too few fields": ("my.csv", "text,label\na,b\nc\nd,e\n", ["line 3", "1 field,", "header has 2"], {}),
    "header repeated": ("my.csv", "text,label\na,b\ntext,label\nd,e\n", ["line 3", "repeats the header"], {}),
    "too many fields": ("my.csv", "text,label\na,b\nc, d, and e,f\n", ["line 3", "4 fields", "quotation marks"], {}),
    "a field of 10 MB": ("my.csv", f"text,label\na,b\n{LONG},c\n", ["line 3", "131,072 characters"], {}),
    "empty prompts": ("my.csv", "text,label\na,b\n,c\nd,e\n,f\n", ["2 of 4 rows", "line 3: the prompt", "line 5", "(column 'text') is empty"], {}),
    "an empty answer": ("my.csv", 'text,label\na,b\nc,""\n', ["line 3", "the answer (column 'label') is empty", "remove"], {}),
    "white space only": ("my.csv", "text,label\na,b\n \t ,c\n", ["line 3", "only white space"], {}),
    "answers that are the prompts": ("my.csv", "text,label\na,a\nb,b\nc,c\n", ["same as the prompt"], {}),
    "one row": ("my.csv", "text,label\na,b\n", ["has 1 row.", "At least 3"], {}),
    "one prompt only": ("my.csv", "text,label\na,b\na,c\nA,c\n", ["3 rows with 1 different prompt.", "At least 3"], {}),
    # JSON
    "a bad line": ("my.jsonl", JSONL[0] + "\n{oops\n" + JSONL[1], ["line 2", "not valid JSON at character 2", "json.dumps"], {}),
    "a line cut short": ("my.jsonl", JSONL[0] + "\n" + JSONL[1][:-3], ["line 2", "not valid JSON"], {}),
    "single quotes": ("my.jsonl", "{'text': 'a', 'label': 'b'}\n", ["line 1", "single quotes"], {}),
    "a comma before the bracket": ("my.json", '[{"text": "a", "label": "b"},]', ["comma before a closing"], {}),
    "an array in .jsonl": ("my.jsonl", f"[{JSONL[0]}, {JSONL[1]}]", [".json."], {}),
    "a long array in .jsonl": ("my.jsonl", json.dumps([{"text": "a"}], indent=1), [".json."], {}),
    "objects by line in .json": ("my.json", "\n".join(JSONL), ["Rename", ".jsonl"], {}),
    "an object instead of a list": ("my.json", json.dumps({"rows": [{"text": "a"}]}), ["an object, not a list", "'rows'"], {}),
    "an empty list": ("my.json", "[]", ["has no rows"], {}),
    "a list of texts": ("my.json", '["a", "b"]', ["record 1: text instead of an object"], {}),
    "numbers by line": ("my.jsonl", "1\n2\n", ["line 1: a number instead of an object"], {}),
    "NaN": ("my.jsonl", '{"text": "a", "label": NaN}\n', ["line 1", "NaN is not JSON"], {}),
    "Infinity": ("my.jsonl", '{"text": "a", "label": -Infinity}\n', ["-Infinity is not JSON"], {}),
    "a number beyond floats": ("my.jsonl", '{"text": "a", "label": 1e999}\n', ["line 1", "not a finite number"], {}),
    "a huge integer": ("my.jsonl", '{"text": "a", "label": ' + "9" * 5000 + "}\n", ["line 1", "more digits"], {}),
    "deep nesting": ("my.jsonl", JSONL[0] + "\n" + "[" * 200_000 + "\n", ["line 2", "nested too deeply"], {}),
    "deep nesting in a list": ("my.json", '[{"text": ' + "[" * 200_000, ["record 1", "nested too deeply"], {}),
    "a bad record in a list": ("my.json", "[" + ",".join(JSONL[:4]) + ', {"text": NaN}]', ["record 5", "NaN is not JSON"], {}),
    "a key twice": ("my.jsonl", '{"text": "a", "label": "b", "text": "c"}\n', ["line 1", "'text' stands twice"], {}),
    "a lone surrogate": ("my.jsonl", '{"text": "a\\ud83d", "label": "b"}\n', ["line 1", "surrogate"], {}),
    "an escaped NUL": ("my.jsonl", '{"text": "a\\u0000b", "label": "b"}\n', ["line 1", "NUL"], {}),
    "a number among texts": ("my.jsonl", "\n".join([*JSONL[:5], '{"text": "a", "label": 3}']), ["line 6", "the number 3", "text in most"], {}),
    "a text among numbers": ("my.jsonl", rows(text="a{}", label=1) + '{"text": "b", "label": "x"}', ["line 4", "'x'", "number in most"], {}),
    "a number for a prompt": ("my.jsonl", rows(text=5, label="a"), ["line 1: the prompt (column 'text') is a number"], {}),
    "a list for an answer": ("my.jsonl", rows(text="a{}", label=["x"]), ["line 1", "not of one assistant message"], {}),
    "an object for an answer": ("my.jsonl", rows(text="a{}", label={"x": 1}), ["is an object, not text"], {}),
    "true for an answer": ("my.jsonl", rows(text="a{}", label=True), ["is true or false, not text"], {}),
    "null": ("my.jsonl", JSONL[0] + '\n{"text": null, "label": "b"}\n', ["line 2", "is null"], {}),
    "a key that one row lacks": ("my.jsonl", JSONL[0] + '\n{"text": "b"}\n' + JSONL[1], ["line 2", "no 'label'"], {}),
    "10 MB in one row": ("my.jsonl", json.dumps({"text": LONG, "label": "a"}), ["line 1", "10,000,000 characters"], {}),
    # chats and preferences
    "chosen and rejected the same": ("my.jsonl", rows(prompt="p{}", chosen="c", rejected="c "), ["3 of 3 rows", "nothing to prefer"], {}),
    "different prompts in a pair": ("my.jsonl", rows(chosen=CHAT, rejected=CHAT[2:]), ["the turns of 'rejected' are assistant user"], {}),
    "a wrong role": ("my.jsonl", chats([{"role": "robot", "content": "{}"}]), ["message 1", "'robot'", "Turns are"], {}),
    "no assistant turn": ("my.jsonl", chats(CHAT[:2]), ["the last turn of 'messages' is the user's"], {}),
    "the last turn is the user's": ("my.jsonl", chats(CHAT[:4]), ["last turn", "user's"], {}),
    "two user turns in a row": ("my.jsonl", chats([CHAT[1], *CHAT[1:3]]), ["user user assistant"], {}),
    "no turns": ("my.jsonl", chats([]), ["are none"], {}),
    "an empty turn": ("my.jsonl", chats([{"role": "user", "content": ""}]), ["content of message 1", "is empty"], {}),
    "a chat as text": ("my.csv", "messages\n[]\n", ["not a list of messages", ".jsonl"], {}),
    "a turn that is text": ("my.jsonl", chats(["hi"]), ["message 1", "is text"], {}),
    "rows swallowed where the label comes first": ("my.csv", 'label,text\nx,a\nx,b\nx,c\nx,d\nx,"e\nx,f\nx,12"\n', ["lines 6 to 8", "other rows"], {}),
    "an option that is no name": ("my.csv", "text,label\n" + GOOD, ["no column 5"], {"prompt": 5}),
    "a system sentence that is none": ("my.csv", "text,label\n" + GOOD, ["system=5"], {"system": 5}),
    "an encoding that is none": ("my.csv", "text,label\n" + GOOD, ["no text encoding 5"], {"encoding": 5}),
    "labels out of range": ("my.csv", "text,label\na,0\nb,1\nc,2\n", ["line 4", "numbered from 0 to 1"], {"labels": ["x", "y"]}),
}  # fmt: skip


def state(*folders):
    """Everything in some folders: names, sizes and times of change."""
    return {path: (path.lstat().st_size, path.lstat().st_mtime_ns)
            for folder in folders for path in Path(folder).rglob("*")}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_malformed_file_is_refused_in_words_and_nothing_is_left_behind(here, name, capfd):
    file, content, wanted, options = REFUSED[name]
    Path(file).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = state(here, os.environ["HOME"])
    text = message_of(file, **options)
    assert state(here, os.environ["HOME"]) == before
    assert not [word for word in wanted if word not in text], text
    if not {"chosen", "system", "encoding"} & set(options) or "named" in name:
        assert file in text
    assert "Traceback" not in text and "csv.Error" not in text and "Exception" not in text
    assert len(text) < 900 and text[-1] in ".)" and "  " not in text.replace("\n  ", "")
    assert capfd.readouterr() == ("", "")


def test_texts_of_several_lines_are_no_swallowed_rows():
    text = "text,label\n" + "".join(f"{a},{b}\n" for a, b in ROWS)
    Path("my.csv").write_text(text + '"Hello,\nlost, I am\n\nYours, late",lost\n"Hi\nlost",late\n')
    data = load("my.csv")
    found = {row["message"] for split in data for row in data[split]}
    assert {"Hello,\nlost, I am\n\nYours, late", "Hi\nlost"} < found


def test_a_damaged_list_of_names_is_told_by_its_own_name():
    Path("my.csv").write_text(CSV)
    for name, content in {"labels.json": b"[oops", "classes.txt": b"caf\xe9"}.items():
        Path(name).write_bytes(content)
        assert name in message_of("my.csv")
        assert load("my.csv", labels=False)["train"].num_rows == 54
        Path(name).unlink()


def test_there_are_many_malformed_inputs_and_their_good_twin_loads():
    assert len(REFUSED) >= 60
    Path("my.csv").write_text("text,label\n" + GOOD)
    assert sum(map(len, load("my.csv").values())) == 3


def test_all_bad_rows_are_told_at_once():
    Path("my.csv").write_text("text,label\n" + "".join(f"{'' if i % 2 else i},x\n" for i in range(40)))
    text = message_of("my.csv")
    assert "20 of 40 rows cannot be used" in text and "and 15 more" in text and text.count("line ") == 5
    assert text.count("Fill it in") == 1


# ---- what is no readable file


def fifo():
    os.mkfifo("my.csv")


def loop():
    Path("my.csv").symlink_to("other.csv")
    Path("other.csv").symlink_to("my.csv")


def folder_with(*names):
    def make():
        Path("my.csv").mkdir()
        for name in names:
            path = Path("my.csv", name)
            path.mkdir() if name.endswith("/") else path.write_text(CSV)

    return make


def nested():
    Path("my.csv/raw").mkdir(parents=True)
    Path("my.csv/raw/train.csv").write_text(CSV)


def fifo_inside():
    Path("my.csv").mkdir()
    os.mkfifo("my.csv/train.csv")


def sparse():
    with open("my.csv", "wb") as file:
        file.truncate(reading.MOST_BYTES + 1)


# what is made in place of my.csv, what the message must say
PLACES = {
    "named pipe": (fifo, ["a named pipe, not a file"]),
    "named pipe in a folder": (fifo_inside, ["my.csv/train.csv is a named pipe"]),
    "link in a circle": (loop, ["leads back to itself"]),
    "broken link": (lambda: Path("my.csv").symlink_to("gone.csv"), ["a link to gone.csv, which does not exist"]),
    "link to a device": (lambda: Path("my.csv").symlink_to("/dev/zero"), ["a device, not a file"]),
    "empty folder": (folder_with(), ["folder my.csv is empty"]),
    "folder without data": (folder_with("README.md", "model.bin"), ["no data files, only 'README.md', 'model.bin'"]),
    "folder of names only": (folder_with("labels.json"), ["no data files"]),
    "folder whose data lies deeper": (nested, ["name my.csv/raw"]),
    "folder with two train files": (folder_with("train.csv", "train.jsonl"), ["2 files for train"]),
    "folder without train": (folder_with("test.csv", "dev.csv"), ["no training rows", "'dev.csv', 'test.csv'"]),
    "file too large to read": (sparse, ["500 MB", "head -n"]),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_what_is_no_readable_file_is_refused_without_waiting_for_it(here, name):
    make, wanted = PLACES[name]
    make()
    before = state(here, os.environ["HOME"])
    text = []
    worker = threading.Thread(target=lambda: text.append(message_of("my.csv")), daemon=True)
    worker.start()
    worker.join(20)
    assert text, f"{name}: still waiting"
    assert not [word for word in wanted if word not in text[0]], text[0]
    assert state(here, os.environ["HOME"]) == before


def test_a_file_without_permission_is_refused(monkeypatch):
    Path("my.csv").write_text(CSV)
    if os.geteuid() == 0:  # root may read everything, so the refusal has to be played

        def refuse(self):
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "read_bytes", refuse)
    else:
        Path("my.csv").chmod(0)
    assert "may not be read by you" in message_of("my.csv") and "chmod u+r my.csv" in message_of("my.csv")


NAMES = {
    "ticket": ["no data family 'ticket'", "Did you mean 'tickets'?", "Known: tickets"],
    "nonsense": ["no data family 'nonsense'", "Known: tickets"],
    "mydta.csv": ["no file or folder mydta.csv", "Did you mean 'mydata.csv'?"],
    "quite/different.csv": ["no file quite/different.csv", "no folder quite in /"],
    "./zzz.jsonl": ["no file or folder ./zzz.jsonl", "'mydata.csv'"],
    "mydata.csv/train.csv": ["no folder mydata.csv"],
    "~nobody-of-this-name/x.csv": ["cannot be read"],
    "x" * 5000: ["too long for a file name"],
    "my\0data.csv": ["cannot be read"],
    "": ["path of a file or folder"],
    None: ["not None"],
    7: ["not 7"],
    b"mydata.csv": ["not b'mydata.csv'"],
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_stands_for_nothing_is_refused_with_the_nearest(name):
    Path("mydata.csv").write_text(CSV)
    text = message_of(name)
    assert not [word for word in NAMES[name] if word not in text], text
    assert load("mydata.csv")["train"].num_rows == 54


# ---- lengths, training, the hub


def test_rows_that_are_too_long_are_named(tokenizer):
    Path("my.csv").write_text(CSV + f"{'word ' * 3000},other\n")
    text = message_of("my.csv", tokenizer=tokenizer)
    assert text.startswith("my.csv, line 62: ") and "more than the limit of 2,048" in text and "length=" in text
    assert "61 of 61 rows" in message_of("my.csv", tokenizer=tokenizer, length=5)
    assert load("my.csv", tokenizer=tokenizer, length=4000).num_rows["train"] == 55
    Path("pairs.jsonl").write_text(rows(prompt="p{}", chosen="word " * 100, rejected="no"))
    assert "line 1" in message_of("pairs.jsonl", tokenizer=tokenizer, length=80)


def test_the_limit_of_tokens_is_that_of_the_encoded_row_to_the_token(tokenizer):
    from labkit.train.rows import encode

    rows = [{"prompt": [{"role": "user", "content": f"Wo ist mein Päckchen? {'🙂' * n}"}],
             "completion": [{"role": "assistant", "content": "später"}]} for n in (1, 20)]  # fmt: skip
    tokens = len(encode(rows[1], tokenizer))
    own_data.check_lengths(rows, tokenizer, tokens)
    with pytest.raises(LabkitError, match=f"row 1: {tokens} tokens, more than the limit of {tokens - 1}"):
        own_data.check_lengths(rows, tokenizer, tokens - 1)


def test_fit_score_and_trl_s_columns_take_the_rows_unchanged(tokenizer, tiny):
    from labkit import fit, score
    from labkit.tasks import load as course

    Path("my.csv").write_text(CSV)
    data = load("my.csv", system="Answer with the label.")
    run = fit(tiny(), data["train"], tokenizer, steps=2, lr=1e-3, batch=1, length=256, progress=False)
    assert run.steps == 2 and all(loss > 0 for loss in run.losses)
    theirs = course("tickets")["train"].features
    assert {name: data["train"].features[name] for name in ("prompt", "completion", "message", "answer")} == {
        name: theirs[name] for name in ("prompt", "completion", "message", "answer")
    }
    texts = score.__globals__["generate"](
        tiny(), tokenizer, data["test"]["prompt"], max_new_tokens=3, progress=False
    )
    assert own_data.score(texts, data["test"]).exact == 0.0


def test_the_hub_out_of_reach_is_said_so(monkeypatch):
    monkeypatch.setattr("labkit.own_model.hub_answers", lambda: False)
    text = message_of("nobody/nothing-of-this-name")
    assert "nobody/nothing-of-this-name" in text and "hub does not answer" in text and "JSON Lines" in text
    import datasets

    assert datasets.config.HF_HUB_OFFLINE == (os.environ.get("HF_HUB_OFFLINE") == "1")


def test_a_hub_dataset_becomes_rows_and_its_class_labels_their_names(monkeypatch):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    part = datasets.Dataset.from_dict({"text": [f"q{i}" for i in range(30)], "label": [i % 2 for i in range(30)]}, features)
    hub = {"someone/something": datasets.DatasetDict(train=part, dev=part.select(range(3))), "odd/splits": datasets.DatasetDict(a=part, b=part)}
    monkeypatch.setattr("labkit.own_model.hub_answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config=None: hub[name])
    data = load("someone/something", overlap="drop")
    assert own_data.labels(data) == ["no", "yes"]
    row = data["validation"][0]
    assert (row["message"], row["answer"], row["id"]) == ("q0", "no", "something (dev), row 1")
    assert "splits 'a', 'b'" in message_of("odd/splits")
    assert "could not be loaded" in message_of("some/other")


def test_loading_writes_nothing_into_the_home_folder_and_loads_no_torch(here):
    Path("my.csv").write_text(CSV)
    code = ("import sys; from labkit.tasks import own_data; assert 'datasets' not in sys.modules;"
            "assert 'torch' not in sys.modules; print(own_data.load('my.csv')['train'].num_rows)")  # fmt: skip
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    keep |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=keep, capture_output=True, text=True)
    assert done.stdout == "54\n", done.stderr
    assert [path for path in Path(os.environ["HOME"]).rglob("*") if path.is_file()] == []
    assert [path.name for path in here.iterdir()] == ["my.csv"]
