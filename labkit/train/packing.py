"""Packing: many short rows side by side in one of fixed length, kept apart by the attention mask."""

import random
from dataclasses import dataclass

import numpy as np
import torch

LOOKAHEAD = 32  # rows looked through for one that still fits; the rest of a row is padding


@dataclass
class Batch:
    """One step's tensors, most of them (batch, length), and the numbers of the rows inside.

    `documents` numbers the row a token belongs to (0 is padding); `targets` and `weights` are
    already shifted: position t predicts `targets[t]`, the token at t + 1. `counted` holds the flat numbers
    of the positions whose weight is not 0; `boundaries` (int32) where a row, or padding, begins among the
    batch x length tokens, and at last how many there are.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    documents: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    counted: torch.Tensor
    boundaries: torch.Tensor
    rows: list[int]

    def tensors(self):
        """name -> tensor."""
        return {name: value for name, value in vars(self).items() if name != "rows"}

    def to(self, device):
        """The same batch on `device`."""
        moved = {name: value.to(device, non_blocking=True) for name, value in self.tensors().items()}
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


def in_order(lengths, batch, length):
    """All rows once, in order, as lists of `batch` packed rows; some are empty in the last.

    `length` None puts one row into each.
    """
    bins, free = [], 0
    for number, size in enumerate(lengths):
        if length is None or size > free:
            bins.append([])
            free = length or 0
        bins[-1].append(number)
        free -= size
    for start in range(0, len(bins), batch):
        some = bins[start : start + batch]
        yield some + [[] for _ in range(batch - len(some))] if length else some


def collate(encoded, bins, length, pad=0, room=None):
    """Turn one step's row numbers into a Batch; `length` None means as long as the longest.

    `room`, a pair, gives `counted` and `boundaries` fixed sizes, as a CUDA graph needs them: what is left
    over repeats a position of weight 0 and the last boundary, which changes nothing.
    """
    if length is None:
        length = max(sum(len(encoded[n]) for n in numbers) for numbers in bins)
    shape = (len(bins), length)
    whole = {name: np.zeros(shape, np.int64) for name in ("positions", "documents")}
    whole |= {name: np.full(shape, pad, np.int64) for name in ("ids", "targets")}
    whole["weights"] = np.zeros(shape, np.float32)
    boundaries = []
    for line, numbers in enumerate(bins):
        start = 0
        for document, number in enumerate(numbers, 1):
            row = encoded[number]
            end = start + len(row)
            boundaries.append(line * length + start)
            whole["ids"][line, start:end] = row.ids
            whole["positions"][line, start:end] = np.arange(len(row))
            whole["documents"][line, start:end] = document
            whole["targets"][line, start : end - 1] = row.ids[1:]
            whole["weights"][line, start : end - 1] = row.weights[1:]
            start = end
        if start < length:
            boundaries.append(line * length + start)
    counted = np.flatnonzero(whole["weights"])
    boundaries.append(len(bins) * length)
    if room:
        # The last token of a row predicts nothing: its weight is 0.
        blank = len(encoded[bins[0][0]]) - 1
        counted = np.pad(counted, (0, room[0] - len(counted)), constant_values=blank)
        boundaries += boundaries[-1:] * (room[1] - len(boundaries))
    tensors = {name: torch.from_numpy(values) for name, values in whole.items()}
    return Batch(
        rows=[number for numbers in bins for number in numbers],
        counted=torch.from_numpy(counted),
        boundaries=torch.tensor(boundaries, dtype=torch.int32),
        **tensors,
    )


def room_for(encoded, plans):
    """The sizes of `counted` and `boundaries` that are enough for each of these lists of bins.

    Rounded up, by an eighth at most where they are large, so that another plan over like rows needs the same.
    """
    weighty = [sum(weight != 0 for weight in row.weights[1:]) for row in encoded]
    counted = max(sum(weighty[number] for numbers in bins for number in numbers) for bins in plans)
    boundaries = max(sum(len(numbers) + 1 for numbers in bins) + 1 for bins in plans)
    return _rounded_up(counted, 256), _rounded_up(boundaries, 64)


def longest_line(encoded, plans, at_least):
    """Tokens of the longest packed row of these lists of bins, rounded up like `room_for`."""
    longest = max(sum(len(encoded[number]) for number in line) for bins in plans for line in bins)
    return _rounded_up(max(longest, at_least), 64)


def _rounded_up(count, least):
    """The next multiple of `least`, or of an eighth of the power of two below `count` if that is more."""
    step = max(least, 2 ** (count.bit_length() - 1) // 8)
    return -(-count // step) * step
