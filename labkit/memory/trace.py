"""What a step takes, found by running it on tensors that hold nothing: the real code, no card, no memory.

The step runs once on ghosts while a `Tracker` writes down each storage that is made and let go. The events
are then played back as they would follow one another in a run of several steps.
"""

from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch

from labkit.memory import kernels, machine, replay
from labkit.memory.ghost import Ghosts
from labkit.memory.report import CATEGORIES, Report
from labkit.memory.tracker import AGAIN, BACKWARD, FORWARD, LOAD, OPTIMIZER, Event, Tracker

MOMENTS = {LOAD: "load", FORWARD: "forward end", BACKWARD: "backward", OPTIMIZER: "optimizer step",
           AGAIN: "optimizer step"}  # fmt: skip


def trace(what, step=None, attention=None):
    """Report of one step (bytes, at its peak) by tracing it.

    `what` is a `Setting`; or a function that builds any torch model on the CPU, and `step` a function that
    takes the model and returns a function of no arguments that does one step: forward, backward, and `step`
    and `zero_grad` of an optimizer that it keeps. Neither may read the values of what depends on weights.
    `attention` "flash" or "math": which kernel scaled_dot_product_attention stands for ("flash": what torch
    chooses on a card of capability 8.0 or more).

    Errors: LabkitError if the step reads a value, which a tensor without data cannot give.
    """
    import torch._meta_registrations  # noqa: F401  (the sizes of CUDA's attention kernels)

    if step is None:
        attention = attention or ("math" if what.attention == "math" else "flash")
        build = _of_setting(what)
    else:
        build = _of_factories(what, step)
    tracker = Tracker(Ghosts())
    with _stand_ins(tracker, attention or "flash"), tracker:
        events = _run(tracker, build)
    return _report(steps(events))


def _of_setting(setting):
    def build():
        from labkit.memory.recipe import Recipe

        recipe = Recipe(setting, "cpu")
        return [model for model in (recipe.model, recipe.reference) if model is not None], recipe.step

    return build


def _of_factories(make_model, make_step):
    def build():
        model = make_model()
        return [model], make_step(model)

    return build


# ---- one step under the tracker --------------------------------------------------------------------------


def _run(tracker, build):
    tracker.phase = LOAD
    models, step = build()
    with ExitStack() as hooks:
        for model in models:
            _watch_head(tracker, model, hooks)
        trained = [weight for model in models for weight in model.parameters() if weight.requires_grad]
        _watch_optimizers(tracker, trained, hooks)
        tracker.phase = FORWARD
        step()
        for weight in trained:  # a step without an optimizer leaves its gradients
            if weight.grad is not None:
                tracker.label(weight.grad, "gradients")
        return list(tracker.events)  # before the models are let go


def _watch_head(tracker, model, hooks):
    """From the output head's input on, and back to it, what is made belongs to logits and loss."""
    head = getattr(model, "get_output_embeddings", lambda: None)()

    def enter(_, inputs):
        tracker.in_head = True
        if inputs and isinstance(inputs[0], torch.Tensor) and inputs[0].requires_grad:
            inputs[0].register_hook(leave)

    def leave(_):
        tracker.in_head = False

    if head is not None:
        hooks.callback(head.register_forward_pre_hook(enter).remove)
        hooks.callback(model.register_forward_pre_hook(lambda *_: leave(None)).remove)


def _watch_optimizers(tracker, trained, hooks):
    """Tell the tracker when an optimizer steps; step it twice, as states are made in the first step only."""
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    def before(optimizer, args, kwargs):
        if tracker.phase == FORWARD:
            for weight in trained:
                if weight.grad is not None:
                    tracker.label(weight.grad, "gradients")
            tracker.phase = OPTIMIZER
            own = optimizer.defaults
            tracker.scalars_elsewhere = not (own.get("fused") or own.get("capturable"))

    def after(optimizer, args, kwargs):
        if tracker.phase == OPTIMIZER:
            tracker.phase = AGAIN
            optimizer.step()
            tracker.phase = FORWARD

    hooks.callback(register_optimizer_step_pre_hook(before).remove)
    hooks.callback(register_optimizer_step_post_hook(after).remove)


