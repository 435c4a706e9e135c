"""Preferences: DPO and its kin, more SFT, reward models and GRPO, from the same starts on the same messages.

A start is full finetuning on drafts of `voice`. Its own answers, judged by the pair rules, give the pairs;
everything is scored on test messages, by pair rules (what was asked for) and held-out rules (what was not).
Every rate is chosen by validation messages; stages wait for one another, since one trains on what the one
before it left.
"""

import time

from labkit import env
from labkit.bench import jobs, preferences_jobs, preferences_report, preferences_start, preferences_values
from labkit.bench import methods as bench_methods
from labkit.bench.preferences_jobs import BETA, FAILING, KIN, SHARES
from labkit.errors import LabkitError
from labkit.records import store

NAME = "preferences"
RATES = (3e-5, 1e-4, 3e-4, 1e-3)
ADAPTED = (1e-4, 3e-4, 1e-3, 3e-3)  # of adapters that learn answers or rewards: as in `bench lora`, higher
REWARDS = ("raw", "balanced")
CODE_OF_SWEEP = "validation"  # ends the names of a sweep's jobs: what judges them
EXTENSIONS = 1  # further rates on a side, at most: a round of few jobs leaves a card idle
GPU = {"seeds": (0, 1, 2), "more": tuple(range(8)), "start": 300, "batch": 8, "length": 512,
       "messages": 600, "answers": 8, "steps": 100, "pairs": 16, "betas": (0.03, 0.1, 0.3, 1.0), "rl": 100,
       "prompts": 16, "group": 8, "looks": 6, "samples": 4, "new": 110, "rows": None,
       "passages": None}  # fmt: skip
SMOKE = {"seeds": (0,), "more": (0, 1), "start": 2, "batch": 2, "length": 256, "messages": 8, "answers": 4,
         "steps": 2, "pairs": 2, "betas": (0.1, 1.0), "rl": 2, "prompts": 2, "group": 2, "looks": 2,
         "samples": 2, "new": 40, "rows": 4, "passages": 2}  # fmt: skip
CODE = ("bench/preferences", "bench/preferences_jobs", "bench/preferences_scores", "bench/preferences_start",
        "bench/preferences_values", "bench/methods", "methods/full", "methods/lora",
        "methods/preferences/kl", "methods/preferences/pairs", "methods/preferences/reward",
        "methods/preferences/sampling", "methods/preferences/trained", "methods/preferences/wins",
        "tasks/voice/rules", "tasks/voice/scoring")  # fmt: skip
FAMILIES = ("voice", "general")


def main(argv):
    """Run what is missing and write data/measurements/preferences.json; without a GPU, a trial, no record."""
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

    found, tried = stages(asked, run, EXTENSIONS if profile == "gpu" else 0)
    preferences_start.refuse_mixed(found)
    values = preferences_values.summary(found, tried, asked, phrasings(asked))
    every = [*found.values(), *(one for numbers in tried.values() for one in numbers.values())]
    jobs.finish(NAME, preferences_report.lines(values), every, values=values, digest=digest)
    return 0


def settings():
    """The numbers of this profile."""
    return vars(env.budget(cpu=SMOKE, gpu=GPU, smoke=SMOKE))


def phrasings(asked):
    """The phrasing of each test message that is scored."""
    from labkit import load

    test = list(load("voice")["test"]["phrasing"])
    return test[: asked["rows"]]


# ---- what is run ----------------------------------------------------------------------------------------


def stages(asked, run, most):
    """({job: result}, {arm: {rate or beta: result}}): every stage, each after the one it trains from."""
    tried = _swept({"start": RATES}, CODE_OF_SWEEP, run, most)
    found = run([f"start_{_best(tried, 'start')}_{seed}" for seed in asked["more"]])
    rewards = {f"reward-{kind}": ADAPTED for kind in REWARDS}
    pairs = [f"pairs_{seed}" for seed in asked["more"]]
    early = [f"sweep_{arm}_{rate:g}_0_{CODE_OF_SWEEP}" for arm, rates in rewards.items() for rate in rates]
    whole = run([*pairs, *early])  # rewards are swept meanwhile, to keep the machine busy
    found |= {name: whole[name] for name in pairs}
    more = {f"sft-{share}": ADAPTED for share in SHARES}
    rates = {"grpo": RATES, **more, "dpo": RATES, **rewards}
    tried |= _swept(rates, CODE_OF_SWEEP, run, most)
    best = {arm: _best(tried, arm) for arm in rates}
    best["sft"] = _best_sft(tried)
    early = [f"sweep_{arm}_{beta:g}_0_{best['dpo']}" for arm, betas in KIN.items() for beta in betas]
    longest, rest = names(asked, best)
    whole = run([*early, *rest])
    found |= {name: whole[name] for name in rest}
    tried |= _swept(KIN, best["dpo"], run, min(1, most))
    kin = [f"{arm}_{_best(tried, arm)}_{best['dpo']}_{seed}" for arm in KIN for seed in asked["seeds"]]
    return found | run([*kin, *longest]), tried


