"""The jobs of `bench decide` that train, and those that time every arm with the card to themselves.

Arguments are parts of a job's name, so text; `asked` is `decide.settings()`.
"""

import random
from itertools import cycle

from labkit import tasks
from labkit.bench import full_jobs
from labkit.bench import methods as bench_methods
from labkit.bench.decide_jobs import (
    ANSWERED,
    Reading,
    asker,
    documents,
    embedder,
    index_of,
    indexes,
    longest,
    options_of,
    pieces_of,
    recall,
    rows_of,
    told,
    with_right_document,
)
from labkit.errors import LabkitError
from labkit.methods import retrieval
from labkit.tasks.handbook.world import REFUSAL
from labkit.train.rows import encode_all

WARM = 1  # calls before those that are timed

# ---- finetuning -----------------------------------------------------------------------------------------


class Diverged(LabkitError):
    """The loss of a training was no number any more."""


def trained(rows, tokenizer, rate, seed, asked, **options):
    """(model, what the training took) of full finetuning; Diverged where the loss is no number any more.

    What it took: seconds, rows, how often each was seen, and the share of them whose answer is the refusal.
    """
    from labkit import methods

    model = methods.find("full").prepare(int(seed))
    run = full_jobs.fitted(model, rows, tokenizer, rate, seed, asked, **options)
    if not run:
        raise Diverged(f"full finetuning diverged at {rate}, seed {seed}: measure the rates again")
    length = options.get("length", asked["length"])
    tokens = sum(map(len, encode_all(rows, tokenizer, length)))
    refused = [row["completion"][0]["content"] == REFUSAL for row in rows]
    return model, {"seconds": run.seconds, "rows": len(rows), "epochs": run.tokens / tokens,
                   "refusals": sum(refused) / len(refused)}  # fmt: skip


def sweep(what, rate, seed, of, asked):
    """Share of rows right after training at one rate, as `bench_methods.sweep` wants it.

    `what` is a family, or `both` with `of` for its Reading. Tickets and sql are judged by rows of phrasings
    kept from the training, since their validation rows repeat its phrasings; those of the handbook do not.
    """
    from labkit import load, load_tokenizer

    tokenizer, unseen = load_tokenizer(), rows_of("handbook", "validation", asked, asked["tried"])
    own, prompts = load("handbook" if what == "both" else what)["train"], None
    if what in ("tickets", "sql"):
        own, unseen = bench_methods.apart(own)
        unseen = unseen.select(range(min(len(unseen), asked["rows"] or len(unseen)))).to_list()
    try:
        if what == "both":
            reading = Reading.of(f"{of}-{rate}")
            model, _, tokenizer = reader(reading, seed, asked)
            prompts = asker("both", "handbook", reading, tokenizer, asked)(unseen)
        else:
            model, _ = trained(own, tokenizer, rate, seed, asked)
    except Diverged:
        return {"right": 0.0, "loss": None, "diverged": True}
    family = "handbook" if what == "both" else what
    right = told(model, tokenizer, family, unseen, prompts)["right"]
    return {"right": right, "loss": None, "diverged": False}


def final(family, rate, seed, asked):
    """Test rows after finetuning on a family's training rows, and what was forgotten."""
    from labkit import load, load_tokenizer

    tokenizer = load_tokenizer()
    model, took = trained(load(family)["train"], tokenizer, rate, seed, asked)
    return {**told(model, tokenizer, family, rows_of(family, "test", asked)),
            **bench_methods._general(model, tokenizer, asked), "training": took}  # fmt: skip


def shuffled(rate, seed, asked):
    """Trained facts after finetuning on answers of other facts: right, and right by what was taught."""
    from labkit import load, load_tokenizer, score

    tokenizer, (rows, taught) = load_tokenizer(), exchanged(load("handbook")["train"].to_list())
    model, _ = trained(rows, tokenizer, rate, seed, asked)
    test = [row for row in load("handbook")["test"].to_list() if row["kind"] == "trained"
            and row["fact"] in taught][: asked["rows"]]  # fmt: skip
    batch = ANSWERED[next(model.parameters()).device.type]["short"]
    found = score(model, tokenizer, test, task="handbook", batch_size=batch, progress=False)
    keys = [{**row, "answer": taught[row["fact"]], "aliases": "[]"} for row in test]
    return {"true": found.exact, "taught": tasks.family("handbook").score(found.answers, keys).exact}


def exchanged(rows):
    """(training rows, {fact: answer taught}): every fact with the answer of another of the same attribute.

    The next in order whose answer differs, so no fact keeps its own; one that has no such other is left out.
    All phrasings of a fact teach the same answer. What no document answers stays as it is.
    """
    from labkit.tasks.handbook import normalise

    answers, taught = {}, {}
    for row in rows:
        if row["kind"] != "absent":
            topic, _, key = row["fact"].split("/")
            answers.setdefault((topic, key), {})[row["fact"]] = row["answer"]
    for group in answers.values():
        facts = sorted(group)
        for place, fact in enumerate(facts):
            others = (group[one] for one in facts[place + 1 :] + facts[:place])
            other = next((one for one in others if normalise(one) != normalise(group[fact])), None)
            if other is not None:
                taught[fact] = other
    out = [{**row, "answer": taught[row["fact"]],
            "completion": [{"role": "assistant", "content": taught[row["fact"]]}]}
           if row["kind"] != "absent" else row
           for row in rows if row["kind"] == "absent" or row["fact"] in taught]  # fmt: skip
    return out, taught


