"""The data card of the handbook family, written from the rows so that its numbers cannot go stale."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from labkit.tasks.card import at_a_glance, files, percent, table
from labkit.tasks.duplicates import NEAR, near_duplicates
from labkit.tasks.handbook import FOLDER, KINDS, PARTS, REFUSAL, SPLITS, SYSTEM, read, score
from labkit.tasks.handbook.phrases import TOPICS
from labkit.tasks.handbook.search import recall
from labkit.tasks.handbook.world import facts, gaps

Row = dict[str, Any]


def attribute(row: Row) -> str:
    """What a question asks for, like "shop.manager"."""
    return row["phrasing"].rpartition("-")[0]


def majority(train: list[Row], test: list[Row]) -> list[str]:
    """For each test row the commonest answer that training gives for its attribute; of equals the first."""
    counts: dict[str, Counter[str]] = {}
    for row in train:
        if row["kind"] != "absent":
            counts.setdefault(attribute(row), Counter())[row["answer"]] += 1
    return [counts[attribute(row)].most_common(1)[0][0] if attribute(row) in counts else "" for row in test]


def _shares(rows: list[Row], verdicts: list[bool]) -> dict[str, float]:
    """The share of right verdicts for each attribute."""
    groups: dict[str, list[bool]] = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        groups.setdefault(attribute(row), []).append(verdict)
    return {name: sum(own) / len(own) for name, own in groups.items()}


def card(folder: Path = FOLDER) -> str:
    """The text of data/handbook/README.md for the files in a folder."""
    parts = {part: read(part, folder) for part in PARTS}
    splits = {split: parts[split] for split in SPLITS}
    asked = {split: [row["question"] for row in rows] for split, rows in splits.items()}
    closest = {
        split: max((s for *_, s in near_duplicates(asked[split], asked["train"], 0.2)), default=0.0)
        for split in ("validation", "test")
    }
    near = {split: len(near_duplicates(asked[split], asked["train"])) for split in closest}
    documents = parts["documents"]
    words = [len(document["text"].split()) for document in documents]
    per_page = Counter(fact.document for fact in facts())

    answerable = [row for row in splits["test"] if row["kind"] != "absent"]
    guesses = score(majority(splits["train"], answerable), answerable)
    by_attribute = _shares(answerable, guesses.exact_rows)
    found = {split: recall(documents, splits[split]) for split in ("train", "test")}

    per_topic = table(
        ["topic", "pages", "facts", "attributes", "an example of an answer to each attribute"],
        [
            [
                name,
                len(topic.subjects),
                sum(fact.topic == name for fact in facts()),
                len(topic.attributes),
                ", ".join(
                    f"{a.key}: {next(f.value for f in facts() if f.topic == name and f.key == a.key)}"
                    for a in topic.attributes
                ),
            ]
            for name, topic in TOPICS.items()
        ],
    )
    kinds = table(
        ["kind", "facts or gaps", *SPLITS],
        [
            [kind, _counted(kind), *(sum(row["kind"] == kind for row in rows) for rows in splits.values())]
            for kind in KINDS
        ],
    )
    guessed = table(
        ["topic", "all", "by attribute (%)"],
        [
            [
                name,
                percent(
                    [
                        v
                        for r, v in zip(answerable, guesses.exact_rows, strict=True)
                        if attribute(r).startswith(name + ".")
                    ],
                    bool,
                ),
                ", ".join(f"{a.key} {100 * by_attribute[f'{name}.{a.key}']:.0f}" for a in topic.attributes),
            ]
            for name, topic in TOPICS.items()
        ],
    )
    retrieval = table(
        ["questions of", *(f"among the {k} best" if k > 1 else "first" for k in found["test"])],
        [[split, *(f"{100 * value:.1f}%" for value in shares.values())] for split, shares in found.items()],
    )
    picks = [
        row
        for split in ("train", "test")
        for kind in KINDS
        for row in [r for r in splits[split] if r["kind"] == kind][3:5]
    ]
    samples = "\n".join(
        f"- `{row['id']}` ({row['kind']}, {row['phrasing']}, {row['document'] or 'no document'}) "
        f"{row['question']}  \n"
        f"  **{row['answer']}**"
        + (f" (before: {row['old_answer']})" if row["old_answer"] not in ("", row["answer"]) else "")
        for row in picks
    )
    table_of_files = files(
        folder, parts, {"phrasings": lambda rows: len({row.get("phrasing") for row in rows} - {None}) or "-"}
    )
    page = next(document for document in documents if document["topic"] == "zone")
    return f"""# Data card: handbook

{at_a_glance("handbook")}

Questions of the staff of Wren & Fell, an outdoor-equipment shop that does not exist, with the one short
answer that the staff handbook gives; and the handbook itself. The facts (names, extensions, prices, days,
places) are drawn at random, so that no model can know or guess them: they must come from training or from
the prompt. Written by a program from hand-written sentences and questions: no real company or person.
Licence of the rows: CC BY 4.0.

