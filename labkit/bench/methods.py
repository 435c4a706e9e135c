"""Finetuning methods under the same rows, steps, seeds and evaluation: `bench methods`.

For each method learning rates are tried with the first seed, and further ones while the best is at an end;
then every seed is trained at the best rate and scored on the test split. What is new in the test split is
its phrasings, so a rate is judged by phrasings that its training did not see: a fifth of the training
split's are kept from the sweep. A training is a job, and leaves one file. Records depend on this file; table,
options and merging are methods_report.
"""

import hashlib
import json
import math
import random
import time
import traceback
from pathlib import Path

from labkit import env, methods
from labkit.bench import jobs, methods_report
from labkit.errors import LabkitError
from labkit.records import ledger, stats, store

EXTENSIONS = 3  # further rates on a side, at most
HELD_OUT, JUDGING = 0.2, 600  # share of the phrasings that a sweep keeps out, and rows of them that judge it
GENERATED = {"cuda": 250, "cpu": 64}  # rows of a batch that answers; only speed and memory depend on it
DIVERGED = "the loss is"  # how `fit` begins to say that a loss is not finite


def main(argv):
    """Train and score what is missing, print the table, write data/measurements/methods_TASK.json."""
    options = methods_report.options(argv)
    if options.job:
        return _one(Path(options.folder), options.job)
    settings, profile = methods_report.settings(options), env.profile()
    chosen = list({method.name: method for method in map(methods.find, options.methods)}.values())
    trial = bool(options.rows is not None or options.rates)  # swept otherwise, methods do not compare
    if not trial:
        methods_report.kept(settings, profile, [method.name for method in chosen])  # refuse before the work
    digest = _digest(settings)
    folder = Path(options.folder).resolve() / f"{settings['task']}-{digest[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    known = {**settings, "digest": digest, "jobs": options.jobs}
    (folder / "settings.json").write_text(json.dumps(known))
    start = {method.name: tuple(options.rates or method.rates) for method in chosen}

    def run(names):
        return _run(names, folder, options.jobs, digest)

    base = run(["base"])["base"]
    if "error" in base:
        raise LabkitError(f"the base itself could not be scored:\n{base['error']}")
    codes = {method.name: store.code_digest(method.module)[method.module][:8] for method in chosen}
    tried, failed = sweep(start, codes, settings["seeds"][0], run, 0 if trial else EXTENSIONS)
    best = {name: best_rate(rates) for name, rates in tried.items()}
    finals, late = _finals(best, codes, settings, run)
    failed |= late
    entries = {
        method.name: methods_report.entry(method, tried[method.name], best[method.name], finals[method.name])
        for method in chosen if method.name in finals
    }  # fmt: skip
    scores = {name: methods_report.score(settings, results) for name, results in finals.items()}
    used = [base, *(one for name in finals for one in (*tried[name].values(), *finals[name]))]
    methods_report.finish(settings, profile, trial, base, entries, scores, failed, ledger.stamp(used))
    return 1 if failed else 0


# ---- the sweep ------------------------------------------------------------------------------------------


def sweep(start, codes, seed, run, most=EXTENSIONS):
    """Try the rates of `start` (method name to rates), and further ones while the best is at an end.

    `run` takes names of jobs and returns their results. Returns {method: {rate: result}} of those that
    worked, and {method: why} of the others.
    """
    tried, failed = {name: {} for name in start}, {}
    wanted = {name: list(rates) for name, rates in start.items()}
    while wanted:
        pairs = [(name, rate) for name in wanted for rate in wanted[name]]
        names = [_name("sweep", *pair, seed, codes) for pair in pairs]
        found = run(names)
        for (name, rate), result in zip(pairs, map(found.get, names), strict=True):
            tried[name][rate] = result
            if "error" in result:
                failed[name] = f"at the learning rate {rate:g}: {result['error']}"
        going = [name for name in wanted if name not in failed]
        wanted = {name: more for name in going if (more := further(tried[name], start[name], most))}
    for name in set(tried) - set(failed):
        if all(result["diverged"] for result in tried[name].values()):
            failed[name] = f"at every rate from {min(tried[name]):g} to {max(tried[name]):g}: it diverged"
    return {name: rates for name, rates in tried.items() if name not in failed}, failed


