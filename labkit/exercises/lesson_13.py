"""Exercises of lesson 13: BM25, recall and reciprocal rank, a decoding mask, a choice from a table."""

import math
import random
from statistics import mean

from labkit.exercises.spec import Exercise, Mistake, close, exact, register

# ---------------------------------------------------------------- 13.1 bm25

BM25_STUB = '''\
def bm25(query, document, documents, k1, b):
    """The BM25 score of a document: the sum over the query's words w of idf(w) * f / (f + k1 * norm).

    f counts w in the document; norm = 1 - b + b * len(document) / (mean length of documents). idf(w) is
    ln(1 + (n - n_w + 0.5) / (n_w + 0.5)), where n_w of the n documents have w. A word that the query repeats
    counts again. query and document: lists of words; documents: all of them, `document` too. A float.
    """
    raise NotImplementedError
'''


def draw_bm25(seed):
    """Documents of unlike lengths with repeated words; queries that repeat one and ask for an unknown one."""
    r = random.Random(seed)
    common, rare = ["the", "shop", "opens"], ["tent", "lamp", "price", "gate", "weekend"]
    inputs = []
    for place in range(4):
        sizes = r.sample(range(3, 12), 4)
        documents = [[r.choice(common + rare) for _ in range(size)] for size in sizes]
        for own in documents[:2]:
            own.extend(["lamp", "lamp"])
        query = [r.choice(rare), "lamp", r.choice(common), "shop"]
        query += [["lamp"], ["unicorn"], ["tent", "lamp", "lamp"], []][place]
        inputs.append((query, documents[place % 2], documents, r.choice((1.2, 1.6, 2.0)),
                       r.choice((0.5, 0.75))))  # fmt: skip
    return inputs


def _idf(n, having):
    return math.log(1 + (n - having + 0.5) / (having + 0.5))


def _bm25(idf=_idf, asked=list, f_of=lambda word, document, query: document.count(word),
          having=lambda word, documents: sum(word in one for one in documents),
          length=lambda document, documents: len(document) / mean(map(len, documents)),
          gain=lambda f, k: f / (f + k) if f + k else 0.0):  # fmt: skip
    """bm25 with one part done otherwise."""

    def function(query, document, documents, k1, b):
        norm = 1 - b + b * length(document, documents)
        return float(sum(
            idf(len(documents), having(word, documents)) * gain(f_of(word, document, query), k1 * norm)
            for word in asked(query) if word in document
        ))  # fmt: skip

    return function


bm25 = _bm25()


def _classic(query, document, documents, k1, b):
    return (k1 + 1) * bm25(query, document, documents, k1, b)


def _b_turned(query, document, documents, k1, b):
    return bm25(query, document, documents, k1, 1 - b)


def _norm_outside(query, document, documents, k1, b):
    """idf * f / (f + k1) * norm: the brackets are lost."""
    norm = 1 - b + b * len(document) / mean(map(len, documents))
    return norm * _bm25(length=lambda document, documents: 1.0)(query, document, documents, k1, b)


def _norm_alone(query, document, documents, k1, b):
    return bm25(query, document, documents, 1.0, b)


register(Exercise(
    id="13.1",
    title="BM25",
    points=3,
    difficulty=3,
    minutes=10,
    hint="One loop over the query's words. n_w is `sum(w in one for one in documents)`.",
    stub=BM25_STUB,
    draw=draw_bm25,
    reference=bm25,
    compare=close(1e-9, 1e-12),
    mistakes=(
        Mistake("no idf", _bm25(idf=lambda n, having: 1.0), "idf is left out: rare words say more"),
        Mistake("no length", _bm25(length=lambda document, documents: 1.0),
                "the length is not normalised: b and the mean length are unused"),
        Mistake("k1 on query", _bm25(f_of=lambda word, document, query: query.count(word)),
                "f counts the word in the query: count it in the document"),
        Mistake("no 1 in log", _bm25(idf=lambda n, having: math.log((n - having + 0.5) / (having + 0.5))),
                "the 1 + inside the log is missing: idf can fall below 0"),
        Mistake("occurrences", _bm25(having=lambda word, documents: sum(one.count(word)
                                                                      for one in documents)),
                "n_w counts occurrences: count the documents that have w"),
        Mistake("once each", _bm25(asked=dict.fromkeys), "a word that the query repeats must count again"),
        Mistake("no saturation", _bm25(gain=lambda f, k: float(f)),
                "f does not saturate: divide it by f + k1 * norm"),
        Mistake("present", _bm25(f_of=lambda word, document, query: 1),
                "f is 1 for every word: count how often the document has it"),
        Mistake("turned length", _bm25(length=lambda document, documents: mean(map(len, documents))
                                       / len(document)),
                "the length is turned round: it is length / mean length"),
        Mistake("k1 + 1", _classic, "a factor k1 + 1 on top: this formula, as Lucene's, has none"),
        Mistake("b turned", _b_turned, "b is turned round: norm is 1 - b + b * length / mean"),
        Mistake("no k1", _norm_alone, "k1 is not used: it stands before norm"),
        Mistake("norm outside", _norm_outside, "norm stands outside: it is f / (f + k1 * norm)"),
        Mistake("log10", _bm25(idf=lambda n, having: _idf(n, having) / math.log(10)),
                "the logarithm is to the base 10: idf takes math.log"),
        Mistake("plain idf", _bm25(idf=lambda n, having: math.log(n / having)),
                "the idf is ln(n / n_w): the 0.5 above and below are missing"),
    ),
))

