"""Records: what was measured, on which machine, from which code; and the verdicts drawn from it."""

from labkit.records.ledger import claims
from labkit.records.store import record, recorded

__all__ = ["claims", "record", "recorded"]
