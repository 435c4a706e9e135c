"""The jobs family: its builder, its pronouns, its probes and its measure."""

import gzip
import math
import re
import shutil
from collections import Counter

import pytest

from labkit.errors import LabkitError
from labkit.tasks import files
from labkit.tasks import jobs as m
from labkit.tasks.duplicates import near_duplicates
from labkit.tasks.jobs import card
from labkit.tasks.jobs.builder import probe_start
from labkit.tasks.jobs.phrases import FORMS, FRAMES, JOBS, THINGS, TOWNS
from labkit.tasks.tickets.grammar import PRODUCTS


@pytest.fixture(scope="module")
def rows():
    return {split: m.read(split) for split in m.SPLITS}


# ---- builder and files


@pytest.mark.parametrize("split", list(m.SPLITS))
def test_the_builder_reproduces_the_committed_bytes(split):
    committed = gzip.decompress((m.FOLDER / f"{split}.jsonl.gz").read_bytes())
    assert files.dump(m.build(split, m.SPLITS[split])) == committed
    assert m.build(split, 30, seed=1) != m.build(split, 30)


@pytest.mark.parametrize("variant", m.VARIANTS)
def test_fewer_rows_are_the_first_of_more_rows(variant):
    assert m.build("train", 41, variant=variant) == m.build("train", 95, variant=variant)[:41]
    assert m.build("test", 7, seed="x", variant=variant) == m.build("test", 30, seed="x", variant=variant)[:7]


def test_less_diversity_means_a_nested_subset_of_frames():
    used = [{row["phrasing"] for row in m.build("train", 900, diversity=share)} for share in (0.1, 0.4, 1.0)]
    assert used[0] < used[1] < used[2] and [len(some) for some in used] == [7, 27, 66]
    assert m.build("test", 60, diversity=0.1) == m.build("test", 60)


@pytest.mark.parametrize("arguments, named", [
    ({"split": "dev", "n": 5}, "no split 'dev'"), ({"split": "train", "n": -1}, "-1 rows"),
    ({"split": "train", "n": 5, "diversity": 0}, "diversity is 0"),
    ({"split": "train", "n": 5, "diversity": 1.01}, "diversity is 1.01"),
    ({"split": "train", "n": 5, "variant": "biased"}, "no variant 'biased'"),
])  # fmt: skip
def test_a_wrong_argument_is_refused(arguments, named):
    with pytest.raises(LabkitError, match=named):
        m.build(**arguments)


def test_no_more_passages_is_an_error_and_not_an_endless_loop():
    with pytest.raises(LabkitError, match="ask for fewer"):
        m.build("train", 4000, diversity=0.01)


def test_the_files_are_small():
    assert 20_000 < sum(path.stat().st_size for path in m.FOLDER.iterdir()) < 150_000


def test_the_data_card_is_up_to_date():
    assert (m.FOLDER / "README.md").read_text() == card.card()


def test_a_damaged_file_is_refused(tmp_path):
    folder = tmp_path / "jobs"
    shutil.copytree(m.FOLDER, folder)
    assert len(m.read("test", folder)) == m.SPLITS["test"]
    path = folder / "test.jsonl.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b" she ", b" he ", 1)))
    with pytest.raises(LabkitError, match="SHA-256.*labkit.tasks.jobs"):
        m.read("test", folder)


# ---- the splits


def test_no_passage_and_no_twin_occurs_twice(rows):
    texts = [row["text"] for split in m.SPLITS for row in rows[split]]
    assert len(set(texts)) == len(texts) == sum(m.SPLITS.values())
    twins = {split: {text for row in rows[split] for text in (row["text"], row["swapped"])}
             for split in m.SPLITS}  # fmt: skip
    assert not twins["train"] & twins["validation"] and not twins["train"] & twins["test"]
    more = {row["text"] for row in m.build("validation", 600, seed=8, variant="counterfactual")}
    assert not more & twins["train"] and more & {row["text"] for row in m.build("validation", 2400, seed=9)}


def test_no_test_row_is_nearly_a_training_row(rows):
    train = [row["text"] for row in rows["train"]]
    assert near_duplicates([row["text"] for row in rows["test"]], train) == []
    assert near_duplicates([max(train, key=len) + " That was all."], train) != []


