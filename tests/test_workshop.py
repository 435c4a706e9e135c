"""Progress survives everything, catching up earns nothing, archives come back whole, and a card is shared."""

import json
import multiprocessing
import os
import re
import subprocess
import sys
import warnings
import zipfile
from html.parser import HTMLParser
from types import SimpleNamespace

import nbformat
import pytest
import torch

import labkit
from labkit import catch_up, check, progress, solve
from labkit.errors import LabkitError
from labkit.exercises import find, lessons, of_lesson
from labkit.memory import predict
from labkit.nbval_plugin import FLAGS
from labkit.paths import NOTEBOOKS, ROOT, SOLUTIONS
from labkit.workshop import archive, log, need, share

GB = 10**9


@pytest.fixture
def learner(tmp_path, monkeypatch):
    """A learner with a home of their own, as outside tests; gives the log's path."""
    for name in ("NBGRADER_EXECUTION", "LABKIT_RECORD", "CI", "LABKIT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LABKIT_PROGRESS", "on")
    return tmp_path / "home" / "progress.jsonl"


def entry(exercise, points, correct=True, shown=False):
    return {"exercise": exercise, "points": points, "correct": correct, "shown": shown, "when": "now"}


def wrong(*_):
    return "wrong"


def undone(*_):
    raise NotImplementedError


# ---- what is noted --------------------------------------------------------------------------------------


def test_check_notes_what_was_tried_and_nothing_else(learner, capsys):
    check("00.2", wrong)
    check("00.2", undone)
    check("00.9", wrong)
    check("00.2", solve("00.2"))
    noted = [json.loads(line) for line in learner.read_text().splitlines()]
    assert [(one["exercise"], one["points"], one["correct"]) for one in noted] == [
        ("00.2", 0, False), ("00.2", 2, True),
    ]  # fmt: skip
    assert capsys.readouterr().err == ""


