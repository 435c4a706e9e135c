"""Exercises of lesson 05: LoRA's forward pass, start, size, scaling, merge; the nearest matrix of a rank."""

import math
import random

from labkit.exercises.spec import Exercise, Mistake, close, exact, register


def draw_matrix(r, rows, columns):
    """Rows of numbers that are not round, none of them 0."""
    return [[round(r.uniform(0.1, 2), 3) * r.choice((-1, 1)) for _ in range(columns)] for _ in range(rows)]


def draw_orthonormal(r, rows, columns):
    """Rows of length 1, each at right angles to the others (Gram-Schmidt); at most as many as columns."""
    found = []
    while len(found) < rows:
        row = [r.gauss(0, 1) for _ in range(columns)]
        for _ in range(2):  # once more, for what rounding left
            for other in found:
                along = sum(a * b for a, b in zip(row, other, strict=True))
                row = [a - along * b for a, b in zip(row, other, strict=True)]
        norm = math.sqrt(sum(a * a for a in row))
        if norm > 0.1:  # not nearly in the span of those before
            found.append([a / norm for a in row])
    return found


def times(matrix, x):
    """Matrix (rows, columns) times a list of numbers."""
    return [sum(w * value for w, value in zip(row, x, strict=True)) for row in matrix]


def product(left, right):
    """Matrix (n, k) times matrix (k, m)."""
    columns = list(zip(*right, strict=True))
    return [[sum(a * b for a, b in zip(row, column, strict=True)) for column in columns] for row in left]


def plus(one, other, factor=1.0):
    """one + factor * other, for matrices of one shape."""
    return [[a + factor * b for a, b in zip(*rows, strict=True)] for rows in zip(one, other, strict=True)]

# ---------------------------------------------------------------- 05.1 lora_forward

FORWARD_STUB = '''\
def lora_forward(x, W, A, B, alpha):
    """W x + (alpha / r) B A x, for one token.

    x: list of `in` floats. W: (out, in), A: (r, in), B: (out, r), each a list of rows. Returns a list of
    `out` floats.
    """
    raise NotImplementedError
'''


def draw_forward(seed):
    """Layers of several shapes and ranks; no rank is 1, and alpha is never r."""
    r = random.Random(seed)
    inputs = []
    for rank, inside, out in ((2, 4, 3), (2, 5, 6), (3, 4, 7), (3, 6, 5), (4, 7, 6)):
        shapes = ((out, inside), (rank, inside), (out, rank))
        alpha = r.choice([a for a in (1, 6, 8, 16, 32) if a != rank])
        inputs.append((draw_matrix(r, 1, inside)[0], *(draw_matrix(r, *shape) for shape in shapes), alpha))
    return inputs


def _forward(scaling=lambda alpha, A, B: alpha / len(A), base=1.0, both=False):
    """lora_forward with another factor; `base` is a factor of W x, and `both` scales W x too."""

    def function(x, W, A, B, alpha):
        s = scaling(alpha, A, B)
        change = times(B, times(A, x))
        return [(s if both else base) * w + s * c for w, c in zip(times(W, x), change, strict=True)]

    return function


lora_forward = _forward()

register(Exercise(
    id="05.1",
    title="The forward pass",
    points=2,
    difficulty=1,
    minutes=8,
    hint="A row times x is `sum(w * v for w, v in zip(row, x))`. A comes first, and has r rows.",
    stub=FORWARD_STUB,
    draw=draw_forward,
    reference=lora_forward,
    compare=close(1e-9, 1e-9),
    mistakes=(
        Mistake("no alpha / r", _forward(lambda alpha, A, B: 1.0),
                "the change is not scaled by alpha / r"),
        Mistake("alpha alone", _forward(lambda alpha, A, B: alpha),
                "the change is scaled by alpha: divide by r as well"),
        Mistake("r is out", _forward(lambda alpha, A, B: alpha / len(B)),
                "this divides by `out`: r is the number of rows of A"),
        Mistake("r is in", _forward(lambda alpha, A, B: alpha / len(A[0])),
                "this divides by `in`: r is the number of rows of A"),
        Mistake("root", _forward(lambda alpha, A, B: alpha / math.sqrt(len(A))),
                "this is rsLoRA's alpha / sqrt(r): here it is alpha / r"),
        Mistake("W scaled too", _forward(both=True),
                "W x is scaled too: alpha / r belongs to the change alone"),
        Mistake("change alone", _forward(base=0.0),
                "this is the change alone: add W x"),
        Mistake("base alone", lambda x, W, A, B, alpha: times(W, x),
                "this is W x alone: add the change"),
        Mistake("swapped", lambda x, W, A, B, alpha: lora_forward(x, W, B, A, alpha),
                "A and B are swapped: A takes x down to r numbers, B back up"),
    ),
))

