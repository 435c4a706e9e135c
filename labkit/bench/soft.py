"""Prompt tuning given its best chance: how many vectors, where they start, how long they train, an encoder.

On tickets, beside prefix tuning and LoRA. An arm's rate is chosen by phrasings kept from training, with one
seed. An arm is a method, and after a plus what differs from `bench methods`: a start (`prompt-n20+rows`) or
a number of steps (`prompt-n20+1200`).
"""

import math
import time

from labkit import env, methods
from labkit.bench import full_jobs, full_values, jobs, lora_jobs, soft_report
from labkit.bench import methods as bench_methods
from labkit.bench.answers import scored
from labkit.errors import LabkitError
from labkit.records import judge, stats, store

NAME = "soft"
LORA = "lora-r16"
STARTS = ("rows", "numbers")  # beside words, with which the method prompt starts
JUDGED = "unseen"  # ends the names of a sweep's jobs: what judges them
GPU = {"seeds": (0, 1, 2), "steps": 300, "batch": 8, "length": 512, "rows": 2000, "vectors": (1, 5, 20, 100),
       "prefixes": (5, 20), "n": 20, "long": 1200, "longest": 3600, "rates": 4}  # fmt: skip
SMOKE = {"seeds": (0,), "steps": 1, "batch": 1, "length": 512, "rows": 2, "vectors": (1, 20),
         "prefixes": (1,), "n": 20, "long": 2, "longest": 3, "rates": 1}  # fmt: skip
CODE = ("bench/soft", "bench/answers", "bench/full_jobs", "bench/full_values", "bench/lora_jobs",
        "bench/methods", "methods/lora", "methods/soft_prompts/modules")  # fmt: skip


def main(argv):
    """Run what is missing and write data/measurements/soft.json; without a GPU, a trial, no record."""
    options = jobs.options(NAME, __doc__, argv)
    profile, asked = env.profile(), settings()
    digest = {**store.data_digest("tickets"), **store.training_digest(),
              **store.code_digest(*(f"labkit/{part}.py" for part in CODE))}  # fmt: skip
    mark = {**digest, "profile": profile}  # a trial's results are no measurement's
    if options.job:
        jobs.write(options.folder, options.job, {**job(options.job), "digest": mark})
        return 0

    def run(names):
        return jobs.run(NAME, names, options.folder, options.jobs, mark)

    tried = sweep(asked, run, bench_methods.EXTENSIONS if profile == "gpu" else 0)
    best = {arm: bench_methods.best_rate(rates) for arm, rates in tried.items()}
    found = run(names(asked, best))
    values = summary(found, tried, asked)
    swept = [one for rates in tried.values() for one in rates.values() if "seconds" in one]  # not those known
    jobs.finish(NAME, soft_report.lines(values), [*found.values(), *swept],
                values=values, digest=digest, scores=scores(found, asked))  # fmt: skip
    return 0


def settings():
    """The numbers of this profile."""
    return vars(env.budget(cpu=SMOKE, gpu=GPU, smoke=SMOKE))


# ---- what is run ----------------------------------------------------------------------------------------


def arms(asked):
    """All arms, the longest training first; an arm that answers several questions is one."""
    prompt, long = f"prompt-n{asked['n']}", asked["long"]
    return [
        f"{prompt}+{asked['longest']}", f"{prompt}+{long}", f"{LORA}+{long}",
        *(f"prompt-n{n}" for n in sorted(asked["vectors"], reverse=True)),
        *(f"{prompt}+{start}" for start in STARTS),
        f"ptuning-n{asked['n']}", *(f"prefix-n{n}" for n in asked["prefixes"]), LORA,
    ]  # fmt: skip


def tuned_as(arm, asked):
    """The arm whose best rate an arm gets: its own, but for the longest, whose sweep would cost too much."""
    return arm.replace(f"+{asked['longest']}", f"+{asked['long']}")


def parts(arm, asked):
    """(method, start, steps) of an arm's name; the start of methods is called `words`."""
    method, _, change = arm.partition("+")
    start = change if change in STARTS else "words"
    return method, start, int(change) if change.isdigit() else asked["steps"]


