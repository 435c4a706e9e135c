"""How fast training is: `fit` against the loops that the field writes, on the same rows in one run.

Each job is one process with the machine (or one GPU) to itself: it trains one engine from a fresh model,
first a whole short run with its start-up, then, on the same model, the steps whose time counts. Repeats after
the first time steps only, of the quicker engines. The jobs of one repeat run before those of the next, so
that a slow minute of the machine meets all engines alike.
"""

import argparse
import os
import shutil
import statistics
import tempfile
from pathlib import Path

from labkit import env
from labkit.bench import jobs, train_engines, train_report
from labkit.errors import LabkitError
from labkit.records import store

NAME = "train"
METHODS = ("full", "lora")
# Steps of the whole run, and of those timed. `small` is a step of the lessons.
SIZES = {
    "small": {"batch": 5, "length": 512, "whole": 300, "timed": 60},
    "large": {"batch": 32, "length": 1024, "whole": 30, "timed": 20},
    "cpu": {"batch": 4, "length": 512, "whole": 8, "timed": 5},
    "smoke": {"batch": 1, "length": 256, "whole": 1, "timed": 1},
}
SUITED = {
    "small": ("eager", "compiled", "plain", "graph", "blocks", "trl", "trlpadded", "trlpacked"),
    "large": ("eager", "compiled", "graph", "blocks", "trlpadded"),
    "cpu": ("eager", "plain", "trl", "trlpadded"),
    "smoke": ("eager", "plain", "trl", "trlpadded"),
}
ONCE = ("compiled", "trl", "trlpadded", "trlpacked")  # minutes long each on a card: one run
# No whole run of these: the others say as much, and trl as it comes takes six minutes with LoRA.
STEPS_ONLY = ("small-full-compiled", "small-lora-compiled", "small-full-plain", "small-lora-plain",
              "small-lora-trl")  # fmt: skip
WARM = 25  # steps before those timed, where there is no whole run
CODE = ("bench/train", "bench/train_engines", "methods/full", "methods/lora", "train/engine", "train/graph",
        "train/step", "train/blocks", "train/attention", "train/precision", "train/loss", "train/packing",
        "train/rows", "train/schedule", "train/loop")  # fmt: skip


def main(argv):
    """Run what is missing and write data/measurements/train.json (on a CPU, train.cpu.json)."""
    about = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m labkit bench train", description=about)
    parser.add_argument("--folder", default="out/train", help="where jobs leave results, to go on from")
    parser.add_argument("--repeats", type=int, default=3, help="how often each engine runs")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, help="default: what suits the machine")
    parser.add_argument("--engines", nargs="+", choices=train_engines.ENGINES, help="a trial, no record")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    digest = {**store.data_digest("tickets"), **store.code_digest(*(f"labkit/{part}.py" for part in CODE))}
    if options.job:
        jobs.write(options.folder, options.job, {**job(options.job), "digest": digest})
        return 0
    if options.repeats < 1:
        raise LabkitError(f"--repeats {options.repeats}: at least 1")
    profile = env.profile()
    if env.precision() == "fp16":
        raise LabkitError("a card without bf16: its engines would train in different precisions. Use another")
    sizes = options.sizes or {"gpu": ["small", "large"], "cpu": ["cpu"], "smoke": ["smoke"]}[profile]
    names = [
        f"{size}-{method}-{engine}-{repeat}"
        for repeat in range(options.repeats)
        for size in sizes
        for method in options.methods
        for engine in options.engines or SUITED[size]
        if repeat == 0 or engine not in ONCE
    ]
    results = jobs.run("train", names, options.folder, 1, digest)
    values = summary(results)
    print("\n".join(train_report.table(values)))
    trial = options.engines or options.sizes or set(options.methods) != set(METHODS) or profile == "smoke"
    if trial:
        return 0
    path = store.write(
        NAME, profile, seed=0, seconds=sum(one["wall"] for one in results.values()), values=values,
        peak_bytes=max(one["peak bytes"] for one in results.values()), digest=digest,
    )  # fmt: skip
    print(f"wrote {path.name}")
    return 0


def job(name):
    """One job, `small-lora-fit-0`: size, method, engine, repeat. Returns what `jobs.write` stores."""
    from labkit import load, load_tokenizer, methods

    size, method, engine, repeat = name.split("-")
    kind, shape = name.rpartition("-")[0], dict(SIZES[size])
    whole = repeat == "0" and kind not in STEPS_ONLY
    _own_cache(kind, empty=repeat == "0")
    if not whole:
        shape["whole"] = min(WARM, shape["whole"])
    rows, tokenizer = load("tickets")["train"], load_tokenizer()
    model = methods.find(method).prepare(seed=0)
    rate = {"full": 1e-4, "lora": 1e-3}[method]
    taken = train_engines.ENGINES[engine](model, rows, tokenizer, rate=rate, **shape)
    if not whole:
        taken |= {"whole seconds": None, "start seconds": None, "loss": None}
    return {**taken, "engine": engine, "size": size, "method": method}


def _own_cache(name, empty):
    """Compile into a cache that no other engine fills: what it costs is what it costs the first time.

    Repeats, which time steps only, find what the first left.
    """
    folder = Path(tempfile.gettempdir()) / "labkit-bench-train" / name
    if empty:
        shutil.rmtree(folder, ignore_errors=True)
    for kind in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        os.environ[kind] = str(folder / kind.split("_")[0].lower())


def summary(results):
    """size -> method -> engine -> medians over repeats, with the spread of the step time."""
    grouped = {}
    for one in results.values():
        place = grouped.setdefault(one["size"], {}).setdefault(one["method"], {})
        place.setdefault(one["engine"], []).append(one)
    return {
        size: {method: {engine: _median(each) for engine, each in engines.items()}
               for method, engines in by_method.items()}
        for size, by_method in grouped.items()
    }  # fmt: skip


def _median(each):
    numbers = ("step ms", "tokens/s", "whole seconds", "start seconds", "peak bytes", "loss")
    found = {name: [one[name] for one in each if one[name] is not None] for name in numbers}
    middle = {name: statistics.median(values) if values else None for name, values in found.items()}
    steps = [one["step ms"] for one in each]
    return {**middle, "step ms from": min(steps), "step ms to": max(steps), "runs": len(each)}
