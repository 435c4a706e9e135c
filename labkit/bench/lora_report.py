"""The tables and the figure of `bench lora`. Each takes the record's values, or reads them."""

from statistics import mean, median

from labkit.bench.markdown import measured, missing, table, together, values
from labkit.bench.train_engines import ABOUT
from labkit.records import judge, ledger, stats, store

NAME = "lora"
NAMES = {"full": "full", "lora-r16": "LoRA r=16"}
LOADS = {"launch-bound": "little work a kernel", "compute-bound": "much work a kernel"}
BASES = {
    "own base": "the base it was trained on",
    "slightly changed base": "slightly changed base",
    "changed base": "changed base",
    "retrained": "changed base, a new adapter trained on it",
}


@measured(NAME)
def lines(found):
    """All tables as Markdown lines."""
    tables = (low_rank_table, merge_table, speed_table, forget_table, rebase_table, batch_table)
    return together(tables, found)


@measured(NAME)
def low_rank_table(found):
    """Markdown lines: the update of full finetuning cut to a few ranks, and the same for it shuffled."""
    low, kinds = found["low rank"], ("full", "shuffled")
    rows = [[rank, *(_percent(low[what][kind][rank]) if rank in low[what][kind] else ""
                     for kind in kinds for what in ("energy", "validation"))]
            for rank in low["energy"]["full"]]  # fmt: skip
    whole = low["validation"]["whole"]
    rows.append(["all", "100.0%", _percent(whole), "100.0%", ""])
    test = "; ".join(f"{name}: {_percent(shares)}" for name, shares in low["test"].items())
    return [
        *table("rank kept|energy|exact match, validation|energy, shuffled|exact match, shuffled", rows),
        "",
        f"Full finetuning, {_budget(found)}, mean of {_seeds(whole)}. The update of every linear layer is "
        "cut by itself; what the embedding and the norms learned stays whole, and is all that rank 0 leaves. "
        "Energy: share of the squared norm that is kept, mean of the layers. Of the shuffled change only "
        "cuts were scored; where none scores anything, shuffling alone may have done that: compare the "
        "energies, not the scores. Validation rows "
        f"have phrasings of the training rows, test rows new ones: {test}.",
    ]


@measured(NAME)
def merge_table(found):
    """Markdown lines: time of a forward pass of the base, with merged and with unmerged adapters."""
    asked, out = found["settings"], []
    for what, times in found["forward seconds"].items():
        rows, tokens = asked["calls"][what][0]
        cells = [f"{1e3 * median(times[name]):.2f} ms" for name in ("base", "merged", "unmerged")]
        ratios = [_interval(found[f"{name} time"][what], ".3f") for name in ("merged", "unmerged")]
        out.append([f"{LOADS[what]}, {rows} x {tokens:,} tokens", *cells, *ratios])
    return [
        *table("forward pass, bf16|base|merged|unmerged|merged over base|unmerged over base", out),
        "",
        "One adapter, LoRA r=16 on all linear layers, eager; times are medians of "
        f"{asked['repeats']} repeats in turns, ratios the means of those within each repeat (95% intervals). "
        "Logits of merged and "
        f"unmerged, on the positions of {asked['prompts']} rows: "
        f"{'; '.join(_logits(found, dtype) for dtype in found['logits'])}. Merged before it is rounded to "
        f"bf16, which moves the merged model's own logits by {found['rounding to bf16']:.1e}: its weights "
        "are rounded, and all its arithmetic. Unmerged, A and B are rounded to bf16 too, where peft would "
        "keep fp32. A ratio far from that of the medians says that a busy host delayed some repeats.",
    ]


def _logits(found, dtype):
    one, apart = found["logits"][dtype], found["relative logit difference"][dtype]
    return (f"in {dtype} they differ by {apart:.1e} of the largest ({one['largest logit']:.0f}) at most, and "
            f"agree on the likeliest next token at {one['same next token']:.2%}")  # fmt: skip


