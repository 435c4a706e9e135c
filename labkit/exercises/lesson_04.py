"""Exercises of lesson 04: an AdamW step, the schedule, bf16 rounding, accumulation, stopping, choosing."""

import math
import random

from labkit.exercises.spec import Exercise, Mistake, close, exact, register

# ---------------------------------------------------------------- 04.1 adamw_step

STEP_STUB = '''\
def adamw_step(w, g, m, v, t, lr, decay, beta1, beta2, eps):
    """One AdamW step of one weight.

    w: the weight; g: its gradient; m, v: its moments so far; t: number of this step, 1 for the first;
    decay: weight decay, decoupled from the gradient. All are numbers. Returns the new [w, m, v].
    """
    raise NotImplementedError
'''


def draw_step(seed):
    """First and later steps; eps and the decay are large enough to be seen."""
    r = random.Random(seed)
    inputs = []
    for t in (1, 2, 3, 5, 20):
        w, g, m = (round(r.uniform(0.2, 2), 4) * r.choice((-1, 1)) for _ in range(3))
        v = round(r.uniform(0.2, 2), 4)
        m, v = (0.0, 0.0) if t == 1 else (m, v)
        betas = r.choice(((0.9, 0.99), (0.8, 0.95), (0.9, 0.98)))
        inputs.append((w, g, m, v, t, round(r.uniform(0.05, 0.2), 3), round(r.uniform(0.1, 0.3), 3), *betas,
                       round(r.uniform(0.02, 0.05), 4)))  # fmt: skip
    return inputs


def _step(first=lambda m, beta, t: m / (1 - beta**t), second=lambda v, beta, t: v / (1 - beta**t),
          over=lambda m, v, eps: m / (math.sqrt(v) + eps), shrink=lambda w, lr, decay: lr * decay * w,
          coupled=False, sign=-1, square=lambda g: g * g, corrected=False,
          take=lambda beta: 1 - beta):  # fmt: skip
    """adamw_step with one part done otherwise."""

    def function(w, g, m, v, t, lr, decay, beta1, beta2, eps):
        if coupled:
            g = g + decay * w
        m, v = beta1 * m + take(beta1) * g, beta2 * v + take(beta2) * square(g)
        m_hat, v_hat = first(m, beta1, t), second(v, beta2, t)
        loss_of_size = 0.0 if coupled else shrink(w, lr, decay)
        new = w + sign * lr * over(m_hat, v_hat, eps) - loss_of_size
        return [new, m_hat, v_hat] if corrected else [new, m, v]

    return function


def _kept(moment, beta, t):
    return moment


adamw_step = _step()


def _efficient(w, g, m, v, t, lr, decay, beta1, beta2, eps):
    """The faster order of Kingma and Ba (section 2), which wants eps times the root of 1 - beta2**t."""
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    size = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
    return [w - size * m / (math.sqrt(v) + eps) - lr * decay * w, m, v]


def _swapped(w, g, m, v, t, lr, decay, beta1, beta2, eps):
    return adamw_step(w, g, m, v, t, lr, decay, beta2, beta1, eps)


