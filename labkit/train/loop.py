"""`fit`: the training loop of every lesson."""

import math
import resource
import sys
import time
import traceback
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm

from labkit import env, in_notebook
from labkit.errors import LabkitError
from labkit.train import checkpoint as checkpoints
from labkit.train import graph as graphs
from labkit.train.attention import check_attention
from labkit.train.best import Best
from labkit.train.blocks import worth_compiling
from labkit.train.engine import engine
from labkit.train.packing import collate, in_order, longest_line, plan, room_for
from labkit.train.rows import encode_all
from labkit.train.run import Run
from labkit.train.schedule import check_schedule, rate

CHECK_EVERY = 10  # steps between looks at the loss on a GPU, where looking means waiting


def fit(
    model,
    rows,
    tokenizer,
    *,
    steps,
    lr,
    batch=4,
    length=512,
    accumulate=1,
    warmup=0.1,
    schedule="linear",
    weight_decay=0.0,
    clip=1.0,
    prompt_loss_weight=0.0,
    pack=True,
    validation=None,
    validate_every=50,
    patience=None,
    checkpoint=None,
    checkpoint_every=100,
    gradient_checkpointing=False,
    fast=True,
    compile=None,
    precision=None,
    seed=0,
    progress=True,
):
    """Finetune every weight of `model` that requires a gradient, in place; returns a Run.

    A step takes `accumulate` batches of (`batch`, `length`) tokens, filled with as many rows as
    fit. `warmup` is a share of `steps`; `schedule` is `linear`, `cosine` or `constant`; `patience`
    counts validations without a new best, whose weights are put back at the end. `checkpoint`
    names a file from which a killed run goes on, and which a finished run deletes. `precision` is
    chosen by the hardware unless given. On a CUDA card a step is captured as a CUDA graph and replayed,
    unless `fast` is False or something stands in the way, which is printed; `compile` compiles the model's
    blocks, by default where a run is long enough to gain by it. `prompt_ids` of the model, the words of a
    soft prompt, come before each row on top of `length`, so that a step has the same rows with and without.
    Raises LabkitError for rows that cannot be trained on, a loss that is not finite, and CUDA out of memory.
    """
    settings = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}
    check_schedule(schedule, warmup, steps)
    soft = getattr(model, "prompt_ids", ())
    encoded = encode_all(rows, tokenizer, length, prompt_loss_weight, soft)
    held_out = encode_all(validation, tokenizer, length, 0.0, soft) if validation is not None else None
    on = next(model.parameters()).device
    precision = precision or env.precision(on)
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    bins = plan([len(row) - len(soft) for row in encoded], batch, length, seed, pack)
    if soft:
        bins = list(islice(bins, steps * accumulate))
        length = longest_line(encoded, bins, at_least=length + len(soft))
    check_attention(model, length, pack)
    if not trainable:
        raise LabkitError("no weight of this model requires a gradient: there is nothing to train")
    mark = checkpoints.fingerprint(encoded, settings, trainable)
    obstacle = "not wanted"
    if fast:
        obstacle = graphs.obstacle(model, on, precision, gradient_checkpointing, pack, steps)
    room = None
    if not obstacle:
        bins = list(islice(bins, steps * accumulate))
        room = room_for(encoded, bins)
    elif fast and progress and on.type == "cuda" and steps >= graphs.FEWEST:
        print(f"step by step, without a CUDA graph: {obstacle}")
    if compile is None:
        compile = not obstacle and worth_compiling(steps, batch * length * accumulate)
    run = Run(trainable=sum(p.numel() for p in trainable.values()), precision=precision)
    if on.type == "cuda":
        torch.cuda.reset_peak_memory_stats(on)

    bar = tqdm(
        total=steps, disable=not progress, file=sys.stdout, unit="step", mininterval=0.5,
        desc=f"training in {precision}",
    )  # fmt: skip
    engine_of_run = engine(
        model, trainable, on=on, precision=precision, clip=clip, weight_decay=weight_decay, compile=compile,
        graphed=not obstacle, shape=(batch, length, accumulate, room), reuse=not checkpoint,
    )  # fmt: skip
    advice = _memory_advice(batch, length, accumulate)
    with _training(model, gradient_checkpointing), advice, engine_of_run as take, bar:
        best = Best(patience)
        saved = checkpoint and checkpoints.resume(checkpoint, mark, take.stepped, take.optimizer, take.scaler)
        if saved:
            take.step.weights.spread()
            run.losses, run.validation = saved["losses"], [tuple(pair) for pair in saved["validation"]]
            run.tokens, run.seconds = saved["tokens"], saved["seconds"]
            best = Best(patience, saved["best"])
            bar.update(run.steps)
        else:
            env.seed_everything(seed)
        batches = _batches(encoded, bins, length if pack else None, accumulate, room, skip=run.steps)
        pending, earlier, started = [], run.seconds, time.perf_counter()
        with _keeping_interrupted(run):
            for step in range(run.steps, steps):
                step_batches = next(batches)
                loss = take(step_batches, lr * rate(step, steps, warmup, schedule))
                pending.append((step, loss, [number for one in step_batches for number in one.rows]))
                run.tokens += sum(one.tokens for one in step_batches)
                last = step + 1 == steps
                save = checkpoint and (step + 1) % checkpoint_every == 0
                validate = held_out is not None and ((step + 1) % validate_every == 0 or last)
                if on.type == "cpu" or last or save or validate or len(pending) == CHECK_EVERY:
                    run.losses += _finite(pending)
                    pending = []
                    run.seconds = earlier + time.perf_counter() - started
                    bar.set_postfix_str(f"loss {run.losses[-1]:.3f}, {run.tokens_per_second:,.0f} tokens/s")
                bar.update()
                if validate:
                    loss = _held_out_loss(take, model, held_out, batch, length if pack else None, on)
                    run.validation.append((step + 1, loss))
                    run.stopped_early = best.see(loss, take.stepped) and not last
                if save and not run.stopped_early:
                    state = {"fingerprint": mark, "losses": run.losses, "validation": run.validation,
                             "tokens": run.tokens, "seconds": run.seconds, "best": best.state()}  # fmt: skip
                    checkpoints.save(checkpoint, state, take.stepped, take.optimizer, take.scaler)
                if run.stopped_early:
                    break
        if run.interrupted:
            run.losses += _finite(pending)
            print(f"stopped after {run.steps} of {steps} steps: the model keeps what they trained")
        best.restore(take.stepped)
        if on.type == "cuda":
            torch.cuda.synchronize(on)
        run.seconds = earlier + time.perf_counter() - started
        run.path = take.path
        run.peak_bytes = max(_peak_bytes(on), take.graph.peak if take.graph else 0)
        if progress and take.graph and take.graph.failure:
            print(f"step by step, without a CUDA graph: capturing failed ({take.graph.failure})")
    if checkpoint and not run.interrupted:
        Path(checkpoint).unlink(missing_ok=True)
    return run


