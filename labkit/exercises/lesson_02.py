"""Exercises of lesson 02: integers and their scales, stored bits, code books, outliers, ternary weights."""

import bisect
import random

from labkit.exercises.spec import Exercise, Mistake, close, exact, register


def draw_weights(r, count=8, spread=0.2):
    """Weights of no round numbers, the largest |w| sometimes positive and sometimes negative."""
    return [round(r.gauss(0, spread), 6) + 1e-7 for _ in range(count)]


def coded(got, want):
    """A comparison like `close` for codes and their scale: where an int is wanted, a float will not do."""
    if type(want) is tuple:
        return type(got) is tuple and len(got) == len(want) and all(map(coded, got, want))
    return exact(got, want) if type(want) in (list, int) else close(1e-9, 1e-12)(got, want)


def as_floats(function):
    """The known mistake of codes that are whole numbers, but of type float."""
    return lambda *args: ([float(q) for q in function(*args)[0]], *function(*args)[1:])


FLOATS = "the codes are floats: return a list of int"

# ---------------------------------------------------------------- 02.1 absmax_int8

ABSMAX_STUB = '''\
def absmax_int8(weights):
    """Codes and scale of a block of weights: the largest |w| becomes 127 or -127.

    weights: list of float. Returns (codes, scale): a list of int, and a float for which codes times scale
    give the weights back, nearly. A block of zeros has codes 0 and scale 0.0.
    """
    raise NotImplementedError
'''


def draw_absmax(seed):
    """A block of zeros, one whose largest weight is negative, one where it is positive, and others."""
    r = random.Random(seed)
    low, high = ([sign * (0.987654 + r.random()), *draw_weights(r, spread=0.1)] for sign in (-1, 1))
    return [([0.0] * 4,), (low,), (high,), *((draw_weights(r),) for _ in range(6))]


def _scaled(scale_of, code=lambda x: round(x)):
    """absmax_int8 with another scale, or another way from w / scale to a code."""

    def function(weights):
        scale = scale_of(weights)
        if not any(weights):
            return [0] * len(weights), 0.0
        return [code(w / scale) for w in weights], scale

    return function


def _largest(weights):
    return max(abs(w) for w in weights)


absmax_int8 = _scaled(lambda weights: _largest(weights) / 127)


def _zero_division(weights):
    scale = _largest(weights) / 127
    return [round(w / scale) for w in weights], scale


register(Exercise(
    id="02.1",
    title="Absmax codes",
    points=2,
    difficulty=1,
    minutes=6,
    hint="`max(abs(w) for w in weights)` is the largest |w|. Look at a block of zeros before you divide.",
    stub=ABSMAX_STUB,
    draw=draw_absmax,
    reference=absmax_int8,
    compare=coded,
    mistakes=(
        Mistake("no abs", _scaled(lambda ws: max(ws) / 127 or 1.0),
                "takes the largest w: the largest |w| may be a negative weight"),
        Mistake("128", _scaled(lambda ws: _largest(ws) / 128),
                "the largest |w| gets code 128, and int8 ends at 127"),
        Mistake("cut off", _scaled(lambda ws: _largest(ws) / 127, int),
                "int() cuts off towards 0: round to the nearest code"),
        Mistake("not whole", _scaled(lambda ws: _largest(ws) / 127, float),
                "the codes are no whole numbers: round them"),
        Mistake("range", _scaled(lambda ws: (max(ws) - min(ws)) / 255),
                "this is the range over 255: symmetric codes want max |w| / 127"),
        Mistake("255", _scaled(lambda ws: _largest(ws) / 255),
                "codes up to 255 need a ninth bit for the sign: divide by 127"),
        Mistake("127.5", _scaled(lambda ws: 2 * _largest(ws) / 255),
                "2 max |w| / 255 gives codes up to 128: divide max |w| by 127"),
        Mistake("float codes", as_floats(absmax_int8), FLOATS),
        Mistake("turned over", lambda ws: (absmax_int8(ws)[0], 127 / _largest(ws) if any(ws) else 0.0),
                "the scale is turned over: codes times scale give the weights"),
        Mistake("zeros", _zero_division,
                "a block of zeros divides by 0: codes 0 and scale 0.0 there"),
    ),
))

