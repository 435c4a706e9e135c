"""What the rows of a re-tested claim give: the interval and its known mistakes, what would decide, copies."""

import math
from dataclasses import replace

import numpy as np

from labkit.records import judge, stats, store

TOLERANCE, LEAST = 0.05, 0.0006  # of an interval's width: another bootstrap's draws; of a number: rounding
ALIKE, FEWEST = 0.95, 10  # Cohen's kappa of two runs; right rows, and wrong, without which it says little
DECIDED = "decided"


def needed(band, found):
    """(rows, seeds) that would decide a band if the mean stayed; None if none would; DECIDED if it is."""
    wanted, runs = band.get("seeds", 1), found.fewest or len(found.each)
    if runs >= wanted and found.phrasings >= judge.PHRASINGS:
        if judge.judged(band, found)[0] != "undecided":
            return DECIDED
        enough = None if np.isnan(found.mean) else judge.enough(band, found)
        return enough and (enough[0] * found.rows, enough[1])
    return found.rows * max(1, judge.PHRASINGS / found.phrasings), max(runs, wanted)


def recorded(case):
    """{"full, seed 1": flags} of the course's own record, cut to the rows handed in; empty without any."""
    whole = store.read(case.claim["record"])
    at = {row: index for index, row in enumerate(case.course)}
    places = [at[row] for row in case.table.rows]
    found = {}
    for method, score in (whole["scores"] if whole else {}).items():
        if (score["task"], score["split"]) == (case.rubric.task, case.rubric.split):
            for index, text in enumerate(score["rows"]):
                flags = stats.unpack_rows(text)
                if len(flags) > max(places):
                    found[f"{method}, run {index + 1}"] = flags[places].astype(float)
    return found


def alike(first, second):
    """Do two runs agree in more than chance and the difficulty of rows explain?"""
    a, b = first.mean(), second.mean()
    if min(first.sum(), (1 - first).sum(), second.sum(), (1 - second).sum()) < FEWEST:
        return False
    by_chance = a * b + (1 - a) * (1 - b)
    return ((first == second).mean() - by_chance) / (1 - by_chance) >= ALIKE


def of(found):
    """Mean, low and high of an Estimate; None where there is no number."""
    return tuple(value if math.isfinite(value) else None for value in (found.mean, found.low, found.high))


def near(claimed, wanted, found):
    """Are two (mean, low, high) the same, but for what another bootstrap changes?"""
    width = found.high - found.low
    reach = LEAST + (TOLERANCE * width if math.isfinite(width) else 0)
    return all((a is None) == (b is None) and (a is None or abs(a - b) <= reach)
               for a, b in zip(claimed, wanted, strict=True))  # fmt: skip


def why(band, claimed, found, table):
    """The known mistake that gives such an interval, in words; empty where none does."""
    for given, hint in _mistakes(band, found, table):
        if near(claimed, given, replace(found, low=given[1], high=given[2])):
            return f". {hint}"
    return ""


def _mistakes(band, found, table):
    """Intervals that come of known mistakes, each with its hint."""
    if not all(map(math.isfinite, (found.mean, found.low, found.high))):
        return
    yield (100 * found.mean, 100 * found.low, 100 * found.high), "Give shares, not percent"
    if judge.kind_of(band) == "gap":
        yield (-found.mean, -found.high, -found.low), "The gap is the first score minus the second"
    if found.seeds_reach:
        yield (found.mean, found.rows_low, found.rows_high), "The spread of the training seeds is missing"
        low, high = found.mean - found.seeds_reach, found.mean + found.seeds_reach
        yield (found.mean, low, high), "The spread over phrasings is missing"
    if judge.kind_of(band) != "gap":
        return
    first, second = (table.flags[name] for name in band["gap"])
    reach = 1.96 * (first - second).mean(axis=0).std() / len(table.rows) ** 0.5
    for half in (reach, math.hypot(reach, found.seeds_reach)):
        hint = "Rows of one phrasing succeed and fail together: draw whole phrasings"
        yield (found.mean, found.mean - half, found.mean + half), hint
    one, other = stats.share(first, table.phrasings), stats.share(second, table.phrasings)
    hint = "Two intervals were subtracted: pair the methods row by row and seed by seed"
    yield (found.mean, one.low - other.high, one.high - other.low), hint


def triple(given):
    """Mean and interval as text."""
    mean, low, high = ("none" if value is None else f"{value:.4f}" for value in given)
    return f"{mean} [{low}, {high}]"


def agreement(first, second):
    """The share of rows in which two runs agree, in percent, rounded down: 100% is all."""
    return f"{math.floor(1000 * (first == second).mean()) / 10:.1f}%"
