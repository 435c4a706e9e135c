"""The tables of `bench qlora`."""

from labkit.bench.qlora_jobs import ENGINES, SHAPES
from labkit.records import judge, store

MISSING = "not measured yet: python -m labkit bench qlora"
WAYS = ("merged into 16-bit", "merged into 32-bit", "merged into 16-bit, then 4-bit",
        "merged into de-quantized", "merged into 4-bit")  # fmt: skip


def lines(whole=None):
    """All tables of the record (or of `whole`), an empty line between them; one line without a record."""
    whole = whole or store.read("qlora")
    if not whole:
        return [MISSING]
    tables = (quality_table, merge_table, memory_table, time_table)
    return [line for table in tables for line in ["", *table(whole)]][1:]


def quality_table(whole=None):
    """Lines: test score of LoRA and QLoRA and their gap, on dithered bases and on the base as it is.

    The latter is read from the record of `bench methods`. One line without a record.
    """
    whole = whole or store.read("qlora")
    if not whole:
        return [MISSING]
    lines = [f"{'exact match, test':<26}{'LoRA':>8}{'QLoRA':>8}  {'QLoRA minus LoRA, points':>28}"]
    rows = (("dithered bases", whole, "lora, dithered", "qlora, dithered"),
            ("the base as it is", store.read("methods_tickets"), "lora-r16", "qlora-r16"))  # fmt: skip
    for label, record, lora, qlora in rows:
        source = record and judge.Recorded(record)
        found = [source and judge.estimate({"score": name}, source) for name in (lora, qlora)]
        if all(found):
            gap = _points(judge.estimate({"gap": [qlora, lora]}, source))
            lines.append(f"{label:<26}{found[0].mean:>8.1%}{found[1].mean:>8.1%}  {gap:>28}")
    return lines


def merge_table(whole=None):
    """Lines: test score of QLoRA unmerged and merged in each way, with the gap to unmerged."""
    whole = whole or store.read("qlora")
    if not whole:
        return [MISSING]
    source = judge.Recorded(whole)
    lines = [f"{'minus unmerged, points':<32}{'dithered bases':>28}{'the base as it is':>28}"]
    shares = [judge.estimate({"score": name}, source).mean for name in ("qlora, dithered", "unmerged")]
    lines.append(f"{'unmerged':<32}" + "".join(f"{share:>28.1%}" for share in shares))
    for way in WAYS:
        pairs = ((f"{way}, dithered", "qlora, dithered"), (way, "unmerged"))
        gaps = [_points(judge.estimate({"gap": list(pair)}, source)) for pair in pairs]
        lines.append(f"{way:<32}" + "".join(f"{gap:>28}" for gap in gaps))
    return lines


def memory_table(whole=None):
    """Lines: bytes of the base and of the step's peak, in GB (1e9), and ratios; predictions are marked."""
    whole = whole or store.read("qlora")
    if not whole:
        return [MISSING]
    heads = ("base", "peak, checkpointing", "peak, without")
    lines = [f"{'GB, LoRA to QLoRA':<18}" + "".join(f"{head:>27}" for head in heads)]
    for shape in SHAPES:
        found = whole["values"]["memory"][shape]
        cells = [_pair(found[keeping], of) for of, keeping in
                 (("base", "checkpointing"), ("peak", "checkpointing"), ("peak", "plain"))]  # fmt: skip
        lines.append(f"{shape:<18}" + "".join(f"{cell:>27}" for cell in cells))
    if whole["values"]["predicted"]:
        lines.append("*: predicted by labkit.memory, not measured, for want of a card that holds it")
    return lines


def time_table(whole=None):
    """Lines: milliseconds a step, mean and range of the repeats; QLoRA's over those of either LoRA."""
    whole = whole or store.read("qlora")
    if not whole:
        return [MISSING]
    arms = ("lora", "lora, 16-bit base", "qlora")
    lines = [f"{'ms a step':<12}{'LoRA, fp32 base':>20}{'LoRA, 16-bit base':>20}{'QLoRA':>20}"
             f"{'QLoRA / LoRA':>24}"]  # fmt: skip
    for engine in ENGINES:
        taken = [whole["values"]["step ms"][engine][arm] for arm in arms]
        cells = [f"{_mean(each):.0f} ({min(each):.0f} to {max(each):.0f})" for each in taken]
        ratios = " and ".join(f"{_mean(whole['values']['time ratio'][engine][arm]):.2f}" for arm in arms[:2])
        lines.append(f"{engine:<12}" + "".join(f"{cell:>20}" for cell in cells) + f"{ratios:>24}")
    return lines


def _pair(arms, of):
    plain, four = arms["lora"], arms["qlora"]
    marked = [f"{one[of] / 1e9:.2f}{'*' if one['predicted'] else ''}" for one in (plain, four)]
    return f"{' to '.join(marked)} ({four[of] / plain[of]:.2f}x)"


def _points(found):
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _mean(numbers):
    return sum(numbers) / len(numbers)