@measured(NAME)
def speed_table(found):
    """Markdown lines: tokens a second of full finetuning and LoRA, and the FLOPs of a step."""
    out = []
    for size, engines in found["speed"].items():
        for engine, each in engines.items():
            speeds = [f"{median(each[name]['tokens/s']):,.0f}" for name in NAMES]
            step = f"{each['full']['batch'][0]} x {each['full']['length'][0]:,}"
            ratio = _interval(found["tokens/s ratio"][f"{size}, {engine}"], ".2f")
            out.append([step, ABOUT[engine], *speeds, ratio])
    counted, asked = found["FLOPs"], found["settings"]
    return [
        *table("tokens a step|loop|full, tokens/s|LoRA r=16, tokens/s|LoRA over full", out),
        "",
        f"Medians of {_count(asked['timings'], 'run')} each, means of their ratios, the card to itself, "
        "start-up not counted. "
        f"FLOPs of a step of {asked['batch']} x {asked['length']} tokens: full {counted['full']:.3g}, LoRA "
        f"{counted['lora-r16']:.3g}, ratio {found['FLOPs ratio']:.3f}. Counted are matrix products and "
        "attention of the forward and backward pass, every position through the head. Brackets: 95% interval "
        "over the runs.",
    ]


@measured(NAME)
def forget_table(found):
    """Markdown lines: score, loss on plain English and probe by rate; losses at equal scores."""
    out = []
    for method, rates in found["forget"].items():
        for rate, runs in sorted(rates.items(), key=lambda pair: float(pair[0])):
            done = [run for run in runs if run["general loss"] is not None]
            loss = f"{mean([run['general loss'] for run in done]):.3f}" if done else "diverged"
            probe = _percent([run["probe"] for run in done]) if done else ""
            out.append([NAMES[method], rate, _percent([run["right"] for run in runs]), loss, probe])
    most, least = (", ".join(f"{gap:+.3f}" for gap in found[f"loss at matched score, {end}"])
                   for end in ("worst", "best"))  # fmt: skip
    seeds = _seeds(found["settings"]["seeds"])
    return [
        *table("method|learning rate|exact match, held-out training phrasings|general loss|probe", out),
        "",
        f"{_budget(found).capitalize()}, mean of {seeds}. General loss: nats per token of plain English. "
        "LoRA's lowest loss at a score or above it, minus full's, over the scores that both reach, by seed: "
        f"at most {most}; at least {least}. Between two of its runs a method is charged the loss of the one "
        "that scores higher, so the coarse rates are in these numbers, too, most of all where scores jump. "
        f"Whatever lies between: {_beaten(found['forget'])}: these were beaten in every seed by a "
        "rate of the other method, which scored more and forgot less.",
    ]


def _beaten(points):
    """The rates of each method at which some rate of the other beat it in every seed, in words."""
    said = []
    for method, other in (("full", "lora-r16"), ("lora-r16", "full")):
        lost = [rate for rate, runs in sorted(points[method].items(), key=lambda pair: float(pair[0]))
                if any(all(map(_beats, best, runs)) for best in points[other].values())]  # fmt: skip
        said.append(f"{NAMES[method]} at {', '.join(lost) or 'no rate'}")
    return "; ".join(said)


def _beats(best, run):
    """Did the run `best` score more than `run`, and forget less? One that diverged forgot everything."""
    if best["seed"] != run["seed"] or best["general loss"] is None:
        return False
    return best["right"] > run["right"] and (
        run["general loss"] is None or best["general loss"] < run["general loss"]
    )


@measured(NAME)
def rebase_table(found):
    """Markdown lines: an adapter on its own base and on changed ones."""
    test, change = found["rebase"]["test"], found["rebase"]["change"]
    base = mean(change["changed base"]["general loss before"])
    out = [[BASES["own base"], _percent(test["own base"]), "0", f"{base:.3f}"]]
    for name in list(BASES)[1:]:
        one = change.get(name, change["changed base"])  # a new adapter lies on the changed base, too
        cells = [_percent(one["weights moved"]), f"{mean(one['general loss after']):.3f}"]
        out.append([BASES[name], _percent(test[name]), *cells])
    asked = found["settings"]
    return [
        *table("a LoRA adapter on|exact match, test|weights moved|general loss of that base", out),
        "",
        f"{_budget(found).capitalize()}, mean of {_seeds(test['own base'])}. Changed: every weight trained "
        "on the course's own texts (handbook, replies, questions; 0.26 million tokens) for "
        f"{asked['steps']} steps at 1e-4, not on plain English, whose loss is the last column; slightly: "
        f"{asked['weaker']} steps. Weights moved: norm of the change over the norm of all weights.",
    ]


