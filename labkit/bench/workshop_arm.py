"""An arm of `bench workshop`: learners, each a process, started together; and what a learner does."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from statistics import mean

from labkit.errors import LabkitError
from labkit.paths import ROOT

RATE = 3e-3  # lesson 05's for LoRA
ANSWERS, LONG = 8, 80  # generated after training, and their tokens at most
LOOK = 0.5  # seconds between looks at the card and the learners
# What a learner must not inherit, and what it gets: one thread each, as there are more learners than cores.
DROPPED = ("LABKIT_GPU_SHARE", "LABKIT_BESIDE", "LABKIT_RECORD", "LABKIT_MODEL", "CUDA_MPS_LOG_DIRECTORY",
           "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING", "PYTORCH_ALLOC_CONF",
           "PYTORCH_CUDA_ALLOC_CONF")  # fmt: skip
GIVEN = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
         "HF_HUB_OFFLINE": "1", "LABKIT_PROGRESS": "off", "PYTHONUNBUFFERED": "1"}  # fmt: skip


# ---- the learners, from outside -------------------------------------------------------------------------


def run(arm, folder, card, visible, limit, more=None):
    """Start the learners of an arm together and wait for all; returns the arm with what each came to.

    `arm` has learners, share (text or None), steps, batch, length. `card` is looked at all the while and
    `visible` names it for CUDA (None: there is none). After `limit` seconds who still runs is killed. `more`
    goes into the environment. Times are in seconds since the start, sizes in bytes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    began, processes, ended, cut = time.time(), [], {}, False
    # No service there: without a name, learners would go to one that runs at the usual place.
    nothing = tempfile.mkdtemp(prefix="nomps")
    more = {"CUDA_MPS_PIPE_DIRECTORY": nothing, **(more or {})}
    try:
        for number in range(arm["learners"]):
            for left in (_file(folder, number), _log(folder, number)):
                left.unlink(missing_ok=True)
            processes.append(_start(arm, number, folder, began, visible, more))
        while len(ended) < len(processes):
            time.sleep(LOOK)
            card.look()
            now = time.time() - began
            for number, process in enumerate(processes):
                if number not in ended and process.poll() is not None:
                    ended[number] = now
            if now > limit:
                cut = len(ended) < len(processes)
                break
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        shutil.rmtree(nothing, ignore_errors=True)
    each = [_result(folder, number, process.returncode, ended.get(number), limit)
            for number, process in enumerate(processes)]  # fmt: skip
    return {**arm, "each": each, "peak": card.peak, "cut": cut, "seconds": time.time() - began}


def command(order):
    """The command line of a learner."""
    return [sys.executable, "-m", "labkit", "bench", "workshop", "--learner", json.dumps(order)]


def _start(arm, number, folder, began, visible, more):
    environment = {name: value for name, value in os.environ.items() if name not in DROPPED}
    environment |= GIVEN
    if arm["share"]:
        environment["LABKIT_GPU_SHARE"] = arm["share"]
    environment["CUDA_VISIBLE_DEVICES"] = visible or ""
    order = {name: arm[name] for name in ("steps", "batch", "length")}
    order |= {"file": str(_file(folder, number).resolve()), "began": began,
              "device": "cpu" if visible is None else "cuda"}  # fmt: skip
    with open(_log(folder, number), "w") as log:
        return subprocess.Popen(
            command(order), env={**environment, **more}, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip


def _result(folder, number, status, ended, limit):
    """What a learner left, and how it ended: `status` is 0 only for one that did all."""
    found = {"error": None}
    if _file(folder, number).exists():
        found |= json.loads(_file(folder, number).read_text())
    if ended is None:
        found["error"] = f"still at it after {limit:.0f} s"
    elif status and not found["error"]:  # it died without a word of ours
        lines = _log(folder, number).read_text(errors="replace").split("\n")
        found["error"] = next((line for line in reversed(lines) if line.strip()), f"ended with {status}")
    elif not status and not found.get("answers"):
        status, found["error"] = 1, "ended early, with no error"
    return {**found, "status": status, "ended": ended}


def _file(folder, number):
    return Path(folder) / f"{number:02}.json"


def _log(folder, number):
    return Path(folder) / f"{number:02}.log"


# ---- a learner, from inside -----------------------------------------------------------------------------


def learn(order):
    """Be one learner: load, train as lesson 05 does, answer. Leaves what it cost, also if it fails.

    `order` has file, began (time), device, steps, batch, length. Returns the exit status.
    """
    found = {"error": None}
    try:
        _lesson(order, found)
    except Exception as error:
        traceback.print_exc()
        found["error"] = _last_line(error)
    found |= _costs(found)
    temporary = Path(order["file"] + ".part")
    temporary.write_text(json.dumps(found))
    os.replace(temporary, order["file"])
    return 1 if found["error"] else 0


def _lesson(order, found):
    from labkit import env, fit, generate, load, load_tokenizer, methods

    def clock():
        return time.time() - order["began"]

    if env.device().type != order["device"]:  # else it would train on the CPU, slowly and in nobody's way
        raise LabkitError(f"this learner was to have {order['device']}, and torch offers {env.device().type}")
    tokenizer, model = load_tokenizer(), methods.find("lora").prepare(seed=0)
    data = load("tickets")
    found["loaded"] = clock()
    budget = {name: order[name] for name in ("steps", "batch", "length")}
    run = fit(model, data["train"], tokenizer, lr=RATE, seed=0, **budget)
    found |= {"trained": clock(), "training": run.seconds, "steps": run.steps, "path": run.path,
              "loss": mean(run.losses[-10:]), "peak": run.peak_bytes}  # fmt: skip
    prompts = [row["prompt"] for row in data["test"].select(range(ANSWERS))]
    found["answers"] = len(generate(model, tokenizer, prompts, max_new_tokens=LONG, progress=False))
    found["done"] = clock()


def _costs(found):
    """Seconds waited, and the most that tensors and the allocator took since training began."""
    import torch

    from labkit.workshop import share

    costs = {"waited": share.waited}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        # A replayed graph asks for no memory: what it was captured with, `fit` knows.
        costs["allocated"] = max(found.get("peak", 0), torch.cuda.max_memory_allocated())
        costs["reserved"] = torch.cuda.max_memory_reserved()
    return costs


def _last_line(error):
    text = str(error).strip() or type(error).__name__
    return text if isinstance(error, LabkitError) else f"{type(error).__name__}: {text.splitlines()[0]}"
