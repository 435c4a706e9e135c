"""How well a model predicts plain English: perplexity and bits per byte over the committed passages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.general.likelihood import log_probabilities
from labkit.tasks.general.source import read


@dataclass(frozen=True)
class TextLoss:
    """Loss over all scored tokens of some texts; `rows` keeps (nats, tokens, bytes) of every single text."""

    nats: float
    tokens: int
    bytes: int
    rows: list[tuple[float, int, int]]

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """e to the loss; compares models that share a tokenizer."""
        return math.exp(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Compares models whatever their tokenizers."""
        return self.nats / math.log(2) / self.bytes


def passages() -> list[str]:
    """The texts of the committed passages."""
    return [row["text"] for row in read("text")]


def perplexity(model: Any, tokenizer: Any, passages: Any = None, *, batch_size: int = 4, window: int = 1024,
               progress: bool = True) -> TextLoss:
    """The negative log-likelihood of texts (default: all committed passages) under a causal language model.

    Each text is read by itself, without special tokens or chat template. Its first token only serves as
    context; every other token is scored exactly once, and `bytes` are those of the scored tokens. A text
    longer than `window` tokens is cut; a new window begins with the last token of the one before as its only
    context. Raises LabkitError if there is nothing to score, or a window below 2.
    """
    if window < 2:
        raise LabkitError(f"window is {window}, but must be at least 2: one token of context, one to score.")
    texts = [row["text"] for row in read("text")] if passages is None else list(passages)
    pieces, owner, sizes = [], [], []
    for number, text in enumerate(texts):
        coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, end = coded["input_ids"], coded["offset_mapping"][0][1] if coded["input_ids"] else 0
        sizes.append(len(text[end:].encode()) if len(ids) > 1 else 0)
        for begin in range(0, len(ids) - 1, window - 1):
            pieces.append((ids[begin : begin + window], 1))
            owner.append(number)
    if not pieces:
        raise LabkitError("There is nothing to score: pass at least one text of two tokens or more.")
    found = log_probabilities(model, tokenizer, pieces, batch_size, "text", progress)
    scored: list[list[float]] = [[] for _ in texts]
    for number, values in zip(owner, found, strict=True):
        scored[number] += values
    rows = [(-math.fsum(own), len(own), size) for own, size in zip(scored, sizes, strict=True)]
    return TextLoss(math.fsum(nats for nats, _, _ in rows), sum(tokens for _, tokens, _ in rows),
                    sum(size for _, _, size in rows), rows)