# ---------------------------------------------------------------- 05.2 init_lora

INIT_STUB = '''\
def init_lora(noise, inside, out, r):
    """Starting A (r, inside) and B (out, r) of a LoRA layer: step 0 must change nothing, step 1 must learn.

    B starts at 0. A takes its numbers from noise, a list of more floats than you need, uniform between -1 and
    1: in order, row by row, divided by the square root of `inside`. Returns (A, B), each a list of rows of
    float.
    """
    raise NotImplementedError
'''


def draw_init(seed):
    """Layers of which `inside`, `out` and r all differ."""
    r = random.Random(seed)
    shapes = ((5, 3, 2), (4, 7, 3), (6, 5, 4), (9, 8, 2))
    return [([r.uniform(-1, 1) for _ in range(80)], *shape) for shape in shapes]


def _filled(numbers, rows, columns, divisor):
    return [[next(numbers) / divisor for _ in range(columns)] for _ in range(rows)]


def _zeros(rows, columns):
    return [[0.0] * columns for _ in range(rows)]


def init_lora(noise, inside, out, r):
    return _filled(iter(noise), r, inside, math.sqrt(inside)), _zeros(out, r)


def _both_filled(noise, inside, out, r):
    numbers = iter(noise)
    return _filled(numbers, r, inside, math.sqrt(inside)), _filled(numbers, out, r, math.sqrt(inside))


def _divided(divisor):
    return lambda noise, inside, out, r: (_filled(iter(noise), r, inside, divisor(inside, out, r)),
                                          _zeros(out, r))  # fmt: skip


register(Exercise(
    id="05.2",
    title="A start that changes nothing",
    points=2,
    difficulty=1,
    minutes=6,
    hint="B A must be 0 at first, and one of the two must not be 0, or neither gets a gradient.",
    stub=INIT_STUB,
    draw=draw_init,
    reference=init_lora,
    compare=close(1e-9, 1e-12),
    mistakes=(
        Mistake("B not zero", _both_filled,
                "B is not 0, so step 0 changes the output"),
        Mistake("both zero", lambda noise, inside, out, r: (_zeros(r, inside), _zeros(out, r)),
                "both are 0: then neither gets a gradient, ever"),
        Mistake("A zero", lambda noise, inside, out, r: (
                    _zeros(r, inside), _filled(iter(noise), out, r, math.sqrt(inside))),
                "A and B are exchanged: here, as in the paper, B starts at 0"),
        Mistake("not divided", _divided(lambda inside, out, r: 1.0),
                "the noise is not divided by the square root of `inside`"),
        Mistake("root of r", _divided(lambda inside, out, r: math.sqrt(r)),
                "divides by the root of r: it is the root of `inside`"),
        Mistake("root of out", _divided(lambda inside, out, r: math.sqrt(out)),
                "divides by the root of `out`: it is the root of `inside`"),
        Mistake("one row", lambda noise, inside, out, r: (
                    _filled(iter(noise), 1, inside, math.sqrt(inside)) * r, _zeros(out, r)),
                "all rows of A are the same: go on in the noise with each row"),
        Mistake("no root", _divided(lambda inside, out, r: inside),
                "divides by `inside`: take its square root"),
        Mistake("transposed", lambda noise, inside, out, r: (
                    _filled(iter(noise), inside, r, math.sqrt(inside)), _zeros(r, out)),
                "these are transposed: A is (r, inside), B is (out, r)"),
    ),
))  # fmt: skip

# ---------------------------------------------------------------- 05.3 count_lora

