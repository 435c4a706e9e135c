"""Specifications and `check`: every answer gets the line it deserves, and nothing breaks the notebook."""

import subprocess
import sys

import pytest

from labkit.errors import LabkitError
from labkit.exercises import Exercise, check, close, exact, find, lessons, of_lesson, register, solve
from labkit.exercises.check import confusions, difference, judge, trial
from labkit.exercises.runner import Other, call, decode, encode

EXERCISES = [e for number in lessons() for e in of_lesson(number)]
MISTAKES = [(e, m) for e in EXERCISES for m in e.mistakes]
every_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
every_mistake = pytest.mark.parametrize("exercise, mistake", MISTAKES, ids=lambda x: getattr(x, "name", None))


def said(capsys, exercise_id, function):
    """The one line that `check` prints."""
    assert check(exercise_id, function) is None
    out, err = capsys.readouterr()
    assert err == "" and out.endswith("\n") and out.count("\n") == 1
    return out.rstrip("\n")


def stub_function(exercise):
    namespace = {}
    exec(exercise.stub, namespace)
    return namespace[exercise.function_name]


@every_exercise
def test_the_reference_is_correct(capsys, exercise):
    line = said(capsys, exercise.id, solve(exercise.id))
    assert line == f"{exercise.id}  {'correct':<64}  {exercise.points} of {exercise.points} points"


@every_exercise
def test_the_stub_is_not_attempted_yet(capsys, exercise):
    line = said(capsys, exercise.id, stub_function(exercise))
    assert line == f"{exercise.id}  {'not attempted yet':<64}  0 of {exercise.points} points"


@every_mistake
def test_every_known_mistake_gets_its_own_hint_and_no_points(capsys, exercise, mistake):
    assert said(capsys, exercise.id, mistake.function) == (
        f"{exercise.id}  {mistake.hint:<64}  0 of {exercise.points} points"
    )


@every_exercise
def test_hints_are_different_and_fit_the_column(exercise):
    hints = [m.hint for m in exercise.mistakes]
    assert len(set(hints)) == len(hints) >= 3
    assert max(map(len, hints)) <= 64


@every_exercise
def test_drawn_inputs_tell_reference_and_mistakes_apart(exercise):
    for seed in [*range(25), 2**64 - 1]:
        assert confusions(exercise, seed) == []


def test_inputs_that_cannot_tell_a_mistake_apart_are_noticed():
    right = find("00.2")
    weak = Exercise("00.91", "", 2, lambda seed: [([], [5, 2])], right.reference, right.stub,
                    mistakes=right.mistakes)
    assert ("reference", "nothing masked") in confusions(weak, 0)


@every_exercise
def test_a_seed_always_draws_the_same_and_another_seed_something_else(exercise):
    assert exercise.draw(3) == exercise.draw(3) != exercise.draw(4)
    assert decode(encode(exercise.draw(3))) == exercise.draw(3)


def labels(change):
    """loss_labels with the result changed."""
    return lambda prompt, answer: change([-100] * len(prompt) + answer)


@pytest.mark.parametrize("function, expected", [
    (labels(lambda x: None), "returns None: is a return missing?"),
    (labels(tuple), "returns a tuple, not a list: got (-100, "),
    (labels(iter), "returns a list_iterator, not a list"),
    (labels(lambda x: x + [0]), "returns a list of length 5, not 4"),
    (labels(lambda x: [max(i, -1) for i in x]), "wrong at index 0: got -1, wanted -100; for [1, "),
    (labels(lambda x: [float(i) for i in x]), "wrong at index 0: got -100.0, wanted -100"),
    (labels(lambda x: 1 / 0), "raises ZeroDivisionError: division by zero; for [1, 2], ["),
    (lambda only: only, "raises TypeError: "),
    (7, "check wants your function, not an int"),
    (None, "check wants your function, not None"),
])
def test_an_unknown_mistake_is_told_what_differs_and_where(capsys, function, expected):
    line = said(capsys, "00.2", function)
    assert line.startswith(f"00.2  {expected}") and line.endswith("  0 of 2 points")


@pytest.mark.parametrize("exercise_id", ["08.2", "08.3", "08.4"])
def test_a_pair_may_be_a_tuple_or_a_list_but_nothing_else(capsys, exercise_id):
    right = solve(exercise_id)
    for kind in (tuple, list):
        assert "correct" in said(capsys, exercise_id, lambda *given, kind=kind: kind(right(*given)))
    for wrong in (lambda pair: [*pair, 0], lambda pair: pair[0], lambda pair: dict(enumerate(pair))):
        line = said(capsys, exercise_id, lambda *given, wrong=wrong: wrong(right(*given)))
        assert "  0 of" in line


def test_a_right_answer_that_changes_its_arguments_is_told_so(capsys):
    def in_place(prompt, answer):
        prompt[:] = [-100] * len(prompt)
        return prompt + answer

    assert said(capsys, "00.2", in_place).startswith("00.2  changes its arguments: work on a copy")
    assert "correct" in said(capsys, "00.2", solve("00.2"))      # the drawn inputs are as they were


