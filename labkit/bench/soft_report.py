"""The tables and the figure of `bench soft`. Tables take the record's values, or read them."""

from labkit.bench.markdown import measured, missing, table, together
from labkit.bench.markdown import values as recorded
from labkit.records import stats, store

NAME = "soft"
METHODS = {"prompt": "prompt tuning", "ptuning": "P-tuning", "prefix": "prefix tuning", "lora": "LoRA"}
STARTS = {"words": "words of an instruction", "rows": "random rows of the vocabulary",
          "numbers": "random numbers, as spread as the vocabulary's"}  # fmt: skip
ENCODER = "an encoder with random weights (P-tuning)"
LINES = {"full": ("full finetuning", "black", "-."), "lora-r16": ("LoRA of rank 16", "grey", ":")}
HEAD = "learning rate|exact match, test|by seed|loss, test"


@measured(NAME)
def lines(found):
    """All tables as Markdown lines."""
    return together((lengths_table, starts_table, steps_table), found)


@measured(NAME)
def lengths_table(found):
    """Markdown lines: prompt and prefix tuning by their number of vectors."""
    asked, rows = found["settings"], []
    shown = dict([*of_lengths(found, "prompt"), *of_lengths(found, "prefix")])
    for arm, one in shown.items():
        sizes = [f"{one['number']:,}", f"{one['trained']:,}"]
        rows.append([METHODS[one["method"]], *sizes, *_cells(found, arm)])
    equal = [_gap_text(found, *pair) for pair in found["equally large"]]
    beside = [f"{LINES[name][0]} {level:.1%}" for name, level in levels(found).items()]
    return [
        *table(f"method|n|trained weights|{HEAD}", rows),
        "",
        f"{_budget(found)}, {asked['steps']:,} steps{_ends(found, shown)}"
        + (f" With equally many weights: {'; '.join(equal)}." if equal else "")
        + (f" `bench methods`, its own runs on the same rows: {', '.join(beside)}." if beside else ""),
    ]


@measured(NAME)
def starts_table(found):
    """Markdown lines: prompts of one length by where their vectors start, and an encoder's beside them."""
    asked, rows = found["settings"], []
    words = f"prompt-n{asked['n']}"
    shown = (words, f"{words}+rows", f"{words}+numbers", f"ptuning-n{asked['n']}")
    for arm in shown:
        one = found["arms"][arm]
        start = ENCODER if one["method"] == "ptuning" else STARTS[one["start"]]
        rows.append([start, f"{one['trained']:,}", *_cells(found, arm), _gap(found, arm, words)])
    return [
        *table(f"start|trained weights|{HEAD}|minus words, points", rows),
        "",
        f"{asked['n']} vectors; {_budget(found)}, {asked['steps']:,} steps. A seed draws the random starts "
        f"too{_ends(found, shown)}",
    ]


@measured(NAME)
def steps_table(found):
    """Markdown lines: prompt tuning and LoRA by number of steps."""
    asked, rows = found["settings"], []
    prompt, lora = f"prompt-n{asked['n']}", "lora-r16"
    long, longest = asked["long"], asked["longest"]
    shown = {prompt: prompt, f"{prompt}+{long}": prompt, f"{prompt}+{longest}": prompt, lora: lora,
             f"{lora}+{long}": lora}  # fmt: skip
    for arm, first in shown.items():
        one = found["arms"][arm]
        steps = f"{one['steps']:,}"
        rows.append([METHODS[one["method"]], steps, *_cells(found, arm), _gap(found, arm, first)])
    return [
        *table(f"method|steps|{HEAD}|minus {asked['steps']:,} steps, points", rows),
        "",
        f"{asked['n']} vectors, LoRA of rank 16; {_budget(found)}. The rate of {longest:,} steps is that of "
        f"{long:,}. {_gap_text(found, lora, f'{prompt}+{longest}')}{_ends(found, shown)}",
    ]


# ---- the figure -----------------------------------------------------------------------------------------


