"""Thirty learners on one card: promises that hold, processes that end anyhow, and a table that says so."""

import json
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from labkit.bench import main as bench_main
from labkit.bench import workshop as bench
from labkit.bench import workshop_arm, workshop_card, workshop_report
from labkit.errors import LabkitError
from labkit.memory import Setting
from labkit.paths import ROOT, SOLUTIONS
from labkit.records import store
from labkit.workshop import need, share
from labkit.workshop.book import Book

GB = 10**9
CUDA = torch.device("cuda")


# ---- the book: who may still take memory ----------------------------------------------------------------


@pytest.fixture
def books(tmp_path):
    """As many processes' books of one card as a test asks for."""
    return lambda: Book("GPU-1", tmp_path)


def test_others_notes_are_read_and_ones_own_is_not(books):
    one, other, third = books(), books(), books()
    one.note(3, 2, 9, 5)  # the folder is not there before somebody was alone
    assert other.others() == []
    for number, book in enumerate((one, other), 1):
        with book.alone():
            book.note(30 * number, 20.7 * number, 9, 5)
    assert one.others() == [(60, 41, 9, 5)] and other.others() == [(30, 20, 9, 5)]
    assert len(third.others()) == 2
    one.note(5, 0, 9, 10**12)  # shorter than before
    assert other.others() == [(5, 0, 9, 10**12)]


def test_a_promise_dies_with_its_process_however_that_ends(books, tmp_path):
    script = (
        "import sys; from labkit.workshop.book import Book\n"
        "book = Book('GPU-1', sys.argv[1])\n"
        "with book.alone(): book.note(7, 7, 8, 9)\n"
        "print('noted', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", script, tmp_path], cwd=ROOT, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    with child:
        assert child.stdout.readline() == "noted\n"
        assert books().others() == [(7, 7, 8, 9)]
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert books().others() == []
    assert list((tmp_path / "labkit-gpu-GPU-1").iterdir()) == []


def test_only_one_is_alone_at_a_time_and_a_lock_kept_too_long_is_passed_over(books, monkeypatch):
    import labkit.workshop.book as module

    one, other = books(), books()
    with one.alone():
        slept = []
        monkeypatch.setattr(module.time, "sleep", slept.append)
        monkeypatch.setattr(module.time, "monotonic", lambda: len(slept))
        with other.alone():
            assert len(slept) == module.PATIENCE
    slept.clear()
    with other.alone():
        assert slept == []


@pytest.mark.parametrize("card, folder", [("", "there"), ("GPU-1", "a file")])
def test_without_a_usable_folder_everyone_looks_alone(tmp_path, card, folder):
    if folder == "a file":
        (tmp_path / "labkit-gpu-GPU-1").write_text("in the way")
    book = Book(card, tmp_path)
    with book.alone():
        book.note(1, 1, 1, 1)
        assert book.others() == []
    with pytest.raises(ZeroDivisionError), book.alone():
        1 / 0  # noqa: B018


@pytest.mark.parametrize("rubbish", [b"rubbish", b"1 2 3", b""])
def test_a_damaged_file_of_a_living_process_counts_as_nothing(books, rubbish):
    one, other = books(), books()
    with one.alone():
        one.note(1, 1, 1, 1)
    os.pwrite(one.file, rubbish.ljust(80), 0)
    assert other.others() == []


# ---- the share: thirty who look at once -----------------------------------------------------------------

CONTEXT = share.H100.context


class Room:
    """A card of 80 GB and learners on it, each with a context and the base; `now` is who runs."""

    def __init__(self, patch, learners, books, size, strangers=0):
        patch.setenv("LABKIT_GPU_SHARE", f"{size / 1e6:.0f}MB")
        self.strangers = strangers
        self.reserved = [need.weights(step()) for _ in range(learners)]
        self.books, self.now = [books() for _ in range(learners)], 0
        for name, value in {
            "mem_get_info": lambda *_: (self.free, 80 * GB),
            "memory_reserved": lambda *_: self.reserved[self.now],
            "memory_allocated": lambda *_: self.reserved[self.now],
            "get_device_properties": lambda *_: SimpleNamespace(total_memory=80 * GB),
        }.items():  # fmt: skip
            patch.setattr(torch.cuda, name, value)
        patch.setattr(share, "_book", lambda on: self.books[self.now])

    @property
    def free(self):
        return 80 * GB - self.strangers - sum(CONTEXT + one for one in self.reserved)

    def looks(self, number, wanted, fitted=False):
        """What learner `number` is promised, if anything."""
        self.now = number
        return share._look(wanted, CUDA, fitted)


