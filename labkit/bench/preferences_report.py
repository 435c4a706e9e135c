"""The tables of `bench preferences`. Each takes the record's values, or reads them."""

from labkit.bench.markdown import measured, table, together
from labkit.bench.preferences_jobs import BETA
from labkit.bench.preferences_values import best_sft
from labkit.records import store

NAME = "preferences"
ARMS = {
    "start": "start: SFT on drafts",
    "sft": "more SFT, on chosen answers",
    "ready": "DPO on ready-made pairs",
    "balanced": "DPO on pairs without a length signal",
    "ipo": "IPO",
    "norm": "length-normalised DPO",
    "grpo": "GRPO",
}
TUNED = {"start": "start", "dpo": "DPO", "grpo": "GRPO", "reward-raw": "reward model",
         "reward-balanced": "reward model, balanced"}  # fmt: skip


@measured(NAME)
def lines(found):
    """All tables as Markdown lines."""
    return together((arms_table, length_table, reward_table, frontier_table, failure_table), found)


@measured(NAME)
def arms_table(found):
    """Markdown lines: what each policy reaches, its win rate over more SFT, and what it costs."""
    asked, out = found["settings"], []
    for label, one in found["arms"].items():
        wins = found["wins"].get(label)
        rates = [_interval(wins[kind]) for kind in ("plain", "controlled")] if wins else ["", ""]
        out.append([_name(label, found), _share(one["reward"]), _share(one["held-out"]), *rates,
                    f"{_mean(one['KL']):.1f}", f"{_mean(one['tokens']):.1f}",
                    f"{_mean(one['general loss']):.3f}"])  # fmt: skip
    more = best_sft(found["sweeps"])
    rates = ", ".join(f"{name} {_best(found, arm)}" for arm, name in {**TUNED, more: "more SFT"}.items())
    head = ("policy|pair rules kept (reward)|held-out rules kept|win rate over SFT|at equal length|"
            "KL to the start, nats|tokens|general loss")  # fmt: skip
    return [
        *table(head, out),
        "",
        f"{len(asked['seeds'])} seeds ({len(asked['more'])} for the start, more SFT, DPO at beta 0.1 and "
        "GRPO), each from its own start. Wins by held-out rules, greedy answers to test messages, 95% "
        "intervals over phrasings and seeds; reward, KL and tokens of answers sampled at temperature 1. DPO "
        f"and its kin: {asked['steps']} steps of {asked['pairs']} pairs; more SFT may read as many "
        f"tokens, and validation chose 1/{more.partition('-')[2]} of that, {_mean(found['sft steps']):.0f} "
        f"steps; GRPO: {asked['rl']} steps of {asked['prompts']} x "
        f"{asked['group']} answers. Rates: {rates}; arms on pairs have DPO's, GRPO's was chosen after "
        f"half of its steps. {_replies(found)}",
    ]


def _replies(found):
    """The sentence about answers that are no replies: those keep no rule of either kind."""
    replied = {label: _mean(one["replies"]) for label, one in found["arms"].items()}
    fewest = min(replied, key=replied.get)
    among = found["wins"][f"dpo {BETA:g}"]["of replies"]
    won = "" if among is None else f"; of messages that it and more SFT both reply to, DPO wins {among:.1%}"
    return (f"What is no reply at all keeps no rule: {replied['sft']:.1%} of more SFT's greedy answers are "
            f"replies, {replied[f'dpo {BETA:g}']:.1%} of DPO's at beta {BETA:g}, and at the least "
            f"{replied[fewest]:.1%} ({_name(fewest, found)}){won}.")  # fmt: skip


@measured(NAME)
def length_table(found):
    """Markdown lines: does reward go with length, do pairs, and how long answers become."""
    pairs, out = found["pairs"], []
    for which, name in (("pairs", "on-policy pairs"), ("balanced", "without a length signal")):
        one = pairs[which]
        passes = found["settings"]["steps"] * found["settings"]["pairs"] / _mean(one["count"])
        out.append([name, f"{_mean(one['count']):.0f}", _share(one["chosen is longer"]),
                    _share(one["chosen is shorter"]), f"{_mean(one['words longer']):+.1f}",
                    f"{passes:.1f}"])  # fmt: skip
    length = "; ".join(f"{name} {_spread(values, '.1f')}" for name, values in found["length"].items())
    start = "reward-length correlation"
    by_view = "; ".join(f"{name[len(start):].strip() or 'all'}: {_spread(values, '+.2f')}"
                        for name, values in found.items() if name.startswith(start))  # fmt: skip
    return [
        *table("pairs|count|chosen is longer|chosen is shorter|words longer, mean|passes of DPO", out),
        "",
        "Correlation of the reward, which caps length at 15 to 60 words, with tokens, over the start's own "
        f"samples, {_share(found['samples that ended'])} of which ended, by seed: {by_view}. Tokens of an "
        f"answer, by seed: {length}.",
    ]


