"""Text made from records at build time: lesson budgets, the syllabus, measured tables in READMEs."""

import re

from labkit.errors import LabkitError
from labkit.paths import SOLUTIONS
from labkit.records import store
from labkit.records.claims import measured

# Lessons in order; those without a source yet are listed as in preparation.
SYLLABUS = (
    ("00_start_here", "Your first finetune in three minutes"),
    ("01_memory_math", "Where does the memory go?"),
    ("02_quantization", "Fewer bits per weight"),
    ("03_data", "Dataset engineering"),
    ("04_full_finetuning", "Every weight"),
    ("05_lora", "Low-rank adaptation"),
    ("06_qlora", "Train on a 4-bit base"),
    ("07_adapters", "Houlsby, BitFit, IA³"),
    ("08_soft_prompts", "Train the input"),
    ("09_preferences", "Reward models, DPO, RL"),
    ("10_merging", "Combine models without training"),
    ("13_prompt_rag_or_finetune", "Decide by measurement"),
)


def fill(name, lesson):
    """The text for a placeholder `{{name}}` of `lesson`, or for a generated README block (lesson None)."""
    made = {"budget": lambda: budget(lesson), "syllabus": syllabus, "notebooks": lambda: syllabus(links=""),
            "form-json": prompt_table, "title": lambda: dict(SYLLABUS)[lesson]}  # fmt: skip
    if name not in made:
        raise LabkitError(f"there is no generated text {name!r}; there are {', '.join(made)}")
    return made[name]()


def budget(lesson):
    """What a run of `lesson` cost when it was recorded, on both profiles, in one line."""
    parts = [part for part in (_cost(lesson, "cpu"), _cost(lesson, "gpu")) if part]
    return "; ".join(parts) if parts else "not recorded yet"


def syllabus(links="notebooks/"):
    """The table of lessons with measured times; `links` is the way to the notebooks' folder."""
    lines = ["| lesson | what it is about | two CPU cores | one GPU |", "|---|---|---|---|"]
    for stem, title in SYLLABUS:
        if (SOLUTIONS / f"{stem}.py").exists():
            times = [_cost(stem, profile, short=True) or "not recorded" for profile in ("cpu", "gpu")]
            lines.append(f"| [{stem}]({links}{stem}.ipynb) | {title} | {times[0]} | {times[1]} |")
        else:
            lines.append(f"| {stem} | {title} | in preparation | |")
    found = {_machine(stem, profile) for stem, _ in SYLLABUS for profile in ("cpu", "gpu")}
    machines = sorted(found - {None})
    return "\n".join([*lines, "", f"Times were measured on: {'; '.join(machines) or 'no machine yet'}."])


def prompt_table():
    """Schema-valid and exact answers of every prompt tried, and of finetuning, as a markdown table."""
    whole = store.read("form_json")
    if whole is None:
        return "(not measured yet: `python -m labkit bench form-json`)"
    values = whole["values"]
    lines = ["| what | rows | schema-valid | exact match |", "|---|---|---|---|"]
    for key, valid in values.items():
        if found := re.match("validation valid, (.*)", key):
            exact = values[f"validation exact, {found[1]}"]
            lines.append(f"| prompt: {found[1]} | 500, validation | {valid:.1%} | {exact:.1%} |")
    tested = {"prompted": f"best prompt: {values['best prompt']}",
              "constrained": "the same, constrained decoding", "finetuned": "LoRA, three seeds"}  # fmt: skip
    for name, says in tested.items():
        rows = whole["scores"][f"{name}.valid"]["rows"][0].split(":")[0]
        valid, exact = (measured(whole, f"{name}.{kind}")[0] for kind in ("valid", "exact"))
        lines.append(f"| {says} | {int(rows):,}, test | {valid:.1%} | {exact:.1%} |")
    return "\n".join([*lines, "", f"Recorded on {whole['machine']['device']}, {whole['made']}."])


def _cost(lesson, profile, short=False):
    whole = store.read(lesson, profile)
    if whole is None:
        return None
    time = f"{whole['seconds']:.0f} s" if whole["seconds"] < 120 else f"{whole['seconds'] / 60:.1f} minutes"
    if short:
        return time
    return f"{time} and {whole['peak_bytes'] / 1e9:.1f} GB on {_machine(lesson, profile)}"


def _machine(lesson, profile):
    whole = store.read(lesson, profile)
    return whole and f"{whole['machine']['device']}"