def test_a_value_that_claims_to_equal_everything_is_wrong(capsys):
    class Yes:
        __hash__ = None
        __class__ = list

        def __eq__(self, other):
            return True

        def __iter__(self):
            return iter([1])

    class YesInt(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    assert "  0 of 2 points" in said(capsys, "00.2", lambda p, a: Yes())
    assert "  0 of 2 points" in said(capsys, "00.2", lambda p, a: [YesInt(0)] * (len(p) + len(a)))


def test_what_an_answer_prints_does_not_disturb_the_line(capsys):
    def chatty(prompt, answer):
        print("debug", file=sys.stderr)
        print("00.2  correct  2 of 2 points")
        return []

    assert said(capsys, "00.2", chatty).startswith("00.2  returns a list of length 0, not 4")


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no")


def recurse(*args):
    return recurse(*args)


def nested(*args):
    value = []
    value.append(value)
    return value


def raiser(error):
    def function(*args):
        raise error
    return function


@pytest.mark.parametrize("function", [
    raiser(SystemExit(1)), raiser(Unprintable()), raiser(GeneratorExit()), raiser(BaseException("\n\x1b[2J")),
    recurse, nested, type, lambda p, a: 10**9999, lambda p, a: "\ud800", lambda p, a: {"a": float("nan")},
])
@pytest.mark.parametrize("exercise_id", ["00.2", "00.1"])
def test_check_never_raises_and_prints_one_plain_line(capsys, exercise_id, function):
    line = said(capsys, exercise_id, function)
    assert line.startswith(exercise_id) and line.endswith("0 of 2 points")
    assert line.isprintable()


@pytest.mark.parametrize("wrong_id", ["00.9", "77.1", "", None, 1, ["00.2"], "../x", "00"])
def test_an_unknown_id_is_a_line_too(capsys, wrong_id):
    assert "there is no exercise" in said(capsys, wrong_id, solve("00.2"))
    with pytest.raises(LabkitError, match="mistyped"):
        find(wrong_id)


def test_an_interrupt_from_the_keyboard_passes():
    with pytest.raises(KeyboardInterrupt):
        check("00.2", raiser(KeyboardInterrupt()))


def test_under_nbgrader_all_but_a_right_answer_raises_with_the_same_line(capsys, monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert "correct" in said(capsys, "00.2", solve("00.2"))
    for exercise_id, function in [("00.2", stub_function(find("00.2"))), ("00.2", nested), ("00.9", nested)]:
        with pytest.raises(AssertionError) as error:
            check(exercise_id, function)
        assert capsys.readouterr().out == f"{error.value}\n"
    monkeypatch.setenv("NBGRADER_EXECUTION", "validate")
    assert "not attempted" in said(capsys, "00.2", stub_function(find("00.2")))


def test_a_mistake_matches_only_if_it_agrees_on_every_input():
    t = trial(find("00.2"), 5)
    mistake, wrong = t.wrong[0]
    assert judge(t, wrong).message == mistake.hint
    mixed = [t.right[0], *wrong[1:]]
    assert judge(t, mixed).message.startswith("wrong at index 0")


def test_values_survive_the_wire_with_their_types():
    value = [None, True, 1, 1.0, "a\n", b"\x00", (1, [2]), {"k": {1, 2}, 3: float("-inf")}]
    again = decode(encode(value))
    assert again == value and [type(v) for v in again] == [type(v) for v in value]
    stand_in = decode(encode(Unprintable))
    assert isinstance(stand_in, Other) and encode(stand_in) == ["other", "type"]
    for bad in (["list", 3], ["nothing", []], {"a": 1}, ["dict", [[["list", []], 1]]], ["bytes", "zz"]):
        with pytest.raises((ValueError, TypeError)):
            decode(bad)


def test_exact_keeps_types_apart_and_close_allows_a_little():
    assert exact([1, {"a": (2,)}], [1, {"a": (2,)}])
    for got, want in [(True, 1), (1.0, 1), ((1,), [1]), ([1], [1, 2]), ({"a": 1}, {"b": 1}), (None, 0)]:
        assert not exact(got, want)
    assert close(1e-3, 0)([1.0005, {"a": 1}], [1.0, {"a": 1.0}]) and close()(float("nan"), float("nan"))
    for got, want in [(1.002, 1.0), (True, 1.0), ("1", 1.0), (float("nan"), 1.0), (None, 1.0)]:
        assert not close(1e-3, 0)(got, want)


def test_an_int_where_a_float_is_wanted_is_not_called_a_type_error():
    assert difference(100, 1.0, close()) == "wrong: got 100, wanted 1.0"


def test_an_id_is_given_once_and_well_formed():
    with pytest.raises(LabkitError, match="twice"):
        register(find("00.2"))
    with pytest.raises(LabkitError, match="write lesson, point, number"):
        register(Exercise("0.1", "", 1, list, list, "def f():\n"))


def test_a_reference_that_fails_is_reported_as_the_exercises_fault():
    broken = Exercise("00.92", "", 1, lambda seed: [(1,)], raiser(ValueError()), "def f(x):\n")
    with pytest.raises(LabkitError, match=r"00\.92: the reference fails"):
        trial(broken, 0)
    assert "raised" in call(broken.reference, (1,))


def test_importing_the_exercises_does_not_load_torch():
    code = "import sys, labkit.exercises, labkit.exercises.grade; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
