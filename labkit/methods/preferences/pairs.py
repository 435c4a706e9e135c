"""Preference pairs: from a model's own answers and a judge, and without a length signal."""

import random
from collections import defaultdict

from labkit.errors import LabkitError


def rules_kept(row, text):
    """Rule -> whether `text` keeps it, over the rules of `voice` that pairs may be built from."""
    from labkit.tasks import voice

    return voice.kept(row["message"], text, voice.PAIR_RULES)


def on_policy(rows, answers, *, judge=rules_kept, seed=0):
    """Pairs of the best and the worst of each row's answers, as a Dataset in the form of `voice.load_pairs`.

    `answers` holds a list of Answers, or of texts, for each of `rows`, which have prompt, id, phrasing and
    message. Answers that were cut off are left out: a trainer would put the end token behind them, and teach
    ends in the middle of a sentence. `judge(row, text)` says which rules a text keeps (rule -> bool); their
    share decides, `seed` chooses among equals, and a row whose answers are all equally good gives no pair.
    Columns: those of `voice.load_pairs()`, then `chosen_kept` and `rejected_kept` (shares of rules, 0 to 1)
    and `source`.
    Raises LabkitError where no row gives a pair.
    """
    from datasets import Dataset

    draw, pairs = random.Random(seed), []
    for row, some in zip(rows, answers, strict=True):
        ended = [answer for answer in some if getattr(answer, "ended", True)]
        texts = list(dict.fromkeys(getattr(answer, "text", answer) for answer in ended))
        if len(texts) < 2:
            continue
        verdicts = {text: judge(row, text) for text in texts}
        shares = {text: sum(kept.values()) / len(kept) for text, kept in verdicts.items()}
        best, worst = max(shares.values()), min(shares.values())
        if best == worst:
            continue
        chosen = draw.choice([text for text in texts if shares[text] == best])
        rejected = draw.choice([text for text in texts if shares[text] == worst])
        kept, lost = verdicts[chosen], verdicts[rejected]
        pairs.append(
            {
                "prompt": row["prompt"],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
                "id": f"{row['id']}-on-policy",
                "phrasing": row["phrasing"],
                "message": row["message"],
                "breaks": " ".join(rule for rule in lost if kept[rule] and not lost[rule]),
                "chosen_kept": best,
                "rejected_kept": worst,
                "source": "on-policy",
            }
        )
    if not pairs:
        raise LabkitError(
            "no row has two answers that ended and of which the judge finds one better: there is no pair. "
            "Sample longer answers, more of them to a row, or at a higher temperature"
        )
    return Dataset.from_list(pairs)


def said(side):
    """The text of one side of a pair, a list of messages or a string."""
    return side if isinstance(side, str) else side[-1]["content"]


def words_of(text):
    """Number of words, as the rules of `voice` count them."""
    from labkit.tasks.voice.texts import words

    return len(words(text))


def length_gaps(pairs, length=words_of):
    """By how much chosen is longer than rejected, in units of `length`: one number for each pair."""
    return [length(said(pair["chosen"])) - length(said(pair["rejected"])) for pair in pairs]


def length_balanced(pairs, *, length=words_of, seed=0):
    """The largest subset in which chosen is longer by k as often as it is shorter by k, for every k.

    So no function of the two lengths' difference says which answer was chosen. `pairs` is a Dataset, whose
    order is kept; `seed` decides which pairs of a surplus stay; those of equal length all do.
    Raises LabkitError where nothing is left.
    """
    groups = defaultdict(lambda: ([], []))
    keep = []
    for number, gap in enumerate(length_gaps(pairs, length)):
        if gap:
            groups[abs(gap)][gap > 0].append(number)
        else:
            keep.append(number)
    draw = random.Random(seed)
    for _, sides in sorted(groups.items()):
        for side in sides:
            keep += draw.sample(side, min(map(len, sides)))
    if not keep:
        raise LabkitError(
            f"none of these {len(pairs)} pairs has a counterpart with the opposite difference in length: "
            "build more pairs"
        )
    return pairs.select(sorted(keep))
