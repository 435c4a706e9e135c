"""Win rates from verdicts (1 won, 0 lost, 0.5 tied): plain, and with the advantage of length taken out."""

import numpy as np

from labkit.errors import LabkitError
from labkit.methods.preferences.pairs import words_of
from labkit.records import stats

PRIOR = 5.0  # standard deviation of a normal prior on both weights: finite where length alone decides


def compare(rows, ours, theirs):
    """(verdicts, gaps) of two lists of answers, texts or Answers, to the messages of `rows` of `voice`.

    A verdict says by the held-out rules whether ours won; a gap is by how many words ours is longer.
    """
    from labkit.tasks import voice

    ours, theirs = ([getattr(one, "text", one) for one in some] for some in (ours, theirs))
    sides = list(zip(rows, ours, theirs, strict=True))
    verdicts = [voice.judge(row["message"], a, b) for row, a, b in sides]
    return verdicts, [words_of(a) - words_of(b) for _, a, b in sides]


def win_rate(verdicts, clusters):
    """stats.Estimate of the win rate, ties counting half.

    `verdicts` (rows,), or (seeds, rows) for several trained models; `clusters` one label for each row, such
    as its phrasing. The interval covers other phrasings and, with several seeds, other seeds.
    """
    return stats.share(verdicts, clusters)


def length_controlled(verdicts, gaps, clusters):
    """stats.Estimate of the win rate at answers of equal length; arguments as for `win_rate`.

    `gaps`, of the shape of `verdicts`, say by how much the answer that may win is longer, in words or tokens.
    A logistic regression of the verdict on tanh(gap / standard deviation) is read where the gap is 0, after
    length-controlled AlpacaEval (Dubois et al. 2024, arXiv:2404.04475), without its term for the instruction.
    The interval is that of the mean of `controlled_rows`. Raises LabkitError for shapes that differ.
    """
    verdicts, gaps = np.atleast_2d(verdicts).astype(float), np.atleast_2d(gaps).astype(float)
    if verdicts.shape != gaps.shape:
        raise LabkitError(f"verdicts have the shape {verdicts.shape}, gaps {gaps.shape}: one gap a verdict")
    return stats.share([controlled_rows(*pair) for pair in zip(verdicts, gaps, strict=True)], clusters)


def controlled_rows(verdicts, gaps):
    """Numbers (rows,) whose mean is the length-controlled win rate; they may lie outside 0 to 1.

    Each is that rate plus the row's influence on it: how a little more weight on the row would move the fit.
    To draw rows anew and average them is, to first order, to draw rows anew and fit again.
    """
    verdicts, gaps = np.asarray(verdicts, dtype=float), np.asarray(gaps, dtype=float)
    spread = gaps.std()
    design = np.stack([np.ones_like(gaps), np.tanh(gaps / spread) if spread else np.zeros_like(gaps)], axis=1)
    weights, curvature = _logistic(design, verdicts)
    residuals = verdicts - _sigmoid(design @ weights)
    influence = len(verdicts) * (design * residuals[:, None]) @ np.linalg.inv(curvature)[0]
    rate = _sigmoid(weights[0])
    return rate + rate * (1 - rate) * (influence - influence.mean())


def _logistic(design, verdicts):
    """(weights, curvature) of a logistic regression, by Newton's method."""
    penalty = np.eye(design.shape[1]) / PRIOR**2
    weights = np.zeros(design.shape[1])
    for _ in range(50):
        shares = _sigmoid(design @ weights)
        curvature = design.T @ (design * (shares * (1 - shares))[:, None]) + penalty
        step = np.linalg.solve(curvature, design.T @ (verdicts - shares) - penalty @ weights)
        weights = weights + step
        if np.abs(step).max() < 1e-9:
            break
    return weights, curvature


def _sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -50, 50)))
