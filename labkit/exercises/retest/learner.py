"""The learner's side of a re-tested claim: make the folder, seal, note results, ask the rubric."""

import json
import math
import os
import textwrap
from datetime import UTC, datetime
from pathlib import Path

from labkit import methods
from labkit.errors import LabkitError
from labkit.exercises.grade import CLAIM_NOTEBOOK
from labkit.exercises.retest import checks, files, rubric, tuning
from labkit.records import ledger

TEMPLATE = Path(__file__).parent / "claim.md"
WIDTH = 110
SEEDS, STEPS, TUNING_STEPS = 3, 85, 40  # of the template on a CPU, each of 512 tokens


def make(claim_id, folder):
    """Write the folder in which a claim is re-tested: claim.ipynb and claim.json; returns its path.

    LabkitError for a claim that cannot be re-tested, and where a re-test lies there already.
    """
    rules = rubric.read()
    claim = rules.claim(claim_id)
    folder = Path(folder)
    if (folder / files.CLAIM).exists():
        raise LabkitError(f"{folder} holds a re-test already: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / CLAIM_NOTEBOOK, _notebook(claim, rules))
    _write(folder / files.CLAIM, {"claim": claim_id, "bands": ledger.band_digest(claim)})
    return folder


def seal(folder):
    """Seal prediction and design: write their digests and the time into seal.json; returns the seal.

    It shows that they were not changed afterwards. That they came first it shows only to somebody who was
    sent the seal before the results: the time is the learner's clock. LabkitError where something is missing,
    or results are there already.
    """
    folder = Path(folder)
    if (folder / files.RESULTS).exists():
        raise LabkitError(f"{folder / files.RESULTS} is there already: seal before anything is run")
    if (folder / files.SEAL).exists():
        raise LabkitError(f"{folder / files.SEAL} is there already: delete it to seal anew; it is void then")
    case = rubric.case_of(folder, rubric.read())
    if said := _refusing(checks.prediction, case) or _refusing(checks.design, case):
        raise LabkitError(f"not sealed yet: {said}")
    named = {name: files.digest(_refusing(files.read_bytes, folder / name)) for name in files.SEALED}
    receipt = {"claim": case.claim["id"], "files": named, "sealed": datetime.now(UTC).isoformat()}
    receipt["seal"] = files.seal_of(receipt)
    _write(folder / files.SEAL, receipt)
    return receipt["seal"]


class Retest:
    """A re-test in a folder that `exercises claim` made."""

    def __init__(self, folder="."):
        self.folder = Path(folder)
        self._rubric = rubric.read()
        self.claim = _refusing(lambda: self._case().claim)

    def rubric(self):
        """Print the rubric."""
        for one in self._rubric.criteria:
            line = f"{one.id:<10}  {one.points} by {one.by:<7}  {one.earns}"
            print(textwrap.fill(line, WIDTH, subsequent_indent=" " * 26))

    def predict(self, probabilities, expected, why):
        """Write prediction.json: {verdict: probability}, one expected number for each band, the reason."""
        self._open(files.PREDICTION, probabilities=probabilities, expected=expected, why=why)

    def design(self, methods, seeds, steps, rows, held_equal, differs, objection):
        """Write design.json; `methods` are {name: {"rates": [learning rates to try]}}."""
        self._open(files.DESIGN, methods=methods, seeds=seeds, steps=steps, rows=rows, held_equal=held_equal,
                   differs=differs, objection=objection)  # fmt: skip

    def seal(self):
        """Seal both and print the seal, to be sent to the instructor."""
        print(f"sealed: {seal(self.folder)}  (send this to your instructor before you run anything)")

    def untried(self):
        """[(method, rate)] of the design that tuning.jsonl has no line of; LabkitError before the seal."""
        _refusing(files.read_json, self.folder / files.SEAL)
        planned = _refusing(lambda: self._case().design)["methods"]
        done = self._tuned()
        every = [(name, rate) for name, one in planned.items() for rate in one["rates"]]
        return [key for key in every if key not in done]

    def tried(self, method, lr, loss):
        """Note in tuning.jsonl what held-out loss a learning rate reached; None for one that diverged."""
        if (method, lr) not in self.untried():
            raise LabkitError(f"{method} at {lr:g} is noted already, or no rate of the sealed design")
        path = self.folder / tuning.TUNING
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        loss = None if loss is None or not math.isfinite(loss) else float(loss)
        _whole(path, before + json.dumps({"method": method, "lr": lr, "loss": loss}) + "\n")

    def best(self):
        """{method: the rate with the lowest loss}, after a line for each with what all of them reached."""
        found, names = self._tuned(), _refusing(lambda: self._case().methods)
        for name in names:
            print(f"{name:<10}  {tuning.shown(found, name)}")
        return {name: tuning.best(found, name) for name in names}

    def left(self, seeds):
        """The seeds that have no results yet; LabkitError before the seal."""
        _refusing(files.read_json, self.folder / files.SEAL)
        if not (self.folder / files.RESULTS).exists():
            return list(seeds)
        done = {seed for _, seed in _refusing(lambda: self._case().results).scores}
        return [seed for seed in seeds if seed not in done]

    def add(self, seed, rows, scores, runs):
        """Add a seed's results to results.jsonl.

        rows: ids; scores: {method: flags}; runs: {method: {"steps": ..., "tokens": ..., "lr": ...}}.
        LabkitError before the seal, for a seed that is there already, or flags that do not fit the rows.
        """
        receipt, path = _refusing(files.read_json, self.folder / files.SEAL), self.folder / files.RESULTS
        if seed not in self.left([seed]):
            raise LabkitError(f"{path} has seed {seed} already: delete the file to run all seeds again")
        short = [name for name, flags in scores.items() if len(flags) != len(rows)]
        if short:
            raise LabkitError(f"{short[0]}: {len(scores[short[0]])} flags for {len(rows)} rows")
        lines = [] if path.exists() else [{"seal": receipt["seal"], "started": datetime.now(UTC).isoformat()}]
        lines += [{"seed": seed, "method": name, **run} for name, run in runs.items()]
        for at, row in enumerate(rows):
            line = {name: int(flags[at]) for name, flags in scores.items()}
            lines.append({"seed": seed, "row": row, "scores": line})
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        _whole(path, before + "".join(json.dumps(line) + "\n" for line in lines))

    def table(self):
        """({method: flags (seeds, rows)}, phrasings) of the rows that every method and seed has."""
        table = _refusing(lambda: self._case().table)
        return table.flags, table.phrasings

    def conclude(self, bands, verdict, accuracy, would_decide, words):
        """Write conclusion.json: mean, low, high and verdict of each band, and what the notebook names."""
        given = {"bands": bands, "verdict": verdict, "accuracy": accuracy, "would_decide": would_decide}
        _write(self.folder / files.CONCLUSION, {**given, "words": words})

    def check(self):
        """Print what the program says of each criterion, as the grader will."""
        (graded,) = rubric.grade({"": self.folder}, self._rubric)
        for one in graded.results:
            name = one.exercise.removeprefix("claim.")
            line = f"{name:<10}  {one.points} of {one.max_points}  {one.message}"
            print(textwrap.fill(line, WIDTH, subsequent_indent=" " * 20))

    def _tuned(self):
        if not (self.folder / tuning.TUNING).exists():
            return {}
        return _refusing(lambda: tuning.read(self.folder, self._case().methods))

    def _case(self):
        return rubric.case_of(self.folder, self._rubric)

    def _open(self, name, **given):
        """Write a file that is not sealed yet."""
        if (self.folder / files.SEAL).exists():
            raise LabkitError(f"{name} is sealed: a change now would show. Go on with what you have")
        _write(self.folder / name, given)


def _notebook(claim, rules):
    """The template as a notebook, filled in for a claim."""
    import jupytext

    names = files.methods_of(claim)
    tried = {name: list(methods.find(name).rates) for name in names}
    bands = [f"- {band['says']}: {ledger.band_text(band)}, with {band.get('seeds', 1)} seeds"
             for band in claim["bands"]]  # fmt: skip
    if "reproduced_if" in claim:
        bands.append(f"- reproduced if: {claim['reproduced_if']}")
    course = rubric.phrasings(rules.task, rules.split)
    text = TEMPLATE.read_text(encoding="utf-8").format(
        id=claim["id"], claim=claim["claim"], measure=claim["measure"].removesuffix("."),
        bands="\n".join(["Reproduced, if the whole 95% interval lies in the band:", "", *bands]),
        empty=[None] * len(claim["bands"]), task=rules.task, split=rules.split,
        rates="\n".join(f'        "{name}": {{"rates": {rates}}},' for name, rates in tried.items()),
        total=f"{len(course):,}", kinds=len(set(course.values())), minutes=_minutes(tried),
        accuracy=json.dumps({name: [] for name in names}),
    )  # fmt: skip
    notebook = jupytext.reads(text, fmt="md")
    for at, cell in enumerate(notebook.cells):
        cell["id"] = f"retest-{at}"  # jupytext draws them at random
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def _minutes(tried):
    """Minutes of the notebook with its CPU budget, by the rule that it states."""
    runs, rates = SEEDS * len(tried), sum(map(len, tried.values()))
    return math.ceil((runs * (STEPS + 15) + rates * (TUNING_STEPS + 10)) / 60)


def _write(path, given):
    try:
        text = json.dumps(given, indent=1, allow_nan=False, default=_plain, ensure_ascii=False)
    except ValueError:
        raise LabkitError(f"{path.name}: NaN and infinity are no numbers: None where there is none") from None
    _whole(path, text + "\n")


def _plain(value):
    return value.item()  # numpy's numbers


def _whole(path, text):
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _refusing(read, *args):
    """What `read` gives; LabkitError with the words of a Refused."""
    try:
        return read(*args)
    except files.Refused as error:
        raise LabkitError(str(error)) from None
