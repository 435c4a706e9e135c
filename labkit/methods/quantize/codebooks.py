"""Weights as numbers of a code book: NF4 and FP4 in blocks of 64, and scales that are quantized too."""

from statistics import NormalDist

import torch

from labkit.methods.quantize.integers import groups

SMALLEST = 1e-38  # stands in for the scale of a block of zeros, as in bitsandbytes


def nf4_code():
    """The 16 values of NF4 (float32, ascending): quantiles of the normal distribution; largest is 1.

    Eight quantiles lie above 0 and seven below, so that 0 itself is one of the values. Source: Dettmers et
    al. 2023 (arXiv:2305.14314), section 3; the outermost probability as in bitsandbytes.
    """
    last = 0.9677083

    def quantiles(count):
        chances = (last + (0.5 - last) * i / count for i in range(count))
        return [NormalDist().inv_cdf(p) for p in chances]

    values = sorted([-v for v in quantiles(7)] + [0.0] + quantiles(8))
    return torch.tensor([v / values[-1] for v in values])


def e2m1_code():
    """The 16 values of FP4 as hardware has it, by code: sign, 2 exponent bits, 1 mantissa bit; largest is 1.

    Source: Open Compute Project, Microscaling Formats (MX) 1.0, E2M1; there the largest is 6.
    """
    positive = [2.0 ** (max(e, 1) - 1) * ((e > 0) + m / 2) for e in range(4) for m in range(2)]
    return torch.tensor([sign * v / positive[-1] for sign in (1, -1) for v in positive])


def fp4_code():
    """The 16 values of FP4 as bitsandbytes has it, by code; largest is 1.

    Its exponent counts down, and its smallest positive value is 1/192 where E2M1 has 1/12.
    """
    positive = [0.0, 0.0625] + [2.0 ** (4 - e) * (1 + m / 2) for e in (1, 2, 3) for m in range(2)]
    return torch.tensor([sign * v / max(positive) for sign in (1, -1) for v in positive])


def dynamic_code():
    """The 256 values of the 8-bit dynamic type (float32, ascending): seven decades, each finer than the last.

    Source: Dettmers 2016 (arXiv:1511.04561); the signed map of bitsandbytes.
    """
    values = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade + 1)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - 6)
        values += [*middles.tolist(), *(-middles).tolist()]
    return torch.tensor(sorted(values))


def lookup(w, code, per=64, scale=None):
    """The code of the nearest value for each weight, after each group is divided by its largest |w|.

    Returns codes (same shape, uint8) and the absmax of each group (groups, 1), float32; where `scale` is
    given, groups are divided by that instead. A tie goes to the lower value.
    """
    x = groups(w.float(), per)
    scale = x.abs().amax(dim=1, keepdim=True) if scale is None else scale
    order = torch.argsort(code.to(w.device), stable=True)  # codes need not be sorted by value: FP4's are not
    values = code.to(w.device)[order]
    borders = (values[:-1] + values[1:]) / 2
    place = torch.bucketize(x * (1 / scale.clamp_min(SMALLEST)), borders, out_int32=True)
    return order.to(torch.uint8)[place].reshape(w.shape), scale


def from_lookup(codes, scale, code):
    """w' = code[q] · absmax."""
    return (code.to(codes.device)[codes.int()].reshape(len(scale), -1) * scale).reshape(codes.shape)


def double(scale, per=256):
    """Quantize the absmax values themselves: subtract their mean, then 8-bit dynamic codes, blocks of 256.

    scale: (blocks, 1), all positive. Returns codes (blocks,), uint8, the second absmax (blocks / 256 rounded
    up, 1), and the mean, a scalar. Source: Dettmers et al. 2023, section 3; the paper says 8-bit floats, the
    dynamic codes are bitsandbytes'.
    """
    flat = scale.flatten()
    mean = flat.mean()
    short = -len(flat) % per
    padded = torch.cat([flat - mean, flat.new_zeros(short)])  # zeros do not change the last block's absmax
    codes, second = lookup(padded, dynamic_code(), per)
    return codes[: len(flat)], second, mean


def from_double(codes, second, mean, per=256):
    """absmax' = code[q] · second + mean, as (blocks, 1)."""
    each = second.repeat_interleave(per, dim=0)[: len(codes)]
    return dynamic_code().to(codes.device)[codes.int()][:, None] * each + mean


def pack(codes):
    """Two 4-bit codes a byte, the first in the upper half: (n,) uint8 becomes (n / 2 rounded up,) uint8."""
    flat = codes.flatten()
    flat = torch.cat([flat, flat.new_zeros(len(flat) % 2)])
    return flat[::2] * 16 + flat[1::2]


def unpack(packed):
    """The codes that `pack` wrote, two for each byte."""
    return torch.stack([packed // 16, packed % 16], dim=1).flatten()
