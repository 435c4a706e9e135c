"""The values that facts can have: people, numbers, times, codes, places and more."""

from __future__ import annotations

from random import Random

from labkit.tasks.draw import shuffled

_FIRST = """
Ada Alwin Anouk Arif Bea Benno Bridie Callum Carys Chidi Cleo Dagmar Dev Edda Elias Emre Enid Farah Femi
Fergus Gita Greta Hamish Hana Hedda Ida Imran Ines Ivo Jarek Jonas Joyce Kamal Kezia Kit Lars Leila Lorna
Luca Mabel Malik Marit Milo Nadia Ned Niamh Odile Olek Osman Petra Priya Quentin Rhona Rosa Sefton Signe
Soren Tamsin Tomasz Ulla Vera Wilf Yusuf Zofia
""".split()
_LAST = """
Abbot Akande Alder Bancroft Barlow Bevan Birkett Bose Brandt Calder Carver Chowdhury Cobb Cotter Dalby Demir
Drummond Eason Ekwueme Farrow Fenn Finch Garrick Gill Goddard Grieve Haddad Halloran Hargreave Holm Ibsen
Ingram Jardine Joshi Kaplan Kerr Kowal Laing Lindqvist Lowther Mackie Malone Marchetti Mistry Nash Novak
Oakes Okoro Ormond Pasco Pettit Platt Quirke Rahman Reed Rigby Rusk Sattler Sayed Shaw Sorley Tait Thackray
Tolland Udall Vance Voss Wadham Yates
""".split()

POOLS = {
    "assembly": (
        "bandstand, corn exchange, bus station, war memorial, duck pond, library steps, old pump, cattle "
        "market, fire station, clock tower, tennis courts, chapel gate, tram stop, rose garden, swimming "
        "baths, post office, town well, coal yard, bowling green, grain store"
    ),
    "carriers": (
        "Swift Post, Grey Van, Tidewater Freight, Parcel Fox, Bluebell Couriers, Anvil Haulage, Pony "
        "Post, Northline, Redcap Express, Marigold Mail, Ferryman Freight, Milestone Carriers"
    ),
    "colours": (
        "scarlet, lilac, turquoise, navy, peach, lime, brown, teal, crimson, mauve, pink, silver, beige, "
        "violet"
    ),
    "meetings": (
        "north gate, ferry landing, stone circle, mill bridge, quarry car park, signal box, hill chapel, "
        "boat house, sheepfold, water tower, lime kiln, toll house, forest hut, windmill"
    ),
    "brings": (
        "pencil, tin mug, wool hat, rain cape, folding stool, paper map, sandwich box, drinking bottle, "
        "bath towel, notebook, camera, blanket, wooden spoon, pair of socks"
    ),
    "shades": (
        "heather grey, rust red, moss green, slate blue, mustard yellow, oat white, plum purple, coal "
        "black, copper orange, lake blue, sand beige, fern green, brick red, ink blue, chestnut brown, "
        "rose pink, mint green, storm grey, pine green, honey yellow"
    ),
    "towns": (
        "Aldergrave, Bystrand, Corvalde, Dremmen, Estavik, Fjellby, Hallenau, Istrova, Jarnfors, "
        "Kolmberg, Lindra, Morvale, Nordhus, Ostwerk, Pellingen, Quarnby, Rosvik, Stavring, Torvala, "
        "Veldra"
    ),
    "rooms": (
        "Attic Room, Boiler Room, Chart Room, Dairy, Engine Room, Forge, Gallery, Hayloft, Icehouse, "
        "Joinery, Lamp Room, Mill Room, Nursery, Oil Store, Pantry, Quiet Room, Rope Loft, Stable, Tack "
        "Room, Undercroft, Vestry, Wheelhouse"
    ),
}
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


class Supply:
    """All possible values of an attribute in a fixed random order, handed out one after the other."""

    def __init__(self, name: str, values: list[str]):
        self.left = shuffled(Random(f"handbook/values/{name}"), values)

    def take(self, used: set[str]) -> str:
        """The next value that is not in `used`; it goes to the end, so that all come once first."""
        value = next(value for value in self.left if value not in used)
        self.left.remove(value)
        self.left.append(value)
        return value


# No two facts of the handbook share a person or an extension.
def people() -> list[str]:
    """Every possible name of a member of staff."""
    return [f"{first} {last}" for first in _FIRST for last in _LAST]


def extensions() -> list[str]:
    """Every extension, four digits."""
    return [str(number) for number in range(2003, 9990, 7)]


def possible(kind: str, rest: list[str], own: list[str]) -> list[str]:
    """Every value of a kind, as an attribute line of the phrase data describes it.

    `own` are the subject's ranges, for the kind of that name.
    """
    if kind == "own":
        steps, unit = int(rest[1]), rest[2]
        numbers = _numbers(f"{own[int(rest[0])]}/{steps}")
        return [f"£{n}" if unit == "£" else f"{n} {unit}" for n in numbers]
    if kind == "pool":
        return POOLS[rest[0]].split(", ")
    if kind == "weekday":
        return WEEKDAYS
    if kind == "monthyear":
        return [f"{month} {year}" for month in MONTHS for year in range(2027, 2034)]
    if kind == "date":
        first, last = map(int, rest[0].split("-"))
        return [f"{day} {month}" for month in MONTHS[first - 1 : last] for day in range(2, 29)]
    if kind == "time":
        first, last = (_minutes(clock) for clock in rest[0].partition("/")[0].split("-"))
        return [f"{m // 60}:{m % 60:02d}" for m in range(first, last + 1, int(rest[0].partition("/")[2]))]
    if kind == "range":
        first, last = map(int, rest[0].split("-"))
        return [f"{n} to {n + gap} {rest[1]}" for n in range(first, last) for gap in (1, 2, 3, 4, 5)]
    write = {
        "unit": lambda n: f"{n} {rest[1]}", "age": lambda n: f"{n} years", "money": lambda n: f"£{n}",
        "percent": lambda n: f"{n}%", "code": lambda n: f"{rest[0]}-{n}", "nth": lambda n: f"{rest[1]} {n}",
        "count": str, "number": str, "year": str,
    }[kind]  # fmt: skip
    return [write(n) for n in _numbers(rest[1] if kind == "code" else rest[0])]


def _numbers(text: str) -> range:
    """ "8-20/2" as the numbers from 8 to 20 in steps of 2."""
    bounds, _, step = text.partition("/")
    first, last = map(int, bounds.split("-"))
    return range(first, last + 1, int(step or 1))


def _minutes(clock: str) -> int:
    hours, minutes = map(int, clock.split(":"))
    return 60 * hours + minutes