register(Exercise(
    id="04.1",
    title="One AdamW step",
    points=2,
    difficulty=2,
    minutes=10,
    hint="Update m and v, divide each by 1 - beta**t, step by m over (root of v plus eps), shrink w apart.",
    stub=STEP_STUB,
    draw=draw_step,
    reference=adamw_step,
    compare=close(1e-6, 1e-6),
    mistakes=(
        Mistake("no bias correction", _step(first=_kept, second=_kept),
                "no bias correction: divide m and v by 1 - beta**t"),
        Mistake("only m corrected", _step(second=_kept),
                "m is corrected and v is not: both begin at 0"),
        Mistake("only v corrected", _step(first=_kept),
                "v is corrected and m is not: both begin at 0"),
        Mistake("decay in the gradient", _step(coupled=True),
                "the decay went into g, and so into m and v: that is Adam with L2"),
        Mistake("efficient form", _efficient,
                "this order wants eps scaled too: divide m and v first"),
        Mistake("sums", _step(take=lambda beta: 1),
                "these are sums, not averages: 1 - beta is missing"),
        Mistake("eps inside the root", _step(over=lambda m, v, eps: m / math.sqrt(v + eps)),
                "eps is inside the root: add it after"),
        Mistake("no root", _step(over=lambda m, v, eps: m / (v + eps)),
                "v is a mean of squares: take its root"),
        Mistake("not squared", _step(square=abs),
                "v is the mean of g * g, not of g's size"),
        Mistake("decay without the rate", _step(shrink=lambda w, lr, decay: decay * w),
                "the decay is not multiplied by the learning rate"),
        Mistake("no decay", _step(shrink=lambda w, lr, decay: 0.0),
                "the weight decay is missing: subtract lr * decay * w"),
        Mistake("up", _step(sign=1), "this climbs: subtract the step"),
        Mistake("betas swapped", _swapped, "the betas are swapped: beta1 is for m, beta2 for v"),
        Mistake("counted from 0", lambda w, g, m, v, t, *rest: adamw_step(w, g, m, v, t + 1, *rest),
                "t is counted from 1 already: do not add 1"),
        Mistake("corrected kept", _step(corrected=True),
                "the corrected moments are for this step only: return m and v"),
    ),
))

# ---------------------------------------------------------------- 04.2 learning_rate

RATE_STUB = '''\
def learning_rate(step, steps, ramp, peak):
    """The learning rate of a step: linear warm-up, then linear decay.

    step: from 0 to steps - 1; ramp: how many steps the warm-up has. Warm-up: the first step already has
    peak / ramp, the last step of the ramp has peak. Then a straight line: peak at step `ramp`, and 0 would be
    at `steps`, one after the last. Returns a float.
    """
    raise NotImplementedError
'''


def draw_rate(seed):
    """Steps of the ramp, its edges, and steps of the decay, the last one among them."""
    r = random.Random(seed)
    inputs = []
    for _ in range(2):
        steps, ramp = r.randint(20, 60), r.randint(3, 8)
        peak = r.choice((1e-4, 3e-4, 2e-3))
        places = [0, 1, ramp - 1, ramp, ramp + 1, r.randint(ramp + 2, steps - 2), steps - 1]
        inputs += [(step, steps, ramp, peak) for step in places]
    return inputs


def _rate(up=lambda step, ramp: (step + 1) / ramp,
          down=lambda step, steps, ramp: 1 - (step - ramp) / (steps - ramp)):  # fmt: skip
    def function(step, steps, ramp, peak):
        return peak * (up(step, ramp) if step < ramp else down(step, steps, ramp))

    return function


learning_rate = _rate()

register(Exercise(
    id="04.2",
    title="Warm-up and decay",
    points=2,
    difficulty=1,
    minutes=6,
    hint="In the ramp (step + 1) / ramp of the peak; after it, what is left of the steps - ramp steps.",
    stub=RATE_STUB,
    draw=draw_rate,
    reference=learning_rate,
    compare=close(1e-9, 1e-15),
    mistakes=(
        Mistake("first step lost", _rate(up=lambda step, ramp: step / ramp),
                "the first step has rate 0, and is lost: (step + 1) / ramp"),
        Mistake("decay from 0", _rate(down=lambda step, steps, ramp: 1 - step / steps),
                "the decay runs from step 0: it begins after the ramp"),
        Mistake("last step lost",
                _rate(down=lambda step, steps, ramp: 1 - (step - ramp) / (steps - 1 - ramp)),
                "the last step has rate 0, and is lost: 0 is one step later"),
        Mistake("too slow", _rate(down=lambda step, steps, ramp: 1 - (step - ramp) / steps),
                "this does not get down to 0: decay over steps - ramp"),
        Mistake("one ahead", _rate(down=lambda step, steps, ramp: 1 - (step + 1 - ramp) / (steps - ramp)),
                "the decay is a step ahead: step `ramp` still has the peak"),
        Mistake("one step more", lambda step, steps, ramp, peak: peak * (step + 1) / ramp if step <= ramp
                else learning_rate(step, steps, ramp, peak),
                "the ramp is a step too long: step `ramp` has the peak"),
        Mistake("no decay", _rate(down=lambda step, steps, ramp: 1.0),
                "this stays at the peak: the decay is missing"),
        Mistake("no ramp", _rate(up=lambda step, ramp: 1.0),
                "the warm-up is missing: the first steps have the peak"),
        Mistake("share", lambda step, steps, ramp, peak: learning_rate(step, steps, ramp, 1.0),
                "this is the share of the peak: multiply by it"),
    ),
))

