"""The files of a re-tested claim (`tuning` has one more), read as hostile data: sizes, shapes and numbers.

    claim.json        which claim, and a digest of its bands
    prediction.json   probabilities of the verdicts, an expected number for each band, why
    design.json       methods with the learning rates tried, steps, seeds, rows; what is held equal
    seal.json         digests of those two, with the time
    results.jsonl     the seal; a line for each run; a line for each row and seed, with every method's score
    conclusion.json   mean, interval and verdict of each band; accuracies; what would decide; in words
"""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps

import numpy as np

from labkit.records import judge, ledger

CLAIM, PREDICTION, DESIGN = "claim.json", "prediction.json", "design.json"
SEAL, RESULTS, CONCLUSION = "seal.json", "results.jsonl", "conclusion.json"
SEALED = (PREDICTION, DESIGN)
VERDICTS = ("reproduced", "contradicted here", "undecided")
LARGEST, LARGEST_RESULTS = 64 * 2**10, 16 * 2**20  # bytes
LONGEST_LINE = 2000  # bytes
MOST_SEEDS = 20
DEEPEST = 8  # levels of nesting
MOST = 1e12  # no number here is larger


class Refused(Exception):
    """A file cannot be used; the message is for the learner."""


def part(method):
    """A property that is worked out once, also where it raises Refused."""

    @wraps(method)
    def get(case):
        if method.__name__ not in case.parts:
            try:
                case.parts[method.__name__] = method(case)
            except Refused as error:
                case.parts[method.__name__] = error
        found = case.parts[method.__name__]
        if isinstance(found, Refused):
            raise found.with_traceback(None)
        return found

    return property(get)


@dataclass
class Results:
    """results.jsonl as read: runs {(method, seed): line}, scores {(method, seed): {row: 0 or 1}}."""

    seal: str
    started: datetime
    runs: dict = field(default_factory=dict)
    scores: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """The rows that every method was scored on with every seed: flags (seeds, rows) of each method."""

    seeds: list
    rows: list
    phrasings: list
    flags: dict


class Case:
    """One submission. Parts are read when first asked for, and raise Refused if they are unusable."""

    def __init__(self, folder, rubric, course):
        self.folder, self.rubric, self.course = folder, rubric, course
        self.parts = {}

    @part
    def claim(self):
        given = read_json(self.folder / CLAIM)
        claim_id = given.get("claim")
        if type(claim_id) is not str or claim_id not in self.rubric.claims:
            raise Refused(f"{CLAIM} names no claim of this exercise: make the folder with `exercises claim`")
        claim = self.rubric.claim(claim_id)
        if given.get("bands") != ledger.band_digest(claim):
            raise Refused(f"{CLAIM}: the bands of {claim_id} are not those of the ledger: do not change them")
        return claim

    @property
    def methods(self):
        """The names of the scores that the claim's bands compare."""
        return methods_of(self.claim)

    @part
    def prediction(self):
        return read_json(self.folder / PREDICTION)

    @part
    def design(self):
        return read_json(self.folder / DESIGN)

    @part
    def seal(self):
        return read_json(self.folder / SEAL)

    @part
    def conclusion(self):
        return read_json(self.folder / CONCLUSION)

    @part
    def results(self):
        return read_results(self.folder / RESULTS, self.methods, self.course)

    @part
    def table(self):
        """The Table of the rows that can be paired; raises Refused without one."""
        scores = self.results.scores
        seeds = sorted({seed for _, seed in scores})
        found = [scores.get((method, seed), {}).keys() for method in self.methods for seed in seeds]
        shared = set.intersection(*map(set, found)) if found else set()
        rows = [row for row in self.course if row in shared]
        if not rows:
            raise Refused(f"{RESULTS}: no row has a score of every method with every seed: nothing to pair")
        flags = {method: np.array([[scores[method, seed][row] for row in rows] for seed in seeds], float)
                 for method in self.methods}  # fmt: skip
        return Table(seeds, rows, [self.course[row] for row in rows], flags)

    @part
    def estimates(self):
        """The course's own Estimate of each band, from the rows handed in."""
        table = self.table
        source = judge.Live({"scores": table.flags, "phrasing": table.phrasings})
        return [judge.estimate(band, source) for band in self.claim["bands"]]


def methods_of(claim):
    """The names of the scores that a claim's bands compare, each once."""
    named = [[band["score"]] if "score" in band else band[judge.kind_of(band)] for band in claim["bands"]]
    return list(dict.fromkeys(name for names in named for name in names))


