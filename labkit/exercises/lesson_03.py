"""Exercises of lesson 03: labels, prompt loss weight, packing, leaks, splits, what to report, agreement."""

import random
from collections import Counter
from statistics import median

from labkit.exercises.spec import Exercise, Mistake, close, exact, register

# ---------------------------------------------------------------- 03.1 padded_labels

LABELS_STUB = '''\
def padded_labels(prompt, answer, length, pad):
    """Token ids and labels of one training row, padded on the right to `length` tokens.

    prompt, answer: lists of int; the answer ends with the end token, whose id is `pad` too. A label is the
    token's own id where the loss is taken (on the whole answer) and -100 elsewhere. The model compares
    position t with label t + 1 by itself. Returns (ids, labels), a tuple of two lists of `length` int.
    """
    raise NotImplementedError
'''


def draw_labels(seed):
    """Rows with room for padding; prompts hold end tokens too, as chats do."""
    r = random.Random(seed)
    inputs = []
    for _ in range(5):
        prompt = [*r.sample(range(20, 500), r.randint(2, 4)), 2, *r.sample(range(20, 500), r.randint(2, 3))]
        answer = [*r.sample(range(500, 900), r.randint(3, 5)), 2]
        inputs.append((prompt, answer, len(prompt) + len(answer) + r.randint(2, 4), 2))
    return inputs


def _labels(change=lambda prompt, answer, room, pad: [-100] * len(prompt) + answer + [-100] * room):
    """padded_labels with labels of another kind."""

    def function(prompt, answer, length, pad):
        room = length - len(prompt) - len(answer)
        return prompt + answer + [pad] * room, change(prompt, answer, room, pad)

    return function


padded_labels = _labels()


def _after(change):
    """padded_labels whose right labels are changed afterwards by `change(labels, ids, pad)`."""

    def function(prompt, answer, length, pad):
        ids, labels = padded_labels(prompt, answer, length, pad)
        return ids, change(labels, ids, pad)

    return function


def _left(prompt, answer, length, pad):
    room = length - len(prompt) - len(answer)
    return [pad] * room + prompt + answer, [-100] * (room + len(prompt)) + answer


register(Exercise(
    id="03.1",
    title="Labels, and the stop token",
    points=2,
    difficulty=2,
    minutes=8,
    hint="Count positions, do not look for ids: `len(prompt)` without loss, the answer, then the room left.",
    stub=LABELS_STUB,
    draw=draw_labels,
    reference=padded_labels,
    compare=exact,
    mistakes=(
        Mistake("pad by id", _after(lambda labels, ids, pad: [-100 if i == pad else i for i in labels]),
                "the stop token is masked: it has the pad's id, mask by place"),
        Mistake("collator", _after(lambda labels, ids, pad: [-100 if i == pad else i for i in ids]),
                "masks the pad's id only: stop tokens go, the prompt counts"),
        Mistake("ids", _after(lambda labels, ids, pad: list(ids)),
                "labels are the ids: -100 on the prompt and on the padding"),
        Mistake("prompt unmasked", _labels(lambda prompt, answer, room, pad: prompt + answer + [-100] * room),
                "takes the loss on the prompt too: -100 there"),
        Mistake("shifted left", _after(lambda labels, ids, pad: labels[1:] + [-100]),
                "shifted by one: the model shifts itself, so this is twice"),
        Mistake("shifted right", _after(lambda labels, ids, pad: [-100] + labels[:-1]),
                "moved to the right by one: labels stand at their own tokens"),
        Mistake("padding counted", _labels(
                lambda prompt, answer, room, pad: [-100] * len(prompt) + answer + [pad] * room),
                "takes the loss on the padding: -100 there"),
        Mistake("last prompt token", _labels(
                lambda prompt, answer, room, pad:
                [-100] * (len(prompt) - 1) + prompt[-1:] + answer + [-100] * room),
                "the last prompt token counts too: the border is off by one"),
        Mistake("first answer token", _labels(
                lambda prompt, answer, room, pad: [-100] * (len(prompt) + 1) + answer[1:] + [-100] * room),
                "the first answer token is masked: the border is off by one"),
        Mistake("zero", _after(lambda labels, ids, pad: [max(i, 0) for i in labels]),
                "0 is a token of the vocabulary: -100 is what the loss skips"),
        Mistake("left", _left, "this pads on the left: training rows are padded on the right"),
        Mistake("no padding", lambda prompt, answer, length, pad: (
                prompt + answer, [-100] * len(prompt) + answer),
                "not padded: both lists have `length` entries"),
    ),
))