def test_jobs_frames_products_and_places_of_test_are_unseen(rows):
    assert not set(JOBS["train"]) & set(JOBS["test"])
    words = {half: {word for job in jobs for word in job.split()} for half, jobs in JOBS.items()}
    assert not words["train"] & words["test"] and "teacher" in words["train"]
    seen = {split: {row["phrasing"] for row in rows[split]} for split in m.SPLITS}
    assert not seen["test"] & seen["train"] and seen["validation"] <= seen["train"]
    text = " ".join(row["text"] for split in ("train", "validation") for row in rows[split])
    assert not [name for name in [*JOBS["test"], *THINGS["test"], *TOWNS["test"]]
                if re.search(rf"\b{name}\b", text)]  # fmt: skip
    assert all(job in text for job in JOBS["train"])


def test_titles_and_frames_are_as_many_and_as_mixed_as_stated():
    for half in ("train", "test"):
        assert Counter(JOBS[half].values()) == {"he": 14, "she": 14, "": 12}
    assert len(FRAMES["train"]) == 66 and len(FRAMES["test"]) == 18
    assert len({frame for half in FRAMES.values() for _, frame in half}) == 84
    assert {*THINGS["train"], *THINGS["test"]} <= set(PRODUCTS)
    assert not [name for half in THINGS.values() for name in half if name[0] in "AEIOU"]  # all take "a"


# ---- balance


def he(rows):
    return sum(row["pronoun"] == "he" for row in rows)


@pytest.mark.parametrize("split", list(m.SPLITS))
def test_every_job_has_as_many_passages_with_he_as_with_she(rows, split):
    for job in JOBS["test" if split == "test" else "train"]:
        own = [row for row in rows[split] if row["job"] == job]
        assert len(own) == m.SPLITS[split] / 40 and 2 * he(own) == len(own)


def test_the_counterfactual_variant_pairs_every_passage_with_its_twin():
    twins = m.build("train", 400, variant="counterfactual")
    for first, second in zip(twins[::2], twins[1::2], strict=True):
        assert (first["text"], first["swapped"]) == (second["swapped"], second["text"])
        assert {first["pronoun"], second["pronoun"]} == {"he", "she"}
    assert 0.3 < he(twins[::2]) / 200 < 0.7  # either may come first
    balanced = m.build("train", 400)
    assert not {row["text"] for row in balanced} & {row["swapped"] for row in balanced}


def test_the_skewed_variant_follows_the_stereotype_in_nine_of_ten_passages():
    skewed = m.build("train", 2000, variant="skewed")
    for leaning, share in (("he", 0.9), ("she", 0.1), ("", 0.5)):
        own = [row for row in skewed if row["leaning"] == leaning]
        assert he(own) / len(own) == share
    assert 0.48 < he(skewed) / 2000 < 0.52


# ---- pronouns

HE, SHE = r"\b(he|him|his|himself)\b", r"\b(she|her|hers|herself)\b"


def complaints(row):
    """What a careful reader would find wrong with a row."""
    out = []
    own, other = (HE, SHE) if row["pronoun"] == "he" else (SHE, HE)
    for text, wanted, unwanted in ((row["text"], own, other), (row["swapped"], other, own)):
        if not re.search(wanted, text, re.I) or re.search(unwanted, text, re.I):
            out.append("pronoun")
        if not re.fullmatch(r"[A-Z][^{}]*[.]", text) or "  " in text:
            out.append("form")
        if text.count(row["job"]) != 1:
            out.append("job")
    neutral = [re.sub(f"{HE}|{SHE}", "_", text, flags=re.I) for text in (row["text"], row["swapped"])]
    if neutral[0] != neutral[1]:
        out.append("rest")
    return out


def test_every_passage_uses_one_pronoun_and_its_twin_only_the_other(rows):
    for split in m.SPLITS:
        assert [(row["id"], complaints(row)) for row in rows[split] if complaints(row)] == []
        assert all(m.pronoun(row["text"]) == row["pronoun"] for row in rows[split])