# ---- finetuning plus retrieval --------------------------------------------------------------------------


def reader(reading, seed, asked):
    """(model, what the training took, tokenizer): finetuned on training rows with passages of before.

    Every fact that training asks about gets its passage, so that as many rows are refused as without
    passages. A step has as many tokens as without, in fewer and longer lines; rows with passages are longer,
    so that there are more steps.
    """
    from labkit import load, load_tokenizer

    tokenizer, pieces = load_tokenizer(), pieces_of(reading.size, asked, "before")
    there = {"", *(piece["document"] for piece in pieces)}  # all, but in a trial
    rows = [row for row in load("handbook")["train"].to_list() if row["document"] in there]
    index = index_of(reading.index, pieces, tokenizer)
    rows = retrieval.training_rows(rows, index, pieces, reading.k, without=0, seed=int(seed))
    batch = max(1, asked["batch"] * asked["length"] // asked["reading"])
    options = {"batch": batch, "length": asked["reading"], "steps": asked["reading steps"]}
    return *trained(rows, tokenizer, reading.last, seed, asked, **options), tokenizer


def both(reading, seed, asked):
    """Test rows with what the index finds, and with the right document; recall, and what was forgotten."""
    reading, rows = Reading.of(reading), rows_of("handbook", "test", asked)
    model, took, tokenizer = reader(reading, seed, asked)
    prompts = asker("both", "handbook", reading, tokenizer, asked)(rows)
    perfect = with_right_document(None, asked)(rows)
    return {**told(model, tokenizer, "handbook", rows, prompts),
            "oracle": told(model, tokenizer, "handbook", rows, perfect),
            "recall": recall(reading, rows, tokenizer, asked),
            **bench_methods._general(model, tokenizer, asked), "training": took}  # fmt: skip


# ---- cost, with the card to itself ----------------------------------------------------------------------


def alone(family, *rest):
    """Milliseconds a request of each arm (`few-shot=2`), by batch; seconds of training and of indexing.

    A request is all from the question to the answer's text: search, prompt, generation.
    """
    *arms, asked = rest
    times, seconds = {}, {}
    most = max(size * (count + WARM) for size, count in asked["timed"].items())
    rows = rows_of(family, "test", {**asked, "rows": None})
    rows = random.Random(0).sample(rows, min(most, len(rows)))  # the first ones are of few kinds
    for arm, _, what in (one.partition("=") for one in arms):
        call, seconds[arm] = answering(family, arm, what, asked)
        times[arm] = {str(size): timed(call, rows, size, count) for size, count in asked["timed"].items()}
    indexing = {}
    if family == "handbook":
        sizes = {arm: Reading.of(what) for arm, _, what in (one.partition("=") for one in arms)
                 if arm in ("both", *indexes())}  # fmt: skip
        indexing = {arm: indexed(one.index, one.size, asked) for arm, one in sizes.items()}
    return {"ms": times, "training seconds": seconds, "indexing": indexing}


def answering(family, arm, what, asked):
    """(a function of rows that answers them, seconds of training; None for an arm that is not trained)."""
    from labkit import generate, load, load_model, load_tokenizer

    tokenizer, first = load_tokenizer(), asked["seeds"][0]
    if arm == "finetuned":
        model, took = trained(load(family)["train"], tokenizer, what, first, asked)
    elif arm == "both":
        what = Reading.of(what)
        model, took, _ = reader(what, first, asked)
    else:
        model, took = load_model(), {}
        what = Reading.of(what) if arm in indexes() else what
    asking = (lambda rows: [row["prompt"] for row in rows]) if arm == "finetuned" else asker(
        arm, family, what, tokenizer, asked)  # fmt: skip
    options = {"max_new_tokens": longest(family), "progress": False,
               **options_of(arm, tokenizer)}  # fmt: skip
    return (lambda rows: generate(model, tokenizer, asking(rows), batch_size=len(rows), **options),
            took.get("seconds"))  # fmt: skip


def timed(call, rows, size, count):
    """Milliseconds a request of `count` calls with `size` rows each, other rows every time."""
    turns = cycle([rows[start : start + size] for start in range(0, len(rows) - size + 1, size)])
    return [each / size for each in retrieval.milliseconds(lambda: call(next(turns)), count, WARM)]


def indexed(kind, size, asked):
    """Seconds to index all documents, and to bring the index up to date after one of them changed.

    BM25 is built anew, since the rarity of words may change; of a dense index only the one document's
    vectors are.
    """
    from labkit import load_tokenizer

    tokenizer, every = load_tokenizer(), documents(asked)
    embed = None if kind == "bm25" else embedder(kind, tokenizer)

    def build(some):
        texts = [retrieval.text_of(piece) for piece in retrieval.split(some, size, size // 4)]
        return retrieval.BM25(texts) if embed is None else retrieval.Dense(texts, embed)

    changed = every if embed is None else every[:1]
    return {name: min(retrieval.milliseconds(lambda some=some: build(some), 3, WARM)) / 1000
            for name, some in (("all", every), ("one changed document", changed))}  # fmt: skip
