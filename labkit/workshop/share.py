"""Several learners on one card: each keeps within `LABKIT_GPU_SHARE`, and waits while memory is short.

A share is of the whole card and of the whole process, CUDA's context included, of which torch knows nothing:
the allocator may take the share less the context. Trainings that fit run at once; one that does not waits for
others to end, and who trains is promised what the training may still take, so that nobody else takes it.
Without the variable nothing here does anything.
"""

import functools
import gc
import os
import re
import sys
import time
from contextlib import contextmanager, nullcontext

from labkit.errors import LabkitError
from labkit.memory.machine import H100
from labkit.workshop import need
from labkit.workshop.book import Book, Teller

VARIABLE = "LABKIT_GPU_SHARE"
WAIT = 600  # seconds that training waits for memory, at most
LOOK = 2  # seconds between looks
TELL = 0.5  # seconds between two notes of what a training holds: several in one LOOK
IDLE = 500_000_000  # bytes promised to a process between trainings, for generating
BESIDE = 900_000_000  # bytes that CUDA itself takes of a process, at the most
LATER = 300_000_000  # bytes that CUDA itself takes in the first steps: kernels it loads then, a graph
START = BESIDE + IDLE  # bytes promised to a process that has taken none yet: what CUDA and its model want
UNITS = {"GB": 1e9, "GiB": 2**30, "MB": 1e6, "MiB": 2**20}

waited = 0.0  # seconds that this process has waited for memory in all
_starting = {}  # by card, the Teller of a process that has loaded nothing on it so far, if it could note that


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
    """Hold this process to its share of the card `on` (the current one); without one do nothing.

    Again before each training: a notebook may have lifted the bound, as lesson 01 does. The first time,
    others are told that this process will soon take some of the card: loading a model does not wait.

    Raises LabkitError for a share that leaves nothing beside CUDA's context.
    """
    import torch

    text = os.environ.get(VARIABLE, "").strip()
    if not text or not torch.cuda.is_available():
        return
    index = torch.cuda.current_device() if on is None or on.index is None else on.index
    total = torch.cuda.get_device_properties(index).total_memory
    torch.cuda.set_per_process_memory_fraction(_cap(total) / total, index)
    if index not in _starting and not _held(index):
        _starting[index] = _start(index)


def _start(on):
    """Promise this process what it loads, until it has begun to; returns the Teller of that, if any."""
    book, size = _book(on), share(_total(on))

    def tell():
        held = _held(on)
        if held:
            book.note(IDLE, IDLE, size, held)
        return held

    with book.alone() as alone:
        if alone:
            _note(on, START, START)
    return Teller(tell, TELL) if alone else None


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
    setting, promise = need.setting_of(model, **budget), None
    for teller in filter(None, _starting.values()):
        teller.end()  # from here on the notes are this function's
    try:
        if setting is not None:
            promise = wait(setting, on, accumulate, timeout)
        with _telling(on, *promise) if promise else nullcontext():
            yield
    finally:
        give_back()
        _note(on, IDLE, IDLE)


def wait(setting, on, accumulate=1, timeout=WAIT):
    """Wait until the step that `setting` describes fits what is free and promised to nobody, and say so.

    Returns what the allocator will hold at the peak and what it may still take, in bytes: promised to this
    process from now on. Raises LabkitError at once if the step exceeds the share, and after `timeout` seconds
    if memory stays short.
    """
    global waited
    beside, cap = _beside(setting, on), _cap(_total(on)) or _total(on)
    wanted = beside + need.peak(setting)
    if wanted > cap:
        raise LabkitError(f"This step is too large for {VARIABLE}={os.environ[VARIABLE]}. "
                          + need.advice(setting, max(0, cap - beside), accumulate))  # fmt: skip
    began, told, fitted = time.monotonic(), False, False
    while True:
        promised, missing = _look(wanted, on, fitted)
        so_far = time.monotonic() - began
        if promised or (missing > 0 and so_far >= timeout):
            break
        fitted = missing <= 0
        if not fitted:
            told = True
            how_long = f"{so_far:.0f} s of at most {timeout:.0f} s"
            _say(f"\rwaiting for GPU memory: {missing / 1e9:.1f} GB missing, {how_long}")
        time.sleep(LOOK)
    waited += so_far
    if not promised:
        _say("\n" if told else "")
        advice = need.advice(setting, max(0, wanted - missing - beside), accumulate)
        raise LabkitError(
            f"for {timeout:.0f} s others left too little of the card free: {missing / 1e9:.1f} GB are "
            f"missing. Run the cell again later, or make do with less. {advice}"
        )
    if told:
        _say(f"\nmemory is free after {so_far:.0f} s\n")
    return wanted, promised


