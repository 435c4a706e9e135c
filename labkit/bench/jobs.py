"""Jobs side by side: each a process of its own that leaves one file, so that a stopped run goes on."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tqdm import tqdm

from labkit.errors import LabkitError
from labkit.paths import ROOT


def run(bench, names, folder, jobs=1, digest=None):
    """Run the jobs of a benchmark that have no result of `digest` in `folder` yet, `jobs` at a time.

    A job is `python -m labkit bench BENCH --job NAME --folder FOLDER`. `digest` says what code and data a
    result must come from; one of another digest is made again. Returns name to result.
    Raises LabkitError with the end of the job's output if one fails; finished ones are kept.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [name for name in names if not _current(folder, name, digest)]
    bar = tqdm(total=len(names), initial=len(names) - len(waiting), unit="job", desc=bench)
    running = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                running[name] = _start(bench, name, folder)
            for name, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                if process.returncode:
                    log = (folder / f"{name}.log").read_text(errors="replace")
                    raise LabkitError(f"job {name} of {bench} failed; its output ends:\n{log[-2000:]}")
                bar.update()
            time.sleep(0.2)
    finally:
        for process in running.values():
            process.kill()
        bar.close()
    return {name: json.loads(result_file(folder, name).read_text()) for name in names}


def write(folder, name, result):
    """Write a job's result whole or not at all."""
    temporary = result_file(folder, name).with_suffix(".part")
    temporary.write_text(json.dumps(result))
    os.replace(temporary, result_file(folder, name))


def _current(folder, name, digest):
    path = result_file(folder, name)
    return path.exists() and json.loads(path.read_text()).get("digest") == digest


def result_file(folder, name):
    """Where a job leaves its result."""
    return Path(folder) / f"{name}.json"


def _start(bench, name, folder):
    command = [sys.executable, "-m", "labkit", "bench", bench, "--job", name, "--folder", str(folder)]
    with open(folder / f"{name}.log", "w") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
