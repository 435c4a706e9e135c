"""Phrase data of the sql family: how a condition is said.

Each entry has a key (table and column, then the comparison), the phrases of training and, on the third line, those
that only test uses. A leading "^" marks an adjective that stands before the noun. `{v}`, `{w}` are values, `{n}`,
`{m}` numbers, `{d}`, `{e}` days, `{x}` a product or a person, `{np}` a noun phrase ("orders placed by phone").
"""
# ruff: noqa: E501

from __future__ import annotations

_OWN = """
c.city=
from {v} | in {v} | living in {v} | based in {v} | who live in {v} | who come from {v}
whose city is {v} | resident in {v} | at home in {v}
c.city in
from {v} or {w} | in {v} or {w} | living in {v} or {w} | who live in {v} or {w}
whose city is {v} or {w} | resident in {v} or {w} | at home in either {v} or {w}
c.city<>
not from {v} | outside {v} | who do not live in {v} | who are not from {v}
whose city is not {v} | from any city but {v} | living anywhere except {v}
c.tier=
^{v} | with {v} tier | on the {v} tier | in the {v} tier | who are {v} members
whose tier is {v} | with a {v} membership | holding {v} status
c.tier<>
not on the {v} tier | who are not {v} members | without {v} tier
whose tier is not {v} | with any tier except {v}
c.joined year
who joined in {v} | who signed up in {v} | registered in {v} | who became customers in {v}
whose joining date is in {v} | who opened their account in {v} | new to us in {v}
c.joined month
who joined in {v} | who signed up in {v} | registered in {v} | who became customers in {v}
whose joining date is in {v} | who opened their account in {v} | new to us in {v}
c.joined>
who joined after {d} | who signed up after {d} | registered after {d} | who became customers after {d}
whose joining date is later than {d} | who opened their account after {d}
c.joined<
who joined before {d} | who signed up before {d} | registered before {d} | who became customers before {d}
whose joining date is earlier than {d} | who opened their account before {d}
c.joined>=
who joined on or after {d} | who signed up on or after {d} | registered on or after {d}
who joined on {d} or later | whose joining date is {d} or later
c.joined between
who joined between {d} and {e} | who signed up between {d} and {e} | registered between {d} and {e}
whose joining date is between {d} and {e} | who joined no earlier than {d} and no later than {e}
c.name first
whose name starts with {v} | whose names start with {v} | with a name that starts with {v}
with {v} as the first letter of the name | whose name begins with {v}
c.name last
with the last name {v} | whose last name is {v} | who have the last name {v}
whose surname is {v} | with the surname {v} | with the family name {v}
p.category=
in the category {v} | in the {v} category | from the category {v} | of the category {v} | that are in the category {v}
whose category is {v} | that belong to the {v} category | listed under {v}
p.category in
in the categories {v} and {w} | in the category {v} or {w} | from the categories {v} and {w}
whose category is {v} or {w} | that belong to the categories {v} or {w} | listed under {v} or {w}
p.category<>
not in the category {v} | outside the category {v} | that are not in the {v} category
whose category is not {v} | from any category but {v} | listed under anything except {v}
p.price>
that cost more than {n} euros | with a price above {n} euros | priced above {n} euros | above €{n} | that cost more than €{n}
whose price exceeds {n} euros | that sell for over €{n} | dearer than {n} euros
p.price<
that cost less than {n} euros | with a price below {n} euros | priced below {n} euros | below €{n} | cheaper than {n} euros
whose price is under {n} euros | that sell for less than €{n} | priced under {n} euros
p.price>=
that cost at least {n} euros | with a price of at least {n} euros | priced at {n} euros or more | of €{n} or more
whose price is no less than {n} euros | that sell for €{n} or more
p.price<=
that cost at most {n} euros | with a price of at most {n} euros | priced at {n} euros or less | of €{n} or less
whose price is no more than {n} euros | that sell for €{n} or less
p.price between
that cost between {n} and {m} euros | priced between {n} and {m} euros | with a price between {n} and {m} euros | with a price from €{n} to €{m}
whose price is between {n} and {m} euros | that sell for €{n} to €{m} | in the price range from {n} to {m} euros
p.stock>
with more than {n} in stock | with a stock above {n} | of which more than {n} are in stock | that have a stock above {n}
of which we hold more than {n} pieces | whose stock exceeds {n} | with over {n} pieces on the shelf
p.stock<
with fewer than {n} in stock | with a stock below {n} | of which fewer than {n} are in stock | that have a stock below {n}
of which we hold fewer than {n} pieces | whose stock is under {n} | with under {n} pieces on the shelf
p.stock=
that are out of stock | out of stock | with no stock | that are sold out
whose stock is zero | with nothing left in stock | of which no piece is left
p.weight>
that weigh more than {n} grams | heavier than {n} grams | with a weight above {n} g | heavier than {n} g
whose weight exceeds {n} grams | weighing over {n} g
p.weight<
that weigh less than {n} grams | lighter than {n} grams | with a weight below {n} g | lighter than {n} g
whose weight is under {n} grams | weighing less than {n} g
p.weight between
that weigh between {n} and {m} grams | with a weight between {n} and {m} grams | weighing from {n} to {m} g
whose weight is between {n} and {m} grams | that weigh from {n} to {m} g
p.name has
with "{v}" in the name | whose name contains "{v}" | that have "{v}" in the name
whose name includes the word "{v}" | named with the word "{v}"
s.country=
^{a} | from {v} | in {v} | based in {v} | that are based in {v}
whose country is {v} | located in {v} | with their seat in {v}
s.country in
from {v} or {w} | in {v} or {w} | based in {v} or {w} | that are based in {v} or {w}
whose country is {v} or {w} | located in either {v} or {w}
s.country<>
not from {v} | outside {v} | that are not based in {v}
whose country is not {v} | located anywhere but in {v}
o.status=
^{v} | with status {v} | with the status {v} | that are {v}
whose status is {v} | currently marked {v} | in the state "{v}"
o.status<>
that are not {v} | with a status other than {v} | without the status {v}
whose status is not {v} | marked anything but {v}
o.status in
that are {v} or {w} | with status {v} or {w} | with the status {v} or {w}
whose status is {v} or {w} | currently marked {v} or {w}
o.channel=
placed {how} | made {how} | {how} | that were placed {how}
whose channel is {v} | that came in {how} | received {how}
o.channel<>
not placed {how} | with a channel other than {v} | that were not placed {how}
whose channel is not {v} | that did not come in {how}
o.day month
placed in {v} | from {v} | made in {v} | in {v} | that were placed in {v}
dated {v} | that came in during {v} | received in {v}
o.day year
placed in {v} | from {v} | made in {v} | in {v} | that were placed in {v}
dated {v} | that came in during {v} | received in {v}
o.day relative
placed {v} | made {v} | that were placed {v} | that were made {v}
that came in {v} | received {v}
o.day>
placed after {d} | made after {d} | after {d} | that were placed after {d}
dated later than {d} | that came in after {d} | received after {d}
o.day<
placed before {d} | made before {d} | before {d} | that were placed before {d}
dated earlier than {d} | that came in before {d} | received before {d}
o.day>=
placed on or after {d} | since {d} | placed since {d} | that were placed since {d}
dated {d} or later | that came in on {d} or later
o.day=
placed on {d} | made on {d} | from {d} | that were placed on {d}
dated {d} | that came in on {d} | received on {d}
o.day between
placed between {d} and {e} | made between {d} and {e} | from {d} to {e} | that were placed between {d} and {e}
dated between {d} and {e} | that came in between {d} and {e}
r.reason=
with the reason "{v}" | for the reason "{v}" | with reason "{v}" | that have the reason "{v}"
whose reason is "{v}" | that give "{v}" as the reason | explained by "{v}"
r.reason<>
with a reason other than "{v}" | not for the reason "{v}" | that do not have the reason "{v}"
whose reason is not "{v}" | that give anything but "{v}" as the reason
r.reason in
with the reason "{v}" or "{w}" | for the reason "{v}" or "{w}" | that have the reason "{v}" or "{w}"
whose reason is "{v}" or "{w}" | that give "{v}" or "{w}" as the reason
r.refund>
with a refund above {n} euros | with a refund of more than €{n} | that have a refund above {n} euros
whose refund exceeds {n} euros | refunded with over €{n}
r.refund<
with a refund below {n} euros | with a refund of less than €{n} | that have a refund below {n} euros
whose refund is under {n} euros | refunded with less than €{n}
r.day month
made in {v} | from {v} | in {v} | that were made in {v}
dated {v} | that arrived in {v} | received in {v}
r.day year
made in {v} | from {v} | in {v} | that were made in {v}
dated {v} | that arrived in {v} | received in {v}
r.day>
made after {d} | after {d} | that were made after {d}
dated later than {d} | that arrived after {d}
r.day<
made before {d} | before {d} | that were made before {d}
dated earlier than {d} | that arrived before {d}
"""

