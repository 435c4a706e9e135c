"""From the jobs of `bench lora` to the values and scores of its record."""

from statistics import mean

from labkit.bench import methods as bench_methods
from labkit.bench.lora_jobs import CHANGED, SLIGHTLY
from labkit.errors import LabkitError
from labkit.records import stats

SHORT = {"full": "full", "lora-r16": "lora"}  # what the claims call a method


def summary(found, asked):
    """The record's values, under the names that the claims' bands use; `asked` is `lora.settings()`."""
    kept = ("seeds", "steps", "batch", "length", "weaker", "repeats", "timings", "prompts", "calls")
    [merged] = _of(found, "merge")
    return {
        "settings": {name: asked[name] for name in kept},
        "low rank": _low_rank(_of(found, "lowrank")),
        **_merging(merged),
        **_speed(found),
        **_forgetting(found),
        "rebase": _rebase(_of(found, "rebase")),
    }


def scores(found):
    """Test rows by score, one text a seed, as records keep them."""
    runs = [*zip(*[_of(found, kind) for kind in ("lowrank", "rebase")], strict=True)]
    names = [name for one in runs[0] for name in one["rows"]]
    rows = [low["rows"] | other["rows"] for low, other in runs]
    return {name: {"task": "tickets", "split": "test", "rows": [each[name] for each in rows]}
            for name in names}  # fmt: skip


def _of(found, kind):
    """Results of one kind of job, in the order of their seeds, which end their names."""
    some = [name for name in found if name.startswith(f"{kind}_")]
    return [found[name] for name in sorted(some, key=lambda name: name.rpartition("_")[2])]


def _low_rank(runs):
    def each(what, kind):
        return {rank: [run[what][kind][rank] for run in runs] for rank in runs[0][what][kind]}

    return {
        "validation": {"whole": [run["validation"]["whole"] for run in runs],
                       **{kind: each("validation", kind) for kind in ("full", "shuffled")}},
        "energy": {kind: each("energy", kind) for kind in ("full", "shuffled")},
        "test": _shares(runs),
    }  # fmt: skip


def _shares(runs):
    """Share of test rows answered exactly, by score, one number a seed."""
    return {name: [float(stats.unpack_rows(run["rows"][name]).mean()) for run in runs]
            for name in runs[0]["rows"]}  # fmt: skip


def _merging(one):
    times, logits = one["times"], one["logits"]
    ratio = {name: {what: _over(each[name], each["base"]) for what, each in times.items()}
             for name in ("merged", "unmerged")}  # fmt: skip
    return {
        "logits": logits,
        "rounding to bf16": one["rounding"]["largest logit difference"] / one["rounding"]["largest logit"],
        "relative logit difference": {dtype: found["largest logit difference"] / found["largest logit"]
                                      for dtype, found in logits.items()},
        "merged time": ratio["merged"],
        "unmerged time": ratio["unmerged"],
        "forward seconds": times,
    }  # fmt: skip


def _speed(found):
    table = {}  # size -> engine -> method -> what a run measured -> a list, one number a repeat
    names = [name for name in found if name.startswith("speed_")]
    for name in sorted(names, key=lambda name: int(name.rpartition("_")[2])):
        _, size, engine, method, _ = name.split("_")
        place = table.setdefault(size, {}).setdefault(engine, {}).setdefault(method, {})
        for key in ("tokens/s", "step ms", "peak bytes", "batch", "length", "timed"):
            place.setdefault(key, []).append(found[name][key])
    ratios = {f"{size}, {engine}": _over(each["lora-r16"]["tokens/s"], each["full"]["tokens/s"])
              for size, engines in table.items() for engine, each in engines.items()}  # fmt: skip
    counted = {method: found[f"flops_{method}"]["FLOPs"] for method in SHORT}
    return {
        "speed": table,
        "tokens/s ratio": ratios,
        "best tokens/s ratio": max(ratios.values(), key=mean),
        "FLOPs": counted,
        "FLOPs ratio": counted["lora-r16"] / counted["full"],
    }


def _over(these, those):
    return [a / b for a, b in zip(these, those, strict=True)]


# ---- forgetting -----------------------------------------------------------------------------------------