# ---------------------------------------------------------------- 03.2 prompt_weighted

WEIGHT_STUB = '''\
def prompt_weighted(nll, is_answer, weight):
    """The loss of a row whose answer tokens weigh 1 and whose prompt tokens weigh `weight`.

    nll: list of float, -log p of each token; is_answer: list of bool, as long. The weighted mean: with weight
    0 it is the mean over the answer, with weight 1 the mean over all. Returns a float.
    """
    raise NotImplementedError
'''


def draw_weight(seed):
    """Long prompts and short answers, with weights 0, 1 and between."""
    r = random.Random(seed)
    inputs = []
    for weight in (0.0, 1.0, 0.1, 0.5, round(r.uniform(0.2, 0.4), 2)):
        prompt, answer = r.randint(4, 7), r.randint(2, 3)
        nll = [round(r.uniform(2, 5), 3) for _ in range(prompt)] + [
            round(r.uniform(0.1, 1.5), 3) for _ in range(answer)
        ]
        inputs.append((nll, [False] * prompt + [True] * answer, weight))
    return inputs


def _weighted(weights=lambda answer, weight: 1.0 if answer else weight,
              divisor=lambda weights, is_answer: sum(weights)):  # fmt: skip
    def function(nll, is_answer, weight):
        each = [weights(answer, weight) for answer in is_answer]
        total = sum(w * value for w, value in zip(each, nll, strict=True))
        return total / divisor(each, is_answer)

    return function


prompt_weighted = _weighted()


def _means(together):
    """prompt_weighted by `together(mean of the answer, mean of the prompt, weight)`."""

    def function(nll, is_answer, weight):
        parts = {kind: [value for value, answer in zip(nll, is_answer, strict=True) if answer == kind]
                 for kind in (True, False)}  # fmt: skip
        return together(_mean(parts[True]), _mean(parts[False]), weight)

    return function


register(Exercise(
    id="03.2",
    title="A weight for the prompt",
    points=2,
    difficulty=2,
    minutes=8,
    hint="Give every token its weight first. A weighted mean divides by the sum of the weights.",
    stub=WEIGHT_STUB,
    draw=draw_weight,
    reference=prompt_weighted,
    compare=close(1e-7, 1e-9),
    mistakes=(
        Mistake("all tokens", _weighted(divisor=lambda weights, is_answer: len(is_answer)),
                "divides by the number of tokens, not the sum of weights"),
        Mistake("answer tokens", _weighted(divisor=lambda weights, is_answer: sum(is_answer)),
                "divides by the answer tokens only: prompt weights count too"),
        Mistake("sum", _weighted(divisor=lambda weights, is_answer: 1), "this is the sum: a mean was asked"),
        Mistake("two means", _means(lambda a, p, w: a + w * p),
                "adds two means: weigh tokens, then take one mean"),
        Mistake("blend", _means(lambda a, p, w: (1 - w) * a + w * p),
                "blends two means with 1 - w and w: weigh each token instead"),
        Mistake("mean of means", _means(lambda a, p, w: (a + w * p) / (1 + w)),
                "a weighted mean of two means: long prompts must weigh more"),
        Mistake("turned around", _weighted(lambda answer, weight: weight if answer else 1.0,
                lambda weights, is_answer: sum(weights) or 1),
                "the weight is on the answer: it belongs to the prompt"),
        Mistake("answer only", _weighted(lambda answer, weight: float(answer)),
                "the prompt is left out whatever its weight"),
        Mistake("everything", _weighted(lambda answer, weight: 1.0),
                "every token weighs 1: prompt tokens weigh `weight`"),
    ),
))

# ---------------------------------------------------------------- 03.3 packed

PACKED_STUB = '''\
def packed(lengths):
    """What a token of a packed row may look at, and its position.

    lengths: list of int, the tokens of each row, side by side in this order. Returns (mask, positions):
    mask[i][j] is True if token i may look at token j (itself, and earlier tokens of its own row); positions
    count from 0 in every row.
    """
    raise NotImplementedError
'''


def draw_packed(seed):
    """Two to four rows of different lengths."""
    r = random.Random(seed)
    return [(r.sample(range(2, 7), r.randint(2, 4)),) for _ in range(4)]


def _packed(look=lambda i, j, same: same and j <= i, position=lambda inside, place: inside):
    def function(lengths):
        rows = [(number, inside) for number, length in enumerate(lengths) for inside in range(length)]
        mask = [[look(i, j, rows[i][0] == rows[j][0]) for j in range(len(rows))] for i in range(len(rows))]
        return mask, [position(inside, place) for place, (_, inside) in enumerate(rows)]

    return function


