"""First scores of the data families: the base with its best prompt, and after full finetuning.

For each family: every prompt of its budget on validation rows, the best of them on test rows; full finetuning
at a few learning rates, the best on validation scored on test rows. One seed: these numbers say how hard a
family is, and no claim rests on them.
"""

import argparse
import time

from labkit import env
from labkit.bench import jobs
from labkit.errors import LabkitError
from labkit.records import stats, store

NAME = "families"
RATES = ("1e-4", "2e-4", "4e-4")
BUDGET = {"steps": 400, "batch": 8, "length": 512}
TRIED, SCORED = 200, 1000  # rows: validation for choosing, test for the score
FAMILIES = ("tickets", "sql", "handbook", "voice", "arithmetic")
LOADING = {"voice": {"quality": "gold"}}  # its drafts are spoilt on purpose


def main(argv):
    """Run what is missing and write data/measurements/families.json."""
    about = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m labkit bench families", description=about)
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side on a GPU (large: 4)")
    parser.add_argument("--folder", default="out/families", help="where jobs leave results, to go on from")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, help="a trial; writes no record")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    digest = {**store.data_digest(*FAMILIES), **store.code_digest("labkit/bench/families.py")}
    if options.job:
        jobs.write(options.folder, options.job, {**job(options.job), "digest": digest})
        return 0
    names = options.only or FAMILIES
    tuned = {name: [f"full-{name}-{rate}" for rate in RATES] for name in names}
    tried = {name: [f"try-{name}-{number}" for number in range(len(prompts(name)))] for name in names}
    every = [one for name in names for one in tuned[name]] + [one for name in names for one in tried[name]]
    first = jobs.run("families", every, options.folder, options.jobs, digest)
    best = {name: max(tried[name], key=lambda one: first[one]["validation"]) for name in names}
    last = [best[name].replace("try-", "test-") for name in names]
    second = jobs.run("families", last, options.folder, options.jobs, digest)
    scores, values = {}, {}
    for name in names:
        prompted = second[best[name].replace("try-", "test-")]
        full = max((first[one] for one in tuned[name]), key=lambda result: result["validation"])
        for how, result in (("prompted", prompted), ("full", full)):
            scores[f"{name}.{how}"] = {"task": name, "split": "test", "rows": [result["rows"]]}
        rates = {first[one]["rate"]: first[one]["validation"] for one in tuned[name]}
        values[name] = _summary(prompted, full, rates)
        print(f"{name}: best prompt {prompted['test']:.1%}, full finetuning {full['test']:.1%}")
    if options.only:
        return 0
    whole = [*first.values(), *second.values()]
    path = store.write(
        NAME, "gpu", seed=0, seconds=sum(one["seconds"] for one in whole), values=values, scores=scores,
        peak_bytes=max(one["peak_bytes"] for one in whole), digest=digest,
    )  # fmt: skip
    print(f"wrote {path.name}")
    return 0


def job(name):
    """One job: `try-sql-2` (prompt 2 on validation), `test-sql-2`, `full-sql-1e-4` (trained at that rate)."""
    import torch

    from labkit import fit, load, load_model, load_tokenizer, score

    started = time.perf_counter()
    kind, family, rest = name.split("-", 2)
    torch.set_float32_matmul_precision("high")
    data = load(family, **LOADING.get(family, {}))
    tokenizer, model = load_tokenizer(), load_model()
    result = {"prompt": None, "rate": None}

    def scored(split, limit, ask=None):
        rows = data[split].select(range(min(limit, data[split].num_rows)))
        asked = ask and [ask(row[_asked(data)]) for row in rows]
        found = score(model, tokenizer, rows, task=family, prompts=asked, batch_size=125, progress=False)
        result[split] = found.exact
        if split == "test":
            result.update(rows=stats.pack_rows(found.exact_rows), detail=_detail(found))

    if kind == "full":
        env.seed_everything(0)
        run = fit(model, data["train"], tokenizer, **BUDGET, lr=float(rest), seed=0, progress=False)
        result |= {"rate": rest, "training seconds": run.seconds}
        scored("validation", TRIED)
        scored("test", SCORED)
    else:
        result["prompt"] = list(prompts(family))[int(rest)]
        ask = prompts(family)[result["prompt"]](data["train"])
        scored(*(("validation", TRIED) if kind == "try" else ("test", SCORED)), ask)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {**result, "seconds": time.perf_counter() - started, "peak_bytes": peak}


def _summary(prompted, full, rates):
    return {
        "best prompt": prompted["prompt"],
        "prompted": prompted["test"],
        "prompted detail": prompted["detail"],
        "rate": full["rate"],
        "full": full["test"],
        "full detail": full["detail"],
        "full on validation, by rate": rates,
        "training seconds": full["training seconds"],
    }


def prompts(name):
    """The prompts that a family tries on the untuned base: name -> maker."""
    from labkit import tasks

    found = getattr(tasks.family(name), "PROMPTS", None)
    if not found:
        raise LabkitError(f"the family {name} has no PROMPTS to try on the base model")
    return found


def _asked(data):
    """The column that a family's prompts ask about."""
    return "message" if "message" in data["train"].column_names else "question"


def _detail(found):
    return getattr(found, "detail", None) or {"valid": found.valid, **found.fields}
