"""The handbook family: its facts, documents, questions, loader, scorer and prompts."""

import gzip
import json
import math
import random
import re
import shutil
import string
import subprocess
import sys
from collections import Counter

import pytest

from labkit.errors import LabkitError
from labkit.paths import ROOT
from labkit.tasks import files
from labkit.tasks import handbook as h
from labkit.tasks.duplicates import near_duplicates
from labkit.tasks.handbook import card as c
from labkit.tasks.handbook import search
from labkit.tasks.handbook.phrases import TOPICS
from labkit.tasks.handbook.questions import all_phrasings
from labkit.tasks.handbook.world import facts, gaps, omitted


@pytest.fixture(scope="module")
def rows():
    return {split: h.read(split) for split in h.SPLITS}


@pytest.fixture(scope="module")
def pages():
    return {version: h.documents(version) for version in h.VERSIONS}


# ---- builder and files


@pytest.mark.parametrize("split", list(h.SPLITS))
def test_the_builder_reproduces_the_committed_bytes(split):
    committed = gzip.decompress((h.FOLDER / f"{split}.jsonl.gz").read_bytes())
    assert files.dump(h.build(split, h.SPLITS[split])) == committed
    assert files.dump(h.build(split, 50, seed=1)) != files.dump(h.build(split, 50))


def test_the_documents_are_built_to_the_committed_bytes():
    for part, version in [("documents", "current"), ("documents_before", "before")]:
        committed = gzip.decompress((h.FOLDER / f"{part}.jsonl.gz").read_bytes())
        assert files.dump(h.build_documents(version)) == committed
    assert files.dump(h.build_documents("current")) != committed


def test_fewer_rows_are_the_first_of_more_rows():
    assert h.build("train", 40) == h.build("train", 900)[:40]
    assert h.build("test", 7, seed="x") == h.build("test", 30, seed="x")[:7]
    assert h.build("train", 0) == []


def test_every_fact_comes_once_before_any_comes_twice():
    asked = sum(fact.kind in ("trained", "changed") for fact in facts()) + len(gaps("train"))
    rows = h.build("train", asked + 1)
    assert len({row["fact"] for row in rows[:asked]}) == asked
    assert rows[asked]["fact"] in {row["fact"] for row in rows[:asked]}


def test_the_committed_splits_hold_all_rows_there_are():
    for split in ("train", "test"):
        with pytest.raises(LabkitError, match=f"ask for 0 to {h.SPLITS[split]}"):
            h.build(split, h.SPLITS[split] + 1)
    times = Counter(row["fact"] for row in h.build("train", h.SPLITS["train"]))
    assert set(times.values()) == {4}
    assert set(Counter(row["fact"] for row in h.build("test", h.SPLITS["test"])).values()) == {2}


def test_less_diversity_means_a_nested_subset_of_phrasings():
    sets = [all_phrasings("train", share) for share in (0.25, 0.5, 0.75, 1.0)]
    assert sets[0] < sets[1] < sets[2] < sets[3]
    attributes = sum(len(topic.attributes) for topic in TOPICS.values())
    assert [len(names) for names in sets] == [k * attributes for k in (1, 2, 3, 4)]
    most = h.SPLITS["train"] // 4
    assert {row["phrasing"] for row in h.build("train", most, diversity=0.25)} <= sets[0]
    assert not {row["phrasing"] for row in h.build("train", most)} <= sets[0]
    with pytest.raises(LabkitError, match=f"ask for 0 to {most}"):
        h.build("train", most + 1, diversity=0.25)
    for split in ("validation", "test"):
        assert h.build(split, 50, diversity=0.25) == h.build(split, 50)


