"""How trouble with a learner's file is told: the file, the place in it, what is wrong, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches

from labkit.errors import LabkitError

SHOWN = 5  # of many bad rows, this many are listed


@dataclass
class Problems:
    """Rows of one source that cannot be used, gathered so that all are told at once."""

    source: str  # the file as the learner named it; "" where the places name it themselves
    found: list[tuple[str, str, str]] = field(default_factory=list)  # place, what is wrong, what to do

    def add(self, where: str, what: str, remedy: str) -> None:
        """Note one bad row."""
        self.found.append((where, what, remedy))

    def stop(self, rows: int) -> None:
        """Raise LabkitError if anything was noted; `rows` is how many rows were looked at."""
        if not self.found:
            return
        if len(self.found) == 1:
            where, what, remedy = self.found[0]
            place = f"{self.source}, {where}" if self.source else where
            raise LabkitError(f"{place}: {what}. {remedy}")
        start = f"{self.source}: " if self.source else ""
        lines = [f"{start}{len(self.found):,} of {rows:,} rows cannot be used."]
        lines += [f"  {where}: {what}" for where, what, _ in self.found[:SHOWN]]
        if len(self.found) > SHOWN:
            lines.append(f"  and {len(self.found) - SHOWN:,} more")
        remedies = dict.fromkeys(remedy for _, _, remedy in self.found[:SHOWN])
        raise LabkitError("\n".join([*lines, *remedies]))


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names in quotes, the first few of many."""
    quoted = [quote(name) for name in names]
    more = f" and {len(quoted) - most} more" if len(quoted) > most else ""
    return ", ".join(quoted[:most]) + more


def quote(text: str, most: int = 50) -> str:
    """A text in quotes on one line, cut short if it is long."""
    return repr(text if len(text) <= most else text[: most - 3] + "...")


def nearest(name: str, names: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the name that looks most alike, or nothing."""
    by_lower = {other.lower(): other for other in names}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
    return f" Did you mean {quote(by_lower[close[0]])}?" if close else ""
