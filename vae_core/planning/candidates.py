"""What does it come to, for one choice of places, and which tiles may every step use?

1. Every step gets the largest tile whose workspace fits what a budget leaves beside stores and
   caches, and never one larger than asked for.
2. Where none of a usual size fits, smaller ones are tried, down to one frame of 16 pixels.
3. `smallest_budget` is the least that any tiles need at the worst step.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from ..geometry.region import Extent
from ..program.steps import Step
from ..settings import SMALLEST_TILE_PX, Placement, Settings, Tiling
from .chunking import takes_whole
from .kinds import placed
from .limits import MOST_ELEMENTS
from .machine import Machine
from .memory import Memory
from .places import ALL_NEAR, Far, Kind, Places, Way
from .plan import Job
from .projection import Projection
from .tile_sizes import largest_fitting, shrinking

_WHOLE = sys.maxsize
"""A tile side that no picture reaches."""

REASONABLE_PX = 64
"""Below this side, tiles are so small that copying stores is the lesser evil."""


def _bounds(job: Job, settings: Settings, step: Step) -> Extent:
    """The largest tile that `settings` allow a step, in its cells."""
    spec = job.program.stores[step.dst]
    px, frames = spec.px * step.side_made, spec.frames * step.frames_made
    sides = cast("tuple[int, int] | None", settings.tile_px)
    if settings.tiling is not Tiling.EXACT or sides is None:
        sides = (_WHOLE, _WHOLE)
    in_time = takes_whole(job.program, settings) and settings.tiling is not Tiling.OFF
    t = settings.chunk_frames // frames if in_time else _WHOLE
    return Extent(max(t, 1), max(sides[0] // px, 1), max(sides[1] // px, 1))


def _smallest(job: Job, step: Step, cells: Extent) -> Extent:
    """The smallest tile that is worth running: 16 pixels, one frame."""
    px = job.program.stores[step.dst].px * step.side_made
    side = max(SMALLEST_TILE_PX // px, 1)
    return Extent(1, min(side, cells.h), min(side, cells.w))


def _workspace(memories: tuple[Memory, ...], index: int, tile: Extent) -> int:
    """Bytes that tiles of a size take in the kind of chunk where they take the most."""
    return max(memory.tile_bytes(index, tile) for memory in memories)


def _widest(memories: tuple[Memory, ...]) -> Memory:
    """The kind of chunk with the most frames, whose tiles suit the others too."""
    return max(memories, key=lambda memory: memory.chunk.source.size)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Places for one job: their arithmetic, and what every step may use.

    memories: one for each kind of chunk: sizes differ, and so do the caches that come and go.
    fixed: for each of them, bytes that no tile size changes while each step runs.
    bounds, least: the largest and the smallest tile of each step. alike: a number for each step;
    those with the same have the same choice of tiles, which need the same.
    easy: tiles that were found, see `_easy`.
    """

    placement: Placement
    places: Places
    memories: tuple[Memory, ...]
    fixed: tuple[list[int], ...]
    bounds: tuple[Extent, ...]
    least: tuple[Extent, ...]
    alike: tuple[int, ...]
    easy: dict[tuple[int, ...], Extent | None] = field(
        default_factory=dict[tuple[int, ...], "Extent | None"], compare=False, repr=False
    )

    @property
    def widest(self) -> Memory:
        """The kind of chunk with the most frames."""
        return _widest(self.memories)

    def tiles(self, budget: int | None, preferred: int) -> tuple[Extent, ...] | None:
        """A tile for every step within the budget; None where some step has none."""
        found: list[Extent] = []
        for index in range(len(self.bounds)):
            tile = self.tile(index, sys.maxsize if budget is None else budget, preferred)
            if tile is None:
                return None
            found.append(tile)
        return tuple(found)

    def level(self, largest: tuple[Extent, ...], least: int) -> tuple[Extent, ...]:
        """Tiles that take less where they are what decides the peak: no less than `least` bytes
        beside what the greediest step holds anyway. As they are where stores are far away, which
        smaller tiles read more of.
        """
        if self.places.stores:
            return largest
        steps = range(len(largest))
        budget = max(min(self._need(i, largest[i]), self._held(i) + least) for i in steps)
        return self.tiles(budget, 2 * least) or largest

    def _held(self, index: int) -> int:
        """Bytes on the device while a step runs that no tile size changes."""
        return max(fixed[index] for fixed in self.fixed)

    def tile(self, index: int, budget: int, preferred: int) -> Extent | None:
        """The largest tile that takes no more than is preferred, if it is a reasonable one; else
        the largest up to a reasonable one that there is room for; else any.
        """
        rooms = [budget - fixed[index] for fixed in self.fixed]
        if min(rooms) < 0:
            return None
        easy = self._easy(index, tuple(min(preferred, room) for room in rooms))
        if easy is not None:
            return easy
        large, small = self._sizes(index)

        def fits(tile: Extent) -> bool:
            return self._fits(index, tile, rooms)

        return (
            next(filter(fits, large[-1:]), None)
            or largest_fitting(small, fits)
            or next(filter(fits, large + small), None)
        )

    def _easy(self, index: int, rooms: tuple[int, ...]) -> Extent | None:
        """The largest tile of a reasonable size that there is so much room for, looked for once for
        all steps that are alike.
        """
        key = self.alike[index], *rooms
        if key not in self.easy:
            large, _ = self._sizes(index)
            self.easy[key] = largest_fitting(large, lambda tile: self._fits(index, tile, rooms))
        return self.easy[key]

    def _fits(self, index: int, tile: Extent, rooms: Sequence[int]) -> bool:
        """Whether tiles of a step find room in every kind of chunk."""
        return all(
            memory.tile_bytes(index, tile) <= room
            and memory.steps[index].elements(tile) < MOST_ELEMENTS
            for memory, room in zip(self.memories, rooms, strict=True)
        )

    def _sizes(self, index: int) -> tuple[tuple[Extent, ...], tuple[Extent, ...]]:
        """The tiles that a step may use, each the next smaller one: down to the usual, and on."""
        widest = self.widest
        far = widest.far[index].store
        return self.sizes(index, far and widest.sizes.accelerated)

    def sizes(self, index: int, banded: bool) -> tuple[tuple[Extent, ...], tuple[Extent, ...]]:
        """The same, for tiles that go as bands or not."""
        cells, usual = self._cells(index), self.usual(index)
        start = self.bounds[index].at_most(cells)
        least = self.least[index]
        small = shrinking(usual.at_most(cells), least, cells, banded)
        if banded:  # rows in one piece, which no processor copies, outweigh their halos
            usual = replace(usual, h=least.h, w=start.w)
        return shrinking(start, usual, cells, banded), small

    def usable(self, index: int, banded: bool) -> tuple[Extent, ...]:
        """The tiles of a step that are no hindrance, each the next smaller one, and the usual."""
        large, small = self.sizes(index, banded)
        return large if small[0] in large else (*large, small[0])

    def flat(self, index: int) -> tuple[Extent, ...]:
        """Bands of all frames with fewer rows than the usual ones, down to half of them. Where
        frames are several, those read less twice than bands that are cut in time.
        """
        start, least = self.bounds[index].at_most(self._cells(index)), self.least[index]
        if start.t == least.t:
            return ()
        rows = {least.h * quarters // 4 for quarters in (2, 3)}
        return tuple(replace(start, h=h) for h in sorted(rows, reverse=True) if 0 < h < start.h)

    def _cells(self, index: int) -> Extent:
        """All cells of a step."""
        return self.widest.steps[index].cells

    def usual(self, index: int) -> Extent:
        """The smallest tile that is no hindrance, in cells: `REASONABLE_PX`, or all there is."""
        program, step = self.widest.program, self.widest.program.steps[index]
        side = max(REASONABLE_PX // (program.stores[step.dst].px * step.side_made), 1)
        cells, bound, least = self._cells(index), self.bounds[index], self.least[index]
        h = max(min(side, cells.h, bound.h), least.h)
        w = max(min(side, cells.w, bound.w), least.w)
        return Extent(least.t, h, w)

    def at(self, places: Mapping[Kind, Places], memories: tuple[Memory, ...]) -> Candidate:
        """The same with everything in its place, as it is in `memories`."""
        here, fixed = places[_widest(memories).kind], tuple(m.fixed_bytes() for m in memories)
        return Candidate(here.placement, here, memories, fixed, self.bounds, self.least, self.alike)

    def rows(self, ways: Mapping[Kind, Way]) -> tuple[Projection, ...]:
        """What each step needs in the kind of chunk where it needs the most."""
        found = (memory.project(ways[memory.kind].tiles) for memory in self.memories)
        return tuple(map(_worst, zip(*found, strict=True)))

    def smallest_budget(self) -> tuple[int, int, Extent]:
        """The least that any tiles need, at the worst step; the step, and its tile.

        Smallest tiles need about the least. So steps are looked at from the greediest on, until
        what one needs is more than any other could.
        """
        steps = range(len(self.least))
        rough = [(self._need(index, self.least[index]), index) for index in steps]
        worst = (0, 0, self.least[0])
        for most, index in sorted(rough, reverse=True):
            if most <= worst[0]:
                break
            large, small = self._sizes(index)
            needs = ((self._need(index, tile), index, tile) for tile in (*large, *small))
            need = min(needs, key=lambda found: found[0])
            worst = max(worst, need, key=lambda found: found[0])
        return worst

    def _need(self, index: int, tile: Extent) -> int:
        """Bytes on the device while tiles of a step run, in the kind of chunk that needs the
        most.
        """
        return max(
            fixed[index] + memory.tile_bytes(index, tile)
            for memory, fixed in zip(self.memories, self.fixed, strict=True)
        )


def _worst(kinds: tuple[Projection, ...]) -> Projection:
    """What a step needs at the most, in one kind of chunk or another: more is far away where less
    is on the device.
    """
    near = max(kinds, key=lambda row: row.peak_bytes)
    far = (
        max(row.moved_bytes for row in kinds),
        max(row.copied_bytes for row in kinds),
        max(row.far_bytes for row in kinds),
    )
    if far == (near.moved_bytes, near.copied_bytes, near.far_bytes):
        return near
    return Projection(near.path, near.store_bytes, near.cache_bytes, near.workspace_bytes, *far)


def bare_candidate(job: Job, settings: Settings, memories: tuple[Memory, ...]) -> Candidate:
    """What every step may use, with nothing counted that is held meanwhile."""
    least, alike = list[Extent](), list[int]()
    bounds = tuple(_bounds(job, settings, step) for step in job.program.steps)
    known: dict[tuple[int, Extent, tuple[Far, ...]], tuple[int, Extent]] = {}
    widest = _widest(memories)
    for index, bound in enumerate(bounds):
        # others are alike with the widest
        key = id(widest.steps[index]), bound, tuple(memory.far[index] for memory in memories)
        if key not in known:
            known[key] = len(known), _least(job, settings, memories, index)
        number, tile = known[key]
        least.append(tile)
        alike.append(number)
    nothing = Placement.DEVICE, ALL_NEAR, memories, ()
    return Candidate(*nothing, bounds, tuple(least), tuple(alike))


def candidate_of(
    job: Job,
    settings: Settings,
    bare: tuple[Memory, ...],
    places: Mapping[Kind, Places],
    machine: Machine,
) -> Candidate:
    """bare: the arithmetic of every kind of chunk, whatever lives where."""
    # a device is given its memory back after each chunk
    memories = placed(bare, places, reused_near=not machine.accelerated)
    return bare_candidate(job, settings, memories).at(places, memories)


def _least(job: Job, settings: Settings, memories: tuple[Memory, ...], index: int) -> Extent:
    """The tile of a step that needs the least; all of it where tiling is off."""
    step, cells = job.program.steps[index], _widest(memories).steps[index].cells
    bounds = _bounds(job, settings, step)
    if settings.tiling is Tiling.OFF:
        return cells
    least = _smallest(job, step, cells)
    whole = bounds.t >= cells.t and bounds.h >= cells.h and bounds.w >= cells.w
    if whole and _workspace(memories, index, cells) <= _workspace(memories, index, least):
        return cells
    return least


def is_reasonable(candidate: Candidate, largest: tuple[Extent, ...]) -> bool:
    """Whether no step has to use tiles that are smaller than it is worth."""
    usual = (candidate.usual(index) for index in range(len(largest)))
    pairs = zip(largest, usual, strict=True)
    return all(tile.h >= least.h and tile.w >= least.w for tile, least in pairs)
