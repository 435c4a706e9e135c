"""Makes the rows of the store: customers, products, suppliers, orders, order lines and returns.

Every random choice goes through `labkit.tasks.draw`, so the rows are the same on every machine. All numbers
are whole (prices in euros, weights in grams), so that no sum depends on the order of adding.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache
from random import Random
from typing import Any

from labkit.tasks.draw import pick, shuffled, weighted

TODAY = date(2026, 6, 18)
FIRST_DAY = date(2025, 1, 1)
CUSTOMERS, SUPPLIERS, ORDERS, RETURNS = 400, 20, 1500, 250
NEVER_ORDERED, NEVER_SOLD = 45, 7  # customers without an order, products without an order line

# category: product, price in euros, weight in grams
_PRODUCTS = """
shelter: Kestrel 2 tent 320 2150; Heron 3 tent 410 3100; Plover 1 tent 240 1350; Curlew 4 tent 560 4600
shelter: Lark tarp 85 620; Rook shelter 130 1150; Wagtail hammock 70 540; Dune sunshade 65 1800
shelter: Acorn pegs 15 220
packs: Tarn 40 pack 150 1350; Beck 25 pack 95 880; Fjord 65 pack 220 2050; Creek 18 pack 60 560
packs: Brook duffel 75 980; Delta 90 duffel 140 1650; Inlet dry bag 30 240
sleeping: Otter sleeping bag 190 1250; Badger sleeping bag 130 1650; Stoat sleeping bag 280 890
sleeping: Weasel 3 quilt 165 720; Hare liner 45 310; Moss mat 55 480; Peat 5 mat 110 740; Clover pillow 25 120
cooking: Ember stove 65 290; Cinder 2 stove 120 1450; Flint lighter 10 30; Kiln kettle 35 260
cooking: Basalt pan 40 430; Slate mug 15 110; Quartz flask 35 380; Onyx bottle 25 190; Pebble cup 10 60
cooking: Saffron spice box 20 170; Barley lunch box 25 280; Ochre gas burner 50 210
cooking: Oasis 10 canister 30 650; Teak cool box 180 4200
light: Amber lantern 45 340; Comet headlamp 60 90; Orbit torch 35 130; Nova 300 lamp 55 410
light: Pulsar bike light 30 80; Meteor power bank 70 350; Zenith solar panel 160 980
clothing: Gale jacket 210 480; Squall jacket 160 410; Mistral jacket 290 560; Drizzle poncho 40 330
clothing: Thunder parka 340 1250; Frost vest 120 290; Alder fleece 80 370; Birch shirt 50 180
clothing: Willow hat 30 90; Juniper cap 25 80; Bracken scarf 35 140; Sorrel belt 20 150
clothing: Larch trousers 110 460; Rowan shorts 65 240; Granite gloves 45 130; Lichen mittens 55 160
clothing: Cedar socks 20 70
footwear: Heath boots 230 1320; Moor shoes 140 820; Fen sandals 85 560; Tundra snowshoes 190 1900
footwear: Thistle gaiters 60 260; Hazel crampons 150 870
climbing: Condor rope 170 3600; Falcon harness 75 390; Raven helmet 80 310; Magpie carabiner 15 50
climbing: Bison axe 125 430; Chalk bag 20 85; Spruce poles 90 450
water: Gannet kayak 690 21500; Puffin paddle 95 980; Tern life vest 85 640; Coral snorkel 25 210
water: Reef mask 40 270; Atoll fins 50 950; Cactus towel 30 230
camp: Maple table 95 5200; Walnut chair 70 3300; Elm stool 35 1400; Russet dog bed 60 1100
camp: Sable kite 45 360
tools: Lynx compass 40 75; Ibex whistle 10 20; Beaver saw 45 280; Nettle first aid kit 35 420
tools: Bramble repair kit 25 190; Cobalt map case 30 150; Indigo 7 watch 260 65; Umber binoculars 195 690
"""
CITIES = """
Dublin Cork Galway Limerick Utrecht Leiden Ghent Bruges Lyon Nantes Turin Trento Graz Linz Bonn Kiel Ulm
Jena Porto Braga Bilbao Vigo Turku Tampere Tartu
""".split()
_FIRST = """
Alice Amir Anna Ben Bruno Carla Clara Dan Diego Edith Elena Emil Erik Fiona Greta Hana Hugo Ida Ines Ivan
Jonas Julia Karl Kira Lars Lea Liam Luca Maeve Marta Milo Nadia Nils Nora Olga Oscar Pablo Petra Rosa
Ruth Sara Simon Tara Theo Tom Uma Vera Viktor Yara Zoe
""".split()
_LAST = """
Abel Adler Berg Blum Brandt Byrne Costa Daly Dorn Duarte Egan Falk Ferri Fuchs Gallo Garcia Haas Heller
Horn Ivers Jansen Keane Klein Koch Kruse Lang Leroy Lopes Maas Marin Meyer Moran Mulder Nolan Novak Olsen
Pinto Quinn Reis Ricci Roche Rossi Saar Silva Stein Suarez Tamm Vidal Walsh Weber
""".split()
_SUPPLIERS = {
    "Norway": ["Nordvik Gear", "Fossheim Supply"],
    "Sweden": ["Lindmark Outdoor", "Tallbacka Textiles"],
    "Finland": ["Koivula Works", "Harju Metal"],
    "Germany": ["Steinfurt Tools", "Waldner Trading", "Elbtal Canvas"],
    "Austria": ["Gratwerk", "Almtal Leather"],
    "Italy": ["Valdora Sport", "Monteluce Knits", "Riva Marine"],
    "France": ["Belcombe Textiles", "Aubrac Trail"],
    "Portugal": ["Serrano Cork", "Minhota Shoes"],
    "Poland": ["Zielona Camp", "Bystra Light"],
}
STATUSES = {"delivered": 0.62, "shipped": 0.14, "open": 0.12, "cancelled": 0.12}
CHANNELS = {"web": 0.45, "app": 0.25, "shop": 0.18, "phone": 0.12}
TIERS = {"basic": 0.55, "silver": 0.3, "gold": 0.15}
REASONS = {"wrong size": 0.3, "damaged": 0.22, "faulty": 0.18, "too late": 0.12, "not needed": 0.18}
QUANTITIES = {1: 0.5, 2: 0.22, 3: 0.11, 4: 0.08, 5: 0.04, 6: 0.03, 8: 0.02}

Tables = dict[str, list[list[Any]]]


def products() -> list[tuple[str, str, int, int]]:
    """The catalogue as (name, category, price, weight)."""
    out = []
    for line in _PRODUCTS.strip().splitlines():
        category, _, items = line.partition(": ")
        for item in items.split("; "):
            name, price, weight = item.rsplit(" ", 2)
            out.append((name, category, int(price), int(weight)))
    return out


@cache
def make() -> Tables:
    """All rows of all tables, in the order of the columns in `labkit.tasks.sql.store`; not to be changed."""
    rng = Random("sql/store")
    tables: Tables = {"customers": _customers(rng)}
    tables["suppliers"] = _suppliers()
    tables["products"] = _products(rng)
    tables["orders"] = _orders(rng, tables["customers"])
    tables["order_lines"] = _lines(rng, tables)
    tables["returns"] = _returns(rng, tables)
    return tables


def _customers(rng: Random) -> list[list[Any]]:
    names = shuffled(rng, [f"{first} {last}" for first in _FIRST for last in _LAST])[:CUSTOMERS]
    cities = {city: 0.4 + rng.random() for city in CITIES}
    span = (TODAY - date(2022, 1, 1)).days
    days = sorted(int(span * rng.random()) for _ in names)
    return [
        [i, name, weighted(rng, cities), weighted(rng, TIERS), _day(date(2022, 1, 1), days[i - 1])]
        for i, name in enumerate(names, 1)
    ]


def _suppliers() -> list[list[Any]]:
    pairs = [(name, country) for country, names in _SUPPLIERS.items() for name in names]
    return [[i, name, country] for i, (name, country) in enumerate(sorted(pairs), 1)]


def _products(rng: Random) -> list[list[Any]]:
    # Each category is bought from a few suppliers only.
    sources = {category: shuffled(rng, list(range(1, SUPPLIERS + 1)))[:4] for _, category, _, _ in products()}
    out = []
    for i, (name, category, price, weight) in enumerate(shuffled(rng, products()), 1):
        stock = 0 if rng.random() < 0.1 else 1 + int(180 * _skewed(rng))
        out.append([i, name, category, price, stock, weight, pick(rng, sources[category])])
    # No supplier stands without a product.
    idle = [i for i in range(1, SUPPLIERS + 1) if i not in {row[-1] for row in out}]
    for supplier, row in zip(idle, out, strict=False):
        row[-1] = supplier
    return out


def _orders(rng: Random, customers: list[list[Any]]) -> list[list[Any]]:
    active = shuffled(rng, customers)[NEVER_ORDERED:]
    eager = {i: 0.15 + _skewed(rng) for i in range(len(active))}
    out = []
    days = sorted(int((TODAY - FIRST_DAY).days * rng.random()) for _ in range(ORDERS))
    for i, offset in enumerate(days, 1):
        day = _day(FIRST_DAY, offset)
        joined = "9"
        while joined > day:  # nobody orders before joining
            customer = active[weighted(rng, eager)]
            joined = customer[-1]
        old = offset < (TODAY - FIRST_DAY).days - 30
        status = weighted(rng, STATUSES)
        if old and status in ("open", "shipped") and rng.random() < 0.7:
            status = "delivered"
        out.append([i, customer[0], day, status, weighted(rng, CHANNELS)])
    return out


def _lines(rng: Random, tables: Tables) -> list[list[Any]]:
    sold = shuffled(rng, tables["products"])[NEVER_SOLD:]
    liked = {i: 0.2 + rng.random() for i in range(len(sold))}
    out = []
    for order in tables["orders"]:
        chosen: list[int] = []
        for _ in range(weighted(rng, {1: 0.3, 2: 0.28, 3: 0.22, 4: 0.12, 5: 0.08})):
            i = weighted(rng, liked)
            if i not in chosen:  # a product stands at most once on an order
                chosen.append(i)
        for i in chosen:
            price = sold[i][3]
            if price >= 20 and rng.random() < 0.3:  # a discount
                price = price * pick(rng, [80, 85, 90, 95]) // 100
            out.append([order[0], sold[i][0], weighted(rng, QUANTITIES), price])
    return out


def _returns(rng: Random, tables: Tables) -> list[list[Any]]:
    days = {order[0]: order[2] for order in tables["orders"] if order[3] == "delivered"}
    faults = {row[0]: _skewed(rng) for row in tables["products"]}  # some products come back more often
    lines = [
        line for line in tables["order_lines"] if line[0] in days and rng.random() < 0.02 + faults[line[1]]
    ]
    found = []
    for order, product, quantity, price in shuffled(rng, lines):
        day = _day(date.fromisoformat(days[order]), 5 + int(40 * rng.random()))
        pieces = 1 + int(quantity * rng.random())
        reason = weighted(rng, REASONS)
        refund = pieces * price if reason != "not needed" else pieces * price * 9 // 10
        if day <= TODAY.isoformat():
            found.append([day, order, product, reason, refund])
    return [
        [i, order, product, day, reason, refund]
        for i, (day, order, product, reason, refund) in enumerate(sorted(found[:RETURNS]), 1)
    ]


def _skewed(rng: Random) -> float:
    # a product and not a power, which may differ in the last bit between machines
    return rng.random() * rng.random()


def _day(start: date, offset: int) -> str:
    return (start + timedelta(days=offset)).isoformat()
