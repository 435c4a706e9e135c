"""Does training contain what a test calls withheld?"""

from labkit.methods.retrieval.reading import question_of
from labkit.tasks.handbook.search import words

# What training must not have, for each kind of test question of the handbook. Of `trained` and `changed`
# facts training asks too, in other words; of changed ones it must not give the new answer.
WITHHELD = {
    "trained": ("phrasings", "questions"),
    "changed": ("phrasings", "questions", "answers"),
    "untrained": ("facts", "phrasings", "questions"),
    "absent": ("facts", "phrasings", "questions"),
}


def leaks(train_rows, test_rows):
    """What training rows share with test rows although it is called withheld: {what: sorted list}, all empty.

    `facts` and `phrasings` are the ids of the rows' columns; `questions` are compared in lower case, without
    punctuation; `answers` are (fact, answer) pairs. WITHHELD says what counts for which kind of test row; of
    rows without a kind, as in own data, questions do.
    """
    marks = [_marks(row) for row in train_rows]
    trained = {what: {mark[what] for mark in marks if what in mark} for what in KINDS_OF_LEAK}
    found = {what: set() for what in KINDS_OF_LEAK}
    for row in test_rows:
        own = _marks(row)
        for what in WITHHELD.get(row.get("kind"), ("questions",)):
            if what in own and own[what] in trained[what]:
                found[what].add(own[what])
    return {what: sorted(some) for what, some in found.items()}


KINDS_OF_LEAK = ("facts", "phrasings", "questions", "answers")


def _marks(row):
    """What can leak of a row, by kind of leak."""
    marks = {"questions": " ".join(words(question_of(row)))}
    if row.get("fact"):
        marks |= {"facts": row["fact"], "answers": (row["fact"], " ".join(words(row["answer"])))}
    if row.get("phrasing"):
        marks["phrasings"] = row["phrasing"]
    return marks
