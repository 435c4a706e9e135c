"""The jobs of `bench decide` that train, and those that time every arm with the card to themselves.

Arguments are parts of a job's name, so text; `asked` is `decide.settings()`.
"""

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

WARM = 1  # calls before those that are timed

# ---- finetuning -----------------------------------------------------------------------------------------


def trained(rows, tokenizer, rate, seed, asked, **options):
    """(model, Run) of full finetuning; LabkitError where the loss is no number any more."""
    from labkit import methods

    model = methods.find("full").prepare(int(seed))
    run = full_jobs.fitted(model, rows, tokenizer, rate, seed, asked, **options)
    if not run:
        raise LabkitError(f"full finetuning diverged at {rate}, seed {seed}: measure the rates again")
    return model, run


def final(family, rate, seed, asked):
    """Test rows after finetuning on a family's training rows, and what was forgotten."""
    from labkit import load, load_tokenizer

    tokenizer = load_tokenizer()
    model, run = trained(load(family)["train"], tokenizer, rate, seed, asked)
    return {**told(model, tokenizer, family, rows_of(family, "test", asked)),
            **bench_methods._general(model, tokenizer, asked), "training seconds": run.seconds}  # fmt: skip


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
    """(model, Run, tokenizer): finetuned on training rows with passages of the documents of before.

    A step has as many tokens as without passages, in fewer and longer lines.
    """
    from labkit import load, load_tokenizer

    tokenizer, pieces = load_tokenizer(), pieces_of(reading.size, asked, "before")
    there = {"", *(piece["document"] for piece in pieces)}  # all, but in a trial
    rows = [row for row in load("handbook")["train"].to_list() if row["document"] in there]
    index = index_of(reading.index, pieces, tokenizer)
    rows = retrieval.training_rows(rows, index, pieces, reading.k, seed=int(seed))
    batch = max(1, asked["batch"] * asked["length"] // asked["reading"])
    options = {"batch": batch, "length": asked["reading"]}
    return *trained(rows, tokenizer, reading.last, seed, asked, **options), tokenizer


def sweep(reading, asked):
    """Share of validation rows right at one rate, first seed; as `bench_methods.best_rate` wants."""
    reading, rows = Reading.of(reading), rows_of("handbook", "validation", asked, asked["tried"])
    try:
        model, _, tokenizer = reader(reading, asked["seeds"][0], asked)
    except LabkitError as error:
        if "diverged" not in str(error):
            raise
        return {"right": 0.0, "loss": None}
    prompts = asker("both", "handbook", reading, tokenizer, asked)(rows)
    return {"right": told(model, tokenizer, "handbook", rows, prompts)["right"], "loss": None}


def both(reading, seed, asked):
    """Test rows with what the index finds, and with the right document; recall, and what was forgotten."""
    reading, rows = Reading.of(reading), rows_of("handbook", "test", asked)
    model, run, tokenizer = reader(reading, seed, asked)
    prompts = asker("both", "handbook", reading, tokenizer, asked)(rows)
    perfect = with_right_document(rows, None, asked)
    return {**told(model, tokenizer, "handbook", rows, prompts),
            "oracle": told(model, tokenizer, "handbook", rows, perfect),
            "recall": recall(reading, rows, tokenizer, asked),
            **bench_methods._general(model, tokenizer, asked), "training seconds": run.seconds}  # fmt: skip


# ---- cost, with the card to itself ----------------------------------------------------------------------


def alone(family, *rest):
    """Milliseconds a request of each arm (`few-shot=2`), by batch; seconds of training and of indexing.

    A request is all from the question to the answer's text: search, prompt, generation.
    """
    *arms, asked = rest
    times, seconds = {}, {}
    most = max(size * (count + WARM) for size, count in asked["timed"].items())
    rows = rows_of(family, "test", {**asked, "rows": None}, most)
    for arm, _, what in (one.partition("=") for one in arms):
        call, seconds[arm] = answering(family, arm, what, asked)
        times[arm] = {str(size): timed(call, rows, size, count) for size, count in asked["timed"].items()}
    indexing = {index: indexed(index, asked) for index in indexes()} if family == "handbook" else {}
    return {"ms": times, "training seconds": seconds, "indexing": indexing}


def answering(family, arm, what, asked):
    """(a function of rows that answers them, seconds of training; None for an arm that is not trained)."""
    from labkit import generate, load, load_model, load_tokenizer

    tokenizer, seconds, first = load_tokenizer(), None, asked["seeds"][0]
    if arm == "finetuned":
        model, run = trained(load(family)["train"], tokenizer, what, first, asked)
    elif arm == "both":
        what = Reading.of(what)
        model, run, _ = reader(what, first, asked)
    else:
        model, run = load_model(), None
        what = Reading.of(what) if arm in indexes() else what
    seconds = run and run.seconds
    asking = (lambda rows: [row["prompt"] for row in rows]) if arm == "finetuned" else asker(
        arm, family, what, tokenizer, asked)  # fmt: skip
    options = {"max_new_tokens": longest(family), "progress": False,
               **options_of(arm == "constrained", tokenizer)}  # fmt: skip
    return lambda rows: generate(model, tokenizer, asking(rows), batch_size=len(rows), **options), seconds


def timed(call, rows, size, count):
    """Milliseconds a request of `count` calls with `size` rows each, other rows every time."""
    turns = cycle([rows[start : start + size] for start in range(0, len(rows) - size + 1, size)])
    return [each / size for each in retrieval.milliseconds(lambda: call(next(turns)), count, WARM)]


def indexed(kind, asked):
    """Seconds to index all documents, and to bring the index up to date after one of them changed.

    In pieces of about 80 words. BM25 is built anew, since the rarity of words may change; of a dense index
    only the one document's vectors are.
    """
    from labkit import load_tokenizer

    size = min(asked["pieces"], key=lambda words: abs(words - 80))
    tokenizer, every = load_tokenizer(), documents(asked)
    embed = None if kind == "bm25" else embedder(kind, tokenizer)

    def build(some):
        texts = [retrieval.text_of(piece) for piece in retrieval.split(some, size, size // 4)]
        return retrieval.BM25(texts) if embed is None else retrieval.Dense(texts, embed)

    changed = every if embed is None else every[:1]
    return {name: min(retrieval.milliseconds(lambda some=some: build(some), 3, WARM)) / 1000
            for name, some in (("all", every), ("one changed document", changed))}  # fmt: skip
