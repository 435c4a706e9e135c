# ruff: noqa: E501
"""Phrasings of the arithmetic questions: bare sums and small scenes from the shop.

{a}, {b} and {c} are the numbers of the calculation above each list, none below 2, so that every plural is right.
"""

from __future__ import annotations

# ---- bare additions and subtractions --------------------------------------------------------------------

TRAIN_ADD = """
What is {a} + {b}?
{a} + {b} = ?
Add {a} and {b}.
Calculate {a} + {b}.
What is the sum of {a} and {b}?
How much is {a} plus {b}?
Work out {a} plus {b}.
What do you get if you add {b} to {a}?
Please add up {a} and {b}.
Compute the sum {a} + {b}.
Find {a} + {b}.
{a} plus {b} equals what?
Tell me the total of {a} and {b}.
Increase {a} by {b}.
If you put {a} and {b} together, which number do you get?
Can you add these two numbers: {a} and {b}?
How much do {a} and {b} make?
I need the sum of {a} and {b}, please.
Start at {a} and count up by {b}. Where do you end?
Solve: {a} + {b}
"""
TEST_ADD = """
Which number is {b} more than {a}?
Give me the result of {a} + {b}.
Take {a}, then add {b} to it. What comes out?
{a} and {b}: what do they come to?
Do this addition for me: {a} + {b}.
By adding {a} and {b}, one gets which number?
A list has the entries {a} and {b}. What is its total?
Raise {a} by {b} and name the result.
"""
TRAIN_SUBTRACT = """
What is {a} - {b}?
{a} - {b} = ?
Subtract {b} from {a}.
Calculate {a} - {b}.
What is the difference between {a} and {b}?
How much is {a} minus {b}?
Work out {a} minus {b}.
What do you get if you take {b} away from {a}?
Please subtract {b} from {a}.
Compute the difference {a} - {b}.
Find {a} - {b}.
{a} minus {b} equals what?
Tell me how much {a} is above {b}.
Decrease {a} by {b}.
If you remove {b} from {a}, which number is left?
How far is it from {b} up to {a}?
How much is left of {a} without {b}?
I need {a} less {b}, please.
Start at {a} and count down by {b}. Where do you end?
Solve: {a} - {b}
"""
TEST_SUBTRACT = """
Which number is {b} less than {a}?
Give me the result of {a} - {b}.
Take {a}, then deduct {b} from it. What comes out?
What must be added to {b} to make {a}?
Do this subtraction for me: {a} - {b}.
By taking {b} from {a}, one gets which number?
A list has the entries {a} and {b}. How far apart are they?
Lower {a} by {b} and name the result.
"""

# ---- scenes ---------------------------------------------------------------------------------------------

