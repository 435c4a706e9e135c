"""`fit`: the training loop of every lesson."""

import math
import resource
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm

from labkit import env
from labkit.errors import LabkitError
from labkit.train import checkpoint as checkpoints
from labkit.train.loss import headless, weighted_nll
from labkit.train.packing import check_attention, collate, plan
from labkit.train.precision import autocast, cast_once
from labkit.train.rows import encode_all
from labkit.train.schedule import check_schedule, groups, rate

CHECK_EVERY = 10  # steps between looks at the loss on a GPU, where looking means waiting


@dataclass
class Run:
    """What one call of `fit` did.

    `losses` has one mean per step over weighted tokens, in nats; `tokens` counts non-padding
    tokens; `peak_bytes` is CUDA's peak allocation, or the process's peak on a CPU.
    """

    losses: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0
    peak_bytes: int = 0
    trainable: int = 0
    precision: str = ""
    stopped_early: bool = False

    @property
    def steps(self):
        """Steps taken."""
        return len(self.losses)

    @property
    def tokens_per_second(self):
        """Non-padding tokens a second, validation and checkpoints included."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def __str__(self):
        return (
            f"{self.steps} steps, {self.tokens:,} tokens in {self.seconds:.0f} s "
            f"({self.tokens_per_second:,.0f} tokens/s, {self.precision}), "
            f"{self.trainable:,} trainable weights, peak {self.peak_bytes / 1e9:.1f} GB"
        )


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
    compile=False,
    precision=None,
    seed=0,
    progress=True,
):
    """Finetune every weight of `model` that requires a gradient, in place; returns a Run.

    A step takes `accumulate` batches of (`batch`, `length`) tokens, filled with as many rows as
    fit. `warmup` is a share of `steps`; `schedule` is `linear`, `cosine` or `constant`; `patience`
    counts validations without a new best, whose weights are put back at the end. `checkpoint`
    names a file from which a killed run goes on, and which a finished run deletes. `precision` is
    chosen by the hardware unless given. Raises LabkitError for rows that cannot be trained on, a
    loss that is not finite, and CUDA out of memory.
    """
    settings = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}
    check_schedule(schedule, warmup, steps)
    encoded = encode_all(rows, tokenizer, length, prompt_loss_weight)
    held_out = encode_all(validation, tokenizer, length) if validation is not None else None
    on = next(model.parameters()).device
    precision = precision or env.precision(on)
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    check_attention(model)
    if not trainable:
        raise LabkitError("no weight of this model requires a gradient: there is nothing to train")
    optimizer = torch.optim.AdamW(groups(trainable, weight_decay), lr=lr, fused=True)
    scaler = torch.amp.GradScaler(on.type, enabled=precision == "fp16")
    run = Run(trainable=sum(p.numel() for p in trainable.values()), precision=precision)
    mark = checkpoints.fingerprint(encoded, settings, trainable)
    saved = checkpoints.resume(checkpoint, mark, trainable, optimizer, scaler) if checkpoint else None
    if saved:
        run.losses, run.validation = saved["losses"], [tuple(pair) for pair in saved["validation"]]
        run.tokens, run.seconds = saved["tokens"], saved["seconds"]
    else:
        env.seed_everything(seed)
    best = _Best(patience, saved and saved["best"])
    batches = _batches(encoded, batch, length, seed, pack, accumulate, skip=run.steps)
    if on.type == "cuda":
        torch.cuda.reset_peak_memory_stats(on)

    bar = tqdm(
        total=steps, initial=run.steps, disable=not progress, file=sys.stdout, unit="step", mininterval=0.5,
        desc=f"training in {precision}",
    )  # fmt: skip
    pending, earlier, started = [], run.seconds, time.perf_counter()
    advice = _memory_advice(batch, length, accumulate)
    training = _training(model, gradient_checkpointing)
    with training, cast_once(model, precision), headless(model) as head, bar, advice:
        forward = torch.compile(model, dynamic=False) if compile else model
        for step in range(run.steps, steps):
            step_batches = next(batches)
            for group in optimizer.param_groups:
                group["lr"] = lr * rate(step, steps, warmup, schedule)
            # One divisor for the whole step: averaging per batch would weigh short batches too much.
            total_weight = sum(one.weights.sum().item() for one in step_batches)
            step_loss = 0.0
            for one in step_batches:
                loss = batch_nll(forward, head, one.to(on), precision) / total_weight
                scaler.scale(loss).backward()
                step_loss = step_loss + loss.detach()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(trainable.values(), clip or math.inf)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)

            run.tokens += sum(one.tokens for one in step_batches)
            pending.append((step, step_loss, [number for one in step_batches for number in one.rows]))
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
                # Never compiled: batches here have as many lengths as there are rows.
                loss = _held_out_loss(model, head, held_out, batch, precision, on)
                run.validation.append((step + 1, loss))
                run.stopped_early = best.see(loss, trainable) and not last
            if save and not run.stopped_early:
                state = {"fingerprint": mark, "losses": run.losses, "validation": run.validation,
                         "tokens": run.tokens, "seconds": run.seconds, "best": best.state()}  # fmt: skip
                checkpoints.save(checkpoint, state, trainable, optimizer, scaler)
            if run.stopped_early:
                break
        best.restore(trainable)
    if on.type == "cuda":
        torch.cuda.synchronize(on)
    run.seconds = earlier + time.perf_counter() - started
    run.peak_bytes = _peak_bytes(on)
    if checkpoint:
        Path(checkpoint).unlink(missing_ok=True)
    return run


# What a checkpoint need not agree on: where and how often it is written, and how progress is shown.
_NOT_SETTINGS = {"model", "rows", "tokenizer", "validation", "checkpoint", "checkpoint_every", "progress"}


def batch_nll(model, head, batch, precision):
    """Weighted negative log-likelihood, summed over one Batch; `model` is headless (see `headless`)."""
    with autocast(batch.ids.device.type, precision):
        out = model(
            input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask(), use_cache=False
        )
        return weighted_nll(out.logits, head, batch.targets, batch.weights)


def _batches(encoded, batch, length, seed, pack, accumulate, skip):
    """Lists of `accumulate` batches, for ever, from step `skip` on."""
    bins = plan([len(row) for row in encoded], batch, length, seed, pack)
    for _ in islice(bins, skip * accumulate):
        pass
    while True:
        yield [collate(encoded, next(bins), length if pack else None) for _ in range(accumulate)]


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
def _held_out_loss(model, head, encoded, batch, precision, on):
    """Mean loss per answer token over all held-out rows."""
    total = weight = 0.0
    model.eval()
    for start in range(0, len(encoded), batch):
        numbers = list(range(start, min(start + batch, len(encoded))))
        one = collate(encoded, [[number] for number in numbers], None).to(on)
        total += batch_nll(model, head, one, precision).item()
        weight += one.weights.sum().item()
    model.train()
    return total / weight


class _Best:
    """The best validation loss so far and, where patience is set, the weights that gave it."""

    def __init__(self, patience, saved=None):
        self.patience = patience
        self.loss, self.waited, self.weights = math.inf, 0, None
        if saved:
            self.loss, self.waited, self.weights = saved["loss"], saved["waited"], saved["weights"]

    def state(self):
        return {"loss": self.loss, "waited": self.waited, "weights": self.weights}

    def see(self, loss, trainable):
        """Note a validation loss; is patience at an end?"""
        if self.patience is None:
            return False
        if loss < self.loss:
            self.loss, self.waited = loss, 0
            self.weights = {name: p.detach().cpu().clone() for name, p in trainable.items()}
        else:
            self.waited += 1
        return self.waited >= self.patience

    @torch.no_grad()
    def restore(self, trainable):
        for name, value in (self.weights or {}).items():
            trainable[name].copy_(value)


@contextmanager
def _training(model, gradient_checkpointing):
    """Training mode inside, evaluation mode after; no gradients are left behind."""
    model.train()
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
def _memory_advice(batch, length, accumulate):
    """Turn CUDA's out-of-memory error into advice on which budget to change."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
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
