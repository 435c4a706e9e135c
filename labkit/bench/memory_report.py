"""How far predictions of memory lie from measurements: shares of error, and tables."""

import statistics

from labkit.bench import memory_peers

ENGINES = ("predict", "trace", *memory_peers.AGAINST)
FIGURES = ("allocated", "reserved", "process", "states")
JUDGED = ("allocated", "predict")  # what the claim that memory can be predicted is judged by


def values(written, results):
    """What the record holds: a row per setting, errors by set, engine and figure, the claim's two numbers.

    `written` are the predictions, `results` {name: {"report": ...} or {"does not fit": why}}. Errors are
    (predicted - measured) / measured.
    """
    kinds = {name: kind for kind, names in written["sets"].items() for name in names}
    rows = [_row(name, kinds[name], written, results[name]) for name in written["settings"]]
    measured = [row for row in rows if "measured" in row]
    errors = {kind: _errors([row for row in measured if kind in ("all", row["set"])])
              for kind in ("all", *written["sets"])}  # fmt: skip
    figure, engine = JUDGED
    found = errors["all"].get(engine, {}).get(figure)
    under = [{"setting": row["name"], "error": row["errors"][engine][figure]} for row in measured
             if row["errors"][engine][figure] < 0]  # fmt: skip
    out = {
        "predicted": {"made": written["made"], "sha256": written["sha256"], "seed": written["asked"]["seed"]},
        "rows": rows, "errors": errors, "under-predictions": sorted(under, key=lambda one: one["error"]),
        "settings": len(rows), "drawn": len(written["sets"].get("drawn", [])),
    }  # fmt: skip
    if found:
        out |= {"median error": found["median"], "95th percentile of error": found["95th percentile"]}
    return out


def _row(name, kind, written, result):
    row = {"name": name, "set": kind, "setting": written["settings"][name],
           "predictions": written["predictions"][name]}  # fmt: skip
    if "report" not in result:
        return row | {"does not fit": result["does not fit"]}
    report = result["report"]
    measured = {"allocated": report["peak_allocated"], "reserved": report["peak_reserved"],
                "process": report["process"], "states": _states(report)}  # fmt: skip
    errors = {
        engine: {figure: said[figure] / measured[figure] - 1 for figure in FIGURES if figure in said}
        for engine, said in row["predictions"].items()
    }
    moment = {"moment": report["moment"], "categories": report["categories"]}
    return row | {"measured": measured | moment, "errors": errors}


def _states(report):
    """Bytes of weights, gradients and optimizer states."""
    held = [term["bytes"] for term in report["terms"] if term["name"] == "held when the optimizer begins"]
    kept = ("weights", "optimizer", "optimizer paged")
    return sum(held) + sum(report["categories"].get(name, 0) for name in kept)


def _errors(rows):
    out = {}
    for engine in ENGINES:
        for figure in FIGURES:
            each = [row["errors"][engine][figure] for row in rows if figure in row["errors"].get(engine, {})]
            if each:
                out.setdefault(engine, {})[figure] = summary(each)
    return out


def summary(errors):
    """Median and 95th percentile of sizes of errors, the worst with its sign, and the share below 0."""
    sizes = sorted(abs(error) for error in errors)
    place = 0.95 * (len(sizes) - 1)
    low = int(place)
    high = min(low + 1, len(sizes) - 1)
    return {
        "median": statistics.median(sizes),
        "95th percentile": sizes[low] + (place - low) * (sizes[high] - sizes[low]),
        "worst": max(errors, key=abs), "under": sum(error < 0 for error in errors) / len(errors),
        "settings": len(errors),
    }  # fmt: skip


def lines(values):
    """Markdown: the tables of errors, and every setting that takes more than the formula says."""
    under = values["under-predictions"]
    out = [*tables(values), "", f"{len(under)} settings take more than the formula says:"]
    out += [f"- {one['setting']}: {one['error']:+.2%}" for one in under]
    return out + [f"- {row['name']} did not fit" for row in values["rows"] if "does not fit" in row]


def tables(values):
    """Markdown: errors by engine over all settings, and over those drawn by seed once the code was frozen."""
    out = []
    for kind, title in (("all", "all settings"), ("drawn", "the settings drawn by seed")):
        engines = values["errors"].get(kind, {})
        if not engines:
            continue
        out += ["", f"Errors over {title}:", "",
                "| prediction | of | settings it answers | median | 95th percentile | worst | too low |",
                "|---|---|---|---|---|---|---|"]  # fmt: skip
        total = sum("measured" in row for row in values["rows"] if kind in ("all", row["set"]))
        out += [_line(engine, figure, found, total) for engine, figures in engines.items()
                for figure, found in figures.items()]  # fmt: skip
    return out[1:]


def _line(engine, figure, found, total):
    return (
        f"| {engine} | {figure} | {found['settings']} of {total} | {found['median']:.2%} "
        f"| {found['95th percentile']:.2%} | {found['worst']:+.1%} | {found['under']:.0%} |"
    )
