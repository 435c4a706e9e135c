"""The general family: its questions, its passages, and the two measures of forgetting."""

import gzip
import json
import math
import random
import shutil
import subprocess
import sys
from collections import Counter

import pytest
import torch

from labkit import tasks
from labkit.errors import LabkitError
from labkit.paths import ROOT
from labkit.tasks import files, general
from labkit.tasks.duplicates import near_duplicates
from labkit.tasks.general import card as c
from labkit.tasks.general.likelihood import log_probabilities


@pytest.fixture(scope="module")
def probe():
    return general.read("probe")


@pytest.fixture(scope="module")
def text():
    return general.read("text")


@pytest.fixture(scope="module")
def recorded():
    return json.loads((general.FOLDER / "base.json").read_text())


# ---- builder and files


@pytest.mark.parametrize("part", general.PARTS)
def test_the_builder_reproduces_the_committed_bytes(part):
    committed = gzip.decompress((general.FOLDER / f"{part}.jsonl.gz").read_bytes())
    assert files.dump(general.build(part)) == committed
    assert files.dump(general.build(part, seed=1)) != committed


@pytest.mark.parametrize("part, group", [("probe", "subject"), ("text", "genre")])
def test_fewer_rows_are_the_first_of_more_rows_and_spread_evenly(part, group):
    every = general.build(part, seed="x")
    assert general.build(part, 40, seed="x") == every[:40]
    assert sorted(row["id"] for row in every) == sorted(row["id"] for row in general.build(part))
    counts = Counter(row[group] for row in every[:40])
    assert max(counts.values()) - min(counts.values()) <= 1 and len(counts) == len({r[group] for r in every})


@pytest.mark.parametrize("arguments", [("train", 5), ("probe", 10_000), ("text", -1)])
def test_an_unknown_part_or_too_many_rows_are_refused(arguments):
    with pytest.raises(LabkitError, match=r"no part|at most"):
        general.build(*arguments)


def test_a_damaged_file_is_refused(tmp_path):
    shutil.copytree(general.FOLDER, tmp_path / "general")
    assert general.read("probe", tmp_path / "general") == general.read("probe")
    files.write(tmp_path / "other", {"probe": general.build("probe", 3)})
    shutil.copy(tmp_path / "other/probe.jsonl.gz", tmp_path / "general")
    with pytest.raises(LabkitError, match="SHA-256"):
        general.read("probe", tmp_path / "general")
    with pytest.raises(LabkitError, match="no part"):
        general.read("train")


def test_the_files_are_small():
    sizes = [path.stat().st_size for path in general.FOLDER.rglob("*") if path.is_file()]
    assert 0 < sum(sizes) < 500_000


def test_it_loads_as_two_parts_and_none_to_train_on():
    parts = general.load()
    assert list(parts) == ["probe", "text"]
    assert parts["probe"].column_names == ["id", "subject", "question", "options", "answer"]
    assert parts["text"].column_names == ["id", "kind", "genre", "source", "text"]
    assert parts["probe"].to_list() == general.items() and parts["text"]["text"][:] == general.passages()


def test_importing_the_family_does_not_load_torch():
    script = "import sys, labkit.tasks.general as g; g.build('text'); print('torch' in sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_data_card_is_up_to_date():
    assert (general.FOLDER / "README.md").read_text() == c.card()


# ---- the questions


def complaints(row):
    """What is wrong with the form of a question."""
    options = [option.casefold() for option in row["options"]]
    out = []
    if len(set(options)) != 4:
        out.append("options")
    if row["answer"] not in range(4):
        out.append("answer")
    if not row["question"].endswith("?") or row["question"][0] != row["question"][0].upper():
        out.append("question")
    if any(part != part.strip() or not part or part.endswith(".") or not part.isascii()
           for part in [row["question"], *row["options"]]):
        out.append("characters")
    return out


def test_every_question_is_well_formed(probe):
    assert [(row["id"], complaints(row)) for row in probe if complaints(row)] == []


@pytest.mark.parametrize("change", [{"options": ["a cat", "a dog", "A cat", "a hen"]}, {"answer": 4},
                                    {"question": "Name a cat."}, {"options": ["a cat ", "a", "b", "c"]}])
def test_a_malformed_question_is_noticed(probe, change):
    assert complaints({**probe[0], **change})


def test_there_are_enough_different_questions_in_every_subject(probe):
    assert len(probe) >= 440 and len({row["question"].casefold() for row in probe}) == len(probe)
    assert len({row["id"] for row in probe}) == len(probe)
    subjects = Counter(row["subject"] for row in probe)
    assert len(subjects) >= 12 and min(subjects.values()) >= 15