This file is generated: `python -m labkit.tasks.handbook.card`.

## Files

{table_of_files}

A question row has `id`, `question`, `answer`, `old_answer` (before the change, else empty), `aliases` (a
JSON list of other right answers), `kind`, `fact` (topic/subject/attribute), `document` (the id of the one
document that answers; empty if none does) and `phrasing`, the id of the question's template (the cluster
for a bootstrap).

A document has `id`, `title`, `topic`, `subject`, `style` and `text`: {len(documents)} of them, {min(words)}
to {max(words)} words (mean {sum(words) / len(words):.0f}), each with {min(per_page.values())} to
{max(per_page.values())} facts among other sentences. Each is about one subject; documents of a topic are
built alike and name each other's subjects. A piece of a document does not always name its subject: keep the
title with it. `documents()` are the current ones. `documents(version="before")` have the values that
training teaches; they differ only in the facts of kind `changed`.

{per_topic}

## Kinds of question

{kinds}

- `trained`: training asks about the fact; test asks in other words.
- `changed`: training teaches the old value, which the documents of before state. The current documents,
  validation and test have the new one.
- `untrained`: only the documents state it. Finetuning on the questions cannot teach it.
- `absent`: the documents say nothing, as the attribute is left out on this subject's page or the subject
  has no page. The answer is "{REFUSAL}" What training asks of this kind, validation and test do not ask
  again; the subjects without a page in test are not those of training.

A digest of the fact's id decides. Every attribute has four phrasings for training, one for validation and
two for test, and none is shared: validation and test ask in words that training never uses. Training has
every `trained` and `changed` fact four times, test has every fact twice, validation is a random part of
what it could ask.

Near duplicates, measured as word 3-gram Jaccard similarity of at least {NEAR} to the closest row of train,
with every digit made 0: {near["test"]} of {len(asked["test"])} test rows (the closest pair reaches
{closest["test"]:.2f}) and {near["validation"]} of {len(asked["validation"])} validation rows (closest
{closest["validation"]:.2f}). Exact duplicates: none within or between splits.

## Scoring

System prompt: "{SYSTEM}"
Passages, if any, stand before "Question: ..." in the user message.

An answer is right if it is the gold answer or one of the row's aliases and nothing else, after both were
normalised: case, articles, punctuation around words, one preposition in front, titles like "Ms", number
words and digits, names and spacing of units, kilograms and grams, "£14" and "14 pounds", "12%" and "12 per
cent", "9:05" and "9.05 am", "14 May" and "May 14th", "3 to 5" and "3-5" count as the same. Aliases: a unit
may be left out if the question names it, and a noun may be added to a bare number. People need first and
last name. A whole sentence is wrong, and so is a list of candidates. For `absent` only the refusal sentence
is right, and it is wrong everywhere else. `detail` has the share of right answers per kind; `contains`, the
share of texts in which the gold answer occurs (generous: use it beside, not instead); `stale`, the share of
`changed` rows answered with the old value; `refused`, the share of answerable rows that got the refusal.

## How far guessing and searching get

Giving each attribute's commonest answer in training is right on {100 * guesses.exact:.1f}% of the
answerable test rows (on untrained facts {100 * guesses.detail["untrained"]:.1f}%, on changed ones
{100 * guesses.detail["changed"]:.1f}%). Always refusing is right on
{percent(splits["test"], lambda row: row["kind"] == "absent")} of all test rows.

{guessed}

Plain BM25 over title and text (`labkit.tasks.handbook.search`) puts the right document:

{retrieval}

## Making more

`labkit.tasks.handbook.build(split, n, seed=0, diversity=1.0)` makes the rows again. The facts are fixed, so
there is a largest n: {SPLITS["train"]} for train, {SPLITS["test"]} for test. The first k of n rows are the
k rows of a smaller call; every fact comes once before any comes twice. `seed` decides the order.
`diversity` limits the share of the training phrasings, and with it the number of rows. Splits never share a
phrasing. `python -m labkit.tasks.handbook` writes the files here again, byte for byte. Python 3.11 and 3.12
give the same bytes.

## Limits

- The facts are arbitrary on purpose, and some are odd (a warranty of many years on a cheap lamp).
- Documents are made of stock sentences: two for each attribute, and about ten without facts for each topic.
  Real handbooks repeat, contradict and hide things; here every fact stands in exactly one sentence of one
  document.
- One fact a question: nothing has to be combined, compared or counted.
- Test questions are wordier than training questions, and each wording comes back for every subject.
- A closed-book model cannot tell `untrained` from `absent`; for it, only the second has a right answer.
- English only, one currency.

## Samples

{samples}

The document `{page["id"]}`, "{page["title"]}":

{_quoted(page["text"])}
"""


def _counted(kind: str) -> str:
    if kind == "absent":
        return " + ".join(str(len(gaps(split))) for split in SPLITS)
    return str(sum(fact.kind == kind for fact in facts()))


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(card())
    print(f"Wrote {FOLDER / 'README.md'}.")
