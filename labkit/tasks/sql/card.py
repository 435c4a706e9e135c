"""The data card of the sql family, written from the rows so that its numbers cannot go stale."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from pathlib import Path

from labkit.tasks import files
from labkit.tasks.card import at_a_glance, percent, table
from labkit.tasks.card import files as file_table
from labkit.tasks.duplicates import NEAR, near_duplicates
from labkit.tasks.sql import FOLDER, SPLITS, SYSTEM, read
from labkit.tasks.sql.builder import HELD_OUT_COMBINATIONS, held_out
from labkit.tasks.sql.judge import MOST_CHARACTERS, MOST_STEPS, Judge, same, sorts
from labkit.tasks.sql.kinds import KINDS
from labkit.tasks.sql.store import COLUMNS
from labkit.tasks.sql.store_build import FIRST_DAY, TODAY
from labkit.tasks.sql.values import HELD_OUT, rare

PARTS = ["store", *SPLITS]


def combination(row: files.Row) -> bool:
    """Whether a row's combination of kind and conditions is one that training never shows, by the rule."""
    return held_out(row["features"])


def new_value(row: files.Row) -> bool:
    """Whether a row's conditions name a city, person, product or supplier that training never asks about."""
    values = set(re.findall(r"'([^']*)'", row["query"]))
    return any(values & set(rare(name)) for name in HELD_OUT)


def unnoticed(rows: list[files.Row]) -> tuple[int, int]:
    """How many rows compare with > or the like, and in how many a slip of the bound goes unnoticed."""
    judge = Judge()
    compared = missed = 0
    slips = {" > ": " >= ", " < ": " <= ", " >= ": " > ", " <= ": " < "}
    for row in rows:
        query = row["query"]
        found = [mark for mark in slips if mark in query]
        compared += bool(found)
        wanted = judge.gold(query).rows
        wrong = [judge.run(query.replace(mark, slips[mark]), len(wanted)) for mark in found]
        missed += any(other and same(other.rows, wanted, sorts(query)) for other in wrong)
    judge.close()
    return compared, missed


