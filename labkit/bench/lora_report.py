"""The tables and the figure of `bench lora`. Each takes the record's values, or reads them."""

from functools import wraps
from statistics import median

from labkit.bench.train_engines import ABOUT
from labkit.records import store

MISSING = "not measured yet: python -m labkit bench lora"
NAMES = {"full": "full", "lora-r16": "LoRA r=16"}
BASES = {
    "own base": "the base it was trained on",
    "slightly changed base": "slightly changed base",
    "changed base": "changed base",
    "retrained": "changed base, a new adapter trained on it",
}


def values():
    """The values of the record; None before there is one."""
    whole = store.read("lora")
    return whole and whole["values"]


def _measured(table):
    """A function of the record's values, which it reads unless given; one line before there are any."""

    @wraps(table)
    def lines(found=None):
        found = found or values()
        return table(found) if found else [MISSING]

    return lines


@_measured
def lines(found):
    """All tables as Markdown lines."""
    tables = (low_rank_table, merge_table, speed_table, forget_table, rebase_table, batch_table)
    return "\n\n".join("\n".join(table(found)) for table in tables).splitlines()


@_measured
def low_rank_table(found):
    """Markdown lines: the update of full finetuning cut to a few ranks, and the same for it shuffled."""
    low, kinds = found["low rank"], ("full", "shuffled")
    rows = [[rank, *(_percent(low[what][kind][rank]) for kind in kinds for what in ("energy", "validation"))]
            for rank in low["energy"]["full"]]  # fmt: skip
    whole = low["validation"]["whole"]
    rows.append(["all", "100.0%", _percent(whole), "100.0%", ""])
    test = ", ".join(f"{name} {_percent(shares)}" for name, shares in low["test"].items())
    return [
        *_table("rank kept|energy|exact match, validation|energy, shuffled|exact match, shuffled", rows),
        "",
        f"Full finetuning, {_budget(found)}, mean of {_seeds(whole)}. The update of every linear layer is "
        "cut by itself; what the embedding and the norms learned stays whole. Energy: share of the squared "
        f"norm that is kept, mean of the layers. Exact match on test rows: {test}.",
    ]


@_measured
def merge_table(found):
    """Markdown lines: time of a forward pass of the base, with merged and with unmerged adapters."""
    asked, out = found["settings"], []
    for what, times in found["forward seconds"].items():
        rows, tokens = asked["calls"][what][0]
        cells = [f"{1e3 * median(times[name]):.2f} ms" for name in ("base", "merged", "unmerged")]
        ratios = [f"{median(found[f'{name} time'][what]):.3f}" for name in ("merged", "unmerged")]
        out.append([f"{what}, {rows} x {tokens:,} tokens", *cells, *ratios])
    return [
        *_table("forward pass, bf16|base|merged|unmerged|merged over base|unmerged over base", out),
        "",
        "One adapter, LoRA r=16 on all linear layers; medians of "
        f"{asked['repeats']} repeats in turns, eager. In fp32 the logits of merged and unmerged differ by "
        f"{found['largest logit difference']:.1e} at most (largest logit: {found['largest logit']:.0f}); the "
        f"likeliest next token is the same at {found['same next token']:.2%} of the positions of "
        f"{asked['prompts']} rows.",
    ]


@_measured
def speed_table(found):
    """Markdown lines: tokens a second of full finetuning and LoRA, and the FLOPs of a step."""
    out = []
    for size, engines in found["speed"].items():
        for engine, each in engines.items():
            speeds = [f"{each[name]['tokens/s']:,.0f}" for name in NAMES]
            step = f"{each['full']['batch']} x {each['full']['length']:,}"
            ratio = f"{found['tokens/s ratio'][f'{size}, {engine}']:.2f}"
            out.append([step, ABOUT[engine], *speeds, ratio])
    counted, asked = found["FLOPs"], found["settings"]
    return [
        *_table("tokens a step|loop|full, tokens/s|LoRA r=16, tokens/s|LoRA over full", out),
        "",
        "One run each, the card to itself, start-up not counted. FLOPs of a step of "
        f"{asked['batch']} x {asked['length']} tokens: full {counted['full']:.3g}, LoRA "
        f"{counted['lora-r16']:.3g}, ratio {found['FLOPs ratio']:.3f}. Counted are matrix products and "
        "attention of the forward and backward pass, every position through the head.",
    ]


