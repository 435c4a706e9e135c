"""Training: `fit(model, rows, ...) -> Run`, one plain loop with packed rows."""

from labkit.train.loop import fit
from labkit.train.run import Run

__all__ = ["Run", "fit"]
