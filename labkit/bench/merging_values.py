"""From the jobs of `bench merging` to choices, and to the values and scores of its record.

`found` are results by job, `tried` those of the sweep on text by arm and rate, `asked` is
`merging.settings()`, `chosen` what `chosen` returned.
"""

import math
from dataclasses import asdict
from functools import cache

from labkit.bench.full_values import _of, _sweep
from labkit.bench.merging_jobs import (
    CONTROLS,
    GRID,
    JOINT_RATES,
    LORA_RATES,
    RATES,
    SETS,
    SOUP_RATES,
    adapter_of,
    at_ends,
    rows_of,
    specialist_of,
    worth,
)
from labkit.bench.merging_more import ARMS, DROPS, LONGER, PROBED, WAYS
from labkit.methods import merging
from labkit.records import stats

KEPT = ("seeds", "steps", "batch", "length", "tried", "rows", "claimed", "judging", "text", "probed")


# ---- choices, all on validation -------------------------------------------------------------------------


def chosen(found, asked):
    """{set: {method: its best setting, with shares right and kept}} on validation rows, first seed.

    Best is what keeps most of the specialist's gain on the task that it serves worst; among equals, most on
    average. `error` is the standard error of that share by the number of rows, `at ends` which numbers of the
    setting are ends of what was tried.
    """
    seed, out = asked["seeds"][0], {some: {} for some in SETS}
    for some, tasks in SETS.items():
        alone = {task: found[specialist_of(task, seed)]["validation"][task] for task in tasks}
        base = found["base"]["validation"]
        for method in GRID:
            if (name := f"tune_{some}_{method}") not in found:
                continue
            tried, counts = found[name]["shares"], found[name]["counts"]
            kept = {setting: {task: kept_of(right[task], base[task], alone[task]) for task in tasks}
                    for setting, right in tried.items()}  # fmt: skip
            best = max(tried, key=lambda setting, kept=kept: worth(kept[setting]))
            worst = min(tasks, key=lambda task: kept[best][task] or 0.0)
            out[some][method] = {
                "setting": best, "validation": tried[best], "validation kept": kept[best],
                "error": error(tried[best][worst], counts[worst], alone[worst] - base[worst]),
                "at ends": at_ends(best, tried),
            }  # fmt: skip
    return out


def error(right, rows, gain):
    """Standard error of the share of a gain that is kept, from the share of so many rows right.

    One right and one wrong row are added, so that it is not 0 where all are right. 0 without a gain.
    """
    share = (right * rows + 1) / (rows + 2)
    return math.sqrt(share * (1 - share) / rows) / gain if gain > 0 else 0.0


def best_methods(chosen):
    """{set: the method whose best setting keeps most on validation rows}, by the same rule; no control."""
    return {some: max((name for name in methods if name not in CONTROLS),
                      key=lambda name, methods=methods: worth(methods[name]["validation kept"]))
            for some, methods in chosen.items()}  # fmt: skip


def near_best(chosen):
    """{set: methods and controls that keep as much as the best one, to one standard error of its share}."""
    out = {}
    for some, best in best_methods(chosen).items():
        top = chosen[some][best]
        least = worth(top["validation kept"])[0] - top["error"]
        out[some] = [name for name, one in chosen[some].items() if worth(one["validation kept"])[0] >= least]
    return out


def kept_of(merged, base, specialist):
    """`merging.kept`; None where the specialist gained nothing."""
    return merging.kept(merged, base, specialist) if specialist > base else None


# ---- values ---------------------------------------------------------------------------------------------


def summary(found, tried, chosen, asked):
    """The record's values, under the names that the claims' bands use."""
    best, merges = best_methods(chosen), _merges(found, chosen, asked)
    return {
        "settings": {**{name: asked[name] for name in KEPT}, "rates": RATES, "adapter rates": LORA_RATES,
                     "soup rates": SOUP_RATES, "sets": SETS},
        "base": _base(found),
        "specialists": {task: _specialist(found, task, asked) for task in RATES},
        "tuned": {some: {method: found[f"tune_{some}_{method}"]["shares"] for method in methods}
                  for some, methods in chosen.items()},
        "merges": merges,
        "best": best,
        "near best": near_best(chosen),
        "kept": _kept_by(_finals(found, "pair", best["pair"], chosen), "pair", found, asked),
        **_joint(found, asked),
        "kept of three": _kept_by(_finals(found, "three", best["three"], chosen), "three", found, asked),
        "negation": _negation(found),
        "dare": {f"{drop:g}": {way: _shares([run["rows"][way] for run in _of(found, f"dare_{drop:g}")])
                               for way in ("rescaled", "as it is")} for drop in DROPS},
        "soups": {name.partition("_")[2]: _soup(one)
                  for name, one in found.items() if name.startswith("soup_")},
        "lora": _lora(found, asked),
        **_stack(found, tried),
        "probes": _probes(found),
    }  # fmt: skip


