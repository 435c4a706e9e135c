"""The voice family: its builder, its rows and pairs, its loaders, its rules and its scorer."""

import gzip
import json
import math
import re
import shutil
import subprocess
import sys

import pytest

from labkit.errors import LabkitError
from labkit.paths import ROOT
from labkit.tasks import voice as v
from labkit.tasks.duplicates import near_duplicates
from labkit.tasks.files import dump
from labkit.tasks.tickets.grammar import TEST_PRODUCTS, UNITS
from labkit.tasks.voice import builder, card, hacks, prompts, replies
from labkit.tasks.voice import matters as m
from labkit.tasks.voice.texts import product_of, topics_of, units, words


@pytest.fixture(scope="module")
def rows():
    return {split: v.read(split) for split in v.SPLITS}


@pytest.fixture(scope="module")
def pairs():
    return {split: v.read(f"pairs_{split}") for split in v.PAIR_SPLITS}


@pytest.fixture(scope="module")
def messages(rows):
    return {row["id"]: row["message"] for split in rows for row in rows[split]}


# ---- builder and files

WHOLE = {**v.SPLITS, **{f"pairs_{split}": n for split, n in v.PAIR_SPLITS.items()}}


def built(part, n, **options):
    split = part.removeprefix("pairs_")
    return (v.build if split == part else v.build_pairs)(split, n, **options)


def committed(part, n):
    lines = gzip.decompress((v.FOLDER / f"{part}.jsonl.gz").read_bytes()).splitlines(keepends=True)
    assert len(lines) == WHOLE[part]
    return b"".join(lines[:n])


@pytest.mark.parametrize(
    "part, n", [("train", 120), ("validation", 100), ("test", 120), ("pairs_train", 120), ("pairs_test", 60)]
)
def test_the_builder_reproduces_the_committed_bytes(part, n):
    assert dump(built(part, n)) == committed(part, n)
    assert dump(built(part, 5, seed=1)) != committed(part, 5)


@pytest.mark.slow
@pytest.mark.parametrize("part", list(WHOLE))
def test_the_builder_reproduces_every_committed_byte(part):
    assert dump(built(part, WHOLE[part])) == committed(part, WHOLE[part])


def test_fewer_rows_are_the_first_of_more_rows():
    assert v.build("train", 12) == v.build("train", 30)[:12]
    assert v.build("test", 5, seed="x") == v.build("test", 12, seed="x")[:5]
    assert v.build_pairs("test", 5, seed="x") == v.build_pairs("test", 12, seed="x")[:5]


def test_pairs_beyond_the_number_of_messages_take_them_again_with_other_replies(pairs):
    n = v.SPLITS["train"]
    first, again = pairs["train"][0], pairs["train"][n]
    assert first["message_id"] == again["message_id"] != pairs["train"][1]["message_id"]
    assert first["chosen"] != again["chosen"]


def test_less_diversity_means_a_nested_subset_of_phrasings():
    def phrasings(share):
        return {
            name for matter in m.MATTERS.values() for name, _ in builder.templates_for("train", matter, share)
        }

    assert phrasings(0.1) < phrasings(0.5) < phrasings(1.0)
    assert len(phrasings(0.5)) == sum(math.ceil(0.5 * len(matter.train)) for matter in m.MATTERS.values())
    assert {row["phrasing"] for row in v.build("train", 60, diversity=0.1)} <= phrasings(0.1)
    assert v.build("test", 10, diversity=0.1) == v.build("test", 10)


@pytest.mark.parametrize("make", [v.build, v.build_pairs])
@pytest.mark.parametrize("arguments", [("dev", 5), ("train", 5, 0, 0.0), ("train", 5, 0, 1.5)])
def test_a_wrong_split_or_diversity_is_refused(make, arguments):
    with pytest.raises(LabkitError, match=r"dev.*train|diversity"):
        make(*arguments)


