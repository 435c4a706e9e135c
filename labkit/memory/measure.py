"""What a step takes, measured on a CUDA card: `python -m labkit.memory.measure '{"shape": "7b", ...}'`.

Meant for a fresh process, since libraries keep what they once took.
"""

import json
import os
import shutil
import subprocess
import sys
import warnings
from contextlib import ExitStack
from unittest.mock import patch

import torch

from labkit.errors import LabkitError
from labkit.memory.report import Report, Term
from labkit.memory.setting import Setting

IDLE = 2**30  # bytes: a card that nobody uses shows less (the driver's own share)
STEPS = 3


def measure(setting, steps=STEPS, alone=True):
    """Report of `steps` steps of a setting on the current CUDA card, in bytes.

    `categories` holds what a card can tell: weights, optimizer, workspace (cuBLAS), context, paged states,
    and at the optimizer step gradients; the rest is called activations, or at the optimizer step workspace.
    `terms` adds what is held when the backward pass begins. The process is what the card shows beyond what
    it showed before this process used it.

    Errors: LabkitError without a card, on a card that others use (`alone=False` measures all the same, and
    the process figure is then worth little), and for a step that does not fit.
    """
    if not torch.cuda.is_available():
        raise LabkitError("there is no CUDA card here to measure on. Use labkit.memory.predict or trace")
    if torch.cuda.is_initialized():
        warnings.warn(
            "CUDA was used before in this process: what it took then counts as context", stacklevel=2
        )
    before = _used_before(alone)
    torch.cuda.init()
    workspace = _warm_up()
    watch = _Watch()
    try:
        from labkit.memory.recipe import Recipe

        recipe = Recipe(setting, "cuda")
        torch.cuda.empty_cache()
        loaded = torch.cuda.memory_allocated()
        watch.next("load")
        with _phases(watch, recipe):
            for _ in range(steps):
                recipe.step()
                torch.cuda.synchronize()
                watch.next("optimizer step" if recipe.optimizer else "forward end")
    except torch.OutOfMemoryError as error:
        raise LabkitError(
            f"{setting.method} on {setting.shape.name} does not fit this card: {error}"
        ) from error
    free, total = torch.cuda.mem_get_info()
    paged = _paged(recipe.optimizer)
    return _report(watch, loaded - workspace, workspace, paged, total - free - before)


def _report(watch, weights, workspace, paged, process):
    moment, peak = max(watch.peaks.items(), key=lambda item: item[1])
    reserved = torch.cuda.max_memory_reserved()
    states = max(0, watch.idle - weights - workspace)
    known = {"weights": weights, "optimizer": states, "workspace": workspace}
    rest = peak - sum(known.values())
    if moment == "optimizer step":
        known["gradients"] = watch.gradients
        known["workspace"] += rest - watch.gradients
    else:
        known["activations"] = rest
    known |= {"optimizer paged": paged, "context": max(0, process - reserved - paged)}
    held = watch.held - weights - states - workspace if watch.held else 0
    terms = [
        Term("activations", "held when the backward pass begins", max(0, held)),
        Term("gradients", "held when the optimizer begins", watch.gradients),
        *(Term("workspace", f"peak by the {name}", size) for name, size in watch.peaks.items()),
    ]
    return Report(
        categories={name: int(size) for name, size in known.items() if size}, peak_allocated=peak,
        peak_reserved=reserved, process=int(process), moment=moment, terms=terms, engine="measure",
    )  # fmt: skip


class _Watch:
    """Highest bytes by moment; what was held when backward began, and between steps."""

    def __init__(self):
        self.peaks, self.held, self.idle, self.gradients = {}, 0, 0, 0

    def next(self, moment):
        """The time since the last call was `moment`."""
        self.peaks[moment] = max(self.peaks.get(moment, 0), torch.cuda.max_memory_allocated())
        torch.cuda.reset_peak_memory_stats()
        self.idle = torch.cuda.memory_allocated()


def _phases(watch, recipe):
    """While active, `watch` learns when backward and optimizer begin."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    plain = torch.Tensor.backward

    def backward(loss, *args, **kwargs):
        watch.next("forward end")
        watch.held = torch.cuda.memory_allocated()
        plain(loss, *args, **kwargs)

    def before(optimizer, args, kwargs):
        watch.next("backward")
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        watch.gradients = sum(weight.grad.nbytes for weight in weights if weight.grad is not None)

    stack = ExitStack()
    stack.enter_context(patch.object(torch.Tensor, "backward", backward))
    stack.callback(register_optimizer_step_pre_hook(before).remove)
    return stack


def _warm_up():
    """Multiply once, forward and backward, in the precisions of recipes: bytes of workspace that stay."""
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(64, 64, device="cuda", dtype=dtype, requires_grad=True)
        (x @ x).sum().backward()
        del x
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated()


def _paged(optimizer):
    """Bytes of managed memory that bitsandbytes keeps states in."""
    manager = getattr(optimizer, "page_mng", None)
    return sum(tensor.nbytes for tensor in manager.paged_tensors) if manager else 0


# ---- who else is there ------------------------------------------------------------------------------------


def _used_before(alone):
    """Bytes in use on the card before this process takes any; 0 with a warning where it cannot be told."""
    used = card_use()
    if used is None:
        warnings.warn("nvidia-smi does not answer: whether others use this card is unknown", stacklevel=3)
        return 0
    if used > IDLE and alone:
        raise LabkitError(
            f"{used / 1e9:.1f} GB of this card are in use by other processes. Measure on a card of your own, "
            "or end them (nvidia-smi lists them)"
        )
    return used


def card_use():
    """Bytes in use on the first visible card as nvidia-smi tells, untouched; None if it does not tell."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    asked = [program, f"--id={card}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout
        return int(answer.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def main(argv):
    """Measure the setting that `argv` holds as JSON and print the report as one line of JSON."""
    if len(argv) != 1:
        raise LabkitError("""one argument: a setting as JSON, such as '{"shape": "7b", "method": "lora"}'""")
    try:
        given = json.loads(argv[0])
    except ValueError as error:
        raise LabkitError(f"the setting is not JSON: {error}") from error
    print(json.dumps(measure(Setting.from_dict(given)).to_dict()))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LabkitError as error:
        sys.exit(f"labkit.memory.measure: {error}")
