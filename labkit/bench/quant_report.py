"""The tables and the figure of `bench quant`."""

import math

from labkit.bench.quant_train import GUESSING
from labkit.records import store

MISSING = "not measured yet: python -m labkit bench quant"
HEADS = ("base", "dithered", "Gaussian", "base", "dithered")
SHOWN = {  # how names begin: marker, colour, label
    "int": ("o", 0, "integers"), "fp4": ("s", 1, "FP4 (bitsandbytes)"), "e2m1": ("D", 4, "FP4 (E2M1)"),
    "nf4": ("^", 2, "NF4"), "ternary": ("v", 3, "ternary"), "bf16": ("*", 5, "bf16"),
}  # fmt: skip


def values():
    """The values of the record; None before there is one."""
    whole = store.read("quant")
    return whole and whole["values"]


def format_table(found=None):
    """Lines: each format with stored bits, weight errors and perplexities; one line without a record."""
    found = found or values()
    if not found:
        return [MISSING]
    lines = [f"{'':<24}{'stored':>7}  {'weight error':^27}  {'perplexity':^20}",
             f"{'format':<24}{'bits':>7}" + "".join(f"{word:>10}" for word in HEADS)]
    for name, one in sorted(found["formats"].items(), key=lambda pair: -pair[1]["bits"]):
        errors = [f"{one['weight error'][kind]:.2%}" for kind in ("base", "dithered", "gaussian")]
        says = [_number(one["perplexity"]["base"]), _number(_mean(one["perplexity"]["dithered"]))]
        lines.append(f"{name:<24}{one['bits']:>7.3f}" + "".join(f"{cell:>10}" for cell in errors + says))
    plain = found["not rounded"]
    says = ["", "", "", _number(plain["base"]), _number(_mean(plain["dithered"]))]
    return [*lines, f"{'not rounded':<24}{32:>7.3f}" + "".join(f"{cell:>10}" for cell in says)]


def training_table(found=None):
    """Lines: losses after training through rounding, and of ternary models; one line without a record."""
    found = found or values()
    if not found:
        return [MISSING]
    lines = ["held-out loss on tickets, nats per answer token; mean of the seeds",
             f"a guess is {GUESSING:.1f} nats; where rounding is worse, the gap ends there"]
    for form, arms in found["training"].items():
        exact, late, through = (_mean(arms[name]) for name in ("not rounded", "after", "in training"))
        closed = f"{_mean(arms['gap closed']):.0%} of the gap closed"
        lines.append(f"{form}: not rounded {exact:.3f}, rounded after {late:.3f}, "
                     f"rounded in training {through:.3f}; {closed}")  # fmt: skip
    twin = found["ternary"]
    lines.append(f"from random weights, every token: not rounded {_mean(twin['not rounded']):.3f}, "
                 f"ternary {_mean(twin['ternary']):.3f}, {found['diverged']} diverged")  # fmt: skip
    return lines


def plot(found=None):
    """Perplexity of dithered bases over stored bits, a point a format; a line of text without a record."""
    from labkit import plots

    found = found or values()
    if not found:
        print(MISSING)
        return
    forms = found["formats"].items()
    points = {name: (one["bits"], _mean(one["perplexity"]["dithered"])) for name, one in forms}
    fig, axes = plots.figure(_finding(points), "stored bits per weight", "perplexity, dithered base")
    floor = _mean(found["not rounded"]["dithered"])
    near = axes.inset_axes((0.36, 0.3, 0.38, 0.62))
    for kind, (marker, colour, label) in SHOWN.items():
        some = [point for name, point in points.items() if name.startswith(kind)]
        axes.plot(*zip(*some, strict=True), marker, color=plots.COLOURS[colour], label=label)
        near.plot(*zip(*some, strict=True), marker, color=plots.COLOURS[colour], alpha=0.8)
    axes.axhline(floor, color="grey", linewidth=1, linestyle=":", label="not rounded")
    axes.set_xscale("log", base=2)
    axes.set_xticks([2, 4, 8, 16], ["2", "4", "8", "16"])
    axes.set_yscale("log")
    axes.legend(frameon=False, loc="upper right", fontsize="small")
    _close_up(near, points)
    said = ", ".join(f"{name} {bits:.2f} bits {_number(found)}" for name, (bits, found) in points.items())
    plots.show(fig, f"Scatter plot of perplexity over stored bits, not rounded {_number(floor)}: {said}.")


def _close_up(axes, points):
    """The formats of 4 to 5 bits on axes of their own, the best at each of three sizes by name."""
    inside = {name: (bits, value) for name, (bits, value) in points.items() if 4 <= bits <= 5.1}
    for low, high, where in ((4, 4.2, "top"), (4.2, 4.6, "top"), (4.6, 5.1, "bottom")):
        level = {name: point for name, point in inside.items() if low <= point[0] < high}
        best = min(level, key=lambda name: level[name][1], default=None)
        if best:
            axes.annotate(best, level[best], (0, -5 if where == "top" else 5), textcoords="offset points",
                          ha="center", va=where, fontsize="x-small")  # fmt: skip
    values = [value for _, value in inside.values()]
    room = max(values) - min(values) or 1
    axes.set_xlim(3.85, 5.25)
    axes.set_ylim(min(values) - room / 4, max(values) + room / 10)
    axes.tick_params(labelsize="x-small")
    axes.set_title("4 to 5 bits, close up", fontsize="small")


def _finding(points):
    """The title: what formats of about 4 bits cost beside bf16, all of them, and those below 3."""
    plain = points["bf16"][1]
    four = [value / plain for bits, value in points.values() if 4 <= bits <= 4.6]
    two = min(value for bits, value in points.values() if bits < 3)
    ends = "worse than a guess" if two > math.exp(GUESSING) else f"at least {two / plain:.2f} times"
    return f"Perplexity at 4 to 4.6 bits: {min(four):.2f} to {max(four):.2f} times bf16's; below 3: {ends}"


def _mean(values):
    return sum(values) / len(values)


def _number(value):
    return f"{value:.2f}" if value < 1000 else f"{value:.1e}"
