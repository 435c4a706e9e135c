"""How a reply is taken apart: its words, its sentences, its sign-off, and which product and topic it is
about."""

from __future__ import annotations

import re
from functools import lru_cache

from labkit.tasks.tickets.grammar import PRODUCTS
from labkit.tasks.voice.matters import MATTERS

LONGEST = 4000  # characters of a reply that are looked at: no honest reply is longer

SMILEYS = r"[\U00002190-\U00002BFF\U0001F000-\U0001FAFF\uFE0F\u200D]|(?<!\w)[:;]-?[)(DP](?!\w)"
_REGARDS = (
    r"(?:(?:kind|best|warm|many|friendly) (?:regards|wishes|greetings)"
    r"|regards|yours(?: \w+)?|sincerely|cheers)"
)
_SENDER = (
    r"(?:(?:the|your|our)? ?(?:wren (?:&|and) fell)?(?: ?(?:customer|service|support|sales|team|desk|ltd))*)"
)
SIGN_OFF = re.compile(rf"(?:{_REGARDS}[,.]?)?\s*{_SENDER}[.!]?", re.I)

# Words that tell the topic of a message that no template of this family made.
TOPIC_OF_MESSAGE = {
    "delivery": r"parcels?|courier|deliver\w*|letterbox|van\b|ship|postcode|street|address|post\b",
    "returns": r"returns?\b|send (?:it|them|my [\w ]+) back|go(?:es)? back|take (?:it|them|my [\w ]+) back"
    r"|back to you\b|given? (?:it|them) back|swap",
    "sizing": r"sizes?\b|fits?\b|wide\b|toes?\b",
    "care": r"clean|wash\w*|dry\b|dryer|wax|oil\b|iron\b|soap|detergent|softener|mould|rust\b|care\b",
    "repair": r"repair\w*|mend\w*|fix\w*|zip\b|patch\w*|spares?\b|soles?\b|workshop",
    "stock": r"stock|available|reserve|sold out|waiting list|shelf|aside",
    "complaint": r"disappoint\w*|complain|angry|let down|quality|poor|expected",
    "thanks": r"thank you\b|thanks\b|well done|praise",
    "advice": r"recommend|choice|warm enough|light enough|would you (?:take|choose|pick)",
}
# Words of which a reply on the topic holds at least one.
TOPIC_OF_REPLY = {
    "delivery": r"deliver\w*|parcels?|courier\w*|track\w*|shipp?\w*|depot|warehouse|on the way|address\w*",
    "returns": r"return\w*|label|way back|send (?:it|them|your [\w ]+|the [\w ]+) back"
    r"|(?:come|go|back|take [\w ]+|taking [\w ]+) back",
    "sizing": r"sizes?|fits?|fitting|measure\w*|width|narrow|wide|roomy|snug",
    "care": r"wash\w*|clean\w*|dr(?:y|ies|ied|ying)|soap|rinse\w*|wipe\w*|wax\w*|oil\w*|brush|care"
    r"|stor(?:e|ed|es|age)",
    "repair": r"repair\w*|mend\w*|fix\w*|workshop|patch\w*|spares?|stitch\w*|sole",
    "stock": r"stock\w*|available|shelf|shelves|sold|batch\w*|waiting list|reserve\w*",
    "complaint": r"put (?:this|that|it|things|the [\w ]+) right|fault|quality|let you down|went wrong"
    r"|seriously|looking into|packed wrongly|poor answer|not happen",
    "thanks": r"glad|pleased|kind words|smile\w*|good to hear|joy|proud",
    "advice": r"suits?|choice|recommend\w*|suggest\w*|pick|copes?|works? well|warm enough|easy to use|balance"
    r"|light",
}
_MESSAGES = {topic: re.compile(rf"\b(?:{words})") for topic, words in TOPIC_OF_MESSAGE.items()}
_REPLIES = {topic: re.compile(rf"\b(?:{words})\b") for topic, words in TOPIC_OF_REPLY.items()}
# The fixed pieces of each template, in small letters, and the longest of them.
_FRAGMENTS = [
    (matter.topic, max(parts, key=len), parts)
    for matter in MATTERS.values()
    for _, template in (*matter.train, *matter.test)
    for parts in [[part for part in re.split(r"{\w+}", template.lower()) if part.strip()]]
]
_NAMES = {product.lower(): product for product in sorted(PRODUCTS, key=len, reverse=True)}


