"""Several answers to each prompt, sampled from a model, with the tokens that it chose."""

import sys
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from tqdm import tqdm

from labkit import env
from labkit.errors import LabkitError
from labkit.train.precision import Weights, autocast


@dataclass(frozen=True)
class Answer:
    """One answer: its token ids, the end token included where it came, and text without special tokens."""

    ids: list
    text: str
    ended: bool  # False where `max_new_tokens` cut it off


def prompt_ids(prompts, tokenizer):
    """The token ids of each prompt, a list of messages or a string, up to where the answer begins."""
    texts = [
        prompt if isinstance(prompt, str)
        else tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        for prompt in prompts
    ]  # fmt: skip
    return tokenizer(texts, add_special_tokens=False).input_ids if texts else []


@contextmanager
def merged(model):
    """Inside, peft's adapters in `model` are merged into its base, whose own weights return bit for bit.

    A token then launches as many kernels as one of the base; adapters apart launch four more a layer. Copies
    are merged into, since subtracting would leave roundings: that takes the bytes of the adapted weights. A
    model without adapters, or with adapters switched off or merged already, is left as it is.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [
        module.get_base_layer() for module in model.modules()
        if isinstance(module, BaseTunerLayer) and not (module.disable_adapters or module.merged)
    ]  # fmt: skip
    own = [layer.weight.data for layer in layers]
    try:
        for layer in layers:
            layer.weight.data = layer.weight.data.clone()
        if layers:
            model.merge_adapter()
        yield
    finally:
        if layers:
            model.unmerge_adapter()
        for layer, weight in zip(layers, own, strict=True):
            layer.weight.data = weight


@torch.no_grad()
def sample(
    model, tokenizer, prompts, *, n=4, temperature=1.0, max_new_tokens=110, batch=256, seed=0, progress=True
):
    """`n` answers to each of `prompts`, drawn from the whole distribution: a list of n Answers a prompt.

    `batch` answers are drawn at once, in the precision of the hardware; decoding is bound by its steps, so
    that large batches cost little more, and adapters are merged meanwhile. A seed gives the same answers
    again on the same machine, and the caller's random state stays as it was. Raises LabkitError for a
    temperature that is not above 0.
    """
    if temperature <= 0:
        raise LabkitError(f"temperature={temperature}: sampling wants one above 0; labkit.generate is greedy")
    rows = [ids for ids in prompt_ids(prompts, tokenizer) for _ in range(n)]
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))  # of a length: little padding
    on, training = next(model.parameters()).device, model.training
    precision, end = env.precision(on), tokenizer.eos_token_id
    found = [None] * len(rows)
    bar = tqdm(total=len(rows), disable=not progress, file=sys.stdout, unit="answer", desc="sampling")
    model.eval()
    apart = torch.random.fork_rng([on] if on.type == "cuda" else [])
    with bar, apart, merged(model), Weights(model, precision), autocast(on.type, precision):
        torch.manual_seed(seed)
        for start in range(0, len(order), batch):
            numbers = order[start : start + batch]
            padded = tokenizer.pad(
                {"input_ids": [rows[number] for number in numbers]}, padding_side="left", return_tensors="pt"
            ).to(on)
            out = model.generate(
                **padded, max_new_tokens=max_new_tokens, do_sample=True, temperature=temperature, top_k=0,
                top_p=1.0, pad_token_id=tokenizer.pad_token_id, eos_token_id=end,
            )  # fmt: skip
            for number, ids in zip(numbers, out[:, padded.input_ids.shape[1] :].tolist(), strict=True):
                ended = end in ids
                ids = ids[: ids.index(end) + 1] if ended else ids
                found[number] = Answer(ids, tokenizer.decode(ids, skip_special_tokens=True), ended)
            bar.update(len(numbers))
    model.train(training)
    return [found[start : start + n] for start in range(0, len(found), n)]