def step(**changes):
    return Setting("smollm2-135m", **{"method": "lora", "rank": 16, "optimizer": "fused", "fused_loss": True,
                                      "precision": "bf16 autocast", "seq": 512, "batch": 1, **changes})


def test_thirty_of_the_small_budget_train_at_once_and_keep_within_their_shares(monkeypatch, books):
    wanted, size = need.peak(step(batch=bench.SMALL["batch"], seq=bench.SMALL["length"])), 80 * GB / 30 - 1e6
    assert wanted + CONTEXT < size
    room = Room(monkeypatch, 30, books, size)
    for number in range(30):
        promise, _ = room.looks(number, wanted)
        assert promise
        if number % 2:  # has all that it will have when the next one looks; the others have none of it yet
            room.reserved[number] = wanted
            share._note(CUDA, promise, 0.2 * GB)
    room.reserved = [wanted] * 30
    assert room.free > 0


def test_of_thirty_whose_shares_fit_but_for_a_stranger_some_wait(monkeypatch, books):
    wanted = need.peak(step())
    room = Room(monkeypatch, 30, books, 80 * GB / 30 - 1e6, strangers=15 * GB)
    promised = [bool(room.looks(number, wanted)[0]) for number in range(30)]
    assert 10 < sum(promised) < 30
    room.reserved = [wanted if one else room.reserved[0] for one in promised]
    assert room.free >= 0


def test_of_thirty_who_look_at_once_only_as_many_train_as_the_card_will_hold(monkeypatch, books):
    wanted = need.peak(step(batch=bench.LARGE["batch"]))
    room = Room(monkeypatch, 30, books, 7 * GB)
    promised = [bool(room.looks(number, wanted)[0]) for number in range(30)]
    assert 5 <= sum(promised) <= 11
    room.reserved = [wanted if one else room.reserved[0] for one in promised]
    assert 0 <= room.free < wanted  # and there would have been no room for another
    alone = Room(monkeypatch, 30, lambda: Book(""), 7 * GB)
    assert all(alone.looks(number, wanted)[0] for number in range(30))  # all would have: 150 GB


def test_what_others_hold_by_now_counts_after_two_looks_of_which_both_had_room(monkeypatch, books):
    room, wanted = Room(monkeypatch, 3, books, 45 * GB), 30 * GB
    room.looks(0, 40 * GB)
    room.reserved[0] = 40 * GB  # it has taken all, and says so
    share._note(CUDA, 39.6 * GB, 0)
    promised, missing = room.looks(1, wanted)
    assert promised == 0 and missing <= 0
    assert room.looks(1, wanted, fitted=True)[0] > 29 * GB
    promised, missing = room.looks(2, wanted, fitted=True)
    assert promised == 0 and missing > 0


@pytest.fixture
def training(monkeypatch, books):
    """`turn` on a shared card with one other learner, whose book it returns; nothing sleeps."""
    room = Room(monkeypatch, 2, books, 10 * GB)
    monkeypatch.setattr(share, "apply", lambda on: None)
    monkeypatch.setattr(need, "setting_of", lambda model, batch, length, **_: step(batch=batch, seq=length))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(share, "TELL", 0.001)
    return room


def test_a_training_tells_what_it_still_takes_and_keeps_little_afterwards(training):
    other, began = training.books[1], training.reserved[0]
    with share.turn(None, CUDA, batch=8, length=512):
        ((most, now, size, _),) = other.others()
        assert most == pytest.approx(need.peak(step(batch=8)) - began + share.LATER) and size == 10 * GB
        assert now > 0.9 * most
        training.reserved[0] = need.peak(step(batch=8))
        for _ in range(10_000):
            if other.others()[0].now == 0:
                break
        assert other.others() == [(most, 0, size, training.reserved[0])]
        training.reserved[0] = began
    assert other.others() == [(share.IDLE, share.IDLE, size, began)]


