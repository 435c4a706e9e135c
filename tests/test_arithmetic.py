"""The arithmetic family: its builder, its steps, its three forms and its scorer."""

import gzip
import re
import shutil
from collections import Counter

import pytest

from labkit.errors import LabkitError
from labkit.tasks import arithmetic as m
from labkit.tasks import files
from labkit.tasks.arithmetic import card, phrases
from labkit.tasks.arithmetic.builder import identity, phrasings_for
from labkit.tasks.arithmetic.steps import LETTERS, filler, partial_results, terms, working
from labkit.tasks.duplicates import near_duplicates


@pytest.fixture(scope="module")
def rows():
    return {split: m.read(split) for split in m.SPLITS}


# ---- builder and files


@pytest.mark.parametrize("split", list(m.SPLITS))
def test_the_builder_reproduces_the_committed_bytes(split):
    committed = gzip.decompress((m.FOLDER / f"{split}.jsonl.gz").read_bytes())
    assert files.dump(m.stored(m.build(split, m.SPLITS[split]))) == committed
    assert m.build(split, 30, seed=1) != m.build(split, 30)


def test_reading_gives_the_rows_as_built(rows):
    assert rows["validation"] == m.build("validation", m.SPLITS["validation"])
    assert "steps" not in m.stored(rows["validation"])[0]


def test_fewer_rows_are_the_first_of_more_rows():
    assert m.build("train", 40) == m.build("train", 90)[:40]
    assert m.build("test", 7, seed="x", digits=(3, 4)) == m.build("test", 30, seed="x", digits=(3, 4))[:7]


def test_less_diversity_means_a_nested_subset_of_phrasings():
    few, more = phrasings_for("train", 0.1), phrasings_for("train", 0.4)
    for kind in phrases.TRAIN:
        assert set(few[kind]) < set(more[kind]) < set(phrases.TRAIN[kind])
    used = {row["phrasing"] for row in m.build("train", 600, diversity=0.1)}
    assert used == {name for items in few.values() for name, _, _ in items}
    assert m.build("test", 50, diversity=0.1) == m.build("test", 50)


@pytest.mark.parametrize("arguments, named", [
    ({"split": "dev", "n": 5}, "no split 'dev'"), ({"split": "train", "n": -1}, "-1 rows"),
    ({"split": "train", "n": 5, "diversity": 0.0}, "diversity is 0.0"),
    ({"split": "train", "n": 5, "diversity": 1.5}, "diversity is 1.5"),
    ({"split": "train", "n": 5, "digits": ()}, r"digits is \(\)"),
    ({"split": "train", "n": 5, "digits": 3}, "is 3"), ({"split": "train", "n": 5, "digits": (3, 7)}, "7"),
    ({"split": "train", "n": 5, "digits": ("3",)}, "'3'"),
])  # fmt: skip
def test_a_wrong_argument_is_refused(arguments, named):
    with pytest.raises(LabkitError, match=named):
        m.build(**arguments)


def test_no_more_questions_is_an_error_and_not_an_endless_loop():
    with pytest.raises(LabkitError, match="ask for fewer"):
        m.build("train", 2000, digits=(1,), diversity=0.01)


def test_the_files_are_small():
    assert 50_000 < sum(path.stat().st_size for path in m.FOLDER.iterdir()) < 300_000


def test_the_data_card_is_up_to_date():
    assert (m.FOLDER / "README.md").read_text() == card.card()


def test_a_damaged_file_is_refused(tmp_path):
    folder = tmp_path / "arithmetic"
    shutil.copytree(m.FOLDER, folder)
    assert len(m.read("validation", folder)) == m.SPLITS["validation"]
    path = folder / "validation.jsonl.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"7", b"8", 1)))
    with pytest.raises(LabkitError, match="SHA-256.*labkit.tasks.arithmetic"):
        m.read("validation", folder)


# ---- the splits


def test_no_question_and_no_calculation_occurs_in_two_splits(rows):
    questions = [row["question"] for split in m.SPLITS for row in rows[split]]
    assert len(set(questions)) == len(questions) == sum(m.SPLITS.values())
    sums = {split: {identity(row["calculation"]) for row in rows[split]} for split in m.SPLITS}
    assert not sums["train"] & sums["test"] and not sums["validation"] & (sums["train"] | sums["test"])
    other = {identity(row["calculation"]) for row in m.build("test", 900, seed=5, digits=(2,))}
    assert not other & {identity(row["calculation"]) for row in m.build("train", 900, seed=6, digits=(2,))}
    assert other & {identity(row["calculation"]) for row in m.build("test", 900, seed=6, digits=(2,))}
    assert identity("34+7") == identity("7+34") != identity("34-7") == "34-7"


