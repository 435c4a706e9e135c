"""Exercises of lesson 08: a prefix's weights, a prompt's place and targets, bytes in the cache."""

import random

from labkit.exercises.spec import Exercise, Mistake, close, exact, register


def pair(compare):
    """`compare` for answers of two parts, in a tuple or in a list."""

    def compared(got, want):
        return type(got) in (tuple, list) and compare(tuple(got), tuple(want))

    return compared


# ---------------------------------------------------------------- 08.1 prefix_weights

PREFIX_STUB = '''\
def prefix_weights(n, layers, heads, kv_heads, head_dim):
    """Weights that prefix tuning trains: n learned keys and values in every layer, without an encoder.

    heads: query heads of a layer; kv_heads: key and value heads, which groups of query heads share. Each
    head is head_dim wide. Returns an int.
    """
    raise NotImplementedError
'''


def draw_prefix(seed):
    """This course's base, and others whose query heads share keys."""
    r = random.Random(seed)
    inputs = [(100, 30, 9, 3, 64)]
    for _ in range(4):
        kv = r.choice((2, 4, 8))
        heads = kv * r.choice((3, 4, 8))
        inputs.append((r.randint(5, 200), r.randint(12, 80), heads, kv, r.choice((80, 128))))
    return inputs


def prefix_weights(n, layers, heads, kv_heads, head_dim):
    """Keys and values of n places in every layer."""
    return n * layers * 2 * kv_heads * head_dim


register(Exercise(
    id="08.1",
    title="Weights of a prefix",
    points=2,
    difficulty=2,
    minutes=6,
    hint="What does one token leave in the cache of one layer?",
    stub=PREFIX_STUB,
    draw=draw_prefix,
    reference=prefix_weights,
    compare=exact,
    mistakes=(
        Mistake("query heads", lambda n, layers, heads, kv, d: n * layers * 2 * heads * d,
                "counts query heads: keys and values have kv_heads"),
        Mistake("keys only", lambda n, layers, heads, kv, d: n * layers * kv * d,
                "counts keys or values: a prefix has both"),
        Mistake("one layer", lambda n, layers, heads, kv, d: n * 2 * kv * d,
                "counts one layer: every layer has a prefix of its own"),
        Mistake("embeddings", lambda n, layers, heads, kv, d: n * heads * d,
                "this is prompt tuning: n embeddings at the input"),
        Mistake("an embedding a layer", lambda n, layers, heads, kv, d: n * layers * heads * d,
                "one embedding for each layer: learned are keys and values"),
        Mistake("one head", lambda n, layers, heads, kv, d: n * layers * 2 * d,
                "counts one head: there are kv_heads"),
        Mistake("queries too", lambda n, layers, heads, kv, d: n * layers * (heads + 2 * kv) * d,
                "counts queries too: a prefix has keys and values only"),
        Mistake("one place", lambda n, layers, heads, kv, d: layers * 2 * kv * d,
                "counts one place of the prefix: there are n"),
        Mistake("bytes", lambda n, layers, heads, kv, d: 2 * n * layers * 2 * kv * d,
                "these are bytes in 16 bits: weights were asked for"),
    ),
))

# ---------------------------------------------------------------- 08.2 add_prompt

ADD_STUB = '''\
def add_prompt(ids, mask, prompt):
    """Rows padded on the left, with a soft prompt before the text of each, as a model must get them.

    ids: rows of token ids, equally long. mask: rows alike, 1 on text and 0 on padding, which is on the left
    only; the id of the padding may occur in the text too. prompt: the ids of the soft prompt.
    Returns (ids, mask): new rows, each longer by the prompt, whose words directly precede the text.
    """
    raise NotImplementedError
'''


def draw_add(seed):
    """Rows of different lengths, the first with padding; 0 pads, and texts hold it too, or begin with it."""
    r = random.Random(seed)
    inputs = []
    for _ in range(5):
        width, count = r.randint(6, 9), r.randint(3, 4)
        padding = [r.randint(1, 2), 0, *(r.randint(3, width - 3) for _ in range(count - 2))]
        ids, mask = [], []
        for size in padding:
            text = [r.randint(1, 90) for _ in range(width - size)]
            text[len(ids) % 2] = 0
            ids.append([0] * size + text)
            mask.append([0] * size + [1] * len(text))
        inputs.append((ids, mask, list(range(100, 100 + r.randint(2, 4)))))
    return inputs


def _added(place=lambda row, mask, first: mask.count(0), mask_of=None):
    """add_prompt with the place of the prompt, or the mask's part of it, found otherwise."""

    def function(ids, mask, prompt):
        places = [place(*pair, mask[0].count(0)) for pair in zip(ids, mask, strict=True)]
        new = [row[:at] + prompt + row[at:] for row, at in zip(ids, places, strict=True)]
        if mask_of is not None:
            return new, [mask_of(row, len(prompt)) for row in mask]
        return new, [row[:at] + [1] * len(prompt) + row[at:] for row, at in zip(mask, places, strict=True)]

    return function


