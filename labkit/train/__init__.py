"""Training: `fit(model, rows, ...) -> Run`, one plain loop with packed rows."""

from labkit.train.run import Run
from labkit.train.sharing import fit

__all__ = ["RESULTS", "Run", "fit"]

# Raise it when the numbers that `fit` gives change: measurements made before then are stale. What they are
# stands in tests/test_fit.py.
RESULTS = 1
