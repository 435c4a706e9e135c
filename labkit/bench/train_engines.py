"""The engines that `bench train` compares: each trains the same rows, and says what a step took."""

import tempfile
import time

from labkit.errors import LabkitError

AS_IT_COMES = 8  # rows a step in trl's defaults
FEW = {"cuda": 20, "cpu": 1}  # steps of the shorter run timed: `fit` captures no graph for fewer


def timed(run, *, whole, timed):
    """Train `whole` steps, then on the same model FEW, and FEW and `timed` more.

    `run(steps)` returns (losses, tokens, seconds, peak bytes). The price of a step is the difference of the
    two last runs, so that no engine's start counts, whatever its clock takes in; what the whole run took
    beyond its steps' price is `start seconds`.
    """
    from labkit import env

    few = FEW[env.device().type]
    losses, _, first, peak = run(whole)
    _, tokens, seconds, _ = run(few)
    _, more_tokens, more_seconds, later_peak = run(few + timed)
    step = (more_seconds - seconds) / timed
    return {
        "step ms": 1e3 * step,
        "tokens/s": (more_tokens - tokens) / (more_seconds - seconds),
        "whole seconds": first,
        "start seconds": first - whole * step,
        "wall": first + seconds + more_seconds,
        "peak bytes": max(peak, later_peak),
        "loss": sum(losses[-10:]) / len(losses[-10:]),
    }


def eager(model, rows, tokenizer, *, rate, batch, length, compile=False, **counts):
    """The loop a tutorial shows: transformers' own loss on packed rows, autocast, fused AdamW, clipping."""
    import torch

    from labkit import env
    from labkit.train.loop import _peak_bytes
    from labkit.train.packing import collate, plan
    from labkit.train.precision import TYPES
    from labkit.train.rows import encode_all
    from labkit.train.schedule import rate as factor

    on = env.device()
    encoded = encode_all(rows, tokenizer, length)
    kind = TYPES.get(env.precision(on))
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    forward = torch.compile(model) if compile else model
    model.train()

    def run(steps):
        began = _clock()
        optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0, fused=True)
        bins = plan([len(row) for row in encoded], batch, length, seed=0)
        losses, tokens = [], 0
        for step in range(steps):
            one = collate(encoded, next(bins), length)
            tokens += one.tokens
            one = one.to(on)
            # transformers shifts labels by itself, and keeps rows apart by positions that begin again at 0.
            labels = torch.full_like(one.ids, -100)
            labels[:, 1:] = one.targets[:, :-1].masked_fill(one.weights[:, :-1] == 0, -100)
            for group in optimizer.param_groups:
                group["lr"] = rate * factor(step, steps, 0.1, "linear")
            with torch.autocast(on.type, kind or torch.bfloat16, enabled=kind is not None):
                out = forward(input_ids=one.ids, position_ids=one.positions, labels=labels, use_cache=False)
            loss = out.loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach())
        return [float(loss) for loss in losses], tokens, _clock() - began, _peak_bytes(on)

    return timed(run, **counts)


def compiled(model, rows, tokenizer, **options):
    """The same loop with the whole model under torch.compile."""
    return eager(model, rows, tokenizer, compile=True, **options)


def fitted(path, **settings):
    """An engine that is `fit` with these settings; LabkitError if its steps do not go by `path`."""

    def engine(model, rows, tokenizer, *, rate, batch, length, **counts):
        from labkit import fit

        def run(steps):
            done = fit(
                model, rows, tokenizer, steps=steps, lr=rate, batch=batch, length=length, seed=0,
                progress=False, **settings,
            )  # fmt: skip
            if done.path != path:
                raise LabkitError(f"`fit` took the path {done.path!r}, not {path!r}; progress=True says why")
            return done.losses, done.tokens, done.seconds, done.peak_bytes

        return timed(run, **counts)

    return engine


def trl(**settings):
    """An engine that is trl's SFTTrainer with these settings, `style` apart: see `_trainer`.

    The trainer is made anew for each run, and only `trainer.train()` counts.
    """

    def engine(model, rows, tokenizer, *, rate, batch, length, whole, **counts):
        from labkit import env
        from labkit.train.loop import _peak_bytes

        def run(steps):
            trainer = _trainer(model, rows, tokenizer, rate, batch, length, steps, dict(settings))
            began = _clock()
            trainer.train()
            seconds = _clock() - began
            log = [entry for entry in trainer.state.log_history if "num_tokens" in entry]
            return [float(log[-1]["loss"])], log[-1]["num_tokens"], seconds, _peak_bytes(env.device())

        if not settings:  # as it comes its steps are small: take as many as hold the same tokens
            whole = 10 * round(whole * _rows_of(rows, tokenizer, batch, length) / AS_IT_COMES / 10) or 1
        return timed(run, whole=whole, **counts)

    return engine


def _often(steps):
    """Steps between two logs: to log is to wait for the card; the last log must be of the last step."""
    return next(every for every in (10, 5, 2, 1) if steps % every == 0)


def _trainer(model, rows, tokenizer, rate, batch, length, steps, settings):
    """A trainer as it comes; or, by `style`, with as many tokens a step as `fit` has: padded or packed."""
    from datasets import disable_progress_bars
    from trl import SFTConfig, SFTTrainer

    from labkit import env

    disable_progress_bars()
    on_cpu = env.device().type == "cpu"
    style = settings.pop("style", None)
    if style:
        settings |= {"gradient_checkpointing": False, "optim": "adamw_torch_fused"}
    if style == "padded":
        settings["per_device_train_batch_size"] = _rows_of(rows, tokenizer, batch, length)
        settings["train_sampling_strategy"] = "group_by_length"  # less padding
    if style == "packed":
        settings |= {"packing": True, "per_device_train_batch_size": batch}
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(), max_steps=steps, learning_rate=rate, max_length=length,
        report_to="none", disable_tqdm=True, save_strategy="no", logging_steps=_often(steps), seed=0,
        warmup_steps=steps // 10, lr_scheduler_type="linear", use_cpu=on_cpu,
        bf16=env.precision() == "bf16", **settings,
    )  # fmt: skip
    data = rows.select_columns(["prompt", "completion"])
    return SFTTrainer(model, args=config, train_dataset=data, processing_class=tokenizer)


def _rows_of(rows, tokenizer, batch, length):
    """How many rows have, in the mean, as many tokens as a packed step holds."""
    from labkit.train.rows import encode_all

    sizes = [len(row) for row in encode_all(rows.select(range(200)), tokenizer, length)]
    return round(batch * length * len(sizes) / sum(sizes))


def _clock():
    """Seconds, after all that was sent to the card is done."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


ENGINES = {
    "eager": eager,
    "compiled": compiled,
    "plain": fitted("plain", fast=False, compile=False),
    "graph": fitted("CUDA graph", compile=False),
    "blocks": fitted("CUDA graph, compiled blocks", compile=True),
    "trl": trl(),
    "trlpadded": trl(style="padded"),
    "trlpacked": trl(style="packed"),
}
ABOUT = {
    "eager": "transformers, eager",
    "compiled": "transformers, torch.compile",
    "plain": "`fit`, step by step",
    "graph": "`fit`, CUDA graph",
    "blocks": "`fit`, CUDA graph and compiled blocks",
    "trl": "trl, as it comes",
    "trlpadded": "trl, as many tokens a step, no checkpointing",
    "trlpacked": "the same, packed (one dense mask: there is no flash-attn here)",
}
