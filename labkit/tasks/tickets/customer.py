"""The facts of one message, drawn at random, and how this customer writes each of them."""

from __future__ import annotations

from random import Random
from typing import Any

from labkit.tasks.draw import pick, weighted
from labkit.tasks.tickets import grammar as g
from labkit.tasks.tickets.rules import (
    FACT_KEYS,
    GIVEN,
    LEVELS,
    NEW_PRODUCT_IN_TEST,
    NOISE,
    QUANTITIES,
    URGENCY_SHARES,
    held_out,
)
from labkit.tasks.tickets.words import misspell, plural, write_date


class Customer:
    """Somebody with facts to tell, and a way of writing each of them."""

    def __init__(self, rng: Random, split: str, templates: list[tuple[str, str]], intent: str):
        self.rng, self.test, self.templates, self.intent = rng, split == "test", templates, intent
        self.level = list(LEVELS).index(weighted(rng, LEVELS))
        while True:
            self.urgency = weighted(rng, URGENCY_SHARES)
            given = [k for k, p in zip(FACT_KEYS, GIVEN[intent], strict=True) if rng.random() < p]
            if self.test or not held_out(intent, self.urgency, given):
                break
        self.facts = {key: getattr(self, "_draw_" + key)() for key in given}
        self.unsaid = set(given)
        self.corrected = False

    def happens(self, noise: str) -> bool:
        return self.rng.random() < NOISE[noise][self.level]

    def pool(self, pair: tuple[list, list]) -> Any:
        return pick(self.rng, pair[0] + pair[1] if self.test else pair[0])

    def _draw_product(self) -> str:
        new = self.test and self.rng.random() < NEW_PRODUCT_IN_TEST
        return pick(self.rng, g.TEST_PRODUCTS if new else g.TRAIN_PRODUCTS)

    def _draw_order(self) -> str:
        return f"N{10000 + int(self.rng.random() * 90000)}"

    def _draw_quantity(self) -> int:
        while True:
            value = weighted(self.rng, QUANTITIES)
            if value > 1 or self.intent != "change_quantity":
                return value

    def _draw_date(self) -> tuple[int, int]:
        return 1 + int(self.rng.random() * 12), 1 + int(self.rng.random() * 28)

    def correct(self, write: Any, draw: Any, right: Any) -> str:
        """Write a value, sometimes after a wrong one that the customer takes back."""
        text = write(right)
        if not self.corrected and self.happens("correction"):
            wrong = draw()
            while wrong == right:
                wrong = draw()
            self.corrected = True
            return self.pool(g.CORRECTIONS).format(wrong=write(wrong), right=text)
        return text

    def number(self, value: int) -> str:
        if value in (6, 12) and self.rng.random() < 0.5:
            return "half a dozen" if value == 6 else "a dozen"
        return g.NUMBER_WORDS[value] if self.rng.random() < 0.55 and value <= 12 else str(value)

    def date(self) -> str:
        form = self.pool(g.DATE_FORMS)
        return self.correct(lambda value: write_date(form, *value), self._draw_date, self.facts["date"])

    def order(self, forms: tuple[list, list]) -> str:
        form = self.pool(forms)

        def write(o: str) -> str:
            return form.format(o=o, lo=o.lower(), digits=o[1:])

        def slip() -> str:  # two neighbouring digits the wrong way round
            o, i = self.facts["order"], 1 + int(self.rng.random() * 4)
            return o[:i] + o[i + 1] + o[i] + o[i + 2:] if o[i] != o[i + 1] else self._draw_order()

        return self.correct(write, slip, self.facts["order"])

    def name(self) -> str:
        """The product as this customer writes it, without article or plural."""
        name = self.facts["product"]
        if name in g.TRAIN_PRODUCTS:
            word, *rest = name.split()
            if len(rest) == 2 and rest[0].isdigit() and self.happens("nickname"):
                name = f"{word} {rest[1]}"
            if len(word) > 4 and self.happens("misspelt"):
                name = name.replace(word, misspell(self.rng, word), 1)
        return name

    def noun(self, value: int | None) -> str:
        """The product as a noun: value pieces of it, or what a plain "the" or "my" goes with (None)."""
        unit, name = g.UNITS[self.facts["product"]], self.name()
        if not unit:
            return name if value in (None, 1) else plural(name)
        return name if value is None else f"{unit if value == 1 else unit + 's'} of {name}"

    def counted(self, slot: str = "item") -> str:
        """The product (or a word for it) behind its number of pieces, e.g. "two pairs of Heath boots"."""
        value = self.facts["quantity"]
        stock = self.intent == "stock"
        if "product" not in self.facts:
            if stock:
                noun = pick(self.rng, g.NAMELESS_STOCK[1])
                noun = noun.replace("pieces", "piece", 1) if value == 1 else noun
            else:
                noun = pick(self.rng, g.NAMELESS[1])
                noun = noun[:-1] if value == 1 else noun
        else:
            noun = self.noun(value)
        number = self.number_with(noun, value)
        loose = self.intent in ("stock", "change_quantity") or slot == "new" or self.corrected
        if loose or "product" not in self.facts or " " in number or self.rng.random() < 0.15:
            return f"{number} {noun}"
        if value == 1:
            countable = not g.UNITS[self.facts["product"]]
            return f"{number} of the {plural(noun)}" if countable else f"{number} {noun}"
        if slot == "thing" or self.rng.random() < 0.65:
            return f"{'the' if slot == 'thing' else 'my'} {number} {noun}"
        return f"{number} of the {noun}" if not g.UNITS[self.facts["product"]] else f"the {number} {noun}"

    def number_with(self, noun: str, value: int) -> str:
        if value == 2 and self.rng.random() < 0.2 and not noun.startswith("pair"):
            return pick(self.rng, ["a couple of", "a pair of"])
        return self.correct(self.number, self._draw_quantity, value) if value > 1 else self.number(value)

    def plain(self, slot: str = "item") -> str:
        """The product with an article, without a number; "my" only in the slots item, subj and prod."""
        new = slot in ("new", "thing")
        if "product" not in self.facts and new and self.intent != "stock":
            return pick(self.rng, g.NAMELESS_NEW) if slot == "new" else "the item"
        if "product" not in self.facts:
            return pick(self.rng, (g.NAMELESS_STOCK if self.intent == "stock" else g.NAMELESS)[0])
        mine = not new and self.intent not in ("stock", "change_quantity") and self.rng.random() < 0.6
        if mine and self.facts["product"] in g.TRAIN_PRODUCTS and self.happens("nickname"):
            if not g.UNITS[self.facts["product"]]:
                return "my " + self.facts["product"].split()[0]
        return ("my " if mine else "the ") + self.noun(None)
