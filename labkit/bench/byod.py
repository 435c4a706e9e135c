"""Bring your own data: finetune on it, choose the learning rate on validation rows, score test rows.

The data is what `labkit.load` takes. Each learning rate is one job; the one with most right validation rows
is scored on the test split, with as many training seeds as asked for. The result is the learner's: it is
printed, and written only where `--out` says.
"""

import argparse
import hashlib
import json
import math
import os
import time
import warnings
from pathlib import Path

from labkit import base_model, env
from labkit.bench import byod_report, jobs
from labkit.errors import LabkitError
from labkit.records import stats, store
from labkit.tasks import FAMILIES, own_data
from labkit.tasks.draw import digest

NAME = "byod"
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
RATES = {"lora": [1e-3, 2e-3], "full": [1e-4, 3e-4]}
EPOCHS, FEWEST_STEPS = 8, 40  # without --steps: so many passes over the rows, up to the profile's steps
# Steps, and rows of validation and test, are at most (None: all); jobs are side by side.
GPU = {"steps": 800, "batch": 8, "length": 512, "validation": 500, "test": None, "jobs": 2}
CPU = {"steps": 100, "batch": 2, "length": 256, "validation": 50, "test": 100, "jobs": 1}
SMOKE = {"steps": 2, "batch": 1, "length": 256, "validation": 4, "test": 4, "jobs": 1}
MOST_NEW_TOKENS = 256
COLUMNS = ("prompt", "answer", "messages", "system", "overlap", "encoding", "config")


def main(argv):
    """Run what is missing, print the table, and write the result to `--out` if given."""
    options = _options(argv)
    if options.job:
        settings = json.loads((Path(options.folder) / "settings.json").read_text())
        jobs.write(options.folder, options.job, {**job(options.job, settings), "digest": settings["digest"]})
        return 0
    if not options.path:
        raise LabkitError("name your data: python -m labkit bench byod my.csv (or a folder, or a hub name)")
    if options.path in FAMILIES:
        raise LabkitError(
            f"byod takes data of your own; {options.path} is a course family: see `labkit bench families`"
        )
    out = _writable(options.out)
    started = time.perf_counter()
    data, settings = _prepare(options)
    folder = Path(options.folder) / f"{Path(settings['path']).stem}-{settings['digest'][:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    print(_about(data, settings), flush=True)

    first, *others = dict.fromkeys(options.seeds)
    tried = {rate: _name(rate, first) for rate in dict.fromkeys(options.lr)}
    results = _run(list(tried.values()), folder, options.jobs, settings)
    best = max(tried, key=lambda rate: results[tried[rate]]["validation"])
    names = [tried[best], *(_name(best, seed) for seed in others)]
    results |= _run(names[1:], folder, options.jobs, settings)

    by_rate = {rate: results[name] for rate, name in tried.items()}
    by_seed = dict(zip([first, *others], [results[name] for name in names], strict=True))
    summary = byod_report.summarise(data["test"], settings, by_rate, best, by_seed)
    summary["wall seconds"] = round(time.perf_counter() - started, 1)
    print(byod_report.table(summary, by_seed[first]["mistakes"]))
    if out:
        byod_report.write(out, summary)
        print(f"wrote {out}")
    return 0