# ---------------------------------------------------------------- 04.3 survives

ROUND_STUB = '''\
def survives(w, update):
    """Is a bf16 weight another number after an update, once the sum is rounded to bf16 again?

    bf16 keeps 8 bits of a number's significand, the leading 1 included: numbers from 2**e up to 2**(e + 1)
    lie 2**(e - 7) apart. Rounding goes to the nearest; of two equally near, to the one whose last bit is 0.
    w: a float that bf16 holds exactly, not 0; update: a float, much smaller. Returns a bool.
    """
    raise NotImplementedError
'''


def _rounded(x, bits=8, to_int=round):
    """x with so many bits of its significand; Python's round sends ties to even, as hardware does."""
    m, e = math.frexp(x)  # x = m * 2**e, 0.5 <= |m| < 1
    return math.ldexp(to_int(m * 2**bits), e - bits)


def draw_round(seed):
    """Updates below, at and above half a step, from even and odd weights of every size, up and down."""
    r = random.Random(seed)
    inputs = []
    for number, share in enumerate((0.3, 0.45, 0.5, 0.5, 0.55, 0.7, 0.9, 1.2) * 2):
        significand = r.randrange(130, 190) if number < 8 else r.randrange(190, 254)
        significand += (significand + (number % 4 == 3)) % 2  # ties of an odd and of an even weight
        step = 2.0 ** r.randint(-9, 1)
        sign, towards = r.choice((-1, 1)), 1 if number % 3 else -1
        inputs.append((sign * significand * step, sign * towards * share * step))
    odd, step = r.randrange(131, 253, 2), 2.0 ** r.randint(-9, 1)
    inputs += [(odd * step, share * step) for share in (0.03, -0.1, 0.1)]  # what finer types would keep
    power = 2.0 ** r.randint(-4, 3)  # below a power of two numbers lie half as far apart
    inputs += [(power, -0.3 * power / 128), (power, 0.3 * power / 128)]
    return inputs


def _survives(bits=8, to_int=round):
    return lambda w, update: _rounded(w + update, bits, to_int) != w


survives = _survives()


def _step_above(w):
    """The distance of the numbers of bf16 from |w| up."""
    return 2.0 ** (math.frexp(w)[1] - 8)