def scores(found, chosen, asked):
    """Test rows by score, one text a seed, as records keep them.

    "soup", "greedy soup" and "best parent" are of three tickets specialists, one a rate, at each seed.
    """
    seeds, rows = asked["seeds"], {}
    soups = [found[f"soup_{seed}"]["rows"] for seed in seeds]
    for name in soups[0]:
        rows[name] = "tickets", [one[name] for one in soups]
    for drop in DROPS:
        runs = [one["rows"] for one in _of(found, f"dare_{drop:g}")]
        rows[drop_name(drop)] = "tickets", [one["rescaled"] for one in runs]
        if drop:
            rows[f"{drop_name(drop)}, not rescaled"] = "tickets", [one["as it is"] for one in runs]
    for task in RATES:
        rows[f"{task}: base"] = task, [found["base"]["rows"][task]]
        rows[f"{task}: specialist"] = task, [found[specialist_of(task, seed)]["rows"][task] for seed in seeds]
    for task in SETS["pair"]:
        runs = _of(found, f"joint_{joint_rate(found, asked):g}")
        rows[f"{task}: trained on both"] = task, [one["rows"][task] for one in runs]
    for some, method in best_methods(chosen).items():
        for task in SETS[some]:
            runs = _finals(found, some, method, chosen)
            rows[f"{task}: best merge of {some}"] = task, [one["rows"][task] for one in runs]
    return {name: {"task": task, "split": "test", "rows": each} for name, (task, each) in rows.items()}


def drop_name(drop):
    """What the score of a rescaled delta is called."""
    return f"drop {drop:.0%}"


def _share(packed):
    return float(stats.unpack_rows(packed).mean())


def _shares(each):
    return [_share(one) for one in each]


def _base(found):
    one = found["base"]
    return {"validation": one["validation"], "test": {task: _share(one["rows"][task]) for task in RATES},
            **{name: one[name] for name in ("tickets loss", "general loss")}}  # fmt: skip


def _specialist(found, task, asked):
    """On each task, so that a table can say what a specialist does outside its own."""
    runs = [found[specialist_of(task, seed)] for seed in asked["seeds"]]
    return {"validation": [one["validation"][task] for one in runs],
            "test": {other: _shares([one["rows"][other] for one in runs]) for other in RATES}}  # fmt: skip


def _finals(found, some, method, chosen):
    return _of(found, f"final_{some}_{method}_{chosen[some][method]['setting']}")


def _merges(found, chosen, asked):
    base, out = found["base"]["rows"], {}
    alone = {task: _shares([found[specialist_of(task, seed)]["rows"][task] for seed in asked["seeds"]])
             for task in RATES}  # fmt: skip
    for some, methods in chosen.items():
        out[some] = {}
        for method, choice in methods.items():
            runs = _finals(found, some, method, chosen)
            test = {task: _shares([one["rows"][task] for one in runs]) for task in SETS[some]}
            kept = {task: [kept_of(right, _share(base[task]), own)
                           for right, own in zip(test[task], alone[task], strict=True)]
                    for task in SETS[some]}  # fmt: skip
            out[some][method] = {**choice, "test": test, "kept": kept}
    return out


def _kept_by(runs, some, found, asked):
    """{task: share of the specialist's gain that `runs`, one a seed, keep}: an Estimate's parts.

    Over phrasings and seeds (`stats.kept`); [None, ...] where no gain is established.
    """
    out = {}
    for task in SETS[some]:
        own = [found[specialist_of(task, seed)]["rows"][task] for seed in asked["seeds"]]
        sides = [[stats.unpack_rows(one) for one in each] for each in
                 ([run["rows"][task] for run in runs], [found["base"]["rows"][task]], own)]  # fmt: skip
        one = stats.kept(*sides, _phrasings(task, asked["rows"]))
        known = all(map(math.isfinite, (one.mean, one.low, one.high, *one.each)))
        out[task] = asdict(one) if known else [None] * len(runs)
    return out