# ---------------------------------------------------------------- 02.2 zero_point

ZERO_STUB = '''\
def zero_point(weights, bits):
    """Asymmetric codes from 0 to 2^bits - 1, in which one code, `zero`, stands for exactly 0.

    weights: list of float, not all 0. The range is from the smallest to the largest weight, widened to hold
    0 where it does not. scale is the range over the number of steps; zero = round(-low / scale);
    q = round(w / scale) + zero, clipped to the codes that exist: with zero rounded, the largest weight may
    land one beyond. Returns (codes, scale, zero): a list of int, a float, an int.
    """
    raise NotImplementedError
'''


def draw_zero_point(seed):
    """Blocks around 0, blocks that lie wholly on one side of it, and one whose largest w asks for code 16."""
    r = random.Random(seed)
    inputs = [(draw_weights(r), r.choice((3, 4, 8))) for _ in range(8)]
    above = [0.5 + abs(w) for w in draw_weights(r)]
    below = [-0.7 - abs(w) for w in draw_weights(r)]
    low = r.choice((-1.5, -5.5, -9.5))  # halves that round() takes up, at both ends of 15 steps
    beyond = [low, low + 15, *(round(r.uniform(low, low + 15), 3) for _ in range(4))]
    return [*inputs, (above, 4), (below, 4), ([w + 0.15 for w in draw_weights(r)], 8), (beyond, 4)]


def _into(bits, codes, first=0):
    """Codes clipped to those that exist."""
    return [max(first, min(first + 2**bits - 1, q)) for q in codes]


def _asymmetric(low=lambda ws: min(0, *ws), high=lambda ws: max(0, *ws), steps=lambda bits: 2**bits - 1,
                zero_of=lambda low, scale: round(-low / scale), shift=lambda zero, bits: zero,
                clip=lambda bits, codes: _into(bits, codes)):  # fmt: skip
    def function(weights, bits):
        scale = (high(weights) - low(weights)) / steps(bits)
        zero = zero_of(low(weights), scale)
        return clip(bits, [round(w / scale) + shift(zero, bits) for w in weights]), scale, zero

    return function


zero_point = _asymmetric()


def _unclipped(bits, codes):
    return codes


def _from_minimum(weights, bits):
    _, scale, zero = zero_point(weights, bits)
    low = min(0, *weights)
    return _into(bits, [round((w - low) / scale) for w in weights]), scale, zero


register(Exercise(
    id="02.2",
    title="A zero point",
    points=2,
    difficulty=2,
    minutes=8,
    hint="`min(0, *weights)` is the low end of a range that holds 0. Between n codes lie n - 1 steps. "
         "`max(0, min(top, q))` clips.",
    stub=ZERO_STUB,
    draw=draw_zero_point,
    reference=zero_point,
    compare=coded,
    mistakes=(
        Mistake("2^bits steps", _asymmetric(steps=lambda bits: 2**bits),
                "2^bits codes have 2^bits - 1 steps between them"),
        Mistake("range without 0", _asymmetric(low=min, high=max),
                "the range must hold 0, or no code stands for it: widen it"),
        Mistake("sign", _asymmetric(zero_of=lambda low, scale: round(low / scale)),
                "zero has the wrong sign: it is round(-low / scale)"),
        Mistake("not whole", _asymmetric(zero_of=lambda low, scale: -low / scale),
                "zero is no whole number, so no code stands for 0: round it"),
        Mistake("zero left out", _asymmetric(shift=lambda zero, bits: 0, clip=_unclipped),
                "the codes lack + zero: the smallest must be near 0"),
        Mistake("signed codes", _asymmetric(shift=lambda zero, bits: zero - 2 ** (bits - 1),
                                            clip=lambda bits, codes: _into(bits, codes, -(2 ** (bits - 1)))),
                "these codes are signed: they go from 0 to 2^bits - 1"),
        Mistake("not clipped", _asymmetric(clip=_unclipped),
                "a code beyond 2^bits - 1: clip codes to those that exist"),
        Mistake("float codes", as_floats(zero_point), FLOATS),
        Mistake("symmetric", _asymmetric(low=lambda ws: -_largest(ws), high=_largest),
                "this range is symmetric: take the smallest and the largest w"),
        Mistake("from the minimum", _from_minimum,
                "rounds (w - low) / scale: round w / scale, then add zero"),
    ),
))