@_measured
def forget_table(found):
    """Markdown lines: score, loss on plain English and probe by rate; losses at equal scores."""
    out = []
    for method, rates in found["forget"].items():
        for rate, runs in sorted(rates.items(), key=lambda pair: float(pair[0])):
            done = [run for run in runs if run["general loss"] is not None]
            loss = f"{_mean([run['general loss'] for run in done]):.3f}" if done else "diverged"
            probe = _percent([run["probe"] for run in done]) if done else ""
            out.append([NAMES[method], rate, _percent([run["right"] for run in runs]), loss, probe])
    most, least = (", ".join(f"{gap:+.3f}" for gap in found[f"loss at matched score, {end}"])
                   for end in ("worst", "best"))  # fmt: skip
    seeds = _seeds(found["settings"]["seeds"])
    return [
        *_table("method|learning rate|exact match, new phrasings|general loss|probe", out),
        "",
        f"{_budget(found).capitalize()}, mean of {seeds}. General loss: nats per token of plain English. "
        "LoRA's lowest loss at a score or above it, minus full's, over the scores that both reach, by seed: "
        f"at most {most}; at least {least}.",
    ]


@_measured
def rebase_table(found):
    """Markdown lines: an adapter on its own base and on changed ones."""
    test, change = found["rebase"]["test"], found["rebase"]["change"]
    base = _mean(change["changed base"]["general loss before"])
    out = [[BASES["own base"], _percent(test["own base"]), "0", f"{base:.3f}"]]
    for name in list(BASES)[1:]:
        one = change.get(name, change["changed base"])  # a new adapter lies on the changed base, too
        cells = [_percent(one["weights moved"]), f"{_mean(one['general loss after']):.3f}"]
        out.append([BASES[name], _percent(test[name]), *cells])
    asked = found["settings"]
    return [
        *_table("a LoRA adapter on|exact match, test|weights moved|general loss of that base", out),
        "",
        f"{_budget(found).capitalize()}, mean of {_seeds(test['own base'])}. Changed: every weight trained "
        f"on plain text for {asked['steps']} steps at 1e-4; slightly: {asked['weaker']} steps. Weights "
        "moved: norm of the change over the norm of all weights.",
    ]


@_measured
def batch_table(found):
    """Markdown lines: the best learning rate by batch size."""
    sizes, asked, out = list(found["full"]["best rates"]), found["settings"], []
    for method, name in (("full", "full"), ("lora", "LoRA r=16")):
        one = found[method]
        marks = {size: "*" if size in one["at an end"] else "" for size in sizes}
        out.append([name, *(f"{one['best rates'][size]:g}{marks[size]} "
                            f"({max(one['tried'][size].values()):.1%})" for size in sizes)])  # fmt: skip
    heads = [f"{size} x {asked['length']} tokens" for size in sizes]
    ends = any(found[method]["at an end"] for method in ("full", "lora"))
    return [
        *_table("|".join(["best learning rate", *heads]), out),
        "",
        f"{asked['steps']} steps whatever the batch, one seed. In brackets exact match on training rows "
        "whose phrasings were kept out, by which a rate is chosen (among equals by the lower loss)."
        + (" *: still the lowest or highest rate tried." if ends else ""),
    ]


def plot(found=None):
    """Loss on plain English over the score on new phrasings, a point a run; a line of text without a record.

    Runs without one right answer are left out.
    """
    from labkit import plots

    found = found or values()
    if not found:
        print(MISSING)
        return
    fig, axes = plots.figure(
        _finding(found), "exact match on new phrasings (%)", "loss on plain English (nats per token)"
    )
    said = []
    for (method, name), marker, colour in zip(NAMES.items(), "os", plots.COLOURS[:2], strict=True):
        runs = [run for rates in found["forget"][method].values() for run in rates if run["right"]]
        points = sorted((100 * run["right"], run["general loss"]) for run in runs)
        axes.plot(*zip(*points, strict=True), marker, color=colour, label=name)
        said.append(f"{name} " + ", ".join(f"{score:.1f}% {loss:.2f}" for score, loss in points))
    base = _mean(found["rebase"]["change"]["changed base"]["general loss before"])
    axes.axhline(base, color="grey", linewidth=1, linestyle=":", label="the base")
    axes.legend(frameon=False)
    plots.show(fig, f"Scatter plot of loss on plain English over score, base {base:.2f}: {'; '.join(said)}.")


def _finding(found):
    """The title: what LoRA forgets beside full finetuning, at the scores that both reach."""
    most, least = (_mean(found[f"loss at matched score, {end}"]) for end in ("worst", "best"))
    how = "less" if most < 0 else "more" if least > 0 else "now less, now more"
    return f"At equal scores LoRA forgets {how} than full finetuning"


def _table(head, rows):
    """Markdown lines of a table whose head is given with bars between the columns."""
    columns = head.split("|")
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]


def _budget(found):
    asked = found["settings"]
    return f"tickets, {asked['steps']} steps of {asked['batch']} x {asked['length']} tokens"


def _seeds(each):
    return f"{len(each)} {'seed' if len(each) == 1 else 'seeds'}"


def _percent(shares):
    return f"{_mean(shares):.1%}"


def _mean(numbers):
    return sum(numbers) / len(numbers)
