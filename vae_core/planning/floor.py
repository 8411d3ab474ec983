"""How few bytes can move within a budget at the very least, before any tile is looked at?

1. Of a cache that is far all bytes move, each way; those that are near are the same in all chunks.
2. Of what a step touches no more is near than a budget leaves beside weights, windows and, between
   other chunks, near caches; the rest moves.

So for each choice of how many bytes of caches are near there is a sum, which falls and rises with
it in straight lines: its least is at one of their ends. That is no more than what any choice of
places moves, and one that cannot be the best need not be made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..program.steps import SOURCE
from .arrays import Numbers, np
from .limits import NEVER
from .memory import Memory


@dataclass(frozen=True, slots=True)
class _Share:
    """Of chunks of one kind. passes: how often a cache goes either way in all of them, in each of
    which it is there `once` or twice; between: whether it is so while every step runs. weights:
    bytes for each step, with windows where steps take turns. touched: of stores for each step.
    """

    count: int
    passes: int
    once: int
    between: bool
    caches: int
    weights: Numbers
    touched: Numbers

    def moved(self, near: Numbers, budget: int) -> Numbers:
        """Bytes that move in all of these chunks at the least, for each choice of near caches."""
        rooms = budget - self.weights - near[:, None] * self.once * self.between
        stores = np.maximum(self.touched - np.maximum(rooms, 0), 0).sum(1)
        return self.passes * (self.caches - near) + self.count * stores

    def ends(self, budget: int) -> Numbers:
        """Where lines of it end."""
        return (budget - self.weights - self.touched) // max(self.once, 1)


@dataclass(frozen=True, slots=True)
class Floor:
    """For chunks of all kinds."""

    shares: tuple[_Share, ...]

    def least(self, budget: int) -> int:
        """Bytes that move at the least."""
        rooms = [int((budget - share.weights).min()) for share in self.shares]
        if min(rooms) < 0:
            return NEVER
        most = min(
            min(share.caches, room // max(share.once, 1))
            for share, room in zip(self.shares, rooms, strict=True)
        )
        ends = [share.ends(budget) + one for share in self.shares for one in (0, 1)]
        near = np.clip(np.concatenate([*ends, np.array((0, most))]), 0, most)
        moved: Numbers = np.stack([share.moved(near, budget) for share in self.shares]).sum(0)
        return int(moved.min())


def floor_of(memories: tuple[Memory, ...], counts: Sequence[int]) -> Floor:
    """counts: of chunks of each kind."""
    return Floor(tuple(_share(*both) for both in zip(memories, counts, strict=True)))


def _share(memory: Memory, count: int) -> _Share:
    ways = memory.has_past + memory.has_future
    run = memory.turns.bands.steps if memory.turns else range(0)
    turning = sum(memory.steps[index].cache_bytes for index in run)
    caches = sum(step.cache_bytes for step in memory.steps)
    rolled, touched, weights = memory.places.rolled, list[int](), list[int]()
    for index, step in enumerate(memory.program.steps):
        one, added = memory.steps[index], step.residual.store if step.residual else step.src
        sizes = {
            step.src: memory.extent_bytes(step.src),
            step.dst: one.written_bytes,
            added: memory.extent_bytes(added),
        }
        ends = rolled | {SOURCE, memory.program.sink}
        touched.append(sum(size for store, size in sizes.items() if store not in ends))
        weights.append(memory.weight_bytes(index) + memory.windows_bytes * (index in run))
    # where all caches take turns, each that is near is there in both of its forms while they do
    once = ways if turning == caches and len(run) == len(memory.steps) else min(ways, 1)
    given = count, count * ways, once, ways > 1, caches
    return _Share(*given, np.array(weights, np.int64), np.array(touched, np.int64))