# ---------------------------------------------------------------- 13.2 recall_and_rank

RANK_STUB = '''\
def recall_and_rank(scores, right, k):
    """(recall at k, mean reciprocal rank) of a search, as floats.

    scores: for each question {piece number: score} of the pieces found; the highest score is best, and of
    equal scores the smaller piece number. right: for each question the list of pieces that answer it.
    A question whose list is empty has no answer and does not count. The place of a question is that of its
    first right piece, from 1. Recall at k: the share of places up to k. Reciprocal rank: 1 / place, whatever
    k is; 0 if no right piece was found.
    """
    raise NotImplementedError
'''


def draw_rank(seed):
    """Ties with a right piece on either side, misses, questions without an answer, two right pieces."""
    r = random.Random(seed)
    fixed_scores = [
        {4: 2.0, 1: 3.0, 7: 2.0, 2: 0.5},  # tie of 4 and 7, right is 7: third
        {5: 1.0, 3: 1.0, 9: 0.2},  # tie of 3 and 5, right is 3: first
        {6: 2.5, 0: 1.5},  # missed
        {2: 1.0, 1: 0.4},  # no answer
        {9: 5.0, 1: 2.0, 3: 1.0, 4: 0.3},  # right: 9, 3 and 4
        {0: 2.0, 3: 1.0, 11: 1.5},  # right is 11: second, and k is 2
    ]
    fixed = (fixed_scores, [[7], [3], [5], [], [9, 3, 4], [11]], 2)
    inputs = [fixed]
    for k in (1, 3):
        scores, right = [], []
        for _ in range(6):
            pieces = r.sample(range(12), 5)
            scores.append({piece: r.randint(1, 8) / 2 for piece in pieces})
            right.append(r.sample(range(12), r.choice((1, 1, 2))))
        right[r.randrange(6)] = []
        inputs.append((scores, right, k))
    return inputs


def _order(found, later=False, ascending=False):
    sign = 1 if ascending else -1
    return sorted(found, key=lambda piece: (sign * found[piece], -piece if later else piece))


def _rank(order=_order, pick=min, drop=True, off=0, missed=True, cut=False, best=1.0):
    """recall_and_rank with one part done otherwise; `off` is added to a place in recall."""

    def function(scores, right, k):
        places = []
        for found, own in zip(scores, right, strict=True):
            if not own and drop:
                continue
            there = [place for place, piece in enumerate(order(found), 1) if piece in own]
            if there or missed:
                places.append(pick(there) if there else math.inf)
        recall = sum(place + off <= k for place in places) / len(places)
        inverse = [0.0 if cut and place > k else best / place for place in places]
        return recall, sum(inverse) / len(inverse)

    return function


recall_and_rank = _rank()


def _as_given(scores, right, k):
    return _rank(order=list)(scores, right, k)


def _share_of_pieces(scores, right, k):
    """Recall as the share of a question's right pieces, as where several are wanted."""
    shares = [len(set(_order(found)[:k]) & set(own)) / len(own)
              for found, own in zip(scores, right, strict=True) if own]  # fmt: skip
    return mean(shares), recall_and_rank(scores, right, k)[1]


