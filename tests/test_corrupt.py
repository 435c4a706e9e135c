"""Noise on demand: `corrupt` damages exactly the stated share of rows, and nothing else."""

import copy
import json
from collections import Counter

import pytest

from labkit.errors import LabkitError
from labkit.tasks import arithmetic, family, load
from labkit.tasks.corrupt import KINDS, OFF_TOPIC, WRONG, corrupt

ANSWER_KINDS = WRONG


def make(answers, **columns):
    """Rows in prompt-completion form with the given answers."""
    system = {"role": "system", "content": "Answer."}
    return [{"prompt": [dict(system), {"role": "user", "content": f"Question {i}?"}],
             "completion": [{"role": "assistant", "content": answer}], "id": i, "gold": answer, **columns}
            for i, answer in enumerate(answers)]  # fmt: skip


PROSE = make([f"The {thing} is on the {place} shelf." for thing, place in
              zip(["stove", "kettle", "mug", "lamp", "rope", "tent", "mat", "axe", "hat", "kite"],
                  ["top", "lower", "left", "right", "middle", "back", "front", "short", "long", "red"],
                  strict=True)] * 4)  # fmt: skip


def text(row):
    return row["completion"][-1]["content"]


@pytest.fixture(scope="module")
def tickets():
    """Training rows of the tickets family, as a Dataset."""
    return load("tickets")["train"].select(range(400))


@pytest.fixture(scope="module")
def sums():
    """Training rows of the arithmetic family with their steps, as a list."""
    rows = arithmetic.build("train", 120)
    return [{"prompt": arithmetic.render(row["question"]),
             "completion": [{"role": "assistant", "content": arithmetic.render_answer(row, "steps")}], **row}
            for row in rows]  # fmt: skip


# ---- which rows


@pytest.mark.parametrize("rate", [0, 0.01, 0.1, 0.25, 1 / 3, 0.5, 0.99, 1])
@pytest.mark.parametrize("kinds", [None, "wrong_label", ["truncated", "off_topic"]])
def test_exactly_the_stated_share_is_damaged_and_the_rest_is_as_before(rate, kinds):
    made = corrupt(PROSE, rate, kinds=kinds)
    damaged = [row for row in made if row["damage"]]
    assert len(made) == len(PROSE) and len(damaged) == round(rate * len(PROSE))
    clean = [(row, before) for row, before in zip(made, PROSE, strict=True) if not row["damage"]]
    assert all(row == {**before, "damage": ""} for row, before in clean)
    assert all({**row, "damage": ""} != {**before, "damage": ""}
               for row, before in zip(made, PROSE, strict=True) if row["damage"])  # fmt: skip


def test_the_kinds_are_used_equally_often():
    for kinds, wanted in ((None, WRONG), (KINDS, KINDS)):
        counts = Counter(row["damage"] for row in corrupt(PROSE, 1.0, kinds=kinds))
        assert set(counts) == set(wanted) and max(counts.values()) - min(counts.values()) <= 1
    assert {row["damage"] for row in corrupt(PROSE, 1.0, kinds="off_topic")} == {"off_topic"}


def test_a_higher_rate_damages_the_same_rows_in_the_same_way_and_more():
    previous = corrupt(PROSE, 0)
    for rate in (0.1, 0.2, 0.55, 1.0):
        made = corrupt(PROSE, rate)
        kept = [row == before for row, before in zip(made, previous, strict=True) if before["damage"]]
        assert all(kept)
        previous = made


def test_the_choice_depends_on_seed_and_task_and_on_nothing_else():
    first = corrupt(PROSE, 0.3, seed=1, task="prose")
    assert first == corrupt(copy.deepcopy(PROSE), 0.3, seed=1, task="prose")
    places = {str([row["damage"] for row in corrupt(PROSE, 0.3, seed=seed, task=task)])
              for seed, task in [(1, "prose"), (2, "prose"), (1, "other"), ("x", "")]}  # fmt: skip
    assert len(places) == 4


def test_the_choice_is_the_same_on_every_machine():
    made = corrupt(PROSE, 0.15, seed=7, kinds=KINDS)
    assert {i: row["damage"] for i, row in enumerate(made) if row["damage"]} == {
        3: "wrong_field", 8: "duplicated", 19: "wrong_label", 29: "off_topic", 32: "near_duplicate",
        37: "truncated"}  # fmt: skip
    assert [text(made[i]) for i in (3, 19, 37)] == [
        "The lamp is on the stove shelf.", "The tent is on the back shelf.", "The axe is"]  # fmt: skip


