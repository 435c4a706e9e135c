"""The decision chart of `bench decide`: which way of answering is surely ahead on which kind of question."""

import textwrap
from statistics import median

from labkit.bench.decide_values import CONTROLS, KINDS
from labkit.bench.markdown import missing, table
from labkit.bench.markdown import values as recorded
from labkit.errors import LabkitError

NAME = "decide"
DOLLARS_AN_HOUR = 2.5  # a round price for the card, stated so that everyone can put in their own
ARMS = {"instructions": "instructions", "few-shot": "few-shot", "constrained": "constrained decoding",
        "bm25": "retrieval, BM25", "dense": "retrieval, dense (the base's states)",
        "encoder": "retrieval, dense (an encoder)", "finetuned": "finetuned",
        "both": "finetuned and retrieval", "oracle": "control: the right document",
        "both, oracle": "control: finetuned and retrieval, the right document"}  # fmt: skip
SHORT = {"bm25": "BM25", "dense": "dense", "encoder": "encoder", "both": "finetuned + retrieval"}
MARKS = {"instructions": ("v", 4), "few-shot": ("^", 5), "constrained": ("P", 3), "bm25": ("s", 1),
         "dense": ("D", 3), "encoder": ("X", 4), "finetuned": ("o", 0), "both": ("*", 2)}  # fmt: skip


def decision_table(found=None, mine=None):
    """Markdown lines: for each kind the arm that is surely ahead, and what it costs.

    `mine` is as in `chart`. An arm is surely ahead of another if the 95% interval of their difference, on the
    same rows, lies above 0; of own results, if the two intervals are apart. LabkitError for an unknown arm.
    """
    found, mine = found or recorded(NAME) or {}, mine or {}
    if unknown := sorted({arm for arms in mine.values() for arm in arms} - set(MARKS)):
        raise LabkitError(f"the chart has no arm {unknown[0]!r}: name yours {', '.join(MARKS)}")
    if not found and not mine:
        return [missing(NAME)]
    rows = []
    for kind in dict.fromkeys([*found.get("kinds", {}), *mine]):
        one = found.get("kinds", {}).get(kind)
        cells = _decision(kind, one, found) if one else ["not measured"] + [""] * 5
        rows.append([kind, *cells, *([_own_decision(mine.get(kind, {}))] if mine else [])])
    head = "question|answer it by|right, %|ahead of the next, points|tokens in + out|ms, in batches|$ a 1,000"
    return [
        *table(head + ("|yours" if mine else ""), rows),
        "",
        "Where the best is not surely ahead, all that may be as good are named; numbers are the best one's. "
        f"Dollars at {DOLLARS_AN_HOUR:.2f} an hour, requests in batches.",
    ]


def _decision(kind, one, found):
    arm = one["best"]
    next_best = max(one["ahead"], key=lambda other: one["arms"][other]["mean"], default=None)
    gap = one["ahead"].get(next_best)
    ahead = f"{points(gap)} ({short(next_best)})" if gap else ""
    here, ms = one["arms"][arm], ms_of(found, kind, arm)
    return [" or ".join(map(short, ahead_or_tied(one))), interval(here), ahead,
            f"{here['prompt tokens']:.0f} + {here['generated tokens']:.0f}", f"{ms:.1f}",
            f"{dollars(ms):.4f}"]  # fmt: skip


def ahead_or_tied(one):
    """Arms of a kind that no other is surely ahead of, the best first: a single one is surely ahead."""
    behind = one["ahead"]
    tied = [arm for arm in behind if behind[arm]["low"] <= 0]
    return [one["best"], *sorted(tied, key=lambda arm: -one["arms"][arm]["mean"])]


def _own_decision(arms):
    """The best of a learner's arms; with every other that its interval does not clear."""
    found = {arm: triple(number) for arm, number in arms.items()}
    if not found:
        return ""
    best = max(found, key=lambda arm: found[arm][0])
    tied = [arm for arm in found if arm != best and found[arm][2] >= found[best][1]]
    return f"{' or '.join(map(short, [best, *tied]))} ({100 * found[best][0]:.0f}%)"


