"""What memory a piece of torch code takes, event by event: every storage made, every storage gone.

A `Tracker` sees each operation's results. With ghosts nothing is computed and no memory is taken, but
storages live and die as in the real run, since autograd and Python's references are the real ones.
"""

import weakref
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from labkit.memory import kernels, machine

aten = torch.ops.aten
LOAD, FORWARD, BACKWARD, OPTIMIZER, AGAIN = "load", "forward", "backward", "optimizer", "optimizer again"


@dataclass(slots=True)
class Storage:
    """One piece of memory: bytes asked for, category, the phase it was made in, what operation made it."""

    bytes: int
    category: str
    phase: str
    made_by: str
    reuses: "Storage | None" = None  # the storage that an in-place sum would have written into


@dataclass(slots=True)
class Event:
    """`what`: "take", "give back", or "touch" (`bytes` more for the length of one kernel)."""

    what: str
    storage: Storage
    phase: str


class Tracker(TorchDispatchMode):
    """Record storages while active; `events` is what happened in order. With `ghosts` nothing is computed.

    `phase` is set from outside for loading and the optimizer; forward and backward it finds itself.
    """

    def __init__(self, ghosts=None):
        super().__init__()
        self.ghosts = ghosts
        self.events, self.living, self.watched = [], {}, {}
        self.phase, self.in_head = FORWARD, False
        self.scalars_elsewhere = False  # an optimizer that counts its steps in tensors on the CPU

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is kernels.GEMM_4BIT:
            self._touch(kernels.gemm_4bit_extra(args), "casts", func)
        out = self.ghosts.call(func, args, kwargs) if self.ghosts else func(*args, **kwargs)
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor, func, args)
            elif isinstance(tensor, (tuple, list)):
                for inner in tensor:
                    if isinstance(inner, torch.Tensor):
                        self._see(inner, func, args)
        extra = kernels.EXTRA.get(func)
        if extra is not None:
            self._touch(extra(args, kwargs, out), "workspace", func)
        if func in kernels.MATMULS:
            self._blas()
        return out

    def now(self):
        """The phase: what was set, else forward or backward."""
        if self.phase == FORWARD and torch._C._current_graph_task_id() != -1:
            return BACKWARD
        return self.phase

    def storage_of(self, tensor):
        """The `Storage` of a tensor that was seen, else None."""
        return self.living.get(tensor.untyped_storage()._cdata)

    def label(self, tensor, category):
        """Say what a tensor's storage is."""
        if (storage := self.storage_of(tensor)) is not None:
            storage.category = category

    def _see(self, tensor, func, args):
        memory = tensor.untyped_storage()
        key = memory._cdata
        if key in self.living:
            return
        size = memory.nbytes()
        phase = self.now()
        if not size or (phase == OPTIMIZER and self.scalars_elsewhere and tensor.dim() == 0):
            return
        storage = Storage(size, self._category(func, args, phase), phase, func.name())
        if phase == BACKWARD and func is aten.add.Tensor and not torch.is_grad_enabled():
            # Autograd sums gradients that meet. With real tensors it writes into the first if nobody else
            # holds it (input_buffer.cpp, can_accumulate_inplace), not even the tensor that it is a view of;
            # never while a mode like this one watches. (What is computed again for checkpointing has
            # gradients enabled.)
            if not args[0]._is_view():
                storage.reuses = self.storage_of(args[0])
        self.living[key] = storage
        self.events.append(Event("take", storage, phase))
        self.watched[key] = weakref.ref(memory, lambda _: self._gone(key))

    def _gone(self, key):
        storage = self.living.pop(key)
        del self.watched[key]
        if self.ghosts:
            self.ghosts.forget(key)
        self.events.append(Event("give back", storage, self.now()))

    def _touch(self, size, category, func):
        if size:
            phase = self.now()
            self.events.append(Event("touch", Storage(size, category, phase, func.name()), phase))

    def _blas(self):
        """The first product in the forward thread and the first in the backward thread take a workspace."""
        phase = self.now()
        if phase in (FORWARD, BACKWARD) and f"blas {phase}" not in self.watched:
            self.watched[f"blas {phase}"] = None
            self.events.append(
                Event("take", Storage(machine.H100.workspace, "workspace", phase, "cuBLAS"), phase)
            )

    def _category(self, func, args, phase):
        if phase == LOAD:
            return "weights"
        if phase in (OPTIMIZER, AGAIN):
            return "optimizer"
        if func in kernels.DEQUANTIZING:
            return "casts"
        if func is aten._to_copy.default:
            source = self.storage_of(args[0])
            if source is not None and source.category in ("weights", "casts"):
                return "casts"
        return "logits and loss" if self.in_head else "activations"
