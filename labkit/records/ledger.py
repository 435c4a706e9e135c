"""The ledger's verdicts: each claim's measured interval against the band fixed beforehand."""

import hashlib
import json

import numpy as np

from labkit.errors import LabkitError
from labkit.paths import DATA
from labkit.records import store
from labkit.records.stats import interval, unpack_rows

LEDGER = DATA / "claims.json"


def claims(lesson):
    """Print the claims of a lesson: band, measured value with its 95% interval, machine, verdict."""
    print("\n".join(table(lesson)))


def table(lesson):
    """The lines that `claims` prints."""
    found = [claim for claim in ledger() if claim["lesson"] == lesson]
    if not found:
        raise LabkitError(f"the ledger has no claim of lesson {lesson}")
    lines = []
    for claim in found:
        lines += _lines(claim)
    return lines


def ledger():
    """All claims, as the dicts of data/claims.json."""
    return json.loads(LEDGER.read_text())["claims"]


def band_digest(claim):
    """A digest of a claim's bands, stored in the record: a band moved afterwards shows."""
    return hashlib.sha256(json.dumps(claim["bands"], sort_keys=True).encode()).hexdigest()[:16]


def digests(record_name):
    """Band digests of every claim that reads the record `record_name`, to be stored in it."""
    return {claim["id"]: band_digest(claim) for claim in ledger() if claim["record"] == record_name}


def verdict(band, low, high):
    """`reproduced`, `contradicted here` or `undecided` for one interval and one band."""
    floor, ceiling = band.get("at_least", -np.inf), band.get("at_most", np.inf)
    if low >= floor and high <= ceiling:
        return "reproduced"
    if high < floor or low > ceiling:
        return "contradicted here"
    return "undecided"


def overall(verdicts):
    """A claim with several bands is reproduced only in all, and contradicted by any."""
    for worst in ("contradicted here", "undecided"):
        if worst in verdicts:
            return worst
    return "reproduced"


def _lines(claim):
    whole = store.read(claim["record"])
    lines = [f"{claim['id']}: {claim['claim']}"]
    if whole is None:
        return [*lines, "  not measured yet"]
    if whole["claims"].get(claim["id"]) != band_digest(claim):
        raise LabkitError(
            f"the band of {claim['id']} changed after {claim['record']} was recorded. "
            "Put it back, or measure again"
        )
    verdicts = []
    for band in [*claim["bands"], *claim["beside"]]:
        mean, low, high = measured(whole, band["score"])
        each = [unpack_rows(rows).mean() for rows in whole["scores"][band["score"]]["rows"]]
        runs = f"{int(whole['scores'][band['score']]['rows'][0].split(':')[0]):,} rows"
        if len(each) > 1:
            runs += f", {len(each)} seeds: {min(each):.1%} to {max(each):.1%}"
        line = f"  {band['says']:<50} {mean:6.1%}  [{low:.1%}, {high:.1%}]  {runs}"
        if "at_least" in band or "at_most" in band:
            verdicts.append(verdict(band, low, high))
            line += f"  band: {_band_text(band)}  {verdicts[-1]}"
        lines.append(line.rstrip())
    lines.append(
        f"  {overall(verdicts)}; recorded on {whole['machine']['device']}, "
        "95% intervals clustered by phrasing"
    )
    return lines


def measured(whole, name):
    """(mean, low, high) of one score of a record."""
    from labkit import tasks

    score = whole["scores"][name]
    clusters = tasks.load(score["task"])[score["split"]]["phrasing"]
    flags = np.stack([unpack_rows(rows) for rows in score["rows"]])
    return interval(flags, clusters[: flags.shape[1]])


def _band_text(band):
    return f"at least {band['at_least']:.0%}" if "at_least" in band else f"at most {band['at_most']:.0%}"
