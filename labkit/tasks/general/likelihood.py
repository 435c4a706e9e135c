"""Log-probabilities that a causal language model gives to tokens of known text."""

from __future__ import annotations

from typing import Any

Piece = tuple[list[int], int]  # token ids, and from which of them on (1 or later) they are scored


def log_probabilities(model: Any, tokenizer: Any, pieces: list[Piece], batch_size: int, label: str,
                      progress: bool) -> list[list[float]]:
    """The natural log-probability of every scored token of every piece, given all tokens before it.

    Pieces are batched by length and padded on the right, which changes no number. The model runs as it is:
    no gradient, its own precision, no dropout; it is left in the mode in which it came.
    """
    import sys

    import torch
    from tqdm import tqdm

    pad = tokenizer.pad_token_id or 0  # masked, so that any token will do
    order = sorted(range(len(pieces)), key=lambda number: len(pieces[number][0]))
    found: list[list[float]] = [[] for _ in pieces]
    on = next(model.parameters()).device
    training = model.training
    model.eval()
    bar = tqdm(total=len(pieces), disable=not progress, file=sys.stdout, unit="text", desc=label)
    try:
        with torch.no_grad(), bar:
            for begin in range(0, len(order), batch_size):
                numbers = order[begin : begin + batch_size]
                longest = len(pieces[numbers[-1]][0])
                ids = torch.full((len(numbers), longest), pad)
                mask = torch.zeros_like(ids)
                for row, number in enumerate(numbers):
                    tokens = pieces[number][0]
                    ids[row, : len(tokens)] = torch.tensor(tokens)
                    mask[row, : len(tokens)] = 1
                ids = ids.to(on)
                logits = model(input_ids=ids, attention_mask=mask.to(on)).logits
                logits = logits[:, -longest:]  # a learned prompt puts positions of its own in front
                for row, number in enumerate(numbers):
                    tokens, start = pieces[number]
                    # the logits at a position are about the token after it
                    scores = logits[row, start - 1 : len(tokens) - 1].float().log_softmax(-1)
                    found[number] = scores.gather(1, ids[row, start : len(tokens), None])[:, 0].tolist()
                bar.update(len(numbers))
    finally:
        model.train(training)
    return found
