"""The tickets family: its builder, its rows, its loader and its scorer."""

import copy
import gzip
import json
import math
import os
import re
import shutil
import subprocess
import sys

import pytest

from labkit.errors import LabkitError
from labkit.paths import ROOT
from labkit.tasks import files, load
from labkit.tasks import tickets as t
from labkit.tasks.duplicates import near_duplicates
from labkit.tasks.tickets import card as c
from labkit.tasks.tickets import grammar as g
from labkit.tasks.tickets.answers import URGENCIES
from labkit.tasks.tickets.builder import templates_for
from labkit.tasks.tickets.prompts import INSTRUCTIONS
from labkit.tasks.tickets.rules import FACT_KEYS, INTENTS, NEEDS, NOISE, SPLITS


@pytest.fixture(scope="module")
def rows():
    return {split: t.read(split) for split in SPLITS}


# ---- builder and files


@pytest.mark.parametrize("split", list(SPLITS))
def test_the_builder_reproduces_the_committed_bytes(split):
    committed = gzip.decompress((t.FOLDER / f"{split}.jsonl.gz").read_bytes())
    assert files.dump(t.build(split, SPLITS[split])) == committed
    assert files.dump(t.build(split, 50, seed=1)) != files.dump(t.build(split, 50))


def test_fewer_rows_are_the_first_of_more_rows():
    assert t.build("train", 40) == t.build("train", 90)[:40]
    assert t.build("test", 7, seed="x") == t.build("test", 30, seed="x")[:7]


def test_less_diversity_means_a_nested_subset_of_phrasings():
    few = {row["phrasing"] for row in t.build("train", 600, diversity=0.1)}
    more = {name for pairs in templates_for("train", 0.3).values() for name, _ in pairs}
    assert few < more
    assert len(few) == sum(math.ceil(0.1 * len(pairs)) for pairs in templates_for("train").values())


@pytest.mark.parametrize("arguments", [("dev", 5), ("train", 5, 0, 0.0), ("train", 5, 0, 1.5)])
def test_a_wrong_split_or_diversity_is_refused(arguments):
    with pytest.raises(LabkitError, match=r"dev|diversity"):
        t.build(*arguments)


def test_no_more_messages_is_an_error_and_not_an_endless_loop(monkeypatch):
    for noise in NOISE:
        monkeypatch.setitem(NOISE, noise, (0, 0, 0))
    monkeypatch.setattr("labkit.tasks.tickets.customer.GIVEN", dict.fromkeys(INTENTS, (0, 0, 0, 0)))
    monkeypatch.setattr("labkit.tasks.tickets.customer.URGENCY_SHARES", {"normal": 1.0})
    monkeypatch.setattr("labkit.tasks.tickets.customer.held_out", lambda *_: False)
    with pytest.raises(LabkitError, match="ask for fewer"):
        t.build("validation", 4000)


def test_the_files_are_small():
    assert sum(path.stat().st_size for path in t.FOLDER.iterdir()) < 900_000


def test_the_data_card_is_up_to_date():
    assert (t.FOLDER / "README.md").read_text() == c.card()


# ---- the splits


def test_no_message_occurs_twice(rows):
    messages = [row["message"] for split in SPLITS for row in rows[split]]
    assert len(set(messages)) == len(messages) == 9500
    ids = [row["id"] for split in SPLITS for row in rows[split]]
    assert len(set(ids)) == len(ids)


def test_no_test_row_is_nearly_a_training_row(rows):
    train = [row["message"] for row in rows["train"]]
    test = [row["message"] for row in rows["test"]]
    assert near_duplicates(test, train) == []
    planted = train[17] + " Thank you again."
    assert [j for _, j, _ in near_duplicates([planted], train, 0.6)] == [17]


def test_test_phrasings_products_and_combinations_are_unseen(rows):
    seen = {split: {row["phrasing"] for row in rows[split]} for split in SPLITS}
    assert not seen["test"] & seen["train"]
    assert seen["validation"] <= seen["train"]
    for split in ("train", "validation"):
        products = {row["answer"].get("product") for row in rows[split]}
        assert not products & set(g.TEST_PRODUCTS)
        text = " ".join(row["message"].lower() for row in rows[split])
        assert not [p for p in g.TEST_PRODUCTS if p.lower() in text]
        assert not any(map(c.combination, rows[split]))
    assert set(g.TEST_PRODUCTS) <= {row["answer"].get("product") for row in rows["test"]}
    assert 0.05 < sum(map(c.combination, rows["test"])) / 5000 < 0.15


