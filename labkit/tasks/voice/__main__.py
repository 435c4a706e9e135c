"""`python -m labkit.tasks.voice` writes the committed files of the family again, byte for byte."""

from labkit.tasks.files import write
from labkit.tasks.voice import FOLDER, PAIR_SPLITS, SPLITS, build, build_pairs

if __name__ == "__main__":
    parts = {split: build(split, n) for split, n in SPLITS.items()}
    parts |= {f"pairs_{split}": build_pairs(split, n) for split, n in PAIR_SPLITS.items()}
    write(FOLDER, parts)
    print(f"Wrote {', '.join(parts)} to {FOLDER}.")
