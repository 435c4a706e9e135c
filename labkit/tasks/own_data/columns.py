"""Which column is what: as the learner says, else by well-known names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.own_data.places import SPLIT_OF
from labkit.tasks.own_data.problems import listed, nearest, quote
from labkit.tasks.own_data.records import Source

# Column names that say what they hold, whatever their case.
PROMPTS = ("prompt", "question", "instruction", "text", "message", "input", "query", "sentence")
ANSWERS = ("completion", "answer", "response", "output", "label", "category", "target", "intent")
CHATS = ("messages", "conversations", "conversation")
KNOWN = {*PROMPTS, *ANSWERS, *CHATS, "chosen", "rejected"}


@dataclass(frozen=True)
class Mapping:
    """The columns of one source by what they are; either answer, chosen and rejected, or chat is given."""

    prompt: tuple[str, ...] = ()  # joined by a blank line; those empty in a row are left out
    answer: str = ""
    chosen: str = ""
    rejected: str = ""
    chat: str = ""
    system: str = ""  # a column
    sentence: str = ""  # or the same system sentence for every row


def choose(
    source: Source,
    *,
    prompt: Any = None,
    answer: str | None = None,
    chosen: str | None = None,
    rejected: str | None = None,
    messages: str | None = None,
    system: str | None = None,
) -> Mapping:
    """The mapping by the options given, else by well-known names. LabkitError if that is not clear."""
    columns = source.columns
    asked = [_named(name, source) for name in as_list(prompt)]
    answer, chosen, rejected, messages = (
        name and _named(name, source) for name in (answer, chosen, rejected, messages)
    )
    if not isinstance(system, (str, type(None))):
        raise LabkitError(f"system={system!r}: pass a sentence, or the name of a column.")
    about: dict[str, str] = {}
    if system:
        about = {"system": system} if system in columns else {"sentence": system}
    pair, single = bool(chosen or rejected), bool(answer)
    if sum([pair, single, bool(messages)]) > 1:
        raise LabkitError(
            "Pass either answer=..., or chosen=... and rejected=..., or messages=...: they are three "
            "forms of data."
        )
    if messages:
        return Mapping(chat=messages, **about)
    find = {name.strip().casefold(): name for name in reversed(columns)}
    taken = {*asked, answer, chosen, rejected}
    prompts = asked or [name for name in columns if name.strip().casefold() in PROMPTS and name not in taken]
    answers = (
        [answer]
        if answer
        else [name for name in columns if name.strip().casefold() in ANSWERS and name not in taken]
    )
    chosen, rejected = chosen or find.get("chosen", ""), rejected or find.get("rejected", "")
    chats = [find[name] for name in CHATS if name in find]
    prompts, answers = _native(source, prompts, answers)
    lower = [name.strip().casefold() for name in prompts]
    if not asked and sorted(lower) == ["input", "instruction"]:
        prompts = sorted(prompts, key=lambda name: name.strip().casefold(), reverse=True)
        asked = prompts  # instruction, with its input below: clear enough

    ways = []
    if not single and chosen and rejected:
        ways.append("preferences")
    if not pair and answers and prompts:
        ways.append("pairs")
    if not pair and not single and not asked and chats:
        ways.append("chat")
    if len(ways) > 1:
        raise LabkitError(_several(source, ways, prompts, answers, chats))
    if ways == ["chat"]:
        if len(chats) > 1:
            raise LabkitError(_unclear(source, "the chat", chats, "messages"))
        return Mapping(chat=chats[0], **about)
    if ways == ["preferences"]:
        if len(prompts) > 1 and not asked:
            raise LabkitError(_unclear(source, "the prompt", prompts, "prompt"))
        if not prompts and not isinstance(source.records[0].values.get(chosen), list):
            raise LabkitError(
                f"{source.shown}: there is a chosen and a rejected answer, and no column is clearly the "
                f"prompt. Its columns: {listed(columns)}. Say which: load(..., prompt='...')."
            )
        return Mapping(prompt=tuple(prompts), chosen=chosen, rejected=rejected, **about)
    if pair:
        missing = "rejected" if chosen else "chosen"
        raise LabkitError(
            f"{source.shown}: preferences need a chosen and a rejected answer, and there is no column "
            f"for {missing}. Its columns: {listed(columns)}. Pass {missing}='...' too."
        )
    if not prompts or not answers:
        raise LabkitError(_nothing(source, prompts, answers))
    if len(prompts) > 1 and not asked:
        raise LabkitError(_unclear(source, "the prompt", prompts, "prompt"))
    if len(answers) > 1:
        raise LabkitError(_unclear(source, "the answer", answers, "answer"))
    if answers[0] in prompts:
        raise LabkitError(
            f"{source.shown}: column {quote(answers[0])} cannot be both prompt and answer. Its columns: "
            f"{listed(columns)}. Name two of them."
        )
    return Mapping(prompt=tuple(prompts), answer=answers[0], **about)


def as_list(option: Any) -> list[Any]:
    """An option that may be one name or several, or nothing, as a list."""
    if option is None or option == "":
        return []
    return list(option) if isinstance(option, (list, tuple)) else [option]


def _named(name: str, source: Source) -> str:
    """The column that an option names, in whatever case."""
    if name in source.columns:
        return name
    same = [column for column in source.columns if column.casefold() == str(name).strip().casefold()]
    if len(same) == 1:
        return same[0]
    raise LabkitError(
        f"{source.shown} has no column {name!r}.{nearest(str(name), source.columns)} Its columns: "
        f"{listed(source.columns)}."
    )


def _native(source: Source, prompts: list[str], answers: list[str]) -> tuple[list[str], list[str]]:
    """trl's own columns win over others beside them, as in rows that labkit or trl saved."""
    values = source.records[0].values
    if isinstance(values.get("prompt"), list) and isinstance(values.get("completion"), list):
        return (["prompt"] if "prompt" in prompts else prompts), (
            ["completion"] if "completion" in answers else answers
        )
    if isinstance(values.get("prompt"), list) and "chosen" in values and "prompt" in prompts:
        return ["prompt"], []
    return prompts, answers


