"""The instructor's tables: they follow records, cards and prices, and no schedule overfills a slot."""

import json
import math
import random
from types import SimpleNamespace

import pytest

from labkit import build
from labkit.errors import LabkitError
from labkit.records import schedule, store, tables, teaching

SOURCE = '''# %% [markdown]
# # 05 · Title
#
# | You will be able to | You need first | Measured budget |
# |---|---|---|
# | read {words} | lessons 00 and 02 | {{{{budget}}}} |
# %%
# a comment
import math

print(math.pi)
# %% tags=["exercise"]
def answer():
    return 1
# %%
check("05.1", answer)
# %% tags=["solution"]
a = b = 1
'''


def price(dollars):
    one = {"dollars_an_hour": dollars, "date": "2026-11-01", "source": "our contract"}
    teaching.PRICES.write_text(json.dumps({"cards": {"NVIDIA H200": one}}))


@pytest.fixture
def records(tmp_path, monkeypatch):
    """An empty folder of measurements, a price, and a function that writes a lesson's record."""
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    monkeypatch.setattr(teaching, "PRICES", tmp_path / "own.txt")
    price(3)

    def write(stem, profile="gpu", seconds=600.0, peak=9_000_000_000, device="NVIDIA H200", **values):
        whole = {"schema": store.SCHEMA, "seconds": seconds, "peak_bytes": peak, "values": values,
                 "machine": {"device": device}}  # fmt: skip
        store.path_of(stem, profile).write_text(json.dumps(whole))

    return write


