"""What `bench methods` is asked for, its record, into which later methods merge, and its table."""

import argparse
import inspect
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from labkit import base_model, env, methods, tasks
from labkit.bench import byod, families
from labkit.bench.methods_table import lines
from labkit.errors import LabkitError
from labkit.paths import ROOT
from labkit.records import ledger, store

BUDGET = {"steps": 300, "batch": 8, "length": 512, "rows": None}
SMOKE = {"steps": 2, "batch": 1, "length": 512, "rows": 4}
# What methods_tickets measures: the ranks, targets, widths and lengths that lessons 05, 07 and 08 compare.
RECORDED = (
    "full", "partial-2", "partial-8", "lora-r1", "lora-r4", "lora-r16", "lora-r64", "lora-r256", "lora-qv-r2",
    "lora-qv-r16", "lora-attn-r16", "lora-mlp-r16", "lora-a32-r64", "rslora-r64", "dora-r16", "qlora-r16",
    "houlsby-w8", "houlsby-w64", "houlsby-w256", "biases", "norms", "ia3", "prompt-n100", "prefix-n100",
    "ptuning-n100",
)  # fmt: skip


def options(argv):
    """The command line of `bench methods`."""
    parser = argparse.ArgumentParser(
        prog="python -m labkit bench methods",
        description="Compare finetuning methods under the same rows, steps, seeds and evaluation.",
        epilog=f"Methods: {', '.join(methods.known())}. The default budget is meant for a GPU.",
    )
    many = {"type": lambda text: [part for part in text.split(",") if part]}
    parser.add_argument("--task", choices=families.FAMILIES, default="tickets", help="default: tickets")
    parser.add_argument("--methods", **many, help="such as full,partial-8,lora-r4,lora-r16")
    count = {"type": byod._count}
    parser.add_argument("--seeds", default=3, help="training seeds at the best rate (default: 3)", **count)
    parser.add_argument("--steps", help=f"default: {BUDGET['steps']}", **count)
    parser.add_argument("--batch", help=f"packed rows a step (default: {BUDGET['batch']})", **count)
    parser.add_argument("--length", help=f"tokens of a packed row (default: {BUDGET['length']})", **count)
    parser.add_argument("--rates", type=_rates, help="a trial: try these and no others: 1e-4,3e-4")
    trial = "a trial: score so many rows of each kind, try no further rates, write no record"
    parser.add_argument("--rows", help=trial, **count)
    parser.add_argument("--jobs", default=1, help="processes side by side on a GPU (large: 4)", **count)
    parser.add_argument("--folder", default="out/methods", help="where jobs leave results, to go on from")
    parser.add_argument(
        "--resume", action="store_true",
        help="go on after an interruption. It always does so: a job whose result lies in --folder is not run "
        "again unless settings, rows or code changed; this only says it",
    )  # fmt: skip
    parser.add_argument("--job", help=argparse.SUPPRESS)
    found = parser.parse_args(argv)
    for name, value in vars(env.budget(cpu=BUDGET, gpu=BUDGET, smoke=SMOKE)).items():
        if getattr(found, name) is None:
            setattr(found, name, value)
    if not found.job and not found.methods:
        there = ", ".join(methods.known())
        raise LabkitError(
            f"name the methods, as in --methods full,lora-r16. There are: {there}. "
            f"The record has: {','.join(RECORDED)}"
        )
    return found


def _rates(text):
    """Ascending learning rates of the command line."""
    return sorted({byod._rate(part) for part in text.split(",") if part})


def settings(options):
    """What all methods of one record have in common, as plain data."""
    return {
        "task": options.task,
        "loading": families.LOADING.get(options.task, {}),
        "steps": options.steps,
        "batch": options.batch,
        "length": options.length,
        "seeds": list(range(options.seeds)),
        "rows": options.rows,
        "model": base_model.NAME if base_model.is_default() else os.environ["LABKIT_MODEL"],
    }


def record_name(task):
    """The name of a task's record."""
    return f"methods_{task}"


# ---- the record -----------------------------------------------------------------------------------------


def kept(settings, profile, names):
    """The record that the methods `names` will join, less those methods; None where nothing is kept.

    Raises LabkitError for a record of other settings or library versions, or of rows or code that changed
    since: the others of its methods would no longer compare.
    """
    name = record_name(settings["task"])
    whole = store.read(name, profile)
    if whole is None:
        return None
    file, values = store.path_of(name, profile).name, whole["values"]
    differ = [f"{key} {values['settings'].get(key)} there and {settings[key]} here"
              for key in settings if values["settings"].get(key) != settings[key]]  # fmt: skip
    if differ:
        raise LabkitError(
            f"{file} was measured with other settings: {'; '.join(differ)}. Pass the same, so that methods "
            "compare; or move the file away and measure all its methods again"
        )
    others = {other: found for other, found in values["methods"].items() if other not in names}
    if not others:
        return None
    now, versions = digest(settings["task"], others), store.versions()
    if other := [part for part in versions if whole["versions"].get(part) != versions[part]]:
        raise LabkitError(
            f"{file} was recorded with another {', '.join(other)}. Take the same version, or name its other "
            f"methods too, to measure them again ({', '.join(others)})"
        )
    if changed := [part for part in now if now[part] != whole["digest"].get(part)]:
        raise LabkitError(
            f"{', '.join(changed)} changed since {file} was recorded. Name its other methods too, to measure "
            f"them again ({', '.join(others)}), or put the change back"
        )
    scores = {other: whole["scores"][other] for other in others}
    return {**whole, "values": {**values, "methods": others}, "scores": scores}