def _several(
    source: Source, ways: list[str], prompts: list[str], answers: list[str], chats: list[str]
) -> str:
    how = {
        "pairs": f"prompt={(prompts or [''])[0]!r}, answer={(answers or [''])[0]!r}",
        "preferences": "chosen='chosen', rejected='rejected'",
        "chat": f"messages={(chats or [''])[0]!r}",
    }
    choices = ", or ".join(f"load(..., {how[way]})" for way in ways)
    return f"{source.shown} can be read as {' and as '.join(ways)}. Say which: {choices}."


def _unclear(source: Source, what: str, names: list[str], option: str) -> str:
    return (
        f"{source.shown}: {len(names)} columns could be {what}: {listed(names)}. Say which: "
        f"load(..., {option}={names[0]!r})."
    )


def _nothing(source: Source, prompts: list[str], answers: list[str]) -> str:
    both = not prompts and not answers
    what = "the prompt or the answer" if both else "the answer" if prompts else "the prompt"
    names = source.columns or ["text"]
    first = prompts[0] if prompts else next((name for name in names if name not in answers), names[0])
    second = answers[0] if answers else next((name for name in names if name not in (first, *prompts)), "...")
    text = f"{source.shown}: no column is clearly {what}. Its columns: {listed(source.columns)}. "
    if source.table and both:
        text += "If this first line is a row already, put a line with column names above it. Otherwise say "
    else:
        text += "Say "
    text += f"which is which: load(..., prompt={first!r}, answer={second!r})."
    if SPLIT_OF.get(Path(source.shown).stem.lower(), "train") != "train" and not both:
        text += " A file to score on needs answers too: without them, move it out of the folder."
    return text
