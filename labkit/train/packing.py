"""Packing: many short rows side by side in one of fixed length, kept apart by the attention mask."""

import random
from dataclasses import dataclass

import torch

from labkit.errors import LabkitError

LOOKAHEAD = 32  # rows looked through for one that still fits; the rest of a row is padding


@dataclass
class Batch:
    """One step's tensors, each (batch, length), and the numbers of the rows inside.

    `documents` numbers the row a token belongs to (0 is padding); `targets` and `weights` are
    already shifted: position t predicts `targets[t]`, the token at t + 1.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    documents: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    rows: list[int]

    def to(self, device):
        """The same batch on `device`."""
        tensors = {name: value for name, value in vars(self).items() if name != "rows"}
        moved = {name: value.to(device, non_blocking=True) for name, value in tensors.items()}
        return Batch(rows=self.rows, **moved)

    @property
    def tokens(self):
        """How many tokens are not padding."""
        return int((self.documents > 0).sum())

    def mask(self):
        """Boolean attention mask (batch, 1, length, length): earlier tokens of the same document.

        SDPA reads True as "look here"; eager attention would add it as a 1 and keep nothing apart.
        """
        length = self.ids.shape[1]
        same = self.documents[:, :, None] == self.documents[:, None, :]
        causal = torch.ones(length, length, dtype=torch.bool, device=self.ids.device).tril()
        return (same & causal)[:, None]


def check_attention(model):
    """Raise LabkitError unless the model uses SDPA, the one kind of attention that obeys `Batch.mask`."""
    kind = getattr(model.config, "_attn_implementation", None)
    if kind not in (None, "sdpa"):
        raise LabkitError(
            f"the model uses {kind!r} attention, under which packed rows would see each other. "
            "Call model.set_attn_implementation('sdpa') before fit"
        )


def plan(lengths, batch, length, seed, pack=True):
    """Yield for ever, step by step, which row numbers go into each of the `batch` packed rows.

    Every epoch is a fresh shuffle. With `pack=False` each packed row holds one row.
    """
    shuffler = random.Random(seed)
    queue = []
    while True:
        bins, room = [[] for _ in range(batch)], [length] * batch
        while True:
            if len(queue) < LOOKAHEAD:
                epoch = list(range(len(lengths)))
                shuffler.shuffle(epoch)
                queue += epoch
            found = _first_fit(queue[:LOOKAHEAD], lengths, room, bins, pack)
            if found is None:
                break
            place, slot = found
            number = queue.pop(place)
            bins[slot].append(number)
            room[slot] -= lengths[number]
        yield bins


def _first_fit(candidates, lengths, room, bins, pack):
    """(place in the queue, packed row) of the first row that fits anywhere, or None."""
    for place, number in enumerate(candidates):
        for slot, free in enumerate(room):
            if lengths[number] <= free and (pack or not bins[slot]):
                return place, slot
        if not pack:
            return None
    return None


def collate(encoded, bins, length, pad=0):
    """Turn one step's row numbers into a Batch; `length` None means as long as the longest."""
    if length is None:
        length = max(sum(len(encoded[n]) for n in numbers) for numbers in bins)
    columns = {name: [] for name in ("ids", "positions", "documents", "targets", "weights")}
    for numbers in bins:
        line = {name: [] for name in columns}
        for document, number in enumerate(numbers, 1):
            row = encoded[number]
            line["ids"] += row.ids
            line["positions"] += range(len(row))
            line["documents"] += [document] * len(row)
            line["targets"] += [*row.ids[1:], pad]
            line["weights"] += [*row.weights[1:], 0.0]
        for name, values in line.items():
            filler = pad if name in ("ids", "targets") else 0
            columns[name].append(values + [filler] * (length - len(values)))
    tensors = {name: torch.tensor(values) for name, values in columns.items()}
    return Batch(rows=[number for numbers in bins for number in numbers], **tensors)
