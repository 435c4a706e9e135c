"""From the jobs of `bench full` to the values and scores of its record."""

import math

from labkit.bench import methods as bench_methods
from labkit.bench.full_jobs import EPOCHS, LONG, RANDOM, ROUNDING
from labkit.records import judge, stats

SCORE = 0.2  # share right to which both starts are timed
NEAR = 0.05  # runs whose score is that close to the best count in the slope
MARGIN = 0.01  # below full by less than this is a match
FACTS = ("base", "pretrain", "sft", "both", "sft-long")
KEPT = ("seeds", "steps", "batch", "length", "partial", "looks", "long", "batches", "few", "short")


def summary(found, tried, asked):
    """The record's values, under the names that the claims' bands use.

    `found` are results by job, `tried` those of the sweeps by arm and rate, `asked` is `full.settings()`.
    """
    facts = {arm: _of(found, f"facts_{arm}") for arm in FACTS}
    return {
        "settings": {name: asked[name] for name in KEPT},
        "sweeps": {arm: _sweep(rates) for arm, rates in tried.items()},
        "test": {name: [float(stats.unpack_rows(rows).mean()) for rows in one["rows"]]
                 for name, one in scores(found, asked).items()},
        **_transfer(found),
        **_partial(found, asked),
        **_forgetting(found),
        "facts": {arm: {key: [one[key] for one in runs] for key in ("right", "contains")}
                  for arm, runs in facts.items()},
        "batch": {str(size): _batch(_of(found, f"batch_{size}"), bench_methods.best_rate(tried[arm]))
                  for arm, size in batches(asked).items()},
        "epochs": _epochs(_of(found, "epochs")),
        "rounding": _rounding(_of(found, "rounding")),
    }  # fmt: skip


def scores(found, asked):
    """Test rows by score, one text a seed, as records keep them; "pre-trained" is "full" by another name."""
    names = {"full": "full", "pre-trained": "full", RANDOM: RANDOM, long_name(asked): LONG,
             **{f"partial-{blocks}": f"partial-{blocks}" for blocks in asked["partial"]}}  # fmt: skip
    return {name: {"task": "tickets", "split": "test",
                   "rows": [one["rows"] for one in _of(found, f"final_{arm}")]}
            for name, arm in names.items()}  # fmt: skip


def long_name(asked):
    """What the score of random weights with more steps is called."""
    return f"{RANDOM}, {asked['long'][-1]:,} steps"


def batches(asked):
    """{arm that was tuned: rows a step}, ascending; that of the budget was tuned as `full`."""
    sizes = {"full": asked["batch"], **{f"batch-{size}": size for size in asked["batches"]}}
    return dict(sorted(sizes.items(), key=lambda pair: pair[1]))


def _of(found, start):
    """Results of the jobs that begin so, in the order of their seeds, which end their names."""
    some = [name for name in found if name.startswith(f"{start}_")]
    return [found[name] for name in sorted(some, key=lambda name: int(name.rpartition("_")[2]))]


def _sweep(rates):
    best = bench_methods.best_rate(rates)
    return {"right": {f"{rate:g}": rates[rate]["right"] for rate in sorted(rates)},
            "loss": {f"{rate:g}": rates[rate]["loss"] for rate in sorted(rates)},
            "best": best, "at an end": best in (min(rates), max(rates))}  # fmt: skip


# ---- the start ------------------------------------------------------------------------------------------


def _transfer(found):
    pretrained, short, long = ([one["right"] for one in _of(found, f"curve_{arm}")]
                               for arm in ("full", RANDOM, LONG))  # fmt: skip
    random = [{**long_run, **run} for run, long_run in zip(short, long, strict=True)]
    reached = {"pre-trained": [steps_to(SCORE, one) for one in pretrained],
               "random": [steps_to(SCORE, one) for one in random]}  # fmt: skip
    pairs = [ratio(*pair) for pair in zip(random, pretrained, strict=True)]
    return {
        "steps ratio": [number for number, _ in pairs],
        "steps ratio is a lower bound": [bound for _, bound in pairs],
        "score to reach": SCORE,
        "steps to the score": reached,
        "curve": {name: {steps: [one[steps] for one in each] for steps in sorted(each[0], key=int)}
                  for name, each in (("pre-trained", pretrained), ("random", random))},
    }  # fmt: skip


def steps_to(score, right):
    """The fewest steps of {steps: share right} whose run reached `score`; None if none did."""
    return min((int(steps) for steps, share in right.items() if share >= score), default=None)


def ratio(random, pretrained):
    """(steps to SCORE, random over pre-trained; whether that is only a lower bound) of one seed's curves.

    Random weights that never reach it are taken to need the most steps that were tried: they need more, so
    the ratio is at least that. The pre-trained start is given the fewest steps tried that reach it, and may
    need fewer: that, too, makes the ratio too small, never too large. No number if pre-trained never
    reaches it.
    """
    there, here = steps_to(SCORE, random), steps_to(SCORE, pretrained)
    if here is None:
        return None, False
    return (there or max(map(int, random))) / here, there is None


