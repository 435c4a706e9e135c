"""Exercises of lesson 01: weights, bytes a weight, saved activations, the KV cache, and what fits a card."""

import random

from labkit.exercises.spec import Exercise, Mistake, close, register

# ---------------------------------------------------------------- 01.1 count_weights

COUNT_WEIGHTS_STUB = '''\
def count_weights(hidden, layers, heads, kv_heads, head_dim, inter, vocab, tied):
    """Number of weights of a Llama-like model, exactly.

    A block has q, k, v, o (no biases), gate, up, down, and two norms of `hidden` weights each; one more
    norm stands after the blocks. `heads` query heads and `kv_heads` key and value heads are `head_dim` wide;
    `inter` is the width between gate, up and down. tied: True if the output head is the embedding itself.
    """
    raise NotImplementedError
'''


def count_weights(hidden, layers, heads, kv_heads, head_dim, inter, vocab, tied):
    attention = 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim
    block = attention + 3 * hidden * inter + 2 * hidden
    return (1 if tied else 2) * vocab * hidden + layers * block + hidden


def draw_count_weights(seed):
    """Eight models, tied and untied, all with shared key heads; heads * head_dim is not always hidden."""
    r = random.Random(seed)
    inputs = []
    for number in range(8):
        kv_heads = r.choice((1, 2, 3))
        heads = kv_heads * r.choice((2, 3, 4))
        head_dim = r.choice((16, 32, 64))
        hidden = heads * head_dim + (0 if number % 2 else 64)
        inputs.append((hidden, r.randint(2, 40), heads, kv_heads, head_dim, r.choice((2, 3)) * hidden + 96,
                       r.randrange(5000, 60000), number % 4 < 2))  # fmt: skip
    return inputs


def _counted(key_heads=None, mlp=3, norms=2, final=True, tables=None, biases=False, width=None,
             narrow_o=False):  # fmt: skip
    """A count with one thing done otherwise."""

    def count(hidden, layers, heads, kv_heads, head_dim, inter, vocab, tied):
        query = width(hidden, heads, head_dim) if width else heads * head_dim
        keys = (heads if key_heads == "all" else kv_heads) * head_dim
        wide, narrow = (1, 3) if narrow_o else (2, 2)
        block = wide * hidden * query + narrow * hidden * keys + mlp * hidden * inter + norms * hidden
        if biases:
            block += 2 * query + 2 * keys
        head = tables(tied) if tables else (1 if tied else 2)
        return head * vocab * hidden + layers * block + (hidden if final else 0)

    return count


register(Exercise(
    id="01.1",
    title="Count the weights",
    points=2,
    difficulty=2,
    minutes=10,
    hint="q and o are `hidden` by `heads * head_dim`; k and v are `hidden` by `kv_heads * head_dim`.",
    stub=COUNT_WEIGHTS_STUB,
    draw=draw_count_weights,
    reference=count_weights,
    mistakes=(
        Mistake(
            "all heads keep keys",
            _counted(key_heads="all"),
            "k and v are as wide as the key heads, not the query heads",
        ),
        Mistake(
            "head counted twice",
            _counted(tables=lambda tied: 2),
            "a tied head is the embedding: count it once",
        ),
        Mistake(
            "head never counted",
            _counted(tables=lambda tied: 1),
            "an untied head is a second vocab x hidden matrix",
        ),
        Mistake(
            "tied inverted",
            _counted(tables=lambda tied: 2 if tied else 1),
            "the wrong way round: tied is one matrix, untied are two",
        ),
        Mistake("no norms", _counted(norms=0, final=False), "the norms are missing: hidden weights each"),
        Mistake("no norms in blocks", _counted(norms=0), "the two norms of each block are missing"),
        Mistake("no last norm", _counted(final=False), "one more norm stands after the last block"),
        Mistake("two matrices in the MLP", _counted(mlp=2), "this MLP has three matrices: gate, up and down"),
        Mistake("biases", _counted(biases=True), "these linear layers have no biases"),
        Mistake(
            "square q",
            _counted(width=lambda hidden, heads, head_dim: hidden),
            "q and o are heads * head_dim wide, which need not be hidden",
        ),
        Mistake(
            "narrow o",
            _counted(narrow_o=True),
            "o takes what all query heads give: it is as wide as q",
        ),
    ),
))

