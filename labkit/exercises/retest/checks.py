"""What a program can say of a re-tested claim: one check for each criterion that the rubric gives to it.

A check takes a `files.Case` and returns "" where the criterion is earned, else what it found. A part
that cannot be read raises Refused, which says the same of every criterion that needs it.
"""

import itertools
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from labkit.exercises.retest import files, numbers, tuning
from labkit.exercises.retest.files import Refused
from labkit.records import judge, ledger

ROUNDED = 0.0006  # an accuracy given with three digits
SAME_TOKENS = 0.01
CHECKS = {}


def check(function):
    """Register a check under its name, which is its criterion's id."""
    CHECKS[function.__name__] = function
    return function


@check
def sealed(case):
    receipt = case.seal
    if receipt.get("claim") != case.claim["id"]:
        return f"{files.SEAL} is for another claim than {case.claim['id']}"
    named = files.mapping(receipt.get("files"), f"{files.SEAL}: files")
    for name in files.SEALED:
        if named.get(name) != files.digest(files.read_bytes(case.folder / name)):
            return f"{name} is not the file that was sealed"
    seal = files.seal_of(receipt)
    if receipt.get("seal") != seal:
        return f"{files.SEAL} was changed after it was written"
    if case.results.seal != seal:
        return f"{files.RESULTS} names another seal than {seal}"
    at = files.instant(receipt.get("sealed"), f"{files.SEAL}: sealed")
    if case.results.started < at:
        return f"the results begin at {case.results.started}, the seal is of {at}"
    if case.results.started > datetime.now(UTC) + timedelta(days=1):
        return f"the results begin in the future, at {case.results.started:%Y-%m-%d %H:%M}"
    return ""


@check
def prediction(case):
    found = probabilities(case)
    total = sum(found.values())
    if abs(total - 1) > 0.01:
        return f"the probabilities add up to {total:.3g}"
    expected = files.listing(case.prediction.get("expected"), "expected", len(case.claim["bands"]))
    for value in expected:
        files.number(value, f"{files.PREDICTION}: an expected number")
    return ""


@check
def seeds(case):
    found, wanted = len(case.table.seeds), max(band.get("seeds", 1) for band in case.claim["bands"])
    return f"{found}; the bands ask for {wanted}" if found < wanted else ""


@check
def same_rows(case):
    scores, table = case.results.scores, case.table
    for method, seed in itertools.product(case.methods, table.seeds):
        missing = len(_all_rows(case)) - len(scores[method, seed])
        if missing:
            compared = f"{len(table.rows)} were compared"
            return f"{method}, seed {seed} lacks {missing} rows that others have; {compared}"
    return ""


@check
def phrasings(case):
    found = len(set(case.table.phrasings))
    return f"{found}; at least {judge.PHRASINGS} are wanted" if found < judge.PHRASINGS else ""


@check
def as_planned(case):
    if said := design(case):
        return said
    planned, ran = set(case.design["seeds"]), {seed for _, seed in case.results.scores}
    if planned != ran:
        return f"seeds {_joined(planned)} were planned, {_joined(ran)} run"
    planned, ran = case.design["rows"], len(_all_rows(case))
    return f"{planned} rows were planned, {ran} scored" if planned != ran else ""


@check
def equal(case):
    planned = files.whole(case.design.get("steps"), f"{files.DESIGN}: steps", 1)
    runs = _runs(case)
    for (method, seed), run in runs.items():
        if run["steps"] != planned:
            return f"{method}, seed {seed} took {run['steps']} steps, the design says {planned}"
    for seed in case.table.seeds:  # other seeds draw other rows
        tokens = {method: runs[method, seed]["tokens"] for method in case.methods}
        if max(tokens.values()) > (1 + SAME_TOKENS) * min(tokens.values()):
            seen = ", ".join(f"{method} {count:,}" for method, count in tokens.items())
            return f"the tokens that they saw with seed {seed} differ: {seen}"
    return ""