packed = _packed()


def _same(got, want):
    """As `exact`, but 0 and 1 do for False and True."""
    if isinstance(want, bool):
        return type(got) in (bool, int) and got == want
    if isinstance(want, list | tuple):
        return type(got) is type(want) and len(got) == len(want) and all(map(_same, got, want))
    return exact(got, want)


register(Exercise(
    id="03.3",
    title="Packed rows that do not see each other",
    points=3,
    difficulty=3,
    minutes=12,
    hint="List first which row each token is in: [0, 0, 0, 1, 1, ...]. Then compare entries i and j.",
    stub=PACKED_STUB,
    draw=draw_packed,
    reference=packed,
    compare=_same,
    mistakes=(
        Mistake("plain causal", _packed(lambda i, j, same: j <= i),
                "rows see each other: a token may look at its own row only"),
        Mistake("positions run on", _packed(position=lambda inside, place: place),
                "positions run on: they start again at 0 in every row"),
        Mistake("both", _packed(lambda i, j, same: j <= i, lambda inside, place: place),
                "this is one long row: neither mask nor positions are per row"),
        Mistake("inverted", _packed(lambda i, j, same: not (same and j <= i)),
                "the mask is inverted: True where a token may look"),
        Mistake("whole row", _packed(lambda i, j, same: same),
                "a token sees later ones of its row: j <= i is missing"),
        Mistake("turned around", _packed(lambda i, j, same: same and j >= i),
                "mask[i][j] is turned around: i looks, j is looked at"),
        Mistake("not itself", _packed(lambda i, j, same: same and j < i),
                "a token may look at itself too: j <= i"),
        Mistake("other rows", _packed(lambda i, j, same: not same and j <= i),
                "looks at the other rows: at its own was asked"),
        Mistake("from 1", _packed(position=lambda inside, place: inside + 1), "positions begin at 0, not 1"),
    ),
))

# ---------------------------------------------------------------- 03.4 leaked

LEAKED_STUB = '''\
def leaked(train, test, limit):
    """Places in `test` of texts that stand in `train` too, nearly.

    train, test: lists of str. A text is the set of its pairs of neighbouring words, in lower case. Near are
    two texts whose sets reach the Jaccard similarity |A and B| / |A or B| >= limit. Returns the places in
    test, ascending, as a list of int.
    """
    raise NotImplementedError
'''


def draw_leaked(seed):
    """Copies, near copies, parts of texts, words in another order, doubles in test, a pair at the limit."""
    r = random.Random(seed)
    inputs = []
    for _ in range(4):
        letters = "bcdfgklmnprst"
        words = sorted({r.choice(letters) + r.choice("aeiou") + r.choice(letters) + r.choice("aeiou")
                        for _ in range(200)})  # fmt: skip
        words = r.sample(words, 64)
        take = lambda count, words=words: [words.pop() for _ in range(count)]  # noqa: E731
        one, long, six, copied, (q, s) = take(6), take(10), take(6), take(5), take(2)
        cut, mixed = take(8), take(7)
        train = [one, long, [q, s, q, s, q, s], six, copied, cut, mixed]
        test = [[word.upper() for word in one], long[:4], [q, s, q, *take(1)], [*six[:4], *take(1)], copied,
                cut[1:], one[::-1], mixed[::2] + mixed[1::2],
                [first + second for first, second in zip(one[::2], one[1::2], strict=True)]]  # fmt: skip
        test += [take(5)] * 2
        texts = [[" ".join(words) for words in part] for part in (train, test)]
        for part in texts:
            r.shuffle(part)
        inputs.append((*texts, 0.5))
    return inputs


def _pairs(text):
    words = text.lower().split()
    return set(zip(words, words[1:], strict=False))


def _jaccard(a, b):
    return len(a & b) / len(a | b)


def _leaked(pieces=_pairs, alike=_jaccard, reaches=lambda value, limit: value >= limit,
            other=lambda train, test, place: train):  # fmt: skip
    def function(train, test, limit):
        return [place for place, text in enumerate(test)
                if any(reaches(alike(pieces(text), pieces(one)), limit)
                       for one in other(train, test, place))]  # fmt: skip

    return function


leaked = _leaked()


def _counted(text):
    words = text.lower().split()
    return Counter(zip(words, words[1:], strict=False))


