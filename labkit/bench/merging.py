"""Merging: soups, task arithmetic, SLERP, TIES, DARE, adapters, stacked layers, probes of two models at once.

Beside merges stand controls: TIES without trimming or election, one model trained on both tasks, and for the
stack a base that gets as much compute. Specialists are full finetunes on tickets, sql and voice, and adapters
on two of them; a job leaves the weights it trained in the bench's folder, about 8 GB in all, and later stages
merge them. What has a choice is chosen on validation rows with the first seed; test rows are only for the
numbers that are reported.
"""

import time

from labkit import env
from labkit.bench import jobs, merging_jobs, merging_more, merging_report, merging_values
from labkit.bench import methods as bench_methods
from labkit.bench.merging_jobs import GRID, JOINT_RATES, LORA_RATES, PAIRS_ONLY, RATES, SETS, SOUP_RATES
from labkit.bench.merging_more import ARMS, DROPS, LONGER, WAYS
from labkit.errors import LabkitError
from labkit.records import store

NAME = "merging"
TEXT_RATES = (3e-5, 1e-4, 3e-4, 1e-3)  # of continued pre-training, for the base and the stack alike
GPU = {"seeds": (0, 1, 2), "steps": 300, "batch": 8, "length": 512, "tried": 300, "rows": 1000,
       "claimed": 2000, "judging": 500, "text": 400, "look": 30, "probed": 2000,
       "settings": None}  # fmt: skip
SMOKE = {"seeds": (0,), "steps": 1, "batch": 1, "length": 512, "tried": 2, "rows": 2,
         "claimed": 3, "judging": 2, "text": 2, "look": 1, "probed": 8, "settings": 1}  # fmt: skip
CODE = ("bench/merging", "bench/merging_jobs", "bench/merging_more", "bench/merging_values",
        "bench/answers", "bench/full_jobs", "bench/lora_jobs", "bench/methods", "methods/full",
        "methods/lora", "methods/merging/arithmetic", "methods/merging/lora",
        "methods/merging/representations", "methods/merging/specialists",
        "methods/merging/stacking")  # fmt: skip
CODES = dict.fromkeys(ARMS, "text")  # ends the names of a sweep's jobs: what judges them
# Families that are trained on or scored, or read in continued pre-training.
FAMILIES = ("tickets", "sql", "voice", "general", "handbook", "jobs")


def main(argv):
    """Run what is missing and write data/measurements/merging.json; without a GPU, a trial, no record."""
    options = jobs.options(NAME, __doc__, argv)
    profile, asked = env.profile(), settings()
    digest = {**store.data_digest(*FAMILIES), **store.training_digest(),
              **store.code_digest(*(f"labkit/{part}.py" for part in CODE))}  # fmt: skip
    mark = {**digest, "profile": profile}  # a trial's results are no measurement's
    if options.job:
        jobs.write(options.folder, options.job, {**job(options.job, options.folder), "digest": mark})
        return 0

    def run(names):
        return jobs.run(NAME, names, options.folder, options.jobs, mark)

    start = dict.fromkeys(ARMS, TEXT_RATES)
    first = [bench_methods._name("sweep", arm, rate, 0, CODES) for arm in start for rate in start[arm]]
    run([*trained(asked), *first])  # all at once, to keep the machine busy; the sweep finds them done
    found = run(trained(asked))
    most = bench_methods.EXTENSIONS if profile == "gpu" else 0
    tried, failed = bench_methods.sweep(start, CODES, 0, run, most)
    if failed:
        raise LabkitError("; ".join(f"pre-training of {arm} failed {why}" for arm, why in failed.items()))
    found |= run(merged(asked, {arm: bench_methods.best_rate(rates) for arm, rates in tried.items()}))
    chosen = merging_values.chosen(found, asked)
    found |= run(finals(asked, chosen))
    values = merging_values.summary(found, tried, chosen, asked)
    scores = merging_values.scores(found, chosen, asked)
    every = [*found.values(), *(one for rates in tried.values() for one in rates.values())]
    jobs.finish(NAME, merging_report.lines(values), every, values=values, digest=digest, scores=scores)
    return 0


def settings():
    """The numbers of this profile."""
    return vars(env.budget(cpu=SMOKE, gpu=GPU, smoke=SMOKE))


# ---- what is run, stage by stage ------------------------------------------------------------------------


def trained(asked):
    """Jobs that wait for none: what the later ones merge, and the base's scores.

    Estimates for one H200 and a job alone: specialist 40 s (10 to train, the rest to score three tasks),
    adapter 30 s, joint 45 s, base 25 s, and a run of the sweep on plain text beside them 25 s; with 8 side by
    side about 6 minutes.
    """
    seeds = asked["seeds"]
    every = [(task, rate) for task in RATES for rate in (SOUP_RATES if task == "tickets" else [RATES[task]])]
    return [
        *(merging_jobs.specialist_of(task, seed, rate) for task, rate in every for seed in seeds),
        *(f"joint_{rate:g}_{seed}" for rate in JOINT_RATES for seed in seeds),
        *(merging_jobs.adapter_of(task, seed) for task in LORA_RATES for seed in seeds),
        "base",
    ]


def merged(asked, rates):
    """Jobs that read what `trained` left, the longest first; `rates` are the best ones on plain text, by arm.

    Estimates for one H200 and a job alone: soup 50 to 100 s, tune 15 to 80 s, lora 60 s, dare 20 to 40 s,
    grow 25 to 35 s, probe 30 s, negate 25 s; with 8 side by side about 13 minutes.
    """
    seeds = asked["seeds"]
    return [
        *(f"soup_{group}" for group in merging_more.groups(asked)),
        *(f"tune_{some}_{method}" for some, method in tuned()),
        *(f"lora_{way}_{seed}" for way in WAYS for seed in seeds),
        *(f"dare_{drop:g}_{seed}" for drop in DROPS for seed in seeds),
        *(f"grow_{arm}_{rate:g}_{seed}" for arm, rate in {**rates, LONGER: rates["base"]}.items()
          for seed in seeds),
        *(f"probe_{seed}" for seed in seeds),
        *(f"negate_{seed}" for seed in seeds),
    ]  # fmt: skip


def tuned():
    """(set of tasks, method) of every merge: SLERP takes two models."""
    return [(some, method) for some in reversed(SETS) for method in GRID
            if len(SETS[some]) == 2 or method not in PAIRS_ONLY]  # fmt: skip


def finals(asked, chosen):
    """Jobs that score each method's best setting, `chosen[set][method]`, on test rows with every seed.

    Estimate for one H200 and a job alone: 25 s; with 8 side by side about 4 minutes.
    """
    return [f"final_{some}_{method}_{one['setting']}_{seed}" for some, methods in chosen.items()
            for method, one in methods.items() for seed in asked["seeds"]]  # fmt: skip


def job(name, folder):
    """One job by name; returns what `jobs.write` stores, with its seconds and peak bytes.

    Weights that it trained it leaves in `folder`, and there it reads those of others.
    """
    import torch

    asked, started = settings(), time.perf_counter()
    torch.set_float32_matmul_precision("high")
    kind, *rest = name.split("_")
    here = ("base", "specialist", "adapter", "joint", "tune", "final")
    home = merging_jobs if kind in here else merging_more
    result = getattr(home, kind)(*rest, asked, folder)
    return {**result, **jobs.cost(started)}
