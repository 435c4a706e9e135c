"""What the rows of a re-tested claim give: the interval and its known mistakes, what would decide, copies."""

import itertools
import math
from collections import namedtuple
from dataclasses import replace

import numpy as np

from labkit.exercises.retest import files
from labkit.records import judge, stats, store

TOLERANCE, LEAST = 0.05, 0.0006  # of an interval's width: another bootstrap's draws; of a number: rounding
ALIKE, FEWEST = 0.95, 10  # Cohen's kappa of two runs; right rows, and wrong, without which it says little
FACTOR = 2  # within which "so many would decide" is right
DECIDED = "decided"
Needed = namedtuple("Needed", "rows phrasings seeds")


def silent(table):
    """Why the rows of a Table tell nothing of its methods, in words; empty where they do."""
    for method, flags in table.flags.items():
        right, wrong = int(flags.sum()), int((1 - flags).sum())
        if min(right, wrong) < FEWEST:
            found = f"{method} has {right} right and {wrong} wrong answers over all seeds"
            return f"these rows tell nothing of the methods: {found}, at least {FEWEST} of each are wanted"
    return ""


def needed(band, found):
    """Needed: how many would decide a band, at the least; None if none would; DECIDED if it is.

    A lower bound: the mean is taken to stay, and the reach over rows to shrink as if all rows were of new
    phrasings. In the course's own record it halved from 240 rows to 5,000, of 104 and 120 phrasings.
    """
    wanted, runs = band.get("seeds", 1), found.fewest or len(found.each)
    if runs >= wanted and found.phrasings >= judge.PHRASINGS:
        if judge.judged(band, found)[0] != "undecided":
            return DECIDED
        enough = None if np.isnan(found.mean) else judge.enough(band, found)
        return enough and Needed(enough[0] * found.rows, enough[0] * found.phrasings, enough[1])
    times = max(1, judge.PHRASINGS / found.phrasings)
    return Needed(times * found.rows, times * found.phrasings, max(runs, wanted))


def unfit(values, least, course, where):
    """What is wrong with {"rows": ..., "seeds": ...} said to decide, where `least` do; empty if nothing is.

    None is right for rows that the split has not, and where only rows of the same phrasings are left in it.
    Raises Refused for what is no number.
    """
    phrasings = len(set(course.values()))
    if least.rows > len(course) and values["rows"] is not None:
        needed = f"it would take {least.rows:,.0f} rows of {least.phrasings:,.0f} phrasings at the least"
        split = f"the split has {len(course):,} rows of {phrasings} phrasings"
        return f"{needed}, {split}: give None for rows, and say if seeds or another test set would help"
    scarce = least.phrasings > phrasings
    for what, value in values.items():
        enough = getattr(least, what)
        if value is None:
            if scarce and values["rows"] is None:
                continue
            return f"{what} are missing: `labkit.records.judge` says what would decide"
        most = FACTOR * enough
        if scarce:
            most = max(most, len(course) if what == "rows" else judge.FAR)
        if not enough / FACTOR <= files.number(value, f"{where}, {what}", 1) <= most:
            return f"{value:,.0f} {what} claimed; if the mean stayed, {enough:,.0f} would at the least"
    return ""


def recorded(case):
    """{"full, seed 1": flags} of the course's own record, cut to the rows handed in; empty without any."""
    whole = store.read(case.claim["record"])
    at = {row: index for index, row in enumerate(case.course)}
    places = [at[row] for row in case.table.rows]
    found = {}
    scores = runs_of(whole) if whole else {}
    for method, score in scores.items():
        if (score["task"], score["split"]) == (case.rubric.task, case.rubric.split):
            for index, text in enumerate(score["rows"]):
                flags = stats.unpack_rows(text)
                if len(flags) > max(places):
                    found[f"{method}, run {index + 1}"] = flags[places].astype(float)
    return found


def runs_of(whole):
    """The scores of a record, each once: a method of default size stands there under its short name too."""
    scores, seen = {}, []
    for name, score in whole["scores"].items():
        if score not in seen:
            scores[name] = score
            seen.append(score)
    return scores


def kappa(first, second):
    """Cohen's kappa (1960) of two runs' flags; None where too few are right or wrong for it to say much."""
    a, b = first.mean(), second.mean()
    if min(first.sum(), (1 - first).sum(), second.sum(), (1 - second).sum()) < FEWEST:
        return None
    by_chance = a * b + (1 - a) * (1 - b)
    return float(((first == second).mean() - by_chance) / (1 - by_chance))


def alike(first, second):
    """Do two runs agree in more than chance and the difficulty of rows explain?"""
    found = kappa(first, second)
    return found is not None and found >= ALIKE


def likeness(first, second, apart=()):
    """How much two runs agree, in words; `apart` are runs known to be separate, on the same rows."""
    pairs = itertools.combinations([flags.astype(float) for flags in apart], 2)
    found = [value for value in (kappa(a, b) for a, b in pairs) if value is not None]
    known = f", separate runs of the record reach {max(found):.2f} on these rows" if found else ""
    return f"Cohen's kappa {kappa(first, second):.3f}, from {ALIKE} on it counts as a copy{known}"


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
