"""Finetuning methods by name: `find("lora-r16").prepare(seed)` is the base model, ready for `fit`.

A module of this package registers its methods when it is imported, and `find` imports all modules but
FORMULAS. A new method is a new module: a measurement goes stale when its method's module changes. Import
torch, transformers and peft inside the functions, so that this stays quick.
"""

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass

from labkit.errors import LabkitError

# What every method of a comparison has in common, and none may choose for itself.
SHARED = ("steps", "lr", "batch", "length", "accumulate", "seed", "pack", "validation", "progress")
FORMULAS = ("four_bit", "low_rank", "quantize")  # modules to read, which register nothing and want torch
_KNOWN = {}


@dataclass(frozen=True)
class Method:
    """One method: its full name, what it trains, the learning rates to begin with, and options for `fit`.

    `module` is the file it is written in, relative to the course folder.
    """

    name: str
    about: str
    rates: tuple
    options: dict
    module: str
    make: Callable

    def prepare(self, seed):
        """A fresh base model on `env.device()`, new weights from `seed`; fp32, but for 4-bit weights."""
        from labkit import env

        env.seed_everything(seed)
        return self.make()


@dataclass(frozen=True)
class _Kind:
    """Methods that differ in one number at most: `lora-r4` is the kind lora with the number 4 after `r`."""

    name: str
    about: str
    rates: tuple
    options: dict
    letter: str | None
    default: int | None
    make: Callable

    def read(self, text):
        """The Method of that name, or None where it is of another kind."""
        module = f"{self.make.__module__.replace('.', '/')}.py"
        if self.letter is None:
            same = text == self.name
            return Method(text, self.about, self.rates, self.options, module, self.make) if same else None
        match = re.fullmatch(rf"{self.name}(?:-{self.letter}([1-9]\d*))?", text)
        if not match:
            return None
        number = int(match[1]) if match[1] else self.default
        if number is None:
            raise LabkitError(f"{text} wants a number: {self}")
        name, about = f"{self.name}-{self.letter}{number}", self.about.format(number)
        return Method(name, about, self.rates, self.options, module, lambda: self.make(number))

    def __str__(self):
        if self.letter is None:
            return self.name
        short = f" ({self.name} is {self.name}-{self.letter}{self.default})" if self.default else ""
        return f"{self.name}-{self.letter}N{short}"


def register(name, about, *, rates, letter=None, default=None, options=None):
    """Register the decorated function, which returns a model ready for `fit`, as the method `name`.

    `about` is one sentence; `rates` are four ascending learning rates, each about 3 times the one before;
    `options` go to `fit`. With a `letter`, which may be empty, names end in it and a number, `default` if
    left out; the function then takes that number, and `{}` in `about` stands for it.
    Raises LabkitError for a name that is taken or cannot name a file, for other rates or unfair options.
    """
    options = dict(options or {})
    if name in _KNOWN or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise LabkitError(f"{name!r} is taken, or no name for a method: use a-z, 0-9 and inner hyphens")
    steps = [high / low for low, high in zip(rates, rates[1:], strict=False)]
    if len(rates) != 4 or not all(2 < step < 5 for step in steps):
        raise LabkitError(f"{name}: give four learning rates, each about 3 times the one before, not {rates}")
    if shared := sorted(set(options) & set(SHARED)):
        raise LabkitError(f"{name}: {', '.join(shared)} must be the same for all methods; not an option")

    def keep(make):
        _KNOWN[name] = _Kind(name, about, tuple(rates), options, letter, default, make)
        return make

    return keep


def find(name):
    """The Method of a name such as `full`, `partial-8` or `lora-r4`; LabkitError names all there are."""
    for kind in _kinds():
        if found := kind.read(name):
            return found
    raise LabkitError(f"there is no method {name!r}. There are: {', '.join(known())}")


def short(name):
    """The name without its number where that is the default: `lora` of `lora-r16`; else the name itself."""
    kind = name.rpartition("-")[0]
    same = any(one.name == kind and one.default and one.read(kind).name == name for one in _kinds())
    return kind if same else name


def known():
    """How the methods are named, sorted: `full`, `lora-rN (lora is lora-r16)`."""
    return sorted(map(str, _kinds()))


def _kinds():
    """All kinds, after importing every module of this package that registers some."""
    for module in pkgutil.iter_modules(__path__):
        if module.name not in FORMULAS:
            importlib.import_module(f"{__name__}.{module.name}")
    return list(_KNOWN.values())
