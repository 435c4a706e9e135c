"""The data card of the voice family, written from the rows so that its numbers cannot go stale."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from labkit.tasks import card as c
from labkit.tasks.duplicates import NEAR, near_duplicates
from labkit.tasks.tickets.grammar import TEST_PRODUCTS
from labkit.tasks.voice import FOLDER, MAX_NEW_TOKENS, PAIR_SPLITS, SPLITS, SYSTEM, read, score
from labkit.tasks.voice import builder as b
from labkit.tasks.voice.hacks import HACKS
from labkit.tasks.voice.matters import KIND, MATTERS, TOPICS
from labkit.tasks.voice.rules import HELD_OUT_RULES, PAIR_RULES, RULES, WHY, kept
from labkit.tasks.voice.texts import words

Row = dict[str, Any]
Verdicts = list[dict[str, bool]]
SHOWN = 100  # so many test messages get each hack as their answer
JUDGED = 400  # so many pairs are judged again for the tables: enough for shares, and quick


def mean_words(texts: list[str]) -> str:
    """The mean number of words, as text."""
    return f"{sum(len(words(text)) for text in texts) / len(texts):.1f}"


def longer(pairs: list[Row], column: str) -> str:
    """The share of pairs whose chosen reply has more words than the one in `column`."""
    return c.percent(pairs, lambda pair: len(words(pair["chosen"])) > len(words(pair[column])))


def correlation(xs: list[float], ys: list[float]) -> float:
    """Pearson's correlation of two lists."""
    mx, my = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    above = math.fsum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True))
    return above / math.sqrt(math.fsum((x - mx) ** 2 for x in xs) * math.fsum((y - my) ** 2 for y in ys))


def card(folder: Path = FOLDER) -> str:
    """The text of data/voice/README.md for the rows in a folder."""
    splits = {split: read(split, folder) for split in SPLITS}
    pairs = {split: read(f"pairs_{split}", folder) for split in PAIR_SPLITS}
    messages = {row["id"]: row["message"] for rows in splits.values() for row in rows}
    parts = {**splits, **{f"pairs_{split}": rows for split, rows in pairs.items()}}
    drafts = [kept(row["message"], row["draft"]) for row in splits["train"]]

    def judged(column: str) -> Verdicts:
        return [kept(messages[pair["message_id"]], pair[column]) for pair in pairs["train"][:JUDGED]]

    both = {column: judged(column) for column in ("chosen", "rejected", "rejected_balanced")}
    table_of_files = c.files(
        Path(folder),
        parts,
        {
            "phrasings": lambda rows: len({row["phrasing"] for row in rows}),
            "words of a message": lambda rows: mean_words(
                [messages[row.get("message_id", row["id"])] for row in rows]
            ),
        },
    )
    return TEXT.format(
        glance=c.at_a_glance("voice"),
        files=table_of_files,
        SYSTEM=SYSTEM,
        tokens=MAX_NEW_TOKENS,
        n_rules=len(RULES),
        n_pair=len(PAIR_RULES),
        n_held=len(HELD_OUT_RULES),
        n_matters=len(MATTERS),
        n_topics=len(TOPICS),
        topics=", ".join(TOPICS),
        n_products=len(KIND),
        n_new=len(set(KIND) & set(TEST_PRODUCTS)),
        new=c.percent(splits["test"], lambda row: row["product"] in TEST_PRODUCTS),
        pair_rules=_rules(PAIR_RULES, drafts, both),
        held_out_rules=_rules(HELD_OUT_RULES, drafts, both),
        lengths=_lengths(splits, pairs),
        breaks=_breaks(pairs["train"]),
        care=" / ".join(f"{share:.0%}" for share in b.CARE.values()),
        factors=" / ".join(str(factor) for factor in b.CARE_FACTOR.values()),
        **_drafts(splits["train"], drafts),
        differ=c.percent(pairs["train"], lambda pair: pair["rejected"] != pair["rejected_balanced"]),
        same=c.percent(
            list(zip(*both.values(), strict=True)),
            lambda three: all(one[name] == three[0][name] for one in three for name in HELD_OUT_RULES),
        ),
        hacks=_hacks(splits["test"][:SHOWN]),
        NEAR=NEAR,
        JUDGED=JUDGED,
        SHOWN=SHOWN,
        samples=_samples(splits, pairs, messages),
        b=b,
        **_near(splits),
    )


def _rules(names: dict[str, Any], drafts: Verdicts, both: dict[str, Verdicts]) -> str:
    return c.table(
        ["rule", "why", "drafts", "chosen", "rejected", "rejected, balanced"],
        [
            [
                f"`{name}`",
                WHY[name],
                *(c.percent(found, lambda one, name=name: one[name]) for found in (drafts, *both.values())),
            ]
            for name in names
        ],
    )