def test_the_input_stays_as_it_was(tickets):
    rows, before = copy.deepcopy(PROSE), copy.deepcopy(PROSE)
    made = corrupt(rows, 1.0)
    made[0]["completion"][0]["content"] = made[0]["prompt"][0]["content"] = "changed"
    assert rows == before
    first, columns = tickets[0], tickets.column_names
    corrupt(tickets, 1.0)
    assert tickets[0] == first and tickets.column_names == columns


# ---- kinds


@pytest.mark.parametrize("kind", ANSWER_KINDS)
@pytest.mark.parametrize("name", ["tickets", "sums", "prose"])
def test_a_damaged_answer_differs_from_the_gold_and_the_other_columns_keep_it(kind, name, request):
    rows = PROSE if name == "prose" else list(request.getfixturevalue(name))
    for row, before in zip(corrupt(rows, 0.6, kinds=kind), rows, strict=True):
        assert (text(row) != text(before)) == bool(row["damage"])
        assert {**row, "completion": 0, "damage": 0} == {**before, "completion": 0, "damage": 0}


@pytest.mark.parametrize("kind", ANSWER_KINDS)
def test_damaged_tickets_and_sums_are_wrong_by_their_own_scorers(kind, tickets, sums):
    made = corrupt(tickets, 0.5, kinds=kind)
    scores = family("tickets").score([text(row) for row in made], made)
    assert scores.exact_rows == [not row["damage"] for row in made]
    made = corrupt(sums, 0.5, kinds=kind)
    right = arithmetic.score([text(row) for row in made], made).exact_rows
    assert [ok for ok, row in zip(right, made, strict=True) if not row["damage"]] == [True] * 60
    assert sum(ok for ok, row in zip(right, made, strict=True) if row["damage"]) <= (kind == "wrong_label")


def test_a_wrong_label_is_the_answer_of_another_row():
    rows = make(["yes", "no"] * 10)
    made = corrupt(rows, 1.0, kinds="wrong_label")
    assert [text(row) for row in made] == ["no", "yes"] * 10


def test_a_wrong_field_of_tickets_is_one_valid_value_of_another_ticket(tickets):
    task = family("tickets")
    for row in corrupt(tickets, 1.0, kinds="wrong_field"):
        found, gold = task.parse(text(row)), json.loads(row["answer"])
        assert found is not None and list(found) == list(gold)
        assert sum(found[key] != gold[key] for key in gold) == 1


@pytest.mark.parametrize("answer, other", [
    ('{"a": 1, "b": "x y"}', '{"a": 1, "b": "z"}'), ('{"a":1,"b":["x","y"]}', '{"a":1,"b":["z"]}'),
    ('{"b": true, "a": 1}', '{"a": 1, "b": 1}'), ('{"a":1,"b":"\u00e9"}', '{"a":1,"b":null}'),
])  # fmt: skip
def test_a_wrong_field_keeps_the_way_the_object_is_written(answer, other):
    made = text(corrupt(make([answer, other]), 1.0, kinds="wrong_field")[0])
    fields = {**json.loads(answer), "b": json.loads(other)["b"]}
    separators = (", ", ": ") if ": " in answer else (",", ":")
    assert made == json.dumps(fields, separators=separators, ensure_ascii=False)


def test_without_an_object_a_wrong_field_changes_one_digit_of_the_last_number(sums):
    for row, before in zip(corrupt(sums, 1.0, kinds="wrong_field"), sums, strict=True):
        body, _, number = text(row).rpartition("Answer: ")
        assert body == text(before).rpartition("Answer: ")[0] and len(number) == len(before["answer"])
        assert sum(a != b for a, b in zip(number, before["answer"], strict=True)) == 1
        assert number == str(int(number))


def test_without_a_number_a_wrong_field_changes_one_word():
    words = {word.strip(".") for row in PROSE for word in text(row).lower().split()}
    for row, before in zip(corrupt(PROSE, 1.0, kinds="wrong_field"), PROSE, strict=True):
        pairs = list(zip(text(row).split(), text(before).split(), strict=True))
        changed = [(a, b) for a, b in pairs if a != b]
        assert len(changed) == 1 and changed[0][0].strip(".").lower() in words


def test_a_truncated_answer_is_a_beginning_of_the_gold(sums):
    made = corrupt(sums, 1.0, kinds="truncated")
    shares = [len(text(row)) / len(text(before)) for row, before in zip(made, sums, strict=True)]
    assert all(text(before).startswith(text(row)) for row, before in zip(made, sums, strict=True))
    assert 0.25 < min(shares) < 0.4 and 0.7 < max(shares) <= 0.8
    assert [text(row) for row in corrupt(make(["7", "ab"]), 1.0, kinds="truncated")] == ["", "a"]