COUNT_STUB = '''\
def count_lora(hidden, layers, heads, kv_heads, head_dim, inter, vocab, r, targets):
    """Weights that LoRA of rank r trains in a Llama-like model.

    targets: list of names among "q", "k", "v", "o", "gate", "up", "down", adapted in every layer. q and o
    connect `hidden` with all `heads`, k and v `hidden` with the `kv_heads`, each `head_dim` wide; gate, up
    and down connect `hidden` with `inter`. Embedding and head (`vocab`) stay as they are. Returns an int.
    """
    raise NotImplementedError
'''
ALL = ["q", "k", "v", "o", "gate", "up", "down"]


def draw_count(seed):
    """Grouped-query models, all targets and some; head_dim times heads is never `hidden`."""
    r = random.Random(seed)
    inputs = []
    for targets in (ALL, ["q", "v"], ["q", "k", "v", "o"], ["gate", "up", "down"], ["v", "down"]):
        kv_heads, head_dim = r.choice((2, 3, 4)), r.choice((32, 64, 128))
        heads = kv_heads * r.choice((2, 3, 4))
        hidden = heads * head_dim + 16 * r.randint(1, 9)
        inputs.append((hidden, r.randint(2, 40), heads, kv_heads, head_dim, 16 * r.randint(40, 300),
                       1000 * r.randint(30, 90), r.choice((4, 8, 16)), list(targets)))  # fmt: skip
    return inputs


def _count(kv=lambda heads, kv_heads: kv_heads, size=lambda a, b, r: r * (a + b), per_layer=True, head=False,
           only=lambda targets: targets, divided=False, square=False):  # fmt: skip
    def function(hidden, layers, heads, kv_heads, head_dim, inter, vocab, r, targets):
        each = hidden // heads if divided else head_dim
        q, k = hidden if square else heads * each, kv(heads, kv_heads) * each
        wide = {"q": q, "k": k, "v": k, "o": q, "gate": inter, "up": inter, "down": inter}
        count = sum(size(hidden, wide[name], r) for name in only(targets))
        return count * (layers if per_layer else 1) + (size(hidden, vocab, r) if head else 0)

    return function


count_lora = _count()

register(Exercise(
    id="05.3",
    title="Count the trained weights",
    points=2,
    difficulty=2,
    minutes=8,
    hint="A layer from `a` numbers to `b` gets A with r · a weights and B with b · r. How wide are k and v?",
    stub=COUNT_STUB,
    draw=draw_count,
    reference=count_lora,
    compare=exact,
    mistakes=(
        Mistake("k and v as wide as q", _count(kv=lambda heads, kv_heads: heads),
                "k and v are as wide as q here: they have kv_heads only"),
        Mistake("heads divide hidden", _count(divided=True),
                "takes hidden // heads for head_dim: it is given, and may differ"),
        Mistake("q and o square", _count(square=True),
                "q and o are as wide as `hidden`: they have heads times head_dim"),
        Mistake("A alone", _count(size=lambda a, b, r: r * a),
                "counts r times `hidden` alone: each layer has an A and a B"),
        Mistake("B alone", _count(size=lambda a, b, r: r * b),
                "counts one of the two matrices: each layer has an A and a B"),
        Mistake("W", _count(size=lambda a, b, r: a * b),
                "these are the frozen weights: LoRA trains r (a + b)"),
        Mistake("no rank", _count(size=lambda a, b, r: a + b),
                "r is missing: A has r rows and B has r columns"),
        Mistake("squared", _count(size=lambda a, b, r: r * (a + b) + r * r),
                "there is no r x r matrix in between, only A and B"),
        Mistake("one layer", _count(per_layer=False),
                "this is one layer: multiply by the number of layers"),
        Mistake("head", _count(head=True),
                "counts an adapter on the head, which has none"),
        Mistake("all", _count(only=lambda targets: ALL),
                "counts every linear layer: only the targets have adapters"),
    ),
))

# ---------------------------------------------------------------- 05.4 truncate

TRUNCATE_STUB = '''\
def truncate(U, S, V, rank):
    """The matrix of this rank that is nearest to U diag(S) V.

    U: (out, k) and V: (k, in), lists of rows; S: list of k singular values, the largest first, as
    torch.linalg.svd gives them. rank: at most k. Returns a matrix (out, in), as a list of rows.
    """
    raise NotImplementedError
'''