# ---------------------------------------------------------------- 01.2 bytes_per_weight

BYTES_STUB = '''\
def bytes_per_weight(precision, optimizer):
    """Bytes that one trained weight takes, activations apart: itself, its gradient, the optimizer's states.

    precision: "fp32"; "bf16 autocast" (weights fp32, products in bf16); "bf16" (weights and gradients bf16).
    optimizer: "adamw" (two states in the dtype of the weight), "8-bit" (two states of one byte; leave their
    scales out), "sgd" (no states).
    """
    raise NotImplementedError
'''
PRECISIONS = ("fp32", "bf16 autocast", "bf16")
OPTIMIZERS = ("adamw", "8-bit", "sgd")


def bytes_per_weight(precision, optimizer):
    size = 2 if precision == "bf16" else 4
    states = {"adamw": 2 * size, "8-bit": 2, "sgd": 0}[optimizer]
    return size + size + states


def draw_bytes(seed):
    """Every pair once, in an order that the seed gives."""
    pairs = [(precision, optimizer) for precision in PRECISIONS for optimizer in OPTIMIZERS]
    random.Random(seed).shuffle(pairs)
    return pairs


def _bytes(size=None, gradient=None, copy=0, states=None, eight=2):
    """The count with one thing done otherwise; arguments are functions of (precision, bytes of a weight)."""

    def count(precision, optimizer):
        weight = 2 if precision == "bf16" else 4
        first = size(precision, weight) if size else weight
        second = gradient(precision, weight) if gradient else weight
        kept = copy if precision == "bf16 autocast" else 0
        each = states(precision, weight) if states else 2 * weight
        return first + second + kept + {"adamw": each, "8-bit": eight, "sgd": 0}[optimizer]

    return count


register(Exercise(
    id="01.2",
    title="Bytes for one trained weight",
    points=2,
    difficulty=2,
    minutes=8,
    hint="fp32 with AdamW: 4 for the weight, 4 for its gradient, 2 × 4 for the states.",
    stub=BYTES_STUB,
    draw=draw_bytes,
    reference=bytes_per_weight,
    compare=close(),
    mistakes=(
        Mistake(
            "one state",
            _bytes(states=lambda p, w: w),
            "AdamW keeps two states for each weight, not one",
        ),
        Mistake(
            "no gradient",
            _bytes(gradient=lambda p, w: 0),
            "the gradient is missing: as large as the weight",
        ),
        Mistake("one 8-bit state", _bytes(eight=1), "the 8-bit optimizer too keeps two states, a byte each"),
        Mistake(
            "autocast halves weights or gradients",
            _bytes(size=lambda p, w: 2 if "auto" in p else w),
            "under autocast weight and gradient stay fp32, 4 bytes each",
        ),
        Mistake(
            "autocast halves everything",
            _bytes(*[lambda p, w: 2 if "auto" in p else w] * 2, states=lambda p, w: 8 if p == "fp32" else 4),
            "autocast is no pure bf16: weight, gradient, states stay fp32",
        ),
        Mistake(
            "autocast's copy",
            _bytes(copy=2),
            "the bf16 copy goes as the gradients come: leave it out",
        ),
        Mistake("states in fp32", _bytes(states=lambda p, w: 8), "in pure bf16 AdamW's states are bf16 too"),
        Mistake(
            "gradient in bf16",
            _bytes(gradient=lambda p, w: 2),
            "the gradient has the dtype of the weight: fp32 under autocast",
        ),
    ),
))

