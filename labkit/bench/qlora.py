"""What a 4-bit base costs LoRA and what it saves: score, score after each merge, memory, time of a step.

LoRA and QLoRA are trained on the same dithered bases, since the base as it is lies on a 4-bit grid; each at
its best rate, with three seeds that also seed the dither. Every QLoRA model is then merged in five ways, on
dithered bases and on the base as it is, at the rate that `bench methods` found there.
"""

from labkit import env, methods
from labkit.bench import jobs, qlora_jobs, qlora_report, qlora_values
from labkit.bench.methods import EXTENSIONS, best_rate, sweep
from labkit.errors import LabkitError
from labkit.records import store

NAME = "qlora"
SEEDS = (0, 1, 2)
PARTS = (
    "bench/qlora_jobs", "bench/train_engines", "methods/four_bit", "methods/lora", "methods/quantize/models",
    "memory/recipe", "memory/measure", "memory/nf4", "memory/setting", "memory/shapes", "memory/predict",
)  # fmt: skip
CODE = ("bench/qlora", "bench/methods", "bench/qlora_values")  # the record depends on these, no job does


def main(argv):
    """Run what is missing and write data/measurements/qlora.json; without a GPU, a trial, no record."""
    options = jobs.options(NAME, __doc__, argv)
    profile = env.profile()
    digest = {**store.data_digest("tickets"), **store.training_digest(), **_code(PARTS)}
    mark = {**digest, "profile": profile}  # a trial's results are no measurement's
    if options.job:
        jobs.write(options.folder, options.job, {**qlora_jobs.job(options.job), "digest": mark})
        return 0

    def run(names, side_by_side=options.jobs):
        return jobs.run(NAME, names, options.folder, side_by_side, mark)

    known = base_rate()  # refuse before the work
    tried = tuned(run, EXTENSIONS if profile == "gpu" else 0)
    finals = {(arm, "dithered"): best_rate(rates) for arm, rates in tried.items()}
    finals["qlora-r16", "base"] = known
    names = {key: [f"final_{key[0]}_{rate:g}_{seed}_{key[1]}" for seed in SEEDS]
             for key, rate in finals.items()}  # fmt: skip
    found = run([name for some in names.values() for name in some])
    trained = {key: [found[name] for name in some] for key, some in names.items()}
    alone = run(qlora_jobs.MEMORY + qlora_jobs.TIMES, 1)  # alone on the card
    values = qlora_values.summary(tried, finals, trained, alone)
    scores = qlora_values.scores(trained)
    whole = [*(one for rates in tried.values() for one in rates.values()), *found.values(), *alone.values()]
    jobs.finish(NAME, qlora_report.lines({"name": NAME, "values": values, "scores": scores}), whole,
                values=values, digest={**digest, **_code(CODE)}, scores=scores)  # fmt: skip
    return 0


def tuned(run, most):
    """arm -> {rate: result} on the base dithered with the first seed; further rates while the best is an end.

    Raises LabkitError where an arm diverged at every rate.
    """
    start = {arm: methods.find(arm).rates for arm in qlora_jobs.ARMS}
    tried, failed = sweep(start, dict.fromkeys(start, "dithered"), SEEDS[0], run, most)
    if failed:
        raise LabkitError("; ".join(f"{arm} failed {why}" for arm, why in failed.items()))
    return tried


def base_rate():
    """The best rate of QLoRA on the base as it is, from `bench methods`.

    Raises LabkitError where that has no such record, or one of another budget than the measurement's here.
    """
    whole = store.read("methods_tickets")
    found = whole and whole["values"]["methods"].get("qlora-r16")
    budget = {key: qlora_jobs.GPU[key] for key in ("steps", "batch", "length")}
    if not found or any(whole["values"]["settings"][key] != budget[key] for key in budget):
        raise LabkitError("the rate on the base as it is comes from methods_tickets, which lacks it for this "
                          f"budget, {budget}. Measure it first: python -m labkit bench methods "
                          "--methods lora-r16,qlora-r16")  # fmt: skip
    return found["rate"]


def _code(parts):
    return store.code_digest(*(f"labkit/{part}.py" for part in parts))