def _side_by_side(text):
    words = text.lower().split()
    return set(zip(words[::2], words[1::2], strict=False))


register(Exercise(
    id="03.4",
    title="Near duplicates across splits",
    points=3,
    difficulty=3,
    minutes=12,
    hint="`set(zip(words, words[1:]))` are the pairs; `&` and `|` give the two sizes. Every text of test "
         "against every text of train.",
    stub=LEAKED_STUB,
    draw=draw_leaked,
    reference=leaked,
    compare=exact,
    mistakes=(
        Mistake("within test", _leaked(other=lambda train, test, place: test[:place] + test[place + 1:]),
                "compares test with itself: a leak is between the splits"),
        Mistake("places in train", lambda train, test, limit: leaked(test, train, limit),
                "these are places in train: those in test were asked for"),
        Mistake("exact only", lambda train, test, limit: [i for i, text in enumerate(test) if text in train],
                "finds equal texts only: near ones leak too"),
        Mistake("case", _leaked(lambda text: set(zip(text.split(), text.split()[1:], strict=False))),
                "upper and lower case differ here: take the text in lower case"),
        Mistake("words", _leaked(lambda text: set(text.lower().split())),
                "compares sets of words: pairs of neighbours keep the order"),
        Mistake("side by side", _leaked(_side_by_side),
                "pairs do not overlap: every word begins one, but the last"),
        Mistake("characters", _leaked(lambda text: set(zip(text.lower(), text.lower()[1:], strict=False))),
                "compares pairs of characters: split the text into words first"),
        Mistake("unordered", _leaked(lambda text: {frozenset(pair) for pair in _pairs(text)}),
                "pairs without an order: (a, b) and (b, a) are different"),
        Mistake("above", _leaked(reaches=lambda value, limit: value > limit),
                "misses texts at the limit itself: >= was asked for"),
        Mistake("containment", _leaked(alike=lambda a, b: len(a & b) / min(len(a), len(b))),
                "divides by the smaller set: Jaccard divides by the union"),
        Mistake("sum of sizes", _leaked(alike=lambda a, b: len(a & b) / (len(a) + len(b))),
                "counts the common pairs twice below: the union has them once"),
        Mistake("counted", _leaked(_counted, lambda a, b: (a & b).total() / (a | b).total()),
                "counts repeated pairs: Jaccard is of sets"),
    ),
))

# ---------------------------------------------------------------- 03.5 split_by_group

SPLIT_STUB = '''\
def split_by_group(groups, order, least):
    """Split rows so that no group is on both sides: paraphrases of one sentence belong together.

    groups: list of str, the group of each row; order: list of str, each group once. Test takes whole groups
    in this order until it has at least `least` rows. Returns (train, test), a tuple of two lists of places
    in groups, ascending.
    """
    raise NotImplementedError
'''


def draw_split(seed):
    """Groups of different sizes, mixed; `least` lies inside a group but once."""
    r = random.Random(seed)
    inputs = []
    for number in range(5):
        names = r.sample("abcdefghkmnp", 6)
        sizes = {name: r.randint(2, 5) for name in names}
        groups = [name for name in names for _ in range(sizes[name])]
        r.shuffle(groups)
        # Neither the alphabet nor the rows begin with the same two groups as `order`.
        while set(names[:2]) in (set(sorted(names)[:2]), set(list(dict.fromkeys(groups))[:2])):
            r.shuffle(names)
        # Two groups and a bit, or exactly two: then a third would be one too many.
        inputs.append((groups, names, sizes[names[0]] + sizes[names[1]] + (1 if number else 0)))
    return inputs


def _split(ordered=lambda groups, order: order, enough=lambda taken, rows, least: rows >= least):
    def function(groups, order, least):
        held = []
        for name in ordered(groups, order):
            if enough(held, sum(group in held for group in groups), least):
                break
            held.append(name)
        return _sides(groups, held)

    return function


def _sides(groups, held):
    places = range(len(groups))
    return [i for i in places if groups[i] not in held], [i for i in places if groups[i] in held]


split_by_group = _split()


def _cut(groups, order, least):
    """Groups in order, the last one cut where test has enough rows."""
    test = sorted(sorted(range(len(groups)), key=lambda i: order.index(groups[i]))[:least])
    return [i for i in range(len(groups)) if i not in test], test


def _some(groups, order, least):
    """By group, but the one that would overshoot is left out."""
    held, count = [], 0
    for name in order:
        if count + groups.count(name) > least:
            break
        held.append(name)
        count += groups.count(name)
    return _sides(groups, held)


