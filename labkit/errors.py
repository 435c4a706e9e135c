"""The one exception type a learner meets: what was wrong, where, and what to do about it."""


class LabkitError(Exception):
    """Something a person can put right; the command line prints it without a traceback."""
