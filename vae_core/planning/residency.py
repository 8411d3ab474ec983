"""Which stores and causal caches shall live on the device, so that the fewest bytes move?

What is on the device at a step must fit beside the tiles of that step: one knapsack for every step,
which a store is in for as long as it lives, and a cache always. The rule:

1. Every byte of a cache saves the same two, one each way. So it hardly matters which of them stay
   on the device: the smallest, those of deep levels, or the largest; how many is tried, by shares
   of their bytes. Where there are few caches every set of them is.
2. For each of these, and for chunks of each length by themselves, stores are chosen exactly: from
   step to step, for every set of the few stores that live at it, the least that can have moved so
   far. What a step moves is what its largest tile does that it has room for beside them, halos that
   are read again included. A store that would lie in another one may instead have memory of its
   own.
3. The best of all is taken.

Bound: no choice of stores moves less beside the same caches, with tiles of the sizes that are
tried; and with caches cut as finely as one likes, no more than one share of them, each way, would
be gained. What is tried does not depend on the budget, and nothing of it moves more where there is
more room: so a larger budget never moves more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from ..geometry.region import Extent
from .memory import Memory
from .places import Far, Kind, Places, Way, places_of
from .step_tiles import StepTiles

_SHARES = 12
"""Parts of all caches' bytes, in steps of which they are kept on the device."""

_FEW = 6
"""Of no more caches than these every set is tried."""


@dataclass(frozen=True, slots=True)
class Length:
    """Chunks of one length. memories: their kinds. tiles: what each step may use."""

    memories: tuple[Memory, ...]
    tiles: tuple[StepTiles, ...]


def choose(lengths: tuple[Length, ...], budget: int) -> dict[Kind, Way] | None:
    """The ways that move the fewest bytes within `budget`; None where usual tiles do not fit even
    with everything away.
    """
    walks = [_Walk(length, budget) for length in lengths]
    best: list[_End] | None = None
    for far_caches in _cache_choices(lengths):
        ends = list[_End]()
        for walk in walks:
            end = walk.end(far_caches)
            if end is None:
                break
            ends.append(end)
        if len(ends) == len(walks) and (best is None or _moved(ends) < _moved(best)):
            best = ends
            if not _moved(best):
                break
    if best is None:
        return None
    return {walk.kind: walk.way(end) for walk, end in zip(walks, best, strict=True)}


def _cache_choices(lengths: tuple[Length, ...]) -> list[frozenset[int]]:
    """Sets of steps whose caches are far away, those of the fewest bytes first."""
    memories = [memory for length in lengths for memory in length.memories]
    sizes = {i: step.cache_bytes for i, step in enumerate(memories[0].steps) if step.cache_bytes}
    if not any(memory.has_past or memory.has_future for memory in memories):
        return [frozenset()]
    if len(sizes) <= _FEW:
        counts = range(len(sizes) + 1)
        found = {frozenset(some) for n in counts for some in combinations(sizes, n)}
    else:
        rising = sorted(sizes, key=lambda index: (sizes[index], index))
        found = {*_prefixes(rising, sizes), *_prefixes(rising[::-1], sizes)}
    return sorted(found, key=lambda some: (sum(sizes[i] for i in some), sorted(some)))


def _prefixes(order: list[int], sizes: Mapping[int, int]) -> Iterator[frozenset[int]]:
    """The first few of an order, from none to all, a share of the bytes further each time."""
    whole, gone, share, total = sum(sizes.values()), frozenset[int](), 0, 0
    yield gone
    for index in order:
        gone, total = gone | {index}, total + sizes[index]
        if total * _SHARES >= (share + 1) * whole or index == order[-1]:
            share = total * _SHARES // whole
            yield gone


@dataclass(frozen=True, slots=True)
class _Trail:
    """The least that has moved so far. near: stores on the device at the last step."""

    moved: int
    near: frozenset[int]
    before: _Trail | None

    def ever_near(self) -> frozenset[int]:
        """All stores that were on the device."""
        found, trail = frozenset[int](), self
        while trail is not None:
            found |= trail.near
            trail = trail.before
        return found


@dataclass(frozen=True, slots=True)
class _End:
    """Where a walk ends. far_caches: of which steps. near: the stores on the device."""

    moved: int
    far_caches: frozenset[int]
    near: frozenset[int]


def _moved(ends: list[_End]) -> int:
    return sum(end.moved for end in ends)


