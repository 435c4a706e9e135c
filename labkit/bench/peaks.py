"""Training's peak of each recorded method at one batch, where all take plain steps.

The peaks that `bench methods` meets do not all compare: a CUDA graph and compiled blocks change what a step
holds, and not every method can be compiled. A few plain steps on the same rows say it; a peak does not grow
with further steps, and hardly depends on the learning rate, which is each method's own.
"""

import time

import numpy as np

from labkit import env, methods
from labkit.bench import jobs
from labkit.bench.markdown import measured, table
from labkit.bench.methods_table import is_soft_prompt
from labkit.errors import LabkitError
from labkit.records import store

NAME, SOURCE = "peaks", "methods_tickets"
STEPS = 20
CODE = ("bench/peaks", "train/loop", "train/engine", "train/step", "train/precision", "train/packing",
        "train/attention", "train/loss")  # fmt: skip


def main(argv):
    """Run what is missing and write data/measurements/peaks.json; without a GPU, a trial, no record."""
    options = jobs.options(NAME, __doc__, argv)
    source, profile = _source(), env.profile()
    entries = source["values"]["methods"]
    digest = store.code_digest(
        *(f"labkit/{part}.py" for part in CODE), *sorted({entry["module"] for entry in entries.values()})
    )
    mark = {**digest, "profile": profile, "settings": settings(source)}
    if options.job:
        jobs.write(options.folder, options.job, {**job(options.job), "digest": mark})
        return 0
    found = jobs.run(NAME, names(entries), options.folder, options.jobs, mark)
    values = summary(found, entries, settings(source))
    jobs.finish(NAME, lines(values), list(found.values()), values=values, digest=digest)
    return 0


def _source():
    whole = store.read(SOURCE)
    if whole is None:
        raise LabkitError(f"no record {SOURCE} to take methods from: python -m labkit bench methods")
    return whole


def settings(source):
    """Batch and length of the record's runs, and the steps of this profile."""
    asked = {key: source["values"]["settings"][key] for key in ("batch", "length")}
    small = {"steps": 2, "batch": 1, "length": 256}
    return vars(env.budget(cpu=small, gpu={"steps": STEPS, **asked}, smoke=small))


def names(entries):
    """One job for each method that trained."""
    return [f"peak_{name}" for name, entry in entries.items() if set(entry["path"]) != {"diverged"}]


def job(name):
    """Plain steps of one method; returns its trainable weights and `fit`'s peak bytes."""
    import torch

    from labkit import fit, load, load_tokenizer

    started, source = time.perf_counter(), _source()
    torch.set_float32_matmul_precision("high")
    name = name.removeprefix("peak_")
    method, rate = methods.find(name), source["values"]["methods"][name]["rate"]
    run = fit(
        method.prepare(0), load("tickets")["train"], load_tokenizer(), lr=rate, seed=0, progress=False,
        fast=False, compile=False, **settings(source), **method.options,
    )  # fmt: skip
    return {"trainable": run.trainable, "peak bytes": run.peak_bytes, "path": run.path, **jobs.cost(started)}


# ---- values and table -----------------------------------------------------------------------------------


def summary(found, entries, asked):
    """The record's values: peaks by method, and what the claim's band names, over all but soft prompts."""
    kept = ("trainable", "peak bytes", "path")
    peaks = {name.removeprefix("peak_"): {key: one[key] for key in kept} for name, one in found.items()}
    paths = {one["path"] for one in peaks.values()}
    if len(paths) > 1:
        raise LabkitError(f"peaks of different ways to take steps do not compare: {', '.join(sorted(paths))}")
    for name, one in peaks.items():
        one["soft prompt"] = is_soft_prompt(entries[name])
    ranked = [one for one in peaks.values() if not one["soft prompt"]]
    columns = ([one[key] for one in ranked] for key in kept[:2])
    return {"settings": asked, "peaks": peaks, "rank correlation": correlation(*columns)}


def correlation(first, second):
    """Spearman's rank correlation of two lists, equal numbers sharing a rank; None where it says nothing."""
    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    ranks = [np.unique(each, return_inverse=True, return_counts=True)[1:] for each in (first, second)]
    ranks = [(np.cumsum(count) - (count - 1) / 2)[place] for place, count in ranks]
    return float(np.corrcoef(ranks)[0, 1])


@measured(NAME)
def lines(found):
    """Markdown lines: methods by trainable weights, with training's peak."""
    peaks, asked = found["peaks"], found["settings"]
    rows = [
        [name, f"{one['trainable']:,}", f"{one['peak bytes'] / 1e9:.2f} GB",
         "its places are tokens more" if one["soft prompt"] else ""]
        for name, one in sorted(peaks.items(), key=lambda pair: pair[1]["trainable"])
    ]  # fmt: skip
    ranks = found["rank correlation"]
    return [
        *table("method|trainable weights|training's peak|", rows),
        "",
        f"{asked['steps']} plain steps of {asked['batch']} x {asked['length']} tokens, on the same rows; "
        "GB = 1e9 bytes. Rank correlation of the two columns, soft prompts left out: "
        f"{'it says nothing here' if ranks is None else f'{ranks:.2f}'}.",
    ]