@check
def tuned(case):
    methods = files.mapping(case.design.get("methods"), f"{files.DESIGN}: methods")
    tried = {method: _rates(methods.get(method), method) for method in case.methods}
    if len({len(rates) for rates in tried.values()}) > 1:
        return ", ".join(f"{len(rates)} learning rates for {method}" for method, rates in tried.items())
    used = {}
    for (method, _), run in _runs(case).items():
        used.setdefault(method, set()).add(float(run["lr"]))
    for method, rates in used.items():
        if len(rates) > 1:
            return f"{method} ran at {len(rates)} learning rates: use one for all seeds"
        if not rates <= tried[method]:
            return f"{method} ran at {min(rates):g}, which the design does not list"
    found = tuning.read(case.folder, case.methods)
    for method, rates in tried.items():
        if lacking := rates - {rate for name, rate in found if name == method}:
            return f"{tuning.TUNING} has no line for {method} at {min(lacking):g}"
        best = tuning.best(found, method)
        if method in used and best not in used[method]:
            lowest = "none has a loss" if best is None else f"{best:g} has the lowest loss"
            return f"{method} ran at {min(used[method]):g}, but {lowest} ({tuning.shown(found, method)})"
    return ""


@check
def adds_up(case):
    claimed = files.mapping(case.conclusion.get("accuracy"), f"{files.CONCLUSION}: accuracy")
    table = case.table
    for method in case.methods:
        where = f"{files.CONCLUSION}: accuracy of {method}"
        given = files.listing(claimed.get(method), where, len(table.seeds))
        for seed, value, flags in zip(table.seeds, given, table.flags[method], strict=True):
            if abs(files.number(value, where) - flags.mean()) > ROUNDED:
                return f"{method}, seed {seed}: {flags.mean():.3f} of the rows, {value:.3f} claimed"
    return ""


@check
def own_rows(case):
    table = case.table
    mine = {f"{method}, seed {seed}": flags for method in case.methods
            for seed, flags in zip(table.seeds, table.flags[method], strict=True)}  # fmt: skip
    for (one, first), (other, second) in itertools.combinations(mine.items(), 2):
        if numbers.alike(first, second):
            share = numbers.agreement(first, second)
            return f"{one} and {other} agree in {share} of the rows ({numbers.likeness(first, second)})"
    recorded = numbers.recorded(case)
    for theirs, known in recorded.items():
        for one, flags in mine.items():
            if numbers.alike(flags, known):
                share = numbers.agreement(flags, known)
                of = theirs.partition(", run ")[0]
                apart = [flags for name, flags in recorded.items() if name.startswith(f"{of}, run ")]
                words = numbers.likeness(flags, known, apart)
                return f"{one} agrees in {share} of the rows with the course's record of {theirs} ({words})"
    return ""


@check
def interval(case):
    if said := numbers.silent(case.table):
        return said
    for band, (claimed, _), found in _bands(case):
        right = numbers.of(found)
        if not numbers.near(claimed, right, found):
            because = numbers.why(band, claimed, found, case.table)
            shown = f"{numbers.triple(claimed)} claimed, {numbers.triple(right)} found"
            return f"{band['says']}: {shown}{because}"
    return ""


@check
def verdict(case):
    if silent := numbers.silent(case.table):
        return f"{silent}; so none does"
    said = []
    for band, (claimed, given), found in _bands(case):
        own = (found.mean, found.low, found.high)
        mean, low, high = (mine if value is None else value for value, mine in zip(claimed, own, strict=True))
        if mean < low or mean > high:
            return f"{band['says']}: the mean lies outside its interval"
        follows, why = judge.judged(band, replace(found, mean=mean, low=low, high=high))
        if given != follows:
            because = f" ({why})" if why and "would decide" not in why else ""
            here = f"its interval and its band, {ledger.band_text(band)}"
            return f"{band['says']}: {here}, give {follows}{because}, not {given}"
        said.append(follows)
    whole = case.conclusion.get("verdict")
    if whole != judge.overall(said):
        return f"bands that are {_joined(said)} make the claim {judge.overall(said)}, not {str(whole)[:40]}"
    return ""


