"""The data card of the general family, written from the rows so that its numbers cannot go stale."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from labkit.tasks import tickets
from labkit.tasks.card import at_a_glance, files, table
from labkit.tasks.duplicates import NEAR, near_duplicates
from labkit.tasks.files import dump
from labkit.tasks.general.source import FOLDER, PARTS, Row, read

RUN = 8  # words: a run of this length shared with training text counts as an overlap


def grams(text: str, n: int) -> list[tuple[str, ...]]:
    """The word n-grams of a text in lower case, without punctuation."""
    words = re.findall(r"[a-z0-9']+", text.lower())
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def distinct_share(texts: list[str], n: int = 4) -> float:
    """How many different word n-grams there are, as a share of all of them."""
    found = [gram for text in texts for gram in grams(text, n)]
    return len(set(found)) / len(found)


def overlaps(texts: list[str], against: list[str], n: int = RUN) -> list[int]:
    """The indices of the texts that share a run of n words with any text in `against`."""
    known = {gram for text in against for gram in grams(text, n)}
    return [i for i, text in enumerate(texts) if known.intersection(grams(text, n))]


def closest(texts: list[str]) -> float:
    """The word 3-gram Jaccard similarity of the two texts that are most alike."""
    best = 0.0
    for bit in range(len(texts).bit_length()):  # any two positions differ in one bit at least
        halves: tuple[list[str], list[str]] = [], []
        for i, text in enumerate(texts):
            halves[i >> bit & 1].append(text)
        best = max([best, *(found for _, _, found in near_duplicates(*halves, 0.0))])
    return best


def lengths(rows: list[Row]) -> tuple[float, float]:
    """Mean length in characters of the right options and of the wrong ones."""
    right = [len(row["options"][row["answer"]]) for row in rows]
    every = [len(option) for row in rows for option in row["options"]]
    return sum(right) / len(right), (sum(every) - sum(right)) / (len(every) - len(right))


def card(folder: Path = FOLDER) -> str:
    """The text of data/general/README.md for the rows in a folder."""
    parts = {part: read(part, folder) for part in PARTS}
    probe, text = parts["probe"], parts["text"]
    base = json.loads((folder / "base.json").read_text())
    questions, passages = [row["question"] for row in probe], [row["text"] for row in text]
    train = [row["message"] for row in tickets.read("train")]
    near = {name: len(near_duplicates(own, train)) for name, own in [("q", questions), ("p", passages)]}
    shared = {name: len(overlaps(own, train)) for name, own in [("q", questions), ("p", passages)]}
    right, wrong = lengths(probe)
    places = [sum(row["answer"] == place for row in probe) for place in range(4)]
    size = sum(len(passage.encode()) for passage in passages)
    words = sum(map(_words, passages))
    raw = len(dump(text))
    packed = (folder / "text.jsonl.gz").stat().st_size / raw
    loss = base["text"]["nats"] / base["text"]["tokens"]
    bits = base["text"]["nats"] / math.log(2) / base["text"]["bytes"]
    error = math.sqrt(base["probe"]["accuracy"] * (1 - base["probe"]["accuracy"]) / len(probe))

    subjects = table(
        ["subject", "questions", "base"],
        [[subject, sum(row["subject"] == subject for row in probe), f"{100 * share:.0f}%"]
         for subject, share in base["probe"]["subjects"].items()],
    )
    genres = table(
        ["genre", "kind", "passages", "kB", "base perplexity"],
        [[genre, *_genre(genre, text), f"{math.exp(nats):.1f}"]
         for genre, nats in base["text"]["genres"].items()],
    )
    samples = "\n".join(
        f"- `{row['id']}` {row['question']} " + " / ".join(
            f"**{option}**" if i == row["answer"] else option for i, option in enumerate(row["options"]))
        for row in probe[5:160:14]
    )
    excerpt = "\n>\n> ".join(text[3]["text"].split("\n\n"))
    return f"""# Data card: general

{at_a_glance("general")}

What a finetune may forget: a general-knowledge probe and plain English text, to be measured before and after.
**For evaluation only. Nothing may train on either part; there is no training split.** All of it was written
for this course; nothing was copied. The towns and people in stories, letters and news are invented. Licence
of the rows: CC BY 4.0.

