"""The table of `bench train`."""

from labkit.bench.train_engines import ABOUT

TITLES = {
    "small": "Small steps (5 x 512 tokens; a whole run is 300)",
    "large": "Large steps (32 x 1,024 tokens; a whole run is 30)",
    "cpu": "CPU (4 x 512 tokens; a whole run is 8)",
    "smoke": "A trial (1 x 256 tokens)",
}
NOTE = (
    "A step's price is the difference between a longer and a shorter run: the median of the repeats and "
    "their range (one run of torch.compile's whole model and of trl). A whole run was made once, if at all: "
    "captures and compiling count, preparing the data does not."
)
DOUBT = (
    " Unsteady: the whole run took less than its steps at this price, and why has not been found: build on "
    "neither."
)


def table(values):
    """Markdown lines: a table for each size and method, times beside eager's of the same run."""
    lines = []
    for size, by_method in values.items():
        for method, engines in by_method.items():
            lines += ["", f"{TITLES[size]}, {'every weight' if method == 'full' else 'LoRA r=16'}:", ""]
            lines += [
                "| engine | ms a step | as fast as eager | tokens/s | peak GB | whole run, s | last loss |",
                "|---|---|---|---|---|---|---|",
            ]
            lines += [_line(engine, found, engines.get("eager"), size) for engine, found in engines.items()]
    doubtful = any(unsteady(found) for methods in values.values() for engines in methods.values()
                   for found in engines.values())  # fmt: skip
    return [*lines[1:], "", NOTE + (DOUBT if doubtful else "")]


def unsteady(found):
    """Do a step's price and the whole run contradict each other? A run takes no less than its steps."""
    start = found["start seconds"]
    return start is not None and start < -0.1 * found["whole seconds"]


def _line(engine, found, eager, size):
    times = f"{found['step ms']:,.1f}"
    if found["runs"] > 1:
        times += f" ({found['step ms from']:,.1f} to {found['step ms to']:,.1f})"
    if unsteady(found):
        times += ", unsteady"
    whole = " | " if found["loss"] is None else f"{found['whole seconds']:.1f} | {found['loss']:.3f}"
    if size == "cpu":  # eight steps, of which trl logs two at a time: losses that cannot be compared
        whole = f"{found['whole seconds']:.1f} |"
    # By tokens, not steps: an engine may take another number of tokens a step.
    ratio = f"{found['tokens/s'] / eager['tokens/s']:.2f}x" if eager else ""
    return (
        f"| {ABOUT[engine]} | {times} | {ratio} | {found['tokens/s']:,.0f} | {found['peak bytes'] / 1e9:.1f} "
        f"| {whole} |"
    )
