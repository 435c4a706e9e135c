"""How far a policy has moved: KL(policy || reference) in nats per answer, on the policy's own samples."""

import sys
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from tqdm import tqdm

from labkit.errors import LabkitError
from labkit.methods.preferences.sampling import prompt_ids


@dataclass(frozen=True)
class Divergence:
    """KL to the reference for each sampled answer, in nats, by two estimators of the same number.

    `exact` sums, over the answer's positions, the divergence of the two distributions over the next token;
    `sampled` sums the log-ratio of the tokens that were drawn. Both have the same mean. `exact` varies less,
    since only what came before a position is left to chance, and no answer's is negative: report its mean
    (Amini, Vieira and Cotterell 2025, arXiv:2504.10637). `tokens` counts positions.
    """

    exact: list
    sampled: list
    tokens: list

    @property
    def mean(self):
        """Nats per answer, by `exact`."""
        return sum(self.exact) / len(self.exact)


@torch.no_grad()
def divergence(policy, tokenizer, prompts, answers, *, reference=None, batch=8, progress=True):
    """Divergence of `policy` from `reference`, in the order of prompts and of each one's answers.

    `answers` are a list of Answers for each prompt, sampled from `policy` at temperature 1: at another they
    come from another distribution than the one compared. `reference` None is `policy` with its adapters off.
    Runs in the models' own precision, without autocast, whose rounding would look like a divergence. An
    answer that was cut off counts as far as it goes. Logits of `batch` answers exist at once, several times
    over: 8 of 110 tokens and 49,152 words are 0.17 GB. Raises LabkitError without an answer, or without a
    reference.
    """
    if reference is None and not hasattr(policy, "disable_adapter"):
        raise LabkitError("this policy has no adapters to switch off: pass the reference=... model")
    rows = [
        (prompt, answer.ids)
        for prompt, some in zip(prompt_ids(prompts, tokenizer), answers, strict=True)
        for answer in some
    ]
    if not rows or not all(ids for _, ids in rows):
        raise LabkitError("there is no answer of one token or more to measure a divergence on")
    order = sorted(range(len(rows)), key=lambda number: len(rows[number][0]) + len(rows[number][1]))
    exact, sampled = [None] * len(rows), [None] * len(rows)
    models = [model for model in (policy, reference) if model is not None]
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    bar = tqdm(total=len(rows), disable=not progress, file=sys.stdout, unit="answer", desc="KL")
    with bar:
        for start in range(0, len(order), batch):
            numbers = order[start : start + batch]
            found = _of_batch(policy, reference, tokenizer, [rows[number] for number in numbers])
            for number, one, other in zip(numbers, *found, strict=True):
                exact[number], sampled[number] = one, other
            bar.update(len(numbers))
    for model, training in zip(models, modes, strict=True):
        model.train(training)
    return Divergence(exact, sampled, [len(ids) for _, ids in rows])


def _of_batch(policy, reference, tokenizer, rows):
    """(exact, sampled) of some (prompt ids, answer ids), padded on the right."""
    whole = [prompt + ids for prompt, ids in rows]
    padded = tokenizer.pad({"input_ids": whole}, padding_side="right", return_tensors="pt")
    places = [(row, at - 1) for row, (prompt, ids) in enumerate(rows)
              for at in range(len(prompt), len(prompt) + len(ids))]  # fmt: skip
    row, before = torch.tensor(places).T
    drawn = torch.tensor([token for _, ids in rows for token in ids])
    ours = _next_token(policy, padded, row, before)
    with policy.disable_adapter() if reference is None else nullcontext():
        theirs = _next_token(policy if reference is None else reference, padded, row, before)
    ratio = ours - theirs
    of_drawn = ratio.gather(-1, drawn.to(ratio.device)[:, None])[:, 0]
    each = torch.stack([(ours.exp() * ratio).sum(-1), of_drawn])
    sums = torch.zeros(2, len(rows), dtype=torch.float64).index_add_(1, row, each.double().cpu())
    return sums[0].clamp(min=0).tolist(), sums[1].tolist()  # rounding may leave -1e-7 where models agree


def _next_token(model, padded, row, before):
    """Log-probabilities (positions, vocabulary), in fp32, of the token after each position."""
    on = next(model.parameters()).device
    logits = model(**padded.to(on), use_cache=False).logits
    return logits[row.to(on), before.to(on)].float().log_softmax(-1)