def draw_truncate(seed):
    """Singular vectors and values of a few small matrices; the rank is smaller than k, and once it is k.

    The values lie apart, so that the nearest matrix is one and a decomposition anew finds it too.
    """
    r = random.Random(seed)
    inputs = []
    for out, inside, k, rank in ((4, 3, 3, 1), (5, 4, 4, 2), (3, 6, 3, 2), (4, 5, 4, 3), (4, 4, 3, 3)):
        steps = [round(r.uniform(0.4, 2.5), 3) for _ in range(k)]
        values = [sum(steps[i:]) for i in range(k)]
        left, right = draw_orthonormal(r, k, out), draw_orthonormal(r, k, inside)
        inputs.append(([list(row) for row in zip(*left, strict=True)], values, right, rank))
    return inputs


def _truncate(places=lambda k, rank: range(rank), weigh=lambda S, i: S[i]):
    def function(U, S, V, rank):
        kept = [i for i in places(len(S), rank) if i < len(S)]
        left = [[row[i] * weigh(S, i) for i in kept] for row in U]
        return product(left, [V[i] for i in kept])

    return function


register(Exercise(
    id="05.4",
    title="The nearest matrix of a rank",
    points=3,
    difficulty=2,
    minutes=10,
    hint="It is the sum over the first `rank` places i of S[i] times column i of U times row i of V.",
    stub=TRUNCATE_STUB,
    draw=draw_truncate,
    reference=_truncate(),
    compare=close(1e-4, 1e-4),  # room for a decomposition in fp32
    mistakes=(
        Mistake("smallest", _truncate(lambda k, rank: range(k - rank, k)),
                "keeps the smallest values: the largest come first in S"),
        Mistake("no values", _truncate(weigh=lambda S, i: 1.0),
                "the singular values are missing: multiply them back in"),
        Mistake("roots", _truncate(weigh=lambda S, i: math.sqrt(S[i])),
                "takes roots of the singular values: multiply them in as they are"),
        Mistake("squared", _truncate(weigh=lambda S, i: S[i] ** 2),
                "the singular values are squared: multiply them in once"),
        Mistake("normalised", _truncate(weigh=lambda S, i: S[i] / sum(S)),
                "the values are divided by their sum: keep them as they are"),
        Mistake("all of it", _truncate(lambda k, rank: range(k)),
                "this is the whole matrix: keep the first `rank` places only"),
        Mistake("one too many", _truncate(lambda k, rank: range(rank + 1)),
                "one place too many: rank 1 keeps one"),
        Mistake("one too few", _truncate(lambda k, rank: range(rank - 1) if rank > 1 else range(1, 2)),
                "one place too few, or begins at 1: begin at 0"),
        Mistake("one place", _truncate(lambda k, rank: range(rank - 1, rank)),
                "this is one place of them: add up all up to `rank`"),
    ),
))

# ---------------------------------------------------------------- 05.5 same_scaling

SCALING_STUB = '''\
def same_scaling(alpha, r, new_r, rslora):
    """The alpha that keeps the scaling of the change when the rank goes from r to new_r.

    The scaling is alpha / r, or alpha / sqrt(r) with rslora=True. Returns a float.
    """
    raise NotImplementedError
'''


def draw_scaling(seed):
    """Ranks that grow and that shrink, with and without rsLoRA."""
    r = random.Random(seed)
    ranks = [1, 2, 4, 8, 16, 32, 64, 128]
    return [(r.choice((3, 10, 24, 48)), *r.sample(ranks, 2), n % 2 == 0) for n in range(8)]


def _scaling(plain, root):
    return lambda alpha, r, new_r, rslora: (root if rslora else plain)(alpha, r, new_r)


def _plain(alpha, r, new_r):
    return alpha * new_r / r


def _root(alpha, r, new_r):
    return alpha * math.sqrt(new_r / r)


same_scaling = _scaling(_plain, _root)

