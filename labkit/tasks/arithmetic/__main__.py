"""Write the committed rows again: `python -m labkit.tasks.arithmetic`."""

from labkit.tasks.arithmetic import FOLDER, SPLITS, write

if __name__ == "__main__":
    write()
    print(f"Wrote {', '.join(SPLITS)} to {FOLDER}.")
