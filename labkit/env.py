"""Where the course runs: profile, budgets, device, precision and seeds."""

import os
import random
from types import SimpleNamespace

from labkit.errors import LabkitError

PROFILES = ("cpu", "gpu", "smoke")


def profile():
    """The profile in force: `cpu`, `gpu`, or `smoke` (the small budget of the checks).

    `LABKIT_PROFILE` decides where it is set, else the hardware does.
    """
    wanted = os.environ.get("LABKIT_PROFILE", "").strip().lower()
    if not wanted:
        return "gpu" if device().type == "cuda" else "cpu"
    if wanted not in PROFILES:
        raise LabkitError(
            f"LABKIT_PROFILE is {wanted!r}; it may be {', '.join(PROFILES)}, or unset (the hardware decides)"
        )
    if wanted == "gpu" and device().type != "cuda":
        raise LabkitError(
            "LABKIT_PROFILE=gpu, but torch sees no CUDA card here. Unset it, or run `python -m labkit doctor`"
        )
    return wanted


def budget(cpu, gpu, smoke):
    """The lesson's numbers for the profile in force, as a namespace: `budget(...).steps`.

    Each argument is a dict with the same keys, so that no profile can lack one.
    """
    for name, numbers in (("gpu", gpu), ("smoke", smoke)):
        if set(numbers) != set(cpu):
            raise LabkitError(f"budget: cpu and {name} differ in {sorted(set(cpu) ^ set(numbers))}")
    return SimpleNamespace(**{"cpu": cpu, "gpu": gpu, "smoke": smoke}[profile()])


def device():
    """The torch device that lessons use: the first CUDA card, else the CPU."""
    import torch

    if os.environ.get("LABKIT_GPU_SHARE"):
        from labkit.workshop import share

        share.apply()
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cpu_has_fast_bf16():
    """Does this CPU multiply bf16 in hardware (avx512_bf16 or AMX on x86, bf16 on Arm)?

    Without it bf16 is emulated, about three times slower than fp32.
    """
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            flags = next((line for line in file if line.lower().startswith(("flags", "features"))), "")
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.split()))


def precision(on=None):
    """The training precision for a device: `bf16`, `fp16` (with loss scaling) or `fp32`.

    Weights stay fp32 in every case; bf16 and fp16 are autocast types.
    """
    import torch

    on = on or device()
    if on.type == "cuda":
        # Compute capability 8.0 is the first with bf16 units; older cards only emulate it.
        return "bf16" if torch.cuda.get_device_capability(on) >= (8, 0) else "fp16"
    return "bf16" if cpu_has_fast_bf16() else "fp32"


def seed_everything(seed):
    """Seed Python, numpy and torch (all devices)."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def machine():
    """One line that says what a measurement was made on: card or CPU, and core count."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    bf16 = "fast bf16" if cpu_has_fast_bf16() else "no fast bf16"
    return f"{cores()}-core CPU ({bf16})"


def cores():
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