register(Exercise(
    id="05.5",
    title="Keep the scaling",
    points=2,
    difficulty=1,
    minutes=4,
    hint="Write alpha / r = new_alpha / new_r and solve it for new_alpha. Then the same with square roots.",
    stub=SCALING_STUB,
    draw=draw_scaling,
    reference=same_scaling,
    compare=close(1e-9, 1e-12),
    mistakes=(
        Mistake("same alpha", lambda alpha, r, new_r, rslora: float(alpha),
                "alpha stays: then the scaling changes with the rank"),
        Mistake("upside down", lambda alpha, r, new_r, rslora: same_scaling(alpha, new_r, r, rslora),
                "upside down: a larger rank divides more, so alpha must grow"),
        Mistake("plain always", _scaling(_plain, _plain),
                "rslora is ignored: there alpha grows with sqrt(r)"),
        Mistake("root always", _scaling(_root, _root),
                "takes the square root without rslora too"),
        Mistake("exchanged", _scaling(_root, _plain),
                "the two cases are exchanged: rsLoRA has the square root"),
        Mistake("scaling", _scaling(lambda alpha, r, new_r: alpha / r, lambda a, r, new_r: a / math.sqrt(r)),
                "this is the scaling itself: return the new alpha"),
    ),
))  # fmt: skip

# ---------------------------------------------------------------- 05.6 merge

MERGE_STUB = '''\
def merge(layer):
    """The layer with its change inside W, and a merged layer as it is.

    layer: a dict with "W" (out, in), "A" (r, in), "B" (out, r), each a list of rows, "alpha", "dropout" (the
    share of inputs of A that training drops) and "merged" (bool). Returns a new dict with the same keys:
    W + (alpha / r) B A and merged True; A, B, alpha and dropout unchanged. Do not change `layer` itself.
    """
    raise NotImplementedError
'''


def draw_merge(seed):
    """Layers of several shapes, two of them merged already."""
    r = random.Random(seed)
    inputs = []
    for number, (rank, inside, out) in enumerate(((2, 4, 3), (3, 5, 4), (2, 3, 5), (3, 4, 6), (2, 5, 3))):
        shapes = {"W": (out, inside), "A": (rank, inside), "B": (out, rank)}
        layer = {name: draw_matrix(r, *shape) for name, shape in shapes.items()}
        layer |= {"alpha": r.choice((5, 8, 16)), "dropout": r.choice((0.05, 0.1)), "merged": number in (1, 3)}
        inputs.append((layer,))
    return inputs


def _merge(scaling=lambda layer: layer["alpha"] / len(layer["A"]), twice=False, flag=True, keep=1.0):
    def function(layer):
        if layer["merged"] and not twice:
            return dict(layer)
        W = [[keep * w for w in row] for row in layer["W"]]
        return {**layer, "W": plus(W, product(layer["B"], layer["A"]), scaling(layer)), "merged": flag}

    return function


lora_merge = _merge()


def _rate(layer):
    return layer["alpha"] / len(layer["A"])


register(Exercise(
    id="05.6",
    title="Merge",
    points=3,
    difficulty=2,
    minutes=10,
    hint="Look at `merged` first. Entry (i, j) of B A is the sum over k of B[i][k] · A[k][j].",
    stub=MERGE_STUB,
    draw=draw_merge,
    reference=lora_merge,
    compare=close(1e-9, 1e-9),
    mistakes=(
        Mistake("twice", _merge(twice=True),
                "merges a merged layer again, which adds the change twice"),
        Mistake("no scaling", _merge(lambda layer: 1.0),
                "the change is added without alpha / r"),
        Mistake("alpha alone", _merge(lambda layer: layer["alpha"]),
                "the change is scaled by alpha: divide by r as well"),
        Mistake("root", _merge(lambda layer: layer["alpha"] / math.sqrt(len(layer["A"]))),
                "this is rsLoRA's alpha / sqrt(r): here it is alpha / r"),
        Mistake("r is out", _merge(lambda layer: layer["alpha"] / len(layer["B"])),
                "this divides by `out`: r is the number of rows of A"),
        Mistake("dropout left on", _merge(lambda layer: _rate(layer) * (1 - layer["dropout"])),
                "scales by 1 - dropout: outside training nothing is dropped"),
        Mistake("dropout made up for", _merge(lambda layer: _rate(layer) / (1 - layer["dropout"])),
                "divides by 1 - dropout: outside training nothing is dropped"),
        Mistake("flag forgotten", _merge(flag=False),
                "W is right, but `merged` is still False: it would merge again"),
        Mistake("W replaced", _merge(keep=0.0),
                "W is replaced by the change: add them"),
        Mistake("subtracted", _merge(lambda layer: -_rate(layer)),
                "the change is subtracted: that unmerges"),
        Mistake("nothing", lambda layer: dict(layer),
                "nothing is merged: W is as it was"),
    ),
))
