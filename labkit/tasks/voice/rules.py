"""The brand voice as executable rules: each says of a message and a reply whether the rule is kept.

PAIR_RULES are the ones from which preference pairs are built. HELD_OUT_RULES are judged but never used to
build or choose a pair. `is_reply` is the floor: a text that is no reply to the message keeps no rule at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from labkit.errors import LabkitError
from labkit.tasks.voice.texts import (
    SMILEYS,
    is_about,
    is_offer,
    lowered,
    product_of,
    shared_words,
    topics_in,
    topics_of,
    units,
    words,
)

Rule = Callable[[str, str], bool]
WHY: dict[str, str] = {}  # rule name -> the sentence that says why a brand would want it
PAIR_RULES: dict[str, Rule] = {}
HELD_OUT_RULES: dict[str, Rule] = {}

MAX_WORDS, MIN_WORDS, LONG_SENTENCE = 60, 15, 22


def _rule(group: dict[str, Rule], why: str) -> Callable[[Rule], Rule]:
    def add(function: Rule) -> Rule:
        WHY[function.__name__] = why
        group[function.__name__] = function
        return function

    return add


def _without(pattern: str) -> Callable[[str], bool]:
    """A test that a text holds none of some words (given in small letters)."""
    compiled = re.compile(rf"\b(?:{pattern})\b")
    return lambda text: not compiled.search(lowered(text))


# ---- rules that pairs are built from ---------------------------------------------------------------------


@_rule(PAIR_RULES, "A greeting shows a person; the shop says Hello or Hi, never Dear Sir or Dear customer.")
def greeting(message: str, reply: str) -> bool:
    body = units(reply)[0]
    return (
        bool(body)
        and bool(re.match(r"(?:hello|hi)\b", body[0], re.I))
        and not re.search(r"\bdear (?:sir|madam|customer|client)", reply, re.I)
    )


@_rule(
    PAIR_RULES,
    "Somebody who took the trouble to write wants to be thanked or understood before anything else.",
)
def acknowledgement(message: str, reply: str) -> bool:
    start = " ".join(units(reply)[0][:2])
    return bool(
        re.search(r"\b(?:thank(?:s| you)|sorry|we (?:understand|appreciate)|I understand)\b", start, re.I)
    )


@_rule(PAIR_RULES, "The product by its own name proves that the message was read.")
def product(message: str, reply: str) -> bool:
    name = product_of(message)
    if name is None:
        return shared_words(message, reply)
    return name.split()[0].lower() in words(reply)


@_rule(PAIR_RULES, "A reply has to be about what the customer asked, or there will be a second message.")
def topic(message: str, reply: str) -> bool:
    wanted = topics_of(message)
    return any(is_about(reply, one) for one in wanted) if wanted else shared_words(message, reply)


_DAYS = r"mon|tues|wednes|thurs|fri|satur|sun"
_MONTHS = r"\b(?:January|February|March|April|June|July|August|September|October|November|December)\b"
_COUNT = r"\d+|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fourteen|a few|a couple of"
_no_dates = _without(
    rf"(?:{_DAYS})days?|(?:by|in|of|until|before|early|late) may|\d+(?:st|nd|rd|th)? may|may \d+"
    r"|tomorrow|tonight|today|next (?:week|month|day)|end of the (?:week|month)"
    rf"|(?:{_COUNT}) (?:working |business )?(?:hours?|days?|weeks?|months?)"
)


@_rule(
    PAIR_RULES,
    "A date that slips costs more trust than no date, so no day and no number of days is promised.",
)
def no_dates(message: str, reply: str) -> bool:
    return _no_dates(reply) and not re.search(_MONTHS, reply)  # months with a capital: "a long march" is none


@_rule(PAIR_RULES, "Exclamation marks sound like advertising, or like shouting to somebody who is upset.")
def no_exclamation(message: str, reply: str) -> bool:
    return "!" not in reply


@_rule(PAIR_RULES, f"At most {MAX_WORDS} words: customers read on a telephone, on the way.")
def not_too_long(message: str, reply: str) -> bool:
    return len(words(reply)) <= MAX_WORDS


@_rule(PAIR_RULES, f"At least {MIN_WORDS} words: fewer seem curt.")
def not_too_short(message: str, reply: str) -> bool:
    return len(words(reply)) >= MIN_WORDS


@_rule(
    PAIR_RULES,
    "One offer of help, as the last sentence, leaves the door open; several of them sound like a script.",
)
def offer(message: str, reply: str) -> bool:
    offers = [is_offer(sentence) for sentence in units(reply)[0]]
    return sum(offers) == 1 and offers[-1]


@_rule(PAIR_RULES, "Every reply is signed Wren & Fell, since the whole shop stands behind it.")
def signature(message: str, reply: str) -> bool:
    tail = units(reply)[1]
    return bool(tail) and bool(re.search(r"Wren & Fell[.]?$", tail[-1]))


_no_blame = _without(
    r"you (?:should|could) have|your (?:own )?(?:fault|mistake)|you (?:failed|forgot|ignored|misused"
    r"|overlooked|clearly)"
    r"|you must have|you did(?: not|n't)|if you had|you had(?: not|n't)|nobody else has|careless(?:ly)?"
    r"|own fault"
)


@_rule(PAIR_RULES, "Nobody stays a customer of a shop that says it was their fault, even if it was.")
def no_blame(message: str, reply: str) -> bool:
    return _no_blame(reply)


@_rule(PAIR_RULES, "The shop speaks as a team, so that any colleague can go on from there: we, never I.")
def says_we(message: str, reply: str) -> bool:
    return not re.search(r"\b(?:I|[Mm]e|[Mm]y|[Mm]ine)\b", reply) and bool(
        {
            "we",
            "us",
            "our",
            "we'll",
            "we're",
            "we've",
            "ours",
        }
        & set(words(reply))
    )


_no_promises = _without(
    r"refund\w*|discounts?|vouchers?|free of charge|(?:for|is|are|ships?) free|free (?:shipping|repair"
    r"|return|replacement)"
    r"|money back|gift cards?|\d+ ?% off|half price|compensat\w*"
)


@_rule(
    PAIR_RULES,
    "Money and presents are decided at the till after a look at the order, not promised in a first reply.",
)
def no_promises(message: str, reply: str) -> bool:
    return _no_promises(reply) and "% off" not in reply


@_rule(PAIR_RULES, "Words in capitals shout.")
def no_capitals(message: str, reply: str) -> bool:
    return not re.search(r"\b[A-Z]{3,}\b", reply)


@_rule(PAIR_RULES, "A sentence said twice reads like a machine that got stuck.")
def no_repeats(message: str, reply: str) -> bool:
    said = [words(sentence) for sentence in units(reply)[0] if len(words(sentence)) > 2]
    own = words(reply)
    runs = [own[i : i + 7] for i in range(len(own) - 6)]
    return len(set(said)) == len(said) and len(set(runs)) == len(runs)


@_rule(PAIR_RULES, "Plain text shows the same in every mail program: no lists, links, emoji or bold.")
def plain_text(message: str, reply: str) -> bool:
    return not (
        re.search(r"(?m)^\s*(?:[-*•#>]|\d+[.)])\s|\*\*|__|`|https?:|www\.|<\w+>|\[[^\]]*\]\(", reply)
        or re.search(SMILEYS, reply)
        or any(ord(c) > 0x17F and not 0x2010 <= ord(c) <= 0x2026 for c in reply)
    )


@_rule(PAIR_RULES, "Whole sentences with capitals and full stops show care.")
def sentences(message: str, reply: str) -> bool:
    body = units(reply)[0]
    return len(body) >= 2 and all(
        re.match(r"[\"'“‘(]?[A-Z0-9]", s) and re.search(r"[.?!][\"'”’)]?$", s) for s in body
    )


# ---- rules that no pair was built from -------------------------------------------------------------------

_no_regrets = _without(
    r"unfortunately|regrettably|sadly|alas|(?:we are|i am|we're|i'm) afraid|(?:we|i) regret"
)


@_rule(HELD_OUT_RULES, "A reply that starts from what is impossible sounds like a closed door.")
def no_regrets(message: str, reply: str) -> bool:
    return _no_regrets(reply)


_no_orders = _without(
    r"you must(?! have)|you(?:'ve| have) to|you need to|you are (?:required|obliged)|(?:make|be) sure"
    r"|it is (?:mandatory|required)|you are not allowed"
)


@_rule(HELD_OUT_RULES, "Customers are asked or told what they can do; they are not given orders.")
def no_orders(message: str, reply: str) -> bool:
    return _no_orders(reply)


_no_stiffness = _without(
    r"be advised|kindly|as per|hereby|herewith|(?:with|in) regards? to|pursuant|aforementioned|enquiry"
    r"|inquiry|inform you|at your earliest|valued customer|do not hesitate"
)


@_rule(HELD_OUT_RULES, "The shop writes as people talk; office phrases keep a customer at a distance.")
def no_stiffness(message: str, reply: str) -> bool:
    return _no_stiffness(reply)


_no_hype = _without(
    r"amazing(?:ly)?|awesome|fantastic|incredibl[ey]|absolutely|totally|super|unbeatable|perfect(?:ly)?"
    r"|ultimate|world-class|legendary|stunning|thrilled|best .{0,20}ever"
)


@_rule(HELD_OUT_RULES, "Big words make people doubt the small ones; praise is left to the customers.")
def no_hype(message: str, reply: str) -> bool:
    return _no_hype(reply)


_full_words = _without(r"\w+'(?:ll|re|ve|m|d)|\w+n't|(?:it|that|there|what|here)'s")


@_rule(
    HELD_OUT_RULES, "Words in full are easier for the many customers who learnt English as a second language."
)
def full_words(message: str, reply: str) -> bool:
    return "'" not in lowered(reply) or _full_words(reply)


@_rule(
    HELD_OUT_RULES,
    f"No sentence of more than {LONG_SENTENCE} words: a reply should be understood at the first reading.",
)
def short_sentences(message: str, reply: str) -> bool:
    return all(len(words(sentence)) <= LONG_SENTENCE for sentence in units(reply)[0])


_STEP = re.compile(
    r"\b(?:please (?!be advised|be patient|wait)|you can\b|(?:we|i) (?:will|can|suggest)\b|(?:we|i)'ll\b)"
)


@_rule(
    HELD_OUT_RULES, "Besides the offer of help, a reply says what happens next or what the customer can do."
)
def next_step(message: str, reply: str) -> bool:
    return any(_STEP.search(lowered(sentence)) and not is_offer(sentence) for sentence in units(reply)[0])


RULES: dict[str, Rule] = {**PAIR_RULES, **HELD_OUT_RULES}

# ---- the floor -------------------------------------------------------------------------------------------

_COMMON = frozenset(
    "a about after all also always an and any anything are as ask at back be been before best but by can "
    "come could do does each else every for from get glad good had happy has have he help here how i if in "
    "is it its just know like little made make may me message more most much my need next no not of on one "
    "or other our out please put questions right see send should so some something sorry tell than thank "
    "thanks that the their them then there these they thing this those time to too up "
    "us use used want was we well were what when where which who will with work would write you your".split()
)


def _common(said: tuple[str, ...]) -> float:
    return sum(word in _COMMON for word in said) / len(said)


def is_reply(message: str, reply: str) -> bool:
    """Whether a text is a reply to this message at all; if not, it keeps no rule.

    It has 6 to 150 words, at least 30% of them common English ones (20% in any sentence of ten words or more)
    and half of them different; it ends a sentence, and none has more than 45 words; it is not the message
    said back (under 40% of its runs of four words come from there); it names the product, its kind or the
    topic; and it does not hold words of five topics or more.
    """
    said = words(reply)
    if not 6 <= len(said) <= 150 or len(reply) > 2000:
        return False
    if _common(said) < 0.3 or len(set(said)) < len(said) / 2:
        return False
    lines = [words(sentence) for sentence in units(reply)[0]]
    if any(len(line) > 45 or (len(line) > 9 and _common(line) < 0.2) for line in lines):
        return False
    if not any(re.search(r"[.?!]", sentence) and len(words(sentence)) > 3 for sentence in units(reply)[0]):
        return False
    asked = words(message)
    known = {asked[i : i + 4] for i in range(len(asked) - 3)}
    runs = [said[i : i + 4] for i in range(len(said) - 3)]
    if sum(run in known for run in runs) > 0.4 * len(runs):
        return False
    name = product_of(message)
    kind = name is not None and name.split()[-1].lower() in said
    return (kind or product(message, reply) or topic(message, reply)) and len(topics_in(reply)) < 5


def chosen_rules(rules: Iterable[str] | None) -> list[str]:
    """The names of a choice of rules (all if None). Raises LabkitError for a name that is no rule."""
    names = list(RULES if rules is None else rules)
    unknown = [name for name in names if name not in RULES]
    if unknown or not names:
        what = f"There is no rule {unknown[0]!r}" if unknown else "No rule was chosen"
        raise LabkitError(f"{what}. Choose among: {', '.join(RULES)}.")
    return names


def kept(message: str, reply: str, rules: Iterable[str] | None = None) -> dict[str, bool]:
    """For each rule, or each of a choice, whether the reply keeps it; what `is_reply` refuses keeps none."""
    floor = is_reply(message, reply)
    return {name: floor and RULES[name](message, reply) for name in chosen_rules(rules)}


def broken(message: str, reply: str) -> list[str]:
    """The names of the rules that a reply breaks, in their order."""
    return [name for name, ok in kept(message, reply).items() if not ok]
