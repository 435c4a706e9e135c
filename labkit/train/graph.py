"""The fast path: one whole training step captured as a CUDA graph, and replayed.

A step of a small model is hundreds of layers of tiny kernels; launching them one by one from Python takes
longer than running them. A graph launches all of them at once. It needs tensors of fixed size at fixed
places: packed rows give the first, and batches copied into the tensors it was captured with the second.
"""

import weakref
from contextlib import suppress
from dataclasses import dataclass

import torch

from labkit.train.step import prepared

WARM_UP = 3  # plain steps first: they allocate AdamW's state and the libraries' work space
FEWEST = 20  # steps below which capturing costs more than it saves
LARGEST_KEPT = 0.25  # share of the card's memory that a finished run's graph may go on holding

_kept = weakref.WeakKeyDictionary()  # the last model trained -> its GraphStep, for a next run of that shape


class GraphStep:
    """Like `Step`, of which it makes plain steps at first, and replays of its graph from then on."""

    def __init__(self, step, signature):
        self.step, self.signature = step, signature
        self.stream = torch.cuda.Stream(step.on)
        self.graph = self.inputs = self.loss = None
        self.failure = ""  # why capturing failed, if it did
        self.bytes = 0  # of the card's memory that the graph holds for itself
        self.peak = 0  # bytes in use at most while it was captured, and so at each replay
        self.taken = 0

    def __call__(self, batches, rate):
        self.step.set_rate(rate)
        self.taken += 1
        batches = prepared(batches)
        if self.graph is None and self.taken > WARM_UP and not self.failure:
            self._capture(batches)
        if self.graph is None:
            return self._plain(batches)
        for held, one in zip(self.inputs, batches, strict=True):
            for name, value in one.tensors().items():
                getattr(held, name).copy_(value, non_blocking=True)
        self.graph.replay()
        return self.loss.clone()

    def _plain(self, batches):
        """A plain step on the graph's stream, ordered before and after what the default stream does."""
        on = self.step.on
        self.stream.wait_stream(torch.cuda.current_stream(on))
        with torch.cuda.stream(self.stream):
            loss = self.step.take([one.to(on) for one in batches])
        torch.cuda.current_stream(on).wait_stream(self.stream)
        return loss

    def _capture(self, batches):
        """Capture a step, which takes none; `failure` says why if that cannot be."""
        on, graph = self.step.on, torch.cuda.CUDAGraph()
        here, pool = torch.cuda.current_stream(on), torch.cuda.graph_pool_handle()
        self.inputs = [one.to(on) for one in batches]
        self.step.forget_gradients()  # so that the captured backward pass writes them instead of adding
        torch.cuda.synchronize(on)
        torch.cuda.empty_cache()  # what plain steps left: the graph takes its memory from a pool of its own
        before = torch.cuda.memory_reserved(on)
        try:
            with torch.cuda.graph(graph, pool=pool, stream=self.stream):
                self.loss = self.step.take(self.inputs)
        except RuntimeError as error:
            _abandon(on, here, pool)
            self.step.forget_gradients()
            # The end of a broken capture raises in place of what broke it.
            for cause in (error, error.__context__):
                if isinstance(cause, KeyboardInterrupt | torch.cuda.OutOfMemoryError):
                    raise cause from None
            self.failure = str(error.__context__ or error).splitlines()[0]
            return
        self.graph = graph
        self.bytes = torch.cuda.memory_reserved(on) - before + self.step.bytes()
        self.peak = torch.cuda.max_memory_allocated(on)


def _abandon(on, stream, pool):
    """Put right what a failed capture leaves: its stream the current one, its pool, a capturing generator."""
    _kept.clear()  # their random numbers came from the generator that is replaced below
    torch.cuda.set_stream(stream)
    torch.cuda.synchronize(on)
    index = torch.cuda.current_device() if on.index is None else on.index
    with suppress(RuntimeError):  # nothing to end if the allocator noticed by itself
        torch._C._cuda_endAllocateToPool(index, pool)
        torch._C._cuda_releasePool(index, pool)
    generator = torch.cuda.default_generators[index]
    generator.graphsafe_set_state(generator.clone_state())


@dataclass(frozen=True)
class Signature:
    """All that a captured graph depends on; a run with an equal one may use the graph again."""

    settings: tuple  # of the run, and torch's precision of fp32 products
    model: str  # the modules, with their dropout and the like
    states: tuple  # merged, disabled or scaled adapters change what runs
    places: tuple  # where weights and buffers lie, and which are trained


def signature(model, **settings):
    """The Signature of a run on `model`."""
    flags = ("merged", "disable_adapters", "active_adapters", "scaling")
    states = tuple(str(getattr(module, flag, None)) for module in model.modules() for flag in flags)
    tensors = [*model.parameters(), *model.buffers()]
    places = tuple((tensor.data_ptr(), tensor.requires_grad, tensor.dtype) for tensor in tensors)
    settings["float32"] = torch.get_float32_matmul_precision()
    return Signature(tuple(sorted(settings.items())), str(model), states, places)


def kept(model, wanted):
    """The GraphStep of a run on `model` with the Signature `wanted`; or None, and any that is kept goes."""
    found = _kept.get(model)
    if found is not None and found.signature == wanted:
        return found
    del found
    release()
    return None


def keep(model, step):
    """Keep a GraphStep for the next run, and no other, unless it failed or holds too much of the card."""
    total = torch.cuda.get_device_properties(step.step.on).total_memory
    if step.graph is not None and step.bytes <= LARGEST_KEPT * total:
        _kept.clear()
        _kept[model] = step


def release():
    """Let go of a kept graph and the memory it holds."""
    if _kept:
        _kept.clear()
        torch.cuda.empty_cache()


def obstacle(model, on, precision, gradient_checkpointing, pack, steps):
    """Why the steps of a run on `model` cannot be captured, or None."""
    if on.type != "cuda":
        return "no CUDA card"
    if precision == "fp16":
        return "fp16's loss scaling decides on the CPU whether a step is taken"
    if gradient_checkpointing:
        return "gradient checkpointing looks after the random generators, which a graph forbids"
    if not pack:
        return "rows that are not packed differ in length"
    if steps < FEWEST:
        return f"fewer than {FEWEST} steps"
    if any(_hooks(part) for part in (*model.modules(), *model.parameters())):
        return "hooks on the model run Python at every step"
    return None


def _hooks(part):
    """The hooks of a module or a weight, in one list."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
             "_post_accumulate_grad_hooks")  # fmt: skip
    return [hook for kind in kinds for hook in (getattr(part, kind, None) or ())]