def _forgetting(found):
    points = {}  # method -> rate -> list of what each seed gave
    for name, one in found.items():
        kind, *rest = name.split("_")
        if kind == "forget":
            method, rate, seed = rest
            kept = {key: one[key] for key in ("right", "general loss", "probe")}
            points.setdefault(method, {}).setdefault(rate, []).append({"seed": int(seed), **kept})
    seeds = sorted({one["seed"] for rates in points.values() for each in rates.values() for one in each})
    gaps = [matched(*(_points(points[method], seed) for method in SHORT)) for seed in seeds]
    return {
        "loss at matched score, worst": [max(each.values()) for each in gaps],
        "loss at matched score, best": [min(each.values()) for each in gaps],
        "loss at matched score": [{f"{score:.3f}": gap for score, gap in each.items()} for each in gaps],
        "forget": points,
    }


def _points(rates, seed):
    """(score, loss) of one method's runs with one seed, less those that diverged."""
    every = [one for each in rates.values() for one in each if one["seed"] == seed]
    return [(one["right"], one["general loss"]) for one in every if one["general loss"] is not None]


def matched(full, lora):
    """score -> LoRA's lowest loss at that score or above, minus full's; both are lists of (score, loss).

    Taken at every score of either front (a run is on it if no other of its method has at least its score and
    a lower loss) that lies between the higher of the fronts' lower ends and the lower of their upper ends:
    below, a method would be charged for a rate that was not tried; above, one of them has no run.

    Is that fair? A method that was run at few rates is charged, between two of its scores, the loss of the
    higher one. So at full's own scores the difference is against LoRA, and at LoRA's own for it: the
    largest is the worst for LoRA by its rates' coarseness too, the smallest the best by full's. Both methods
    have five rates in steps of 3 around their best, but where scores of neighbours lie far apart, as where
    the higher rates of a method break it, its front is the coarser. If both ends of the range have one sign,
    the rates decide nothing; else see which runs beat runs of the other method in score and loss both.
    Scores are shares of 600 rows whose 61 phrasings were kept from training: near the upper end a few points
    of score are noise, and can be much loss.

    Raises LabkitError where the fronts have no score in common.
    """
    fronts = [front(full), front(lora)]
    if not all(fronts):
        raise LabkitError("every run of a method diverged: there is no score to compare losses at")
    low, high = max(one[0][0] for one in fronts), min(one[-1][0] for one in fronts)
    wanted = sorted({score for one in fronts for score, _ in one if low <= score <= high})
    if not wanted:
        raise LabkitError(
            f"no score was reached by both methods: full {fronts[0][0][0]:.3f} to {fronts[0][-1][0]:.3f}, "
            f"LoRA {fronts[1][0][0]:.3f} to {fronts[1][-1][0]:.3f}. Try more rates in lora.around"
        )
    return {score: lowest(lora, score) - lowest(full, score) for score in wanted}


def front(points):
    """The points (score, loss) that no other beats in one and equals in the other; ascending."""
    kept = []
    for score, loss in sorted(set(points), key=lambda point: (-point[0], point[1])):
        if not kept or loss < kept[-1][1]:
            kept.append((score, loss))
    return kept[::-1]


def lowest(points, score):
    """The lowest loss at `score` or above."""
    return min(loss for reached, loss in points if reached >= score)


# ---- another base, and batch sizes ----------------------------------------------------------------------


def _rebase(runs):
    changes = {name: [run["change"][name] for run in runs] for name in (SLIGHTLY, CHANGED)}
    return {"test": _shares(runs),
            "change": {name: {key: [one[key] for one in each] for key in each[0]}
                       for name, each in changes.items()}}  # fmt: skip


def best_rates(tried):
    """For each method the best rate by batch size, from {`full-b8`: {rate: result}}.

    {"lora": {"lowest best rate": ..., "highest best rate": ..., "best rates": {"8": ...}, "tried": ...}}
    """
    found = {}
    for method, short in SHORT.items():
        sizes = sorted(int(arm.rpartition("-b")[2]) for arm in tried if arm.rpartition("-b")[0] == method)
        by_size = {size: tried[f"{method}-b{size}"] for size in sizes}
        best = {str(size): bench_methods.best_rate(rates) for size, rates in by_size.items()}
        found[short] = {
            "lowest best rate": min(best.values()),
            "highest best rate": max(best.values()),
            "best rates": best,
            "at an end": [size for size in best if best[size] in _ends(by_size[int(size)])],
            "tried": {str(size): {f"{rate:g}": rates[rate]["right"] for rate in sorted(rates)}
                      for size, rates in by_size.items()},
        }  # fmt: skip
    return found


def _ends(rates):
    return min(rates), max(rates)