def test_the_wait_of_a_refused_learner_leaves_no_promise_and_is_counted(training, monkeypatch):
    moments = iter(range(1000))
    monkeypatch.setattr(share.time, "monotonic", lambda: next(moments))
    monkeypatch.setattr(share.time, "sleep", lambda _: None)
    monkeypatch.setattr(share, "waited", 0.0)
    training.reserved[1] = 75 * GB
    with pytest.raises(LabkitError, match="for 5 s others left too little"):
        with share.turn(None, CUDA, batch=8, length=512, timeout=5):
            pytest.fail("trained without room")
    assert training.books[1].others() == [] and share.waited >= 5


# ---- arms -----------------------------------------------------------------------------------------------


def asked(*argv):
    return bench._options(list(argv))


def test_the_budgets_are_those_of_lesson_05():
    text = (SOLUTIONS / "05_lora.py").read_text()
    for profile, budget in (("cpu", bench.SMALL), ("gpu", bench.LARGE)):
        found = re.search(rf"{profile}=dict\(steps=\d+, batch=(\d+), length=(\d+)", text)
        assert budget == {"batch": int(found[1]), "length": int(found[2])}
    assert float(re.search(r"LORA_LR = .*?, (\S+)", text)[1]) == workshop_arm.RATE
    assert "LoraConfig(r=16, lora_alpha=32" in text  # which is what the method lora makes


def test_the_largest_number_runs_first_and_the_shares_add_up_to_the_card(monkeypatch):
    monkeypatch.setattr(workshop_card, "has_mps", lambda: True)
    found = bench.arms(asked(), on_gpu=True)
    assert list(found) == ["share-30", "share-1", "mps-30", "free-30", "queue-30", "share-10", "share-20"]
    for arm in found.values():
        monkeypatch.setenv("LABKIT_GPU_SHARE", arm["share"] or "")
        size = share.share(80 * GB)
        if arm["kind"] in ("share", "mps"):
            assert 79.9 * GB < arm["learners"] * size <= 80 * GB and arm["steps"] == 250
        elif arm["kind"] == "free":
            assert size is None
        else:
            assert arm["learners"] * size > 80 * GB and need.peak(step(batch=8)) + CONTEXT < size
    monkeypatch.setattr(workshop_card, "has_mps", lambda: False)
    assert "mps-30" not in bench.arms(asked(), on_gpu=True)
    few = bench.arms(asked("--learners", "3,2", "--kinds", "share", "--card", "6"), on_gpu=True)
    assert {name: arm["share"] for name, arm in few.items()} == {"share-3": "2000MB", "share-2": "3000MB"}
    assert {arm["kind"] for arm in bench.arms(asked(), on_gpu=False).values()} == {"share"}


@pytest.mark.parametrize("argv", [("--learners", "0"), ("--learners", "x"), ("--kinds", "shares")])
def test_what_cannot_be_asked_for_is_refused(argv, capsys):
    with pytest.raises(SystemExit):
        asked(*argv)


# ---- learners from outside ------------------------------------------------------------------------------

DONE = {"error": None, "loaded": 1.0, "trained": 3.0, "training": 2.0, "steps": 4, "loss": 0.5, "done": 3.5,
        "answers": 8, "waited": 0.0, "path": "plain", "allocated": 2 * GB, "reserved": 2 * GB}  # fmt: skip
ENDS = {
    "well": f"open(order['file'], 'w').write(json.dumps({DONE!r} | {{'env': dict(os.environ)}}))",
    "killed": "print('last words', flush=True); os.kill(os.getpid(), 9)",
    "silent": "pass",
    "refused": "open(order['file'], 'w').write(json.dumps({'error': 'too large', 'waited': 0})); sys.exit(1)",
    "hanging": "time.sleep(600)",
}


@pytest.fixture
def learners(monkeypatch):
    """Have learners end as told, by number."""
    def of(*ends):
        def command(order):
            number = int(order["file"][-7:-5])
            given = f"order = json.loads({json.dumps(order)!r})"
            return [sys.executable, "-S", "-c", f"import json, os, sys, time\n{given}\n{ENDS[ends[number]]}"]

        monkeypatch.setattr(workshop_arm, "command", command)
        monkeypatch.setattr(workshop_arm, "LOOK", 0.02)
        arm = {"kind": "share", "learners": len(ends), "share": "2GB", "steps": 4, "batch": 1, "length": 512}
        return arm

    return of


