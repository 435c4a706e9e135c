"""Exercises of lesson 10: averages, task arithmetic, SLERP, TIES, DARE, and the share of a skill kept."""

import math
import random

from labkit.exercises.spec import Exercise, Mistake, close, register


def _vector(r, size, spread=1.0):
    """Numbers that are never 0."""
    return [round(r.choice((-1, 1)) * r.uniform(0.1, 1) * spread, 4) + 1e-5 * i for i in range(size)]


def _models(r, count):
    """States of one model: {name: list of float}, tensors of unlike sizes."""
    sizes = {"layer.0": r.randint(2, 4), "layer.1": r.randint(2, 4), "norm": 1}
    return [{name: _vector(r, size) for name, size in sizes.items()} for _ in range(count)]


def _combined(states, function):
    """{name: [function of that entry in each state]}."""
    return {name: [function(entries) for entries in zip(*(one[name] for one in states), strict=True)]
            for name in states[0]}  # fmt: skip


# ---------------------------------------------------------------- 10.1 average

AVERAGE_STUB = '''\
def average(models, weights):
    """The weighted average of finetunes of one base.

    models: list of {name: list of float}, all with the same names and lengths. weights: a positive number
    for each model; they need not add up to 1, so divide by what they add up to. Returns a new
    {name: list of float}.
    """
    raise NotImplementedError
'''


def draw_average(seed):
    """Weights that do not add up to 1, and sometimes do."""
    r = random.Random(seed)
    inputs = [(_models(r, 2), [0.25, 0.75])]
    for count in (2, 3, 4):
        inputs.append((_models(r, count), [r.randint(1, 9) + i / 4 for i in range(count)]))
    return inputs


def _average(weigh=lambda weights: weights, over=lambda weights: sum(weights), power=1):
    """average with weights changed by `weigh`, and another divisor."""

    def function(models, weights):
        used, total = weigh(weights), over(weights)
        return _combined(models, lambda entries: sum(w * x**power for w, x in
                                                     zip(used, entries, strict=True)) / total)  # fmt: skip

    return function


average = _average()


def _first_tensor(models, weights):
    whole = average(models, weights)
    return {name: whole[name] if place == 0 else list(models[0][name]) for place, name in enumerate(whole)}


register(Exercise(
    id="10.1",
    title="Average models",
    points=2,
    difficulty=1,
    minutes=5,
    hint="For each name, and each place: the sum of weight · entry over the models, over the sum of weights.",
    stub=AVERAGE_STUB,
    draw=draw_average,
    reference=average,
    compare=close(1e-9, 1e-12),
    mistakes=(
        Mistake("not normalised", _average(over=lambda weights: 1),
                "the weights do not add up to 1: divide by their sum"),
        Mistake("by count", _average(over=len), "divides by the number of models: take the weights' sum"),
        Mistake("equal weights", _average(weigh=lambda weights: [1] * len(weights), over=len),
                "this is the plain mean: the weights are not used"),
        Mistake("turned round", _average(weigh=lambda weights: weights[::-1]),
                "weights are in reverse: the first belongs to the first model"),
        Mistake("largest alone", lambda models, weights: dict(models[weights.index(max(weights))]),
                "the model with the largest weight alone is no average"),
        Mistake("first tensor", _first_tensor, "only the first tensor is averaged: take every name"),
        Mistake("squares", _average(weigh=lambda weights: [w * w for w in weights]),
                "weights are squared above, and not below the line"),
    ),
))

# ---------------------------------------------------------------- 10.2 task_arithmetic

ARITHMETIC_STUB = '''\
def task_arithmetic(base, models, scales):
    """The base plus, for each finetune, its scale times its delta, model - base.

    base: {name: list of float}; models: list of the same; scales: a number for each model, below 0 to take
    a skill away. Returns a new {name: list of float}.
    """
    raise NotImplementedError
'''


def draw_arithmetic(seed):
    """One to three finetunes near the base, some scales negative."""
    r = random.Random(seed)
    inputs = []
    for scales in ([1.0], [-1.0], [0.5, 0.8], [0.7, -0.4], [0.3, 0.9, -0.6]):
        base, *moves = _models(r, 1 + len(scales))
        models = [_combined([base, move], lambda pair: pair[0] + 0.3 * pair[1]) for move in moves]
        inputs.append((base, models, scales))
    return inputs


