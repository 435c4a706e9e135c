"""The exercise beyond functions: re-test a claim of the ledger, graded by `claim.toml`.

`learner.py` makes the folder and seals predictions, `files.py` reads what comes back, `checks.py` has a
check for each criterion that a program judges, `rubric.py` grades, and `page.py` writes the feedback and
takes in a person's points.
"""
