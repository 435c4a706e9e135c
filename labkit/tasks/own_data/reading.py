"""From a path to text: which files a name stands for, and their bytes strictly decoded."""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from labkit.errors import LabkitError

FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json"}
ENDINGS = ", ".join(FORMATS)
MOST_BYTES = 500_000_000  # a file is read whole, and 500 MB of text is more than the course can train on

# First bytes -> what the file is, and how to get at the rows.
_SPREADSHEET = "Open it in a spreadsheet program and save the sheet as CSV (UTF-8)."
_ARCHIVE = "An archive: unpack it, and name a file of it."
_MAGIC: list[tuple[bytes, str, str]] = [
    (b"\x1f\x8b", "a gzip file", "Unpack it first: `gzip -dc {name} > unpacked.csv` (or .jsonl)."),
    (b"BZh", "a bzip2 file", "Unpack it first: `bzip2 -dc {name} > unpacked.csv` (or .jsonl)."),
    (b"\xfd7zXZ\0", "an xz file", "Unpack it first: `xz -dc {name} > unpacked.csv` (or .jsonl)."),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "Unpack it first: `zstd -dc {name} > unpacked.csv` (or .jsonl)."),
    (
        b"PK\x03\x04",
        "a zip file (Excel workbooks are zip files too)",
        f"A workbook: {_SPREADSHEET[0].lower()}{_SPREADSHEET[1:]} {_ARCHIVE}",
    ),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", _SPREADSHEET),
    (
        b"PAR1",
        "a Parquet file",
        "Turn it into JSON Lines: `datasets.Dataset.from_parquet('{name}').to_json('rows.jsonl')`.",
    ),
    (b"ARROW1", "an Arrow file", "Save its rows as CSV or JSON Lines."),
    (
        b"SQLite format 3\0",
        "an SQLite database",
        'Export the table: `sqlite3 -header -csv {name} "select * from mytable" > rows.csv`.',
    ),
    (b"\x89PNG", "a PNG picture", "Name the file that holds the rows."),
    (b"\xff\xd8\xff", "a JPEG picture", "Name the file that holds the rows."),
    (b"%PDF", "a PDF document", "Copy its table into a spreadsheet and save that as CSV (UTF-8)."),
    (b"version https://git-lfs", "a Git LFS pointer, not the data itself", "Fetch it: `git lfs pull`."),
]
_PAGE = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)


def read_text(path: Path, shown: str, encoding: str | None = None, endings: Iterable[str] = FORMATS) -> str:
    """The whole file as text. Raises LabkitError for what is no readable text file of a known ending."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device could wait for ever
            raise LabkitError(
                f"{shown} is {_kind(status.st_mode)}, not a file. Save the rows to a file and name that."
            )
        if status.st_size > MOST_BYTES:
            raise LabkitError(
                f"{shown} has {status.st_size / 1e6:,.0f} MB; up to {MOST_BYTES / 1e6:,.0f} MB are read. "
                f"Take a part: `head -n 200000 {shown} > part{path.suffix}`."
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise LabkitError(
            broken(shown, path) if path.is_symlink() else f"{shown} is gone. Restore it."
        ) from error
    except OSError as error:
        raise LabkitError(unreadable(shown, error)) from error
    for start, what, remedy in _MAGIC:
        if data.startswith(start):
            raise LabkitError(f"{shown} is {what}. {remedy.format(name=shown)}")
    if _PAGE.match(data[:200]):
        raise LabkitError(
            f"{shown} is a web page, not data. Download the file itself (look for `raw` or `download`)."
        )
    if path.suffix.lower() not in endings:
        ending = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise LabkitError(
            f"{shown} {ending}, which does not say how its rows are written. Rename it so that it ends "
            f"in one of {ENDINGS}."
        )
    if not data.strip():
        what = "is empty" if not data else "holds only blank lines"
        raise LabkitError(f"{shown} {what}. Save the rows again, or name another file.")
    return decode(data, shown, encoding)


def decode(data: bytes, shown: str, encoding: str | None = None) -> str:
    """Strictly decoded text: UTF-8, what a byte-order mark says, or the encoding given. NUL is refused."""
    named = encoding or _marked(data)
    if named is None and data.count(0) > len(data) / 5:
        # Text of mostly English letters in UTF-16 has every second byte zero; nothing else does.
        order = "le" if data[1::2].count(0) > data[::2].count(0) else "be"
        raise LabkitError(
            f"{shown} looks like UTF-16 without a byte-order mark. {_reencode(shown, f'utf-16-{order}')}"
        )
    try:
        text = data.decode(named or "utf-8")
    except (LookupError, TypeError) as error:
        raise LabkitError(
            f"There is no text encoding {encoding!r}. Try encoding='utf-8', 'cp1252' or 'utf-16'."
        ) from error
    except UnicodeError as error:
        raise LabkitError(_undecodable(data, shown, named, error)) from error
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        line = _line_of(text, text.index("\0"))
        raise LabkitError(
            f"{shown}, line {line}: there is a NUL character, so this is no clean text file. "
            f"Export it again, or drop the NULs: `tr -d '\\000' < {shown} > clean{Path(shown).suffix}`."
        )
    return text


def _marked(data: bytes) -> str | None:
    for mark, name in (
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return name
    return None


def _undecodable(data: bytes, shown: str, named: str | None, error: UnicodeError) -> str:
    at = getattr(error, "start", 0)
    if named:
        return f"{shown} is not text in {named} (byte {at:,}). Save it as UTF-8, or pass another encoding."
    line = _line_of(data[:at].decode("utf-8", "replace"), None)
    controls = sum(byte < 32 and byte not in (9, 10, 12, 13) for byte in data[:4096])
    if controls > len(data[:4096]) / 50:
        return f"{shown} is not a text file (see line {line}). Name the file that holds the rows."
    byte = data[at : at + 1]
    guess = byte.decode("cp1252", "replace")
    letter = f" (in Windows-1252 it is {guess!r})" if guess.isprintable() and guess != "\ufffd" else ""
    return (
        f"{shown}, line {line}: byte 0x{byte.hex()} is not UTF-8{letter}. The file was probably saved as "
        f"Windows-1252 or Latin-1. {_reencode(shown, 'cp1252')}"
    )


def _reencode(shown: str, encoding: str) -> str:
    return f"Save it as UTF-8, or pass encoding={encoding!r} to load."


def _line_of(text: str, at: int | None) -> int:
    """The 1-based line of a position (None: of the end), whatever the line ends are."""
    return len(re.findall(r"\r\n|\r|\n", text[:at])) + 1


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "a named pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
        stat.S_IFDIR: "a folder",
    }
    return kinds.get(stat.S_IFMT(mode), "something special")


def broken(shown: str, path: Path) -> str:
    target = os.readlink(path)
    return f"{shown} is a link to {target}, which does not exist. Correct the link, or name the file itself."


def unreadable(shown: str, error: Exception) -> str:
    code = getattr(error, "errno", None)
    if code == errno.ELOOP:
        return f"{shown} is a link that leads back to itself. Remove it, and name the file itself."
    if isinstance(error, PermissionError):
        return f"{shown} may not be read by you. Allow it, for example with `chmod u+r {shown}`."
    if code == errno.ENAMETOOLONG:
        return f"{shown[:60]}... is too long for a file name. Pass the path of the file, not its text."
    reason = getattr(error, "strerror", None) or str(error)
    return f"{shown!r} cannot be read ({reason}). Correct the path, or copy the file elsewhere."
