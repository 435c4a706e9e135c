"""The data card of the tickets family, written from the rows so that its numbers cannot go stale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from labkit.tasks.card import at_a_glance, table
from labkit.tasks.card import percent as _share
from labkit.tasks.duplicates import NEAR, near_duplicates
from labkit.tasks.tickets import FOLDER, SYSTEM, read, render_answer
from labkit.tasks.tickets import grammar as g
from labkit.tasks.tickets.rules import FACT_KEYS, INTENTS, LEVELS, NEEDS, SPLITS, held_out


def combination(row: dict[str, Any]) -> bool:
    """Whether a row's combination of intent, urgency and facts given is one that training never shows."""
    answer = row["answer"]
    return held_out(answer["intent"], answer["urgency"], [key for key in FACT_KEYS if key in answer])


def card(folder: Path = FOLDER) -> str:
    """The text of data/tickets/README.md for the rows in a folder."""
    splits = {split: read(split, folder) for split in SPLITS}
    messages = {split: [row["message"] for row in rows] for split, rows in splits.items()}
    sums = json.loads((Path(folder) / "checksums.json").read_text())
    near = len(near_duplicates(messages["test"], messages["train"]))
    closest = max((s for _, _, s in near_duplicates(messages["test"], messages["train"], 0.3)), default=0.0)
    near_validation = len(near_duplicates(messages["validation"], messages["train"]))
    distinct = {s: len(set(texts)) for s, texts in messages.items()}

    per_split = table(
        ["split", "rows", "distinct", "phrasings", "words a row", "kB", "SHA-256 of the JSON Lines"],
        [[s, len(rows), distinct[s], len({row["phrasing"] for row in rows}),
          f"{sum(len(m.split()) for m in messages[s]) / len(rows):.1f}",
          round((Path(folder) / f"{s}.jsonl.gz").stat().st_size / 1000), f"`{sums[s + '.jsonl.gz']}`"]
         for s, rows in splits.items()])
    facts = table(
        ["key", *SPLITS],
        [[key, *(_share(rows, lambda row, key=key: key in row["answer"]) for rows in splits.values())]
         for key in FACT_KEYS]
        + [[f"urgency {u}", *(_share(rows, lambda row, u=u: row["answer"]["urgency"] == u)
                              for rows in splits.values())] for u in ("low", "normal", "high")]
        + [["nothing missing", *(_share(rows, lambda row: not row["answer"]["missing"])
                                 for rows in splits.values())]])
    intents = table(
        ["intent", "needs", "train phrasings", "test phrasings"],
        [[f"`{i}`", ", ".join(NEEDS[i]), len(g.TRAIN_TEMPLATES[i]), len(g.TEST_TEMPLATES[i])]
         for i in INTENTS])
    unseen = _share(splits["test"], lambda row: row["answer"].get("product") in g.TEST_PRODUCTS)
    combinations = _share(splits["test"], combination)
    picks = [splits[s][i] for s, i in [("train", 3), ("train", 14), ("train", 25), ("train", 40),
                                       ("test", 5), ("test", 16), ("test", 27), ("test", 42)]]
    samples = "\n".join(f"- `{row['id']}` ({row['phrasing']})\n  > {row['message']}\n\n"
                        f"  `{render_answer(row['answer'])}`" for row in picks)
    levels = ", ".join(f"{100 * share:.0f}% are {level}" for level, share in LEVELS.items())
    return f"""# Data card: tickets

{at_a_glance("tickets")}

Messages from customers of {g.SHOP}, an outdoor-equipment shop that does not exist, each with the one JSON
object that a clerk would file. Written by a program from a hand-written grammar: no real customer, order
or product. Licence of the rows: CC BY 4.0.

This file is generated: `python -m labkit.tasks.tickets.card`.

## Splits

{per_split}

Every row has `id`, `message`, `answer` and `phrasing`, the id of the sentence template it was made from
(the cluster for a bootstrap). Every message of test comes from a template that train and validation never
use; so do parts of its greetings, dates, numbers, cues and distractors. {unseen} of its rows are about one
of {len(g.TEST_PRODUCTS)} products (of {len(g.PRODUCTS)}) that training never shows, and {combinations}
have a combination of intent, urgency and facts given that training never shows. Validation uses the
phrasings, products and combinations of training.

Near duplicates, measured as word 3-gram Jaccard similarity of at least {NEAR} to the closest row of train,
with every digit made 0: {near} of {len(messages["test"])} test rows (the closest pair reaches {closest:.2f})
and {near_validation} of {len(messages["validation"])} validation rows. Exact duplicates: none within or
between splits.

## The answer

System prompt: "{SYSTEM}"
Keys in this order; product, order, quantity and date only if the message gives them.

- `intent`: one of the {len(INTENTS)} below.
- `product`: the catalogue name, singular unless sold in pairs or sets, first word with a capital. Products
  mentioned in passing do not count. A training product may be misspelt or shortened ("my Kestrel"); one
  that only test knows is always written out. So a few rows need the catalogue, which only training teaches.
- `order`: "N" and five digits, however it is written ("n48213", "#48213", "order 48213", "N-48213").
- `quantity`: the number of pieces (or pairs, or sets) asked about; for `change_quantity` the new number.
- `date`: "MM-DD", the day given for this matter (ordered, received, bought, paid, moving, pick-up).
- `urgency`: "low" or "high" where the message says so (in no hurry; in a hurry, or angry), else "normal".
  A date alone makes nothing urgent.
- `missing`: which of the facts that the intent needs the message does not give, in the order product,
  order, quantity, date.

Where a customer takes a value back ("two, sorry, three"), the corrected one counts.

{intents}

## Shares

{facts}

Every intent has the same number of rows. About {levels} of the rows; the
knobs stand at the top of `labkit/tasks/tickets/rules.py`. Noise: greetings, padding, sign-offs, distractors
(another product, order or date, a phone number, a price), typos, lower case, lost punctuation,
abbreviations, facts before or after the request, corrections.

## Making more

`labkit.tasks.tickets.build(split, n, seed=0, diversity=1.0)` makes any number of rows. The first k of n
rows are the k rows of a smaller call; messages of different splits never coincide, whatever n and seed;
`diversity` limits the share of training phrasings. `python -m labkit.tasks.tickets` writes the files here
again, byte for byte. Python 3.11 and 3.12 give the same bytes.

## Limits

How hard the rows are was set on four trial runs of the base model on 1,000 test rows: training phrasings were
added, and the rules of `missing` and the noise made milder, until full finetuning got 81% exact.

- A grammar, not people: a score here says nothing about real mail. English only, one request a message.
- Some products and reasons go together oddly (a dog bed that is "too heavy").
- Dates have no year and never use the days 29 to 31; quantities go up to 12.
- Urgency follows stock phrases; irony and mixed signals do not occur.

## Samples

{samples}
"""


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(card())
    print(f"Wrote {FOLDER / 'README.md'}.")
