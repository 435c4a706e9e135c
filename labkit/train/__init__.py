"""Training: `fit(model, rows, ...) -> Run`, one plain loop with packed rows."""

from labkit.train.loop import Run, fit

__all__ = ["Run", "fit"]