def test_a_log_that_cannot_be_written_is_warned_of_and_check_still_answers(learner, capsys, monkeypatch):
    learner.parent.parent.joinpath("file").write_text("")
    monkeypatch.setenv("LABKIT_HOME", str(learner.parent.parent / "file" / "home"))
    with pytest.warns(UserWarning, match="Set LABKIT_HOME to a folder"):
        check("00.2", solve("00.2"))
    assert "correct" in capsys.readouterr().out
    monkeypatch.delenv("LABKIT_HOME")
    monkeypatch.setattr("pathlib.Path.expanduser", lambda _: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.warns(UserWarning, match="no home folder"):
        check("00.2", solve("00.2"))


def test_nobody_but_a_learner_is_noted(learner, monkeypatch):
    monkeypatch.delenv("LABKIT_PROGRESS")
    assert not log.wanted()  # pytest runs
    monkeypatch.delenv("PYTEST_VERSION")
    assert log.wanted()
    for name, value in [("NBGRADER_EXECUTION", "autograde"), ("LABKIT_RECORD", "x"), ("CI", "true"),
                        ("LABKIT_PROFILE", "smoke"), ("LABKIT_PROGRESS", "off")]:  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not log.wanted(), name
    with monkeypatch.context() as patch:
        patch.chdir(SOLUTIONS)
        assert not log.wanted()
    monkeypatch.setenv("LABKIT_PROGRESS", "on")
    monkeypatch.setenv("NBGRADER_EXECUTION", "validate")
    assert not log.wanted()
    monkeypatch.setenv("LABKIT_PROGRESS", "yes")
    with pytest.raises(LabkitError, match="on or off"):
        log.wanted()


def test_nbval_leaves_no_trace_where_the_same_code_run_by_a_learner_does(tmp_path):
    code = "from labkit import check, solve\ncheck('00.2', solve('00.2'))"
    cell = nbformat.v4.new_code_cell(code, execution_count=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "one.ipynb")
    without = {"PYTEST_VERSION", "PYTEST_CURRENT_TEST", "CI", "LABKIT_PROGRESS", "LABKIT_PROFILE"}
    environment = {name: value for name, value in os.environ.items() if name not in without}
    environment |= {"PYTHONPATH": str(ROOT), "LABKIT_HOME": str(tmp_path / "home")}
    nbval = ["-m", "pytest", *FLAGS, "-q", "-p", "no:cacheprovider", "-c", os.devnull, "one.ipynb"]
    for arguments, left in ((nbval, False), (["-c", code], True)):
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stdout
        assert (tmp_path / "home" / "progress.jsonl").exists() == left


# ---- two at once, and damage ----------------------------------------------------------------------------

LINES = 40


def _append_in_pieces(number, barrier, locked):
    """A process's work: lines whose bytes reach the disk a few at a time, in step with another process."""
    write = os.write

    def piecewise(descriptor, data):
        os.sched_yield()
        return write(descriptor, data[:7])

    log.os.write = piecewise
    if not locked:
        log.fcntl = SimpleNamespace(flock=lambda *_: None, LOCK_EX=0, LOCK_UN=0)
    for i in range(LINES):
        barrier.wait(60)
        log.append(entry(f"{number:02}.{i}", 1))


def _found_after_two_writers(locked):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    workers = [context.Process(target=_append_in_pieces, args=(n, barrier, locked)) for n in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {one["exercise"] for one in log.read()}


def test_two_processes_that_write_at_once_lose_nothing_and_without_the_lock_they_would(learner):
    everything = {f"{n:02}.{i}" for n in (1, 2) for i in range(LINES)}
    assert _found_after_two_writers(locked=True) == everything
    learner.unlink()
    assert _found_after_two_writers(locked=False) < everything


def test_half_a_line_of_a_killed_process_spoils_itself_only(learner):
    log.append(entry("00.2", 2))
    learner.write_bytes(learner.read_bytes() + b'{"exercise": "00.1", "po')
    log.append(entry("05.1", 2))
    with pytest.warns(UserWarning, match=r"1 damaged lines skipped \(2\)"):
        assert [one["exercise"] for one in log.read()] == ["00.2", "05.1"]


@pytest.mark.parametrize("line", [
    b"\xff\xfe", b"[]", b"{}", b"null", b"[" * 100_000, b'{"exercise": 5, "points": 2}',
    b'{"exercise": "00.2", "points": true, "correct": true, "shown": false, "when": ""}',
])  # fmt: skip
def test_a_damaged_line_is_skipped_with_a_warning_and_the_rest_counts(learner, line):
    check("00.2", solve("00.2"))
    learner.write_bytes(line + b"\n\n" + learner.read_bytes())
    with pytest.warns(UserWarning, match="1 damaged"):
        assert progress().points == 2


def test_a_log_that_cannot_be_read_is_said(learner):
    learner.mkdir(parents=True)
    with pytest.raises(LabkitError, match="Set LABKIT_HOME"):
        progress()


# ---- progress -------------------------------------------------------------------------------------------


def noted(*results):
    for exercise, points in results:
        log.append(entry(exercise, points, points == find(exercise).points))


def row(number):
    return next(one for one in progress().rows if one.number == number)


def test_without_a_log_all_is_open_and_lesson_00_is_next(learner):
    assert progress().points == 0 and progress().next.id == "00.1"
    assert progress().of == sum(e.points for n in lessons() for e in of_lesson(n))
    assert [one.number for one in progress().rows] == lessons()


def test_the_best_result_counts_and_points_are_capped_by_the_exercise(learner):
    noted(("00.2", 0), ("00.2", 2), ("00.2", 0), ("00.1", 99))
    assert row("00").points == row("00").of and row("00").open == ()
    log.append(entry("99.1", 9))
    assert progress().points == row("00").of  # an exercise that is no more


def test_next_is_the_first_open_exercise_from_the_lesson_worked_in_last_on(learner):
    noted(("05.1", find("05.1").points))
    assert progress().next.id == "05.2"
    noted(*((e.id, e.points) for e in of_lesson("05")))
    assert progress().next.id == of_lesson("06")[0].id
    noted(*((e.id, e.points) for number in lessons() for e in of_lesson(number)))
    assert progress().next is None and progress().points == progress().of
    assert "every exercise is done" in str(progress())
    assert "Every exercise is done" in progress()._repr_html_()
    learner.unlink()
    noted((of_lesson(lessons()[-1])[-1].id, 0))
    assert progress().next.id == of_lesson(lessons()[-1])[0].id


def test_the_text_names_points_and_the_notebook_of_what_is_next(learner):
    noted(("05.1", find("05.1").points))
    text = str(progress())
    assert re.search(rf"^05 .*\[#+\.+\] +{find('05.1').points} of {row('05').of}$", text, re.M)
    assert text.endswith("in notebooks/05_lora.ipynb") and repr(progress()) == text


class Page(HTMLParser):
    """What a screen reader goes by: headings, links, header cells, labels; and whether tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.levels, self.links, self.found, self.open, self.lang = [], [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.found.append((tag, attributes))
        if tag not in ("meta",):
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "a":
            self.links.append(attributes["href"])
        if tag == "html":
            self.lang = attributes.get("lang")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def in_order(self):
        """Does no heading skip a level?"""
        return all(b - a <= 1 for a, b in zip(self.levels, self.levels[1:], strict=False))


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a, b):
    """WCAG 2's ratio."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_the_page_can_be_read_by_a_screen_reader_and_in_daylight(learner, tmp_path):
    from labkit.workshop.progress import INK, LINK, PAPER

    noted(("00.2", 2))
    text = progress().save(tmp_path / "page.html").read_text()
    page = Page(text)
    assert page.lang == "en" and page.levels == [1, 2] and page.open == []
    assert "<title>" in text and "<caption>" in text and "<main>" in text
    heads = [attributes.get("scope") for tag, attributes in page.found if tag == "th"]
    assert heads == ["col"] * 4 + ["row"] * len(lessons())
    bars = [attributes for tag, attributes in page.found if tag == "progress"]
    assert len(bars) == len(lessons()) and bars[0]["aria-label"] == "Lesson 00: 2 of 4 points"
    assert min(contrast(INK, PAPER), contrast(LINK, PAPER)) >= 4.5 > contrast("#999999", PAPER)
    assert f"color: {INK}" in text and f"background: {PAPER}" in text and f"color: {LINK}" in text
    with pytest.raises(LabkitError, match="Name another file"):
        progress().save(tmp_path)


def test_in_the_notebook_headings_come_below_its_title_and_links_lead_to_notebooks(learner):
    page = Page(progress()._repr_html_())
    assert page.levels == [2, 3] and page.open == [] and "style" not in progress()._repr_html_()
    assert not Page("<h2></h2><h4></h4>").in_order() and page.in_order()
    built = {path.name for path in NOTEBOOKS.glob("*.ipynb")}
    assert set(page.links) & built and "00_start_here.ipynb" in page.links


def test_labkit_gives_both_by_name():
    assert labkit.progress is progress and labkit.catch_up is catch_up


# ---- catch up -------------------------------------------------------------------------------------------


@pytest.fixture
def notebook(monkeypatch):
    """The namespace of a notebook that is running."""
    names = {}
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(user_ns=names))
    return names


def test_catching_up_gives_the_reference_and_no_points_ever_after(learner, notebook, capsys):
    assert catch_up("05.2") is None
    assert notebook == {find("05.2").function_name: find("05.2").reference}
    said = "05.2: `init_lora` is the course's now; it counts as shown and brings no points\n"
    assert capsys.readouterr().out == said
    check("05.2", notebook["init_lora"])
    assert "correct" in capsys.readouterr().out
    assert row("05").points == 0 and row("05").shown == 1 and "05.2" not in row("05").open
    check("05.1", solve("05.1"))  # the control: without catching up the same earns points
    assert row("05").points == find("05.1").points


def test_points_earned_before_stay(learner, notebook, capsys):
    check("05.2", solve("05.2"))
    catch_up("05.2")
    assert "you solved it before" in capsys.readouterr().out
    check("05.2", wrong)
    assert row("05").points == find("05.2").points and row("05").shown == 0


def test_outside_a_notebook_the_function_is_returned(learner, capsys):
    assert catch_up("00.2") is solve("00.2") and capsys.readouterr().out == ""


@pytest.mark.parametrize("what, nearest", [
    ("05.9", "05."), ("5.2", "05.2"), (5.2, "05.2"), ("5", "05"), ("55", "05"), (["05"], "05"),
    ("lora", ""), (None, ""), ("", ""),
])  # fmt: skip
def test_an_unknown_id_is_told_the_nearest_and_nothing_is_noted(learner, what, nearest):
    with pytest.raises(LabkitError, match=f"The nearest is '{re.escape(nearest)}"):
        catch_up(what)
    assert not learner.exists()


def test_while_grading_there_is_no_catching_up(learner, monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(LabkitError, match="not available"):
        catch_up("05.2")


def test_a_log_that_cannot_be_used_does_not_keep_a_learner_waiting(learner, notebook):
    learner.mkdir(parents=True)
    with pytest.warns(UserWarning, match="not kept"):
        catch_up("00.2")
    assert notebook["loss_labels"] is solve("00.2")


# ---- archives -------------------------------------------------------------------------------------------


@pytest.fixture
def own(tiny, tmp_path, monkeypatch):
    """A tiny model in place of the base, and a cache of one's own."""
    tiny(seed=3, vocab_size=64).save_pretrained(tmp_path / "own")
    monkeypatch.setenv("LABKIT_MODEL", str(tmp_path / "own"))
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "archives"


def adapted(seed):
    """The tiny base with an adapter that does something."""
    from peft import LoraConfig, get_peft_model

    from labkit import load_model

    model = get_peft_model(load_model(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    return model.eval()


@torch.no_grad()
def logits(model):
    return model(input_ids=torch.arange(8)[None]).logits


def packed(own, tmp_path, **models):
    for name, model in models.items():
        archive.stage(tmp_path / "staged", name, model)
    return archive.pack(tmp_path / "staged", "05", own)


def test_trained_adapters_come_back_under_the_lessons_names(learner, own, tmp_path, notebook, capsys):
    from labkit import load_model

    model, other = adapted(1), adapted(2)
    archive.stage(tmp_path / "staged", "model", other)  # trained again below: the last training counts
    path = packed(own, tmp_path, model=model, arms={"LoRA": other, "adapters": torch.nn.Linear(1, 1)})
    assert path == own / "05.zip" and path.stat().st_size < 60_000
    with zipfile.ZipFile(path) as opened:
        manifest = json.loads(opened.read("manifest.json"))
        assert not [name for name in opened.namelist() if not name.endswith((".json", ".safetensors"))]
    assert manifest["lesson"] == "05" and "cells" in manifest["digest"] and len(manifest["parts"]) == 2
    notebook["arms"] = {"adapters": "my own"}
    catch_up("05")
    assert "05: `model` is what the archived run trained" in capsys.readouterr().out
    assert torch.equal(logits(notebook["model"]), logits(model))
    assert torch.equal(logits(notebook["arms"]["LoRA"]), logits(other))
    assert notebook["arms"]["adapters"] == "my own"
    assert not torch.equal(logits(load_model()), logits(model))
    assert any(weight.requires_grad for weight in notebook["model"].parameters())
    assert not learner.exists()  # no exercise was shown


def test_whole_models_are_kept_if_asked_and_only_then(own, tmp_path):
    from labkit import load_model

    model = load_model()
    model.lm_head.weight.data += 1
    assert archive.stage(tmp_path / "staged", "full", model) == ["full is left out: no adapter of peft"]
    with pytest.raises(LabkitError, match="nothing to archive"):
        packed(own, tmp_path)
    assert "full kept" in archive.stage(tmp_path / "staged", "full", model, whole=True)[0]
    packed(own, tmp_path)
    assert torch.equal(logits(archive.load("05")["full"]), logits(model))


def test_without_an_archive_a_learner_hears_where_it_would_be(own):
    with pytest.raises(LabkitError, match=re.escape(f"no archive of lesson 05 in {own}")):
        catch_up("05")


def test_an_archive_that_is_damaged_or_foreign_is_refused(own, tmp_path, monkeypatch):
    path = packed(own, tmp_path, model=adapted(1))
    whole = path.read_bytes()
    assert archive.load("05")
    middle = whole.index(b"lora_A") + 2000
    for damage in (whole[:-100], b"", whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]):
        path.write_bytes(damage)
        with pytest.raises(LabkitError, match="05.zip is damaged"):
            archive.load("05")
    path.write_bytes(whole)
    os.rename(tmp_path / "own", tmp_path / "another")
    monkeypatch.setenv("LABKIT_MODEL", str(tmp_path / "another"))
    with pytest.raises(LabkitError, match="made with the base own, and this is another"):
        archive.load("05")


@pytest.mark.parametrize("member", ["../../outside.json", "0123456789ab/../x.json", "0123456789ab/x.bin"])
def test_an_archive_with_files_of_another_kind_or_place_is_refused(own, tmp_path, member):
    own.mkdir(parents=True)
    part = {"name": "model", "key": None, "kind": "adapter", "four_bit": False}
    part |= {"folder": member.split("/")[0], "files": {member.partition("/")[2]: ""}}
    manifest = {"schema": 1, "lesson": "05", **archive._made_by("05"), "parts": [part]}
    with zipfile.ZipFile(own / "05.zip", "w") as made:
        made.writestr("manifest.json", json.dumps(manifest))
        made.writestr(member, "x")
    with pytest.raises(LabkitError, match="no archive of ours"):
        archive.load("05")
    assert not (tmp_path / "outside.json").exists()


def test_an_archive_of_an_earlier_lesson_is_used_and_said(own, tmp_path, monkeypatch, capsys):
    packed(own, tmp_path, model=adapted(1))
    archive.load("05")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("labkit.records.store.lesson_digest", lambda _: {"cells": "other"})
    assert archive.load("05")
    assert "numbers may differ" in capsys.readouterr().out


@pytest.mark.parametrize("source, names", [
    ("run = fit(model, rows, tokenizer, lr=1)", ["model"]),
    ("for arm in models:\n    runs[arm] = fit(models[arm], rows, tokenizer)", ["models"]),
    ("%%gpu\nfit(a, r, t)\nfit(b, r, t)\nprint(fit(a, r, t))", ["a", "b"]),
    ("def trained(base):\n    return fit(base, rows, tokenizer)", []),
    ("fit(load_model(), rows, tokenizer)\nother.fit(model)\nscore(model)", []),
])  # fmt: skip
def test_what_a_cell_trains_is_read_off_its_calls_of_fit(source, names):
    assert archive.trained_names(source) == names


def test_the_archiving_run_ends_with_the_last_training_and_stages_after_each():
    sources = ["import x", "fit(a, r, t)", "print(1)", "fit(b, r, t)", "print(2)"]
    whole = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in sources])
    made = [cell.source for cell in archive.with_stages(whole, "/there").cells]
    assert [one for one in made if "_stage" not in one] == sources[:4] and len(whole.cells) == 5
    assert "_stage('/there', 'a', a, False)" in made[2] and "_stage('/there', 'b', b, False)" in made[5]


def test_the_command_runs_the_lesson_and_writes_its_archive(own, tmp_path, monkeypatch, capsys):
    def run(notebook, *_, **__):
        for cell in notebook.cells:
            if "_stage(" in cell.source:
                exec(cell.source, {"model": adapted(1), "full": adapted(2), "voiced": adapted(3)})

    monkeypatch.setenv("LABKIT_PROFILE", "cpu")
    monkeypatch.setattr("labkit.execute.run", run)
    assert archive.main(["05", str(tmp_path / "made")]) == 0
    assert f"written: {tmp_path}/made/05.zip" in capsys.readouterr().out
    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    with pytest.raises(LabkitError, match="smoke"):
        archive.main(["05"])


# ---- what a step needs ----------------------------------------------------------------------------------


def test_a_budget_is_described_as_fit_trains_it(tiny):
    from peft import LoraConfig, PromptTuningConfig, get_peft_model

    full = need.setting_of(tiny(), batch=4, length=128, precision="fp32", checkpointing=True)
    assert (full.method, full.batch, full.seq, full.precision) == ("full", 4, 128, "fp32")
    assert full.fused_loss and full.checkpointing and full.optimizer == "fused" and full.shape.layers == 2
    config = LoraConfig(r=5, target_modules=["q_proj", "v_proj"], use_dora=True, task_type="CAUSAL_LM")
    lora = need.setting_of(get_peft_model(tiny(), config), batch=1, length=64)
    assert (lora.method, lora.rank, lora.targets) == ("dora", 5, "q_proj,v_proj")
    assert lora.precision == "bf16 autocast"
    prompt = get_peft_model(tiny(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    frozen = tiny()
    frozen.lm_head.weight.requires_grad_(False)
    for unknown in (prompt, frozen, torch.nn.Linear(2, 2)):
        assert need.setting_of(unknown, batch=1, length=64) is None


def _step(**changes):
    """A step of the base with LoRA: 32 rows of 512 tokens, unless changed."""
    from labkit.memory import Setting

    fields = {"method": "lora", "batch": 32, "seq": 512, "optimizer": "fused", "fused_loss": True}
    return Setting("smollm2-135m", **{**fields, **changes})


@pytest.mark.parametrize("room, passed", [
    (12 * GB, {"batch": 16, "accumulate": 2}),
    (4 * GB, {"batch": 4, "accumulate": 8}),
    (1.6 * GB, {"batch": 2, "accumulate": 16, "gradient_checkpointing": True}),
    (0.1 * GB, None),
])  # fmt: skip
def test_the_advice_is_the_first_smaller_budget_that_fits(room, passed):
    found, size = need.smaller(_step(), room)
    assert found == passed
    if passed is None:
        assert "No smaller batch" in need.advice(_step(), room)
        return
    changed = _step(batch=passed["batch"], checkpointing="gradient_checkpointing" in passed)
    assert size == predict(changed).peak_reserved <= room
    if "gradient_checkpointing" not in passed:
        assert predict(_step(batch=2 * passed["batch"])).peak_reserved > room
    said = need.advice(_step(), room, accumulate=3)
    assert f"batch={passed['batch']}, accumulate={3 * passed['accumulate']}" in said
    assert f"there is room for {room / GB:.1f} GB" in said


# ---- the share ------------------------------------------------------------------------------------------


class Card:
    """torch.cuda of a card of 80 GB on which others hold memory; each look at it is a moment."""

    def __init__(self, patch, others=0, weights=0):
        self.others, self.allocated, self.reserved = list(others) if others else [0], weights, weights
        self.fractions, self.emptied, self.now, self.waits, self.fraction = [], 0, 0, 0, 1.0
        total = 80 * GB
        properties = SimpleNamespace(total_memory=total)
        for name, value in {
            "is_available": lambda: True, "current_device": lambda: 0,
            "get_device_properties": lambda *_: properties,
            "set_per_process_memory_fraction": lambda share, on: self.fractions.append((share, on)),
            "get_per_process_memory_fraction": lambda *_: self.fraction,
            "mem_get_info": lambda *_: (total - self.held() - self.reserved, total),
            "memory_allocated": lambda *_: self.allocated, "memory_reserved": lambda *_: self.reserved,
            "empty_cache": self.empty,
        }.items():  # fmt: skip
            patch.setattr(torch.cuda, name, value)
        patch.setattr(share.time, "monotonic", lambda: self.now)
        patch.setattr(share.time, "sleep", self.sleep)

    def held(self):
        return self.others[min(self.waits, len(self.others) - 1)]

    def sleep(self, seconds):
        self.now += seconds
        self.waits += 1

    def empty(self):
        self.emptied += 1


CUDA = torch.device("cuda")
BUDGET = {"batch": 4, "length": 512}


@pytest.mark.parametrize("text, size", [
    ("", None), ("0.05", 4 * GB), ("1", 80 * GB), (".5", 40 * GB), ("5%", 4 * GB), ("8GB", 8 * GB),
    ("2 GiB", 2 * 2**30), ("1500MB", 1.5 * GB),
])  # fmt: skip
def test_a_share_is_read_in_every_form(monkeypatch, text, size):
    monkeypatch.setenv("LABKIT_GPU_SHARE", text)
    assert share.share(80 * GB) == size


@pytest.mark.parametrize("text", ["0", "1.5", "-0.1", "200%", "81GB", "a lot", "8gb", "nan", "1e-2", "0 GB"])
def test_any_other_share_is_refused(monkeypatch, text):
    monkeypatch.setenv("LABKIT_GPU_SHARE", text)
    with pytest.raises(LabkitError, match="LABKIT_GPU_SHARE is"):
        share.share(80 * GB)


def test_the_share_is_applied_each_time_less_what_cuda_itself_takes(monkeypatch):
    from labkit.memory.machine import H100

    card = Card(monkeypatch)
    share.apply()
    assert card.fractions == []
    monkeypatch.setenv("LABKIT_GPU_SHARE", "0.05")
    share.apply()
    share.apply(CUDA)
    assert card.fractions == 2 * [(pytest.approx((4 * GB - H100.context) / (80 * GB)), 0)]
    monkeypatch.setenv("LABKIT_GPU_SHARE", "0.5GB")
    with pytest.raises(LabkitError, match="CUDA alone takes about 0.8 GB"):
        share.apply()


@pytest.fixture
def training(monkeypatch):
    """What `turn` takes for the step, without a model: LoRA on the base, of which 0.6 GB lie on the card."""
    monkeypatch.setattr(need, "setting_of", lambda model, batch, length, **_: _step(batch=batch, seq=length))


def test_without_a_share_or_a_card_nothing_is_asked_or_changed(monkeypatch, training):
    card = Card(monkeypatch, others=[79 * GB])
    with share.turn(None, CUDA, **BUDGET):
        pass
    monkeypatch.setenv("LABKIT_GPU_SHARE", "0.1")
    with share.turn(None, torch.device("cpu"), **BUDGET):
        pass
    assert card.fractions == [] and card.emptied == 0 and card.waits == 0


def test_training_waits_until_memory_is_free_says_so_and_gives_back(monkeypatch, training, capsys):
    monkeypatch.setenv("LABKIT_GPU_SHARE", "0.1")
    card = Card(monkeypatch, others=[79 * GB, 78 * GB, 70 * GB], weights=need.weights(_step()))
    with share.turn(None, CUDA, **BUDGET):
        assert card.waits == 2 and len(card.fractions) == 1 and card.emptied == 0
        said = capsys.readouterr().out
    assert card.emptied == 1
    assert "waiting for GPU memory" in said and said.endswith("memory is free after 4 s\n")


def test_training_that_has_room_starts_at_once_and_silently(monkeypatch, training, capsys):
    monkeypatch.setenv("LABKIT_GPU_SHARE", "0.1")
    card = Card(monkeypatch, others=[70 * GB], weights=need.weights(_step()))
    with pytest.raises(ZeroDivisionError), share.turn(None, CUDA, **BUDGET):
        1 / 0  # noqa: B018
    assert card.waits == 0 and capsys.readouterr().out == ""
    assert card.emptied == 1  # memory goes back after a crash too


def test_a_wait_ends_with_a_clear_error(monkeypatch, training):
    monkeypatch.setenv("LABKIT_GPU_SHARE", "0.1")
    card = Card(monkeypatch, others=[77 * GB], weights=need.weights(_step()))
    with pytest.raises(LabkitError, match=r"for 60 s others left .* Pass batch=\d, accumulate=\d"):
        with share.turn(None, CUDA, timeout=60, **BUDGET):
            pytest.fail("trained without memory")
    assert card.now == 60


def test_a_step_that_its_share_can_never_hold_is_refused_at_once(monkeypatch, training):
    monkeypatch.setenv("LABKIT_GPU_SHARE", "4GB")
    card = Card(monkeypatch, weights=need.weights(_step()))
    with pytest.raises(LabkitError, match=r"too large for LABKIT_GPU_SHARE=4GB.* Pass batch=2, accumulate=2"):
        with share.turn(None, CUDA, **BUDGET):
            pytest.fail("trained beyond the share")
    assert card.waits == 0


def test_a_model_that_nothing_predicts_trains_within_its_share_without_waiting(monkeypatch):
    monkeypatch.setenv("LABKIT_GPU_SHARE", "0.1")
    card = Card(monkeypatch, others=[79 * GB])
    with share.turn(torch.nn.Linear(1, 1), CUDA, **BUDGET):
        assert len(card.fractions) == 1 and card.waits == 0


def test_who_runs_out_of_memory_hears_which_budget_to_lower_from_what_was_free_before(monkeypatch, training):
    card = Card(monkeypatch, others=[70 * GB], weights=need.weights(_step()))
    advice = share.advisor(None, CUDA, batch=32, length=512, accumulate=2)
    card.allocated = card.reserved = 9 * GB  # what the broken step still holds
    assert "there is room for 10.0 GB. Pass batch=16, accumulate=4" in advice()
    card = Card(monkeypatch, others=[70 * GB], weights=4 * GB)  # another model of this notebook
    assert "room for 6.6 GB. Pass batch=8, accumulate=4" in share.advisor(None, CUDA, batch=32, length=512)()
    card = Card(monkeypatch, weights=need.weights(_step()))
    card.fraction = 5.0 * GB / (80 * GB)  # set by hand, as lesson 01 does to run out of memory
    assert "room for 5.0 GB. Pass batch=" in share.advisor(None, CUDA, batch=32, length=512)()
    with monkeypatch.context() as patch:
        patch.setenv("LABKIT_GPU_SHARE", "5GB")
        Card(patch, weights=need.weights(_step()))
        assert "room for 4.2 GB. Pass batch=4" in share.advisor(None, CUDA, batch=32, length=512)()
    assert share.advisor(None, torch.device("cpu"), batch=32, length=512)() == ""
    assert "Pass batch=16" in need.advice(_step(), 70 * GB)  # it ran out all the same: something smaller


# ---- where training meets the share ---------------------------------------------------------------------


@pytest.fixture
def looped(monkeypatch):
    """`fit` with a loop that only notes its call, or fails as told; returns (fit, what was seen)."""
    from contextlib import contextmanager

    from labkit.train import loop, sharing

    seen = {"turns": [], "error": None}

    @contextmanager
    def turn(model, on, **budget):
        seen["turns"].append(budget)
        yield

    def trained(model, rows, tokenizer, **options):
        if seen["error"]:
            raise LabkitError("general advice") from seen["error"]
        return options

    monkeypatch.setattr(share, "turn", turn)
    monkeypatch.setattr(loop, "fit", trained)
    monkeypatch.setattr(share, "advisor", lambda *_, **__: lambda: seen.get("advice", ""))
    return sharing.fit, seen


def test_fit_waits_its_turn_with_the_budget_that_it_was_given(looped):
    fit, seen = looped
    options = {"steps": 1, "lr": 1e-3, "batch": 8, "gradient_checkpointing": True, "precision": "fp32"}
    assert fit(torch.nn.Linear(1, 1), [], None, **options) == options
    (budget,) = seen["turns"]
    assert budget == {"batch": 8, "length": 512, "accumulate": 1, "precision": "fp32", "checkpointing": True}
    with pytest.raises(TypeError, match="baton"):
        fit(torch.nn.Linear(1, 1), [], None, steps=1, lr=1e-3, baton=2)


def test_only_running_out_of_memory_gets_the_predicted_advice(looped):
    fit, seen = looped
    seen |= {"error": torch.cuda.OutOfMemoryError("out"), "advice": "Pass batch=2"}
    with pytest.raises(LabkitError, match="^the GPU ran out of memory. Pass batch=2$"):
        fit(torch.nn.Linear(1, 1), [], None, steps=1, lr=1e-3)
    for advice, error in (("", seen["error"]), ("Pass batch=2", ValueError("other"))):
        seen |= {"advice": advice, "error": error}
        with pytest.raises(LabkitError, match="^general advice$"):
            fit(torch.nn.Linear(1, 1), [], None, steps=1, lr=1e-3)


def test_what_everyone_imports_is_this_fit_and_it_reads_like_the_loops():
    import inspect

    import labkit
    from labkit.train import loop, sharing

    assert labkit.fit is sharing.fit and inspect.signature(labkit.fit) == inspect.signature(loop.fit)