register(Exercise(
    id="03.5",
    title="Split by group",
    points=2,
    difficulty=2,
    minutes=10,
    hint="Decide first which groups are held out. Then every row follows its group.",
    stub=SPLIT_STUB,
    draw=draw_split,
    reference=split_by_group,
    compare=exact,
    mistakes=(
        Mistake("by row", lambda groups, order, least: (list(range(least, len(groups))), list(range(least))),
                "splits rows, so groups are on both sides: move whole groups"),
        Mistake("cut", _cut, "cuts the last group in two: it goes to test as a whole"),
        Mistake("too few", _some, "test has too few rows: the last group may overshoot"),
        Mistake("one too many", _split(enough=lambda held, rows, least: rows > least),
                "takes a group more than needed: stop once test has `least`"),
        Mistake("order of rows", _split(lambda groups, order: list(dict.fromkeys(groups))),
                "takes groups as the rows come: take them as `order` says"),
        Mistake("alphabet", _split(lambda groups, order: sorted(order)),
                "takes groups by the alphabet: take them as `order` says"),
        Mistake("from the end", _split(lambda groups, order: order[::-1]),
                "takes groups from the end of `order`"),
        Mistake("groups", _split(enough=lambda held, rows, least: len(held) >= least),
                "counts groups: `least` is a number of rows"),
        Mistake("swapped", lambda groups, order, least: split_by_group(groups, order, least)[::-1],
                "train and test are swapped"),
    ),
))

# ---------------------------------------------------------------- 03.6 reported

REPORTED_STUB = '''\
def reported(runs):
    """The test score to report: that of the learning rate which is best on validation.

    runs: list of dict with "rate" (float), "seed" (int), "validation" and "test" (scores, higher is better);
    every rate was run with the same seeds. The best rate is the one with the highest mean validation score
    over seeds. Returns the mean test score of that rate's runs, a float.
    """
    raise NotImplementedError
'''


def draw_reported(seed):
    """Six rates, three seeds: others win on test, by a single run, or by the median."""
    r = random.Random(seed)
    inputs = []
    for _ in range(4):
        rates = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
        r.shuffle(rates)
        steady, lucky, tested, middling, fluke, poor = rates
        noise = lambda: r.uniform(-0.01, 0.01)  # noqa: E731
        runs = []
        for seed_of_run in range(3):
            best = seed_of_run == 1
            scores = {steady: (0.80 - 0.03 * seed_of_run, 0.70 + 0.04 * seed_of_run),
                      lucky: (0.95 if best else 0.55, 0.66), tested: (0.70, 0.85),
                      middling: (0.45 if best else 0.86, 0.60), fluke: (0.60, 0.98 if best else 0.40),
                      poor: (0.40, 0.45)}  # fmt: skip
            runs += [{"rate": rate, "seed": seed_of_run, "validation": round(val + noise(), 4),
                      "test": round(test + noise(), 4)} for rate, (val, test) in scores.items()]  # fmt: skip
        r.shuffle(runs)
        inputs.append((runs,))
    return inputs


def _mean(values):
    return sum(values) / len(values)


def _reported(choose_by="validation", give="test", best=max, over=_mean, report=_mean):
    """Choose a rate by one number over seeds, report another."""

    def function(runs):
        by_rate = _gathered(runs, "rate")
        chosen = best(sorted(by_rate), key=lambda rate: over([run[choose_by] for run in by_rate[rate]]))
        return report([run[give] for run in by_rate[chosen]])

    return function


def _gathered(runs, name):
    return {value: [run for run in runs if run[name] == value] for value in {run[name] for run in runs}}


reported = _reported()


def _highest(name):
    return lambda runs: max(runs, key=lambda run: run[name])


def _chosen_seed(runs):
    """The best rate's test score with the seed that is best on validation."""
    by_rate = _gathered(runs, "rate").values()
    chosen = max(by_rate, key=lambda some: _mean([run["validation"] for run in some]))
    return _highest("validation")(chosen)["test"]