def names(asked, best):
    """(The longest jobs, the others) at the best rates; IPO and normalised DPO wait for their betas.

    The longest come last: as many as run side by side, so that they leave no card idle, and a machine that is
    lent for a while may end before them. What they begin from, `start`, is trained again in a minute; where
    its weights are not those of before, what came from those is refused (`refuse_mixed`).

    What a job takes on an H200, by itself, seconds: 10 to load the base and the libraries; training and
    answers are bound by kernel launches, about 25 ms a decode step whatever the batch (110 steps are 3 s)
    and 30 (`fit`, in a CUDA graph) to 180 ms (trl, step by step) a training step.

    - sweep_start (4) and start (8): 45; 300 steps of `fit`, scores
    - pairs (8): 45; 4,800 answers, 10 batches of 110 decode steps
    - sweep_reward (8) and reward (6): 35; 100 steps of trl, 2,200 rewards
    - sweep_sft (12) and sft (8): 30; about 55 to 215 steps of `fit`, scores
    - sweep_dpo (4), the kin's (6) and other arms on pairs (24): 50; 100 steps of trl, scores
    - dpo at BETA (8): 100; the same, and samples of five looks on its way
    - sweep_grpo (4): 190; 50 steps, each of 3 s of decoding and 0.4 s of training
    - grpo (8): 410; 100 such steps, samples of five looks

    In all about 9,000 s; 8 side by side are done in 30 to 40 minutes. Scores of a policy (18 s): a greedy
    answer and four sampled ones to 400 messages, KL of the first of these, and 187 passages; a look takes 10.
    """
    longest = [f"grpo_{best['grpo']}_{seed}" for seed in asked["more"]]
    out = [f"dpo_{BETA:g}_{best['dpo']}_{seed}" for seed in asked["more"]]
    out += [f"sft_{best['sft']}_{seed}" for seed in asked["more"]]
    for seed in asked["seeds"]:
        betas = [beta for beta in (*asked["betas"], FAILING) if beta != BETA]
        out += [f"dpo_{beta:g}_{best['dpo']}_{seed}" for beta in betas]
        out += [f"{arm}_{BETA:g}_{best['dpo']}_{seed}" for arm in ("ready", "balanced")]
        out += [f"reward_{kind}_{best[f'reward-{kind}']}_{seed}" for kind in REWARDS]
    return longest, out


def _swept(start, code, run, most):
    """{arm: {rate or beta: result}}; LabkitError if an arm diverges everywhere."""
    tried, failed = bench_methods.sweep(start, dict.fromkeys(start, code), 0, run, most)
    if failed:
        raise LabkitError("; ".join(f"{arm} failed {why}" for arm, why in failed.items()))
    return tried


def _best_sft(tried):
    """Rate and share of the steps of more SFT that are best together, as they stand in a job's name."""
    arm = preferences_values.best_sft({arm: preferences_values.sweep(tried[arm]) for arm in tried})
    return f"{_best(tried, arm)}_{arm.partition('-')[2]}"


def _best(tried, arm):
    """The best rate or beta of an arm, as it stands in a job's name."""
    return f"{bench_methods.best_rate(tried[arm]):g}"


def job(name, folder):
    """One job by name; returns what `jobs.write` stores, with its seconds and peak bytes."""
    import torch

    asked, started = settings(), time.perf_counter()
    torch.set_float32_matmul_precision("high")
    kind, *rest = name.split("_")
    if kind == "sweep":
        result = _try(*rest, asked, folder)
    elif kind in preferences_jobs.LOSSES:
        result = preferences_jobs.dpo(kind, *rest, asked, folder)
    else:
        do = {"start": preferences_start.start, "pairs": preferences_start.pairs, "sft": preferences_jobs.sft,
              "grpo": preferences_jobs.grpo, "reward": preferences_jobs.reward}[kind]  # fmt: skip
        result = do(*rest, asked, folder)
    if kind not in ("start", "sweep"):
        result["begun"] = preferences_start.weights_digest(rest[-1], folder)
    return {**result, **jobs.cost(started)}


def _try(arm, number, seed, code, asked, folder):
    """A job of a sweep: `number` is a rate, or a beta at the rate that `code` says."""
    if arm == "start":
        return preferences_start.tune_start(number, seed, asked, folder)
    if arm in KIN:
        return preferences_jobs.dpo(arm, number, code, seed, asked, folder, CODE_OF_SWEEP)
    if arm == "dpo":
        return preferences_jobs.dpo(arm, f"{BETA:g}", number, seed, asked, folder, CODE_OF_SWEEP)
    if arm.startswith("reward-"):
        kind = arm.removeprefix("reward-")
        return preferences_jobs.reward(kind, number, seed, asked, folder, CODE_OF_SWEEP)
    if arm.startswith("sft-"):
        return preferences_jobs.sft(number, arm.partition("-")[2], seed, asked, folder, CODE_OF_SWEEP)
    return preferences_jobs.grpo(number, seed, asked, folder, CODE_OF_SWEEP)
