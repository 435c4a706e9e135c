"""The data card of the arithmetic family, written from the rows: `python -m labkit.tasks.arithmetic.card`."""

from __future__ import annotations

from pathlib import Path

from labkit.tasks import arithmetic as m
from labkit.tasks.arithmetic import phrases
from labkit.tasks.arithmetic.builder import DIGITS, TWO_OPERATIONS, identity
from labkit.tasks.arithmetic.steps import filler, terms
from labkit.tasks.card import at_a_glance, files, percent, table
from labkit.tasks.duplicates import NEAR, near_duplicates


def card(folder: Path = m.FOLDER) -> str:
    """The text of data/arithmetic/README.md for the rows in a folder."""
    splits = {split: m.read(split, folder) for split in m.SPLITS}
    questions = {split: [row["question"] for row in rows] for split, rows in splits.items()}
    sums = {split: {identity(row["calculation"]) for row in rows} for split, rows in splits.items()}
    near = len(near_duplicates(questions["test"], questions["train"]))
    near_validation = len(near_duplicates(questions["validation"], questions["train"]))
    exact = len(set(questions["test"]) & set(questions["train"] + questions["validation"]))
    shared = len(sums["test"] & (sums["train"] | sums["validation"]))
    per_split = files(Path(folder), splits, {
        "distinct questions": lambda rows: len({row["question"] for row in rows}),
        "phrasings": lambda rows: len({row["phrasing"] for row in rows}),
        "digits": lambda rows: " to ".join(str(end(row["digits"] for row in rows)) for end in (min, max)),
    })
    kinds = table(
        ["rows", *m.SPLITS],
        [[kind, *(percent(rows, lambda row, kind=kind: row["kind"] == kind) for rows in splits.values())]
         for kind in m.KINDS]
        + [[f"{d} digits", *(percent(rows, lambda row, d=d: row["digits"] == d) for rows in splits.values())]
           for d in DIGITS["test"]]
        + [["two operations", *(percent(rows, lambda row: len(terms(row["calculation"])) == 3)
                                for rows in splits.values())]])
    counts = table(
        ["phrasings", "train", "test"],
        [[name, len(phrases.TRAIN[key]), len(phrases.TEST[key])] for key, name in
         [("add", "bare additions"), ("subtract", "bare subtractions"),
          ("word1", "scenes with one operation"), ("word2", "scenes with two operations")]])
    chosen = [(s, next(row for row in splits[s][start:] if row["kind"] == kind))
              for s, start in [("train", 20), ("test", 20)] for kind in m.KINDS]
    samples = "\n".join(f"- `{row['id']}` ({row['phrasing']})\n  > {row['question']}\n\n"
                        f"  `{row['calculation']}`, answer `{row['answer']}`" for _, row in chosen)
    example = next(row for row in splits["train"]
                   if row["digits"] == 3 and row["phrasing"].startswith("train-word-plus-minus"))
    dots = filler(example["calculation"])
    return f"""# Data card: arithmetic

{at_a_glance("arithmetic")}

Additions, subtractions and small scenes from Wren & Fell, an outdoor-equipment shop that does not exist,
each with the number that solves it and with the working, column by column. Written by a program from
hand-written phrasings. Licence of the rows: CC BY 4.0.

This file is generated: `python -m labkit.tasks.arithmetic.card`.

## Splits

{per_split}

Columns: `id`, `phrasing` (the id of the question's wording, the cluster for a bootstrap), `question`,
`answer` (the number as text), `calculation` ("478+356-92"), `kind` (add, subtract, word), `digits` (of the
longest number in the question) and, worked out again on reading, `steps`. The files hold only what cannot
be worked out.

{kinds}

{counts}

Test uses phrasings, goods, people and places that training never shows, and goes to longer numbers than
training does. Every calculation (a sum of two numbers in either order) belongs to one split by a digest of
its text: {shared} calculations and {exact} questions of test occur in train or validation. Near duplicates,
measured as word 3-gram Jaccard similarity of at least {NEAR} to the closest row of train, with every digit
made 0: {near} of {len(questions["test"])} test rows. Validation shares its phrasings with train, so
{near_validation} of its {len(questions["validation"])} rows come out as near duplicates by that measure;
their numbers differ.

## Three forms of one row

System prompt: `{m.SYSTEM}`
The prompt is the same for every form, and so is the last line of the completion.

- `load(form="answer")`: the line "Answer: {example["answer"]}" and nothing else.
- `load(form="steps")`: the working first. For the question
  "{example["question"]}":

```
{m.render_answer(example, "steps")}
```

- `load(form="filler")`: as many tokens as the working has, all of them dots; a control for the mere length.
  Here {dots.count(".")} dots, then the answer line.

How to read the working: every digit gets the letter of its column (a is units, b tens, c hundreds), so that
a model that reads digit by digit finds what stands above what. Columns follow from the units up. A column
that makes 10 or more is written in full (`a8+6=14`) and puts `+1` into the next; when subtracting, a digit
that is too small gets 10 (`a13-8=5`) and the next column `-1`. A column that one number lacks counts as 0.
Then comes the result with its letters, from which the answer is copied, or with which a second operation
goes on. Every character of it is one token of the base model, so the equal length of working and filler
holds for that tokenizer only.

## Scoring

`score(texts, rows)`: right if all that follows the last "Answer:" is the gold number, written as in
`answer` (no leading zeros, signs or units). White space around it, one full stop behind it and commas
between thousands do not count; nor does what stands before. `detail`: the share of texts with an "Answer:",
and the share right per kind, per number of digits and per both.

## Making more

`labkit.tasks.arithmetic.build(split, n, seed=0, diversity=1.0, digits=(3,))` makes any number of rows, with
numbers of 1 to 6 digits. The first k of n rows are the rows of a smaller call; calculations of different
splits never coincide; `diversity` limits the share of training phrasings. `python -m
labkit.tasks.arithmetic` writes the files here again, byte for byte. Python 3.11 and 3.12 give the same
bytes.

## Limits

- Positive whole numbers only; every partial result is above 0; additions and subtractions only.
- In about three of ten rows a number is shorter than the longest; `digits` is the length of the longest.
- Scenes have two operations only up to {TWO_OPERATIONS} digits (half of them), to keep the working short,
  so scenes of {TWO_OPERATIONS + 1} or more digits are not simply harder. Every number in a scene is needed:
  nothing distracts. Scenes with long numbers stretch what a shop could hold.
- Test differs from train in wording as well as in numbers; compare lengths within a split, not across.
- The working is one fixed notation made for this base model. It is not how people explain sums, and numbers
  longer than those of training use column letters that training showed only in results, or never.

## Samples

{samples}
"""


if __name__ == "__main__":
    (m.FOLDER / "README.md").write_text(card())
    print(f"Wrote {m.FOLDER / 'README.md'}.")
