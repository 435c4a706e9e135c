"""From the jobs of `bench qlora` to the values and scores of its record."""

from labkit.bench.qlora_jobs import ARMS, ENGINES, HALF, KEEPING, SHAPES, TIMED, TIMES, UNMERGED, settings
from labkit.records import stats

SHORT = {"lora-r16": "lora", HALF: "lora, 16-bit base", "qlora-r16": "qlora"}


def score_name(arm, which, way):
    """What the claims call it: "lora, dithered", "unmerged", "merged into 4-bit, dithered"."""
    if which == "base":
        return way
    return f"{SHORT[arm] if way == UNMERGED else way}, {which}"


def scores(trained):
    """The record's scores: {name: flags of the test rows, a seed each}, from {(arm, base): results}."""
    return {
        score_name(arm, which, way): {"task": "tickets", "split": "test",
                                      "rows": [one["flags"][way] for one in results]}
        for (arm, which), results in trained.items() for way in results[0]["flags"]
    }  # fmt: skip


def summary(tried, rates, trained, alone):
    """The record's values, under the names that the claims' bands use.

    `tried` is {arm: {rate: result}} of the sweeps, `rates` the best by (arm, base), `trained` the finals'
    results likewise, `alone` those of the memory and time jobs by name.
    """
    return {
        "settings": settings(),
        "sweeps": {SHORT[arm]: {
            "validation": {f"{rate:g}": found["right"] for rate, found in sorted(some.items())},
            "losses": {f"{rate:g}": found["loss"] for rate, found in sorted(some.items())},
            "at an end": rates[arm, "dithered"] in (min(some), max(some)),
        } for arm, some in tried.items()},
        "rates": {score_name(arm, which, UNMERGED): rate for (arm, which), rate in rates.items()},
        "test": {name: [float(stats.unpack_rows(rows).mean()) for rows in one["rows"]]
                 for name, one in scores(trained).items()},
        "path": sorted({one["path"] for results in trained.values() for one in results}),
        **memory(alone),
        **times(alone),
    }  # fmt: skip


def memory(alone):
    """Bytes by shape, by what becomes of activations and by arm; ratios, 4-bit base over 16-bit."""
    found = {shape: {keeping: {SHORT[arm]: _bytes(alone[f"memory_{shape}_{arm}_{keeping}"]) for arm in ARMS}
                     for keeping in KEEPING} for shape in SHAPES}  # fmt: skip

    def ratios(of, keeping, over=None):
        return {shape: one[keeping]["qlora"][of] / one[keeping]["lora"][over or of]
                for shape, one in found.items()}  # fmt: skip

    return {
        "memory": found,
        "base ratio": ratios("base", "checkpointing"),
        "base ratio, fp32 rest": ratios("fp32 rest", "checkpointing", over="base"),
        "peak ratio": ratios("peak", "checkpointing"),
        "peak ratio, no checkpointing": ratios("peak", "plain"),
        "predicted": [f"{shape}, {arm}, {keeping}" for shape, one in found.items()
                      for keeping, arms in one.items() for arm, each in arms.items() if each["predicted"]],
    }  # fmt: skip


def _bytes(result):
    return {name: result[name] for name in ("base", "fp32 rest", "peak", "process", "predicted")}


def times(alone):
    """Milliseconds a step by engine and arm, and QLoRA's over those of either LoRA, one number a repeat."""
    each = [alone[name]["step ms"] for name in TIMES]
    taken = {engine: {SHORT[arm]: [one[engine][arm] for one in each] for arm in TIMED} for engine in ENGINES}
    ratio = {engine: {plain: [mine / its for mine, its in zip(arms["qlora"], arms[plain], strict=True)]
                      for plain in arms if plain != "qlora"} for engine, arms in taken.items()}  # fmt: skip
    return {"step ms": taken, "time ratio": ratio}
