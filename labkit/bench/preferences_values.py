"""From the jobs of `bench preferences` to the values of its record."""

import numpy as np

from labkit.bench import methods as bench_methods
from labkit.bench.preferences_jobs import BETA, FAILING, KIN, SHARES
from labkit.methods import preferences as pr

DRAWS = 200_000  # of two spreads, for the interval of their ratio
SAMPLED = ("kept", "kept apart", "lengths", "ended")  # of every sample of a start: (messages, answers)
OF_POLICY = ("reward", "greedy reward", "held-out", "KL", "tokens", "cut off", "general loss")
KEPT = ("seeds", "more", "start", "batch", "length", "messages", "answers", "steps", "pairs", "betas", "rl",
        "prompts", "group", "looks", "samples", "new")  # fmt: skip


def summary(found, tried, asked, phrasings):
    """The record's values, under the names that the claims' bands use.

    `found` are results by job, `tried` those of the sweeps by arm and number, `asked` is
    `preferences.settings()`, `phrasings` one label for each test message.
    """
    every = {label: _of(found, start) for label, start in arms(asked).items()}
    every = {label: runs for label, runs in every.items() if runs}
    wins = {label: against_sft(runs, every["sft"], phrasings) for label, runs in every.items()
            if label not in ("start", "sft")}  # fmt: skip
    ours, pairs = every[f"dpo {BETA:g}"], _of(found, "pairs")
    return {
        "settings": {name: asked[name] for name in KEPT},
        "sweeps": {arm: sweep(numbers) for arm, numbers in tried.items()},
        "arms": {label: _arm(runs) for label, runs in every.items()},
        "wins": wins,
        "dpo wins": wins[f"dpo {BETA:g}"]["controlled"],
        "dpo wins plain": wins[f"dpo {BETA:g}"]["plain"],
        "KL": _each(ours, "KL"),
        "sft steps": [one["steps"] for one in every["sft"].values()],
        "start": {"held-out loss": [one["held-out loss"] for one in every["start"].values()]},
        **_lengths(every, pairs),
        "pairs": _pairs(pairs),
        **_spread(every),
        "reward model": {kind: _rewards(_of(found, f"reward_{kind}")) for kind in ("raw", "balanced")},
        "frontier": {"dpo by beta": _by_beta(every, asked), "dpo": _by_step(every[f"dpo {BETA:g}"]),
                     "grpo": _by_step(every["grpo"])},
        "failure": {label: _mean_history(runs) for label, runs in every.items() if label.startswith("dpo ")},
        "examples": {label: every[label][0]["policy"]["examples"] for label in every},
    }  # fmt: skip


def arms(asked):
    """{label: how the jobs of a policy begin}, in the order of the table."""
    betas = sorted({*asked["betas"], FAILING})
    return {"start": "start", "sft": "sft", **{f"dpo {beta:g}": f"dpo_{beta:g}" for beta in betas},
            **{arm: arm for arm in ("ready", "balanced", *KIN, "grpo")}}  # fmt: skip


def _of(found, start):
    """{seed: result} of the jobs that begin so; seeds end their names."""
    some = [name for name in found if name.startswith(f"{start}_")]
    return dict(sorted((int(name.rpartition("_")[2]), found[name]) for name in some))


def _each(runs, key):
    return [one["policy"][key] for one in runs.values()]


def _arm(runs):
    replies = [float(np.mean(some)) for some in _each(runs, "reply")]
    return {**{key: _each(runs, key) for key in OF_POLICY}, "replies": replies}


def sweep(numbers):
    """What the sweep of one arm found, by rate or beta."""
    best = bench_methods.best_rate(numbers)
    return {"right": {f"{number:g}": numbers[number]["right"] for number in sorted(numbers)},
            "loss": {f"{number:g}": numbers[number]["loss"] for number in sorted(numbers)},
            "best": best, "at an end": best in (min(numbers), max(numbers))}  # fmt: skip


def best_sft(sweeps):
    """The arm of more SFT, by its share of the steps, that does best on validation; of equals the longest."""
    return max((f"sft-{share}" for share in SHARES), key=lambda arm: max(sweeps[arm]["right"].values()))


