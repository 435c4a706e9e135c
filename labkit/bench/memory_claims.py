"""Measurements behind the memory claims: which settings, how a card is made smaller, and the numbers."""

import gc
import json
import subprocess
import sys
import time

from labkit.errors import LabkitError
from labkit.memory import Report, Setting, measure
from labkit.memory.cards import OFFERS
from labkit.paths import ROOT

GiB = 2**30
LENGTHS = (256, 512, 1024, 2048)  # where 13B's activations are measured; between them lies the crossing
SEVEN = {"shape": "7b", "seq": 512, "precision": "bf16"}
LORA = {**SEVEN, "method": "lora", "rank": 16}  # fp32 adapters, AdamW, nothing recomputed: the defaults
FRUGAL = {"adapters": "bf16", "checkpointing": True, "optimizer": "8-bit"}
QLORA = {**SEVEN, "method": "qlora", "rank": 16, **FRUGAL}
DEEP = {**QLORA, "shape": "65b", "rank": 64}
ORDERS = {"shape": "1b", "seq": 512, "optimizer": "fused"}
TIMED = {**SEVEN, "seq": 1024, "optimizer": "fused"}  # a shape and length at which products take the time
SMALL, LARGE = "8 GB", "48 GB"  # the cards of the QLoRA claims

# name of a job: its setting. "Held" jobs use plain SGD, which leaves room: what they ask is held activations.
SETTINGS = {
    "adam-pure-bf16": {"shape": "1b", "precision": "bf16", "optimizer": "fused"},
    "adam-fp32-autocast": {"shape": "1b", "optimizer": "fused"},
    "adam-8-bit": {"shape": "1b", "optimizer": "8-bit"},
    "full-7b-bf16": {**SEVEN, "optimizer": "fused"},
    "full-7b-8-bit": {**SEVEN, "optimizer": "8-bit"},
    "orders-training": ORDERS,
    "orders-training-bf16": {**ORDERS, "precision": "bf16"},
    "orders-lora": {**ORDERS, "precision": "bf16", "method": "lora"},
    "orders-inference": {**ORDERS, "precision": "bf16", "method": "inference"},
    "orders-inference-autocast": {**ORDERS, "method": "inference"},
    **{
        f"held-13b-{seq}": {"shape": "13b", "seq": seq, "precision": "bf16", "optimizer": "sgd"}
        for seq in LENGTHS
    },
    **{
        f"held-7b-{batch}": {**SEVEN, "seq": 2048, "batch": batch, "optimizer": "sgd"}
        for batch in (1, 2, 3, 4)
    },
    "lora-7b-qkv": {**LORA, "targets": "q,k,v"},
    "lora-7b-all": LORA,
    "lora-7b-qkv-checkpointing": {**LORA, "targets": "q,k,v", "checkpointing": True},
    "lora-7b-all-checkpointing": {**LORA, "checkpointing": True},
    "lora-7b-as-qlora": {**LORA, **FRUGAL},
    "timed-plain": TIMED,
    "timed-checkpointing": {**TIMED, "checkpointing": True},
    "timed-lora-plain": {**TIMED, "method": "lora"},
    "timed-lora-checkpointing": {**TIMED, "method": "lora", "checkpointing": True},
    "squeezed-qlora-7b": QLORA,
    "squeezed-qlora-65b": DEEP,
}


def job(name):
    """Do one of SETTINGS; returns plain data."""
    setting = Setting.from_dict(SETTINGS[name])
    if name == "squeezed-qlora-7b":
        return {"fits": {str(size): squeezed(setting, size) for size in largest_first(setting)}}
    if name == "squeezed-qlora-65b":
        return {"fits": {str(size): squeezed(setting, size) for size in sizes(LARGE)}}
    if name.startswith("timed-"):
        return timed(setting)
    return {"report": measure(setting).to_dict()}


def timed(setting):
    """A report, FLOPs of one step as torch counts them, and seconds of a step (median of 10)."""
    import statistics

    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from labkit.memory.recipe import Recipe

    report = measure(setting)
    gc.collect()  # a model refers to itself: without this its 54 GB would lie beside the next one's
    torch.cuda.empty_cache()
    recipe, seconds = Recipe(setting, "cuda"), []
    with FlopCounterMode(display=False) as counter:
        recipe.step()
    for _ in range(12):
        torch.cuda.synchronize()
        began = time.perf_counter()
        recipe.step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return {"report": report.to_dict(), "FLOPs": counter.get_total_flops(),
            "seconds": statistics.median(seconds[2:])}  # fmt: skip


# ---- a smaller card -------------------------------------------------------------------------------------


def sizes(card):
    """[what a card's name says, what it offers a program], in GiB."""
    return [float(card.split()[0]), OFFERS[card]]


def largest_first(setting):
    """Sizes in GiB to try: those of the small card, then from 7.5 down by quarters to half a GiB under what
    the step takes by formula."""
    from labkit.memory import predict

    lowest = max(0.5, predict(setting).process / GiB - 0.5)
    return sizes(SMALL) + [7.5 - step / 4 for step in range(30) if 7.5 - step / 4 >= lowest]