def sweep(asked, run, most):
    """{arm: {rate: result}} of every arm; LabkitError if one diverges everywhere.

    What `bench methods` tried with this budget is not tried again.
    """
    every = dict.fromkeys(tuned_as(arm, asked) for arm in arms(asked))
    known = recorded(every, asked)
    start = {arm: methods.find(parts(arm, asked)[0]).rates[: asked["rates"]]
             for arm in every if arm not in known}  # fmt: skip
    tried, failed = bench_methods.sweep(start, dict.fromkeys(start, JUDGED), 0, run, most)
    if failed:
        raise LabkitError("; ".join(f"{arm} failed {why}" for arm, why in failed.items()))
    tried |= known
    return {arm: tried[tuned_as(arm, asked)] for arm in arms(asked)}


def recorded(wanted, asked):
    """{arm: {rate: result}} of those arms that methods_tickets tried with the budget of `asked`."""
    whole = store.read("methods_tickets")
    if whole is None:
        return {}
    there, entries = whole["values"]["settings"], whole["values"]["methods"]
    if any(there[key] != asked[key] for key in ("steps", "batch", "length")):
        return {}
    return {arm: {float(rate): {"right": share, "loss": entries[arm]["losses"][rate]}
                  for rate, share in entries[arm]["rates"].items()}
            for arm in wanted if arm in entries}  # fmt: skip


def names(asked, best):
    """Jobs at each arm's best rate, the longest first.

    Estimates for one H200 and a job alone: 300 steps and their answers 15 s (a sweep's are fewer: 12 s), with
    100 vectors, which double a row's tokens, 20 s; 1,200 steps 45 s, 3,600 steps 2 minutes. There are 36
    sweeps of 300 steps and 8 of 1,200, a few further rates, and 3 jobs for each of 13 arms, so 32 minutes of
    such jobs. 8 side by side do three to four times as much as one: 8 to 11 minutes.
    """
    return [f"final_{arm}_{best[arm]:g}_{seed}" for arm in arms(asked) for seed in asked["seeds"]]


# ---- jobs -----------------------------------------------------------------------------------------------


def job(name):
    """One job by name; returns what `jobs.write` stores, with its seconds and peak bytes."""
    import torch

    asked, started = settings(), time.perf_counter()
    torch.set_float32_matmul_precision("high")
    kind, arm, rate, seed, *_ = name.split("_")
    result = {"sweep": tune, "final": final}[kind](arm, rate, seed, asked)
    return {**result, **jobs.cost(started)}


def trainee(arm, seed, asked):
    """(the arm's model, ready to train; its steps)."""
    method, start, steps = parts(arm, asked)
    model = methods.find(method).prepare(int(seed))
    if start != "words":
        vectors = model.soft_prompt.vectors
        vectors.data.copy_(started(start, model.get_input_embeddings().weight, len(vectors), int(seed)))
    return model, steps


def started(start, words, n, seed):
    """n vectors, (n, size), drawn from `seed`: `rows` of the vocabulary `words`, or normal `numbers`.

    The numbers have the standard deviation of all entries of `words`, and mean 0.
    """
    import torch

    random = torch.Generator().manual_seed(seed)
    if start == "rows":
        return words[torch.randint(len(words), (n,), generator=random).to(words.device)]
    numbers = torch.randn(n, words.shape[1], generator=random).to(words)
    return numbers * words.std()


def tune(arm, rate, seed, asked):
    """Share right and loss on phrasings that the training did not have; as `bench_methods.sweep` wants."""
    from labkit import load, load_tokenizer

    tokenizer, (model, steps) = load_tokenizer(), trainee(arm, seed, asked)
    rows, unseen = bench_methods.apart(load("tickets")["train"])
    unseen = full_jobs.few(unseen, asked)
    run = trained(model, rows, unseen, tokenizer, rate, seed, asked, steps)
    if not run:
        return {"right": 0.0, "loss": None, "diverged": True}
    right = scored(model, tokenizer, "tickets", unseen).exact
    return {"right": right, "loss": last_loss(run), "diverged": False}


