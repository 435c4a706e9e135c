"""Learning rates and weight decay: what the optimizer is told."""

import math

from labkit.errors import LabkitError

# From 1 down to 0 (or not) over the share of the run that follows the warm-up.
SCHEDULES = {
    "linear": lambda share: 1 - share,
    "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * share)),
    "constant": lambda share: 1.0,
}


def check_schedule(schedule, warmup, steps):
    """Raise LabkitError for a schedule that `rate` does not know, or a warm-up that is no share."""
    if not 0 <= warmup <= 1:
        raise LabkitError(f"warmup={warmup} is no share of the steps: for that many pass {warmup}/{steps}")
    if schedule not in SCHEDULES:
        raise LabkitError(f"schedule={schedule!r}: it may be {', '.join(map(repr, SCHEDULES))}")


def rate(step, steps, warmup, schedule):
    """Learning-rate factor of a step: linear warm-up over a share of the steps, then a schedule."""
    ramp = round(warmup * steps)
    if step < ramp:
        return (step + 1) / ramp
    return SCHEDULES[schedule]((step - ramp) / max(1, steps - ramp))


def groups(trainable, weight_decay):
    """Parameter groups for AdamW: weight decay is for matrices, norms and biases go without."""
    parameters = trainable.values()
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