def _look(wanted, on, fitted):
    """Look at the card and the book: (bytes promised from now on to this process or 0, bytes missing).

    `fitted` says that at the last look nothing was missing. A graph's capture gives memory back for a moment,
    before its process can tell: where it matters how much of their promises others hold by now, one look is
    not enough. Who waits is promised nothing, but its share counts. While others keep the book, nobody can
    know what is promised to them: that is a look that missed.
    """
    book, total = _book(on), _total(on)
    with book.alone() as alone:
        if alone is False:
            return 0, LATER
        others, free = book.others(), _free(on)
        most = sum(min(one.most, total) for one in others) + LATER
        now = sum(min(one.now, total) for one in others) + LATER
        missing = wanted - (free - now)
        entitled = wanted <= free and _shares_fit(others, free, on)
        if not entitled and wanted > free - most and not (fitted and missing <= 0):
            _note(on, 0, 0)
            return 0, missing
        promise = max(0, wanted - _held(on)) + LATER
        _note(on, promise, promise)
        return promise, missing


def _shares_fit(others, free, on):
    """Do the shares of all who work here fit the card beside strangers? Then nobody need wait."""
    total, held = _total(on), _held(on)
    known = held + BESIDE + sum((one.held or IDLE) + BESIDE for one in others)  # or: it is loading
    strangers = max(0, total - (free - held) - known)
    return share(total) + sum(one.share for one in others) <= total - strangers


def _note(on, most, now):
    _book(on).note(most, now, share(_total(on)), _held(on))


@contextmanager
def _telling(on, wanted, promise):
    """Inside, keep others informed how much of its promise this process has still to take."""
    book, size = _book(on), share(_total(on))
    beyond = 1 + LATER / max(LATER, promise - LATER)

    def tell():  # asks torch's allocator only: a graph may be being captured
        held = _held(on)
        now = beyond * max(0, wanted - held)
        book.note(max(promise, now), now, size, held)

    teller = Teller(tell, TELL)
    try:
        yield
    finally:
        teller.end()


def _book(on):
    """The book of the card `on`; one that does nothing for a card without a UUID."""
    import torch

    return _book_of(str(getattr(torch.cuda.get_device_properties(on), "uuid", "")))


@functools.cache
def _book_of(card):
    return Book(card)


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

    It returns what to pass to `fit` instead (see `need.advice`), or "" where nothing predicts that. Others
    may have taken memory since: the lesser room counts. `budget` is that of `need.setting_of`.
    """
    if on.type != "cuda":
        return lambda: ""
    held, room = _allocated(on), min(_cap(_total(on)) or _offered(on), _free(on))

    def advice():
        setting = need.setting_of(model, **budget)
        if setting is None:
            return ""
        beside = max(0, held - need.weights(setting))
        return need.advice(setting, max(0, min(room, _free(on)) - beside), accumulate)

    return advice


def _beside(setting, on):
    """Bytes that tensors hold beside the model's weights."""
    return max(0, _allocated(on) - need.weights(setting))


def _allocated(on):
    import torch

    return torch.cuda.memory_allocated(on)


def _free(on):
    """Bytes that this process's allocator holds or could take, if nobody else took any."""
    import torch

    return torch.cuda.mem_get_info(on)[0] + _held(on)


def _held(on):
    """Bytes that this process's allocator holds, in use or not."""
    import torch

    return torch.cuda.memory_reserved(on)


def _total(on):
    import torch

    return torch.cuda.get_device_properties(on).total_memory


def _offered(on):
    """Bytes that this process may take: the whole card, or the fraction of it that was set by hand."""
    import torch

    return int(torch.cuda.get_per_process_memory_fraction(on) * _total(on))


def _say(text):
    sys.stdout.write(text)
    sys.stdout.flush()