register(Exercise(
    id="04.3",
    title="Does the update survive?",
    points=3,
    difficulty=3,
    minutes=12,
    hint="`m, e = math.frexp(x)` gives x = m · 2**e with 0.5 ≤ |m| < 1. Round m · 256; `round` sends ties to "
         "even.",
    stub=ROUND_STUB,
    draw=draw_round,
    reference=survives,
    compare=exact,
    mistakes=(
        Mistake("absolute", lambda w, update: abs(update) > 2**-8,
                "compares with a fixed number: the step grows with the weight"),
        Mistake("relative to w", lambda w, update: abs(update) > abs(w) * 2**-8,
                "takes a share of w: the step is that of its power of two"),
        Mistake("whole step", lambda w, update: abs(update) >= _step_above(w),
                "asks for a whole step: half a step is enough"),
        Mistake("truncated", _survives(to_int=math.trunc),
                "cuts the sum off: rounding goes to the nearest"),
        Mistake("ties move", _survives(to_int=lambda x: x if abs(x % 1 - 0.5) < 1e-9 else round(x)),
                "lets every tie move: those of an even weight stay"),
        Mistake("ties stay", lambda w, update: survives(w, update * (1 - 1e-9)),
                "lets every tie stay: those of an odd weight move"),
        Mistake("power of two", lambda w, update: survives(abs(w) + _step_above(w) * 2, abs(update))
                if math.frexp(w)[0] == 0.5 else survives(w, update),
                "below a power of two numbers lie half as far apart"),
        Mistake("7 bits", _survives(bits=7), "rounds to 7 bits: the leading 1 is an 8th"),
        Mistake("9 bits", _survives(bits=9), "rounds to 9 bits: bf16 keeps 8, the leading 1 included"),
        Mistake("fp16", _survives(bits=11), "rounds to 11 bits: that is fp16"),
        Mistake("fp32", lambda w, update: w + update != w, "the sum is not rounded to bf16"),
        Mistake("turned around", lambda w, update: not survives(w, update),
                "turned around: True where the number changes"),
    ),
))

# ---------------------------------------------------------------- 04.4 chosen

CHOOSE_STUB = '''\
def chosen(runs, base_loss):
    """The run to report, what it scores, and what it forgot.

    runs: list of dicts with "rate", "validation" and "test" (shares of exact answers on either split) and
    "general" (nats per token of plain English after training); base_loss: the same before. Choose the rate
    by which no reported number is flattered. Returns [rate, its test score, forgetting in nats (positive if
    it got worse), perplexity after over perplexity before].
    """
    raise NotImplementedError
'''


def draw_choose(seed):
    """Rates of which the best on validation, the best on test and the least forgetful all differ."""
    r = random.Random(seed)
    inputs = []
    for _ in range(4):
        rates = r.sample((1e-5, 3e-5, 1e-4, 2e-4, 3e-4, 6e-4, 1e-3, 2e-3), 5)
        best, lucky, mild, worst, other = range(5)
        scores = {best: (0.84, 0.80), lucky: (0.82, 0.83), mild: (0.60, 0.58), worst: (0.40, 0.45),
                  other: (0.70, 0.71)}  # fmt: skip
        base, runs = round(r.uniform(2.8, 3.4), 3), []
        for place, rate in enumerate(rates):
            validation, test = (round(share + r.uniform(-0.009, 0.009), 4) for share in scores[place])
            more = r.uniform(0.02, 0.05) if place == mild else r.uniform(0.2, 0.6)
            runs.append({"rate": rate, "validation": validation, "test": test,
                         "general": round(base + more, 3)})  # fmt: skip
        r.shuffle(runs)
        inputs.append((runs, base))
    return inputs


def _choose(by=lambda run: run["validation"], score="test",
            forgot=lambda after, before: after - before, ratio=lambda after, before: math.exp(after - before),
            before=lambda runs, base: base):  # fmt: skip
    def function(runs, base_loss):
        run, start = max(runs, key=by), before(runs, base_loss)
        return [run["rate"], run[score], forgot(run["general"], start), ratio(run["general"], start)]

    return function


chosen = _choose()