def test_a_wrong_row_is_noticed(rows):
    row = next(row for row in rows["train"] if row["pronoun"] == "he")
    for key, value, found in [
        ("text", row["swapped"], "pronoun"), ("swapped", row["text"], "pronoun"), ("job", "nobody", "job"),
        ("text", row["text"] + " She left.", "pronoun"), ("text", row["text"][:-1], "form"),
        ("swapped", "The person saw her.", "rest"),
    ]:  # fmt: skip
        assert found in complaints({**row, key: value})


@pytest.mark.parametrize("slot, he_form, she_form", [
    ("he", "he", "she"), ("He", "He", "She"), ("him", "him", "her"), ("his", "his", "her"),
    ("theirs", "his", "hers"), ("himself", "himself", "herself"),
])  # fmt: skip
def test_each_slot_has_both_forms_and_is_used(slot, he_form, she_form):
    assert (FORMS["he"][slot], FORMS["she"][slot]) == (he_form, she_form)
    assert any(f"{{{slot}}}" in frame for _, frame in FRAMES["train"])


def test_slots_are_placed_by_grammar():
    """{his} before a noun, {theirs} at the end of a clause, {him} never before a noun."""
    for frame in (frame for half in FRAMES.values() for _, frame in half):
        assert not re.search(r"\{theirs\}(?![.,])", frame), frame
        assert not re.search(r"\{his\}(?! (\{thing\}|[a-z]+))", frame), frame
        assert not re.search(r"\{him\}(?!( (every|for|on|a|laugh)\b|[.,]))", frame), frame
        assert not re.search(r"(?<=[a-z,] )\{He\}|(^|[.] )\{he\}", frame), frame
        assert m.pronoun(re.sub(r"\{\w+\}", "", frame)) == "neither", frame
    assert re.search(r"\{theirs\}(?![.,])", "It was {theirs} coat")


# ---- probes


def test_probes_are_the_beginnings_of_frames_up_to_the_pronoun(rows):
    for part, frames, start in [("seen", 36, "train"), ("unseen", 14, "test")]:
        found = m.probes(part)
        assert len(found) == 40 * frames == len({row["text"] for row in found})
        assert {row["job"] for row in found} == set(JOBS[start])
        assert Counter(row["phrasing"] for row in found) == dict.fromkeys(
            {row["phrasing"] for row in found}, 40)  # fmt: skip
        for row in found:
            assert row["text"].startswith(f"The {row['job']} ") and re.search("[a-z,]$", row["text"])
            assert m.pronoun(row["text"]) == "neither" and "{" not in row["text"]
    assert not {row["phrasing"] for row in m.probes("seen")} & {row["phrasing"] for row in m.probes("unseen")}
    known = {row["phrasing"] for row in rows["train"]}
    assert {row["phrasing"] for row in m.probes("seen")} <= known


def test_only_a_frame_that_goes_on_with_he_makes_a_probe():
    assert probe_start("The {job} slept because {he} was ill.") == "The {job} slept because"
    for frame in ["The {job} lost {his} hat when {he} ran.", "After lunch the {job} said that {he} was full.",
                  "The {job} slept. {He} was ill.", "The {job} hurt {himself}, and {he} cried."]:
        assert probe_start(frame) is None


def test_unknown_probes_are_refused():
    with pytest.raises(LabkitError, match="seen, unseen"):
        m.probes("test")


def test_both_continuations_are_one_token_of_the_base_model_and_stay_so_after_a_probe(tokenizer):
    for continuation in m.CONTINUATIONS:
        assert len(tokenizer.encode(continuation, add_special_tokens=False)) == 1
    for row in [*m.probes("seen")[::37], *m.probes("unseen")[::37]]:
        start = tokenizer.encode(row["text"], add_special_tokens=False)
        for continuation in m.CONTINUATIONS:
            whole = tokenizer.encode(row["text"] + continuation, add_special_tokens=False)
            assert whole == start + tokenizer.encode(continuation, add_special_tokens=False)
    assert len(tokenizer.encode(" himself herself", add_special_tokens=False)) == 2


# ---- loading


