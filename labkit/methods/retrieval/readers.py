"""Prompts for a model that reads passages of the handbook untrained, and own data of documents and rows.

`READERS[name](train_rows, index, pieces)(question)` are chat messages whose last is the question; `prompts`
and `with_passages` put passages before it. There are as many as `handbook.PROMPTS` has, so that who compares
the two tries as many of each.
"""

from pathlib import Path

from labkit.errors import LabkitError
from labkit.methods.retrieval.metrics import answerable, holding
from labkit.methods.retrieval.pieces import ENDINGS, read_folder
from labkit.methods.retrieval.reading import training_rows
from labkit.tasks import handbook

READING = f"""{handbook.RULES}
Before the question stand passages of the handbook. Take the answer from them alone. If none of them says \
it, write exactly: {handbook.REFUSAL}"""
SOUGHT = 400  # the first training rows, among which examples are looked for


def _without_passages(name):
    """A prompt of the closed book: passages are put before the question, and nothing says what they are."""
    return lambda train_rows, index, pieces: handbook.PROMPTS[name](train_rows)


def _reading(shots):
    """The instruction to read; with `shots` examples, each with one passage, one of them a refusal."""

    def make(train_rows, index, pieces):
        turns = [{"role": "system", "content": READING}]
        for row in training_rows(_examples(train_rows, pieces, shots), index, pieces, 1, without=0):
            turns += [row["prompt"][-1], row["completion"][0]]
        return lambda question: [*turns, handbook.render(question)[-1]]

    return make


def _examples(train_rows, pieces, shots):
    """Rows of facts that the pieces state, and one that nothing answers."""
    some = list(train_rows)[:SOUGHT] if shots else []
    usable = [row for row in some if not answerable(row) or holding(pieces, row)]
    return handbook.examples(usable, shots) if shots else []


READERS = {
    "rules of format": _without_passages("rules of format"),
    "rules of format and 5 examples": _without_passages("rules of format and 5 examples"),
    "rules of reading": _reading(0),
    "rules of reading and 3 examples with a passage": _reading(3),
}


def own(where):
    """(documents, rows by split) of your own data, by one name; the part that is not there is empty.

    `where` is a folder with documents (.txt, .md) and, if you have questions with answers, a CSV beside them
    (as `load` reads it); or such a CSV alone; or `handbook`, the course's. Rows are lists. Raises LabkitError
    as `read_folder` and `load` do, and for a folder that holds neither.
    """
    from labkit.tasks import load
    from labkit.tasks.own_data.reading import FORMATS

    if where == "handbook":
        return handbook.documents(), {split: rows.to_list() for split, rows in load(where).items()}
    folder = Path(where).expanduser()
    if not folder.is_dir():
        return [], {split: rows.to_list() for split, rows in load(where).items()}
    tables = [file for file in folder.iterdir() if file.suffix.lower() in FORMATS and file.name[0] != "."]
    texts = any(file.suffix.lower() in ENDINGS for file in folder.rglob("*"))
    if not tables and not texts:
        wanted = f"documents ({', '.join(ENDINGS)}), a CSV of questions and answers, or both"
        raise LabkitError(f"{where} holds no data: put {wanted} there")
    rows = {split: rows.to_list() for split, rows in load(folder).items()} if tables else {}
    return read_folder(folder) if texts else [], rows
