"""Weights as small integers: one scale for many weights, with or without an offset; LLM.int8's split."""

import torch

from labkit.errors import LabkitError

TINY = 1e-12  # stands in for the scale of weights that are all zero


def groups(w, per):
    """`w` as (groups, weights that share a scale); `per` is "tensor", "row" or a block size.

    Blocks are cut from the flattened tensor, as bitsandbytes cuts them. Raises LabkitError where they do not
    fit.
    """
    if per == "tensor":
        return w.reshape(1, -1)
    if per == "row":
        return w.reshape(-1, w.shape[-1])
    if not isinstance(per, int) or per < 1 or w.numel() % per:
        sizes = '"tensor", "row" or a block size that divides them'
        raise LabkitError(f"{w.numel()} weights do not divide into blocks: per={per!r} may be {sizes}")
    return w.reshape(-1, per)


def absmax(w, bits=8, per="tensor"):
    """Symmetric integers: q = round(w / scale), scale = max|w| / (2^(bits-1) - 1).

    Returns codes (same shape as `w`, int8, from -(2^(bits-1) - 1) on) and scales (groups, 1), float32.
    """
    x = groups(w.float(), per)
    scale = (x.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)).clamp_min(TINY)
    return torch.round(x / scale).to(torch.int8).reshape(w.shape), scale


def from_absmax(codes, scale):
    """w' = q · scale."""
    return (codes.reshape(len(scale), -1) * scale).reshape(codes.shape)


def full_range(w, bits=4, per=32, store=lambda scale: scale):
    """Symmetric integers that use every code: the largest |w| becomes -2^(bits-1), so scales may be negative.

    `store` rounds the scales (groups, 1) to what will be read back, before weights are divided by them.
    Returns codes (same shape, int8) and these scales, float32. With 4 bits, blocks of 32 and fp16 scales this
    is llama.cpp's Q4_0.
    """
    x = groups(w.float(), per)
    end = 2 ** (bits - 1)
    largest = x.gather(1, x.abs().argmax(dim=1, keepdim=True))
    scale = store(largest / -end)
    codes = torch.round(x / torch.where(scale == 0, TINY, scale)).clamp(-end, end - 1)
    return codes.to(torch.int8).reshape(w.shape), scale


def whole_scales(scale, bits=4, signed=False, per=256):
    """Scales as whole numbers of `bits` bits, one a sign if `signed`, under one fp32 for `per` of them.

    scale: (blocks, 1). No scale becomes 0: its block would be lost. Returns the scales as they are restored,
    same shape, and the second ones (blocks / per rounded up, 1), float32.
    """
    flat, top = scale.flatten(), 2 ** (bits - signed) - 1
    x = torch.cat([flat, flat.new_zeros(-len(flat) % per)]).reshape(-1, per)
    second = (x.abs().amax(dim=1, keepdim=True) / top).clamp_min(TINY)
    codes = (x.abs() / second).round().clamp(1, top) * torch.where(x < 0, -1, 1)
    return (codes * second).flatten()[: len(flat), None], second


def zero_point(w, bits=8, per="tensor"):
    """Asymmetric integers: q = round(w / scale) + zero, where code `zero` stands for exactly 0.

    The range [min, max], widened to hold 0, is spread over all 2^bits codes. Returns codes (same shape,
    uint8), scales and zeros (groups, 1), float32. Source: Jacob et al. 2018 (arXiv:1712.05877), eq. 1.
    """
    x = groups(w.float(), per)
    top = 2**bits - 1
    low, high = x.amin(dim=1, keepdim=True).clamp_max(0), x.amax(dim=1, keepdim=True).clamp_min(0)
    scale = ((high - low) / top).clamp_min(TINY)
    zero = torch.round(-low / scale)
    return (torch.round(x / scale) + zero).clamp(0, top).to(torch.uint8).reshape(w.shape), scale, zero


def from_zero_point(codes, scale, zero):
    """w' = (q - zero) · scale."""
    return ((codes.reshape(len(scale), -1) - zero) * scale).reshape(codes.shape)


def affine(w, bits=4, per=32, stored=torch.float16):
    """Asymmetric integers with a minimum that need not be a multiple of the scale: w' = q · scale + minimum.

    Scale and minimum are rounded to the type `stored` before they are used, as they will be afterwards.
    Returns codes (same shape, uint8), scales and minima (groups, 1), float32. With 4 bits and blocks of 32
    this is llama.cpp's Q4_1.
    """
    x = groups(w.float(), per)
    top = 2**bits - 1
    minimum = x.amin(dim=1, keepdim=True)
    scale = ((x.amax(dim=1, keepdim=True) - minimum) / top).to(stored).float()
    minimum = minimum.to(stored).float()
    steps = (x - minimum) / scale.clamp_min(TINY)
    return torch.round(steps).clamp(0, top).to(torch.uint8).reshape(w.shape), scale, minimum


def from_affine(codes, scale, minimum):
    """w' = q · scale + minimum."""
    return (codes.reshape(len(scale), -1) * scale + minimum).reshape(codes.shape)


def two_level(w, bits=4, per=32, blocks=8, scale_bits=6):
    """Like `affine`, with scales and minima in `scale_bits` bits, under an fp16 scale for `blocks` of them.

    The minimum is at most 0, and no scale is 0. Returns codes (same shape, uint8), scales and minima
    (groups, 1), float32, as they are restored. With the defaults this is the layout of llama.cpp's Q4_K,
    without its search for better scales. Raises LabkitError where the blocks do not fit.
    """
    x = groups(w.float(), per)
    if len(x) % blocks:
        raise LabkitError(f"{len(x)} blocks of {per} do not divide into groups of {blocks}: use another size")
    top, top_scale = 2**bits - 1, 2**scale_bits - 1

    def stored(each, least):
        shared = (each.reshape(-1, blocks).amax(dim=1, keepdim=True) / top_scale).to(torch.float16).float()
        shared = shared.clamp_min(TINY)
        return ((each.reshape(-1, blocks) / shared).round().clamp(least, top_scale) * shared).reshape(-1, 1)

    low = x.amin(dim=1, keepdim=True).clamp_max(0)
    scale, minimum = stored((x.amax(dim=1, keepdim=True) - low) / top, 1), -stored(-low, 0)
    steps = (x - minimum) / scale.clamp_min(TINY)
    return torch.round(steps).clamp(0, top).to(torch.uint8).reshape(w.shape), scale, minimum


def outlier_columns(x, threshold=6.0):
    """Which columns of activations `x` (tokens, features) hold a value of at least `threshold` either way."""
    return (x.abs() >= threshold).any(dim=0)


def int8_matmul(x, w, threshold=6.0):
    """x @ w.T with int8 codes, but for the outlier columns of `x`, which are multiplied as they are.

    x: (tokens, features); w: (out, features). One scale a token and one a row of `w`; the sums of products of
    codes are whole numbers. `threshold` may be infinity. bitsandbytes multiplies outliers by weights restored
    from int8, this by the weights themselves. Source: Dettmers et al. 2022 (arXiv:2208.07339), section 3.2.
    """
    apart = outlier_columns(x, threshold)
    x_codes, x_scale = absmax(x[:, ~apart], per="row")
    w_codes, w_scale = absmax(w[:, ~apart], per="row")
    # float64 holds such sums exactly; a GPU would multiply int8 and add up in int32.
    sums = x_codes.double() @ w_codes.double().T
    return (sums * x_scale * w_scale.T).to(x.dtype) + x[:, apart] @ w[:, apart].T
