"""The documents of the handbook: prose around the facts of the table, one page for each subject."""

from __future__ import annotations

from random import Random
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.draw import pick, shuffled
from labkit.tasks.handbook.phrases import TOPICS
from labkit.tasks.handbook.world import Fact, facts, pages

VERSIONS = ["current", "before"]
FILLERS = 6  # sentences without facts on a page
_HEADED = ["page", "faq", "policy", "minutes"]  # styles that print the headings of their parts


def build_documents(version: str = "current") -> list[dict[str, Any]]:
    """Every document: dicts with id, title, topic, subject, style and text.

    `version="before"` gives them as they were when the training questions were written: the facts that
    changed since have their old values, and everything else is the same. Raises LabkitError for another
    version.
    """
    if version not in VERSIONS:
        raise LabkitError(f"The handbook has no version {version!r}: use one of {', '.join(VERSIONS)}.")
    stated: dict[str, list[Fact]] = {}
    for fact in facts():
        stated.setdefault(fact.document, []).append(fact)
    return [_document(page, topic, subject, stated[page], version) for page, topic, subject in pages()]


def _mentions(filler: str) -> bool:
    return any(mark in filler for mark in ("{o}", "{o2}", "{p}", "{t}"))


def _document(page: str, topic_name: str, subject: str, own: list[Fact], version: str) -> dict[str, Any]:
    topic = TOPICS[topic_name]
    rng = Random(f"handbook/document/{page}")
    o, o2 = shuffled(rng, [other for other in topic.subjects if other != subject])[:2]
    others = {
        "s": subject,
        "o": o,
        "o2": o2,
        "p": pick(rng, [name for name in TOPICS["product"].subjects if name != subject]),
        "t": pick(rng, TOPICS["shop"].subjects),
    }
    style, opening = pick(rng, topic.openings)
    parts: dict[str, list[str]] = {attribute.part: [] for attribute in topic.attributes}
    for fact in own:
        value = fact.old if version == "before" and fact.old else fact.value
        parts[fact.attribute.part].append(pick(rng, fact.attribute.sentences).format(x=value, **others))
    fillers = shuffled(rng, topic.fillers)[:FILLERS]
    headings = [heading for heading in parts if parts[heading]]
    for number, heading in enumerate(headings):
        own_fillers = fillers[number :: len(headings)]
        plain = [text for text in own_fillers if not _mentions(text)]
        # Sentences on something else come last, so that an "it" of the facts cannot be taken to mean that.
        aside = [text.format(**others) for text in own_fillers if _mentions(text)]
        parts[heading] = shuffled(rng, parts[heading] + [text.format(**others) for text in plain]) + aside
    parts[headings[-1]].append(pick(rng, topic.closings).format(**others))
    paragraphs = [opening.format(**others)]
    for number, heading in enumerate(headings, start=1):
        head = {"minutes": f"{number}. {heading}\n", "policy": f"{number}. {heading}\n"}.get(
            style, f"{heading}\n"
        )
        paragraphs.append((head if style in _HEADED else "") + " ".join(parts[heading]))
    title = topic.title.format(s=subject)
    return {
        "id": page,
        "title": title[0].upper() + title[1:],
        "topic": topic_name,
        "subject": subject,
        "style": style,
        "text": "\n\n".join(paragraphs),
    }