@measured(NAME)
def reward_table(found):
    """Markdown lines: reward models of pairs with and without a length signal."""
    out = []
    for kind, name in (("raw", "chosen tends to be longer"), ("balanced", "balanced in length")):
        one = found["reward model"][kind]
        out.append([name, *(_share(one["accuracy"][test]) for test in ("raw", "balanced")),
                    *(f"{_mean(one['calibration error'][test]):.3f}" for test in ("raw", "balanced")),
                    _spread(one["correlation"], "+.2f")])  # fmt: skip
    head = ("trained on pairs|accuracy, raw test pairs|balanced ones|calibration error, raw|balanced|"
            "correlation with tokens, by seed")  # fmt: skip
    return [*table(head, out), "", "Ready-made pairs; the correlation is over the start's samples. Rates: "
            f"{_best(found, 'reward-raw')} and {_best(found, 'reward-balanced')}."]  # fmt: skip


@measured(NAME)
def frontier_table(found):
    """Markdown lines: reward by KL to the start, and the spread over seeds at equal KL."""
    names = {"dpo by beta": "DPO, beta {}", "dpo": "DPO at beta 0.1, step {}", "grpo": "GRPO, step {}"}
    out = [[name.format(at), f"{_mean(one['KL']):.2f}", _share(one["reward"]), _spread(one["KL"], ".1f")]
           for kind, name in names.items() for at, one in found["frontier"][kind].items()]  # fmt: skip
    return [*table("run|KL, nats|reward|KL by seed", out), "", _of_spread(found["spread"])]


def _of_spread(one):
    """The sentence about the spread at equal KL."""
    if one["mean"] is None:
        return f"At {one['KL']:.2f} nats: too few seeds for a spread, or none."
    rewards = "; ".join(f"{name.upper()} {_spread([100 * reward for reward in some], '.1f')}%"
                        for name, some in one["reward"].items())  # fmt: skip
    gain = one["gain ratio"]["mean"]
    gains = "" if gain is None else f"; of the gains over the start: {gain:.2f}"
    ratio = f"{one['mean']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
    return (f"Reward at {one['KL']:.2f} nats, which every run reaches, by seed: {rewards}. Standard "
            f"deviation, DPO over GRPO: {ratio}{gains}.")  # fmt: skip


@measured(NAME)
def failure_table(found):
    """Markdown lines: DPO's margin rises while the chosen answers' own log-probability falls."""
    out = []
    for label, history in found["failure"].items():
        beta = float(label.partition(" ")[2])
        moved = [history[name][-1] / beta for name in ("margin", "chosen_reward", "rejected_reward")]
        out.append([f"{beta:g}", *(f"{nats:+.1f}" for nats in moved), f"{history['accuracy'][-1]:.1%}",
                    _share(found["arms"][label]["reward"])])  # fmt: skip
    head = "beta|margin, nats|log-probability of chosen|of rejected|pairs told apart|reward after"
    return [
        *table(head, out),
        "",
        "DPO, last tenth of the training, log-probabilities as changes since the start, nats per answer, on "
        "pairs trained on: the margin is their difference. Mean over seeds.",
    ]


def frontier(found):
    """{name: [(KL in nats, reward)]}, ascending, means over seeds, each from the start on: for a plot."""
    start = (0.0, _mean(found["arms"]["start"]["reward"]))
    names = {"DPO, by beta": "dpo by beta", "DPO, by step": "dpo", "GRPO, by step": "grpo"}
    return {name: sorted([start, *((_mean(one["KL"]), _mean(one["reward"]))
                                   for one in found["frontier"][kind].values())])
            for name, kind in names.items()}  # fmt: skip


def frontier_title(found):
    """What both methods earn at the KL that every run of them reaches."""
    one = found["spread"]
    earned = ", ".join(f"{name.upper()} {_mean(some):.0%}" for name, some in one["reward"].items())
    return f"Pair rules kept at {one['KL']:.1f} nats: {earned}"


def show_frontier():
    """Show reward over KL, as it was measured, in a notebook; nothing where it was not."""
    from labkit import plots

    whole = store.read(NAME)
    if not whole:
        return
    paths, title = frontier(whole["values"]), frontier_title(whole["values"])
    fig, axes = plots.figure(title, "KL to the start (nats an answer)", "pair rules kept (%)")
    for (name, path), style, colour in zip(paths.items(), ("o-", "s--", "^-."), plots.COLOURS, strict=False):
        axes.plot([x for x, _ in path], [100 * y for _, y in path], style, color=colour, label=name)
    axes.legend(frameon=False)
    plots.show(fig, f"Lines of reward over KL, means over seeds, numbers in the table above. {title}.")


def _name(label, found):
    beta = label.partition(" ")[2]
    if beta:
        return f"DPO, beta {beta}"
    return f"{ARMS[label]}, beta {_best(found, label)}" if label in ("ipo", "norm") else ARMS[label]


def _best(found, arm):
    one = found["sweeps"][arm]
    return f"{one['best']:g}" + (" (an end of those tried)" if one["at an end"] else "")


def _interval(one):
    return f"{one['mean']:.1%} [{one['low']:.1%}, {one['high']:.1%}]"


def _spread(values, form):
    return ", ".join(f"{value:{form}}" for value in values)


def _share(shares):
    return f"{_mean(shares):.1%}"


def _mean(numbers):
    return sum(numbers) / len(numbers)
