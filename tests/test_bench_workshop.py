"""Thirty learners on one card: promises that hold, processes that end anyhow, and a table that says so."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
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
from labkit.workshop import book as book_module
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
    assert list(own(tmp_path).iterdir()) == []


def own(tmp_path):
    """This user's folder."""
    return tmp_path / f"labkit-gpu-{os.geteuid()}"


def test_neither_a_promise_nor_the_lock_outlives_its_process_in_a_forked_child(books, tmp_path):
    script = (
        "import os, sys; from labkit.workshop.book import Book\n"
        "book = Book('GPU-1', sys.argv[1])\n"
        "with book.alone():\n"
        "    book.note(7, 7, 8, 9)\n"
        "    if os.fork() == 0:\n"
        "        book.note(5, 5, 5, 5); os.write(1, b'alive\\n'); sys.stdin.read(); os._exit(0)\n"
        "os.write(1, b'noted\\n'); os._exit(0)"
    )
    child = subprocess.Popen([sys.executable, "-c", script, tmp_path], cwd=ROOT, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    with child:
        assert {child.stdout.readline() for _ in range(2)} == {"alive\n", "noted\n"}
        child.wait()
        assert books().others() == []
        began = time.monotonic()
        with books().alone() as alone:
            assert alone and time.monotonic() - began < book_module.PATIENCE / 2


def test_only_one_is_alone_at_a_time_and_who_waits_too_long_for_that_is_told(books, monkeypatch):
    one, other = books(), books()
    with one.alone() as first:
        slept = []
        monkeypatch.setattr(book_module.time, "sleep", slept.append)
        monkeypatch.setattr(book_module.time, "monotonic", lambda: len(slept))
        with other.alone() as second:
            assert (first, second) == (True, False) and len(slept) == book_module.PATIENCE
            other.note(1, 1, 1, 1)
            assert one.others() == []
    slept.clear()
    with other.alone() as alone:
        assert alone and slept == []


@pytest.mark.parametrize("card, folder", [("", "there"), ("GPU-1", "a file"), ("GPU-1", "open to all")])
def test_without_a_usable_folder_everyone_looks_alone(tmp_path, card, folder):
    if folder == "a file":
        own(tmp_path).write_text("in the way")
    elif folder == "open to all":
        own(tmp_path).mkdir()
        own(tmp_path).chmod(0o777)
    book = Book(card, tmp_path)
    with book.alone() as alone:
        book.note(1, 1, 1, 1)
        assert book.others() == [] and alone is None
    with pytest.raises(ZeroDivisionError), book.alone():
        1 / 0  # noqa: B018


@pytest.mark.parametrize("name", ["labkit-gpu", f"labkit-gpu-{os.geteuid()}"])
def test_a_link_in_the_folders_place_is_not_followed_and_nothing_is_deleted_there(tmp_path, name):
    target = tmp_path / "home"
    target.mkdir(mode=0o1777)
    target.chmod(0o1777 if name == "labkit-gpu" else 0o700)
    kept = [target / "thesis.txt", target / "GPU-1-77-0123abcd"]
    for file in kept:
        file.write_text("1 1 1 1")
    (tmp_path / name).symlink_to(target)
    book = Book("GPU-1", tmp_path)
    with book.alone():
        assert book.others() == []
    assert all(file.exists() for file in kept)


def test_only_regular_files_of_this_card_are_read_and_others_stay(books, tmp_path):
    book = books()
    with book.alone():
        pass
    kept = ["thesis.txt", "GPU-2-77-0123abcd"]
    for name in kept:
        (own(tmp_path) / name).write_text("1 1 1 1")
    (own(tmp_path) / "GPU-1-78-0123abcd").write_text("of a process that ended")
    os.mkfifo(own(tmp_path) / "GPU-1-79-0123abcd")
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("a FIFO keeps everybody waiting"))
    signal.alarm(10)
    try:
        assert book.others() == []
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert {file.name for file in own(tmp_path).iterdir()} == {*kept, "GPU-1-79-0123abcd"}


