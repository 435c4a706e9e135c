"""The jobs of `bench full`: each trains, and scores what it trained.

Arguments are parts of a job's name, so text; `asked` is `full.settings()`.
"""

import math
from itertools import accumulate

from labkit.bench import methods as bench_methods
from labkit.bench.answers import scored
from labkit.bench.lora_jobs import exact, packed
from labkit.errors import LabkitError
from labkit.records import stats

RANDOM, LONG = "random", "random-long"  # random weights at the budget of all, and at more steps
EPOCHS = (1, 2, 4, 8)
PATIENCE = 2  # validations, two an epoch, without a new best
ROUNDING = (1e-5, 1e-4, 3e-4)
LAST = 10  # steps whose mean is the loss after a run


def fitted(model, rows, tokenizer, rate, seed, asked, **options):
    """The Run of training `model` on rows with the bench's budget, which `options` may change.

    None if the loss was no number any more.
    """
    from labkit import fit

    budget = {name: asked[name] for name in ("steps", "batch", "length")}
    settings = {"lr": float(rate), "seed": int(seed), "progress": False, **budget, **options}
    try:
        return fit(model, rows, tokenizer, **settings)
    except LabkitError as error:
        if not str(error).startswith(bench_methods.DIVERGED):
            raise
        return None


def random_start(seed):
    """The base's architecture with fresh weights, as transformers draws them, in fp32."""
    import torch
    from transformers import AutoModelForCausalLM

    from labkit import env, load_model

    config, on = load_model().config, env.device()
    env.seed_everything(int(seed))
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(on).eval()


