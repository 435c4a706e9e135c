"""The tables of `bench full`. Each takes the record's values, or reads them."""


from labkit.bench.markdown import measured, table, together

NAME = "full"
FACTS = {
    "base": "none: the base",
    "pretrain": "the documents, as plain text",
    "sft": "questions and answers",
    "both": "the documents, then the questions",
    "sft-long": "questions and answers, twice as long",
}
MATCHES = {"yes": "yes", "no": "no", "open": "cannot tell"}


@measured(NAME)
def lines(found):
    """All tables as Markdown lines."""
    tables = (transfer_table, partial_table, forget_table, facts_table, batch_table, epochs_table,
              rounding_table)  # fmt: skip
    return together(tables, found)


@measured(NAME)
def transfer_table(found):
    """Markdown lines: scores of the pre-trained and of the random start by number of steps."""
    curves, asked, test = found["curve"], found["settings"], found["test"]
    steps = sorted({int(count) for each in curves.values() for count in each})
    rows = [[f"{count:,}", *(_shares(each.get(str(count))) for each in curves.values())] for count in steps]
    ratios = ", ".join(f"{'at least ' if bound else ''}{number:g}" if number else "none"
                       for number, bound in zip(found["steps ratio"], found["steps ratio is a lower bound"],
                                                strict=True))  # fmt: skip
    long = f"random, {asked['long'][-1]:,} steps"
    finals = ", ".join(f"{name} {_shares(test[name])}" for name in ("pre-trained", "random", long))
    return [
        *table("steps|pre-trained, exact match|random weights, exact match", rows),
        "",
        f"New phrasings, mean of {_seeds(asked)}; each number of steps is a training of its own, of "
        f"{asked['batch']} x {asked['length']} tokens a step. Rates: pre-trained {_rate(found, 'full')}, "
        f"random {_rate(found, 'random')}, in longer runs {_rate(found, 'random-long')}. Steps to "
        f"{found['score to reach']:.0%}, random over pre-trained, by seed: {ratios}. Exact match on test "
        f"rows, trained on all rows: {finals}.",
    ]


@measured(NAME)
def partial_table(found):
    """Markdown lines: test score by the share of weights trained, and whether it matches full's."""
    asked, test, out = found["settings"], found["test"], []
    for blocks, one in found["partial"].items():
        name = f"partial-{blocks}"
        gap = f"{100 * one['gap']:+.2f} [{100 * one['low']:+.2f}, {100 * one['high']:+.2f}]"
        out.append([blocks, f"{one['fraction']:.1%}", _rate(found, name), _shares(test[name]), gap,
                    MATCHES[one["matches"]]])  # fmt: skip
    out.append(["all, and the embedding", "100%", _rate(found, "full"), _shares(test["full"]), "", ""])
    size = found["smallest matching fraction"]
    ends = f"above {size['low']:.1%}, at most {size['high']:.1%}"
    head = "last blocks trained|share of weights|learning rate|exact match, test|minus full, points|matches"
    return [
        *table(head, out),
        "",
        f"{_budget(asked)}, mean of {_seeds(asked)}, 95% intervals over phrasings and seeds. Matches: the "
        f"interval lies above -1 point. Smallest share that matches: {ends}.",
    ]


@measured(NAME)
def forget_table(found):
    """Markdown lines: score, loss on plain English and probe by learning rate; slopes near the best."""
    asked, out = found["settings"], []
    for rate, runs in sorted(found["forget"].items(), key=lambda pair: float(pair[0])):
        done = [run for run in runs if run["general loss"] is not None]
        loss = f"{_mean([run['general loss'] for run in done]):.3f}" if done else "diverged"
        near = sum(float(rate) in rates for rates in found["rates near the best"])
        probe = _shares([run["probe"] for run in done]) if done else ""
        out.append([rate, _shares([run["right"] for run in runs]), loss, probe, f"{near} of {len(runs)}"])
    rates = ", ".join(f"{rate:g}" for rate in found["rates of the slope"]) or "none"
    slopes = ", ".join("none" if one is None else f"{one:+.3f}" for one in found["slope"])
    probes = ", ".join("none" if one is None else f"{100 * one:+.1f}" for one in found["probe slope"])
    return [
        *table("learning rate|exact match, new phrasings|general loss|probe|seeds near the best", out),
        "",
        f"Full, {_budget(asked)}, mean of {_seeds(asked)}. General loss: nats per token of plain English. "
        "Near the best: within 5 points of the seed's best score. Slope of the general loss over the rates "
        f"that are near it in every seed ({rates}), nats for a tenfold rate, by seed: {slopes}; of the "
        f"probe, points: {probes}.",
    ]


