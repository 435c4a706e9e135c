"""Exercises: `check` for the notebook, `solve` for the cells after it, `grade` for whoever gives the course.

A specification lives in `lesson_NN.py` and is imported when one of its exercises is first asked for.
"""

from labkit.exercises.check import check
from labkit.exercises.spec import Exercise, Mistake, close, exact, find, lessons, of_lesson, register, solve

__all__ = [
    "Exercise", "Mistake", "check", "close", "exact", "find", "lessons", "of_lesson", "register", "solve",
]
