"""Full finetuning: its start, the share of weights it needs, its rate, its data, its batch and its rounding.

On tickets, and on the handbook for continued pre-training. Every rate is chosen by phrasings kept from
training; one that stands in a job's name makes another best rate another job.
"""

import time

from labkit import env, methods
from labkit.bench import full_jobs, full_report, full_values, jobs, lora_jobs
from labkit.bench import methods as bench_methods
from labkit.bench.full_jobs import LONG, RANDOM
from labkit.errors import LabkitError
from labkit.records import store

NAME = "full"
PARTIAL = (2, 4, 8, 11, 13, 15, 22)  # of 30 blocks: three of them where 20 to 35% of the weights are
RANDOM_RATES = (1e-4, 3e-4, 1e-3, 3e-3)
FORGET = (3e-5, 1e-4, 3e-4, 6e-4, 1e-3, 3e-3)  # two decades, closer together where the best is likely
CODE_OF_SWEEP = "unseen"  # ends the names of a sweep's jobs: what judges them
GPU = {"seeds": (0, 1, 2), "steps": 300, "batch": 8, "length": 512, "rows": 2000, "partial": PARTIAL,
       "looks": (50, 100, 150, 200, 250, 300), "long": (600, 1200), "batches": (2, 32), "few": 1000,
       "short": 100}  # fmt: skip
SMOKE = {"seeds": (0,), "steps": 1, "batch": 1, "length": 512, "rows": 2, "partial": (1, 2),
         "looks": (1,), "long": (1, 2), "batches": (2,), "few": 4, "short": 1}  # fmt: skip
CODE = ("bench/full", "bench/answers", "bench/full_jobs", "bench/lora_jobs", "bench/methods",
        "methods/full")  # fmt: skip
VALUES = "labkit/bench/full_values.py"  # of the record alone: what it makes of jobs may be mended
FAMILIES = ("tickets", "general", "handbook")


def main(argv):
    """Run what is missing and write data/measurements/full.json; without a GPU, a trial, no record."""
    options = jobs.options(NAME, __doc__, argv)
    profile, asked = env.profile(), settings()
    digest = {**store.data_digest(*FAMILIES), **store.training_digest(),
              **store.code_digest(*(f"labkit/{part}.py" for part in CODE))}  # fmt: skip
    mark = {**digest, "profile": profile}  # a trial's results are no measurement's
    if options.job:
        jobs.write(options.folder, options.job, {**job(options.job), "digest": mark})
        return 0

    def run(names):
        return jobs.run(NAME, names, options.folder, options.jobs, mark)

    known, start = recorded(asked), arms(asked)
    first = [_sweep(arm, rate) for arm in start if arm not in known for rate in start[arm]]
    run([*first, *free(asked)])  # all at once, to keep the machine busy; what follows finds them done
    tried = sweep(start, known, run, bench_methods.EXTENSIONS if profile == "gpu" else 0)
    best = {arm: bench_methods.best_rate(rates) for arm, rates in tried.items()}
    found = run([*free(asked), *tuned(asked, best)])
    values, scores = full_values.summary(found, tried, asked), full_values.scores(found, asked)
    swept = [one for rates in tried.values() for one in rates.values() if "seconds" in one]  # not those known
    jobs.finish(NAME, full_report.lines(values), [*found.values(), *swept],
                values=values, digest={**digest, **store.code_digest(VALUES)}, scores=scores)  # fmt: skip
    return 0


def settings():
    """The numbers of this profile."""
    return vars(env.budget(cpu=SMOKE, gpu=GPU, smoke=SMOKE))


# ---- what is run ----------------------------------------------------------------------------------------


def arms(asked):
    """Rates to begin with, by arm: what is tuned by itself, all alike."""
    full = methods.find("full").rates
    partial = {f"partial-{blocks}": methods.find(f"partial-{blocks}").rates for blocks in asked["partial"]}
    batches = {f"batch-{size}": full for size in asked["batches"]}
    return {"full": full, **partial, RANDOM: RANDOM_RATES, LONG: RANDOM_RATES, **batches,
            "pretrain": full, "sft": full}  # fmt: skip


def recorded(asked):
    """{arm: {rate: result}} that methods_tickets has already tried with the budget of `asked`."""
    whole = store.read("methods_tickets")
    if whole is None:
        return {}
    there, entries = whole["values"]["settings"], whole["values"]["methods"]
    if any(there[key] != asked[key] for key in ("steps", "batch", "length")):
        return {}
    return {arm: {float(rate): {"right": share, "loss": entries[arm]["losses"][rate]}
                  for rate, share in entries[arm]["rates"].items()}
            for arm in arms(asked) if arm in entries}  # fmt: skip


def sweep(start, known, run, most):
    """{arm: {rate: result}} of every arm, `known` as they are; LabkitError if one diverges everywhere."""
    start = {arm: rates for arm, rates in start.items() if arm not in known}
    tried, failed = bench_methods.sweep(start, dict.fromkeys(start, CODE_OF_SWEEP), 0, run, most)
    if failed:
        raise LabkitError("; ".join(f"{arm} failed {why}" for arm, why in failed.items()))
    return tried | known


def _sweep(arm, rate):
    return bench_methods._name("sweep", arm, rate, 0, {arm: CODE_OF_SWEEP})


def free(asked):
    """Jobs whose rates are fixed."""
    seeds = asked["seeds"]
    forget = [f"forget_{rate:g}_{seed}" for rate in FORGET for seed in seeds]
    return [*forget, *(f"rounding_{seed}" for seed in seeds), "facts_base_0_0_0"]


def tuned(asked, best):
    """Jobs at each arm's best rate, the longest first."""
    text, questions = best["pretrain"], best["sft"]
    stages = {"pretrain": (text, 0), "sft": (0, questions), "both": (text, questions),
              "sft-long": (0, questions)}  # fmt: skip
    scored = ["full", *(f"partial-{blocks}" for blocks in asked["partial"]), RANDOM, LONG]
    out = []
    for seed in asked["seeds"]:
        out += [f"curve_{arm}_{best[arm]:g}_{seed}" for arm in (LONG, "full", RANDOM)]
        out += [f"epochs_{best['full']:g}_{seed}"]
        out += [f"final_{arm}_{best[arm]:g}_{seed}" for arm in scored]
        out += [f"facts_{arm}_{first:g}_{second:g}_{seed}" for arm, (first, second) in stages.items()]
        out += [f"batch_{size}_{best[arm]:g}_{seed}" for arm, size in full_values.batches(asked).items()]
    return sorted(out, key=lambda name: not name.startswith(("curve", "epochs")))


def job(name):
    """One job by name; returns what `jobs.write` stores, with its seconds and peak bytes."""
    import torch

    asked, started = settings(), time.perf_counter()
    torch.set_float32_matmul_precision("high")
    kind, *rest = name.split("_")
    if kind == "sweep":
        arm, rate, seed, _ = rest
        result = full_jobs.tune(arm, rate, seed, asked)
    elif kind == "forget":
        result = lora_jobs.forget("full", *rest, asked)
    elif kind == "batch":
        size, rate, seed = rest
        result = full_jobs.tune(f"batch-{size}", rate, seed, asked)
    else:
        do = {"final": full_jobs.final, "curve": full_jobs.curve, "facts": full_jobs.facts,
              "epochs": full_jobs.epochs, "rounding": full_jobs.rounding}[kind]  # fmt: skip
        result = do(*rest, asked)
    return {**result, **jobs.cost(started)}
