"""The jobs of `bench lora` that want the card to themselves: merging, speed; and operations counted.

Arguments are parts of a job's name, so text; `asked` is `lora.settings()`.
"""


def merge(rate, seed, asked):
    """What merging a trained adapter changes: logits, and seconds of a forward pass in bf16.

    Merged in fp32. Logits are compared in fp32, and once all weights are rounded to bf16; beside that stands
    what bf16 alone does to the merged model.

    Launch-bound is a forward of one short prompt, where each kernel is done before the next is launched;
    compute-bound one of many long rows, so that kernels have much work each (a model this narrow is bound by
    memory traffic even then). Only the last position goes through the head, as in generation.
    Base, merged and unmerged take turns in every repeat, the first of them another each time.
    """
    import copy

    import torch

    from labkit import load, load_model, load_tokenizer, methods
    from labkit.bench.lora_jobs import fitted

    data, tokenizer = load("tickets"), load_tokenizer()
    unmerged = methods.find("lora-r16").prepare(int(seed))
    fitted(unmerged, data["train"], tokenizer, rate, seed, asked)
    # No TF32: rounding to it would be seen as a difference, that of the product B A most of all.
    torch.set_float32_matmul_precision("highest")
    merged = copy.deepcopy(unmerged).merge_and_unload()
    rows = data["test"].select(range(asked["prompts"]))
    found = {"fp32": differences(unmerged, merged, tokenizer, rows)}
    rounding = differences(merged, copy.deepcopy(merged).to(torch.bfloat16), tokenizer, rows)
    models = {"base": load_model(), "merged": merged, "unmerged": unmerged}
    # Frozen alike: on some CPUs a weight that wants a gradient takes another way through a product.
    models = {name: model.to(torch.bfloat16).eval().requires_grad_(False) for name, model in models.items()}
    found["bf16"] = differences(models["unmerged"], models["merged"], tokenizer, rows)
    times = {what: turns(models, *shape, asked["repeats"]) for what, shape in asked["calls"].items()}
    return {"logits": found, "rounding": rounding, "times": times}


def differences(one, other, tokenizer, rows):
    """How far the logits of two models lie apart, over all positions of the rows' prompts and answers."""
    import torch

    on = next(one.parameters()).device
    apart = largest = same = count = 0
    with torch.no_grad():
        for row in rows:
            messages = [*row["prompt"], *row["completion"]]
            ids = tokenizer.apply_chat_template(messages, return_dict=False, return_tensors="pt").to(on)
            first, second = one(input_ids=ids).logits.float(), other(input_ids=ids).logits.float()
            apart = max(apart, (first - second).abs().max().item())
            largest = max(largest, first.abs().max().item())
            same += (first.argmax(-1) == second.argmax(-1)).sum().item()
            count += ids.numel()
    return {"largest logit difference": apart, "largest logit": largest, "same next token": same / count}


def turns(models, shape, count, repeats):
    """name -> seconds of a forward pass of (rows, tokens), the mean of `count`, for each repeat."""
    import torch

    on = next(models["base"].parameters()).device
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(models["base"].config.vocab_size, shape, generator=generator).to(on)
    found = {name: [] for name in models}
    for model in models.values():
        _seconds(model, ids, count)  # warm up
    for repeat in range(repeats):
        order = list(models)
        for name in order[repeat % len(order) :] + order[: repeat % len(order)]:
            found[name].append(_seconds(models[name], ids, count))
    return found


def _seconds(model, ids, count):
    """Mean seconds of `count` forward passes, sent one after the other, until the card is done."""
    import torch

    from labkit.bench.train_engines import _clock

    with torch.no_grad():
        began = _clock()
        for _ in range(count):
            model(input_ids=ids, use_cache=False, logits_to_keep=1)
        return (_clock() - began) / count


def speed(size, engine, method, repeat, asked):
    """Tokens a second of one method in one training loop, by the engines of `bench train`; one of repeats."""
    from labkit import load, load_tokenizer, methods
    from labkit.bench import train, train_engines

    shape = train.SIZES[size]
    rows, tokenizer = load("tickets")["train"], load_tokenizer()
    model = methods.find(method).prepare(0)
    rate = {"full": 1e-4}.get(method, 1e-3)
    warm = min(train.WARM, shape["whole"])
    taken = train_engines.ENGINES[engine](model, rows, tokenizer, rate=rate, **{**shape, "whole": warm})
    shape = {name: shape[name] for name in ("batch", "length", "timed")}
    return {**shape, **{name: taken[name] for name in ("tokens/s", "step ms", "peak bytes")}}


def flops(method, asked):
    """Floating-point operations of one training step: matrix products and attention, forward and backward.

    Counted by torch on the model as it runs, every position through the head; two for each multiplication
    and addition. AdamW and all that is done element by element do not count; nor does attention on a CPU,
    whose kernel torch does not count.
    """
    import torch

    from labkit import methods

    model = methods.find(method).prepare(0)
    shape, on = (asked["batch"], asked["length"]), next(model.parameters()).device
    ids = torch.zeros(shape, dtype=torch.long, device=on)
    return {"FLOPs": counted(model, ids)}


def counted(model, ids):
    """FLOPs of one forward and backward pass of a causal language model on ids (batch, seq)."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    model.train()
    with counter:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return counter.get_total_flops()
