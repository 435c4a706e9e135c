"""The tables of `bench decide`, each of the record's values, and its decision chart."""

from statistics import mean, median

from labkit.bench.decide_chart import (
    ARMS,
    CARD,
    LABELS,
    NAME,
    NET,
    SHORT,
    chart,
    decision_table,
    dollars,
    interval,
    ms_of,
    points,
    price,
)
from labkit.bench.decide_facts import ABSENT, CONTROLS, KINDS
from labkit.bench.markdown import measured, table, together, values

__all__ = ["accuracy_table", "chart", "control_table", "cost_table", "decision_table", "lines", "price",
           "retrieval_table", "small_table", "training_table", "update_table",
           "ways"]  # fmt: skip


@measured(NAME)
def lines(found):
    """All tables as Markdown lines."""
    tables = (accuracy_table, decision_table, small_table, retrieval_table, training_table, cost_table,
              update_table, control_table)  # fmt: skip
    return together(tables, found)


@measured(NAME)
def accuracy_table(found):
    """Markdown lines: share right of each arm on each kind of question, with intervals; what lies beside."""
    kinds = found["kinds"]
    every = [arm for arm in ARMS if any(arm in one["arms"] for one in kinds.values())]
    rows = [[ARMS[arm], *(interval(one["arms"].get(arm)) for one in kinds.values())] for arm in every]
    facts = [kind for kind in kinds if kind.startswith("facts") and kind != ABSENT]
    beside = [[ARMS[arm], _seeds(found["valid"].get(arm)),
               *(_percent(kinds[kind]["arms"].get(arm), "contains") for kind in facts),
               *_refusals(found, arm)] for arm in every]  # fmt: skip
    contains = "|".join(f"contains it, {kind.partition(': ')[2]}" for kind in facts)
    return [
        *table(f"way|{'|'.join(LABELS.get(kind, kind) for kind in kinds)}", rows),
        "",
        "Test rows exactly right, %, with 95% intervals over phrasings (of facts: over facts or phrasings, "
        "whichever reach is wider) and, where something is trained, "
        f"{_count(len(found['settings']['seeds']), 'seed')}. Form: all seven fields of "
        "a ticket. Facts: stated in training and asked in new phrasings (trained), stated otherwise in "
        f"training than now (changed), only in the documents (untrained), nowhere (absent). {NET}",
        "",
        *table(f"way|form: valid|{contains}|{REFUSED}", beside),
        "",
        "Beside the exact shares, %: tickets of valid form, whatever they say; answers in which the right "
        "one stands, whatever else they say; refusals of both sorts. Who trained on passages read some that "
        "state untrained facts, and was never asked about them.",
    ]


REFUSED = "refused, absent|refused, answerable"


def _refusals(found, arm):
    one = found["kinds"].get(ABSENT, {"arms": {}})["arms"].get(arm)
    return [_percent(one, "refused"), _percent(one, "falsely refused")]


def _percent(one, key):
    return f"{100 * one[key]:.1f}" if one else ""


@measured(NAME)
def training_table(found):
    """Markdown lines: what each training saw, and its learning rate among those tried."""
    names = {"form": "tickets", "skill": "sql", "handbook": "handbook", "handbook, both": "both"}
    rows = []
    for name, arm in names.items():
        tried, rate, runs = found["rates tried"][arm], found["chosen"]["rates"][arm], found["training"][name]
        end = ", an end of those tried" if rate in (min(map(float, tried)), max(map(float, tried))) else ""
        rows.append([name, f"{runs[0]['rows']:,}", f"{mean(one['epochs'] for one in runs):.1f}",
                     f"{100 * mean(one['refusals'] for one in runs):.0f}",
                     f"{mean(one['seconds'] for one in runs):.0f}", f"{rate:g}{end}",
                     ", ".join(f"{one} {100 * right:.1f}" for one, right in tried.items())])  # fmt: skip
    asked = found["settings"]
    return [
        *table("trained on|rows|epochs|refusals, % of rows|seconds|rate|rates tried: right, %", rows),
        "",
        f"Every weight; {asked['steps']} steps of {asked['batch']} x {asked['length']} tokens, for rows with "
        f"passages (both) {asked['reading steps']}. Rates are chosen with the first seed: form and skill on "
        "phrasings kept from training, the handbook on validation rows. Seconds with others beside.",
    ]