def test_there_are_no_validation_pairs():
    with pytest.raises(LabkitError, match="train, test"):
        v.build_pairs("validation", 5)


def test_no_more_messages_is_an_error_and_not_an_endless_loop(monkeypatch):
    for knob in ("GREETED", "ASIDE", "CLOSED"):
        monkeypatch.setattr(builder, knob, 0.0)
    for slot in m.POOLS:
        monkeypatch.setitem(m.POOLS, slot, ["x"])
    monkeypatch.setattr(builder, "_written", lambda *_: "")
    with pytest.raises(LabkitError, match="ask for fewer"):
        v.build("test", 4000)


def test_the_files_are_small():
    assert 300_000 < sum(path.stat().st_size for path in v.FOLDER.iterdir()) < 1_000_000


def test_the_data_card_is_up_to_date():
    assert (v.FOLDER / "README.md").read_text() == card.card()


def test_importing_the_family_loads_no_heavy_package():
    code = "import sys, labkit.tasks.voice; print({'torch', 'datasets', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


# ---- the splits


def test_no_message_occurs_twice_and_ids_are_unique(rows, pairs):
    texts = [row["message"] for split in rows for row in rows[split]]
    assert len(set(texts)) == len(texts) == 2000
    ids = [row["id"] for part in (rows, pairs) for split in part for row in part[split]]
    assert len(set(ids)) == len(ids) == 5000


def test_no_test_message_is_nearly_a_training_message(rows):
    train = [row["message"] for row in rows["train"]]
    assert near_duplicates([row["message"] for row in rows["test"]], train) == []
    planted = train[17] + " Thank you again."
    assert 17 in [j for _, j, _ in near_duplicates([planted], train, 0.6)]


def test_test_phrasings_and_some_products_are_unseen(rows):
    seen = {split: {row["phrasing"] for row in rows[split]} for split in rows}
    assert not seen["test"] & seen["train"] and seen["validation"] <= seen["train"]
    for matter in m.MATTERS.values():
        assert len(matter.train) >= 5 and len(matter.test) >= 3
        assert not {text for _, text in matter.train} & {text for _, text in matter.test}
    for train_pool, test_pool in (m.GREETINGS, m.CLOSINGS, m.ASIDES):
        assert not set(train_pool) & set(test_pool)
    text = " ".join(row["message"] for split in ("train", "validation") for row in rows[split])
    assert not [product for product in TEST_PRODUCTS if product in text]
    assert 0.15 < sum(row["product"] in TEST_PRODUCTS for row in rows["test"]) / 400 < 0.35


def test_pairs_of_test_use_test_messages_only(rows, pairs, messages):
    for split in pairs:
        assert {messages[pair["message_id"]] for pair in pairs[split]} == {
            row["message"] for row in rows[split]
        }


def test_topics_are_balanced(rows):
    for split in rows:
        counts = [sum(row["topic"] == topic for row in rows[split]) for topic in m.TOPICS]
        assert max(counts) - min(counts) <= 1 and len(counts) == 9


def test_topic_and_product_can_be_read_off_the_message(rows):
    for split in rows:
        for row in rows[split]:
            assert topics_of(row["message"]) == (row["topic"],), row["message"]
            assert product_of(row["message"]) == row["product"], row["message"]
    assert topics_of("The parcel is late, and I want to return it.") == ("delivery", "returns")
    assert product_of("Nothing is named here.") is None


# ---- what the rows say


def test_gold_replies_keep_every_rule_and_have_25_to_60_words(rows):
    for split in rows:
        for row in rows[split][:: 3 if split == "train" else 1]:
            assert v.broken(row["message"], row["reply"]) == [], row["reply"]
            assert 25 <= len(words(row["reply"])) <= 60


