"""Exercises of lesson 09: pairs, an answer's log-probability, DPO and its gradient, advantages, clipping."""

import math
import random
from statistics import mean, pstdev, stdev

from labkit.exercises.spec import Exercise, Mistake, close, exact, register


def _logp(r):
    """The log-probability of some answer, in nats."""
    return round(r.uniform(-60, -20), 2)


def _sigmoid(x):
    return 1 / (1 + math.exp(-x))


# ---------------------------------------------------------------- 09.1 pair_of

PAIR_STUB = '''\
def pair_of(answers, rules):
    """A preference pair from one prompt's judged answers: the best and the worst by the rules named.

    answers: list of tuples (text, kept) where kept says of each rule (a str) whether the text keeps it; it
    holds more rules than `rules`, those that pairs may be built from. Among equals the first counts. Returns
    a tuple (chosen, rejected) of texts, or None where all answers are equally good.
    """
    raise NotImplementedError
'''
_RULES, _HELD_OUT = ("greeting", "offer", "signature"), ("no_hype", "next_step", "full_words")


def _judged(r, order):
    """Answers that keep as many pair rules as `order` says; the held-out rules would rank them in reverse."""
    answers = []
    for number, count in enumerate(order):
        kept = set(r.sample(_RULES, count))
        other = set(_HELD_OUT) if count == min(order) else set()
        text = f"answer {number} " + "word " * r.randint(1, 9)
        names = r.sample(_RULES + _HELD_OUT, 6)
        answers.append((text, {name: name in kept or name in other for name in names}))
    return answers


def draw_pair(seed):
    """A plain case, ties for best and for worst, one without any pair, and one already in order."""
    r = random.Random(seed)
    orders = ([1, 3, 0, 2], [2, 1, 3, 1, 3, 2], [2, 2, 2], [r.choice((0, 1)), 2, 3, 0], [1, 2, 1, 3, 0, 3, 0],
              [0, 0], [3, 2, 1])  # fmt: skip
    return [(_judged(r, order), list(_RULES)) for order in orders]


def _by_rules(kept, rules):
    return sum(kept[name] for name in rules)


def _best_and_worst(scores):
    return scores.index(max(scores)), scores.index(min(scores))


def _pair(judge=_by_rules, choose=_best_and_worst, ties=False):
    """pair_of with another judge, another choice, or with ties kept."""

    def function(answers, rules):
        scores = [judge(kept, rules) for _, kept in answers]
        if not ties and len(set(scores)) == 1:
            return None
        chosen, rejected = choose(scores)
        return answers[chosen][0], answers[rejected][0]

    return function


def _last(scores, value):
    return len(scores) - 1 - scores[::-1].index(value)


def _second(scores):
    """Best against the next lower score."""
    ranks = sorted(set(scores))
    return scores.index(ranks[-1]), scores.index(ranks[-2])


def _by_length(answers, rules):
    scores = [len(text) for text, _ in answers]
    return answers[scores.index(max(scores))][0], answers[scores.index(min(scores))][0]


pair_of = _pair()

register(Exercise(
    id="09.1",
    title="A pair from judged answers",
    points=2,
    difficulty=2,
    minutes=8,
    hint="Count the rules of `rules` that each answer keeps. `list.index` finds the first of equals.",
    stub=PAIR_STUB,
    draw=draw_pair,
    reference=pair_of,
    compare=exact,
    mistakes=(
        Mistake("ties kept", _pair(ties=True), "equally good answers make no pair: return None"),
        Mistake("all rules", _pair(judge=lambda kept, rules: sum(kept.values())),
                "judges by all rules: the held-out ones must stay unseen"),
        Mistake("held-out rules", _pair(lambda kept, rules: _by_rules(kept, set(kept) - set(rules))),
                "judges by the held-out rules: take those in `rules`"),
        Mistake("turned", _pair(choose=lambda scores: _best_and_worst(scores)[::-1]),
                "worst and best are turned round"),
        Mistake("against the next", _pair(choose=_second), "best against next best: take the worst"),
        Mistake("first and last", _pair(choose=lambda scores: (0, len(scores) - 1)),
                "takes the first and the last answer, whatever they keep"),
        Mistake("against the last", _pair(choose=lambda scores: (scores.index(max(scores)), len(scores) - 1)),
                "best against the last answer: take the worst"),
        Mistake("last of equals",
                _pair(choose=lambda scores: (_last(scores, max(scores)), _last(scores, min(scores)))),
                "among equals the first counts, not the last"),
        Mistake("length", _by_length, "longest against shortest: length is no rule"),
    ),
))  # fmt: skip

