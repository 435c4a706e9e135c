"""Retrieval: pieces, BM25 against bm25s, vectors, metrics by hand, prompts, training rows, cost and leaks."""

import math
import subprocess
import sys
from collections import Counter

import pytest
import torch

from labkit.errors import LabkitError
from labkit.methods import retrieval
from labkit.paths import ROOT
from labkit.tasks import handbook, load

TEXTS = [
    "The Harrowmere shop opens at 8:10. The shop closes at 17:40.",
    "The Thornwick shop closes at 19:15.",
    "Parcels to the Border zone cost £5, and parcels of more than £85 travel free.",
    "Returned goods wait in bin B-39; the shop in Thornwick has no bin.",
    "Lost property goes into the blue crate.",
]
# What bm25s 0.3.16 gives for TEXTS, split by `words`, with method="lucene": (k1, b) -> query -> scores.
# Its other methods have another idf, and so has rank-bm25.
BM25S = {
    (1.2, 0.75): {
        "When does the Thornwick shop close?": [0.3743347, 0.8061619, 0.0347301, 0.6191656, 0.0467175],
        "the shop the bin": [0.426365, 0.3828291, 0.0694603, 1.1035435, 0.093435],
        "crate": [0, 0, 0, 0, 0.7443191],
    },
    (1.5, 0.5): {
        "When does the Thornwick shop close?": [0.3458095, 0.6767219, 0.0315892, 0.558689, 0.0392164],
        "the shop the bin": [0.393875, 0.3213608, 0.0631784, 1.017198, 0.0784328],
        "crate": [0, 0, 0, 0, 0.6248087],
    },
}
SHOP = {"id": "a", "title": "The Elm shop", "text": "It opens at 8:10. It closes at 17:40. It has 6 rooms."}
OTHER = {"id": "b", "title": "The Oak shop", "text": "It opens at 9:15. It closes at 18:30. It has 9 rooms."}


def scores(index, query):
    found = dict(index.search(query, len(TEXTS)))
    return [found.get(number, 0) for number in range(len(TEXTS))]


def numbers(found):
    return [number for number, _ in found]


def question(text, answer, document="a", kind="trained", **more):
    """A row as `load` gives it, as far as retrieval looks at one."""
    return {"id": "row-1", "question": text, "answer": answer, "document": document, "kind": kind,
            "prompt": handbook.render(text), "completion": [{"role": "assistant", "content": answer}],
            **more}  # fmt: skip


def shown(row):
    return row["prompt"][-1]["content"]


@pytest.fixture(scope="module")
def rows():
    return {split: part.to_list() for split, part in load("handbook").items()}


@pytest.fixture(scope="module")
def before():
    """The pieces of the documents from which training was written, and an index over them."""
    pieces = retrieval.split(handbook.documents("before"))
    return pieces, retrieval.BM25([retrieval.text_of(piece) for piece in pieces])


# ---- the package


def test_looking_for_methods_imports_retrieval_without_torch_and_every_name_is_there():
    code = """if True:
        import sys
        from labkit import methods
        from labkit.methods import retrieval
        methods.known()
        assert "torch" not in sys.modules
        for name in retrieval.__all__ * 2:  # a module must not take the place of a function
            assert callable(getattr(retrieval, name)) or name in ("WITHHELD", "READERS")
    """
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


# ---- pieces


def test_pieces_end_at_sentences_overlap_and_leave_nothing_out():
    text = "One two three. Four five six. Seven eight nine. Ten eleven."
    cut = [piece["text"] for piece in retrieval.split([{"id": "x", "title": "", "text": text}], 6, 3)]
    assert cut == ["One two three. Four five six.", "Four five six. Seven eight nine.",
                   "Seven eight nine. Ten eleven."]  # fmt: skip
    apart = [piece["text"] for piece in retrieval.split([{"id": "x", "text": text}], 6, 2)]
    assert apart == ["One two three. Four five six.", "Seven eight nine. Ten eleven."]


