"""Recording a lesson: run it headless, and write what its cells noted with what it cost."""

import json
import os
import tempfile
from pathlib import Path

from labkit import env
from labkit.errors import LabkitError
from labkit.records import store


def run_and_record(notebook, cwd, name, timeout):
    """Execute `notebook` (a node or a path) under the current profile and write its record.

    Returns (executed notebook, seconds, seconds per cell, peak bytes by kind). The record holds what
    cells passed to `record`, the text of `%%gpu` cells, wall-clock seconds and CUDA's or the process's peak.
    """
    from labkit.execute import run

    profile = env.profile()
    if profile == "smoke":
        raise LabkitError("the smoke profile is for checks; record under cpu or gpu")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "record.json"
        before = os.environ.get("LABKIT_RECORD")
        os.environ["LABKIT_RECORD"] = str(scratch)
        cost = {}
        try:
            executed, seconds, each = run(notebook, cwd, timeout=timeout, name=name, cost=cost)
        finally:
            os.environ.pop("LABKIT_RECORD")
            if before is not None:
                os.environ["LABKIT_RECORD"] = before
        noted = json.loads(scratch.read_text()) if scratch.exists() else {}
    peak = cost.get("cuda") if profile == "gpu" else cost.get("process")
    store.write(
        name, profile, seed=noted.get("values", {}).get("seed", 0), seconds=seconds, peak_bytes=peak or 0,
        digest=store.lesson_digest(name), values=noted.get("values"), gpu_cells=noted.get("gpu_cells"),
    )  # fmt: skip
    return executed, seconds, each, cost