@contextmanager
def _stand_ins(tracker, attention):
    """CUDA's choice of attention, its autocast, and bitsandbytes' paged states, in place of the CPU's."""
    asked = torch.is_autocast_enabled
    with ExitStack() as stack:
        # Asked without a device it answers for CUDA, and peft's 4-bit layers do so.
        enabled = patch.object(torch, "is_autocast_enabled", lambda device="cpu": asked(device))
        stack.enter_context(enabled)
        stack.enter_context(
            patch.object(torch.nn.functional, "scaled_dot_product_attention", kernels.attention(attention))
        )
        if kernels.GEMM_4BIT is not None:
            from bitsandbytes.optim.optimizer import Optimizer8bit

            def buffer(self, p, dtype=torch.float32):  # as on CUDA: small states stay unpaged
                made = torch.zeros_like(p, dtype=dtype)
                if self.is_paged and p.numel() >= 1e5:
                    tracker.label(made, "optimizer paged")
                return made

            stack.enter_context(patch.object(Optimizer8bit, "get_state_buffer", buffer))
        yield


# ---- from one step to several ----------------------------------------------------------------------------


def steps(events):
    """The events of loading and of three steps, from those of loading and one step whose optimizer ran twice.

    What the first step leaves (states) is made once, and cuBLAS's workspaces come before all else, as in
    `measure`. Sums that autograd does in place take no memory of their own.
    """
    _name_leftovers(events)
    events = _in_place(events)
    blas = [event for event in events if event.storage.made_by == "cuBLAS"]
    events = [event for event in events if event.storage.made_by != "cuBLAS"]
    load = blas + [event for event in events if event.phase == LOAD]
    first = [event for event in events if event.phase not in (LOAD, AGAIN)]
    gone = {id(event.storage) for event in events if event.what == "give back"}
    later = [event for event in events if event.phase not in (LOAD, OPTIMIZER)
             and (event.what == "touch" or id(event.storage) in gone)]  # fmt: skip
    made = {id(event.storage) for event in later if event.what == "take"}
    later = [event for event in later if event.what != "give back" or id(event.storage) in made]
    return load + first + later + later


def _name_leftovers(events):
    """What the optimizer made and gave back was no state but room to work in."""
    for event in events:
        if event.what == "give back" and event.storage.category == "optimizer":
            event.storage.category = "workspace"


def _in_place(events):
    """The events without sums of gradients that could be written into their first summand.

    It could if it was let go before anything else was made: then nobody but autograd held it.
    """
    became, dropped, out = {}, set(), []
    for place, event in enumerate(events):
        storage = event.storage
        if event.what == "take" and storage.reuses is not None and storage.reuses.bytes == storage.bytes:
            freed = _freed_next(events, place, storage.reuses)
            if freed is not None:
                first = became.get(id(storage.reuses), storage.reuses)
                became[id(storage)] = first
                first.category = storage.category
                dropped.update((id(event), id(freed)))
        if id(event) not in dropped:
            out.append(Event(event.what, became.get(id(storage), storage), event.phase))
    return out


def _freed_next(events, place, storage):
    for event in events[place + 1 : place + 20]:
        if event.what != "give back":
            return None
        if event.storage is storage:
            return event
    return None


# ---- the report ------------------------------------------------------------------------------------------


def _report(events):
    paged = {id(event.storage): event.storage.bytes for event in events
             if event.storage.category == "optimizer paged"}  # fmt: skip
    on_card = [event for event in events if event.storage.category != "optimizer paged"]
    played, paged = replay.play(on_card), sum(paged.values())
    held = played.held | {"optimizer paged": paged, "context": machine.H100.context}
    return Report(
        categories={name: held[name] for name in CATEGORIES if held.get(name)},
        peak_allocated=played.allocated, peak_reserved=played.reserved,
        process=played.reserved + paged + machine.H100.context, moment=MOMENTS[played.phase], engine="trace",
    )  # fmt: skip
