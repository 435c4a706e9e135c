"""`python -m labkit.tasks.tickets` writes the committed files of the family again, byte for byte."""

from labkit.tasks.files import write
from labkit.tasks.tickets import FOLDER, SPLITS, build

if __name__ == "__main__":
    write(FOLDER, {split: build(split, n) for split, n in SPLITS.items()})
    print(f"Wrote {', '.join(SPLITS)} to {FOLDER}.")
