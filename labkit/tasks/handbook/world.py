"""The facts of the handbook, one fixed table of (subject, attribute, value), and its gaps.

Every fact has a kind, decided by a digest of its id: `trained` (training asks about it), `changed`
(training teaches an old value), `untrained` (only the documents state it). A gap is a pair of subject and
attribute that the documents say nothing about: kind `absent`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from labkit.tasks.draw import digest
from labkit.tasks.handbook.phrases import TOPICS, Attribute
from labkit.tasks.handbook.values import Supply, extensions, people, possible

REFUSAL = "The handbook does not say."
KINDS = ["trained", "changed", "untrained", "absent"]
TRAINED, CHANGED = 55, 13  # percent of the facts; the rest is untrained
# Which share (percent) of the omitted attributes a split asks about, and how many attributes of each subject
# without a page.
OMITTED = {"train": 35, "validation": 10, "test": 55}
UNKNOWN = {"train": 2, "validation": 6, "test": 3}


@dataclass(frozen=True)
class Fact:
    """One thing a question can ask for. Of a gap, `value` is the refusal and `document` is empty."""

    id: str
    topic: str
    subject: str
    key: str
    value: str
    old: str  # the value before the change; "" if it never changed
    kind: str
    document: str

    @property
    def attribute(self) -> Attribute:
        return next(a for a in TOPICS[self.topic].attributes if a.key == self.key)


def fact_id(topic: str, subject: str, key: str) -> str:
    """The id of a pair of subject and attribute, whether the handbook has it or not."""
    return f"{topic}/{subject.lower().replace(' ', '-')}/{key}"


def pages() -> list[tuple[str, str, str]]:
    """(document id, topic, subject) of every document."""
    both = [(topic.name, subject) for topic in TOPICS.values() for subject in topic.subjects]
    return [(f"doc-{number:03d}", *pair) for number, pair in enumerate(both, start=1)]


def omitted(topic: str, subject: str) -> list[str]:
    """The one or two attributes that the page of this subject leaves out."""
    keys = sorted(
        (a.key for a in TOPICS[topic].attributes),
        key=lambda key: digest("omitted/" + fact_id(topic, subject, key)),
    )
    return keys[: 1 + digest(f"omitted/{topic}/{subject}") % 2]


@cache
def facts() -> list[Fact]:
    """Every fact that the current documents state."""
    staff, lines = Supply("people", people()), Supply("extensions", extensions())
    supplies: dict[str, Supply] = {}
    used: dict[str, set[str]] = {page: set() for page, _, _ in pages()}  # a value occurs once in a document
    table = []
    for topic in TOPICS.values():
        for attribute in topic.attributes:
            for page, _, subject in [entry for entry in pages() if entry[1] == topic.name]:
                if attribute.key in omitted(topic.name, subject):
                    continue
                name = f"{topic.name}/{attribute.key}" + (f"/{subject}" if attribute.kind == "own" else "")
                supply = {"person": staff, "ext": lines}.get(attribute.kind) or supplies.get(name)
                if supply is None:
                    values = possible(attribute.kind, attribute.rest, topic.ranges[subject])
                    supply = supplies[name] = Supply(name, values)
                own_id = fact_id(topic.name, subject, attribute.key)
                mark = digest("kind/" + own_id) % 100
                kind = "trained" if mark < TRAINED else "changed" if mark < TRAINED + CHANGED else "untrained"
                value = supply.take(used[page])
                used[page].add(value)
                old = supply.take(used[page]) if kind == "changed" else ""
                used[page].add(old)
                table.append(Fact(own_id, topic.name, subject, attribute.key, value, old, kind, page))
    return table


@cache
def gaps(split: str) -> list[Fact]:
    """What a split asks although the handbook does not say it; no other split asks the same."""
    pairs = []
    for topic in TOPICS.values():
        for subject in topic.subjects:
            pairs += [
                (topic.name, subject, key)
                for key in omitted(topic.name, subject)
                if _share_of(fact_id(topic.name, subject, key)) == split
            ]
        keys = [attribute.key for attribute in topic.attributes]
        for subject in topic.unknown["test" if split == "test" else "train"]:
            ordered = sorted(keys, key=lambda key: digest("unknown/" + fact_id(topic.name, subject, key)))
            # Validation asks about the same unknown subjects as training, but for other attributes.
            start = UNKNOWN["train"] if split == "validation" else 0
            pairs += [(topic.name, subject, key) for key in ordered[start : start + UNKNOWN[split]]]
    return [Fact(fact_id(*pair), *pair, REFUSAL, "", "absent", "") for pair in pairs]


def _share_of(gap: str) -> str:
    mark = digest("gap/" + gap) % 100
    return "train" if mark < OMITTED["train"] else "validation" if mark < 100 - OMITTED["test"] else "test"