def test_no_test_row_is_nearly_a_training_row(rows):
    train = [row["question"] for row in rows["train"]]
    assert near_duplicates([row["question"] for row in rows["test"]], train) == []
    word = next(i for i, row in enumerate(rows["train"]) if row["kind"] == "word")
    planted = re.sub(r"\d", "7", train[word])
    assert near_duplicates([planted], train) != []


def test_test_phrasings_goods_people_and_places_are_unseen(rows):
    seen = {split: {row["phrasing"] for row in rows[split]} for split in m.SPLITS}
    assert not seen["test"] & seen["train"] and seen["validation"] <= seen["train"]
    train, test = ({line for items in half.values() for _, _, line in items}
                   for half in (phrases.TRAIN, phrases.TEST))  # fmt: skip
    assert len(train) == 107 and len(test) == 41 and not train & test
    unseen = phrases.TEST_SMALL + phrases.TEST_GOODS + phrases.TEST_NAMES + phrases.TEST_TOWNS
    text = " ".join(row["question"] for split in ("train", "validation") for row in rows[split])
    assert not [word for word in unseen if word in text]
    assert all(word in " ".join(row["question"] for row in rows["test"]) for word in unseen)


def test_there_are_enough_phrasings_and_kinds_and_lengths_are_balanced(rows):
    scenes = {half: len(table["word1"]) + len(table["word2"]) for half, table in
              [("train", phrases.TRAIN), ("test", phrases.TEST)]}  # fmt: skip
    assert scenes["train"] >= 60 and scenes["test"] >= 24
    for split in m.SPLITS:
        pairs = Counter((row["kind"], row["digits"]) for row in rows[split])
        assert set(pairs) == {(kind, length) for kind in m.KINDS for length in m.DIGITS[split]}
        assert max(pairs.values()) - min(pairs.values()) <= 1
        assert all(max(len(str(number)) for _, number in terms(row["calculation"])) == row["digits"]
                   for row in rows[split])  # fmt: skip


# ---- every answer can be worked out from the question


def complaints(row):
    """What a careful reader would find wrong with a row."""
    out = []
    numbers = [number for _, number in terms(row["calculation"])]
    if Counter(map(int, re.findall(r"\d+", row["question"]))) != Counter(numbers):
        out.append("numbers")
    # eval is safe here: the calculation is the project's own text, digits and signs
    if str(eval(row["calculation"])) != row["answer"] or int(row["answer"]) < 1:
        out.append("answer")
    if min(partial_results(row["calculation"])) < 1 or min(numbers) < 2:
        out.append("range")
    if not re.fullmatch(r"[A-Z0-9].*[.?]|Solve: .*|.* = \?", row["question"]) or "  " in row["question"]:
        out.append("form")
    return out


def test_every_row_is_right(rows):
    for split in m.SPLITS:
        assert [(row["id"], complaints(row)) for row in rows[split] if complaints(row)] == []


@pytest.mark.parametrize("change, found", [
    ({"answer": "1"}, "answer"), ({"question": "What is 5 + 5?"}, "numbers"),
    ({"calculation": "3-9"}, "range"), ({"question": "what is it"}, "form"),
])  # fmt: skip
def test_a_wrong_row_is_noticed(rows, change, found):
    assert found in complaints({**rows["train"][0], **change})


# ---- steps


def check_steps(text):
    """The result that the steps reach, or None if a line of them is wrong; written apart from the writer."""
    total, first = None, text.split("\n")[0]
    numbers = [re.sub("[a-z]", "", part) for part in re.split("[+-]", first)]
    lines = text.split("\n")
    while "+" in lines[0] or "-" in lines[0]:
        sign = "+" if "+" in lines[0] else "-"
        numbers = lines.pop(0).split(sign)
        left, right = (dict(re.findall(r"([a-z])(\d)", number)) for number in numbers)
        carry, digits = 0, ""
        for letter in LETTERS[: max(len(left), len(right))]:
            top, bottom = int(left.get(letter, 0)), int(right.get(letter, 0))
            top += 10 * (sign == "-" and top < bottom + carry)
            value = top + bottom + carry if sign == "+" else top - bottom - carry
            if lines.pop(0) != f"{letter}{top}{sign}{bottom}{f'{sign}1' if carry else ''}={value}":
                return None
            carry = value // 10 if sign == "+" else top // 10
            digits = str(value % 10) + digits
        total = int(str(carry if sign == "+" else 0) + digits)
        spelt = re.split("[+-]", lines[0])[0]
        if re.sub("[a-z]", "", spelt) != str(total) or spelt[::2] != LETTERS[: len(str(total))][::-1]:
            return None
    return total if len(lines) == 1 else None


