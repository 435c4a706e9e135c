"""What LoRA is beside full finetuning: its update's rank, merging, speed, forgetting, base and batch size.

On tickets, at each method's best rate of the record methods_tickets. A rate stands in a job's name, so that
another best rate is another job.
"""

import time

from labkit import env, methods
from labkit.bench import jobs, lora_jobs, lora_report, lora_time, lora_values
from labkit.bench import methods as bench_methods
from labkit.errors import LabkitError
from labkit.records import store

NAME = "lora"
METHODS = ("full", "lora-r16")
BEST = {"full": 3e-4, "lora-r16": 3e-3}  # where methods_tickets is not recorded
GPU = {"seeds": (0, 1, 2), "steps": 300, "batch": 8, "length": 512, "rows": 2000, "weaker": 60,
       "batches": (2, 8, 32), "repeats": 20, "timings": 3, "prompts": 16,
       "sizes": ("small", "large"), "engines": ("eager", "blocks"),
       "calls": {"launch-bound": ((1, 16), 50), "compute-bound": ((32, 1024), 10)}}  # fmt: skip
SMOKE = {"seeds": (0,), "steps": 1, "batch": 1, "length": 512, "rows": 2, "weaker": 1,
         "batches": (1, 2), "repeats": 2, "timings": 1, "prompts": 2,
         "sizes": ("smoke",), "engines": ("eager", "plain"),
         "calls": {"launch-bound": ((1, 4), 1), "compute-bound": ((2, 16), 1)}}  # fmt: skip
CODE = ("bench/lora", "bench/answers", "bench/lora_jobs", "bench/lora_time", "bench/lora_values",
        "bench/methods", "bench/train", "bench/train_engines", "methods/full", "methods/lora",
        "methods/low_rank")  # fmt: skip
# Families whose rows are scored, or read in continued pre-training.
FAMILIES = ("tickets", "general", "handbook", "voice", "jobs", "sql")


def main(argv):
    """Run what is missing and write data/measurements/lora.json; without a GPU, a trial, no record."""
    options = jobs.options(NAME, __doc__, argv)
    profile, asked = env.profile(), settings()
    digest = {**store.data_digest(*FAMILIES), **store.training_digest(),
              **store.code_digest(*(f"labkit/{part}.py" for part in CODE))}  # fmt: skip
    mark = {**digest, "profile": profile}  # a trial's results are no measurement's
    if options.job:
        jobs.write(options.folder, options.job, {**job(options.job), "digest": mark})
        return 0

    def run(names, side_by_side=options.jobs):
        return jobs.run(NAME, names, options.folder, side_by_side, mark)

    known = recorded(asked)
    best = {method: known[method]["rate"] if method in known else BEST[method] for method in METHODS}
    trained, alone = names(asked, best)
    start, codes = arms(asked, known)
    first = [bench_methods._name("sweep", arm, rate, 0, codes) for arm in start for rate in start[arm]]
    run([*trained, *first])  # all at once, to keep the machine busy; what follows finds them done
    most = bench_methods.EXTENSIONS if profile == "gpu" else 0
    tried, failed = bench_methods.sweep(start, codes, 0, run, most)
    if failed:
        raise LabkitError("; ".join(f"{arm} failed {why}" for arm, why in failed.items()))
    for method, entry in known.items():
        tried[f"{method}-b{asked['batch']}"] = _tried(entry)
    found = run(trained) | run(alone, 1)  # with the card to itself: these are timed
    values = {**lora_values.summary(found, asked), **lora_values.best_rates(tried)}
    swept = [one for rates in tried.values() for one in rates.values() if "seconds" in one]  # not those known
    jobs.finish(NAME, lora_report.lines(values), [*found.values(), *swept],
                values=values, digest=digest, scores=lora_values.scores(found))  # fmt: skip
    return 0


def settings():
    """The numbers of this profile."""
    return vars(env.budget(cpu=SMOKE, gpu=GPU, smoke=SMOKE))


def recorded(asked):
    """What methods_tickets says of METHODS; empty if it was not measured with the budget of `asked`."""
    whole = store.read("methods_tickets")
    if whole is None:
        return {}
    there, entries = whole["values"]["settings"], whole["values"]["methods"]
    same = all(there[key] == asked[key] for key in ("steps", "batch", "length"))
    return {name: entries[name] for name in METHODS} if same and set(METHODS) <= set(entries) else {}


def names(asked, best):
    """(jobs that train and score, jobs that want the card to themselves), the longest first."""
    seeds, lora, full = asked["seeds"], best["lora-r16"], best["full"]
    trained = [f"rebase_{lora:g}_{seed}" for seed in seeds] + [f"lowrank_{full:g}_{seed}" for seed in seeds]
    trained += [f"forget_{method}_{rate:g}_{seed}" for method in METHODS for rate in around(best[method])
                for seed in seeds]  # fmt: skip
    # A repeat after the other, so that a slow minute of the machine meets all alike.
    alone = [f"speed_{size}_{engine}_{method}_{repeat}" for repeat in range(asked["timings"])
             for size in asked["sizes"] for engine in asked["engines"] for method in METHODS]  # fmt: skip
    trained += [f"flops_{method}" for method in METHODS]
    return trained, [f"merge_{lora:g}_0", *alone]


def around(best):
    """The rates at which forgetting is measured: the best one, and two on each side, 3 times apart."""
    rates = [best]
    for _ in range(2):
        rates = [bench_methods._beside(rates[0], up=False), *rates, bench_methods._beside(rates[-1], up=True)]
    return rates


def arms(asked, known):
    """(rates to begin with, what ends the names of jobs) of each method and batch size: `full-b32`.

    The batch size of `known` was swept already.
    """
    sizes = [size for size in asked["batches"] if not (known and size == asked["batch"])]
    start = {f"{method}-b{size}": methods.find(method).rates for size in sizes for method in METHODS}
    return start, dict.fromkeys(start, "batch")


def _tried(entry):
    """What was tried for a method of methods_tickets, as `bench_methods.sweep` gives it."""
    return {float(rate): {"right": share, "loss": entry["losses"][rate]}
            for rate, share in entry["rates"].items()}  # fmt: skip


def job(name):
    """One job by name; returns what `jobs.write` stores, with its seconds and peak bytes."""
    import torch

    asked, started = settings(), time.perf_counter()
    torch.set_float32_matmul_precision("high")
    kind, *rest = name.split("_")
    if kind == "sweep":
        arm, rate, seed, _ = rest
        method, _, size = arm.rpartition("-b")
        whole = {**asked, "task": "tickets", "loading": {}, "jobs": None, "batch": int(size)}
        result = bench_methods.job(f"sweep_{method}_{rate}_{seed}_", whole)
    else:
        do = {"rebase": lora_jobs.rebase, "lowrank": lora_jobs.lowrank, "forget": lora_jobs.forget,
              "merge": lora_time.merge, "speed": lora_time.speed, "flops": lora_time.flops}[kind]  # fmt: skip
        result = do(*rest, asked)
    return {**result, **jobs.cost(started)}
