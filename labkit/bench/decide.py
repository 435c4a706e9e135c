"""Prompt, retrieve or finetune: form (tickets), skill (sql) and facts (handbook), the same base and judges.

Every arm is chosen on validation rows: prompts and retrieval among fixed numbers of settings, finetuning
among three rates. Finetuning is of every weight, by the budget of `bench families`, whose best rates it
takes; only for rows with passages is the rate looked for here. LABKIT_LARGER names a larger model to be
prompted beside, LABKIT_EMBEDDER an encoder to retrieve with; neither is needed.
"""

import os
import time

from labkit import env
from labkit.bench import decide_jobs, decide_report, decide_trained, decide_values, families, jobs
from labkit.bench import methods as bench_methods
from labkit.bench.decide_jobs import FAMILIES, Reading, indexes, prompts_of
from labkit.errors import LabkitError
from labkit.records import ledger, store

NAME = "decide"
TRAINED = ("final", "shuffled", "sweep", "both", "alone")  # jobs of decide_trained
OUTSIDE = ("LABKIT_LARGER", "LABKIT_EMBEDDER")
# pieces: words of a piece, and how many of them a prompt shows, 480 words in all at most.
# timed: requests at a time, and how often.
GPU = {"seeds": (0, 1, 2), **families.BUDGET, "reading": 1024, "rows": None, "tried": 300, "prompted": 2000,
       "pieces": {40: (1, 3, 6), 80: (1, 3, 5), 240: (1, 2)}, "documents": None,
       "timed": {1: 8, 32: 4}}  # fmt: skip
SMOKE = {"seeds": (0,), "steps": 1, "batch": 2, "length": 512, "reading": 1024, "rows": 2, "tried": 2,
         "prompted": 2, "pieces": {240: (1,)}, "documents": 3, "timed": {1: 1, 2: 1}}  # fmt: skip
CODE = ("bench/decide", "bench/decide_jobs", "bench/decide_trained", "bench/decide_values",
        "bench/families", "bench/full_jobs", "bench/methods", "constrain", "methods/full",
        "methods/retrieval/bm25", "methods/retrieval/cost", "methods/retrieval/dense",
        "methods/retrieval/metrics", "methods/retrieval/pieces", "methods/retrieval/reading",
        "tasks/handbook/__init__", "tasks/handbook/answers", "tasks/sql/judge", "tasks/sql/prompts",
        "tasks/tickets/answers", "tasks/tickets/prompts")  # fmt: skip


def main(argv):
    """Run what is missing and write data/measurements/decide.json; without a GPU, a trial, no record."""
    options = jobs.options(NAME, __doc__, argv)
    profile, asked = env.profile(), settings()
    digest = {**store.data_digest(*FAMILIES, "general"), **store.training_digest(),
              **store.code_digest(*(f"labkit/{part}.py" for part in CODE))}  # fmt: skip
    mark = {**digest, "profile": profile, **{name: os.environ.get(name, "") for name in OUTSIDE}}
    if options.job:
        jobs.write(options.folder, options.job, {**job(options.job), "digest": mark})
        return 0

    def run(names, side=None):
        return jobs.run(NAME, names, options.folder, side or options.jobs, mark)

    found, chosen = stages(asked, run)
    values, scores = decide_values.summary(found, chosen, asked), decide_values.scores(found, chosen, asked)
    print("\n".join(decide_report.lines(values)))
    if profile != "gpu":
        print("a trial: no record is written without a GPU")
        return 0
    path = store.write(
        NAME, profile, seed=0, seconds=sum(one["seconds"] for one in found.values()), values=values,
        scores=scores, peak_bytes=max(one["peak_bytes"] for one in found.values()), digest=digest,
        claims=ledger.stamp(list(found.values())),
    )  # fmt: skip
    print(f"wrote {path.name}")
    return 0


def settings():
    """The numbers of this profile."""
    return vars(env.budget(cpu=SMOKE, gpu=GPU, smoke=SMOKE))


