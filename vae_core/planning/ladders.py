"""Which tiles may a step take in chunks of one length, what do they need, and what do they read?

1. Tiles shrink by a good part from one to the next that is tried, down to the usual one.
2. None takes more than is preferred, if the usual one does not.
3. What they need is worked out with all stores far away, which is the most that it can be; for the
   step that has them all on the device it is the least of any tile, since none copies more then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from ..geometry.region import Extent
from .elements import MOST_ELEMENTS
from .memory import Memory
from .places import Far, Kind
from .step_bytes import StepBytes

_SHARE = 0.75
"""Voxels of a tile that is tried next, as a share of the last one's, at the most."""

NEVER = 2**60
"""More than there will ever be room for, or than will ever be moved."""

Sizes = Callable[[bool], tuple[Extent, ...]]
"""The tiles that a step may use, each the next smaller one, where they go as bands or not."""

Flows = frozenset[tuple[bool, bool]]
"""Whether causal caches come from a chunk before, and go on to one after, in chunks of a length."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """The tiles that one step may use in chunks of one length, each the next smaller one.

    needs: bytes that they take with all stores far, and with the causal cache near or far; cut: the
        same where dst is partly far. near: bytes that there must be for any with all stores near.
    reads: bytes of src that all tiles of a size read.
    """

    tiles: tuple[Extent, ...]
    needs: tuple[tuple[int, ...], tuple[int, ...]]
    cut: tuple[tuple[int, ...], tuple[int, ...]]
    near: tuple[int, int]
    reads: tuple[int, ...]

    def tile(self, room: int, far: Far) -> Extent:
        """The one that reads least, of those that there is room for."""
        needs = (self.cut if far.cut else self.needs)[far.cache]
        every = zip(needs, self.reads, self.tiles, strict=True)
        return min((item for item in every if item[0] <= room), key=lambda item: item[1])[2]


@dataclass(frozen=True, slots=True)
class Length:
    """Chunks of one length. memories: their kinds. counts: of chunks of each of those. ladders: the
    tiles of each step.
    """

    memories: tuple[Memory, ...]
    counts: tuple[int, ...]
    ladders: tuple[Ladder, ...]

    @property
    def kind(self) -> Kind:
        """What its chunks are."""
        return self.memories[0].kind


def ladder_of(step: StepBytes, flows: Flows, sizes: Sizes, preferred: int) -> Ladder:
    """The ladder of a step; preferred: bytes that no tile needs to take more than."""
    asked = _Asked(step, flows)
    tiles, everything = _thinned(sizes(step.sizes.accelerated)), all_far(step)
    start = _preferred_start(asked, tiles, everything, preferred)
    ends, tiles = (tiles[0], tiles[-1]), tiles[start:]
    needs = tuple(asked.needs(tiles, replaced(everything, cache)) for cache in (False, True))
    cut = tuple(
        tuple(
            need if step.count(tile) > 2 else NEVER
            for tile, need in zip(tiles, some, strict=True)
        )
        for some in needs
    )
    near = tuple(min(asked.needs(ends, Far(cache=cache))) for cache in (False, True))
    reads = tuple(step.read_bytes(tile) for tile in tiles)
    return Ladder(tiles, (needs[0], needs[1]), (cut[0], cut[1]), (near[0], near[1]), reads)


def replaced(far: Far, cache: bool) -> Far:
    """The same stores far, and the cache far or near."""
    return Far(far.src, far.dst, far.added, cache, far.cut)


def all_far(step: StepBytes) -> Far:
    """All of what a step touches."""
    site = step.site
    return Far(site.src.h, site.dst.h, site.dst.h if site.added_channels else 0, cache=True)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the tiles of a step need in the chunk that needs the most."""

    step: StepBytes
    flows: Flows

    def needs(self, tiles: tuple[Extent, ...], far: Far) -> tuple[int, ...]:
        """Of each size, with these things far."""
        return tuple(self.need(tile, far) for tile in tiles)

    def need(self, tile: Extent, far: Far) -> int:
        """Of one size."""
        flows = self.flows if far.cache else frozenset({(False, False)})
        need = max(self.step.tile_bytes(tile, far, *flow) for flow in flows)
        return NEVER if self._is_too_large(tile, need) else need

    def _is_too_large(self, tile: Extent, need: int) -> bool:
        step = self.step
        if need * step.step.phases < MOST_ELEMENTS * step.sizes.element_bytes:
            return False  # all that it needs has fewer elements
        return step.elements(tile) >= MOST_ELEMENTS


def _preferred_start(asked: _Asked, tiles: tuple[Extent, ...], far: Far, preferred: int) -> int:
    """The first tile that takes no more than is preferred; the last where none does."""
    last = len(tiles) - 1
    if not last or asked.need(tiles[0], far) <= preferred:
        return 0
    low, high = 1, last
    while low < high:
        middle = (low + high) // 2
        if asked.need(tiles[middle], far) <= preferred:
            high = middle
        else:
            low = middle + 1
    return low


@lru_cache(maxsize=1024)
def _thinned(sizes: tuple[Extent, ...]) -> tuple[Extent, ...]:
    """The first, the last, and of those between them as many as differ by enough."""
    found = [sizes[0]]
    for tile in sizes[1:-1]:
        if tile.voxels <= _SHARE * found[-1].voxels:
            found.append(tile)
    return (*found, sizes[-1]) if len(sizes) > 1 else sizes