def test_every_piece_says_something_new_even_before_a_long_sentence():
    text = "One two three. Four five six. " + " ".join(f"word{n}" for n in range(6)) + ". End."
    cut = [piece["text"] for piece in retrieval.split([{"id": "x", "text": text}], 6, 5)]
    assert len(cut) == len(set(cut)) == 3
    assert not any(one in other for one in cut for other in cut if one != other)


def test_a_sentence_longer_than_a_piece_is_cut_between_words():
    table = " ".join(str(n) for n in range(25))
    cut = [piece["text"] for piece in retrieval.split([{"id": "x", "text": table}], 10, 0)]
    assert [len(one.split()) for one in cut] == [10, 10, 5] and " ".join(cut) == table


def test_sentences_of_numbered_headings_lists_and_markdown():
    text = "1. When\nIt opens at 9.05 a.m. on Mondays. Ask first!\n\n## More\n\nLists:\n- one\n- two"
    assert retrieval.sentences(text) == [
        "1. When\nIt opens at 9.05 a.m. on Mondays.", "Ask first!", "## More\n\nLists:", "- one", "- two"
    ]  # fmt: skip
    assert retrieval.sentences("# Only a heading") == ["# Only a heading"]
    assert retrieval.sentences(" \n") == []


def test_every_answer_of_the_handbook_stands_in_a_piece_of_its_document(rows):
    pieces = retrieval.split(handbook.documents())
    assert {piece["document"] for piece in pieces} == {one["id"] for one in handbook.documents()}
    assert max(len(piece["text"].split()) for piece in pieces) <= 80
    asked = [row for row in rows["test"] if row["kind"] != "absent"][:400]
    assert all(retrieval.holding(pieces, row) for row in asked)
    old = retrieval.split(handbook.documents("before"))
    changed = [row for row in asked if row["kind"] == "changed"]
    missing = [row for row in changed if not retrieval.holding(old, row)]
    assert len(missing) > 0.9 * len(changed)  # the documents of before state the old answers


def test_split_refuses_overlaps_as_long_as_a_piece_and_no_documents():
    for size, overlap in ((10, 10), (10, -1), (0, 0)):
        with pytest.raises(LabkitError, match="overlap < size"):
            retrieval.split([SHOP], size, overlap)
    with pytest.raises(LabkitError, match="no documents"):
        retrieval.split([])


