"""Course data on disk: gzipped JSON Lines beside checksums of what is inside, read whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError

Row = dict[str, Any]


def dump(rows: list[Row]) -> bytes:
    """Rows as the bytes of a JSON Lines file."""
    lines = (json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in rows)
    return "".join(lines).encode()


def write(folder: Path, parts: dict[str, list[Row]]) -> None:
    """Write each part as `<part>.jsonl.gz`, and checksums.json: SHA-256 of the uncompressed bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = {}
    for part, rows in parts.items():
        data = dump(rows)
        name = f"{part}.jsonl.gz"
        sums[name] = hashlib.sha256(data).hexdigest()
        with (folder / name).open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
            file.write(data)
    (folder / "checksums.json").write_text(json.dumps(sums, indent=1) + "\n")


def read(folder: Path, part: str) -> list[Row]:
    """The rows of one part as `write` got them. Raises LabkitError if a file is missing or damaged."""
    again = f"Take it from the repository, or write it again with `python -m labkit.tasks.{folder.name}`."
    path = folder / f"{part}.jsonl.gz"
    try:
        sums = json.loads((folder / "checksums.json").read_text())
        data = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise LabkitError(f"The data file {error.filename} is missing. {again}") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        message = f"The data file {path} or its checksums cannot be read ({error}). {again}"
        raise LabkitError(message) from error
    found, wanted = hashlib.sha256(data).hexdigest(), sums.get(path.name)
    if found != wanted:
        raise LabkitError(f"The data file {path} has SHA-256 {found[:12]}, not {str(wanted)[:12]}. {again}")
    return [json.loads(line) for line in data.decode().split("\n")[:-1]]


def verify(folder: Path) -> dict[str, int]:
    """The number of rows of each part of a family. Raises LabkitError if one is missing or damaged."""
    try:
        names = json.loads((folder / "checksums.json").read_text())
    except (OSError, ValueError):
        names = {"train.jsonl.gz": ""}  # `read` says what is wrong
    return {name.split(".")[0]: len(read(folder, name.split(".")[0])) for name in names}
