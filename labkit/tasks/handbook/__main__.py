"""`python -m labkit.tasks.handbook` writes the committed files again."""

from __future__ import annotations

from labkit.tasks import files
from labkit.tasks.handbook import FOLDER, SPLITS, build, build_documents

if __name__ == "__main__":
    parts = {split: build(split, n) for split, n in SPLITS.items()}
    parts |= {"documents": build_documents(), "documents_before": build_documents("before")}
    files.write(FOLDER, parts)
    print(f"Wrote {', '.join(f'{part} ({len(rows)})' for part, rows in parts.items())} to {FOLDER}.")