def test_each_intent_has_enough_phrasings_and_products_have_distinct_first_words():
    assert min(map(len, g.TRAIN_TEMPLATES.values())) >= 25
    assert min(map(len, g.TEST_TEMPLATES.values())) >= 10
    for intent in INTENTS:
        assert not {x for _, x in g.TRAIN_TEMPLATES[intent]} & {x for _, x in g.TEST_TEMPLATES[intent]}
    words = [product.split()[0] for product in g.PRODUCTS]
    assert len(set(words)) == len(words)
    assert 0.15 < len(g.TEST_PRODUCTS) / len(g.PRODUCTS) < 0.25


def test_classes_are_balanced(rows):
    for split in SPLITS:
        n = len(rows[split])
        for intent in INTENTS:
            assert sum(row["answer"]["intent"] == intent for row in rows[split]) == n / len(INTENTS)
        shares = {u: sum(row["answer"]["urgency"] == u for row in rows[split]) / n for u in URGENCIES}
        assert 0.12 < shares["low"] < 0.25 and 0.15 < shares["high"] < 0.30 and shares["normal"] < 0.70
        for key, low, high in [("product", 0.55, 0.75), ("order", 0.50, 0.67), ("quantity", 0.15, 0.27),
                               ("date", 0.33, 0.46)]:
            assert low < sum(key in row["answer"] for row in rows[split]) / n < high
        assert 0.6 < sum(not row["answer"]["missing"] for row in rows[split]) / n < 0.8


# ---- every value can be read off the message


def named(product, message):
    """Does the message name the product: in full, or by its first word with at most one slip?"""
    word = product.split()[0].lower()
    if product in g.TEST_PRODUCTS:
        return product.lower() in message.lower()
    forms = {word} | {word[:i] + word[i + 1:] for i in range(len(word))} | {
        word[:i] + word[i] + word[i:] for i in range(len(word))} | {
        word[:i] + word[i + 1] + word[i] + word[i + 2:] for i in range(len(word) - 1)}
    return any(form in message.lower() for form in forms)


def complaints(row):
    """What a careful reader could not find in the message."""
    message, answer = row["message"].lower(), row["answer"]
    out = []
    if "product" in answer and not named(answer["product"], message):
        out.append("product")
    if "order" in answer and not re.search(rf"(?<!\d){answer['order'][1:]}(?!\d)", message):
        out.append("order")
    if "date" in answer:
        month, day = map(int, answer["date"].split("-"))
        name = g.MONTHS[month - 1].lower()
        near = rf"\b{day}(st|nd|rd|th)?\s+(of )?{name[:3]}|{name[:3]}[a-z]* (the )?{day}(st|nd|rd|th)?\b"
        if not re.search(near, message):
            out.append("date")
    if "quantity" in answer:
        words = {2: "couple|pair", 6: "half a dozen", 12: "a dozen"}.get(answer["quantity"], "-")
        number = g.NUMBER_WORDS[answer["quantity"]]
        if not re.search(rf"\b({words}|{number}|{answer['quantity']})\b", message):
            out.append("quantity")
    if answer["missing"] != [k for k in NEEDS[answer["intent"]] if k not in answer]:
        out.append("missing")
    return out


def test_every_value_can_be_found_in_its_message(rows):
    for split in SPLITS:
        assert [(row["id"], complaints(row)) for row in rows[split] if complaints(row)] == []


@pytest.mark.parametrize("key, value", [("product", "Atoll fins"), ("order", "N00000"), ("quantity", 11),
                                        ("date", "02-30"), ("missing", ["quantity"])])
def test_a_value_that_is_not_in_the_message_is_noticed(rows, key, value):
    row = copy.deepcopy(next(row for row in rows["train"] if set(FACT_KEYS) <= set(row["answer"])))
    assert complaints(row) == []
    row["answer"][key] = value
    assert key in complaints(row)