@measured(NAME)
def small_table(found):
    """Markdown lines: the finetuned base beside the same base prompted, and a larger model if any."""
    larger, rows = found["settings"]["larger"], []
    for kind, one in found["small"].items():
        for name, who in (("same", "the same base"), ("larger", larger)):
            if one[name]:
                rows.append([kind, _seeds(one["finetuned"]), who, f"{100 * one[name]['right']:.1f}",
                             one[name]["prompt"], points(one[name]["gap"])])  # fmt: skip
    said = f"The larger model is {larger}." if larger else (
        "Of larger models this says nothing: not measured, no larger model was at hand.")  # fmt: skip
    return [
        *table("question|finetuned, %|prompted|right, %|prompt|difference, points", rows),
        "",
        said,
    ]


@measured(NAME)
def retrieval_table(found):
    """Markdown lines: what was chosen for retrieval, how often it finds, and what comes of it."""
    kinds = [kind for kind in next(iter(found["recall"].values())) if kind != "all"]
    choices, rows = {**found["chosen"]["readings"], "both": found["chosen"]["both"]}, []
    for arm, recall in found["recall"].items():
        one = choices[arm]
        what = f"{_count(one['pieces'], 'piece')} of {one['words']} words"
        index = f" ({SHORT[one['index']]})" if "index" in one else ""
        pairs = []
        for kind in kinds:
            here = found["kinds"].get(f"facts: {kind}", {"arms": {}})["arms"].get(arm)
            pairs.append(f"{100 * recall[kind]:.1f}, {_percent(here, 'mean') or '?'}")
        rows.append([ARMS[arm] + index, what, one.get("prompt", "that of training"), *pairs,
                     *_refusals(found, arm)])  # fmt: skip
    encoder = found["settings"]["embedder"]
    return [
        *table(f"way|passages|prompt|{'|'.join(f'{kind}: found, right' for kind in kinds)}|{REFUSED}", rows),
        "",
        "Found: questions of which a shown piece states the answer (recall, one right piece is enough), %. "
        "Right: answered exactly, %. Chosen on validation rows: by right answers of the base, with as many "
        "prompts as the closed book has; for the finetuned reader by recall, of "
        f"{found['settings']['read']} words at most. "
        + (f"The encoder is {encoder}." if encoder else "No encoder trained to retrieve was at hand."),
    ]


@measured(NAME)
def cost_table(found):
    """Markdown lines: tokens, milliseconds and dollars of a request, by family and arm."""
    kinds = {"tickets": "form", "sql": "skill", "handbook": "facts: trained"}
    rows = []
    for family, arms in found["ms"].items():
        one = found["kinds"].get(kinds[family])
        for arm in (arm for arm in ARMS if arm in arms):
            times = {size: median(each) for size, each in arms[arm].items()}
            here = one["arms"][arm] if one else {"prompt tokens": 0, "generated tokens": 0}
            rows.append([family, ARMS[arm], f"{here['prompt tokens']:.0f}", f"{here['generated tokens']:.0f}",
                         *(f"{ms:,.1f}" for ms in times.values()),
                         *(f"{dollars(ms):.4f}" for ms in times.values())])  # fmt: skip
    sizes = found["settings"]["timed"]
    counts = " and ".join(f"{count} calls of {size}" for size, count in sizes.items())
    head = "|".join(f"{what}, batch {size}" for what in ("ms", "$ a 1,000") for size in sizes)
    return [
        *table(f"questions|way|prompt tokens|generated tokens|{head}", rows),
        "",
        f"Milliseconds a request, medians of {counts} on test rows drawn at random, from the question to the "
        "text of the answer, the card to itself; tokens are means (handbook: of trained facts). "
        "Generation is eager; a prefix that all prompts of a batch share is computed once a batch, and not "
        f"kept between them. Dollars at {price():.2f} an hour for one {CARD} (data/prices.json: an example), "
        "busy all the time.",
    ]


