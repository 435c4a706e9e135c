"""Retrieval: find the passages that answer a question, put them into the prompt, and say what it costs.

Documents are cut into pieces (`pieces`), found by words (`bm25`) or by vectors (`dense`), judged (`metrics`)
and shown to the model (`reading`, prompts of an untrained one in `readers`). `cost` counts tokens, time and
money, `withheld` finds what leaked into training rows. Every index has `search(query, k)` and
`search_all(queries, k)`.

Names are imported on first use, because `labkit.methods` imports its modules to look for methods, and torch
is slow to load. Nothing here is a method by name: an index is built, not trained.
"""

from importlib import import_module

_HOME = {
    "read_folder": "pieces", "sentences": "pieces", "split": "pieces", "text_of": "pieces",
    "BM25": "bm25", "words": "bm25",
    "Dense": "dense", "embed_with": "dense", "load_embedder": "dense",
    "answerable": "metrics", "holding": "metrics", "place": "metrics", "places": "metrics",
    "recall_at": "metrics", "mean_reciprocal_rank": "metrics", "by_kind": "metrics",
    "question_of": "reading", "passages": "reading", "with_passages": "reading", "prompts": "reading",
    "training_rows": "reading",
    "READERS": "readers", "own": "readers",
    "milliseconds": "cost", "token_counts": "cost", "dollars_per_thousand": "cost",
    "WITHHELD": "withheld", "leaks": "withheld",
}  # fmt: skip
__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