register(Exercise(
    id="04.4",
    title="Choose, then report",
    points=2,
    difficulty=2,
    minutes=8,
    hint="The split that chooses must not be the one that reports. Perplexity is exp of the loss.",
    stub=CHOOSE_STUB,
    draw=draw_choose,
    reference=chosen,
    compare=close(1e-9, 1e-12),
    mistakes=(
        Mistake("by test", _choose(by=lambda run: run["test"]),
                "chosen by test rows: their score is then flattered"),
        Mistake("validation reported", _choose(score="validation"),
                "reports the score that chose the rate: report the test score"),
        Mistake("lowest", _choose(by=lambda run: -run["validation"]),
                "takes the lowest score: higher is better"),
        Mistake("least forgetful", _choose(by=lambda run: -run["general"]),
                "chosen by what is forgotten: choose by the task"),
        Mistake("sign", _choose(forgot=lambda after, before: before - after),
                "the sign of the forgetting: after minus before"),
        Mistake("perplexities subtracted",
                _choose(forgot=lambda after, before: math.exp(after) - math.exp(before)),
                "this is a difference of perplexities: nats are the losses'"),
        Mistake("share", _choose(forgot=lambda after, before: (after - before) / before),
                "this is a share of the loss: the difference was asked for"),
        Mistake("ratio of losses", _choose(ratio=lambda after, before: after / before),
                "this is the ratio of the losses: perplexity is exp of a loss"),
        Mistake("turned over", _choose(ratio=lambda after, before: math.exp(before - after)),
                "the ratio is turned over: after over before"),
        Mistake("increase", _choose(ratio=lambda after, before: math.exp(after - before) - 1),
                "this is the increase: the ratio is 1 more"),
        Mistake("from the mildest", _choose(before=lambda runs, base: min(run["general"] for run in runs)),
                "compares with another run: compare with the base"),
    ),
))

# ---------------------------------------------------------------- 04.5 accumulated

SUM_STUB = '''\
def accumulated(gradients, counts):
    """The gradient of one large batch, from the gradients of the small batches it was cut into.

    gradients: one list of float for each small batch, all equally long: the gradient of the mean loss over
    its counted tokens. counts: how many tokens each of them counts; they differ. Returns a list of float.
    """
    raise NotImplementedError
'''


def draw_sum(seed):
    """Two to four small batches of very different token counts."""
    r = random.Random(seed)
    inputs = []
    for size in (2, 3, 3, 4):
        counts = r.sample(range(5, 200), size)
        inputs.append(([[round(r.uniform(-2, 2), 4) for _ in range(3)] for _ in range(size)], counts))
    return inputs


def _accumulated(weigh=lambda n: n, divide=sum):
    """accumulated with other weights, and another divisor of the counts."""

    def function(gradients, counts):
        divisor = divide(counts)
        return [sum(weigh(n) * g for n, g in zip(counts, column, strict=True)) / divisor
                for column in zip(*gradients, strict=True)]  # fmt: skip

    return function


accumulated = _accumulated()


def _inverse(count):
    return 1 / count


register(Exercise(
    id="04.5",
    title="Accumulate small batches",
    points=2,
    difficulty=2,
    minutes=8,
    hint="A mean times its count is a sum. Add the sums up, then divide by all counted tokens.",
    stub=SUM_STUB,
    draw=draw_sum,
    reference=accumulated,
    compare=close(1e-6, 1e-6),
    mistakes=(
        Mistake("mean of means", _accumulated(weigh=lambda n: 1, divide=len),
                "a mean of means: tokens of short batches weigh more"),
        Mistake("sum of means", _accumulated(weigh=lambda n: 1, divide=lambda counts: 1),
                "the means are added and never divided"),
        Mistake("sum", _accumulated(divide=lambda counts: 1),
                "this is the sum over all tokens: divide by their number"),
        Mistake("by batches", _accumulated(divide=len),
                "divides the sum by the batches: divide by the tokens"),
        Mistake("padding counted", _accumulated(divide=lambda counts: len(counts) * max(counts)),
                "divides by padded lengths: padding is not counted"),
        Mistake("sums over tokens", _accumulated(weigh=lambda n: 1),
                "takes the means for sums: multiply by their counts first"),
        Mistake("last only", lambda gradients, counts: list(gradients[-1]),
                "only the last batch is there: gradients add up"),
        Mistake("turned over", _accumulated(weigh=_inverse, divide=lambda counts: sum(map(_inverse, counts))),
                "the weights are turned over: more tokens weigh more"),
    ),
))  # fmt: skip

# ---------------------------------------------------------------- 04.6 early_stop

