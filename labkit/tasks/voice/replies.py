"""Writes a reply that breaks exactly the rules it is told to break, and checks it with those rules."""

from __future__ import annotations

import re
from functools import lru_cache
from random import Random

from labkit.tasks.draw import pick, shuffled
from labkit.tasks.tickets.grammar import UNITS
from labkit.tasks.voice import parts as p
from labkit.tasks.voice.matters import MATTERS
from labkit.tasks.voice.rules import MAX_WORDS, RULES, is_reply
from labkit.tasks.voice.texts import words

SHORTEST, LONGEST = (
    25,
    72,
)  # words of a reply: of any but one too short on purpose, and of one too long on purpose
TRIES = 14  # how often a plan is written anew before it is given up
# What a very short reply has room to break besides being short.
SHORT_RULES = {
    "not_too_short",
    "greeting",
    "acknowledgement",
    "topic",
    "offer",
    "signature",
    "says_we",
    "no_exclamation",
    "no_capitals",
    "sentences",
    "next_step",
}
_INSERTS = {
    "no_dates": p.DATES,
    "no_promises": p.PROMISES,
    "no_blame": p.BLAME,
    "no_regrets": p.REGRETS,
    "no_orders": p.ORDERS,
    "no_hype": p.HYPE,
}


def feasible(breaks: set[str]) -> set[str]:
    """A plan without what cannot be done at once: a short reply is not long and has no room for more
    sentences."""
    return breaks & SHORT_RULES if "not_too_short" in breaks else breaks


def write_reply(rng: Random, message: str, product: str, phrasing: str, breaks: set[str]) -> str | None:
    """A reply to a message that breaks exactly `breaks`, or None if none of TRIES came out so."""
    for _ in range(TRIES):
        text = _Clerk(rng, product, phrasing, breaks).reply()
        if text is None:
            continue
        n = len(words(text))
        if n > LONGEST or (n < SHORTEST and "not_too_short" not in breaks):
            continue
        if _breaks_exactly(message, text, breaks):
            return text
    return None


# The rules that a draft breaks by accident come first, which makes the check quick.
_OFTEN = ["not_too_long", "short_sentences", "next_step", "no_capitals", "full_words", "offer", "topic"]
_ORDER = [*_OFTEN, *(name for name in RULES if name not in _OFTEN)]


def _breaks_exactly(message: str, text: str, breaks: set[str]) -> bool:
    return all(RULES[name](message, text) == (name not in breaks) for name in _ORDER) and is_reply(
        message, text
    )


def fill(template: str, forms: dict[str, str]) -> str:
    """A template with its slots filled and its sentences begun with capitals."""
    text = re.sub(r"{(\w+)}", lambda m: forms[m[1]], template)
    return re.sub(r"(^|[.?!] )([a-z])", lambda m: m[1] + m[2].upper(), text)


@lru_cache(100_000)
def _part(template: str, name: str, unit: str) -> str:
    return fill(template, forms_of(name, unit))


def forms_of(name: str, unit: str) -> dict[str, str]:
    """What the slots of a template become for a product name that is plural if it has a unit."""
    many = bool(unit)
    article = f"a {unit} of" if unit else "an" if name[0] in "AEIOUaeiou" else "a"
    pairs = {
        "is": "is/are",
        "has": "has/have",
        "does": "does/do",
        "was": "was/were",
        "it": "it/them",
        "they": "it/they",
        "its": "its/their",
        "this": "this/these",
        "s": "s/",
        "es": "es/",
        "ies": "ies/y",
    }
    return {
        "p": name,
        "my": f"my {name}",
        "your": f"your {name}",
        "the": f"the {name}",
        "a": f"{article} {name}",
        **{slot: both.split("/")[many] for slot, both in pairs.items()},
    }


def _count(parts: list[str]) -> int:
    return sum(part.count(" ") + 1 for part in parts)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


