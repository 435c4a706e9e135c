"""From the jobs of `bench data` to the values and scores of its record, under the names of the claims."""

import math
from statistics import mean

from labkit.bench import data_more
from labkit.bench import methods as bench_methods
from labkit.bench.data_jobs import COUNTS, LENGTHS, MIXES, NOISE, NOISY, SHORT, arms
from labkit.records import stats

QUALITY = {"clean diverse 1k": "lora-1000", "clean diverse 10k": "lora-10000",
           "noisy diverse 10k": f"noise{NOISY}-10000", "clean uniform 10k": "uniform-10000",
           "noisy uniform 10k": f"uniform-noise{NOISY}-10000"}  # fmt: skip
MIX = {"no mix": "lora-1000", **{f"mix {times}x": f"mix{times}" for times in MIXES}}
EPOCHS = {f"mix {times}x, equal epochs": f"mix{times}-epochs" for times in MIXES}
PILOT = {"helps": "tickets", "cannot": "handbook"}
COT = {"step by step": "steps", "filler": "filler", "answer only": "answer"}
MASK = {"answers only, packed": "lora-1000", "prompt weighs 0.1": "prompt10", "prompt weighs 1": "prompt100",
        "answers only, padded": "padded"}  # fmt: skip
SPEEDS = ("packed", "stepped", "padded")
# Pilots of 50 rows take the rate of 100: who has 50 rows has none to spare for choosing.
UNTUNED = {"helps-50": "helps-100", "cannot-50": "cannot-100"}
BAND = (0.15, 0.5)  # in which answer-only is to lie


def summary(found, tried, digits, asked):
    """The record's values; `found` has the jobs that train and score, `tried` those that chose rates."""
    shares = {name: _shares(found, name, asked) for name in finals(digits)}
    noise = {0: shares["lora-10000"]} | {one: shares[f"noise{one}-10000"] for one in sorted({NOISY, *NOISE})}
    curves = {short: {str(count): shares[f"{short}-{count}"] for count in COUNTS} for short in SHORT}
    kept = ("seeds", "steps", "few", "batch", "length", "passages", "generations")
    return {
        "settings": {name: asked[name] for name in kept},
        "rates": {arm: _rates(rates) for arm, rates in tried.items()},
        "test": shares,
        "quality": {name: shares[arm] for name, arm in QUALITY.items()},
        "noise": {str(share): each for share, each in noise.items()},
        # Of the means: a single seed's line of seven points crosses the bar by chance, and then too early.
        "flips at": flips_at({share: mean(each) for share, each in noise.items()}, mean(shares["lora-1000"])),
        "flips at by seed": [flips_at({share: each[place] for share, each in noise.items()}, bar)
                             for place, bar in enumerate(shares["lora-1000"])],
        "mix": {name: shares[arm] for name, arm in (MIX | EPOCHS).items()},
        "worst mix": worst_mix(tried),
        "mix steps": {name: _each(found, arm, asked, "steps") for name, arm in (MIX | EPOCHS).items()},
        "pilot": {name: {"0": [_share(found[f"base_{family}"]["rows"])] * len(asked["seeds"]),
                         **{str(count): shares[f"{name}-{count}"] for count in (50, 100)}}
                  for name, family in PILOT.items()},
        "pilot detail": _each(found, "cannot-100", asked, "detail"),
        "returns": curves,
        "first gain minus last": returns(curves["lora"]),
        "cot": {"digits": digits, "judged": judged(tried),
                **{name: shares[f"{form}-{digits}"] for name, form in COT.items()},
                "detail": {name: _each(found, f"{form}-{digits}", asked, "detail")
                           for name, form in COT.items()}},
        **_bias(found, asked),
        **_collapse(found, asked),
        "mask": {name: shares[arm] for name, arm in MASK.items()},
        "speed": {how: next(one for name, one in found.items() if name.startswith(f"speed_{how}_"))
                  for how in SPEEDS},
    }  # fmt: skip


def scores(found, tried, digits, asked):
    """Test rows by the claims' names of scores, one text a seed, as records keep them."""
    names = {**QUALITY, **MIX, "worst mix": MIX[worst_mix(tried)]}
    for method in SHORT:
        names |= {f"{method}, fewest rows": f"{method}-{COUNTS[0]}",
                  f"{method}, most rows": f"{method}-{COUNTS[-1]}"}  # fmt: skip
    whole = {name: _score("tickets", _each(found, arm, asked, "rows")) for name, arm in names.items()}
    for short, family in PILOT.items():
        says = "helps" if short == "helps" else "cannot help"
        # The base has no seed: it stands beside each one's training, as its start.
        none = [found[f"base_{family}"]["rows"]] * len(asked["seeds"])
        whole[f"{says}, 0 rows"] = _score(family, none)
        for count in (50, 100):
            whole[f"{says}, {count} rows"] = _score(family, _each(found, f"{short}-{count}", asked, "rows"))
    for name, form in COT.items():
        whole[name] = _score("arithmetic", _each(found, f"{form}-{digits}", asked, "rows"))
    return whole


def finals(digits):
    """The arms that are scored on test rows: all, but arithmetic of the lengths that were not chosen."""
    return [name for name, arm in arms().items() if arm.digits in (0, digits)]


def tuned_as(name):
    """The arm whose rate an arm takes: its own, but for those that are not tuned."""
    return UNTUNED.get(name, name)