def _arithmetic(part=lambda model, base: model - base, start=1.0, scale=lambda scales: scales):
    """task_arithmetic with another part of each model, of the base, or other scales."""

    def function(base, models, scales):
        return _combined([base, *models], lambda entries: start * entries[0] + sum(
            s * part(x, entries[0]) for s, x in zip(scale(scales), entries[1:], strict=True)))

    return function


task_arithmetic = _arithmetic()

register(Exercise(
    id="10.2",
    title="Task arithmetic",
    points=2,
    difficulty=2,
    minutes=6,
    hint="Subtract the base from each model first; a scale of -1 then goes as far from the base, backwards.",
    stub=ARITHMETIC_STUB,
    draw=draw_arithmetic,
    reference=task_arithmetic,
    compare=close(1e-9, 1e-12),
    mistakes=(
        Mistake("weights", _arithmetic(part=lambda model, base: model),
                "scales the finetunes' weights: scale the deltas, model - base"),
        Mistake("no base", _arithmetic(start=0.0), "the base is forgotten: the deltas are added to it"),
        Mistake("turned", _arithmetic(part=lambda model, base: base - model),
                "the delta is turned round: it is model - base"),
        Mistake("sizes of scales", _arithmetic(scale=lambda scales: [abs(s) for s in scales]),
                "negative scales are lost: they take a skill away"),
        Mistake("no negatives", _arithmetic(scale=lambda scales: [max(0.0, s) for s in scales]),
                "negative scales became 0: they take a skill away"),
        Mistake("mean", _arithmetic(scale=lambda scales: [s / len(scales) for s in scales]),
                "divides by the number of models: deltas are added up"),
        Mistake("normalised", _arithmetic(scale=lambda scales: [s / sum(scales) for s in scales]),
                "divides by the sum of scales: they need not add up to 1"),
        Mistake("unscaled", _arithmetic(scale=lambda scales: [1.0] * len(scales)), "the scales are not used"),
        Mistake("weights summed", _arithmetic(part=lambda model, base: model, start=0.0),
                "this is a weighted sum of models: no base, no deltas"),
        Mistake("scaled too often", _arithmetic(scale=lambda scales: [sum(scales)] * len(scales)),
                "every delta is scaled by the sum of scales: each has its own"),
    ),
))

# ---------------------------------------------------------------- 10.3 slerp

SLERP_STUB = '''\
def slerp(a, b, t):
    """From vector a (t = 0) to vector b (t = 1) along an arc: (sin((1 - t) v) a + sin(t v) b) / sin(v).

    v is the angle between a and b, in radians: the cosine is their product over their lengths. Where the size
    of that cosine is above 0.9995, one way or opposite ways, mix linearly: (1 - t) a + t b. a, b: lists of
    float of any length. Returns a new list.
    """
    raise NotImplementedError
'''


def draw_slerp(seed):
    """Long and short vectors, right angles, wide ones, nearly parallel ones, and nearly opposite ones."""
    r = random.Random(seed)
    inputs = [([1.0, 0.0], [0.0, 1.0], 0.5), ([3.0, 0.0, 0.4], [0.2, 0.5, -2.0], 0.25)]
    for spread in (0.3, 1.0, 4.0):
        size = r.randint(3, 5)
        inputs.append((_vector(r, size, spread), _vector(r, size), r.choice((0.2, 0.35, 0.7))))
    a = _vector(r, 4, 2.0)
    b = [1.5 * x + 0.01 * place for place, x in enumerate(a)]
    c = [-0.5 * x + 0.001 * place for place, x in enumerate(a)]
    return [*inputs, (a, b, 0.3), (a, c, 0.4)]


def _dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def _unit(a):
    length = math.sqrt(_dot(a, a))
    return [x / length for x in a]


def _cosine(a, b):
    return _dot(_unit(a), _unit(b))


