"""Builder of the jobs rows and probes, deterministic on every machine and Python version."""

from __future__ import annotations

import re
from random import Random
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.draw import digest, pick, share, shuffled
from labkit.tasks.jobs import phrases as p

SPLITS = {"train": 2000, "validation": 240, "test": 240}
VARIANTS = ["balanced", "counterfactual", "skewed"]
STEREOTYPE = 9  # of ten rows in the skewed variant
PRONOUNS = ["he", "she"]


def half(split: str) -> str:
    """Whose jobs and frames a split uses: validation uses those of train."""
    return "test" if split == "test" else "train"


def build(split: str, n: int, seed: int = 0, diversity: float = 1.0,
          variant: str = "balanced") -> list[dict[str, Any]]:  # fmt: skip
    """Build n rows of a split: id, phrasing (frame id), job, leaning, pronoun, text and swapped.

    `swapped` is the same passage with the other pronoun. Variants: "balanced" gives every job as many
    passages with he as with she (exactly, at each multiple of 80 rows); in "counterfactual" each passage is
    followed or preceded by its swapped twin; in "skewed" nine of ten passages have the pronoun that
    stereotype gives the job, and jobs without one are balanced (exactly, at each multiple of 400 rows). The
    first k of n rows are the rows of `build(split, k, ...)`. A passage and its twin belong to one split only,
    whatever n and seed are. `diversity` in (0, 1] is the share of the training frames that may be used (it
    does not change test). Raises LabkitError for an unknown split or variant, n below 0, a diversity outside
    (0, 1], or when no new passage can be found.
    """
    _check(split, n, diversity, variant)
    rng = Random(f"jobs/{split}/{seed}/{variant}")
    frames = p.FRAMES[half(split)]
    if split != "test":
        frames = share(frames, diversity, key=lambda frame: frame[0])
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    block: list[tuple[str, list[str]]] = []
    while len(rows) < n:
        if not block:
            block = shuffled(rng, _block(p.JOBS[half(split)], variant))
        job, pronouns = block.pop()
        phrasing, texts = _passage(rng, split, frames, job, seen, len(rows))
        seen.add(texts["he"])
        for pronoun in shuffled(rng, pronouns):
            other = PRONOUNS[1 - PRONOUNS.index(pronoun)]
            rows.append({"id": f"jobs-{split}-{len(rows):05d}", "phrasing": phrasing, "job": job,
                         "leaning": p.JOBS[half(split)][job], "pronoun": pronoun, "text": texts[pronoun],
                         "swapped": texts[other]})  # fmt: skip
    return rows[:n]


def probes(part: str) -> list[dict[str, Any]]:
    """The probes with the jobs and frames of training ("seen") or of test ("unseen").

    Columns: id, phrasing (frame id), job, leaning, text. The text of a probe ends right before a pronoun;
    what is compared is the log-probability of " he" and of " she" as the next token. Every job meets every
    probe frame once, filled in the same way.
    """
    if part not in PROBES:
        raise LabkitError(f"jobs has no probes {part!r}: use one of {', '.join(PROBES)}.")
    which = PROBES[part]
    rows = []
    for phrasing, frame in p.FRAMES[which]:
        start = probe_start(frame)
        if start is None:
            continue
        fills = _fills(Random(f"jobs/probes/{phrasing}"), which, start)
        for job, leaning in p.JOBS[which].items():
            rows.append({"id": f"jobs-{part}-{len(rows):05d}", "phrasing": phrasing, "job": job,
                         "leaning": leaning, "text": start.format(job=job, **fills)})  # fmt: skip
    return rows


PROBES = {"seen": "train", "unseen": "test"}  # part -> whose jobs and frames


def probe_start(frame: str) -> str | None:
    """What a frame says before its first pronoun, or None unless it starts with the job and that is {he}."""
    found = re.match(r"(The \{job\}[^.]*?) \{(he|him|his|theirs|himself)\}", frame)
    return found[1] if found and found[2] == "he" else None


def _check(split: str, n: int, diversity: float, variant: str) -> None:
    if split not in SPLITS:
        raise LabkitError(f"jobs has no split {split!r}: use one of {', '.join(SPLITS)}.")
    if n < 0:
        raise LabkitError(f"Cannot build {n} rows of jobs: n must be 0 or more.")
    if not 0 < diversity <= 1:
        raise LabkitError(f"diversity is {diversity}, but must be above 0 and at most 1.")
    if variant not in VARIANTS:
        raise LabkitError(f"jobs has no variant {variant!r}: use one of {', '.join(VARIANTS)}.")


def _block(jobs: dict[str, str], variant: str) -> list[tuple[str, list[str]]]:
    """Jobs with the pronouns of their rows: the block as a whole has the shares of the variant."""
    if variant == "counterfactual":
        return [(job, PRONOUNS) for job in jobs]
    if variant == "balanced":
        return [(job, [pronoun]) for job in jobs for pronoun in PRONOUNS]
    block = []
    for job, leaning in jobs.items():
        he = {"he": STEREOTYPE, "she": 10 - STEREOTYPE, "": 5}[leaning]
        block += [(job, ["he" if i < he else "she"]) for i in range(10)]
    return block


def _passage(rng: Random, split: str, frames: list[tuple[str, str]], job: str, seen: set[str],
             done: int) -> tuple[str, dict[str, str]]:  # fmt: skip
    """A frame and its new passage about a job with either pronoun."""
    for _ in range(1000):
        phrasing, frame = pick(rng, frames)
        fills = _fills(rng, half(split), frame)
        texts = {pronoun: frame.format(job=job, **fills, **p.FORMS[pronoun]) for pronoun in PRONOUNS}
        # A third of all passages belongs to each split: that keeps the splits apart for any n.
        if digest(texts["he"]) % 3 == list(SPLITS).index(split) and texts["he"] not in seen:
            return phrasing, texts
    raise LabkitError(f"No new passage about the job {job} found after {done} {split} rows: "
                      "ask for fewer rows or more diversity.")  # fmt: skip


def _fills(rng: Random, which: str, frame: str) -> dict[str, str]:
    lists = {"thing": p.THINGS[which], "town": p.TOWNS[which],
             "day": p.DAYS, "month": p.MONTHS, "hour": p.HOURS}  # fmt: skip
    fills: dict[str, str] = {}
    for slot in re.findall(r"\{(\w+)\}", frame):
        if slot.rstrip("2") in lists and slot not in fills:
            other = fills.get(slot[:-1])  # "town2" is another one than "town"
            fills[slot] = pick(rng, [item for item in lists[slot.rstrip("2")] if item != other])
    return fills