# Conditions on another table, reached by a join or by a subselect.
_RELATED = """
o to c
placed by {np} | by {np} | from {np} | that were placed by {np}
that {np} placed | received from {np} | made by {np}
o to x
placed by {x} | by {x} | from {x} | that were placed by {x}
that {x} placed | received from {x} | made by {x}
p to s
supplied by {np} | from {np} | that are supplied by {np} | bought from {np}
that {np} supply | delivered by {np} | sourced from {np}
p to x
supplied by {x} | from {x} | that are supplied by {x} | bought from {x}
that {x} supplies | delivered by {x} | sourced from {x}
r to p
of {np} | for {np} | that are for {np}
concerning {np} | that concern {np}
r to x
of {x} | for {x} | that are for {x}
concerning {x} | that concern {x}
r to o
from {np} | of {np} | that belong to {np}
that go back to {np} | resulting from {np}
r to c
by {np} | from {np} | made by {np} | that were made by {np}
that {np} sent in | sent in by {np}
c some o
with {np} | who have {np} | having {np}
to whom {np} belong | credited with {np}
c no o
without {np} | who have no {np} | who do not have any {np}
to whom no {np} belong | lacking {np}
c no o at all
who never ordered anything | without any orders | who have no orders | who have never placed an order
who have yet to place their first order | lacking any order
c some p
who ordered {np} | who have ordered {np} | with orders for {np}
who bought {np} | known to have bought {np}
c some x
who ordered {x} | who have ordered {x} | with orders for {x}
who bought {x} | known to have bought {x}
c no x
who never ordered {x} | who have not ordered {x} | without orders for {x}
who never bought {x} | not known to have bought {x}
c some r
with {np} | who have {np} | having {np}
to whom {np} belong | credited with {np}
p no o
not contained in any {np} | that appear in no {np} | that are part of no {np}
that no {np} include | missing from all {np}
p no o at all
that were never ordered | never ordered by anyone | that nobody has ordered
that have yet to be sold once | not sold to anyone so far
p some r
with {np} | that have {np} | having {np}
that received {np} | affected by {np}
p no r
without {np} | that have no {np} | that do not have any {np}
that received no {np} | unaffected by {np}
p no r at all
that were never returned | never returned by anyone | without any returns
that nobody ever sent back | not sent back so far
s some p
with {np} | that supply {np} | supplying {np}
that deliver {np} | delivering {np}
s no p
without {np} | that supply no {np} | that do not supply any {np}
that deliver no {np} | not delivering any {np}
o some p
containing {np} | that contain {np} | with {np}
that include {np} | including {np}
o some x
containing {x} | that contain {x} | with {x}
that include {x} | including {x}
o no x
not containing {x} | that do not contain {x} | without {x}
that do not include {x} | lacking {x}
o some r
with {np} | that have {np} | having {np}
that led to {np} | affected by {np}
p.price> avg
that cost more than the average product | with an above-average price | priced above the average of all products
whose price is higher than the mean price of all products | dearer than the average product
p.price< avg
that cost less than the average product | with a below-average price | priced below the average of all products
whose price is lower than the mean price of all products | of below-average price
p.stock> avg
that have more in stock than the average product | with an above-average stock
whose stock is higher than the mean stock of all products | stocked above the average of all products
p.weight> avg
that weigh more than the average product | with an above-average weight | heavier than the average product
whose weight is higher than the mean weight of all products | weighing more than the average product
p.weight< avg
that weigh less than the average product | with a below-average weight | lighter than the average product
whose weight is lower than the mean weight of all products | weighing less than the average product
r.refund> avg
with an above-average refund | with a refund above the average of all returns | that have an above-average refund
whose refund is higher than the mean refund of all returns | refunded more than the average return
p.price> avg in
that cost more than the average product in the category {v} | priced above the average of the category {v}
whose price is higher than the mean price of the category {v} | dearer than the average product of the {v} category
p.price> x
that cost more than {x} | more expensive than {x} | with a higher price than {x}
whose price exceeds that of {x} | dearer than {x}
p.price< x
that cost less than {x} | cheaper than {x} | with a lower price than {x}
whose price is under that of {x} | less dear than {x}
p.weight> x
that weigh more than {x} | heavier than {x} | with a higher weight than {x}
whose weight exceeds that of {x} | weighing more than {x}
p.weight< x
that weigh less than {x} | lighter than {x} | with a lower weight than {x}
whose weight is under that of {x} | weighing less than {x}
p.supplier x
from the supplier of {x} | supplied by the supplier of {x} | that come from the supplier of {x}
whose supplier also supplies {x} | sourced where we source {x}
p.category x
in the category of {x} | in the same category as {x} | that are in the category of {x}
whose category is that of {x} | listed under the category of {x}
c.city x
from the city of {x} | in the city of {x} | who live in the city of {x}
whose city is also the city of {x} | resident in the city of {x}
c.joined< x
who joined before {x} | who signed up before {x} | registered before {x}
whose joining date is earlier than that of {x}
c.joined> x
who joined after {x} | who signed up after {x} | registered after {x}
whose joining date is later than that of {x}
"""


