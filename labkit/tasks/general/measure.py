"""What the untuned base scores: `python -m labkit.tasks.general.measure` writes data/general/base.json.

Takes about ten minutes on one CPU core. The card quotes the file; its checksums say which rows it is about.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from labkit.tasks.general.probe import items, probe_accuracy
from labkit.tasks.general.source import FOLDER, read
from labkit.tasks.general.text import perplexity


def measure(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Probe accuracy with and without the question, and perplexity, in all and by subject and genre."""
    rows, texts = items(), read("text")
    asked = probe_accuracy(model, tokenizer, rows)
    blind = probe_accuracy(model, tokenizer, rows, blind=True)
    loss = perplexity(model, tokenizer, [row["text"] for row in texts])
    genres: dict[str, list[float]] = {}
    for row, (nats, tokens, _) in zip(texts, loss.rows, strict=True):
        sums = genres.setdefault(row["genre"], [0.0, 0])
        sums[0] += nats
        sums[1] += tokens
    return {
        "probe": {"accuracy": asked.exact, "blind": blind.exact, "subjects": asked.detail},
        "text": {"nats": loss.nats, "tokens": loss.tokens, "bytes": loss.bytes,
                 "genres": {genre: nats / tokens for genre, (nats, tokens) in genres.items()}},
    }


def main(folder: Path = FOLDER) -> None:
    """Measure the base in fp32 on the CPU and write base.json."""
    import torch

    from labkit import load_model, load_tokenizer
    from labkit.base_model import NAME
    from labkit.env import machine

    found = measure(load_model(on=torch.device("cpu")), load_tokenizer())
    about = {"model": NAME, "precision": "fp32", "machine": machine(), "date": date.today().isoformat(),
             "checksums": json.loads((folder / "checksums.json").read_text())}
    (folder / "base.json").write_text(json.dumps({**about, **found}, indent=1) + "\n")
    print(f"Wrote {folder / 'base.json'}: probe {100 * found['probe']['accuracy']:.1f}%.")


if __name__ == "__main__":
    main()