add_prompt = _added()


def _leading(row, mask, first):
    """How many ids at the start of a row are the padding's."""
    return next(place for place, token in enumerate(row) if token != 0)

register(Exercise(
    id="08.2",
    title="Between padding and text",
    points=2,
    difficulty=2,
    minutes=8,
    hint="A row's padding ends after `mask.count(0)` places. Cut there, in ids and in mask.",
    stub=ADD_STUB,
    draw=draw_add,
    reference=add_prompt,
    compare=pair(exact),
    mistakes=(
        Mistake("before the padding", _added(lambda row, mask, first: 0),
                "the prompt is before the padding: it goes right before text"),
        Mistake("mask as it was", _added(mask_of=lambda mask, n: mask),
                "the mask is not extended: it lacks the prompt's places"),
        Mistake("prompt masked", _added(mask_of=lambda mask, n: [0] * n + mask),
                "the mask is 0 on the prompt, so nothing would read it"),
        Mistake("mask in front", _added(mask_of=lambda mask, n: [1] * n + mask),
                "the mask's new 1s are at the left end: put them at the prompt"),
        Mistake("by id", _added(lambda row, mask, first: row.count(0)),
                "counts the padding's id, which texts hold too: use the mask"),
        Mistake("by leading ids", _added(_leading),
                "takes leading ids for padding: a text may begin with that id"),
        Mistake("first row's", _added(lambda row, mask, first: first),
                "takes the first row's padding for all: rows differ"),
        Mistake("after the text", _added(lambda row, mask, first: len(row)),
                "the prompt is after the text: earlier tokens cannot see it"),
    ),
))

# ---------------------------------------------------------------- 08.3 packed_with_prompts

PACK_STUB = '''\
def packed_with_prompts(rows, soft):
    """Positions and targets of rows packed into one line, each row with the soft prompt before it.

    rows: list of (question, answer), two lists of token ids; soft: the ids of the soft prompt's words. The
    line is soft, question, answer of the first row, then those of the second, and so on. Positions count
    from 0 in each row. The target of a place is the token one place later where that is an answer token,
    else -100. Returns (positions, targets), two lists of int as long as the line.
    """
    raise NotImplementedError
'''


def draw_pack(seed):
    """Two or three rows whose parts differ in length, all token ids different."""
    r = random.Random(seed)
    inputs = []
    for _ in range(4):
        fresh = iter(r.sample(range(10, 500), 60))
        rows = [tuple([next(fresh) for _ in range(r.randint(2, 5))] for _ in "qa")
                for _ in range(r.randint(2, 3))]  # fmt: skip
        inputs.append((rows, list(range(600, 600 + r.randint(2, 4)))))
    return inputs


def _parts(rows, soft):
    """(kind, token id, position in the row) of each place of the line."""
    line = []
    for question, answer in rows:
        kinds = ["soft"] * len(soft) + ["question"] * len(question) + ["answer"] * len(answer)
        line += list(zip(kinds, [*soft, *question, *answer], range(len(kinds)), strict=True))
    return line


def _packed(learned=("answer",), shift=1, by_place=False, position=lambda i, kind, at, n: at):
    """packed_with_prompts with other tokens learned, another shift, or other positions."""

    def function(rows, soft):
        line = _parts(rows, soft)
        targets = []
        for i in range(len(line)):
            there = line[i + shift] if 0 <= i + shift < len(line) else ("none", -100, 0)
            judged = line[i] if by_place else there
            targets.append(there[1] if judged[0] in learned else -100)
        return [position(i, kind, at, len(soft)) for i, (kind, _, at) in enumerate(line)], targets

    return function


packed_with_prompts = _packed()


def _one_short(rows, soft):
    positions, targets = packed_with_prompts(rows, soft)
    return positions, targets[:-1]


def _once(rows, soft):
    """One prompt before the whole line, as peft has it."""
    first, *others = rows
    positions, targets = packed_with_prompts([first], soft)
    for row in others:
        more = packed_with_prompts([row], [])
        positions, targets = positions + more[0], targets + more[1]
    return positions, targets


def _as_one_row(rows, soft):
    """One prompt, and positions that go on through all rows."""
    positions, targets = _once(rows, soft)
    return list(range(len(positions))), targets