def test_absent_facts_are_absent_and_urgency_has_its_cue(monkeypatch):
    """Without noise the cues stand word for word, so that their absence can be checked too."""
    for noise in NOISE:
        monkeypatch.setitem(NOISE, noise, (0.0, 0.0, 0.0))
    cues = {u: sum((*g.URGENCY[u], *g.URGENCY_PREFIX[u]), []) for u in ("low", "high")}
    month = "|".join([*g.MONTHS, *(name[:3] for name in g.MONTHS)])
    date = rf"\d(st|nd|rd|th)?( of)? ({month})\b|\b({month}) (the )?\d"
    for split in ("train", "test"):
        for row in t.build(split, 400, seed="clean"):
            message, answer = row["message"], row["answer"]
            found = {u for u in cues if any(cue in message for cue in cues[u])}
            assert found == {answer["urgency"]} - {"normal"}, message
            assert bool(re.search(r"\d{5}", message)) == ("order" in answer), message
            assert bool(re.search(date, message)) == ("date" in answer), message
            first_words = {p.split()[0] for p in g.PRODUCTS}
            assert bool(first_words & set(re.findall(r"\w+", message))) == ("product" in answer), message


# ---- loading


def test_load_gives_prompt_completion_rows():
    data = load("tickets")
    assert {split: len(data[split]) for split in data} == SPLITS
    row = data["train"][0]
    assert list(row) == ["prompt", "completion", "id", "phrasing", "message", "answer"]
    assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]
    assert row["prompt"] == t.render(row["message"])
    assert row["completion"] == [{"role": "assistant", "content": row["answer"]}]
    assert t.parse(row["answer"]) == t.build("train", 1)[0]["answer"]


def test_loading_writes_nothing_into_the_home_folder(tmp_path):
    code = "from labkit.tasks import load; print(load('tickets')['validation'].num_rows)"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "500\n", done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_unknown_family_is_refused_with_the_known_ones():
    with pytest.raises(LabkitError, match="tikets.*Known: tickets"):
        load("tikets")


def test_a_missing_or_damaged_file_is_refused(tmp_path):
    folder = tmp_path / "tickets"
    with pytest.raises(LabkitError, match="missing"):
        t.read("train", folder)
    shutil.copytree(t.FOLDER, folder)
    assert len(t.read("validation", folder)) == 500
    path = folder / "validation.jsonl.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LabkitError, match="cannot be read"):
        t.read("validation", folder)
    path.write_bytes(gzip.compress(gzip.decompress(whole).replace(b'"high"', b'"low"', 1)))
    with pytest.raises(LabkitError, match="SHA-256"):
        t.read("validation", folder)


# ---- scoring

GOLD = {"intent": "return", "product": "Ember stove", "order": "N48213", "quantity": 2, "urgency": "high",
        "missing": []}
GOOD = t.render_answer(GOLD)


def one(text):
    return t.score([text], [{"answer": GOLD}])


def test_the_gold_answers_score_full_marks(rows):
    scores = t.score([t.render_answer(row["answer"]) for row in rows["test"]], rows["test"])
    assert (scores.exact, scores.valid, scores.parses, scores.n) == (1.0, 1.0, 1.0, 5000)
    assert scores.fields == dict.fromkeys(t.KEYS, 1.0)


@pytest.mark.parametrize("text", [
    GOOD, f"  {GOOD}\n", json.dumps(GOLD, indent=2), json.dumps(dict(reversed(GOLD.items()))),
])
def test_spaces_and_the_order_of_keys_do_not_matter(text):
    assert one(text).exact == 1.0


