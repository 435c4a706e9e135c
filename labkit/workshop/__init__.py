"""What helps a workshop along: progress, catching up, and a GPU that learners share. Nothing here grades."""

from labkit.workshop.catch_up import catch_up
from labkit.workshop.progress import progress

__all__ = ["catch_up", "progress"]
