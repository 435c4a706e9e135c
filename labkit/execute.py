"""Running a notebook headless: one kernel, a progress bar, clear errors, and what it cost.

`python -m labkit lesson 00 [--solution]` runs a lesson under the current profile and changes no file.
"""

import argparse
import copy
import json
import logging
import os
import re
import time
from pathlib import Path

import nbformat
import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tqdm.auto import tqdm

from labkit import paths
from labkit.errors import LabkitError

TRACEBACK_LINES = 12
ANSI = re.compile(r"\x1b\[[0-9;]*m")
# In a function of its own, and gone afterwards: the lesson's names stay the lesson's.
PEAK = """\
def _labkit_peak():
    import json, resource, sys
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    torch = sys.modules.get("torch")
    cuda = torch.cuda.max_memory_allocated() if torch is not None and torch.cuda.is_available() else None
    print(json.dumps({"process": peak, "cuda": cuda}))
_labkit_peak()
del _labkit_peak"""


class _ThisInterpreter(KernelSpecManager):
    """Every kernel name means the interpreter that runs this, whatever is installed in HOME."""

    def get_kernel_spec(self, kernel_name):
        return KernelSpec(**get_kernel_dict())


def run(notebook, cwd, progress=True, timeout=1800, name=None, cost=None):
    """Run every code cell of a notebook (node or path) in a fresh kernel started in `cwd`.

    Returns `(notebook, seconds, seconds of each cell)`; a given node is run in place, and
    the last is a dict from cell number (counting all cells from 1) to seconds. `timeout`
    is in seconds a cell. A dict given as `cost` receives `process` and `cuda`, the most bytes that were in
    use (on a card: seen after a cell, since training counts anew). Raises `LabkitError` for a failing
    cell, one that takes too long, and a kernel that dies.
    """
    if not hasattr(notebook, "cells"):
        name = name or Path(notebook).stem
        notebook = nbformat.read(notebook, as_version=4)
    name = name or "notebook"
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    client = NotebookClient(
        notebook,
        km=AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=_ThisInterpreter(),
            transport_encryption="auto" if zmq.has("curve") else "disabled",  # else kernels print a warning
        ),
        timeout=timeout,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        shutdown_kernel="immediate",
        resources={"metadata": {"path": str(cwd)}},
        log=_quiet(),
    )
    each = {}
    start = time.perf_counter()
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    with (
        tqdm(total=len(code), desc=name, unit="cell", disable=not progress) as bar,
        client.setup_kernel(cleanup_kc=True, env=_environment()),
    ):
        for number, cell in enumerate(notebook.cells, 1):
            heading = re.search(r"^#+ +(.+)", cell.source, re.M) if cell.cell_type == "markdown" else None
            if heading:
                bar.set_description(f"{name}: {heading[1].strip()[:40]}")
            if cell.cell_type == "code" and cell.source.strip():
                began = time.perf_counter()
                _run_cell(client, cell, number, name)
                each[number] = time.perf_counter() - began
                bar.update()
                if cost is not None:
                    _keep_largest(cost, _peak(client))
        seconds = time.perf_counter() - start
    return notebook, seconds, each


def main(argv):
    """The command `lesson`; returns the exit code."""
    from labkit.build import source, stale
    from labkit.records.lesson import run_and_record

    parser = argparse.ArgumentParser(prog="python -m labkit lesson", description="Run a lesson headless.")
    parser.add_argument("lesson", metavar="NN", help="lesson number")
    parser.add_argument("--solution", action="store_true", help="run the solution notebook")
    parser.add_argument("--record", action="store_true", help="write what it cost to data/measurements")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds a cell may take (default: 1800)")
    options = parser.parse_args(argv)
    stem = source.find([options.lesson], paths.SOLUTIONS)[0].stem
    folder = paths.SOLUTIONS if options.solution or options.record else paths.NOTEBOOKS
    path = folder / f"{stem}.ipynb"
    if not path.exists():
        where = f"{folder.name}/{path.name}"
        raise LabkitError(f"{where} is not built yet: run `python -m labkit build {stem[:2]}`")
    behind = stale([stem[:2]]) if options.record else []
    if any(line.startswith(f"{folder.name}/") for line in behind):
        raise LabkitError(f"{behind[0]}. Run `python -m labkit build` first, then record")
    cost = {}
    try:
        if options.record:
            notebook, seconds, each, cost = run_and_record(path, folder, stem, options.timeout)
        else:
            notebook, seconds, each = run(path, folder, timeout=options.timeout, cost=cost)
    except KeyboardInterrupt:
        print(f"\n{stem}: stopped, and its kernel with it")
        return 130
    print(report(stem, notebook, seconds, each, cost))
    return 0


