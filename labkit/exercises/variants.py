"""The variants that ship with the course: hooks that draw constants, shapes or formats."""

import math

from labkit.exercises.lesson_01 import draw_cache
from labkit.exercises.lesson_04 import draw_rate
from labkit.exercises.lesson_05 import draw_count, draw_forward, times
from labkit.exercises.spec import Mistake
from labkit.exercises.vary import variant

# ---------------------------------------------------------------- 00.2 loss_labels

LABELS = '''\
def loss_labels(prompt_ids, answer_ids):
    """Labels for training on `prompt_ids + answer_ids`, with the loss on the later part of the answer.

    All answers begin with the same {first} tokens: these carry no loss either, as the prompt does not. A
    label is the token's own id where the loss is taken and {ignore} where it is not. An answer may have fewer
    than {first} tokens. Returns a list of int as long as both together.
    """
    raise NotImplementedError
'''


@variant("00.2")
def _labels(rng):
    ignore, first = rng.choice((-1, -7, -50, -999)), rng.choice((3, 4, 5))

    def labels(mark=ignore, skipped=first, cut=True):
        def function(prompt, answer):
            count = min(skipped, len(answer)) if cut else skipped
            return [mark] * (len(prompt) + count) + list(answer[skipped:])

        return function

    return {
        "stub": LABELS.format(first=first, ignore=ignore),
        "reference": labels(),
        "mistakes": (
            Mistake("mark", labels(mark=-100), f"positions without loss are marked {ignore} here"),
            Mistake("whole answer", labels(skipped=0), "the answer's first tokens carry no loss here"),
            Mistake("too long", labels(cut=False), "too long for an answer with fewer tokens"),
        ),
    }


# ---------------------------------------------------------------- 01.4 kv_cache_bytes

CACHE = '''\
def kv_cache_bytes(batch, tokens, layers, heads, kv_heads, head_dim, bytes_each):
    """Bytes of the KV cache of a model in which most layers forget.

    Layers {every}, {twice}, {thrice} and so on, counted from 1, keep the keys and values of every token seen;
    the others keep those of the last {window} tokens. `heads` query heads share `kv_heads` key and value
    heads of `head_dim` values of `bytes_each` bytes. Returns an int.
    """
    raise NotImplementedError
'''


