"""What teaching a lesson takes: minutes, points, memory and money; from records, cards and its text."""

import json
import math
import re
from dataclasses import dataclass
from functools import cache

from labkit.errors import LabkitError
from labkit.exercises import of_lesson
from labkit.paths import DATA, SOLUTIONS
from labkit.records import store

WORDS_A_MINUTE = 200
SECONDS_A_LINE = 3
PRICES = DATA / "prices.json"
MISSING = "not recorded"
CARD = re.compile(r"^# \| You will be able to \| You need first \|.*\n.*\n# \|[^|\n]*\|([^|\n]*)\|", re.M)


@dataclass(frozen=True)
class Lesson:
    """One lesson as an instructor plans with it.

    `runs` and `peaks` are by profile ("gpu", "cpu"), minutes and bytes, None where nothing is recorded;
    `reading` is in minutes, by rule; `needs` are the numbers of the lessons that its card names.
    """

    stem: str
    runs: dict
    peaks: dict
    card: str | None
    reading: float
    exercises: tuple
    needs: tuple

    @property
    def number(self):
        """The lesson's number, as text: "00"."""
        return self.stem[:2]

    @property
    def run(self):
        """Minutes of the longer recorded run; None without one."""
        return max((one for one in self.runs.values() if one is not None), default=None)

    @property
    def exercise_minutes(self):
        """Minutes on the cards of all exercises."""
        return sum(one.minutes for one in self.exercises)


def lessons(stems):
    """The Lessons with these stems ("00_start_here"), of those that have a source. Raises LabkitError."""
    return [lesson(stem) for stem in stems if (SOLUTIONS / f"{stem}.py").exists()]


def lesson(stem):
    """One Lesson; LabkitError where its card does not say what it needs."""
    records = {profile: store.read(stem, profile) for profile in ("gpu", "cpu")}
    text = (SOLUTIONS / f"{stem}.py").read_text(encoding="utf-8")
    return Lesson(
        stem=stem,
        runs={profile: one and one["seconds"] / 60 for profile, one in records.items()},
        peaks={profile: one and _peak(one) for profile, one in records.items()},
        card=records["gpu"] and records["gpu"]["machine"]["device"],
        reading=reading(text),
        exercises=tuple(of_lesson(stem[:2])),
        needs=needs(text, stem),
    )


@cache
def reading(text):
    """Minutes to read a lesson source: a rule (WORDS_A_MINUTE, SECONDS_A_LINE), and not measured.

    Exercise, check and solution cells do not count: the cards of the exercises have their minutes.
    """
    import jupytext

    words = lines = 0
    for cell in jupytext.reads(text, fmt="py:percent").cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            words += sum(bool(re.search(r"\w", word)) for word in cell.source.split())
        elif not {"exercise", "solution"} & set(tags) and not cell.source.startswith("check("):
            lines += sum(bool(re.match(r"\s*[^\s#]", line)) for line in cell.source.splitlines())
    return words / WORDS_A_MINUTE + lines * SECONDS_A_LINE / 60


def needs(text, stem):
    """Numbers of the lessons in the second column of a lesson's card; LabkitError without such a card."""
    card = CARD.search(text)
    if not card:
        head = "`| You will be able to | You need first | Measured budget |`"
        raise LabkitError(f"solutions/{stem}.py does not say what it needs: give it a card, {head}")
    return tuple(re.findall(r"\b\d\d\b", card[1]))


def assumed_run(some):
    """Minutes to count where no run is recorded: the longest recorded one of all lessons; 0 without any."""
    return max((one.run for one in some if one.run is not None), default=0)


def minutes(one, assumed, exercises=None):
    """Whole minutes of a Lesson: the longer run, reading, and exercises (all, or those given), rounded up."""
    chosen = one.exercises if exercises is None else exercises
    run = assumed if one.run is None else one.run
    return math.ceil(run + one.reading) + sum(each.minutes for each in chosen)


