"""Intervals for scores, paired gaps and paired ratios: over other phrasings and other training seeds.

Two things would differ if the measurement were made again: the phrasings, of which there are about a hundred,
and the training seeds, of which there are three. A bootstrap stands in for the first. It cannot for the
second: with three seeds its 95% interval is about their range, which holds the truth three times in four.
So seeds get Student's t over their own results, and both reaches are combined as the root of their squares
(MOVER: Zou and Donner 2008), which lets the bootstrap's interval stay lopsided near 0 and 1.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

RESAMPLES = 2000
# Two-sided 95% points of Student's t for 1 to 10 degrees of freedom; beyond, an expansion is right to 0.003.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


STATED = ("rows_low", "rows_high", "seeds_reach", "rows", "phrasings")  # parts of an Estimate, if kept


@dataclass(frozen=True)
class Estimate:
    """A measured number with its 95% interval, and how far phrasings and seeds alone would carry it."""

    mean: float
    low: float
    high: float
    each: tuple  # the number for each training seed
    rows_low: float  # interval over phrasings alone, for the seeds given
    rows_high: float
    seeds_reach: float  # half-width over seeds alone; 0 with one seed, whose spread nobody knows
    rows: int = 0  # of each seed; 0 for a value that has no rows
    phrasings: int = 0
    fewest: int = 0  # seeds of the side that has fewest; 0 where no side has seeds of its own


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
    mean = float(share.mean())
    low, high = np.quantile(_redrawn([share], clusters, seed)[0], [(1 - level) / 2, (1 + level) / 2])
    floor, ceiling = wilson(mean, len(share), level)
    return mean, min(float(low), floor), max(float(high), ceiling)


def share(flags, clusters):
    """Estimate of a share over rows: `interval`, widened by the spread of the training seeds.

    `flags` (seeds, rows) or (rows,); `clusters` one label per row.
    """
    flags = np.atleast_2d(np.asarray(flags, dtype=float))
    return _estimate(*interval(flags, clusters), flags.mean(axis=1), flags, clusters, (0.0, 1.0))


def gap(first, second, clusters):
    """Estimate of share(first) - share(second), paired row by row and seed by seed.

    Both (seeds, rows) or (rows,), of the same rows and as many seeds; one seed stands against each of many.
    Where hardly a row differs the bootstrap has no width; the interval then covers that of Bonett and Price
    (2012) for paired shares. ValueError for other shapes.
    """
    first, second = _paired(first, second)
    apart = first - second
    by_row = apart.mean(axis=0)
    mean = float(by_row.mean())
    low, high = np.quantile(_redrawn([by_row], clusters)[0], [0.025, 0.975])
    floor, ceiling = _bonett_price(by_row)
    low, high = min(float(low), floor), max(float(high), ceiling)
    return _estimate(mean, low, high, apart.mean(axis=1), apart, clusters, (-1.0, 1.0))


def ratio(first, second, clusters):
    """Estimate of share(first) / share(second), paired like `gap`; no number where `second` is 0."""
    first, second = _paired(first, second)
    below = second.mean(axis=1)
    if not below.all():
        nothing = (np.nan, -np.inf, np.inf)
        return _estimate(*nothing, [np.nan] * len(below), first, clusters, (-np.inf, np.inf))
    mean = float(first.mean() / second.mean())
    tops, bottoms = _redrawn([first.mean(axis=0), second.mean(axis=0)], clusters)
    ratios = np.where(bottoms > 0, tops / np.maximum(bottoms, 1e-12), np.inf)
    low, high = np.quantile(ratios, [0.025, 0.975], method="nearest")  # between infinities lies no number
    apart = first - second
    floor, ceiling = _bonett_price(apart.mean(axis=0))
    low, high = min(low, 1 + floor / second.mean()), max(high, 1 + ceiling / second.mean())
    each = first.mean(axis=1) / below
    return _estimate(mean, float(low), float(high), each, first, clusters, (0.0, np.inf))


def kept(merged, base, own, clusters):
    """Estimate of (share(merged) - share(base)) / (share(own) - share(base)): what is kept of a gain.

    `merged` and `own` are paired like `gap`, `base` (rows,) or (1, rows); no number without a gain.
    """
    merged, own = _paired(merged, own)
    base = np.atleast_2d(np.asarray(base, dtype=float)).mean(axis=0)
    gained, whole = merged - base, own - base
    if whole.mean() <= 0:
        return _estimate(np.nan, -np.inf, np.inf, [np.nan] * len(merged), merged, clusters, (-np.inf, np.inf))
    tops, bottoms = _redrawn([gained.mean(axis=0), whole.mean(axis=0)], clusters)
    shares = np.where(bottoms > 0, tops / np.maximum(bottoms, 1e-12), np.inf)
    low, high = np.quantile(shares, [0.025, 0.975], method="nearest")  # between infinities lies no number
    floor, ceiling = _bonett_price((merged - own).mean(axis=0))
    low, high = min(low, 1 + floor / whole.mean()), max(high, 1 + ceiling / whole.mean())
    if np.quantile(bottoms, 0.025) <= 0:  # over what may be nothing a ratio has no bound on either side
        low, high = -np.inf, np.inf
    below = whole.mean(axis=1)
    each = np.where(below > 0, gained.mean(axis=1) / np.where(below > 0, below, 1), np.nan)
    mean = float(gained.mean() / whole.mean())
    return _estimate(mean, float(low), float(high), each, merged, clusters, (-np.inf, np.inf))


def of_values(values):
    """Estimate of the mean of one number per training seed, by Student's t; one number has no interval."""
    each = np.atleast_1d(np.asarray(values, dtype=float))
    mean = float(each.mean())
    return _estimate(mean, mean, mean, each, None, None, (-np.inf, np.inf))


