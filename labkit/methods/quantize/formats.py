"""Formats by name: round a matrix through one, and count every bit that it stores."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from labkit.methods.quantize import codebooks, integers
from labkit.methods.quantize.bitnet import ternary


@dataclass(frozen=True)
class Format:
    """`parts(w)` gives (w', the (count, bits each) of all that is stored); `about` says what that is."""

    name: str
    about: str
    parts: Callable

    def round(self, w):
        """What is left of `w` (any shape, float) after storing it in this format: same shape and dtype."""
        return self.parts(w)[0].to(w.dtype)

    def bits(self, w):
        """Bits stored for `w`, codes, scales and offsets together. Of `w` only its shape matters."""
        return sum(count * each for count, each in self.parts(w)[1])


def relative_error(w, restored):
    """‖w - w'‖ / ‖w‖, a float."""
    return ((w.float() - restored.float()).norm() / w.float().norm()).item()


def _plain(dtype):
    bits = torch.finfo(dtype).bits
    return lambda w: (w.to(dtype).float(), [(w.numel(), bits)])


def _symmetric(bits, per, scale_type=torch.float32):
    def parts(w):
        if scale_type is not torch.float32:
            return _rounded_scale(w, bits, per, scale_type)
        codes, scale = integers.absmax(w, bits, per)
        return integers.from_absmax(codes, scale), [(codes.numel(), bits), (scale.numel(), 32)]

    return parts


def _rounded_scale(w, bits, per, scale_type):
    """Absmax integers whose scale is rounded before it is used."""
    x = integers.groups(w.float(), per)
    top = 2 ** (bits - 1) - 1
    scale = (x.abs().amax(dim=1, keepdim=True) / top).to(scale_type).float().clamp_min(integers.TINY)
    codes = torch.round(x / scale).clamp(-top, top)
    return (codes * scale).reshape(w.shape), [(w.numel(), bits), (len(scale), 16)]


def _zero_point(bits, per):
    def parts(w):
        codes, scale, zero = integers.zero_point(w, bits, per)
        stored = [(codes.numel(), bits), (scale.numel(), 32), (zero.numel(), bits)]
        return integers.from_zero_point(codes, scale, zero), stored

    return parts


def _affine(bits, per):
    def parts(w):
        codes, scale, minimum = integers.affine(w, bits, per)
        stored = [(codes.numel(), bits), (scale.numel(), 16), (minimum.numel(), 16)]
        return integers.from_affine(codes, scale, minimum), stored

    return parts


def _two_level(bits, per, blocks, scale_bits):
    def parts(w):
        codes, scale, minimum = integers.two_level(w, bits, per, blocks, scale_bits)
        stored = [(codes.numel(), bits), (2 * scale.numel(), scale_bits), (2 * scale.numel() // blocks, 16)]
        return integers.from_affine(codes, scale, minimum), stored

    return parts


def _lookup(code, per, scale_type=torch.float32):
    def parts(w):
        values = code()
        bits = math.ceil(math.log2(len(values)))
        codes, scale = codebooks.lookup(w, values, per)
        scale = scale.to(scale_type).float()
        stored = [(codes.numel(), bits), (scale.numel(), torch.finfo(scale_type).bits)]
        return codebooks.from_lookup(codes, scale, values), stored

    return parts


def _double(code, per):
    def parts(w):
        values = code()
        codes, scale = codebooks.lookup(w, values, per)
        small, second, mean = codebooks.double(scale)
        restored = codebooks.from_lookup(codes, codebooks.from_double(small, second, mean), values)
        return restored, [(codes.numel(), 4), (small.numel(), 8), (second.numel(), 32), (1, 32)]

    return parts


def _even_code():
    """Symmetric int4 as a code book: -7 to 7 in sevenths, one of the 16 codes unused."""
    return torch.arange(-7, 8) / 7


def _ternary(w):
    codes, scale = ternary(w)
    # Five codes fit one byte (3^5 = 243), so 1.6 bits each; log2(3) = 1.585 is the limit.
    return codes * scale, [(math.ceil(codes.numel() / 5), 8), (1, 32)]


_HALF = torch.float16
FORMATS = {
    name: Format(name, about, parts)
    for name, about, parts in (  # about, and what is stored beside the codes
        ("bf16", "8 exponent and 7 mantissa bits", _plain(torch.bfloat16)),
        ("int8 tensor", "absmax, one scale a matrix", _symmetric(8, "tensor")),
        ("int8 row", "absmax, one scale a row (fp32)", _symmetric(8, "row")),
        ("int8 block", "absmax, blocks of 64 (fp32 scale)", _symmetric(8, 64)),
        ("int4 sym 64", "absmax, blocks of 64 (fp32 scale)", _symmetric(4, 64)),
        ("int4 sym 32", "absmax, blocks of 32 (fp16 scale)", _symmetric(4, 32, _HALF)),
        ("int4 zero 64", "zero point, blocks of 64 (fp32 scale, 4-bit zero)", _zero_point(4, 64)),
        ("int4 asym 64", "minimum and scale (fp16), blocks of 64", _affine(4, 64)),
        ("int4 asym 32", "minimum and scale (fp16), blocks of 32", _affine(4, 32)),
        ("int4 asym 32 two-level", "as Q4_K: blocks of 32, 6-bit scale and minimum under fp16 ones for 256",
         _two_level(4, 32, 8, 6)),
        ("int4 asym 128 two-level", "blocks of 128, 6-bit scale and minimum under fp16 ones for 1,024",
         _two_level(4, 128, 8, 6)),
        ("int4 sym double", "absmax, blocks of 64, absmax in 8 bits", _double(_even_code, 64)),
        ("fp4 64", "bitsandbytes' FP4, blocks of 64 (fp32 absmax)", _lookup(codebooks.fp4_code, 64)),
        ("e2m1 64", "E2M1, blocks of 64 (fp32 absmax)", _lookup(codebooks.e2m1_code, 64)),
        ("e2m1 32", "E2M1, blocks of 32 (fp16 absmax)", _lookup(codebooks.e2m1_code, 32, _HALF)),
        ("fp4 double", "bitsandbytes' FP4, blocks of 64, absmax in 8 bits", _double(codebooks.fp4_code, 64)),
        ("e2m1 double", "E2M1, blocks of 64, absmax in 8 bits", _double(codebooks.e2m1_code, 64)),
        ("nf4 64", "NF4, blocks of 64 (fp32 absmax)", _lookup(codebooks.nf4_code, 64)),
        ("nf4 32", "NF4, blocks of 32 (fp16 absmax)", _lookup(codebooks.nf4_code, 32, _HALF)),
        ("nf4 double", "NF4, blocks of 64, absmax in 8 bits", _double(codebooks.nf4_code, 64)),
        ("nf4 double 16", "NF4, blocks of 16, absmax in 8 bits", _double(codebooks.nf4_code, 16)),
        ("int3", "3-bit minimum and scale (fp16), blocks of 64", _affine(3, 64)),
        ("int2", "2-bit minimum and scale (fp16), blocks of 64", _affine(2, 64)),
        ("ternary", "-1, 0, 1 by mean |w|, one scale a matrix", _ternary),
    )
}

# Equal stored bits: at most 4.51, and at most 4.13. Each data type may use its best layout of those;
# scales of two levels are as open to integers as to NF4.
LEVELS = {
    "4.5 bits": {
        "nf4": ("nf4 64", "nf4 32", "nf4 double 16"),
        "others": ("int4 sym 64", "int4 sym 32", "int4 asym 64", "int4 asym 32 two-level",
                   "fp4 64", "e2m1 64", "e2m1 32"),
    },
    "4.13 bits": {
        "nf4": ("nf4 double",),
        "others": ("int4 sym double", "int4 asym 128 two-level", "fp4 double", "e2m1 double"),
    },
}  # fmt: skip
