"""Which stores and causal caches shall live on the device, so that the fewest bytes move?

What is on the device at a step must fit beside the tiles of that step: one knapsack for every step,
which a store is in for as long as it lives, and a cache always. The rule:

1. Every byte of a cache saves the same two, one each way. So of caches the smallest stay on the
   device, those of deep levels; how many of them is tried, in steps of a share of their bytes.
2. For each of these, stores are chosen exactly: from step to step, for every set of the few stores
   that live at it, the least that can have moved so far (`_Walk`). A step's own bytes are those
   of the largest tile that it has room for beside them, halos that are read again included.
3. The best of all is taken; of equals the one with more caches on the device.

Bound: no choice of stores moves less beside the same caches, with tiles of the sizes that are
tried; and the share of caches is one of `_SHARES` at the least away from the best one. What is
tried does not depend on the budget, and none of it grows dearer with more room: a larger budget
never moves more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from ..geometry.region import Extent
from .memory import Memory, live_stores
from .places import Far, Places, places_of, roots
from .step_tiles import StepTiles

_SHARES = 16
"""Parts of all caches' bytes, in steps of which they are kept on the device."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Places, the tile of each step, and what moves in a chunk."""

    places: Places
    tiles: tuple[Extent, ...]
    moved_bytes: int


def choose(
    memories: tuple[tuple[Memory, ...], ...], tiles: tuple[StepTiles, ...], budget: int
) -> Chosen | None:
    """The places that move the fewest bytes within `budget`, and the tiles to go with them; None
    where usual tiles do not fit even with everything away.

    memories: the kinds of chunk, those of the same extents together. tiles: what each step may use.
    """
    network, best = _Network(memories, tiles), None
    for caches in network.cache_choices():
        found = _Walk(network, caches, budget).best()
        if found and (best is None or found.moved_bytes < best.moved_bytes):
            best = found
    return best


class _Network:
    """What the walks through one job have in common."""

    def __init__(
        self, memories: tuple[tuple[Memory, ...], ...], tiles: tuple[StepTiles, ...]
    ) -> None:
        self.memories, self.tiles = memories, tiles
        first = memories[0][0]
        self.program = first.program
        own = [store for store in range(len(first.extents)) if first.store_bytes(store)]
        self.bytes = {
            store: tuple(kinds[0].store_bytes(store) for kinds in memories) for store in own
        }
        self.live = [sorted(live & set(own)) for live in live_stores(self.program)]
        self.roots = roots(self.program)
        steps = range(len(self.program.steps))
        self.weights = [[kinds[0].weight_bytes(index) for index in steps] for kinds in memories]

    def cache_choices(self) -> Iterator[frozenset[int]]:
        """Sets of steps whose caches are far away, the smallest set first."""
        one = self.memories[0][0]
        sizes = {i: step.cache_bytes for i, step in enumerate(one.steps) if step.cache_bytes}
        if not any(m.has_past or m.has_future for kinds in self.memories for m in kinds):
            sizes = {}
        largest_first = sorted(sizes, key=lambda index: (-sizes[index], -index))
        gone, last = frozenset[int](), 0
        yield gone
        for index, total in zip(
            largest_first, accumulate(sizes[i] for i in largest_first), strict=True
        ):
            gone |= {index}
            if (total - last) * _SHARES >= sum(sizes.values()) or index == largest_first[-1]:
                last = total
                yield gone


@dataclass(frozen=True, slots=True)
class _Trail:
    """The least that has moved so far. steps: the near stores at each step, the last one first."""

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


