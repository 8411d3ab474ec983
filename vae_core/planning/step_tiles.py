"""Which tile does a step take in the room that there is, and what does it move then?

1. Tiles shrink by a good part from one to the next that is tried, down to the usual one.
2. None takes more than is preferred, if the usual one does not.
3. A larger tile needs more, so that few of them are worked out for an answer; what was worked out
   for one is kept for all that ask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from ..geometry.region import Extent
from .elements import MOST_ELEMENTS
from .memory import Memory
from .places import Far
from .step_bytes import StepBytes

_SHARE = 0.8
"""Voxels of a tile that is tried next, as a share of the last one's, at the most."""

_NEVER = 2**62
"""More than there will ever be room for."""

Sizes = Callable[[bool], tuple[Extent, ...]]
"""The tiles that a step may use, each the next smaller one, where they go as bands or not."""

Flows = tuple[tuple[bool, bool, int], ...]
"""Whether caches come from a chunk before, and go on to one after, and for how many chunks."""


def flows_of(memories: tuple[Memory, ...], counts: Counter[tuple[bool, bool]]) -> Flows:
    """The flows of caches through kinds of chunk of the same extents; counts: of such chunks."""
    return tuple(
        (memory.has_past, memory.has_future, counts[memory.has_past, memory.has_future])
        for memory in memories
    )


@dataclass(slots=True)
class _Ladder:
    """The tiles for one way in which things are far. start: the first that takes no more than is
    preferred.
    """

    sizes: tuple[Extent, ...]
    needs: dict[int, int] = field(default_factory=dict[int, int])
    start: int = 0


class StepTiles:
    """The tiles that one step may use in chunks of one length."""

    def __init__(self, step: StepBytes, flows: Flows, sizes: Sizes, preferred: int) -> None:
        self._step, self._flows, self._sizes, self._preferred = step, flows, sizes, preferred
        self._ladders: dict[Far, _Ladder] = {}
        self._moved: dict[tuple[Far, Extent | None], int] = {}

    def first(self, far: Far, room: int) -> Extent | None:
        """The largest tile that there is room for; None where there is none."""
        ladder = self._ladders.get(far)
        if ladder is None:
            ladder = self._ladders[far] = self._ladder(far)
        if self._need(ladder, ladder.start, far) <= room:
            return ladder.sizes[ladder.start]
        low, high = ladder.start + 1, len(ladder.sizes)
        while low < high:
            middle = (low + high) // 2
            if self._need(ladder, middle, far) <= room:
                high = middle
            else:
                low = middle + 1
        return ladder.sizes[low] if low < len(ladder.sizes) else None

    def moved(self, far: Far, tile: Extent) -> int:
        """Bytes that the step moves in all chunks of this length."""
        key = far, tile if far.src else None  # of nothing else is more read by smaller tiles
        found = self._moved.get(key)
        if found is None:
            found = self._moved[key] = sum(
                count * self._step.moved_bytes(tile, far, past, future)
                for past, future, count in self._flows
            )
        return found

    def _ladder(self, far: Far) -> _Ladder:
        """The tiles with these things far; none beyond what is preferred where all of them are, so
        that it is found once.
        """
        banded = self._step.sizes.accelerated and far.store
        most = Far(True, True, True, True) if far.store else Far(cache=True)
        if far == most:
            sizes = _thinned(self._sizes(banded))
            ladder = _Ladder(sizes)
            ladder.start = self._preferred_start(ladder, far)
            return ladder
        like = self._ladders.get(most)
        if like is None:
            like = self._ladders[most] = self._ladder(most)
        return _Ladder(like.sizes, start=like.start)

    def _preferred_start(self, ladder: _Ladder, far: Far) -> int:
        last = len(ladder.sizes) - 1
        if not last or self._need(ladder, 0, far) <= self._preferred:
            return 0
        low, high = 1, last
        while low < high:
            middle = (low + high) // 2
            if self._need(ladder, middle, far) <= self._preferred:
                high = middle
            else:
                low = middle + 1
        return low

    def _need(self, ladder: _Ladder, at: int, far: Far) -> int:
        """What tiles of a size need in the chunk that needs the most."""
        need = ladder.needs.get(at)
        if need is None:
            tile = ladder.sizes[at]
            flows = {flow[:2] for flow in self._flows} if far.cache else {(False, False)}
            need = max(self._step.tile_bytes(tile, far, *flow) for flow in flows)
            if self._is_too_large(tile, need):
                need = _NEVER
            ladder.needs[at] = need
        return need

    def _is_too_large(self, tile: Extent, need: int) -> bool:
        step = self._step
        if need * step.step.phases < MOST_ELEMENTS * step.sizes.element_bytes:
            return False  # all that it needs has fewer elements
        return step.elements(tile) >= MOST_ELEMENTS


@lru_cache(maxsize=1024)
def _thinned(sizes: tuple[Extent, ...]) -> tuple[Extent, ...]:
    """The first, the last, and of those between them as many as differ by enough."""
    found = [sizes[0]]
    for tile in sizes[1:-1]:
        if tile.voxels <= _SHARE * found[-1].voxels:
            found.append(tile)
    return (*found, sizes[-1]) if len(sizes) > 1 else sizes