# name -> (text, parses, valid)
WRONG = {
    "empty": ("", False, False),
    "prose before": (f"Here it is: {GOOD}", False, False),
    "prose after": (f"{GOOD} I hope this helps.", False, False),
    "code fence": (f"```json\n{GOOD}\n```", False, False),
    "two objects": (GOOD + GOOD, False, False),
    "cut short": (GOOD[:-1], False, False),
    "single quotes": (GOOD.replace('"', "'"), False, False),
    "trailing comma": (GOOD[:-1] + ",}", False, False),
    "duplicate key": (GOOD[:-1] + ',"urgency":"high"}', False, False),
    "NaN": (GOOD.replace(":2,", ":NaN,"), False, False),
    "deep nesting": ("[" * 100_000, False, False),
    "a list": (f"[{GOOD}]", False, False),
    "extra key": (GOOD[:-1] + ',"note":"x"}', True, False),
    "missing key": (GOOD.replace(',"urgency":"high"', ""), True, False),
    "number as text": (GOOD.replace(":2,", ':"2",'), True, False),
    "float": (GOOD.replace(":2,", ":2.0,"), True, False),
    "true for one": (GOOD.replace(":2,", ":true,"), True, False),
    "null": (GOOD.replace(":2,", ":null,"), True, False),
    "zero pieces": (GOOD.replace(":2,", ":0,"), True, False),
    "unknown intent": (GOOD.replace('"return"', '"complain"'), True, False),
    "order without letter": (GOOD.replace("N48213", "48213"), True, False),
    "order with line break": (GOOD.replace("N48213", "N48213\\n"), True, False),
    "impossible date": (GOOD[:-1] + ',"date":"13-01"}', True, False),
    "missing repeated": (GOOD.replace("[]", '["date","date"]'), True, False),
    "missing holds a list": (GOOD.replace("[]", '[["date"]]'), True, False),
    "wrong order number": (GOOD.replace("48213", "48231"), True, True),
    "wrong intent": (GOOD.replace('"return"', '"refund"'), True, True),
    "product in small letters": (GOOD.replace("Ember", "ember"), True, True),
    "value too few": (GOOD.replace('"quantity":2,', ""), True, True),
    "value too many": (GOOD[:-1] + ',"date":"03-01"}', True, True),
    "missing too many": (GOOD.replace("[]", '["date"]'), True, True),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_fails(name):
    text, parses, valid = WRONG[name]
    scores = one(text)
    assert (scores.exact, scores.parses, scores.valid) == (0.0, float(parses), float(valid))
    assert scores.exact_rows == [False] and scores.valid_rows == [valid]
    assert (t.parse(text) is not None) == valid


def test_fields_are_scored_one_by_one():
    scores = one(WRONG["wrong order number"][0])
    assert scores.fields == {**dict.fromkeys(t.KEYS, 1.0), "order": 0.0}
    assert set(one("no JSON").fields.values()) == {0.0}


def test_the_schema_says_the_same_as_the_validator():
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(t.SCHEMA)
    for name in ["extra key", "missing key", "number as text", "true for one", "null", "zero pieces",
                 "unknown intent", "order without letter", "impossible date", "missing repeated",
                 "wrong order number", "value too many"]:
        text, _, valid = WRONG[name]
        assert check.is_valid(json.loads(text)) == valid, name


def test_scoring_needs_one_text_a_row():
    with pytest.raises(LabkitError, match="one text a row"):
        t.score([GOOD], [])
    with pytest.raises(LabkitError, match="2 texts against 1 rows"):
        t.score([GOOD, GOOD], [{"answer": GOLD}])


# ---- prompts


@pytest.mark.parametrize("name", list(t.PROMPTS))
def test_each_prompt_ends_with_the_message_and_shows_only_training_rows(name, rows):
    message = rows["test"][0]["message"]
    turns = t.PROMPTS[name](rows["train"])(message)
    assert turns[0]["role"] == "system" and turns[-1]["role"] == "user" and message in turns[-1]["content"]
    assert [turn["role"] for turn in turns[1:]] == (["user", "assistant"] * len(turns))[: len(turns) - 1]
    shown = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    assert all(t.parse(text) for text in shown)
    assert len(shown) == (int(name.split()[-2]) if name.endswith("examples") else 0)
    assert len({t.parse(text)["intent"] for text in shown}) == min(len(shown), len(INTENTS))


def test_ten_examples_show_every_intent_urgency_and_optional_field(rows):
    answers = [row["answer"] for row in t.examples(rows["train"], 10)]
    assert {answer["intent"] for answer in answers} == set(INTENTS)
    assert {answer["urgency"] for answer in answers} == {"low", "normal", "high"}
    assert {key for answer in answers for key in answer} == set(t.KEYS)
    assert any(answer["missing"] for answer in answers) and not all(answer["missing"] for answer in answers)


def test_the_full_instructions_state_every_intent_and_need():
    for intent, needs in NEEDS.items():
        assert f"{intent}: {', '.join(needs)}" in INSTRUCTIONS


def test_too_few_training_rows_for_the_examples_is_an_error(rows):
    with pytest.raises(LabkitError, match="pass more rows"):
        t.PROMPTS["full instructions and 10 examples"](rows["train"][:4])