# ---------------------------------------------------------------- 09.2 sequence_logp

SEQUENCE_STUB = '''\
def sequence_logp(scores, ids, mask):
    """log p(answer | prompt) in nats: one number for the whole answer.

    ids: token ids of prompt, answer and padding, in this order. mask: 1 on the answer's tokens, else 0.
    scores[t][v]: log p(token t + 1 is v | tokens 0 to t), as a model puts it out. Returns a float.
    """
    raise NotImplementedError
'''


def draw_sequence(seed):
    """Rows with a prompt of two tokens or more, an answer of three or more, and padding."""
    r = random.Random(seed)
    inputs = []
    for _ in range(4):
        prompt, answer, padding, words = r.randint(2, 3), r.randint(3, 4), r.randint(2, 3), r.randint(4, 5)
        length = prompt + answer + padding
        scores = []
        for _ in range(length):
            logits = [r.gauss(0, 1.5) for _ in range(words)]
            whole = math.log(sum(map(math.exp, logits)))
            scores.append([round(z - whole, 4) for z in logits])
        ids = [r.randrange(words) for _ in range(length)]
        inputs.append((scores, ids, [0] * prompt + [1] * answer + [0] * padding))
    return inputs


def _ones(mask):
    return [t for t, one in enumerate(mask) if one]


def _sequence(places=_ones, back=1, end=sum):
    """sequence_logp of other places, with scores read elsewhere, or put together otherwise."""

    def function(scores, ids, mask):
        return end([scores[t - back][ids[t]] for t in places(mask)])

    return function


def _answer_on(mask):
    return range(mask.index(1), len(mask))


def _up_to_answer(mask):
    return range(1, len(mask) - mask[::-1].index(1))


sequence_logp = _sequence()

register(Exercise(
    id="09.2",
    title="The log-probability of an answer",
    points=2,
    difficulty=2,
    minutes=8,
    hint="Token t is predicted from the tokens before it, so its log-probability stands in scores[t - 1].",
    stub=SEQUENCE_STUB,
    draw=draw_sequence,
    reference=sequence_logp,
    compare=close(1e-9, 1e-9),
    mistakes=(
        Mistake("mean", _sequence(end=mean), "a mean over tokens: DPO is derived for the sum"),
        Mistake("mask not shifted",
                lambda scores, ids, mask: sum(scores[t][ids[t + 1]] for t in _ones(mask) if t + 1 < len(ids)),
                "the mask is read one token too early: mask[t] is about ids[t]"),
        Mistake("shifted", _sequence(back=0), "shifted by one: scores[t] is about token t + 1"),
        Mistake("shifted, mean", _sequence(back=0, end=mean),
                "shifted by one, and a mean instead of the sum"),
        Mistake("prompt too", _sequence(_up_to_answer), "the prompt's tokens are counted: take the answer's"),
        Mistake("padding too", _sequence(_answer_on), "padding is counted: it is no part of the answer"),
        Mistake("all", _sequence(lambda mask: range(1, len(mask))),
                "all tokens are counted: the mask says which"),
        Mistake("first left out", _sequence(lambda mask: _ones(mask)[1:]),
                "the answer's first token is left out"),
        Mistake("last left out", _sequence(lambda mask: _ones(mask)[:-1]),
                "the answer's last token is left out"),
        Mistake("probability", _sequence(end=lambda values: math.exp(sum(values))),
                "this is the probability: return its logarithm"),
        Mistake("negated", _sequence(end=lambda values: -sum(values)),
                "this is a loss: a log-probability is not above 0"),
    ),
))  # fmt: skip

# ---------------------------------------------------------------- 09.3 dpo_loss

DPO_STUB = '''\
def dpo_loss(pairs, beta):
    """The DPO loss of a batch: the mean over pairs of -log sigmoid(beta * margin).

    pairs: list of tuples (chosen, rejected, ref_chosen, ref_rejected) of log-probabilities: of the two
    answers by the policy, then by the reference. margin: by how much more than the reference the policy
    prefers chosen. Returns a float.
    """
    raise NotImplementedError
'''


def draw_dpo(seed):
    """Pairs whose margins have both signs and are not small, so that the curve of the sigmoid shows."""
    r = random.Random(seed)
    inputs = []
    for beta in (0.1, 0.3, r.choice((0.05, 0.2)), r.choice((0.5, 0.7))):
        pairs = []
        for number in range(r.randint(2, 4)):
            ref_chosen, ref_rejected, chosen = _logp(r), _logp(r), _logp(r)
            margin = r.uniform(2, 8) * (1 if number % 2 else -1)
            rejected = round(chosen - ref_chosen + ref_rejected - margin, 2)
            pairs.append((chosen, rejected, ref_chosen, ref_rejected))
        inputs.append((pairs, beta))
    return inputs