def digest(task, entries):
    """What a record of these methods depends on: rows, what trains, what scores, the methods' modules."""
    modules = sorted({found["module"] for found in entries.values()})
    scorer = inspect.getfile(tasks.family(task).score)
    code = ["labkit/bench/methods.py", "labkit/evaluate.py", str(Path(scorer).relative_to(ROOT))]
    there = store.code_digest(*code, *(one for one in modules if (ROOT / one).exists()))
    rows = store.data_digest(task, "general")
    return {**dict.fromkeys(modules), **rows, **store.training_digest(), **there}


def entry(method, tried, rate, finals):
    """What the record says of one method, trained at `rate`: the sweep, and lists of one number a seed."""

    def each(key):
        return [result[key] for result in finals]

    results = [*tried.values(), *finals]
    return {
        "about": method.about,
        "module": method.module,
        "rate": rate,
        "rates": {f"{one:g}": tried[one]["right"] for one in sorted(tried)},
        "losses": {f"{one:g}": tried[one]["loss"] for one in sorted(tried)},
        "at an end": rate in (min(tried), max(tried)),
        "validation": each("validation"),
        "test": each("test"),
        "seconds": each("training seconds"),
        "tokens/s": each("tokens/s"),
        "path": sorted(set(each("path"))),
        "trainable": finals[0]["trainable"],
        "peak bytes": max(each("peak bytes")),
        "general loss": each("general loss"),
        "probe": each("probe"),
        "probe rows": each("probe rows"),
        "diverged": sum(each("diverged")),
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "made on": sorted({f"{result['device']}, {result['jobs']} at a time" for result in finals}),
        "seconds of all jobs": sum(result["seconds"] for result in results),
    }


def score(settings, finals):
    """The exact matches of a method's final runs, row by row, as records keep them."""
    return {"task": settings["task"], "split": "test", "rows": [result["rows"] for result in finals]}


def finish(settings, profile, trial, base, entries, scores, failed, claims):
    """Print the table, write the record unless it is a trial, and say what failed."""
    base = {key: base[key] for key in ("general loss", "probe", "probe rows", "weights")}
    values = {"settings": settings, "base": base, "methods": entries}
    for name, why in failed.items():
        print(f"{name} FAILED {why}", file=sys.stderr)
    if failed:
        print("Run the same again to try once more: what succeeded is kept.", file=sys.stderr)
    if not entries:
        return
    if trial:
        made = datetime.now(UTC).strftime("%Y-%m-%d")
        whole = {"name": "a trial", "values": values, "scores": scores, "made": made}
        print("\n".join([*lines(whole), "", "A trial: no record was written."]))
    else:
        path = _write(settings, profile, values, scores, claims, list(failed))
        print("\n".join([*lines(store.read(path.name.split(".")[0], profile)), "", f"wrote {path.name}"]))


def _write(settings, profile, values, scores, claims, failed):
    """Write the record, with what is kept of the one that is there; returns its path.

    What it has of a method that failed now is kept too, unless that no longer compares.
    """
    task, names = settings["task"], list(values["methods"])
    try:
        before = kept(settings, profile, names)
    except LabkitError:
        before = kept(settings, profile, [*names, *failed])
    entries = {**(before["values"]["methods"] if before else {}), **values["methods"]}
    scores = {**(before["scores"] if before else {}), **scores}
    return store.write(
        record_name(task), profile, seed=settings["seeds"][0],
        seconds=sum(found["seconds of all jobs"] for found in entries.values()),
        peak_bytes=max(found["peak bytes"] for found in entries.values()),
        values={**values, "methods": entries},
        scores=scores | {methods.short(name): found for name, found in scores.items()},  # claims say `ia3`
        digest=digest(task, entries),
        claims=ledger.merged(claims, before and before["claims"]),
    )  # fmt: skip


def text(task="tickets", methods=None, without=()):
    """The table of a task's record, as `lines` takes them, or how to measure it.

    methods: names in the order to show them; those that the record does not have are left out.
    """
    whole = store.read(record_name(task))
    if whole is None:
        return f"(not measured yet: `python -m labkit bench methods --task {task} --methods ...`)"
    there = [name for name in methods or whole["values"]["methods"] if name in whole["values"]["methods"]]
    return "\n".join(lines(whole, there, without))
