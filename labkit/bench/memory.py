"""Memory of training steps: predicted, then measured, each in a process of its own: `bench memory`.

First all predictions are written to a file; only then is anything measured. A part of the settings is drawn
by `--seed`: choose it after the predictor's code has come to rest. Measuring under other code than predicted
is refused, so that no prediction can have seen its measurement.
"""

import argparse
import hashlib
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from labkit import env
from labkit.bench import jobs, memory_claims, memory_grid, memory_peers, memory_report
from labkit.errors import LabkitError
from labkit.memory import Setting, measure, predict, trace
from labkit.paths import ROOT
from labkit.records import ledger, store

NAME = "memory"
ROOM = 76  # GiB: what a step may take by formula to be measured on a card of 80
MEASURING = ("labkit/memory/recipe.py", "labkit/memory/measure.py", "labkit/memory/setting.py",
             "labkit/memory/shapes.py")  # fmt: skip
PREDICTIONS = "predictions.json"


def main(argv):
    """Predict, measure what is missing, print the tables and write data/measurements/memory.json."""
    parser = argparse.ArgumentParser(
        prog="python -m labkit bench memory", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--folder", default="out/memory", help="where predictions and results lie, to go on from"
    )
    parser.add_argument("--seed", type=int, default=0, help="draws a part of the settings")
    parser.add_argument("--room", type=float, default=ROOM, help="leave out what takes more GiB by formula")
    parser.add_argument(
        "--predict-only", action="store_true", help="write predictions; measure later, elsewhere"
    )
    parser.add_argument("--no-claims", action="store_true", help="the predictor's settings alone; no record")
    parser.add_argument("--few", type=int, help="a trial: so many settings of each set; no record")
    parser.add_argument("--resume", action="store_true", help="go on; it always does so")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    folder = Path(options.folder).resolve()
    if options.job:
        return _one(folder, options.job)
    written = predictions(folder, options)
    print(
        f"{len(written['settings'])} predictions in {folder / PREDICTIONS}, sha256 {written['sha256'][:16]}"
    )
    if options.predict_only:
        return 0
    if env.device().type != "cuda":
        raise LabkitError("measuring wants a CUDA card. Predictions alone: --predict-only")
    digest = measuring_digest()
    names = list(written["settings"])
    trial = options.no_claims or options.few
    claims = [] if trial else [f"claim-{name}" for name in memory_claims.SETTINGS]
    began = time.perf_counter()
    results = jobs.run(NAME, [*names, *claims], folder, 1, digest)
    claimed = {name.removeprefix("claim-"): results[name] for name in claims}
    values = memory_report.values(written, {name: results[name] for name in names})
    values |= memory_claims.values(claimed)
    print("\n".join(memory_report.lines(values)))
    if trial:
        print("\nA trial: no record was written.")
        return 0
    seconds = sum(one.get("wall", 0) for one in results.values()) or time.perf_counter() - began
    peak = max((row["measured"]["process"] for row in values["rows"] if "measured" in row), default=0)
    path = store.write(
        NAME, "gpu", seed=options.seed, seconds=seconds, peak_bytes=peak, values=values,
        digest={**written["code"], **store.code_digest(*BENCH)}, claims=ledger.stamp(results.values()),
    )  # fmt: skip
    print(f"\nwrote {path.name}")
    return 0


BENCH = tuple(
    f"labkit/bench/{name}.py" for name in ("memory", "memory_grid", "memory_claims", "memory_peers")
)


def predictions(folder, options):
    """What the file of predictions holds, made if there is none.

    LabkitError if it was made by other code, for another seed or another room.
    """
    path, code = folder / PREDICTIONS, predicting_code()
    asked = {"seed": options.seed, "room": options.room, "few": options.few}
    if path.exists():
        written = json.loads(path.read_text())
        differ = [key for key in asked if written["asked"][key] != asked[key]]
        changed = [
            file for file in {**code, **written["code"]} if code.get(file) != written["code"].get(file)
        ]
        if differ or changed:
            raise LabkitError(
                f"{path} was written {written['made']} with other {', '.join(differ or changed)}. "
                "Predictions are not changed once they are written: take another --folder"
            )
        return written | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    sets = memory_grid.settings(options.seed, options.room * 2**30)
    if options.few:
        sets = {kind: dict(list(ones.items())[: options.few]) for kind, ones in sets.items()}
    settings = {name: one for ones in sets.values() for name, one in ones.items()}
    peers = memory_peers.predictions(settings)
    predicted = {}
    for name, setting in settings.items():
        predicted[name] = {"predict": _engine(predict, setting), "trace": _engine(trace, setting)}
        against = memory_peers.AGAINST
        predicted[name] |= {peer: {against[peer]: size} for peer, size in peers[name].items()}
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"), "asked": asked, "code": code,
        "sets": {kind: list(ones) for kind, ones in sets.items()},
        "settings": {name: setting.to_dict() for name, setting in settings.items()}, "predictions": predicted,
    }  # fmt: skip
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(written, indent=1))
    os.replace(temporary, path)
    return written | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _engine(engine, setting):
    began = time.perf_counter()
    report = engine(setting)
    return {"allocated": report.peak_allocated, "reserved": report.peak_reserved, "process": report.process,
            "moment": report.moment, "seconds": round(time.perf_counter() - began, 4)}  # fmt: skip


def predicting_code():
    """Digest of every module of labkit.memory: what a prediction depends on."""
    files = sorted((ROOT / "labkit" / "memory").glob("*.py"))
    return store.code_digest(*(str(file.relative_to(ROOT)) for file in files))


def measuring_digest():
    """What a measurement depends on."""
    return hashlib.sha256(json.dumps(store.code_digest(*MEASURING), sort_keys=True).encode()).hexdigest()[:16]


def _one(folder, name):
    """Do one job and leave its result; a setting that does not fit is a result too."""
    began = time.perf_counter()
    try:
        if name.startswith("claim-"):
            result = memory_claims.job(name.removeprefix("claim-"))
        else:
            written = json.loads((folder / PREDICTIONS).read_text())
            result = {"report": measure(Setting.from_dict(written["settings"][name])).to_dict()}
    except LabkitError as error:
        if "does not fit" not in str(error):
            raise
        result = {"does not fit": str(error)[:500]}
    jobs.write(folder, name, {**result, "digest": measuring_digest(), "device": env.machine(),
                              "wall": round(time.perf_counter() - began, 1)})  # fmt: skip
    return 0
