"""What a method costs when the model answers: adapters, merged or not, and prompts, soft or hard.

Seconds of a forward pass and of greedy answers, in bf16, over the base's in the same repeat. Time does not
depend on what weights say, so nothing is trained: new weights are moved away from their start at random.
LoRA and IA3 are timed twice, through peft and in own modules: where Python is slower than the card, peft's
wrappers would else be measured as the method.
"""

import random
import time

from labkit import env, methods
from labkit.bench import inference_values, jobs
from labkit.errors import LabkitError
from labkit.records import store

NAME = "inference"
METHODS = {"lora": "lora-r16", "ia3": "ia3", "biases": "biases", "norms": "norms",
           "bottleneck": "houlsby-w64", "prompt": "prompt-n100", "prefix": "prefix-n100"}  # fmt: skip
MERGED = ("lora", "ia3")
OWN = ("lora", "ia3")  # peft's in METHODS
RANK = 16
NOISE = 0.01  # added to each trained weight, times a standard normal number
# Rows, tokens of each, answer tokens to generate (0: a forward pass), calls that a repeat takes the mean of.
# Claims want a forward pass to 1%: many repeats there.
GPU = {"regimes": {
    "launch-bound": {"rows": 1, "tokens": 16, "new": 0, "calls": 10, "repeats": 40},
    "compute-bound": {"rows": 32, "tokens": 1024, "new": 0, "calls": 5, "repeats": 40},
    "answer-1": {"rows": 1, "tokens": 200, "new": 32, "calls": 1, "repeats": 10},
    "answer-32": {"rows": 32, "tokens": 200, "new": 32, "calls": 1, "repeats": 10},
}}  # fmt: skip
SMOKE = {"regimes": {
    "launch-bound": {"rows": 1, "tokens": 4, "new": 0, "calls": 1, "repeats": 2},
    "compute-bound": {"rows": 2, "tokens": 8, "new": 0, "calls": 1, "repeats": 2},
    "answer-1": {"rows": 1, "tokens": 4, "new": 2, "calls": 1, "repeats": 2},
    "answer-32": {"rows": 2, "tokens": 4, "new": 2, "calls": 1, "repeats": 2},
}}  # fmt: skip
CODE = ("bench/inference", "bench/inference_values", "bench/train_engines", "methods/adapters",
        "methods/lora", "methods/low_rank", "methods/soft_prompts/modules")  # fmt: skip


def main(argv):
    """Run what is missing and write data/measurements/inference.json; without a GPU, a trial, no record."""
    options = jobs.options(NAME, __doc__, argv)
    profile, asked = env.profile(), settings()
    digest = store.code_digest(*(f"labkit/{part}.py" for part in CODE))
    mark = {**digest, "profile": profile}  # a trial's results are no measurement's
    if options.job:
        jobs.write(options.folder, options.job, {**job(options.job), "digest": mark})
        return 0
    found = jobs.run(NAME, names(asked), options.folder, 1, mark)  # timed, so with the card to itself
    values = inference_values.summary(found, asked)
    jobs.finish(NAME, inference_values.lines(values), list(found.values()), values=values, digest=digest)
    return 0


def settings():
    """The numbers of this profile."""
    return vars(env.budget(cpu=SMOKE, gpu=GPU, smoke=SMOKE))


def names(asked):
    """One job for each regime: all arms take turns in one process."""
    return [f"time_{regime}" for regime in asked["regimes"]]


def job(name):
    """One job by name; returns what `jobs.write` stores, with its seconds and peak bytes."""
    asked, started = settings(), time.perf_counter()
    shape = asked["regimes"][name.removeprefix("time_")]
    models = prepared()
    times = turns(calls(models, **shape), shape["calls"], shape["repeats"])
    return {"times": times, **sizes(models), **jobs.cost(started)}


# ---- models ---------------------------------------------------------------------------------------------


def prepared():
    """{arm: frozen model in bf16} of the base, METHODS, OWN as `lora own`, and MERGED as `lora merged`.

    Merged in fp32.
    """
    import copy

    import torch

    from labkit import load_model

    models = {"base": load_model()}
    for arm, method in METHODS.items():
        models[arm] = moved(methods.find(method).prepare(0))
        if arm in MERGED:
            models[f"{arm} merged"] = copy.deepcopy(models[arm]).merge_and_unload()
    models |= {f"{arm} own": moved(own(arm)) for arm in OWN}
    # Frozen alike: on some CPUs a weight that wants a gradient takes another way through a product.
    return {arm: model.to(torch.bfloat16).eval().requires_grad_(False) for arm, model in models.items()}


def own(arm):
    """The base with LoRA or IA3 by this course's own module, as large as the arm through peft."""
    from labkit import load_model
    from labkit.methods.adapters import add_ia3
    from labkit.methods.low_rank import add_lora

    env.seed_everything(0)
    return add_ia3(load_model()) if arm == "ia3" else add_lora(load_model(), RANK, alpha=2 * RANK)


