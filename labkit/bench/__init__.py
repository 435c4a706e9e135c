"""Measurements: `python -m labkit bench NAME`.

Each writes data/measurements/NAME.json, except byod, which measures your own data and writes where you say.
"""

from importlib import import_module

from labkit.errors import LabkitError

BENCHES = {
    "train": "labkit.bench.train",
    "methods": "labkit.bench.methods",
    "memory": "labkit.bench.memory",
    "quant": "labkit.bench.quant",
    "full": "labkit.bench.full",
    "data": "labkit.bench.data",
    "lora": "labkit.bench.lora",
    "qlora": "labkit.bench.qlora",
    "inference": "labkit.bench.inference",
    "peaks": "labkit.bench.peaks",
    "preferences": "labkit.bench.preferences",
    "merging": "labkit.bench.merging",
    "decide": "labkit.bench.decide",
    "soft": "labkit.bench.soft",
    "families": "labkit.bench.families",
    "form-json": "labkit.bench.form_json",
    "workshop": "labkit.bench.workshop",
    "byod": "labkit.bench.byod",
}


def main(argv):
    """Run one benchmark by name; the rest of the arguments are its own."""
    if argv[:1] in (["-h"], ["--help"]):
        print(f"usage: python -m labkit bench NAME [options]\n\nNAME is {', '.join(BENCHES)}")
        return 0
    if not argv or argv[0] not in BENCHES:
        raise LabkitError(f"name a benchmark: {', '.join(BENCHES)}")
    return import_module(BENCHES[argv[0]]).main(argv[1:])
