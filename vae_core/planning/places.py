"""What lives on the device, and what away from it?

`Places` says it of every store and every causal cache of a program. The four placements are names
for its corners: all of it on the device, causal caches away, all of it away, and all of it in a
temporary file. What lies between them is chosen by `residency`, for a budget.

What goes in and what comes out are the caller's: they count as far away where any store is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

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
    Invariant: a store lies where the one that it is inside of does; the ends are far exactly where
    any other store is.
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


@lru_cache(maxsize=64)
def roots(program: Program) -> tuple[int, ...]:
    """For every store the one whose memory it lies in, which may be itself."""
    found: list[int] = []
    for store in range(len(program.stores)):
        outer = store
        while (inside := program.stores[outer].inside) is not None:
            outer = inside
        found.append(outer)
    return tuple(found)


def places_of(program: Program, far_roots: frozenset[int], far_caches: frozenset[str]) -> Places:
    """The places where these stores, which have memory of their own, and these caches are far."""
    if not far_roots:
        return Places(caches=far_caches)
    ends = {SOURCE, program.sink}
    lying = {store for store, root in enumerate(roots(program)) if root in far_roots}
    return Places(frozenset(lying | ends), far_caches)


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