def _slerp(cosine=_cosine, parallel=0.9995, shares=lambda t: (1 - t, t), bend=math.sin, over=True,
           ends=lambda a: a, size=abs):  # fmt: skip
    """slerp with one part done otherwise."""

    def function(a, b, t):
        a, b, (first, second) = ends(a), ends(b), shares(t)
        found = max(-1.0, min(1.0, cosine(a, b)))
        if size(found) <= parallel:
            angle = math.acos(found)
            below = math.sin(angle) if over else 1.0
            first, second = bend(first * angle) / below, bend(second * angle) / below
        return [first * x + second * y for x, y in zip(a, b, strict=True)]

    return function


slerp = _slerp()

register(Exercise(
    id="10.3",
    title="SLERP",
    points=2,
    difficulty=2,
    minutes=8,
    hint="The angle comes from the directions alone, a · b / (‖a‖ ‖b‖); the sum takes a and b as they are.",
    stub=SLERP_STUB,
    draw=draw_slerp,
    reference=slerp,
    compare=close(1e-7, 1e-9),
    mistakes=(
        Mistake("linear", _slerp(parallel=-1.1), "this is the straight line: the arc takes sines"),
        Mistake("unnormalised", _slerp(cosine=_dot),
                "the angle is of unnormalised vectors: divide by their lengths"),
        Mistake("one length", _slerp(cosine=lambda a, b: _dot(_unit(a), b)),
                "the product is divided by one length: divide by both"),
        Mistake("wrong end", _slerp(shares=lambda t: (t, 1 - t)), "t is turned round: t = 0 is a, 1 is b"),
        Mistake("unit vectors", _slerp(ends=_unit), "a and b lost their lengths: only the angle is without"),
        Mistake("never linear", _slerp(parallel=1.0),
                "beyond 0.9995 the mix is linear: mergekit's convention"),
        Mistake("never linear backwards", _slerp(size=lambda cosine: cosine),
                "nearly opposite vectors are mixed linearly, too: take abs"),
        Mistake("not divided", _slerp(over=False), "the sines are not divided by sin of the whole angle"),
        Mistake("cosines", _slerp(bend=math.cos), "takes cosines of the parts of the angle: take sines"),
        Mistake("t twice", _slerp(shares=lambda t: (t, t)), "both parts are t: that of a is 1 - t"),
    ),
))

# ---------------------------------------------------------------- 10.4 ties

TIES_STUB = '''\
def ties(base, deltas, density, scale):
    """TIES: base + scale * merged, for one tensor as a flat list.

    Trim: in each delta keep the int(density * length) entries that are largest in size; the others become 0.
    Elect: for each place the sign of the sum of trimmed deltas. Merge: for each place the mean of those
    trimmed entries that have that sign, 0 where none has. base: list of float; deltas: list of such lists.
    Returns a list of float.
    """
    raise NotImplementedError
'''


def draw_ties(seed):
    """Three deltas or more, in which places conflict and a minority, or one entry, may be the larger."""
    r = random.Random(seed)
    inputs = [([1.0, 1.0, 1.0, 1.0], [[0.9, 0.5, 0.1, 0.03], [-0.3, -0.28, 0.02, 0.31],
                                      [-0.4, -0.29, 0.6, 0.01]], 0.55, 1.0),
              ([0.5, 0.5, 0.5, 0.5], [[0.9, 0.8, 0.1, 0.02], [-0.5, -0.1, 0.6, 0.05],
                                      [-0.6, 0.05, 0.7, 0.1]], 0.7, 0.8)]  # fmt: skip
    for density, scale, size in ((0.5, 0.7, r.randint(8, 10)), (0.75, 1.0, 9), (0.4, 1.3, 8)):
        deltas = [_vector(r, size) for _ in range(r.randint(3, 4))]
        inputs.append((_vector(r, size, 2.0), deltas, density, scale))
    return inputs


def _trim(delta, count, size=abs, most=True):
    kept = set(sorted(range(len(delta)), key=lambda place: size(delta[place]), reverse=most)[:count])
    return [value if place in kept else 0.0 for place, value in enumerate(delta)]


def _trimmed(deltas, density, whole=int):
    return [_trim(delta, whole(density * len(delta))) for delta in deltas]


