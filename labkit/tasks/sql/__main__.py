"""`python -m labkit.tasks.sql` writes data/sql; with --check it builds everything and only compares."""

from __future__ import annotations

import hashlib
import json
import sys

from labkit.tasks import files
from labkit.tasks.sql import FOLDER, SPLITS, parts, write


def main(arguments: list[str]) -> int:
    """Write the files, or compare them: 0 if all is well."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m labkit.tasks.sql [--check]")
        return 2
    if not arguments:
        write()
        print(f"Wrote store, {', '.join(SPLITS)} to {FOLDER}.")
        return 0
    sums = json.loads((FOLDER / "checksums.json").read_text())
    built = {
        f"{part}.jsonl.gz": hashlib.sha256(files.dump(rows)).hexdigest() for part, rows in parts().items()
    }
    different = [name for name in built if built[name] != sums.get(name)]
    print("Different: " + ", ".join(different) if different else f"All {len(built)} files are as built.")
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