def prices():
    """{card: {"dollars_an_hour", "date", "source"}} of data/prices.json; LabkitError where it lacks one."""
    try:
        cards = json.loads(PRICES.read_text(encoding="utf-8"))["cards"]
        found = {card: {"dollars_an_hour": float(one["dollars_an_hour"]), "date": one["date"],
                        "source": one["source"]} for card, one in cards.items()}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        wanted = "each card wants dollars_an_hour, date and source"
        raise LabkitError(f"{PRICES} cannot be used ({error!r}): {wanted}") from error
    if any(not 0 <= one["dollars_an_hour"] < math.inf for one in found.values()):
        raise LabkitError(f"{PRICES}: dollars_an_hour is a number of at least 0")
    return found


def minutes_table(stems):
    """Minutes and points of every lesson, and what it builds on: a markdown table."""
    some = lessons(stems)
    assumed = assumed_run(some)
    head = "lesson|builds on|run, one GPU|run, two CPU cores|reading|exercises|in all|points".split("|")
    rows, total = [], [0, 0, 0, 0]
    for one in some:
        points = sum(each.points for each in one.exercises)
        whole = minutes(one, assumed)
        counts = [round(one.reading), one.exercise_minutes, whole, points]
        total = [a + b for a, b in zip(total, counts, strict=True)]
        runs = [_short(one.runs[profile]) for profile in ("gpu", "cpu")]
        rows.append([one.stem, ", ".join(one.needs), *runs, *map(str, counts)])
    rows.append(["all", "", "", "", *map(str, total)])
    guessed = [one.number for one in some if one.run is None]
    notes = [
        "Minutes. Runs are measured, without reading or exercises; minutes and points of exercises are those "
        f"of their cards. Reading is a rule and not measured: {WORDS_A_MINUTE} words a minute and "
        f"{SECONDS_A_LINE} seconds a line of code. In all: the longer run, reading and exercises, one after "
        "the other, rounded up.",
    ]
    if guessed:
        notes.append(f"{', '.join(guessed)}: no run recorded yet, counted with {assumed:.1f} minutes, the "
                     "longest of the others.")  # fmt: skip
    return "\n".join([*_table(head, rows), "", " ".join(notes)])


def costs_table(stems):
    """Memory of every lesson's run, and dollars at the prices of data/prices.json: a markdown table."""
    some, price = lessons(stems), prices()
    assumed = assumed_run(some)
    head = "lesson|card|peak on the card, GB|peak on a CPU, GB|$ a run|$ while taught".split("|")
    rows = []
    for one in some:
        spent = ["no price" if one.card else MISSING] * 2
        if one.card in price:
            rate = price[one.card]["dollars_an_hour"] / 60
            spent = [f"{each * rate:.2f}" for each in (one.runs["gpu"], minutes(one, assumed))]
        peaks = [MISSING if one.peaks[profile] is None else f"{one.peaks[profile] / 1e9:.1f}"
                 for profile in ("gpu", "cpu")]  # fmt: skip
        rows.append([one.stem, one.card or MISSING, *peaks, *spent])
    stated = "; ".join(f"{card} {one['dollars_an_hour']:.2f} an hour (source: {one['source']}; date: "
                       f"{one['date']})" for card, one in sorted(price.items()))  # fmt: skip
    return "\n".join([
        *_table(head, rows), "",
        "The peak on the card is what torch allocated in the notebook's own process; CUDA and torch's "
        "reserve come on top. On a CPU it is all of the process. While taught: the card is rented for all "
        f"minutes of the lesson. Dollars are by `data/prices.json`: {stated or 'no price stated'}.",
    ])  # fmt: skip


def _peak(record):
    """Bytes at the peak; a lesson that starts a new count notes its parts' peaks as values."""
    noted = [value for name, value in record["values"].items() if name.endswith("_peak")]
    return max([record["peak_bytes"], *noted])


def _short(minutes):
    return MISSING if minutes is None else f"{minutes:.1f}"


def _table(head, rows):
    lines = ["| " + " | ".join(line) + " |" for line in (head, *rows)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:]]