def _rank_of_mean(scores, right, k):
    """1 over the mean place of what was found."""
    places = [min(place for place, piece in enumerate(_order(found), 1) if piece in own)
              for found, own in zip(scores, right, strict=True) if set(found) & set(own)]  # fmt: skip
    return recall_and_rank(scores, right, k)[0], 1 / mean(places) if places else 0.0


def _over_all(scores, right, k):
    """Recall over all questions, those without an answer too."""
    recall, rank = recall_and_rank(scores, right, k)
    return recall * sum(map(bool, right)) / len(right), rank


def _every_place(scores, right, k):
    """1 / place summed over all right pieces of a question."""
    sums = [sum(1 / place for place, piece in enumerate(_order(found), 1) if piece in own)
            for found, own in zip(scores, right, strict=True) if own]  # fmt: skip
    return recall_and_rank(scores, right, k)[0], mean(sums)


def _from_zero(scores, right, k):
    """Places from 0 in both: 1 / (place + 1) would have been right, 1 / (place + 2) is one too far."""
    recall = _rank(off=-1)(scores, right, k)[0]
    return recall, recall_and_rank(scores, right, k)[1]


register(Exercise(
    id="13.2",
    title="Recall and reciprocal rank",
    points=2,
    difficulty=2,
    minutes=8,
    hint="`sorted(found, key=lambda piece: (-found[piece], piece))` is the order; number it from 1.",
    stub=RANK_STUB,
    draw=draw_rank,
    reference=recall_and_rank,
    compare=close(1e-9, 1e-12),
    mistakes=(
        Mistake("from 0", _from_zero, "places count from 0: recall at k then takes k + 1 pieces"),
        Mistake("one short", _rank(off=1), "recall leaves place k out: places up to k count"),
        Mistake("unanswered", _rank(drop=False), "a question without an answer must not count at all"),
        Mistake("ties", _rank(order=lambda found: _order(found, later=True)),
                "of equal scores the smaller piece number comes first"),
        Mistake("worst first", _rank(order=lambda found: _order(found, ascending=True)),
                "sorted from the lowest score: the highest is best"),
        Mistake("not sorted", _as_given, "the pieces are not sorted by score"),
        Mistake("last", _rank(pick=max), "takes the last right piece: the first one counts"),
        Mistake("misses left out", _rank(missed=False), "misses are left out: they count, with 0"),
        Mistake("cut at k", _rank(cut=True), "the reciprocal rank is cut at k: it looks at all pieces"),
        Mistake("share of pieces", _share_of_pieces,
                "recall of right pieces: here one of them among the k is enough"),
        Mistake("over all", _over_all, "recall is over all questions: leave those without an answer out"),
        Mistake("every place", _every_place, "1 / place of every right piece is added: the first one counts"),
        Mistake("1 / mean", _rank_of_mean, "1 over the mean place: take the mean of 1 / place, misses too"),
    ),
))

# ---------------------------------------------------------------- 13.3 allowed_tokens

ALLOWED_STUB = '''\
def allowed_tokens(answers, tokens, end, so_far):
    """Which tokens may come next, as a list of bool, one for each token.

    answers: the texts that may be written. tokens: the texts of the vocabulary, each of one character or
    more. so_far: what is written already. A token may come if so_far and the token together are the beginning
    of an answer, or all of it. The token at index `end` ends the answer, whatever its text: it may come if
    so_far is an answer.
    """
    raise NotImplementedError
'''


def draw_allowed(seed):
    """Answers of which one begins another, tokens that go past an end, and every stage of writing."""
    r = random.Random(seed)
    verbs = r.sample(["refund", "return", "report", "repair", "rental"], 3)
    answers = [*verbs, f"{verbs[0]}able", f"{verbs[1]} {verbs[0]}"]
    tokens = ["<end>", "r", "re", "rex", verbs[0], verbs[1], verbs[2][:4], verbs[2][4:], verbs[0][2:],
              verbs[1][2:], "able", " ", f" {verbs[0]}", "s", "d", "fu", "n", "t", "tal", "zzz"]  # fmt: skip
    r.shuffle(tokens)
    end = tokens.index("<end>")
    inputs = []
    for so_far in ("", "re", verbs[0], verbs[1], verbs[2][:4], f"{verbs[0]}able"):
        inputs.append((answers, tokens, end, so_far))
    last = tokens[:end] + [verbs[2][0]] + tokens[end + 1 :]  # the end token's text is that of another token
    return [*inputs, (answers, last, end, "")]


def _continues(answers, so_far, token):
    return any(answer.startswith(so_far + token) for answer in answers)