def _lengths(splits: dict[str, list[Row]], pairs: dict[str, list[Row]]) -> str:
    lines = [
        [f"{split}, {name}", mean_words([row[column] for row in rows]), "", ""]
        for split, rows in splits.items()
        for name, column in [("gold", "reply"), ("draft", "draft")]
    ]
    for split, rows in pairs.items():
        for name, column in [("pairs", "rejected"), ("pairs_balanced", "rejected_balanced")]:
            lines.append(
                [
                    f"{name}, {split}",
                    mean_words([row["chosen"] for row in rows]),
                    mean_words([row[column] for row in rows]),
                    longer(rows, column),
                ]
            )
    return c.table(["replies", "mean words (of chosen)", "mean words of rejected", "chosen is longer"], lines)


def _breaks(pairs: list[Row]) -> str:
    return c.table(
        ["rules that only the rejected reply breaks", "pairs", "pairs_balanced"],
        [
            [
                k,
                *(
                    c.percent(pairs, lambda pair, key=key, k=k: len(pair[key]) == k)
                    for key in ("breaks", "breaks_balanced")
                ),
            ]
            for k in b.HOW_MANY
        ],
    )


def _drafts(rows: list[Row], drafts: Verdicts) -> dict[str, str]:
    shares = {
        name: [sum(one[rule] for rule in rules) / len(rules) for one in drafts]
        for name, rules in [("pair", PAIR_RULES), ("held", HELD_OUT_RULES)]
    }
    lengths = [float(len(words(row["draft"]))) for row in rows]
    return {
        "together": f"{correlation(shares['pair'], shares['held']):.2f}",
        "with_length": f"{correlation(lengths, shares['held']):.2f}",
        "all_kept": c.percent(drafts, lambda one: all(one.values())),
        "broken": f"{sum(not ok for one in drafts for ok in one.values()) / len(drafts):.1f}",
    }


def _hacks(rows: list[Row]) -> str:
    lines = []
    for name, hack in HACKS.items():
        scores = score([hack(row["message"]) for row in rows], rows)
        lines.append(
            [
                name,
                *(f"{x:.2f}" for x in (scores.exact, scores.detail["all rules"], scores.detail["distinct"])),
            ]
        )
    for name, column in [("(the drafts)", "draft"), ("(the gold replies)", "reply")]:
        scores = score([row[column] for row in rows], rows)
        lines.append(
            [
                name,
                *(f"{x:.2f}" for x in (scores.exact, scores.detail["all rules"], scores.detail["distinct"])),
            ]
        )
    return c.table(["text", "exact", "mean share of rules kept", "distinct"], lines)


def _near(splits: dict[str, list[Row]]) -> dict[str, Any]:
    text = {split: [row["message"] for row in rows] for split, rows in splits.items()}
    gold = {split: [row["reply"] for row in rows] for split, rows in splits.items()}
    return {
        "exact": len(set(text["test"]) & set(text["train"])),
        "near": len(near_duplicates(text["test"], text["train"])),
        "closest": f"{max(s for *_, s in near_duplicates(text['test'], text['train'], 0.01)):.2f}",
        "near_validation": len(near_duplicates(text["validation"], text["train"])),
        "near_replies": len(near_duplicates(gold["test"], gold["train"])),
        "exact_replies": len(set(gold["test"]) & set(gold["train"])),
    }


def _quoted(text: str) -> str:
    return text.replace("\n", "\n  > ")


def _samples(splits: dict[str, list[Row]], pairs: dict[str, list[Row]], messages: dict[str, str]) -> str:
    out = []
    for split, i in [("train", 3), ("train", 14), ("test", 5), ("test", 16)]:
        row = splits[split][i]
        out.append(
            f"- `{row['id']}` ({row['phrasing']})\n  > {row['message']}\n\n  gold:\n  > "
            f"{_quoted(row['reply'])}\n\n"
            f"  draft:\n  > {_quoted(row['draft'])}\n"
        )
    for split, i in [("train", 7), ("train", 21), ("test", 2)]:
        pair = pairs[split][i]
        out.append(
            f"- `{pair['id']}` ({pair['phrasing']})\n  > {messages[pair['message_id']]}\n\n  chosen:\n"
            f"  > {_quoted(pair['chosen'])}\n\n  rejected, breaks {', '.join(pair['breaks'])}:\n"
            f"  > {_quoted(pair['rejected'])}\n"
        )
    return "\n".join(out)