def _read(text: str) -> dict[str, tuple[list[str], list[str]]]:
    lines = text.strip().splitlines()
    return {lines[i]: (lines[i + 1].split(" | "), lines[i + 2].split(" | ")) for i in range(0, len(lines), 3)}


OWN = _read(_OWN)
RELATED = _read(_RELATED)
PHRASES = {**OWN, **RELATED}
NOUNS = {"c": "customers", "p": "products", "s": "suppliers", "o": "orders", "r": "returns", "l": "order lines"}
HOW = {"web": "on the web", "app": "in the app", "shop": "in the shop", "phone": "by phone"}
ADJECTIVES = {"Norway": "Norwegian", "Sweden": "Swedish", "Finland": "Finnish", "Germany": "German",
              "Austria": "Austrian", "Italy": "Italian", "France": "French", "Portugal": "Portuguese",
              "Poland": "Polish"}  # fmt: skip
# Words for columns, singular and plural; the second pair only in test.
COLUMN_WORDS = {
    "c.name": ("name/names", "name/names"), "c.city": ("city/cities", "city/cities"),
    "c.tier": ("tier/tiers", "tier/tiers"), "c.joined": ("joining date/joining dates", "date of joining/dates of joining"),
    "p.name": ("name/names", "name/names"), "p.category": ("category/categories", "category/categories"),
    "p.price": ("price/prices", "price/prices"), "p.stock": ("stock/stock", "number in stock/numbers in stock"),
    "p.weight": ("weight/weights", "weight/weights"),
    "s.name": ("name/names", "name/names"), "s.country": ("country/countries", "country/countries"),
    "o.id": ("id/ids", "id/ids"), "o.day": ("date/dates", "day/days"),
    "o.status": ("status/statuses", "status/statuses"), "o.channel": ("channel/channels", "channel/channels"),
    "r.id": ("id/ids", "id/ids"), "r.day": ("date/dates", "day/days"),
    "r.reason": ("reason/reasons", "reason/reasons"), "r.refund": ("refund/refunds", "refund/refunds"),
    "o>c.name": ("customer name/customer names", "customer's name/customers' names"),
    "o>c.city": ("customer city/customer cities", "customer's city/customers' cities"),
    "p>s.name": ("supplier name/supplier names", "supplier's name/suppliers' names"),
    "p>s.country": ("supplier country/supplier countries", "supplier's country/suppliers' countries"),
    "r>p.name": ("product name/product names", "product's name/products' names"),
    "r>p.category": ("product category/product categories", "product's category/products' categories"),
    "r>o.channel": ("order channel/order channels", "order's channel/orders' channels"),
    "r>c.name": ("customer name/customer names", "customer's name/customers' names"),
}  # fmt: skip
AGGREGATE_WORDS = {"AVG": ("average", "mean"), "SUM": ("total", "combined"), "MIN": ("lowest", "minimum"),
                   "MAX": ("highest", "maximum")}