def stated(mean, low, high, each, **known):
    """Estimate of a number whose 95% interval its benchmark worked out; None without a mean.

    It may be over more than seeds, or of no mean: a ratio of spreads, say. `each` are the seeds' own numbers.
    `known` are all of STATED, or none: then how far phrasings alone would carry it is not known.
    """
    if mean is None:
        return None
    if known:
        return Estimate(mean, low, high, tuple(each), **known)
    reach = max(high - mean, mean - low) if len(each) > 1 else 0.0
    return Estimate(mean, low, high, tuple(each), mean, mean, reach)


def student(freedom):
    """The two-sided 95% point of Student's t; infinite without a degree of freedom."""
    if freedom < 1:
        return np.inf
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    z = NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _estimate(mean, rows_low, rows_high, each, rows, clusters, bounds):
    """An Estimate from the interval over phrasings and the results of each seed."""
    each = np.asarray(each, dtype=float)
    count = len(each)
    reach = float(student(count - 1) * each.std(ddof=1) / count**0.5) if count > 1 else 0.0
    low, high = mean - np.hypot(mean - rows_low, reach), mean + np.hypot(rows_high - mean, reach)
    if np.isnan(mean):
        low, high = rows_low, rows_high
    low, high = max(bounds[0], float(low)), min(bounds[1], float(high))
    sizes = (0, 0) if rows is None else (rows.shape[1], len(np.unique(clusters)))
    return Estimate(mean, low, high, tuple(each.tolist()), rows_low, rows_high, reach, *sizes)


def _redrawn(columns, clusters, seed=0):
    """The mean of each column of row values in `RESAMPLES` draws of whole phrasings, the same for all."""
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(columns[0]) != len(index):
        raise ValueError(f"{len(columns[0])} results but {len(index)} cluster labels")
    sizes = np.bincount(index)
    draws = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    rows = sizes[draws].sum(axis=1)
    return [np.bincount(index, weights=column)[draws].sum(axis=1) / rows for column in columns]


def _paired(first, second):
    first, second = (np.atleast_2d(np.asarray(flags, dtype=float)) for flags in (first, second))
    seeds = {len(first), len(second)}
    if first.shape[1] != second.shape[1] or (len(seeds) > 1 and 1 not in seeds):
        shapes = f"{first.shape} with {second.shape}"
        raise ValueError(f"cannot pair {shapes} (seeds, rows): wanted are the same rows, and seeds")
    return np.broadcast_arrays(first, second)


def _bonett_price(by_row):
    """(low, high) of the mean of paired differences of rows, one row of 1 and one of -1 added."""
    padded = np.append(by_row, [1.0, -1.0])
    reach = NormalDist().inv_cdf(0.975) * padded.std() / len(padded) ** 0.5
    return padded.mean() - reach, padded.mean() + reach


def wilson(share, count, level=0.95):
    """(low, high) of a share of `count` independent rows (Wilson 1927): sound at 0 and 1 too."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5 / (1 + z * z / count)
    return max(0.0, centre - reach), min(1.0, centre + reach)
