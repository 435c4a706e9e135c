"""The figure of a record of `bench methods`: score over trained weights."""

from statistics import mean

from labkit.bench.methods_table import is_soft_prompt
from labkit.records import store

KIN = ("lora", "rslora", "dora", "qlora")  # shown as one family, in grey
NAMED = ("norms", "ia3", "lora-r1", "partial-2")  # what the title and its reader compare
CLOSE = 3  # points: a name as near to full finetuning's line stands below and left of its point


def plot(task="tickets"):
    """Exact match over trained weights, bars from the worst to the best seed.

    Soft prompts are left out, and what diverged. Without a record it prints one line.
    """
    from labkit import plots

    whole = store.read(f"methods_{task}")
    entries = whole["values"]["methods"] if whole else {}
    if "full" not in entries:
        print(f"not measured yet: python -m labkit bench methods --task {task}")
        return
    weights, full = whole["values"]["base"]["weights"], _shares(entries["full"])
    fig, axes = plots.figure(finding(entries, weights), "trained weights (log scale)",
                             "exact match on test messages (%)")  # fmt: skip
    shown = families(entries)
    looks = iter(zip("os^DvP", plots.COLOURS, strict=True))
    for family, found in shown.items():
        marker, colour = ("x", "grey") if family == "LoRA and its kin" else next(looks)
        found = sorted(found, key=lambda pair: pair[1]["trainable"])
        x, y = [one["trainable"] for _, one in found], [mean(_shares(one)) for _, one in found]
        joined = "--" if len(found) > 1 and colour != "grey" else ""
        axes.plot(x, y, marker + joined, color=colour, label=family, linewidth=1, markersize=6)
        for (name, one), at, height in zip(found, x, y, strict=True):
            shares = _shares(one)
            axes.plot([at, at], [min(shares), max(shares)], color=colour, linewidth=1.5)
            if name in NAMED:
                close = abs(height - mean(full)) < CLOSE
                place, side = ((-6, -11), "right") if close else ((6, 5), "left")
                axes.annotate(name, (at, height), place, textcoords="offset points", ha=side, fontsize=8)
    axes.axhline(mean(full), color="black", linewidth=1, label="full finetuning")
    axes.axhspan(min(full), max(full), color="grey", alpha=0.15)
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    each = [pair for found in shown.values() for pair in found]
    said = "; ".join(f"{name} {mean(_shares(one)):.1f}%" for name, one in each)
    plots.show(fig, f"Score over trained weights, bars from seed to seed. Full {mean(full):.1f}%; {said}.")


def finding(entries, weights):
    """The title: methods of NAMED with their share of the weights and their score, fewest weights first."""
    there = sorted((entries[name]["trainable"], name) for name in NAMED if name in entries)
    there = [f"{name} ({count / weights:.2%}) {_level(entries[name])}" for count, name in there]
    return f"{', '.join([*there[:2], 'full ' + _level(entries['full'])])}\n{', '.join(there[2:])}".strip()


def families(entries):
    """{family: [(name, entry)]} of what is shown beside full finetuning; sizes of a method are a family."""
    found = {}
    for name, one in entries.items():
        if name == "full" or is_soft_prompt(one) or not one["peak bytes"]:
            continue
        family = name.split("-")[0]
        found.setdefault("LoRA and its kin" if family in KIN else family, []).append((name, one))
    return found


def _level(entry):
    return f"{mean(_shares(entry)):.0f}%"


def _shares(entry):
    return [100 * share for share in entry["test"]]
