"""Intervals for scores: a bootstrap over phrasings, pooled over training seeds."""

import numpy as np

RESAMPLES = 2000


def pack_rows(flags):
    """A list of booleans as compact text: its length and hexadecimal digits."""
    bits = np.packbits(np.asarray(flags, dtype=bool))
    return f"{len(flags)}:{bits.tobytes().hex()}"


def unpack_rows(text):
    """The boolean array that `pack_rows` wrote."""
    count, digits = text.split(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8))[: int(count)].astype(bool)


def interval(flags, clusters, level=0.95, seed=0):
    """(mean, low, high) of a share: bootstrap over clusters of rows.

    `flags` (seeds, rows) or (rows,); `clusters` one label per row. Rows of one phrasing succeed
    and fail together, so whole phrasings are drawn. Where every row agrees, the bootstrap has
    no width and the rule of three over rows takes its place.
    """
    share = np.atleast_2d(np.asarray(flags, dtype=float)).mean(axis=0)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(share) != len(index):
        raise ValueError(f"{len(share)} results but {len(index)} cluster labels")
    mean = float(share.mean())
    if mean in (0.0, 1.0):
        reach = 3 / len(share)
        return mean, max(0.0, mean - reach), min(1.0, mean + reach)
    sums, sizes = np.bincount(index, weights=share), np.bincount(index)
    draws = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return mean, float(low), float(high)
