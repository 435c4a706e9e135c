"""Floating-point numbers bit by bit: sign, exponent, mantissa."""

from dataclasses import dataclass

import torch

from labkit.errors import LabkitError


@dataclass(frozen=True)
class Layout:
    """A floating-point format: one sign bit, then so many bits of exponent and of mantissa."""

    exponent: int
    mantissa: int
    dtype: torch.dtype
    same_size: torch.dtype  # the integer type that shows its bits

    @property
    def bits(self):
        """Bits of one number."""
        return 1 + self.exponent + self.mantissa

    @property
    def bias(self):
        """What is subtracted from the stored exponent."""
        return 2 ** (self.exponent - 1) - 1


LAYOUTS = {
    "fp32": Layout(8, 23, torch.float32, torch.int32),
    "bf16": Layout(8, 7, torch.bfloat16, torch.int16),
    "fp16": Layout(5, 10, torch.float16, torch.int16),
}


def fields(number, kind):
    """The bits of `number`, rounded to `kind`, as three strings: sign, exponent, mantissa.

    Raises LabkitError for a `kind` that is not in LAYOUTS.
    """
    layout = _layout(kind)
    stored = torch.tensor(number, dtype=torch.float64).to(layout.dtype).view(layout.same_size).item()
    text = f"{stored % 2**layout.bits:0{layout.bits}b}"
    return text[0], text[1 : 1 + layout.exponent], text[1 + layout.exponent :]


def value_of(sign, exponent, mantissa, kind):
    """The number that three bit strings stand for (IEEE 754): (-1)^s · 2^(e - bias) · (1 + m / 2^p).

    An exponent of zeros means 2^(1 - bias) · m / 2^p instead; one of ones means infinity or not a number.
    """
    layout = _layout(kind)
    s, e, m = int(sign, 2), int(exponent, 2), int(mantissa, 2)
    fraction = m / 2**layout.mantissa
    if e == 2**layout.exponent - 1:
        return (-1) ** s * float("inf") if m == 0 else float("nan")
    if e == 0:
        return (-1) ** s * 2.0 ** (1 - layout.bias) * fraction
    return (-1) ** s * 2.0 ** (e - layout.bias) * (1 + fraction)


def spacing(number, kind):
    """The gap between `number`, rounded to `kind`, and the next number of that format away from zero."""
    layout = _layout(kind)
    here = torch.tensor(abs(number), dtype=torch.float64).to(layout.dtype)
    after = (here.view(layout.same_size) + 1).view(layout.dtype)
    return (after.double() - here.double()).item()


def _layout(kind):
    if kind not in LAYOUTS:
        raise LabkitError(f"there is no layout {kind!r}: use one of {', '.join(LAYOUTS)}")
    return LAYOUTS[kind]
