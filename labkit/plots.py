"""Figures in one style: same size, colours a colour-blind reader can tell apart, alt text."""

import base64
import html
import io

SIZE = (7.0, 3.6)  # inches; at 100 dpi a figure stays under 40 kB
# Okabe and Ito's colours, which survive every common colour blindness and grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")


def figure(title, xlabel="", ylabel=""):
    """A new (figure, axes); the title states the finding, axis labels carry units."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=SIZE, dpi=100, layout="constrained")
    axes.set_title(title, fontsize=11, loc="left", wrap=True)  # numbers in it may be long
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    return fig, axes


def png(fig):
    """`fig` as the bytes of a PNG; closes it."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    plt.close(fig)
    return buffer.getvalue()


def show(fig, alt):
    """Display `fig` with alt text, and close it.

    Twice in one output: JupyterLab gives no alt text to a PNG and takes the HTML; other viewers and exports
    that prefer a PNG find its alt text in the metadata.
    """
    from IPython.display import display

    picture = base64.b64encode(png(fig)).decode()
    page = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}">'
    data = {"image/png": picture, "text/html": page, "text/plain": alt}
    display(data, raw=True, metadata={"image/png": {"alt": alt}})


def losses(run, title, smooth=10):
    """Training loss over steps: every step pale, and the mean over `smooth` steps.

    The axis is logarithmic where the loss falls tenfold or more: the second half would be flat otherwise.
    """
    values = run.losses
    fig, axes = figure(title, "step", "loss per answer token (nats)")
    axes.plot(range(1, len(values) + 1), values, color=COLOURS[0], alpha=0.35, linewidth=1, label="each step")
    smooth = max(1, min(smooth, len(values) // 2))  # a mean of all would be a line of one point
    means = [sum(values[i - smooth : i]) / smooth for i in range(smooth, len(values) + 1)]
    axes.plot(range(smooth, len(values) + 1), means, color=COLOURS[0], linewidth=2, label=f"mean of {smooth}")
    if min(means) > 0 and max(values) >= 10 * min(means):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    show(fig, f"Line plot: loss falls from {values[0]:.2f} to {means[-1]:.2f} nats in {len(values)} steps.")


def before_and_after(groups, title, ylabel="share of rows right (%)"):
    """Bars side by side for each label; `groups` maps a series name to {label: share from 0 to 1}."""
    labels = list(next(iter(groups.values())))
    fig, axes = figure(title, "", ylabel)
    width = 0.8 / len(groups)
    for place, (name, values) in enumerate(groups.items()):
        at = [x + (place - (len(groups) - 1) / 2) * width for x in range(len(labels))]
        heights = [100 * values[label] for label in labels]
        style = {"color": COLOURS[place], "hatch": ("", "//")[place % 2], "edgecolor": "white"}
        bars = axes.bar(at, heights, width * 0.92, label=name, **style)
        axes.bar_label(bars, [f"{height:.0f}" for height in heights], fontsize=8, padding=1)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 25))
    axes.legend(frameon=False, ncols=len(groups), loc="upper left", bbox_to_anchor=(0, -0.08))
    parts = []
    for name, values in groups.items():
        parts.append(f"{name}: " + ", ".join(f"{label} {values[label]:.0%}" for label in labels))
    show(fig, "Bar chart. " + ". ".join(parts) + ".")


def stacked(groups, title, xlabel, lines=None):
    """Show a stacked bar for each label of `groups` {label: {part: value}}; `lines` {name: value}."""
    show(*stacked_figure(groups, title, xlabel, lines))


def stacked_figure(groups, title, xlabel, lines=None):
    """(figure, alt text) of `stacked`. Parts that are 0 everywhere are left out, and lines far off."""
    every = list(next(iter(groups.values())))
    parts = [part for part in every if any(values[part] for values in groups.values())]
    fig, axes = figure("", xlabel)
    fig.suptitle(title, x=0.01, ha="left", fontsize=11)  # labels are long: the axes begin far to the right
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", alpha=0.3)
    labels = list(groups)[::-1]
    left = dict.fromkeys(labels, 0.0)
    for part in parts:
        place = every.index(part)  # a part looks the same in every figure, whatever others are left out
        widths = [groups[label].get(part, 0) for label in labels]
        style = {"color": COLOURS[place % len(COLOURS)], "hatch": ("", "//", "..")[place // 3 % 3],
                 "edgecolor": "white"}  # fmt: skip
        axes.barh(labels, widths, left=[left[label] for label in labels], height=0.6, label=part, **style)
        left = {label: left[label] + width for label, width in zip(labels, widths, strict=True)}
    longest = max(left.values())
    for name, value in (lines or {}).items():
        if value <= 1.6 * longest:
            axes.axvline(value, color="black", linewidth=1, linestyle="--")
            axes.text(value, 1.01, name, ha="center", fontsize=8, transform=axes.get_xaxis_transform())
    axes.legend(frameon=False, ncols=4, loc="upper left", bbox_to_anchor=(0, -0.2), fontsize=8)
    said = []
    for label, values in groups.items():
        seen = [part for part in parts if values[part] > longest / 1000]  # no bar shows less
        said.append(f"{label}: " + ", ".join(f"{part} {values[part]:.3g}" for part in seen))
    return fig, f"Stacked bars, {xlabel}. " + ". ".join(said) + "."
