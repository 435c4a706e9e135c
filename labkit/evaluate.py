"""Evaluation: batched greedy generation and task scores."""

import copy
import os
import sys

import torch
from tqdm import tqdm

from labkit import env
from labkit.errors import LabkitError
from labkit.train.precision import Weights, autocast

LONG_PREFIX = 64  # tokens: a shared beginning from this length on is worth computing apart


@torch.no_grad()
def generate(model, tokenizer, prompts, *, max_new_tokens=80, batch_size=64, constraint=None, progress=True):
    """Greedy continuations of `prompts`, in the same order, as text without special tokens.

    A prompt is a list of messages or a string. Rows are batched by length, left-padded, and each
    ends at its end token or after `max_new_tokens`. A long beginning that all prompts share (rules,
    solved examples) is computed once. `constraint` is a function that makes a fresh
    `LogitsProcessor` for each batch (see `labkit.constrain`).
    """
    texts = [_as_text(prompt, tokenizer) for prompt in prompts]
    rows = tokenizer(texts, add_special_tokens=False).input_ids if texts else []
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    answers = [""] * len(rows)
    on = next(model.parameters()).device
    bar = tqdm(total=len(rows), disable=not progress, file=sys.stdout, unit="row", desc="generating")
    training = model.training
    model.eval()
    precision = env.precision(on)
    with bar, Weights(model, precision), autocast(on.type, precision):
        shared = _shared(rows, model)
        cache = model(torch.tensor([shared], device=on), use_cache=True).past_key_values if shared else None
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            some = [rows[number] for number in numbers]
            ids, mask = _left_padded(some, len(shared), tokenizer.pad_token_id)
            begun = {}
            if shared:
                begun["past_key_values"] = copy.deepcopy(cache)  # generation writes into it
                begun["past_key_values"].batch_repeat_interleave(len(numbers))
            out = model.generate(
                input_ids=ids.to(on),
                attention_mask=mask.to(on),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                logits_processor=[constraint()] if constraint else None,
                **begun,
            )
            new = out[:, ids.shape[1] :]
            decoded = tokenizer.batch_decode(new, skip_special_tokens=True)
            for number, text in zip(numbers, decoded, strict=True):
                answers[number] = text
            bar.update(len(numbers))
    model.train(training)
    return answers


def score(model, tokenizer, rows, *, task="tickets", prompts=None, **options):
    """Generate an answer to every row and score it: returns the task's Scores.

    `prompts` replaces the rows' own prompts (a hard prompt, say); `options` go to `generate`, where
    `max_new_tokens` is what the family's answers need. The answers themselves are in `scores.answers`.
    """
    from labkit import tasks

    family = tasks.family(task)
    first = str(rows[0].get("id", task)) if len(rows) else task
    if task != tasks.OWN and not first.startswith(task):
        raise LabkitError(
            f"these are no rows of {task} (the first is {first!r}): say what they are, as in "
            f"score(..., task='sql'), or task='{tasks.OWN}' for data of your own"
        )
    options = {"max_new_tokens": getattr(family, "MAX_NEW_TOKENS", 80), **options}
    answers = generate(model, tokenizer, prompts or [row["prompt"] for row in rows], **options)
    return family.score(answers, rows)


def _as_text(prompt, tokenizer):
    """The exact text the model sees for one prompt."""
    if isinstance(prompt, str):
        return prompt
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)


def _shared(rows, model):
    """The token ids with which all rows begin, or [] where computing them once saves nothing."""
    learned_prompt = getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False)
    if len(rows) < 2 or learned_prompt:  # a soft prompt comes before the text, and has a cache of its own
        return []
    same = min(len(os.path.commonprefix(rows)), min(map(len, rows)) - 1)  # a row needs a token to go on from
    return rows[0][:same] if same >= LONG_PREFIX else []


def _left_padded(rows, shared, pad):
    """Token ids and mask (batch, seq) of rows, padded on the left of what follows their shared tokens."""
    longest = max(map(len, rows))
    ids = [row[:shared] + [pad] * (longest - len(row)) + row[shared:] for row in rows]
    mask = [[1] * shared + [0] * (longest - len(row)) + [1] * (len(row) - shared) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)
