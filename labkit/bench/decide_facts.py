"""Shares of `bench decide` by kind of question, with intervals, and what the claim about facts compares.

`answers` are {family: {arm: [what `decide_jobs.told` kept, one a seed]}}. Intervals are over clusters of rows
that go together: phrasings; in the handbook also facts, since both test rows of a fact are known or not. Of
the two intervals there the wider reach counts, on either side.
"""

from dataclasses import replace
from functools import cache, partial

import numpy as np

from labkit import tasks
from labkit.records import stats

# Kind: the family whose test rows it has, and which of them (None: all).
KINDS = {"form": ("tickets", None), "skill": ("sql", None),
         **{f"facts: {kind}": ("handbook", kind) for kind in ("trained", "changed", "untrained", "absent")}}
FACTS, ABSENT = "facts: trained", "facts: absent"
ANSWERABLE = ("trained", "changed", "untrained")
CONTROLS = ("oracle", "both, oracle")  # given what no arm has: not to be chosen


@cache
def labels(family):
    """(clusterings of the test rows, one label a row in each; the kind of each row, or else the family)."""
    test = tasks.load(family)["test"]
    kinds = test["kind"] if "kind" in test.column_names else [family] * len(test)
    names = ("fact", "phrasing") if family == "handbook" else ("phrasing",)
    return tuple(tuple(test[name]) for name in names), tuple(kinds)


def cells(family, parts, runs, key="rows"):
    """(flags (seeds, rows), clusterings) of the rows whose kind is one of `parts` (None: all), in order."""
    clusterings, kinds = labels(family)
    flags = np.stack([stats.unpack_rows(one[key]) for one in runs])
    here = [place for place in range(flags.shape[1]) if parts is None or kinds[place] in parts]
    return flags[:, here], [[clusters[place] for place in here] for clusters in clusterings]


def share(flags, clusterings):
    """stats.Estimate of a share, with the wider reach of `clusterings` on either side."""
    return widest([stats.share(flags, clusters) for clusters in clusterings])


def widest(estimates):
    """One of several Estimates of a number, which differ in clusters alone, with the farthest ends of all."""
    ends = {name: pick(getattr(one, name) for one in estimates)
            for name, pick in {"low": min, "rows_low": min, "high": max, "rows_high": max}.items()}
    return replace(estimates[0], **ends, phrasings=min(one.phrasings for one in estimates))


def difference(kind, first, second):
    """stats.Estimate of one arm's number minus another's on a kind, on the rows that both answered."""
    family, part = KINDS[kind]
    if kind == ABSENT:
        absent, answerable = (_gap(family, parts, first, second, "refused")
                              for parts in (("absent",), ANSWERABLE))  # fmt: skip
        return apart(absent, answerable)
    return _gap(family, part and (part,), first, second)


def _gap(family, parts, first, second, key="rows"):
    (one, clusterings), (other, _) = cells(family, parts, first, key), cells(family, parts, second, key)
    rows = min(one.shape[1], other.shape[1])
    return widest([stats.gap(one[:, :rows], other[:, :rows], clusters[:rows]) for clusters in clusterings])


def net_refusals(runs):
    """stats.Estimate of the share refused of absent rows minus that of answerable ones."""
    absent, answerable = (share(*cells("handbook", parts, runs, "refused"))
                          for parts in (("absent",), ANSWERABLE))  # fmt: skip
    return apart(absent, answerable)


def apart(first, second):
    """stats.Estimate of the difference of two estimates from other rows, of the same training seeds.

    Reaches over rows are combined as the root of their squares (MOVER: Zou and Donner 2008); the spread of
    seeds is that of the difference.
    """
    mean, each = first.mean - second.mean, np.subtract(first.each, second.each)
    down = np.hypot(first.mean - first.rows_low, second.rows_high - second.mean)
    up = np.hypot(first.rows_high - first.mean, second.mean - second.rows_low)
    reach = stats.of_values(each).seeds_reach
    return stats.Estimate(mean, mean - float(np.hypot(down, reach)), mean + float(np.hypot(up, reach)),
                          tuple(each.tolist()), mean - float(down), mean + float(up), reach,
                          first.rows + second.rows, first.phrasings + second.phrasings)  # fmt: skip


def interval_of(found):
    """An Estimate as a record keeps it."""
    return {"mean": found.mean, "low": found.low, "high": found.high, "each": list(found.each)}


def kind_of(kind, answers):
    """Arms with their numbers and tokens; the best, and the others' distance from it, on the same rows."""
    family, part = KINDS[kind]
    runs, arms = answers[family], {}
    for arm, each in runs.items():
        flags, clusterings = cells(family, part and (part,), each)
        if flags.size:
            tokens = np.mean([one["tokens"][part or family] for one in each], axis=0)
            number = net_refusals(each) if kind == ABSENT else share(flags, clusterings)
            arms[arm] = {**interval_of(number), "rows": flags.shape[1], **_beside(kind, each),
                         "prompt tokens": float(tokens[0]), "generated tokens": float(tokens[1])}  # fmt: skip
    compared = [arm for arm in arms if arm not in CONTROLS]
    best = max(compared, key=lambda arm: arms[arm]["mean"], default=None)
    behind = {arm: interval_of(difference(kind, runs[best], runs[arm])) for arm in compared if arm != best}
    return {"arms": arms, "best": best, "ahead": behind}


def _beside(kind, runs):
    """What stands beside a kind's number: of facts the share of answers that contain the right one."""
    family, part = KINDS[kind]
    if family == "handbook" and kind != ABSENT:
        return {"contains": _mean(runs, (part,), "contains")}
    if kind == ABSENT:
        return {"refused": _mean(runs, ("absent",), "refused"),
                "falsely refused": _mean(runs, ANSWERABLE, "refused")}  # fmt: skip
    return {}


def _mean(runs, parts, key):
    return float(cells("handbook", parts, runs, key)[0].mean())


def facts(answers, chosen):
    """The claim's numbers, on facts that training states, asked for in new phrasings."""
    runs = answers["handbook"]
    runs = {"retrieval": runs[chosen["retrieval"]], **runs}
    there = partial(cells, "handbook", ("trained",))
    every = [cells("handbook", parts, runs["retrieval"])[0] for parts in (("trained",), ("absent",))]
    if not all(flags.size for flags in every):
        return {}  # a trial's rows are few
    wanted = ("retrieval", "finetuned", "both", *CONTROLS)
    return {
        "retrieval minus finetuned": interval_of(difference(FACTS, runs["retrieval"], runs["finetuned"])),
        "both minus finetuned": interval_of(difference(FACTS, runs["both"], runs["finetuned"])),
        **{arm: there(runs[arm])[0].mean(axis=1).tolist() for arm in wanted},
        "contains": {arm: there(runs[arm], "contains")[0].mean(axis=1).tolist() for arm in wanted},
        "net refusals": {arm: interval_of(net_refusals(runs[arm])) for arm in wanted},
    }
