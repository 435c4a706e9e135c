"""The ledger, data/claims.json: what the field repeats, the band fixed before measuring, and the verdict.

A claim has an id, lesson ("05", or "01, 06"), claim, measure, `record` (which measurement; null before there
is one), `bands` (see `labkit.records.judge`), `beside` (bands without bounds: only shown) and a `kind`:
measured, arithmetic, source wrong, not testable here. Of the last three `shown` gives the calculation, the
right statement, or why. `reproduced_if` is the condition in words, where bands alone do not say it.
"""

import hashlib
import json
import textwrap

import numpy as np

from labkit.errors import LabkitError
from labkit.paths import DATA
from labkit.records import judge, store
from labkit.records.judge import measured, overall, verdict

__all__ = ["band_digest", "bands", "claims", "digests", "ledger", "measured", "merged", "overall", "stamp",
           "table", "verdict"]  # fmt: skip

LEDGER = DATA / "claims.json"
KINDS = ("measured", "arithmetic", "source wrong", "not testable here")
WIDTH = 110
ONE = "one number"  # in place of an interval
MOVED = "moved while it was measured"
SCALES = {"%": (100, "%"), "GB": (1e-9, " GB"), "GiB": (2**-30, " GiB"), "points": (100, " points"),
          "times": (1, "×")}  # fmt: skip


def claims(lesson, live=None):
    """Print the claims of a lesson: value with its 95% interval, band, verdict; recorded, and live beside it.

    `live` is what the lesson has just measured, by claim id, under the names that the claim's bands use:
    {"lora-match": {"scores": {"full": flags, ...}, "phrasing": test["phrasing"], "values": {...}}}, flags one
    list of booleans or one per seed. It is judged like the record, and differs between machines: do not
    compare such a cell's output. LabkitError for a lesson or an id that the ledger does not have.
    """
    print("\n".join(table(lesson, live)))


def table(lesson, live=None):
    """The lines that `claims` prints, at most 110 characters wide."""
    found = [claim for claim in ledger() if lesson in claim["lesson"].split(", ")]
    if not found:
        raise LabkitError(f"the ledger has no claim of lesson {lesson}")
    unknown = sorted(set(live or {}) - {claim["id"] for claim in found})
    if unknown:
        known = ", ".join(claim["id"] for claim in found)
        raise LabkitError(f"lesson {lesson} has no claim {unknown[0]!r} to judge live; it has {known}")
    lines = []
    for claim in found:
        lines += _lines(claim, (live or {}).get(claim["id"]))
    return lines


def ledger():
    """All claims, as the dicts of data/claims.json."""
    return json.loads(LEDGER.read_text())["claims"]


def band_digest(claim):
    """A digest of a claim's bands and condition, stored in the record: moved afterwards, they show."""
    fixed = claim["bands"]
    if "reproduced_if" in claim:
        fixed = [fixed, claim["reproduced_if"]]
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:16]


def bands():
    """{claim: digest of its band} as they are now; every job of a benchmark leaves them with its result."""
    return {claim["id"]: band_digest(claim) for claim in ledger()}


def digests(record_name):
    """`bands` of the claims that read a record: for one whose jobs cannot be older than the ledger."""
    return {claim["id"]: band_digest(claim) for claim in ledger() if claim["record"] == record_name}


def stamp(results):
    """{claim: digest of its band} when `results` of jobs were measured, for the record that they make.

    A claim that the ledger did not have at each of them is none of this record's; one whose band moved in
    between gets the digest MOVED, which is never right.
    """
    found = [result["bands"] for result in results]
    shared = {name for each in found for name in each if all(name in other for other in found)}
    return {name: found[0][name] if len({each[name] for each in found}) == 1 else MOVED for name in shared}


def merged(stamped, before):
    """The digests of a record whose results join those of one with the digests `before` (None: of none).

    A claim that came between the two is not the record's; one whose band moved between them gets the digest
    MOVED: results may have lain in a folder for long, so either of the two may be the older.
    """
    if before is None:
        return stamped
    return {name: old if stamped[name] == old else MOVED for name, old in before.items() if name in stamped}


def record_of(claim):
    """The record of a claim; None without one that was made with the claim in the ledger.

    LabkitError if the claim's band changed after it was made, or while it was.
    """
    whole = store.read(claim["record"]) if claim["record"] else None
    if whole is None or claim["id"] not in whole["claims"]:
        return None
    stored, what = whole["claims"][claim["id"]], f"the band of {claim['id']} changed"
    new = "A new band wants a new claim (another id), measured after it was written"
    if stored == MOVED:
        raise LabkitError(f"{what} while {claim['record']} was measured, in parts by each band. {new}")
    if stored != band_digest(claim):
        raise LabkitError(f"{what} after {claim['record']} was recorded. Put it back. {new}")
    return whole


def judge_all(claim, source):
    """[(band, estimate or None, verdict or None, what would decide)] of a claim's bands and those beside."""
    rows = []
    for band in [*claim["bands"], *claim.get("beside", [])]:
        found = judge.estimate(band, source)
        if found is None:
            rows.append((band, None, judge.MISSING if judge.bounded(band) else None, ""))
        else:
            rows.append((band, found, *(judge.judged(band, found) or (None, ""))))
    return rows