def _allowed(fits=_continues, ends=lambda answers, so_far: so_far in answers, special=True):
    """allowed_tokens with another rule for tokens, or for the end."""

    def function(answers, tokens, end, so_far):
        return [ends(answers, so_far) if special and place == end else fits(answers, so_far, token)
                for place, token in enumerate(tokens)]  # fmt: skip

    return function


allowed_tokens = _allowed()


def _whole(answers, so_far, token):
    return so_far + token in answers


def _first_character(answers, so_far, token):
    return _continues(answers, so_far, token[0])


def _anywhere(answers, so_far, token):
    return any(answer.startswith(so_far) and token in answer[len(so_far) :] for answer in answers)


def _past_the_end(answers, so_far, token):
    return any(answer.startswith(so_far + token) or (so_far + token).startswith(answer) for answer in answers)


def _end_only(answers, tokens, end, so_far):
    """Nothing but the end after an answer, though a longer one begins with it."""
    if so_far in answers:
        return [place == end for place in range(len(tokens))]
    return allowed_tokens(answers, tokens, end, so_far)


def _end_either(answers, tokens, end, so_far):
    """The end is also allowed where its text would fit."""
    allowed = [_continues(answers, so_far, token) for token in tokens]
    allowed[end] = allowed[end] or so_far in answers
    return allowed


register(Exercise(
    id="13.3",
    title="A mask over the next token",
    points=2,
    difficulty=2,
    minutes=8,
    hint="`answer.startswith(so_far + token)` for any answer; the end token is a case of its own.",
    stub=ALLOWED_STUB,
    draw=draw_allowed,
    reference=allowed_tokens,
    compare=exact,
    mistakes=(
        Mistake("whole answers", _allowed(fits=_whole),
                "only tokens that complete an answer: a beginning is enough"),
        Mistake("first character", _allowed(fits=_first_character),
                "looks at the token's first character: all of it must fit"),
        Mistake("anywhere", _allowed(fits=_anywhere),
                "the token stands somewhere later in an answer: it must come next"),
        Mistake("written ignored", _allowed(
                    fits=lambda answers, so_far, token: _continues(answers, "", token)),
                "what is written already is not used"),
        Mistake("ends early", _allowed(ends=lambda answers, so_far: True),
                "the end is always allowed: only a whole answer may end"),
        Mistake("ends in a beginning", _allowed(ends=lambda answers, so_far: bool(so_far) and
                                                _continues(answers, so_far, "")),
                "the end is allowed too early: a beginning is no answer"),
        Mistake("never ends", _allowed(ends=lambda answers, so_far: False), "the end is never allowed"),
        Mistake("ends late", _allowed(ends=lambda answers, so_far: so_far in answers and not any(
                    answer != so_far and answer.startswith(so_far) for answer in answers)),
                "an answer may end although a longer one begins with it"),
        Mistake("end as text", _allowed(special=False), "the end token is judged by its text: it ends"),
        Mistake("end only", _end_only,
                "only the end after an answer: a longer one may go on"),
        Mistake("end either", _end_either,
                "the end is allowed where its text fits: only after an answer"),
        Mistake("past the end", _allowed(fits=_past_the_end),
                "allows tokens that write past the end of an answer"),
        Mistake("turned", lambda *args: [not one for one in allowed_tokens(*args)],
                "turned round: True is for tokens that are allowed"),
    ),
))

# ---------------------------------------------------------------- 13.4 choose

CHOOSE_STUB = '''\
def choose(ways, mix, worth):
    """The way to answer that is surely worth most, and how much, for a thousand requests: (name, dollars).

    ways: {name: {"right": {kind: (mean, low, high)}, "cost": dollars for a thousand requests}}; shares right
    from 0 to 1 with the ends of their intervals. mix: {kind: share of the requests}; they add up to 1.
    worth: dollars that one right answer brings. Count with `low`, as you want to be sure; a kind that a way
    has no number for brings nothing. Then take off the cost.
    """
    raise NotImplementedError
'''


