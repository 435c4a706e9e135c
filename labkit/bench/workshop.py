"""Thirty learners on one card: how many can train at once, how slow it is then, and whether any fails.

Learners are processes, started together; each loads the base, trains LoRA as lesson 05 does, and generates a
few answers. Kinds of arms, in the order in which they run after a learner alone:

share   lesson 05's small budget, and a share of the card each (LABKIT_GPU_SHARE) that adds up to the card
mps     as `share`, through NVIDIA's MPS, where the machine has it
free    its GPU budget without any share: what sharing without rules comes to
queue   the same with shares that add up to more than the card: who finds no room waits

Fewer learners follow at once where some of the largest number failed or waited, else last.

A larger card is made as small as a workshop's (`--card`, 80 GB) by holding the rest of it.
"""

import argparse
import json
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from labkit import env
from labkit.bench import jobs, workshop_arm, workshop_card, workshop_report
from labkit.errors import LabkitError
from labkit.records import store
from labkit.workshop import share

NAME = "workshop"
SMALL = {"batch": 1, "length": 512}  # a step of lesson 05 under LABKIT_PROFILE=cpu, and on a GPU
LARGE = {"batch": 8, "length": 512}
TRIAL = {"batch": 1, "length": 256}
QUEUED = "7GB"  # of the card for each learner of the arm `queue`: what the large budget wants
FEW = 20  # steps of the large budget: 8 times the work each, and a CUDA graph wants no fewer
LEAST = 60  # seconds that must be left for an arm to begin
CLOSING = 40  # seconds for what ends, MPS among it, and for the memory to come back
CODE = ("bench/workshop", "bench/workshop_arm", "bench/workshop_card", "workshop/share", "workshop/book",
        "workshop/need", "methods/lora", "train/sharing", "evaluate")  # fmt: skip


def main(argv):
    """Run the arms that are missing and write data/measurements/workshop.json; without a GPU, a trial.

    The record is written after every arm. SIGTERM ends learners and MPS before it ends this process.
    """
    options = _options(argv)
    if options.learner:
        return workshop_arm.learn(json.loads(options.learner))
    before = signal.signal(signal.SIGTERM, _end)
    try:
        return _bench(options)
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would break off the tidying up
    sys.exit(143)


def _bench(options):
    ends = time.monotonic() + 60 * options.minutes - CLOSING
    os.environ.pop(share.VARIABLE, None)  # it is for learners, and would bound what is held of the card here
    on_gpu = env.profile() == "gpu"
    planned = arms(options, on_gpu)
    digest = {**store.data_digest("tickets"), **store.training_digest(),
              **store.code_digest(*(f"labkit/{part}.py" for part in CODE))}  # fmt: skip
    _prepare()

    def keep(found):
        if on_gpu:
            store.write(
                NAME, "gpu", seed=0, seconds=sum(one["seconds"] for one in found.values()), digest=digest,
                peak_bytes=max(one["peak"] for one in found.values()),
                values=workshop_report.summary(found, options.card),
            )  # fmt: skip

    found, left = _run(planned, options, {**digest, "card": options.card}, on_gpu, ends, keep)
    print("\n".join(workshop_report.lines(workshop_report.summary(found, options.card))))
    if left:
        print(f"not done in time: {', '.join(left)}. Run it again with the same --folder to go on")
    if not on_gpu:
        print("a trial: no record is written without a GPU")
    elif not found:
        raise LabkitError("no arm was done in time: nothing is written")
    else:
        keep(found)
        print(f"wrote {store.path_of(NAME, 'gpu').name}")
    return 0


