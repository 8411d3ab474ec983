"""How few bytes can move within a budget at the very least, before any tile is looked at?

1. Of a cache that is far all bytes move, each way. No more of them than the budget are near; where
   steps take turns, each that is near is there twice while they do, beside all windows.
2. Of what a step touches no more than the budget is near, and the rest moves.

What is near is counted as though each of the two had all of the budget. So this is less than what
any choice of places moves, and one that cannot be the best need not be made.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..program.steps import SOURCE
from .limits import NEVER
from .memory import Memory


@dataclass(frozen=True, slots=True)
class _Share:
    """Of chunks of one kind. passes: how often a cache goes either way in all of them, which is
    `once` or twice in each. touched: bytes of stores for each step. windows: bytes of them.
    """

    count: int
    passes: int
    once: int
    caches: int
    windows: int
    touched: tuple[int, ...]

    def least(self, budget: int) -> int:
        """Bytes that move in all of these chunks at the least."""
        room = budget - self.windows
        if room < 0:
            return NEVER
        near = room // self.once if self.once else 0
        stores = sum(size - budget for size in self.touched if size > budget)
        return self.passes * max(self.caches - near, 0) + self.count * stores


@dataclass(frozen=True, slots=True)
class Floor:
    """For chunks of all kinds."""

    shares: tuple[_Share, ...]

    def least(self, budget: int) -> int:
        """Bytes that move at the least."""
        return min(sum(share.least(budget) for share in self.shares), NEVER)


def floor_of(memories: tuple[Memory, ...], counts: tuple[int, ...]) -> Floor:
    """counts: of chunks of each kind."""
    return Floor(tuple(_share(*both) for both in zip(memories, counts, strict=True)))


def _share(memory: Memory, count: int) -> _Share:
    ways = memory.has_past + memory.has_future
    run = memory.turns.bands.steps if memory.turns else range(0)
    turning = sum(memory.steps[index].cache_bytes for index in run)
    caches = sum(step.cache_bytes for step in memory.steps)
    rolled, touched = memory.places.rolled, list[int]()
    for index, step in enumerate(memory.program.steps):
        one, added = memory.steps[index], step.residual.store if step.residual else step.src
        sizes = {
            step.src: memory.extent_bytes(step.src),
            step.dst: one.written_bytes,
            added: memory.extent_bytes(added),
        }
        ends = rolled | {SOURCE, memory.program.sink}
        touched.append(sum(size for store, size in sizes.items() if store not in ends))
    # where all caches take turns, each that is near is there in both of its forms
    once = ways if turning == caches else min(ways, 1)
    return _Share(count, count * ways, once, caches, memory.windows_bytes, tuple(touched))
