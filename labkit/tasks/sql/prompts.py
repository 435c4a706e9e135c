"""The prompt of a row, and a fixed budget of longer prompts for the untuned base."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from labkit.errors import LabkitError
from labkit.tasks.sql.store import schema
from labkit.tasks.sql.store_build import CHANNELS, REASONS, STATUSES, TIERS, products

SYSTEM = f"Answer with one SQLite query.\n{schema()}"
_CATEGORIES = sorted({category for _, category, _, _ in products()})
RULES = f"""You write SQLite queries for the store of an outdoor shop. Answer with one SELECT statement on one line and nothing else: no explanation, no comment.
{schema()}
Keys: orders.customer_id, products.supplier_id, order_lines.order_id and product_id, returns.order_id and product_id.
Days are text like '2026-03-01'; a month is strftime('%Y-%m', day) = '2026-03', a year strftime('%Y', day) = '2026'.
Values: status {", ".join(STATUSES)}; channel {", ".join(CHANNELS)}; tier {", ".join(TIERS)}; reason {", ".join(REASONS)}; category {", ".join(_CATEGORIES)}; country as "Norway".
Return exactly the columns asked for, in that order. "Between" includes both ends; "after" and "before" do not include the day. Contents of a name: LIKE '%word%'.
Revenue, spending and the value of an order are SUM(l.quantity * l.price) over order_lines; pieces are SUM(l.quantity). Orders of every status count unless the question names one.
Use the one-letter aliases whenever you join tables. For "never", "without" or "no" use id NOT IN (SELECT ...)."""  # noqa: E501

Ask = Callable[[str], list[dict[str, str]]]  # a question -> chat messages


def render(question: str) -> list[dict[str, str]]:
    """The chat messages that put a question to the model: the schema as system message, then the question."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


def _schema_only(train_rows: Any) -> Ask:
    return render


def _with_rules(train_rows: Any) -> Ask:
    return lambda question: [{"role": "system", "content": RULES}, {"role": "user", "content": question}]


def _few_shot(shots: int) -> Callable[[Any], Ask]:
    def make(train_rows: Any) -> Ask:
        turns = [{"role": "system", "content": RULES}]
        for row in examples(train_rows, shots):
            turns += [
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": row["query"]},
            ]
        return lambda question: [*turns, {"role": "user", "content": question}]

    return make


CLAUSES = {"JOIN", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "DISTINCT"}


def examples(rows: Any, shots: int) -> list[dict[str, Any]]:
    """`shots` rows with queries of at most 200 characters that together show as much of SQL as they can.

    Each time the row that has most clauses not shown yet, then most words of SQL, tables and columns; the
    earlier of two equals.
    """
    pool = [row for row in list(rows)[:400] if len(row["query"]) <= 200]
    chosen: list[dict[str, Any]] = []
    shown: set[str] = set()
    while len(chosen) < shots:
        left = [row for row in pool if row["phrasing"] not in {other["phrasing"] for other in chosen}]
        if not left:
            raise LabkitError(f"Only {len(chosen)} of {shots} examples found: pass more rows.")
        chosen.append(max(left, key=lambda row: _news(row, shown)))
        shown |= _shows(chosen[-1])
    return chosen


def _news(row: dict[str, Any], shown: set[str]) -> tuple[int, int]:
    new = _shows(row) - shown
    return len(new & CLAUSES), len(new)


def _shows(row: dict[str, Any]) -> set[str]:
    words = {word.strip("(),") for word in row["query"].replace("(", " ( ").split()}
    return {word for word in words if word.isupper() or word.islower() and word.isalpha()} | {row["level"]}


# The fixed budget of prompts behind "the best prompt we tried": `PROMPTS[name](train_rows)(question)`.
PROMPTS: dict[str, Callable[[Any], Ask]] = {
    "schema only": _schema_only,
    "schema and rules": _with_rules,
    "schema, rules and 3 examples": _few_shot(3),
    "schema, rules and 8 examples": _few_shot(8),
}
