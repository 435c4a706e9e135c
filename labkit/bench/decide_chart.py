"""The decision chart of `bench decide`: which way of answering is ahead on which kind of question.

An arm is ahead of another if the 95% interval of their paired difference lies above 0.
"""

import textwrap
from statistics import median

from labkit.bench.decide_facts import ABSENT, CONTROLS, KINDS
from labkit.bench.markdown import missing, show, table
from labkit.bench.markdown import values as recorded
from labkit.errors import LabkitError

NAME = "decide"
CARD = "NVIDIA H200"  # of the record
ARMS = {"instructions": "instructions", "few-shot": "few-shot", "constrained": "constrained decoding",
        "bm25": "retrieval, BM25", "dense": "retrieval, dense (the base's states)",
        "encoder": "retrieval, dense (an encoder)", "finetuned": "finetuned",
        "both": "finetuned and retrieval", "oracle": "control: the right document",
        "both, oracle": "control: finetuned and retrieval, the right document"}  # fmt: skip
SHORT = {"bm25": "BM25", "dense": "dense", "encoder": "encoder", "both": "finetuned + retrieval"}
MARKS = {"instructions": ("v", 4), "few-shot": ("^", 5), "constrained": ("P", 3), "bm25": ("s", 1),
         "dense": ("D", 3), "encoder": ("X", 4), "finetuned": ("o", 0), "both": ("*", 2)}  # fmt: skip

LABELS = {ABSENT: "facts: absent (net)"}  # of a kind, where its own name says too little
TICKS = {ABSENT: "absent:\nrefused, net"}
NET = ("Absent (net): refused of what nothing answers, minus refused of what has an answer; it is 0 for who "
       "refuses everything.")  # fmt: skip
LUCK = ("The best is picked and compared on the same rows, at 95% for each pair: an edge barely above 0 may "
        "be luck.")  # fmt: skip


def decision_table(found=None, mine=None):
    """Markdown lines: for each kind the arm that is ahead, and what it costs.

    `mine` is as in `chart`. LabkitError for an unknown arm, and for a number without an interval.
    """
    found, mine = found or recorded(NAME) or {}, mine or {}
    if unknown := sorted({arm for arms in mine.values() for arm in arms} - set(MARKS)):
        raise LabkitError(f"the chart has no arm {unknown[0]!r}: name yours {', '.join(MARKS)}")
    if not found:
        return own_table(mine) if mine else [missing(NAME)]
    rows = []
    for kind in dict.fromkeys([*found.get("kinds", {}), *mine]):
        one = found.get("kinds", {}).get(kind)
        cells = _decision(kind, one, found) if one else ["not measured"] + [""] * 5
        rows.append([LABELS.get(kind, kind), *cells, *([_own_decision(mine.get(kind, {}))] if mine else [])])
    head = "question|answer it by|right, %|ahead of the next, points|tokens in + out|ms, in batches|$ a 1,000"
    return [
        *table(head + ("|yours" if mine else ""), rows),
        "",
        "Alone stands what is ahead of every other in this record: the 95% interval of the difference, on "
        "the same rows, lies above 0. Else all that may be as good are named, the best first; numbers are "
        f"the best one's. {LUCK} {NET} Dollars at {price():.2f} an hour for one {CARD} (data/prices.json: an "
        "example), requests in batches.",
    ]


def own_table(mine):
    """Markdown lines: your best arm for each kind, where there is no record to stand beside."""
    rows = [[LABELS.get(kind, kind), _own_decision(arms)] for kind, arms in mine.items()]
    caution = "Alone stands the best one if no other's 95% interval reaches its own. Else all such are named."
    return [*table("question|answer it by", rows), "", f"{caution} {NET} The record is {missing(NAME)}."]


def _decision(kind, one, found):
    arm = one["best"]
    next_best = max(one["ahead"], key=lambda other: one["arms"][other]["mean"], default=None)
    gap = one["ahead"].get(next_best)
    ahead = f"{points(gap)} ({short(next_best)})" if gap else ""
    here, ms, beside = one["arms"][arm], ms_of(found, kind, arm), ""
    if "refused" in here:
        beside = f": {100 * here['refused']:.1f} less {100 * here['falsely refused']:.1f}"
    return [" or ".join(map(short, ahead_or_tied(one))), interval(here) + beside, ahead,
            f"{here['prompt tokens']:.0f} + {here['generated tokens']:.0f}", f"{ms:.1f}",
            f"{dollars(ms):.4f}"]  # fmt: skip


def ahead_or_tied(one):
    """Arms of a kind that the best is not ahead of, the best itself first: a single one is ahead of all."""
    behind = one["ahead"]
    tied = [arm for arm in behind if behind[arm]["low"] <= 0]
    return [one["best"], *sorted(tied, key=lambda arm: -one["arms"][arm]["mean"])]


def _own_decision(arms):
    """The best of a learner's arms; with every other whose interval meets its."""
    found = {arm: triple(number) for arm, number in arms.items()}
    if not found:
        return ""
    best = max(found, key=lambda arm: found[arm][0])
    tied = [arm for arm in found if arm != best and found[arm][2] >= found[best][1]]
    return f"{' or '.join(map(short, [best, *tied]))} ({100 * found[best][0]:.0f}%)"


# ---- the decision chart ---------------------------------------------------------------------------------


