"""Exercises of lesson 07: bottlenecks, their start and their count, merging IA3, one adapter a row."""

import math
import random

from labkit.exercises.spec import Exercise, Mistake, close, exact, register


def _matrix(r, rows, columns, size=1.0):
    """Numbers that are never 0, as rows."""
    return [[round(r.gauss(0, size), 3) + 1e-4 for _ in range(columns)] for _ in range(rows)]


def _times(matrix, vector):
    return [sum(w * v for w, v in zip(row, vector, strict=True)) for row in matrix]


def _plus(*vectors):
    return [sum(each) for each in zip(*vectors, strict=True)]


# ---------------------------------------------------------------- 07.1 bottleneck_forward

FORWARD_STUB = '''\
def bottleneck_forward(x, W, D, d, U, u):
    """y + U gelu(D y + d) + u with y = W x, for one token.

    x: list of float. W: square, as o_proj is, D: (width, out), U: (out, width), each a list of rows.
    d: `width` floats, u: `out` floats. gelu(z) = z * (1 + math.erf(z / math.sqrt(2))) / 2. Returns a list of
    `out` floats.
    """
    raise NotImplementedError
'''


def draw_forward(seed):
    """Square layers, so that an adapter on the wrong side has the right shapes."""
    r = random.Random(seed)
    inputs = []
    for _ in range(5):
        out, width = r.randint(3, 5), r.randint(1, 2)
        inputs.append((_matrix(r, 1, out)[0], _matrix(r, out, out), _matrix(r, width, out),
                       _matrix(r, 1, width)[0], _matrix(r, out, width), _matrix(r, 1, out)[0]))  # fmt: skip
    return inputs


def _gelu(values):
    return [z * (1 + math.erf(z / math.sqrt(2))) / 2 for z in values]


def _same(values):
    return values


def _bottleneck(y, D, d, U, u, inner=_gelu, outer=_same):
    return outer(_plus(_times(U, inner(_plus(_times(D, y), d))), u))


def _forward(inner=_gelu, outer=_same, keep=1.0, down_bias=1.0, up_bias=1.0):
    """bottleneck_forward with one part done otherwise."""

    def function(x, W, D, d, U, u):
        y = _times(W, x)
        d, u = [down_bias * value for value in d], [up_bias * value for value in u]
        return _plus([keep * value for value in y], _bottleneck(y, D, d, U, u, inner, outer))

    return function


bottleneck_forward = _forward()


def _before(x, W, D, d, U, u):
    return _times(W, _plus(x, _bottleneck(x, D, d, U, u)))


def _beside(x, W, D, d, U, u):
    return _plus(_times(W, x), _bottleneck(x, D, d, U, u))


def _with_input(x, W, D, d, U, u):
    return _plus(x, bottleneck_forward(x, W, D, d, U, u))


def _d_late(x, W, D, d, U, u):
    y = _times(W, x)
    return _plus(y, _times(U, _plus(_gelu(_times(D, y)), d)), u)


def _instead(x, W, D, d, U, u):
    return _plus(x, _bottleneck(_times(W, x), D, d, U, u))


