"""From the jobs of `bench quant` to the values of its record."""

from labkit.bench.quant_train import GUESSING, ROUNDED


def summary(found):
    """The record's values from the results of all jobs, under the names that the claims' bands use."""
    from labkit.methods.quantize import FORMATS, LEVELS

    seeds = sorted(name for name in found if name.startswith("formats_") and name != "formats_base")
    dithered = [found[name] for name in seeds]
    base, bits, size = found["formats_base"], found["bytes"]["bits"], found["bytes"]["bytes"]
    errors = {"dithered": {name: [one["error"][name] for one in dithered] for name in FORMATS},
              "gaussian": found["gaussian"]["error"]}  # fmt: skip
    says = {name: [one["perplexity"][name] for one in dithered] for name in FORMATS}
    equal = {level: {"weight error": {kind: margins(each, names) for kind, each in errors.items()},
                     "perplexity": margins(says, names)} for level, names in LEVELS.items()}  # fmt: skip
    every = [one for level in equal.values() for one in level["weight error"].values()]
    return {
        "bits": {**bits, "int8": bits["int8 row"]},
        "file ratio": {**{name: each / size["bf16"] for name, each in size.items()},
                       "int8": size["int8 row"] / size["bf16"]},
        "bits saved": bits["nf4 64"] - bits["nf4 double"],
        # The least favourable level and kind of weights, for each dither seed.
        "weight error, best other over NF4": least(every),
        "perplexity, best other over NF4": least([level["perplexity"] for level in equal.values()]),
        "best other over NF4": equal,
        "not rounded": {"base": base["not rounded"], "dithered": [one["not rounded"] for one in dithered]},
        "formats": {name: {
            "bits": bits[name], "about": form.about,
            "weight error": {"base": base["error"][name],
                             **{kind: sum(each[name]) / len(each[name]) for kind, each in errors.items()}},
            "perplexity": {"base": base["perplexity"][name], "dithered": says[name]},
        } for name, form in FORMATS.items()},
        **_trained(found),
        **{name: found["time"][name] for name in ("time ratio", "times") if name in found["time"]},
    }  # fmt: skip


def margins(values, names):
    """Best other value over NF4's best, for each seed; `names` are those of one level (see LEVELS)."""
    best = {kind: least([values[name] for name in some]) for kind, some in names.items()}
    return [other / nf4 for other, nf4 in zip(best["others"], best["nf4"], strict=True)]


def least(lists):
    """The smallest of several lists of numbers at each seed."""
    return [min(each) for each in zip(*lists, strict=True)]


def closed(exact, after, through):
    """The share of the gap from `exact` to `after` that `through` closes, held-out losses in nats.

    Rounding can make a model worse than guessing. To guess is to have lost all, so the gap ends there.
    """
    after = min(after, GUESSING)
    return (after - through) / (after - exact)


def _trained(found):
    def finals(what, arm):
        return [one for name, one in sorted(found.items()) if name.startswith(f"final_{what}_{arm}_")]

    training, plain = {}, finals("tickets", "exact")
    for form in ROUNDED:
        arm = finals("tickets", form)
        trios = [(a["loss"], a["after"][form], b["loss"]) for a, b in zip(plain, arm, strict=True)]
        training[form] = {
            "not rounded": [one[0] for one in trios], "after": [one[1] for one in trios],
            "in training": [one[2] for one in trios],
            "left": [through - exact for exact, _, through in trios],
            "gap closed": [closed(*trio) for trio in trios],
            "rates": {"not rounded": plain[0]["rates"], "in training": arm[0]["rates"]},
        }  # fmt: skip
    exact, ternary = finals("random", "exact"), finals("random", "ternary")
    pairs = [(a["loss"], b["loss"]) for a, b in zip(exact, ternary, strict=True)]
    pairs = [pair for pair in pairs if None not in pair]  # a run whose loss was not finite has none
    return {
        "training": training,
        # The smaller share of the two formats, for each seed.
        "gap closed": least([one["gap closed"] for one in training.values()]),
        "diverged": sum(one["diverged"] for one in ternary),
        "loss gap": [b - a for a, b in pairs],
        "ternary": {"not rounded": [a for a, _ in pairs], "ternary": [b for _, b in pairs],
                    "rates": {"not rounded": exact[0]["rates"], "ternary": ternary[0]["rates"]},
                    "losses": {"not rounded": exact[0]["losses"], "ternary": ternary[0]["losses"]}},
    }  # fmt: skip