# ---------------------------------------------------------------- 01.3 mlp_saved

SAVED_STUB = '''\
def mlp_saved(tokens, hidden, inter):
    """Values that a gated MLP keeps for its backward pass: down(silu(gate(x)) * up(x)).

    x has `tokens` rows of `hidden` values; gate and up give `inter` values a token. A tensor that two
    operations need is kept once. Keep what each operation's derivative needs: a linear layer its input, silu
    its input, the product both its factors. Returns the number of values, not bytes. Weights do not count.
    """
    raise NotImplementedError
'''


def mlp_saved(tokens, hidden, inter):
    return tokens * (hidden + 4 * inter)


def draw_saved(seed):
    """Six MLPs of different sizes."""
    r = random.Random(seed)
    sizes = [(r.randrange(8, 4096), r.randrange(64, 8192, 64) + 1) for _ in range(6)]
    return [(tokens, hidden, r.randrange(128, 16384, 128)) for tokens, hidden in sizes]


register(Exercise(
    id="01.3",
    title="What an MLP keeps for the backward pass",
    points=3,
    difficulty=3,
    minutes=12,
    hint="Write down the input of each of the five operations: gate, up, silu, the product, down.",
    stub=SAVED_STUB,
    draw=draw_saved,
    reference=mlp_saved,
    mistakes=(
        Mistake(
            "twice hidden",
            lambda t, h, i: t * (2 * h + 4 * i),
            "hidden counts once: x is shared, and down's result is not kept",
        ),
        Mistake(
            "product lost",
            lambda t, h, i: t * (h + 3 * i),
            "one of four is missing: gate(x), silu, up(x), the product",
        ),
        Mistake(
            "gate and up alone",
            lambda t, h, i: t * (h + 2 * i),
            "two of four are missing: gate(x), silu, up(x), the product",
        ),
        Mistake(
            "weights",
            lambda t, h, i: t * (h + 4 * i) + 3 * h * i,
            "these are activations: the weights are there anyway",
        ),
        Mistake("no input", lambda t, h, i: t * 4 * i, "gate and up need their input x for their gradients"),
        Mistake(
            "bytes",
            lambda t, h, i: 2 * t * (h + 4 * i),
            "this is twice as many: count values, not bytes",
        ),
        Mistake("one token", lambda t, h, i: h + 4 * i, "this is for one token: multiply by the tokens"),
    ),
))

# ---------------------------------------------------------------- 01.4 kv_cache_bytes

CACHE_STUB = '''\
def kv_cache_bytes(batch, tokens, layers, heads, kv_heads, head_dim, bytes_each):
    """Bytes of the KV cache: the keys and values of every token seen so far, in every layer.

    `heads` query heads share `kv_heads` key and value heads of `head_dim` values of `bytes_each` bytes.
    """
    raise NotImplementedError
'''


def kv_cache_bytes(batch, tokens, layers, heads, kv_heads, head_dim, bytes_each):
    return 2 * batch * tokens * layers * kv_heads * head_dim * bytes_each


def draw_cache(seed):
    """Six caches, each with fewer key heads than query heads."""
    r = random.Random(seed)
    inputs = []
    for _ in range(6):
        kv_heads = r.choice((1, 2, 3, 8))
        heads = kv_heads * r.choice((3, 4, 5))
        inputs.append((r.randint(2, 40), r.randrange(100, 9000), r.randint(3, 90), heads, kv_heads,
                       r.choice((64, 80, 128)), r.choice((1, 4))))  # fmt: skip
    return inputs


def _cache(change):
    """The right number, multiplied by what `change` says of the arguments."""

    def count(batch, tokens, layers, heads, kv_heads, head_dim, bytes_each):
        whole = kv_cache_bytes(batch, tokens, layers, heads, kv_heads, head_dim, bytes_each)
        up, down = change(batch, tokens, layers, heads, kv_heads, head_dim, bytes_each)
        return whole * up // down

    return count


