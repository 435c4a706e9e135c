"""The numbers and the table of `bench workshop`."""

from collections import Counter
from statistics import median

from labkit.bench import markdown

NAME = "workshop"
SAYS = {
    "share": "a share each, {batch} x {length} tokens a step",
    "mps": "the same, through NVIDIA's MPS",
    "queue": "{share} each, more than the card has: {batch} x {length} tokens a step",
    "free": "no share, {batch} x {length} tokens a step",
}


def summary(found, card):
    """The values of the record: `arms` by name, the card's size in bytes, and the most learners of whom none
    failed, with a share each, without MPS and with it (0 where none was tried or each time some failed).
    """
    done = {name: _summed(arm) for name, arm in found.items()}
    alone = done.get("share-1")
    for arm in done.values():
        like = alone and alone["done"] and arm["done"] and _work(arm) == _work(alone)
        arm["slow-down"] = arm["done"] / alone["done"] if like else None
        arm["training slow-down"] = arm["training"] / alone["training"] if like else None
    largest = {
        kind: max((arm["learners"] for arm in done.values() if arm["kind"] == kind and not arm["failed"]),
                  default=0)
        for kind in ("share", "mps")
    }  # fmt: skip
    return {"card": 1e9 * card, "largest": largest, "arms": done}


def _work(arm):
    return [arm[name] for name in ("steps", "batch", "length")]


def _summed(arm):
    """One arm: counts; seconds from the start, medians over the learners who did all; bytes."""
    good = [one for one in arm["each"] if not one["status"] and one["ended"] is not None]
    errors = Counter(one["error"] for one in arm["each"] if one["error"])
    kept = {name: arm[name] for name in ("kind", "learners", "share", "steps", "batch", "length", "peak",
                                         "seconds")}  # fmt: skip
    return kept | {
        "failed": len(arm["each"]) - len(good),
        "errors": dict(errors.most_common()),
        "waited": sum(one["waited"] >= 1 for one in good),
        "longest wait": max((one["waited"] for one in good), default=None),
        "loaded": _middle(good, "loaded"),
        "training": _middle(good, "training"),
        "done": max((one["done"] for one in good), default=None),
        "steps/s": _together(good),
        "losses": [min(one["loss"] for one in good), max(one["loss"] for one in good)] if good else None,
        "allocated": max((one["allocated"] for one in good if "allocated" in one), default=None),
        "reserved": max((one["reserved"] for one in good if "reserved" in one), default=None),
        "paths": dict(Counter(one["path"] for one in good)),
    }


def _middle(good, name):
    return median(one[name] for one in good) if good else None


def _together(good):
    """Steps of all learners a second, from the first one's first step to the last one's last."""
    if not good:
        return None
    first = min(one["trained"] - one["training"] for one in good)
    return sum(one["steps"] for one in good) / (max(one["trained"] for one in good) - first)


def sentence(arm):
    """What came of an arm, in one line for the terminal."""
    found = _summed(arm)
    said = f"{found['failed']} of {found['learners']} failed, {found['seconds']:.0f} s"
    return said + "".join(f"; {count} x {error[:160]!r}" for error, count in found["errors"].items())


@markdown.measured(NAME)
def lines(values):
    """Lines of the table, and what each word in it means. `values` are the record's unless given."""
    rows = [_row(arm) for arm in values["arms"].values()]
    head = "learners|each has|failed|waited|minutes until the last is done|against one alone|steps/s, all|" \
           "peak of the card, GB|of it each"  # fmt: skip
    failures = [f"- {_says(arm)}, {arm['learners']} learners: {count} ended with “{_cut(error)}”"
                for arm in values["arms"].values() for error, count in arm["errors"].items()]  # fmt: skip
    card = values["card"] / 1e9
    note = (
        f"Processes started together on {card:.0f} GB of a card: each loads the base, trains LoRA as lesson "
        f"05 does ({_steps(values)}) and generates 8 answers. Waited: for memory that others had. Peak: with "
        "what CUDA itself takes."
    )
    return [*markdown.table(head, rows), *(["", *failures] if failures else []), "", note]


def _row(arm):
    def number(value, form):
        return "" if value is None else format(value, form)

    slower = "" if arm["slow-down"] is None else f"{arm['slow-down']:.1f}x"
    waited = str(arm["waited"])
    if arm["waited"]:
        waited += f" (up to {arm['longest wait']:.0f} s)"
    done = number(arm["done"] and arm["done"] / 60, ".1f")
    peak = number(arm["peak"] and arm["peak"] / 1e9, ".1f")
    per_head = number(arm["peak"] and arm["peak"] / 1e9 / arm["learners"], ".2f")
    return [str(arm["learners"]), _says(arm), str(arm["failed"]), waited, done, slower,
            number(arm["steps/s"], ".1f"), peak, per_head]  # fmt: skip


def _says(arm):
    return SAYS[arm["kind"]].format(**arm)


def _cut(text, width=140):
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."


def _steps(values):
    """How many steps, by size of step where that differs."""
    counts = {(arm["batch"], arm["length"]): arm["steps"] for arm in values["arms"].values()}
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values()))} steps"
    return ", ".join(f"{steps} steps of {b} x {n}" for (b, n), steps in counts.items())


def text():
    """The table with what it was made on, for a generated block; what to run before there is a record."""
    from labkit.records import store

    whole = store.read(NAME)
    if whole is None:
        return markdown.missing(NAME)
    return "\n".join([*lines(), "", f"Recorded on {whole['machine']['device']}, {whole['made']}."])
