"""The tables of `bench decide`, each of the record's values, and its decision chart."""

from statistics import mean, median

from labkit.bench.decide_chart import (
    ARMS,
    DOLLARS_AN_HOUR,
    NAME,
    SHORT,
    chart,
    decision_table,
    dollars,
    interval,
    points,
)
from labkit.bench.decide_values import CONTROLS
from labkit.bench.markdown import measured, table, together

__all__ = ["accuracy_table", "chart", "control_table", "cost_table", "decision_table", "lines",
           "retrieval_table", "small_table", "update_table"]  # fmt: skip


@measured(NAME)
def lines(found):
    """All tables as Markdown lines."""
    tables = (accuracy_table, decision_table, small_table, retrieval_table, cost_table, update_table,
              control_table)  # fmt: skip
    return together(tables, found)


@measured(NAME)
def accuracy_table(found):
    """Markdown lines: share right of each arm on each kind of question, with intervals."""
    kinds = found["kinds"]
    rows = [[ARMS[arm], *(interval(one["arms"].get(arm)) for one in kinds.values())]
            for arm in ARMS if any(arm in one["arms"] for one in kinds.values())]  # fmt: skip
    asked = found["settings"]
    return [
        *table(f"way|{'|'.join(kinds)}", rows),
        "",
        f"Test rows right, %, with 95% intervals over phrasings and, where something is trained, "
        f"{_count(len(asked['seeds']), 'seed')}. Facts: stated in training and asked in new phrasings "
        "(trained), stated otherwise in training than now (changed), only in the documents (untrained), "
        f"nowhere (absent). Finetuning: every weight, {asked['steps']} steps of {asked['batch']} x "
        f"{asked['length']} tokens; rates {_rates(found)}.",
    ]


def _rates(found):
    said = []
    for name, rate in found["chosen"]["rates"].items():
        tried = [float(one) for one in found["rates tried"][name]]
        end = " (an end of those tried)" if rate in (min(tried), max(tried)) else ""
        said.append(f"{name} {rate:g}{end}")
    return ", ".join(said)


@measured(NAME)
def small_table(found):
    """Markdown lines: the finetuned base beside the largest model that was prompted."""
    larger = found["settings"]["larger"]
    rows = [[kind, f"{100 * mean(one['finetuned']):.1f}", f"{100 * one['prompted']:.1f}", one["prompt"],
             points(one["gap"])] for kind, one in found["small"].items()]  # fmt: skip
    return [
        *table("question|finetuned, %|prompted, %|prompt|difference, points", rows),
        "",
        f"Prompted is {larger or 'the same base, with the best prompt of the budget'}.",
    ]


@measured(NAME)
def retrieval_table(found):
    """Markdown lines: what was chosen for retrieval, and how often a shown piece holds the answer."""
    kinds = [kind for kind in next(iter(found["recall"].values())) if kind != "all"]
    choices, rows = {**found["chosen"]["readings"], "both": found["chosen"]["both"]}, []
    for arm, recall in found["recall"].items():
        one = choices[arm]
        what = f"{_count(one['pieces'], 'piece')} of {one['words']} words"
        index = f" ({SHORT[one['index']]})" if "index" in one else ""
        rows.append([ARMS[arm] + index, what, one.get("prompt", "that of training"),
                     *(f"{100 * recall[kind]:.1f}" for kind in kinds)])  # fmt: skip
    return [
        *table(f"way|passages|prompt|{'|'.join(f'recall, {kind}' for kind in kinds)}", rows),
        "",
        "Recall: questions of which a shown piece states the answer, %. Chosen on validation rows: by right "
        "answers of the base, and for the finetuned reader by recall.",
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
    head = "|".join(f"{what}, batch {size}" for what in ("ms", "$ a 1,000") for size in sizes)
    return [
        *table(f"questions|way|prompt tokens|generated tokens|{head}", rows),
        "",
        "Milliseconds a request, medians, from the question to the text of the answer, the card to itself. "
        "Generation is eager; a prefix that all prompts of a batch share is computed once a batch, and not "
        f"kept between them. Dollars at {DOLLARS_AN_HOUR:.2f} an hour, busy all the time.",
    ]


@measured(NAME)
def update_table(found):
    """Markdown lines: seconds until a changed fact is answered; what finetuning forgot."""
    update = found["update"]
    rows = [["finetuned: train again", _seconds(update["training"]["finetuned"])]]
    for index, one in update["indexing"].items():
        rows.append([f"{ARMS[index]}: index the changed document", _seconds(one["one changed document"])])
        rows.append([f"{ARMS[index]}: index all", _seconds(one["all"])])
    rows.append(["finetuned and retrieval: train once, then index", _seconds(update["training"]["both"])])
    base, forgot = found["forgetting"]["base"], []
    for name, one in found["forgetting"].items():
        shares = " to ".join(f"{100 * share:.1f}" for share in sorted({min(one["probe"]), max(one["probe"])}))
        forgot.append([name, f"{mean(one['general loss']):.3f}",
                       f"{mean(one['general loss']) - base['general loss'][0]:+.3f}",
                       f"{100 * mean(one['probe']):.1f} ({shares})"])  # fmt: skip
    return [
        *table("to change a fact|seconds", rows),
        "",
        "With the card to itself, loading not counted; the new text or the new questions are written before.",
        "",
        *table("trained on|loss on plain English, nats a token|over the base|knowledge probe, %", forgot),
    ]


@measured(NAME)
def control_table(found):
    """Markdown lines: facts after training on answers of other facts, and with a perfect retrieval."""
    rows, shares = [["finetuned on answers of other facts", _seeds(found["shuffled"]["true"]),
                     _seeds(found["shuffled"]["taught"])]], found["facts"]  # fmt: skip
    for arm in ("finetuned", "both", *CONTROLS):
        if arm in shares:
            rows.append([ARMS[arm], _seeds(shares[arm]), ""])
    return [
        *table("trained facts, new phrasings|right, %|right by what was taught, %", rows),
        "",
        "Means, with the worst and best seed. Who was taught wrong answers must not know the right ones. "
        "With the right document given, what is missing to 100% is reading, not retrieval.",
    ]


def _seeds(shares):
    ends = f" ({100 * min(shares):.1f} to {100 * max(shares):.1f})" if len(shares) > 1 else ""
    return f"{100 * mean(shares):.1f}{ends}"


def _seconds(number):
    return f"{number:.3f}" if number < 1 else f"{number:.1f}"


def _count(number, what):
    return f"{number} {what}{'' if number == 1 else 's'}"
