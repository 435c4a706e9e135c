"""Where things lie in the course folder."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
MEASUREMENTS = DATA / "measurements"
SOLUTIONS = ROOT / "solutions"
NOTEBOOKS = ROOT / "notebooks"
REQUIREMENTS = ROOT / "requirements.txt"