def _options(argv):
    about = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m labkit bench byod", description=about)
    parser.add_argument("path", nargs="?", help="a .csv, .tsv, .jsonl or .json file, a folder, or a hub name")
    columns = parser.add_argument_group("the data (see labkit.load)")
    columns.add_argument(
        "--prompt", nargs="+", help="its column, or several to join (default: a well-known name)"
    )
    columns.add_argument("--answer", help="its column (default: a well-known name)")
    columns.add_argument("--messages", help="the column of chats")
    columns.add_argument("--system", help="a sentence before every prompt ('Answer with the label.')")
    columns.add_argument("--overlap", choices=("drop", "keep", "error"), help="test prompts in train too")
    columns.add_argument("--encoding", help="of the files (default: UTF-8)")
    columns.add_argument("--config", help="of a hub dataset")
    columns.add_argument(
        "--no-names", action="store_true", help="ignore a file of label names beside the data"
    )
    training = parser.add_argument_group("the training")
    training.add_argument("--full", action="store_true", help="train every weight instead of LoRA")
    training.add_argument("--lr", type=_rate, nargs="+", help="learning rates to choose from")
    training.add_argument(
        "--steps", type=_count, help=f"default: {EPOCHS} passes, at most {GPU['steps']} (GPU)"
    )
    training.add_argument("--batch", type=_count, help="packed rows a step")
    training.add_argument("--length", type=_count, help="tokens of a packed row")
    training.add_argument("--seeds", type=int, nargs="+", default=[0], help="training seeds (default: 0)")
    for split in ("rows", "validation-rows", "test-rows"):
        what = "training" if split == "rows" else split.partition("-")[0]
        training.add_argument(f"--{split}", type=_count, help=f"{what} rows to use, for a trial")
    training.add_argument("--jobs", type=_count, help="processes side by side on each GPU (default: 2)")
    training.add_argument("--folder", default="out/byod", help="where jobs leave results, to go on from")
    training.add_argument("--out", help="a .json file to write the result to")
    training.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    budget = vars(env.budget(cpu=CPU, gpu=GPU, smoke=SMOKE))
    options.most_steps = budget["steps"]
    for name in ("batch", "length", "jobs"):
        setattr(options, name, getattr(options, name) or budget[name])
    options.validation_rows = options.validation_rows or budget["validation"]
    options.test_rows = options.test_rows or budget["test"]
    options.lr = options.lr or RATES["full" if options.full else "lora"]
    return options


def _rate(text):
    """A learning rate of the command line."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no learning rate: between 0 and 1, such as 1e-3")
    return value


def _count(text):
    """A whole number of the command line, one or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is too few: at least 1")
    return value


# ---- before training ------------------------------------------------------------------------------------


def _prepare(options):
    """The data, read and checked once, and what every job must know as plain JSON."""
    load = {name: getattr(options, name) for name in COLUMNS if getattr(options, name)}
    if options.no_names:
        load["labels"] = False
    path = os.path.abspath(Path(options.path).expanduser())
    path = path if os.path.exists(path) else options.path  # a job runs in the course folder
    data = own_data.load(path, **load)
    if "answer" not in data["train"].column_names:
        raise LabkitError(
            f"{options.path} holds preferences, and this benchmark wants one answer a row. Name its columns "
            "with --prompt and --answer; lesson 09 is about preferences"
        )
    labels = own_data.labels(data)
    if labels and not options.system:
        load["system"] = f"Answer with the {(options.answer or 'label').strip()}."
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the same data again: said once is enough
            data = own_data.load(path, **load)
    tokenizer = base_model.load_tokenizer()
    own_data.check_lengths(data, tokenizer, options.length)
    rows = {"train": options.rows, "validation": options.validation_rows, "test": options.test_rows}
    data = {split: sample(data[split], rows[split]) for split in data}
    settings = {
        "path": path,
        "load": load,
        "labels": labels,
        "rows": {split: len(part) for split, part in data.items()},
        "steps": options.steps or _steps(data["train"], tokenizer, options),
        "batch": options.batch,
        "length": options.length,
        "method": "full" if options.full else "lora",
        "model": base_model.NAME if base_model.is_default() else os.environ["LABKIT_MODEL"],
        "profile": env.profile(),
    }
    settings["digest"] = _digest(data, settings)
    return data, settings


def sample(rows, count):
    """`count` rows in their own order, chosen by digest: files are often sorted by label."""
    if count is None or count >= len(rows):
        return rows
    ids = list(rows["id"])
    order = sorted(range(len(rows)), key=lambda number: digest(f"byod/{ids[number]}"))
    return rows.select(sorted(order[:count]))


def _steps(rows, tokenizer, options):
    """Steps for EPOCHS passes over the rows, judged by the tokens of a few hundred of them."""
    from labkit.train.rows import encode

    some = sample(rows, 300)
    tokens = sum(len(encode(row, tokenizer)) for row in some) * len(rows) / len(some)
    wanted = math.ceil(EPOCHS * tokens / (options.batch * options.length))
    return min(options.most_steps, max(FEWEST_STEPS, wanted))


