"""Exercises of lesson 00: the labels of a training row, and the score of an answer."""

import json
import random
import re

from labkit.exercises.spec import Exercise, Mistake, close, register

# ---------------------------------------------------------------- 00.2 loss_labels

LOSS_LABELS_STUB = '''\
def loss_labels(prompt_ids, answer_ids):
    """Labels for training on `prompt_ids + answer_ids`, with the loss on the answer only.

    prompt_ids, answer_ids: lists of int; the end token is part of answer_ids.
    Returns a list of int as long as both together: a token's own id where the loss is taken,
    -100 where it is not. The model shifts labels by one itself.
    """
    raise NotImplementedError
'''


def draw_loss_labels(seed):
    """Ten pairs of token lists like a chat row's: the answer shares tokens, and its end, with the prompt."""
    r = random.Random(seed)
    inputs = [([1, 2], [r.randrange(300, 49152), 2])]
    for _ in range(9):
        words = [r.randrange(300, 49152) for _ in range(r.randint(6, 14))]
        prompt = [1, *words, 2, 198, 1]              # <|im_start|> ... <|im_end|>, newline, <|im_start|>
        answer = r.sample(words, 3) + [r.randrange(300, 49152) for _ in range(r.randint(2, 6))]
        r.shuffle(answer)
        inputs.append((prompt, [*answer, 2]))
    return inputs


def loss_labels(prompt_ids, answer_ids):
    return [-100] * len(prompt_ids) + list(answer_ids)


register(Exercise(
    id="00.2",
    title="Where the loss is taken",
    points=2,
    difficulty=1,
    minutes=5,
    hint="`[-100] * n` is a list of n masked positions.",
    stub=LOSS_LABELS_STUB,
    draw=draw_loss_labels,
    reference=loss_labels,
    mistakes=(
        Mistake(
            "nothing masked",
            lambda prompt, answer: prompt + answer,
            "nothing is masked: the prompt's labels must be -100",
        ),
        Mistake(
            "answer masked",
            lambda prompt, answer: prompt + [-100] * len(answer),
            "the answer is masked: mask the prompt, keep the answer",
        ),
        Mistake(
            "end token masked",
            lambda prompt, answer: [-100] * len(prompt) + answer[:-1] + [-100],
            "the end token is masked: the model never learns to stop",
        ),
        Mistake(
            "shifted",
            lambda prompt, answer: ([-100] * len(prompt) + answer)[1:] + [-100],
            "shifted by one: the model shifts labels itself, you must not",
        ),
        Mistake(
            "answer only",
            lambda prompt, answer: list(answer),
            "these are the answer's labels only: the prompt needs its -100s",
        ),
        Mistake(
            "end token dropped",
            lambda prompt, answer: [-100] * len(prompt) + answer[:-1],
            "the last answer token is gone: the model never learns to stop",
        ),
        Mistake(
            "shifted right",
            lambda prompt, answer: [-100] * (len(prompt) + 1) + answer[:-1],
            "shifted right by one: each label stands at its own token",
        ),
        Mistake(
            "all masked",
            lambda prompt, answer: [-100] * (len(prompt) + len(answer)),
            "everything is masked: nothing is left to learn from",
        ),
        Mistake(
            "masked by value",
            lambda prompt, answer: [-100 if token in prompt else token for token in prompt + answer],
            "masked by value: the answer may repeat a token of the prompt",
        ),
    ),
))

# ---------------------------------------------------------------- 00.1 exact_match

EXACT_MATCH_STUB = '''\
def exact_match(answers, golds):
    """Share of answers whose JSON object equals the gold object.

    answers: list of str, as a model wrote them; golds: list of dict, equally long.
    Returns a float from 0 to 1. The order of keys and white space do not matter; an answer that is
    not valid JSON, or is more than JSON, is wrong.
    """
    raise NotImplementedError
'''

PRODUCTS = ("Kestrel 2 tent", "Frost vest", "Heath boots", "Cinder 2 stove", "Drizzle poncho")
INTENTS = ("return", "exchange", "order_status", "cancel", "invoice")


def draw_ticket(r):
    """One gold object, a little simpler than the tickets."""
    order = {"order": f"N{r.randrange(10**4, 10**5)}"} if r.random() < 0.6 else {}
    return {
        "intent": r.choice(INTENTS),
        "product": r.choice(PRODUCTS),
        **order,
        "quantity": r.randint(1, 6),
        "urgency": r.choice(("low", "normal", "high")),
        "missing": [] if order else ["order"],
    }