def trainee(arm, seed, asked):
    """(model to train, what its budget has of its own): `random`, `random-long`, `batch-2`, or a method."""
    from labkit import methods

    if arm in (RANDOM, LONG):
        return random_start(seed), {"steps": asked["long"][-1]} if arm == LONG else {}
    kind, _, size = arm.partition("-")
    if kind == "batch":  # as many tokens in all, whatever the batch
        steps = max(1, asked["steps"] * asked["batch"] // int(size))
        return methods.find("full").prepare(int(seed)), {"batch": int(size), "steps": steps}
    return methods.find(arm).prepare(int(seed)), {}


def few(rows, asked):
    """The rows that are scored: all, but in a trial."""
    return rows.select(range(bench_methods._most(asked, len(rows))))


# ---- the sweep, and what is made at the best rate -------------------------------------------------------


def tune(arm, rate, seed, asked):
    """Share right and loss on rows whose phrasings the training did not have; as `bench_methods.sweep` wants.

    `sft` and `pretrain` learn the handbook, and are judged by its validation rows; all others learn tickets.
    """
    from labkit import load, load_tokenizer

    tokenizer = load_tokenizer()
    if arm in ("sft", "pretrain"):
        model, own = trainee("full", seed, asked)
        rows, options = handbook_rows(arm)
        own, unseen, task = {**own, **options}, few(of_trained_facts("validation"), asked), "handbook"
    else:
        model, own = trainee(arm, seed, asked)
        rows, unseen = bench_methods.apart(load("tickets")["train"])
        unseen, task = few(unseen, asked), "tickets"
    last = {"validation": unseen, "validate_every": own.get("steps", asked["steps"])}
    run = fitted(model, rows, tokenizer, rate, seed, asked, **own, **last)
    if not run:
        return {"right": 0.0, "loss": None, "diverged": True}
    loss = run.validation[-1][1]
    right = scored(model, tokenizer, task, unseen).exact
    return {"right": right, "loss": loss if math.isfinite(loss) else None, "diverged": False}


def final(arm, rate, seed, asked):
    """Which test rows are right after training on all training rows, and how many weights were trained."""
    from labkit import load, load_tokenizer

    data, tokenizer = load("tickets"), load_tokenizer()
    model, own = trainee(arm, seed, asked)
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    if fitted(model, data["train"], tokenizer, rate, seed, asked, **own):
        rows = packed(model, tokenizer, data, asked)
    else:
        rows = stats.pack_rows([False] * len(few(data["test"], asked)))
    trained = sum(size for size, wanted in sizes if wanted)
    return {"rows": rows, "trained": trained, "weights": sum(size for size, _ in sizes)}


def curve(arm, rate, seed, asked):
    """{steps: share right of phrasings kept from training}: each number of steps is a training of its own.

    So each has its whole schedule, which a look into a longer run would not: that rate is still high.
    """
    from labkit import load, load_tokenizer

    tokenizer = load_tokenizer()
    seen, unseen = bench_methods.apart(load("tickets")["train"])
    right = {}
    for steps in asked["long" if arm == LONG else "looks"]:
        model, _ = trainee(arm, seed, asked)
        run = fitted(model, seen, tokenizer, rate, seed, asked, steps=steps)
        right[str(steps)] = exact(model, tokenizer, {"unseen": unseen}, "unseen", asked).exact if run else 0.0
    return {"right": right}


# ---- continued pre-training and SFT ---------------------------------------------------------------------


def handbook_rows(way):
    """(rows, options for `fit`): questions about trained facts, or the documents that state them as text."""
    if way == "sft":
        return of_trained_facts("train"), {}
    from labkit.tasks import handbook

    halves = [f"{one['title']}\n{one['text']}".partition(" ") for one in handbook.documents()]
    rows = [{"prompt": first, "completion": space + rest} for first, space, rest in halves]
    return rows, {"prompt_loss_weight": 1.0}


def of_trained_facts(split):
    """The handbook's rows of a split whose facts training asks about, and which never changed."""
    from labkit import load

    rows = load("handbook")[split]
    return rows.select([place for place, kind in enumerate(rows["kind"]) if kind == "trained"])


def facts(arm, pretraining, tuning, seed, asked):
    """Trained facts asked for in new phrasings: share right, and share of answers that hold the gold answer.

    `pretraining` and `tuning` are the rates of the two stages, each of as many steps, "0" for a stage left
    out; `sft-long` is SFT with the steps of both.
    """
    from labkit import load_tokenizer

    tokenizer, (model, _) = load_tokenizer(), trainee("full", seed, asked)
    for way, rate in (("pretrain", pretraining), ("sft", tuning)):
        rows, options = handbook_rows(way)
        if arm == "sft-long":
            options = {**options, "steps": 2 * asked["steps"]}
        if float(rate) and not fitted(model, rows, tokenizer, rate, seed, asked, **options):
            return {"right": 0.0, "contains": 0.0}
    test = few(of_trained_facts("test"), asked)
    scores = scored(model, tokenizer, "handbook", test)
    return {"right": scores.exact, "contains": scores.detail["contains"]}


# ---- epochs, early stopping, rounding -------------------------------------------------------------------


def epochs(rate, seed, asked):
    """Passes over `few` rows, and as many as EPOCHS allows with early stopping.

    What stops a run has phrasings that neither training nor the rows of the score have; the loss is on it.
    """
    from labkit import load, load_tokenizer

    tokenizer = load_tokenizer()
    seen, unseen = bench_methods.apart(load("tickets")["train"])
    judging, stopping = bench_methods.apart(unseen)
    rows, found = seen.select(range(min(asked["few"], len(seen)))), {}
    half = max(1, steps_of(rows, tokenizer, 0.5, seed, asked))
    held_out = {"validation": few(stopping, asked), "validate_every": half}
    for count, patience in [*((count, None) for count in EPOCHS), (EPOCHS[-1], PATIENCE)]:
        steps = steps_of(rows, tokenizer, count, seed, asked)
        model, _ = trainee("full", seed, asked)
        run = fitted(model, rows, tokenizer, rate, seed, asked, steps=steps, patience=patience, **held_out)
        if not run:
            raise LabkitError(f"{count} epochs at the rate {rate} diverged; lower full.BEST, or sweep again")
        best = min(run.validation, key=lambda pair: pair[1])
        kept = best if patience else run.validation[-1]  # early stopping puts the best weights back
        found["stopped" if patience else str(count)] = {
            "steps": run.steps, "kept step": kept[0], "loss": kept[1], "validation": run.validation,
            "right": exact(model, tokenizer, {"judging": judging}, "judging", asked).exact,
        }  # fmt: skip
    return {"epochs": found}


def steps_of(rows, tokenizer, count, seed, asked):
    """Steps in which `fit` sees `count` times as many rows as there are; `count` may be a fraction."""
    from labkit.train.packing import plan
    from labkit.train.rows import encode_all

    lengths = [len(one) for one in encode_all(rows, tokenizer, asked["length"])]
    steps = plan(lengths, asked["batch"], asked["length"], int(seed))
    seen = accumulate(sum(map(len, bins)) for bins in steps)
    return next(step for step, so_far in enumerate(seen, 1) if so_far >= count * len(rows))


def rounding(seed, asked):
    """Loss after `short` steps and the share of weights that are not what they were, by way and rate.

    `autocast`: fp32 weights, computing in bf16. `pure bf16`: the weights that AdamW steps are bf16 too.
    """
    import torch

    from labkit import load, load_model, load_tokenizer

    rows, tokenizer = load("tickets")["train"], load_tokenizer()
    found = {}
    for way, kind in (("autocast", torch.float32), ("pure bf16", torch.bfloat16)):
        found[way] = {}
        for rate in ROUNDING:
            model = load_model(dtype=kind)
            model.requires_grad_(True)
            before = [weight.detach().clone() for weight in model.parameters()]
            options = {"steps": asked["short"], "precision": "bf16"}
            run = fitted(model, rows, tokenizer, rate, seed, asked, **options)
            changed = [(new != old).sum().item() for new, old in zip(model.parameters(), before, strict=True)]
            found[way][f"{rate:g}"] = {
                "loss": run and sum(run.losses[-LAST:]) / len(run.losses[-LAST:]),
                "moved": sum(changed) / sum(weight.numel() for weight in before),
            }
    return {"rounding": found}