def _together(deltas, density):
    """Trimmed all at once: the largest of all entries are kept, wherever they are."""
    flat = [value for delta in deltas for value in delta]
    flat = _trim(flat, int(density * len(flat)))
    size = len(deltas[0])
    return [flat[start : start + size] for start in range(0, len(flat), size)]


def _mean(entries):
    return sum(entries) / len(entries) if entries else 0.0


def _by_sum(entries):
    return 1 if sum(entries) >= 0 else -1


def _by_largest(entries):
    return 1 if max(entries, key=abs) >= 0 else -1


def _by_count(entries):
    return 1 if sum((x > 0) - (x < 0) for x in entries) >= 0 else -1


def _ties(trim=_trimmed, sign=_by_sum, merge=_mean, elect_from=None, start=1.0, scaled=lambda scale: scale,
          agrees=lambda x, sign: x * sign > 0):  # fmt: skip
    """ties with one part done otherwise; `elect_from` makes of the deltas what the election sees."""

    def function(base, deltas, density, scale):
        trimmed = trim(deltas, density)
        seen = elect_from(deltas) if elect_from else trimmed
        merged = []
        for votes, entries in zip(zip(*seen, strict=True), zip(*trimmed, strict=True), strict=True):
            merged.append(merge([x for x in entries if agrees(x, sign(votes))]))
        return [start * b + scaled(scale) * m for b, m in zip(base, merged, strict=True)]

    return function


def _without_election(merge):
    def function(base, deltas, density, scale):
        merged = [merge(entries) for entries in zip(*_trimmed(deltas, density), strict=True)]
        return [b + scale * m for b, m in zip(base, merged, strict=True)]

    return function


def _over_all(base, deltas, density, scale):
    """The agreeing entries, but divided by the number of deltas."""
    return _ties(merge=lambda entries: sum(entries) / len(deltas))(base, deltas, density, scale)


ties = _ties()

register(Exercise(
    id="10.4",
    title="TIES",
    points=3,
    difficulty=4,
    minutes=15,
    hint="`sorted(range(n), key=lambda i: abs(delta[i]), reverse=True)[:k]` are the places to keep.",
    stub=TIES_STUB,
    draw=draw_ties,
    reference=ties,
    compare=close(1e-9, 1e-12),
    mistakes=(
        Mistake("no election", _without_election(lambda entries: _mean([x for x in entries if x])),
                "no sign is elected: entries that disagree cancel"),
        Mistake("plain mean", _without_election(_mean),
                "a mean of all trimmed deltas: average those that agree in sign"),
        Mistake("mean over all", _over_all, "divides by all deltas: only those that agree count"),
        Mistake("sum", _ties(merge=sum), "adds up the entries that agree: take their mean"),
        Mistake("by value", _ties(trim=lambda deltas, density: [_trim(d, int(density * len(d)), lambda x: x)
                                                                for d in deltas]),
                "trims by value: take abs, as large negative ones are large"),
        Mistake("no trimming", _ties(trim=lambda deltas, density: deltas), "nothing is trimmed"),
        Mistake("smallest", _ties(trim=lambda deltas, density: [_trim(d, int(density * len(d)), most=False)
                                                                for d in deltas]),
                "keeps the smallest entries: keep the largest"),
        Mistake("drops density", _ties(trim=lambda deltas, density: [
                    _trim(d, len(d) - int(density * len(d))) for d in deltas]),
                "drops a share `density`: that share is kept"),
        Mistake("trimmed together", _ties(trim=_together),
                "trims all deltas as one: each keeps its own largest entries"),
        Mistake("by count", _ties(sign=_by_count),
                "elects by the number of models: the sign of the sum decides"),
        Mistake("by largest", _ties(sign=_by_largest),
                "elects the largest entry's sign: the sign of the sum decides"),
        Mistake("rounded", _ties(trim=lambda deltas, density: _trimmed(deltas, density, round)),
                "rounds the number of entries to keep: int cuts it off"),
        Mistake("rounded up", _ties(trim=lambda deltas, density: _trimmed(deltas, density, math.ceil)),
                "rounds the number of entries to keep up: int cuts it off"),
        Mistake("zeros agree", _ties(agrees=lambda x, sign: x * sign >= 0),
                "trimmed zeros count as agreeing: the mean leaves them out"),
        Mistake("elected before", _ties(elect_from=lambda deltas: deltas),
                "elects before trimming: small entries have no vote"),
        Mistake("no base", _ties(start=0.0), "the base is forgotten: the merged delta is added to it"),
        Mistake("no scale", _ties(scaled=lambda scale: 1.0), "`scale` is not used"),
    ),
))