# ---------------------------------------------------------------- 02.5 stored_bits

BITS_STUB = '''\
def stored_bits(code_bits, block, scale_bits, group=0, group_bits=0):
    """Bits stored for each weight, scales included.

    Each block of `block` weights stores a code of `code_bits` for each weight, and one scale of `scale_bits`.
    With double quantization, each `group` of scales also shares `group_bits`; group is 0 without it.
    Returns a float.
    """
    raise NotImplementedError
'''


def stored_bits(code_bits, block, scale_bits, group=0, group_bits=0):
    shared = group_bits / (block * group) if group else 0.0
    return code_bits + scale_bits / block + shared


def draw_stored_bits(seed):
    """NF4 with and without double quantization, and formats that nobody uses."""
    r = random.Random(seed)
    inputs = [(4, 64, 32), (4, 64, 8, 256, 32), (8, 64, 32), (4, 32, 16)]
    for _ in range(6):
        plain = (r.randint(2, 8), r.choice((16, 32, 64, 128)), r.choice((8, 16, 32)))
        inputs.append((*plain, r.choice((64, 128, 256)), r.choice((16, 32))))
    return inputs


def _no_group(code_bits, block, scale_bits, group=0, group_bits=0):
    return code_bits + scale_bits / block


def _by_group(code_bits, block, scale_bits, group=0, group_bits=0):
    return _no_group(code_bits, block, scale_bits) + (group_bits / group if group else 0.0)


def _by_block(code_bits, block, scale_bits, group=0, group_bits=0):
    return _no_group(code_bits, block, scale_bits) + group_bits / block


register(Exercise(
    id="02.5",
    title="Stored bits per weight",
    points=2,
    difficulty=1,
    minutes=5,
    hint="How many weights share one scale? How many share what a group of scales shares?",
    stub=BITS_STUB,
    draw=draw_stored_bits,
    reference=stored_bits,
    compare=close(1e-9, 1e-12),
    mistakes=(
        Mistake("no scales", lambda code_bits, *rest: float(code_bits),
                "counts the codes only: the scales are stored too"),
        Mistake("no group", _no_group,
                "leaves out what a group of scales shares"),
        Mistake("by group", _by_group,
                "group_bits are shared by group x block weights, not by group"),
        Mistake("by block", _by_block,
                "group_bits are shared by group x block weights, not by block"),
        Mistake("scale for each weight", lambda code_bits, block, scale_bits, *rest:
                stored_bits(code_bits, block, scale_bits, *rest) + scale_bits - scale_bits / block,
                "one scale for each weight? A whole block shares it"),
        Mistake("second scale only", lambda code_bits, block, scale_bits, group=0, group_bits=0:
                code_bits + (group_bits / (block * group) if group else scale_bits / block),
                "the second scale does not replace the first: both are stored"),
        Mistake("bits of a block", lambda code_bits, block, scale_bits, group=0, group_bits=0:
                code_bits + scale_bits + (group_bits / group if group else 0.0),
                "adds the scale bits of a block to one weight: divide by block"),
        Mistake("bytes", lambda *arguments: stored_bits(*arguments) / 8,
                "these are bytes: bits were asked for"),
        Mistake("whole block", lambda code_bits, block, *rest:
                block * stored_bits(code_bits, block, *rest),
                "these are the bits of a whole block: divide by its weights"),
    ),
))

# ---------------------------------------------------------------- 02.4 nearest_codes

NEAREST_STUB = '''\
def nearest_codes(weights, code_book):
    """The place in `code_book` of the value nearest to each weight, after division by the largest |w|.

    weights: list of float, not all 0; code_book: list of float from -1 to 1, in any order.
    Returns a list of int, as long as weights.
    """
    raise NotImplementedError
'''

FP4 = [0.0, 1 / 192, 2 / 3, 1.0, 1 / 3, 1 / 2, 1 / 6, 1 / 4]