def moved(model):
    """`model` with seeded noise on each trained weight, so that none is at a start that is special."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                noise = torch.randn(weight.shape, generator=generator)
                weight.add_(NOISE * noise.to(weight.device, weight.dtype))
    return model


def sizes(models):
    """Beyond the base, by arm: weights kept to answer with, and bytes in the KV cache for each sequence.

    A merged model keeps none, nor do trained norms, which replace the base's. Of a prefix from the cache its
    keys and values are what is kept. The cache is in bf16.
    """
    base = models["base"]
    count = {arm: sum(weight.numel() for weight in model.parameters()) for arm, model in models.items()}
    weights = {arm: number - count["base"] for arm, number in count.items()}
    config = base.config
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim  # keys and values
    tokens = dict.fromkeys(models, 0) | {arm: len(models[arm].prompt_ids) for arm in ("prompt", "prefix")}
    tokens |= {"prefix from cache": tokens["prefix"], "hard prompt": tokens["prompt"]}
    weights |= {"prefix from cache": token * tokens["prefix"], "hard prompt": 0}
    return {
        "base": {"weights": count["base"], "cache bytes a token": 2 * token},
        "extra weights": weights,
        "extra cache bytes": {arm: 2 * token * number for arm, number in tokens.items()},
    }


# ---- time -----------------------------------------------------------------------------------------------


def calls(models, rows, tokens, new, **_):
    """{arm: a call that runs (rows, tokens) of text through its model, or answers with `new` tokens}.

    A prompt, soft or hard, comes before the text. As methods train it, a prefix runs through the model with
    each text; `prefix from cache` begins with its keys and values, as peft does, and runs the text alone.
    """
    import torch

    base = models["base"]
    on, generator = next(base.parameters()).device, torch.Generator().manual_seed(0)
    n = len(models["prompt"].prompt_ids)
    hard = torch.randint(base.config.vocab_size, (rows, n + tokens), generator=generator).to(on)
    text = hard[:, n:].contiguous()
    run = answer if new else forward

    def call(model, ids, begun=None):
        return lambda: run(model, ids, new, None if begun is None else again(begun))

    found = {arm: call(model, text) for arm, model in models.items()}
    if not new:  # `generate` of a soft prompt puts its words before the text by itself
        found |= {arm: call(models[arm], _with_words(models[arm], text)) for arm in ("prompt", "prefix")}
    kept = cache_of(models["prefix"], rows)
    placeholders = torch.zeros(rows, kept.get_seq_length(), dtype=text.dtype, device=on)
    long = torch.cat([placeholders, text], dim=1)  # `generate` skips what the cache holds
    found["prefix from cache"] = call(base, long if new else text, kept)
    found["hard prompt"] = call(base, hard)
    return found


def _with_words(model, text):
    """`text` (rows, tokens) with the words of the model's soft prompt before each row."""
    import torch

    words = torch.tensor(model.prompt_ids, device=text.device).expand(len(text), -1)
    return torch.cat([words, text], dim=1)


def cache_of(model, rows):
    """The keys and values of a model's soft prompt, as a cache for so many rows."""
    import torch

    words = torch.tensor([model.prompt_ids], device=next(model.parameters()).device)
    with torch.no_grad():
        kept = model(input_ids=words, use_cache=True).past_key_values
    kept.batch_repeat_interleave(rows)
    return kept


def again(kept):
    """A cache that begins as `kept`, which stays as it is: layers grow by new tensors, so none is copied."""
    import copy

    new = copy.copy(kept)
    new.layers = [copy.copy(layer) for layer in kept.layers]
    return new


def forward(model, ids, _, begun=None):
    """Logits of the last position, (rows, 1, vocabulary), after `begun`, if given."""
    return model(input_ids=ids, past_key_values=begun, use_cache=begun is not None, logits_to_keep=1).logits


def answer(model, ids, new, begun=None):
    """`ids` and `new` greedy tokens, whatever the end token; LabkitError if there are fewer."""
    import torch

    options = {"past_key_values": begun} if begun is not None else {}
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False,
        pad_token_id=0, eos_token_id=None, **options,
    )  # fmt: skip
    if out.shape[1] != ids.shape[1] + new:
        raise LabkitError(f"{out.shape[1] - ids.shape[1]} answer tokens instead of {new}: not to be compared")
    return out


def turns(calls, count, repeats):
    """{arm: mean seconds of `count` calls, for each repeat}.

    All arms take turns in every repeat, in an order drawn anew: none always follows the same other, whose
    traces (in caches, in the card's clock) it would bear. Each is warmed up before.
    """
    found, draw = {arm: [] for arm in calls}, random.Random(0)
    for call in calls.values():
        _seconds(call, count)
    for _ in range(repeats):
        for arm in draw.sample(list(calls), len(calls)):
            found[arm].append(_seconds(calls[arm], count))
    return found


def _seconds(call, count):
    """Mean seconds of `count` calls, sent one after the other, until the card is done."""
    import torch

    from labkit.bench.train_engines import _clock

    with torch.no_grad():
        began = _clock()
        for _ in range(count):
            call()
        return (_clock() - began) / count