def test_the_right_option_stands_equally_often_in_every_place(probe):
    for subject in {row["subject"] for row in probe}:
        places = Counter(row["answer"] for row in probe if row["subject"] == subject)
        assert max(places.values()) - min(places.values()) <= 1 and set(places) == set(range(4)), subject


def test_length_does_not_give_the_right_option_away(probe):
    right, wrong = c.lengths(probe)
    assert abs(right / wrong - 1) < 0.05
    longest = [{**row, "answer": max(range(4), key=lambda i: len(row["options"][i]))} for row in probe]
    right, wrong = c.lengths(longest)
    assert right / wrong > 1.2
    guessed = [rigged["answer"] == row["answer"] for rigged, row in zip(longest, probe, strict=True)]
    assert sum(guessed) / len(probe) < 0.4


def test_no_two_questions_are_nearly_the_same(probe):
    questions = [row["question"] for row in probe]
    assert c.closest(questions) < 0.8
    assert c.closest([*questions, questions[5].replace("?", " then?")]) > 0.5
    assert c.closest([*questions, questions[5]]) == 1


# ---- the passages


def test_the_text_is_long_enough_and_of_many_kinds(text):
    assert sum(len(row["text"].encode()) for row in text) >= 170_000
    assert len({row["id"] for row in text}) == len({row["text"] for row in text}) == len(text)
    genres = Counter(row["genre"] for row in text)
    assert len(genres) >= 8 and min(genres.values()) >= 10
    assert {row["kind"] for row in text} == {"prose", "dialogue"}
    assert all(row["text"].isascii() and 100 <= len(row["text"].split()) <= 300 for row in text)
    for row in text:
        spoken = [paragraph.startswith('"') for paragraph in row["text"].split("\n\n")]
        assert (sum(spoken) / len(spoken) > 0.9) == (row["kind"] == "dialogue"), row["id"]


def test_the_text_does_not_repeat_itself(text):
    passages = [row["text"] for row in text]
    assert c.distinct_share(passages) > 0.8
    assert c.distinct_share(passages[:20] * 2) <= 0.5
    assert c.closest(passages) < 0.05 < c.closest([*passages, passages[7] + passages[9]])


def training_texts(name):
    """What a model trained on a family reads: its messages but the system's, or all strings of its rows."""
    parts = tasks.load(name)
    for part in parts:
        for row in parts[part] if part.startswith("train") else []:
            turns = [*row["prompt"], *row["completion"]] if "prompt" in row else []
            for turn in turns:
                if turn["role"] != "system":
                    yield turn["content"]
            if not turns:
                yield from (value for value in row.values() if isinstance(value, str))


@pytest.mark.parametrize("name", [name for name in tasks.FAMILIES if name != "general"])
def test_nothing_of_it_stands_in_the_training_rows_of_another_family(name, probe, text):
    own = [row["question"] for row in probe] + [row["text"] for row in text]
    train = list(dict.fromkeys(training_texts(name)))
    assert near_duplicates(own, train) == [] and c.overlaps(own, train) == []
    planted = [*train[:50], f"Hello! {own[3]} Thanks.", own[-1]]
    assert c.overlaps(own, planted) == [i for i in (3, len(own) - 1) if len(c.grams(own[i], c.RUN))]
    assert near_duplicates(own[-1:], planted) != []


# ---- models whose probabilities are known


class Letters:
    """A tokenizer with one token for each ASCII character."""

    pad_token_id = 0

    def __call__(self, text, add_special_tokens=False, return_offsets_mapping=False):
        class Coded(dict):
            input_ids = [ord(letter) for letter in text]

        return Coded(input_ids=Coded.input_ids, offset_mapping=[(i, i + 1) for i in range(len(text))])


class Pairs(torch.nn.Module):
    """Predicts a letter from the letter before it, by a fixed random table."""

    def __init__(self, in_front=0):
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(128, 128, generator=torch.Generator().manual_seed(0)))
        self.in_front = in_front  # positions that a learned prompt would add

    def forward(self, input_ids, attention_mask):
        extra = torch.randn(len(input_ids), self.in_front, 128)
        return Answer(torch.cat([extra, self.table[input_ids]], 1))

    def by_hand(self, text, start):
        """The log-probability of text[start:], in plain Python."""
        total = 0.0
        for before, after in zip(text[start - 1 : -1], text[start:], strict=True):
            row = self.table[ord(before)].tolist()
            total += row[ord(after)] - math.log(sum(map(math.exp, row)))
        return total


class Answer:
    def __init__(self, logits):
        self.logits = logits