# ---------------------------------------------------------------- 10.5 dare

DARE_STUB = '''\
def dare(base, model, drop, noise):
    """The base plus a model's delta after DARE: entries dropped at random, the others rescaled.

    All but drop are lists of float of one length. Entry i of the delta, model - base, is dropped where
    noise[i] < drop; noise is uniform from 0 to 1. What is left is divided so that the delta's expected value
    stays. Returns a list of float.
    """
    raise NotImplementedError
'''


def draw_dare(seed):
    """Drop rates other than 1/2, where dividing by p and by 1 - p are the same; 0, too."""
    r = random.Random(seed)
    inputs = []
    for drop in (0.0, 0.25, 0.6, 0.8):
        size = r.randint(7, 10)
        base, noise = _vector(r, size, 2.0), [round(r.random(), 4) for _ in range(size)]
        noise[0], noise[1] = drop / 2 - 1e-6 * (not drop), (1 + drop) / 2  # at least one kept, one dropped
        model = [b + d for b, d in zip(base, _vector(r, size, 0.4), strict=True)]
        inputs.append((base, model, drop, noise))
    return inputs[1:] + inputs[:1]


def _dare(factor=lambda drop, kept: 1 / (1 - drop), keep=lambda noise, drop: noise >= drop, start=1.0,
          part=lambda model, base: model - base):  # fmt: skip
    """dare with one part done otherwise; `kept` is the share that chance left."""

    def function(base, model, drop, noise):
        mask = [keep(value, drop) for value in noise]
        by = factor(drop, sum(mask) / len(mask))
        return [start * b + by * part(m, b) * k for b, m, k in zip(base, model, mask, strict=True)]

    return function


dare = _dare()


def _dropped_weights(base, model, drop, noise):
    return [m / (1 - drop) if value >= drop else 0.0 for m, value in zip(model, noise, strict=True)]


def _by_l1(base, model, drop, noise):
    """mergekit's rescaling."""
    deltas = [m - b for b, m in zip(base, model, strict=True)]
    left = [d if value >= drop else 0.0 for d, value in zip(deltas, noise, strict=True)]
    by = sum(map(abs, deltas)) / sum(map(abs, left))
    return [b + by * d for b, d in zip(base, left, strict=True)]


def _by_size(base, model, drop, noise):
    deltas = sorted((abs(m - b) for b, m in zip(base, model, strict=True)), reverse=True)
    least = deltas[max(0, int((1 - drop) * len(deltas)) - 1)]
    return [b + (m - b) / (1 - drop) * (abs(m - b) >= least) for b, m in zip(base, model, strict=True)]


register(Exercise(
    id="10.5",
    title="DARE",
    points=2,
    difficulty=2,
    minutes=8,
    hint="An entry is left at chance 1 - drop. By what must it be divided, to count once on average?",
    stub=DARE_STUB,
    draw=draw_dare,
    reference=dare,
    compare=close(1e-9, 1e-12),
    mistakes=(
        Mistake("not rescaled", _dare(factor=lambda drop, kept: 1.0),
                "not rescaled: the delta is smaller on average"),
        Mistake("by p", _dare(factor=lambda drop, kept: 1 / drop if drop else 1.0),
                "divides by the drop rate: divide by the share that is left"),
        Mistake("multiplied", _dare(factor=lambda drop, kept: 1 - drop),
                "multiplies by 1 - drop: divide, to make up for what is gone"),
        Mistake("actual share", _dare(factor=lambda drop, kept: 1 / kept if kept else 1.0),
                "divides by the share that chance left: divide by 1 - drop"),
        Mistake("L1", _by_l1, "keeps the sum of sizes, as mergekit does: divide by 1 - drop"),
        Mistake("weights", _dropped_weights, "drops the model's weights: drop entries of the delta"),
        Mistake("no base", _dare(start=0.0), "the base is forgotten: the delta is added to it"),
        Mistake("mask turned", _dare(keep=lambda noise, drop: noise < drop),
                "keeps what should be dropped: noise below drop means gone"),
        Mistake("by size", _by_size, "drops the smallest entries: that is trimming; noise decides here"),
        Mistake("nothing dropped", lambda base, model, drop, noise: list(model),
                "nothing is dropped: this is the model as it was"),
        Mistake("weights rescaled", _dare(part=lambda model, base: model),
                "rescales the model's weights: it is the delta that is added"),
    ),
))