def digest(content):
    """The SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def seal_of(receipt):
    """The seal of a receipt: a digest of all else that it says, 16 hexadecimal digits."""
    return digest(json.dumps({**receipt, "seal": None}, sort_keys=True).encode())[:16]


def instant(text, where):
    """A moment written with its time zone; raises Refused."""
    try:
        found = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        found = None
    if found is None or found.tzinfo is None:
        raise Refused(f"{where} is no time with a time zone, such as 2026-11-22T09:30:00+00:00")
    return found


def read_bytes(path, largest=LARGEST):
    """The bytes of a submitted file; raises Refused for links, for what is missing and what is too large."""
    if path.is_symlink() or not path.is_file():
        raise Refused(f"there is no plain file {path.name}")
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError:
        raise Refused(f"{path.name} cannot be read") from None
    if len(content) > largest:
        raise Refused(f"{path.name} is larger than {largest:,} bytes")
    return content


def read_json(path):
    """The object in a JSON file; raises Refused."""
    return parse(read_bytes(path), path.name)


def parse(content, where):
    """The JSON object in bytes, without NaN and without a name that stands twice; raises Refused."""
    try:
        found = json.loads(content, parse_constant=_no_number, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:80]
        raise Refused(f"{where} is not readable JSON: {why}") from None
    if not isinstance(found, dict):
        raise Refused(f"{where} is not a JSON object")
    level = [found]
    for _ in range(DEEPEST):
        inner = [one.values() if isinstance(one, dict) else one for one in level]
        level = [value for values in inner for value in values if isinstance(value, dict | list)]
    if level:
        raise Refused(f"{where} is not readable JSON: nested too deeply")
    return found


def _no_number(text):
    raise ValueError(f"{text} is no number: write null where there is none")


def _once(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def number(value, where, low=-MOST, high=MOST):
    """A number within bounds, as a float; raises Refused."""
    if type(value) not in (int, float) or not low <= value <= high:  # NaN is never within
        raise Refused(f"{where} must be a number from {low:g} to {high:g}, not {_shown(value)}")
    return float(value)


def whole(value, where, low=0, high=int(MOST)):
    """A whole number within bounds; raises Refused."""
    if type(value) is not int or not low <= value <= high:
        raise Refused(f"{where} must be a whole number from {low} to {high}, not {_shown(value)}")
    return value


def mapping(value, where):
    """A dict; raises Refused."""
    if not isinstance(value, dict):
        raise Refused(f"{where} must be an object with names, not {_shown(value)}")
    return value


def listing(value, where, count=None):
    """A list, of `count` entries if given; raises Refused."""
    if not isinstance(value, list) or (count is not None and len(value) != count):
        wanted = "a list" if count is None else f"a list of {count}"
        raise Refused(f"{where} must be {wanted}, not {_shown(value)}")
    return value


def _shown(value):
    return "empty" if value is None else repr(value)[:40]


def read_results(path, methods, course):
    """The Results in a file; raises Refused at the first line that cannot be used."""
    lines = read_bytes(path, LARGEST_RESULTS).splitlines()
    if not lines:
        raise Refused(f"{RESULTS} is empty")
    first = _line(lines[0], 1)
    started = instant(first.get("started"), f"{RESULTS}, line 1: started")
    found = Results(str(first.get("seal"))[:64], started)
    for at, text in enumerate(lines[1:], 2):
        where = f"{RESULTS}, line {at}"
        line = _line(text, at)
        seed = whole(line.get("seed"), f"{where}: seed", 0, 2**32)
        if "method" in line:
            _add_run(found, line, seed, methods, where)
        else:
            _add_row(found, line, seed, methods, course, where)
    if len({seed for _, seed in found.scores}) > MOST_SEEDS:
        raise Refused(f"{RESULTS} has more than {MOST_SEEDS} seeds")
    return found


def _line(text, at):
    if len(text) > LONGEST_LINE:
        raise Refused(f"{RESULTS}, line {at} is longer than {LONGEST_LINE} bytes")
    return parse(text, f"{RESULTS}, line {at}")


def _add_run(found, line, seed, methods, where):
    key = _known(line["method"], methods, where), seed
    if key in found.runs:
        raise Refused(f"{where}: the run of {key[0]}, seed {seed} stands twice")
    whole(line.get("steps"), f"{where}: steps", 1)
    whole(line.get("tokens"), f"{where}: tokens", 1)
    number(line.get("lr"), f"{where}: lr", 0, 1000)
    found.runs[key] = line


def _add_row(found, line, seed, methods, course, where):
    row = line.get("row")
    if not isinstance(row, str) or row not in course:
        raise Refused(f"{where}: {_shown(row)} is no row of the split that this claim is re-tested on")
    for method, score in mapping(line.get("scores"), f"{where}: scores").items():
        flags = found.scores.setdefault((_known(method, methods, where), seed), {})
        if row in flags:
            raise Refused(f"{where}: {row} with seed {seed} was scored before")
        if type(score) not in (int, bool) or score not in (0, 1):
            raise Refused(f"{where}: a score is 0 or 1, not {_shown(score)}")
        flags[row] = int(score)


def _known(method, methods, where):
    if not isinstance(method, str) or method not in methods:
        raise Refused(f"{where}: this claim compares {' and '.join(methods)}, not {_shown(method)}")
    return method
