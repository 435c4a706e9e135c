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


# How scales are stored: each function gives them as they will be read, and the (count, bits each) stored.


def _float(dtype):
    return lambda scale: (scale.to(dtype).float(), [(scale.numel(), torch.finfo(dtype).bits)])


def _whole(bits, signed=False):
    def store(scale):
        restored, second = integers.whole_scales(scale, bits, signed)
        return restored, [(scale.numel(), bits), (second.numel(), 32)]

    return store


def _e4m3(scale):
    """E4M3, whose largest is 448, under one fp32 for the matrix: the scales of NVFP4."""
    shared = (scale.amax() / 448).clamp_min(integers.TINY)
    return (scale / shared).to(torch.float8_e4m3fn).float() * shared, [(scale.numel(), 8), (1, 32)]


def _full_range(per, store):
    def parts(w):
        codes, scale = integers.full_range(w, 4, per, lambda scale: store(scale)[0])
        return integers.from_absmax(codes, scale), [(codes.numel(), 4), *store(scale)[1]]

    return parts


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


def _lookup(code, per, store):
    def parts(w):
        values = code()
        scale, stored = store(integers.groups(w.float(), per).abs().amax(dim=1, keepdim=True))
        codes, _ = codebooks.lookup(w, values, per, scale)
        return codebooks.from_lookup(codes, scale, values), [(codes.numel(), 4), *stored]

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
_FP32, _FP16 = _float(torch.float32), _float(_HALF)
_NF4, _FP4, _E2M1 = codebooks.nf4_code, codebooks.fp4_code, codebooks.e2m1_code
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
        ("int4 asym 16 two-level", "blocks of 16, 4-bit scale and minimum under fp16 ones for 4,096",
         _two_level(4, 16, 256, 4)),
        ("int4 asym 64 two-level", "blocks of 64, 4-bit scale and minimum under fp16 ones for 4,096",
         _two_level(4, 64, 64, 4)),
        ("int4 asym 128 two-level", "blocks of 128, 6-bit scale and minimum under fp16 ones for 1,024",
         _two_level(4, 128, 8, 6)),
        ("int4 sym double", "absmax, blocks of 64, absmax in 8 bits", _double(_even_code, 64)),
        ("int4 sym double 16", "absmax, blocks of 16, absmax in 8 bits", _double(_even_code, 16)),
        ("int4 full 32", "as Q4_0: -8 to 7, blocks of 32 (fp16 scale with a sign)", _full_range(32, _FP16)),
        ("int4 full 64 8-bit", "-8 to 7, blocks of 64, scale of sign and 7 bits",
         _full_range(64, _whole(8, signed=True))),
        ("int4 full 16 8-bit", "-8 to 7, blocks of 16, scale of sign and 7 bits",
         _full_range(16, _whole(8, signed=True))),
        ("int4 full 32 4-bit", "-8 to 7, blocks of 32, scale of sign and 3 bits",
         _full_range(32, _whole(4, signed=True))),
        ("fp4 64", "bitsandbytes' FP4, blocks of 64 (fp32 absmax)", _lookup(_FP4, 64, _FP32)),
        ("fp4 double", "bitsandbytes' FP4, blocks of 64, absmax in 8 bits", _double(_FP4, 64)),
        ("fp4 double 16", "bitsandbytes' FP4, blocks of 16, absmax in 8 bits", _double(_FP4, 16)),
        ("fp4 32 4-bit", "bitsandbytes' FP4, blocks of 32, absmax in 4 bits", _lookup(_FP4, 32, _whole(4))),
        ("e2m1 64", "E2M1, blocks of 64 (fp32 absmax)", _lookup(_E2M1, 64, _FP32)),
        ("e2m1 32", "E2M1, blocks of 32 (fp16 absmax)", _lookup(_E2M1, 32, _FP16)),
        ("e2m1 16 e4m3", "NVFP4: E2M1, blocks of 16, E4M3 scales", _lookup(_E2M1, 16, _e4m3)),
        ("e2m1 double", "E2M1, blocks of 64, absmax in 8 bits", _double(_E2M1, 64)),
        ("e2m1 double 16", "E2M1, blocks of 16, absmax in 8 bits", _double(_E2M1, 16)),
        ("e2m1 32 4-bit", "E2M1, blocks of 32, absmax in 4 bits", _lookup(_E2M1, 32, _whole(4))),
        ("nf4 64", "NF4, blocks of 64 (fp32 absmax)", _lookup(_NF4, 64, _FP32)),
        ("nf4 32", "NF4, blocks of 32 (fp16 absmax)", _lookup(_NF4, 32, _FP16)),
        ("nf4 double", "NF4, blocks of 64, absmax in 8 bits", _double(_NF4, 64)),
        ("nf4 double 16", "NF4, blocks of 16, absmax in 8 bits", _double(_NF4, 16)),
        ("nf4 32 4-bit", "NF4, blocks of 32, absmax in 4 bits", _lookup(_NF4, 32, _whole(4))),
        ("int3", "3-bit minimum and scale (fp16), blocks of 64", _affine(3, 64)),
        ("int2", "2-bit minimum and scale (fp16), blocks of 64", _affine(2, 64)),
        ("ternary", "-1, 0, 1 by mean |w|, one scale a matrix", _ternary),
    )
}

# Equal stored bits: at most 4.51, and at most 4.14. Every kind of value has the same freedom: blocks of 16 to
# 128, and scales of 32 or 16 bits, or of 8 or 4 under a second scale. What fits the bits best is listed.
LEVELS = {
    "4.5 bits": {
        "nf4": ("nf4 64", "nf4 32", "nf4 double 16"),
        "others": ("int4 sym 64", "int4 sym 32", "int4 sym double 16", "int4 full 32", "int4 full 16 8-bit",
                   "int4 asym 64", "int4 asym 32 two-level", "int4 asym 16 two-level", "fp4 64",
                   "fp4 double 16", "e2m1 64", "e2m1 32", "e2m1 16 e4m3", "e2m1 double 16"),
    },
    "4.13 bits": {
        "nf4": ("nf4 double", "nf4 32 4-bit"),
        "others": ("int4 sym double", "int4 full 64 8-bit", "int4 full 32 4-bit", "int4 asym 128 two-level",
                   "int4 asym 64 two-level", "fp4 double", "fp4 32 4-bit", "e2m1 double", "e2m1 32 4-bit"),
    },
}  # fmt: skip
