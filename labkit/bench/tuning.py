"""How benchmarks choose a learning rate: the first seed tries all, then every seed the two best.

One training is moved by its seed, and by the last bits of its arithmetic, as much as by one step of the
sweep: a rate that one run picks may be a lucky one. So the means of the two best decide, over all seeds that
the caller passes; some benchmarks pass one, whose choice then stands.
"""

import math

from labkit.records import ledger

EXTENSIONS = 3  # further rates on a side, at most
FINALISTS = 2  # rates that every seed tries


def sweep(start, codes, seeds, run, most=EXTENSIONS):
    """Try the rates of `start` (arm to rates) with the first of `seeds`, then the best of them with all.

    While the best is at an end, further rates are tried beyond it. `run` takes names of jobs and returns
    their results: `right`, `loss`, `diverged`, or an `error`. Returns {arm: {rate: result}} of the arms that
    worked, numbers being means over the seeds that tried the rate, and {arm: why} of the others.
    """
    tried, failed = {arm: {} for arm in start}, {}
    wanted = {arm: [(rate, seeds[0]) for rate in rates] for arm, rates in start.items()}
    while wanted:
        asked = [(arm, rate, seed) for arm in wanted for rate, seed in wanted[arm]]
        names = [job_name("sweep", *one, codes) for one in asked]
        found = run(names)
        for (arm, rate, _), result in zip(asked, map(found.get, names), strict=True):
            tried[arm].setdefault(rate, []).append(result)
            if "error" in result:
                failed[arm] = f"at the learning rate {rate:g}: {result['error']}"
        going = [arm for arm in wanted if arm not in failed]
        wanted = {arm: more for arm in going if (more := _next(tried[arm], start[arm], seeds, most))}
    means = {arm: _means(rates) for arm, rates in tried.items() if arm not in failed}
    for arm, rates in means.items():
        if all(result["diverged"] for result in rates.values()):
            failed[arm] = f"at every rate from {min(rates):g} to {max(rates):g}: it diverged"
    return {arm: rates for arm, rates in means.items() if arm not in failed}, failed


def best_rate(tried):
    """The rate with most right rows of unseen phrasings; among equals the lower loss there, then the rate."""
    return ranked(tried)[0]


def ranked(tried):
    """All rates of {rate: result}, the best first."""

    def merit(rate):
        loss = tried[rate]["loss"]
        right = round(tried[rate]["right"], 9)  # means of equal counts differ in the last bits
        return right, -math.inf if loss is None else -loss, -rate

    return sorted(tried, key=merit, reverse=True)


def first_seeds_choice(tried, start, most=EXTENSIONS):
    """The rate that the first seed alone would have chosen, of what `sweep` tried for an arm from `start`."""
    alone = {rate: {"right": one["rights"][0], "loss": one["losses"][0]} for rate, one in tried.items()}
    seen = {rate: alone[rate] for rate in start}
    while more := [rate for rate in further(seen, start, most) if rate in alone]:
        seen |= {rate: alone[rate] for rate in more}
    return best_rate(seen)


def further(tried, start, most=EXTENSIONS):
    """Rates to try next: one beyond each end where the best lies, at most `most` on a side of `start`."""
    best, more = best_rate(tried), []
    if best == min(tried) and sum(rate < min(start) for rate in tried) < most:
        more.append(beside(best, up=False))
    if best == max(tried) and sum(rate > max(start) for rate in tried) < most:
        more.append(beside(best, up=True))
    return more


def beside(rate, up):
    """The rate about 3 times higher or lower, so that 1 and 3 alternate: 1e-4, 3e-4, 1e-3."""
    leading = float(f"{rate:e}".split("e")[0])
    if up:
        factor = 3 if leading < 2 else 10 / 3
    else:
        factor = 3 / 10 if leading < 2 else 1 / 3
    return float(f"{rate * factor:.2g}")


def job_name(stage, arm, rate, seed, codes):
    """A job's name; `codes` has what ends it: the digest of a method's module, so that one that changed is
    trained anew."""
    return f"{stage}_{arm}_{rate:g}_{seed}_{codes[arm]}"


def _next(tried, start, seeds, most):
    """The (rate, seed) pairs to try next, of {rate: results by seed}."""
    means = _means(tried)
    if more := further(means, start, most):
        alike = seeds[: len(tried[best_rate(means)])]  # as many as the best has, with which they compete
        return [(rate, seed) for rate in more for seed in alike]
    close = [rate for rate in ranked(means)[:FINALISTS] if not means[rate]["diverged"]]
    if len(means) == 1:  # nothing to choose
        return []
    return [(rate, seed) for rate in close for seed in seeds[len(tried[rate]) :]]


def _means(tried):
    return {rate: _mean(results) for rate, results in tried.items()}


def _mean(results):
    """One result of the results of a rate by seed; no loss, where one seed has none."""
    rights, losses = [one["right"] for one in results], [one["loss"] for one in results]
    whole = {
        **results[0],
        "right": sum(rights) / len(rights),
        "loss": None if None in losses else sum(losses) / len(losses),
        "diverged": all(one["diverged"] for one in results),
        "rights": rights,
        "losses": losses,
    }
    if "seconds" in whole:
        whole["seconds"] = sum(one["seconds"] for one in results)
    if "peak_bytes" in whole:
        whole["peak_bytes"] = max(one["peak_bytes"] for one in results)
    if "bands" in whole:
        whole["bands"] = ledger.stamp(results)
    return whole
