"""The claim form-json: is output strictly valid JSON after prompting, constrained decoding, finetuning?

Every prompt of a fixed budget is tried on the validation split. On the test split are scored: the one with
most schema-valid answers, with and without constrained decoding; the one with most exact answers; LoRA
with three seeds.
"""

import argparse
import time
from pathlib import Path

from labkit import env
from labkit.bench import jobs
from labkit.records import stats, store
from labkit.records.ledger import digests

NAME = "form_json"
SEEDS = (0, 1, 2)
PROMPTED_ROWS = 2000  # of the test split: prompts of 2,600 tokens are slow, and their band is far away
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
BUDGET = {"steps": 300, "lr": 2e-3, "batch": 8, "length": 512}
ANSWERS = (f"tasks/tickets/{part}" for part in ("answers", "prompts", "rules"))
CODE = tuple(f"labkit/{part}.py" for part in ("bench/form_json", "constrain", *ANSWERS))


def main(argv):
    """Run what is missing of the benchmark and write data/measurements/form_json.json."""
    about = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m labkit bench form-json", description=about)
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side on a GPU (large: 4)")
    parser.add_argument("--folder", default="out/form_json", help="where jobs leave results, to go on from")
    parser.add_argument("--rows", type=int, default=None, help="test rows (default: all; fewer for a trial)")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    digest = {**store.data_digest("tickets"), **store.code_digest(*CODE)}
    if options.job:
        jobs.write(options.folder, options.job, {**job(options.job), "digest": digest})
        return 0
    rows = f"@{options.rows}" if options.rows else ""
    tried = [f"try-{number}" for number in range(len(_prompts()))]
    tuned = [f"lora-{seed}{rows}" for seed in SEEDS]
    # The long jobs first, so that short ones fill the gaps at the end.
    first = jobs.run("form-json", [*tuned, *tried], options.folder, options.jobs, digest)
    valid, exact = (
        max(range(len(tried)), key=lambda number: first[tried[number]][f"{kind}_share"])  # noqa: B023
        for kind in ("valid", "exact")
    )
    last = [f"test-{valid}{rows}", f"test-{exact}{rows}", f"constrained-{valid}{rows}"]
    second = jobs.run("form-json", sorted(set(last)), options.folder, options.jobs, digest)
    whole = {**first, **second}
    kept = ("valid_share", "exact_share", "rows")
    values = {
        "best prompt": whole[last[0]]["prompt"],
        "best prompt by exact match": whole[last[1]]["prompt"],
        "prompts tried": {whole[name]["prompt"]: {key: whole[name][key] for key in kept} for name in tried},
    }
    scores = {}
    if options.rows:
        print({part: (whole[part]["valid_share"], whole[part]["exact_share"]) for part in [*tuned, *last]})
        return 0  # a trial is no record
    parts_of = {"finetuned": tuned, "prompted": last[:1], "prompted by exact": last[1:2]}
    for name, parts in {**parts_of, "constrained": last[2:]}.items():
        for kind in ("valid", "exact"):
            rows = [whole[part][kind] for part in parts]
            scores[f"{name}.{kind}"] = {"task": "tickets", "split": "test", "rows": rows}
    path = store.write(
        NAME, "gpu", seed=SEEDS[0], seconds=sum(one["seconds"] for one in whole.values()),
        peak_bytes=max(one["peak_bytes"] for one in whole.values()), values=values, scores=scores,
        digest=digest, claims=digests(NAME),
    )  # fmt: skip
    print(f"wrote {Path(path).name}")
    return 0


def job(name):
    """One job: `try-2` (prompt 2, validation), `test-2`, `constrained-2`, `lora-0` (seed 0).

    A name may end in `@9`, which limits the rows. Returns what `jobs.write` stores.
    """
    import torch

    from labkit import fit, load, load_model, load_tokenizer, score
    from labkit.constrain import schema_constraint
    from labkit.tasks import tickets

    started = time.perf_counter()
    kind, number = name.split("@")[0].split("-")
    limit = int(name.split("@")[1]) if "@" in name else None
    torch.set_float32_matmul_precision("high")
    data, tokenizer, model = load("tickets"), load_tokenizer(), load_model()
    rows = data["validation" if kind == "try" else "test"]
    limit = limit or (len(rows) if kind == "lora" else PROMPTED_ROWS)
    rows = rows.select(range(min(limit, len(rows))))
    options, prompt = {"batch_size": 500, "progress": False}, None
    if kind == "lora":
        from peft import LoraConfig, get_peft_model

        env.seed_everything(int(number))
        model = get_peft_model(model, LoraConfig(**LORA))
        fit(model, data["train"], tokenizer, **BUDGET, seed=int(number), progress=False)
    else:
        prompt = list(_prompts())[int(number)]
        ask = _prompts()[prompt](data["train"])
        options |= {"prompts": [ask(row["message"]) for row in rows], "batch_size": 150}
        if kind == "constrained":
            options["constraint"] = schema_constraint(tokenizer, tickets.SCHEMA)
    scores = score(model, tokenizer, rows, **options)
    return {
        "prompt": prompt,
        "valid": stats.pack_rows(scores.valid_rows),
        "exact": stats.pack_rows(scores.exact_rows),
        "valid_share": scores.valid,
        "exact_share": scores.exact,
        "rows": scores.n,
        "seconds": time.perf_counter() - started,
        "peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
    }


def _prompts():
    from labkit.tasks.tickets import PROMPTS

    return PROMPTS