def test_the_steps_of_every_row_lead_to_its_answer(rows):
    for split in m.SPLITS:
        assert [row["id"] for row in rows[split] if str(check_steps(row["steps"])) != row["answer"]] == []


def test_the_check_of_the_steps_notices_mistakes():
    good = working("478+356-92")
    assert good.split("\n") == ["c4b7a8+c3b5a6", "a8+6=14", "b7+5+1=13", "c4+3+1=8", "c8b3a4-b9a2", "a4-2=2",
                                "b13-9=4", "c8-0-1=7", "c7b4a2"]  # fmt: skip
    assert check_steps(good) == 742 and check_steps(working("1000-1")) == 999
    for old, new in [("=14", "=13"), ("7+5+1=13", "7+5=12"), ("c8b3a4", "c8b3a5"), ("b13", "b3"),
                     ("c7b4a2", "c7b4")]:  # fmt: skip
        assert check_steps(good.replace(old, new)) != 742, old


# ---- forms


def test_load_gives_prompt_completion_rows_in_three_forms_that_differ_only_in_the_completion(rows, tmp_path):
    files.write(tmp_path, {split: m.stored(rows[split][:9]) for split in m.SPLITS})
    loaded = {form: m.load(form, tmp_path) for form in m.FORMS}
    first = {form: data["test"][3] for form, data in loaded.items()}
    assert all({split: len(data[split]) for split in data} == dict.fromkeys(m.SPLITS, 9)
               for data in loaded.values())  # fmt: skip
    assert {key: first["steps"][key] for key in rows["test"][3]} == rows["test"][3]
    assert list(first["answer"]) == ["prompt", "completion", "id", "phrasing", "question", "answer",
                                     "calculation", "kind", "digits", "steps"]  # fmt: skip
    assert [turn["role"] for turn in first["answer"]["prompt"]] == ["system", "user"]
    assert len({str({**row, "completion": 0}) for row in first.values()}) == 1
    texts = {form: row["completion"][0]["content"] for form, row in first.items()}
    assert texts["answer"] == f"Answer: {first['answer']['answer']}"
    assert texts["steps"] == f"{first['answer']['steps']}\n{texts['answer']}"
    assert texts["filler"].endswith(f" .\n{texts['answer']}")
    assert set(texts["filler"].split("\n")[0]) == {".", " "}
    committed = m.load()
    assert {split: len(committed[split]) for split in committed} == m.SPLITS
    assert committed["train"][0] == loaded["answer"]["train"][0]


@pytest.mark.parametrize("form", ["", "cot", "Answer"])
def test_an_unknown_form_is_refused(rows, form):
    with pytest.raises(LabkitError, match="answer, steps, filler"):
        m.load(form)
    with pytest.raises(LabkitError, match="answer, steps, filler"):
        m.render_answer(rows["train"][0], form)


def test_filler_has_as_many_tokens_as_the_steps_and_the_longest_steps_fit(rows, tokenizer):
    sample = rows["train"][:200] + rows["test"][:200]
    longest = ["999999+999999", "999+999+999", "999+999-999", "100000-99999"]
    sample += [{"steps": working(calculation), "calculation": calculation,
                "answer": str(partial_results(calculation)[-1])} for calculation in longest]  # fmt: skip
    texts = {form: [m.render_answer(row, form) for row in sample] for form in m.FORMS}
    ids = {form: tokenizer(texts[form], add_special_tokens=False).input_ids for form in m.FORMS}
    lengths = {form: list(map(len, ids[form])) for form in m.FORMS}
    assert lengths["filler"] == lengths["steps"] != lengths["answer"]
    assert max(lengths["steps"]) + 1 == 112 <= m.MAX_NEW_TOKENS  # and the end token
    assert max(len(m.render_answer(row, "steps")) for split in rows for row in rows[split]) <= max(
        len(m.render_answer(row, "steps")) for row in sample[-4:])  # fmt: skip
    assert filler("3+4").count(".") == len(working("3+4"))


