"""Documents cut into overlapping pieces at sentence ends; a folder of text files as documents.

A document is a dict with id, title and text. A piece is a dict with document (the id), title and text.
"""

import re
from pathlib import Path

from labkit.errors import LabkitError

ENDINGS = (".txt", ".md")
# A sentence ends before white space at . ! or ?, unless a small letter goes on, or a line begins "2. "; and
# where a list item or, after a blank line, a paragraph begins.
_END = re.compile(
    r"(?<=[.!?])(?<!^\d\.)(?<!^\d\d\.)\s+(?![a-z\s])|\n(?=[ \t]*[-*+|] )|\n\s*\n\s*", re.MULTILINE
)


def split(documents, size=80, overlap=20):
    """Pieces of about `size` words, in order; neighbours share up to `overlap` words of whole sentences.

    A piece takes as many sentences as fit; a longer sentence is cut between words. A piece of a document does
    not always name its subject, so each carries the document's title: index `text_of(piece)`. Raises
    LabkitError unless 0 <= overlap < size, and without documents.
    """
    if not 0 <= overlap < size:
        raise LabkitError(f"pieces of {size} words cannot share {overlap}: give 0 <= overlap < size")
    if not documents:
        raise LabkitError("there are no documents to split: give dicts with id, title and text")
    return [
        {"document": one["id"], "title": one.get("title", ""), "text": text}
        for one in documents
        for text in _windows(one["text"], size, overlap)
    ]


def text_of(piece):
    """A piece or document as text: its title, if it has one, on a line of its own before the rest."""
    return f"{piece['title']}\n{piece['text']}" if piece.get("title") else piece["text"]


def sentences(text):
    """The sentences of a text, white space at their ends removed; a heading goes with what follows it."""
    return [text[start:end] for start, end in _spans(text)]


def read_folder(path, encoding=None):
    """The .txt and .md files under a folder as documents, sorted by path; hidden ones are left out.

    id is the path inside the folder. title is the first Markdown heading of a .md file, else the file's name.
    Raises LabkitError that names the file and what to do: no folder, no such files, an empty file, bytes that
    are no text (`encoding`, if it is not UTF-8).
    """
    from labkit.tasks.own_data.reading import read_text

    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise LabkitError(f"{path} {what}. Name a folder with the documents, {' or '.join(ENDINGS)} files")
    inside = [(file.relative_to(folder), file) for file in sorted(folder.rglob("*"))]
    files = [
        (name, file)
        for name, file in inside
        if file.suffix.lower() in ENDINGS and not any(part.startswith(".") for part in name.parts)
    ]
    if not files:
        raise LabkitError(
            f"{path} holds no {' or '.join(ENDINGS)} file. Save each document as plain text with that ending"
        )
    found = []
    for name, file in files:
        text = read_text(file, str(file), encoding, ENDINGS).strip()
        found.append({"id": name.as_posix(), "title": _title(file, text), "text": text})
    return found


def _title(file, text):
    heading = re.search(r"^#+[ \t]+(\S.*)", text, re.MULTILINE) if file.suffix.lower() == ".md" else None
    return heading[1].strip(" \t#") if heading else re.sub(r"[-_\s]+", " ", file.stem).strip()


def _spans(text):
    """(start, end) of each sentence."""
    borders = [(0, 0), *(end.span() for end in _END.finditer(text)), (len(text), len(text))]
    spans, begun = [], None
    for (_, start), (end, _) in zip(borders, borders[1:], strict=False):
        own = text[start:end]
        if not own.strip():
            continue
        begun = start + len(own) - len(own.lstrip()) if begun is None else begun
        if own.lstrip().startswith("#") and "\n" not in own.strip() and end < len(text):
            continue  # a heading with a blank line after it
        spans.append((begun, end - len(own) + len(own.rstrip())))
        begun = None
    if begun is not None:
        spans.append((begun, len(text.rstrip())))
    return spans


def _windows(text, size, overlap):
    """The texts of the pieces of one text."""
    spans = [part for span in _spans(text) for part in _shortened(text, span, size)]
    lengths = [len(text[start:end].split()) for start, end in spans]
    first = 0
    while first < len(spans):
        last, total = first + 1, lengths[first]
        while last < len(spans) and total + lengths[last] <= size:
            total += lengths[last]
            last += 1
        yield text[spans[first][0] : spans[last - 1][1]]
        if last == len(spans):
            return
        # What is shared must leave room for a new sentence, or the next piece would say nothing new.
        room, first, shared = min(overlap, size - lengths[last]), last, 0
        while shared + lengths[first - 1] <= room:
            first -= 1
            shared += lengths[first]


def _shortened(text, span, size):
    """A span of at most `size` words as it is; a longer one cut between words."""
    places = [match.span() for match in re.compile(r"\S+").finditer(text, *span)]
    groups = [places[start : start + size] for start in range(0, len(places), size)]
    return [(group[0][0], group[-1][1]) for group in groups]