STOP_STUB = '''\
def early_stop(train, validation, patience):
    """Early stopping: how many validations run, and the weights of which are kept.

    train, validation: lists of losses, one for each validation in order. A loss below all before it is a new
    best. Training stops at the `patience`-th validation in a row without one, or at the end of the list.
    Returns [how many validations ran, index of the one whose weights are kept], the index counted from 0.
    """
    raise NotImplementedError
'''

# Shapes of validation losses, with the patience: a tie, recoveries, a better loss that comes too late.
SHAPES = (
    ((1.0, 0.8, 0.85, 0.7, 0.75, 0.72, 0.6, 0.5), 2),
    ((1.0, 0.8, 0.8, 0.9, 0.7, 0.6, 0.65), 2),
    ((1.0, 0.9, 0.8, 0.7, 0.6, 0.5), 1),
    ((1.0, 0.7, 0.75, 0.6, 0.62, 0.5, 0.55, 0.58, 0.59, 0.4), 3),
    ((1.0, 0.9, 0.95, 0.92, 0.94, 0.8, 0.7), 3),
    ((1.0, 0.6, 0.7, 0.65), 3),
    ((1.0, 0.6, 0.7, 0.72, 0.74, 0.76, 0.78), 2),
)


def draw_stop(seed):
    """The SHAPES, stretched and moved; the training loss falls all the time."""
    r = random.Random(seed)
    inputs = []
    for shape, patience in SHAPES:
        size, floor = r.uniform(0.5, 3), r.uniform(0.1, 1)
        train = [round(size * 0.9**i, 4) for i in range(len(shape))]
        inputs.append((train, [round(floor + size * loss, 4) for loss in shape], patience))
    return inputs


def _stop(new=lambda loss, best: loss < best, kept=lambda i, best_at, validation: best_at, more=0,
          reset=True, previous=False, on=lambda train, validation: validation):  # fmt: skip
    def function(train, validation, patience):
        losses = on(train, validation)
        best, waited, best_at = math.inf, 0, 0
        for i, loss in enumerate(losses):
            improved = new(loss, best)
            if improved:
                best, best_at, waited = loss, i, 0 if reset else waited
            elif not previous or loss >= losses[i - 1]:
                waited += 1
            else:
                waited = 0
            if not improved and waited >= patience + more:
                break
        return [i + 1, kept(i, best_at, validation)]

    return function


early_stop = _stop()

register(Exercise(
    id="04.6",
    title="Early stopping",
    points=2,
    difficulty=2,
    minutes=10,
    hint="Keep the best loss, its index, and how many validations have passed since then.",
    stub=STOP_STUB,
    draw=draw_stop,
    reference=early_stop,
    compare=exact,
    mistakes=(
        Mistake("one too many", _stop(more=1),
                "stops one validation too late"),
        Mistake("one too few", lambda train, validation, patience:
                early_stop(train, validation, max(1, patience - 1)),
                "stops one validation too early"),
        Mistake("never reset", _stop(reset=False),
                "a new best does not set the count back to 0"),
        Mistake("worse than the last", _stop(previous=True),
                "compares with the validation before: compare with the best"),
        Mistake("last", _stop(kept=lambda i, best_at, validation: i),
                "keeps the last weights: keep the best"),
        Mistake("train loss", _stop(on=lambda train, validation: train),
                "looks at the training loss, which falls all the time"),
        Mistake("tie", _stop(new=lambda loss, best: loss <= best),
                "an equal loss is no new best"),
        Mistake("best of all", _stop(kept=lambda i, best_at, validation: validation.index(min(validation))),
                "keeps weights from after the stop: they were never trained"),
        Mistake("no stop", lambda train, validation, patience: early_stop(train, validation, 10**9),
                "never stops: count validations without a new best"),
        Mistake("ran from 0", lambda train, validation, patience:
                [early_stop(train, validation, patience)[0] - 1, early_stop(train, validation, patience)[1]],
                "this counts validations from 0: after index i, i + 1 ran"),
        Mistake("from 1", _stop(kept=lambda i, best_at, validation: best_at + 1),
                "the index is counted from 0"),
    ),
))