register(Exercise(
    id="03.6",
    title="Choose on validation, report test",
    points=2,
    difficulty=2,
    minutes=8,
    hint="Gather the runs of each rate. One mean chooses, another one is returned.",
    stub=REPORTED_STUB,
    draw=draw_reported,
    reference=reported,
    compare=close(1e-7, 1e-9),
    mistakes=(
        Mistake("best on test", _reported("test"),
                "chooses by test: then test is no longer unseen"),
        Mistake("best run on test", _reported("test", over=max),
                "a lucky run on test chose this rate: choose on validation"),
        Mistake("highest test", lambda runs: max(run["test"] for run in runs),
                "the highest test score of any run: choose on validation"),
        Mistake("validation", _reported(give="validation"),
                "reports the validation score, which was used to choose"),
        Mistake("best run", lambda runs: _highest("validation")(runs)["test"],
                "the best single run: rates are compared by means over seeds"),
        Mistake("rate of the best run", _reported(over=max),
                "a lucky seed chose this rate: compare means over seeds"),
        Mistake("median", _reported(over=median), "compares medians over seeds: the mean was asked for"),
        Mistake("best seed", _reported(report=max),
                "the best seed of the right rate: report the mean over seeds"),
        Mistake("chosen seed", _chosen_seed,
                "the right rate, but one seed chosen on validation: take all"),
        Mistake("rate per seed", lambda runs: _mean([
                _highest("validation")(some)["test"] for some in _gathered(runs, "seed").values()]),
                "chooses a rate for each seed: one rate for all seeds"),
        Mistake("all", lambda runs: _mean([run["test"] for run in runs]),
                "the mean over all rates: only the chosen one counts"),
        Mistake("lowest", _reported(best=min), "takes the worst rate: higher is better"),
    ),
))

# ---------------------------------------------------------------- 03.7 kappa

KAPPA_STUB = '''\
def kappa(first, second):
    """Cohen's kappa of two annotators: (agreement - chance) / (1 - chance).

    first, second: lists of labels (str) of the same rows. `agreement` is the share of rows with equal labels;
    `chance` is what two annotators would reach who drew labels at random, each with their own shares.
    Returns a float; chance is below 1.
    """
    raise NotImplementedError
'''


def draw_kappa(seed):
    """Three labels in unequal shares; the second annotator says "high" more often than the first."""
    r = random.Random(seed)
    inputs = []
    for _ in range(5):
        size = r.randint(14, 20)
        first = ["normal"] * (size - 6) + ["low"] * 4 + ["high"] * 2
        r.shuffle(first)
        normal = [i for i, label in enumerate(first) if label == "normal"]
        moved = set(r.sample(normal, 3))
        inputs.append((first, ["high" if i in moved else label for i, label in enumerate(first)]))
    return inputs


def _agreement(first, second):
    return sum(a == b for a, b in zip(first, second, strict=True)) / len(first)


def _chance(first, second):
    left, right = Counter(first), Counter(second)
    return sum(left[label] * right[label] for label in left) / len(first) ** 2


def _kappa(chance=_chance, value=lambda agreed, chance: (agreed - chance) / (1 - chance)):
    return lambda first, second: value(_agreement(first, second), chance(first, second))


kappa = _kappa()


def _pooled(first, second):
    both = Counter(first) + Counter(second)
    return sum((count / (2 * len(first))) ** 2 for count in both.values())


register(Exercise(
    id="03.7",
    title="Agreement beyond chance",
    points=2,
    difficulty=2,
    minutes=10,
    hint="Chance is a sum over labels: the share of the label with the first annotator times that with the "
         "second.",
    stub=KAPPA_STUB,
    draw=draw_kappa,
    reference=kappa,
    compare=close(1e-7, 1e-9),
    mistakes=(
        Mistake("agreement", _kappa(value=lambda agreed, chance: agreed),
                "this is the bare agreement: take chance away from it"),
        Mistake("chance", _kappa(value=lambda agreed, chance: chance), "this is chance alone"),
        Mistake("equal shares", _kappa(lambda first, second: 1 / len(set(first) | set(second))),
                "takes all labels as equally likely: use their shares"),
        Mistake("pooled", _kappa(_pooled),
                "pools both annotators (that is Scott's pi): shares of each"),
        Mistake("first only", _kappa(lambda first, second: _chance(first, first)),
                "squares the first annotator's shares: times the second's"),
        Mistake("second only", _kappa(lambda first, second: _chance(second, second)),
                "squares the second annotator's shares: times the first's"),
        Mistake("not divided", _kappa(value=lambda agreed, chance: agreed - chance),
                "not divided by 1 - chance: full agreement must give 1"),
        Mistake("wrong divisor", _kappa(value=lambda agreed, chance: (agreed - chance) / (1 - agreed)),
                "divides by 1 - agreement: it is 1 - chance"),
        Mistake("counts", _kappa(lambda first, second: _chance(first, second) * len(first)),
                "chance is above 1: divide by the square of the number of rows"),
    ),
))