TRAIN_SCENES = {
    "a+b": """
The warehouse holds {a} {goods}, and a lorry brings {b} more. How many {goods} are there now?
The shop sold {a} {goods} in {month} and {b} in {month2}. How many {goods} did it sell in the two months?
One shipment weighs {a} kilograms and another weighs {b} kilograms. What do the two weigh together, in kilograms?
On {day} {name} packed {a} {goods}, and a colleague packed {b}. How many {goods} did the two pack?
The {town} shop took {a} euros on {day} and {b} euros the day after. How many euros were taken on the two days?
There are {a} {goods} on the shelves and {b} in the storeroom. How many {goods} does the shop have?
The customer club has {a} members, and {b} people join. How many members does it have then?
One order is for {a} {goods}, another for {b}. How many {goods} are ordered in all?
In the first room {name} counted {a} {goods}, in the second {b}. What is the total?
The website had {a} visitors last week and {b} this week. How many visitors is that in two weeks?
The rent comes to {a} euros and the wages to {b} euros. What do rent and wages cost together, in euros?
A supplier sends {a} {goods} by rail and {b} by road. How many {goods} are sent?
Last year the workshop repaired {a} zips, this year {b}. How many zips were repaired in the two years?
{name} has {a} bonus points and gets {b} more. How many points does {name} have now?
The {town} branch orders {a} {goods}, the {town2} branch orders {b}. How many {goods} do the two branches order?
The shop bought {a} metres of rope in {month} and {b} metres in {month2}. How many metres did it buy?
Today {b} {goods} were added to a stock of {a}. How large is the stock now?
A printer delivered {a} leaflets in the morning and {b} in the afternoon. How many leaflets came that day?
""",
    "a-b": """
There were {a} {goods} in stock, and {b} were sold. How many {goods} are left?
The shop ordered {a} {goods}, but only {b} arrived. How many {goods} are missing?
Today {name} has to pack {a} {goods} and has packed {b}. How many {goods} are still to be packed?
The {town} shop sold {a} {goods} and the {town2} shop sold {b}. How many more did {town} sell?
With its packing a shipment weighs {a} kilograms, the packing alone {b} kilograms. What do the goods weigh, in kilograms?
A bill comes to {a} euros, of which {b} euros have been paid. How many euros are still owed?
Of the {a} {goods} in the storeroom, {b} are damaged. How many {goods} are undamaged?
The customer club had {a} members before {b} of them left. How many members remain?
The shop took {a} euros in {month} and {b} euros in {month2}. How many euros less did it take in {month2}?
For a gift {name} needs {a} bonus points and has {b}. How many points are missing?
Of {a} letters that went out on {day}, {b} came back. How many letters did not come back?
From {a} metres of rope {b} metres were cut off. How many metres of rope remain?
The newsletter went to {a} readers, and {b} of them opened it. How many readers did not?
After {b} {goods} are taken out, how many of the {a} in the warehouse are left?
The budget for the stall is {a} euros, and {name} has spent {b} euros. How many euros can still be spent?
A courier took {b} of the {a} parcels. How many parcels are still waiting?
The plan was to sell {a} {goods}, but {b} were sold. By how many was the plan missed?
In {month} {name} ordered {a} labels and used {b}. How many labels are left over?
""",
    "a+b-c": """
The shop has {a} {goods}. Then {b} more are delivered and {c} are sold. How many {goods} are there at the end?
In one day {name} packs {a} parcels in the morning and {b} after lunch, and {c} are collected. How many parcels are left?
The till held {a} euros. Sales brought {b} euros, and {c} euros went to the bank. How many euros are in the till?
A van carries {a} kilograms. It loads {b} kilograms and unloads {c} kilograms. How many kilograms does it carry?
The {town} shop has {a} {goods} and the {town2} shop {b}. Together they sell {c}. How many {goods} do they keep?
One box holds {a} {goods}, another {b}, and {name} takes out {c}. How many are left in the two boxes?
With {a} points from {month} and {b} from {month2}, {name} pays {c} points for a gift. How many points are left?
Two suppliers send {a} and {b} {goods}, of which {c} are faulty. How many {goods} are not faulty?
""",
    "a-b+c": """
The shop had {a} {goods}, sold {b} and then received {c}. How many {goods} does it have now?
The storeroom held {a} {goods}. On {day} {name} took out {b} and brought in {c} new ones. How many are there now?
A customer owed {a} euros, paid {b} euros and then bought a tent for {c} euros on credit. What is owed now, in euros?
A pack weighs {a} grams. A stove of {b} grams comes out, a jacket of {c} grams goes in. What does it weigh, in grams?
The climbing club had {a} members. In {month} {b} left and {c} joined. How many members does it have now?
There were {a} people in the shop. Then {b} went out and {c} came in. How many people are in the shop now?
An account stood at {a} euros. A bill of {b} euros was paid, and {c} euros came in. How many euros are in it now?
The stock of {goods} was {a}. It fell by {b} on {day} and rose by {c} the day after. What is the stock now?
""",
    "a-b-c": """
Of {a} {goods}, {b} were sold on {day} and {c} the day after. How many {goods} are left?
From {a} euros {name} pays {b} euros for a tent and {c} euros for a stove. How many euros are left?
A roll has {a} metres of cord. One customer gets {b} metres and another {c} metres. How many metres are left?
The shop ordered {a} {goods}. By rail came {b}, by road {c}, and the rest are late. How many {goods} are late?
A course has {a} places. Online {b} were booked, in the shop {c}. How many places are free?
A package weighs {a} grams, of which the box is {b} grams and the straw {c} grams. What does the rest weigh, in grams?
In {month} {name} counted {a} {goods}. Since then {b} were sold and {c} got lost. How many should be there now?
Out of {a} orders {b} were sent on {day} and {c} were cancelled. How many orders are still open?
""",
    "a+b+c": """
The shop paid {a} euros for rent, {b} euros for power and {c} euros for repairs. How many euros did it pay?
Three orders are for {a}, {b} and {c} {goods}. How many {goods} are ordered in all?
There are {a} {goods} on the ground floor, {b} on the first floor and {c} in the attic. How many {goods} is that?
The shop had {a} customers on Friday, {b} on Saturday and {c} on Monday. How many customers came on the three days?
Parcels of {a}, {b} and {c} grams go into one sack. What do they weigh together, in grams?
A walk has stages of {a}, {b} and {c} metres. How many metres long is the walk?
The branches in {town}, {town2} and Wells need {a}, {b} and {c} {goods}. How many {goods} do they need altogether?
""",
}
TEST_SCENES = {
    "a+b": """
Yesterday the depot had {a} {goods}. Overnight {b} came in. What is the new number of {goods}?
The clubs of {town} and {town2} collect signatures, {a} and {b}. How many signatures have they together?
Two containers hold {a} and {b} {goods}. How many {goods} do the containers hold between them?
It costs {a} euros to repair the roof and {b} euros to paint the walls. What is the whole cost in euros?
In {town} {a} people answered a survey, in {town2} {b}. How many answers does {name} get?
A machine cut {a} straps before the break and {b} after it. How many straps did the machine cut?
The shop gave away {a} maps in {month}, and {b} in {month2}. Over both months, how many maps did it give away?
""",
    "a-b": """
A depot with {a} {goods} sends {b} to the shops. What number of {goods} stays in the depot?
The factory wants to fill {a} bags and has filled {b} by noon. How many bags have to be filled after noon?
Damp spoilt {b} out of {a} {goods}. How many {goods} stayed dry?
The first offer was {a} euros, the second {b} euros. How many euros cheaper was the second?
In {month} {a} people walked into the {town} shop, and {b} of them bought something. How many bought nothing?
A tank held {a} litres of lamp oil, and {b} litres were drawn off. How many litres does the tank still hold?
Only {b} of {a} {goods} have a price tag. How many {goods} does {name} find without one?
A sack of grit weighing {a} grams lost {b} grams through a hole. How heavy is it now, in grams?
""",
    "a+b-c": """
A depot with {a} {goods} gets {b} from the factory and sends {c} to {town}. What number of {goods} stays at the depot?
{name} earns {a} euros on the stall and {b} euros in the shop, and pays {c} euros in tax. How many euros remain?
In {month} {a} tents were hired, in {month2} {b}, and so far {c} have come back. How many tents are still out?
""",
    "a-b+c": """
From a shelf of {a} {goods} customers buy {b}, and {name} then adds {c}. How many {goods} are on the shelf now?
A bus with {a} litres of fuel uses {b} litres to {town} and fills up with {c} litres. How many litres has it now?
""",
    "a-b-c": """
A depot with {a} {goods} sends {b} to {town} and {c} to {town2}. What number of {goods} does it keep?
{name} has {a} minutes. Stocktaking takes {b} minutes and cleaning {c} minutes. How many minutes are left?
A gift card of {a} euros pays for a rucksack of {b} euros and a mat of {c} euros. How many euros are still on it?
""",
    "a+b+c": """
Before noon {name} sold {a} {goods}, after noon {b}, and online {c} more went. How many {goods} were sold that day?
To reach the hut one climbs {a} steps, then {b} and finally {c}. How many steps is the whole climb?
""",
}

