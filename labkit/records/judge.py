"""From what was measured to a verdict: an estimate of what a band names, and where its interval lies.

A band is a dict that names one thing: {"score": name} (a share over rows), {"gap": [a, b]} (score a minus
score b on the same rows), {"ratio": [a, b]} or {"value": "dotted.path"} (a number, or one per training
seed); it bounds it by "at_least", "above", "at_most", "below". `says` is what the table calls it. Optional:
`seeds` (how many each side asks for at least), `fixed` (sides that training seeds do not touch, such as a
prompt), `unit` of a value, `of` (what a value's numbers are, if not seeds). A value may also be a dict of
mean, low, high and each: a number with the interval that its benchmark worked out.
"""

from dataclasses import replace
from functools import cache

import numpy as np

from labkit.errors import LabkitError
from labkit.records import stats

PHRASINGS = 10  # below that many, drawing phrasings anew says little
MISSING = "not measured yet"
FAR = 100  # times as many rows or seeds: nobody will measure that


class Recorded:
    """What a record holds: rows with their phrasings, and values."""

    def __init__(self, whole):
        self.whole = whole

    def rows(self, *names):
        """([flags (seeds, rows) of each score], phrasings) of the rows that all have; None without one."""
        if not all(name in self.whole["scores"] for name in names):
            return None
        scores = [self.whole["scores"][name] for name in names]
        if len({(score["task"], score["split"]) for score in scores}) > 1:
            what = f"{' and '.join(names)} of {self.whole['name']}"
            raise LabkitError(f"{what} are of different tasks or splits: name scores of the same rows")
        flags = [np.stack([stats.unpack_rows(text) for text in score["rows"]]) for score in scores]
        return _cut(flags, _phrasings(scores[0]["task"], scores[0]["split"]))

    def value(self, path):
        """The number or numbers at a dotted path of the record's values; None if there are none."""
        return _follow(self.whole["values"], path)


class Live:
    """What a lesson has just measured: {"scores": {name: flags}, "phrasing": labels, "values": {...}}."""

    def __init__(self, given):
        unknown = sorted(set(given) - {"scores", "phrasing", "values"})
        if unknown:
            raise LabkitError(f'live results are "scores", "phrasing", "values", not {", ".join(unknown)}')
        if given.get("scores") and "phrasing" not in given:
            raise LabkitError('live scores want "phrasing" beside them, one label per row: test["phrasing"]')
        self.given = given

    def rows(self, *names):
        """Like `Recorded.rows`; flags may be one list or one per seed."""
        scores = self.given.get("scores", {})
        if not all(name in scores for name in names):
            return None
        labels = list(self.given["phrasing"])
        flags = [np.atleast_2d(np.asarray(scores[name], dtype=float)) for name in names]
        for name, found in zip(names, flags, strict=True):
            if found.shape[1] != len(labels):
                raise LabkitError(f"live score {name!r}: {found.shape[1]} rows, but {len(labels)} phrasings")
        return flags, labels

    def value(self, path):
        """Like `Recorded.value`."""
        return _follow(self.given.get("values", {}), path)


def estimate(band, source):
    """stats.Estimate of what a band names, from a `Recorded` or `Live`; None where it was not measured.

    LabkitError for a band that names nothing known, or scores that cannot be paired.
    """
    kind = kind_of(band)
    if kind == "value":
        found = source.value(band["value"])
        if isinstance(found, dict):  # a number with the interval that its benchmark worked out
            parts = ["mean", "low", "high", "each", *(part for part in stats.STATED if part in found)]
            return stats.stated(**{part: found[part] for part in parts})
        return None if found is None else stats.of_values(found)
    names = [band["score"]] if kind == "score" else band[kind]
    found = source.rows(*names)
    if found is None:
        return None
    flags, labels = found
    trained = [len(one) for name, one in zip(names, flags, strict=True) if name not in band.get("fixed", ())]
    try:
        whole = {"score": stats.share, "gap": stats.gap, "ratio": stats.ratio}[kind](*flags, labels)
    except ValueError as error:
        raise LabkitError(f"{' and '.join(names)}: {error}") from error
    return replace(whole, fewest=min(trained, default=0))


def kind_of(band):
    """`score`, `gap`, `ratio` or `value`: what a band names."""
    kinds = [kind for kind in ("score", "gap", "ratio", "value") if kind in band]
    if len(kinds) != 1:
        raise LabkitError(f"a band names one of score, gap, ratio and value, and this one {kinds}: {band}")
    return kinds[0]


def measured(whole, name):
    """(mean, low, high) of one score of a record, over phrasings and training seeds."""
    found = estimate({"score": name}, Recorded(whole))
    return found.mean, found.low, found.high


def verdict(band, low, high):
    """`reproduced`, `contradicted here` or `undecided` for one interval and one band."""
    if _above_floor(band, low) and _below_ceiling(band, high):
        return "reproduced"
    if not _above_floor(band, high) or not _below_ceiling(band, low):
        return "contradicted here"
    return "undecided"


