"""The jobs of `bench merging` beside merges of tasks: one delta, soups, adapters, stacked layers, probes.

Arguments are parts of a job's name, so text; `asked` is `merging.settings()`, `folder` the bench's.
"""

import json
import math
from contextlib import contextmanager

from labkit.bench.full_jobs import fitted, random_start
from labkit.bench.lora_jobs import english, plain_text
from labkit.bench.merging_jobs import (
    LORA_RATES,
    SETS,
    SOUP_RATES,
    adapter_of,
    flags,
    losses_of,
    nats,
    recall,
    rows_of,
    scored,
    shares,
    specialist_of,
    worth,
)
from labkit.errors import LabkitError
from labkit.methods import merging
from labkit.records import stats

DROPS = (0, 0.5, 0.8, 0.9, 0.95, 0.99)
CLAIMED = (0, 0.9)  # drop rates that a claim compares, on more rows
WAYS, WEIGHTS = ("cat", "svd", "linear"), (0.5, 0.7, 1.0)
ARMS = ("base", "stacked")  # of continued pre-training
LONGER = "longer"  # the base, at its own rate, with as much compute as the stack
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
PROBED = {
    "base": ("base",), "tickets": ("tickets",), "sql": ("sql",), "random": ("random",),
    "tickets and sql": ("tickets", "sql"), "tickets twice": ("tickets", "tickets"),
    "tickets and random": ("tickets", "random"),
}  # fmt: skip

# ---- one delta: dropped, or taken away ------------------------------------------------------------------


def dare(drop, seed, asked, folder):
    """Test rows right after a share of the tickets specialist's delta is dropped, by what is left."""
    from labkit import load_model, load_tokenizer

    model, tokenizer = load_model(), load_tokenizer()
    base, deltas = _one_delta(model, seed, folder)
    rows = _tickets("test", asked["claimed" if float(drop) in CLAIMED else "rows"])
    found = {}
    for way, rescale in (("rescaled", True), ("as it is", False)):
        merging.put(model, merging.dare(base, deltas, float(drop), seed=int(seed), rescale=rescale))
        found[way] = flags(model, tokenizer, rows)["tickets"]
        if float(drop) == 0:  # nothing is dropped: one model
            return {"rows": dict.fromkeys(("rescaled", "as it is"), found[way])}
    return {"rows": found}


def negate(seed, asked, folder):
    """The tickets specialist, and the base minus its delta: share right of test rows, and losses."""
    from labkit import load_model, load_tokenizer

    model, tokenizer = load_model(), load_tokenizer()
    (base, deltas), found = _one_delta(model, seed, folder), {}
    for name, scale in (("specialist", 1.0), ("negated", -1.0)):
        merging.put(model, merging.task_arithmetic(base, deltas, scale))
        right = shares(model, tokenizer, _tickets("test", asked["rows"]))["tickets"]
        found[name] = {"right": right, **losses_of(model, tokenizer, asked)}
    return found


def _one_delta(model, seed, folder):
    base = merging.state(model)
    return base, [merging.delta(recall(folder, specialist_of("tickets", seed)), base)]


def _tickets(split, most):
    return rows_of(("tickets",), split, most)


# ---- soups of tickets specialists -----------------------------------------------------------------------


def groups(asked):
    """Soups by name: {group: jobs of its parents}; for each seed all rates, the best rate's seeds, all."""
    seeds = asked["seeds"]
    by_seed = {str(seed): [specialist_of("tickets", seed, rate) for rate in SOUP_RATES] for seed in seeds}
    return {"all": [one for some in by_seed.values() for one in some], **by_seed,
            "seeds": [specialist_of("tickets", seed) for seed in seeds]}  # fmt: skip