def draw_nearest(seed):
    """Sorted books and one in the order of FP4's bits; blocks led by a positive and by a negative weight."""
    r = random.Random(seed)
    inputs = []
    for number in range(8):
        book = sorted([-1.0, 0.0, 1.0, *(round(r.uniform(-0.95, 0.95), 4) for _ in range(5))])
        if number % 3 == 2:
            book = [*FP4, *(-v for v in FP4[1:])]
        weights = [w / 3 for w in draw_weights(r, 10)]
        sign = (-1) ** number if number < 2 else r.choice((-1, 1))
        weights[r.randrange(10)] = sign * (0.7 + r.random())
        inputs.append((weights, book))
    return inputs


def _nearest(scale=_largest, distance=lambda value, x: abs(value - x)):
    def function(weights, code_book):
        by = scale(weights)
        places = range(len(code_book))
        return [min(places, key=lambda i, x=w / by: distance(code_book[i], x)) for w in weights]

    return function


nearest_codes = _nearest()


def _below(weights, code_book):
    by = _largest(weights)
    found = []
    for w in weights:
        lower = [i for i, value in enumerate(code_book) if value <= w / by + 1e-12]
        found.append(max(lower, key=lambda i: code_book[i]))
    return found


def _bisected(weights, code_book):
    by = _largest(weights)
    borders = [(a + b) / 2 for a, b in zip(code_book, code_book[1:], strict=False)]
    return [bisect.bisect_left(borders, w / by) for w in weights]


register(Exercise(
    id="02.4",
    title="Look up a code",
    points=2,
    difficulty=2,
    minutes=8,
    hint="`min(range(len(code_book)), key=...)` gives the place with the smallest distance.",
    stub=NEAREST_STUB,
    draw=draw_nearest,
    reference=nearest_codes,
    compare=exact,
    mistakes=(
        Mistake("not scaled", _nearest(scale=lambda ws: 1.0),
                "the weights are not divided by their largest |w|"),
        Mistake("no abs", _nearest(scale=max),
                "divides by the largest w: take the largest |w|"),
        Mistake("value below", _below,
                "takes the next value below: take the nearest, below or above"),
        Mistake("signed distance", _nearest(distance=lambda value, x: value - x),
                "the distance has a sign: take its absolute value"),
        Mistake("values", lambda ws, book: [book[i] for i in nearest_codes(ws, book)],
                "these are values of the code book: return their places"),
        Mistake("sorted only", _bisected,
                "works for ascending code books only: FP4's is not"),
        Mistake("place in sorted book", lambda ws, book: nearest_codes(ws, sorted(book)),
                "these are places in the sorted book: the order is part of it"),
    ),
))

# ---------------------------------------------------------------- 02.3 outlier_features

OUTLIER_STUB = '''\
def outlier_features(activations, threshold):
    """Which features LLM.int8 keeps in 16 bits: those in which any token reaches the threshold.

    activations: list of rows, one a token, each a list of float, one a feature. A value counts if |x| is at
    least `threshold`. Returns the places of these features, ascending, as a list of int.
    """
    raise NotImplementedError
'''


def draw_outliers(seed):
    """Tokens by features: some with one outlier, one with a negative one, one exactly at the threshold."""
    r = random.Random(seed)
    inputs = []
    for number in range(6):
        tokens, features = r.randint(4, 6), r.randint(8, 11)
        rows = [[round(r.gauss(0, 1), 3) for _ in range(features)] for _ in range(tokens)]
        places = r.sample(range(features), 5)
        rows[r.randrange(tokens)][places[0]] = 6.0 + r.random()
        rows[r.randrange(tokens)][places[1]] = -9.0 - r.random()
        rows[r.randrange(tokens)][places[2]] = r.choice((6.0, -6.0))
        for row in rows:
            row[places[3]] = r.choice((-1, 1)) * (7.5 + r.random())
            row[places[4]] = 20 + r.random()
        rows[r.randrange(tokens)][places[4]] = 0.4  # large on average, and not in every token
        inputs.append((rows, 6.0 if number < 4 else 5.5))
    return inputs


def _columns(reaches):
    def function(activations, threshold):
        columns = zip(*activations, strict=True)
        return [i for i, column in enumerate(columns) if reaches(column, threshold)]

    return function


outlier_features = _columns(lambda column, t: any(abs(x) >= t for x in column))


