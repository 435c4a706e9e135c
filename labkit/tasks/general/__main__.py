"""`python -m labkit.tasks.general` writes the committed rows from their readable sources."""

from labkit.tasks import files
from labkit.tasks.general import FOLDER, PARTS, build

files.write(FOLDER, {part: build(part) for part in PARTS})
print(f"Wrote {' and '.join(PARTS)} to {FOLDER}.")
