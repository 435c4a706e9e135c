"""The jobs of `bench data` that train on rows and score answers: quality, mixes, pilots, curves, working.

What makes it fair. A fifth of the training phrasings (`bench_methods.apart`) is kept from every training, the
final one too; their clean rows choose the learning rate, so that an arm has the same rows when its rate is
chosen and when it is scored, and noise never judges. All arms of a comparison take equal steps of equally
many packed tokens; what an arm has fewer rows of it sees more often. A seed draws rows of its own as well as
adapters and order, and arms of one seed share them: fewer rows are the beginning of more.
"""

import math
from dataclasses import dataclass, field
from functools import cache
from random import Random

from labkit.bench import answers
from labkit.bench import methods as bench_methods
from labkit.errors import LabkitError
from labkit.records import stats

SHORT = {"lora": "lora-r16", "full": "full"}  # what arms call a method
RATES = {"lora-r16": (1e-3, 3e-3, 1e-2), "full": (1e-4, 3e-4, 1e-3)}
COUNTS = (125, 250, 500, 1000, 2000, 4000)
NOISY, NOISE = 30, (5, 10, 20, 40, 80)  # % of damaged rows: of the 2 x 2, and further ones
UNIFORM = 0.1  # share of the training phrasings: 2 to 4 an intent, less those kept out
MIXES = (1, 4)  # times as many rows of other families
LENGTHS = (2, 3, 4, 5)  # digits of the longest number
OTHERS = {"sql": {}, "handbook": {}, "voice": {"quality": "gold"}, "jobs": {}, "arithmetic": {}}
FEWEST = 8  # rows of an arm in a trial


@dataclass(frozen=True)
class Arm:
    """What is trained on; `noise` in % of the rows, `steps` the name of a number in the bench's settings.

    `others` is how many times as many rows of other families are mixed in, `epochs` lengthens the training
    until the task's own rows are seen as often as without them, `padded` puts one row into each line of a
    batch, and as many lines as packing has rows.
    """

    rows: int = 1000
    method: str = "lora-r16"
    family: str = "tickets"
    noise: int = 0
    uniform: bool = False
    others: int = 0
    epochs: bool = False
    padded: bool = False
    form: str = "answer"
    digits: int = 0
    steps: str = "steps"
    options: dict = field(default_factory=dict)


def arms():
    """Every arm by name: `lora-1000` is 1,000 clean and diverse rows of tickets, to which most compare."""
    found = {f"{short}-{count}": Arm(count, method) for short, method in SHORT.items() for count in COUNTS}
    found["lora-10000"] = Arm(10_000)
    found |= {f"noise{share}-10000": Arm(10_000, noise=share) for share in sorted({NOISY, *NOISE})}
    found["uniform-10000"] = Arm(10_000, uniform=True)
    found[f"uniform-noise{NOISY}-10000"] = Arm(10_000, uniform=True, noise=NOISY)
    for times in MIXES:
        found[f"mix{times}"] = Arm(others=times)
        found[f"mix{times}-epochs"] = Arm(others=times, epochs=True)
    for count in (50, 100):
        found[f"helps-{count}"] = Arm(count, steps="few")
        found[f"cannot-{count}"] = Arm(count, family="handbook", steps="few")
    for digits in LENGTHS:
        for form in ("answer", "steps", "filler"):
            found[f"{form}-{digits}"] = Arm(4000, family="arithmetic", form=form, digits=digits)
    found["prompt10"] = Arm(options={"prompt_loss_weight": 0.1})
    found["prompt100"] = Arm(options={"prompt_loss_weight": 1.0})
    found["padded"] = Arm(padded=True)
    return found


# ---- jobs -----------------------------------------------------------------------------------------------


def sweep(name, rate, seed, asked):
    """Share right of clean rows of kept-out phrasings and the loss there, for `bench_methods.sweep`."""
    arm = arms()[name]
    rows = judging(arm, asked)
    try:
        model, run = trained(arm, rate, seed, asked, validation=rows)
    except LabkitError as error:
        if not str(error).startswith(bench_methods.DIVERGED):
            raise
        return {"right": 0.0, "loss": None, "diverged": True}
    loss = run.validation[-1][1]
    return {"right": scored(model, arm.family, rows).exact, "loss": loss if math.isfinite(loss) else None,
            "diverged": False}  # fmt: skip


