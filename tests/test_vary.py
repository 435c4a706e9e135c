"""Variants: another question for every cohort, which the course's own answer does not solve."""

import json
from pathlib import Path

import pytest
from submissions import QUICK, submit

from labkit.errors import LabkitError
from labkit.exercises import find, vary
from labkit.exercises.check import confusions, judge, trial
from labkit.exercises.grade import grade
from labkit.exercises.runner import call
from labkit.exercises.vary import COURSES, examples, main, make, make_all, read, write

COHORTS = [f"cohort {n}" for n in range(12)]
every_hook = pytest.mark.parametrize("exercise_id", sorted(vary.hooks()))
OWN = '''
from labkit.exercises.spec import Mistake
from labkit.exercises.vary import variant

STUB = """\\
def loss_labels(prompt_ids, answer_ids):
    \\"\\"\\"{n} times each token of the answer, and {n} for each of the prompt.\\"\\"\\"
    raise NotImplementedError
"""


@variant("00.2")
def hook(rng):
    n = rng.randint(2, 99)
    right = lambda p, a: [n] * len(p) + [n * t for t in a]
    mistakes = (Mistake("x", lambda p, a: [], "empty"),)
    return {"stub": STUB.format(n=n), "reference": right, "mistakes": mistakes}
'''


def test_there_are_variants_of_six_exercises_or_more_in_four_lessons():
    ids = list(vary.hooks())
    assert len(ids) >= 6 and len({i.split(".")[0] for i in ids}) >= 4


@every_hook
def test_a_variant_is_another_question_for_most_cohorts(exercise_id):
    hook = vary.hooks()[exercise_id]
    made = [make(exercise_id, cohort, hook) for cohort in COHORTS]
    assert len({e.stub for e in made}) >= 4
    assert make(exercise_id, COHORTS[0], hook).stub == made[0].stub != find(exercise_id).stub


@every_hook
def test_its_inputs_tell_its_reference_its_mistakes_and_the_courses_answer_apart(exercise_id):
    course = find(exercise_id)
    for cohort in COHORTS:
        made = make(exercise_id, cohort, vary.hooks()[exercise_id])
        assert len({m.hint for m in made.mistakes}) == len(made.mistakes) >= 3
        assert max(len(m.hint) for m in made.mistakes) <= 64
        for seed in range(4):
            t = trial(made, seed)
            assert confusions(made, seed) == []
            assert judge(t, t.right).points == made.points
            assert judge(t, [call(course.reference, args) for args in t.inputs]).points == 0


@pytest.mark.parametrize("change, message", [
    ({"stub": find("00.1").stub}, "function name must stay"),
    ({"stub": find("00.2").stub}, "the course's own answer is right for it"),
    ({"reference": lambda p, a: a, "mistakes": find("00.2").mistakes[:1] * 2}, "cannot tell apart"),
])
def test_a_hook_that_makes_no_fair_variant_is_refused(change, message):
    course = find("00.2")
    with pytest.raises(LabkitError, match=message):
        make("00.2", "c", lambda rng: {"reference": course.reference, "stub": course.stub, **change})


@pytest.fixture
def cohort(tmp_path):
    """The folder of a cohort's variants of lesson 00, and its instructor's file."""
    return tmp_path / "cohort", write("autumn", tmp_path / "cohort", ["00"])


def test_learners_get_their_notebook_with_other_questions_and_no_reference(cohort):
    folder, file = cohort
    (path,) = (folder / "learners").iterdir()
    cells = json.loads(path.read_text())["cells"]
    course = json.loads((vary.NOTEBOOKS / path.name).read_text())["cells"]
    assert len(cells) == len(course) + 1 and path.name == "00_start_here.ipynb"
    (at,) = [i for i, c in enumerate(cells) if "cohort's variant" in "".join(c["source"])]
    exercise, check = cells[at + 1 : at + 3]
    stub = make("00.2", "autumn", vary.hooks()["00.2"]).stub
    assert exercise["source"].replace("    # YOUR CODE HERE\n", "") + "\n" == stub
    assert exercise["metadata"]["nbgrader"]["grade_id"] == "00-2" and "nbgrader" not in check["metadata"]
    assert check["source"].startswith("from labkit.exercises.vary import examples\n\nexamples(\"00.2\", ")
    assert "autumn" not in path.read_text() and json.loads(file.read_text())["cohort"] == "autumn"
    assert len({c["id"] for c in cells}) == len(cells)


