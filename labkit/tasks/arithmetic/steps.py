"""Column arithmetic, written out so that a small model that reads digit by digit can learn it.

478 + 356 is worked like this, units first:

    c4b7a8+c3b5a6       every digit with the letter of its column: a is units, b is tens, c is hundreds
    a8+6=14             a column that makes 10 or more ...
    b7+5+1=13           ... puts + 1 into the next one
    c4+3+1=8
    c8b3a4              the result, whose digits the answer copies
    Answer: 834

When subtracting, a digit that is too small gets 10 (a3 - 8 is written a13-8=5) and the next column - 1. A
column that one of the two numbers lacks counts as 0. A second operation goes on from the result: c8b3a4-b9a2.
Every character of the working is one token of the base model.
"""

from __future__ import annotations

import re

LETTERS = "abcdefghijklm"


def terms(calculation: str) -> list[tuple[str, int]]:
    """The operations of a calculation in order: "478+356-92" gives ("+", 478), ("+", 356), ("-", 92)."""
    return [(sign or "+", int(number)) for sign, number in re.findall(r"([+-]?)(\d+)", calculation)]


def partial_results(calculation: str) -> list[int]:
    """What has been reached after each number of a calculation; the last is its result."""
    total, reached = 0, []
    for sign, number in terms(calculation):
        total += number if sign == "+" else -number
        reached.append(total)
    return reached


def spell(number: int) -> str:
    """A number with the letter of its column before each digit: 834 is "c8b3a4"."""
    digits = str(number)
    return "".join(LETTERS[len(digits) - 1 - i] + digit for i, digit in enumerate(digits))


def columns(first: int, sign: str, second: int) -> list[str]:
    """One line for each column of first + second, or of first - second (not negative), units first."""
    width = max(len(str(first)), len(str(second)))
    tops, bottoms = (list(map(int, reversed(str(number).zfill(width)))) for number in (first, second))
    lines, carry = [], 0
    for letter, top, bottom in zip(LETTERS, tops, bottoms, strict=False):
        brought = f"{sign}1" if carry else ""
        if sign == "+":
            value = top + bottom + carry
            carry = value // 10
        else:
            borrowed = top < bottom + carry
            top += 10 * borrowed
            value = top - bottom - carry
            carry = borrowed
        lines.append(f"{letter}{top}{sign}{bottom}{brought}={value}")
    return lines


def working(calculation: str) -> str:
    """The worked text of a calculation, without the answer line."""
    (_, first), *rest = terms(calculation)
    text = spell(first)
    for (sign, second), before, after in zip(rest, [first, *partial_results(calculation)[1:]],
                                             partial_results(calculation)[1:], strict=False):  # fmt: skip
        text += f"{sign}{spell(second)}\n" + "\n".join(columns(before, sign, second)) + f"\n{spell(after)}"
    return text


def filler(calculation: str) -> str:
    """Dots that say nothing, as many tokens of the base model as the worked text has."""
    return "." + " ." * (len(working(calculation)) - 1)