def squeezed(setting, size):
    """1 if the steps complete on a card of which only `size` GiB were left to this process, else 0.

    Another process takes the rest first; the CUDA context is part of `size`.
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        answer = holder.stdout.readline()
        if not answer.startswith("holding"):
            raise LabkitError(f"the rest of the card could not be taken away: {answer or 'no answer'}")
        text = "import json,sys; from labkit.memory import Setting, measure; " \
               "measure(Setting.from_dict(json.loads(sys.argv[1])), alone=False)"  # fmt: skip
        done = subprocess.run([sys.executable, "-c", text, json.dumps(setting.to_dict())], cwd=ROOT,
                              capture_output=True, text=True)  # fmt: skip
    finally:
        holder.kill()
        holder.wait()
    if done.returncode and "does not fit" not in done.stderr and "out of memory" not in done.stderr:
        raise LabkitError(f"the squeezed step failed for another reason:\n{done.stderr[-1500:]}")
    return int(done.returncode == 0)


# Plain allocations, large ones first, until so much is left as was asked.
HOLDER = """
import sys, torch
left, held = float(sys.argv[1]) * 2**30, []
torch.cuda.init()
for piece in (2**30, 2**26, 2**22):
    while torch.cuda.mem_get_info()[0] - left >= piece:
        held.append(torch.empty(piece, dtype=torch.uint8, device="cuda"))
free = torch.cuda.mem_get_info()[0]
print("holding" if abs(free - left) < 2**23 else f"only {free / 2**30:.2f} GiB are free", flush=True)
sys.stdin.read()
"""


# ---- the numbers ----------------------------------------------------------------------------------------


def values(results):
    """The values of the claims' bands, by the names the ledger uses; those not measured are missing."""
    reports = {
        name: Report.from_dict(found["report"]) for name, found in results.items() if "report" in found
    }
    found = {}
    for part in (_adam, _peaks, _orders, _held, _checkpointing, _squeezes):
        try:
            found |= part(reports, results)
        except KeyError:  # a job of this part is missing or did not fit
            continue
    return found


def _term(report, name):
    return next(term.bytes for term in report.terms if term.name == name)


def _adam(reports, _):
    rules = {"pure bf16": ("adam-pure-bf16", 2 + 2 * 2), "fp32 autocast": ("adam-fp32-autocast", 4 + 2 * 4),
             "8-bit": ("adam-8-bit", 4 + 2 * 1)}  # fmt: skip
    bytes_each = {}
    for recipe, (name, _) in rules.items():
        report, weights = reports[name], Setting.from_dict(SETTINGS[name]).shape.weights()
        kept = _term(report, "held when the optimizer begins") + report.categories["optimizer"]
        bytes_each[recipe] = kept / weights
    off = {recipe: abs(bytes_each[recipe] / rule - 1) for recipe, (_, rule) in rules.items()}
    return {"bytes per weight": bytes_each, "deviation from the recipe's rule": off}


def _peaks(reports, _):
    shape = Setting("7b").shape
    return {"peak": {
        "pure bf16": reports["full-7b-bf16"].process, "8-bit optimizer": reports["full-7b-8-bit"].process,
        "16 bytes a weight": 16 * shape.weights(), "q k v": reports["lora-7b-qkv"].process,
        "all linear": reports["lora-7b-all"].process,
        "q k v, checkpointing": reports["lora-7b-qkv-checkpointing"].process,
        "all linear, checkpointing": reports["lora-7b-all-checkpointing"].process,
        "all linear, QLoRA's recipe": reports["lora-7b-as-qlora"].process,
    }}  # fmt: skip


def _orders(reports, _):
    inference = reports["orders-inference"].peak_allocated
    autocast = reports["orders-inference-autocast"].peak_allocated
    training = reports["orders-training"].peak_allocated
    return {
        "training over inference": training / inference,
        "bf16 training over inference": reports["orders-training-bf16"].peak_allocated / inference,
        "LoRA over inference": reports["orders-lora"].peak_allocated / inference,
        "training over inference, both autocast": training / autocast,
    }


def _held(reports, _):
    name = "held when the backward pass begins"
    thirteen = 2 * Setting("13b").shape.weights()
    shares = [_term(reports[f"held-13b-{seq}"], name) / thirteen for seq in LENGTHS]
    seven = 2 * Setting("7b").shape.weights()
    largest = max(_term(reports[f"held-7b-{batch}"], name) / seven for batch in (1, 2, 3, 4)
                  if f"held-7b-{batch}" in reports)  # fmt: skip
    return {
        "crossing": crossing(LENGTHS, shares, 0.2),
        "activation shares": {str(seq): share for seq, share in zip(LENGTHS, shares, strict=True)},
        "activations over weights": largest,
    }


def crossing(lengths, shares, level):
    """The length at which `shares` pass `level`, straight between neighbours (and beyond the ends)."""
    pairs = list(zip(lengths, shares, strict=True))
    for (before, low), (after, high) in zip(pairs, pairs[1:], strict=False):
        if level <= high or after == lengths[-1]:
            return before + (level - low) * (after - before) / (high - low)
    raise LabkitError("activations at one length alone say nothing of a crossing")


def _checkpointing(reports, results):
    found = {}
    for method, start in (("full", "timed-"), ("LoRA", "timed-lora-")):
        plain, again = (reports[f"{start}{how}"] for how in ("plain", "checkpointing"))
        ratios = {
            f"{what} ratio": results[f"{start}checkpointing"][what] / results[f"{start}plain"][what]
            for what in ("FLOPs", "seconds")
        }
        name = "held when the backward pass begins"
        ratios["activations ratio"] = _term(again, name) / _term(plain, name)
        found[method] = ratios | {"peak ratio": again.peak_allocated / plain.peak_allocated}
    return {"checkpointing": found}


def _squeezes(_, results):
    seven, large = results["squeezed-qlora-7b"]["fits"], results["squeezed-qlora-65b"]["fits"]
    completed = [float(size) for size, fits in seven.items() if fits]
    found = {f"completes on {card}": {"offered": fits[str(offered)], "nominal": fits[str(nominal)]}
             for card, fits in ((SMALL, seven), (LARGE, large))
             for nominal, offered in (sizes(card),)}  # fmt: skip
    return found | ({"smallest": min(completed) * GiB} if completed else {})