def soup(group, asked, folder):
    """Test rows right of the uniform and the greedy soup and of the parent best on validation rows.

    What chooses is the number of validation rows right; among equals the lower loss on their answers. A
    greedy soup begins with the best parent, so one that takes no other is that parent.
    """
    from labkit import load_model, load_tokenizer

    model, tokenizer = load_model(), load_tokenizer()
    names, judging, counts = groups(asked)[group], _tickets("validation", asked["judging"]), []
    rows = _tickets("test", asked["claimed"])

    def merit(state):
        merging.put(model, state)
        counts.append(sum(scored(model, tokenizer, judging)["tickets"].exact_rows))
        return counts[-1] + math.exp(-nats(model, tokenizer, judging["tickets"])) / 2  # below one row

    states = [recall(folder, name) for name in names]
    greedy, members = merging.greedy_soup(states, merit)  # it asks for the parents first, in order
    tested = {"soup": merging.average(states), "greedy soup": greedy, "best parent": states[members[0]]}
    right = {name: flags(merging.put(model, state), tokenizer, rows)["tickets"]
             for name, state in tested.items()}  # fmt: skip
    others = {name: flags(merging.put(model, state), tokenizer, rows)["tickets"]  # what else could be chosen
              for name, state in zip(names, states, strict=True) if group != "all"}  # fmt: skip
    parents = {name: one / len(judging["tickets"]) for name, one in zip(names, counts, strict=False)}
    return {"rows": right, "parents": parents, "parents on test": others,
            "members": [names[member] for member in members]}  # fmt: skip


# ---- adapters -------------------------------------------------------------------------------------------


def lora(way, seed, asked, folder):
    """Two adapters combined with equal weights: the update's relative error and scores, by weight.

    Test rows only for the weight that validation rows choose: the better its worse task, the better.
    """
    import torch

    from labkit import load_model, load_tokenizer

    torch.set_float32_matmul_precision("highest")  # TF32 would spoil what is exact: B A, times no power of 2
    tokenizer, tasks = load_tokenizer(), tuple(LORA_RATES)
    seen, unseen = rows_of(tasks, "validation", asked["tried"]), rows_of(tasks, "test", asked["rows"])
    model = merging.with_adapters(load_model(), {task: recall(folder, adapter_of(task, seed))
                                                 for task in tasks})  # fmt: skip
    error, validation = {}, {}
    for weight in WEIGHTS[: asked["settings"]]:
        name, weights = _named(weight), dict.fromkeys(tasks, weight)
        merging.combine(model, weights, way, name=name)
        error[f"{weight:g}"] = merging.relative_error(model, weights, name)
        with _in_weights(model, name):
            validation[f"{weight:g}"] = shares(model, tokenizer, seen)
    best = max(validation, key=lambda weight: worth(validation[weight]))
    with _in_weights(model, _named(float(best))):
        rows = flags(model, tokenizer, unseen)
    return {"error": error, "validation": validation, "weight": best, "rows": rows}


def _named(weight):
    return f"weight{100 * weight:.0f}"  # torch allows no dot in a module's name


@contextmanager
def _in_weights(model, name):
    """An adapter lies in the base's weights inside, with which answering is faster."""
    model.set_adapter(name)
    model.merge_adapter([name])
    try:
        yield
    finally:
        model.unmerge_adapter()


# ---- stacked layers -------------------------------------------------------------------------------------