# ---------------------------------------------------------------- 10.6 share_kept

KEPT_STUB = '''\
def share_kept(base, specialists, merged):
    """For each task the share of its specialist's gain over the base that a merged model keeps.

    base and merged: {task: score}; specialists: {task: score of the specialist of that task, on that task}.
    1.0 is all of the gain, and below 0 is worse than the base. Scores or losses, the same formula. None where
    the specialist has the base's score. Returns {task: float or None}.
    """
    raise NotImplementedError
'''


def draw_kept(seed):
    """Scores and losses; a merge better than its specialist, one below the base, and no gain."""
    r = random.Random(seed)
    inputs = []
    for _ in range(3):
        base = {task: r.randint(0, 20) / 64 for task in ("tickets", "sql", "voice")}
        best = {task: base[task] + r.randint(20, 40) / 64 for task in base}
        merged = {"tickets": best["tickets"] + 1 / 64, "sql": base["sql"] - r.randint(1, 9) / 64,
                  "voice": base["voice"] + r.randint(3, 15) / 64}  # fmt: skip
        inputs.append((base, best, merged))
    losses = {"sql": 2.5, "tickets": 1.75}
    return [*inputs, (losses, {"sql": 0.5, "tickets": 0.25}, {"sql": 1.0, "tickets": 1.5}),
            ({"a": 0.25, "b": 0.5}, {"a": 0.75, "b": 0.5}, {"a": 0.5, "b": 0.25})]  # fmt: skip


def _kept(share):
    def function(base, specialists, merged):
        return {task: share(base[task], specialists[task], merged[task]) if specialists[task] != base[task]
                else None for task in base}  # fmt: skip

    return function


share_kept = _kept(lambda base, best, merged: (merged - base) / (best - base))


def _all_the_same(base, specialists, merged):
    shares = share_kept(base, specialists, merged)
    there = [share for share in shares.values() if share is not None]
    return {task: share if share is None else sum(there) / len(there) for task, share in shares.items()}


register(Exercise(
    id="10.6",
    title="How much of a skill is kept",
    points=2,
    difficulty=1,
    minutes=6,
    hint="Both gains are counted from the base: the merged model's, over the specialist's.",
    stub=KEPT_STUB,
    draw=draw_kept,
    reference=share_kept,
    compare=close(1e-9, 1e-12),
    mistakes=(
        Mistake("no base", _kept(lambda base, best, merged: merged / best if best else 0.0),
                "the base is left out: what it could do already is no gain"),
        Mistake("over base", _kept(lambda base, best, merged: (merged - base) / base if base else 0.0),
                "divides by the base: divide by the specialist's gain"),
        Mistake("over the specialist", _kept(lambda base, best, merged: (merged - base) / best),
                "divides by the specialist's score: divide by its gain"),
        Mistake("share lost", _kept(lambda base, best, merged: (best - merged) / (best - base)),
                "this is the share that is lost"),
        Mistake("turned", _kept(lambda base, best, merged: (best - base) / (merged - base)
                                if merged != base else 0.0),
                "turned round: the merged model's gain is above the line"),
        Mistake("clipped", _kept(lambda base, best, merged:
                                 min(1.0, max(0.0, (merged - base) / (best - base)))),
                "shares are cut to 0 and 1: a merge may be worse, or better"),
        Mistake("sizes", _kept(lambda base, best, merged: abs((merged - base) / (best - base))),
                "a share below 0 lost its sign: worse than the base is below 0"),
        Mistake("mean", _all_the_same, "one mean for all tasks: each task has its own share"),
        Mistake("difference", _kept(lambda base, best, merged: merged - best),
                "a difference of scores: a share is one gain over another"),
    ),
))