@measured(NAME)
def update_table(found):
    """Markdown lines: minutes until a changed fact is answered; what finetuning forgot."""
    rows = []
    for arm, parts in found["update"].items():
        does = UPDATES[next(iter(parts))]
        rows.append([ARMS[arm], does, _minutes(parts), _minutes(parts, "indexing all")])
    base, forgot = found["forgetting"]["base"], []
    for name, one in found["forgetting"].items():
        shares = " to ".join(f"{100 * share:.1f}" for share in sorted({min(one["probe"]), max(one["probe"])}))
        forgot.append([name, f"{mean(one['general loss']):.3f}",
                       f"{mean(one['general loss']) - base['general loss'][0]:+.3f}",
                       f"{100 * mean(one['probe']):.1f} ({shares})"])  # fmt: skip
    return [
        *table("way|when a fact changes|minutes|all documents, minutes", rows),
        "",
        "With the card to itself, loading not counted; the new text, or for training the new questions, are "
        "written before. A whole training anew: some steps on the new rows alone were not tried. What is "
        "finetuned to read is trained once.",
        "",
        *table("trained on|loss on plain English, nats a token|over the base|knowledge probe, %", forgot),
    ]


UPDATES = {"training": "train again", "indexing": "index the changed document"}


def _minutes(parts, key=None):
    key = key or next(iter(parts))
    return f"{parts[key] / 60:.4f}" if key in parts else ""


@measured(NAME)
def control_table(found):
    """Markdown lines: facts after training on answers of other facts, and with a perfect retrieval."""
    rows, shares = [["finetuned on answers of other facts", _seeds(found["shuffled"]["true"]),
                     _seeds(found["shuffled"]["taught"]), "", ""]], found["facts"]  # fmt: skip
    for arm in ("finetuned", "both", *CONTROLS):
        if arm in shares:
            rows.append([ARMS[arm], _seeds(shares[arm]), "", *_refusals(found, arm)])
    return [
        *table(f"trained facts, new phrasings|right, %|right by what was taught, %|{REFUSED}", rows),
        "",
        "Means, with the worst and best seed. Who was taught wrong answers must not know the right ones. "
        "With the right document given, what is missing to 100% is reading, not retrieval.",
    ]


def ways(mix, changes, requests, found=None):
    """{arm: {"right": {kind: (mean, low, high)}, "cost": dollars for a thousand requests}} of a mix of kinds.

    mix: {kind: share}; `changes` and `requests` a day: what an update takes, in dollars, is spread over the
    requests. Absent questions count net of false refusals. `found` are the record's values.
    """
    found, out = found or values(NAME), {}
    for kind, share in mix.items():
        for arm, one in found["kinds"][kind]["arms"].items():
            if arm in CONTROLS:
                continue
            way = out.setdefault(arm, {"right": {}, "cost": 0.0})
            way["right"][kind] = one["mean"], one["low"], one["high"]
            way["cost"] += share * dollars(ms_of(found, kind, arm))
    # An update is paid whole, whatever else is asked.
    if any(share and KINDS[kind][0] == "handbook" for kind, share in mix.items()):
        for arm, way in out.items():
            parts = found["update"].get(arm)
            daily = changes * next(iter(parts.values())) / 3600 * price() if parts else 0.0
            way["cost"] += 1000 * daily / requests
    return out


def _seeds(shares):
    if not shares:
        return ""
    ends = f" ({100 * min(shares):.1f} to {100 * max(shares):.1f})" if len(shares) > 1 else ""
    return f"{100 * mean(shares):.1f}{ends}"


def _count(number, what):
    return f"{number} {what}{'' if number == 1 else 's'}"