@check
def decides(case):
    if said := numbers.silent(case.table):
        return said
    bands = list(zip(case.claim["bands"], case.estimates, strict=True))
    if judge.overall([judge.judged(band, found)[0] for band, found in bands]) != "undecided":
        return ""
    wanted = [numbers.needed(band, found) for band, found in bands]
    wanted = [one for one in wanted if one != numbers.DECIDED]
    where = f"{files.CONCLUSION}: would_decide"
    given = files.mapping(case.conclusion.get("would_decide"), where)
    values = {what: given.get(what) for what in ("rows", "seeds")}
    if None in wanted:
        named = [what for what, value in values.items() if value is not None]
        why = "the mean lies on the band's edge or near it, or there is none: give None (null in the file)"
        return f"no number of {named[0]} is likely to, {why}" if named else ""
    least = numbers.Needed(*map(max, zip(*wanted, strict=True)))
    return numbers.unfit(values, least, case.course, where)


def design(case):
    """What a design lacks, like a check; raises Refused."""
    given = case.design
    planned = files.mapping(given.get("methods"), f"{files.DESIGN}: methods")
    if set(planned) != set(case.methods):
        return f"the design has the methods {_joined(planned)}; the claim compares {_joined(case.methods)}"
    for method in case.methods:
        _rates(planned[method], method)
    for seed in files.listing(given.get("seeds"), f"{files.DESIGN}: seeds"):
        files.whole(seed, f"{files.DESIGN}: a seed", 0, 2**32)
    for what in ("steps", "rows"):
        files.whole(given.get(what), f"{files.DESIGN}: {what}", 1)
    return ""


def probabilities(case):
    """The probabilities predicted, by verdict; raises Refused."""
    given = files.mapping(case.prediction.get("probabilities"), f"{files.PREDICTION}: probabilities")
    where = f"{files.PREDICTION}: the probability of"
    return {said: files.number(given.get(said), f"{where} {said}", 0, 1) for said in files.VERDICTS}


def claimed_bands(case):
    """[((mean, low, high), verdict)] claimed for each band; None where there is said to be no number."""
    count = len(case.claim["bands"])
    given = files.listing(case.conclusion.get("bands"), f"{files.CONCLUSION}: bands", count)
    found = []
    for band, one, estimate in zip(case.claim["bands"], given, case.estimates, strict=True):
        one = files.mapping(one, f"{files.CONCLUSION}: bands")
        where = f"{files.CONCLUSION}: {band['says']}, "
        values = [one.get(key) for key in ("mean", "low", "high")]
        if values == [None] * 3 and not math.isnan(estimate.mean):
            raise Refused(f"{where}mean, low and high are empty")
        keys = zip(("mean", "low", "high"), values, strict=True)
        values = [None if value is None else files.number(value, where + key) for key, value in keys]
        found.append((tuple(values), str(one.get("verdict"))[:40]))
    return found


def _bands(case):
    return zip(case.claim["bands"], claimed_bands(case), case.estimates, strict=True)


def _all_rows(case):
    return set().union(*case.results.scores.values())


def _runs(case):
    """The lines of all runs; raises Refused where one is missing."""
    for method, seed in itertools.product(case.methods, case.table.seeds):
        if (method, seed) not in case.results.runs:
            raise Refused(f"{files.RESULTS} has no line with steps and tokens of {method}, seed {seed}")
    return case.results.runs


def _rates(design, method):
    where = f"{files.DESIGN}: learning rates of {method}"
    rates = files.listing(files.mapping(design, f"{files.DESIGN}: {method}").get("rates"), where)
    if not rates:
        raise Refused(f"{where} are missing")
    return {files.number(rate, where, 0, 1000) for rate in rates}


def _joined(names):
    return ", ".join(map(str, sorted(names, key=str)))[:120] or "none"
