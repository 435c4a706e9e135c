"""Exercises of lesson 06: packed codes, double quantization, bytes of a 4-bit base, merging and rounding."""

import random

from labkit.exercises.spec import Exercise, Mistake, close, exact, register

# ---------------------------------------------------------------- 06.1 unpack_codes

UNPACK_STUB = '''\
def unpack_codes(packed, count):
    """The first `count` 4-bit codes of a list of bytes, two codes in each, the first in the upper half.

    packed: list of int from 0 to 255; where count is odd, the lower half of the last byte holds no code.
    Returns a list of int from 0 to 15.
    """
    raise NotImplementedError
'''


def draw_unpack(seed):
    """Bytes whose halves differ, with even and odd counts; all fill their bytes but for one half at most."""
    r = random.Random(seed)
    inputs = []
    for number in range(6):
        size = r.randint(3, 6)
        halves = [r.sample(range(1, 16), 2) for _ in range(size)]
        inputs.append(([16 * upper + lower for upper, lower in halves], 2 * size - number % 2))
    return inputs


def _unpacked(upper=lambda byte: byte // 16, lower=lambda byte: byte % 16):
    def function(packed, count):
        return [code for byte in packed for code in (upper(byte), lower(byte))][:count]

    return function


unpack_codes = _unpacked()


def _halves_apart(packed, count):
    return ([byte // 16 for byte in packed] + [byte % 16 for byte in packed])[:count]


register(Exercise(
    id="06.1",
    title="Two codes in a byte",
    points=2,
    difficulty=1,
    minutes=5,
    hint="`byte // 16` is the upper half of a byte, `byte % 16` the lower one.",
    stub=UNPACK_STUB,
    draw=draw_unpack,
    reference=unpack_codes,
    compare=exact,
    mistakes=(
        Mistake("swapped", _unpacked(lambda byte: byte % 16, lambda byte: byte // 16),
                "the halves are swapped: the first code is the upper half"),
        Mistake("padding kept", lambda packed, count: unpack_codes(packed, 2 * len(packed)),
                "an odd count leaves half a byte unused: return `count` codes"),
        Mistake("halves apart", _halves_apart,
                "all upper halves, then all lower ones: they alternate"),
        Mistake("not shifted", _unpacked(upper=lambda byte: byte & 0xF0),
                "the upper half is not shifted down: codes end at 15"),
        Mistake("not masked", _unpacked(lower=lambda byte: byte),
                "the second code still holds the upper half: take byte % 16"),
        Mistake("signed", _unpacked(lambda byte: byte // 16 - 8, lambda byte: byte % 16 - 8),
                "these codes are signed: a place in a code book is not"),
        Mistake("one a byte", lambda packed, count: [byte // 16 for byte in packed][:count],
                "one code for each byte: there are two"),
        Mistake("count // 2 bytes", lambda packed, count: unpack_codes(packed[: count // 2], count),
                "an odd count begins one more byte: its upper half is a code"),
    ),
))

# ---------------------------------------------------------------- 06.2 restore_weights

RESTORE_STUB = '''\
def restore_weights(codes, code_book, small, table, second, mean, block, group):
    """Weights from 4-bit codes and doubly quantized absmax values.

    Each `block` of weights shares an absmax, each `group` of absmax values shares a number of `second`.
    absmax of block b = table[small[b]] * (its number of `second`) + mean; weight = code_book[code] * absmax.
    codes, small: lists of int, places in code_book and in table; second: list of float; mean: float.
    Returns a list of float, as long as codes.
    """
    raise NotImplementedError
'''


def draw_restore(seed):
    """A few blocks in two groups and more; group and block differ, and no scale is near another."""
    r = random.Random(seed)
    inputs = []
    for _ in range(5):
        block, group = r.choice(((2, 3), (4, 3), (3, 2), (4, 2)))
        blocks = 2 * group + r.randint(1, group)
        book = sorted([-1.0, 0.0, 1.0, *(round(r.uniform(-0.9, 0.9), 3) for _ in range(5))])
        table = sorted(round(r.uniform(-1, 1), 3) for _ in range(8))
        second = [round((number + 1) * r.uniform(0.02, 0.03), 5) for number in range(-(-blocks // group))]
        inputs.append(([r.randrange(8) for _ in range(blocks * block)], book,
                       [r.randrange(8) for _ in range(blocks)], table, second,
                       round(r.uniform(0.1, 0.3), 5), block, group))  # fmt: skip
    return inputs


def _restored(absmax=lambda small, table, second, mean: table[small] * second + mean,
              of_block=lambda b, group: b // group, value=lambda book, code: book[code],
              block_of=lambda i, block, small: i // block):  # fmt: skip
    """restore_weights with one part done otherwise."""

    def function(codes, code_book, small, table, second, mean, block, group):
        weights = []
        for i, code in enumerate(codes):
            b = block_of(i, block, small)
            scale = absmax(small[b], table, second[of_block(b, group)], mean)
            weights.append(value(code_book, code) * scale)
        return weights

    return function


restore_weights = _restored()

register(Exercise(
    id="06.2",
    title="Restore a layer's weights",
    points=3,
    difficulty=3,
    minutes=12,
    hint="Weight i is in block `i // block`, and block b in group `b // group`.",
    stub=RESTORE_STUB,
    draw=draw_restore,
    reference=restore_weights,
    compare=close(1e-5, 1e-7),  # room for fp32
    mistakes=(
        Mistake("no mean", _restored(lambda small, table, second, mean: table[small] * second),
                "the mean of the absmax values is not added back"),
        Mistake("mean inside", _restored(lambda small, table, second, mean: (table[small] + mean) * second),
                "adds the mean before `second`: scale first, then add it"),
        Mistake("mean subtracted", _restored(lambda small, table, second, mean: table[small] * second - mean),
                "the mean is subtracted: storing did that, so add it back"),
        Mistake("mean on the weight", lambda codes, book, small, table, second, mean, block, group:
                [book[code] * table[small[i // block]] * second[i // block // group] + mean
                 for i, code in enumerate(codes)],
                "the mean is added to the weight: it is the absmax's"),
        Mistake("one group", _restored(of_block=lambda b, group: 0),
                "takes the first number of `second` for all: group b // group"),
        Mistake("modulo", _restored(of_block=lambda b, group: b % group),
                "b % group is a place in a group: the group is b // group"),
        Mistake("group of weights", lambda codes, book, small, table, second, mean, block, group:
                [book[code] * (table[small[i // block]] * second[i // group] + mean)
                 for i, code in enumerate(codes)],
                "index out of range: groups are of blocks, blocks of weights"),
        Mistake("no table", _restored(lambda small, table, second, mean: small * second + mean),
                "`small` holds places in the table: look them up"),
        Mistake("not looked up", _restored(value=lambda book, code: code),
                "multiplies with the code: its value is in the code book"),
        Mistake("block modulo", _restored(block_of=lambda i, block, small: i % len(small)),
                "neighbouring weights share a block: block i // block"),
        Mistake("absmax only", _restored(value=lambda book, code: 1.0),
                "these are the absmax values: multiply with the code's value"),
    ),
))

# ---------------------------------------------------------------- 06.3 base_gb

BYTES_STUB = '''\
def base_gb(linear, other):
    """GB (10**9 bytes) of a base in NF4 with double quantization, all of it.

    linear: weights in linear layers, 4 bits each; each 64 of them share an 8-bit absmax, and each 256 absmax
    values share 32 bits. other: the remaining weights (embedding, head, norms), which stay in 16 bits.
    Leave the few bytes for each layer out, and round nothing. Returns a float.
    """
    raise NotImplementedError
'''


def draw_base(seed):
    """The base of this course, 7B and 65B shapes, and others with large and small embeddings."""
    r = random.Random(seed)
    inputs = [(106_168_320, 28_346_688), (6_476_005_376, 262_410_240), (64_755_859_456, 529_539_072)]
    return inputs + [(r.randrange(10**8, 10**10), r.randrange(10**7, 10**9)) for _ in range(3)]


NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)


def _base(bits=NF4_BITS, other_bits=16.0, unit=1e9, size=8):
    return lambda linear, other: (linear * bits + other * other_bits) / size / unit


base_gb = _base()

register(Exercise(
    id="06.3",
    title="Bytes of a 4-bit base",
    points=2,
    difficulty=2,
    minutes=8,
    hint="Count the bits that one weight of a linear layer takes, its share of the scales included.",
    stub=BYTES_STUB,
    draw=draw_base,
    reference=base_gb,
    compare=close(1e-7, 1e-12),
    mistakes=(
        Mistake("GiB", _base(unit=2**30), "this is GiB, 2**30 bytes: GB are 10**9"),
        Mistake("no scales", _base(bits=4), "counts the codes only: the scales are stored too"),
        Mistake("no second scale", _base(bits=4 + 8 / 64),
                "leaves out the 32 bits that 256 absmax values share"),
        Mistake("4.25 bits", _base(bits=4 + 8 / 64 + 32 / 256),
                "4.25 bits a weight: absmax takes 8, and 256 of them share 32"),
        Mistake("not double", _base(bits=4.5),
                "absmax in 32 bits: double quantization stores it in 8"),
        Mistake("all in 4 bits", _base(other_bits=NF4_BITS),
                "counts embedding, head and norms in 4 bits: they stay in 16"),
        Mistake("linear only", _base(other_bits=0), "counts the linear layers only: the rest is there too"),
        Mistake("other in 32", _base(other_bits=32), "counts the rest in 32 bits: it stays in 16"),
        Mistake("bits", _base(size=1), "these are bits: eight make a byte"),
        Mistake("bits of linear", _base(bits=8 * NF4_BITS),
                "takes bits of linear layers for bytes: eight make a byte"),
        Mistake("bytes of other", _base(other_bits=2),
                "16 bits are 2 bytes already: do not divide the rest by 8"),
        Mistake("bytes of scales", _base(bits=4 + 1 / 64 + 4 / (64 * 256)),
                "adds bytes of scales to bits of codes: count both in bits"),
        Mistake("bytes", _base(unit=1), "these are bytes: GB were asked for"),
    ),
))

# ---------------------------------------------------------------- 06.4 step_bytes

STEP_STUB = '''\
def step_bytes(base_bytes, adapter_weights, paged):
    """Bytes of a QLoRA step by where they come from, activations apart.

    base_bytes: of the frozen base, as stored. The adapter's weights, their gradients and AdamW's two states
    are fp32. paged: True if a paged optimizer keeps the states where they may leave the card.
    Returns a list of five: base, adapter, gradients, states that are on the card for good, paged states.
    """
    raise NotImplementedError
'''


def draw_step(seed):
    """Bases and adapters of several sizes, paged and not."""
    r = random.Random(seed)
    return [(r.randrange(10**8, 10**11), r.randrange(10**6, 10**9), number % 2 == 0) for number in range(6)]


def _step(base=lambda base, adapter: base, adapters=4, gradients=lambda base, adapter: 4 * adapter,
          states=lambda base, adapter: 8 * adapter, pages=("states",), one_place=True):  # fmt: skip
    def function(base_bytes, adapter_weights, paged):
        found = {"base": base(base_bytes, adapter_weights), "adapter": adapters * adapter_weights,
                 "gradients": gradients(base_bytes, adapter_weights),
                 "states": states(base_bytes, adapter_weights), "paged": 0}  # fmt: skip
        if paged:
            for name in pages:
                found["paged"] += found[name]
                found[name] = 0 if one_place else found[name]
        return list(found.values())

    return function


step_bytes = _step()

register(Exercise(
    id="06.4",
    title="What 4 bits save, and what is paged",
    points=2,
    difficulty=2,
    minutes=8,
    hint="Only what is trained has gradients and states. Of all this, only the optimizer's states are paged.",
    stub=STEP_STUB,
    draw=draw_step,
    reference=step_bytes,
    compare=close(0, 0),
    mistakes=(
        Mistake("gradient of the base", _step(gradients=lambda base, adapter: base + 4 * adapter),
                "the base is frozen: it has no gradient"),
        Mistake("states of the base", _step(states=lambda base, adapter: 2 * base + 8 * adapter),
                "the base is frozen: AdamW keeps no states for it"),
        Mistake("one state", _step(states=lambda base, adapter: 4 * adapter),
                "AdamW keeps two states for each trained weight"),
        Mistake("16 bits", _step(adapters=2, gradients=lambda base, adapter: 2 * adapter,
                                 states=lambda base, adapter: 4 * adapter),
                "the adapter and all that goes with it is fp32: 4 bytes each"),
        Mistake("8-bit states", _step(states=lambda base, adapter: 2 * adapter),
                "the states are in 8 bits: here they are fp32, 4 bytes each"),
        Mistake("counts", _step(adapters=1, gradients=lambda base, adapter: adapter,
                                states=lambda base, adapter: 2 * adapter),
                "these are counts of numbers: fp32 takes 4 bytes each"),
        Mistake("16-bit adapter", _step(adapters=2), "the adapter is fp32: 4 bytes each"),
        Mistake("no gradients", _step(gradients=lambda base, adapter: 0),
                "the adapter's gradients are missing: it is trained"),
        Mistake("4-bit gradients", _step(gradients=lambda base, adapter: adapter // 2),
                "only the base is in 4 bits: gradients are fp32"),
        Mistake("base paged", _step(pages=("base", "states")),
                "the base stays on the card: every step reads all of it"),
        Mistake("gradients paged", _step(pages=("gradients", "states")),
                "a paged optimizer pages its states, not the gradients"),
        Mistake("counted twice", _step(one_place=False),
                "paged states are counted twice: they are in one place"),
        Mistake("never paged", _step(pages=()), "the states are paged where `paged` is True: move them"),
        Mistake("the other way", lambda base, adapter, paged: step_bytes(base, adapter, not paged),
                "turned around: states leave the card where `paged` is True"),
        Mistake("always paged", lambda base, adapter, paged: step_bytes(base, adapter, True),
                "without a paged optimizer the states stay on the card"),
    ),
))

# ---------------------------------------------------------------- 06.5 merge

MERGE_STUB = '''\
def merged(fresh, restored, a, b, alpha):
    """The weights of a layer with its adapter merged into the checkpoint's: W + alpha / r * B A.

    fresh: the weights as the checkpoint has them; restored: the same after storage in 4 bits; both lists of
    rows (out x in). a: r rows of `in` numbers; b: `out` rows of r numbers. Returns new rows.
    """
    raise NotImplementedError
'''


def draw_merge(seed):
    """Square layers too, where a product the wrong way round has the right shape; alpha is not r."""
    r = random.Random(seed)

    def rows(count, width, size=1.0):
        return [[round(r.gauss(0, size), 4) + 1e-6 for _ in range(width)] for _ in range(count)]

    inputs = []
    for number in range(5):
        rank = 2 if number % 2 else 3
        out, width = (rank, rank) if number < 2 else (rank + r.choice((1, 2)), r.randint(4, 6))
        fresh = rows(out, width)
        restored = [[round(w * 4) / 4 for w in row] for row in fresh]
        inputs.append((fresh, restored, rows(rank, width), rows(out, rank, 0.3), r.choice((5, 7, 16))))
    return inputs


def _product(b, a):
    return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*a, strict=True)]
            for row in b]  # fmt: skip


def _plus(rows, update, scale):
    return [[w + scale * u for w, u in zip(*pair, strict=True)] for pair in zip(rows, update, strict=True)]


def _merged(start="fresh", scale=lambda alpha, r: alpha / r, product=_product):
    def function(fresh, restored, a, b, alpha):
        rows = {"fresh": fresh, "restored": restored, "nothing": [[0.0] * len(fresh[0])] * len(fresh)}[start]
        return _plus(rows, product(b, a), scale(alpha, len(a)))

    return function


merged = _merged()


def _requantized(fresh, restored, a, b, alpha):
    return [[round(w * 4) / 4 for w in row] for row in _merged("restored")(fresh, restored, a, b, alpha)]


def _other_way(b, a):
    """A B, which only a square layer of width r has; others raise IndexError, as with loops over indices."""
    return [[sum(a[i][k] * b[k][j] for k in range(len(a))) for j in range(len(a[0]))] for i in range(len(b))]


register(Exercise(
    id="06.5",
    title="Merge into the checkpoint's weights",
    points=2,
    difficulty=2,
    minutes=10,
    hint="Of the two sets of weights, take the checkpoint's. B A is as in 05.6, and r is len(a).",
    stub=MERGE_STUB,
    draw=draw_merge,
    reference=merged,
    compare=close(1e-5, 1e-6),  # room for fp32
    mistakes=(
        Mistake("restored base", _merged("restored"),
                "merges into the restored weights: take the checkpoint's"),
        Mistake("re-quantized", _requantized,
                "the merged weights are rounded to 4 bits again: keep them"),
        Mistake("no scaling", _merged(scale=lambda alpha, r: 1.0), "the factor alpha / r is missing"),
        Mistake("alpha", _merged(scale=lambda alpha, r: alpha), "the factor is alpha / r, not alpha"),
        Mistake("r is out", lambda fresh, restored, a, b, alpha: _plus(fresh, _product(b, a), alpha / len(b)),
                "this divides by the rows of b: r is the number of rows of a"),
        Mistake("turned over", _merged(scale=lambda alpha, r: r / alpha),
                "the factor is turned over: alpha / r"),
        Mistake("merged twice", _merged(scale=lambda alpha, r: 2 * alpha / r),
                "the update is there twice: merge once, into fresh weights"),
        Mistake("update only", _merged("nothing"), "this is the update only: add it to the weights"),
        Mistake("subtracted", _merged(scale=lambda alpha, r: -alpha / r), "the update is subtracted: add it"),
        Mistake("A B", _merged(product=_other_way), "this is A B: the update is B A"),
    ),
))

# ---------------------------------------------------------------- 06.6 codes_that_move

MOVE_STUB = '''\
def codes_that_move(codes, absmax, update, code_book):
    """Which weights of a block get another code when an update is merged and rounded to 4 bits again.

    The weight with code q is code_book[q] * absmax before the update; afterwards it gets the code of the
    value nearest to it. code_book: ascending list of float; its steps differ. update: list of float, as long
    as codes. absmax stays as it is (a real storage takes the new largest |w|), and no weight lands midway
    between two values. Returns a list of bool.
    """
    raise NotImplementedError
'''

# NF4 to four digits.
BOOK = [-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0, 0.0796, 0.1609, 0.2461, 0.3379,
        0.4407, 0.5626, 0.7230, 1.0]  # fmt: skip


def draw_move(seed):
    """Updates a little below and a little above half of the step that they point along, up and down."""
    r = random.Random(seed)
    inputs = []
    for number in range(6):
        absmax = round(r.uniform(0.03, 0.3) if number else r.uniform(2.0, 3.0), 4)
        codes, update = [], []
        for q in r.sample(range(1, 15), 12):
            towards = r.choice((-1, 1))
            step = abs(BOOK[q + towards] - BOOK[q])
            share = r.choice((0.1, 0.3, 0.45, 0.48, 0.52, 0.55, 0.7, 0.9))
            codes.append(q)
            update.append(towards * share * step * absmax)
        # At the wide end of the book: over half of one neighbouring step, and under half of the other.
        codes += [14, 14]
        update += [0.47 * (BOOK[15] - BOOK[14]) * absmax, -0.53 * (BOOK[14] - BOOK[13]) * absmax]
        # At its ends, where the largest weight of a block always is: outwards there is no further value.
        codes += [15, 0, 15, 0]
        update += [0.2 * absmax, -0.2 * absmax, 0.55 * (BOOK[14] - BOOK[15]) * absmax,
                   0.55 * (BOOK[1] - BOOK[0]) * absmax]  # fmt: skip
        inputs.append((codes, absmax, update, list(BOOK)))
    return inputs


def _moves(moved):
    """codes_that_move by `moved(q, u, book)`, with u the update over absmax."""

    def function(codes, absmax, update, code_book):
        return [moved(q, u / absmax, code_book) for q, u in zip(codes, update, strict=True)]

    return function


def _new_code(q, u, book):
    return min(range(len(book)), key=lambda i: abs(book[i] - book[q] - u))


codes_that_move = _moves(lambda q, u, book: _new_code(q, u, book) != q)


def _gaps(q, book):
    return [abs(book[i] - book[q]) for i in (q - 1, q + 1) if 0 <= i < len(book)]


def _mean_gap(book):
    return (book[-1] - book[0]) / (len(book) - 1)


register(Exercise(
    id="06.6",
    title="Does the update survive?",
    points=3,
    difficulty=3,
    minutes=12,
    hint="Find the nearest value for (code_book[q] * absmax + u) / absmax, and compare its place with q.",
    stub=MOVE_STUB,
    draw=draw_move,
    reference=codes_that_move,
    compare=exact,
    mistakes=(
        Mistake("even steps", _moves(lambda q, u, book: abs(u) > _mean_gap(book) / 2),
                "takes all steps as equal: those of NF4 differ"),
        Mistake("whole step", _moves(lambda q, u, book:
                abs(u) > (_gaps(q, book)[-1] if u > 0 else _gaps(q, book)[0])),
                "asks for a whole step: half a step is enough"),
        Mistake("either side", _moves(lambda q, u, book: abs(u) > min(_gaps(q, book)) / 2),
                "takes the smaller step: the one that the update points to"),
        Mistake("wider side", _moves(lambda q, u, book: abs(u) > max(_gaps(q, book)) / 2),
                "takes the larger step: the one that the update points to"),
        Mistake("upward", _moves(lambda q, u, book: abs(u) > _gaps(q, book)[-1] / 2),
                "takes the step upwards for all: negative updates go down"),
        Mistake("not scaled", lambda codes, absmax, update, book: codes_that_move(codes, 1.0, update, book),
                "the update is not divided by absmax"),
        Mistake("no division", lambda codes, absmax, update, book:
                [min(range(len(book)), key=lambda i: abs(book[i] - book[q] * absmax - u)) != q
                 for q, u in zip(codes, update, strict=True)],
                "compares weights with the book's values: divide by absmax"),
        Mistake("beyond the end", _moves(lambda q, u, book:
                abs(u) > abs(book[q + (1 if u > 0 else -1)] - book[q]) / 2),
                "index out of range: at an end of the book there is no next value"),
        Mistake("any change", _moves(lambda q, u, book: u != 0),
                "every update counts here: rounding takes the small ones back"),
        Mistake("turned around", _moves(lambda q, u, book: _new_code(q, u, book) == q),
                "these are the codes that stay: the others were asked for"),
        Mistake("codes", _moves(_new_code), "these are the new codes: say whether they changed"),
    ),
))