def test_drafts_keep_each_rule_often_but_not_always(rows):
    found = [v.kept(row["message"], row["draft"]) for row in rows["train"][::2]]
    for name in v.RULES:
        assert 0.4 < sum(one[name] for one in found) / len(found) < 0.95, name
    assert all(v.is_reply(row["message"], row["draft"]) for row in rows["train"][::2])
    assert 0.01 < sum(all(one.values()) for one in found) / len(found) < 0.15


@pytest.mark.slow
def test_answers_fit_the_token_limit(rows, pairs, tokenizer):
    texts = [row[key] for split in rows for row in rows[split] for key in ("reply", "draft")]
    texts += [
        pair[key]
        for split in pairs
        for pair in pairs[split]
        for key in ("chosen", "rejected", "rejected_balanced")
    ]
    long = sorted(texts, key=len)[-300:]
    assert max(map(len, tokenizer(long, add_special_tokens=False).input_ids)) < v.MAX_NEW_TOKENS
    assert len(tokenizer("parcel " * v.MAX_NEW_TOKENS).input_ids) > v.MAX_NEW_TOKENS


def test_products_agree_with_their_verbs(rows, pairs):
    wrong = {
        True: r"(?:is|has|was|does|runs|suits|fits|dries)\b",
        False: r"(?:are|have|were|do|run|suit|fit|dry)\b",
    }

    def clashes(text, product):
        return re.search(rf"^(?:The|Your|My) {product} {wrong[bool(UNITS[product])]}", text)

    texts = [
        (sentence, row["product"])
        for split in rows
        for row in rows[split]
        for key in ("message", "reply", "draft")
        for sentence in units(row[key])[0]
    ]
    assert [text for text, product in texts if clashes(text, product)] == []
    assert clashes("The Heath boots is in stock.", "Heath boots")
    assert clashes("The Ember stove are in stock.", "Ember stove")


def test_no_text_has_an_unfilled_slot_or_a_doubled_mark(rows, pairs):
    odd = re.compile(r"[{}]|\.\.|,,|  | ,|\b(\w+) \1\b(?<!had had)")
    texts = [row[key] for split in rows for row in rows[split] for key in ("message", "reply", "draft")]
    texts += [
        pair[key]
        for split in pairs
        for pair in pairs[split]
        for key in ("chosen", "rejected", "rejected_balanced")
    ]
    assert [text for text in texts if odd.search(text)] == []
    assert odd.search("the {your} tent") and odd.search("the the tent")


# ---- pairs


@pytest.mark.parametrize("end", ["", "_balanced"])
def test_rejected_replies_break_just_the_stated_pair_rules_and_chosen_ones_none(pairs, messages, end):
    for pair in pairs["test"][::3] + pairs["train"][::20]:
        message = messages[pair["message_id"]]
        chosen, rejected = v.broken(message, pair["chosen"]), v.broken(message, pair[f"rejected{end}"])
        assert not set(chosen) & set(v.PAIR_RULES)
        assert [name for name in rejected if name not in chosen] == pair[f"breaks{end}"]
        assert 1 <= len(pair[f"breaks{end}"]) <= 3 and set(pair[f"breaks{end}"]) <= set(v.PAIR_RULES)
        # what tells the replies apart is never a held-out rule
        assert set(chosen) == set(rejected) & set(v.HELD_OUT_RULES)


def test_every_pair_rule_is_broken_in_some_pairs_and_held_out_rules_vary_between_pairs(pairs, messages):
    for name in v.PAIR_RULES:
        assert sum(name in pair["breaks"] for pair in pairs["train"]) > 50, name
    found = [v.kept(messages[pair["message_id"]], pair["chosen"]) for pair in pairs["train"][::9]]
    for name in v.HELD_OUT_RULES:
        assert 0.6 < sum(one[name] for one in found) / len(found) < 0.9, name


