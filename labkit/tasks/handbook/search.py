"""Which document fits a question: BM25, the plain way with which others are compared."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

K1, B = 1.5, 0.75  # the usual settings: how soon a repeated word stops counting, how much length matters


def words(text: str) -> list[str]:
    """The words and numbers of a text in lower case."""
    return re.findall(r"\w+", text.lower())


class BM25:
    """Ranks documents (dicts with title and text) by the words that they share with a question."""

    def __init__(self, documents: list[dict[str, Any]]):
        counts = [Counter(words(f"{d['title']}\n{d['text']}")) for d in documents]
        lengths = [sum(own.values()) for own in counts]
        mean = sum(lengths) / len(lengths)
        having = Counter(word for own in counts for word in own)
        self.n = len(documents)
        # What a word adds to the score of each document that has it.
        self.gains: dict[str, list[tuple[int, float]]] = {word: [] for word in having}
        for i, (own, length) in enumerate(zip(counts, lengths, strict=True)):
            for word, count in own.items():
                rarity = math.log(1 + (self.n - having[word] + 0.5) / (having[word] + 0.5))
                gain = count * (K1 + 1) / (count + K1 * (1 - B + B * length / mean))
                self.gains[word].append((i, rarity * gain))

    def rank(self, question: str, k: int = 5) -> list[int]:
        """The positions of the k best documents, best first; of two equals the earlier one."""
        scores = [0.0] * self.n
        for word in dict.fromkeys(words(question)):
            for i, gain in self.gains.get(word, ()):
                scores[i] += gain
        return sorted(range(self.n), key=lambda i: (-scores[i], i))[:k]


def recall(
    documents: list[dict[str, Any]], rows: list[dict[str, Any]], ks: tuple[int, ...] = (1, 3, 5)
) -> dict:
    """For each k the share of rows (of those that have a document) whose document is among the k best."""
    index, ids = BM25(documents), [d["id"] for d in documents]
    asked = [row for row in rows if row["document"]]
    places = []
    for row in asked:
        best = [ids[i] for i in index.rank(row["question"], max(ks))]
        places.append(best.index(row["document"]) if row["document"] in best else max(ks))
    return {k: sum(place < k for place in places) / len(asked) for k in ks}
