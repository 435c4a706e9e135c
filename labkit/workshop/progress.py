"""`progress`: points by lesson and what is next, as text, as a table in the notebook and as a page."""

from dataclasses import dataclass
from html import escape
from pathlib import Path

from labkit.errors import LabkitError
from labkit.workshop import log

INK, PAPER, LINK = "#1a1a1a", "#ffffff", "#0b4fa8"  # contrast on the page: 17:1 and 8:1; WCAG AA wants 4.5:1
WIDTH = 12  # characters of a bar


@dataclass(frozen=True)
class Row:
    """One lesson: `points` of `of`; `shown` exercises whose solution was taken; `open` ids still to do."""

    number: str
    stem: str
    title: str
    points: int
    of: int
    shown: int
    open: tuple

    @property
    def notebook(self):
        """The notebook's file name."""
        return f"{self.stem}.ipynb"


@dataclass(frozen=True)
class Progress:
    """What `progress` returns: `rows` by lesson, and `next`, the Exercise to go on with (None: all done)."""

    rows: tuple
    next: object = None

    @property
    def points(self):
        """Points earned in all."""
        return sum(row.points for row in self.rows)

    @property
    def of(self):
        """Points there are in all."""
        return sum(row.of for row in self.rows)

    def __str__(self):
        wide = max((len(row.title) for row in self.rows), default=0)
        lines = [f"{row.number}  {row.title:<{wide}}  {_bar(row)}  {row.points:>3} of {row.of}{_taken(row)}"
                 for row in self.rows]  # fmt: skip
        lines.append(f"in all: {self.points} of {self.of} points")
        if self.next is None:
            lines.append("next: nothing, every exercise is done")
        else:
            lines.append(f"next: {_about(self.next)}, in notebooks/{self._next_row().notebook}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self):
        return self._fragment(2)

    def save(self, file):
        """Write a page for a browser, headings in order, readable by a screen reader; returns its path.

        Links lead to notebooks beside the page. Raises LabkitError where it cannot be written.
        """
        style = (f"body {{ color: {INK}; background: {PAPER}; font: 1rem/1.5 sans-serif; max-width: 48rem; "
                 f"margin: 2rem auto; padding: 0 1rem }} a {{ color: {LINK} }} "
                 "th, td { text-align: left; padding: 0.2rem 1rem 0.2rem 0 }")  # fmt: skip
        page = (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
                '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
                f"<title>Finetuning Workbook: progress</title>\n<style>{style}</style>\n</head>\n"
                f"<body>\n<main>\n{self._fragment(1)}\n</main>\n</body>\n</html>\n")  # fmt: skip
        try:
            Path(file).write_text(page, encoding="utf-8")
        except OSError as error:
            raise LabkitError(f"{file} cannot be written ({error.strerror}). Name another file") from error
        return Path(file)

    def _fragment(self, level):
        """The content as HTML whose first heading has this level; in a notebook colours stay the theme's."""
        heads = "".join(f'<th scope="col">{name}</th>' for name in ("Lesson", "Points", "Done", "Shown"))
        body = "\n".join(_table_row(row) for row in self.rows)
        total = f"{self.points} of {self.of} points"
        if self.next is None:
            after = "Every exercise is done."
        else:
            link = _link(self._next_row(), self._next_row().notebook)
            after = f"{escape(_about(self.next))}, in {link}"
        return (f"<section>\n<h{level}>Progress: {total}</h{level}>\n"
                f"<table>\n<caption>Points by lesson</caption>\n<thead><tr>{heads}</tr></thead>\n"
                f"<tbody>\n{body}\n</tbody>\n</table>\n"
                f"<h{level + 1}>Next</h{level + 1}>\n<p>{after}</p>\n</section>")  # fmt: skip

    def _next_row(self):
        return next(row for row in self.rows if row.number == self.next.lesson)


def progress():
    """What the learner's log says: points by lesson and the next exercise, as a Progress that shows itself.

    The best result of an exercise counts, but none from after its solution was shown. Next is the first open
    exercise from the lesson on that was worked in last. Raises LabkitError for a log that cannot be read.
    """
    from labkit.exercises import lessons, of_lesson

    best, shown, last = standing(log.read())
    rows, exercises = [], {}
    for number in lessons():
        mine = exercises[number] = of_lesson(number)
        stem, title = _names(number)
        rows.append(Row(
            number, stem, title,
            points=sum(min(best.get(e.id, 0), e.points) for e in mine),
            of=sum(e.points for e in mine),
            shown=sum(e.id in shown for e in mine),
            open=tuple(e.id for e in mine if best.get(e.id, 0) < e.points and e.id not in shown),
        ))  # fmt: skip
    start = next((i for i, row in enumerate(rows) if row.number == last), 0)
    ahead = next((row for row in rows[start:] + rows[:start] if row.open), None)
    upcoming = ahead and next(e for e in exercises[ahead.number] if e.id == ahead.open[0])
    return Progress(tuple(rows), upcoming)


def standing(entries):
    """({id: best points}, ids whose solution was shown before they were solved, the last lesson's number)."""
    best, shown, solved, last = {}, set(), set(), None
    for entry in entries:
        name = entry["exercise"]
        last = name.split(".")[0]
        if entry["shown"] and name not in solved:
            shown.add(name)
        elif name not in shown:
            best[name] = max(best.get(name, 0), entry["points"])
            if entry["correct"]:
                solved.add(name)
    return best, shown, last


def _names(number):
    """(stem, title) of a lesson."""
    from labkit.records.tables import SYLLABUS

    return next(((stem, title) for stem, title in SYLLABUS if stem[:2] == number), (number, ""))


def _about(exercise):
    return f"exercise {exercise.id}, {exercise.title} ({exercise.minutes} minutes)"


def _bar(row):
    full = WIDTH * row.points // row.of if row.of else WIDTH
    return f"[{'#' * full}{'.' * (WIDTH - full)}]"


def _taken(row):
    return f", {row.shown} shown" if row.shown else ""


def _link(row, text):
    return f'<a href="{escape(row.notebook)}">{escape(text)}</a>'


def _table_row(row):
    label = escape(f"Lesson {row.number}: {row.points} of {row.of} points")
    return (f'<tr><th scope="row">{_link(row, f"{row.number} {row.title}")}</th>'
            f"<td>{row.points} of {row.of}</td>"
            f'<td><progress max="{max(row.of, 1)}" value="{row.points}" aria-label="{label}"></progress></td>'
            f"<td>{row.shown}</td></tr>")  # fmt: skip
