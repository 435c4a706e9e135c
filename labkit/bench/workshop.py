"""Thirty learners on one card: how many can train at once, how slow it is then, and whether any fails.

Learners are processes, started together; each loads the base, trains LoRA as lesson 05 does, and generates a
few answers. Kinds of arms, of which the largest number of learners comes first:

share   lesson 05's small budget, and a share of the card each (LABKIT_GPU_SHARE) that adds up to the card
mps     the same, through NVIDIA's MPS, where the machine has it
free    its GPU budget without any share: what sharing without rules comes to
queue   its GPU budget with shares that add up to more than the card: who finds no room waits

A larger card is made as small as a workshop's (`--card`, 80 GB) by holding the rest of it.
"""

import argparse
import json
import os
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
CODE = ("bench/workshop", "bench/workshop_arm", "bench/workshop_card", "workshop/share", "workshop/book",
        "workshop/need", "methods/lora", "train/sharing", "evaluate")  # fmt: skip


def main(argv):
    """Run the arms that are missing and write data/measurements/workshop.json; without a GPU, a trial."""
    options = _options(argv)
    if options.learner:
        return workshop_arm.learn(json.loads(options.learner))
    os.environ.pop(share.VARIABLE, None)  # it is for learners, and would bound what is held of the card here
    on_gpu = env.profile() == "gpu"
    planned = arms(options, on_gpu)
    digest = {**store.data_digest("tickets"), **store.training_digest(),
              **store.code_digest(*(f"labkit/{part}.py" for part in CODE))}  # fmt: skip
    _prepare()
    found, left = _run(planned, options, {**digest, "card": options.card}, on_gpu)
    values = workshop_report.summary(found, options.card)
    print("\n".join(workshop_report.lines(values)))
    if left:
        print(f"no time was left for {', '.join(left)}: run it again with the same --folder to go on")
    if not on_gpu:
        print("a trial: no record is written without a GPU")
    elif not found:
        raise LabkitError("no arm was done in time: nothing is written")
    else:
        path = store.write(
            NAME, "gpu", seed=0, seconds=sum(one["seconds"] for one in found.values()), values=values,
            peak_bytes=max(one["peak"] for one in found.values()), digest=digest,
        )  # fmt: skip
        print(f"wrote {path.name}")
    return 0


def _options(argv):
    parser = argparse.ArgumentParser(
        prog="python -m labkit bench workshop", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--learners", type=_numbers, help="how many at once (default: 1,10,20,30)")
    parser.add_argument("--steps", type=int, help="of each learner's training (default: 250)")
    parser.add_argument("--card", type=float, default=80, help="GB of the card that learners share (80)")
    parser.add_argument("--kinds", type=_kinds, default=KINDS, help="which arms (default: all)")
    parser.add_argument("--minutes", type=float, default=8, help="for all arms together (default: 8)")
    parser.add_argument("--timeout", type=float, default=240, help="seconds for an arm (default: 240)")
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
    """{name: arm} in the order in which they run; without a card to share, a trial of two steps."""
    numbers = options.learners or ([30, 20, 10, 1] if on_gpu else [2, 1])
    steps = options.steps or (250 if on_gpu else 2)
    most = numbers[0]
    small = {"steps": steps, **(SMALL if on_gpu else TRIAL)}
    large = {"steps": min(FEW, steps), **LARGE}

    def equal(kind, learners):
        size = f"{int(1e3 * options.card / learners)}MB"
        return {"kind": kind, "learners": learners, "share": size, **small}

    alone = [learners for learners in numbers[1:] if learners == 1]
    planned = [equal("share", learners) for learners in [most, *alone]]
    if on_gpu:
        if workshop_card.has_mps():
            planned.append(equal("mps", most))
        for kind, size in (("free", None), ("queue", QUEUED)):
            planned.append({"kind": kind, "learners": most, "share": size, **large})
    planned += [equal("share", learners) for learners in sorted(numbers[1:]) if learners != 1]
    return {f"{arm['kind']}-{arm['learners']}": arm for arm in planned if arm["kind"] in options.kinds}


def _prepare():
    """Convert the base model and read the data once, before many want them at once."""
    from labkit import load, load_tokenizer

    load_tokenizer()
    load("tickets")


def _run(planned, options, mark, on_gpu):
    """Run what has no result yet while there is time: (name -> result, names that had none)."""
    Path(options.folder).mkdir(parents=True, exist_ok=True)
    began, found, left = time.monotonic(), {}, []
    for name, arm in planned.items():
        file = jobs.result_file(options.folder, name)
        if file.exists():
            kept = json.loads(file.read_text())
            if kept["digest"] == mark and {**kept, **arm} == kept:
                found[name] = kept
    visible = jobs.cards()[0] if on_gpu else None
    card = workshop_card.card_of(1e9 * options.card) if on_gpu else workshop_card.NoCard()
    try:
        for name, arm in planned.items():
            rest = 60 * options.minutes - (time.monotonic() - began)
            if name in found:
                continue
            if rest < LEAST:
                left.append(name)
                continue
            print(f"{name}: {arm['steps']} steps of {arm['batch']} x {arm['length']} tokens", flush=True)
            try:
                done = _arm(name, arm, options, card, visible, min(options.timeout, rest))
            except LabkitError as error:
                print(f"{name} is left out: {error}", flush=True)
                continue
            if done["cut"] and rest < options.timeout:  # our time was too short, not the arm's
                left.append(name)
                continue
            jobs.write(options.folder, name, {**done, "digest": mark})
            found[name] = done
            print(f"{name}: {workshop_report.sentence(done)}", flush=True)
    finally:
        card.close()
    return {name: found[name] for name in planned if name in found}, left


def _arm(name, arm, options, card, visible, limit):
    service = workshop_card.mps(visible) if arm["kind"] == "mps" else nullcontext({})
    with service as more:
        return workshop_arm.run(arm, Path(options.folder) / name, card, visible, limit, more)
