"""Cards people have, what fits them, and the first change that makes a step fit."""

from labkit.errors import LabkitError
from labkit.memory.predict import predict

GiB = 2**30
# A card sold as "24 GB" has 24 GiB. What it offers a program, in GiB: driver and, on some, ECC take the rest.
OFFERS = {"8 GB": 7.6, "16 GB": 15.4, "24 GB": 23.5, "48 GB": 44.5, "80 GB": 79.1}
CARDS = {name: offered * GiB for name, offered in OFFERS.items()}

# Tried in this order: first what costs nothing but time, then what changes how the model learns.
CHANGES = (
    ("checkpointing", {"checkpointing": True}),
    ("a fused loss (logits in pieces)", {"fused_loss": True}),
    ("an 8-bit optimizer", {"optimizer": "8-bit"}),
    ("batch 1", {"batch": 1}),
    ("LoRA", {"method": "lora"}),
    ("QLoRA", {"method": "qlora"}),
)


def fits(setting, card):
    """Does a step fit the named card: its whole process, but for paged states, which may leave the card?"""
    report = predict(setting)
    return report.process - report.categories.get("optimizer paged", 0) <= room(card)


def room(card):
    """Bytes that a card in CARDS offers. LabkitError for another name."""
    if card not in CARDS:
        raise LabkitError(f"no card is called {card!r}. Take one of {', '.join(CARDS)}")
    return CARDS[card]


def first_change(setting, card):
    """The first changes, as few as will do, that make `setting` fit `card`: (names, the changed setting).

    One change is tried before two: each alone, in the order of CHANGES, then the first k of them together.
    ([], setting) if it fits already, and (None, None) if all of them together do not help.
    """
    if fits(setting, card):
        return [], setting
    possible = [(name, change) for name, change in CHANGES if _changed(setting, change)]
    for name, change in possible:
        if fits(_changed(setting, change), card):
            return [name], _changed(setting, change)
    names, tried = [], setting
    for name, change in possible:
        changed = _changed(tried, change)
        if changed is None:
            continue
        names, tried = [*names, name], changed
        if fits(tried, card):
            return _needed(setting, names, card)
    return None, None


def _needed(setting, names, card):
    """Of changes that together are enough, those that cannot be left out: (names, the changed setting)."""
    by_name = dict(CHANGES)

    def made(kept):
        changed = setting
        for name in kept:
            changed = _changed(changed, by_name[name]) or changed
        return changed

    for name in list(names):
        without = [other for other in names if other != name]
        if fits(made(without), card):
            names = without
    return names, made(names)


def _changed(setting, change):
    """The setting with a change; None where it changes nothing or cannot be had."""
    try:
        changed = setting.but(**change)
    except LabkitError:
        return None
    return None if changed == setting else changed
