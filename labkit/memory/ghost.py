"""Tensors that hold nothing: an operation gives results of the right sizes, and nothing is computed.

A ghost is an ordinary CPU tensor whose storage lies in one stretch of address space that all ghosts share and
nobody touches, so that it takes no memory. Autograd, autocast and reference counts treat it as any tensor,
which is what a trace wants; torch's own fake tensors would do too, at five times the time. Small tensors that
depend on no ghost (positions, masks, step counts) are computed, so that code may decide by their values.
"""

import mmap
import sys
from functools import cache

import torch

from labkit.errors import LabkitError

aten = torch.ops.aten
SPACE = 2**40  # bytes of address space, of which none is used
SMALL = 2**16  # elements: what depends on no ghost and is no larger is computed
SHARING = {aten._unsafe_view.default}  # share memory though their schema does not say so
# Hold nothing yet, as weights before their first values; or run on CUDA alone.
NEVER_REAL = {
    aten.empty.memory_format, aten.empty_strided.default, aten.empty_like.default, aten.new_empty.default,
    aten._scaled_dot_product_flash_attention.default, aten._scaled_dot_product_efficient_attention.default,
}  # fmt: skip


class Ghosts:
    """Runs operations (`call`), for real where it is cheap and means something, else as ghosts."""

    def __init__(self):
        self.known = set()  # storages, by address of the C++ object, whose contents mean nothing
        self.results = {}  # what an operation gives for sizes that it met before

    def call(self, func, args, kwargs):
        """What `func(*args, **kwargs)` gives: tensors of the same sizes, strides and dtypes."""
        kind = _kind(func)
        tensors = list(_tensors(args, kwargs))
        haunted = any(tensor.untyped_storage()._cdata in self.known for tensor in tensors)
        if kind == "view" or (kind != "new" and not haunted):
            return func(*args, **kwargs)
        if kind == "value":
            raise LabkitError(
                f"the step reads a tensor's value ({func.name()}), and under a trace tensors hold none. "
                "Take the reading (`.item()`, `if tensor:`) out of the step"
            )
        if kind == "in place":
            return _written(func, args, kwargs)
        results = self._results(func, args, kwargs)
        single = isinstance(results, _Like)
        count = results.count if single else sum(like.count for like in results if isinstance(like, _Like))
        if not haunted and count <= SMALL and func not in NEVER_REAL:
            return func(*args, **kwargs)
        if single:
            return self._ghost(results)
        made = [self._ghost(like) if isinstance(like, _Like) else like for like in results]
        return made if func._schema.returns[0].type.kind() == "ListType" else tuple(made)

    def forget(self, key):
        """The storage of this address is gone."""
        self.known.discard(key)

    def _ghost(self, like):
        if like.extent * like.dtype.itemsize > SPACE:
            raise LabkitError(f"a tensor of {like.extent} elements is more than a trace can lay out")
        if like.extent == 0:
            return torch.empty(like.size, dtype=like.dtype)
        flat = torch.frombuffer(_space(), dtype=like.dtype, count=like.extent)
        self.known.add(flat.untyped_storage()._cdata)
        return flat.as_strided(like.size, like.stride)

    def _results(self, func, args, kwargs):
        key = (func, _described(args), _described(kwargs.items()))
        found = self.results.get(key)
        if found is None:
            try:
                out = func(*_on_meta(args), **_on_meta(kwargs))
            except (NotImplementedError, RuntimeError) as error:
                raise LabkitError(
                    f"{func.name()} cannot be traced: what it gives depends on values or torch does not know "
                    f"its sizes ({str(error)[:200]}). Take it out of the step"
                ) from error
            if isinstance(out, torch.Tensor):
                found = _Like(out)
            else:
                found = [_Like(one) if isinstance(one, torch.Tensor) else one for one in out or ()]
            self.results[key] = found
        return found


class _Like:
    """What a result looks like."""

    __slots__ = ("size", "stride", "dtype", "extent", "count")

    def __init__(self, tensor):
        self.size, self.stride, self.dtype = tensor.size(), tensor.stride(), tensor.dtype
        self.count = tensor.numel()
        spans = (step * (length - 1) for step, length in zip(self.stride, self.size, strict=True))
        self.extent = 1 + sum(spans) if self.count else 0


@cache
def _space():
    # "Do not set memory aside": Python names the flag from 3.13 on; other systems than Linux never do.
    unused = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
    try:
        return mmap.mmap(-1, SPACE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | unused)
    except (OSError, ValueError) as error:
        raise LabkitError(
            f"this system grants no {SPACE // 2**40} TiB of unused address space ({error}). Lift the limit "
            "(ulimit -v unlimited), or use `labkit.memory.predict`"
        ) from error


@cache
def _kind(func):
    """`view`: shares memory and computes nothing; `in place`: writes into an argument; `new`: makes tensors;
    `value`: gives something else."""
    if func in SHARING:
        return "view"
    aliases = [given.alias_info for given in func._schema.returns if given.alias_info is not None]
    if any(alias.is_write for alias in aliases):
        return "in place"
    if aliases:
        return "view"
    writes = any(
        given.alias_info is not None and given.alias_info.is_write for given in func._schema.arguments
    )
    if writes:
        return "in place"
    return "new" if any("Tensor" in str(given.type) for given in func._schema.returns) else "value"


def _written(func, args, kwargs):
    """The arguments that an operation writes into and gives back."""
    if not func._schema.returns:
        return None
    names = [given.name for given in func._schema.arguments if given.alias_info and given.alias_info.is_write]
    place = {given.name: at for at, given in enumerate(func._schema.arguments)}
    out = [args[place[name]] if place[name] < len(args) else kwargs[name] for name in names]
    return out[0] if len(func._schema.returns) == 1 else tuple(out)


def _tensors(args, kwargs):
    for group in (args, kwargs.values()):
        for one in group:
            if isinstance(one, torch.Tensor):
                yield one
            elif isinstance(one, (list, tuple)):
                for inner in one:
                    if isinstance(inner, torch.Tensor):
                        yield inner


def _described(group):
    """Sizes in place of tensors, so that calls with equal sizes compare equal."""
    out = []
    for one in group:
        if isinstance(one, torch.Tensor):
            out.append((one.size(), one.stride(), one.dtype))
        elif isinstance(one, (list, tuple)):
            out.append(_described(one))
        else:
            out.append((type(one), one))
    return tuple(out)


def _on_meta(one):
    """The same arguments on the meta device, where operations give sizes alone."""
    if isinstance(one, torch.Tensor):
        return torch.empty_strided(one.size(), one.stride(), dtype=one.dtype, device="meta")
    if isinstance(one, torch.device):
        return torch.device("meta")
    if isinstance(one, dict):
        moved = {name: _on_meta(value) for name, value in one.items()}
        return moved
    if isinstance(one, (list, tuple)):
        return type(one)(_on_meta(inner) for inner in one)
    return one
