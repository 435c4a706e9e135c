"""The training of `bench quant`: tickets from a dithered base, and random weights, rounded or not."""

import math
from itertools import pairwise

from labkit import env
from labkit.errors import LabkitError

ROUNDED = ("int3", "int2")  # formats of at most 3 bits a code that are trained through
RATES = {"tickets": (3e-5, 1e-4, 3e-4, 1e-3), "random": (3e-4, 1e-3, 3e-3, 1e-2)}
ARMS = {"tickets": ("exact", *ROUNDED), "random": ("exact", "ternary")}  # exact: not rounded
EXTRA = 2  # times a sweep may go on where its best rate is the last
FAMILIES = ("tickets", "sql", "handbook", "voice", "arithmetic")  # what models from random weights read
GUESSING = math.log(49_152)  # nats of a guess at random among all tokens of the vocabulary: 10.8
RISE = 0.5  # nats above its best tenth at which a run's last tenth has diverged


def sweep(what, arm, rates=None):
    """rate -> the name of the job that tries it, with the first seed."""
    return {rate: f"tune_{what}_{arm}_{rate:g}_0" for rate in rates or RATES[what]}


def tuned(what, arm, run):
    """The rate with the lowest validation loss, and the losses by rate; goes on where the best is an end."""
    rates, tried = list(RATES[what]), {}
    for _ in range(1 + EXTRA):
        names = sweep(what, arm, rates)
        results = run(list(names.values()))
        tried = {rate: results[name]["loss"] for rate, name in names.items()}
        best = min(tried, key=lambda rate: float("inf") if tried[rate] is None else tried[rate])
        if rates[0] < best < rates[-1]:
            break
        rates = [best / 3, *rates] if best == rates[0] else [*rates, best * 3]
    return best, {f"{rate:g}": loss for rate, loss in sorted(tried.items())}


def train(name, settings):
    """`tune_tickets_int3_0.0001_0`, `final_random_ternary_0.001_2`: stage, start, arm, rate, seed."""
    import torch

    from labkit import fit, load, load_tokenizer

    stage, what, arm, rate, seed = name.split("_")
    torch.set_float32_matmul_precision("high")
    tokenizer, split = load_tokenizer(), "validation" if stage == "tune" else "test"
    families = ("tickets",) if what == "tickets" else FAMILIES
    length, whole = settings[what]["length"], what == "random"
    rows, held_out = [], []
    for family in families:
        data = load(family, **({"quality": "gold"} if family == "voice" else {}))
        rows += fitting(data["train"], tokenizer, length)
        some = range(min(len(data[split]), settings["rows"] // len(families) or 1))
        held_out += fitting(data[split].select(some), tokenizer, length)
    model = start(what, arm, int(seed))
    try:
        run = fit(model, rows, tokenizer, lr=float(rate), seed=int(seed), **settings[what],
                  prompt_loss_weight=float(whole), compile=False, progress=False)  # fmt: skip
    except LabkitError as error:
        if "the loss is" not in str(error):
            raise
        return {"loss": None, "after": None, "diverged": True, "losses": []}
    found = {"loss": answer_loss(model, tokenizer, held_out, whole), "diverged": diverged(run.losses),
             "losses": [round(loss, 4) for loss in run.losses[:: max(1, run.steps // 100)]],
             "training seconds": run.seconds, "path": run.path, "after": None}  # fmt: skip
    if stage == "final" and what == "tickets" and arm == "exact":
        found["after"] = after(model, tokenizer, held_out)
    return found


def start(what, arm, seed):
    """A model to train: a dithered base, or random weights in the base's shape; `arm` says how it rounds."""
    from labkit import load_model
    from labkit.methods.quantize import FORMATS, BitLinear, RoundedLinear, dither, replace_linears

    if what == "tickets":
        model = dither(load_model(), seed)
        return model if arm == "exact" else replace_linears(model, RoundedLinear, FORMATS[arm].round)
    from transformers import AutoModelForCausalLM

    base = load_model()
    env.seed_everything(seed)
    model = AutoModelForCausalLM.from_config(base.config).to(base.device).float()
    return model if arm == "exact" else replace_linears(model, BitLinear)


def after(model, tokenizer, held_out):
    """Held-out loss of a trained model rounded to each format of `ROUNDED`; the model is spoilt."""
    import torch

    from labkit.methods.quantize import FORMATS, linears, round_linears

    weights = {name: layer.weight.detach().clone() for name, layer in linears(model).items()}
    found = {}
    for form in ROUNDED:
        with torch.no_grad():
            for name, layer in linears(model).items():
                layer.weight.copy_(weights[name])
        found[form] = answer_loss(round_linears(model, FORMATS[form]), tokenizer, held_out)
    return found


def answer_loss(model, tokenizer, rows, whole=False, batch_size=32):
    """Mean loss over the answer tokens of prompt and completion rows, or over all tokens, in nats.

    The model computes as it is, in its own precision, without a gradient.
    """
    from labkit.tasks.general.likelihood import log_probabilities
    from labkit.train.rows import encode_all

    encoded = encode_all(rows, tokenizer, length=10**6)
    pieces = [(row.ids, 1 if whole else max(1, row.weights.index(1.0))) for row in encoded]
    found = log_probabilities(model, tokenizer, pieces, batch_size, "held-out", progress=False)
    return -sum(map(sum, found)) / sum(map(len, found))


def fitting(rows, tokenizer, length):
    """The rows of at most `length` tokens, prompt and completion only: families differ in other columns."""
    from labkit.train.rows import encode_all

    rows = [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]
    encoded = encode_all(rows, tokenizer, length=10**6)
    return [row for row, one in zip(rows, encoded, strict=True) if len(one) <= length]


def diverged(losses):
    """Did the loss end more than RISE nats above its best tenth?"""
    edges = [round(len(losses) * i / 10) for i in range(11)]
    tenths = [losses[a:b] for a, b in pairwise(edges) if b > a]
    means = [sum(part) / len(part) for part in tenths]
    return bool(means) and not means[-1] <= min(means) + RISE
