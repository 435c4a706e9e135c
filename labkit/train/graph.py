"""The fast path: one whole training step captured as a CUDA graph, and replayed.

A step of a small model is hundreds of layers of tiny kernels; launching them one by one from Python takes
longer than running them. A graph launches all of them at once. It needs tensors of fixed size at fixed
places: packed rows give the first, and batches copied into the tensors it was captured with the second.
"""

import weakref
from dataclasses import dataclass

import torch

from labkit.train.step import prepared

WARM_UP = 3  # plain steps first: they allocate AdamW's state and the libraries' work space
FEWEST = 20  # steps below which capturing costs more than it saves
LARGEST_KEPT = 0.25  # share of the card's memory that a finished run's graph may go on holding

_kept = weakref.WeakKeyDictionary()  # model -> its last GraphStep, for the next run of the same shape


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
        before = torch.cuda.memory_reserved(self.step.on)
        self.inputs = [one.to(self.step.on) for one in batches]
        graph = torch.cuda.CUDAGraph()
        self.step.forget_gradients()  # so that the captured backward pass writes them instead of adding
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self.loss = self.step.take(self.inputs)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.failure = str(error).splitlines()[0]
            self.step.forget_gradients()
            _end_capture_of_generator(self.step.on)
            return
        self.graph = graph
        self.bytes = torch.cuda.memory_reserved(self.step.on) - before
        self.peak = torch.cuda.max_memory_allocated(self.step.on)


def _end_capture_of_generator(on):
    """A failed capture leaves the generator capturing, and nothing random could run: go on with a copy."""
    generator = torch.cuda.default_generators[on.index or 0]
    generator.graphsafe_set_state(generator.clone_state())


@dataclass(frozen=True)
class Signature:
    """All that a captured graph depends on; a run with an equal one may use the graph again."""

    settings: tuple
    model: str  # the modules, with their dropout and the like
    states: tuple  # merged or disabled adapters change what runs
    places: tuple  # where weights lie, and which are trained


def signature(model, **settings):
    """The Signature of a run on `model`."""
    flags = ("merged", "disable_adapters", "active_adapters")
    states = tuple(str(getattr(module, flag, None)) for module in model.modules() for flag in flags)
    places = tuple((weight.data_ptr(), weight.requires_grad, weight.dtype) for weight in model.parameters())
    return Signature(tuple(sorted(settings.items())), str(model), states, places)


def kept(model, wanted):
    """The GraphStep of an earlier run on `model` with the Signature `wanted`, or None: then it is let go."""
    found = _kept.get(model)
    if found is not None and found.signature == wanted:
        return found
    release(model)
    return None


def keep(model, step):
    """Keep a GraphStep for the next run, unless it failed or holds too much of the card."""
    total = torch.cuda.get_device_properties(step.step.on).total_memory
    if step.graph is not None and step.bytes <= LARGEST_KEPT * total:
        _kept[model] = step


def release(model):
    """Let go of a kept graph and the memory it holds."""
    if _kept.pop(model, None) is not None:
        torch.cuda.empty_cache()


def obstacle(on, precision, gradient_checkpointing, pack, steps):
    """Why the steps of a run cannot be captured, or None."""
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
    return None
