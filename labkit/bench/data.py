"""What rows do: quality, mixes, pilots, learning curves, working shown, a rebalanced association, collapse.

Every arm's learning rate is the best of three, and of one more while the best is at an end, by one seed; then
three seeds are trained and scored on test rows. How each is kept fair stands in data_jobs and data_more.
"""

import inspect
import time
from pathlib import Path

from labkit import env, tasks
from labkit.bench import data_jobs, data_more, data_report, data_values, jobs
from labkit.bench import methods as bench_methods
from labkit.errors import LabkitError
from labkit.paths import ROOT
from labkit.records import store

NAME = "data"
GPU = {"seeds": (0, 1, 2), "steps": 300, "few": 60, "batch": 8, "length": 512, "rows": 2000, "shrink": 1,
       "passages": 1000, "generations": data_more.GENERATIONS, "further": 1}  # fmt: skip
SMOKE = {"seeds": (0,), "steps": 1, "few": 1, "batch": 1, "length": 512, "rows": 2, "shrink": 1000,
         "passages": 12, "generations": 2, "further": 0}  # fmt: skip
CODE = ("bench/data", "bench/answers", "bench/data_jobs", "bench/data_more", "bench/methods", "evaluate",
        "methods/full", "methods/lora", "tasks/corrupt", "tasks/jobs/association")  # fmt: skip
VALUES = "labkit/bench/data_values.py"  # the record depends on it, no job does
SCORED = ("tickets", "handbook", "arithmetic")
FAMILIES = (*SCORED, "sql", "voice", "jobs", "general")
END = "data"  # what ends the names of a sweep's jobs


def main(argv):
    """Run what is missing and write data/measurements/data.json; without a GPU, a trial, no record."""
    options = jobs.options(NAME, __doc__, argv)
    profile, asked, digest = env.profile(), settings(), depends()
    mark = {**digest, "profile": profile}  # a trial's results are no measurement's
    if options.job:
        jobs.write(options.folder, options.job, {**job(options.job), "digest": mark})
        return 0

    def run(names, side_by_side=options.jobs):
        return jobs.run(NAME, names, options.folder, side_by_side, mark)

    tried = tune(first(), asked, run)
    digits = data_values.length(tried)
    early = {arm: bench_methods.best_rate(rates) for arm, rates in tried.items()}
    sweeps = [bench_methods._name("sweep", arm, rate, asked["seeds"][0], dict.fromkeys([arm], END))
              for arm, rates in working(digits).items() for rate in rates]  # fmt: skip
    run([*names(asked, early, digits)[0], *sweeps])  # six jobs alone would leave the card idle
    tried |= tune(working(digits), asked, run)
    best = {arm: bench_methods.best_rate(rates) for arm, rates in tried.items()}
    trained, alone = names(asked, best, digits)
    found = run(trained) | run(alone, 1)  # with the card to itself: these are timed
    values = data_values.summary(found, tried, digits, asked)
    every = [*found.values(), *(one for rates in tried.values() for one in rates.values())]
    jobs.finish(NAME, data_report.lines(values), every, values=values,
                digest={**digest, **store.code_digest(VALUES)},
                scores=data_values.scores(found, tried, digits, asked))  # fmt: skip
    return 0


def settings():
    """The numbers of this profile."""
    return vars(env.budget(cpu=SMOKE, gpu=GPU, smoke=SMOKE))


def depends():
    """What a job depends on: rows, what trains, what scores, this bench's code."""
    scorers = {Path(inspect.getfile(tasks.family(name).score)).relative_to(ROOT) for name in SCORED}
    code = [*(f"labkit/{part}.py" for part in CODE), *sorted(map(str, scorers))]
    return {**store.data_digest(*FAMILIES), **store.training_digest(), **store.code_digest(*code)}


def first():
    """{arm: rates to begin with} of all that wants no other arm's result; pilots of 50 rows are not tuned."""
    arms = {name: data_jobs.RATES[arm.method] for name, arm in data_jobs.arms().items()
            if name not in data_values.UNTUNED and arm.form == "answer"}  # fmt: skip
    return {**arms, "bias": data_more.GENTLE, "collapse": data_jobs.RATES["lora-r16"]}


def working(digits):
    """The same of the arms that show working, or filler, at the length chosen."""
    return {f"{form}-{digits}": data_jobs.RATES["lora-r16"] for form in ("steps", "filler")}


def tune(start, asked, run):
    """{arm: {rate: result}} of every rate tried with the first seed; LabkitError if all of one diverged."""
    codes = dict.fromkeys(start, END)
    tried, failed = bench_methods.sweep(start, codes, asked["seeds"][0], run, asked["further"])
    if failed:
        raise LabkitError("; ".join(f"{arm} failed {why}" for arm, why in failed.items()))
    return tried


def names(asked, best, digits):
    """(jobs that train and score, jobs that want the card to themselves), the longest first.

    Without those of arms that `best` has no rate for yet.
    """
    seeds = asked["seeds"]
    trained = [f"collapse_{way}_{best['collapse']:g}_{seed}" for way in data_more.WAYS for seed in seeds]
    trained += [f"final_{name}_{data_values.rate_of(name, best):g}_{seed}"
                for name in data_values.finals(digits) if data_values.tuned_as(name) in best
                for seed in seeds]  # fmt: skip
    trained += [f"bias_{which}_{best['bias']:g}_{seed}" for which in data_more.ROWS for seed in seeds]
    trained += ["base_tickets", "base_handbook", "base_jobs"]
    speeds = [f"speed_{how}_{best['lora-1000']:g}" for how in data_values.SPEEDS]
    return trained, speeds


def job(name):
    """One job by name; returns what `jobs.write` stores, with its seconds and peak bytes."""
    import torch

    asked, started = settings(), time.perf_counter()
    torch.set_float32_matmul_precision("high")
    kind, *rest = name.split("_")
    if kind == "sweep":
        result = _swept(*rest[:3], asked)
    elif kind == "base":
        result = data_more.untrained(asked) if rest == ["jobs"] else data_jobs.untrained(*rest, asked)
    else:
        do = {"final": data_jobs.final, "speed": data_more.speed,
              "bias": data_more.bias, "collapse": data_more.collapse}[kind]  # fmt: skip
        result = do(*rest, asked)
    return {**result, **jobs.cost(started)}


def _swept(arm, rate, seed, asked):
    own = {"bias": data_more.sweep_bias, "collapse": data_more.sweep_collapse}
    return own[arm](rate, seed, asked) if arm in own else data_jobs.sweep(arm, rate, seed, asked)