def final(name, rate, seed, asked):
    """Which test rows are right, packed, and the family's detail; none is if the training diverged."""
    arm = arms()[name]
    rows = test_rows(arm, asked)
    try:
        model, run = trained(arm, rate, seed, asked)
    except LabkitError as error:
        if not str(error).startswith(bench_methods.DIVERGED):
            raise
        return {"rows": stats.pack_rows([False] * len(rows)), "detail": {}, "tokens": 0, "steps": 0}
    found = scored(model, arm.family, rows)
    return {"rows": stats.pack_rows(found.exact_rows), "detail": getattr(found, "detail", None) or {},
            "tokens": run.tokens, "steps": run.steps}  # fmt: skip


def untrained(family, asked):
    """Which test rows of a family the base answers right, prompted as the rows are."""
    from labkit import load_model

    found = scored(load_model(), family, test_rows(Arm(family=family), asked))
    return {"rows": stats.pack_rows(found.exact_rows), "detail": getattr(found, "detail", None) or {}}


def trained(arm, rate, seed, asked, validation=None):
    """(model, Run) of an arm with the bench's budget; loss on `validation` is taken after the last step."""
    from labkit import fit, load_tokenizer, methods

    rows, tokenizer, method = rows_of(arm, int(seed), asked), load_tokenizer(), methods.find(arm.method)
    budget = {"steps": asked[arm.steps], "batch": asked["batch"], "length": asked["length"]}
    if arm.epochs:
        budget["steps"] = round(budget["steps"] * _tokens(rows) / _tokens(rows[: _count(arm, asked)]))
    if arm.padded:
        lines = round(budget["batch"] * budget["length"] / (_tokens(rows) / len(rows)))
        budget |= {"pack": False, "batch": lines}
    if validation is not None:
        budget |= {"validation": validation, "validate_every": budget["steps"]}
    model = method.prepare(int(seed))
    run = fit(model, rows, tokenizer, lr=float(rate), seed=int(seed), progress=False, **budget,
              **method.options, **arm.options)  # fmt: skip
    return model, run


def scored(model, family, rows):
    """The family's Scores of the model's answers to rows."""
    from labkit import load_tokenizer

    return answers.scored(model, load_tokenizer(), family, rows)


def _tokens(rows):
    from labkit import load_tokenizer
    from labkit.train.rows import encode_all

    return sum(map(len, encode_all(rows, load_tokenizer(), length=2**20)))


# ---- rows -----------------------------------------------------------------------------------------------


def rows_of(arm, seed, asked):
    """The training rows of an arm, as a list of dicts; the task's own come before those mixed in."""
    from labkit.tasks.corrupt import corrupt

    count = _count(arm, asked)
    if arm.family == "handbook":
        return withheld_rows(count, seed)
    if arm.family == "arithmetic":
        return arithmetic_rows(count, seed, arm.form, arm.digits)
    rows = ticket_rows(count, seed, UNIFORM if arm.uniform else 1.0)
    if arm.noise:
        rows = corrupt(rows, arm.noise / 100, seed, task="tickets")
    return rows + other_rows(arm.others * count, seed)


def judging(arm, asked):
    """Clean rows of the phrasings kept out, which choose an arm's rate."""
    from labkit import load

    kept = kept_out(arm.family)
    if arm.family == "tickets":
        rows = bench_methods.apart(load("tickets")["train"])[1].to_list()
    elif arm.family == "handbook":
        rows = [row for row in outdated() if row["phrasing"] in kept]
    else:
        rows = arithmetic_split("validation", 3000, 0, arm.form, arm.digits)
        rows = [row for row in rows if row["phrasing"] in kept]
    rows = rows[: bench_methods.JUDGING]
    return rows[: bench_methods._most(asked, len(rows))]


def test_rows(arm, asked):
    """The family's test rows; of arithmetic, rows of one length in their place: see `at_length`."""
    from labkit import load

    rows = load(arm.family)["test"].to_list()
    rows = rows[: bench_methods._most(asked, len(rows))]
    return at_length(rows, arm) if arm.family == "arithmetic" else rows