def card(folder: Path = FOLDER) -> str:
    """The text of data/sql/README.md for the rows in a folder."""
    splits = {split: read(split, folder) for split in SPLITS}
    train, test = splits["train"], splits["test"]
    questions = {split: [row["question"] for row in rows] for split, rows in splits.items()}
    close = near_duplicates(questions["test"], questions["train"], 0.3)
    near = sum(similarity >= NEAR for _, _, similarity in close)
    closest = max((similarity for _, _, similarity in close), default=0.0)
    near_validation = len(near_duplicates(questions["validation"], questions["train"]))
    distinct = len({question for texts in questions.values() for question in texts})
    queries = {split: {row["query"] for row in rows} for split, rows in splits.items()}
    stored = files.read(folder, "store")
    counts = Counter(row["table"] for row in stored)
    seen = {tuple(sorted(row["features"])) for row in train}
    compared, missed = unnoticed(test[:1000])

    def shares(name: str, values: list[str]) -> list[list[str]]:
        get = (lambda row: row["features"][0]) if name == "kind" else (lambda row: row[name])
        return [
            [
                value,
                *(
                    percent(rows, partial(lambda value, row: get(row) == value, value))
                    for rows in splits.values()
                ),
            ]
            for value in values
        ]

    def words(pattern: str) -> list[str]:
        return [percent(rows, lambda row: re.search(pattern, row["query"])) for rows in splits.values()]

    used = [
        ["join", *words(" JOIN ")],
        ["three tables or more", *words(" JOIN .* JOIN ")],
        ["GROUP BY", *words("GROUP BY")],
        ["HAVING", *words("HAVING")],
        ["ORDER BY", *words("ORDER BY")],
        ["LIMIT", *words("LIMIT")],
        ["DISTINCT", *words("DISTINCT")],
        ["subselect", *words(r"\(SELECT")],
        ["NOT IN (SELECT ...)", *words(r"NOT IN \(SELECT")],
        ["OR", *words(" OR ")],
        ["LIKE", *words(" LIKE ")],
        ["BETWEEN", *words(" BETWEEN ")],
        ["strftime", *words("strftime")],
        ["SUM, AVG, MIN, MAX", *words(r"\b(SUM|AVG|MIN|MAX)\(")],
    ]
    picks = [
        splits[s][i]
        for s, i in [
            ("train", 2),
            ("train", 7),
            ("train", 19),
            ("train", 33),
            ("test", 3),
            ("test", 8),
            ("test", 21),
            ("test", 34),
        ]
    ]
    samples = "\n".join(
        f"- `{row['id']}` ({row['phrasing']}, {row['level']})\n  > {row['question']}\n\n  `{row['query']}`"
        for row in picks
    )
    return f"""# Data card: sql

{at_a_glance("sql")}

Questions about the store of Wren & Fell, an outdoor-equipment shop that does not exist, each with one SQLite query
that answers it. Store, questions and queries are written by a program from hand-written phrases: no real customer,
order or product. Licence of the rows: CC BY 4.0.

This file is generated: `python -m labkit.tasks.sql.card`.

## Files

{file_table(folder, {"store": stored, **splits}, {"phrasings": lambda rows: len({r.get("phrasing") for r in rows}) if "phrasing" in rows[0] else "-"})}

`store.jsonl.gz` holds the rows of all tables, one a line, as `{{"table": ..., "row": [...]}}`. No database file is
stored: `labkit.tasks.sql.connect()` makes a new database in memory.

## The store

Orders run from {FIRST_DAY.isoformat()} to the day before the store's today, {TODAY.isoformat()}. Prices are whole euros,
weights grams, days text.

{table(["table", "rows", "columns"], [[name, counts[name], ", ".join(COLUMNS[name])] for name in COLUMNS])}

The system message of every row ({len(SYSTEM)} characters):

```
{SYSTEM}
```

## Splits

Every row has `id`, `question`, `query`, `phrasing` (the id of the sentence frame, the cluster for a bootstrap), `level`
and `features` (the kind, what it is about, the keys of its conditions).

- Frames: every question of test has a frame that train and validation never use, and where it has conditions that can
  be said in several ways, at least one is said in words that only test uses.
- Queries: each possible query belongs to one split by its digest, whatever the order of its conditions and listed
  values, so none occurs in two splits. Shared between train and test, as text: {len(queries["train"] & queries["test"])}.
- Values: of the cities and of the names of customers, products and suppliers about one in five is kept for test;
  {percent(test, new_value)} of the test rows have a condition on such a value.
- Combinations: one combination of kind and conditions in {HELD_OUT_COMBINATIONS} is kept for test by rule;
  {percent(test, combination)} of the test rows have one. Counting also those that train misses only because it is small,
  {percent(test, lambda row: tuple(sorted(row["features"])) not in seen)} of the test rows have a combination not in train.
- Validation uses the frames, words, values and combinations of training.

Exact duplicates among all {sum(map(len, questions.values()))} questions: {sum(map(len, questions.values())) - distinct}. Near
duplicates, measured as word 3-gram Jaccard similarity of at least {NEAR} to the closest row of train, with every digit
made 0: {near} of {len(test)} test rows (the closest pair reaches {closest:.2f}) and {near_validation} of
{len(splits["validation"])} validation rows.

## Which queries are kept

A question must have one answer that tells right from wrong. The builder runs every query and drops those with no rows,
only NULL or 0, one single group, more than 100 rows, or a tie in what sorts them. It also drops a query if one of its
wrong versions gives the same answer: a condition left out, or turned round; AND for OR; another aggregate; another column
of the same type; DISTINCT, HAVING or DESC left out; a row more than LIMIT. Without LIMIT and DISTINCT, `>` for `>=` must differ, too.

## The answer

One SELECT in one style: capitals for keywords, single quotes, `<>`, no alias over one table, the schema's letters where
tables are joined, `IN (SELECT ...)` for rows of another table that exist or do not. Other SQL with the same result counts
as well.

Right is an answer whose query runs and gives the result of the gold query. Surrounding space, one ```` ``` ```` or ```` ```sql ```` fence
and one semicolon may be there; any other text, a comment, or a second statement makes it wrong. Rows are compared in order
if the gold query sorts them, otherwise as a collection in which each row counts as often as it occurs. Column names do not
count, the order of columns does. Numbers are equal within 1e-6 (relative), text must be exact.

The query runs on a database in memory that it can only read, with a whitelist of functions, without recursion, and with at
most {MOST_CHARACTERS} characters and {MOST_STEPS} steps of SQLite's virtual machine (the gold queries need fewer than
150,000). `date('now')` is the store's today. `detail`: `runs` (the query runs), `tables` (it reads the same tables as
the gold query), and the share of right ones among `easy`, `medium` and `hard` rows.

What the questions mean: columns come in the order asked for; "between" includes both ends, "after" and "before" do not
include the day; revenue, spending and the value of an order are quantity times the price on the order line; orders count
whatever their status, unless the question says otherwise; "average product" is the average over all products, or over the
category that is named.

## Shares

{table(["level", *SPLITS], shares("level", ["easy", "medium", "hard"]))}

easy: one table, no GROUP BY, ORDER BY or subselect. hard: a subselect, three tables or more, or a join that is grouped and
then sorted or filtered.

{table(["the query uses", *SPLITS], used)}

{table(["kind", *SPLITS], shares("kind", list(KINDS)))}

## Making more

`labkit.tasks.sql.build(split, n, seed=0, diversity=1.0)` makes any number of rows. The first k of n rows are the k rows of
a smaller call; queries of different splits never coincide, whatever n and seed; `diversity` limits the share of training
phrasings (frames and ways to say a condition). `python -m labkit.tasks.sql` writes the files here again, byte for byte;
with `--check` it builds everything and only compares. Python 3.11 and 3.12 give the same bytes.

## Limits

- Phrases from a grammar, not people: a score here says nothing about other questions or other stores. One schema, English
  only; a few sentences are clumsy where several conditions meet.
- What makes test hard is its own words: full finetuning (see [data](../README.md)) gets nearly every validation row right
  and little more than half of test. The knobs stand in `labkit/tasks/sql/kinds.py` (how many rows of a kind) and
  `nouns.py` (how often test uses its own words).
- The store is one state of one database. A wrong query can give the right rows by chance; the checks above rule out the
  common slips only. With LIMIT or DISTINCT or in a subselect, a slip of a bound (`>` for `>=`) may go unnoticed: among
  the first 1,000 test rows {compared} compare with such a sign, and in {missed} of them it does.
- No window functions, no outer joins, no set operations in the gold queries; no date arithmetic beyond months, years,
  quarters and fixed days.
- Answers never depend on letter case or on rounding: prices are whole numbers.

## Samples

{samples}
"""  # noqa: E501


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(card())
    print(f"Wrote {FOLDER / 'README.md'}.")