# ---- win rates ------------------------------------------------------------------------------------------


def verdicts(ours, theirs):
    """(verdicts, gaps) as `pr.compare` gives them, from two policies' held-out rules kept and words."""
    ahead = np.subtract(ours["held"], theirs["held"])
    return (1 + np.sign(ahead)) / 2, np.subtract(ours["words"], theirs["words"])


def against_sft(runs, sft, phrasings):
    """Win rate over the sft arm of the same seed: plain, and at equal length; with 95% intervals over
    phrasings and seeds."""
    sides = [verdicts(one["policy"], sft[seed]["policy"]) for seed, one in runs.items()]
    judged, gaps = (np.stack(side) for side in zip(*sides, strict=True))
    both = np.array([np.logical_and(one["policy"]["reply"], sft[seed]["policy"]["reply"])
                     for seed, one in runs.items()])  # fmt: skip
    plain, controlled = pr.win_rate(judged, phrasings), pr.length_controlled(judged, gaps, phrasings)
    return {"plain": _interval(plain), "controlled": _interval(controlled),
            "words longer": float(gaps.mean()), "ties": float((judged == 0.5).mean()),
            # A text that is no reply keeps no rule, of those that built the pairs or of the held-out ones:
            # how much of a win that is, shows among messages which both replied to.
            "both reply": float(both.mean()),
            "of replies": float(judged[both].mean()) if both.any() else None}  # fmt: skip


def _interval(found):
    return {"mean": found.mean, "low": found.low, "high": found.high, "each": list(found.each)}


# ---- length ---------------------------------------------------------------------------------------------


def _lengths(every, pairs):
    """Does the rule reward go with length on the start's samples, and what does DPO do to it?

    The rules cap length: replies have 15 to 60 words, what is no reply keeps none, and what is cut off often
    loses its last rules. So the correlation is also given without those two rules, and of ended answers.
    """
    def by_seed(view):
        return [pr.length_correlation(*view({key: np.array(one[key]) for key in SAMPLED}))
                for one in pairs.values()]  # fmt: skip

    views = {
        "": lambda one: (one["kept"].ravel(), one["lengths"].ravel()),
        " within messages": lambda one: (_centred(one["kept"]), _centred(one["lengths"])),
        " without length rules": lambda one: (one["kept apart"].ravel(), one["lengths"].ravel()),
        " of ended answers": lambda one: (one["kept"][one["ended"]], one["lengths"][one["ended"]]),
        " of ended answers without length rules":
            lambda one: (one["kept apart"][one["ended"]], one["lengths"][one["ended"]]),
    }  # fmt: skip
    labels = {"before": "start", "after": f"dpo {BETA:g}", "after balanced": "balanced", "after sft": "sft",
              "after grpo": "grpo"}  # fmt: skip
    return {
        **{f"reward-length correlation{name}": by_seed(view) for name, view in views.items()},
        "samples that ended": [float(np.mean(one["ended"])) for one in pairs.values()],
        "length": {name: _each(every[label], "tokens") for name, label in labels.items()},
    }


def _centred(some):
    return (some - some.mean(axis=1, keepdims=True)).ravel()


def _pairs(pairs):
    def gaps(one, which):
        return np.array(pr.length_gaps(one[which]))

    return {which: {"count": [len(one[which]) for one in pairs.values()],
                    "words longer": [float(gaps(one, which).mean()) for one in pairs.values()],
                    "chosen is longer": [float((gaps(one, which) > 0).mean()) for one in pairs.values()],
                    "chosen is shorter": [float((gaps(one, which) < 0).mean()) for one in pairs.values()]}
            for which in ("pairs", "balanced")}  # fmt: skip


# ---- spread at equal KL ---------------------------------------------------------------------------------