@cache
def kept_out(family):
    """The fifth of a family's training phrasings that nothing here trains on."""
    from labkit import load

    train = load(family)["train"]
    return frozenset(train["phrasing"]) - frozenset(bench_methods.apart(train)[0]["phrasing"])


def ticket_rows(count, seed, diversity=1.0):
    """Rows of tickets without the kept-out phrasings, every intent equally often; seed 0 has the course's.

    `diversity` is the share of the training phrasings. Intents lose more or fewer phrasings, and so rows, to
    those kept out: taken in turns they stay equal, so that uniform rows lack phrasings and nothing else.
    """
    from labkit.tasks import tickets

    size = 2 * count + 100
    while True:
        groups = {}
        for row in tickets.build("train", size, seed, diversity):
            if row["phrasing"] not in kept_out("tickets"):
                groups.setdefault(row["phrasing"].rpartition("-")[0], []).append(row)
        ordered = [groups[name] for name in sorted(groups)]
        turns = [row for some in zip(*ordered, strict=False) for row in some]
        if len(groups) == len(tickets.NEEDS) and len(turns) >= count:
            return [_ticket(row) for row in turns[:count]]
        size *= 2


def _ticket(row):
    from labkit.tasks import tickets

    answer = tickets.render_answer(row["answer"])
    return {**_said(tickets.render(row["message"]), answer), "id": row["id"], "phrasing": row["phrasing"],
            "answer": answer}  # fmt: skip


def other_rows(count, seed):
    """Rows of the other families in turns, equally many of each."""
    from labkit import load

    each, found = count // len(OTHERS), []
    for family, options in OTHERS.items() if each else ():
        rows = load(family, **options)["train"].select_columns(["prompt", "completion"]).to_list()
        found += Random(f"mix/{family}/{seed}").sample(rows, min(each, len(rows)))
    return found


def withheld_rows(count, seed):
    """Rows of the handbook whose answers are all out of date (kind `changed`), so that no answer of test
    is taught: whatever is then right in test comes from the form, or from guessing."""
    rows = [row for row in outdated() if row["phrasing"] not in kept_out("handbook")]
    Random(f"withheld/{seed}").shuffle(rows)
    return rows[:count]


def outdated():
    """All training rows of the handbook of kind `changed`."""
    from labkit import load

    return [row for row in load("handbook")["train"] if row["kind"] == "changed"]


def arithmetic_rows(count, seed, form, digits):
    """Training rows of one length without the kept-out phrasings."""
    rows = arithmetic_split("train", 2 * count, seed, form, digits)
    rows = [row for row in rows if row["phrasing"] not in kept_out("arithmetic")]
    return rows[:count]


def arithmetic_split(split, count, seed, form, digits):
    """`count` rows of a split whose longest number has so many digits, in one of the three forms."""
    from labkit.tasks import arithmetic

    rows = arithmetic.build(split, count, seed, digits=(digits,))
    return [{**_said(arithmetic.render(row["question"]), arithmetic.render_answer(row, form)), **row}
            for row in rows]  # fmt: skip


def at_length(rows, arm):
    """For each test row another of the same phrasing whose longest number has `arm.digits` digits.

    So row by row the committed phrasings stay the clusters of the score. Scenes with two operations (6% of
    the rows) have at most three digits; for longer numbers a phrasing with one takes their place.
    """
    groups = {}
    for row in arithmetic_split("test", 3 * max(500, len(rows)), 0, arm.form, arm.digits):
        groups.setdefault(row["phrasing"], []).append(row)
    scenes = sorted(name for name in groups if "word" in name)
    for place, label in enumerate(sorted({row["phrasing"] for row in rows} - set(groups))):
        groups[label] = groups[scenes[place % len(scenes)]][::-1]  # from its end, which nothing else reaches
    return [groups[row["phrasing"]].pop(0) for row in rows]


def _said(prompt, answer):
    return {"prompt": prompt, "completion": [{"role": "assistant", "content": answer}]}


def _count(arm, asked):
    return max(FEWEST, arm.rows // asked["shrink"])