@variant("01.4")
def _cache(rng):
    every, window = rng.choice((2, 3, 4, 5)), rng.choice((128, 256, 512, 1024))

    def cache(full=lambda layers: layers // every, short=min):
        def function(batch, tokens, layers, heads, kv_heads, head_dim, bytes_each):
            kept = full(layers) * tokens + (layers - full(layers)) * short(tokens, window)
            return 2 * batch * kept * kv_heads * head_dim * bytes_each

        return function

    def draw(seed):
        given = draw_cache(seed)
        brief = (given[0][0], 10 + given[0][1] % (window - 20), given[0][2] * every + 1, *given[0][3:])
        return [brief, *((a[0], a[1] + window, *a[2:]) for a in given[1:])]

    return {
        "stub": CACHE.format(every=every, twice=2 * every, thrice=3 * every, window=window),
        "draw": draw,
        "reference": cache(),
        "mistakes": (
            Mistake("all short", cache(full=lambda n: 0), "some layers keep every token"),
            Mistake("full window", cache(short=lambda t, w: w), "a text may be shorter than the window"),
            Mistake("from 0", cache(full=lambda n: -(-n // every)), "counts layers from 0: from 1 here"),
        ),
    }


# ---------------------------------------------------------------- 02.1 absmax_int8

ABSMAX = '''\
def absmax_int8(weights):
    """Codes and scale of a block of weights, the codes without a sign: 0 to {most}.

    Code {middle} stands for 0.0; the largest |w| becomes {most} or 0. weights: list of float. Returns (codes,
    scale): a list of int, and a float for which (code - {middle}) times scale gives a weight back, nearly. A
    block of zeros has codes {middle} and scale 0.0.
    """
    raise NotImplementedError
'''


@variant("02.1")
def _absmax(rng):
    middle = rng.choice((7, 15, 31, 50, 63, 100))

    def absmax(steps=middle, shift=middle, largest=lambda ws: max(map(abs, ws)), whole=round):
        def function(weights):
            if not any(weights):
                return [shift] * len(weights), 0.0
            scale = largest(weights) / steps
            return [whole(w / scale) + shift for w in weights], scale

        return function

    return {
        "stub": ABSMAX.format(middle=middle, most=2 * middle),
        "reference": absmax(),
        "mistakes": (
            Mistake("signed", absmax(shift=0), f"these codes have a sign: {middle} stands for 0.0"),
            Mistake("127", absmax(steps=127), f"the codes go up to {2 * middle} here"),
            Mistake("all codes", absmax(steps=2 * middle), f"the largest |w| lies {middle} codes from 0.0"),
            Mistake("no abs", absmax(largest=lambda ws: max(ws) if max(ws) > 0 else 1.0),
                    "takes the largest w: the largest |w| may be a negative weight"),
            Mistake("cut off", absmax(whole=int), "int() cuts off towards 0: round to the nearest code"),
        ),
    }  # fmt: skip


# ---------------------------------------------------------------- 04.2 learning_rate

RATE = '''\
def learning_rate(step, steps, ramp, peak):
    """The learning rate of a step: linear warm-up, a rest at the peak, linear decay to a part of it.

    step: from 0 to steps - 1; ramp: how many steps the warm-up has: the first step already has peak / ramp,
    the last step of the ramp has peak. Then {rest} more steps with peak. Then a straight line: peak at step
    ramp + {rest}, and {floor} times the peak would be at `steps`, one after the last. Returns a float.
    """
    raise NotImplementedError
'''


@variant("04.2")
def _rate(rng):
    rest, floor = rng.choice((2, 3, 4, 5)), rng.choice((0.05, 0.1, 0.2, 0.25))

    def rate(rest=rest, down=lambda share: 1 - (1 - floor) * share):
        def function(step, steps, ramp, peak):
            if step < ramp:
                return peak * (step + 1) / ramp
            after = max(0, step - ramp - rest)
            return peak * down(after / (steps - ramp - rest))

        return function

    def draw(seed):
        given = draw_rate(seed)
        later = [(g[2] + extra, *g[1:]) for g in given[::7] for extra in (rest, rest + 1)]
        return [*given, *later, (299, 300, *given[0][2:])]

    return {
        "stub": RATE.format(rest=rest, floor=floor),
        "draw": draw,
        "reference": rate(),
        "mistakes": (
            Mistake("no rest", rate(rest=0), "the decay begins too early: the peak rests first"),
            Mistake("to 0", rate(down=lambda share: 1 - share), f"decays to 0: {floor} of the peak remains"),
            Mistake("clipped", rate(down=lambda share: max(floor, 1 - share)),
                    "cut off at the floor: the line itself ends there"),
            Mistake("flat", rate(down=lambda share: 1.0), "this stays at the peak: the decay is missing"),
        ),
    }  # fmt: skip


# ---------------------------------------------------------------- 05.1 lora_forward

FORWARD = '''\
def lora_forward(x, W, A, B, alpha):
    """W x + {text} B A x, for one token, from matrices as they are stored here.

    x: list of `in` floats. W: (out, in). {shapes}
    Each is a list of rows, and r is the rank. Returns a list of `out` floats.
    """
    raise NotImplementedError
'''
SCALINGS = {
    "(alpha / sqrt(r))": lambda alpha, r: alpha / math.sqrt(r),
    "(2 alpha / r)": lambda alpha, r: 2 * alpha / r,
    "(alpha / (r + 1))": lambda alpha, r: alpha / (r + 1),
    "(alpha / r**2)": lambda alpha, r: alpha / r**2,
}


def turned(matrix):
    return [list(row) for row in zip(*matrix, strict=True)]


@variant("05.1")
def _forward(rng):
    text, stored = rng.choice(list(SCALINGS)), rng.choice(("A", "B", "AB"))
    shapes = [f"{n} is stored transposed: {s}." if n in stored else f"{n}: {u}."
              for n, s, u in (("A", "(in, r)", "(r, in)"), ("B", "(r, out)", "(out, r)"))]  # fmt: skip

    def forward(scaling=SCALINGS[text], base=1.0, change=1.0):
        def function(x, W, A, B, alpha):
            A, B = turned(A) if "A" in stored else A, turned(B) if "B" in stored else B
            s, added = change * scaling(alpha, len(A)), times(B, times(A, x))
            return [base * w + s * c for w, c in zip(times(W, x), added, strict=True)]

        return function

    def draw(seed):
        return [(x, W, turned(A) if "A" in stored else A, turned(B) if "B" in stored else B, alpha)
                for x, W, A, B, alpha in draw_forward(seed)]  # fmt: skip

    return {
        "stub": FORWARD.format(text=text, shapes=" ".join(shapes)),
        "draw": draw,
        "reference": forward(),
        "mistakes": (
            Mistake("alpha / r", forward(lambda alpha, r: alpha / r), f"here the factor is {text}"),
            Mistake("no scaling", forward(lambda alpha, r: 1.0), "the change is not scaled"),
            Mistake("change alone", forward(base=0.0), "this is the change alone: add W x"),
            Mistake("base alone", forward(change=0.0), "this is W x alone: add the change"),
        ),
    }


# ---------------------------------------------------------------- 05.3 count_lora

COUNT = '''\
def count_lora(hidden, layers, heads, kv_heads, head_dim, inter, vocab, r, targets):
    """Weights trained in a Llama-like model by LoRA with a bias, and with two ranks.

    targets: list of names among "q", "k", "v", "o", "gate", "up", "down", adapted in every layer with rank r,
    but "{one}" and "{two}" with rank {factor} r. Each adapted layer also trains a bias of its outputs. q goes
    from `hidden` to all `heads`, k and v from `hidden` to the `kv_heads`, each `head_dim` wide, o from all
    `heads` back; gate and up go from `hidden` to `inter`, down back. Returns an int.
    """
    raise NotImplementedError
'''


@variant("05.3")
def _count(rng):
    factor = rng.choice((2, 3, 4))
    one, two = rng.sample(("q", "k", "v", "o", "gate", "up", "down"), 2)

    def count(larger=(one, two), bias=lambda inside, out: out, per_layer=True):
        def function(hidden, layers, heads, kv_heads, head_dim, inter, vocab, r, targets):
            q, k = heads * head_dim, kv_heads * head_dim
            shapes = {"q": (hidden, q), "k": (hidden, k), "v": (hidden, k), "o": (q, hidden),
                      "gate": (hidden, inter), "up": (hidden, inter), "down": (inter, hidden)}  # fmt: skip
            total = 0
            for name in targets:
                total += r * (factor if name in larger else 1) * sum(shapes[name]) + bias(*shapes[name])
            return total * (layers if per_layer else 1)

        return function

    return {
        "stub": COUNT.format(one=one, two=two, factor=factor),
        "draw": draw_count,
        "reference": count(),
        "mistakes": (
            Mistake("one rank", count(larger=()), f'"{one}" and "{two}" have rank {factor} r here'),
            Mistake("one of two", count(larger=(one,)), f'"{two}" has rank {factor} r here, too'),
            Mistake("no bias", count(bias=lambda inside, out: 0), "each layer trains a bias here, too"),
            Mistake("bias of inputs", count(bias=lambda inside, out: inside), "a bias is as long as outputs"),
            Mistake("one layer", count(per_layer=False), "this is one layer: there are `layers`"),
        ),
    }