register(Exercise(
    id="07.1",
    title="The forward pass of a bottleneck",
    points=2,
    difficulty=2,
    minutes=8,
    hint="Compute y = W x first, then D y + d, then gelu of each number, then U times that; add y and u.",
    stub=FORWARD_STUB,
    draw=draw_forward,
    reference=bottleneck_forward,
    compare=close(1e-9, 1e-12),
    mistakes=(
        Mistake("no residual", _forward(keep=0.0), "the residual is forgotten: y + what the adapter gives"),
        Mistake("gelu after up", _forward(inner=_same, outer=_gelu),
                "gelu stands between D and U, not after U"),
        Mistake("gelu twice", _forward(outer=_gelu), "gelu stands between D and U only, not after U as well"),
        Mistake("no gelu", _forward(inner=_same),
                "gelu is missing: D and U alone are one matrix of low rank"),
        Mistake("gelu first", lambda x, W, D, d, U, u: _plus(_times(W, x),
                _bottleneck(_gelu(_times(W, x)), D, d, U, u, inner=_same)),
                "gelu stands between D and U, not before D"),
        Mistake("before W", _before, "the adapter comes after W: it takes y, and W does not see it"),
        Mistake("beside W", _beside, "this adapter takes x: it stands after W and takes y = W x"),
        Mistake("x as residual", _instead, "the residual here is y = W x, not x"),
        Mistake("x added", _with_input, "x is added too: the block does that, outside this layer"),
        Mistake("no biases", _forward(down_bias=0.0, up_bias=0.0), "both biases, d and u, are missing"),
        Mistake("no d", _forward(down_bias=0.0), "the bias d is missing"),
        Mistake("no u", _forward(up_bias=0.0), "the bias u is missing"),
        Mistake("d after gelu", _d_late, "d is added after gelu: gelu takes D y + d"),
        Mistake("relu", _forward(inner=lambda values: [max(0.0, z) for z in values]),
                "this is relu: take gelu as the docstring has it"),
    ),
))

# ---------------------------------------------------------------- 07.2 init_bottleneck

INIT_STUB = '''\
def init_bottleneck(noise, out, width):
    """Starting D (width, out), d (width,), U (out, width) and u (out,): step 0 changes nothing, U can learn.

    One of the two matrices takes its numbers from noise, a list of more floats than you need: in order, row
    by row, divided by the square root of its number of columns. All else starts at 0.0, d too, though any
    d would do. Returns a tuple (D, d, U, u), matrices as lists of rows of float.
    """
    raise NotImplementedError
'''


def draw_init(seed):
    """Wide and narrow bottlenecks; noise enough for all four parts, never near 0."""
    r = random.Random(seed)
    inputs = []
    for out, width in [(4, 2), (3, 1), (r.randint(5, 7), 3), (r.randint(4, 6), 2)]:
        enough = range(2 * out * width + out + width + 1)
        inputs.append(([r.choice((-1, 1)) * round(r.uniform(0.1, 1), 4) for _ in enough], out, width))
    return inputs


def _filled(noise, rows, columns, scale):
    return [[next(noise) / scale for _ in range(columns)] for _ in range(rows)]


def _zeros(rows, columns):
    return [[0.0] * columns for _ in range(rows)]


def _init(down=True, up=False, size=lambda columns, rows: math.sqrt(columns), d_drawn=0, u_drawn=0):
    """init_bottleneck with noise in other places, or scaled otherwise; biases times `d_drawn`, `u_drawn`."""

    def function(noise, out, width):
        values = iter(noise)
        D = _filled(values, width, out, size(out, width)) if down else _zeros(width, out)
        U = _filled(values, out, width, size(width, out)) if up else _zeros(out, width)
        d = [d_drawn * value for value in _filled(values, 1, width, size(out, width))[0]]
        u = [u_drawn * value for value in _filled(values, 1, out, size(width, out))[0]]
        return D, d, U, u

    return function


init_bottleneck = _init()


def _columns_first(noise, out, width):
    values = iter(noise)
    columns = _filled(values, out, width, math.sqrt(out))
    return [list(row) for row in zip(*columns, strict=True)], [0.0] * width, _zeros(out, width), [0.0] * out


def _matrices_first(noise, out, width):
    D, d, U, u = init_bottleneck(noise, out, width)
    return D, U, d, u