# ---- scoring

ROW = {"answer": "834", "kind": "add", "digits": 3}


def test_the_gold_answers_of_every_form_score_full_marks(rows):
    for form in m.FORMS:
        scores = m.score([m.render_answer(row, form) for row in rows["test"]], rows["test"])
        assert scores.exact == 1.0 and set(scores.detail.values()) == {1.0}
    assert m.score([m.render_answer(row) for row in rows["test"][1:]], rows["test"][:-1]).exact < 0.05


@pytest.mark.parametrize("text", ["Answer: 834", "Answer:834", "Answer:  834 \n\n", "Answer: 12\nAnswer: 834",
                                  "nonsense Answer: 834", "Answer: 834."])  # fmt: skip
def test_only_what_follows_the_last_mark_counts(text):
    assert m.score([text], [ROW]).exact == 1.0


def test_commas_between_thousands_do_not_count():
    row = {**ROW, "answer": "1234567"}
    assert m.score(["Answer: 1,234,567."], [row]).exact == 1.0
    assert m.score(["Answer: 1,234,56,7", "Answer: 12,34567"], [row, row]).exact == 0.0


@pytest.mark.parametrize("text, answered", [
    ("", 0), ("834", 0), ("answer: 834", 0), ("Answer 834", 0), ("The answer is 834.", 0), ("Answer:", 1),
    ("Answer: 833", 1), ("Answer: 8345", 1), ("Answer: 834..", 1), ("Answer: 834 euros", 1),
    ("Answer: 0834", 1), ("Answer: +834", 1), ("Answer: -834", 1), ("Answer: 8,34", 1), ("Answer: 8 34", 1),
    ("Answer: 834\n834", 1), ("Answer: 834\nAnswer: 12", 1), ("Answer: 834 Answer:", 1),
    ("Answer: \u0668\u0663\u0664", 1),
    ("Answer: **834**", 1), ("Answer: 834.0", 1), ("9" * 100_000, 0), ("Answer: " + "9" * 100_000, 1),
    ("\x00\ud800\U0001f600", 0),
])  # fmt: skip
def test_a_wrong_answer_fails(text, answered):
    scores = m.score([text], [ROW])
    assert scores.exact_rows == [False] and scores.detail["answered"] == answered


def test_the_detail_is_per_kind_and_per_length():
    rows = [ROW, {**ROW, "kind": "word"}, {**ROW, "digits": 5}, ROW]
    scores = m.score(["Answer: 834", "Answer: 1", "Answer: 834", "?"], rows)
    assert scores.exact == 0.5
    assert scores.detail == {"answered": 0.75, "add": 2 / 3, "word": 0.0, "3 digits": 1 / 3, "5 digits": 1.0,
                             "add, 3 digits": 0.5, "add, 5 digits": 1.0, "word, 3 digits": 0.0}  # fmt: skip


def test_scoring_needs_one_text_a_row():
    with pytest.raises(LabkitError, match="2 texts against 1 rows"):
        m.score(["", ""], [ROW])
    with pytest.raises(LabkitError, match="one text a row"):
        m.score([], [])


# ---- prompts


@pytest.mark.parametrize("name, shown", [("one sentence", 0), ("think step by step", 0),
                                         ("4 worked examples", 4), ("8 worked examples", 8)])  # fmt: skip
def test_each_prompt_ends_with_the_question_and_shows_worked_training_rows(name, shown, rows):
    question = rows["test"][0]["question"]
    turns = m.PROMPTS[name](rows["train"])(question)
    assert [turn["role"] for turn in turns] == ["system", *["user", "assistant"] * shown, "user"]
    assert turns[-1]["content"] == question and "Answer: " in turns[0]["content"]
    known = {row["question"]: row for row in rows["train"]}
    for ask, answer in zip(turns[1:-1:2], turns[2:-1:2], strict=True):
        row = known[ask["content"]]
        assert answer["content"].startswith(row["steps"]) and m.score([answer["content"]], [row]).exact == 1.0
    kinds = {known[turn["content"]]["kind"] for turn in turns[1:-1:2]}
    assert kinds == (set(m.KINDS) if shown else set())
    assert list(m.PROMPTS) == ["one sentence", "think step by step", "4 worked examples", "8 worked examples"]


def test_too_few_training_rows_for_the_examples_is_an_error(rows):
    with pytest.raises(LabkitError, match="pass more rows"):
        m.PROMPTS["8 worked examples"](rows["train"][:3])
