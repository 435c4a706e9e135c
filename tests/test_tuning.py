"""How benchmarks choose a learning rate: one seed for all rates, every seed for those that are close."""

import pytest

from labkit.bench import tuning
from labkit.records import ledger

RATES = (1e-4, 3e-4, 1e-3)


class Jobs:
    """Stands in for the jobs: {rate: share right by seed}; a share of None diverged, a text is an error."""

    def __init__(self, shares):
        self.shares, self.names = shares, []

    def __call__(self, names):
        self.names += names
        return {name: self._one(*name.split("_")[2:4]) for name in names}

    def _one(self, rate, seed):
        share = self.shares[float(rate)][int(seed)]
        if isinstance(share, str):
            return {"error": share}
        if share is None:
            return {"right": 0.0, "loss": None, "diverged": True, "seconds": 2.0}
        return {"right": share, "loss": 1 - share, "diverged": False, "seconds": 2.0}

    def tried(self):
        """(rate, seed) in the order of the jobs."""
        return [(float(rate), int(seed)) for rate, seed in (name.split("_")[2:4] for name in self.names)]


def choose(shares, seeds=(0, 1, 2), most=0, rates=RATES):
    """(results by rate or None, why it failed, the jobs)."""
    jobs = Jobs(shares)
    tried, failed = tuning.sweep({"arm": rates}, {"arm": "code"}, seeds, jobs, most)
    return tried.get("arm"), failed.get("arm"), jobs


def swept(**right):
    """{rate: result}, from `r3=0.5` (rate 1e-3) or `r3=(0.5, loss)`."""
    found = {}
    for name, value in right.items():
        share, loss = value if isinstance(value, tuple) else (value, None)
        found[10.0 ** -int(name[1:])] = {"right": share, "loss": loss}
    return found


# ---- seeds


def test_the_first_seed_tries_all_rates_and_the_others_the_two_best_only():
    tried, _, jobs = choose({1e-4: [0.2] * 3, 3e-4: [0.8] * 3, 1e-3: [0.7] * 3})
    assert jobs.tried()[:3] == [(rate, 0) for rate in RATES]
    assert sorted(jobs.tried()[3:]) == [(3e-4, 1), (3e-4, 2), (1e-3, 1), (1e-3, 2)]
    assert [len(tried[rate]["rights"]) for rate in RATES] == [1, 3, 3]
    assert jobs.names[0] == "sweep_arm_0.0001_0_code"


@pytest.mark.parametrize("shares, best", [
    ([0.9, 0.8, 0.8, 0.8, 0.9, 0.9], 1e-3),  # the first seed was lucky at 3e-4
    ([0.9, 0.9, 0.9, 0.8, 0.9, 0.9], 3e-4),  # it was right
    ([0.9, None, 0.9, 0.8, 0.8, 0.8], 1e-3),  # a rate at which a seed diverges has no row right there
], ids=["lucky", "right", "diverges"])
def test_means_over_the_seeds_decide_and_not_the_first(shares, best):
    tried, _, _ = choose({1e-4: [0.1] * 3, 3e-4: shares[:3], 1e-3: shares[3:]})
    assert tuning.best_rate(tried) == best
    assert tuning.first_seeds_choice(tried, RATES, 0) == 3e-4
    assert not any(one["diverged"] for one in tried.values())
    assert (tried[3e-4]["loss"] is None) is (None in shares)


def test_a_rate_that_comes_among_the_two_best_is_tried_with_every_seed_too():
    tried, _, jobs = choose({1e-4: [0.5, 0.6, 0.7], 3e-4: [0.9, 0.1, 0.1], 1e-3: [0.8, 0.1, 0.1]})
    assert jobs.tried()[-2:] == [(1e-4, 1), (1e-4, 2)] and tuning.best_rate(tried) == 1e-4
    assert tried[1e-4]["right"] == pytest.approx(0.6) and tried[1e-4]["loss"] == pytest.approx(0.4)


def test_beyond_an_end_that_means_made_best_a_rate_competes_with_as_many_seeds():
    shares = {3e-5: [0.75, 0.95, 0.95], 1e-4: [0.70, 0.90, 0.90], 3e-4: [0.72, 0.84, 0.84], 1e-3: [0.1] * 3}
    tried, _, jobs = choose(shares, most=1)
    assert jobs.tried()[-3:] == [(3e-5, 0), (3e-5, 1), (3e-5, 2)] and tuning.best_rate(tried) == 3e-5
    assert tuning.first_seeds_choice(tried, RATES, 1) == 3e-4  # which never saw 3e-5


