"""Preferences: reward models, DPO and its kin, and GRPO, with what it takes to measure them.

The losses are formulas to read (`losses`); the runs are trl's (`trained`). Around them: answers sampled from
a model, pairs of them, pairs without a length signal, the divergence from the reference, and win rates.

Names are imported on first use, because `labkit.methods` imports its modules to look for methods, and torch
is slow to load. Nothing here is a method by name: these train on pairs or rewards, not on rows.
"""

from importlib import import_module

_HOME = {
    "token_logps": "losses", "sequence_logps": "losses", "margin": "losses", "bradley_terry_loss": "losses",
    "dpo_loss": "losses", "ipo_loss": "losses", "group_advantages": "losses", "k3": "losses",
    "grpo_loss": "losses",
    "Answer": "sampling", "merged": "sampling", "sample": "sampling",
    "on_policy": "pairs", "length_balanced": "pairs", "length_gaps": "pairs", "words_of": "pairs",
    "Divergence": "kl", "divergence": "kl",
    "compare": "wins", "win_rate": "wins", "length_controlled": "wins",
    "controlled_rows": "wins",
    "scorer": "reward", "rewards": "reward", "pair_accuracy": "reward", "calibration_error": "reward",
    "length_correlation": "reward",
    "dpo": "trained", "grpo": "trained", "reward_model": "trained",
}  # fmt: skip
__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