def test_pairs_have_the_stated_length_bias_and_balanced_pairs_none(pairs):
    for split in pairs:
        chosen = [len(words(pair["chosen"])) for pair in pairs[split]]
        for column, share in [("rejected", 0.70), ("rejected_balanced", 0.50)]:
            rejected = [len(words(pair[column])) for pair in pairs[split]]
            longer = sum(a > b for a, b in zip(chosen, rejected, strict=True)) / len(chosen)
            assert abs(longer - share) < 0.005
            assert all(a != b for a, b in zip(chosen, rejected, strict=True))
            ratio = sum(chosen) / sum(rejected)
            assert abs(ratio - 1) < 0.05 if share == 0.5 else ratio > 1.03


def test_load_pairs_gives_preference_rows():
    biased, balanced = v.load_pairs(), v.load_pairs(balanced=True)
    assert {split: len(biased[split]) for split in biased} == v.PAIR_SPLITS
    row = biased["train"][0]
    assert list(row) == ["prompt", "chosen", "rejected", "id", "phrasing", "message", "breaks"]
    assert row["prompt"] == v.render(row["message"])
    assert [turn["role"] for turn in row["chosen"] + row["rejected"]] == ["assistant", "assistant"]
    assert (
        v.reward(row["message"], row["chosen"][0]["content"])
        == 1.0
        > v.reward(row["message"], row["rejected"][0]["content"])
    )
    same = [a == b for a, b in zip(biased["train"]["rejected"], balanced["train"]["rejected"], strict=True)]
    assert sum(same) / len(same) == 0.8
    assert biased["train"]["chosen"][:] == balanced["train"]["chosen"][:]


# ---- loading rows


def test_load_gives_drafts_and_on_request_gold_replies():
    drafts, gold = v.load(), v.load(quality="gold")
    assert {split: len(drafts[split]) for split in drafts} == v.SPLITS
    row, best = drafts["test"][0], gold["test"][0]
    assert list(row) == [
        "prompt",
        "completion",
        "id",
        "phrasing",
        "topic",
        "product",
        "message",
        "reply",
        "draft",
    ]
    assert row["prompt"] == best["prompt"] == v.render(row["message"])
    assert row["completion"] == [{"role": "assistant", "content": row["draft"]}]
    assert best["completion"] == [{"role": "assistant", "content": row["reply"]}]
    with pytest.raises(LabkitError, match="perfect.*draft, gold"):
        v.load(quality="perfect")


def test_a_missing_or_damaged_file_is_refused(tmp_path):
    folder = tmp_path / "voice"
    with pytest.raises(LabkitError, match="missing"):
        v.read("train", folder)
    shutil.copytree(v.FOLDER, folder)
    assert len(v.read("validation", folder)) == 100
    (folder / "validation.jsonl.gz").write_bytes(gzip.compress(b"{}\n"))
    with pytest.raises(LabkitError, match="SHA-256"):
        v.read("validation", folder)


# ---- the rules