def judged(band, found):
    """(verdict, why it is undecided or what would decide it, else "") of an Estimate; None without bounds."""
    if not bounded(band):
        return None
    runs, wanted = found.fewest or len(found.each), band.get("seeds", 1)
    if runs < wanted:
        return "undecided", f"{runs} {'seed' if runs == 1 else 'seeds'}; the band asks for at least {wanted}"
    if found.rows and found.phrasings < PHRASINGS:
        return "undecided", f"{found.phrasings} phrasings; an interval wants at least {PHRASINGS}"
    if np.isnan(found.mean):
        nothing = "a ratio to nothing: the second score is 0"
        return "undecided", nothing if "ratio" in band else "a seed has no number: its training diverged"
    said = verdict(band, found.low, found.high)
    return said, _what_decides(band, found) if said == "undecided" else ""


def bounded(band):
    """Has a band any bound? Those beside it have none, and are only shown."""
    return not {"at_least", "above", "at_most", "below"}.isdisjoint(band)


def overall(verdicts):
    """A claim is reproduced only in all bands, and contradicted by any; without a band it is `measured`."""
    for worst in ("contradicted here", MISSING, "undecided", "reproduced"):
        if worst in verdicts:
            return worst
    return "measured"


def enough(band, found):
    """(times as many phrasings, seeds) at which the interval would leave the band's edge, if the mean stayed.

    None where it would take more than `FAR` times either: the mean lies on the edge or near it. More rows
    help only by new phrasings; more seeds only against the spread of seeds. Phrasings alone are preferred, as
    they are cheapest; then seeds alone.
    """
    floor = max(band.get("at_least", -np.inf), band.get("above", -np.inf))
    ceiling = min(band.get("at_most", np.inf), band.get("below", np.inf))
    down, up = found.mean - found.rows_low, found.rows_high - found.mean
    if found.mean < floor:
        sides = [(floor - found.mean, up)]
    elif found.mean > ceiling:
        sides = [(found.mean - ceiling, down)]
    else:
        sides = [(found.mean - floor, down), (ceiling - found.mean, up)]
    sides = [(room, reach) for room, reach in sides if np.isfinite(room)]
    seeds = len(found.each)
    if all(room > found.seeds_reach for room, _ in sides):
        times = max(reach**2 / (room**2 - found.seeds_reach**2) for room, reach in sides)
        if times <= FAR:
            return max(1.0, times), seeds
    if found.seeds_reach == 0:
        return None
    per_seed = found.seeds_reach * seeds**0.5 / stats.student(seeds - 1)
    halves = max(1.0, *(2 * reach**2 / room**2 if room else np.inf for room, reach in sides))
    plans = (  # seeds get all the room that the phrasings at hand leave; else each gets half
        (1.0, min(room**2 - reach**2 for room, reach in sides)),
        (halves, min(room**2 / 2 for room, _ in sides)),
    )
    for times, square in plans:
        for count in range(seeds + 1, FAR + 1):
            if times <= FAR and (stats.student(count - 1) * per_seed) ** 2 / count < square:
                return times, count
    return None


def _what_decides(band, found):
    if not found.rows and len(found.each) == 1:
        return "its interval reaches over the band's edge"
    needed, what = enough(band, found), band.get("of", "seeds")
    if needed is None:
        rows, seeds = f"{FAR} times the phrasings", f"{FAR} {what}"
        more = f"{rows} or {seeds}" if found.rows and found.seeds_reach else rows if found.rows else seeds
        return f"the mean lies on the band's edge or near it: even {more} would not decide"
    times, seeds = needed
    wanted, here = [], []
    if times > 1 or seeds == len(found.each):
        wanted.append(f"{_about(times * found.phrasings)} phrasings ({_about(times * found.rows)} rows)")
        here.append(f"{found.phrasings}")
    if seeds > len(found.each):
        wanted.append(f"{seeds} {what}")
        here.append(f"{len(found.each)}")
    return f"if the mean stayed, about {' and '.join(wanted)} would decide; here {' and '.join(here)}"


def _about(number):
    """A number rounded up to two digits: it rests on an estimate."""
    step = 10 ** max(0, len(str(int(number))) - 2)
    return f"{int(-(-number // step) * step):,}"


def _above_floor(band, number):
    return number >= band.get("at_least", -np.inf) and ("above" not in band or number > band["above"])


def _below_ceiling(band, number):
    return number <= band.get("at_most", np.inf) and ("below" not in band or number < band["below"])


def _cut(flags, labels):
    rows = min(found.shape[1] for found in flags)
    return [found[:, :rows] for found in flags], labels[:rows]


def _phrasings(task, split):
    from labkit import tasks

    return _column(tasks.load, task, split)


@cache  # keyed on the function too, so that another loader is never answered from this one's rows
def _column(load, task, split):
    return list(load(task)[split]["phrasing"])


def _follow(values, path):
    for part in path.split("."):
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values
