"""The phrase data of the handbook, read into topics and their attributes.

Lines of the data, by how they begin: `= topic`; `title:`, `subjects:`, `unknown train:` and `unknown test:`
(subjects of which the handbook has no page), `open <style>:`, `fill:` and `close:` (sentences without
facts); `# heading` of a part of the page; `@ key kind ...` an attribute; then its sentences (`-`) and its
questions for training (`t`), validation (`v`) and test (`e`). `{s}` is the subject, `{x}` the value, `{o}`
and `{o2}` other subjects, `{p}` a product, `{t}` a shop.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from labkit.tasks.handbook.phrases_goods import HIRE, PRODUCT, REPAIR, RETURNS
from labkit.tasks.handbook.phrases_people import COURSE, SUPPLIER, TEAM
from labkit.tasks.handbook.phrases_places import EVENT, SHOP, ZONE


@dataclass
class Attribute:
    """Something that every page of a topic may state: how it is written and how it is asked for."""

    key: str
    kind: str
    rest: list[str]  # what the kind needs: a range, a unit, the name of a pool
    part: str  # the heading it stands under
    sentences: list[str] = field(default_factory=list)
    questions: dict[str, list[str]] = field(
        default_factory=lambda: {"train": [], "validation": [], "test": []}
    )


@dataclass
class Topic:
    """A sort of page: shops, products, teams and so on."""

    name: str
    title: str = ""
    subjects: list[str] = field(default_factory=list)
    ranges: dict[str, list[str]] = field(default_factory=dict)  # of a subject, where they are its own
    unknown: dict[str, list[str]] = field(default_factory=dict)  # subjects without a page, by split
    openings: list[tuple[str, str]] = field(default_factory=list)  # style, sentences
    fillers: list[str] = field(default_factory=list)
    closings: list[str] = field(default_factory=list)
    attributes: list[Attribute] = field(default_factory=list)


def read_topic(text: str) -> Topic:
    """A topic from its lines of phrase data."""
    lines = text.strip().splitlines()
    topic, part = Topic(lines[0].removeprefix("= ")), ""
    splits = {"t": "train", "v": "validation", "e": "test"}
    for line in lines[1:]:
        mark, _, rest = line.partition(" ")
        name, colon, content = line.partition(": ")
        if mark == "#":
            part = rest
        elif mark == "@":
            key, kind, *more = rest.split()
            topic.attributes.append(Attribute(key, kind, more, part))
        elif mark == "-":
            topic.attributes[-1].sentences.append(rest)
        elif mark in splits:
            topic.attributes[-1].questions[splits[mark]].append(rest)
        elif name == "title":
            topic.title = content
        elif name == "subjects":
            for entry in content.split("; "):
                subject, *ranges = entry.split(", ")
                topic.subjects.append(subject)
                topic.ranges[subject] = ranges
        elif name.startswith("unknown "):
            topic.unknown[name.split()[1]] = content.split("; ")
        elif name.startswith("open "):
            topic.openings.append((name.split()[1], content))
        elif name in ("fill", "close"):
            (topic.fillers if name == "fill" else topic.closings).append(content)
        else:
            raise ValueError(f"unreadable line of phrase data: {line}")
    return topic


TOPICS = {
    topic.name: topic
    for topic in map(read_topic, (SHOP, ZONE, EVENT, PRODUCT, HIRE, REPAIR, RETURNS, TEAM, SUPPLIER, COURSE))
}
