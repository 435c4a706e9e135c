"""What `bench byod` found, as plain data and as a table."""

import json
import os
from importlib import metadata

from labkit.errors import LabkitError
from labkit.records import stats, store


def summarise(test, settings, tried, best, seeds):
    """The whole result as plain data.

    `test` are the rows scored, `tried` is rate to result, `seeds` is seed to result at the best rate.
    """
    flags = [stats.unpack_rows(result["test rows"]) for result in seeds.values()]
    # Rows with the same message succeed and fail together.
    mean, low, high = stats.interval(flags, list(test["message"]))
    answers = list(test["answer"])
    every = {id(result): result for result in [*tried.values(), *seeds.values()]}.values()
    return {
        "schema": 1,
        "name": "byod",
        "machine": store.machine(),
        "versions": {package: metadata.version(package) for package in store.STACK},
        "settings": settings,
        "validation by rate": {f"{rate:g}": result["validation"] for rate, result in tried.items()},
        "rate": best,
        "exact": {"mean": mean, "low": low, "high": high, "rows": len(answers)},
        "exact by seed": {str(seed): result["test"] for seed, result in seeds.items()},
        "detail by seed": {str(seed): result["detail"] for seed, result in seeds.items()},
        "test rows by seed": {str(seed): result["test rows"] for seed, result in seeds.items()},
        "commonest answer": max(answers.count(answer) for answer in set(answers)) / len(answers),
        "training seconds": {str(seed): result["training seconds"] for seed, result in seeds.items()},
        "seconds of all jobs": round(sum(result["seconds"] for result in every), 1),
        "peak_bytes": max(result["peak_bytes"] for result in every),
    }


def table(summary, mistakes=()):
    """The result as text: validation by learning rate, then test."""
    lines = ["", "learning rate   validation, exact match"]
    for rate, share in summary["validation by rate"].items():
        lines.append(f"{rate:>13}   {share:7.1%}" + ("   chosen" if float(rate) == summary["rate"] else ""))
    exact, seeds = summary["exact"], summary["exact by seed"]
    lines += ["", f"{'test':>13}   exact match   95% interval       rows"]
    lines.append(f"{'mean' if len(seeds) > 1 else f'seed {next(iter(seeds))}':>13}   {exact['mean']:11.1%}   "
                 f"{exact['low']:.1%} to {exact['high']:.1%}   {exact['rows']:>6,}")  # fmt: skip
    if len(seeds) > 1:
        lines += [f"{f'seed {seed}':>13}   {share:11.1%}" for seed, share in seeds.items()]
    detail = next(iter(summary["detail by seed"].values()))
    names = {"any case": "right but for capitals", "valid": "one of the labels"}
    lines += [f"{share:29.1%}   {names.get(name, name)}" for name, share in detail.items()]
    lines.append(f"{summary['commonest answer']:29.1%}   by always giving the commonest answer")
    for message, text, wanted in mistakes:
        lines.append(f"wrong: {_short(message)} -> {_short(text)}, wanted {_short(wanted)}")
    seconds = next(iter(summary["training seconds"].values()))
    lines.append(f"training {seconds:.0f} s a run, all jobs {summary['seconds of all jobs']:.0f} s, "
                 f"peak {summary['peak_bytes'] / 1e9:.1f} GB, on {summary['machine']['device']}")  # fmt: skip
    return "\n".join(lines)


def _short(text):
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else text[:57] + "...")


def write(path, summary):
    """Write the result file whole or not at all; LabkitError if it cannot be written."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(json.dumps(summary, indent=1) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        kept = "What the jobs found is kept: run the same again with another --out"
        raise LabkitError(f"--out {path} cannot be written: {error}. {kept}") from error
    finally:
        temporary.unlink(missing_ok=True)