def best_rate(tried):
    """The rate with most right rows of unseen phrasings; among equals the lower loss there, then the rate."""

    def merit(rate):
        loss = tried[rate]["loss"]
        return tried[rate]["right"], -math.inf if loss is None else -loss, -rate

    return max(tried, key=merit)


def further(tried, start, most=EXTENSIONS):
    """Rates to try next: one beyond each end where the best lies, at most `most` on a side of `start`."""
    best, more = best_rate(tried), []
    if best == min(tried) and sum(rate < min(start) for rate in tried) < most:
        more.append(_beside(best, up=False))
    if best == max(tried) and sum(rate > max(start) for rate in tried) < most:
        more.append(_beside(best, up=True))
    return more


def _beside(rate, up):
    """The rate about 3 times higher or lower, so that 1 and 3 alternate: 1e-4, 3e-4, 1e-3."""
    leading = float(f"{rate:e}".split("e")[0])
    if up:
        factor = 3 if leading < 2 else 10 / 3
    else:
        factor = 3 / 10 if leading < 2 else 1 / 3
    return float(f"{rate * factor:.2g}")


def _finals(rates, codes, settings, run):
    """{method: [result of each seed]} at the rates given, and {method: why} of those that failed."""
    seeds = settings["seeds"]
    names = {name: [_name("final", name, rates[name], seed, codes) for seed in seeds] for name in rates}
    found = run([one for each in names.values() for one in each])
    finals, failed = {}, {}
    for name, each in names.items():
        wrong = [f"seed {seed}: {found[one]['error']}" for seed, one in zip(seeds, each, strict=True)
                 if "error" in found[one]]  # fmt: skip
        if wrong:
            failed[name] = f"at its best learning rate, {rates[name]:g}, {wrong[0]}"
        else:
            finals[name] = [found[one] for one in each]
    return finals, failed


# ---- jobs -----------------------------------------------------------------------------------------------


def _name(stage, method, rate, seed, codes):
    """A job's name; it ends in the digest of the method's module: a method that changed is trained anew."""
    return f"{stage}_{method}_{rate:g}_{seed}_{codes[method]}"


def _method_of(name):
    return name if name == "base" else name.split("_")[1]


def _digest(settings):
    """What every job depends on: settings, rows, what trains and what scores, versions of libraries."""
    parts = [settings, methods_report.digest(settings["task"], {}), store.versions()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _run(names, folder, count, digest):
    """Results of these jobs; one that failed has only the key `error`, and is tried again by the next run."""
    if not names:
        return {}
    try:
        return jobs.run("methods", names, folder, count, digest)
    except LabkitError:  # the system killed a job (for its memory, say): method by method, it alone is lost
        results = {}
        for method in dict.fromkeys(map(_method_of, names)):
            own = [name for name in names if _method_of(name) == method]
            try:
                results |= jobs.run("methods", own, folder, count, digest)
            except LabkitError as error:
                results |= {name: {"error": str(error)} for name in own}
        return results


def _one(folder, name):
    """Do one job and leave its result, or why there is none under a digest that no run asks for."""
    settings = json.loads((folder / "settings.json").read_text())
    try:
        result = {**job(name, settings), "digest": settings["digest"]}
    except Exception as error:  # whatever it is, other methods go on
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}"[:2000], "digest": "failed"}
    jobs.write(folder, name, result)
    return 0