@measured(NAME)
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
        *table("|".join(["best learning rate", *heads]), out),
        "",
        f"{asked['steps']} steps whatever the batch, so a larger one sees more rows; one seed, rates 3 times "
        "apart, alpha = 2r. In brackets exact match on training rows whose phrasings were kept out, by which "
        "a rate is chosen (among equals by the lower loss)."
        + (" *: still the lowest or highest rate tried." if ends else ""),
    ]


def plot(found=None):
    """Rise of the loss on plain English over the score, a point a run; a line of text without a record.

    Runs with less than half of the best score are not drawn: they would press all others into a corner.
    """
    from labkit import plots

    found = found or values(NAME)
    if not found:
        print(missing(NAME))
        return
    base = mean(found["rebase"]["change"]["changed base"]["general loss before"])
    runs = {method: [run for rates in found["forget"][method].values() for run in rates] for method in NAMES}
    least = max(run["right"] for each in runs.values() for run in each) / 2
    fig, axes = plots.figure(
        _finding(found), "exact match on held-out training phrasings (%)",
        "rise of the loss on plain English (nats)",
    )
    said, left_out = [], 0
    for (method, name), marker, colour in zip(NAMES.items(), "os", plots.COLOURS[:2], strict=True):
        drawn = [run for run in runs[method] if run["right"] >= least and run["general loss"] is not None]
        left_out += len(runs[method]) - len(drawn)
        points = sorted((100 * run["right"], run["general loss"] - base) for run in drawn)
        axes.plot(*zip(*points, strict=True), marker, color=colour, label=name, alpha=0.8)
        said.append(f"{name} " + ", ".join(f"{score:.1f}% {rise:+.2f}" for score, rise in points))
    axes.set_yscale("symlog", linthresh=0.01)  # from hundredths of a nat to several
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(frameon=False)
    rest = f" Not drawn: {left_out} runs with less than {least:.0%} right." if left_out else ""
    plots.show(fig, f"Scatter plot of the rise of the loss on plain English over the score, from "
                    f"{base:.2f}: {'; '.join(said)}.{rest}")  # fmt: skip


FORGETS = {
    "reproduced": "At equal scores LoRA forgets less than full finetuning",
    "contradicted here": "LoRA does not forget less than full finetuning at every equal score",
    "undecided": "Undecided: does LoRA forget less than full finetuning at equal scores?",
}


def _finding(found):
    """The title: the verdict on the band of lora-forget, and the estimate that it rests on."""
    [band] = next(claim["bands"] for claim in ledger.ledger() if claim["id"] == "lora-forget")
    there = judge.estimate(band, judge.Recorded({"values": found}))
    verdict, _ = judge.judged(band, there)
    shown = f"{there.mean:+.3f} nats [{there.low:+.3f}, {there.high:+.3f}]"
    return f"{FORGETS[verdict]}\n(LoRA minus full at its worst: {shown})"


def gap(first, second, record="methods_tickets"):
    """Text: one score of a record minus another, in points, with its 95% interval."""
    whole, band = store.read(record), {"gap": [first, second]}
    found = whole and judge.estimate(band, judge.Recorded(whole))
    if not found:
        return f"{first} minus {second}: not measured yet"
    shown = f"{ledger.value_text(band, found.mean)} {ledger.interval_text(band, found)}"
    return f"{first} minus {second}: {shown}"


def _budget(found):
    asked = found["settings"]
    return f"tickets, {asked['steps']} steps of {asked['batch']} x {asked['length']} tokens"


def _seeds(each):
    return _count(len(each), "seed")


def _count(number, what):
    return f"{number} {what}{'' if number == 1 else 's'}"


def _percent(shares):
    return f"{mean(shares):.1%}"


def _interval(numbers, digits):
    """The mean of repeats with its 95% interval; the number alone where there is one."""
    found = stats.of_values(numbers)
    reach = f" [{found.low:{digits}}, {found.high:{digits}}]" if len(numbers) > 1 else ""
    return f"{found.mean:{digits}}{reach}"
