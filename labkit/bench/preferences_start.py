"""Where every model of `bench preferences` begins: a start finetuned on drafts, and pairs that it sampled.

Arguments are parts of a job's name, so text; `asked` is `preferences.settings()`, `folder` where jobs leave
results. A start leaves its weights there too, and a job reads what the ones before it left.
"""

import hashlib
import json
import math
import os
from pathlib import Path

from labkit.bench import jobs
from labkit.bench import methods as bench_methods
from labkit.bench import preferences_scores as scoring
from labkit.errors import LabkitError

LENGTH_RULES = ("not_too_long", "not_too_short")


# ---- the start ------------------------------------------------------------------------------------------


def start(rate, seed, asked, folder):
    """Full finetuning of the base on drafts; leaves its weights, and its scores as a policy."""
    from labkit import load_tokenizer

    tokenizer, data = load_tokenizer(), scoring.voice_rows()
    model, run = _drafted(rate, seed, asked, data)
    if not run:
        raise LabkitError(f"the start diverged at the rate {rate} with seed {seed}: sweep again")
    _keep(model, state_file(seed, folder))
    test = scoring.few(data["test"], asked)
    found = scoring.policy_scores(model, tokenizer, test, seed, asked, divergence=False)
    return {"policy": found, "held-out loss": run.validation[-1][1], "weights": weights_digest(seed, folder)}


def tune_start(rate, seed, asked, folder):
    """As `bench_methods.sweep` wants it: the loss on validation drafts alone decides."""
    _, run = _drafted(rate, seed, asked, scoring.voice_rows())
    loss = run.validation[-1][1] if run else math.inf
    return tried(0.0, loss) if math.isfinite(loss) else diverged()


def _drafted(rate, seed, asked, data):
    """(model, Run, or None where the loss was no number) of full finetuning on drafts."""
    from labkit import methods

    model = methods.find("full").prepare(int(seed))
    options = {"steps": asked["start"], "batch": asked["batch"], "length": asked["length"],
               "validation": scoring.few(data["validation"], asked),
               "validate_every": asked["start"]}  # fmt: skip
    return model, fitted(model, data["train"], rate, seed, options)


def fitted(model, rows, rate, seed, options):
    """The Run of `fit`; None where the loss was no number."""
    from labkit import fit, load_tokenizer

    try:
        return fit(model, rows, load_tokenizer(), lr=float(rate), seed=int(seed), progress=False, **options)
    except LabkitError as error:
        if not str(error).startswith(bench_methods.DIVERGED):
            raise
        return None


def _keep(model, path):
    """Write all weights whole or not at all; the head that is the embedding is written once."""
    from safetensors.torch import save_file

    temporary = path.with_name(f".part-{path.name}")
    try:
        save_file({name: weight.detach().cpu().contiguous() for name, weight in model.named_parameters()},
                  temporary)  # fmt: skip
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def state_file(seed, folder):
    """Where `start` leaves its weights."""
    return Path(folder) / f"start_{seed}.safetensors"


def weights_digest(seed, folder):
    """A digest of the weights that lie there; None without them."""
    path = state_file(seed, folder)
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def refuse_mixed(found):
    """LabkitError unless all jobs of a seed began from the weights that its start has left.

    A folder may have gone on without them, and the start have been trained again, to other weights.
    """
    starts = {name.rpartition("_")[2]: one.get("weights") for name, one in found.items()
              if name.startswith("start_")}  # fmt: skip
    mixed = [name for name, one in found.items()
             if "begun" in one and one["begun"] != starts[name.rpartition("_")[2]]]  # fmt: skip
    if mixed:
        raise LabkitError(f"other starts than those that lie there now were the beginning of "
                          f"{', '.join(mixed)}: delete these results, and run again")  # fmt: skip


def started(seed, folder):
    """The model that `start` left for this seed; LabkitError where it left none."""
    import torch
    from safetensors.torch import load_file

    from labkit import load_model

    path = state_file(seed, folder)
    if not path.exists():
        raise LabkitError(f"{path} is missing: delete the start_..._{seed}.json beside it, and run again")
    model, state = load_model(), load_file(path)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(state[name])
    return model


# ---- pairs ----------------------------------------------------------------------------------------------


def pairs(seed, asked, folder):
    """On-policy pairs of the start by the pair rules, those without a length signal, and what was sampled.

    `lengths`, `ended` and `kept` are the tokens, whether it ended, and the share of pair rules of every
    sample, a list a message; `kept apart` is that share without LENGTH_RULES; `samples` the first answer to
    each message.
    """
    from labkit import load_tokenizer
    from labkit.methods import preferences as pr
    from labkit.tasks import voice

    rows, tokenizer = messages(asked), load_tokenizer()
    answers = pr.sample(started(seed, folder), tokenizer, rows["prompt"], n=asked["answers"], seed=int(seed),
                        batch=512, max_new_tokens=asked["new"], progress=False)  # fmt: skip
    whole = _of_answers(rows, answers, int(seed))
    rules = [rule for rule in voice.PAIR_RULES if rule not in LENGTH_RULES]

    def kept(row, text):
        found = voice.kept(row["message"], text, rules)
        return sum(found.values()) / len(found)

    def each(score):
        return [[score(row, one) for one in some] for row, some in zip(rows, answers, strict=True)]

    return {
        "pairs": whole.to_list(),
        "balanced": _balanced(whole, int(seed)).to_list(),
        "lengths": each(lambda row, one: len(one.ids)),
        "ended": each(lambda row, one: one.ended),
        "kept": each(lambda row, one: round(voice.reward(row["message"], one.text), 4)),
        "kept apart": each(lambda row, one: round(kept(row, one.text), 4)),
        "samples": [{"prompt": row["prompt"], "text": some[0].text, "tokens": len(some[0].ids)}
                    for row, some in zip(rows, answers, strict=True)],
    }  # fmt: skip


def _of_answers(rows, answers, seed):
    """`on_policy`, but a trial's short answers, of which few end, count as if they had."""
    from labkit import env
    from labkit.methods import preferences as pr

    try:
        return pr.on_policy(rows, answers, seed=seed)
    except LabkitError:
        if env.profile() == "gpu":
            raise
        return pr.on_policy(rows, [[one.text for one in some] for some in answers], seed=seed)


def _balanced(whole, seed):
    """`length_balanced`, but a trial's few pairs, which may have no counterpart, stay as they are."""
    from labkit import env
    from labkit.methods import preferences as pr

    try:
        return pr.length_balanced(whole, seed=seed)
    except LabkitError:
        if env.profile() == "gpu":
            raise
        return whole


def messages(asked):
    """The train messages that all seeds and arms learn from.

    None has a phrasing of the validation messages, which choose rates: what an arm got by heart must not
    count there. (The start's drafts had those phrasings, for all arms alike.)
    """
    data = scoring.voice_rows()
    judging = set(data["validation"]["phrasing"])
    kept = [at for at, one in enumerate(data["train"]["phrasing"]) if one not in judging]
    train = data["train"].select(kept).shuffle(seed=0)
    return train.select(range(min(asked["messages"], len(train))))


def left(name, folder):
    """The result of an earlier job."""
    return json.loads(jobs.result_file(folder, name).read_text())


# ---- what a sweep wants ---------------------------------------------------------------------------------


def tried(right, loss):
    """As `bench_methods.sweep` wants the result of a training that worked."""
    return {"right": right, "loss": loss, "diverged": False}


def diverged():
    """As `bench_methods.sweep` wants the result of one that did not."""
    return {"right": 0.0, "loss": None, "diverged": True}
