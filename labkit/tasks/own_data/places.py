"""What a name stands for: a file, a folder with files for the splits, or a dataset on the hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from labkit.errors import LabkitError
from labkit.tasks.own_data.problems import listed, nearest
from labkit.tasks.own_data.reading import ENDINGS, FORMATS, broken, unreadable

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

# A list of label names beside the data, by which numbers in the answer column are named.
NAMES_FILES = tuple(
    f"{stem}{end}" for stem in ("categories", "labels", "label_names", "classes") for end in (".json", ".txt")
)

# How the stem of a file (or a split on the hub) says which split it is.
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
}
SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}


def locate(name: str | os.PathLike[str]) -> Path | str:
    """The file or folder that a learner named, or the name itself if it is one for the hub.

    Raises LabkitError for what is neither, with the nearest names.
    """
    if not isinstance(name, (str, os.PathLike)) or not os.fspath(name) or isinstance(os.fspath(name), bytes):
        raise LabkitError(f"load takes the path of a file or folder as text, not {name!r}.")
    shown = os.fspath(name)
    try:
        path = Path(name).expanduser()
        path.stat()
        return path
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise LabkitError(broken(shown, path)) from None
    # ValueError: a NUL in the name; RuntimeError: a home folder of nobody
    except (OSError, ValueError, RuntimeError) as error:
        raise LabkitError(unreadable(shown, error)) from error
    local = path.suffix.lower() in FORMATS or shown.startswith((".", "/", "~")) or path.parent.is_dir()
    if HUB_NAME.fullmatch(shown) and not local:
        return shown
    raise LabkitError(_missing(shown, path))


def _missing(shown: str, path: Path) -> str:
    from labkit.tasks import FAMILIES

    here = path.parent
    if not here.is_dir():
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        return f"There is no file {shown}: there is no folder {here}{where}. Correct the path."
    try:
        beside = sorted(entry.name for entry in here.iterdir() if not entry.name.startswith("."))
    except OSError:
        beside = []
    place = "here" if here == Path(".") else f"in {here}"
    if path.name == shown and path.suffix.lower() not in FORMATS:
        hint = nearest(shown, [*FAMILIES, *beside])
        return (
            f"There is no data family {shown!r}, and no file or folder of that name {place} ({Path.cwd()})."
            f"{hint} Known: {', '.join(FAMILIES)}. Your own data: give the path "
            f"of a file ({ENDINGS}) or folder."
        )
    hint = nearest(path.name, beside)
    data = [entry for entry in beside if Path(entry).suffix.lower() in FORMATS]
    found = f" Data files {place}: {listed(data, 8)}." if data and not hint else ""
    where = f" (looked in {Path.cwd()})" if not path.is_absolute() else ""
    return f"There is no file or folder {shown}{where}.{hint}{found} Correct the path."


def files_in(folder: Path, shown: str) -> dict[str, list[Path]]:
    """The data files of a folder by split; {"train": [...]} where no name says more.

    Raises LabkitError for a folder without data, with two files for a split, or without training rows.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise LabkitError(unreadable(shown, error)) from error
    data = [
        entry
        for entry in entries
        if entry.suffix.lower() in FORMATS and entry.name.lower() not in NAMES_FILES
    ]
    by_split: dict[str, list[Path]] = {}
    for entry in data:
        split = SPLIT_OF.get(entry.stem.lower())
        if split:
            by_split.setdefault(split, []).append(entry)
    if not data:
        raise LabkitError(_nothing_in(shown, entries))
    if not by_split:
        rows = [entry for entry in data if entry.suffix.lower() != ".json"]  # a .json is often no data at all
        return {"train": rows or data}
    for split, paths in by_split.items():
        if len(paths) > 1:
            names = listed(path.name for path in paths)
            raise LabkitError(
                f"The folder {shown} has {len(paths)} files for {split}: {names}. Leave one, "
                "or name a single file."
            )
    if "train" not in by_split:
        names = listed(path.name for path in data)
        raise LabkitError(
            f"The folder {shown} has no training rows, only {names}. Name the file with the training "
            "rows train.csv (or .tsv, .jsonl, .json), or load a single file."
        )
    return by_split


def _nothing_in(shown: str, entries: list[Path]) -> str:
    wanted = f"Put a file there that ends in {ENDINGS}, or name another folder."
    if not entries:
        return f"The folder {shown} is empty. {wanted}"
    folders = [
        entry.name
        for entry in entries
        if entry.is_dir() and any(one.suffix.lower() in FORMATS for one in entry.iterdir())
    ]
    if folders:
        inside = os.path.join(shown, folders[0])
        return f"The folder {shown} has no data files, but its folder {folders[0]} has: name {inside}."
    return (
        f"The folder {shown} has no data files, only {listed((entry.name for entry in entries), 5)}. {wanted}"
    )