def conclusion(rows):
    """The verdict on a claim from the rows of `judge_all`."""
    if all(found is None for _, found, _, _ in rows):
        return judge.MISSING
    return overall([said for _, _, said, _ in rows if said])


def value_text(band, number, bare=False):
    """A number in its band's unit: `99.3%`, `+0.42 points`, `0.961`, `14.2 GB`; `bare` keeps only the %."""
    if not np.isfinite(number):
        return "none" if np.isnan(number) else f"{number:+}"
    scale, unit = _scale(band)
    digits = {"score": ".1f", "gap": "+.2f", "ratio": ".3f"}.get(judge.kind_of(band), ".4g")
    digits = ".1f" if unit == "%" else digits
    return f"{scale * number:{digits}}" + ("" if bare and unit != "%" else unit)


def band_text(band):
    """The bounds of a band in words; empty without any."""
    scale, unit = _scale(band)
    sign = "+" if judge.kind_of(band) == "gap" else ""
    bounds = {way: f"{scale * band[way]:{sign if band[way] else ''}.10g}"
              for way in ("at_least", "above", "at_most", "below") if way in band}  # fmt: skip
    if set(bounds) == {"at_least", "at_most"}:
        return f"{bounds['at_least']} to {bounds['at_most']}{unit}"
    return " and ".join(f"{way.replace('_', ' ')} {number}{unit}" for way, number in bounds.items())


def interval_text(band, found):
    """The 95% interval, or why there is none."""
    if found.low == found.high and not found.rows and len(found.each) == 1:
        return ONE
    return f"[{value_text(band, found.low, bare=True)}, {value_text(band, found.high, bare=True)}]"


def _lines(claim, live):
    lines = textwrap.wrap(f"{claim['id']}: {claim['claim']}", WIDTH, subsequent_indent="  ")
    if "reproduced_if" in claim:
        lines += _wrapped(f"reproduced if: {claim['reproduced_if']}")
    if "shown" in claim:
        lines += _wrapped(f"{claim['kind']}: {claim['shown']}")
    whole = record_of(claim)
    sources = {"recorded": judge_all(claim, judge.Recorded(whole))} if whole else {}
    if live is not None:
        sources["live"] = judge_all(claim, judge.Live(live))
    for rows in zip(*sources.values(), strict=True):
        if any(found for _, found, _, _ in rows):
            lines += _wrapped(rows[0][0]["says"])
            for name, row in zip(sources, rows, strict=True):
                lines += _row(f"{name:<9}" if "live" in sources else "", *row)
    if not whole and claim["kind"] == "measured":
        lines.append(f"  {judge.MISSING}")
    for name, rows in sources.items():
        said = conclusion(rows) if claim["kind"] == "measured" else claim["kind"]
        if name == "recorded" and not any(found for _, found, _, _ in rows):
            lines.append(f"  {said}")  # a record of other methods, say
            continue
        where = f"recorded on {whole['machine']['device']}" if name == "recorded" else "live, on this machine"
        kinds = [] if name == "live" else _kinds(rows)
        spread = f"; 95% intervals over {' and '.join(kinds)}" if kinds else ""
        lines += _wrapped(f"{said}; {where}{spread}")
    return lines


def _row(name, band, found, said, why):
    """The lines of one estimate: value, interval, band, verdict, rows and seeds; what would decide."""
    if found is None:
        return [f"    {name}{judge.MISSING}"]
    value, runs = value_text(band, found.mean), _runs(band, found)
    columns = f"{interval_text(band, found):<15}  {band_text(band):<15}  {said or '':<17}"
    line = f"    {name}{value:>12}  {columns}  "
    fits = len(line) + len(runs) <= WIDTH
    lines = [f"{line}{runs}".rstrip()] if fits else [line.rstrip(), *_wrapped(runs, 8)]
    return lines + (_wrapped(why, 8) if why else [])


def _runs(band, found):
    """Rows and seeds of an estimate, in words."""
    count, parts = len(found.each), [f"{found.rows:,} rows"] if found.rows else []
    if count > 1:
        low, high = (value_text(band, one, bare=True) for one in (min(found.each), max(found.each)))
        parts.append(f"{count} {band.get('of', 'seeds')} {low} to {high}")
    return ", ".join(parts)


def _kinds(rows):
    """What the intervals of estimates are over: phrasings where there are rows, and what bands say."""
    found = [(band, one) for band, one, _, _ in rows if one]
    kinds = ["phrasings"] if any(one.rows for _, one in found) else []
    return kinds + list(dict.fromkeys(band.get("of", "seeds") for band, one in found if len(one.each) > 1))


def _scale(band):
    kind = judge.kind_of(band)
    unit = {"score": "%", "gap": "points", "ratio": ""}.get(kind, band.get("unit", ""))
    return SCALES.get(unit, (1, f" {unit}" if unit else ""))


def _wrapped(text, indent=2):
    return textwrap.wrap(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2))
