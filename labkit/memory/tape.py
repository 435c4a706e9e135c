"""Autograd without numbers: a step is played through with sizes only, and every byte that lives is booked.

A `Tensor` here is a storage: it counts as long as Python holds it, exactly as in torch, because what frees
memory there is the same thing that frees it here: the last reference going away. Code written against this
module therefore reads like the model's own code, and what it keeps too long, it keeps too long in torch.
"""

from contextlib import contextmanager
from itertools import accumulate

BLOCK = 512  # torch's CUDA allocator rounds requests up to it (c10/cuda/CUDACachingAllocator: kMinBlockSize)


class _Stop(Exception):
    """A recomputation has everything it wanted (torch.utils.checkpoint stops early too)."""


def rounded(size):
    """`size` bytes as the allocator books them."""
    return -(-size // BLOCK) * BLOCK


class Tensor:
    """One storage: `dims` is (elements, text), `item` bytes an element, `key` what it is booked under
    (category, label, text, item, bytes)."""

    __slots__ = ("tape", "dims", "item", "key", "bytes", "needs", "node", "grad", "view", "base")

    def __init__(self, tape, dims, item, category, label, base=None):
        self.tape, self.dims, self.item, self.base = tape, dims, item, base
        self.bytes = 0 if base is not None else rounded(dims[0] * item)  # a view has its base's memory
        self.key = (category, label, dims[1], item, self.bytes)
        self.needs, self.node, self.grad, self.view = False, None, None, False
        tape.events.append((self.bytes, self.key))

    def __del__(self):
        self.tape.events.append((-self.bytes, self.key))

    def rebook(self, category, label):
        """Book the same bytes under another name."""
        self.tape.events.append((-self.bytes, self.key))
        self.key = (category, label, self.dims[1], self.item, self.bytes)
        self.tape.events.append((self.bytes, self.key))
        return self


class Node:
    """One step back: the `edges` its gradients go to, what it saved, and how it computes."""

    __slots__ = ("edges", "saved", "back", "grad", "block", "frame", "span")


class _Frame:
    """A checkpointed stretch: how to run it again, and how many tensors it would have saved."""

    __slots__ = ("run", "count", "store")

    def __init__(self, run):
        self.run, self.count, self.store = run, 0, None


class Tape:
    """Plays a step: `op` computes forward, `backward` goes back; `events` holds every change of what
    lives."""

    def __init__(self, in_place=True):
        self.events, self.nodes, self.marks = [], [], []
        self.in_place = in_place
        self.grad_enabled, self.block = True, None
        self.compute = None  # bytes of autocast's dtype, where autocast is on
        self.casts = {}
        self._frame, self._refill, self._limit = None, None, 0

    @property
    def forgetting(self):
        """In the first pass over a checkpointed stretch, where nothing is saved?"""
        return self._frame is not None and self._refill is None

    # forward -------------------------------------------------------------------------------------------

    def new(self, dims, item, label, category="activations"):
        """A fresh tensor without history."""
        return Tensor(self, dims, item, category, label)

    def op(self, dims, item, label, inputs, saved=(), back=None, category="activations", keeps_itself=False):
        """What one differentiable operation gives; `saved` (and the result, if it `keeps_itself`) is kept for
        `back` if any input wants gradients."""
        node = None
        needs = self.grad_enabled and any(x.needs for x in inputs)
        if needs:
            node = self._record(inputs, saved, back or _like_inputs)
        out = Tensor(self, dims, item, category, label)
        out.needs, out.node = needs, node
        if needs and keeps_itself:
            self._keep(node, [out])
        return out

    def part(self, x, dims, back):
        """A view of some of `x`."""
        out = Tensor(self, dims, x.item, *x.key[:2], base=x)
        if x.needs and self.grad_enabled:
            out.needs, out.node = True, self._record([x], (), back)
        return out

    def through(self, x, back):
        """`x` itself, whose gradient goes through `back` first (views that need work on the way back)."""
        if x.needs and self.grad_enabled:
            x.node = self._record([x], (), back)
        return x

    def _record(self, inputs, saved, back):
        if self._refill is not None:
            self._keep(None, saved)
            return None
        node = Node()
        node.edges = [(x.node or x, x.dims, x.item) if x.needs else None for x in inputs]
        node.back, node.grad, node.block, node.frame, node.saved = back, None, self.block, self._frame, []
        if self._frame is not None:
            node.span = (self._frame.count, self._frame.count)
        self._keep(node, saved)
        self.nodes.append(node)
        return node

    def _keep(self, node, saved):
        """Save for backward; or only count, in a checkpointed stretch; or collect, when it is computed
        again."""
        if self._refill is not None:
            for x in saved:
                self._refill.append(x)
                if len(self._refill) == self._limit:
                    raise _Stop
        elif self._frame is None:
            node.saved.extend(saved)
        else:
            self._frame.count += len(saved)
            node.span = (node.span[0], self._frame.count)

    def cast(self, x, item, label, category="activations"):
        """`x.to(dtype)`: nothing where it has the dtype, otherwise a copy; nothing is saved for backward."""
        return x if x.item == item else self.op(x.dims, item, label, [x], category=category)

    def weight(self, w):
        """A weight as a matrix product takes it: under autocast a 16-bit copy, kept until autocast ends if
        it is a trained one (autocast caches leaves that require gradients), made anew for every use if it is
        frozen."""
        if self.compute is None or w.item == self.compute:
            return w
        if not w.needs:
            return self.new(w.dims, self.compute, "16-bit copies of frozen weights", "casts")
        if w not in self.casts:
            self.casts[w] = self.cast(w, self.compute, "16-bit copies of trained weights", "casts")
        return self.casts[w]

    @contextmanager
    def autocast(self, item):
        """Inside, matrix products and attention work on `item` bytes an element; None leaves all as it is."""
        outer = self.compute, self.casts
        self.compute, self.casts = item, {}
        try:
            yield
        finally:
            self.compute, self.casts = outer

    @contextmanager
    def no_grad(self):
        """Inside, nothing is recorded."""
        before, self.grad_enabled = self.grad_enabled, False
        try:
            yield
        finally:
            self.grad_enabled = before

    def checkpoint(self, function, x):
        """`function(x)`, of which only `x` is kept; the rest is computed again when backward comes to it."""
        item = self.compute

        def again():
            with self.autocast(item):
                function(x)

        self._frame = _Frame(again)
        try:
            return function(x)
        finally:
            self._frame = None

    def _again(self, frame):
        self._refill, self._limit = [], frame.count
        try:
            frame.run()
        except _Stop:
            pass
        frame.store, self._refill = self._refill, None

    # backward ------------------------------------------------------------------------------------------

    def backward(self, loss, at_block=lambda block: None):
        """Go back from `loss`; `at_block(block)` is called before the first node of each block."""
        loss.node.grad = self.new(loss.dims, loss.item, "gradient of the loss")
        block = object()
        while self.nodes:
            node = self.nodes.pop()
            if node.block != block:
                block = node.block
                at_block(block)
            if node.grad is not None:
                self._go(node)

    def _go(self, node):
        """One node, in torch's order: compute, check shapes and dtypes, let go of inputs and saved, hand
        on."""
        frame, g = node.frame, node.grad
        if frame is not None and node.span[0] < node.span[1]:
            if frame.store is None:
                self._again(frame)
            first, last = node.span
            node.saved = frame.store[first:last]
            frame.store[first:last] = [None] * (last - first)
        node.grad = None
        grads = node.back(self, node, g)
        for i, edge in enumerate(node.edges):
            if edge is None:
                grads[i] = None
                continue
            if grads[i].dims[0] != edge[1][0]:  # broadcast forward, so summed backward
                grads[i] = self.new(edge[1], grads[i].item, "gradients on their way")
            if grads[i].item != edge[2]:
                grads[i] = self.new(edge[1], edge[2], "gradients on their way")
        del g
        node.saved = node.frame = frame = None
        for i, edge in enumerate(node.edges):
            if edge is not None:
                grad, grads[i] = grads[i], None
                self._hand(edge[0], grad)
                del grad

    def _hand(self, target, grad):
        """Add `grad` to what `target` has; in place where torch may (engine/input_buffer.cpp: nobody else
        holds it and it is no view), as a third tensor otherwise."""
        if target.grad is not None:
            if self.in_place and not target.grad.view:
                return
            grad = self.new(grad.dims, grad.item, "gradients on their way")
        if type(target) is Tensor:
            if target.key[0] == "weights":
                grad.rebook("gradients", "gradients of trained weights")
            elif grad.view:  # a leaf's gradient is its own
                grad = self.new(target.dims, target.item, "gradient of the embedded tokens")
        target.grad = grad

    # the account ---------------------------------------------------------------------------------------

    def mark(self, moment):
        """From here on, what happens belongs to `moment`."""
        self.marks.append((len(self.events), moment))

    def account(self, first, last):
        """What the events from `first` to `last` leave behind: {key: bytes}."""
        left = {}
        for size, key in self.events[first:last]:
            left[key] = left.get(key, 0) + size
        return {key: size for key, size in left.items() if size}

    def repeat(self, account, times):
        """Book what `times` more rounds like the one of this account would leave behind.

        What goes is booked before what comes, so that the booking itself makes no peak.
        """
        if times:
            self.events.extend(sorted((size * times, key) for key, size in account.items()))

    def peak(self):
        """(bytes, moment, {key: bytes}) when most was alive."""
        living = list(accumulate(size for size, _ in self.events))
        most = max(living)
        index = living.index(most)
        moment = [name for start, name in self.marks if start <= index][-1]
        return most, moment, self.account(0, index + 1)


def _like_inputs(tape, node, g):
    """A gradient for every input that wants one, shaped and typed as the input."""
    return [edge and tape.new(edge[1], edge[2], "gradients on their way") for edge in node.edges]