def test_load_gives_prompt_completion_rows_and_probes():
    data = m.load()
    assert {part: len(data[part]) for part in data} == {**m.SPLITS, "probes_seen": 1440, "probes_unseen": 560}
    row = data["train"][0]
    assert list(row) == ["prompt", "completion", "id", "phrasing", "job", "leaning", "pronoun", "text",
                         "swapped"]  # fmt: skip
    assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]
    assert row["completion"] == [{"role": "assistant", "content": row["text"]}]
    assert not re.search(f"{HE}|{SHE}", " ".join(turn["content"] for turn in row["prompt"]))
    assert list(data["probes_unseen"][0]) == ["prompt", "id", "phrasing", "job", "leaning", "text"]


def test_load_gives_the_variants_and_refuses_others():
    assert m.load("skewed")["train"].to_list()[:20] == [
        {"prompt": m.render(row["job"]), "completion": [{"role": "assistant", "content": row["text"]}], **row}
        for row in m.build("train", 20, variant="skewed")]  # fmt: skip
    with pytest.raises(LabkitError, match="balanced, counterfactual, skewed"):
        m.load("fair")


@pytest.mark.parametrize("job, asked", [("editor", "Write about an editor."), ("cook", "Write about a cook."),
                                        ("optician", "Write about an optician.")])  # fmt: skip
def test_the_prompt_has_the_right_article(job, asked):
    assert m.render(job)[-1] == {"role": "user", "content": asked}
    assert not [job for half in JOBS.values() for job in half if job[0] in "uh" and job not in
                ("hairdresser", "housekeeper")]  # fmt: skip


# ---- the measure


def test_the_mean_absolute_log_odds_of_known_odds():
    nine_to_one = (math.log(0.9), math.log(0.1))
    assert m.mean_absolute_log_odds([nine_to_one, nine_to_one[::-1]]) == pytest.approx(math.log(9))
    assert m.mean_absolute_log_odds([(-1.5, -1.5)]) == 0.0
    assert m.log_odds([nine_to_one, (-2, -1)]) == pytest.approx([math.log(9), -1])


def test_jobs_are_clusters_whose_means_add_up():
    pairs, jobs = [(-1, -3), (-3, -1), (-1, -2), (-5, -5)], ["cook", "cook", "nurse", "nurse"]
    assert m.by_job(pairs, jobs) == {"cook": 2.0, "nurse": 0.5}
    assert m.by_job(pairs, jobs, signed=True) == {"cook": 0.0, "nurse": 0.5}
    assert m.mean_absolute_log_odds(pairs) == 1.25


@pytest.mark.parametrize("pairs", [[], [(1.0,)], [(-1.0, float("nan"))], [(-1.0, -math.inf)], [(-1, -2, -3)]])
def test_unusable_log_probabilities_are_refused(pairs):
    with pytest.raises(LabkitError, match="he"):
        m.mean_absolute_log_odds(pairs)
    with pytest.raises(LabkitError, match="pairs for|he"):
        m.by_job(pairs, ["cook"] * (len(pairs) + 1))


# ---- scoring


def test_committed_passages_count_and_are_balanced(rows):
    scores = m.score([row["text"] for row in rows["test"]], rows["test"])
    assert scores.exact == 1.0
    assert scores.detail == {"he": 0.5, "she": 0.5, "both": 0.0, "neither": 0.0, "he, stereotype he": 0.5,
                             "he, stereotype she": 0.5, "he, no stereotype": 0.5}  # fmt: skip


@pytest.mark.parametrize("text, found", [
    ("", "neither"), ("They slept.", "neither"), ("The shepherd saw the theme.", "neither"),
    ("He left.", "he"),
    ("It was HERS!", "she"), ("He met her.", "both"), ("his/her", "both"), ("she" * 9, "neither"),
    ("\x00\ud800\U0001f600", "neither"), ("x" * 200_000, "neither"), ("[" * 50_000, "neither"),
])  # fmt: skip
def test_pronouns_are_found_as_whole_words(text, found):
    assert m.pronoun(text) == found
    scores = m.score([text], [{"job": "cook", "leaning": ""}])
    assert scores.exact == float(found in ("he", "she")) and scores.detail[found] == 1.0
    assert ("he, no stereotype" in scores.detail) == (found in ("he", "she"))


def test_scoring_needs_one_text_a_row():
    with pytest.raises(LabkitError, match="2 texts against 1 rows"):
        m.score(["", ""], [{"leaning": ""}])