@measured(NAME)
def facts_table(found):
    """Markdown lines: facts of the handbook after continued pre-training, SFT, and both in a row."""
    asked, out = found["settings"], []
    steps = {"base": 0, "both": 2 * asked["steps"], "sft-long": 2 * asked["steps"]}
    for arm, one in found["facts"].items():
        count = f"{steps.get(arm, asked['steps']):,}"
        out.append([FACTS[arm], count, _shares(one["right"]), _shares(one["contains"])])
    return [
        *table("trained on|steps|exact match|the answer occurs", out),
        "",
        f"Facts of the handbook that training states, asked in new phrasings; mean of {_seeds(asked)} (base: "
        f"one run). Rates: documents {_rate(found, 'pretrain')}, questions {_rate(found, 'sft')}, each "
        "chosen by validation questions for its stage alone; the two last rows use the same.",
    ]


@measured(NAME)
def batch_table(found):
    """Markdown lines: rows a step at equal tokens, each at its best rate."""
    asked, out = found["settings"], []
    for size, one in found["batch"].items():
        steps = max(1, asked["steps"] * asked["batch"] // int(size))
        out.append([f"{size} x {asked['length']}", f"{steps:,}", f"{one['rate']:g}", _loss(one["loss"]),
                    _shares(one["right"])])  # fmt: skip
    return [
        *table("tokens a step|steps|best learning rate|loss, new phrasings|exact match", out),
        "",
        f"Full finetuning, as many tokens in every row; mean of {_seeds(asked)}. Loss: nats per answer "
        "token.",
    ]


@measured(NAME)
def epochs_table(found):
    """Markdown lines: passes over few rows, and early stopping."""
    asked, out = found["settings"], []
    for name, one in found["epochs"].items():
        what = "early stopping" if name == "stopped" else name
        steps = ", ".join(map(str, dict.fromkeys(one["steps"])))
        kept = ", ".join(map(str, dict.fromkeys(one["kept step"])))
        out.append([what, steps, kept, _loss(one["loss"]), _shares(one["right"])])
    return [
        *table("epochs|steps|weights of step|loss, new phrasings|exact match", out),
        "",
        f"Full finetuning on {asked['few']:,} rows at {_rate(found, 'full')}, mean of {_seeds(asked)}. Early "
        "stopping: two validations an epoch, on phrasings that neither the training nor the scored rows "
        "have; the loss is on them. It stops after two without a new best, whose weights are put back.",
    ]


@measured(NAME)
def rounding_table(found):
    """Markdown lines: loss and share of moved weights, fp32 weights against bf16 ones."""
    asked, out = found["settings"], []
    for rate in found["rounding"]["autocast"]:
        each = [found["rounding"][way][rate] for way in ("autocast", "pure bf16")]
        out.append([rate, *(cell for one in each for cell in (_loss(one["loss"]), _shares(one["moved"])))])
    return [
        *table("learning rate|loss, fp32 weights|weights moved|loss, bf16 weights|weights moved", out),
        "",
        f"{_budget({**asked, 'steps': asked['short']})}, mean of {_seeds(asked)}; both compute in bf16. "
        "Loss: mean of the last 10 steps. Moved: not the number it was.",
    ]


def _budget(asked):
    return f"tickets, {asked['steps']} steps of {asked['batch']} x {asked['length']} tokens"


def _seeds(asked):
    count = len(asked["seeds"])
    return f"{count} {'seed' if count == 1 else 'seeds'}"


def _rate(found, arm):
    one = found["sweeps"][arm]
    return f"{one['best']:g}" + (" (an end of those tried)" if one["at an end"] else "")


def _loss(losses):
    return "diverged" if None in losses else f"{_mean(losses):.3f}"


def _shares(shares):
    return f"{_mean(shares):.1%}" if shares else ""


def _mean(numbers):
    return sum(numbers) / len(numbers)
