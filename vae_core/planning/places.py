"""What lives on the device, and what away from it?

`Places` says it of every store and every causal cache of a program, and of a store that is partly
on the device how many of its rows are. The four placements are names for the corners: all of it on
the device, causal caches away, all of it away, and all of it in a temporary file. What lies between
them is chosen by `residency`, for a budget.

What goes in and what comes out are the caller's: they count as far away where any store is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..geometry.grid import Chunk
from ..geometry.region import Extent
from ..program.steps import SOURCE, Program, Step
from ..settings import Place, Placement
from .bands import Bands, rolled
from .held import first_written


@dataclass(frozen=True, slots=True)
class Far:
    """How much of what a step touches lives away from the device.

    src, dst, added: rows of the stores that it reads, writes and adds. cache: whether its own
        causal cache does. cut: whether rows of dst lie on both sides, so that tiles end there.
    """

    src: int = 0
    dst: int = 0
    added: int = 0
    cache: bool = False
    cut: bool = False
    keys: bool = False

    @property
    def store(self) -> bool:
        """Whether any of the stores does."""
        return bool(self.src or self.dst or self.added)


_NEAR, _CACHE_FAR = Far(), Far(cache=True)


@dataclass(frozen=True, slots=True)
class Places:
    """Where every store and cache of a program lives.

    stores: those that are not on the device as a whole, those inside others and the two ends among
        them. caches: the paths of the steps whose causal caches are far. away: where those live,
        `HOST` or `DISK`.
    rows: of `stores`, how many of their first rows are on the device, where any are.
    bands: the steps that take turns, if any do. rolled: the stores that they alone touch, of which
        no more than a window is there, on the device. turning: those that they write, which have
        memory of their own.
    Invariant: a store that is inside another, and does not live where that does, has memory of its
    own; the ends are far exactly where any other store is.
    """

    stores: frozenset[int] = frozenset()
    caches: frozenset[str] = frozenset()
    away: Place = Place.HOST
    rows: Mapping[int, int] = field(default_factory=dict[int, int])
    bands: Bands | None = None
    rolled: frozenset[int] = frozenset()
    turning: frozenset[int] = frozenset()

    @property
    def keys_far(self) -> bool:
        """Whether keys that other chunks meet are away even where that is on the same side."""
        return self.away is Place.DISK

    def far_rows(self, store: int, rows: int) -> int:
        """How many of a store's `rows` are away."""
        return max(rows - self.rows.get(store, 0), 0) if store in self.stores else 0

    def of(self, step: Step, extents: tuple[Extent, ...]) -> Far:
        """What a step has far away, where stores have `extents`."""
        if not self.stores:
            return _CACHE_FAR if step.path in self.caches else _NEAR
        added = step.residual.store if step.residual else None
        stores = [0 if s is None else self.far_rows(s, extents[s].h) for s in (step.src, added)]
        dst = self.far_rows(step.dst, extents[step.dst].h)
        cut = 0 < dst < extents[step.dst].h
        return Far(stores[0], dst, stores[1], step.path in self.caches, cut, self.keys_far)

    def of_store(self, store: int) -> Place:
        """Where a store lives, or those of its rows that are not on the device."""
        return self.away if store in self.stores else Place.DEVICE

    def has_own_memory(self, program: Program, store: int) -> bool:
        """Whether memory is made for a store; for the ends the caller has done so."""
        inside = program.stores[store].inside
        if store in (SOURCE, program.sink):
            return False
        if inside is None or store in self.turning:
            return True
        if (inside in self.stores) is not (store in self.stores):
            return True
        return self.rows.get(inside) != self.rows.get(store)

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
"""Frames of a chunk's source, and whether it begins the clip; see `kind_of`."""


def places_of(
    program: Program,
    far_stores: frozenset[int],
    far_caches: frozenset[str],
    rows: Mapping[int, int] | None = None,
    bands: Bands | None = None,
) -> Places:
    """The places where these stores and these caches are far, and the ends with the stores; `rows`
    of the stores are near all the same. bands: steps that take turns.
    """
    ends = {SOURCE, program.sink} if far_stores else frozenset[int]()
    found = Places(far_stores | ends, far_caches, rows=rows or dict[int, int]())
    if bands is None:
        return found
    written = frozenset(program.steps[index].dst for index in bands.steps)
    windows = rolled(program, bands.start, bands.stop)
    return replace(found, bands=bands, rolled=windows, turning=written)


def cache_paths(program: Program) -> frozenset[str]:
    """The paths of all steps that keep a causal cache; where convolutions look ahead, of all that
    make a store, of which frames may wait.
    """
    if program.looks_ahead:
        return frozenset(program.steps[index].path for index in first_written(program).values())
    return frozenset(step.path for step in program.steps if step.history)


def kind_of(chunk: Chunk) -> Kind:
    """What a chunk is; all bands of a clip are of one kind."""
    return 0 if chunk.band else chunk.source.size, chunk.first


def corner(program: Program, placement: Placement) -> Places:
    """The places that one of the four placements is a name for."""
    if placement is Placement.DEVICE:
        return ALL_NEAR
    caches = cache_paths(program)
    if placement is Placement.CACHES_ON_HOST:
        return Places(caches=caches)
    away = Place.DISK if placement is Placement.MMAP else Place.HOST
    return Places(frozenset(range(len(program.stores))), caches, away)
