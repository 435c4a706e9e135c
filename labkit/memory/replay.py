"""Events of memory played back: where the peak lies, what it holds, and what the allocator reserves."""

from bisect import bisect_left, insort
from collections import Counter

from labkit.memory.tape import rounded

ROUND = 512  # bytes: every block is a multiple
SMALL, SMALL_SEGMENT = 2**20, 2 * 2**20  # up to 1 MiB: blocks share segments of 2 MiB
LARGE_SEGMENT, OWN_SEGMENT = 20 * 2**20, 10 * 2**20  # below 10 MiB: segments of 20 MiB; beyond, one each


def peak(events):
    """(bytes at the peak, {category: bytes} there, the phase it lies in) of a list of `tracker.Event`."""
    current = best = 0
    where = -1
    for place, event in enumerate(events):
        size = rounded(event.storage.bytes)
        if event.what == "give back":
            current -= size
            continue
        if current + size > best:
            best, where = current + size, place
        if event.what == "take":
            current += size
    held = Counter()
    for place, event in enumerate(events[: where + 1]):
        size = rounded(event.storage.bytes)
        if event.what == "give back":
            held[event.storage.category] -= size
        elif event.what == "take" or place == where:
            held[event.storage.category] += size
    return (
        best,
        {name: size for name, size in held.items() if size},
        events[where].phase if events else "load",
    )


class Allocator:
    """torch's caching allocator on one stream, as CUDACachingAllocator.cpp has it by default.

    Best fit among free blocks of the pool; a block is split if what remains is worth it; free neighbours
    merge; segments are never given back. `reserved` is the bytes taken from the card.
    """

    def __init__(self):
        self.reserved = 0
        self.free = {True: [], False: []}  # of the small and the large pool: sorted (size, segment, start)
        self.ends, self.starts = {}, {}  # (segment, start) of free blocks -> end, and (segment, end) -> start
        self.segments = 0

    def take(self, size):
        """Take a block; returns its handle."""
        size = rounded(size)
        small = size <= SMALL
        pool = self.free[small]
        place = bisect_left(pool, (size, -1, -1))
        if place < len(pool):
            whole, segment, start = pool[place]
            self._forget(small, whole, segment, start)
        else:
            whole = (
                SMALL_SEGMENT
                if small
                else LARGE_SEGMENT
                if size < OWN_SEGMENT
                else -(-size // SMALL_SEGMENT) * SMALL_SEGMENT
            )
            segment, start = self.segments, 0
            self.segments += 1
            self.reserved += whole
        rest = whole - size
        if rest >= ROUND if small else rest > SMALL:
            self._remember(small, rest, segment, start + size)
            whole = size
        return small, whole, segment, start

    def give_back(self, handle):
        """Free a block."""
        small, size, segment, start = handle
        end = self.ends.get((segment, start + size))
        if end is not None:
            self._forget(small, end - start - size, segment, start + size)
            size = end - start
        before = self.starts.get((segment, start))
        if before is not None:
            self._forget(small, start - before, segment, before)
            start, size = before, size + start - before
        self._remember(small, size, segment, start)

    def _remember(self, small, size, segment, start):
        insort(self.free[small], (size, segment, start))
        self.ends[segment, start] = start + size
        self.starts[segment, start + size] = start

    def _forget(self, small, size, segment, start):
        pool = self.free[small]
        del pool[bisect_left(pool, (size, segment, start))]
        del self.ends[segment, start], self.starts[segment, start + size]


def reserve(events):
    """Bytes that torch's allocator would take from the card for these events."""
    allocator, handles = Allocator(), {}
    for event in events:
        if event.what == "give back":
            allocator.give_back(handles.pop(id(event.storage)))
        else:
            handle = allocator.take(event.storage.bytes)
            if event.what == "touch":
                allocator.give_back(handle)
            else:
                handles[id(event.storage)] = handle
    return allocator.reserved
