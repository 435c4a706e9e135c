"""From the jobs of `bench inference` to the values of its record, and its tables."""

from statistics import median

from labkit.bench.markdown import measured, missing, table, together, values
from labkit.records import stats

NAME = "inference"
ADAPTERS = {
    "lora": "LoRA r=16, through peft",
    "lora own": "LoRA r=16, own module",
    "lora merged": "LoRA r=16, merged",
    "ia3": "IA3, through peft",
    "ia3 own": "IA3, own module",
    "ia3 merged": "IA3, merged",
    "biases": "added biases",
    "norms": "norms",
    "bottleneck": "bottlenecks (Houlsby)",
}
PROMPTS = {
    "prompt": "prompt tuning",
    "prefix": "prefix tuning, run with each text",
    "prefix from cache": "prefix tuning, from the cache",
    "hard prompt": "hard prompt of equal length",
}


def summary(found, asked):
    """The record's values, under the names that the claims' bands use; `asked` is `inference.settings()`."""
    times = {regime: found[f"time_{regime}"]["times"] for regime in asked["regimes"]}
    sizes = found["time_compute-bound"]  # the same in every job
    return {
        "settings": {"regimes": asked["regimes"]},
        "time": {regime: {arm: _over(seconds, each["base"]) for arm, seconds in each.items() if arm != "base"}
                 for regime, each in times.items()},
        "speed": _speed(times["compute-bound"]),
        "seconds": times,
        **{name: sizes[name] for name in ("base", "extra weights", "extra cache bytes")},
    }  # fmt: skip


def _speed(times):
    """The speed of soft prompts on the same text over no prompt and over a hard one, for each repeat."""
    base = times["base"]
    return {
        "no prompt": _over(base, times["prompt"]),
        "hard prompt": _over(times["hard prompt"], times["prompt"]),
        "prefix over no prompt": _over(base, times["prefix"]),
        "prefix from cache over no prompt": _over(base, times["prefix from cache"]),
    }


def _over(these, those):
    return [a / b for a, b in zip(these, those, strict=True)]


# ---- tables ---------------------------------------------------------------------------------------------


@measured(NAME)
def lines(found):
    """All tables as Markdown lines."""
    return together((adapter_table, prompt_table, size_table), found)


@measured(NAME)
def adapter_table(found):
    """Markdown lines: time with each adapter over the base's, by regime."""
    return [
        *_times(found, ADAPTERS),
        "",
        f"{_how(found)} Bottlenecks are an own module too. A wrapper of peft does more in Python for each "
        "layer: where Python and launches are the limit, compare own with own.",
    ]


def ratio(regime, arm):
    """Text: time with an arm over the base's in a regime, with its 95% interval; or how to measure it."""
    found = values(NAME)
    if not found:
        return missing(NAME)
    name, about = (ADAPTERS | PROMPTS)[arm], _about(found["settings"]["regimes"][regime])
    return f"{name}, {about}: {_spread(found['time'][regime][arm])} times the base's time"


@measured(NAME)
def prompt_table(found):
    """Markdown lines: time with each prompt before the text over the base's without one, by regime."""
    tokens = found["extra cache bytes"]["prompt"] // found["base"]["cache bytes a token"]
    return [
        *_times(found, PROMPTS),
        "",
        f"{_how(found)} A prompt of {tokens} tokens comes on top of the text. Run with each text: its places "
        "go through every layer, and each step looks for them, as in training. From the cache: its keys and "
        "values stand there when the text comes, as in peft, at the price of a dense attention mask; any "
        "other prompt could be kept there in the same way.",
    ]


@measured(NAME)
def size_table(found):
    """Markdown lines: weights kept beside the base's, and what a sequence's cache grows by, by method."""
    base = found["base"]
    rows = [
        [name, f"{found['extra weights'][arm]:,}", f"{found['extra weights'][arm] / base['weights']:.3%}",
         f"{found['extra cache bytes'][arm] / 1e6:.2f} MB"]
        for arm, name in (ADAPTERS | PROMPTS).items()
    ]  # fmt: skip
    return [
        *table("method|extra weights|of the base's|extra KV cache, one sequence", rows),
        "",
        f"By arithmetic. Extra weights are those kept beside the base to answer; trained norms replace its "
        f"own. A token takes {base['cache bytes a token']:,} bytes in the cache, in bf16; MB = 1e6 bytes.",
    ]


def _times(found, arms):
    """Lines: the ratio by arm and regime with its 95% interval; the base's milliseconds above."""
    regimes = found["settings"]["regimes"]
    base = [f"{1e3 * median(found['seconds'][regime]['base']):.1f} ms" for regime in regimes]
    rows = [[name, *(_spread(found["time"][regime][arm]) for regime in regimes)]
            for arm, name in arms.items()]  # fmt: skip
    heads = "|".join(["time over the base's", *(_about(shape) for shape in regimes.values())])
    return table(heads, [["the base alone", *base], *rows])


def _about(shape):
    rows, tokens, new = shape["rows"], shape["tokens"], shape["new"]
    if new:
        return f"{new} answer tokens from {rows} prompt{'' if rows == 1 else 's'} of {tokens}"
    return f"forward, {rows} x {tokens:,}"


def _spread(ratios):
    found = stats.of_values(ratios)
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _how(found):
    repeats = ", ".join(str(shape["repeats"]) for shape in found["settings"]["regimes"].values())
    return (f"transformers in bf16, eager. Means over repeats ({repeats} by column), all models in turns in "
            "each, in an order drawn anew, ratios within a repeat. Brackets: 95% interval over repeats, all "
            "of one process; another process may lie outside.")  # fmt: skip
