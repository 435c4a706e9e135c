"""Measurement files in data/measurements: one JSON per lesson or benchmark and profile.

Every file has: `schema`, `name`, `profile`, `machine`, `versions`, `made` (date), `seed`,
`digest` (what it depends on), `seconds`, `peak_bytes`, `values` (numbers by name), `scores`
(per-row results, see `labkit.records.stats`), `claims` (digest of each claim's band when it was
measured) and `gpu_cells` (text printed by cells that need the card).
"""

import hashlib
import json
import os
import platform
import re
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from labkit.errors import LabkitError
from labkit.paths import DATA, MEASUREMENTS, ROOT, SOLUTIONS
from labkit.records import syntax

SCHEMA = 1
STACK = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate")


def record(**values):
    """Note numbers for the record that is being made; without one (LABKIT_RECORD unset) do nothing.

    Lessons call it in a cell: `record(exact_after=scores.exact)`.
    """
    path = os.environ.get("LABKIT_RECORD")
    if path:
        note(path, "values", {name: _plain(value) for name, value in values.items()})


def recorded(name, value):
    """One value of a GPU record, such as `recorded("form_json", "best prompt")`; LabkitError without one."""
    whole = read(name)
    if whole is None or value not in whole["values"]:
        where = path_of(name).name
        raise LabkitError(f"no recorded value {value!r} in {where}: restore it, or measure again")
    return whole["values"][value]


def note(path, section, entries):
    """Merge `entries` into one section of the JSON file at `path`, which may not exist yet."""
    path = Path(path)
    whole = json.loads(path.read_text()) if path.exists() and path.stat().st_size else {}
    whole.setdefault(section, {}).update(entries)
    path.write_text(json.dumps(whole))


def path_of(name, profile="gpu"):
    """The file of a record: `<name>.json` for the GPU run, `<name>.<profile>.json` for others."""
    return MEASUREMENTS / (f"{name}.json" if profile == "gpu" else f"{name}.{profile}.json")


def read(name, profile="gpu"):
    """A record as a dict; None where none was made yet. LabkitError for one that is damaged."""
    path = path_of(name, profile)
    if not path.exists():
        return None
    try:
        whole = json.loads(path.read_text())
    except ValueError as error:
        restore = f"Restore it: git checkout -- {path}"
        raise LabkitError(f"{path} is not valid JSON ({error}). {restore}") from error
    schema = whole.get("schema") if isinstance(whole, dict) else None
    if schema != SCHEMA:
        raise LabkitError(f"{path} has schema {schema}, this labkit reads {SCHEMA}. Record it again")
    return whole


def write(
    name, profile, *, seed, seconds, peak_bytes, digest, values=None, scores=None, claims=None, gpu_cells=None
):
    """Write a record whole or not at all; returns its path. Units: seconds and bytes."""
    whole = {
        "schema": SCHEMA,
        "name": name,
        "profile": profile,
        "machine": machine(),
        "versions": versions(),
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "seed": seed,
        "digest": digest,
        "seconds": round(seconds, 1),
        "peak_bytes": int(peak_bytes),
        "values": values or {},
        "scores": scores or {},
        "claims": claims or {},
        "gpu_cells": gpu_cells or {},
    }
    path = path_of(name, profile)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(json.dumps(whole, indent=1) + "\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def versions():
    """{package: version} of the libraries that measurements rest on."""
    return {package: metadata.version(package) for package in STACK}


def machine():
    """What a record was made on: device, driver, CUDA, CPU and Python."""
    import torch

    from labkit import env

    found = {"device": env.machine(), "cores": env.cores(), "python": platform.python_version()}
    if torch.cuda.is_available():
        found["cuda"] = torch.version.cuda
        found["driver"] = _driver()
    return found


def lesson_digest(name):
    """What a lesson's record depends on: its code cells and the data families that they name."""
    source = SOLUTIONS / f"{name}.py"
    families = [family for family in _families() if re.search(rf"""["']{family}["']""", source.read_text())]
    return {"cells": _cells_digest(source), **data_digest(*families)}


def code_digest(*files):
    """Digest of Python files by syntax tree: comments, docstrings and layout may change freely."""
    return {file: _sha(syntax.tree((ROOT / file).read_text())) for file in files}


def data_digest(*families):
    """Digest of each data family, over the checksums that it states."""
    return {f"data/{family}": _sha((DATA / family / "checksums.json").read_text()) for family in families}


def training_digest():
    """What a record of trained models depends on: the version of the numbers that `fit` gives."""
    from labkit.train import RESULTS

    return {"labkit.train.RESULTS": str(RESULTS)}


def _families():
    return sorted(path.parent.name for path in DATA.glob("*/checksums.json"))


def stale(name, profile="gpu"):
    """Why a record no longer speaks for the code, as a list of reasons; empty when it does."""
    whole = read(name, profile)
    if whole is None:
        return [f"{path_of(name, profile).name} was never recorded"]
    reasons = []
    for what, stored in whole["digest"].items():
        if what == "cells":
            source = SOLUTIONS / f"{name}.py"
            now = _cells_digest(source) if source.exists() else None
        elif what.startswith("data/"):
            family = what.removeprefix("data/")
            now = data_digest(family)[what] if family in _families() else None
        elif what in training_digest():
            now = training_digest()[what]
        else:
            now = code_digest(what)[what] if (ROOT / what).exists() else None
        if now != stored:
            reasons.append(f"{what} changed since {path_of(name, profile).name} was recorded")
    return reasons


def _cells_digest(source):
    """Digest of the code cells that a lesson's record rests on; prose, comments and tags do not count.

    Cells tagged `recorded` print records, alike on any machine, and `labkit build --refresh` runs them anew:
    they may change without a new measurement, and so may imports that they alone use.
    """
    import jupytext

    cells = [cell for cell in jupytext.read(source).cells if cell.cell_type == "code"]
    measured = [cell.source for cell in cells if "recorded" not in cell.metadata.get("tags", [])]
    used = set().union(*map(syntax.names, measured))
    trees = [syntax.tree(text, used) for text in measured]
    return _sha("\n".join(tree for tree in trees if tree != syntax.EMPTY))  # a cell of comments is prose


def _sha(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value):
    value = value.item() if hasattr(value, "item") else value  # numpy and torch numbers
    return round(value, 6) if isinstance(value, float) else value


def _driver():
    """The NVIDIA driver's version, from the kernel module's own line."""
    try:
        line = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except (OSError, IndexError):
        return "unknown"
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", line)
    return found[0] if found else "unknown"
