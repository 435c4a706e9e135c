"""Questions with passages: prompts for a model that reads, and rows to train it on.

A row is one of `labkit.load`: prompt (chat messages), completion, answer, and question or, in own data,
message.
"""

from random import Random

from labkit.errors import LabkitError
from labkit.methods.retrieval.metrics import answerable, holding
from labkit.methods.retrieval.pieces import text_of
from labkit.tasks.handbook.world import REFUSAL


def question_of(row):
    """What a row asks, as one searches for it: its question or, in own data, its message."""
    return row["question"] if "question" in row else row["message"]


def passages(index, pieces, questions, k=3):
    """For each question the k pieces that the index finds, best first."""
    return [[pieces[number] for number, _ in found] for found in index.search_all(list(questions), k)]


def with_passages(prompt, found):
    """Chat messages whose last one, the user's, has the passages before "Question: ..." and the question.

    The same as `handbook.render(question, found)`, for any prompt; without passages the prompt as it is.
    """
    if not found:
        return prompt
    *before, last = prompt
    texts = [*map(text_of, found), f"Question: {last['content']}"]
    return [*before, {**last, "content": "\n\n".join(texts)}]


def prompts(rows, index, pieces, k=3, ask=None):
    """A prompt for each row with the k best pieces in it, to be passed to `score(..., prompts=...)`.

    `ask`, such as `handbook.PROMPTS[name](train)`, turns a question into chat messages; without it the row's
    own prompt is taken.
    """
    asked = [question_of(row) for row in rows]
    found = passages(index, pieces, asked, k)
    plain = [ask(question) for question in asked] if ask else [row["prompt"] for row in rows]
    return [with_passages(*pair) for pair in zip(plain, found, strict=True)]


def training_rows(rows, index, pieces, k=3, without=0.2, seed=0):
    """Rows for "finetuning plus retrieval": as given, with passages in the prompt. They go to `fit`.

    Every answerable row gets a passage that states its answer: where the index missed it, in the last place.
    But from a share `without` of them, drawn by `seed`, it is taken out (the next best move up), and the
    answer is REFUSAL, so that the model learns to read, and not to answer whatever stands there. With 0 as
    many rows are refused as without passages. `stated` says which have their passage.

    Pass training rows, and pieces of the documents that they were written from, for the handbook those of
    `documents("before")`. Passages state facts that are withheld from training: with `fit`'s
    `prompt_loss_weight` of 0 they are read, and never what is predicted.
    Raises LabkitError for k under 1, for a row of a fact that training must not ask about, and for one whose
    answer no piece states.
    """
    if k < 1:
        raise LabkitError(f"rows with {k} passages: give k of 1 or more, or train on the rows as they are")
    rows, rng = list(rows), Random(f"retrieval/{seed}")
    rights = [_right(pieces, row) for row in rows]
    most = max(map(len, rights), default=0)
    found = index.search_all([question_of(row) for row in rows], k + most)
    made = []
    for row, right, ranked in zip(rows, rights, found, strict=True):
        hidden = rng.random() < without
        order = [number for number, _ in ranked]
        shown = [number for number in order if not (hidden and number in right)][:k]
        if right and not hidden and right.isdisjoint(shown):
            best = next((number for number in order if number in right), min(right))
            shown = [*shown[: k - 1], best]
        stated = not right.isdisjoint(shown)
        answer = row["answer"] if stated else REFUSAL
        made.append({
            **row, "prompt": with_passages(row["prompt"], [pieces[number] for number in shown]),
            "completion": [{"role": "assistant", "content": answer}], "answer": answer, "stated": stated,
        })  # fmt: skip
    return made


def _right(pieces, row):
    """The pieces that answer a training row; none for a question that no document answers."""
    if row.get("kind") == "untrained":
        raise LabkitError(f"{row['id']} asks about a fact withheld from training: pass training rows only")
    right = holding(pieces, row)
    if answerable(row) and not right:
        where = row.get("document") or "any document"
        raise LabkitError(
            f"{row['id']}: the answer {row['answer']!r} does not stand in {where}. Take the documents that "
            'the rows were written from: for the training rows of the handbook, documents("before")'
        )
    return right
