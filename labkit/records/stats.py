"""Intervals for scores: a bootstrap over phrasings, pooled over training seeds."""

from statistics import NormalDist

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
    """(mean, low, high) of a share over rows, for the training seeds given.

    `flags` (seeds, rows) or (rows,); `clusters` one label per row. Rows of one phrasing succeed
    and fail together, so a bootstrap draws whole phrasings. Where nearly every row agrees it has hardly
    any width; so the interval also covers Wilson's, over the number of rows.
    """
    share = np.atleast_2d(np.asarray(flags, dtype=float)).mean(axis=0)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(share) != len(index):
        raise ValueError(f"{len(share)} results but {len(index)} cluster labels")
    mean = float(share.mean())
    sums, sizes = np.bincount(index, weights=share), np.bincount(index)
    draws = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    floor, ceiling = wilson(mean, len(share), level)
    return mean, min(float(low), floor), max(float(high), ceiling)


def wilson(share, count, level=0.95):
    """(low, high) of a share of `count` independent rows (Wilson 1927): sound at 0 and 1 too."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5 / (1 + z * z / count)
    return max(0.0, centre - reach), min(1.0, centre + reach)