def _softplus(x):
    """log(1 + exp(x)), where exp(x) may not exist."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _margin(chosen, rejected, ref_chosen, ref_rejected):
    return (chosen - ref_chosen) - (rejected - ref_rejected)


def _dpo(margin=_margin, one=lambda m, beta: _softplus(-beta * m), end=mean):
    """dpo_loss with one part done otherwise."""
    return lambda pairs, beta: end([one(margin(*pair), beta) for pair in pairs])


dpo_loss = _dpo()

register(Exercise(
    id="09.3",
    title="The DPO loss",
    points=2,
    difficulty=2,
    minutes=8,
    hint="margin = (chosen - ref_chosen) - (rejected - ref_rejected); -log sigmoid(x) = log(1 + exp(-x)).",
    stub=DPO_STUB,
    draw=draw_dpo,
    reference=dpo_loss,
    compare=close(1e-7, 1e-9),
    mistakes=(
        Mistake("no reference", _dpo(lambda c, r, a, b: c - r), "the reference is missing from the margin"),
        Mistake("reference added", _dpo(lambda c, r, a, b: c + a - r - b),
                "the reference is added: take it away from the policy"),
        Mistake("only chosen", _dpo(lambda c, r, a, b: c - a), "the rejected answer is missing"),
        Mistake("turned", _dpo(lambda *pair: -_margin(*pair)),
                "the sign of the margin is turned: this prefers rejected"),
        Mistake("beta outside", _dpo(one=lambda m, beta: beta * _softplus(-m)),
                "beta stands outside the sigmoid: it scales the margin"),
        Mistake("no beta", _dpo(one=lambda m, beta: _softplus(-m)), "beta is missing"),
        Mistake("divided", _dpo(one=lambda m, beta: _softplus(-m / beta)),
                "divides by beta: the margin is multiplied by it"),
        Mistake("no minus", _dpo(one=lambda m, beta: -_softplus(-beta * m)),
                "the minus is missing: a loss falls as the margin grows"),
        Mistake("no log", _dpo(one=lambda m, beta: _sigmoid(-beta * m)), "the logarithm is missing"),
        Mistake("sum", _dpo(end=sum), "a sum over pairs: take their mean"),
        Mistake("mean first", lambda pairs, beta: _softplus(-beta * mean(_margin(*pair) for pair in pairs)),
                "averages margins first: average the losses of the pairs"),
    ),
))  # fmt: skip

# ---------------------------------------------------------------- 09.4 dpo_gradient

GRADIENT_STUB = '''\
def dpo_gradient(chosen, rejected, ref_chosen, ref_rejected, beta):
    """The derivative of -log sigmoid(beta * margin) by each of the four log-probabilities, while training.

    margin as in 09.3. Training moves the policy and holds the reference still. Returns a tuple of four floats
    in the order of the arguments.
    """
    raise NotImplementedError
'''


def draw_gradient(seed):
    """One pair each, margins of both signs, one of them at the start of a run, where it is 0."""
    r = random.Random(seed)
    inputs = [(-31.5, -40.25, -31.5, -40.25, 0.2)]
    for sign in (1, -1, 1, -1):
        ref_chosen, ref_rejected, chosen = _logp(r), _logp(r), _logp(r)
        rejected = round(chosen - ref_chosen + ref_rejected - sign * r.uniform(2, 7), 2)
        inputs.append((chosen, rejected, ref_chosen, ref_rejected, r.choice((0.1, 0.3, 0.6))))
    return inputs


def _gradient(signs=(-1, 1, 0, 0), margin=_margin, size=lambda m, beta: beta * _sigmoid(-beta * m)):
    """dpo_gradient with one part done otherwise."""

    def function(chosen, rejected, ref_chosen, ref_rejected, beta):
        found = size(margin(chosen, rejected, ref_chosen, ref_rejected), beta)
        return tuple(float(sign * found) for sign in signs)

    return function


dpo_gradient = _gradient()

register(Exercise(
    id="09.4",
    title="What a step pushes, and how hard",
    points=2,
    difficulty=3,
    minutes=10,
    hint="The derivative of -log sigmoid(x) by x is -sigmoid(-x). Then the chain rule: x = beta * margin.",
    stub=GRADIENT_STUB,
    draw=draw_gradient,
    reference=dpo_gradient,
    compare=close(1e-6, 1e-9),
    mistakes=(
        Mistake("through the reference", _gradient((-1, 1, 1, -1)),
                "the gradient runs into the reference: it is held still"),
        Mistake("turned", _gradient((1, -1, 0, 0)), "the signs are turned: the loss falls as chosen rises"),
        Mistake("rejected forgotten", _gradient((-1, 0, 0, 0)), "rejected has a gradient too"),
        Mistake("same sign", _gradient((-1, -1, 0, 0)), "chosen and rejected are pushed opposite ways"),
        Mistake("no beta", _gradient(size=lambda m, beta: _sigmoid(-beta * m)),
                "beta is missing: the chain rule puts it in front too"),
        Mistake("beta in front only", _gradient(size=lambda m, beta: beta * _sigmoid(-m)),
                "beta is missing inside the sigmoid"),
        Mistake("weight turned", _gradient(size=lambda m, beta: beta * _sigmoid(beta * m)),
                "sigmoid(beta * margin): the pairs that are wrong weigh most"),
        Mistake("no weight", _gradient(size=lambda m, beta: beta),
                "the weight of the pair, a sigmoid, is missing"),
        Mistake("no reference", _gradient(margin=lambda c, r, a, b: c - r),
                "the reference has no gradient, yet stands in the margin"),
    ),
))  # fmt: skip

# ---------------------------------------------------------------- 09.5 group_advantages

ADVANTAGE_STUB = '''\
def group_advantages(rewards, group):
    """GRPO's advantages: (reward - mean of its group) / (standard deviation of its group + 1e-4).

    rewards: the `group` answers to the first prompt, then those to the second, and so on. The deviation is
    the sample's, which divides by group - 1. Returns a list of float in the same order.
    """
    raise NotImplementedError
'''


def draw_advantages(seed):
    """Groups with levels and spreads of their own, one of them all equal."""
    r = random.Random(seed)
    inputs = []
    for group, prompts in ((4, 3), (2, 4), (3, 3), (4, 2)):
        rewards = []
        for number in range(prompts):
            level, spread = r.uniform(0.2, 0.8), 0.05 + 0.1 * number
            values = [round(level + spread * r.uniform(0.2, 1) * (-1) ** i, 3) for i in range(group)]
            rewards += values if number else [values[0]] * group
        inputs.append((rewards, group))
    return inputs


def _grouped(rewards, group):
    return [rewards[start : start + group] for start in range(0, len(rewards), group)]


def _advantages(centre=mean, spread=stdev, add=1e-4, cut=_grouped):
    """group_advantages with one part done otherwise; with add=0 equal rewards fail."""

    def function(rewards, group):
        out = []
        for values in cut(rewards, group):
            middle, size = centre(values), spread(values)
            out += [(value - middle) / (size + add) for value in values]
        return out

    return function


def _scale_of_batch(rewards, group):
    size = stdev(rewards) + 1e-4
    return [(value - mean(values)) / size for values in _grouped(rewards, group) for value in values]


def _interleaved(rewards, group):
    """As if the first answers to all prompts came first."""
    prompts = len(rewards) // group
    out = [0.0] * len(rewards)
    for prompt in range(prompts):
        values = rewards[prompt::prompts]
        for at, value in zip(range(prompt, len(rewards), prompts), values, strict=True):
            out[at] = (value - mean(values)) / (stdev(values) + 1e-4)
    return out


group_advantages = _advantages()

register(Exercise(
    id="09.5",
    title="Advantages within a group",
    points=2,
    difficulty=2,
    minutes=8,
    hint="Cut the list into slices of `group`; `statistics.stdev` divides by n - 1.",
    stub=ADVANTAGE_STUB,
    draw=draw_advantages,
    reference=group_advantages,
    compare=close(1e-6, 1e-9),
    mistakes=(
        Mistake("batch", _advantages(cut=lambda rewards, group: [rewards]),
                "over the whole batch: each prompt's group is its own measure"),
        Mistake("scale of the batch", _scale_of_batch, "the deviation is the batch's: take the group's"),
        Mistake("interleaved", _interleaved, "groups are mixed up: a group's answers stand side by side"),
        Mistake("population", _advantages(spread=pstdev), "divides by group: the sample's is by group - 1"),
        Mistake("no 1e-4", _advantages(add=0.0), "1e-4 is missing: a group of equal rewards divides by 0"),
        Mistake("guarded", lambda rewards, group: [
                    (value - mean(values)) / (stdev(values) or 1)
                    for values in _grouped(rewards, group) for value in values],
                "1e-4 is added to every deviation, not only where it is 0"),
        Mistake("variance", _advantages(spread=lambda values: stdev(values) ** 2),
                "divides by the variance: take its square root"),
        Mistake("not centred", _advantages(centre=lambda values: 0.0), "the group's mean is not taken away"),
        Mistake("not scaled", _advantages(spread=lambda values: 1 - 1e-4),
                "not divided by the deviation (Dr. GRPO leaves it out)"),
        Mistake("against the best", _advantages(centre=max), "takes away the best: take away the mean"),
    ),
))  # fmt: skip

# ---------------------------------------------------------------- 09.6 clipped_gain

CLIP_STUB = '''\
def clipped_gain(new, old, advantage, epsilon):
    """GRPO's gain of one answer: the mean over tokens of min(ratio * A, clipped * A).

    new, old: log-probabilities of the answer's tokens, by the policy that is trained and by the one that
    sampled. ratio = new / old, as probabilities; clipped: the ratio, but no less than 1 - epsilon and no more
    than 1 + epsilon. advantage: A, one float, which may be negative. Returns a float.
    """
    raise NotImplementedError
'''


def draw_clip(seed):
    """Advantages of both signs, ratios far above, far below and inside."""
    r = random.Random(seed)
    inputs = []
    for sign in (1, -1, 1, -1):
        ratios = [r.uniform(1.5, 2.5), r.uniform(0.3, 0.55), r.uniform(0.92, 1.08), r.uniform(1.5, 2.5)]
        r.shuffle(ratios)
        old = [round(r.uniform(-3, -1), 3) for _ in ratios]
        new = [round(before + math.log(ratio), 3) for before, ratio in zip(old, ratios, strict=True)]
        inputs.append((new, old, sign * round(r.uniform(0.5, 1.5), 2), r.choice((0.1, 0.2, 0.3))))
    return inputs


def _clip(x, epsilon):
    return min(max(x, 1 - epsilon), 1 + epsilon)


def _gain(one=lambda r, a, e: min(r * a, _clip(r, e) * a), ratio=lambda new, old: math.exp(new - old),
          end=mean):  # fmt: skip
    """clipped_gain with one part done otherwise."""

    def function(new, old, advantage, epsilon):
        ratios = [ratio(*pair) for pair in zip(new, old, strict=True)]
        return end([one(r, advantage, epsilon) for r in ratios])

    return function


def _whole(new, old, advantage, epsilon):
    """One ratio for the whole answer."""
    return clipped_gain([sum(new)], [sum(old)], advantage, epsilon)


clipped_gain = _gain()

register(Exercise(
    id="09.6",
    title="The clipped gain",
    points=2,
    difficulty=3,
    minutes=8,
    hint="ratio = exp(new - old) of a token. With A below 0, min takes the larger one: look at both signs.",
    stub=CLIP_STUB,
    draw=draw_clip,
    reference=clipped_gain,
    compare=close(1e-9, 1e-9),
    mistakes=(
        Mistake("no min", _gain(lambda r, a, e: _clip(r, e) * a),
                "min is left out: a move for the worse must not be forgiven"),
        Mistake("no clip", _gain(lambda r, a, e: r * a), "nothing is clipped"),
        Mistake("gain clipped", _gain(lambda r, a, e: _clip(r * a, e)), "clips the gain: clip the ratio"),
        Mistake("max", _gain(lambda r, a, e: max(r * a, _clip(r, e) * a)), "max instead of min"),
        Mistake("only above", _gain(lambda r, a, e: min(r, 1 + e) * a),
                "min of ratios, then times A: take min of the two products"),
        Mistake("clipped above only", _gain(lambda r, a, e: min(r * a, (1 + e) * a)),
                "clips above only: with A below 0 it matters at 1 - epsilon"),
        Mistake("turned", _gain(ratio=lambda new, old: math.exp(old - new)), "the ratio is new / old"),
        Mistake("difference", _gain(ratio=lambda new, old: new - old),
                "new - old is the logarithm of the ratio: take exp"),
        Mistake("of logs", _gain(ratio=lambda new, old: new / old),
                "divides logarithms: subtract them, then take exp"),
        Mistake("sum", _gain(end=sum), "a sum over tokens: take the mean"),
        Mistake("whole answer", _whole, "one ratio for the answer: each token has its own"),
        Mistake("loss", _gain(end=lambda values: -mean(values)), "this is the loss: the gain has no minus"),
    ),
))  # fmt: skip