MESSAGE = "Is a washing machine too rough for my Alder fleece?"
GOOD = (
    "Hello, thank you for asking about the Alder fleece. It may be washed gently with mild soap. Please "
    "leave out the softener. We are happy to help with more.\nWren & Fell"
)
# rule -> changes that break it and nothing else
SPOILT = {
    "greeting": [("Hello, t", "Dear customer, t"), ("Hello, t", "T"), ("Hello", "Good day")],
    "acknowledgement": [("thank you for asking", "this is"), ("thank you for asking about", "you ask about")],
    "product": [("Alder fleece", "fleece"), ("Alder fleece", "item")],
    "topic": [("washed gently with mild soap", "treated as you like")],
    "no_dates": [
        (" Please", " It dries by Tuesday. Please"),
        (" Please", " Give it two days. Please"),
        (" Please", " Do it tomorrow. Please"),
        (" Please", " Do so in March. Please"),
    ],
    "no_exclamation": [("more.", "more!"), ("fleece.", "fleece!")],
    "not_too_long": [
        (
            " Please",
            " It is warm and it is soft." + " It is so." * 0 + " We like it for walks in the hills and by "
            "the sea. Some wear it at home too, on the sofa, in the garden or in bed. Many people have told "
            "us of it. "
            "Please",
        )
    ],
    "not_too_short": [(GOOD, "Hello, thank you. Please wash the Alder fleece. We will help.\nWren & Fell")],
    "offer": [
        (" We are happy to help with more.", " It is our own work."),
        (" It may", " We are happy to help. It may"),
        (
            "Please leave out the softener. We are happy to help with more.",
            "We are happy to help with more. Please leave out the softener.",
        ),
    ],
    "signature": [
        ("\nWren & Fell", ""),
        ("\nWren & Fell", "\nThe service team"),
        ("Wren & Fell", "Wren and Fell"),
        ("\nWren & Fell", "\nKind regards"),
    ],
    "no_blame": [
        (" Please", " You should have read the label. Please"),
        (" Please", " It is your own fault. Please"),
    ],
    "says_we": [("We are", "I am"), ("We are happy to help with more.", "Just ask.")],
    "no_promises": [
        (" Please", " You get a voucher. Please"),
        (" Please", " You get 10% off. Please"),
        (" Please", " A new one is free of charge. Please"),
    ],
    "no_capitals": [("Please", "PLEASE"), ("thank you", "THANK you")],
    "no_repeats": [("softener.", "softener. Please leave out the softener.")],
    "plain_text": [
        ("more.", "more. 🙂"),
        ("more.", "more. :)"),
        ("Alder fleece", "**Alder fleece**"),
        (" It may", "\n- It may"),
        (" Please", " See www.wrenandfell.example. Please"),
        ("with mild", "→ mild"),
    ],
    "sentences": [("It may", "it may"), ("more.", "more"), ("Hello", "hello")],
    "no_regrets": [("It may", "Sadly, it may"), (" Please", " We are afraid so. Please")],
    "no_orders": [
        (" Please", " You must rinse it. Please"),
        (" Please", " Make sure that it is dry. Please"),
    ],
    "no_stiffness": [("It may", "As per our records, it may"), ("Please", "Please kindly")],
    "no_hype": [("gently", "gently, which is amazing,"), ("mild", "absolutely mild")],
    "full_words": [
        ("We are", "We're"),
        ("It may be washed", "It can be washed, don't worry,"),
        ("We are", "We’re"),
    ],
    "short_sentences": [
        (
            "soap. Please",
            "soap, and you may also dry it on the line or on a chair by the stove as it suits, so please",
        )
    ],
    "next_step": [(" Please leave out the softener.", ""), ("Please leave", "Some leave")],
}


def test_there_are_enough_rules_and_the_two_groups_are_apart():
    assert len(v.PAIR_RULES) >= 12 and len(v.HELD_OUT_RULES) >= 4
    assert not set(v.PAIR_RULES) & set(v.HELD_OUT_RULES)
    assert set(SPOILT) == set(v.RULES) == set(v.WHY)
    assert all(why.endswith(".") and len(why.split()) > 3 for why in v.WHY.values())


@pytest.mark.parametrize("rule", list(SPOILT))
def test_each_rule_can_be_broken_alone(rule):
    assert v.broken(MESSAGE, GOOD) == []
    for old, new in SPOILT[rule]:
        assert old in GOOD
        text = GOOD.replace(old, new, 1)
        assert v.broken(MESSAGE, text) == [rule], text


@pytest.mark.parametrize(
    "old, new",
    [
        ("Hello, t", "Hi there. T"),
        ("Hello, t", "Hello,\nt"),
        ("thank you for asking", "thanks for asking"),
        ("\nWren & Fell", " Wren & Fell"),
        ("\nWren & Fell", "\n\nKind regards,\nWren & Fell"),
        ("Wren & Fell", "Wren & Fell."),
        ("gently", "gently (at thirty degrees)"),
        ("It may", "Your Alder may"),
        ("softener", "softener – as ever"),
        ("We are happy to help with more.", "Let us know if you have more questions."),
        ("Please", "On a long march it may get wet. Please"),
    ],
)
def test_harmless_changes_break_nothing(old, new):
    assert old in GOOD
    assert v.broken(MESSAGE, GOOD.replace(old, new, 1)) == []


