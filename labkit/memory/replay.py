"""Events of memory played back: where the peak lies, what it holds, and what the allocator reserves."""

from bisect import bisect_left, insort
from collections import Counter
from dataclasses import dataclass

from labkit.memory.tape import rounded

ROUND = 512  # bytes: every block is a multiple
SMALL, SMALL_SEGMENT = 2**20, 2 * 2**20  # up to 1 MiB: blocks share segments of 2 MiB
LARGE_SEGMENT, OWN_SEGMENT = 20 * 2**20, 10 * 2**20  # below 10 MiB: segments of 20 MiB; beyond, one each


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


@dataclass
class Played:
    """What playing events through the allocator shows, in bytes.

    allocated   at the peak, whole blocks: what torch.cuda.max_memory_allocated says
    held        {category: bytes} at the peak
    phase       in which the peak lies
    reserved    what was taken from the card
    """

    allocated: int
    held: dict
    phase: str
    reserved: int


def play(events):
    """Played of a list of `tracker.Event`."""
    allocator, living = Allocator(), {}
    current = best = 0
    where = -1
    sizes = []  # of the block of each event
    for place, event in enumerate(events):
        if event.what == "give back":
            block = living.pop(id(event.storage))
            allocator.give_back(block)
            current -= block[1]
        else:
            block = allocator.take(event.storage.bytes)
            if current + block[1] > best:
                best, where = current + block[1], place
            if event.what == "touch":
                allocator.give_back(block)
            else:
                living[id(event.storage)] = block
                current += block[1]
        sizes.append(block[1])
    held = Counter()
    for place, (event, size) in enumerate(zip(events[: where + 1], sizes, strict=False)):
        if event.what == "give back":
            held[event.storage.category] -= size
        elif event.what == "take" or place == where:
            held[event.storage.category] += size
    held = {name: size for name, size in held.items() if size}
    return Played(best, held, events[where].phase if events else "load", allocator.reserved)