register(Exercise(
    id="01.4",
    title="The KV cache",
    points=2,
    difficulty=1,
    minutes=5,
    hint="One key and one value for each token, layer and key head.",
    stub=CACHE_STUB,
    draw=draw_cache,
    reference=kv_cache_bytes,
    mistakes=(
        Mistake("keys only", _cache(lambda *a: (1, 2)), "half of it: values are kept beside the keys"),
        Mistake(
            "query heads",
            _cache(lambda b, t, n, h, k, d, e: (h, k)),
            "keys and values exist once for each key head, not query head",
        ),
        Mistake(
            "one layer",
            _cache(lambda b, t, n, h, k, d, e: (1, n)),
            "every layer has keys and values of its own",
        ),
        Mistake(
            "one row",
            _cache(lambda b, t, n, h, k, d, e: (1, b)),
            "every row of the batch has a cache of its own",
        ),
        Mistake(
            "values, not bytes",
            _cache(lambda b, t, n, h, k, d, e: (1, e)),
            "this counts values: multiply by the bytes of each",
        ),
        Mistake(
            "all pairs",
            _cache(lambda b, t, n, h, k, d, e: (t, 1)),
            "grows with the tokens, not with their square",
        ),
    ),
))

# ---------------------------------------------------------------- 01.5 largest_batch

BATCH_STUB = '''\
def largest_batch(card_gib, fixed_gb, row_gb):
    """The largest batch that fits a card; 0 if not even one row does.

    card_gib: what the card offers, in GiB (2**30 bytes). fixed_gb: what does not depend on the batch
    (weights, gradients, states, context), in GB (10**9 bytes). row_gb: what each row adds, in GB.
    """
    raise NotImplementedError
'''


def largest_batch(card_gib, fixed_gb, row_gb):
    free = round(card_gib * 2**30) - round(fixed_gb * 10**9)
    return max(0, free // round(row_gb * 10**9))


def draw_batch(seed):
    """Nine cards: one too small, some that a mix-up of GB and GiB, or rounding, would get wrong."""
    r = random.Random(seed)
    inputs = [(8, r.randint(90, 140) / 10, r.randint(2, 9) / 10)]
    for card in (16, 24, 40, 48, 80, 80, 141, 180):
        row = r.randint(11, 49) / 100
        fixed = r.randint(200, 600) / 1000 * card
        inputs.append((card, round(fixed, 3), row))
    return inputs


def _batch(card_unit=2**30, fixed_unit=10**9, rounding=lambda free, row: free // row, floor=0):
    def count(card_gib, fixed_gb, row_gb):
        free = round(card_gib * card_unit) - round(fixed_gb * fixed_unit)
        return max(floor, rounding(free, round(row_gb * fixed_unit)))

    return count


register(Exercise(
    id="01.5",
    title="The largest batch that fits",
    points=2,
    difficulty=2,
    minutes=8,
    hint="Turn everything into bytes first; `//` rounds down.",
    stub=BATCH_STUB,
    draw=draw_batch,
    reference=largest_batch,
    mistakes=(
        Mistake("all GB", _batch(card_unit=10**9), "the card is given in GiB: 2**30 bytes each"),
        Mistake(
            "rounded up",
            _batch(rounding=lambda free, row: -(-free // row)),
            "rounds up: the last row would not fit any more",
        ),
        Mistake(
            "rounded to nearest",
            _batch(rounding=lambda free, row: round(free / row)),
            "rounds to the nearest: round down, or the last row may not fit",
        ),
        Mistake("negative", _batch(floor=-(10**9)), "below 0: where not even one row fits, return 0"),
        Mistake("at least one", _batch(floor=1), "says 1 where not even one row fits: return 0"),
        Mistake(
            "fixed forgotten",
            lambda card, fixed, row: round(card * 2**30) // round(row * 10**9),
            "what does not depend on the batch takes its room first",
        ),
    ),
))