@cache
def _phrasings(task, rows):
    return tuple(rows_of((task,), "test", rows)[task]["phrasing"])


def joint_rate(found, asked):
    """The rate of training on both tasks, by what `chosen` goes by: validation rows, first seed."""
    seed, base = asked["seeds"][0], found["base"]["validation"]
    alone = {task: found[specialist_of(task, seed)]["validation"][task] for task in SETS["pair"]}

    def merit(rate):
        right = found[f"joint_{rate:g}_{seed}"]["validation"]
        return worth({task: kept_of(right[task], base[task], own) for task, own in alone.items()})

    return max(JOINT_RATES, key=merit)


def _joint(found, asked):
    """What training on both tasks gives, in specialists' gains, as `_merges` counts them."""
    rate = joint_rate(found, asked)
    runs = _of(found, f"joint_{rate:g}")
    test = {task: _shares([one["rows"][task] for one in runs]) for task in SETS["pair"]}
    return {"joint": {"rate": rate, "at an end": rate in (min(JOINT_RATES), max(JOINT_RATES)),
                      "steps": len(SETS["pair"]) * asked["steps"], "test": test},
            "kept by training on both": _kept_by(runs, "pair", found, asked)}  # fmt: skip


def _negation(found):
    runs = _of(found, "negate")
    return {name: {key: [one[name][key] for one in runs] for key in ("right", "tickets loss", "general loss")}
            for name in ("specialist", "negated")}  # fmt: skip


def _soup(one):
    """Rates of parents stand in their jobs' names, which say which parents a greedy soup took."""
    return {"parents": one["parents"], "members": one["members"],
            "parents on test": {name: _share(rows) for name, rows in one["parents on test"].items()},
            "test": {name: _share(rows) for name, rows in one["rows"].items()}}  # fmt: skip


def _lora(found, asked):
    alone = {task: _shares([found[adapter_of(task, seed)]["rows"][task] for seed in asked["seeds"]])
             for task in LORA_RATES}  # fmt: skip
    ways = {}
    for way in WAYS:
        runs = _of(found, f"lora_{way}")
        ways[way] = {
            "error": {weight: [one["error"][weight] for one in runs] for weight in runs[0]["error"]},
            "validation": {weight: {task: [one["validation"][weight][task] for one in runs]
                                    for task in LORA_RATES} for weight in runs[0]["validation"]},
            "weights": [one["weight"] for one in runs],
            "test": {task: _shares([one["rows"][task] for one in runs]) for task in LORA_RATES},
        }  # fmt: skip
    return {"alone": alone, "ways": ways}


def _stack(found, tried):
    """`before` and `after` are the stack's loss minus the base's on unseen text; `general ...` on English.

    `after, equal compute` is the same against a base that was trained for longer.
    """
    runs = {arm: _of(found, f"grow_{arm}") for arm in ARMS}
    arms = {arm: {
        "sweep": _sweep(tried[arm]),
        **{key: runs[arm][0][key] for key in ("layers", "weights", "steps", "tokens", "passes")},
        **{when: {key: [one[when][key] for one in runs[arm]] for key in ("text", "general")}
           for when in ("before", "after")},
        "curve": {str(step): [dict(map(tuple, one["curve"]))[step] for one in runs[arm]]
                  for step, _ in runs[arm][0]["curve"]},
    } for arm in ARMS}  # fmt: skip

    def apart(when, key):
        return [high - low for high, low in zip(arms["stacked"][when][key], arms["base"][when][key],
                                                strict=True)]  # fmt: skip

    more = _of(found, f"grow_{LONGER}")
    longer = {"text": [one["after"]["text"] for one in more],
              **{key: more[0][key] for key in ("steps", "tokens", "passes")}}  # fmt: skip
    fair = [high - low for high, low in zip(arms["stacked"]["after"]["text"], longer["text"], strict=True)]
    return {"after, equal compute": fair, "longer": longer,
            "before": apart("before", "text")[0],  # no seed in it: the base, and a stack of its layers
            "after": apart("after", "text"), "general before": apart("before", "general")[0],
            "general after": apart("after", "general"), "stack": arms}  # fmt: skip


def _probes(found):
    runs = [one["probes"] for one in _of(found, "probe")]
    return {arm: {"size": runs[0][arm]["size"], "penalty": [one[arm]["penalty"] for one in runs],
                  "right": _shares([one[arm]["rows"] for one in runs])} for arm in PROBED}  # fmt: skip
