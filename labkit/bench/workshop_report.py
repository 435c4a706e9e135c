"""The numbers and the table of `bench workshop`."""

import re
from collections import Counter
from statistics import median

from labkit.bench import markdown

NAME = "workshop"
WAITED = 1  # seconds from which on a learner counts as one who waited
SHOWN = 3  # kinds of errors of an arm in the table
SAYS = {
    "share": "a share each, {batch} x {length} tokens a step",
    "mps": "the same, through NVIDIA's MPS",
    "queue": "{share} each, more than the card has: {batch} x {length} tokens a step",
    "free": "no share, {batch} x {length} tokens a step",
}


def summary(found, card):
    """The values of the record: `arms` by name, the card's size in bytes, and the most learners of whom none
    failed or waited, with a share each, without MPS and with it (0 where none was tried or none did so). The
    most that were tried is no end: more may do.
    """
    done = {name: _summed(arm) for name, arm in found.items()}
    alone = done.get("share-1")
    for arm in done.values():
        like = alone and not alone["failed"] and not arm["failed"] and _work(arm) == _work(alone)
        arm["training slow-down"] = arm["training"] / alone["training"] if like else None
    largest = {kind: most(found, kind) for kind in ("share", "mps")}
    return {"card": 1e9 * card, "largest": largest, "arms": done}


def most(found, kind):
    """The most learners of an arm of that kind in which none failed or waited for others; 0 without one."""
    return max((arm["learners"] for arm in found.values()
                if arm["kind"] == kind and all(_well(one) and one.get("waited", 0) < WAITED
                                               for one in arm["each"])), default=0)  # fmt: skip


def _well(one):
    return not one["status"] and one["ended"] is not None


def _work(arm):
    return [arm[name] for name in ("steps", "batch", "length")]


def _summed(arm):
    """One arm: counts; seconds from the start, medians over the learners who did all; bytes.

    Waits are everybody's, those who failed included.
    """
    good, waits = [one for one in arm["each"] if _well(one)], [one.get("waited", 0) for one in arm["each"]]
    kept = {name: arm[name] for name in ("kind", "learners", "share", "steps", "batch", "length", "peak",
                                         "seconds")}  # fmt: skip
    return kept | {
        "failed": len(arm["each"]) - len(good),
        "errors": _errors(arm["each"]),
        "waited": sum(wait >= WAITED for wait in waits),
        "longest wait": max(waits, default=None),
        "loaded": _middle(good, "loaded"),
        "training": _middle(good, "training"),
        "done": max((one["done"] for one in good), default=None),
        "steps/s": _together(good),
        "overlap": _overlap(good),
        "losses": [min(one["loss"] for one in good), max(one["loss"] for one in good)] if good else None,
        "allocated": max((one["allocated"] for one in good if "allocated" in one), default=None),
        "reserved": max((one["reserved"] for one in good if "reserved" in one), default=None),
        "paths": dict(Counter(one["path"] for one in good)),
    }


def _errors(each):
    """{error: how many ended so}; those that differ in numbers only count as one, shown as the first."""
    counts, first = Counter(), {}
    for error in (one["error"] for one in each if one["error"]):
        kind = re.sub(r"\d[\d.,]*", "N", error)
        first.setdefault(kind, error)
        counts[kind] += 1
    return {first[kind]: count for kind, count in counts.most_common()}


def _middle(good, name):
    return median(one[name] for one in good) if good else None


def _together(good):
    """Steps of all learners a second, from the first one's first step to the last one's last."""
    if not good:
        return None
    first = min(one["trained"] - one["training"] for one in good)
    return sum(one["steps"] for one in good) / (max(one["trained"] for one in good) - first)


def _overlap(good):
    """Seconds in which all were training; below 0 if the first had ended before the last began."""
    if not good:
        return None
    return min(one["trained"] for one in good) - max(one["trained"] - one["training"] for one in good)


def sentence(arm):
    """What came of an arm, in one line for the terminal."""
    found = _summed(arm)
    said = f"{found['failed']} of {found['learners']} failed, {found['seconds']:.0f} s"
    return said + "".join(f"; {count} x {error[:160]!r}" for error, count in found["errors"].items())


@markdown.measured(NAME)
def lines(values):
    """Lines of the table, and what each word in it means. `values` are the record's unless given."""
    rows = [_row(arm) for arm in values["arms"].values()]
    head = "learners|each has|failed|waited|minutes until all are done|training, against one alone|" \
           "steps/s, all|peak of the card, GB|of it each"  # fmt: skip
    failures = [line for arm in values["arms"].values() for line in _failures(arm)]
    card = values["card"] / 1e9
    note = (
        f"Processes started together on {card:.0f} GB of a card: each loads the base, trains LoRA as lesson "
        f"05 does ({_steps(values)}) and generates 8 answers. Waited: for memory that others had. Against "
        "one alone, with the share of the largest number: how many times as long training took, start and "
        "waits apart. Peak: the most that was seen, with what CUDA itself takes. Where some failed, what the "
        "others took is no measure and is left out. Compare steps of one size only." + _answer(values)
    )
    return [*markdown.table(head, rows), *(["", *failures] if failures else []), "", note]


def _answer(values):
    """How many trained at once, with a share each, and whether they did so at the same time."""
    said = ""
    for kind, how in (("share", "with a share each"), ("mps", "the same through MPS")):
        number = values["largest"][kind]
        arm = values["arms"].get(f"{kind}-{number}")
        if not arm or number < 2:
            continue
        tried = max(one["learners"] for one in values["arms"].values() if one["kind"] == kind)
        least = "at least " if number == tried else ""
        said += (f" At once, {how}, none failing or waiting: {least}{number} learners, of whom all were "
                 f"training during {max(0, arm['overlap']):.0f} s of the {arm['training']:.0f} s (median) "
                 "that one took.")  # fmt: skip
    return said


def _row(arm):
    def number(value, form):
        return "" if value is None else format(value, form)

    whole = not arm["failed"]
    at_once = whole and not arm["waited"] and arm["kind"] in ("share", "mps")
    slower = number(arm["training slow-down"], ".1f")
    waited = str(arm["waited"])
    if arm["waited"]:
        waited += f" (up to {arm['longest wait']:.0f} s)"
    done = number(arm["done"] / 60 if whole else None, ".1f")
    peak = number(arm["peak"] and arm["peak"] / 1e9, ".1f")
    per_head = number(arm["peak"] / 1e9 / arm["learners"] if at_once and arm["peak"] else None, ".2f")
    return [str(arm["learners"]), _says(arm), str(arm["failed"]), waited, done, slower and f"{slower}x",
            number(arm["steps/s"] if whole else None, ".1f"), peak, per_head]  # fmt: skip


def _failures(arm):
    who, errors = f"- {_says(arm)}, {arm['learners']} learners:", list(arm["errors"].items())
    said = [f"{who} {count} ended with “{_cut(error)}”" for error, count in errors[:SHOWN]]
    others = sum(count for _, count in errors[SHOWN:])
    return [*said, f"{who} {others} ended with other errors"] if others else said


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
    machine = whole["machine"]
    where = f"{machine['device']} with {machine['cores']} CPU cores"
    return "\n".join([*lines(), "", f"Recorded on {where}, {whole['made']}."])