class _Clerk:
    """Writes one reply; each method that spoils something looks into `breaks` first."""

    def __init__(self, rng: Random, product: str, phrasing: str, breaks: set[str]) -> None:
        self.rng, self.breaks = rng, breaks
        matter = MATTERS[phrasing.rpartition("-")[0]]
        self.topic, self.facts, self.steps = (
            matter.topic,
            *(matter.fitting(pool, phrasing) for pool in (matter.facts, matter.steps)),
        )
        name, unit = product, UNITS[product]
        if "product" in breaks:
            kind = re.sub(r"^\w+( \d+)? ", "", product)
            name, unit = pick(rng, [(kind, unit), (kind, unit), ("item", ""), ("order", "")])
        self.name, self.unit = name, unit

    def draw(self, pool: list[str]) -> str:
        return _part(pick(self.rng, pool), self.name, self.unit)

    def own(self, pools: dict[str, list[str]]) -> str:
        """A part on this topic, or one for any topic where that fits."""
        mine = pools.get(self.topic, pools["any"])
        return self.draw(pools["any"] if self.topic != "thanks" and self.rng.random() < 0.4 else mine)

    def reply(self) -> str | None:
        """One attempt; None if it has grown too long on the way."""
        short = "not_too_short" in self.breaks
        start, end = self.opening(short), self.closing(short)
        around = (
            start.count(" ") + sum(part.count(" ") for part in end) + 4
        )  # words, with those of the sign-off
        body = self.short_body() if short else self.body(around)
        if "not_too_long" not in self.breaks and around + _count(body) > MAX_WORDS + 2:
            return None
        body = self.repeated(body)
        said = [start, *body, *end]
        if "offer" in self.breaks and end and not short:
            if self.rng.random() < 0.6 or len(body) < 2:
                said.insert(1 + int(self.rng.random() * len(body)), self.draw(p.SECOND_OFFERS))
            else:
                said = [start, *body[:-1], *end, body[-1]]
        said = self.joined(said)
        said = self.marked(said)
        text = self.spelt(self.listed(said))
        return text + self.sign()

    # -- the parts

    def opening(self, short: bool) -> str:
        greeting = pick(self.rng, p.NO_GREETING if "greeting" in self.breaks else p.GREETINGS)
        if "acknowledgement" in self.breaks:
            pool = p.SHORT_NO_ACKNOWLEDGE if short else p.NO_ACKNOWLEDGE
        elif short:
            pool = p.SHORT_SORRY if self.topic == "complaint" else p.SHORT_ACKNOWLEDGE
        else:
            pool = p.ACKNOWLEDGE[self.topic]
        said = _lower(self.draw(pool))
        return f"{greeting} {said}" if greeting else said[0].upper() + said[1:]

    def closing(self, short: bool) -> list[str]:
        """The offer of help; without one in half of the replies that break this rule."""
        if "offer" in self.breaks and (short or self.rng.random() < 0.55):
            return []
        return [self.draw(p.SHORT_OFFERS if short else p.OFFERS)]

    def short_body(self) -> list[str]:
        both = p.VAGUE_SHORT if "topic" in self.breaks else p.SHORT[self.topic]
        return [self.draw(both["next_step" not in self.breaks])]

    def body(self, around: int) -> list[str]:
        vague = "topic" in self.breaks
        fact = self.draw(p.VAGUE_FACTS if vague else self.facts)
        if "no_stiffness" in self.breaks:
            fact = f"{pick(self.rng, p.STIFF)} {_lower(fact)}"
        out = [fact]
        if "next_step" not in self.breaks:
            out.append(self.draw(p.VAGUE_STEPS if vague else self.steps))
        for rule, pools in _INSERTS.items():
            if rule in self.breaks:
                out.insert(
                    1 + int(self.rng.random() * len(out)) if self.rng.random() < 0.8 else 0, self.own(pools)
                )
        extras = shuffled(self.rng, p.EXTRAS[self.topic])
        for extra in extras[: pick(self.rng, [0, 0, 1, 1, 2])]:
            extra = _part(extra, self.name, self.unit)
            if around + _count([*out, extra]) <= MAX_WORDS - 3 * ("no_repeats" in self.breaks):
                out.append(extra)
        fillers = shuffled(self.rng, p.FILLERS)
        while "not_too_long" in self.breaks and fillers and around + _count(out) <= MAX_WORDS:
            out.append(_part(fillers.pop(), self.name, self.unit))
        return out

    def sign(self) -> str:
        return pick(self.rng, p.NO_SIGNATURE if "signature" in self.breaks else p.SIGNATURES)

    # -- what spoils them

    def repeated(self, body: list[str]) -> list[str]:
        return [*body, pick(self.rng, body)] if "no_repeats" in self.breaks else body

    def joined(self, said: list[str]) -> list[str]:
        """Two neighbours as one long sentence."""
        if "short_sentences" not in self.breaks or len(said) < 3:
            return said
        i = 1 + int(self.rng.random() * (len(said) - 2))
        both = f"{said[i][:-1]}, {pick(self.rng, ['and', 'and', 'so', 'but'])} {_lower(said[i + 1])}"
        return [*said[:i], both, *said[i + 2 :]]

    def marked(self, said: list[str]) -> list[str]:
        """Exclamation marks, small letters and lost full stops."""
        said = list(said)
        if "no_exclamation" in self.breaks:
            for i in shuffled(self.rng, list(range(len(said))))[: pick(self.rng, [1, 1, 2, 3])]:
                said[i] = re.sub(r"[.]$", "!", said[i])
        if "sentences" in self.breaks:
            if self.rng.random() < 0.35:
                said[-1] = said[-1][:-1]
            else:
                from_ = 0 if self.rng.random() < 0.3 else 1
                said = [_lower(sentence) if i >= from_ else sentence for i, sentence in enumerate(said)]
        return said

    def listed(self, said: list[str]) -> str:
        """The reply as one text, with a list, a link, bold or an emoji where plain text is broken."""
        if "plain_text" not in self.breaks:
            return " ".join(said)
        kind = pick(self.rng, ["emoji", "emoji", "list", "link", "bold"])
        if kind == "list" and len(said) > 3:
            mark = pick(self.rng, ["- ", "* "])
            return "\n".join([said[0], *(mark + sentence for sentence in said[1:-1]), said[-1]])
        if kind == "link" and len(said) > 2:
            return " ".join([*said[:-1], pick(self.rng, p.LINKS), said[-1]])
        if kind == "bold":
            text = " ".join(said)
            return text.replace(self.name, f"**{self.name}**", 1)
        at = pick(self.rng, [0, len(said) - 1, len(said) - 1])
        return " ".join(
            sentence + (f" {pick(self.rng, p.EMOJI)}" if i == at else "") for i, sentence in enumerate(said)
        )

    def spelt(self, text: str) -> str:
        """Words changed throughout: I for we, short forms, capitals."""
        if "says_we" in self.breaks:
            for we, one in _I:
                text = re.sub(we, one, text)
        if "full_words" in self.breaks:
            for full, short in _CONTRACTIONS:
                text = re.sub(full, short, text)
        if "no_capitals" in self.breaks:
            found = list(re.finditer(p.SHOUTED, text, re.I))
            if found:
                start, end = pick(self.rng, found).span()
                text = text[:start] + text[start:end].upper() + text[end:]
        return text


_I = [
    (r"\bone of us\b", "I"),
    (r"\b([Ww]e) are\b", "I am"),
    (r"\b[Ww]e were\b", "I was"),
    (r"\b[Aa]re we\b", "am I"),
    (r"\b[Ww]e\b", "I"),
    (r"\bus\b", "me"),
    (r"\bourselves\b", "myself"),
    (r"\bour (?=help|team|call|question|answer)", "my "),
]
_CONTRACTIONS = [
    (r"\b([Ww]e|I|[Yy]ou|[Tt]hey|[Ii]t) will (?=\w)", r"\1'll "),
    (r"\b([Ww]e|[Yy]ou|[Tt]hey) are (?=\w)", r"\1're "),
    (r"\bI am (?=\w)", "I'm "),
    (r"\b([Ii]t|[Tt]hat|[Tt]here) is (?=\w)(?!and\b|now\b)", r"\1's "),
    (r"\b([Dd]o|[Dd]oes|[Ii]s) not\b", r"\1n't"),
    (r"\bcannot\b", "can't"),
    (r"\b([Ww]e|[Yy]ou) have (?=(?:read|made|carried|looked)\b)", r"\1've "),
    (r"\b([Ww]e) would\b", r"\1'd"),
]