def plot(found=None):
    """Exact match by number of vectors, bars from the worst to the best seed; one line of text without a
    record.

    The levels of full finetuning and of LoRA are those of methods_tickets, where it has them, on the same
    test rows.
    """
    from labkit import plots

    found = found or recorded(NAME)
    if not found:
        print(missing(NAME))
        return
    fig, axes = plots.figure(finding(found), "number of vectors (log scale)", "share of rows right (%)")
    said, ticks = [], set()
    for kind, marker, style, colour in (("prompt", "o", "-", 0), ("prefix", "s", "--", 1)):
        some = [one for _, one in of_lengths(found, kind)]
        n, shares = [one["number"] for one in some], [100 * _mean(one["test"]) for one in some]
        ends = [[abs(100 * pick(one["test"]) - share) for one, share in zip(some, shares, strict=True)]
                for pick in (min, max)]  # fmt: skip
        axes.errorbar(n, shares, ends, marker=marker, linestyle=style, color=plots.COLOURS[colour], capsize=3,
                      label=METHODS[kind])  # fmt: skip
        ticks |= set(n)
        points = ", ".join(f"{share:.1f}% with {count}" for count, share in zip(n, shares, strict=True))
        said.append(f"{METHODS[kind]}: {points}")
    for name, level in levels(found).items():
        label, colour, style = LINES[name]
        axes.axhline(100 * level, color=colour, linewidth=1, linestyle=style, label=label)
        said.append(f"{label}: {level:.1%}")
    axes.set_xscale("log")
    axes.set_xticks(sorted(ticks), map(str, sorted(ticks)))
    axes.minorticks_off()
    axes.set_ylim(0, 100)
    axes.legend(frameon=False, fontsize=8)
    plots.show(fig, f"Line plot of exact match over the number of vectors. {'. '.join(said)}.")


def finding(found):
    """The title: prompt tuning's best number of vectors, and a prefix of as many weights as a prompt."""
    best = max((one for _, one in of_lengths(found, "prompt")), key=lambda one: _mean(one["test"]))
    most = ", the most tried" if best["number"] == max(found["settings"]["vectors"]) else ""
    title = f"{found['settings']['steps']:,} steps. Prompt tuning: best with {best['number']}{most}, "
    title += f"{_mean(best['test']):.0%}"
    if not found["equally large"]:
        return title
    prefix, prompt = (found["arms"][arm] for arm in found["equally large"][0])
    return f"{title}.\nA prefix with the weights of {prompt['number']} vectors: {_mean(prefix['test']):.0%}"


def levels(found):
    """{method: mean share of test rows right} of LINES in methods_tickets, on as many rows as `found` has."""
    whole, asked = store.read("methods_tickets"), found["settings"]
    if whole is None or any(whole["values"]["settings"][key] != asked[key]
                            for key in ("steps", "batch", "length")):  # fmt: skip
        return {}
    return {name: _mean([float(stats.unpack_rows(text)[: asked["rows"]].mean())
                         for text in whole["scores"][name]["rows"]])
            for name in LINES if name in whole["scores"]}  # fmt: skip


# ---- what they share ------------------------------------------------------------------------------------


def of_lengths(found, kind):
    """[(arm, what it reached)] of the arms that differ in their number of vectors alone, ascending."""
    some = [(arm, one) for arm, one in found["arms"].items() if one["method"] == kind and "+" not in arm]
    return sorted(some, key=lambda pair: pair[1]["number"])


def _cells(found, arm):
    """Learning rate, exact match with its interval, its range over seeds, and the loss of an arm."""
    one = found["arms"][arm]
    swept, exact = found["sweeps"][one["tuned as"]], one["exact"]
    return [
        f"{swept['best']:g}{'*' if swept['at an end'] else ''}",
        f"{exact['mean']:.1%} [{exact['low']:.1%}, {exact['high']:.1%}]",
        f"{min(one['test']):.1%} to {max(one['test']):.1%}" if len(one["test"]) > 1 else "",
        "diverged" if None in one["loss"] else f"{_mean(one['loss']):.3f}",
    ]


def _gap(found, first, second):
    """The difference of two arms in points with its interval; empty for an arm and itself."""
    if first == second:
        return ""
    one = found["gaps"][f"{first} minus {second}"]
    return f"{100 * one['mean']:+.1f} [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}]"


def _gap_text(found, first, second):
    return f"{first} minus {second} {_gap(found, first, second)} points"


def _budget(found):
    asked = found["settings"]
    seeds = f"{len(asked['seeds'])} {'seed' if len(asked['seeds']) == 1 else 'seeds'}"
    return (f"tickets, {asked['batch']} x {asked['length']} tokens a step, mean of {seeds} on the first "
            f"{asked['rows']:,} test rows")  # fmt: skip


def _ends(found, arms):
    ends = any(found["sweeps"][found["arms"][arm]["tuned as"]]["at an end"] for arm in arms)
    return (
        ". Brackets: 95% interval over phrasings and seeds. Loss: nats per answer token."
        + (" *: the lowest or highest rate tried; a further one may be better." if ends else "")
    )  # fmt: skip


def _mean(numbers):
    return sum(numbers) / len(numbers)