def row(table, stem):
    """The cells of a lesson's row in a markdown table."""
    line = next(line for line in table.splitlines() if line.startswith(f"| {stem} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


# ---- what a lesson takes


def test_reading_counts_words_and_lines_of_code_and_leaves_the_exercises_to_their_cards():
    short, long = (teaching.reading(SOURCE.format(words="word " * count)) for count in (1, 401))
    assert long - short == pytest.approx(400 / teaching.WORDS_A_MINUTE)
    more = teaching.reading(SOURCE.format(words="word ") + "# %%\nx = 1\ny = 2\n")
    assert more - short == pytest.approx(2 * teaching.SECONDS_A_LINE / 60)
    assert teaching.reading("# %%\n# a comment\nimport math\n") == pytest.approx(teaching.SECONDS_A_LINE / 60)
    for cell in ('tags=["exercise"]\nx = 1\n', 'tags=["solution"]\nx = 1\n', '\ncheck("05.1", x)\n'):
        assert teaching.reading(f"# %% {cell}") == 0


def test_a_lesson_needs_what_its_card_says_and_one_without_a_card_is_refused():
    assert teaching.needs(SOURCE.format(words="word"), "05_lora") == ("00", "02")
    with pytest.raises(LabkitError, match="05_lora.py does not say what it needs"):
        teaching.needs(SOURCE.replace("You need first", "Before"), "05_lora")


def test_every_lesson_builds_on_earlier_ones_only():
    some = teaching.lessons(dict(tables.SYLLABUS))
    numbers = [one.number for one in some]
    assert {one.number: one.needs for one in some}["06"] == ("02", "05")
    for place, one in enumerate(some):
        assert set(one.needs) <= set(numbers[:place]), one.stem


def test_the_tables_renew_when_a_record_comes(records, tmp_path):
    records("00_start_here", "cpu", seconds=60, peak=4e9, device="2-core CPU")
    minutes, costs = (tables.fill(name, None) for name in ("lesson-minutes", "lesson-costs"))
    assert row(minutes, "05_lora")[2:4] == ["not recorded"] * 2
    assert row(costs, "05_lora")[1:] == ["not recorded"] * 5 and row(costs, "00_start_here")[3] == "4.0"
    assert "05, " in minutes.splitlines()[-1] and "counted with 1.0 minutes" in minutes

    guide = tmp_path / "README.md"
    guide.write_text(f"<!-- generated:lesson-minutes -->\n{minutes}\n<!-- end -->\n")
    course = build.Course(solutions=tmp_path, notebooks=tmp_path, readmes=(guide,))
    assert build.stale(course=course) == []
    records("05_lora", full_peak=1.1e10)  # ten minutes; a part of it with a higher peak than noted at the end
    assert len(build.stale(course=course)) == 1 and "lesson-minutes" in build.stale(course=course)[0]

    before = minutes
    minutes, costs = (tables.fill(name, None) for name in ("lesson-minutes", "lesson-costs"))
    assert row(minutes, "05_lora")[2:4] == ["10.0", "not recorded"]
    assert int(row(minutes, "05_lora")[6]) == int(row(before, "05_lora")[6]) + 9
    assert row(costs, "05_lora")[1:5] == ["NVIDIA H200", "11.0", "not recorded", "0.50"]
    assert "05, " not in minutes.splitlines()[-1]


def test_dollars_follow_the_prices_file_and_a_card_without_a_price_gets_none(records):
    records("00_start_here", seconds=3600)
    records("01_memory_math", seconds=3600, device="NVIDIA T4")
    for dollars in (2, 4):
        price(dollars)
        table = teaching.costs_table(dict(tables.SYLLABUS))
        assert row(table, "00_start_here")[4] == f"{dollars}.00"
        assert row(table, "01_memory_math")[4:] == ["no price", "no price"]
        assert f"NVIDIA H200 {dollars}.00 an hour (source: our contract; date: 2026-11-01)" in table
    for wrong in ("", "[]", '{"cards": {"A": {"dollars_an_hour": 1}}}',
                  '{"cards": {"A": {"dollars_an_hour": -1, "date": "", "source": ""}}}'):  # fmt: skip
        teaching.PRICES.write_text(wrong)
        with pytest.raises(LabkitError, match="own.txt"):
            teaching.costs_table(dict(tables.SYLLABUS))


def test_the_shipped_prices_can_be_read():
    assert all(one["source"] and one["date"] for one in teaching.prices().values())


# ---- schedules


def lesson(number, needs=(), exercises=((1, 8), (2, 8), (3, 8))):
    """A made-up Lesson of 22 minutes and its exercises, each (difficulty, minutes)."""
    made = tuple(SimpleNamespace(id=f"{number}.{place}", lesson=number, difficulty=hard, minutes=minutes)
                 for place, (hard, minutes) in enumerate(exercises, 1))  # fmt: skip
    return teaching.Lesson(stem=f"{number}_x", runs={"gpu": 2.0, "cpu": None}, peaks={}, card=None,
                           reading=20.0, exercises=made, needs=needs)  # fmt: skip


def faults(slots, wanted):
    """What is wrong with packed slots, one line each."""
    found = []
    parts = [(name.removesuffix(", continued"), minutes, slot) for slot in slots
             for name, minutes in slot.entries if name != "opening"]  # fmt: skip
    for slot in slots:
        if slot.used > math.floor(slot.length * (1 - schedule.ROOM)):
            found.append(f"overfilled: {slot}")
    for name, minutes in wanted:
        mine = [part for part in parts if part[0] == name]
        if sum(part[1] for part in mine) != minutes:
            found.append(f"minutes lost or found: {name}")
        if len({part[2].day for part in mine}) > 1:
            found.append(f"over night: {name}")
        if len(mine) > 1 and min(part[1] for part in mine) < schedule.PIECE:
            found.append(f"too small a piece: {name}")
    if list(dict.fromkeys(part[0] for part in parts)) != [name for name, _ in wanted]:
        found.append("out of order")
    return found


def test_no_slot_is_ever_overfilled_and_no_minute_lost():
    dice, outcomes = random.Random(0), []
    for _ in range(400):
        lengths = [[dice.choice((40, 60, 90, 120)) for _ in range(dice.randint(1, 4))]
                   for _ in range(dice.randint(1, 3))]  # fmt: skip
        days = [[part for length in day for part in (length, 15)][:-1] for day in lengths]
        wanted = [(f"{number:02}", dice.randint(5, 120)) for number in range(dice.randint(1, 6))]
        try:
            slots = schedule.pack(days, wanted)
        except LabkitError:
            outcomes.append(None)
        else:
            outcomes.append(faults(slots, wanted))
    assert {str(one) for one in outcomes} == {"None", "[]"} and 50 < outcomes.count(None) < 350


def test_the_check_above_notices_a_slot_that_is_overfilled_and_a_minute_lost():
    wanted = [("00", 30), ("01", 40)]
    slots = schedule.pack([schedule.HALF_DAY], wanted)
    assert faults(slots, wanted) == []
    slots[0].entries[1] = ("00", 60)
    assert [one.split(":")[0] for one in faults(slots, wanted)] == ["overfilled", "minutes lost or found"]
    assert "out of order" in faults(schedule.pack([schedule.HALF_DAY], wanted[::-1]), wanted)


def test_what_does_not_fit_is_refused_by_name_and_to_the_minute():
    room = math.floor(100 * (1 - schedule.ROOM)) - schedule.OPENING
    assert schedule.pack([[100]], [("00", room)])[0].free == 0
    with pytest.raises(LabkitError, match=r"lesson 01 \(5 minutes\) does not fit"):
        schedule.pack([[100]], [("00", room - 4), ("01", 5)])
    with pytest.raises(LabkitError, match="lesson 00"):
        schedule.pack([[100]], [("00", room + 1)])


def test_a_lesson_goes_on_after_a_break_and_not_on_another_day():
    day = (100, 15, 100)
    first = schedule.pack([day, day], [("00", 100)])
    assert [slot.entries for slot in first[:2]] == [[("opening", 10), ("00", 80)], [("00, continued", 20)]]
    second = schedule.pack([day, day], [("00", 100), ("01", 120)])
    assert [slot.day for slot in second if any("01" in name for name, _ in slot.entries)] == [2, 2]


def test_a_plan_holds_what_its_lessons_build_on_and_two_thirds_of_their_exercises_easier_ones_first():
    some = [lesson("00"), lesson("01", ("00",)), lesson("05", ("01",)), lesson("13", ("05",))]
    slots, chosen = schedule.fill([(160,)], some)
    assert set(chosen) == {"00", "01", "05"}  # the last would not fit
    wanted = [(one.number, teaching.minutes(one, 0, chosen[one.number])) for one in some[:3]]
    assert faults(slots, wanted) == []
    assert sorted(len(chosen[one.number]) for one in some[:3]) == [2, 3, 3]  # 20 minutes held two more
    longer = schedule.fill([(500,)], some)[1]
    assert {number: len(taken) for number, taken in longer.items()} == {one.number: 3 for one in some}


def test_exercises_that_stay_for_home_are_the_harder_ones():
    some = [lesson("05", exercises=((3, 12), (1, 12), (2, 12)))]
    _, chosen = schedule.fill([(65,)], some)
    assert [each.difficulty for each in chosen["05"]] == [1, 2]
    assert [each.difficulty for each in schedule.fill([(90,)], some)[1]["05"]] == [1, 2, 3]


def test_a_plan_too_short_for_any_lesson_and_a_card_that_names_none_are_refused():
    with pytest.raises(LabkitError, match="a plan of 30 minutes holds no lesson"):
        schedule.fill([(30,)], [lesson("05")])
    with pytest.raises(LabkitError, match="builds on 99"):
        schedule.fill([(300,)], [lesson("05", ("99",))])


def test_the_shipped_plans_are_half_a_day_one_day_and_two_and_hold_their_lessons():
    assert [sum(map(sum, days)) / 60 for _, days in schedule.PLANS] == [3.5, 7, 14]
    some = teaching.lessons(dict(tables.SYLLABUS))
    by_number, assumed = {one.number: one for one in some}, teaching.assumed_run(some)
    for _, days in schedule.PLANS:
        slots, chosen = schedule.fill(days, some)
        wanted = [(number, teaching.minutes(by_number[number], assumed, chosen[number]))
                  for number in by_number if number in chosen]  # fmt: skip
        assert faults(slots, wanted) == [] and "05" in chosen
        assert all(set(by_number[number].needs) <= set(chosen) for number in chosen)
    text = tables.fill("schedules", None)
    assert all(f"**{name}**" in text for name, _ in schedule.PLANS)