def test_each_learner_is_reported_as_it_ended(learners, tmp_path):
    arm = learners("well", "killed", "silent", "refused")
    found = workshop_arm.run(arm, tmp_path, workshop_card.NoCard(), None, 60)
    ended = [(one["status"], one["error"]) for one in found["each"]]
    assert ended == [(0, None), (-9, "last words"), (1, "ended early, with no error"), (1, "too large")]
    assert not found["cut"] and all(one["ended"] is not None for one in found["each"])
    summed = workshop_report.summary({"share-4": found}, 80)["arms"]["share-4"]
    assert summed["failed"] == 3 and summed["done"] == 3.5 and summed["steps/s"] == 2


def test_who_hangs_is_killed_at_the_limit_and_that_is_said(learners, tmp_path, monkeypatch):
    started, real = [], subprocess.Popen

    def popen(*args, **options):
        started.append(real(*args, **options))
        return started[-1]

    monkeypatch.setattr(workshop_arm.subprocess, "Popen", popen)
    found = workshop_arm.run(learners("hanging", "well"), tmp_path, workshop_card.NoCard(), None, 3)
    assert found["cut"] and found["each"][0]["error"] == "still at it after 3 s"
    assert found["each"][1]["status"] == 0
    assert [one.returncode for one in started] == [-9, 0]


def test_whatever_breaks_the_bench_leaves_no_learner_behind(learners, tmp_path, monkeypatch):
    started, real = [], subprocess.Popen
    monkeypatch.setattr(workshop_arm.subprocess, "Popen",
                        lambda *args, **options: started.append(real(*args, **options)) or started[-1])
    card = workshop_card.NoCard()
    card.look = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        workshop_arm.run(learners("hanging", "hanging"), tmp_path, card, None, 60)
    assert [one.returncode for one in started] == [-9, -9]


