"""Text made from records at build time: lesson budgets, the syllabus, measured tables in READMEs."""

from labkit.errors import LabkitError
from labkit.exercises import find
from labkit.paths import SOLUTIONS
from labkit.records import judge, ledger, schedule, store, teaching
from labkit.records.ledger import measured

# Lessons in order; those without a source yet are listed as in preparation.
SYLLABUS = (
    ("00_start_here", "Your first finetune, in minutes"),
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
# Lessons that stand but whose run on a GPU is still to be recorded; the syllabus says so.
WAITING = ("03_data", "04_full_finetuning", "09_preferences", "10_merging", "13_prompt_rag_or_finetune")

# The same for their run on two CPU cores: their cells changed since it was recorded, or it never was.
WAITING_CPU = ()


def fill(name, lesson):
    """The text for a placeholder `{{name}}` of `lesson`, or for a generated README block (lesson None)."""
    made = {"budget": lambda: budget(lesson), "syllabus": syllabus, "notebooks": lambda: syllabus(links=""),
            "form-json": prompt_table, "families": family_table, "claims": claims_table,
            "memory": memory_table, "train": train_table, "methods": methods_table,
            "workshop": workshop_table,
            "lesson-minutes": lambda: teaching.minutes_table(dict(SYLLABUS)),
            "lesson-costs": lambda: teaching.costs_table(dict(SYLLABUS)),
            "schedules": lambda: schedule.schedules(dict(SYLLABUS))}  # fmt: skip
    if name in made:
        return made[name]()
    kind, _, number = name.partition(":")
    if kind in ("exercise", "hint") and number:
        return exercise_card(number) if kind == "exercise" else exercise_hint(number)
    known = ", ".join([*made, "exercise:ID", "hint:ID"])
    raise LabkitError(f"there is no generated text {name!r}; there are {known}")


def exercise_card(number):
    """Difficulty, minutes and points of an exercise, in one line."""
    found = find(number)
    return f"*Difficulty {found.difficulty} of 5 · {found.minutes} minutes · {found.points} points*"


def exercise_hint(number):
    """An exercise's hint, behind a fold."""
    return f"<details><summary>Hint</summary>\n\n{find(number).hint}\n</details>"


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
    for prompt, tried in sorted(values["prompts tried"].items(), key=lambda pair: pair[1]["valid_share"]):
        shares = f"{tried['valid_share']:.1%} | {tried['exact_share']:.1%}"
        lines.append(f"| prompt: {prompt} | {tried['rows']}, validation | {shares} |")
    seeds = len(whole["scores"]["finetuned.valid"]["rows"])
    tested = {"prompted": f"most valid: {values['best prompt']}",
              "constrained": "the same, constrained decoding",
              "prompted by exact": f"most exact: {values['best prompt by exact match']}",
              "finetuned": f"message only, after LoRA, {seeds} seeds"}  # fmt: skip
    for name, says in tested.items():
        rows = whole["scores"][f"{name}.valid"]["rows"][0].split(":")[0]
        valid, exact = (measured(whole, f"{name}.{kind}")[0] for kind in ("valid", "exact"))
        lines.append(f"| {says} | {int(rows):,}, test | {valid:.1%} | {exact:.1%} |")
    return "\n".join([*lines, "", f"Recorded on {whole['machine']['device']}, {whole['made']}."])


def family_table():
    """First scores of every scored data family, as a markdown table."""
    whole = store.read("families")
    if whole is None:
        return "(not measured yet)"
    head = "| family | best prompt | its score | full finetuning | learning rate |"
    lines = [head, "|---|---|---|---|---|"]
    for name, found in whole["values"].items():
        shares = []
        for how in ("prompted", "full"):
            mean, low, high = measured(whole, f"{name}.{how}")
            shares.append(f"{mean:.1%} [{low:.1%}, {high:.1%}]")
        lines.append(f"| {name} | {found['best prompt']} | {shares[0]} | {shares[1]} | {found['rate']} |")
    made = f"{whole['machine']['device']}, {whole['made']}"
    return "\n".join([*lines, "", f"Brackets: 95% interval, clustered by phrasing. Recorded on {made}."])


def workshop_table():
    """How many learners trained on one card at once, and how much slower, as a markdown table."""
    from labkit.bench import workshop_report

    whole = store.read("workshop")
    made = whole and f"Recorded on {whole['machine']['device']}, {whole['made']}."
    return "\n".join([*workshop_report.lines(), *(["", made] if whole else [])])


def memory_table():
    """How far predictions of memory lie from what a card showed, beside those of others: markdown tables."""
    from labkit.bench import memory_report

    whole = store.read("memory")
    if whole is None:
        return "(not measured yet)"
    made = f"{whole['machine']['device']}, {whole['made']}, PyTorch {whole['versions']['torch']}"
    said = whole["values"]["predicted"]
    file = f"seed {said['seed']}, sha256 {said['sha256'][:16]}"
    return "\n".join([
        *memory_report.tables(whole["values"]), "",
        "An error is (predicted - measured) / measured; too low: the share of settings that take more. Each "
        "engine is asked what it answers: not all know all methods, and two know weights, gradients and "
        f"optimizer states only. The predictions ({file}) were written before anything was measured. "
        f"Recorded on {made}.",
    ])  # fmt: skip


def train_table():
    """How fast `fit` is beside the loops of the field, as markdown tables."""
    from labkit.bench import train_report

    parts = []
    for whole in filter(None, (store.read("train", profile) for profile in ("gpu", "cpu"))):
        made = f"{whole['machine']['device']}, {whole['made']}, PyTorch {whole['versions']['torch']}"
        parts.append("\n".join([*train_report.table(whole["values"]), "", f"Recorded on {made}."]))
    return "\n\n".join(parts) or "(not measured yet)"


def methods_table():
    """Finetuning methods compared on tickets, as a markdown table."""
    from labkit.bench import methods_report

    return methods_report.text()


def claims_table():
    """Every claim of the ledger with its band and the verdict so far: a markdown table for each lesson."""
    titles = {stem[:2]: f"{stem[:2]}: {title}" for stem, title in SYLLABUS}
    by_lesson = {}
    for claim in ledger.ledger():
        by_lesson.setdefault(claim["lesson"][:2], []).append(claim)
    lines = []
    for lesson in sorted(by_lesson):
        lines += [f"## {titles.get(lesson, lesson)}", ""]
        lines += ["| id | claim | reproduced if | so far |", "|---|---|---|---|"]
        for claim in by_lesson[lesson]:
            cells = (claim["id"], claim["claim"], _condition(claim), _so_far(claim))
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _condition(claim):
    bands = "; ".join(f"{band['says']}: {ledger.band_text(band)}" for band in claim["bands"])
    words = claim.get("reproduced_if")
    return f"{words} ({bands})" if words and bands else words or bands


def _so_far(claim):
    if claim["kind"] != "measured":
        return f"**{claim['kind']}**: {claim['shown']}"
    whole = ledger.record_of(claim)
    if whole is None:
        return judge.MISSING
    rows = ledger.judge_all(claim, judge.Recorded(whole))
    if not any(one for _, one, _, _ in rows):
        return judge.MISSING
    found = [f"{ledger.value_text(band, one.mean)} {ledger.interval_text(band, one)}"
             for band, one, _, _ in rows[: len(claim["bands"]) or None] if one]  # fmt: skip
    return f"**{ledger.conclusion(rows)}**: {'; '.join(found)} on {whole['machine']['device']}"


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