register(Exercise(
    id="02.3",
    title="Find the outlier features",
    points=2,
    difficulty=2,
    minutes=6,
    hint="`zip(*activations)` turns rows of tokens into columns of features.",
    stub=OUTLIER_STUB,
    draw=draw_outliers,
    reference=outlier_features,
    compare=exact,
    mistakes=(
        Mistake("rows", lambda rows, t: [i for i, row in enumerate(rows) if any(abs(x) >= t for x in row)],
                "these are tokens: a feature is a column"),
        Mistake("no abs", _columns(lambda column, t: any(x >= t for x in column)),
                "misses negative outliers: compare |x|"),
        Mistake("all tokens", _columns(lambda column, t: all(abs(x) >= t for x in column)),
                "asks all tokens: one is enough to spoil a scale"),
        Mistake("mean", _columns(lambda column, t: sum(map(abs, column)) / len(column) >= t),
                "takes the mean: one token is enough to spoil a scale"),
        Mistake("above", _columns(lambda column, t: any(abs(x) > t for x in column)),
                "a value equal to the threshold counts too: use >="),
        Mistake("flags", lambda rows, t: [any(abs(x) >= t for x in c) for c in zip(*rows, strict=True)],
                "these are flags: return the places of the features"),
        Mistake("ordinary ones", _columns(lambda column, t: not any(abs(x) >= t for x in column)),
                "these are the ordinary features: the others are wanted"),
    ),
))

# ---------------------------------------------------------------- 02.6 ternary

TERNARY_STUB = '''\
def ternary_codes(weights):
    """Codes -1, 0 and 1 as in BitNet b1.58: divide by the mean |w|, round, clip.

    weights: list of float, not all 0. Returns (codes, scale): a list of int, and the mean |w|, a float.
    """
    raise NotImplementedError
'''


def draw_ternary(seed):
    """Blocks with weights far beyond the mean |w|, near it and near 0, some far from 0 on average."""
    r = random.Random(seed)
    inputs = []
    for number in range(7):
        weights = draw_weights(r, 10, spread=r.choice((0.05, 0.3, 2.0)))
        weights[0] = 9 * max(weights)
        weights[1] = -7.3 * _largest(weights[2:])
        inputs.append(([w + 0.3 * (number > 4) for w in weights],))
    return inputs


def _mean_size(weights):
    return sum(abs(w) for w in weights) / len(weights)


def _three(scale_of, code=lambda x: max(-1, min(1, round(x)))):
    def function(weights):
        scale = scale_of(weights)
        return [code(w / scale) for w in weights], scale

    return function


ternary = _three(_mean_size)


register(Exercise(
    id="02.6",
    title="Three values",
    points=2,
    difficulty=1,
    minutes=5,
    hint="`max(-1, min(1, x))` clips. The scale is a mean of absolute values, over all weights.",
    stub=TERNARY_STUB,
    draw=draw_ternary,
    reference=ternary,
    compare=coded,
    mistakes=(
        Mistake("absmax", _three(_largest),
                "the scale is the largest |w|: nearly all codes become 0"),
        Mistake("mean of w", _three(lambda ws: sum(ws) / len(ws)),
                "the scale is the mean of w, where signs cancel: use |w|"),
        Mistake("not clipped", _three(_mean_size, round),
                "not clipped: codes beyond 1 are not ternary"),
        Mistake("signs", _three(_mean_size, lambda x: (x > 0) - (x < 0)),
                "takes the sign only: small weights must become 0"),
        Mistake("cut off", _three(_mean_size, lambda x: max(-1, min(1, int(x)))),
                "int() cuts off towards 0: round to the nearest"),
        Mistake("not whole", _three(_mean_size, lambda x: max(-1.0, min(1.0, x))),
                "clips without rounding: the codes are not -1, 0, 1"),
        Mistake("float codes", as_floats(ternary), FLOATS),
        Mistake("not scaled", lambda ws: ([max(-1, min(1, round(w))) for w in ws], _mean_size(ws)),
                "the weights are not divided by the scale before rounding"),
        Mistake("restored", lambda ws: ([q * ternary(ws)[1] for q in ternary(ws)[0]], ternary(ws)[1]),
                "these are restored weights: return the codes"),
    ),
))
