"""Exact and near duplicates between splits, for the data cards and the tests."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

# How many rows of test are at or above this word 3-gram Jaccard similarity to a row of train is reported.
NEAR = 0.8


def trigrams(text: str) -> set[tuple[str, ...]]:
    """The word 3-grams of a text in lower case with every digit made 0; the whole text if it is shorter."""
    words = re.sub("[0-9]", "0", text.lower()).split()
    return {tuple(words[i:i + 3]) for i in range(len(words) - 2)} or {tuple(words)}


def near_duplicates(texts: list[str], against: list[str], limit: float = NEAR) -> list[tuple]:
    """For each text its most similar text in `against`, if their 3-gram Jaccard similarity reaches the limit.

    Returns (index, index in against, similarity). An inverted index makes it quick: only texts that share a
    3-gram are compared.
    """
    grams = [trigrams(text) for text in against]
    index: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, own in enumerate(grams):
        for gram in own:
            index[gram].append(i)
    found = []
    for i, text in enumerate(texts):
        own = trigrams(text)
        shared = Counter(j for gram in own for j in index.get(gram, ()))
        scored = [(count / (len(own) + len(grams[j]) - count), j) for j, count in shared.items()]
        best = max(scored, default=(0.0, -1))
        if best[0] >= limit:
            found.append((i, best[1], best[0]))
    return found