def report(name, notebook, seconds, each, cost):
    """What a run cost, as text: minutes, the slowest three cells, peak memory (GiB = 2**30)."""
    from labkit import env

    lines = [f"{name}: {seconds / 60:.1f} minutes, profile {env.profile()}, {env.machine()}"]
    for number in sorted(each, key=each.get, reverse=True)[:3]:
        lines.append(f"  {each[number]:7.1f} s  cell {number}: {_first_line(notebook.cells[number - 1])}")
    for key, what in (("process", "peak memory of the process"), ("cuda", "peak GPU memory allocated")):
        if cost.get(key) is not None:
            lines.append(f"  {cost[key] / 2**30:7.2f} GiB  {what}")
    return "\n".join(lines)


def _run_cell(client, cell, number, name):
    at = f"{name}, cell {number} ({_first_line(cell)})"
    try:
        client.execute_cell(cell, number - 1)
    except CellExecutionError as error:
        lines = ANSI.sub("", _traceback(cell) or str(error)).rstrip().splitlines()[-TRACEBACK_LINES:]
        text = "\n".join("  " + line for line in lines)
        raise LabkitError(f"{at} failed: {error.ename}: {error.evalue}\n{text}") from None
    except CellTimeoutError:
        raise LabkitError(
            f"{at} was still running after {client.timeout} s; give it longer with --timeout, "
            "or look for an endless loop"
        ) from None
    except DeadKernelError:
        raise LabkitError(
            f"{at}: the kernel died. The usual cause is memory: close other programs, or use a smaller batch"
        ) from None


def _traceback(cell):
    return "\n".join("\n".join(o.traceback) for o in cell.get("outputs", []) if o.output_type == "error")


def _peak(client):
    """Peak bytes so far, asked of the kernel in a cell that the notebook does not keep."""
    cell, whole = nbformat.v4.new_code_cell(PEAK), client.nb
    client.nb = copy.copy(whole)
    client.nb.cells = [*whole.cells, cell]  # nbclient looks cells up by number
    try:
        client.execute_cell(cell, len(whole.cells), store_history=False)
        return json.loads("".join(o.text for o in cell.outputs if o.get("name") == "stdout"))
    except (CellExecutionError, CellTimeoutError, DeadKernelError, ValueError):
        return {}  # a lesson is not failed for its bookkeeping
    finally:
        client.nb = whole


def _keep_largest(cost, found):
    for name, size in found.items():
        cost[name] = size if cost.get(name) is None or size is None else max(cost[name], size)


def _environment():
    """This process's environment (LABKIT_* included), with labkit importable in any folder."""
    path = os.pathsep.join(filter(None, [str(paths.ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYDEVD_DISABLE_FILE_VALIDATION": "1",
                   "LABKIT_PROGRESS": "off"}  # fmt: skip
    if environment.get("LABKIT_RECORD"):  # the kernel starts in another folder
        environment["LABKIT_RECORD"] = os.path.abspath(environment["LABKIT_RECORD"])
    return environment


def _first_line(cell):
    return next((line.strip() for line in cell.source.splitlines() if line.strip()), "")[:60]


def _quiet():
    """nbclient logs what is raised here anyway, and a dead kernel twice."""
    log = logging.getLogger("labkit.execute.nbclient")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    return log