This file is generated: `python -m labkit.tasks.general.card`.

## Parts

{files(folder, parts, {})}

The readable sources are `probe.jsonl` and `passages/*.txt` (passages between lines of `---`). Edit those,
then run `python -m labkit.tasks.general`, which writes the files above, byte for byte the same on Python 3.11
and 3.12, then `.measure` and `.card`. The rows of a file are spread over subjects or genres, so that the
first n of them are a fair sample for a quick look; `build(part, n, seed)` takes another n.

## Probe

{len(probe)} questions in {len(base["probe"]["subjects"])} subjects, elementary to middle-school level, each
with four options of one kind. Fields: `id`, `subject` (the cluster for a bootstrap), `question`, `options`,
`answer` (index of the right option). The right option stands first, second, third and fourth in
{", ".join(map(str, places[:3]))} and {places[3]} questions. Right options have {right:.2f} characters on
average and wrong ones {wrong:.2f}. The two most similar questions reach a word 3-gram Jaccard similarity of
{closest(questions):.2f}.

`probe_accuracy` scores every option as the continuation of `Question: ...\\nAnswer:` in plain text, without
chat template and without a list of the options: the sum of the log-probabilities of its tokens, divided by
its length in bytes with the leading space. The likeliest option is the model's choice; of equal ones, the
first. Bytes and not tokens, so that models with other tokenizers compare. It matters little: in a trial the
base got 71% by bytes, 68% by tokens and 73% by the sum alone.

## Text

{len(passages)} passages of {min(map(_words, passages))} to {max(map(_words, passages))} words, {words:,} in
all, {size / 1000:.0f} kB. Fields: `id`, `kind` (prose or dialogue), `genre`, `source`, `text`. They were
written one by one (`source` is "written" throughout); none comes from a template.
{100 * distinct_share(passages):.1f}% of the word 4-grams are distinct, and gzip packs the file to
{100 * packed:.0f}% of its size.

`perplexity` reads every passage by itself, without special tokens. The first token is context only; each of
the others is scored once. It returns total nats, tokens and bytes, and so bits per byte, which compare across
tokenizers.

## What the base scores

{base["model"]}, {base["precision"]}, {base["machine"]}, {base["date"]}, by
`python -m labkit.tasks.general.measure`:

- probe: **{100 * base["probe"]["accuracy"]:.1f}%** (standard error {100 * error:.1f} points; chance is 25%)
- probe without the question, only "Answer:" before each option: {100 * base["probe"]["blind"]:.1f}%, which is
  what the options give away
- text: perplexity **{math.exp(loss):.1f}** ({loss:.3f} nats per token, {base["text"]["tokens"]:,} tokens),
  {bits:.3f} bits per byte

{subjects}

{genres}

## Overlap with training data

Against the {len(train)} training messages of tickets, as word 3-gram Jaccard similarity of at least {NEAR}
with every digit made 0: {near["q"]} questions and {near["p"]} passages are near duplicates. A run of {RUN}
words in common with any training message: {shared["q"]} questions, {shared["p"]} passages. The tests compare
with the training rows of every other family.

## Limits

- One style throughout: British spelling, a European school's view of the world, mild humour in the stories.
- The questions are easy for people. Some that the base fails it fails for the wording, since it prefers some
  options whatever is asked. Compare a model with its own base, row by row, and not with other benchmarks.
- An accuracy over {len(probe)} questions cannot show a change of a point or two; the perplexity can.
- {size / 1000:.0f} kB of text are enough to see forgetting, but not to rank language models.
- Facts are simplified as in school books ("a shooting star is a burning bit of rock").
- The rows are public, so some later model may have been trained on them.

## Samples

{samples}

> {excerpt}

(`{text[3]["id"]}`)
"""


def _words(passage: str) -> int:
    return len(passage.split())


def _genre(genre: str, text: list[Row]) -> list[Any]:
    own = [row for row in text if row["genre"] == genre]
    return [own[0]["kind"], len(own), round(sum(len(row["text"].encode()) for row in own) / 1000)]


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(card())
    print(f"Wrote {FOLDER / 'README.md'}.")
