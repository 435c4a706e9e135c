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

    The minimum is at most 0. Returns codes (same shape, uint8), scales and minima (groups, 1), float32, as
    they are restored. With the defaults this is the layout of llama.cpp's Q4_K, without its search for better
    scales. Raises LabkitError where the blocks do not fit.
    """
    x = groups(w.float(), per)
    if len(x) % blocks:
        raise LabkitError(f"{len(x)} blocks of {per} do not divide into groups of {blocks}: use another size")
    top, top_scale = 2**bits - 1, 2**scale_bits - 1

    def stored(each):
        shared = (each.reshape(-1, blocks).amax(dim=1, keepdim=True) / top_scale).to(torch.float16).float()
        shared = shared.clamp_min(TINY)
        return ((each.reshape(-1, blocks) / shared).round().clamp(0, top_scale) * shared).reshape(-1, 1)

    low = x.amin(dim=1, keepdim=True).clamp_max(0)
    scale, minimum = stored((x.amax(dim=1, keepdim=True) - low) / top), -stored(-low)
    steps = (x - minimum) / scale.clamp_min(TINY)
    return torch.round(steps).clamp(0, top).to(torch.uint8).reshape(w.shape), scale, minimum


def outlier_columns(x, threshold=6.0):
    """Which columns of activations `x` (tokens, features) hold a value of at least `threshold` either way."""
    return (x.abs() >= threshold).any(dim=0)


def int8_matmul(x, w, threshold=6.0):
    """x @ w.T with int8 codes, but for the outlier columns of `x`, which are multiplied as they are.

    x: (tokens, features); w: (out, features). One scale a token and one a row of `w`; the sums of products of
    codes are whole numbers. `threshold` may be infinity. Source: Dettmers et al. 2022 (arXiv:2208.07339),
    section 3.2.
    """
    apart = outlier_columns(x, threshold)
    x_codes, x_scale = absmax(x[:, ~apart], per="row")
    w_codes, w_scale = absmax(w[:, ~apart], per="row")
    # float64 holds such sums exactly; a GPU would multiply int8 and add up in int32.
    sums = x_codes.double() @ w_codes.double().T
    return (sums * x_scale * w_scale.T).to(x.dtype) + x[:, apart] @ w[:, apart].T
