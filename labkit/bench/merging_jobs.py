"""The jobs of `bench merging` that train specialists, which they leave in its folder, and that merge them.

Arguments are parts of a job's name, so text; `asked` is `merging.settings()`, `folder` the bench's.
"""

import math
import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from labkit.bench.full_jobs import fitted
from labkit.bench.lora_jobs import english
from labkit.errors import LabkitError
from labkit.methods import merging
from labkit.records import stats

# What was best on held-out rows, for tickets of this budget (methods_tickets), for the others of 400 steps
# (families). An adapter's rate was only looked for on tickets (methods_tickets). Captions say so.
RATES = {"tickets": 3e-4, "sql": 2e-4, "voice": 1e-4}
SOUP_RATES = (1e-4, 3e-4, 1e-3)
JOINT_RATES = (1e-4, 2e-4, 3e-4)  # of training on both tasks at once, chosen on validation rows
LORA_RATES, ADAPTER = {"tickets": 3e-3, "sql": 3e-3}, "lora-r16"
SETS = {"pair": ("tickets", "sql"), "three": ("tickets", "sql", "voice")}
OPTIONS = {"voice": {"quality": "gold"}}  # its drafts are spoilt on purpose
ANSWERED = {"cuda": 500, "cpu": 64}  # rows of a batch that answers; only speed and memory depend on it

# ---- ways to merge --------------------------------------------------------------------------------------

GRID = {
    "average": ((),),
    "task-arithmetic": tuple((scale / 10,) for scale in range(3, 11)),
    "slerp-models": ((0.3,), (0.5,), (0.7,)),
    "slerp-deltas": ((0.3,), (0.5,), (0.7,)),
    "ties": tuple(product((0.2, 0.5), (0.5, 1.0, 1.5, 2.0))),  # density, scale
    "ties-untrimmed": ((0.5,), (1.0,), (1.5,), (2.0,)),
    "ties-unelected": tuple(product((0.2, 0.5), (0.5, 1.0, 1.5, 2.0))),
    "dare": tuple(product((0.5, 0.9), (0.4, 0.6, 0.8, 1.0))),  # drop rate, scale
    "dare-ties": tuple(product((0.5, 0.9), (0.5, 1.0, 1.5, 2.0))),
}
CONTROLS = ("ties-untrimmed", "ties-unelected")  # TIES without one of its parts; never the best method
PAIRS_ONLY = ("slerp-models", "slerp-deltas", *CONTROLS)
MERGES = {
    "average": lambda one: merging.average(one.states),
    "task-arithmetic": lambda one, scale: merging.task_arithmetic(one.base, one.deltas, scale),
    "slerp-models": lambda one, t: merging.slerp(*one.states, t),
    "slerp-deltas": lambda one, t: merging.task_arithmetic(one.base, [merging.slerp(*one.deltas, t)]),
    "ties": lambda one, density, scale: merging.ties(one.base, one.deltas, density, scale),
    "ties-untrimmed": lambda one, scale: merging.ties(one.base, one.deltas, 1.0, scale),
    "ties-unelected": lambda one, density, scale: merging.ties(one.base, one.deltas, density, scale, False),
    "dare": lambda one, drop, scale: merging.dare(one.base, one.deltas, drop, scale, one.seed),
    "dare-ties": lambda one, drop, scale: merging.dare_ties(one.base, one.deltas, drop, scale, one.seed),
}


@dataclass(frozen=True)
class Parents:
    """What a merge is made of: states of the base and of specialists, and what they changed."""

    base: dict
    states: list
    deltas: list
    seed: int


def grid(method, asked):
    """Settings that are tried for a method; fewer in a trial."""
    return GRID[method][: asked["settings"]]


def written(setting):
    """A setting as a job's name has it: its numbers with hyphens between, `none` without a number."""
    return "-".join(f"{number:g}" for number in setting) or "none"


