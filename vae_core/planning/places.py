"""What lives on the device, and what away from it?

`Places` says it of every store and every causal cache of a program. The four placements are names
for its corners: all of it on the device, causal caches away, all of it away, and all of it in a
temporary file. What lies between them is chosen by `residency`, for a budget.

What goes in and what comes out are the caller's: they count as far away where any store is.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..geometry.region import Extent
from ..program.steps import SOURCE, Program, Step
from ..settings import Place, Placement


@dataclass(frozen=True, slots=True)
class Far:
    """Which of what a step touches lives away from the device.

    src, dst, added: the stores that it reads, writes and adds. cache: its own causal cache.
    """

    src: bool = False
    dst: bool = False
    added: bool = False
    cache: bool = False

    @property
    def store(self) -> bool:
        """Whether any of the stores does."""
        return self.src or self.dst or self.added


@dataclass(frozen=True, slots=True)
class Places:
    """Where every store and cache of a program lives.

    stores: the far ones, those inside others and the two ends among them. caches: the paths of the
        steps whose causal caches are far. away: where those live, `HOST` or `DISK`.
    Invariant: a store that is inside another, and does not live where that does, has memory of its
    own; the ends are far exactly where any other store is.
    """

    stores: frozenset[int] = frozenset()
    caches: frozenset[str] = frozenset()
    away: Place = Place.HOST

    def of(self, step: Step) -> Far:
        """What a step has far away."""
        added = step.residual is not None and step.residual.store in self.stores
        cache = step.path in self.caches
        return Far(step.src in self.stores, step.dst in self.stores, added, cache)

    def of_store(self, store: int) -> Place:
        """Where a store lives."""
        return self.away if store in self.stores else Place.DEVICE

    def has_own_memory(self, program: Program, store: int) -> bool:
        """Whether memory is made for a store; for the ends the caller has done so."""
        inside = program.stores[store].inside
        if store in (SOURCE, program.sink):
            return False
        return inside is None or (inside in self.stores) is not (store in self.stores)

    def of_cache(self, step: Step) -> Place:
        """Where the causal cache of a step lives."""
        return self.away if step.path in self.caches else Place.DEVICE

    @property
    def placement(self) -> Placement:
        """The frugal one of the corners that it lies between."""
        if self.away is Place.DISK:
            return Placement.MMAP
        if self.stores:
            return Placement.HOST
        return Placement.CACHES_ON_HOST if self.caches else Placement.DEVICE


ALL_NEAR = Places()


@dataclass(frozen=True, slots=True)
class Way:
    """How chunks of one length are run: where things live, and the largest tile of each step."""

    places: Places
    tiles: tuple[Extent, ...]


Kind = tuple[int, bool]
"""Frames of a chunk's source, and whether it begins the clip."""


def places_of(program: Program, far_stores: frozenset[int], far_caches: frozenset[str]) -> Places:
    """The places where these stores and these caches are far, and the ends with the stores."""
    ends = {SOURCE, program.sink} if far_stores else frozenset[int]()
    return Places(far_stores | ends, far_caches)


def cache_paths(program: Program) -> frozenset[str]:
    """The paths of all steps that keep a causal cache."""
    return frozenset(step.path for step in program.steps if step.history)


def corner(program: Program, placement: Placement) -> Places:
    """The places that one of the four placements is a name for."""
    if placement is Placement.DEVICE:
        return ALL_NEAR
    caches = cache_paths(program)
    if placement is Placement.CACHES_ON_HOST:
        return Places(caches=caches)
    away = Place.DISK if placement is Placement.MMAP else Place.HOST
    return Places(frozenset(range(len(program.stores))), caches, away)