@pytest.mark.parametrize("owner, mode, trusted", [
    (0, 0o1777, True), (0, 0o777, False), (0, 0o755, False), (1234, 0o1777, False),
])  # fmt: skip
def test_a_folder_for_all_is_roots_and_sticky(owner, mode, trusted):
    assert book_module._for_all(SimpleNamespace(st_uid=owner, st_mode=stat.S_IFDIR | mode)) == trusted


@pytest.mark.skipif(os.geteuid() != 0, reason="makes root's folder")
def test_roots_folder_for_all_goes_before_ones_own(books, tmp_path):
    (tmp_path / "labkit-gpu").mkdir()
    (tmp_path / "labkit-gpu").chmod(0o1777)
    one = books()
    with one.alone():
        one.note(1, 1, 1, 1)
    assert len(list((tmp_path / "labkit-gpu").iterdir())) == 1 and not own(tmp_path).exists()
    assert books().others() == [(1, 1, 1, 1)]


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
        return 80 * GB - self.strangers - sum(CONTEXT + one for one in self.reserved if one)

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


@pytest.mark.parametrize("noted", [True, False])
def test_who_is_still_loading_keeps_room_for_that(monkeypatch, books, noted):
    room, wanted = Room(monkeypatch, 30, books, 7 * GB), need.peak(step(batch=bench.LARGE["batch"]))
    weights, room.reserved = room.reserved[0], [0] * 30
    for room.now in range(30) if noted else ():
        share._start(CUDA).end()
    promised = []
    for number in range(30):  # each looks as soon as it has loaded
        room.reserved[number] = weights
        promised.append(bool(room.looks(number, wanted)[0]))
    room.reserved = [wanted if one else weights for one in promised]
    assert sum(promised) >= 5
    assert (room.free > 0) == noted  # without their notes, the last ones cannot load