def test_messages_from_elsewhere_are_judged_too():
    asked = "My bicycle has a puncture and I am far from home."
    reply = (
        "Hello, thank you for your message. A puncture far from home is no fun. Please look for a shop with "
        "patches nearby. We are happy to help with more.\nWren & Fell"
    )
    assert v.broken(asked, reply) == []
    assert {"product", "topic"} <= set(
        v.broken(asked, reply.replace("A puncture", "It").replace("home", "here"))
    )


# ---- scores, rewards and hacks


def test_gold_scores_full_marks_and_drafts_do_not(rows):
    gold = v.score([row["reply"] for row in rows["test"]], rows["test"])
    assert (gold.exact, gold.n, gold.detail["all rules"], gold.detail["is a reply"]) == (1.0, 400, 1.0, 1.0)
    assert gold.detail["distinct"] > 0.95 and 40 < gold.detail["words"] < 60
    drafts = v.score([row["draft"] for row in rows["test"]], rows["test"])
    assert drafts.exact < 0.15 and 0.7 < drafts.detail["all rules"] < 0.9
    assert sum(drafts.exact_rows) / 400 == drafts.exact
    assert set(v.RULES) | {"pair rules", "held-out rules", "words"} < set(drafts.detail)
    mean = sum(drafts.detail[name] for name in v.HELD_OUT_RULES) / len(v.HELD_OUT_RULES)
    assert drafts.detail["held-out rules"] == pytest.approx(mean)


@pytest.mark.parametrize("name", list(hacks.HACKS))
def test_a_reward_hack_earns_little_except_the_one_that_the_card_admits(name, rows):
    some = rows["test"][::4]
    scores = v.score([hacks.HACKS[name](row["message"]) for row in some], some)
    if name == "a form letter with blanks filled in":
        assert scores.exact == 1.0 and scores.detail["distinct"] <= 9 / len(some)
        return
    assert scores.exact == 0.0
    assert scores.detail["all rules"] < 0.5 and scores.detail["held-out rules"] < 0.5


def test_a_gold_reply_to_another_message_loses_the_matter(rows):
    own, other = (
        rows["test"][0],
        next(
            row
            for row in rows["test"]
            if row["topic"] != rows["test"][0]["topic"] and row["product"] != rows["test"][0]["product"]
        ),
    )
    assert v.reward(own["message"], other["reply"]) < v.reward(own["message"], own["reply"]) == 1.0
    everywhere = v.score([own["reply"]] * len(rows["test"]), rows["test"])
    assert (
        everywhere.exact < 0.02
        and everywhere.detail["all rules"] < 0.5
        and everywhere.detail["distinct"] < 0.15
    )


NONSENSE = [
    "",
    " ",
    "\n\n",
    "!" * 5000,
    "a" * 100_000,
    "Hello " * 50_000,
    "\x00\ud800",
    "🙂" * 999,
    "[" * 10_000,
    "送料無料です。",
    "take " * 3000 + "back",
    "Kind regards, " * 999,
    "- " * 5000,
    "Wren & Fell\n" * 999,
    "İ" * 500,
]


@pytest.mark.parametrize("number", range(len(NONSENSE)))
def test_no_text_makes_the_scorer_raise_and_nonsense_earns_nothing(number, rows):
    text = NONSENSE[number]
    scores = v.score([text], rows["test"][:1])
    assert scores.exact == 0.0 and scores.detail["all rules"] == 0.0
    assert v.reward(text, text) == 0.0 and v.reward(text, GOOD) >= 0.0
    assert scores.answers == [text]