def test_a_learner_gets_its_share_one_thread_and_nothing_of_the_benchs_own(learners, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_BESIDE", "4")  # blocks would be compiled thirty times over
    monkeypatch.setenv("LABKIT_GPU_SHARE", "0.9")
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/elsewhere")
    arm, card = learners("well"), workshop_card.NoCard()
    (one,) = workshop_arm.run(arm, tmp_path, card, "3", 60)["each"]
    seen = one["env"]
    assert seen["LABKIT_GPU_SHARE"] == "2GB" and seen["OMP_NUM_THREADS"] == "1"
    assert seen["CUDA_VISIBLE_DEVICES"] == "3"
    assert not {"LABKIT_BESIDE", "CUDA_MPS_PIPE_DIRECTORY"} & set(seen)
    more = {"CUDA_MPS_PIPE_DIRECTORY": "/here", "CUDA_VISIBLE_DEVICES": "0"}
    (one,) = workshop_arm.run({**arm, "share": None}, tmp_path, card, "3", 60, more)["each"]
    assert "LABKIT_GPU_SHARE" not in one["env"] and one["env"]["CUDA_MPS_PIPE_DIRECTORY"] == "/here"
    assert one["env"]["CUDA_VISIBLE_DEVICES"] == "0"


# ---- a learner from inside ------------------------------------------------------------------------------


@pytest.fixture
def order(tmp_path, monkeypatch, tiny, tokenizer, tickets):
    """A learner's order, with a tiny model, LoRA and few rows."""
    from labkit.methods.lora import adapted

    rows = {"train": tickets[:8], "test": SimpleNamespace(select=lambda some: tickets[: len(some)])}
    lora = SimpleNamespace(prepare=lambda seed: adapted(tiny(seed), 2))
    monkeypatch.setattr("labkit.methods.find", lambda name: {"lora": lora}[name])
    monkeypatch.setattr("labkit.load", lambda name: rows, raising=False)
    monkeypatch.setattr("labkit.load_tokenizer", lambda: tokenizer, raising=False)
    monkeypatch.setattr(workshop_arm, "LONG", 2)
    monkeypatch.setattr(share, "waited", 0.0)
    return {"file": str(tmp_path / "00.json"), "began": 0.0, "device": "cpu", "steps": 2, "batch": 1,
            "length": 256}  # fmt: skip


def read(order):
    with open(order["file"]) as file:
        return json.load(file)


def test_a_learner_trains_answers_and_says_what_it_cost(order):
    assert bench_main(["workshop", "--learner", json.dumps(order)]) == 0
    found = read(order)
    assert (found["error"], found["steps"], found["answers"]) == (None, 2, 8)
    assert found["loaded"] <= found["trained"] <= found["done"] and found["training"] > 0
    assert 5 < found["loss"] < 15 and found["waited"] == 0


@pytest.mark.parametrize("error, said", [
    (torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried"), "OutOfMemoryError: CUDA out of memory."),
    (LabkitError("for 600 s others left too little"), "for 600 s others left too little"),
])  # fmt: skip
def test_a_learner_that_fails_leaves_what_it_had_and_the_error(order, monkeypatch, error, said):
    def fit(*_, **__):
        raise error

    monkeypatch.setattr("labkit.fit", fit, raising=False)
    assert workshop_arm.learn(order) == 1
    found = read(order)
    assert found["error"] == said and "loaded" in found and "answers" not in found


def test_a_learner_that_finds_no_card_does_not_train_on_the_cpu(order):
    assert workshop_arm.learn({**order, "device": "cuda"}) == 1
    assert "was to have cuda" in read(order)["error"]


# ---- the card and MPS -----------------------------------------------------------------------------------


def test_a_larger_card_is_made_as_small_as_asked_and_its_peak_is_seen(monkeypatch):
    seen = SimpleNamespace(free=139 * GB)

    def empty(size, **_):
        seen.free -= size
        return object()

    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (seen.free, 141 * GB))
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    card = workshop_card.card_of(80 * GB)
    assert seen.free == card.size == 80 * GB and card.peak == 0
    for seen.free in (50 * GB, 20 * GB, 70 * GB):
        card.look()
    assert card.peak == 60 * GB
    monkeypatch.setattr(workshop_card.time, "sleep", lambda _: setattr(seen, "free", 80 * GB))
    card.reset()  # the memory of those who ended comes back a moment later
    assert card.peak == 0
    with pytest.raises(LabkitError, match="has 80.0 GB free, not 90.0"):
        workshop_card.card_of(90 * GB)


@pytest.fixture
def control(tmp_path, monkeypatch):
    """A stand-in for NVIDIA's control program, that notes how it is called; returns (path, what it noted)."""
    program, notes = tmp_path / workshop_card.CONTROL, tmp_path / "notes"
    line = 'echo "$1|$(cat)|$CUDA_MPS_PIPE_DIRECTORY|$CUDA_VISIBLE_DEVICES"'
    program.write_text(f"#!/bin/sh\n{line} >> {notes}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return program, notes


def test_mps_is_started_and_stopped_in_a_folder_of_its_own(control):
    _, notes = control
    assert workshop_card.has_mps()
    with pytest.raises(ZeroDivisionError), workshop_card.mps("3") as more:
        place = more["CUDA_MPS_PIPE_DIRECTORY"]
        assert os.path.isdir(place) and more["CUDA_VISIBLE_DEVICES"] == "0"
        assert notes.read_text() == f"-d||{place}|3\n"
        1 / 0  # noqa: B018
    assert notes.read_text().splitlines()[1] == f"|quit -t 5|{place}|3" and not os.path.exists(place)
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ


def test_an_mps_that_does_not_start_costs_its_arm_only(control, monkeypatch, tmp_path, capsys):
    control[0].write_text("#!/bin/sh\nexit 7\n")
    arms = {kind: {"kind": kind, "steps": 1, "batch": 1, "length": 9} for kind in ("mps", "share")}
    monkeypatch.setattr(workshop_card, "card_of", lambda size: workshop_card.NoCard())
    monkeypatch.setattr(bench.jobs, "cards", lambda: ["0"])
    monkeypatch.setattr(workshop_arm, "run", lambda arm, *_: pretended(arm | {"learners": 1}))
    found, left = bench._run(arms, asked("--folder", str(tmp_path)), {}, on_gpu=True)
    assert (list(found), left) == (["share"], [])
    assert "mps is left out: MPS did not start" in capsys.readouterr().out


# ---- the bench ------------------------------------------------------------------------------------------


def pretended(arm, failing=0, slow=1.0, cut=False, waited=0.0):
    """What an arm came to, of which the last `failing` learners failed."""
    times = {"trained": 1 + 2 * slow, "training": 2 * slow, "done": 5 * slow, "waited": waited}
    good = {**DONE, **times, "status": 0, "ended": 6.0}
    bad = {"error": "OutOfMemoryError: out", "status": 1, "ended": 2.0, "waited": 0.0}
    each = [good] * (arm["learners"] - failing) + [bad] * failing
    return {"share": None, **arm, "each": each, "peak": 40 * GB, "cut": cut, "seconds": 9.0}


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Real main and files on a pretended GPU; `ran` are the arms that were run."""
    made = SimpleNamespace(ran=[], folder=str(tmp_path / "out"), cut=False)

    def run(arm, folder, card, visible, limit, more=None):
        made.ran.append(f"{arm['kind']}-{arm['learners']}")
        return pretended(arm, failing=13 * (arm["kind"] == "free"), slow=arm["learners"], cut=made.cut,
                         waited=80.0 * (arm["kind"] == "queue"))  # fmt: skip

    monkeypatch.setattr(workshop_arm, "run", run)
    monkeypatch.setattr(workshop_card, "card_of", lambda size: workshop_card.NoCard())
    monkeypatch.setattr(workshop_card, "has_mps", lambda: False)
    monkeypatch.setattr(bench, "_prepare", lambda: None)
    monkeypatch.setattr(bench.env, "profile", lambda: "gpu")
    monkeypatch.setattr(bench.jobs, "cards", lambda: ["0"])
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    return made


def test_the_bench_runs_every_arm_once_writes_a_record_and_goes_on_where_it_was(world, capsys):
    argv = ["workshop", "--folder", world.folder]
    assert bench_main(argv) == 0
    assert world.ran == ["share-30", "share-1", "free-30", "queue-30", "share-10", "share-20"]
    whole = store.read("workshop")
    assert whole["values"]["largest"] == {"share": 30, "mps": 0}
    arms = whole["values"]["arms"]
    assert arms["free-30"]["failed"] == 13 and arms["free-30"]["errors"] == {"OutOfMemoryError: out": 13}
    assert arms["share-30"]["slow-down"] == 30 and arms["queue-30"]["slow-down"] is None
    assert arms["queue-30"]["waited"] == 30 and whole["peak_bytes"] == 40 * GB
    world.ran.clear()
    bench_main(argv)
    assert world.ran == []
    bench_main([*argv, "--steps", "100", "--learners", "30,1", "--kinds", "share,queue"])
    assert world.ran == ["share-30", "share-1"]  # `queue` has no other steps by that
    world.ran.clear()
    bench_main([*argv, "--card", "70", "--learners", "30", "--kinds", "share"])
    assert world.ran == ["share-30"]


def test_the_table_says_who_failed_who_waited_and_how_slow_it_was(world, capsys):
    bench_main(["workshop", "--folder", world.folder])
    text = workshop_report.text()
    assert "| 30 | a share each, 1 x 512 tokens a step | 0 | 0 | 2.5 | 30.0x | 2.0 | 40.0 | 1.33 |" in text
    assert "| 30 | no share, 8 x 512 tokens a step | 13 | 0 |" in text
    assert "| 30 | 7GB each, more than the card has: 8 x 512 tokens a step | 0 | 30 (up to 80 s) |" in text
    assert "13 ended with “OutOfMemoryError: out”" in text and "Recorded on" in text


def test_without_a_record_the_table_says_how_to_make_one(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    assert "python -m labkit bench workshop" in workshop_report.text()


def test_no_arm_begins_without_time_and_one_that_time_cut_short_does_not_count(world, capsys):
    argv = ["workshop", "--folder", world.folder, "--learners", "2", "--kinds", "share", "--minutes"]
    with pytest.raises(LabkitError, match="no arm was done"):
        bench_main([*argv, "0.5"])
    assert world.ran == []
    world.cut = True
    with pytest.raises(LabkitError, match="no arm was done"):
        bench_main([*argv, "2"])
    assert world.ran == ["share-2"] and "no time was left for share-2" in capsys.readouterr().out
    bench_main([*argv, "60"])  # cut by its own limit: that is a result
    assert store.read("workshop") is not None


def test_a_machine_without_a_gpu_gets_a_trial_and_no_record(world, monkeypatch, capsys):
    monkeypatch.setattr(bench.env, "profile", lambda: "cpu")
    bench_main(["workshop", "--folder", world.folder])
    assert world.ran == ["share-2", "share-1"] and store.read("workshop") is None
    assert "no record is written" in capsys.readouterr().out
