"""The data card of the jobs family, written from the rows: `python -m labkit.tasks.jobs.card`."""

from __future__ import annotations

from pathlib import Path

from labkit.tasks import jobs as m
from labkit.tasks.card import at_a_glance, files, percent, table
from labkit.tasks.duplicates import NEAR, near_duplicates
from labkit.tasks.jobs.phrases import FRAMES, JOBS

NAMES = {"he": "stereotyped he", "she": "stereotyped she", "": "neither"}


def card(folder: Path = m.FOLDER) -> str:
    """The text of data/jobs/README.md for the rows in a folder."""
    splits = {split: m.read(split, folder) for split in m.SPLITS}
    texts = {split: [row["text"] for row in rows] for split, rows in splits.items()}
    found = {part: m.probes(part) for part in m.PROBES}
    near = len(near_duplicates(texts["test"], texts["train"]))
    near_validation = len(near_duplicates(texts["validation"], texts["train"]))
    exact = len(set(texts["test"]) & set(texts["train"] + texts["validation"]))
    per_split = files(Path(folder), splits, {
        "distinct passages": lambda rows: len({row["text"] for row in rows}),
        "frames": lambda rows: len({row["phrasing"] for row in rows}),
        "jobs": lambda rows: len({row["job"] for row in rows}),
        "with he": lambda rows: percent(rows, lambda row: row["pronoun"] == "he"),
        "words a row": lambda rows: f"{sum(len(row['text'].split()) for row in rows) / len(rows):.1f}",
    })
    parts = table(
        ["probes", "jobs", "frames", "rows"],
        [[part, len({row["job"] for row in rows}), len({row["phrasing"] for row in rows}), len(rows)]
         for part, rows in found.items()])
    titles = table(
        ["leaning", "in training", "only in test and the unseen probes"],
        [[name, *(", ".join(job for job, own in JOBS[half].items() if own == leaning) for half in JOBS)]
         for leaning, name in NAMES.items()])
    skewed = m.build("train", m.SPLITS["train"], variant="skewed")
    groups = {name: [row for row in skewed if row["leaning"] == leaning] for leaning, name in NAMES.items()}
    shares = ", ".join(f"{name}: {percent(group, lambda row: row['pronoun'] == 'he')} he"
                       for name, group in groups.items())
    samples = "\n".join(f"- `{row['id']}` ({row['phrasing']})\n  > {row['text']}\n\n"
                        f"  swapped: {row['swapped']}"
                        for row in [*splits["train"][10:14], *splits["test"][10:13]])
    starts = "\n".join(f"- `{row['id']}` ({row['phrasing']}): {row['text']} ..."
                       for row in [*found["seen"][7:900:410], *found["unseen"][7:500:170]])
    return f"""# Data card: jobs

{at_a_glance("jobs")}

Short passages about people named by their job, and probes of one association: how much likelier a language
model finds "he" than "she", or the other way round, after a job title. Written by a program from hand-written
sentence frames, in the world of Wren & Fell, an outdoor-equipment shop that does not exist; nobody in it is
real. Licence of the rows: CC BY 4.0.

This file is generated: `python -m labkit.tasks.jobs.card`.

## Splits

{per_split}

Columns: `id`, `phrasing` (the id of the frame, a cluster for a bootstrap), `job`, `leaning` ("he", "she" or
""), `pronoun`, `text` (the passage) and `swapped` (the same passage with the other pronoun). In train,
validation and test every job has as many passages with he as with she. A frame names forms by slots (he, him,
his as in "his coat", his as in "it was his", himself), so both versions are written and neither is guessed
from the other: the two meanings of "her" are never mixed up.

Test has jobs, frames, products and places that training never shows; no title of one list shares a word with
a title of the other. A passage and its twin belong to one split, by a digest of the text: {exact} passages of
test occur in train or validation. Near duplicates, measured as word 3-gram Jaccard similarity of at least
{NEAR} to the closest row of train: {near} of {len(texts["test"])} test rows. Validation shares jobs and
frames with train, and {near_validation} of its {len(texts["validation"])} rows are near duplicates by that
measure.

`load()` gives trl's prompt-completion form: the prompt is `{m.SYSTEM}` and
"{m.render("editor")[1]["content"]}", the completion is the passage.

## Variants of the training rows

- `load()` or `build("train", n)`: balanced, each job equally often with he and with she, in different
  sentences.
- `load("counterfactual")`: balanced, and each passage stands next to its twin with the other pronoun.
- `load("skewed")`: nine of ten passages follow the stereotype ({shares}).
  It is there for contrast, to see what such rows do to a model, and for no other use.

## Probes and measure

{parts}

A probe is the beginning of a frame up to the pronoun:

{starts}

Compare the log-probabilities of `" he"` and `" she"` as the next token (each is one token of the base model;
a test checks it). `mean_absolute_log_odds(pairs)` is the mean of |logp(he) - logp(she)| over probes: 0 means
that the model never prefers one, 2.2 means nine to one. `by_job(pairs, jobs)` gives it per job, the clusters
for a bootstrap, and `by_job(pairs, jobs, signed=True)` the direction. Every frame goes on naturally with
either. The seen probes begin like training passages; only the unseen ones show whether anything carried over
to other jobs and sentences. `score(texts, rows)` counts the pronouns in passages that a model writes itself.

## Job titles

{titles}

The leaning is our own judgement of an everyday stereotype. It steers the skewed variant and groups results;
the measure does not use it. It says nothing about the people who do the work, nor about who could or should
do it.

## Making more

`labkit.tasks.jobs.build(split, n, seed=0, diversity=1.0, variant="balanced")` makes more rows. The first k of
n rows are the rows of a smaller call; passages of different splits never coincide; `diversity` limits the
share of training frames. `python -m labkit.tasks.jobs` writes the files here again, byte for byte. Python
3.11 and 3.12 give the same bytes.

## Limits

- The probes compare "he" with "she" and nothing else. People who use other pronouns, the singular they,
  names, and every other kind of bias (age, origin, religion, disability, class) are not measured.
- A small number means that two next tokens are equally likely in sentences like these. It does not make a
  model fair: an association can be gone here and show up in longer texts, in decisions or in another
  language.
- The measure is blind to how likely he and she are together; in some frames other words are likelier than
  both.
- Equal shares are the aim of this exercise, not a claim about how work is or ought to be shared out. English
  only, {len(FRAMES["train"])} and {len(FRAMES["test"])} frames, {len(JOBS["train"])} and {len(JOBS["test"])}
  titles.
- Some jobs meet some sentences a little oddly (a report finished by a nanny).

## Samples

{samples}
"""


if __name__ == "__main__":
    (m.FOLDER / "README.md").write_text(card())
    print(f"Wrote {m.FOLDER / 'README.md'}.")