class Knows(Pairs):
    """Is sure of every letter of the texts it knows, and of nothing else."""

    def __init__(self, texts):
        super().__init__()
        self.texts = set(texts)

    def forward(self, input_ids, attention_mask):
        logits = torch.zeros(*input_ids.shape, 128)
        for row, ids in enumerate(input_ids):
            text = "".join(chr(i) for i in ids[: int(attention_mask[row].sum())])
            if text in self.texts:
                logits[row, torch.arange(len(text) - 1), ids[1 : len(text)]] = 20.0
        return Answer(logits)


def knowing(rows):
    return Knows(f"{general.prompt(row)} {row['options'][row['answer']]}" for row in rows)


def asked(model, rows, **options):
    return general.probe_accuracy(model, Letters(), rows, progress=False, **options)


# ---- the probe's scorer


def test_the_choice_is_the_option_with_the_highest_log_probability_per_byte(probe):
    model, rows, expected, by_sum = Pairs(), probe[:24], [], []
    for row in rows:
        sums = [model.by_hand(f"{general.prompt(row)} {option}", len(general.prompt(row)))
                for option in row["options"]]
        values = [value / (len(option) + 1) for value, option in zip(sums, row["options"], strict=True)]
        expected.append(row["options"][values.index(max(values))])
        by_sum.append(row["options"][sums.index(max(sums))])
    scores = asked(model, rows, batch_size=7)
    assert scores.answers == expected != by_sum
    assert scores.exact_rows == [row["options"].index(chosen) == row["answer"]
                                 for row, chosen in zip(rows, expected, strict=True)]
    assert scores.exact == sum(scores.exact_rows) / 24 and scores.n == 24


def test_a_model_that_knows_scores_everything_and_a_wrong_key_nothing(probe):
    model = knowing(probe[:48])
    assert asked(model, probe[:48]).exact == 1.0
    for shift in (1, 2, 3):
        shifted = [{**row, "answer": (row["answer"] + shift) % 4} for row in probe[:48]]
        assert asked(model, shifted).exact == 0.0


def test_without_the_question_that_model_can_only_take_the_first_of_equal_options(probe):
    rows = probe[:48]
    scores = asked(knowing(rows), rows, blind=True)
    assert scores.answers == [row["options"][0] for row in rows]
    assert scores.exact == sum(row["answer"] == 0 for row in rows) / 48


def test_the_detail_tells_the_subjects_apart(probe):
    rows = probe[:48]
    model = knowing([row for row in rows if row["subject"] in ("animals", "space")])
    detail = asked(model, rows).detail
    assert set(detail) == {row["subject"] for row in rows}
    assert detail["animals"] == detail["space"] == 1.0 and min(detail.values()) < 1.0


def test_no_items_are_refused():
    with pytest.raises(LabkitError, match="0 texts"):
        asked(Pairs(), [])


def test_options_are_tokenized_as_in_running_text(tokenizer, probe):
    prompts = [general.prompt(row) for row in probe for _ in row["options"]]
    options = [" " + option for row in probe for option in row["options"]]
    coded = [tokenizer(texts, add_special_tokens=False).input_ids
             for texts in (prompts, options, [a + b for a, b in zip(prompts, options, strict=True)])]
    assert [a + b for a, b in zip(coded[0], coded[1], strict=True)] == coded[2]


@pytest.mark.slow
def test_the_base_model_knows_far_more_than_chance(base, tokenizer, probe):
    rows = probe[:8]
    scores = general.probe_accuracy(base, tokenizer, rows, progress=False)
    assert scores.exact >= 0.5
    shifted = [row["options"][(row["answer"] + 1) % 4] for row in rows]
    wrong = [chosen == key for chosen, key in zip(scores.answers, shifted, strict=True)]
    assert sum(wrong) / 8 < scores.exact - 0.2


# ---- log-probabilities and perplexity


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_log_probabilities_of_a_llama_are_those_computed_one_text_at_a_time(tiny, tokenizer, batch_size):
    model, rng = tiny(), random.Random(0)
    pieces = [([rng.randrange(49152) for _ in range(length)], start)
              for length, start in [(9, 1), (2, 1), (30, 12), (5, 4)]]
    found = log_probabilities(model, tokenizer, pieces, batch_size, "test", False)
    for (ids, start), values in zip(pieces, found, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].double()
        wanted = [float(logits[i - 1].softmax(-1)[ids[i]].log()) for i in range(start, len(ids))]
        assert values == pytest.approx(wanted, abs=1e-4)
    others = log_probabilities(tiny(seed=1), tokenizer, pieces, batch_size, "test", False)
    assert others[0] != pytest.approx(found[0], abs=1e-4)


