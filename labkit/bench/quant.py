"""What quantization costs: formats by error, perplexity and bytes; training through rounding; time.

Formats are compared on the base as it is, which lies on the grid of one of them, on dithered bases (five
seeds) and on Gaussian matrices. Training is on tickets (three arms: not rounded, rounded after, rounded in
training) and from random weights (ternary against not rounded), each arm at its best learning rate.
"""

import time

from labkit import env
from labkit.bench import jobs, quant_report, quant_time, quant_train, quant_values
from labkit.records import ledger, store

NAME = "quant"
SEEDS = (0, 1, 2)
GPU = {"dithers": 5, "passages": 187, "gaussian": (2048, 2048), "rows": 1000, "repeats": 5,
       "tickets": {"steps": 300, "batch": 8, "length": 512},
       "random": {"steps": 600, "batch": 16, "length": 512}}  # fmt: skip
SMOKE = {"dithers": 2, "passages": 1, "gaussian": (64, 1024), "rows": 2, "repeats": 2,
         "tickets": {"steps": 1, "batch": 1, "length": 512},
         "random": {"steps": 10, "batch": 1, "length": 512}}  # fmt: skip
PARTS = (f"methods/quantize/{part}" for part in ("integers", "codebooks", "formats", "models", "bitnet"))
CODE = ("bench/quant", "bench/quant_values", "bench/quant_time", "bench/quant_train", *PARTS)


def main(argv):
    """Run what is missing and write data/measurements/quant.json; without a GPU, a trial, no record."""
    options = jobs.options(NAME, __doc__, argv)
    profile = env.profile()
    digest = {**store.data_digest("general", *quant_train.FAMILIES),
              **store.code_digest(*(f"labkit/{part}.py" for part in CODE))}  # fmt: skip
    mark = {**digest, "profile": profile}  # a trial's results are no measurement's
    if options.job:
        jobs.write(options.folder, options.job, {**job(options.job), "digest": mark})
        return 0

    def run(names, side_by_side=options.jobs):
        return jobs.run(NAME, names, options.folder, side_by_side, mark)

    arms = [(what, arm) for what, some in quant_train.ARMS.items() for arm in some]
    bases = ["formats_base", *(f"formats_{seed}" for seed in range(settings()["dithers"]))]
    sweeps = [name for pair in reversed(arms) for name in quant_train.sweep(*pair).values()]
    run([*sweeps, *bases])  # all at once, to keep the machine busy; what follows finds them done
    found, finals = run([*bases, "gaussian", "bytes"]), {}
    for what, arm in arms:
        rate, tried = quant_train.tuned(what, arm, run)
        finals |= {f"final_{what}_{arm}_{rate:g}_{seed}": tried for seed in SEEDS}
    found |= {name: {**one, "rates": finals[name]} for name, one in run(list(finals)).items()}
    found |= run(["time"], 1)  # alone on the card
    values = quant_values.summary(found)
    print("\n".join([*quant_report.format_table(values), *quant_report.training_table(values)]))
    if profile != "gpu":
        print("a trial: no record is written without a GPU")
        return 0
    whole = found.values()
    path = store.write(
        NAME, profile, seed=SEEDS[0], seconds=sum(one["seconds"] for one in whole), values=values,
        peak_bytes=max(one["peak_bytes"] for one in whole), digest=digest, claims=ledger.stamp(whole),
    )  # fmt: skip
    print(f"wrote {path.name}")
    return 0


def settings():
    """The numbers of this profile."""
    return vars(env.budget(cpu=SMOKE, gpu=GPU, smoke=SMOKE))


def job(name):
    """One job by name; returns what `jobs.write` stores, with its seconds and peak bytes."""
    import torch

    started = time.perf_counter()
    kind, _, rest = name.partition("_")
    if kind in ("tune", "final"):
        result = quant_train.train(name, settings())
    elif kind == "time":
        result = quant_time.measure(settings()["repeats"])
    else:
        result = {"formats": formats, "gaussian": gaussian, "bytes": sizes}[kind](rest)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {**result, "seconds": time.perf_counter() - started, "peak_bytes": peak}


def formats(source):
    """Weight error and perplexity of every format, on the base (`base`) or dithered with a seed (`0`)."""
    import torch

    from labkit import load_model, load_tokenizer
    from labkit.methods.quantize import FORMATS, dither, linears
    from labkit.tasks.general import passages, perplexity

    tokenizer, model = load_tokenizer(), load_model()
    if source != "base":
        dither(model, int(source))
    weights = {name: layer.weight.detach().clone() for name, layer in linears(model).items()}
    size = sum(w.double().square().sum() for w in weights.values())
    texts = passages()[: settings()["passages"]]

    def read():
        return perplexity(model, tokenizer, texts, batch_size=16, progress=False).perplexity

    found = {"not rounded": read(), "error": {}, "perplexity": {}}
    for name, form in FORMATS.items():
        wrong = 0.0
        for place, layer in linears(model).items():
            rounded = form.round(weights[place])
            wrong += (rounded - weights[place]).double().square().sum()
            with torch.no_grad():
                layer.weight.copy_(rounded)
        found["error"][name] = (wrong / size).sqrt().item()
        found["perplexity"][name] = read()
    return found


def gaussian(_):
    """Weight error of every format on Gaussian matrices, one for each dither seed."""
    import torch

    from labkit.methods.quantize import FORMATS, relative_error

    found = {name: [] for name in FORMATS}
    for seed in range(settings()["dithers"]):
        w = torch.randn(settings()["gaussian"], generator=torch.Generator().manual_seed(seed))
        for name, form in FORMATS.items():
            found[name].append(relative_error(w, form.round(w)))
    return {"error": found}


def sizes(_):
    """Stored bits for each weight and bytes of the whole file, by format."""
    from labkit import load_model
    from labkit.methods.quantize import FORMATS, file_bytes, weight_bits

    model = load_model()
    return {"bits": {name: weight_bits(model, form) for name, form in FORMATS.items()},
            "bytes": {name: file_bytes(model, form) for name, form in FORMATS.items()}}  # fmt: skip
