"""Classification: which answers there are, what numbers stand for, and the exact-match score."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks import scores
from labkit.tasks.own_data.places import NAMES_FILES
from labkit.tasks.own_data.problems import Problems, nearest, quote
from labkit.tasks.own_data.reading import read_text
from labkit.tasks.scores import Scores

Row = dict[str, Any]
MOST_LABELS = 1000
ROWS_PER_LABEL = 3  # on average at least; fewer, and the answers are rather texts than labels
LONGEST = 60  # characters of a label


def score(texts: list[str], rows: Any, labels: list[str] | None = None) -> Scores:
    """Compare model texts with `answer` of rows: right is what is equal but for white space at both ends.

    `detail` has `any case` (the share that is right if capitals do not matter) and, for classification,
    `valid` (the share of texts that are one of the labels). `labels` are read off a loaded Dataset, or given.
    """
    scores.check_lengths(texts, rows)
    gold = [_gold(row) for row in rows]
    given = [text.strip() for text in texts]
    verdicts = [text == wanted for text, wanted in zip(given, gold, strict=True)]
    detail = {
        "any case": _share(
            [text.casefold() == wanted.casefold() for text, wanted in zip(given, gold, strict=True)]
        )
    }
    allowed = set(noted(rows) if labels is None else labels)
    if allowed:
        detail["valid"] = _share([text in allowed for text in given])
    return scores.tally(texts, verdicts, detail)


def _gold(row: dict[str, Any]) -> str:
    """The right answer of a row: as loaded, or the completion of a plain prompt and completion row."""
    if "answer" in row:
        return row["answer"].strip()
    completion = row.get("completion")
    if not completion:
        raise LabkitError(
            "These rows have no answer to compare with: preferences are judged by preferred replies."
        )
    return (completion if isinstance(completion, str) else completion[-1]["content"]).strip()


def labels(data: Any) -> list[str]:
    """The labels of classification data in a fixed order; [] where answers are free text.

    `data` is what `load` returned, one split of it, or a list of rows.
    """
    parts = list(data.values()) if hasattr(data, "values") else [data]
    for part in parts:
        if found := noted(part):
            return found
    return few([row for part in parts for row in part])


def noted(rows: Any) -> list[str]:
    """The labels that `load` noted in a Dataset; [] where it did not, or for plain rows."""
    try:
        return json.loads(rows.info.description).get("labels", [])
    except (AttributeError, ValueError):
        return []


def few(rows: list[Row]) -> list[str]:
    """The distinct answers, sorted, if they are few and short enough to be labels."""
    counts = Counter(row.get("answer") for row in rows if len(row["prompt"]) <= 2)
    if None in counts or not 2 <= len(counts) <= min(MOST_LABELS, len(rows) / ROWS_PER_LABEL):
        return []
    return sorted(counts) if all(len(text) <= LONGEST and "\n" not in text for text in counts) else []


def names_beside(folder: Path) -> tuple[list[str] | None, str]:
    """The label names in a file such as categories.json in the folder of the data, and that file's name.

    A JSON list of distinct texts, an object from number to text, or a text file with one name a line.
    """
    for name in NAMES_FILES:
        path = folder / name
        if not path.is_file():
            continue
        text = read_text(path, str(path), endings=(".json", ".txt"))
        try:
            names = json.loads(text) if path.suffix == ".json" else text.split("\n")
        except (ValueError, RecursionError) as error:
            raise LabkitError(
                f"{path}, which should name the labels, is not valid JSON ({error}). Correct or remove it, "
                "or pass labels=False."
            ) from None
        if path.suffix == ".txt":
            names = [line for line in names if line.strip()]
        if isinstance(names, dict) and set(names) == {str(number) for number in range(len(names))}:
            names = [names[str(number)] for number in range(len(names))]
        if isinstance(names, list) and names and all(isinstance(one, str) and one.strip() for one in names):
            names = [one.strip() for one in names]
            if len(set(names)) == len(names):
                return names, name
    return None, ""


def check_names(rows: list[Row], names: list[str], origin: str, strict: bool) -> bool:
    """Whether the rows' answers are the names; LabkitError for a few that are not (or any, if strict).

    A list that most answers are not in belongs to something else, and is let be unless strict.
    """
    allowed = set(names)
    strange = [row for row in rows if row["answer"] not in allowed]
    if not strange:
        return True
    if not strict and len(strange) > len(rows) / 2:
        return False
    problems = Problems("")
    for row in strange:
        hint = nearest(row["answer"], names).replace(" Did", " (did").replace("?", "?)")
        what = f"the answer {quote(row['answer'])} is not among the {len(names)} names in {origin}{hint}"
        problems.add(row["id"], what, "Correct the row or the list, or pass labels=False.")
    problems.stop(len(rows))
    return True


def given_names(labels: Any) -> list[str]:
    """The `labels` option checked: a list of distinct texts."""
    good = (
        isinstance(labels, (list, tuple))
        and labels
        and all(isinstance(one, str) and one.strip() for one in labels)
    )
    if not good or len({one.strip() for one in labels}) != len(labels):
        raise LabkitError(
            f"labels={quote(str(labels))}: pass a list of different label names, in the order of their "
            "numbers, or False."
        )
    return [one.strip() for one in labels]


def _share(verdicts: list[bool]) -> float:
    return sum(verdicts) / len(verdicts)