DATE_AGGREGATE_WORDS = {"MIN": ("earliest", "first"), "MAX": ("latest", "last")}
# What orders rows: (phrases before the noun, phrases behind it), then those of test.
SUPERLATIVES = {
    ("p.price", True): (["most expensive"], ["with the highest price", "with the highest prices"], ["dearest"], ["that cost the most"]),
    ("p.price", False): (["cheapest"], ["with the lowest price", "with the lowest prices"], ["least expensive"], ["that cost the least"]),
    ("p.weight", True): (["heaviest"], ["with the highest weight"], ["weightiest"], ["that weigh the most"]),
    ("p.weight", False): (["lightest"], ["with the lowest weight"], ["least heavy"], ["that weigh the least"]),
    ("p.stock", True): ([], ["with the highest stock", "with the largest stock"], [], ["of which we hold the most pieces"]),
    ("p.stock", False): ([], ["with the lowest stock", "with the smallest stock"], [], ["of which we hold the fewest pieces"]),
    ("r.refund", True): ([], ["with the highest refund", "with the highest refunds"], [], ["that were refunded the most"]),
    ("r.refund", False): ([], ["with the lowest refund", "with the lowest refunds"], [], ["that were refunded the least"]),
    ("c.joined", True): (["newest"], ["with the latest joining date", "with the latest joining dates"], ["most recent"], ["that signed up last"]),
    ("c.joined", False): ([], ["with the earliest joining date", "with the earliest joining dates"], [], ["that signed up first"]),
    ("o.day", True): (["latest"], ["with the latest date"], ["most recent"], ["that came in last"]),
    ("r.day", True): (["latest"], ["with the latest date"], ["most recent"], ["that came in last"]),
}  # fmt: skip
SORTS = {
    ("p.price", False): (["sorted by price from low to high", "cheapest first", "by ascending price"], ["starting with the cheapest", "in ascending order of price"]),
    ("p.price", True): (["sorted by price from high to low", "most expensive first", "by descending price"], ["starting with the dearest", "in descending order of price"]),
    ("p.weight", False): (["sorted by weight from low to high", "lightest first", "by ascending weight"], ["starting with the lightest", "in ascending order of weight"]),
    ("p.weight", True): (["sorted by weight from high to low", "heaviest first", "by descending weight"], ["starting with the heaviest", "in descending order of weight"]),
    ("p.stock", True): (["sorted by stock from high to low", "largest stock first", "by descending stock"], ["starting with the largest stock", "in descending order of stock"]),
    ("p.stock", False): (["sorted by stock from low to high", "smallest stock first", "by ascending stock"], ["starting with the smallest stock", "in ascending order of stock"]),
    ("p.name", False): (["sorted by name", "in alphabetical order", "sorted by name from A to Z"], ["alphabetically by name", "from A to Z"]),
    ("c.name", False): (["sorted by name", "in alphabetical order", "sorted by name from A to Z"], ["alphabetically by name", "from A to Z"]),
    ("s.name", False): (["sorted by name", "in alphabetical order", "sorted by name from A to Z"], ["alphabetically by name", "from A to Z"]),
    ("p.name", True): (["sorted by name from Z to A", "in reverse alphabetical order"], ["from Z to A"]),
    ("c.name", True): (["sorted by name from Z to A", "in reverse alphabetical order"], ["from Z to A"]),
    ("c.joined", False): (["sorted by joining date", "in order of joining", "earliest joining date first"], ["starting with the one who joined first", "from the earliest joining date to the latest"]),
    ("c.joined", True): (["sorted by joining date, latest first", "newest first"], ["starting with the one who joined last", "from the latest joining date to the earliest"]),
    ("o.day", False): (["sorted by date", "in order of date", "oldest first"], ["starting with the oldest", "chronologically"]),
    ("o.day", True): (["sorted by date, latest first", "newest first"], ["starting with the latest", "in reverse chronological order"]),
    ("r.day", False): (["sorted by date", "in order of date", "oldest first"], ["starting with the oldest", "chronologically"]),
    ("r.refund", True): (["sorted by refund from high to low", "highest refund first"], ["starting with the highest refund", "in descending order of refund"]),
    ("r.refund", False): (["sorted by refund from low to high", "lowest refund first"], ["starting with the lowest refund", "in ascending order of refund"]),
}  # fmt: skip
