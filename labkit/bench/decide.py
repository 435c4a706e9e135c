"""Prompt, retrieve or finetune: form (tickets), skill (sql) and facts (handbook), the same base and judges.

Every arm is chosen on rows that are not test rows: prompts and retrieval among fixed numbers of settings on
validation rows, finetuning among learning rates that go on where the best is at an end. Finetuning is of
every weight. LABKIT_LARGER names a larger model to be prompted beside, LABKIT_EMBEDDER an encoder to retrieve
with; without the first, nothing is said of larger models.
"""

import os
import time

from labkit import env, methods
from labkit.bench import decide_jobs, decide_report, decide_trained, decide_values, families, jobs
from labkit.bench import methods as bench_methods
from labkit.bench.decide_jobs import FAMILIES, indexes, prompts_of
from labkit.errors import LabkitError
from labkit.records import store

NAME = "decide"
TRAINED = ("final", "shuffled", "sweep", "both", "alone")  # jobs of decide_trained
OUTSIDE = ("LABKIT_LARGER", "LABKIT_EMBEDDER")
# reading: tokens of a line with passages; 1,000 steps let the reader see each row about three times.
# pieces: words of a piece, and how many of them a prompt shows, 480 words in all at most; the finetuned
# reader is shown `read` words at most. timed: requests at a time, and how often. further: rates beyond an
# end of the first four.
GPU = {"seeds": (0, 1, 2), **families.BUDGET, "further": 3, "reading": 1024, "reading steps": 1000,
       "read": 240, "rows": None, "tried": 300, "prompted": 2000,
       "pieces": {40: (1, 3, 6), 80: (1, 3, 5), 240: (1, 2)}, "documents": None,
       "timed": {1: 8, 32: 3}}  # fmt: skip
SMOKE = {"seeds": (0,), "steps": 1, "batch": 2, "length": 512, "further": 0, "reading": 1024,
         "reading steps": 1, "read": 240, "rows": 2, "tried": 2, "prompted": 2, "pieces": {240: (1,)},
         "documents": 3, "timed": {1: 1, 2: 1}}  # fmt: skip
VALUES = ("bench/decide_facts", "bench/decide_values")  # of the record alone
CODE = ("bench/decide", "bench/decide_jobs", "bench/decide_trained", "bench/families",
        "bench/full_jobs", "bench/methods", "constrain", "methods/full",
        "methods/retrieval/bm25", "methods/retrieval/cost", "methods/retrieval/dense",
        "methods/retrieval/metrics", "methods/retrieval/pieces", "methods/retrieval/readers",
        "methods/retrieval/reading", "tasks/handbook/__init__", "tasks/handbook/answers", "tasks/sql/judge",
        "tasks/sql/prompts",
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
    made_by = store.code_digest(*(f"labkit/{part}.py" for part in VALUES))
    jobs.finish(NAME, decide_report.lines(values), list(found.values()),
                values=values, digest={**digest, **made_by}, scores=scores)  # fmt: skip
    return 0


def settings():
    """The numbers of this profile."""
    return vars(env.budget(cpu=SMOKE, gpu=GPU, smoke=SMOKE))


# ---- what is run, stage by stage ------------------------------------------------------------------------


def stages(asked, run):
    """({job: result}, what validation rows chose): each stage waits for the choices of the one before.

    Estimates for one H200, seconds of a job alone: look (6) 60, try (24) 20, base 20, sweep (3 x 4) 45; then
    test (9) 50 and the reader's sweep (4) 60, some further rates 45; then final (9) 55, shuffled (3) 45, both
    (3) 100. 8 side by side do about 3.5 times as much as one: 6.5, 4 and 4.5 minutes. Last, alone: 4 to 5.
    In all about 20 minutes.
    """
    start = {family: methods.find("full").rates for family in FAMILIES}
    found = run([*names(asked), *(_sweep(arm, rate, asked) for arm in start for rate in start[arm])])
    chosen = decide_values.chosen(found, asked)
    start["both"], of = methods.find("full").rates, {"both": "-".join(map(str, chosen["reader"]))}
    found |= run([*(_sweep("both", rate, asked, of) for rate in start["both"]),
                  *_further(start, found, asked), *prompted(chosen, asked)])  # fmt: skip
    tried, failed = bench_methods.sweep(
        start, {arm: of.get(arm, PLAIN) for arm in start}, asked["seeds"][0],
        lambda some: _kept(found, run(some)), asked["further"],
    )  # fmt: skip
    if failed:
        raise LabkitError("; ".join(f"finetuning {arm} failed {why}" for arm, why in failed.items()))
    chosen |= decide_values.tuned(tried, chosen)
    found |= run(trained(chosen, asked))
    return found | run(alone(chosen), 1), chosen  # timed, so with the card to itself


def _further(start, found, asked):
    """The next rates of the families, which the sweep would else ask for when the card has nothing beside."""
    out = []
    for arm in FAMILIES:
        tried = {rate: found[_sweep(arm, rate, asked)] for rate in start[arm]}
        more = bench_methods.further(tried, start[arm], asked["further"])
        out += [_sweep(arm, rate, asked) for rate in more]
    return out


PLAIN = "plain"  # of a sweep that reads no passages


def _kept(found, more):
    found |= more
    return more


def _sweep(arm, rate, asked, of=None):
    return bench_methods._name("sweep", arm, rate, asked["seeds"][0], {arm: (of or {}).get(arm, PLAIN)})


def names(asked):
    """Jobs that wait for none, the longest first; without the sweeps."""
    larger = ("tickets", "sql") if os.environ.get("LABKIT_LARGER") else ()
    tried = ("tickets", "constrained", "sql", "handbook", "oracle")
    return [
        *(f"larger_{family}" for family in larger),
        *(f"look_{index}_{size}" for index in indexes() for size in asked["pieces"]),
        *(f"try_{what}_{number}" for what in tried for number in range(len(prompts_of(what)))),
        "base",
    ]


def prompted(chosen, asked):
    """Jobs that score the base on test rows with each arm's best prompt or retrieval."""
    named = decide_values.untrained(chosen)
    every = [name for arms in named.values() for each in arms.values() for name in each]
    best = [f"test_{family}_{chosen['prompts'][family]['prompted']}" for family in FAMILIES]
    return sorted({*every, *best})


def trained(chosen, asked):
    """Jobs that train at the best rates, the longest first."""
    named = decide_values.jobs_of(chosen, asked)
    rate = f"{chosen['rates']['handbook']:g}"
    return [*named["handbook"]["both"], *(name for family in FAMILIES for name in named[family]["finetuned"]),
            *(f"shuffled_{rate}_{seed}" for seed in asked["seeds"])]  # fmt: skip


def alone(chosen):
    """Jobs that time every arm of a family, one after the other: tickets 70 s, sql 80, handbook 120."""
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
    return {**result, **jobs.cost(started)}