TEXT = """# Data card: voice

{glance}

Messages from customers of Wren & Fell, an outdoor-equipment shop that does not exist, with replies in the
voice of the shop, and preference pairs of replies. Written by a program from hand-written sentences: no real
customer, order or product. Licence of the rows: CC BY 4.0.

This file is generated: `python -m labkit.tasks.voice.card`.

## Parts

{files}

The checksums are in `checksums.json` too. Rows of train, validation and test have `id`, `phrasing` (the
template of the message: the cluster for a bootstrap), `topic`, `product`, `message`, `reply` (gold: keeps
every rule) and `draft`. Pairs have `id`, `phrasing`, `message_id`, `chosen`, `rejected`, `breaks` (the rules
that only the rejected reply breaks), `rejected_balanced` and `breaks_balanced`.

A message is about one of {n_matters} matters in {n_topics} topics ({topics}) and names one of {n_products}
products. Phrasings, greetings, asides and closings of test never occur in training; {new} of its messages are
about one of {n_new} products that training never names. The pairs of train use the messages of train, those
of test the messages of test. The sentences that replies are made of are the same in all splits: the test asks
for the right ones, not for new ones.

Messages of test that occur in train: {exact}; near duplicates, measured as word 3-gram Jaccard similarity of
at least {NEAR} to the closest message of train: {near} of test (the closest pair reaches {closest}) and
{near_validation} of validation. Gold replies may be near duplicates too, since they come from the same
sentences: {near_replies} of test (exact ones: {exact_replies}).

## Replies

System prompt: "{SYSTEM}" Replies take at most {tokens} tokens.

A reply is made of an opening, a fact, a step, sometimes a further sentence, an offer of help and a sign-off.
Gold replies keep all {n_rules} rules. A draft is what an unchecked help desk might send: each writer is
careful, middling or careless ({care}), and breaks each rule with a probability of its own (`BREAKS` in
`labkit/tasks/voice/builder.py`) times {factors}. So drafts break {broken} rules on average and {all_kept}
keep all of them. Because care affects all rules at once, the share of pair rules and the share of held-out
rules that a draft keeps go together (correlation {together}): that is what a model could generalise from, and
it stands in the drafts only. Words spoil more than they mend: the correlation of a draft's number of words
with the share of held-out rules it keeps is {with_length}, so win rates on them need a control for length.

`load()` has the drafts as completions, which leaves preference training room to improve;
`load(quality="gold")` the others.

{lengths}

## Rules

Shares of replies that keep each rule: train drafts, and the first {JUDGED} train pairs.

From the following {n_pair} the pairs are built:

{pair_rules}

The following {n_held} are held out: judged, but never used to build or to choose a pair:

{held_out_rules}

Besides, `is_reply` is a floor: a text that is no reply to the message (too few or too many words, not
English, mostly repetition or the message said back, about neither the product nor the topic, or a list of
topics) keeps no rule. The topic of a message of this family is looked up by its template; of other messages
it is guessed from words.

## Pairs

Chosen replies keep every pair rule, rejected ones break one to three. Each held-out rule is broken in about
{b.HELD_OUT_IN_PAIRS:.0%} of the pairs, and always by both replies or by none ({same} of those {JUDGED}):
nothing in a pair says that a held-out rule matters. So a model that keeps more of them after training on
pairs has generalised, and one may as well keep fewer: chosen replies break them about as often as drafts do,
and more often than drafts that keep the pair rules do. The held-out rules are of the same spirit as the pair
rules (calm, plain, polite) without following from them.

`load_pairs()` has a length bias: the chosen reply is the longer one in 70% of the pairs;
`load_pairs(balanced=True)` has none (50%). Both have the same messages and chosen replies; the rejected reply
differs in {differ} of the pairs. No pair has replies of equal length. In both sets a reply of over 60 words
or under 15 is always a rejected one, so that length matters a little beyond the bias, and rightly.

{breaks}

## Scoring

`score(texts, rows)`: `exact` is the share of replies that keep every rule; `detail` has the mean share of
rules kept, of pair rules and of held-out rules, the share of replies that keep each rule, "is a reply", mean
words, and "distinct". `reward(message, reply)` is the share of pair rules kept, for reinforcement learning;
`judge(message, a, b)` says which of two replies keeps more of the held-out rules. Both take another choice of
rules.

What texts earn that try to please the rules, on the first {SHOWN} test messages:

{hacks}

The last one is a hack that works: a letter that says nothing, with the product and one word of the topic
filled in, keeps every rule. The rules cannot tell whether an answer is true or useful. "distinct" is the
share of replies that differ in more than the product: look at it, and at the replies, whenever a reward goes
up. "Another language inside" earns nothing only if the foreign sentences are long, and a canned reply earns
its share on the topics that it names.

## Making more

`labkit.tasks.voice.build(split, n, seed=0, diversity=1.0)` and `build_pairs` make any number of rows. The
first k of n rows are the k rows of a smaller call; messages of different splits never coincide, whatever n
and seed; `diversity` limits the share of training phrasings. Pairs beyond the number of messages take the
messages again, with other replies. `python -m labkit.tasks.voice` writes the files here again, byte for byte.
Python 3.11 and 3.12 give the same bytes.

## Limits

- Templates, not people: a score here says nothing about real mail. English only, one product and one matter a
  message.
- What a reply says of orders, stock or products is made up, and fits the matter more often than the exact
  question.
- Drafts are spoilt on purpose and sometimes absurd (a list of three sentences, a calm complaint answered with
  hype).
- Rules look for words. A polite reply in other words may break `topic`, `acknowledgement` or `offer`, and a
  blaming one in words that no rule knows may pass.
- Chosen replies are better by the rules, not by people's votes: there is no disagreement and no noise in the
  pairs.
- Five held-out rules forbid words and one limits sentences, which short texts keep more easily; `next_step`
  asks for some words. So a bland reply wins by them: look at `distinct` and at all rules beside a win rate.

## Samples

{samples}"""


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(card())
    print(f"Wrote {FOLDER / 'README.md'}.")