register(Exercise(
    id="08.3",
    title="Positions and targets of packed rows",
    points=3,
    difficulty=3,
    minutes=12,
    hint="Do one row first: n + len(question) - 1 places have no target, then all of the answer, then -100.",
    stub=PACK_STUB,
    draw=draw_pack,
    reference=packed_with_prompts,
    compare=pair(exact),
    mistakes=(
        Mistake("loss on the prompt", _packed(("soft", "question", "answer")),
                "takes the loss on prompt and question: answer tokens only"),
        Mistake("loss on the question", _packed(("question", "answer")),
                "takes the loss on the question too: answer tokens only"),
        Mistake("loss on soft words", _packed(("soft", "answer")),
                "soft words are targets here: the head cannot say them"),
        Mistake("not shifted", _packed(shift=0),
                "not shifted: a place's target is the token one place later"),
        Mistake("shifted back", _packed(shift=-1), "shifted the wrong way: targets come one place later"),
        Mistake("masked, then shifted", _packed(by_place=True),
                "the answer's first token is lost: ask what the target is"),
        Mistake("positions go on", _packed(position=lambda i, kind, at, n: i),
                "positions go on from row to row: each row begins at 0"),
        Mistake("prompt not counted", _packed(position=lambda i, kind, at, n: max(at - n, 0)),
                "positions leave the prompt out: its words have places too"),
        Mistake("again after the prompt",
                _packed(position=lambda i, kind, at, n: at if kind == "soft" else at - n),
                "positions begin again after the prompt: they count on"),
        Mistake("from 1", _packed(position=lambda i, kind, at, n: at + 1),
                "positions begin at 1: the first soft word of a row has 0"),
        Mistake("one short", _one_short,
                "a target is missing: the last place has -100"),
        Mistake("prompt once", _once, "one prompt before the line: each row needs its own"),
        Mistake("prompt once, positions go on", _as_one_row,
                "one prompt before one long row: each row has its own, from 0"),
    ),
))

# ---------------------------------------------------------------- 08.4 cache_bytes

CACHE_STUB = '''\
def cache_bytes(rows, tokens, n, layers, kv_heads, head_dim):
    """Bytes of the key-value cache in bf16 for a batch, and how many of them are the soft prompt's.

    rows: sequences in the batch, each of `tokens` tokens of text after a soft prompt of n words; each keeps
    a cache of its own. Returns [bytes in all, bytes of the soft prompt], two int.
    """
    raise NotImplementedError
'''


def draw_cache(seed):
    """This course's base, and others; several rows each."""
    r = random.Random(seed)
    inputs = [(32, 1024, 100, 30, 3, 64)]
    for _ in range(4):
        inputs.append((r.randint(3, 64), r.randint(100, 2000), r.randint(5, 200), r.randint(12, 80),
                       r.choice((3, 4, 8)), r.choice((80, 128))))  # fmt: skip
    return inputs


def _cached(size=2, kinds=2, of_rows=lambda rows: rows, of_layers=lambda layers: layers,
            whole=lambda tokens, n: tokens + n, soft=lambda tokens, n: n):  # fmt: skip
    def function(rows, tokens, n, layers, kv_heads, head_dim):
        place = size * kinds * of_layers(layers) * kv_heads * head_dim * of_rows(rows)
        return [place * whole(tokens, n), place * soft(tokens, n)]

    return function


cache_bytes = _cached()


def _shared(rows, tokens, n, layers, kv_heads, head_dim):
    place = 4 * layers * kv_heads * head_dim
    return [place * (rows * tokens + n), place * n]


register(Exercise(
    id="08.4",
    title="Bytes in the cache",
    points=2,
    difficulty=2,
    minutes=8,
    hint="A place takes 2 bytes for each number of its key and its value, in every layer and every row.",
    stub=CACHE_STUB,
    draw=draw_cache,
    reference=cache_bytes,
    compare=pair(close(0, 0)),
    mistakes=(
        Mistake("fp32", _cached(size=4), "4 bytes a number: bf16 takes 2"),
        Mistake("half", _cached(kinds=1), "half of it: keys and values, and 2 bytes for each number"),
        Mistake("one row", _cached(of_rows=lambda rows: 1), "counts one sequence: every row has a cache"),
        Mistake("prompt of one row",
                lambda rows, *shape: [cache_bytes(rows, *shape)[0], cache_bytes(1, *shape)[1]],
                "the second number is one row's: each row keeps the prompt"),
        Mistake("one layer", _cached(of_layers=lambda layers: 1),
                "counts one layer: every layer keeps keys and values"),
        Mistake("text only", _cached(whole=lambda tokens, n: tokens),
                "the first number lacks the prompt: its places are cached too"),
        Mistake("text's part", _cached(soft=lambda tokens, n: tokens),
                "the second number is the text's: the prompt's was asked for"),
        Mistake("shared prompt", _shared,
                "the prompt is counted once: each row keeps its own here"),
        Mistake("turned around", lambda *given: cache_bytes(*given)[::-1],
                "the two numbers are swapped: bytes in all come first"),
    ),
))