def _spread(every):
    """Spread of the reward over seeds at equal KL, DPO over GRPO.

    A run's path are its scores at its end, half, quarter and so on (`looks`), beginning with its start, which
    is 0 nats from itself; they are of sampled answers to test messages (`on_policy_scores`). Every run of
    both methods is read at the largest KL that all of them reach, where its path first gets there, between
    two looks in a straight line (`at_kl`). The spread is the standard deviation of those rewards over
    seeds, and the ratio's interval that of two standard deviations of as many normal numbers
    (`ratio_of_spreads`).

    Both methods have the same starts, messages, looks and schedule, and one rate of those that begin with the
    same four, chosen by the same messages; but GRPO's after half of its steps (`grpo`), DPO's after all. And
    what does the least moving is read at its end, the other on its way, where its rate is still high. Both
    rewards hold the spread of the common starts, which draws the ratio towards 1: of the gains over each
    run's own start it is given beside (`gain ratio`). DPO's pairs are drawn once a seed, as GRPO's answers
    are in every step: their chance is part of what is measured.
    """
    begun = {seed: (0.0, one["policy"]["reward"]) for seed, one in every["start"].items()}
    paths = {name: {seed: [begun[seed], *((look["KL"], look["reward"]) for look in one["path"])]
                    for seed, one in every[label].items()}
             for name, label in (("dpo", f"dpo {BETA:g}"), ("grpo", "grpo"))}  # fmt: skip
    level = min(max(kl for kl, _ in path) for runs in paths.values() for path in runs.values())
    rewards = {name: [at_kl(path, level) for path in runs.values()] for name, runs in paths.items()}
    starts = {name: [path[0][1] for path in runs.values()] for name, runs in paths.items()}
    gains = {name: np.subtract(rewards[name], starts[name]) for name in paths}
    ratio = ratio_of_spreads(rewards["dpo"], rewards["grpo"])
    return {
        "spread ratio": {**ratio, "each": [ratio["mean"]]},
        "spread": {"KL": level, "reward": rewards, "deviation": {name: _deviation(some)
                                                                for name, some in rewards.items()},
                   **ratio, "gain ratio": ratio_of_spreads(gains["dpo"], gains["grpo"])},
    }  # fmt: skip


def at_kl(path, level):
    """The reward where `path`, (KL, reward) in the order of training, first reaches the KL `level`."""
    for (before, low), (after, high) in zip(path, path[1:], strict=False):
        if after >= level:
            share = (level - before) / (after - before) if after > before else 1.0
            return low + share * (high - low)
    return path[-1][1]


def ratio_of_spreads(first, second):
    """Standard deviation of `first` over that of `second`, with a 95% interval, by a parametric bootstrap.

    Both are drawn anew from normal distributions. Drawing the few seeds themselves anew would give intervals
    far too narrow, as `labkit.records.stats` says. No number where either has no deviation.
    """
    ours, theirs = _deviation(first), _deviation(second)
    if not ours or not theirs:
        return {"mean": None, "low": None, "high": None}
    draw = np.random.default_rng(0)
    squares = [draw.chisquare(len(some) - 1, DRAWS) / (len(some) - 1) for some in (first, second)]
    low, high = np.quantile(np.sqrt(squares[1] / squares[0]), [0.025, 0.975])
    return {"mean": ours / theirs, "low": float(low * ours / theirs), "high": float(high * ours / theirs)}


def _deviation(some):
    return float(np.std(some, ddof=1)) if len(some) > 1 else None


# ---- reward models, frontier, failure -------------------------------------------------------------------


def _rewards(runs):
    return {
        "accuracy": {kind: [one["accuracy"][kind] for one in runs.values()] for kind in ("raw", "balanced")},
        "calibration error": {kind: [one["calibration error"][kind] for one in runs.values()]
                              for kind in ("raw", "balanced")},
        "correlation": [one["correlation"] for one in runs.values()],
    }  # fmt: skip


def _by_beta(every, asked):
    return {f"{beta:g}": {key: _each(every[f"dpo {beta:g}"], key) for key in ("KL", "reward")}
            for beta in asked["betas"]}  # fmt: skip


def _by_step(runs):
    looks = list(zip(*(one["path"] for one in runs.values()), strict=True))
    return {str(some[0]["step"]): {key: [look[key] for look in some] for key in ("KL", "reward")}
            for some in looks}  # fmt: skip


def _mean_history(runs):
    """Means over seeds, tenth by tenth of the training; `margin` as trl logs it, beta times nats."""
    each = [one["history"] for one in runs.values()]
    return {name: np.mean([history[name] for history in each], axis=0).tolist() for name in each[0]}