def _read(text):
    return () if text == "none" else tuple(map(float, text.split("-")))


def at_ends(setting, tried):
    """Which numbers of a setting (their places) are the least or the largest that were tried, of several."""
    axes = [set(axis) for axis in zip(*map(_read, tried), strict=True)]
    return [place for place, (number, axis) in enumerate(zip(_read(setting), axes, strict=True))
            if len(axis) > 1 and number in (min(axis), max(axis))]  # fmt: skip


def _parents(model, some, seed, folder):
    base = merging.state(model)
    states = [recall(folder, specialist_of(task, seed)) for task in SETS[some]]
    return Parents(base, states, [merging.delta(state, base) for state in states], int(seed))


def tune(some, method, asked, folder):
    """{setting: {task: share of validation rows right}} of a method on a set of tasks, first seed.

    `counts` says how many rows a task has.
    """
    from labkit import load_model, load_tokenizer

    model, tokenizer = load_model(), load_tokenizer()
    rows = rows_of(SETS[some], "validation", asked["tried"])
    parents = _parents(model, some, asked["seeds"][0], folder)
    found = {}
    for setting in grid(method, asked):
        merging.put(model, MERGES[method](parents, *setting))
        found[written(setting)] = shares(model, tokenizer, rows)
    return {"shares": found, "counts": {task: len(some) for task, some in rows.items()}}


def final(some, method, setting, seed, asked, folder):
    """Which test rows of its tasks a merge has right."""
    from labkit import load_model, load_tokenizer

    model = load_model()
    merged = MERGES[method](_parents(model, some, seed, folder), *_read(setting))
    rows = rows_of(SETS[some], "test", asked["rows"])
    return {"rows": flags(merging.put(model, merged), load_tokenizer(), rows)}


# ---- scores and losses ----------------------------------------------------------------------------------


def rows_of(tasks, split, most):
    """{task: the first rows of its split}."""
    from labkit import load

    splits = {task: load(task, **OPTIONS.get(task, {}))[split] for task in tasks}
    return {task: rows.select(range(min(most, len(rows)))) for task, rows in splits.items()}


def scored(model, tokenizer, rows):
    """{task: its Scores of the model's answers} for {task: rows}."""
    batch = ANSWERED[next(model.parameters()).device.type]
    return merging.score_all(model, tokenizer, rows, batch_size=batch, progress=False)


def shares(model, tokenizer, rows):
    """{task: share right} for {task: rows}."""
    return {task: one.exact for task, one in scored(model, tokenizer, rows).items()}


def flags(model, tokenizer, rows):
    """{task: which rows are right, packed} for {task: rows}."""
    return {task: stats.pack_rows(one.exact_rows) for task, one in scored(model, tokenizer, rows).items()}


def nats(model, tokenizer, rows):
    """Loss on rows, in nats per answer token: the number that `fit` gives for `validation`."""
    from labkit.tasks.general.likelihood import log_probabilities
    from labkit.train.rows import encode_all

    coded = encode_all(rows, tokenizer, 2048)
    pieces = [(one.ids, max(1, one.weights.index(1.0))) for one in coded]
    found = log_probabilities(model, tokenizer, pieces, 16, "loss", False)
    return -sum(map(math.fsum, found)) / sum(map(len, found))


def losses_of(model, tokenizer, asked):
    """On right answers to tickets, and on plain English, in nats per token."""
    rows = rows_of(("tickets",), "test", asked["tried"])["tickets"]
    return {"tickets loss": nats(model, tokenizer, rows), "general loss": english(model, tokenizer, asked)}


def worth(numbers):
    """What choices between merges go by: the number of the worst task, among equals the mean.

    `numbers` is {task: number}; None, of a specialist without a gain, counts 0.
    """
    known = [number or 0.0 for number in numbers.values()]
    return min(known), sum(known) / len(known)


# ---- specialists ----------------------------------------------------------------------------------------