def rates():
    """{family: {rate: share of validation rows right}} of full finetuning, as `bench families` found it.

    Raises LabkitError without its record.
    """
    whole = store.read("families")
    if whole is None:
        raise LabkitError("the rates come from the record families: python -m labkit bench families")
    return {family: {float(rate): right for rate, right
                     in whole["values"][family]["full on validation, by rate"].items()}
            for family in FAMILIES}  # fmt: skip


# ---- what is run, stage by stage ------------------------------------------------------------------------


def stages(asked, run):
    """({job: result}, what validation rows chose): each stage waits for the choices of the one before."""
    known = rates()
    found = run(names(asked, known))
    chosen = decide_values.chosen(found, known)
    tried = {rate: f"sweep_{Reading(*chosen['reader'], f'{rate:g}')}" for rate in map(float, families.RATES)}
    found |= run([*tried.values(), *prompted(chosen, asked)])
    chosen |= decide_values.best_reader({rate: found[name] for rate, name in tried.items()}, chosen)
    found |= run(read(chosen, asked))
    return found | run(alone(chosen), 1), chosen  # timed, so with the card to itself


def names(asked, known):
    """Jobs that wait for none, the longest first; `known` is `rates()`.

    Estimates for one H200 and a job alone, seconds: final and shuffled (12) 45 to 60, 15 to train, the rest
    to score and for what is forgotten; look (6) 60; try (18) 20; base 20. In all about 1,400: with 8 side by
    side, which do three to four times as much as one, 6 to 8 minutes.
    """
    best = {family: f"{bench_methods.best_rate(decide_values.shares(tried)):g}"
            for family, tried in known.items()}  # fmt: skip
    larger = ("tickets", "sql") if os.environ.get("LABKIT_LARGER") else ()
    return [
        *(f"larger_{family}" for family in larger),
        *(f"look_{index}_{size}" for index in indexes() for size in asked["pieces"]),
        *(f"final_{family}_{best[family]}_{seed}" for family in FAMILIES for seed in asked["seeds"]),
        *(f"shuffled_{best['handbook']}_{seed}" for seed in asked["seeds"]),
        *(f"try_{family}_{number}" for family in FAMILIES for number in range(len(prompts_of(family)))),
        *(f"try_oracle_{number}" for number in range(len(prompts_of("handbook")))),
        "base",
    ]  # fmt: skip


def prompted(chosen, asked):
    """Jobs that score the base on test rows with each arm's best prompt or retrieval.

    Estimates as above: sql 70, tickets 50, constrained 70, handbook 25, with passages 35; and three of the
    sweep at 45. In all about 600: 3 minutes.
    """
    named = decide_values.jobs_of(chosen, asked)
    every = [name for arms in named.values() for each in arms.values() for name in each]
    return sorted({name for name in every if name.startswith(("test_", "constrained_", "read_"))})


def read(chosen, asked):
    """Jobs of finetuning plus retrieval, one a seed, 80 seconds each alone: 2 minutes."""
    return decide_values.jobs_of(chosen, asked)["handbook"]["both"]


def alone(chosen):
    """Jobs that time every arm of a family, one after the other: tickets 90 s, sql 120, handbook 120."""
    return [f"alone_{family}_{'_'.join(f'{arm}={what}' for arm, what in arms.items())}"
            for family, arms in decide_values.timed(chosen).items()]  # fmt: skip


def job(name):
    """One job by name; returns what `jobs.write` stores, with its seconds and peak bytes."""
    import torch

    asked, started = settings(), time.perf_counter()
    torch.set_float32_matmul_precision("high")
    kind, *rest = name.split("_")
    home = decide_trained if kind in TRAINED else decide_jobs
    result = getattr(home, {"try": "attempt"}.get(kind, kind))(*rest, asked)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {**result, "seconds": time.perf_counter() - started, "peak_bytes": peak}
