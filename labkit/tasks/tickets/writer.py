"""Writes one customer message and its gold answer from the phrase data."""

from __future__ import annotations

import re
from typing import Any

from labkit.tasks.draw import pick, shuffled
from labkit.tasks.tickets import grammar as g
from labkit.tasks.tickets.customer import Customer
from labkit.tasks.tickets.rules import FACT_KEYS, INLINE, NEEDS
from labkit.tasks.tickets.words import (
    CLOSE,
    OPEN,
    lower_first,
    misspell,
    plural,
    sentence,
    write_date,
)


class Writer(Customer):
    """Writes one message: renders the main sentence, adds the facts it left out, then the noise."""

    # -- the main sentence

    def render(self, template: str) -> str:
        """Fill a template and note in `unsaid` which facts it gave."""
        template = re.sub(r"<([^<>{}|]*)\|([^<>]*)>", lambda m: m[1 + int(self.rng.random() * 2)], template)
        out = []
        for part in re.split(r"(\[[^\]]*\])", template):
            if part.startswith("["):
                needed = {key for slot in re.findall(r"{(\w+)}", part) for key in _SLOT_FACTS.get(slot, ())}
                if not needed <= self.unsaid or self.rng.random() >= INLINE:
                    continue
                part = part[1:-1]
            out.append(re.sub(r"{(\w+)}", lambda m: self.slot(m[1]), part))
        # A number of one takes the singular ("one item"), and a sentence inside the template a capital.
        text = re.sub(rf"(\b(?:one|1){CLOSE} )(item|piece|article)s\b", r"\1\2", "".join(out))
        return re.sub(rf"([.?!] {OPEN}?)([a-z])", lambda m: m[1] + m[2].upper(), text)

    def start(self, template: str) -> None:
        """Decide, before rendering, whether the product comes with its number: verbs must agree with it."""
        has_item = bool(re.search(r"{(item|subj|new|thing)}", template))
        quantity = "quantity" in self.facts and has_item
        if quantity and self.intent == "stock" and self.rng.random() < 0.3:
            quantity = False  # "Do you have the Kestrel 2 tent? I need three."
        self.item_counted = quantity
        if quantity:
            self.many = self.facts["quantity"] > 1
        else:
            self.many = "{plural}" in template or bool(g.UNITS.get(self.facts.get("product")))

    def slot(self, slot: str) -> str:
        if slot in ("item", "subj", "new", "thing"):
            self.unsaid.discard("product")
            if self.item_counted:
                self.unsaid.discard("quantity")
                return self.keep(self.counted(slot))
            return self.keep(self.plain(slot))
        if slot in ("prod", "plural", "bare"):
            self.unsaid.discard("product")
            if slot == "prod":
                return self.keep(self.plain())
            if "product" not in self.facts:
                return self.keep("items" if slot == "plural" else "purchase")
            unit = g.UNITS[self.facts["product"]]
            return self.keep(plural(self.name()) if slot == "plural" and not unit else self.name())
        if slot.startswith("count"):
            self.unsaid.discard("product")
            if "quantity" in self.facts:
                self.unsaid.discard("quantity")
                return self.keep(self.counted())
            degree = {"count_up": "higher", "count_down": "lower"}.get(slot, "different")
            return f"a {degree} number of " + self.slot("plural")
        if slot in ("order", "oid"):
            self.unsaid.discard("order")
            return self.keep(self.order(g.ORDER_FORMS if slot == "order" else g.ORDER_IDS))
        if slot == "date":
            self.unsaid.discard("date")
            return self.keep(self.date())
        if slot == "q":
            self.unsaid.discard("quantity")
            return self.keep(self.correct(self.number, self._draw_quantity, self.facts["quantity"]))
        if slot in ("oldq", "less", "more"):
            self.corrected = True  # a third number would be too much
            return self.keep(self.number(self.old_quantity(slot)))
        return _AGREE[slot][self.many]

    def old_quantity(self, slot: str) -> int:
        value, far = self.facts["quantity"], 1 + int(self.rng.random() * 4)
        if slot == "less" or (slot == "oldq" and self.rng.random() < 0.5):
            return max(1, value - far)
        return value + far

    @staticmethod
    def keep(text: str) -> str:
        return OPEN + text + CLOSE

    # -- the whole message

    def write(self) -> dict[str, Any]:
        phrasing, template = pick(self.rng, self.templates)
        outside_groups = re.sub(r"\[[^\]]*\]", "", template)
        if "product" not in self.facts and re.search(r"{(item|subj|new|thing)}", outside_groups):
            phrasing, template = pick(self.rng, self.templates)  # rather one that needs no product
        self.start(template)
        before = self.leads(template)
        core = sentence(self.render(template))
        after = self.leftovers()
        cue = self.urgency != "normal"
        if cue and not before and self.rng.random() < 0.3:
            prefix = self.pool(g.URGENCY_PREFIX[self.urgency])
            core, cue = f"{prefix} {lower_first(core) if prefix[-1] != '!' else core}", False
        body = [*before, core, *after]
        if cue:
            body.insert(pick(self.rng, [0, len(body), len(body)]), self.pool(g.URGENCY[self.urgency]))
        # Distractors stand at either end: in the middle an "it" after them would point at the wrong product.
        kinds = shuffled(self.rng, list(g.DISTRACTORS))
        extras = [self.distractor(kinds[i]) for i, noise in enumerate(["distractor", "distractor_2"])
                  if self.happens(noise)]
        if self.happens("padding"):
            extras.append(self.pool(g.PADDING))
        for extra in shuffled(self.rng, extras):
            body.insert(pick(self.rng, [0, len(body)]), extra)
        if self.happens("greeting"):
            body.insert(0, self.pool(g.GREETINGS))
        if self.happens("closing"):
            body.append(self.pool(g.CLOSINGS))
        message = self.noise(" ".join(body))
        return {"message": message, "answer": self.answer(), "phrasing": phrasing}

    def leads(self, template: str) -> list[str]:
        if not self.happens("lead"):
            return []
        named = re.search(r"{(item|new|thing|subj|prod|plural|count|bare)}", template)
        key = "order" if named or "quantity" in self.unsaid or "product" not in self.unsaid else "product"
        if key not in self.unsaid:
            return []
        return [sentence(self.render(self.pool(g.LEADS[key])))]

    def leftovers(self) -> list[str]:
        """Sentences for the facts which the main sentence did not give, in any order."""
        keys = shuffled(self.rng, [key for key in FACT_KEYS if key in self.unsaid])
        if keys and self.happens("key_value"):
            return [sentence(", ".join(self.key_value(key) for key in keys) + ".")]
        # A changed quantity stands alone: "It is about three tents" could also mean the old number.
        if {"product", "quantity"} <= set(keys) and self.intent != "change_quantity":
            keys[keys.index("product")] = "counted"
            keys.remove("quantity")
        self.item_counted = "counted" in keys or self.item_counted
        out = []
        for key in keys:
            if key == "date":
                pair = g.DATE_FACTS[self.intent]
            elif key == "quantity" and self.intent == "stock":
                pair = g.STOCK_QUANTITY
            elif key == "quantity" and self.intent == "change_quantity":
                pair = g.CHANGE_QUANTITY
            else:
                pair = g.FACTS[key]
            out.append(sentence(self.render(self.pool(pair))))
        return out

    def key_value(self, key: str) -> str:
        if key == "product":
            return "product: " + self.slot("bare")
        if key == "order":
            return "order: " + self.slot("oid")
        if key == "quantity":
            return "quantity: " + self.slot("q")
        return g.DATE_LABELS[self.intent] + ": " + self.slot("date")

    def distractor(self, kind: str) -> str:
        rng = self.rng
        others = g.PRODUCTS if self.test else g.TRAIN_PRODUCTS
        others = [p for p in others if not g.UNITS[p] and p != self.facts.get("product")]
        old_order, old_date = self._draw_order(), self._draw_date()
        while old_date == self.facts.get("date"):
            old_date = self._draw_date()
        values = {
            "other": pick(rng, others),
            "oldid": old_order,
            "olddate": write_date(self.pool(g.DATE_FORMS), *old_date),
            "n2": 21 + int(rng.random() * 79),
            "n3": 100 + int(rng.random() * 900),
            "n5": 10000 + int(rng.random() * 90000),
            "years": 2 + int(rng.random() * 11),
            "people": 3 + int(rng.random() * 5),
            "hour": 4 + int(rng.random() * 5),
        }
        text = self.pool(g.DISTRACTORS[kind])
        return sentence(re.sub(r"{(\w+)}", lambda m: self.keep(str(values[m[1]])), text))

    def noise(self, text: str) -> str:
        """Typing habits, applied only outside the protected facts."""
        short = self.pool(g.ABBREVIATIONS) if self.happens("abbreviation") else None
        drop = not self.corrected and self.happens("no_marks")
        parts = re.split(f"({OPEN}[^{CLOSE}]*{CLOSE})", text)
        for i, part in enumerate(parts):
            if part.startswith(OPEN):
                parts[i] = part[1:-1]
                continue
            if short:
                part = re.sub(rf"\b{short[0]}\b", short[1], part)
            if drop:
                part = re.sub(r"[,']", "", part)
            parts[i] = re.sub(r"[a-z]{5,}", self.typo, part)
        text = "".join(parts)
        if drop:
            text = re.sub(r"[.!]$", "", text)
        return text.lower() if self.happens("lower_case") else text

    def typo(self, match: re.Match) -> str:
        return misspell(self.rng, match[0]) if self.happens("typo") else match[0]

    def answer(self) -> dict[str, Any]:
        out: dict[str, Any] = {"intent": self.intent}
        for key in FACT_KEYS:
            if key in self.facts:
                value = self.facts[key]
                out[key] = "{:02d}-{:02d}".format(*value) if key == "date" else value
        out["urgency"] = self.urgency
        out["missing"] = [key for key in NEEDS[self.intent] if key not in self.facts]
        return out


# Which facts a slot inside brackets needs.
_SLOT_FACTS = {
    **dict.fromkeys(["item", "subj", "prod", "new", "thing"], ("product",)),
    **dict.fromkeys(["order", "oid"], ("order",)),
    **dict.fromkeys(["q", "oldq", "less", "more"], ("quantity",)),
    "date": ("date",),
}
_AGREE = {"it": ("it", "them"), "they": ("it", "they"), "is": ("is", "are"), "has": ("has", "have"),
          "does": ("does", "do"), "es": ("es", "")}
