"""Evaluation: batched greedy generation and task scores."""

import sys

import torch
from tqdm import tqdm

from labkit import env
from labkit.train.loop import autocast


@torch.no_grad()
def generate(model, tokenizer, prompts, *, max_new_tokens=80, batch_size=64, constraint=None, progress=True):
    """Greedy continuations of `prompts`, in the same order, as text without special tokens.

    A prompt is a list of messages or a string. Rows are batched by length, left-padded, and each
    ends at its end token or after `max_new_tokens`. `constraint` is a function that makes a
    fresh `LogitsProcessor` for each batch (see `labkit.constrain`).
    """
    texts = [_as_text(prompt, tokenizer) for prompt in prompts]
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    answers = [""] * len(texts)
    on = next(model.parameters()).device
    bar = tqdm(total=len(texts), disable=not progress, file=sys.stdout, unit="row", desc="generating")
    training = model.training
    model.eval()
    with bar, autocast(on.type, env.precision(on)):
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            inputs = tokenizer(
                [texts[number] for number in numbers],
                return_tensors="pt",
                padding=True,
                padding_side="left",
                add_special_tokens=False,
            ).to(on)
            out = model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                logits_processor=[constraint()] if constraint else None,
            )
            new = out[:, inputs["input_ids"].shape[1] :]
            decoded = tokenizer.batch_decode(new, skip_special_tokens=True)
            for number, text in zip(numbers, decoded, strict=True):
                answers[number] = text
            bar.update(len(numbers))
    model.train(training)
    return answers


def score(model, tokenizer, rows, *, task="tickets", prompts=None, **options):
    """Generate an answer to every row and score it: returns the task's Scores.

    `prompts` replaces the rows' own prompts (a hard prompt, say); `options` go to `generate`.
    The answers themselves are in `scores.answers`.
    """
    from labkit import tasks

    answers = generate(model, tokenizer, prompts or [row["prompt"] for row in rows], **options)
    return tasks.family(task).score(answers, rows)


def _as_text(prompt, tokenizer):
    """The exact text the model sees for one prompt."""
    if isinstance(prompt, str):
        return prompt
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