def test_the_examples_cell_says_what_an_answer_gets_and_never_raises(cohort, capsys):
    made = read(cohort[1])["00.2"]
    source = vary._examples_cell(made)
    stub = {}
    exec(made.stub, stub)
    answers = {"as wanted": made.reference, "not attempted yet": stub["loss_labels"],
               "got [-100": find("00.2").reference, "raises TypeError": lambda p: 1 / 0}  # fmt: skip
    for said, function in answers.items():
        exec(source, {"loss_labels": function})
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 2 and all(line.startswith(f"00.2  {said}") for line in lines)
    examples("00.2", lambda x: {}[1], [((1,), 2)])
    assert "raises KeyError" in capsys.readouterr().out


def test_grading_with_the_instructors_file_asks_the_cohorts_question(cohort, tmp_path):
    """Solved as asked: all points. The course's own solution pasted: none, and the report says why."""
    folder, file = cohort
    cells = json.loads((folder / "learners/00_start_here.ipynb").read_text())["cells"]
    made = read(file)["00.2"]
    mark = made.reference([1], [5])[0]
    first = sum(x != 5 for x in made.reference([], [5] * 9))
    solved = f"def loss_labels(p, a):\n    return ([{mark}] * (len(p) + {first}))[:len(p + a)] + a[{first}:]"
    pasted = "def loss_labels(p, a):\n    return [-100] * len(p) + a"
    for name, source in [("solved", solved), ("pasted", pasted)]:
        for c in cells:
            if c["metadata"].get("nbgrader", {}).get("grade_id") == "00-2":
                c["source"] = source
        submit(tmp_path / "in", f"{name}/00_start_here", cells)
    earned = {(r.submission.split("/")[0], v): (r.points, r.message)
              for v in (str(file), None) for r in grade(tmp_path / "in", "s", limits=QUICK, variants=v)
              if r.exercise == "00.2"}  # fmt: skip
    assert earned["solved", str(file)] == (2, "correct")
    assert earned["pasted", str(file)] == (0, COURSES)
    assert earned["pasted", None] == (2, "correct") and earned["solved", None][0] == 0


def test_hooks_of_ones_own_go_with_the_instructors_file_and_stay_out_of_the_course(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text(OWN)
    file = write("c", tmp_path / "out", ["00"], own)
    first = vary.digest(file)
    own.unlink()
    made = read(file)
    assert "times each token" in made["00.2"].stub and (file.parent / "hooks.py").exists()
    assert "times each token" not in make_all("c", only=["00"])["00.2"].stub
    assert not list((tmp_path / "out/learners").glob("*.py"))
    (file.parent / "hooks.py").write_text(OWN.replace("n * t for", "n + t for"))
    assert read(file)["00.2"].stub == made["00.2"].stub and vary.digest(file) != first    # graded again
    (file.parent / "hooks.py").write_text(OWN.replace("2, 99", "200, 999"))
    with pytest.raises(LabkitError, match="asks something else now"):
        read(file)
    (file.parent / "hooks.py").write_text("1 / 0")
    with pytest.raises(LabkitError, match="the hooks cannot be loaded: ZeroDivisionError"):
        read(file)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"cohort": 1, "hooks": null, "exercises": 3}'])
def test_a_file_that_is_none_is_named(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(LabkitError, match=r"x.json is no file of `exercises vary`"):
        read(tmp_path / "x.json")


def test_the_command_writes_both_folders_and_says_which_to_hand_out(tmp_path, capsys):
    assert main(["vary", "--seed", "x", "--lesson", "00", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"hand out: {tmp_path / 'learners'}; keep: {tmp_path / 'instructor'}" in out
    assert Path(tmp_path, "instructor/variants.json").exists()
    with pytest.raises(LabkitError, match="no variants for lessons 10"):
        main(["vary", "--seed", "x", "--lesson", "10", "--out", str(tmp_path)])
