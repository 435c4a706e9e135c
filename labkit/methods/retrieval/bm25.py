"""BM25: how well the words of a text fit those of a question."""

import math
from collections import Counter, defaultdict

from labkit.errors import LabkitError
from labkit.tasks.handbook.search import words

__all__ = ["BM25", "words"]


class BM25:
    """An index over texts, by words: Σ idf(w) · f / (f + k1 · (1 − b + b · length / mean length)).

    The sum is over the words w of the question, one that it repeats counted again; f counts w in the text.
    Words (`words`) are runs of letters and digits in lower case, no stemming, no stop words. Robertson and
    Zaragoza 2009, equation 3.15, with the idf of Lucene, which is above 0 for every word:
    ln(1 + (n − n_w + 0.5) / (n_w + 0.5)), where n_w of the n texts have w. Raises LabkitError without a word.
    """

    def __init__(self, texts, k1=1.2, b=0.75):
        counts = [Counter(words(text)) for text in texts]
        lengths = [own.total() for own in counts]
        if not sum(lengths):
            raise LabkitError("there is nothing to index: give one text or more, with words in it")
        mean = sum(lengths) / len(texts)
        self.size = len(texts)
        self.having = Counter(word for own in counts for word in own)  # n_w
        self.gains = defaultdict(list)  # word -> (text, what the word adds to its score)
        for text, (own, length) in enumerate(zip(counts, lengths, strict=True)):
            for word, f in own.items():
                gain = f / (f + k1 * (1 - b + b * length / mean))
                self.gains[word].append((text, self.idf(word) * gain))

    def idf(self, word):
        """How much a word says: more, the fewer texts have it."""
        return math.log(1 + (self.size - self.having[word] + 0.5) / (self.having[word] + 0.5))

    def search(self, query, k=5):
        """[(index of a text, score)] of the k best, best first; of equals the earlier one.

        Fewer where fewer texts share a word with the query.
        """
        scores = Counter()
        for word in words(query):
            for text, gain in self.gains.get(word, ()):
                scores[text] += gain
        return sorted(scores.items(), key=lambda found: (-found[1], found[0]))[:k]

    def search_all(self, queries, k=5):
        """`search` for each query."""
        return [self.search(query, k) for query in queries]