def _options(argv):
    parser = argparse.ArgumentParser(
        prog="python -m labkit bench workshop", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--learners", type=_numbers, help="how many at once (default: 1,20,25,30)")
    parser.add_argument("--steps", type=int, help="of each learner's training (default: 250)")
    parser.add_argument("--card", type=float, default=80, help="GB of the card that learners share (80)")
    parser.add_argument("--kinds", type=_kinds, default=KINDS, help="which arms (default: all)")
    parser.add_argument("--minutes", type=float, default=14, help="for everything together (default: 14)")
    parser.add_argument("--timeout", type=float, default=450, help="seconds for an arm (default: 450)")
    parser.add_argument("--folder", default=f"out/{NAME}", help="where arms leave results, to go on from")
    parser.add_argument("--learner", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


KINDS = ("share", "mps", "free", "queue")


def _numbers(text):
    numbers = sorted({int(one) for one in text.split(",")}, reverse=True)
    if numbers[-1] < 1:
        raise ValueError
    return numbers


def _kinds(text):
    if set(text.split(",")) - set(KINDS):
        raise ValueError
    return tuple(text.split(","))


def arms(options, on_gpu):
    """{name: arm} in the order in which they run; without a card to share, a trial of two steps.

    The arm `share-1` has the share of the largest, so that the two differ in nothing but the others.
    """
    numbers = options.learners or ([30, 25, 20, 1] if on_gpu else [2, 1])
    steps = options.steps or (250 if on_gpu else 2)
    most = numbers[0]
    small = {"steps": steps, **(SMALL if on_gpu else TRIAL)}
    large = {"steps": min(FEW, steps), **LARGE}

    def equal(kind, learners):
        size = f"{int(1e3 * options.card / (most if learners == 1 else learners))}MB"
        return {"kind": kind, "learners": learners, "share": size, **small}

    planned = [equal("share", learners) for learners in sorted(numbers, key=lambda one: (one != 1, -one))]
    if on_gpu and workshop_card.has_mps():
        planned.append(equal("mps", most))
    if on_gpu:  # what happens without shares: no answer hangs on these
        for kind, size in (("free", None), ("queue", QUEUED)):
            planned.append({"kind": kind, "learners": most, "share": size, **large})
    return {f"{arm['kind']}-{arm['learners']}": arm for arm in planned if arm["kind"] in options.kinds}


def _prepare():
    """Convert the base model and read the data once, before many want them at once."""
    from labkit import load, load_tokenizer

    load_tokenizer()
    load("tickets")


def _run(planned, options, mark, on_gpu, ends, keep):
    """Run what has no result yet until the clock says `ends`: (name -> result, names that had none).

    `keep` gets all results after each arm. An arm that was cut short is no result.
    """
    Path(options.folder).mkdir(parents=True, exist_ok=True)
    found, left = _kept(planned, options.folder, mark), []
    waiting = [name for name in planned if name not in found]
    visible = jobs.cards()[0] if on_gpu else None
    card = workshop_card.card_of(1e9 * options.card) if on_gpu else workshop_card.NoCard()
    try:
        if on_gpu and waiting and ends - time.monotonic() >= LEAST:
            _warm_up(planned[waiting[0]], options, card, visible, ends)
        while waiting:
            name = _next(waiting, planned, found)
            waiting.remove(name)
            arm, rest = planned[name], ends - time.monotonic()
            if rest < LEAST:
                left.append(name)
                continue
            print(f"{name}: {arm['steps']} steps of {arm['batch']} x {arm['length']} tokens", flush=True)
            try:
                done = _arm(name, arm, options, card, visible, min(options.timeout, rest))
            except LabkitError as error:
                print(f"{name} is left out: {error}", flush=True)
                continue
            print(f"{name}: {workshop_report.sentence(done)}", flush=True)
            if done["cut"]:
                left.append(name)
                continue
            jobs.write(options.folder, name, {**done, "digest": mark})
            found[name] = done
            keep(_in_order(planned, found))
    finally:
        card.close()
    return _in_order(planned, found), left


def _in_order(planned, found):
    return {name: found[name] for name in planned if name in found}


def _kept(planned, folder, mark):
    """The results that an earlier run left for these arms, from the same code and data."""
    found = {}
    for name, arm in planned.items():
        file = jobs.result_file(folder, name)
        kept = json.loads(file.read_text()) if file.exists() else {}
        if kept.get("digest") == mark and {**kept, **arm} == kept:
            found[name] = kept
    return found


def _next(waiting, planned, found):
    """The first arm that waits; last of all those that cannot change how many may train at once."""
    def needless(name):
        arm = planned[name]
        return 1 < arm["learners"] < workshop_report.most(found, arm["kind"])

    return next((name for name in waiting if not needless(name)), waiting[0])


def _warm_up(arm, options, card, visible, ends):
    """One learner that does not count: later ones find files read, and a share that is too small shows.

    LabkitError if it fails, as all would.
    """
    alone = {**arm, "learners": 1, "steps": min(FEW, arm["steps"])}
    limit = min(options.timeout, ends - time.monotonic())
    (one,) = workshop_arm.run(alone, Path(options.folder) / "warm-up", card, visible, limit)["each"]
    if one["error"]:
        given = f"with {arm['share']} of the card" if arm["share"] else "with the whole card"
        raise LabkitError(f"already one learner alone, {given}, failed: {one['error']}")


def _arm(name, arm, options, card, visible, limit):
    card.reset()
    service = workshop_card.mps(visible) if arm["kind"] == "mps" else nullcontext({})
    with service as more:
        return workshop_arm.run(arm, Path(options.folder) / name, card, visible, limit, more)