register(Exercise(
    id="07.2",
    title="A start that changes nothing",
    points=2,
    difficulty=2,
    minutes=8,
    hint="The gradient of U is a product with gelu(D y + d), that of D a product with U. Which may be zero?",
    stub=INIT_STUB,
    draw=draw_init,
    reference=init_bottleneck,
    compare=close(1e-9, 1e-12),
    mistakes=(
        Mistake("both zero", _init(down=False),
                "D and U are both zero: neither gets a gradient, only u does"),
        Mistake("neither zero", _init(up=True), "neither is zero: step 0 changes the outputs"),
        Mistake("U random", _init(down=False, up=True),
                "D is zero and U random: U's gradient is zero; turn it round"),
        Mistake("biases", _init(d_drawn=1, u_drawn=1), "u is not zero: step 0 changes the outputs"),
        Mistake("d random", _init(d_drawn=1), "d is random, as torch has it: here it starts at 0.0"),
        Mistake("order", _matrices_first, "right, but in another order: give (D, d, U, u)"),
        Mistake("not scaled", _init(size=lambda columns, rows: 1),
                "the noise is not divided by the square root of D's columns"),
        Mistake("no root", _init(size=lambda columns, rows: columns),
                "divides by the number of columns: take its square root"),
        Mistake("width", _init(size=lambda columns, rows: math.sqrt(rows)),
                "divides by the root of D's rows: its columns, `out`, count"),
        Mistake("by columns", _columns_first, "fills D column by column: row by row was asked for"),
    ),
))

# ---------------------------------------------------------------- 07.3 count_houlsby

COUNT_STUB = '''\
def count_houlsby(hidden, layers, width):
    """Weights trained by Houlsby's method in a Llama-like model.

    Each of the `layers` blocks has a bottleneck after attention and one after the MLP, each with D
    (width, hidden), U (hidden, width) and a bias for either. Trained too are the norms, each `hidden` weights
    and no bias: two a block, and one before the head. Returns an int.
    """
    raise NotImplementedError
'''


def draw_count(seed):
    """This course's base at its usual width, and others."""
    r = random.Random(seed)
    return [(576, 30, 64), *((64 * r.randint(2, 60), r.randint(4, 48), r.choice((2, 8, 16, 48, 128)))
                             for _ in range(4))]  # fmt: skip


def _count(places=2, up=1, down_bias=1, up_bias=1, norms=lambda layers: 2 * layers + 1, norm=1):
    """count_houlsby with one part counted otherwise; `norm`: parts of `hidden` weights in each norm."""

    def function(hidden, layers, width):
        one = hidden * width * (1 + up) + down_bias * width + up_bias * hidden
        return places * layers * one + norms(layers) * norm * hidden

    return function


count_houlsby = _count()

register(Exercise(
    id="07.3",
    title="Count a Houlsby model's trained weights",
    points=2,
    difficulty=2,
    minutes=6,
    hint="One bottleneck is 2 · hidden · width for the matrices and width + hidden for the biases.",
    stub=COUNT_STUB,
    draw=draw_count,
    reference=count_houlsby,
    compare=exact,
    mistakes=(
        Mistake("one a block", _count(places=1), "one adapter a block: there are two, attention and MLP"),
        Mistake("no biases", _count(down_bias=0, up_bias=0), "the biases are forgotten: width + hidden each"),
        Mistake("no biases, no norms", _count(down_bias=0, up_bias=0, norms=lambda layers: 0),
                "matrices alone: the biases and the norms are trained too"),
        Mistake("no bias down", _count(down_bias=0), "the bias of D is forgotten: `width` weights"),
        Mistake("no bias up", _count(up_bias=0), "the bias of U is forgotten: `hidden` weights"),
        Mistake("one matrix", _count(up=0), "counts one matrix of each bottleneck: there are D and U"),
        Mistake("no norms", _count(norms=lambda layers: 0), "the norms are trained too: 2 a block, and one"),
        Mistake("no last norm", _count(norms=lambda layers: 2 * layers),
                "one norm more stands before the head"),
        Mistake("three norms", _count(norms=lambda layers: 3 * layers),
                "three norms a block: the one before the head is there once"),
        Mistake("norm biases", _count(norm=2), "these norms have no bias: `hidden` weights each"),
        Mistake("one block", lambda hidden, layers, width: count_houlsby(hidden, 1, width),
                "this is one block: multiply with the number of layers"),
    ),
))

# ---------------------------------------------------------------- 07.4 merge_ia3

MERGE_STUB = '''\
def merge_ia3(W, b, scale, on_input):
    """W and b of a linear layer that gives what IA3 around it gave.

    W: (out, in), list of rows; b: list of `out` floats. IA3 gives W (scale * x) + b where on_input is True,
    and scale * (W x + b) where it is False, number by number. Returns a tuple (W, b) of new lists.
    """
    raise NotImplementedError
'''


