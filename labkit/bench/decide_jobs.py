"""The jobs of `bench decide` that train nothing: prompts, and passages that an index finds.

Arguments are parts of a job's name, so text; `asked` is `decide.settings()`.
"""

import os
from functools import cache
from typing import NamedTuple

from labkit import tasks
from labkit.bench import methods as bench_methods
from labkit.methods import retrieval
from labkit.records import stats
from labkit.tasks.handbook import answers

FAMILIES = ("tickets", "sql", "handbook")
SHORT = 40  # words of the pieces in the examples of a reader's prompt
# Rows of a batch that answers, by length of the prompt; only speed and memory depend on it.
ANSWERED = {"cuda": {"short": 500, "long": 125}, "cpu": {"short": 64, "long": 8}}


class Reading(NamedTuple):
    """How passages are found and shown: which index, words of a piece, pieces, then a prompt or a rate."""

    index: str
    size: int
    k: int
    last: str

    def __str__(self):
        return "-".join(map(str, self))

    @classmethod
    def of(cls, text):
        """The Reading that was written as `text`."""
        index, size, k, last = text.split("-", 3)
        return cls(index, int(size), int(k), last)


def indexes():
    """Kinds of index: by words, by the base's hidden states, by an encoder if LABKIT_EMBEDDER names one."""
    return ("bm25", "dense", *(["encoder"] if os.environ.get("LABKIT_EMBEDDER") else []))


def prompts_of(what):
    """Names of the prompts that a family's budget has; of `oracle` those for a model that reads."""
    if what == "oracle":
        return list(retrieval.READERS)
    return list(tasks.family("tickets" if what == "constrained" else what).PROMPTS)


def ask_of(family, number):
    """The prompt of that number: a function of a question."""
    from labkit import load

    return list(tasks.family(family).PROMPTS.values())[int(number)](load(family)["train"])


def reader_of(number):
    """The prompt of that number for a model that reads: a function of a question.

    Its examples have short passages of all documents, whatever the index and the pieces that are tried.
    """
    from labkit import load

    return list(retrieval.READERS.values())[int(number)](load("handbook")["train"], *_shown_to_all())