class _Walk:
    """From step to step with one choice of caches; see the module's words.

    Where no store is far the two ends do not count, so that this trail is followed apart.
    """

    def __init__(self, network: _Network, far_caches: frozenset[int], budget: int) -> None:
        self.network, self.far_caches = network, far_caches
        steps, memories = network.program.steps, network.memories
        paths = frozenset(steps[index].path for index in far_caches)
        self.paths = paths
        held = [_near_caches(kinds, far_caches) for kinds in memories]
        self.rooms = [
            tuple(budget - held[k][i] - network.weights[k][i] for k in range(len(memories)))
            for i in range(len(steps))
        ]

    def best(self) -> Chosen | None:
        """The best places with these caches; None where nothing fits."""
        apart = self._all_near()
        trail = self._least()
        if apart is not None and (trail is None or apart <= trail.moved):
            near = frozenset(self.network.bytes)
            return self._chosen(near, apart)
        return None if trail is None else self._chosen(trail.ever_near(), trail.moved)

    def _chosen(self, near: frozenset[int], moved: int) -> Chosen:
        network = self.network
        far = frozenset(network.bytes) - near
        places, tiles = places_of(network.program, far, self.paths), list[Extent]()
        for index, step in enumerate(network.program.steps):
            rooms = self._rooms(index, frozenset(network.live[index]) & near)
            found = network.tiles[index].first(places.of(step), rooms)
            assert found
            tiles.append(found.tile)
        return Chosen(places, tuple(tiles), moved)

    def _all_near(self) -> int | None:
        moved = 0
        for index, live in enumerate(self.network.live):
            far = Far(cache=index in self.far_caches)
            found = self.network.tiles[index].first(far, self._rooms(index, frozenset(live)))
            if found is None:
                return None
            moved += found.moved_bytes
        return moved

    def _least(self) -> _Trail | None:
        trails: dict[frozenset[int], _Trail] = {frozenset(): _Trail(0, frozenset(), None)}
        lived = frozenset[int]()
        for index, live in enumerate(self.network.live):
            new = [store for store in live if store not in lived]
            lived = frozenset(live)
            trails = self._further(index, _branched(trails, lived, new))
            if not trails:
                return None
        return min(trails.values(), key=lambda trail: trail.moved)

    def _further(
        self, index: int, trails: dict[frozenset[int], _Trail]
    ) -> dict[frozenset[int], _Trail]:
        """The trails that there is room for at a step, and what it moves."""
        found = dict[frozenset[int], _Trail]()
        for near, before in trails.items():
            step = self.network.tiles[index].first(self._far(index, near), self._rooms(index, near))
            if step is not None:
                found[near] = _Trail(before.moved + step.moved_bytes, near, before)
        return found

    def _far(self, index: int, near: frozenset[int]) -> Far:
        step, lies = self.network.program.steps[index], self.network.roots
        added = step.residual is not None and lies[step.residual.store] not in near
        return Far(
            lies[step.src] not in near, lies[step.dst] not in near, added, index in self.far_caches
        )

    def _rooms(self, index: int, near: Iterable[int]) -> tuple[int, ...]:
        """What is left for the tiles of a step in every kind of chunk."""
        rooms = self.rooms[index]
        for store in near:
            rooms = tuple(r - b for r, b in zip(rooms, self.network.bytes[store], strict=True))
        return rooms


def _branched(
    trails: dict[frozenset[int], _Trail], live: frozenset[int], new: list[int]
) -> dict[frozenset[int], _Trail]:
    """The best trail for every set of near stores that go on to live, new ones here or there."""
    found = dict[frozenset[int], _Trail]()
    choices = [frozenset[int]()]
    for store in new:
        choices += [choice | {store} for choice in choices]
    for near, trail in trails.items():
        left = near & live
        for choice in choices:
            both = left | choice
            if both not in found or trail.moved < found[both].moved:
                found[both] = trail
    return found


def _near_caches(kinds: tuple[Memory, ...], far: frozenset[int]) -> list[int]:
    """The most bytes of near caches while each step runs, in kinds of the same extents."""
    sizes = [0 if i in far else step.cache_bytes for i, step in enumerate(kinds[0].steps)]
    before, whole, found = 0, sum(sizes), list[int]()
    for size in sizes:
        come, go = whole - before, before + size
        found.append(max(come * kind.has_past + go * kind.has_future for kind in kinds))
        before += size
    return found