def draw_merge(seed):
    """Square layers, where rows and columns can be taken for each other; both sides."""
    r = random.Random(seed)
    inputs = []
    for number in range(6):
        out = r.randint(2, 4)
        scale = [round(r.choice((-1, 1)) * r.uniform(0.3, 0.8) + (number % 3), 3) for _ in range(out)]
        inputs.append((_matrix(r, out, out), _matrix(r, 1, out)[0], scale, number % 2 == 0))
    return inputs


def _merge(power=1, swap=False, bias=lambda on_input: not on_input, side=lambda on_input: on_input,
           shift=0.0):  # fmt: skip
    """merge_ia3 with one part done otherwise."""

    def function(W, b, scale, on_input):
        scale = [(shift + value) ** power for value in scale]
        if side(on_input) != swap:
            rows = [[w * value for w, value in zip(row, scale, strict=True)] for row in W]
        else:
            rows = [[w * value for w in row] for row, value in zip(W, scale, strict=True)]
        return rows, [x * value for x, value in zip(b, scale, strict=True)] if bias(on_input) else list(b)

    return function


merge_ia3 = _merge()

register(Exercise(
    id="07.4",
    title="Merge IA3 into a layer",
    points=2,
    difficulty=2,
    minutes=8,
    hint="Write number i of the output as a sum over j. Which weights does each number of scale multiply?",
    stub=MERGE_STUB,
    draw=draw_merge,
    reference=merge_ia3,
    compare=close(1e-9, 1e-12),
    mistakes=(
        Mistake("all swapped", _merge(swap=True, bias=lambda on_input: on_input),
                "on_input is turned round: where it is True, x is scaled"),
        Mistake("swapped", _merge(swap=True),
                "rows and columns are swapped: inputs meet columns of W"),
        Mistake("always rows", _merge(side=lambda on_input: False),
                "on_input=True scales the columns of W, not its rows"),
        Mistake("always columns", _merge(side=lambda on_input: True),
                "on_input=False scales the rows of W, not its columns"),
        Mistake("bias forgotten", _merge(bias=lambda on_input: False),
                "on_input=False scales b too: it is part of the output"),
        Mistake("bias always", _merge(bias=lambda on_input: True),
                "on_input=True leaves b: it does not meet the input"),
        Mistake("bias turned", _merge(bias=lambda on_input: on_input),
                "b is scaled where the output is, not where the input is"),
        Mistake("squared", _merge(power=2), "the scale is in there twice: merge once"),
        Mistake("divided", _merge(power=-1), "divides by the scale: merging multiplies"),
        Mistake("plus one", _merge(shift=1.0), "1 + scale: IA3's scales start at 1 already"),
        Mistake("nothing", lambda W, b, scale, on_input: ([list(row) for row in W], list(b)),
                "W and b are as they were: the scale is not in them"),
    ),
))

# ---------------------------------------------------------------- 07.5 mixed_rows

BATCH_STUB = '''\
def mixed_rows(rows, W, scales, names):
    """Outputs of a linear layer for a batch in which each row uses an IA3 adapter of its own.

    rows: list of inputs x, each `in` floats. W: (out, in), a list of rows. scales: {name: list of `out`
    floats}. names: for each row the name of its adapter, or None for the base alone; some of `scales` may not
    be asked for. Row i is scale * (W x_i), number by number. Returns a list of outputs, in the rows' order.
    """
    raise NotImplementedError
'''


def draw_batch(seed):
    """Adapters in neither their own nor alphabetical order, one of them twice and one row without."""
    r = random.Random(seed)
    inputs = []
    for _ in range(4):
        inside = out = r.randint(2, 4)
        scales = {name: _matrix(r, 1, out)[0] for name in ("mo", "bo", "zoe", "al")}
        names = r.choice((["zoe", "bo", None, "mo", "bo"], ["bo", "zoe", None, "bo", "mo"],
                          ["zoe", None, "bo", "zoe", "mo"]))  # fmt: skip
        inputs.append((_matrix(r, len(names), inside), _matrix(r, out, inside), scales, names))
    return inputs