def final(arm, rate, seed, asked):
    """After training on all rows: which test rows are right, the loss on them, and seconds of the training.

    A training that diverged has no row right, and no loss.
    """
    from labkit import load, load_tokenizer

    data, tokenizer = load("tickets"), load_tokenizer()
    model, steps = trainee(arm, seed, asked)
    weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    test = full_jobs.few(data["test"], asked)
    run = trained(model, data["train"], test, tokenizer, rate, seed, asked, steps)
    if not run:
        rows = stats.pack_rows([False] * len(test))
        return {"rows": rows, "loss": None, "training seconds": None, "trained": weights}
    return {"rows": lora_jobs.packed(model, tokenizer, data, asked), "loss": last_loss(run),
            "training seconds": run.seconds, "trained": weights}  # fmt: skip


def trained(model, rows, held_out, tokenizer, rate, seed, asked, steps):
    """The Run of `steps` steps with one look, after the last of them, at `held_out`; None if it diverged."""
    look = {"validation": held_out, "validate_every": steps}
    return full_jobs.fitted(model, rows, tokenizer, rate, seed, asked, steps=steps, **look)


def last_loss(run):
    """The loss on the held-out rows, in nats per answer token; None if it is no number."""
    loss = run.validation[-1][1]
    return loss if math.isfinite(loss) else None


# ---- the record -----------------------------------------------------------------------------------------


def summary(found, tried, asked):
    """The record's values: settings, sweeps, what each arm reached, and gaps between arms."""
    source = judge.Recorded({"name": NAME, "scores": scores(found, asked)})
    reached = {arm: _arm(arm, full_values._of(found, f"final_{arm}"), source, asked) for arm in arms(asked)}
    gaps, equal = {}, equally_large(reached)
    for first, second in [*compared(asked), *equal]:
        gap = judge.estimate({"gap": [first, second]}, source)
        gaps[f"{first} minus {second}"] = _interval(gap) | {"each": list(gap.each)}
    sweeps = {arm: full_values._sweep(rates) for arm, rates in tried.items() if tuned_as(arm, asked) == arm}
    return {"settings": dict(asked), "sweeps": sweeps, "arms": reached, "gaps": gaps,
            "equally large": [list(pair) for pair in equal]}  # fmt: skip


def _arm(arm, runs, source, asked):
    method, start, steps = parts(arm, asked)
    exact = judge.estimate({"score": arm}, source)
    return {
        "method": method.partition("-")[0], "number": int(method.partition("-")[2][1:]), "start": start,
        "steps": steps, "tuned as": tuned_as(arm, asked), "trained": runs[0]["trained"],
        "exact": _interval(exact), "test": list(exact.each), "loss": [one["loss"] for one in runs],
        "training seconds": [one["training seconds"] for one in runs],
    }  # fmt: skip


def _interval(found):
    return {"mean": found.mean, "low": found.low, "high": found.high}


def compared(asked):
    """Pairs of arms whose difference is estimated, row by row: a start, an encoder, more steps, LoRA."""
    prompt, long = f"prompt-n{asked['n']}", asked["long"]
    longest = f"{prompt}+{asked['longest']}"
    return [
        *((f"{prompt}+{start}", prompt) for start in STARTS), (f"ptuning-n{asked['n']}", prompt),
        (f"{prompt}+{long}", prompt), (longest, prompt), (f"{LORA}+{long}", LORA), (LORA, longest),
    ]  # fmt: skip


def equally_large(reached):
    """[(prefix arm, prompt arm)] of equally many trained weights, among those that differ in nothing else."""
    plain = {arm: one for arm, one in reached.items() if "+" not in arm}
    prefixes, prompts = ([arm for arm, one in plain.items() if one["method"] == kind]
                         for kind in ("prefix", "prompt"))  # fmt: skip
    return [(first, second) for first in prefixes for second in prompts
            if plain[first]["trained"] == plain[second]["trained"]]  # fmt: skip


def scores(found, asked):
    """Test rows by arm, one text a seed, as records keep them."""
    return {arm: {"task": "tickets", "split": "test",
                  "rows": [one["rows"] for one in full_values._of(found, f"final_{arm}")]}
            for arm in arms(asked)}  # fmt: skip
