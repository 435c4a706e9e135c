"""How well an index finds: recall at k and mean reciprocal rank, for each kind of question.

`found` is what `search` returns, [(index of a piece, score)], best first. `right` are the indices of the
pieces that answer a question.
"""

import math
from collections import defaultdict

from labkit.methods.retrieval.pieces import sentences
from labkit.tasks.handbook.answers import contains, refuses


def answerable(row):
    """Does a document answer the row? Not where `document` is "", or the right answer is the refusal."""
    return row.get("document") != "" and not refuses(row["answer"])


def holding(pieces, row):
    """The indices of pieces with a sentence that states the row's answer, as a set; empty if none does.

    Where the row names its document only that one's pieces count. The answer must stand there as it is, but
    for spelling and format (`handbook.normalise`). A second sentence that has the same number by chance
    counts too: in the handbook, for 8 of 2,084 test questions.
    """
    return {
        number
        for number, piece in enumerate(pieces)
        if answerable(row)
        and row.get("document") in (None, piece["document"])
        and any(contains(sentence, row["answer"]) for sentence in sentences(piece["text"]))
    }


def place(found, right):
    """The place of the first right piece among those found, counted from 1; infinity if none was found."""
    return next((n for n, (piece, _) in enumerate(found, start=1) if piece in right), math.inf)


def places(found, pieces, rows):
    """The place (`place`) of each answerable row's first right piece; None for a row that nothing answers.

    `found` has one list for each row. An answerable row whose answer stands in no piece counts as missed.
    """
    return [
        place(one, holding(pieces, row)) if answerable(row) else None
        for one, row in zip(found, rows, strict=True)
    ]


def recall_at(k, places):
    """The share of questions with a right piece among the k best; a place of None does not count at all.

    One of several right pieces is enough: the hit rate, which dense retrieval calls top-k accuracy. Elsewhere
    recall is the share of all right pieces that are found.
    """
    asked = [one for one in places if one is not None]
    return sum(one <= k for one in asked) / len(asked) if asked else math.nan


def mean_reciprocal_rank(places):
    """The mean of 1 / place, 0 for a question whose right piece was not found; None does not count at all.

    Only the pieces asked for are looked at: search with a large k (Voorhees 1999, TREC-8, looked at five).
    """
    asked = [one for one in places if one is not None]
    return sum(1 / one for one in asked) / len(asked) if asked else math.nan


def by_kind(places, rows, ks=(1, 3, 5)):
    """{kind: {"rows", "mrr", "recall@k" for each k}}, with "all"; kinds that nothing answers are left out."""
    groups = defaultdict(list)
    for one, row in zip(places, rows, strict=True):
        if one is not None:
            groups["all"].append(one)
            if row.get("kind"):
                groups[row["kind"]].append(one)
    return {
        kind: {"rows": len(own), "mrr": mean_reciprocal_rank(own),
               **{f"recall@{k}": recall_at(k, own) for k in ks}}
        for kind, own in groups.items()
    }  # fmt: skip