class _Walk:
    """From step to step through chunks of one length."""

    def __init__(self, length: Length, budget: int) -> None:
        self._memories, self._tiles, self._budget = length.memories, length.tiles, budget
        first = self._memories[0]
        self._program, self.kind = first.program, first.kind
        steps = range(len(self._program.steps))
        self._weights = [first.weight_bytes(index) for index in steps]
        self._live = first.live
        every = frozenset[int]().union(*self._live)
        self._bytes = {store: first.extent_bytes(store) for store in every}
        self._inside = {s: self._program.stores[s].inside for s in every}
        self._every = every
        self._all_near = [self._held(live) for live in self._live]
        self._forced: frozenset[int] = frozenset()
        self._rooms: list[int] = []
        self._far_caches: frozenset[int] = frozenset()

    def end(self, far_caches: frozenset[int]) -> _End | None:
        """The least that moves with these caches away; None where there is no room for that."""
        self._far_caches, self._rooms = far_caches, self._rooms_beside(far_caches)
        if (moved := self._moved_all_near()) is not None:
            return _End(moved, far_caches, self._every)
        trail = self._least()
        return None if trail is None else _End(trail.moved, far_caches, trail.ever_near())

    def way(self, end: _End) -> Way:
        """The places and tiles that a walk has found."""
        self._far_caches, self._rooms = end.far_caches, self._rooms_beside(end.far_caches)
        paths = frozenset(self._program.steps[index].path for index in end.far_caches)
        places = places_of(self._program, self._every - end.near, paths)
        return Way(places, tuple(self._tile(places, end, i) for i in range(len(self._live))))

    def _tile(self, places: Places, end: _End, index: int) -> Extent:
        near = self._live[index] & end.near
        far = places.of(self._program.steps[index])
        found = self._tiles[index].first(far, self._rooms[index] - self._held(near))
        assert found
        return found

    def _rooms_beside(self, far_caches: frozenset[int]) -> list[int]:
        """What each step leaves for stores and tiles beside near caches and weights."""
        steps, kinds = self._memories[0].steps, self._memories
        sizes = [0 if i in far_caches else step.cache_bytes for i, step in enumerate(steps)]
        come, go, found = sum(sizes), 0, list[int]()
        for size, weights in zip(sizes, self._weights, strict=True):
            go += size
            held = max(come * kind.has_past + go * kind.has_future for kind in kinds)
            found.append(self._budget - held - weights)
            come -= size
        return found

    def _held(self, near: frozenset[int]) -> int:
        """Bytes of near stores; one inside another that is near too has none of its own."""
        return sum(self._bytes[s] for s in near if self._inside[s] not in near)

    def _moved_all_near(self) -> int | None:
        moved = 0
        for index, held in enumerate(self._all_near):
            far = Far(cache=index in self._far_caches)
            tile = self._tiles[index].first(far, self._rooms[index] - held)
            if tile is None:
                return None
            moved += self._tiles[index].moved(far, tile)
        return moved

    def _least(self) -> _Trail | None:
        trails, lived = {frozenset[int](): _Trail(0, frozenset(), None)}, frozenset[int]()
        for index, live in enumerate(self._live):
            trails = self._further(index, self._branched(trails, live, sorted(live - lived)))
            lived = live
            if not trails:
                return None
        return min(trails.values(), key=lambda trail: trail.moved)

    def _branched(
        self, trails: dict[frozenset[int], _Trail], live: frozenset[int], new: list[int]
    ) -> dict[frozenset[int], _Trail]:
        """The best trail for every set of near stores that go on to live, new ones here or there;
        what is inside a near store is near.
        """
        found = dict[frozenset[int], _Trail]()
        for near, trail in trails.items():
            choices = [near & live]
            for store in new:
                with_it = [choice | {store} for choice in choices]
                choices = with_it if self._inside[store] in near else choices + with_it
            for choice in choices:
                if choice not in found or trail.moved < found[choice].moved:
                    found[choice] = trail
        return found

    def _further(
        self, index: int, trails: dict[frozenset[int], _Trail]
    ) -> dict[frozenset[int], _Trail]:
        """The trails that there is room for at a step, and what it moves."""
        found, tiles = dict[frozenset[int], _Trail](), self._tiles[index]
        for near, before in trails.items():
            far = self._far(index, near)
            tile = tiles.first(far, self._rooms[index] - self._held(near))
            if tile is not None:
                found[near] = _Trail(before.moved + tiles.moved(far, tile), near, before)
        return found

    def _far(self, index: int, near: frozenset[int]) -> Far:
        step = self._program.steps[index]
        added = step.residual is not None and step.residual.store not in near
        return Far(step.src not in near, step.dst not in near, added, index in self._far_caches)