# ---- what fills the scenes ------------------------------------------------------------------------------

# Goods that a warehouse may have by the thousand, and products that are counted in tens and hundreds.
TRAIN_SMALL = ["tent pegs", "carabiners", "bootlaces", "cable ties", "map pins", "buttons", "postcards", "screws",
               "rope clips", "stickers"]
TEST_SMALL = ["buckles", "candles", "rivets", "key rings"]
TRAIN_GOODS = ["Lark tarps", "Rook shelters", "Otter sleeping bags", "Moss mats", "Ember stoves", "Slate mugs",
               "Onyx bottles", "Comet headlamps", "Gale jackets", "Frost vests", "Juniper caps", "pairs of Heath boots",
               "pairs of Cedar socks", "Magpie carabiners", "Lynx compasses", "Cactus towels", "Barley lunch boxes",
               "sets of Acorn pegs", "Chalk bags", "Sable kites"]
TEST_GOODS = ["Stoat sleeping bags", "Flint lighters", "Orbit torches", "Sorrel belts", "Raven helmets",
              "Ibex whistles", "Elm stools", "pairs of Atoll fins", "Bramble repair kits"]
TRAIN_NAMES = ["Mira", "Tom", "Aisha", "Jonas", "Priya", "Carlos", "Ines", "Oleg", "Grace", "Kofi", "Lena", "Sam"]
TEST_NAMES = ["Yusuf", "Clara", "Hiro", "Nadia"]
TRAIN_TOWNS = ["Harrow", "Kendal", "Ambleford", "Stoneby", "Lowick", "Merrow", "Tarnside", "Eastport"]
TEST_TOWNS = ["Greyhill", "Fenwick", "Oldbridge", "Sandham"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December"]  # fmt: skip


def _lines(prefix: str, text: str) -> list[tuple[str, str]]:
    return [(f"{prefix}-{i:02d}", line) for i, line in enumerate(text.strip().splitlines())]


def _phrasings(half: str, add: str, subtract: str, scenes: dict[str, str]) -> dict[str, list]:
    names = {"a+b": "word1", "a-b": "word1", "a+b-c": "word2", "a-b+c": "word2", "a-b-c": "word2", "a+b+c": "word2"}
    found: dict[str, list] = {
        "add": [(name, "a+b", line) for name, line in _lines(f"{half}-add", add)],
        "subtract": [(name, "a-b", line) for name, line in _lines(f"{half}-subtract", subtract)],
        "word1": [],
        "word2": [],
    }
    spelt = {"+": "plus", "-": "minus"}
    for form, text in scenes.items():
        name = "-".join(spelt[sign] for sign in form if sign in spelt)
        found[names[form]] += [(i, form, line) for i, line in _lines(f"{half}-word-{name}", text)]
    return found


# kind ("word1" and "word2": scenes with one and two operations) -> (phrasing id, calculation, text)
TRAIN = _phrasings("train", TRAIN_ADD, TRAIN_SUBTRACT, TRAIN_SCENES)
TEST = _phrasings("test", TEST_ADD, TEST_SUBTRACT, TEST_SCENES)