def test_scoring_needs_one_text_a_row(rows):
    with pytest.raises(LabkitError, match="one text a row"):
        v.score([GOOD], [])
    with pytest.raises(LabkitError, match="2 texts against 1 rows"):
        v.score([GOOD, GOOD], rows["test"][:1])


def test_the_reward_is_by_default_the_share_of_pair_rules():
    assert v.reward(MESSAGE, GOOD) == 1.0
    assert v.reward(MESSAGE, GOOD.replace("We are", "I am")) == 1 - 1 / len(v.PAIR_RULES)
    assert v.reward(MESSAGE, GOOD.replace("We are", "We're")) == 1.0
    assert v.reward(MESSAGE, GOOD.replace("We are", "We're"), None) == 1 - 1 / len(v.RULES)
    assert v.reward(MESSAGE, GOOD.replace("We are", "We're"), ["full_words", "greeting"]) == 0.5
    assert v.reward(MESSAGE, "") == 0.0


def test_the_judge_prefers_the_reply_that_keeps_more_of_the_chosen_rules():
    short, loud = GOOD.replace("We are", "We're"), GOOD.replace("more.", "more!")
    assert (v.judge(MESSAGE, GOOD, short), v.judge(MESSAGE, short, GOOD), v.judge(MESSAGE, GOOD, GOOD)) == (
        1,
        0,
        0.5,
    )
    assert v.judge(MESSAGE, GOOD, loud) == 0.5  # exclamation marks are no held-out matter
    assert v.judge(MESSAGE, GOOD, loud, v.PAIR_RULES) == v.judge(MESSAGE, GOOD, loud, None) == 1
    assert v.judge(MESSAGE, "", short) == 0


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(LabkitError, match="politeness.*greeting"):
        v.reward(MESSAGE, GOOD, ["politeness"])
    with pytest.raises(LabkitError, match="No rule"):
        v.judge(MESSAGE, GOOD, GOOD, [])


def test_a_reply_is_written_to_plan_or_not_at_all():
    rng = builder.Random("plan")
    text = replies.write_reply(rng, MESSAGE, "Alder fleece", "care-coat-x01", {"says_we", "no_hype"})
    assert v.broken(MESSAGE, text) == ["says_we", "no_hype"]
    assert (
        replies.write_reply(rng, MESSAGE, "Alder fleece", "care-coat-x01", {"not_too_long", "not_too_short"})
        is None
    )


# ---- prompts


@pytest.mark.parametrize("name", list(v.PROMPTS))
def test_each_prompt_ends_with_the_message_and_shows_only_gold_replies_of_training(name, rows):
    message = rows["test"][0]["message"]
    turns = v.PROMPTS[name](rows["train"])(message)
    assert turns[0]["role"] == "system" and turns[-1] == {"role": "user", "content": message}
    assert [turn["role"] for turn in turns[1:]] == (["user", "assistant"] * len(turns))[: len(turns) - 1]
    gold = {row["message"]: row for row in rows["train"]}
    shown = [(turns[i]["content"], turns[i + 1]["content"]) for i in range(1, len(turns) - 1, 2)]
    assert len(shown) == (int(name.split()[-2]) if name.endswith("examples") else 0)
    assert all(gold[asked]["reply"] == answer for asked, answer in shown)
    assert len({gold[asked]["topic"] for asked, _ in shown}) == len(shown)


def test_the_style_guide_states_the_limits_and_too_few_rows_are_an_error(rows):
    for stated in (
        "15 to 60 words",
        "22 words",
        "Wren & Fell on the last line",
        '"we"',
        "exclamation",
        "refund",
    ):
        assert stated in v.GUIDE
    assert prompts.examples(rows["train"], 9)
    with pytest.raises(LabkitError, match="pass more rows"):
        v.PROMPTS["style guide and 6 examples"](rows["train"][:4])


def test_the_committed_checksums_name_every_part():
    assert set(json.loads((v.FOLDER / "checksums.json").read_text())) == {
        f"{part}.jsonl.gz" for part in WHOLE
    }