def specialist_of(task, seed, rate=None):
    """The job that trains a specialist, at its task's own rate unless another is given."""
    return f"specialist_{task}_{rate or RATES[task]:g}_{seed}"


def adapter_of(task, seed):
    """The job that trains an adapter."""
    return f"adapter_{task}_{LORA_RATES[task]:g}_{seed}"


def base(asked, folder):
    """What the base has right of validation and test rows, and its losses."""
    from labkit import load_model, load_tokenizer

    model, tokenizer = load_model(), load_tokenizer()
    return {**_alone(model, tokenizer, RATES, asked), **losses_of(model, tokenizer, asked)}


def specialist(task, rate, seed, asked, folder):
    """Full finetuning on a task; one at its task's own rate is scored on all three."""
    return _trained("full", task, rate, seed, float(rate) == RATES[task], asked, folder)


def adapter(task, rate, seed, asked, folder):
    """A LoRA adapter for a task, scored on those that adapters are trained for."""
    return _trained(ADAPTER, task, rate, seed, True, asked, folder)


def joint(rate, seed, asked, folder):
    """One full finetune on both tasks of the pair, as many rows of each, with both specialists' steps."""
    from labkit import load, load_tokenizer, methods

    tasks, tokenizer = SETS["pair"], load_tokenizer()
    parts = [load(task)["train"] for task in tasks]
    rows = [{name: row[name] for name in ("prompt", "completion")}
            for part in parts for row in part.select(range(min(map(len, parts))))]  # fmt: skip
    model = methods.find("full").prepare(int(seed))
    if not fitted(model, rows, tokenizer, rate, seed, asked, steps=len(tasks) * asked["steps"]):
        raise LabkitError(f"training on {' and '.join(tasks)} diverged at {rate}. Choose another rate")
    return _alone(model, tokenizer, tasks, asked)


def _trained(method, task, rate, seed, scored, asked, folder):
    from peft import get_peft_model_state_dict

    from labkit import load, load_tokenizer, methods

    tokenizer, model = load_tokenizer(), methods.find(method).prepare(int(seed))
    rows = load(task, **OPTIONS.get(task, {}))["train"]
    if not fitted(model, rows, tokenizer, rate, seed, asked):
        raise LabkitError(f"{method} on {task} diverged at {rate}: nothing to merge. Choose another rate")
    full = method == "full"
    weights = (merging.state(model) if full
               else get_peft_model_state_dict(model, save_embedding_layers=False))  # fmt: skip
    keep(folder, f"{'specialist' if full else 'adapter'}_{task}_{rate}_{seed}", weights)
    tasks = () if not scored else RATES if full else LORA_RATES
    return _alone(model, tokenizer, tasks, asked)


def _alone(model, tokenizer, tasks, asked):
    return {"validation": shares(model, tokenizer, rows_of(tasks, "validation", asked["tried"])),
            "rows": flags(model, tokenizer, rows_of(tasks, "test", asked["rows"]))}  # fmt: skip


def keep(folder, name, weights):
    """Write the weights that a job trained, {name: tensor}, whole or not at all."""
    from safetensors.torch import save_file

    path = state_file(folder, name)
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".part")
    try:
        save_file({key: weight.detach().float().cpu().contiguous() for key, weight in weights.items()},
                  temporary)  # fmt: skip
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def recall(folder, name):
    """The weights that `keep` wrote, on the device; LabkitError where they are gone or damaged."""
    from safetensors.torch import load_file

    from labkit import env

    path = state_file(folder, name)
    try:
        return load_file(path, device=str(env.device()))
    except Exception as error:  # safetensors raises its own types
        raise LabkitError(f"cannot read {path} ({error}): delete {name}.json in {folder}, which makes it "
                          "anew") from error  # fmt: skip


def state_file(folder, name):
    """Where a job leaves the weights it trained."""
    return Path(folder) / "states" / f"{name}.safetensors"