def chart(found=None, mine=None):
    """Show `decision_table` and the chart: share right of each arm on each kind, with intervals.

    `mine` adds own results, drawn hollow: {kind: {arm: (mean, low, high) or stats.Estimate}}, shares from 0
    to 1. Without a record it shows them alone; with neither one line of text.
    """
    from labkit import plots

    found = found or recorded(NAME)
    show(decision_table(found, mine))
    if found or mine:
        plots.show(*chart_figure(found, mine))


def chart_figure(found=None, mine=None):
    """(figure, alt text) of `chart`; its title says which arm is ahead on which kind in the record."""
    from labkit import plots

    found, mine = found or {"kinds": {}}, mine or {}
    kinds = list(dict.fromkeys([*found["kinds"], *mine]))
    fig, axes = plots.figure(finding(found, mine), "", "share of test rows right (%)")
    shown, said, lowest = set(), [], 0
    for x, kind in enumerate(kinds):
        there = found["kinds"].get(kind, {"arms": {}})["arms"]
        recorded_arms = {arm: (one["mean"], one["low"], one["high"]) for arm, one in there.items()
                         if arm not in CONTROLS}  # fmt: skip
        own = {arm: triple(number) for arm, number in mine.get(kind, {}).items()}
        order = [arm for arm in MARKS if arm in {**recorded_arms, **own}]
        for place, arm in enumerate(order):
            at = x + 0.8 * ((place + 0.5) / len(order) - 0.5)
            for numbers, filled in ((recorded_arms, True), (own, False)):
                if arm in numbers:
                    label = (short(arm) if filled else f"{short(arm)}, yours", filled)
                    _point(axes, at + (0 if filled else 0.05), numbers[arm], arm, filled,
                           None if label in shown else label[0])  # fmt: skip
                    shown.add(label)
                    lowest = min(lowest, 100 * numbers[arm][1])
        numbers = [f"{short(arm)} {100 * each[arm][0]:.0f}%{'' if each is recorded_arms else ' (yours)'}"
                   for each in (recorded_arms, own) for arm in order if arm in each]  # fmt: skip
        said.append(f"{LABELS.get(kind, kind)}: {', '.join(numbers)}")
    axes.set_xticks(range(len(kinds)), [TICKS.get(kind, kind.replace(": ", ":\n")) for kind in kinds])
    axes.set_ylim(lowest - 3, 103)
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="upper left", bbox_to_anchor=(0, -0.24))
    return fig, f"Points with 95% intervals for each kind of question. {'. '.join(said)}."


def _point(axes, at, numbers, arm, filled, label):
    from labkit import plots

    middle, low, high = (100 * number for number in numbers)
    marker, colour = MARKS[arm]
    axes.errorbar([at], [middle], [[max(0, middle - low)], [max(0, high - middle)]], linestyle="none",
                  marker=marker, color=plots.COLOURS[colour], capsize=2, markersize=6, label=label,
                  markerfacecolor=plots.COLOURS[colour] if filled else "white")  # fmt: skip


def finding(found, mine=None):
    """The chart's title: kinds by the arm that is ahead on them; of own results where none are recorded."""
    winners = {}
    for kind, one in found["kinds"].items():
        first = ahead_or_tied(one)
        winners.setdefault(short(first[0]) if len(first) == 1 else "none", []).append(_in_words(kind))
    where = "in this record" if winners else "in your run"
    if not winners:
        for kind, arms in (mine or {}).items():
            decided = _own_decision(arms)
            winners.setdefault("none" if " or " in decided else decided, []).append(_in_words(kind))
    unclear = winners.pop("none", [])
    said = [f"{arm} on {', '.join(kinds)}" for arm, kinds in winners.items()]
    title = f"Ahead {where}: {'; '.join(said)}" if said else ""
    title += ("; n" if said else "N") + f"o clear winner on {', '.join(unclear)}" if unclear else ""
    return textwrap.fill(title, 84)


def _in_words(kind):
    """`trained facts` of `facts: trained`."""
    what, _, part = kind.partition(": ")
    return f"{part} {what}" if part else what


def triple(number):
    """(mean, low, high) of a share: an Estimate or such a triple. LabkitError for a number alone."""
    if hasattr(number, "low"):
        return number.mean, number.low, number.high
    if isinstance(number, tuple | list) and len(number) == 3:
        return tuple(number)
    raise LabkitError(f"{number!r} has no interval, so it cannot be compared: give (mean, low, high), or "
                      "what labkit.records.stats.share(flags, clusters) returns")  # fmt: skip


# ---- numbers in words ------------------------------------------------------------------------------------


def short(arm):
    return SHORT.get(arm, arm)


def ms_of(found, kind, arm):
    times = found["ms"][KINDS[kind][0]][arm]
    return median(times[max(times, key=int)])


def dollars(ms):
    from labkit.methods.retrieval import dollars_per_thousand

    return dollars_per_thousand(ms, price())


def price():
    """Dollars an hour of the record's card, by data/prices.json; LabkitError where it states none."""
    from labkit.records import teaching

    stated = teaching.prices()
    if CARD not in stated:
        raise LabkitError(f"data/prices.json has no price of the {CARD}, the record's card: put one there")
    return stated[CARD]["dollars_an_hour"]


def interval(one):
    return f"{100 * one['mean']:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]" if one else ""


def points(one):
    return f"{100 * one['mean']:+.1f} [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}]"