def job(name, settings):
    """One job: `base`, `sweep_lora-r16_0.001_0_1a2b3c4d` or `final_...`, as named by `_name`.

    A sweep scores rows of phrasings kept from its training. A final scores validation and test rows, and what
    was forgotten of general knowledge and English. A training that diverged has no row right.
    """
    import torch

    from labkit import fit, load, load_model, load_tokenizer

    started = time.perf_counter()
    torch.set_float32_matmul_precision("high")
    tokenizer = load_tokenizer()
    if name == "base":
        model = load_model()
        weights = sum(parameter.numel() for parameter in model.parameters())
        return {**_general(model, tokenizer, settings), "weights": weights, **_cost(settings, started)}
    stage, method, rate, seed, _ = name.split("_")
    method, data = methods.find(method), load(settings["task"], **settings["loading"])
    train, asked = data["train"], {}
    scored = {split: data[split].select(range(_most(settings, len(data[split])))) for split in data}
    if stage == "sweep":
        train, unseen = apart(train)
        unseen = unseen.select(range(_most(settings, len(unseen))))
        asked = {"validation": unseen, "validate_every": settings["steps"]}
    model = method.prepare(int(seed))
    try:
        run = fit(
            model, train, tokenizer, steps=settings["steps"], lr=float(rate), batch=settings["batch"],
            length=settings["length"], seed=int(seed), progress=False, **asked, **method.options,
        )  # fmt: skip
    except LabkitError as error:
        if not str(error).startswith(DIVERGED):
            raise
        if stage == "sweep":
            return {"right": 0.0, "loss": None, "diverged": True, **_cost(settings, started)}
        return {**_diverged(model, len(scored["test"])), **_cost(settings, started)}
    if stage == "sweep":
        loss = run.validation[-1][1]
        right = _exact(model, tokenizer, unseen, settings).exact
        loss = loss if math.isfinite(loss) else None
        return {"right": right, "loss": loss, "diverged": False, **_cost(settings, started)}
    test = _exact(model, tokenizer, scored["test"], settings)
    return {
        "validation": _exact(model, tokenizer, scored["validation"], settings).exact,
        "test": test.exact,
        "rows": stats.pack_rows(test.exact_rows),
        "training seconds": run.seconds,
        "tokens/s": run.tokens_per_second,
        "path": run.path,
        "trainable": run.trainable,
        "peak bytes": run.peak_bytes,
        "diverged": False,
        **_general(model, tokenizer, settings),
        **_cost(settings, started),
    }


def apart(train):
    """(rows to train on, rows to judge by) of a training split, without a phrasing in common."""
    names = sorted(set(train["phrasing"]))
    random.Random(0).shuffle(names)
    kept_out = set(names[: max(1, round(HELD_OUT * len(names)))])
    inside = [number for number, name in enumerate(train["phrasing"]) if name not in kept_out]
    outside = [number for number, name in enumerate(train["phrasing"]) if name in kept_out]
    return train.select(inside), train.select(outside[:JUDGING])


def _diverged(model, rows):
    """The result of a final whose loss was no number any more: nothing is right, and nothing else known."""
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    unknown = ("training seconds", "tokens/s", "general loss", "probe", "probe rows")
    return {"validation": 0.0, "test": 0.0, "rows": stats.pack_rows([False] * rows), "path": "diverged",
            "trainable": trainable, "peak bytes": 0, "diverged": True, **dict.fromkeys(unknown)}  # fmt: skip


def _most(settings, count):
    """How many of `count` rows are scored: all, but for a trial."""
    return min(count, settings["rows"] or count)


def _exact(model, tokenizer, rows, settings):
    """The task's Scores of the model's answers to rows."""
    from labkit import score

    batch = GENERATED[next(model.parameters()).device.type]
    return score(model, tokenizer, rows, task=settings["task"], batch_size=batch, progress=False)


def _general(model, tokenizer, settings):
    """What the model knows and how well it predicts English: probe accuracy, and nats per token."""
    from labkit.tasks import general

    items, passages = general.items(), general.passages()
    items = items[: _most(settings, len(items))]
    passages = passages[: _most(settings, len(passages))]
    probe = general.probe_accuracy(model, tokenizer, items, progress=False)
    text = general.perplexity(model, tokenizer, passages, progress=False)
    return {"probe": probe.exact, "probe rows": stats.pack_rows(probe.exact_rows), "general loss": text.loss}


def _cost(settings, started):
    """Where a job ran, how many ran beside it on a card, and its seconds from start to end."""
    return {"device": env.machine(), "jobs": settings["jobs"], "seconds": time.perf_counter() - started}