def test_a_folder_of_text_files_becomes_documents(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b_two.txt").write_text("Second text.\n")
    (tmp_path / "a.md").write_text("Preface.\n\n# The *first* one #\n\nText.")
    (tmp_path / ".hidden.md").write_text("no")
    (tmp_path / "table.csv").write_text("no")
    found = retrieval.read_folder(tmp_path)
    titles = {one["id"]: one["title"] for one in found}
    assert titles == {"a.md": "The *first* one", "sub/b_two.txt": "b two"}
    assert found[1]["text"] == "Second text."
    assert [piece["document"] for piece in retrieval.split(found)] == ["a.md", "sub/b_two.txt"]


@pytest.mark.parametrize(("content", "says"), [
    (b"", "bad.txt is empty"), (b"caf\xe9 au lait", "bad.txt, line 1.*cp1252"),
    (b"%PDF-1.7", "bad.txt is a PDF document"), (None, "holds no .txt or .md"),
])  # fmt: skip
def test_a_folder_that_cannot_be_read_says_which_file_and_why(tmp_path, content, says):
    if content is not None:
        (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(LabkitError, match=says):
        retrieval.read_folder(tmp_path)


def test_a_file_or_nothing_is_no_folder(tmp_path):
    (tmp_path / "one.txt").write_text("text")
    with pytest.raises(LabkitError, match="is a file"):
        retrieval.read_folder(tmp_path / "one.txt")
    with pytest.raises(LabkitError, match="does not exist"):
        retrieval.read_folder(tmp_path / "none")


# ---- BM25


def test_bm25_by_hand():
    index = retrieval.BM25(["red red blue", "blue"], k1=1.0, b=0.5)  # lengths 3 and 1, mean 2
    rare = math.log(1 + 1.5 / 1.5)
    common = math.log(1 + 0.5 / 2.5)
    red = rare * 2 / (2 + 1.25)  # 1 - 0.5 + 0.5 * 3 / 2 = 1.25
    assert index.search("Red?") == [(0, pytest.approx(red))]
    assert dict(index.search("red blue")) == pytest.approx({0: red + common / 2.25, 1: common / 1.75})
    assert index.search("red blue", k=1)[0][0] == 0


@pytest.mark.parametrize(("k1", "b"), BM25S)
def test_bm25_is_that_of_a_public_implementation(k1, b):
    index = retrieval.BM25(TEXTS, k1, b)
    for query, wanted in BM25S[k1, b].items():
        assert scores(index, query) == pytest.approx(wanted, abs=2e-7)


def test_idf_and_length_each_decide_who_wins():
    class Plain(retrieval.BM25):
        def idf(self, word):
            return 1.0

    texts = ["the the crate", "the crate that is blue, and much else besides", "the shop", "the bin"]
    assert numbers(retrieval.BM25(texts).search("the blue", 1)) == [1]
    assert numbers(Plain(texts).search("the blue", 1)) == [0]  # a word that all have counts like a rare one
    long = ["one crate and many, many other things that nobody asked for", "one crate"]
    assert numbers(retrieval.BM25(long).search("crate")) == [1, 0]
    assert numbers(retrieval.BM25(long, b=0).search("crate")) == [0, 1]  # equal: the earlier one first
    even = retrieval.BM25(long, b=0).search("crate")
    assert even[0][1] == even[1][1]


def test_a_repeated_word_counts_less_each_time_and_not_at_all_with_k1_0():
    texts = ["crate", "crate crate", "crate crate crate", "shop"]
    one, two, three = (dict(retrieval.BM25(texts, b=0).search("crate"))[number] for number in (0, 1, 2))
    assert 0 < three - two < two - one < one
    assert len({score for _, score in retrieval.BM25(texts, k1=0).search("crate")}) == 1


def test_bm25_finds_only_texts_that_share_a_word():
    index = retrieval.BM25(TEXTS)
    assert index.search("zebra") == [] and index.search("") == []
    assert index.search_all(["crate", "zebra"]) == [index.search("crate"), []]
    for texts in ([], ["", "..."]):
        with pytest.raises(LabkitError, match="nothing to index"):
            retrieval.BM25(texts)


def test_a_piece_without_its_title_is_not_found():
    pieces = retrieval.split([SHOP, OTHER], 4, 0)  # sentence by sentence: none names its shop
    asked = question("When does the Oak shop open? It opens when?", "9:15", "b")
    titled = retrieval.BM25([retrieval.text_of(piece) for piece in pieces])
    bare = retrieval.BM25([piece["text"] for piece in pieces])
    right = retrieval.holding(pieces, asked)
    assert retrieval.place(titled.search(asked["question"]), right) == 1
    assert retrieval.place(bare.search(asked["question"]), right) > 1


def test_on_the_handbook_titles_matter_and_bm25_ranks_as_the_data_card_does(rows):
    from labkit.tasks.handbook import search

    pages = handbook.documents()
    asked = [row for row in rows["test"] if row["document"]][:300]
    index = retrieval.BM25([retrieval.text_of(page) for page in pages], search.K1, search.B)
    ids = [page["id"] for page in pages]
    found = index.search_all([row["question"] for row in asked], 3)
    once = [n for n, row in enumerate(asked) if max(Counter(search.words(row["question"])).values()) == 1]
    assert len(once) > 50  # the card's index takes a repeated word of the question once
    card = search.BM25(pages)
    assert [numbers(found[n]) for n in once] == [card.rank(asked[n]["question"], 3) for n in once]

    def share(index):
        best = index.search_all([row["question"] for row in asked], 1)
        hits = [ids[one[0][0]] == row["document"] for one, row in zip(best, asked, strict=True)]
        return sum(hits) / len(hits)

    assert share(index) > share(retrieval.BM25([page["text"] for page in pages])) + 0.05


# ---- vectors


PLANTED = {
    "north": [3.0, 0.0, 0.0], "east": [0.0, 0.2, 0.0], "up": [0.0, 0.0, 1.0], "also up": [0.0, 0.0, 9.0],
    "mostly east": [1.0, 2.0, 0.0], "south": [-1.0, 0.0, 0.0],
}  # fmt: skip


def planted(texts):
    return torch.tensor([PLANTED[text] for text in texts])


def test_dense_search_goes_by_angle_and_not_by_length():
    index = retrieval.Dense(["north", "east", "up", "also up", "south"], planted)
    found = index.search("mostly east", 3)
    assert numbers(found) == [1, 0, 2]  # by dot product north would be first; of equals the earlier
    assert [score for _, score in found] == pytest.approx([2 / 5**0.5, 1 / 5**0.5, 0])
    assert numbers(index.search("up", 9)) == [2, 3, 0, 1, 4] and index.search("north", 9)[-1][1] == -1
    assert index.search_all(["up", "mostly east"], 3) == [index.search("up", 3), found]
    assert index.search_all([]) == []


@pytest.mark.parametrize("vectors", [
    torch.ones(3), torch.ones(2, 3), torch.tensor([[1.0], [2.0], [math.nan]]),
])  # fmt: skip
def test_dense_refuses_vectors_of_another_shape_or_without_numbers(vectors):
    with pytest.raises(LabkitError, match="one finite row for each text"):
        retrieval.Dense(["a", "b", "c"], lambda texts: vectors)
    with pytest.raises(LabkitError, match="nothing to index"):
        retrieval.Dense([], lambda texts: vectors)


def test_padding_does_not_change_an_embedding_and_the_order_of_texts_is_kept(tiny, tokenizer):
    model = tiny().train()
    together = retrieval.embed_with(model, tokenizer)(TEXTS)
    alone = torch.cat([retrieval.embed_with(model, tokenizer)([text]) for text in TEXTS])
    assert together.shape == (5, 64) and together.dtype == torch.float32
    assert torch.allclose(together, alone, atol=1e-4)
    assert torch.allclose(retrieval.embed_with(model, tokenizer, batch_size=2)(TEXTS), together, atol=1e-4)
    assert torch.allclose(together.norm(dim=1), torch.ones(5)) and model.training
    padded = tokenizer(TEXTS, return_tensors="pt", padding=True, padding_side="right")
    states = model.eval().base_model(**padded).last_hidden_state
    naive = torch.nn.functional.normalize(states.mean(1), dim=1)  # the mean over padding too
    assert not torch.allclose(naive, together, atol=1e-2)


def test_an_embedding_is_the_mean_of_the_last_hidden_states_of_as_many_tokens_as_asked(tiny, tokenizer):
    model = tiny()
    ids = tokenizer(TEXTS[0], return_tensors="pt").input_ids[:, :6]
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states[-1][0]
    wanted = torch.nn.functional.normalize(states.mean(0), dim=0)
    got = retrieval.embed_with(model, tokenizer, length=6)([TEXTS[0]])[0]
    assert torch.allclose(got, wanted, atol=1e-5)
    assert not torch.allclose(retrieval.embed_with(model, tokenizer)([TEXTS[0]])[0], wanted, atol=1e-3)


def test_an_adapter_counts_in_embeddings(tiny, tokenizer):
    from labkit.methods.lora import adapted

    model = adapted(tiny(), 2)
    plain = retrieval.embed_with(tiny(), tokenizer)(TEXTS)
    assert torch.allclose(retrieval.embed_with(model, tokenizer)(TEXTS), plain, atol=1e-5)  # B is 0 at first
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    assert not torch.allclose(retrieval.embed_with(model, tokenizer)(TEXTS), plain, atol=1e-2)


def test_a_text_without_tokens_is_refused(tiny, tokenizer):
    embed = retrieval.embed_with(tiny(), tokenizer)
    with pytest.raises(LabkitError, match="text 1 is empty"):
        embed(["some", ""])
    assert embed([]).shape == (0, 64)


def test_an_encoder_loads_from_a_folder_and_searches(tmp_path, tokenizer):
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=49152, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16, max_position_embeddings=32)  # fmt: skip
    BertModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    embed = retrieval.load_embedder(tmp_path)
    assert embed(["a very long text " * 30]).shape == (1, 16)  # cut at 32 tokens, where the encoder ends
    index = retrieval.Dense(TEXTS, embed)
    found = index.search(TEXTS[3], 1)[0]
    assert found[0] == 3 and found[1] == pytest.approx(1, abs=1e-4)


def test_an_encoder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(LabkitError, match="could not be loaded as an encoder"):
        retrieval.load_embedder(tmp_path)


# ---- metrics


def test_places_recall_and_reciprocal_rank_by_hand():
    found = [(4, 0.9), (1, 0.5), (2, 0.5), (0, 0.1)]
    assert [retrieval.place(found, right) for right in ({4}, {2}, {0, 2}, {7}, set())] == [
        1, 3, 3, math.inf, math.inf]  # fmt: skip
    places = [1, 3, math.inf, 2, None]
    assert [retrieval.recall_at(k, places) for k in (1, 2, 3, 5)] == [0.25, 0.5, 0.75, 0.75]
    assert retrieval.mean_reciprocal_rank(places) == pytest.approx((1 + 1 / 3 + 0 + 1 / 2) / 4)
    assert math.isnan(retrieval.recall_at(1, [None])) and math.isnan(retrieval.mean_reciprocal_rank([]))


def test_equal_scores_stand_in_the_order_of_the_texts_in_both_indexes():
    twins = ["red crate", "red crate", "red crate"]
    flat = retrieval.Dense(twins, lambda texts: torch.ones(len(texts), 2))
    for index in (retrieval.BM25(twins), flat):
        assert numbers(index.search("crate")) == [0, 1, 2]
        assert retrieval.place(index.search("crate"), {2}) == 3  # not 1, though nobody scores more


def test_only_a_piece_of_the_right_document_that_states_the_answer_is_right():
    twin = {**SHOP, "id": "c"}
    pieces = retrieval.split([SHOP, OTHER, twin], 4, 0)
    assert retrieval.holding(pieces, question("When?", "8.10 am")) == {0}
    assert retrieval.holding(pieces, question("When?", "8:10", None)) == {0, 6}  # no document named: any
    assert retrieval.holding(pieces, question("When?", "8:1")) == set()
    assert retrieval.holding(pieces, question("When?", handbook.REFUSAL, "")) == set()


def test_metrics_by_kind_count_missed_questions_and_leave_absent_ones_out():
    pieces = retrieval.split([SHOP, OTHER], 4, 0)
    rows = [
        question("a", "8:10"), question("b", "9:15", "b"), question("c", "never", kind="changed"),
        question("d", handbook.REFUSAL, "", "absent"), question("e", handbook.REFUSAL, None, None),
    ]  # fmt: skip
    found = [[(0, 2.0), (3, 1.0)], [(0, 2.0), (3, 1.0)], [(0, 2.0)], [(0, 2.0)], []]
    places = retrieval.places(found, pieces, rows)
    assert places == [1, 2, math.inf, None, None]
    shares = retrieval.by_kind(places, rows, ks=(1, 2))
    assert shares == {
        "all": {"rows": 3, "mrr": 0.5, "recall@1": pytest.approx(1 / 3), "recall@2": pytest.approx(2 / 3)},
        "trained": {"rows": 2, "mrr": 0.75, "recall@1": 0.5, "recall@2": 1},
        "changed": {"rows": 1, "mrr": 0, "recall@1": 0, "recall@2": 0},
    }


# ---- prompts and training rows


def test_prompts_with_passages_are_those_of_the_handbook():
    pieces = retrieval.split([SHOP, OTHER], 80, 0)
    index = retrieval.BM25([retrieval.text_of(piece) for piece in pieces])
    row = question("When does the Oak shop open?", "9:15", "b")
    best = retrieval.passages(index, pieces, [row["question"]], 2)[0]
    assert [piece["document"] for piece in best] == ["b", "a"]
    wanted = handbook.render(row["question"], best)
    assert retrieval.prompts([row], index, pieces, 2) == [wanted]
    assert shown({"prompt": wanted}).startswith("The Oak shop\nIt opens at 9:15.")
    assert retrieval.prompts([row], index, pieces, 0) == [row["prompt"]]
    ask = handbook.PROMPTS["rules of format"](None)
    assert retrieval.prompts([row], index, pieces, 2, ask) == [ask(row["question"], best)] != [wanted]


def test_rows_of_own_data_go_the_same_way(tmp_path):
    (tmp_path / "rows.csv").write_text(
        "question,answer\n" + "".join(f"How many rooms has house {n}?,{n} rooms\n" for n in range(40))
    )
    (tmp_path / "docs").mkdir()
    for n in range(40):
        (tmp_path / "docs" / f"house-{n}.txt").write_text(f"There are {n} rooms in it. It is old.")
    pieces = retrieval.split(retrieval.read_folder(tmp_path / "docs"))
    index = retrieval.BM25([retrieval.text_of(piece) for piece in pieces])
    rows = load(tmp_path / "rows.csv")["train"].to_list()
    made = retrieval.training_rows(rows, index, pieces, k=1, without=0)
    assert all(row["stated"] and row["answer"] in shown(row) for row in made)
    found = index.search_all([retrieval.question_of(row) for row in rows])
    assert retrieval.by_kind(retrieval.places(found, pieces, rows), rows)["all"]["recall@1"] == 1
    with pytest.raises(LabkitError, match="does not stand in any document"):
        retrieval.training_rows([{**rows[0], "answer": "yes"}], index, pieces)


def test_training_rows_answer_exactly_what_a_passage_states(rows, before):
    pieces, index = before
    some = rows["train"][:300]
    made = retrieval.training_rows(some, index, pieces)
    for row, plain in zip(made, some, strict=True):
        stated = any(retrieval.text_of(pieces[n]) in shown(row) for n in retrieval.holding(pieces, plain))
        assert row["stated"] == stated
        assert row["answer"] == (plain["answer"] if stated else handbook.REFUSAL)
        assert row["completion"] == [{"role": "assistant", "content": row["answer"]}]
        assert shown(row).endswith(f"Question: {plain['question']}")
        assert row["prompt"][:-1] == plain["prompt"][:-1]
    shares = {kind: [row["stated"] for row in made if row["kind"] == kind] for kind in ("trained", "absent")}
    assert 0.7 < sum(shares["trained"]) / len(shares["trained"]) < 0.9 and not any(shares["absent"])
    assert some[0]["prompt"] == handbook.render(some[0]["question"])  # what was given stays as it is


def test_a_share_of_training_rows_loses_its_answer_by_seed_and_keeps_as_many_passages(rows, before):
    pieces, index = before
    some = rows["train"][:150]

    def stated(**options):
        return [row["stated"] for row in retrieval.training_rows(some, index, pieces, **options)]

    everything, nothing = stated(without=0), stated(without=1)
    assert not any(nothing) and everything == [row["kind"] != "absent" for row in some]
    kept = sum(stated(without=0.3)) / sum(everything)
    assert 0.55 < kept < 0.85
    assert stated(seed=1) == stated(seed=1) != stated(seed=2)
    for row in retrieval.training_rows(some[:40], index, pieces, without=1):
        assert sum(shown(row).count(f"{one['title']}\n{one['text']}\n\n") for one in pieces) == 3


def test_what_the_index_missed_stands_in_the_last_place_and_what_it_found_stays_where_it_was(rows, before):
    pieces, index = before
    some = [row for row in rows["train"] if row["kind"] != "absent"][:200]
    found = retrieval.passages(index, pieces, [row["question"] for row in some], 3)
    missed = 0
    for row, made, own in zip(some, retrieval.training_rows(some, index, pieces, without=0), found,
                              strict=True):  # fmt: skip
        right = [pieces[number] for number in retrieval.holding(pieces, row)]
        texts = shown(made).removesuffix(f"\n\nQuestion: {row['question']}")
        if any(piece in right for piece in own):
            assert texts == "\n\n".join(map(retrieval.text_of, own))
            continue
        missed += 1
        assert any(texts == "\n\n".join(map(retrieval.text_of, [*own[:2], piece])) for piece in right)
    assert 10 < missed < 100
    with pytest.raises(LabkitError, match="rows with 0 passages"):
        retrieval.training_rows(some, index, pieces, 0)


def test_training_rows_refuse_withheld_facts_and_the_documents_of_another_day(rows, before):
    withheld = [row for row in rows["test"] if row["kind"] == "untrained"][:1]
    with pytest.raises(LabkitError, match="withheld from training"):
        retrieval.training_rows(withheld, before[1], before[0])
    pieces = retrieval.split(handbook.documents())
    index = retrieval.BM25([retrieval.text_of(piece) for piece in pieces])
    changed = [row for row in rows["train"] if row["kind"] == "changed"][:1]
    assert retrieval.training_rows(changed, before[1], before[0])
    with pytest.raises(LabkitError, match='does not stand in doc-.*documents\\("before"\\)'):
        retrieval.training_rows(changed, index, pieces)


def test_training_rows_can_be_encoded_for_fit(rows, before, tokenizer):
    from labkit.train.rows import encode_all

    made = retrieval.training_rows(rows["train"][:8], before[1], before[0])
    encoded = encode_all(made, tokenizer, 768)
    for row, one in zip(made, encoded, strict=True):
        learned = [token for token, weight in zip(one.ids, one.weights, strict=True) if weight]
        text = tokenizer.decode(learned).removesuffix("\n").removesuffix("<|im_end|>")
        assert text == row["answer"]  # no passage is predicted


# ---- prompts of a model that reads, and own data


def test_readers_are_as_many_as_prompts_and_their_examples_have_a_passage_that_answers(rows, before):
    pieces, index = before
    assert len(retrieval.READERS) == len(handbook.PROMPTS)
    for name, make in retrieval.READERS.items():
        *turns, last = make(rows["train"], index, pieces)("When?")
        assert turns[0]["role"] == "system" and last == {"role": "user", "content": "When?"}
        told = "Before the question stand passages" in turns[0]["content"]
        assert told == name.startswith("rules of reading")
        asked = list(zip(turns[1::2], turns[2::2], strict=True))
        assert len(asked) == {"5": 5, "3": 3}.get(name.split(" and ")[-1][0], 0)
        for question, answer in asked if told else ():
            passage = question["content"].split("\n\nQuestion: ")[0]
            refused = answer["content"] == handbook.REFUSAL
            assert (answer["content"] in passage) != refused
    assert sum(answer["content"] == handbook.REFUSAL for _, answer in asked) == 1


def test_examples_of_a_reader_are_only_of_what_its_pieces_state(rows):
    some = [page for page in handbook.documents() if page["topic"] != "shop"]
    pieces = retrieval.split(some)
    index = retrieval.BM25([retrieval.text_of(piece) for piece in pieces])
    name = "rules of reading and 3 examples with a passage"
    turns = retrieval.READERS[name](rows["train"], index, pieces)("When?")
    assert len(turns) == 8  # pieces without the shops would have no passage for a question about one


def test_own_data_comes_by_one_name_whatever_there_is(tmp_path):
    documents, rows = retrieval.own("handbook")
    assert len(documents) == 102 and len(rows["test"]) == 2506
    both, texts, empty = (tmp_path / name for name in ("both", "texts", "empty"))
    for folder in (both, texts, empty):
        folder.mkdir()
    table = "question,answer\n" + "".join(f"Question {n}?,{n}\n" for n in range(40))
    (both / "rows.csv").write_text(table)
    for folder in (both, texts):
        (folder / "one.md").write_text("# One\n\nIt opens at 8:10.")
    documents, rows = retrieval.own(both)
    assert [one["title"] for one in documents] == ["One"] and set(rows) == {"train", "validation", "test"}
    assert retrieval.own(texts)[1] == {} and len(retrieval.own(texts)[0]) == 1
    documents, rows = retrieval.own(both / "rows.csv")
    assert documents == [] and rows["test"][0]["answer"].isdigit()
    with pytest.raises(LabkitError, match="empty holds no data: put documents"):
        retrieval.own(empty)


# ---- cost


def test_milliseconds_are_of_as_many_calls_as_asked_after_warm_ones():
    calls = []
    times = retrieval.milliseconds(lambda: calls.append(1), repeats=4, warm=3)
    assert len(times) == 4 and len(calls) == 7 and all(one >= 0 for one in times)


def test_tokens_of_prompts_and_answers_are_those_that_the_model_sees(tokenizer):
    prompt = handbook.render("When?")
    asked, said = retrieval.token_counts(tokenizer, [prompt, "Plain text"], ["17:40", ""])
    chat = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    assert asked == [len(tokenizer(chat).input_ids), len(tokenizer("Plain text").input_ids)]
    assert said == [6, 1]  # 1 7 : 4 0 and the end
    assert retrieval.token_counts(tokenizer, [], []) == ([], [])


def test_dollars_by_hand():
    assert retrieval.dollars_per_thousand(3600, 2.5) == pytest.approx(2.5)  # a thousand of 3.6 s: an hour
    assert retrieval.dollars_per_thousand(36, 4) == pytest.approx(0.04)


# ---- leaks


def test_the_committed_splits_leak_nothing_that_is_called_withheld(rows, before):
    read = retrieval.training_rows(rows["train"][:400], before[1], before[0])
    for train in (rows["train"], read):
        for split in ("validation", "test"):
            assert not any(retrieval.leaks(train, rows[split]).values())
    taught = {row["fact"] for row in rows["train"]}
    asked = {
        kind: {row["fact"] for row in rows["test"] if row["kind"] == kind} for kind in retrieval.WITHHELD
    }
    assert asked["trained"] <= taught and asked["changed"] <= taught  # facts that training may share
    assert not asked["untrained"] & taught and not asked["absent"] & taught


@pytest.mark.parametrize(("kind", "what", "leaves"), [
    ("untrained", "facts", {"question": "Something else?", "phrasing": "p-t1"}),
    ("absent", "facts", {"question": "Something else?", "phrasing": "p-t1"}),
    ("trained", "phrasings", {"question": "Something else?", "fact": "other/fact/x", "answer": "0"}),
    ("changed", "questions", {"question": "so, {}", "phrasing": "p-t1", "fact": "other/fact/x"}),
    ("changed", "answers", {"question": "Something else?", "phrasing": "p-t1"}),
])  # fmt: skip
def test_a_planted_leak_of_each_kind_is_found(rows, kind, what, leaves):
    asked = [row for row in rows["test"] if row["kind"] == kind]
    row = asked[0]
    loud = row["question"].upper().rstrip("?") + " !"  # the same question, but for case and punctuation
    change = {name: loud if text == "so, {}" else text for name, text in leaves.items()}
    found = retrieval.leaks([*rows["train"], {**row, **change}], asked)
    assert {name for name, some in found.items() if some} == {what} and len(found[what]) == 1


def test_own_rows_leak_by_their_questions():
    train, test = [{"message": "Where is it?"}], [{"message": "where IS it"}, {"message": "When is it?"}]
    assert retrieval.leaks(train, test)["questions"] == ["where is it"]
    assert not any(retrieval.leaks(train, test[1:]).values())