def _batch(taken, order=lambda names: range(len(names)), on_input=False, shift=0.0, alone=lambda x, y: y):
    """mixed_rows in which row i has the adapter `taken(i, names, scales)`, and rows come out in `order`.

    A row without an adapter gives `alone(x, W x)`.
    """

    def function(rows, W, scales, names):
        outputs = []
        for i, x in enumerate(rows):
            name = taken(i, names, list(scales))
            scale = [shift + value for value in scales.get(name, ())]
            if name is None:
                outputs.append(alone(x, _times(W, x)))
            elif on_input:
                outputs.append(_times(W, [a * b for a, b in zip(x, scale, strict=True)]))
            else:
                outputs.append([a * b for a, b in zip(_times(W, x), scale, strict=True)])
        return [outputs[i] for i in order(names)]

    return function


def _own(i, names, _):
    return names[i]


def _grouped(names):
    """Row numbers in the order of first appearance of their adapter."""
    return sorted(range(len(names)), key=lambda i: names.index(names[i]))


def _alphabetical(names):
    return sorted(range(len(names)), key=lambda i: names[i] or "")


def _asked(names):
    return [name for name in names if name is not None]


def _latest(i, names, _):
    return _asked(names[: i + 1])[-1]


def _mean(rows, W, scales, names):
    middle = [sum(each) / len(scales) for each in zip(*scales.values(), strict=True)]
    return mixed_rows(rows, W, {name: middle for name in scales}, ["mo"] * len(names))


mixed_rows = _batch(_own)

register(Exercise(
    id="07.5",
    title="Another adapter in each row",
    points=2,
    difficulty=2,
    minutes=8,
    hint="Go through rows and names together with `zip`. Without an adapter the scale is 1 everywhere.",
    stub=BATCH_STUB,
    draw=draw_batch,
    reference=mixed_rows,
    compare=close(1e-9, 1e-12),
    mistakes=(
        Mistake("one for all", _batch(lambda i, names, there: _asked(names)[0]),
                "the first row's adapter is used for all rows"),
        Mistake("last for all", _batch(lambda i, names, there: _asked(names)[-1]),
                "the last row's adapter is used for all rows"),
        Mistake("by place", _batch(lambda i, names, there: there[i % len(there)]),
                "takes adapters in the order of `scales`: ask `names`"),
        Mistake("reversed", _batch(lambda i, names, there: names[-1 - i]),
                "adapters are in reverse: row i uses names[i]"),
        Mistake("shifted", _batch(lambda i, names, there: names[i - 1]),
                "each row has its neighbour's adapter: row i uses names[i]"),
        Mistake("None takes the first", _batch(lambda i, names, there: names[i] or there[0]),
                "a row with None has no adapter: it gives W x"),
        Mistake("None keeps the last", _batch(_latest),
                "a row with None keeps the adapter of the row before it"),
        Mistake("None gives zeros", _batch(_own, alone=lambda x, y: [0.0] * len(y)),
                "a row with None gives zeros: without an adapter it is W x"),
        Mistake("None gives x", _batch(_own, alone=lambda x, y: x),
                "a row with None gives x: W is still there"),
        Mistake("plus one", _batch(_own, shift=1.0), "1 + scale: IA3's scales start at 1 already"),
        Mistake("grouped", _batch(_own, order=_grouped),
                "outputs are grouped by adapter: give them in the rows' order"),
        Mistake("sorted", _batch(_own, order=_alphabetical),
                "outputs are sorted by name: give them in the rows' order"),
        Mistake("None dropped", _batch(_own, order=lambda names: [i for i, name in enumerate(names) if name]),
                "rows with None are left out: they use the base alone"),
        Mistake("on the input", _batch(_own, on_input=True),
                "scales the input: here the output W x is scaled"),
        Mistake("base", _batch(lambda i, names, there: None), "no row is scaled: this is the base alone"),
        Mistake("mean", _mean, "a mean of all adapters: each row has one of its own"),
    ),
))
