"""What the kinds of question are about: columns, aggregates, dimensions and measures."""

from __future__ import annotations

NUMBER_WORDS = ["no", "one", "two", "three", "four", "five", "six"]
KEY = {"c": "c.name", "p": "p.name", "s": "s.name", "o": "o.id", "r": "r.id"}
COLUMNS = {
    "c": ["c.city", "c.tier", "c.joined"],
    "s": ["s.country"],
    "p": ["p.price", "p.category", "p.stock", "p.weight", "p>s.name", "p>s.country"],
    "o": ["o.day", "o.status", "o.channel", "o>c.name", "o>c.city"],
    "r": ["r.day", "r.reason", "r.refund", "r>p.name", "r>p.category", "r>o.channel", "r>c.name"],
}
AGGREGATES = {
    "p": [
        ("p.price", "AVG"),
        ("p.price", "MIN"),
        ("p.price", "MAX"),
        ("p.stock", "SUM"),
        ("p.stock", "AVG"),
        ("p.stock", "MAX"),
        ("p.weight", "AVG"),
        ("p.weight", "MIN"),
        ("p.weight", "MAX"),
    ],
    "r": [("r.refund", "SUM"), ("r.refund", "AVG"), ("r.refund", "MAX"), ("r.refund", "MIN")],
    "c": [("c.joined", "MIN"), ("c.joined", "MAX")],
    "o": [("o.day", "MIN"), ("o.day", "MAX")],
}
# What a noun may be grouped by: expression, singular, plural.
DIMENSIONS = {
    "c": [
        ("c.city", "city", "cities"),
        ("c.tier", "tier", "tiers"),
        ("strftime('%Y', c.joined)", "year of joining", "years of joining"),
    ],
    "p": [
        ("p.category", "category", "categories"),
        ("s.name", "supplier name", "supplier names"),
        ("s.country", "supplier country", "supplier countries"),
    ],
    "s": [("s.country", "country", "countries")],
    "o": [
        ("o.status", "status", "statuses"),
        ("o.channel", "channel", "channels"),
        ("strftime('%Y-%m', o.day)", "month (YYYY-MM)", "months (YYYY-MM)"),
        ("c.city", "customer city", "customer cities"),
        ("c.tier", "customer tier", "customer tiers"),
    ],
    "r": [
        ("r.reason", "reason", "reasons"),
        ("p.category", "product category", "product categories"),
        ("p.name", "product name", "product names"),
        ("o.channel", "order channel", "order channels"),
        ("strftime('%Y-%m', r.day)", "month (YYYY-MM)", "months (YYYY-MM)"),
    ],
    "l": [
        ("p.category", "product category", "product categories"),
        ("s.name", "supplier name", "supplier names"),
        ("s.country", "supplier country", "supplier countries"),
        ("o.channel", "order channel", "order channels"),
        ("o.status", "order status", "order statuses"),
        ("c.city", "customer city", "customer cities"),
        ("c.tier", "customer tier", "customer tiers"),
        ("strftime('%Y-%m', o.day)", "month (YYYY-MM)", "months (YYYY-MM)"),
    ],
}
DISTINCT = {
    "c": ["c.city", "c.tier"],
    "p": ["p.category", "p>s.name", "p>s.country"],
    "s": ["s.country"],
    "o": ["o>c.name", "o>c.city", "o.channel", "o.status"],
    "r": ["r.reason", "r>p.name", "r>p.category"],
}
REVENUE = "SUM(l.quantity * l.price)"
# Entity -> what its rows may have most of: related noun (counted), or a sum with its words.
METRICS: dict[str, list[tuple[str, str, str, str, str]]] = {
    # (related noun, expression, "the most ...", "more than {n} ...", what it is)
    "c": [
        ("o", "COUNT(*)", "the most {r}", "{q} {r}", "number of orders"),
        ("r", "COUNT(*)", "the most {r}", "{q} {r}", "number of returns"),
        ("o", REVENUE, "the highest spending{within}", "a spending {above} {n} euros{within}", "spending"),
    ],
    "p": [
        ("r", "COUNT(*)", "the most {r}", "{q} {r}", "number of returns"),
        (
            "o",
            "SUM(l.quantity)",
            "the most pieces sold{within}",
            "{q} pieces sold{within}",
            "number of pieces",
        ),
        ("o", REVENUE, "the highest revenue{within}", "a revenue {above} {n} euros{within}", "revenue"),
    ],
    "s": [
        ("p", "COUNT(*)", "the most {r}", "{q} {r}", "number of products"),
        ("r", "COUNT(*)", "the most {r}", "{q} {r}", "number of returns"),
        (
            "o",
            "SUM(l.quantity)",
            "the most pieces sold{within}",
            "{q} pieces sold{within}",
            "number of pieces",
        ),
        ("o", REVENUE, "the highest revenue{within}", "a revenue {above} {n} euros{within}", "revenue"),
    ],
    "o": [
        ("", REVENUE, "the highest value", "a value {above} {n} euros", "value"),
        ("", "SUM(l.quantity)", "the most pieces", "{q} pieces", "number of pieces"),
    ],
}
SALES = [(REVENUE, "revenue", " from"), ("SUM(l.quantity)", "number of pieces sold", " of")]
AVERAGES = [
    (REVENUE, "value", "per order"),
    ("SUM(l.quantity)", "number of pieces", "per order"),
    ("COUNT(*)", "number of order lines", "per order"),
]
