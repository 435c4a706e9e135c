"""What a scorer of a data family returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from labkit.errors import LabkitError


@dataclass(frozen=True)
class Scores:
    """Shares (0 to 1) over n rows; `exact` is the share of rows that are right by the family's own rule."""

    exact: float
    exact_rows: list[bool]
    n: int
    answers: list[str]  # the texts that were scored
    detail: dict[str, float] = field(default_factory=dict)  # further shares, named by the family


def tally(answers: list[str], verdicts: list[bool], detail: dict[str, float] | None = None) -> Scores:
    """Scores from one verdict a row."""
    return Scores(sum(verdicts) / len(verdicts), verdicts, len(verdicts), list(answers), detail or {})


def check_lengths(answers: list[str], rows: list) -> None:
    """Raise LabkitError unless there is one text for each of at least one row."""
    if len(answers) != len(rows) or not len(rows):
        raise LabkitError(f"Cannot score {len(answers)} texts against {len(rows)} rows: give one text a row.")