def draw_choose(seed):
    """Four ways: the best mean with a wide interval, a dear one, one that lacks a kind, a plain one."""
    r = random.Random(seed)

    def share(low, wide):
        low += r.uniform(-0.02, 0.02)
        return round(low + wide * r.uniform(0.45, 0.55), 4), round(low, 4), round(low + wide, 4)

    inputs = []
    for worth in (0.1, 0.4, 2.0):
        ways = {
            "few-shot": {"right": {"form": share(0.3, 0.1), "facts": share(0.25, 0.1)}, "cost": 2.0},
            "finetuned": {"right": {"form": share(0.45, 0.5), "facts": share(0.2, 0.7)}, "cost": 4.0},
            "retrieval": {"right": {"facts": share(0.7, 0.1)}, "cost": 9.0},
            "both": {"right": {"form": share(0.5, 0.04), "facts": share(0.5, 0.04)},
                     "cost": round(worth * r.uniform(180, 260), 2)},
        }  # fmt: skip
        first = round(r.uniform(0.35, 0.45), 2)
        inputs.append((ways, {"form": first, "facts": 1 - first}, worth))
    ways = inputs[-1][0]
    dear = {**ways, "both": {**ways["both"], "cost": 5.0}}
    inputs.append((dear, {"form": 0.8, "facts": 0.15, "chat": 0.05}, 1.5))
    return inputs


def _choose(end=1, cost=lambda value, cost: value - cost, part=lambda mix, kind, own: mix[kind],
            pick=max, thousand=1000):  # fmt: skip
    """choose with one part done otherwise; `end` is the place in (mean, low, high)."""

    def function(ways, mix, worth):
        values = {}
        for name, way in ways.items():
            own = way["right"]
            right = sum(part(mix, kind, own) * own[kind][end] for kind in mix if kind in own)
            values[name] = cost(thousand * worth * right, way["cost"])
        best = pick(values, key=values.get)
        return best, values[best]

    return function


choose = _choose()


def _answered_only(mix, kind, own):
    """Shares as though the other kinds were never asked."""
    return mix[kind] / sum(share for name, share in mix.items() if name in own)


def _complete_only(ways, mix, worth):
    """Ways that lack a kind of the mix are never chosen."""
    complete = {name: way for name, way in ways.items() if set(mix) <= set(way["right"])}
    return choose(complete, mix, worth) if complete else (None, 0.0)


def _cost_on_ties(ways, mix, worth):
    """Chosen without the cost, which is taken off afterwards."""
    best, value = _choose(cost=lambda value, cost: value)(ways, mix, worth)
    return best, value - ways[best]["cost"]


def _chosen_by_mean(ways, mix, worth):
    """Chosen by means; the value of the one chosen is then counted with its lower end."""
    best, _ = _choose(end=0)(ways, mix, worth)
    return best, choose({best: ways[best]}, mix, worth)[1]


register(Exercise(
    id="13.4",
    title="Choose from a table",
    points=3,
    difficulty=3,
    minutes=10,
    hint="For each way: 1000 * worth * (sum over the mix of share * low) - cost. Then the largest.",
    stub=CHOOSE_STUB,
    draw=draw_choose,
    reference=choose,
    compare=close(1e-9, 1e-9),
    mistakes=(
        Mistake("mean", _choose(end=0), "counts with the mean: the lower end is what is sure"),
        Mistake("chosen by mean", _chosen_by_mean, "chooses by the largest mean: choose by the lower end"),
        Mistake("upper end", _choose(end=2), "counts with the upper end: that is hoping"),
        Mistake("no cost", _choose(cost=lambda value, cost: value), "the cost is not taken off"),
        Mistake("cost later", _cost_on_ties, "chooses without the cost: take it off before you compare"),
        Mistake("unanswered", _choose(part=_answered_only),
                "unanswered kinds leave the mix: they bring 0, and count"),
        Mistake("no mix", _choose(part=lambda mix, kind, own: 1 / len(mix)),
                "all kinds count the same: weigh them by the mix"),
        Mistake("sum", _choose(part=lambda mix, kind, own: 1), "the mix is not used: weigh each kind by it"),
        Mistake("one request", _choose(thousand=1), "the worth of one request, the cost of a thousand"),
        Mistake("worst", _choose(pick=min), "this is the way that is worth least"),
        Mistake("cost added", _choose(cost=lambda value, cost: value + cost),
                "the cost is added: take it off"),
        Mistake("complete only", _complete_only,
                "a way that lacks a kind is left out: it may still win"),
        Mistake("cost / 1000", _choose(cost=lambda value, cost: value - cost / 1000),
                "the cost is divided by 1000: it is that of a thousand already"),
        Mistake("cost a request", _choose(cost=lambda value, cost: value - 1000 * cost),
                "the cost is that of a thousand requests already"),
    ),
))