def rate_of(name, best):
    """The rate of an arm, from the best of those that were tuned."""
    return best[tuned_as(name)]


def length(tried):
    """The number of digits at which answer-only, at its best rate, comes nearest to the middle of its band.

    By rows that choose rates, not by test rows; BAND's middle is the geometric one, a ratio away from either
    end. Where no length lies in the band, this is still the nearest, and `judged` shows it.
    """
    middle = math.log(math.sqrt(BAND[0] * BAND[1]))
    shares = judged(tried)
    return min(LENGTHS, key=lambda digits: abs(math.log(max(shares[str(digits)], 1e-3)) - middle))


def judged(tried):
    """Share right of answer-only at its best rate, by digits, on the rows that choose rates."""
    return {str(digits): _best(tried[f"answer-{digits}"])["right"] for digits in LENGTHS}


def worst_mix(tried):
    """Which of the mixes in equal steps is worst on the rows that choose rates, each at its best rate."""
    mixes = {f"mix {times}x": _best(tried[f"mix{times}"]) for times in MIXES}
    return min(mixes, key=lambda name: (mixes[name]["right"], -(mixes[name]["loss"] or math.inf)))


def flips_at(noise, bar):
    """The share of damaged rows at which a score falls below `bar`, between two measured ones on a line.

    `noise` is {percent: score}. 0 where it is below without any; None where it never falls below.
    """
    before = None
    for percent, score in sorted(noise.items()):
        if score < bar:
            if before is None:
                return 0.0
            low, high = before
            return (low + (percent - low) * (high - bar) / (high - score)) / 100
        before = percent, score
    return None


def returns(curve):
    """Gain of the first doubling minus that of the last, one number a seed; `curve` is {rows: shares}.

    The claim is judged by LoRA, the course's default; full finetuning's curve stands beside it.
    """
    first, second, *_, last_but_one, last = (curve[str(count)] for count in COUNTS)
    return [(b - a) - (d - c) for a, b, c, d in zip(first, second, last_but_one, last, strict=True)]


# ---- what has no rows -----------------------------------------------------------------------------------


def _bias(found, asked):
    before = found["base_jobs"]
    runs = {which: _runs(found, f"bias_{which}_", asked) for which in data_more.ROWS}
    each = {which: {
        "log-odds": [run["chat"]["log-odds"] for run in some],
        "log-odds, bare text": [run["bare"]["log-odds"] for run in some],
        "signed": [_signed(run["chat"]["by job"]) for run in some],
        "spread": [_spread(run["chat"]["by job"]) for run in some],
        "perplexity ratio": [math.exp(run["general loss"] - before["general loss"]) for run in some],
    } for which, some in runs.items()}  # fmt: skip
    start = before["chat"]["log-odds"]
    return {
        "log-odds ratio": [one / start for one in each["counterfactual"]["log-odds"]],
        "perplexity ratio": each["counterfactual"]["perplexity ratio"],
        "bias": {"before": {"log-odds": start, "log-odds, bare text": before["bare"]["log-odds"],
                            "signed": _signed(before["chat"]["by job"]),
                            "spread": _spread(before["chat"]["by job"])}, **each},
        "by job": {"before": before["chat"]["by job"],
                   "after": [run["chat"]["by job"] for run in runs["counterfactual"]]},
    }  # fmt: skip


def _signed(jobs):
    return sum(jobs.values()) / len(jobs)


def _spread(jobs):
    """Standard deviation of the jobs' signed log-odds: what is left when all lean one way alike."""
    mean = _signed(jobs)
    return math.sqrt(sum((one - mean) ** 2 for one in jobs.values()) / len(jobs))


def _collapse(found, asked):
    runs = {way: _runs(found, f"collapse_{way}_", asked) for way in data_more.WAYS}
    rise = {way: [run["losses"][-1] - run["losses"][0] for run in some] for way, some in runs.items()}
    # Without a rise there is no share of it: the seed then has no number.
    ratio = [real / none if none > 0 else None
             for real, none in zip(rise["real10"], rise["replace"], strict=True)]  # fmt: skip
    return {
        "rise": rise,
        "rise ratio": ratio,
        "collapse": {way: {"losses": [run["losses"] for run in some],
                           "distinct": [run["distinct"] for run in some]} for way, some in runs.items()},
    }  # fmt: skip


# ---- helpers --------------------------------------------------------------------------------------------


def _runs(found, start, asked):
    """Results of the jobs whose names begin so, in the order of the seeds, which end their names."""
    by_seed = {int(name.rpartition("_")[2]): one for name, one in found.items() if name.startswith(start)}
    return [by_seed[seed] for seed in asked["seeds"]]


def _each(found, arm, asked, key):
    return [one[key] for one in _runs(found, f"final_{arm}_", asked)]


def _shares(found, arm, asked):
    return [_share(rows) for rows in _each(found, arm, asked, "rows")]


def _share(rows):
    return float(stats.unpack_rows(rows).mean())


def _score(family, rows):
    return {"task": family, "split": "test", "rows": rows}


def _best(rates):
    return rates[bench_methods.best_rate(rates)]


def _rates(rates):
    best = bench_methods.best_rate(rates)
    return {"best": best, "at an end": best in (min(rates), max(rates)),
            "right": {f"{rate:g}": rates[rate]["right"] for rate in sorted(rates)},
            "loss": {f"{rate:g}": rates[rate]["loss"] for rate in sorted(rates)}}  # fmt: skip