def test_measuring_leaves_the_model_as_it_was():
    model = Pairs().train()
    general.perplexity(model, Letters(), ["abc"], progress=False)
    assert model.training and model.table.grad is None
    model.eval()
    asked(model, general.items()[:2])
    assert not model.training
    model.train()
    with pytest.raises(IndexError):
        log_probabilities(model, Letters(), [([1, 999], 1)], 1, "test", False)
    assert model.training


def test_the_loss_is_the_sum_over_all_tokens_but_the_first_of_each_text(text):
    model = Pairs()
    texts = [row["text"] for row in text[:3]] + ["x", "", "to be"]
    loss = general.perplexity(model, Letters(), texts, batch_size=2, progress=False)
    nats = [-model.by_hand(one, 1) if len(one) > 1 else 0.0 for one in texts]
    assert [row[0] for row in loss.rows] == pytest.approx(nats, rel=1e-5)
    assert [row[1:] for row in loss.rows] == [(max(0, len(one) - 1),) * 2 for one in texts]
    assert loss.nats == pytest.approx(sum(nats), rel=1e-5)
    assert loss.tokens == loss.bytes == sum(max(0, len(one) - 1) for one in texts)
    assert loss.perplexity == pytest.approx(math.exp(sum(nats) / loss.tokens), rel=1e-5)
    assert loss.bits_per_byte == pytest.approx(loss.nats / loss.bytes / math.log(2))


def test_a_model_that_knows_nothing_has_a_perplexity_of_its_vocabulary_and_one_that_knows_of_one():
    texts = ["Snow fell in the night.", "Nobody knew."]
    blank = general.perplexity(Knows([]), Letters(), texts, progress=False)
    assert blank.perplexity == pytest.approx(128) and blank.bits_per_byte == pytest.approx(7)
    assert general.perplexity(Knows(texts), Letters(), texts, progress=False).perplexity == pytest.approx(1)


@pytest.mark.parametrize("window", [2, 3, 8])
def test_a_long_text_is_cut_into_windows_without_losing_a_token(tiny, tokenizer, window):
    model, text = tiny(), "A narrow path ran between the houses and down to the old harbour wall."
    ids = tokenizer(text, add_special_tokens=False).input_ids
    wanted = 0.0
    for i in range(1, len(ids)):
        begin = (i - 1) // (window - 1) * (window - 1)
        with torch.no_grad():
            logits = model(torch.tensor([ids[begin:i]])).logits[0, -1].double()
        wanted -= float(logits.log_softmax(-1)[ids[i]])
    cut = general.perplexity(model, tokenizer, [text], window=window, progress=False)
    assert cut.nats == pytest.approx(wanted, rel=1e-5) and cut.tokens == len(ids) - 1
    whole = general.perplexity(model, tokenizer, [text], progress=False)
    assert whole.nats != pytest.approx(wanted, rel=1e-7) and whole.tokens == cut.tokens
    assert whole.bytes == len(text) - len("A")


def test_bytes_are_counted_and_not_characters(tiny, tokenizer):
    text = "Caf\u00e9s \u2014 and more"
    first = tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids[0])
    loss = general.perplexity(tiny(), tokenizer, [text], progress=False)
    assert loss.bytes == len(text.encode()) - len(first.encode()) != len(text) - len(first)


def test_positions_that_a_learned_prompt_adds_do_not_count(probe):
    texts = ["Rain again.", "And then snow."]
    plain, prompted = (general.perplexity(Pairs(n), Letters(), texts, progress=False) for n in (0, 4))
    assert plain == prompted
    assert asked(Pairs(4), probe[:8]) == asked(Pairs(), probe[:8])


@pytest.mark.parametrize("texts, window", [([], 1024), (["x", ""], 1024), (["hello"], 1)])
def test_nothing_to_score_and_a_useless_window_are_refused(texts, window):
    with pytest.raises(LabkitError, match=r"nothing to score|window"):
        general.perplexity(Pairs(), Letters(), texts, window=window, progress=False)


# ---- the recorded base


def test_the_recorded_scores_of_the_base_are_about_these_rows(recorded, probe, text):
    assert recorded["checksums"] == json.loads((general.FOLDER / "checksums.json").read_text())
    assert set(recorded["probe"]["subjects"]) == {row["subject"] for row in probe}
    assert set(recorded["text"]["genres"]) == {row["genre"] for row in text}
    assert recorded["text"]["bytes"] < sum(len(row["text"].encode()) for row in text)


def test_the_base_knows_enough_to_forget_and_not_from_the_options_alone(recorded):
    assert 0.5 < recorded["probe"]["accuracy"] < 0.95
    assert recorded["probe"]["blind"] < recorded["probe"]["accuracy"] - 0.2
    perplexity = {name: math.exp(nats) for name, nats in recorded["text"]["genres"].items()}
    assert 10 < min(perplexity.values()) and max(perplexity.values()) < 60