def write_answer(kind, gold, r):
    """Write a gold object the way a model might: right in three ways, wrong in six."""
    text = json.dumps(gold)
    if kind == "reordered":
        return json.dumps(dict(reversed(gold.items())))
    if kind == "spaced":
        return "\n" + json.dumps(gold, indent=r.choice((1, 2, 4))) + "\n"
    if kind == "prose":
        return f"Here is the ticket: {text}"
    if kind == "cut":
        return text[: r.randint(20, len(text) - 1)]
    if kind == "quotes":
        return str(gold)
    if kind == "extra":
        return json.dumps(gold | {"date": f"{r.randint(10, 12)}-{r.randint(10, 28)}"})
    if kind == "changed":
        return json.dumps(gold | {"quantity": gold["quantity"] + r.randint(1, 3)})
    if kind == "dropped":
        return json.dumps({k: v for k, v in gold.items() if k != "intent"})
    return text


def draw_exact_match(seed):
    """Eight batches of answers; the first is wholly valid JSON, the others hold every kind of answer."""
    r = random.Random(seed)
    always = ("plain", "reordered", "spaced", "changed", "extra")
    inputs = []
    for batch in range(8):
        kinds = list(always)
        if batch:
            kinds += ["prose", "cut", "quotes", "dropped"] + r.choices((*always, "cut"), k=r.randint(0, 4))
        r.shuffle(kinds)
        golds = [draw_ticket(r) for _ in kinds]
        inputs.append(([write_answer(k, g, r) for k, g in zip(kinds, golds, strict=True)], golds))
    return inputs


def exact_match(answers, golds):
    right = 0
    for answer, gold in zip(answers, golds, strict=True):
        try:
            right += json.loads(answer) == gold
        except ValueError:
            pass
    return right / len(golds)


def _parse(text):
    """The value of a JSON text, or None."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _in_order(answers, golds):
    return sum(str(_parse(a)) == str(g) for a, g in zip(answers, golds, strict=True)) / len(golds)


def _skip_invalid(answers, golds):
    parsed = [_parse(a) for a in answers]
    valid = [(p, g) for p, g in zip(parsed, golds, strict=True) if p is not None]
    return sum(p == g for p, g in valid) / len(valid)


def _dig_out(answers, golds):
    found = [re.search(r"\{.*\}", a, re.S) for a in answers]
    return sum(f is not None and _parse(f[0]) == g for f, g in zip(found, golds, strict=True)) / len(golds)


def _give_up(answers, golds):
    try:
        return _in_any_order(answers, golds)
    except ValueError:
        return 0.0


def _in_any_order(answers, golds):
    return sum(json.loads(a) == g for a, g in zip(answers, golds, strict=True)) / len(golds)


def _subset(answers, golds):
    parsed = [_parse(a) for a in answers]
    right = sum(
        isinstance(p, dict) and all(k in p and p[k] == v for k, v in g.items())
        for p, g in zip(parsed, golds, strict=True)
    )
    return right / len(golds)


register(Exercise(
    id="00.1",
    title="Score strict JSON",
    points=2,
    difficulty=2,
    minutes=8,
    hint="`json.loads` raises `ValueError` on text that is not JSON; dictionaries compare with `==`.",
    stub=EXACT_MATCH_STUB,
    draw=draw_exact_match,
    reference=exact_match,
    compare=close(1e-9, 1e-9),
    mistakes=(
        Mistake(
            "strings compared",
            lambda answers, golds: sum(map(str.__eq__, answers, map(json.dumps, golds))) / len(golds),
            "compares text: key order and white space must not matter",
        ),
        Mistake("order matters", _in_order, "compares text after parsing: key order must not matter"),
        Mistake(
            "invalid skipped",
            _skip_invalid,
            "divides by valid answers only: an invalid answer counts as wrong",
        ),
        Mistake("dug out", _dig_out, "digs JSON out of prose: the whole answer must be JSON"),
        Mistake(
            "count",
            lambda answers, golds: len(golds) * exact_match(answers, golds),
            "this is a count: divide it by the number of answers",
        ),
        Mistake("gave up", _give_up, "one answer that is not JSON ends the count: go on with the next"),
        Mistake("subset", _subset, "accepts extra fields: the objects must be equal"),
        Mistake(
            "percent",
            lambda answers, golds: 100 * exact_match(answers, golds),
            "this is a percentage: return a share from 0 to 1",
        ),
        Mistake(
            "crash",
            lambda answers, golds: sum(map(dict.__eq__, golds, map(json.loads, answers))) / len(golds),
            "stops at an answer that is not JSON: catch it, count it as wrong",
        ),
    ),
))