# ---- the share of weights -------------------------------------------------------------------------------


def _partial(found, asked):
    every = judge.Recorded({"name": "full", "scores": scores(found, asked)})
    table = {}
    for blocks in asked["partial"]:
        name = f"partial-{blocks}"
        one, gap = _of(found, f"final_{name}")[0], judge.estimate({"gap": [name, "full"]}, every)
        table[str(blocks)] = {
            "fraction": one["trained"] / one["weights"], "gap": gap.mean, "low": gap.low, "high": gap.high,
            "gaps": list(gap.each), "matches": matches(gap.low, gap.high),
        }  # fmt: skip
    return {"partial": table, "smallest matching fraction": smallest(table.values())}


def matches(low, high):
    """`yes`, `no` or `open`: does an arm match full, given the 95% interval of its score minus full's?

    `yes` if the interval lies above -MARGIN, so that a point is the most it falls short; `no` if it lies
    below; else these rows and seeds cannot tell.
    """
    return "yes" if low >= -MARGIN else "no" if high < -MARGIN else "open"


def smallest(arms):
    """The smallest fraction of the weights whose training matches full's, {mean, low, high, each}.

    `arms` have fraction and matches. An arm matches if the 95% interval of its score minus full's, paired by
    test row and seed, over phrasings and seeds, lies above -1 point (`matches`); all weights match
    themselves. What is known is an interval: up to the smallest fraction that is shown to match (`high`, and
    `mean`), from the largest below it that is shown to fall short, with none below that is open (`low`; 0
    without one). With 2,000 rows of 120 phrasings and three seeds the gap's interval is several points wide,
    so an arm is shown to match only if it scores better than full.
    """
    arms = sorted(arms, key=lambda one: one["fraction"])
    high = next((one["fraction"] for one in arms if one["matches"] == "yes"), 1.0)
    short = []
    for one in arms:
        if one["matches"] != "no":
            break
        short.append(one["fraction"])
    return {"mean": high, "low": max(short, default=0.0), "high": high, "each": [high]}


# ---- forgetting -----------------------------------------------------------------------------------------


def _forgetting(found):
    table = {}  # rate -> what each seed gave
    for name, one in found.items():
        kind, *rest = name.split("_")
        if kind == "forget":
            rate, seed = rest
            kept = {key: one[key] for key in ("right", "general loss", "probe")}
            table.setdefault(rate, []).append({"seed": int(seed), **kept})
    seeds = sorted({one["seed"] for runs in table.values() for one in runs})
    every = [{float(rate): one for rate, runs in table.items() for one in runs if one["seed"] == seed}
             for seed in seeds]  # fmt: skip
    near = [sorted(close(runs)) for runs in every]
    common = sorted(set.intersection(*map(set, near))) if near else []

    def slopes(key):
        return [slope({rate: runs[rate][key] for rate in common}) for runs in every]

    return {
        "slope": slopes("general loss"),
        "probe slope": slopes("probe"),
        "rates near the best": near,
        "rates of the slope": common,  # near in every seed: seeds of other rates would not have one slope
        "forget": table,
    }


def close(runs):
    """Those of one seed's {rate: run} whose score is within NEAR of its best and whose loss is a number."""
    done = {rate: one for rate, one in runs.items()
            if one["general loss"] is not None and math.isfinite(one["general loss"])}  # fmt: skip
    best = max((one["right"] for one in done.values()), default=0.0)
    return {rate: one for rate, one in done.items() if one["right"] >= best - NEAR - 1e-9}


def slope(points):
    """Least-squares slope of {rate: number} over log10(rate); None with fewer than two rates.

    A slope over two rates is their difference: `rates of the slope` says how many there were.
    """
    if len(points) < 2:
        return None
    x, y = [math.log10(rate) for rate in points], list(points.values())
    middle, height = sum(x) / len(x), sum(y) / len(y)
    across = sum((a - middle) ** 2 for a in x)
    return sum((a - middle) * (b - height) for a, b in zip(x, y, strict=True)) / across


# ---- data, batch, rounding ------------------------------------------------------------------------------


def _batch(runs, rate):
    return {"rate": rate, **{key: [one[key] for one in runs] for key in ("right", "loss")}}


def _epochs(runs):
    keys = ("steps", "kept step", "loss", "right", "validation")
    return {name: {key: [run["epochs"][name][key] for run in runs] for key in keys}
            for name in [*map(str, EPOCHS), "stopped"]}  # fmt: skip


def _rounding(runs):
    return {way: {f"{rate:g}": {key: [run["rounding"][way][f"{rate:g}"][key] for run in runs]
                                for key in ("loss", "moved")} for rate in ROUNDING}
            for way in ("autocast", "pure bf16")}  # fmt: skip