def test_a_process_is_noted_once_when_its_share_is_applied_until_it_has_loaded(monkeypatch, books):
    room = Room(monkeypatch, 2, books, 10 * GB)
    weights, room.reserved = room.reserved[0], [0, 0]
    for name in ("is_available", "set_per_process_memory_fraction"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(share, "_starting", {})
    monkeypatch.setattr(share, "TELL", 0.001)
    share.apply()
    share.apply(CUDA)
    (teller,) = share._starting.values()
    assert room.books[1].others() == [(share.START, share.START, 10 * GB, 0)]
    room.reserved[0] = weights
    teller._thread.join(10)
    assert room.books[1].others() == [(share.IDLE, share.IDLE, 10 * GB, weights)]


def test_nobody_is_promised_memory_while_others_keep_the_book(monkeypatch, books):
    room, other = Room(monkeypatch, 1, books, 10 * GB), books()
    monkeypatch.setattr(book_module, "PATIENCE", 0)
    with other.alone():
        assert room.looks(0, 2 * GB) == (0, share.LATER)
    assert room.looks(0, 2 * GB)[0]


def test_one_note_counts_for_no_more_than_the_card(monkeypatch, books):
    room, other = Room(monkeypatch, 1, books, 10 * GB), books()
    with other.alone():
        other.note(10**18, 10**18, 0, 0)
    assert 70 * GB < room.looks(0, 70 * GB)[1] < 75 * GB


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


def test_a_refused_learner_is_promised_what_an_idle_one_is_and_its_wait_is_counted(training, monkeypatch):
    moments = iter(range(1000))
    monkeypatch.setattr(share.time, "monotonic", lambda: next(moments))
    monkeypatch.setattr(share, "waited", 0.0)
    training.reserved[1] = 75 * GB
    seen = []
    monkeypatch.setattr(share.time, "sleep", lambda _: seen.extend(training.books[1].others()))
    with pytest.raises(LabkitError, match="for 5 s others left too little"):
        with share.turn(None, CUDA, batch=8, length=512, timeout=5):
            pytest.fail("trained without room")
    assert {(one.most, one.share) for one in seen} == {(0, 10 * GB)} and share.waited >= 5
    assert [one.most for one in training.books[1].others()] == [share.IDLE]


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


def test_arms_come_in_order_one_alone_first_and_the_shares_add_up_to_the_card(monkeypatch):
    monkeypatch.setattr(workshop_card, "has_mps", lambda: True)
    found = bench.arms(asked(), on_gpu=True)
    assert list(found) == ["share-1", "share-30", "share-25", "share-20", "mps-30", "free-30", "queue-30"]
    assert {found[name]["share"] for name in ("share-1", "share-30", "mps-30")} == {"2666MB"}
    for arm in found.values():
        monkeypatch.setenv("LABKIT_GPU_SHARE", arm["share"] or "")
        size = share.share(80 * GB)
        if arm["kind"] in ("share", "mps"):
            together = 30 if arm["learners"] == 1 else arm["learners"]
            assert 79.9 * GB < together * size <= 80 * GB and arm["steps"] == 250
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
    monkeypatch.setenv("LABKIT_GPU_SHARE", "0.9")
    dropped = {"LABKIT_BESIDE", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "CUDA_MODULE_LOADING",
               "CUDA_LAUNCH_BLOCKING", "LABKIT_MODEL"}  # fmt: skip
    for name in {*dropped, "CUDA_MPS_PIPE_DIRECTORY"}:
        monkeypatch.setenv(name, "/elsewhere")
    arm, card = learners("well"), workshop_card.NoCard()
    (one,) = workshop_arm.run(arm, tmp_path, card, "3", 60)["each"]
    seen = one["env"]
    assert seen["LABKIT_GPU_SHARE"] == "2GB" and seen["OMP_NUM_THREADS"] == "1"
    assert seen["CUDA_VISIBLE_DEVICES"] == "3"
    assert not dropped & set(seen)
    nothing = seen["CUDA_MPS_PIPE_DIRECTORY"]  # no service there, nor at the usual place
    assert nothing != "/elsewhere" and len(nothing) < 100 and not os.path.exists(nothing)
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
    moments = iter(range(1000))
    monkeypatch.setattr(workshop_card.time, "monotonic", lambda: next(moments))
    monkeypatch.setattr(workshop_card.time, "sleep", lambda _: None)
    seen.free = 70 * GB  # something was left behind
    with pytest.raises(LabkitError, match="did not come back: 10.0 GB"):
        card.reset()
    seen.free = 80 * GB
    with pytest.raises(LabkitError, match="has 80.0 GB free, not 90.0"):
        workshop_card.card_of(90 * GB)


@pytest.fixture
def control(tmp_path, monkeypatch):
    """A stand-in for NVIDIA's control program, that notes how it is called; returns (path, what it noted).

    A client makes a server, whose number it then says.
    """
    program, notes = tmp_path / workshop_card.CONTROL, tmp_path / "notes"
    line = 'echo "$1|$in|$CUDA_MPS_PIPE_DIRECTORY|$CUDA_VISIBLE_DEVICES"'
    program.write_text(f'#!/bin/sh\nin=$(cat)\n{line} >> {notes}\n[ "$in" = get_server_list ] && '
                       'cat "$CUDA_MPS_PIPE_DIRECTORY/server" 2> /dev/null\nexit 0\n')  # fmt: skip
    client = 'echo 4711 > "$CUDA_MPS_PIPE_DIRECTORY/server"'
    monkeypatch.setattr(workshop_card, "CLIENT", ["sh", "-c", client])
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return program, notes


def test_mps_is_started_and_stopped_in_a_folder_of_its_own(control):
    _, notes = control
    assert workshop_card.has_mps()
    with pytest.raises(ZeroDivisionError), workshop_card.mps("3") as more:
        place = more["CUDA_MPS_PIPE_DIRECTORY"]
        assert os.path.isdir(place) and more["CUDA_VISIBLE_DEVICES"] == "0"
        assert notes.read_text() == f"-d||{place}|3\n|get_server_list|{place}|0\n"
        1 / 0  # noqa: B018
    assert notes.read_text().splitlines()[2] == f"|quit -t 5|{place}|3" and not os.path.exists(place)
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ


@pytest.mark.parametrize("client, said", [
    ("exit 0", "went on without a server"), ("exit 3", "ended with 3"), ("exec sleep 60", "timed out"),
])  # fmt: skip
def test_an_mps_that_serves_nobody_is_stopped_and_said_so(control, monkeypatch, client, said):
    monkeypatch.setattr(workshop_card, "CLIENT", ["sh", "-c", client])
    monkeypatch.setattr(workshop_card, "FIRST", 0.5)
    with pytest.raises(LabkitError, match=f"MPS does not serve: .*{said}"), workshop_card.mps("3"):
        pytest.fail("an arm began")
    assert "|quit -t 5|" in control[1].read_text()


def test_an_mps_that_does_not_start_costs_its_arm_only(control, monkeypatch, tmp_path, capsys):
    control[0].write_text("#!/bin/sh\nexit 7\n")
    arms = {kind: {"kind": kind, "learners": 1, "share": None, "steps": 1, "batch": 1, "length": 9}
            for kind in ("mps", "share")}  # fmt: skip
    monkeypatch.setattr(workshop_card, "card_of", lambda size: workshop_card.NoCard())
    monkeypatch.setattr(bench.jobs, "cards", lambda: ["0"])
    monkeypatch.setattr(workshop_arm, "run", lambda arm, *_: pretended(arm))
    ends = time.monotonic() + 1000
    found, left = bench._run(arms, asked("--folder", str(tmp_path)), {}, True, ends, lambda found: None)
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
    made = SimpleNamespace(ran=[], folder=str(tmp_path / "out"), cut=False, failing=(), waiting=(),
                           error=None)  # fmt: skip

    def run(arm, folder, card, visible, limit, more=None):
        name = f"{arm['kind']}-{arm['learners']}"
        if folder.name == "warm-up":
            assert arm["learners"] == 1 and arm["steps"] <= 20
            made.ran.append("warm-up")
            return {"each": [{"error": made.error}]}
        made.ran.append(name)
        failing = 13 * (arm["kind"] == "free" or name in made.failing)
        return pretended(arm, failing=failing, slow=arm["learners"], cut=made.cut,
                         waited=80.0 * (arm["kind"] == "queue" or name in made.waiting))  # fmt: skip

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
    assert world.ran == ["warm-up", "share-1", "share-30", "free-30", "queue-30", "share-25", "share-20"]
    whole = store.read("workshop")
    assert whole["values"]["largest"] == {"share": 30, "mps": 0}
    arms = whole["values"]["arms"]
    assert arms["free-30"]["failed"] == 13 and arms["free-30"]["errors"] == {"OutOfMemoryError: out": 13}
    assert arms["share-30"]["training slow-down"] == 30 and arms["queue-30"]["training slow-down"] is None
    assert arms["queue-30"]["waited"] == 30 and whole["peak_bytes"] == 40 * GB
    world.ran.clear()
    bench_main(argv)
    assert world.ran == []
    bench_main([*argv, "--steps", "100", "--learners", "30,1", "--kinds", "share,queue"])
    assert world.ran == ["warm-up", "share-1", "share-30"]  # `queue` has no other steps by that
    world.ran.clear()
    bench_main([*argv, "--card", "70", "--learners", "30", "--kinds", "share"])
    assert world.ran == ["warm-up", "share-30"]


def test_fewer_learners_follow_at_once_where_some_of_the_largest_number_failed(world):
    world.failing = ("share-30",)
    bench_main(["workshop", "--folder", world.folder])
    assert world.ran == ["warm-up", "share-1", "share-30", "share-25", "free-30", "queue-30", "share-20"]
    values = store.read("workshop")["values"]
    assert values["largest"]["share"] == 25 and values["arms"]["share-30"]["training slow-down"] is None
    assert values["arms"]["share-25"]["training slow-down"] == 25
    assert "none failing or waiting: 25 learners" in workshop_report.text()


def test_who_waited_for_others_did_not_train_at_once(world):
    world.waiting = ("share-30",)
    bench_main(["workshop", "--folder", world.folder])
    assert store.read("workshop")["values"]["largest"]["share"] == 25
    assert world.ran[:4] == ["warm-up", "share-1", "share-30", "share-25"]
    each = [{"trained": end, "training": 5.0} for end in (10.0, 12.0, 14.0)]
    assert workshop_report._overlap(each) == 1.0  # the first ended at 10, the last began at 9
    assert workshop_report._overlap([*each, {"trained": 30.0, "training": 5.0}]) < 0


def test_a_share_too_small_for_one_alone_ends_the_bench_before_its_minutes_are_spent(world):
    world.error = "too large for LABKIT_GPU_SHARE"
    with pytest.raises(LabkitError, match="one learner alone, with 2666MB of the card, failed: too large"):
        bench_main(["workshop", "--folder", world.folder])
    assert world.ran == ["warm-up"] and store.read("workshop") is None


def test_sigterm_keeps_the_record_of_arms_done_and_gives_the_card_back(world, monkeypatch):
    real, closed, card = workshop_arm.run, [], workshop_card.NoCard()
    card.close = lambda: closed.append(True)
    monkeypatch.setattr(workshop_card, "card_of", lambda size: card)

    def run(arm, *rest):
        if arm["kind"] == "free":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        return real(arm, *rest)

    monkeypatch.setattr(workshop_arm, "run", run)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"):
        bench_main(["workshop", "--folder", world.folder])
    assert list(store.read("workshop")["values"]["arms"]) == ["share-1", "share-30"] and closed
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_table_says_who_failed_who_waited_and_how_slow_it_was(world, capsys):
    bench_main(["workshop", "--folder", world.folder])
    text = workshop_report.text()
    assert "| 30 | a share each, 1 x 512 tokens a step | 0 | 0 | 2.5 | 30.0x | 2.0 | 40.0 | 1.33 |" in text
    # What those took whom nobody disturbed any more is no measure; and not all held memory at once.
    assert re.search(r"\| 30 \| no share, 8 x 512 tokens a step \| 13 \| 0 \| *\| *\| *\| 40.0 \| *\|", text)
    assert "| 30 | 7GB each, more than the card has: 8 x 512 tokens a step | 0 | 30 (up to 80 s) |" in text
    assert "13 ended with “OutOfMemoryError: out”" in text
    assert "none failing or waiting: at least 30 learners, of whom all were training during 60 s" in text
    assert re.search(r"Recorded on .* with \d+ CPU cores, ", text)


def test_errors_that_differ_in_numbers_only_are_one_and_few_are_shown():
    errors = [f"out of memory: {number}.5 GB free, process {number}" for number in range(9)]
    each = [{"error": error, "status": 1, "ended": 2.0, "waited": 3.0} for error in [*errors, *"abcd"]]
    arm = {"kind": "free", "learners": 13, "share": None, "steps": 1, "batch": 8, "length": 512, "each": each,
           "peak": 0, "seconds": 1.0}  # fmt: skip
    values = workshop_report.summary({"free-13": arm}, 80)
    found = values["arms"]["free-13"]
    assert found["errors"] == {errors[0]: 9, "a": 1, "b": 1, "c": 1, "d": 1} and found["waited"] == 13
    bullets = [line for line in workshop_report.lines(values) if line.startswith("- ")]
    assert len(bullets) == 4 and "9 ended with" in bullets[0] and "2 ended with other errors" in bullets[3]


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
    assert world.ran == ["warm-up", "share-2"] and "not done in time: share-2" in capsys.readouterr().out
    assert store.read("workshop") is None
    world.cut = False
    bench_main([*argv, "2"])
    assert store.read("workshop") is not None


def test_a_machine_without_a_gpu_gets_a_trial_and_no_record(world, monkeypatch, capsys):
    monkeypatch.setattr(bench.env, "profile", lambda: "cpu")
    bench_main(["workshop", "--folder", world.folder])
    assert world.ran == ["share-1", "share-2"] and store.read("workshop") is None
    assert "no record is written" in capsys.readouterr().out