def stacked(count):
    """Numbers of layers for a stack half as deep again, as SOLAR's (Kim et al. 2023, section 2).

    A copy without its last quarter of layers, then one without its first; where a quarter is no whole number
    the first is cut by the number below it, the second by the one above: 30 layers become 23 and 22.
    """
    return [*range(count - count // 4), *range(-(-count // 4), count)]


def grow(arm, rate, seed, asked, folder):
    """Losses of the base or the stack before and after continued pre-training, and on the way."""
    found = _pretrained(arm, rate, seed, "test", asked)
    if found["after"] is None:
        raise LabkitError(f"continued pre-training of {arm} diverged at {rate} with seed {seed}")
    return found


def sweep(arm, rate, seed, judged, asked, folder):
    """The loss on validation text after the same, as `bench_methods.sweep` wants it: nothing is answered."""
    after = _pretrained(arm, rate, seed, "validation", asked)["after"]
    return {"right": 0.0, "loss": after and after["text"], "diverged": after is None}


def _pretrained(arm, rate, seed, split, asked):
    """{before, after: losses on text of `split` and on plain English; curve: [steps, loss on text]}.

    The curve looks into one run, whose rate is still high then; after is None where that run diverged. Also
    its steps, the tokens it read, and how often it read the text.
    """
    from labkit import load_model, load_tokenizer
    from labkit.train.rows import encode_all

    model, tokenizer, steps = load_model(), load_tokenizer(), asked["steps"]
    deeper = merging.stack(model, stacked(model.config.num_hidden_layers)) if arm != "base" else None
    if arm == LONGER:
        steps = longer(steps, _weights(model), _weights(deeper))
    elif deeper:
        model = deeper
    rows, text = unseen_text(split, asked), plain_text()
    size = sum(map(len, encode_all(text, tokenizer, asked["length"], 1.0)))

    def losses():
        return {"text": nats(model, tokenizer, rows), "general": english(model, tokenizer, asked)}

    before = losses()
    options = {"prompt_loss_weight": 1.0, "validation": rows, "validate_every": asked["look"], "steps": steps}
    run = fitted(model, text, tokenizer, rate, seed, asked, **options)
    return {"before": before, "after": losses() if run else None, "layers": model.config.num_hidden_layers,
            "weights": _weights(model), "steps": steps, "tokens": run.tokens if run else 0,
            "passes": run.tokens / size if run else 0.0,
            "curve": [[0, before["text"]], *map(list, run.validation)] if run else []}  # fmt: skip


def longer(steps, base, stack):
    """Steps in which the base takes as much compute as the stack in `steps`; `base`, `stack`: their weights.

    A token costs about 6 operations a weight, the tied head's counted once, so not 1.5 times as much for half
    as many layers again.
    """
    return round(steps * stack / base)


def _weights(model):
    return sum(one.numel() for one in model.parameters())


def unseen_text(split, asked):
    """Rows of text of the kinds that `plain_text` has, from another split: but for the handbook's documents,
    of which there is one set."""
    from labkit import load

    voice = load("voice", quality="gold")[split]
    parts = ([f"{row['message']}\n{row['reply']}" for row in voice], load("jobs")[split]["text"],
             load("sql")[split]["question"])  # fmt: skip
    halves = [one.partition(" ") for part in parts for one in list(part)[: asked["text"]]]
    return [{"prompt": first, "completion": space + rest} for first, space, rest in halves]


# ---- representations ------------------------------------------------------------------------------------


def probe(seed, asked, folder):
    """Test rows whose intent a linear probe reads from the last token's final state, by models side by side.

    The penalty is chosen on validation rows for each arm. `tickets twice` has as many features as two models
    and not one that is new; `random` has the base's shape and no training at all.
    """
    import torch

    from labkit import env, load_model, load_tokenizer
    from labkit.tasks.tickets.rules import INTENTS

    tokenizer, model, on = load_tokenizer(), load_model(), env.device()
    states = {"base": lambda: merging.state(model),
              "random": lambda: merging.state(random_start(seed)),
              **{task: lambda task=task: recall(folder, specialist_of(task, seed))
                 for task in SETS["pair"]}}  # fmt: skip
    sizes = {"train": asked["probed"], "validation": asked["judging"], "test": asked["rows"]}
    rows = {split: _tickets(split, most)["tickets"] for split, most in sizes.items()}
    labels = {split: torch.tensor([INTENTS.index(json.loads(one)["intent"]) for one in some["answer"]],
                                  device=on) for split, some in rows.items()}  # fmt: skip
    seen = {}
    for name, make in states.items():
        merging.put(model, make())
        seen[name] = {split: _hidden(model, tokenizer, some["prompt"]) for split, some in rows.items()}
    found = {}
    for arm, parts in PROBED.items():
        x = {split: torch.cat([seen[part][split] for part in parts], dim=-1) for split in rows}

        def right(split, penalty, x=x):
            given = merging.probe(x["train"], labels["train"], x[split], penalty)
            return (given == labels[split]).cpu()

        best = max(PENALTIES, key=lambda penalty: right("validation", penalty).double().mean().item())
        found[arm] = {"penalty": best, "size": x["test"].shape[1],
                      "rows": stats.pack_rows(right("test", best))}  # fmt: skip
    return {"probes": found}


def _hidden(model, tokenizer, prompts, batch=64):
    """The final state of each prompt's last token: (rows, width)."""
    import torch

    texts = [tokenizer.apply_chat_template(one, add_generation_prompt=True, tokenize=False)
             for one in prompts]  # fmt: skip
    out = []
    for start in range(0, len(texts), batch):
        coded = tokenizer(texts[start : start + batch], padding=True, add_special_tokens=False,
                          return_tensors="pt")  # fmt: skip
        hidden = merging.concatenated([model], coded.input_ids, coded.attention_mask)
        out.append(merging.last_token(hidden, coded.attention_mask.to(hidden.device)))
    return torch.cat(out)