@pytest.mark.parametrize(
    "arguments", [("dev", 5), ("train", 5, 0, 0.0), ("train", 5, 0, 1.5), ("train", 9999), ("test", -1)]
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(LabkitError, match=r"dev|diversity is|ask for 0 to"):
        h.build(*arguments)


def test_an_unknown_part_or_version_is_refused():
    with pytest.raises(LabkitError, match="no part 'dev'"):
        h.read("dev")
    for ask in (h.documents, h.build_documents):
        with pytest.raises(LabkitError, match="no version 'next'"):
            ask("next")


def test_a_damaged_file_is_refused(tmp_path):
    folder = tmp_path / "handbook"
    shutil.copytree(h.FOLDER, folder)
    assert len(h.documents(folder=folder)) == len(TOPICS) * 10 + 2
    path = folder / "documents.jsonl.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"shop", b"shed", 1)))
    with pytest.raises(LabkitError, match="SHA-256"):
        h.documents(folder=folder)


def test_the_files_are_small():
    assert 100_000 < sum(path.stat().st_size for path in h.FOLDER.iterdir()) < 500_000


def test_the_data_card_is_up_to_date():
    assert (h.FOLDER / "README.md").read_text() == c.card()


# ---- the splits


def test_no_question_occurs_twice(rows):
    for column in ("question", "id"):
        values = [row[column] for split in h.SPLITS for row in rows[split]]
        assert len(set(values)) == len(values) == sum(h.SPLITS.values())
    assert len({row["fact"] for row in rows["test"]}) < len(rows["test"])


def test_no_phrasing_is_used_by_two_splits(rows):
    names = {split: {row["phrasing"] for row in rows[split]} for split in h.SPLITS}
    assert not names["train"] & names["test"] and not names["train"] & names["validation"]
    assert not names["validation"] & names["test"]
    assert names["train"] == all_phrasings("train") and names["test"] == all_phrasings("test")
    own = [(topic.name, text) for topic in TOPICS.values() for a in topic.attributes
           for q in a.questions.values() for text in q]  # fmt: skip
    assert len(set(own)) == len(own) == len(all_phrasings("train")) * 7 / 4


def test_no_test_or_validation_question_is_nearly_a_training_question(rows):
    train = [row["question"] for row in rows["train"]]
    for split in ("validation", "test"):
        assert near_duplicates([row["question"] for row in rows[split]], train) == []
    planted = train[17].removesuffix("?") + " please?"
    assert [j for _, j, _ in near_duplicates([planted], train, 0.6)] == [17]


def test_gaps_are_not_shared_between_splits(rows):
    asked = {split: {row["fact"] for row in rows[split] if row["kind"] == "absent"} for split in h.SPLITS}
    assert all(asked.values())
    assert not asked["train"] & asked["test"] and not asked["train"] & asked["validation"]
    assert not asked["validation"] & asked["test"]
    for topic in TOPICS.values():
        assert not set(topic.unknown["train"]) & set(topic.unknown["test"])
        assert not set(topic.subjects) & {name for names in topic.unknown.values() for name in names}


def test_every_kind_has_its_share(rows):
    def shares(some):
        count = Counter(row["kind"] for row in some)
        return {kind: count[kind] / len(some) for kind in h.KINDS}

    assert len(facts()) >= 800
    test = shares(rows["test"])
    assert 0.4 < test["trained"] < 0.5 and 0.1 < test["changed"] < 0.15
    assert 0.22 < test["untrained"] < 0.32 and 0.12 < test["absent"] < 0.2
    assert shares(rows["train"])["untrained"] == 0
    assert all(shares(rows["validation"]).values())
    for split in ("validation", "test"):
        assert {row["kind"] for row in rows[split]} == set(h.KINDS)


# ---- the four kinds


def leaks(fact, train):
    """Training rows that ask for a fact, or that give its value to a question about the same subject."""
    questions = {text.format(s=fact.subject).lower() for q in fact.attribute.questions.values() for text in q}
    return [row for row in train if row["fact"] == fact.id or row["question"].lower() in questions
            or (row["fact"].startswith(fact.topic + "/") and fact.subject in row["question"]
                and row["answer"] == fact.value)]  # fmt: skip


def test_nothing_in_training_tells_an_untrained_fact(rows):
    by_topic = {}
    for row in rows["train"]:
        by_topic.setdefault(row["fact"].split("/")[0], []).append(row)
    untrained = [fact for fact in facts() if fact.kind == "untrained"]
    assert len(untrained) > 300
    assert [fact.id for fact in untrained if leaks(fact, by_topic[fact.topic])] == []
    trained = [fact for fact in facts() if fact.kind == "trained"]
    assert all(len(leaks(fact, by_topic[fact.topic])) >= 4 for fact in trained[::20])
    fact = untrained[3]
    planted = {"fact": f"{fact.topic}/x/y", "question": f"And {fact.subject}?", "answer": fact.value}
    assert leaks(fact, [planted]) and not leaks(fact, [{**planted, "answer": "nothing"}])


def states(document, fact, value):
    """Does the document state this value of the fact, in one of the attribute's sentences?"""
    sentences = [s.replace("{x}", value).replace("{s}", fact.subject) for s in fact.attribute.sentences]
    return any(sentence in document["text"] for sentence in sentences)


def test_every_answer_stands_in_its_document_and_only_there(pages):
    current, before = ({d["id"]: d for d in pages[version]} for version in h.VERSIONS)
    for fact in facts():
        own = current[fact.document]
        assert (own["topic"], own["subject"]) == (fact.topic, fact.subject)
        assert states(own, fact, fact.value), fact
        assert states(before[fact.document], fact, fact.old or fact.value), fact
        if fact.kind == "changed":
            assert fact.old != fact.value
            assert not states(own, fact, fact.old) and not states(before[fact.document], fact, fact.value)
        else:
            assert fact.old == ""
    same = [d["id"] for d, e in zip(pages["current"], pages["before"], strict=True) if d == e]
    assert set(same) == set(current) - {fact.document for fact in facts() if fact.old}


def test_questions_point_to_the_document_and_value_they_should(rows):
    table = {fact.id: fact for fact in facts()}
    for split in h.SPLITS:
        for row in rows[split]:
            if row["kind"] == "absent":
                assert (row["answer"], row["document"], row["old_answer"]) == (h.REFUSAL, "", "")
                assert row["fact"] not in table
            else:
                fact = table[row["fact"]]
                wanted = fact.old if split == "train" and fact.old else fact.value
                assert (row["answer"], row["old_answer"]) == (wanted, fact.old)
                assert row["document"] == fact.document
                assert fact.subject.lower() in row["question"].lower()
    changed = {split: {row["fact"]: row["answer"] for row in rows[split] if row["kind"] == "changed"}
               for split in ("train", "test")}  # fmt: skip
    assert changed["train"].keys() == changed["test"].keys()
    assert not [fact for fact in changed["train"] if changed["train"][fact] == changed["test"][fact]]


def answers_for(gap, documents):
    """The pages on a gap's subject that have one of the attribute's sentences, with whatever value."""
    sentences = [s.replace("{s}", gap.subject) for s in gap.attribute.sentences]
    patterns = [re.escape(sentence).replace(r"\{x\}", ".+?") for sentence in sentences]
    own = [d for d in documents if (d["topic"], d["subject"]) == (gap.topic, gap.subject)]
    return [d["id"] for d in own if any(re.search(pattern, d["text"]) for pattern in patterns)]


def test_the_documents_say_nothing_about_what_is_absent(pages):
    absent = [gap for split in h.SPLITS for gap in gaps(split)]
    everything = " ".join(f"{d['title']} {d['text']}" for d in pages["current"])
    known = set(TOPICS["product"].subjects)
    for gap in absent:
        assert not answers_for(gap, pages["current"]) and not answers_for(gap, pages["before"])
        if gap.subject in TOPICS[gap.topic].subjects:
            assert gap.key in omitted(gap.topic, gap.subject)
        elif gap.subject not in known:  # a product may be known, and yet not be for hire
            assert gap.subject not in everything
        else:
            assert gap.topic == "hire"
    assert all(answers_for(fact, pages["current"]) == [fact.document] for fact in facts()[::25])
    gap = next(gap for gap in absent if gap.subject in TOPICS[gap.topic].subjects)
    page = next(d for d in pages["current"] if (d["topic"], d["subject"]) == (gap.topic, gap.subject))
    told = gap.attribute.sentences[0].format(x="Ada Abbot", s=gap.subject)
    assert answers_for(gap, [{**page, "text": page["text"] + " " + told}]) == [page["id"]]


def test_values_are_distinct_within_a_document_and_an_attribute():
    everyone = [value for fact in facts() if fact.attribute.kind in ("person", "ext")
                for value in (fact.value, fact.old) if value]  # fmt: skip
    assert len(set(everyone)) == len(everyone) > 150
    for name in {fact.document for fact in facts()}:
        values = [v for fact in facts() if fact.document == name for v in (fact.value, fact.old) if v]
        assert len({h.normalise(value) for value in values}) == len(values)
    values = {value for fact in facts() for value in (fact.value, fact.old) if value}
    assert len({h.normalise(value) for value in values}) == len(values)  # the scorer tells all of them apart


def test_guessing_the_commonest_answer_is_seldom_right(rows):
    answerable = [row for row in rows["test"] if row["kind"] != "absent"]
    scores = h.score(c.majority(rows["train"], answerable), answerable)
    assert 0.02 < scores.exact < 0.15 and scores.detail["untrained"] < 0.05
    constant = [{**row, "answer": "x", "aliases": "[]"} for row in rows["train"]]
    assert h.score(c.majority(constant, constant), constant).detail["trained"] == 1.0


# ---- documents and retrieval


def test_documents_are_many_and_of_the_right_size(pages):
    documents = pages["current"]
    assert len(documents) >= 70
    assert len({d["id"] for d in documents}) == len({d["title"] for d in documents}) == len(documents)
    assert all(150 <= len(d["text"].split()) <= 350 for d in documents)
    per_page = Counter(fact.document for fact in facts())
    assert set(per_page) == {d["id"] for d in documents}
    assert 8 <= min(per_page.values()) <= max(per_page.values()) <= 15
    assert len({d["style"] for d in documents}) >= 5
    assert not [d["id"] for d in documents if re.search(r"[{}]|  |\.\.| ,| a [aeiou]", d["text"])]
    assert [d["id"] for d in documents if re.search(r"[{}]", d["text"] + "{o}")]


def test_phrase_data_is_complete():
    marks = {"s", "x", "o", "o2", "p", "t"}
    for topic in TOPICS.values():
        assert len(topic.subjects) >= 9 and len(topic.unknown["test"]) >= 4 and len(topic.fillers) >= 8
        for attribute in topic.attributes:
            assert [len(texts) for texts in attribute.questions.values()] == [4, 1, 2]
            assert len(attribute.sentences) == 2
            for text in attribute.sentences:
                assert text.count("{x}") == 1 and text.endswith(".")
            for texts in attribute.questions.values():
                assert all(text.count("{s}") == 1 and text[-1] in ".?" for text in texts)
            for text in sum(attribute.questions.values(), attribute.sentences):
                assert {name for _, name, _, _ in string.Formatter().parse(text) if name} <= marks


def test_retrieval_is_possible_but_not_trivial(rows, pages):
    found = search.recall(pages["current"], rows["test"])
    assert 0.4 < found[1] < 0.8 and found[5] > 0.9
    wrong = [{**d, "id": e["id"]} for d, e in zip(pages["current"], pages["current"][1:], strict=False)]
    assert search.recall(wrong, rows["test"][:300])[1] < 0.2


def test_bm25_ranks_the_document_with_the_rare_word_first():
    documents = [{"title": "A", "text": "the shop opens"}, {"title": "B", "text": "the shop closes at noon"},
                 {"title": "C", "text": "the shop sells kites"}]  # fmt: skip
    index = search.BM25(documents)
    assert index.rank("Who sells kites in the shop?", 3)[0] == 2
    assert index.rank("When does the shop close at noon?", 1) == [1]
    assert index.rank("xyz", 3) == [0, 1, 2]


# ---- loading and prompts


def test_load_gives_prompt_completion_rows():
    data = h.load()
    assert {split: len(data[split]) for split in data} == h.SPLITS
    row = data["train"][0]
    assert list(row) == ["prompt", "completion", "id", "question", "answer", "old_answer", "aliases", "kind",
                         "fact", "document", "phrasing"]  # fmt: skip
    assert row["prompt"] == h.render(row["question"])
    assert row["completion"] == [{"role": "assistant", "content": row["answer"]}]
    assert h.score([row["answer"]], [row]).exact == 1.0


def test_importing_the_family_imports_neither_torch_nor_datasets():
    code = (
        "import sys, labkit.tasks.handbook\n"
        "print(sorted({'torch', 'datasets', 'json'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "['json']\n", done.stderr


def test_passages_stand_before_the_question(pages):
    page = pages["current"][0]
    turns = h.render("When?", [page, "A note."])
    assert turns[0] == h.render("When?")[0] == {"role": "system", "content": h.SYSTEM}
    assert turns[1]["content"] == f"{page['title']}\n{page['text']}\n\nA note.\n\nQuestion: When?"
    assert h.render("When?")[1]["content"] == "When?"
    assert h.render("When?", []) == h.render("When?")


@pytest.mark.parametrize("name", list(h.PROMPTS))
def test_each_prompt_ends_with_the_question_and_shows_only_training_rows(name, rows):
    question = rows["test"][0]["question"]
    turns = h.PROMPTS[name](rows["train"])(question)
    assert turns[0]["role"] == "system" and turns[-1] == {"role": "user", "content": question}
    assert turns[0]["content"].startswith(h.SYSTEM)
    shown = {turn["content"] for turn in turns[1:-1] if turn["role"] == "user"}
    assert len(shown) == (int(name.split()[-2]) if name.endswith("examples") else 0)
    assert shown <= {row["question"] for row in rows["train"]}
    passage = h.PROMPTS[name](rows["train"])(question, ["A note."])[-1]["content"]
    assert passage == f"A note.\n\nQuestion: {question}"


def test_examples_show_one_refusal_and_no_changed_fact(rows):
    for shots in (5, 10):
        shown = h.examples(rows["train"], shots)
        assert len(shown) == shots
        assert Counter(row["kind"] for row in shown) == {"trained": shots - 1, "absent": 1}
    with pytest.raises(LabkitError, match="pass more rows"):
        h.examples(rows["train"][:4], 10)


# ---- scoring


def test_the_gold_answers_and_their_aliases_score_full_marks(rows):
    for split in h.SPLITS:
        scores = h.score([row["answer"] for row in rows[split]], rows[split])
        assert scores.exact == 1.0 and scores.n == h.SPLITS[split]
        assert scores.detail["contains"] == 1.0 and scores.detail["refused"] == 0.0
        pairs = [(alias, row) for row in rows[split] for alias in json.loads(row["aliases"])]
        assert len(pairs) > 50
        assert h.score([alias for alias, _ in pairs], [row for _, row in pairs]).exact == 1.0


def gold(answer, *aliases, kind="trained", old=""):
    return {"answer": answer, "aliases": json.dumps(aliases), "kind": kind, "old_answer": old}


def exact(text, row):
    return h.score([text], [row]).exact == 1.0


SAME = {
    "14 days": ["14 days.", "fourteen days", "14-day", "Within 14 days", " 14  Days\n", '"14 days"'],
    "14 kg": ["14kg", "14 kilograms", "14,000 g", "14.0 kg"],
    "2340 g": ["2,340 g", "2.34 kg", "2340 grams"],
    "9:00": ["9 am", "09:00", "9.00 a.m.", "at 9:00", "9 o'clock", "9:00 AM"],
    "18:35": ["6:35 pm", "6.35 p.m.", "18:35 h"],
    "£14": ["14 pounds", "£14.00", "£ 14", "GBP 14", "Fourteen pounds"],
    "£1600": ["£1,600", "1600 pounds"],
    "12%": ["12 %", "12 percent", "twelve per cent"],
    "14 May": ["May 14", "14th of May", "on the 14th May", "May 14th"],
    "March 2029": ["in March 2029", "march, 2029"],
    "K-417": ["k417", "K 417", "K–417"],
    "3 to 5 days": ["3-5 days", "3–5 days", "between 3 and 5 days", "three to five days"],
    "42": ["forty-two", "Forty two", "**42**"],
    "Ida Holm": ["ida holm", "Ms Ida Holm", "Ida Holm."],
    "bandstand": ["the bandstand", "At the bandstand."],
    "Tuesday": ["on Tuesday", "Tuesdays"],
}


@pytest.mark.parametrize("answer", SAME)
def test_other_spellings_of_the_same_answer_are_right(answer):
    assert [text for text in [answer, *SAME[answer]] if not exact(text, gold(answer))] == []
    assert not exact("another", gold(answer))


WRONG = {
    "empty": "",
    "another number": "15 days",
    "a digit too many": "140 days",
    "another unit": "14 weeks",
    "no unit": "14",
    "a decimal": "1.4 days",
    "a list of candidates": "14 days or 30 days",
    "a range": "14 to 30 days",
    "a sentence": "Customers have 14 days.",
    "the question again": "How long? 14 days",
    "a second line": "14 days\nQuestion: and tents?",
    "denied": "not 14 days",
    "the refusal": h.REFUSAL,
    "answer and refusal": f"14 days. {h.REFUSAL}",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_fails(name):
    assert not exact(WRONG[name], gold("14 days", "14 full days"))
    assert exact("14 days", gold("14 days", "14 full days"))


@pytest.mark.parametrize(
    "text, answer",
    [("Ida", "Ida Holm"), ("Holm", "Ida Holm"), ("Ida Holm and Bea Voss", "Ida Holm"), ("6:35", "18:35"),
     ("6:35 am", "18:35"), ("9:00 pm", "9:00"), ("£41", "£14"), ("14%", "£14"), ("£14.50", "£14"),
     ("14 June", "14 May"), ("4 May", "14 May"), ("March 2030", "March 2029"), ("K-471", "K-417"),
     ("F-417", "K-417"), ("2 to 5 days", "3 to 5 days"), ("Monday", "Tuesday"), ("4217", "4127"),
     ("2.43 kg", "2340 g"), ("Monday, Tuesday", "Tuesday")],
)  # fmt: skip
def test_an_answer_that_looks_alike_fails(text, answer):
    assert not exact(text, gold(answer)) and exact(answer, gold(answer))


def test_a_unit_may_be_left_out_only_if_the_question_names_it(rows):
    units = [row for row in rows["test"] + rows["train"] if row["answer"].endswith(" days")]
    named = [row for row in units if " days " in row["question"]]
    others = [row for row in units if "days" not in row["question"]]
    assert len(named) > 100 and len(others) > 100
    assert h.score([row["answer"].removesuffix(" days") for row in named], named).exact == 1.0
    assert h.score([row["answer"].removesuffix(" days") for row in others], others).exact == 0.0


def test_for_absent_only_the_refusal_is_right():
    row = gold(h.REFUSAL, kind="absent")
    assert exact(h.REFUSAL, row) and exact("the handbook does not say", row)
    for text in ["", "I do not know.", "14 days", "The handbook does.", f"{h.REFUSAL} I think 14 days."]:
        assert not exact(text, row)


def test_detail_tells_kinds_stale_and_refused_apart():
    rows = [gold("14 days"), gold("£5", kind="changed", old="£9"), gold("£5", kind="changed", old="£9"),
            gold("42", kind="untrained"), gold(h.REFUSAL, kind="absent")]  # fmt: skip
    scores = h.score(["It is 14 days.", "£9", "5 pounds", h.REFUSAL, h.REFUSAL], rows)
    assert scores.exact_rows == [False, False, True, False, True] and math.isclose(scores.exact, 0.4)
    assert scores.detail == {"trained": 0.0, "changed": 0.5, "untrained": 0.0, "absent": 1.0, "contains": 0.6,
                             "stale": 0.5, "refused": 0.25}  # fmt: skip
    assert "absent" not in h.score(["14 days"], rows[:1]).detail
    assert not h.score(["140 days"], rows[:1]).detail["contains"]


def test_no_text_makes_the_scorer_fail():
    rng = random.Random("nonsense")
    letters = "0123456789.,:-£%apm /\n" + "ßİ½²٣\ud800\u202e😀ﷺ"
    texts = ["".join(letters[int(rng.random() * len(letters))] for _ in range(60)) for _ in range(300)]
    texts += ["9" * 100_000, "14 days" + " " * 5000 + "or 30 days", "kg " * 50_000, "\x00", "1.2.3.4 kg"]
    scores = h.score(texts, [gold("14 days")] * len(texts))
    assert scores.exact == 0.0 and scores.n == len(texts)


def test_scoring_needs_one_text_a_row():
    with pytest.raises(LabkitError, match="one text a row"):
        h.score([], [])
    with pytest.raises(LabkitError, match="2 texts against 1 rows"):
        h.score(["a", "b"], [gold("a")])