def test_the_first_seeds_choice_goes_beyond_an_end_as_its_sweep_did():
    shares = {1e-5: [0.2] * 3, 3e-5: [0.9] * 3, 1e-4: [0.8] * 3, 3e-4: [0.3] * 3, 1e-3: [0.1] * 3}
    tried, _, _ = choose(shares, most=2)
    assert tuning.first_seeds_choice(tried, RATES, 2) == tuning.best_rate(tried) == 3e-5


def test_among_equal_means_the_loss_decides_and_not_the_last_bits():
    rows = {1e-4: [60] * 3, 3e-4: [500, 520, 560], 1e-3: [500, 540, 540]}
    tried, _, _ = choose({rate: [right / 600 for right in each] for rate, each in rows.items()})
    assert tried[3e-4]["right"] != tried[1e-3]["right"]  # in the last bits
    for better in (3e-4, 1e-3):
        assert tuning.best_rate({**tried, better: {**tried[better], "loss": 0.01}}) == better


@pytest.mark.parametrize("seeds, rates, count", [((0,), RATES, 3), ((0, 1, 2), (3e-4,), 1)])
def test_with_one_seed_or_one_rate_there_is_nothing_to_try_again(seeds, rates, count):
    _, _, jobs = choose({1e-4: [0.1] * 3, 3e-4: [0.8] * 3, 1e-3: [0.7] * 3}, seeds=seeds, rates=rates)
    assert len(jobs.names) == count


def test_a_rate_that_diverged_is_not_tried_with_other_seeds():
    tried, _, jobs = choose({1e-4: [0.1] * 3, 3e-4: [None] * 3, 1e-3: [None] * 3})
    assert (3e-4, 1) not in jobs.tried() and (1e-3, 1) not in jobs.tried()
    assert tuning.best_rate(tried) == 1e-4 and tried[3e-4]["diverged"]


@pytest.mark.parametrize("shares, says", [
    ([None, None], "at every rate from 0.0001 to 0.001: it diverged"),
    ([0.1, "no memory"], "at the learning rate 0.001: no memory"),
])
def test_an_arm_that_fails_is_named_with_the_reason(shares, says):
    tried, why, _ = choose({1e-4: [shares[0]] * 3, 3e-4: [None] * 3, 1e-3: [shares[1]] * 3})
    assert tried is None and why == says


def test_an_error_of_a_later_seed_fails_that_arm_alone():
    good = Jobs({rate: [0.5] * 3 for rate in RATES})
    bad = Jobs({rate: [0.5, "broken", 0.5] for rate in RATES})

    def run(names):
        return {name: (bad if "_bad_" in name else good)([name])[name] for name in names}

    arms = {"good": RATES, "bad": RATES}
    tried, failed = tuning.sweep(arms, dict.fromkeys(arms, "code"), (0, 1, 2), run, 0)
    assert set(tried) == {"good"} and set(failed) == {"bad"} and failed["bad"].endswith("broken")


def test_a_rate_costs_the_seconds_of_all_its_seeds_and_keeps_the_bands_that_all_saw():
    found = [{"right": 0.5, "loss": 1.0, "diverged": False, "seconds": second, "peak_bytes": 9 - second,
              "bands": {"same": "a", "moved": str(second)}} for second in (1, 2, 3)]  # fmt: skip
    whole = tuning._mean(found)
    assert whole["seconds"] == 6 and whole["peak_bytes"] == 8
    assert whole["bands"] == {"same": "a", "moved": ledger.MOVED}


# ---- rates


def test_extending_a_rate_upwards_and_downwards_keeps_to_ones_and_threes():
    up, down = [1e-4], [1e-3]
    for _ in range(4):
        up.append(tuning.beside(up[-1], up=True))
        down.append(tuning.beside(down[-1], up=False))
    assert up == [1e-4, 3e-4, 1e-3, 3e-3, 1e-2] and down == [1e-3, 3e-4, 1e-4, 3e-5, 1e-5]
    assert 2 < tuning.beside(2e-4, up=True) / 2e-4 < 5 and 2 < 5e-4 / tuning.beside(5e-4, up=False) < 5


@pytest.mark.parametrize("tried, best", [
    (swept(r4=0.5, r3=0.6), 1e-3),
    (swept(r4=(0.5, 2.0), r3=(0.6, 9.0)), 1e-3),
    (swept(r4=(0.5, 2.0), r3=(0.5, 1.0), r2=(0.5, 3.0)), 1e-3),
    (swept(r4=(0.5, 1.0), r3=(0.5, 1.0)), 1e-4),
    (swept(r4=0.5, r3=0.5), 1e-4),
    (swept(r4=0.0, r3=(0.0, 5.0)), 1e-3),
], ids=["more right", "loss decides nothing else", "lower loss", "lower rate", "no loss", "not the diverged"])
def test_among_equals_the_lower_loss_then_the_lower_rate_is_best(tried, best):
    assert tuning.best_rate(tried) == pytest.approx(best)