# What a checkpoint need not agree on: where and how often it is written, and how progress is shown.
_NOT_SETTINGS = {
    "model", "rows", "tokenizer", "validation", "checkpoint", "checkpoint_every", "progress", "fast",
    "compile",
}  # fmt: skip


def _batches(encoded, bins, length, accumulate, room, skip):
    """Lists of `accumulate` batches, from step `skip` on."""
    bins = islice(bins, skip * accumulate, None)
    while some := list(islice(bins, accumulate)):
        yield [collate(encoded, one, length, room=room) for one in some]


def _finite(pending):
    """The losses of these steps as floats; LabkitError at the first that is not finite."""
    values = [float(loss) for _, loss, _ in pending]
    for (step, _, numbers), value in zip(pending, values, strict=True):
        if not math.isfinite(value):
            shown = ", ".join(map(str, numbers[:12])) + (", ..." if len(numbers) > 12 else "")
            raise LabkitError(
                f"the loss is {value} at step {step + 1} (rows {shown}). Lower the learning rate first; "
                "if it fails at the same rows at any rate, look at those rows"
            )
    return values


@torch.no_grad()
def _held_out_loss(take, model, encoded, batch, length, on):
    """Mean loss per answer token over all held-out rows."""
    total = weight = 0.0
    parts = (model, take.step.head)  # the head is off the model here
    for part in parts:
        part.eval()
    plans = list(in_order([len(row) for row in encoded], batch, length))
    room = room_for(encoded, plans) if length else None  # one size for all, as compiled blocks want
    for bins in plans:
        one = collate(encoded, bins, length, room=room).to(on)
        total += take.loss_of(one).item()
        weight += one.weights.sum().item()
    for part in parts:
        part.train()
    return total / weight


@contextmanager
def _training(model, gradient_checkpointing):
    """Training mode inside, evaluation mode after; no gradients are found or left behind."""
    model.train()
    model.zero_grad(set_to_none=True)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        if gradient_checkpointing:
            model.gradient_checkpointing_disable()
        model.zero_grad(set_to_none=True)
        model.eval()


@contextmanager
def _keeping_interrupted(run):
    """In a notebook, let an interrupt end the steps and not the cell: what they trained is kept."""
    try:
        yield
    except KeyboardInterrupt:
        if not in_notebook():
            raise
        run.interrupted = True


@contextmanager
def _memory_advice(batch, length, accumulate):
    """Turn CUDA's out-of-memory error into advice on which budget to change."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)  # else a notebook keeps their tensors for its last error
        halved = f"batch={batch // 2}, accumulate={2 * accumulate} for the same step in half the memory"
        raise LabkitError(
            f"the GPU ran out of memory with batch={batch}, length={length} "
            f"({batch * length:,} tokens at once). Pass {halved if batch > 1 else 'a smaller length'}, or "
            "gradient_checkpointing=True; close other programs that use the card"
        ) from error


def _peak_bytes(on):
    """CUDA's peak allocation since `fit` began, or the peak resident size of this process."""
    if on.type == "cuda":
        return torch.cuda.max_memory_allocated(on)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
