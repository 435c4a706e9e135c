"""Several learners on one card: each keeps within `LABKIT_GPU_SHARE`, and waits while memory is short.

A share is of the whole card and of the whole process, CUDA's context included, of which torch knows nothing:
the allocator may take the share less the context. Without the variable nothing here does anything.
"""

import gc
import os
import re
import sys
import time
from contextlib import contextmanager

from labkit.errors import LabkitError
from labkit.memory.machine import H100
from labkit.workshop import need

VARIABLE = "LABKIT_GPU_SHARE"
WAIT = 600  # seconds that training waits for memory, at most
LOOK = 2  # seconds between looks
UNITS = {"GB": 1e9, "GiB": 2**30, "MB": 1e6, "MiB": 2**20}

_applied = None  # the text of the share in force


def share(total):
    """Bytes of a card of `total` bytes that `LABKIT_GPU_SHARE` allows; None where it is unset.

    It is a number above 0 and up to 1, a percentage, or a size: 0.05, 5%, 4GB. LabkitError for other text.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(%|[GM]i?B)?", text)
    if match:
        number, unit = float(match[1]), match[2]
        size = number * (UNITS[unit] if unit in UNITS else total / (100 if unit else 1))
        if 0 < size <= total:
            return int(size)
    raise LabkitError(
        f"{VARIABLE} is {text!r}. Write a share above 0 and up to 1 (0.05), a percentage (5%) or a size "
        f"(4GB) of this card's {total / 1e9:.0f} GB"
    )


def apply(on=None):
    """Hold this process to its share of the card `on` (the current one), once; without one do nothing.

    Raises LabkitError for a share that leaves nothing beside CUDA's context.
    """
    global _applied
    import torch

    text = os.environ.get(VARIABLE, "").strip()
    if not text or text == _applied or not torch.cuda.is_available():
        return
    index = torch.cuda.current_device() if on is None or on.index is None else on.index
    total = torch.cuda.get_device_properties(index).total_memory
    torch.cuda.set_per_process_memory_fraction(_cap(total) / total, index)
    _applied = text


def _cap(total):
    """Bytes that torch's allocator may take of the card; None where there is no share."""
    size = share(total)
    if size is None:
        return None
    if size <= H100.context:
        raise LabkitError(
            f"{VARIABLE}={os.environ[VARIABLE]} is {size / 1e9:.2f} GB of this card; CUDA alone takes about "
            f"{H100.context / 1e9:.1f} GB of each process. Give a larger share, or fewer learners a card"
        )
    return size - H100.context


@contextmanager
def turn(model, on, *, batch, length, accumulate=1, precision="bf16", checkpointing=False, timeout=WAIT):
    """Around training on a shared card: wait for memory before, and leave none unused to this process after.

    Does nothing without a share, on a CPU, and where nothing predicts what the step takes.
    Raises LabkitError where the step cannot fit the share, or not enough is free within `timeout` seconds.
    """
    if on.type != "cuda" or not os.environ.get(VARIABLE, "").strip():
        yield
        return
    apply(on)
    budget = {"batch": batch, "length": length, "precision": precision, "checkpointing": checkpointing}
    setting = need.setting_of(model, **budget)
    try:
        if setting is not None:
            wait(setting, on, accumulate, timeout)
        yield
    finally:
        give_back()


def wait(setting, on, accumulate=1, timeout=WAIT):
    """Wait until the step that `setting` describes fits what is free, with a line that says so.

    Raises LabkitError at once if it exceeds the share, and after `timeout` seconds if memory stays short.
    """
    beside, cap, _ = _looked(setting, on)
    if beside + need.peak(setting) > cap:
        raise LabkitError(f"This step is too large for {VARIABLE}={os.environ[VARIABLE]}. "
                          + need.advice(setting, max(0, cap - beside), accumulate))  # fmt: skip
    began, told = time.monotonic(), False
    while True:
        beside, _, room = _looked(setting, on)
        missing = beside + need.peak(setting) - room
        waited = time.monotonic() - began
        if missing <= 0:
            break
        if waited >= timeout:
            _say("\n")
            advice = need.advice(setting, max(0, room - beside), accumulate)
            raise LabkitError(
                f"for {timeout:.0f} s others left too little of the card free: {missing / 1e9:.1f} GB are "
                f"missing. Run the cell again later, or make do with less. {advice}"
            )
        told = True
        so_far = f"{missing / 1e9:.1f} GB missing, {waited:.0f} s of at most {timeout:.0f} s"
        _say(f"\rwaiting for GPU memory: {so_far}")
        time.sleep(LOOK)
    if told:
        _say(f"\nmemory is free after {waited:.0f} s\n")


def give_back():
    """Return memory that torch keeps for later to the card, a kept CUDA graph's included."""
    import torch

    graphs = sys.modules.get("labkit.train.graph")
    if graphs is not None:
        graphs.release()
    gc.collect()
    torch.cuda.empty_cache()


def advisor(model, on, *, accumulate=1, **budget):
    """Look at the card before training, and return a function to call if training then runs out of memory.

    It returns what to pass to `fit` instead (see `need.advice`), or "" where nothing predicts that. `budget`
    is that of `need.setting_of`.
    """
    if on.type != "cuda":
        return lambda: ""
    held, _, room = _card(on)

    def advice():
        setting = need.setting_of(model, **budget)
        if setting is None:
            return ""
        beside = max(0, held - need.weights(setting))
        return need.advice(setting, max(0, room - beside), accumulate)

    return advice


def _looked(setting, on):
    """(bytes held beside the model, the cap on all that torch may hold, what of it can be had now)."""
    held, cap, room = _card(on)
    return max(0, held - need.weights(setting)), cap, room


def _card(on):
    """(bytes that tensors hold, the cap on all that torch may hold, what of it can be had now)."""
    import torch

    free, total = torch.cuda.mem_get_info(on)
    cap = _cap(total) or total
    return torch.cuda.memory_allocated(on), cap, min(cap, free + torch.cuda.memory_reserved(on))


def _say(text):
    sys.stdout.write(text)
    sys.stdout.flush()