def _digest(data, settings):
    """What a result depends on: the rows, the settings and this code; a job of another is run again."""
    sha = hashlib.sha256(json.dumps([settings, store.code_digest("labkit/bench/byod.py")]).encode())
    for split in ("train", "validation", "test"):
        for row in data[split]:
            sha.update(json.dumps([split, row["prompt"], row["answer"]]).encode())
    return sha.hexdigest()[:16]


def _writable(out):
    """The file for the result, known to be writable before an hour is spent."""
    if not out:
        return None
    path = Path(out).expanduser()
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        what = (
            "is a folder" if path.is_dir() else f"cannot be written: {path.parent} is no folder to write to"
        )
        raise LabkitError(f"--out {out} {what}. Name a file in a folder that exists")
    return path


def _about(data, settings):
    rows = ", ".join(f"{len(part):,} {split}" for split, part in data.items())
    kind = f"{len(settings['labels'])} labels" if settings["labels"] else "free-text answers"
    system = settings["load"].get("system")
    return (
        f"{settings['path']}: {rows} rows, {kind}"
        + (f", system sentence {system!r}" if system else "")
        + "\n"
        f"{settings['method']}, {settings['steps']} steps of {settings['batch']} x {settings['length']} "
        "tokens, "
        f"{settings['model']}"
    )


# ---- a job ----------------------------------------------------------------------------------------------


def _name(rate, seed):
    return f"lr-{rate!r}-seed-{seed}"


def _run(names, folder, count, settings):
    """Results of these jobs; one at a time they run in this process, which saves loading everything anew."""
    if count > 1:
        return jobs.run("byod", names, folder.resolve(), count, settings["digest"]) if names else {}
    results = {}
    for name in names:
        path = jobs.result_file(folder, name)
        if not path.exists() or json.loads(path.read_text()).get("digest") != settings["digest"]:
            print(f"job {name}", flush=True)
            jobs.write(folder, name, {**job(name, settings, progress=True), "digest": settings["digest"]})
        results[name] = json.loads(path.read_text())
    return results


def job(name, settings, progress=False):
    """Train at one rate with one seed (`lr-0.001-seed-0`), score validation and test; returns the result."""
    import torch

    from labkit import fit

    started = time.perf_counter()
    rate, seed = float(name.split("-seed-")[0].removeprefix("lr-")), int(name.split("-seed-")[1])
    torch.set_float32_matmul_precision("high")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = own_data.load(settings["path"], **settings["load"])
    data = {split: sample(data[split], settings["rows"][split]) for split in data}
    tokenizer, model = base_model.load_tokenizer(), base_model.load_model()
    env.seed_everything(seed)
    if settings["method"] == "lora":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(**LORA))
    run = fit(
        model, data["train"], tokenizer, steps=settings["steps"], lr=rate, batch=settings["batch"],
        length=settings["length"], seed=seed, progress=progress,
    )  # fmt: skip
    validation, _ = _scores(model, tokenizer, data["validation"], settings, progress)
    test, mistakes = _scores(model, tokenizer, data["test"], settings, progress)
    return {
        "validation": validation.exact,
        "test": test.exact,
        "test rows": stats.pack_rows(test.exact_rows),
        "detail": test.detail,
        "loss": run.losses[-1],
        "training seconds": round(run.seconds, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else run.peak_bytes,
        "mistakes": mistakes,
    }


def _scores(model, tokenizer, rows, settings, progress):
    """Scores on rows, and the first few that went wrong as (message, answer, wanted)."""
    from labkit import generate

    # One more than the longest wanted answer, for its end; what goes on beyond that is wrong anyway.
    longest = max(len(ids) for ids in tokenizer(list(rows["answer"]), add_special_tokens=False).input_ids)
    texts = generate(
        model, tokenizer, rows["prompt"], max_new_tokens=min(longest + 1, MOST_NEW_TOKENS),
        batch_size=500 if settings["profile"] == "gpu" else 64, progress=progress,
    )  # fmt: skip
    scores = own_data.score(texts, rows, settings["labels"])
    wrong = [number for number, right in enumerate(scores.exact_rows) if not right][:3]
    return scores, [[rows[number]["message"], texts[number], rows[number]["answer"]] for number in wrong]