@lru_cache(200_000)
def lowered(text: str) -> str:
    """A text in small letters, which patterns search faster than with a flag."""
    return text[:LONGEST].lower().replace("’", "'")


@lru_cache(200_000)
def words(text: str) -> tuple[str, ...]:
    """The words of a text, in lower case; "don't" is one word and "&" none."""
    return tuple(re.findall(r"[^\W_]+(?:['-][^\W_]+)*", lowered(text)))


@lru_cache(200_000)
def units(reply: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The sentences of a reply and the lines of its sign-off, without smileys and list marks.

    A sentence ends at ".", "?", "!" or the end of a line; "Hello," on a line of its own goes with what
    follows.
    """
    text = re.sub(SMILEYS, "", reply[:LONGEST])
    parts = [
        re.sub(r"^(?:[-*•]|\d+[.)])\s+", "", part.strip())
        for part in re.split(r"(?<=[.!?])\s+|\s*\n\s*", text)
    ]
    parts = [part for part in parts if part]
    body, tail = list(parts), []
    while len(body) > 1 and len(tail) < 3 and SIGN_OFF.fullmatch(body[-1]):
        tail.insert(0, body.pop())
    if len(body) > 1 and re.fullmatch(r"(?:hello|hi|dear|good)\b[^.!?]{0,30},", body[0], re.I):
        body[:2] = [f"{body[0]} {body[1]}"]
    return tuple(body), tuple(tail)


@lru_cache(20_000)
def product_of(message: str) -> str | None:
    """The catalogue product that a message names first, or None."""
    text = message.lower()
    found = [(text.index(name), -len(name), product) for name, product in _NAMES.items() if name in text]
    return min(found)[2] if found else None


@lru_cache(20_000)
def topics_of(message: str) -> tuple[str, ...]:
    """The topics of a message: the one it was written for, or all whose words it holds if we did not write
    it."""
    text = message.lower()
    found = [
        (sum(map(len, parts)), topic)
        for topic, longest, parts in _FRAGMENTS
        if longest in text and _in_order(parts, text)
    ]
    if found:
        return (max(found)[1],)
    return tuple(topic for topic, pattern in _MESSAGES.items() if pattern.search(text))


def _in_order(parts: list[str], text: str) -> bool:
    at = 0
    for part in parts:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


_OFFER = re.compile(
    r"\b(?:(?:happy|glad|here|pleased|ready) to (?:help|assist)|(?:gladly|will|can) help|let us know"
    r"|let me know"
    r"|just (?:ask|write|reply|call)|(?:so|do) ask (?:us|me)|write(?: back)? to (?:us|me)|reply to this"
    r"|write back"
    r"|get in touch|reach out|(?:more|any|further|other) questions|need (?:more |any )?help|ask (?:us|me)\b"
    r"|if (?:anything|something)(?: else)? is unclear)\b"
)


@lru_cache(100_000)
def is_offer(sentence: str) -> bool:
    """Whether a sentence offers help; "thank you for writing to us" does not."""
    return bool(_OFFER.search(sentence.lower()))


@lru_cache(200_000)
def is_about(reply: str, topic: str) -> bool:
    """Whether a reply, its offer of help and its sign-off left aside, holds a word of a topic."""
    said = [sentence for sentence in units(reply)[0] if not is_offer(sentence)]
    return bool(_REPLIES[topic].search("\n".join(said).lower()))


def topics_in(reply: str) -> list[str]:
    """The topics whose words a reply holds anywhere: a list of all of them is no answer to any."""
    return [topic for topic, pattern in _REPLIES.items() if pattern.search(lowered(reply))]


def shared_words(message: str, reply: str) -> bool:
    """Whether a reply takes up a word of five letters or more from a message: all that can be asked where
    neither a product nor a topic of the shop is known."""
    return bool({word for word in words(message) if len(word) > 4} & set(words(reply)))
