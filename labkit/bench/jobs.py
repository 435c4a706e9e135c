"""Jobs side by side: each a process of its own that leaves one file, so that a stopped run goes on.

On a machine with several GPUs the jobs spread over them; each job sees one. Jobs are forked from a server
that has imported torch and transformers and touched no card: importing takes longer than many a job.
"""

import argparse
import json
import multiprocessing
import os
import sys
import threading
import time
from pathlib import Path

from tqdm import tqdm

from labkit import env
from labkit.errors import LabkitError
from labkit.paths import ROOT
from labkit.records import ledger, store

# Nothing here may touch a card when imported: a process forked after that cannot use it (bitsandbytes does).
PRELOADED = ["torch", "transformers.models.llama.modeling_llama", "datasets", "labkit.__main__"]
FAILURES = 3  # one job may have met a bad moment; three say that something is wrong with all


def options(bench, about, argv):
    """The command line of a benchmark made of jobs: --jobs, --folder, and --job for one of them."""
    parser = argparse.ArgumentParser(
        prog=f"python -m labkit bench {bench}", description=about.splitlines()[0]
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side on a GPU (large: 4)")
    parser.add_argument("--folder", default=f"out/{bench}", help="where jobs leave results, to go on from")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def run(bench, names, folder, jobs=1, digest=None):
    """Run the jobs of a benchmark that have no result of `digest` in `folder` yet, `jobs` at a time a GPU.

    A job is `python -m labkit bench BENCH --job NAME --folder FOLDER`. `digest` says what code and data a
    result must come from; one of another digest is made again. Returns name to result.
    A job that fails does not stop the others, until FAILURES have. Then, or at the end, raises LabkitError
    with the end of the first one's output; finished ones are kept.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [name for name in names if not _current(folder, name, digest)]
    bar = tqdm(total=len(names), initial=len(names) - len(waiting), unit="job", desc=bench)
    running, failed = {}, []
    free = cards() * max(1, jobs)
    try:
        while waiting or running:
            while waiting and free:
                name, card = waiting.pop(0), free.pop(0)
                running[name] = _start(bench, name, folder, card, max(1, jobs)), card
            for name, (process, card) in list(running.items()):
                if process.exitcode is None:
                    continue
                del running[name]
                free.append(card)
                if process.exitcode:
                    failed.append(name)
                bar.update()
            if len(failed) >= FAILURES:
                break
            time.sleep(0.2)
    finally:
        for process, _ in running.values():
            process.kill()
        bar.close()
    if failed:
        log = (folder / f"{failed[0]}.log").read_text(errors="replace")
        others = f" (and so did {', '.join(failed[1:])})" if failed[1:] else ""
        raise LabkitError(f"job {failed[0]} of {bench} failed{others}; its output ends:\n{log[-2000:]}")
    return {name: json.loads(result_file(folder, name).read_text()) for name in names}


def cards():
    """The CUDA cards that jobs may use, as values of CUDA_VISIBLE_DEVICES; [None] where there is none."""
    import torch

    count = torch.cuda.device_count()
    named = [card for card in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if card]
    return named[:count] or [str(card) for card in range(count)] or [None]


def write(folder, name, result):
    """Write a job's result whole or not at all, with the bands that claims had by then."""
    temporary = result_file(folder, name).with_suffix(".part")
    temporary.write_text(json.dumps({**result, "bands": ledger.bands()}))
    os.replace(temporary, result_file(folder, name))


def cost(started):
    """{seconds since `started`, peak bytes that torch held on the card}, as records of jobs add them up."""
    import torch

    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"seconds": time.perf_counter() - started, "peak_bytes": peak}


def finish(bench, lines, results, **record):
    """Print the report; on a GPU at its budget write the record `bench` of all job `results` and say so.

    `record` is what `store.write` takes beside them: values, digest, scores. Anything else was a trial.
    """
    print("\n".join(lines))
    if env.profile() != "gpu":
        print("a trial: no record is written without a GPU")
        return
    path = store.write(
        bench, "gpu", seed=0, seconds=sum(one["seconds"] for one in results),
        peak_bytes=max(one["peak_bytes"] for one in results), claims=ledger.stamp(results), **record,
    )  # fmt: skip
    print(f"wrote {path.name}")


def _current(folder, name, digest):
    path = result_file(folder, name)
    return path.exists() and json.loads(path.read_text()).get("digest") == digest


def result_file(folder, name):
    """Where a job leaves its result."""
    return Path(folder) / f"{name}.json"


def _start(bench, name, folder, card, beside):
    """Start a job that shares its card with so many in all; returns its multiprocessing.Process."""
    environment = {"LABKIT_BESIDE": str(beside), **os.environ}  # `fit` asks whether compiling pays
    if beside == 1:  # what is timed alone is not timed through the service that shares a card (NVIDIA's MPS)
        environment.pop("CUDA_MPS_PIPE_DIRECTORY", None)
    command = ["bench", bench, "--job", name, "--folder", str(folder.resolve())]
    log = folder.resolve() / f"{name}.log"
    process = _context().Process(target=_work, args=(command, log, card, environment))
    process.start()
    return process


def _context():
    forking = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forking else "spawn")
    if forking:
        context.set_forkserver_preload(PRELOADED)
    return context


def _work(command, log, card, environment):
    """The job's process: what it prints goes to its log, and it sees one card.

    The server that it comes from has the environment of the first job ever started.
    """
    os.environ.clear()
    os.environ.update(environment)
    with open(log, "w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    if card is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = card
    os.chdir(ROOT)
    _end_with_starter()
    from labkit.__main__ import main

    sys.exit(main(command))


def _end_with_starter():
    """End this process when the benchmark that started it has ended: it was killed, or would have waited."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