# ---- the decision chart ---------------------------------------------------------------------------------


def chart(found=None, mine=None):
    """Print `decision_table` and show the chart: share right of each arm on each kind, with intervals.

    `mine` adds own results, drawn hollow: {kind: {arm: number, (mean, low, high) or stats.Estimate}}, shares
    from 0 to 1. Without a record it shows them alone; with neither one line of text.
    """
    from labkit import plots

    found = found or recorded(NAME)
    print("\n".join(decision_table(found, mine)))
    if found or mine:
        plots.show(*chart_figure(found, mine))


def chart_figure(found=None, mine=None):
    """(figure, alt text) of `chart`; its title says which arm is surely ahead on which kind."""
    from labkit import plots

    found, mine = found or {"kinds": {}}, mine or {}
    kinds = list(dict.fromkeys([*found["kinds"], *mine]))
    fig, axes = plots.figure(finding(found, mine), "", "share of test rows right (%)")
    shown, said = set(), []
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
                    label = short(arm) if arm not in shown else None
                    _point(axes, at + (0 if filled else 0.05), numbers[arm], arm, filled, label)
                    shown.add(arm)
        numbers = [f"{short(arm)} {100 * each[arm][0]:.0f}%{'' if each is recorded_arms else ' (yours)'}"
                   for each in (recorded_arms, own) for arm in order if arm in each]  # fmt: skip
        said.append(f"{kind}: {', '.join(numbers)}")
    axes.set_xticks(range(len(kinds)), [kind.replace(": ", ":\n") for kind in kinds])
    axes.set_ylim(-3, 103)
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="upper left", bbox_to_anchor=(0, -0.16))
    return fig, f"Points with 95% intervals for each kind of question. {'. '.join(said)}."


def _point(axes, at, numbers, arm, filled, label):
    from labkit import plots

    middle, low, high = (100 * number for number in numbers)
    marker, colour = MARKS[arm]
    axes.errorbar([at], [middle], [[max(0, middle - low)], [max(0, high - middle)]], linestyle="none",
                  marker=marker, color=plots.COLOURS[colour], capsize=2, markersize=6, label=label,
                  markerfacecolor=plots.COLOURS[colour] if filled else "white")  # fmt: skip


def finding(found, mine=None):
    """The chart's title: kinds by the arm that is surely ahead on them; of own results where none are
    recorded."""
    winners = {}
    for kind, one in found["kinds"].items():
        first = ahead_or_tied(one)
        winners.setdefault(short(first[0]) if len(first) == 1 else "none", []).append(kind)
    if not winners:
        return "; ".join(f"{kind}: {_own_decision(arms)}" for kind, arms in (mine or {}).items())
    winners = {arm: [_in_words(kind) for kind in kinds] for arm, kinds in winners.items()}
    said = [f"{arm} on {', '.join(kinds)}" for arm, kinds in winners.items() if arm != "none"]
    said += [f"none on {', '.join(winners['none'])}"] if "none" in winners else []
    return textwrap.fill(f"Surely ahead: {'; '.join(said)}", 84)


def _in_words(kind):
    """`trained facts` of `facts: trained`."""
    what, _, part = kind.partition(": ")
    return f"{part} {what}" if part else what


def triple(number):
    """(mean, low, high) of a share: an Estimate, such a triple, or a number, which has no interval."""
    if hasattr(number, "low"):
        return number.mean, number.low, number.high
    return tuple(number) if isinstance(number, tuple | list) else (number, number, number)


# ---- numbers in words ------------------------------------------------------------------------------------


def short(arm):
    return SHORT.get(arm, arm)


def ms_of(found, kind, arm):
    times = found["ms"][KINDS[kind][0]][arm]
    return median(times[max(times, key=int)])


def dollars(ms):
    from labkit.methods.retrieval import dollars_per_thousand

    return dollars_per_thousand(ms, DOLLARS_AN_HOUR)


def interval(one):
    return f"{100 * one['mean']:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]" if one else ""


def points(one):
    return f"{100 * one['mean']:+.1f} [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}]"