def test_a_duplicate_is_an_exact_copy_of_another_row(tickets):
    made = corrupt(tickets, 0.5, kinds="duplicated").to_list()
    known = {row["id"]: row for row in tickets}
    copies = [(row, before) for row, before in zip(made, tickets, strict=True) if row["damage"]]
    assert all({**known[row["id"]], "damage": "duplicated"} == row for row, _ in copies)
    assert all(row["id"] != before["id"] for row, before in copies)


def test_a_near_duplicate_differs_from_another_row_only_in_its_prompt(tickets):
    made = corrupt(tickets, 0.5, kinds="near_duplicate").to_list()
    known = {row["id"]: row for row in tickets}
    for row, before in zip(made, tickets, strict=True):
        if row["damage"]:
            donor = known[row["id"]]
            assert row["id"] != before["id"] and row["prompt"] != donor["prompt"]
            assert {**donor, "prompt": 0, "damage": "near_duplicate"} == {**row, "prompt": 0}
            new, old = row["prompt"][-1]["content"], donor["prompt"][-1]["content"]
            assert row["prompt"][:-1] == donor["prompt"][:-1]
            assert abs(len(new) - len(old)) <= 7 and old.lower().rstrip(".!?") in new.lower()


def test_an_off_topic_answer_shares_nothing_with_the_task(tickets):
    made = corrupt(tickets, 1.0, kinds="off_topic")
    assert {text(row) for row in made} == set(OFF_TOPIC)
    assert text(corrupt(make([OFF_TOPIC[0]]), 1.0, kinds="off_topic")[0]) != OFF_TOPIC[0]


# ---- types


def test_a_dataset_gives_a_dataset_and_a_list_a_list(tickets):
    made = corrupt(tickets, 0.2)
    assert type(made) is type(tickets) and made.column_names == [*tickets.column_names, "damage"]
    assert {name: made.features[name] for name in tickets.features} == dict(tickets.features)
    assert made.to_list() == corrupt(tickets.to_list(), 0.2)
    assert type(corrupt(PROSE, 0.2)) is list and type(corrupt(tuple(PROSE), 0.2)) is list


def test_only_the_last_message_of_a_longer_conversation_is_damaged():
    rows = make(["one", "two", "three"])
    for row in rows:
        row["prompt"] += [{"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Again?"}]
    for row, before in zip(corrupt(rows, 1.0, kinds="near_duplicate"), rows, strict=True):
        assert row["prompt"][:-1] == before["prompt"][:1] + row["prompt"][1:-1]
        assert row["prompt"][2]["content"] == "Yes?" and "again" in row["prompt"][3]["content"].lower()
        assert row["prompt"][3]["content"] != "Again?"


# ---- refusals


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), "0.1", None])
def test_a_rate_outside_0_to_1_is_refused(rate):
    with pytest.raises(LabkitError, match="rate is"):
        corrupt(PROSE, rate)


@pytest.mark.parametrize("kinds", ["noise", ["truncated", "noise"], [], [3]])
def test_unknown_kinds_are_refused_with_the_known_ones(kinds):
    with pytest.raises(LabkitError, match="wrong_label, wrong_field"):
        corrupt(PROSE, 0.1, kinds=kinds)


@pytest.mark.parametrize("rows, named", [
    ([], "no rows"), ([{"prompt": "Hello", "completion": "Yes"}], "Row 0"), ([{"text": "x"}], "Row 0"),
    ([3], "Row 0"),
    (make(["a", ""]), "Row 1"), ([{**PROSE[0], "prompt": []}], "Row 0"), (make(["a"], damage=""), "already"),
])  # fmt: skip
def test_rows_that_cannot_be_damaged_are_refused(rows, named):
    with pytest.raises(LabkitError, match=named):
        corrupt(rows, 0.5)


@pytest.mark.parametrize("kind, answers", [
    ("wrong_label", ["same", "same"]), ("wrong_field", ["same", "same"]), ("duplicated", ["one"]),
    ("near_duplicate", ["one"]),
])  # fmt: skip
def test_rows_that_offer_no_wrong_answer_are_refused(kind, answers):
    with pytest.raises(LabkitError, match="more rows"):
        corrupt(make(answers), 1.0, kinds=kind)
    assert len(corrupt(make(answers), 0.0, kinds=kind)) == len(answers)