@cache
def _shown_to_all():
    pieces = retrieval.split(tasks.family("handbook").documents(), SHORT, SHORT // 4)
    return retrieval.BM25([retrieval.text_of(piece) for piece in pieces]), pieces


def rows_of(family, split, asked, most=None):
    """The rows of a split that are scored, the first `most`, as a list."""
    from labkit import load

    rows = load(family)[split]
    limits = [len(rows), *(one for one in (asked["rows"], most) if one)]
    return rows.select(range(min(limits))).to_list()


def told(model, tokenizer, family, rows, prompts=None, **options):
    """Which rows are right, packed; share right; mean tokens by kind of question; the family's own shares.

    Of the handbook also which rows were refused, and which answers contain the right one, packed.
    """
    from labkit import score

    sizes = ANSWERED[next(model.parameters()).device.type]
    options = {"batch_size": sizes["long" if prompts else "short"], "progress": False,
               "max_new_tokens": longest(family), **options}  # fmt: skip
    found = score(model, tokenizer, rows, task=family, prompts=prompts, **options)
    shown, said = retrieval.token_counts(tokenizer, prompts or [row["prompt"] for row in rows], found.answers)
    groups = {}
    for row, *tokens in zip(rows, shown, said, strict=True):
        tokens[1] = min(tokens[1], longest(family))  # an answer cut short has no end token
        groups.setdefault(row.get("kind", family), []).append(tokens)
    detail = {"valid": found.valid} if family == "tickets" else found.detail
    marks = _marks(found.answers, rows) if family == "handbook" else {}
    return {"rows": stats.pack_rows(found.exact_rows), "right": found.exact, "detail": detail, **marks,
            "tokens": {kind: [sum(each) / len(each) for each in zip(*some, strict=True)]
                       for kind, some in groups.items()}}  # fmt: skip


def _marks(given, rows):
    contained = [answers.contains(text, row["answer"]) for text, row in zip(given, rows, strict=True)]
    return {"refused": stats.pack_rows([answers.refuses(text) for text in given]),
            "contains": stats.pack_rows(contained)}  # fmt: skip


def longest(family):
    """The most tokens that an answer to a family's questions may have."""
    return getattr(tasks.family(family), "MAX_NEW_TOKENS", 80)


# ---- prompts --------------------------------------------------------------------------------------------


def base(asked):
    """What the base knows and how well it predicts English, to say later what was forgotten."""
    from labkit import load_model, load_tokenizer

    return bench_methods._general(load_model(), load_tokenizer(), asked)


def attempt(what, number, asked):
    """Validation rows with a prompt: of a family, of tickets under the schema (`constrained`), of a reader.

    The reader of `oracle` gets the right document.
    """
    return _prompted(what, number, "validation", asked["tried"], asked)


def test(what, number, asked):
    """The same on test rows."""
    return _prompted(what, number, "test", asked["prompted"], asked)


def larger(family, asked):
    """The larger model with its own best prompt of the family's budget: test rows, and the prompt."""
    own = os.environ.get("LABKIT_MODEL")
    os.environ["LABKIT_MODEL"] = os.environ["LABKIT_LARGER"]
    try:
        tried = [attempt(family, number, asked)["right"] for number in range(len(prompts_of(family)))]
        best = max(range(len(tried)), key=tried.__getitem__)
        return {**test(family, best, asked), "prompt": prompts_of(family)[best]}
    finally:
        del os.environ["LABKIT_MODEL"]
        if own is not None:
            os.environ["LABKIT_MODEL"] = own


def _prompted(what, number, split, most, asked):
    from labkit import load_model, load_tokenizer

    family = {"oracle": "handbook", "constrained": "tickets"}.get(what, what)
    tokenizer = load_tokenizer()
    most = None if (family, split) == ("handbook", "test") else most  # its kinds would get few rows
    rows = rows_of(family, split, asked, most)
    asking, options = asker(what, family, number, tokenizer, asked), options_of(what, tokenizer)
    return told(load_model(), tokenizer, family, rows, asking(rows), **options)


def options_of(what, tokenizer):
    """What `generate` is told: for `constrained`, to keep answers to the schema of tickets."""
    from labkit.constrain import schema_constraint

    if what != "constrained":
        return {}
    return {"constraint": schema_constraint(tokenizer, tasks.family("tickets").SCHEMA)}


# ---- passages -------------------------------------------------------------------------------------------


def documents(asked, version="current"):
    """The handbook's documents; the first few in a trial."""
    return tasks.family("handbook").documents(version)[: asked["documents"]]


def pieces_of(size, asked, version="current"):
    """Documents cut into pieces of `size` words, a quarter of which neighbours may share."""
    return retrieval.split(documents(asked, version), size, size // 4)


def index_of(kind, pieces, tokenizer):
    """An index over pieces. A finetuned model's states are another's: dense is always by the base."""
    texts = [retrieval.text_of(piece) for piece in pieces]
    return retrieval.BM25(texts) if kind == "bm25" else retrieval.Dense(texts, embedder(kind, tokenizer))


def embedder(kind, tokenizer):
    """What turns texts into vectors for an index that is dense."""
    from labkit import load_model

    if kind == "encoder":
        return retrieval.load_embedder(os.environ["LABKIT_EMBEDDER"])
    return retrieval.embed_with(load_model(), tokenizer)


def asker(what, family, number, tokenizer, asked):
    """A function of rows that gives their prompts. `what`: `oracle`, an index, or anything without passages.

    `number` is that of a prompt; of an index it is a Reading, whose `last` is the prompt.
    """
    if what not in ("oracle", "both", *indexes()):
        ask, column = ask_of(family, number), "message" if family == "tickets" else "question"
        return lambda rows: [ask(row[column]) for row in rows]
    if what == "oracle":
        ask = reader_of(number)
        return with_right_document(ask, asked)
    pieces = pieces_of(number.size, asked)
    index = index_of(number.index, pieces, tokenizer)
    ask = None if what == "both" else reader_of(number.last)
    return lambda rows: retrieval.prompts(rows, index, pieces, number.k, ask)


def with_right_document(ask, asked):
    """A function of rows that gives prompts with the one document that answers, or else with BM25's best."""
    every = documents(asked)
    place = {one["id"]: number for number, one in enumerate(every)}
    index = retrieval.BM25([retrieval.text_of(one) for one in every])

    def right(row):
        if row["document"] in place:
            return every[place[row["document"]]]
        return every[next((number for number, _ in index.search(row["question"], 1)), 0)]

    return lambda rows: [retrieval.with_passages(ask(row["question"]) if ask else row["prompt"], [right(row)])
                         for row in rows]  # fmt: skip


def look(index, size, asked):
    """Validation rows with pieces of one size, by how many are shown and by a reader's prompt.

    Recall and mean reciprocal rank beside; the rank among the pieces that are shown at most.
    """
    from labkit import load_model, load_tokenizer

    tokenizer, model, rows = load_tokenizer(), load_model(), rows_of("handbook", "validation", asked,
                                                                     asked["tried"])  # fmt: skip
    pieces, counts = pieces_of(int(size), asked), asked["pieces"][int(size)]
    found = index_of(index, pieces, tokenizer).search_all([row["question"] for row in rows], max(counts))
    places, right = retrieval.places(found, pieces, rows), {}
    for number in range(len(retrieval.READERS)):
        ask = reader_of(number)
        for k in counts:
            prompts = [retrieval.with_passages(ask(row["question"]), [pieces[one] for one, _ in some[:k]])
                       for row, some in zip(rows, found, strict=True)]  # fmt: skip
            right[f"{k}-{number}"] = told(model, tokenizer, "handbook", rows, prompts)["right"]
    return {"share": right, "recall": {str(k): retrieval.recall_at(k, places) for k in counts},
            "mrr": retrieval.mean_reciprocal_rank(places)}  # fmt: skip


def read(reading, asked):
    """Test rows of the handbook, read by the base from what an index finds; recall by kind."""
    from labkit import load_model, load_tokenizer

    reading, tokenizer, rows = Reading.of(reading), load_tokenizer(), rows_of("handbook", "test", asked)
    prompts = asker(reading.index, "handbook", reading, tokenizer, asked)(rows)
    return {**told(load_model(), tokenizer, "handbook", rows, prompts),
            "recall": recall(reading, rows, tokenizer, asked)}  # fmt: skip


def recall(reading, rows, tokenizer, asked):
    """{kind: share of rows that a shown piece answers}; without what no document answers."""
    pieces, questions = pieces_of(reading.size, asked), [row["question"] for row in rows]
    found = index_of(reading.index, pieces, tokenizer).search_all(questions, reading.k)
    by_kind = retrieval.by_kind(retrieval.places(found, pieces, rows), rows, (reading.k,))
    return {kind: one[f"recall@{reading.k}"] for kind, one in by_kind.items()}
