"""Which chunks, tiles and places shall a run use, for one shape and one choice of settings?

1. The layout cuts the clip into chunks; `NormScope.CLIP` takes it whole and tiles it in time too.
2. For each placement, from fast to frugal, every step gets the largest tile whose workspace fits
   what the budget leaves beside stores and caches, and never one larger than asked for.
3. The first placement with tiles of a reasonable size wins; else the first that fits at all; else
   `BudgetError` names the worst step and the smallest budget that would do.

Operations are the same for every tile size, so that a plan is the slower the more it copies, and a
larger budget never copies more. A plan is plain data: no tensor is touched, and nothing is run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import cast

from ..errors import BudgetError
from ..geometry.blend import BlendGeometry, blend_geometry
from ..geometry.grid import Chunk
from ..geometry.region import Extent
from ..program.steps import SOURCE, Step
from ..settings import SMALLEST_TILE_PX, NormScope, Placement, Settings, Tiling
from .chunking import check_mirrors, chunk_lengths, chunks_of, meant
from .elements import MOST_ELEMENTS, check_elements
from .kinds import memories_of, pooled
from .libraries import libraries_of
from .machine import Machine
from .memory import Memory
from .plan import Job, Plan, chunk_extent, size_text
from .projection import Projection
from .sizes import Sizes
from .tile_sizes import largest_fitting, shrinking

_WHOLE = sys.maxsize
"""A tile side that no picture reaches."""

REASONABLE_PX = 64
"""Below this side, tiles are so small that copying stores is the lesser evil."""

_FASTEST_FIRST = (Placement.DEVICE, Placement.CACHES_ON_HOST, Placement.HOST)


def _bounds(job: Job, settings: Settings, step: Step) -> Extent:
    """The largest tile that `settings` allow a step, in its cells."""
    spec = job.program.stores[step.dst]
    px, frames = spec.px * step.side_made, spec.frames * step.frames_made
    sides = cast("tuple[int, int] | None", settings.tile_px)
    if settings.tiling is not Tiling.EXACT or sides is None:
        sides = (_WHOLE, _WHOLE)
    in_time = settings.norm_scope is NormScope.CLIP and settings.tiling is not Tiling.OFF
    t = settings.chunk_frames // frames if in_time else _WHOLE
    return Extent(max(t, 1), max(sides[0] // px, 1), max(sides[1] // px, 1))


def _smallest(job: Job, step: Step, cells: Extent) -> Extent:
    """The smallest tile that is worth running: 16 pixels, one frame."""
    px = job.program.stores[step.dst].px * step.side_made
    side = max(SMALLEST_TILE_PX // px, 1)
    return Extent(1, min(side, cells.h), min(side, cells.w))


def _workspace(memories: tuple[Memory, ...], step: Step, tile: Extent) -> int:
    """Bytes that tiles of a size take in the kind of chunk where they take the most."""
    return max(memory.tile_bytes(step, memory.largest_tile(step, tile)) for memory in memories)


def _widest(memories: tuple[Memory, ...]) -> Memory:
    """The kind of chunk with the most frames, whose tiles suit the others too."""
    return max(memories, key=lambda memory: memory.chunk.source.size)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A placement for one job: its arithmetic, and what every step may use.

    memories: one for each kind of chunk: sizes differ, and so do the caches that come and go.
    fixed: for each of them, bytes that no tile size changes while each step runs.
    bounds, least: the largest and the smallest tile of each step.
    """

    placement: Placement
    memories: tuple[Memory, ...]
    fixed: tuple[list[int], ...]
    bounds: tuple[Extent, ...]
    least: tuple[Extent, ...]

    @property
    def widest(self) -> Memory:
        """The kind of chunk with the most frames."""
        return _widest(self.memories)

    def tiles(self, budget: int | None, preferred: int) -> tuple[Extent, ...] | None:
        """A tile for every step within the budget; None where some step has none."""
        found: list[Extent] = []
        for index in range(len(self.bounds)):
            tile = self._tile(index, sys.maxsize if budget is None else budget, preferred)
            if tile is None:
                return None
            found.append(tile)
        return tuple(found)

    def level(self, largest: tuple[Extent, ...], least: int) -> tuple[Extent, ...]:
        """Tiles that take less where they are what decides the peak: no less than `least` bytes
        beside what the greediest step holds anyway. As they are where stores are far away, which
        smaller tiles read more of.
        """
        if self.widest.sizes.far_stores:
            return largest
        steps = range(len(largest))
        budget = max(min(self._need(i, largest[i]), self._held(i) + least) for i in steps)
        return self.tiles(budget, 2 * least) or largest

    def _held(self, index: int) -> int:
        """Bytes on the device while a step runs that no tile size changes."""
        return max(fixed[index] for fixed in self.fixed)

    def _tile(self, index: int, budget: int, preferred: int) -> Extent | None:
        """The largest tile that takes no more than is preferred, if it is a reasonable one; else
        the largest up to a reasonable one that there is room for; else any.
        """
        rooms = [budget - fixed[index] for fixed in self.fixed]
        if min(rooms) < 0:
            return None
        easy = [min(preferred, room) for room in rooms]
        large, small = self._sizes(index)

        def fits(tile: Extent) -> bool:
            return self._fits(index, tile, rooms)

        return (
            largest_fitting(large, lambda tile: self._fits(index, tile, easy))
            or next(filter(fits, large[-1:]), None)
            or largest_fitting(small, fits)
            or next(filter(fits, large + small), None)
        )

    def _fits(self, index: int, tile: Extent, rooms: Sequence[int]) -> bool:
        """Whether tiles of a step find room in every kind of chunk."""
        step = self.widest.program.steps[index]
        return all(
            memory.tile_bytes(step, whole := memory.largest_tile(step, tile)) <= room
            and memory.elements(step, whole) < MOST_ELEMENTS
            for memory, room in zip(self.memories, rooms, strict=True)
        )

    def _sizes(self, index: int) -> tuple[tuple[Extent, ...], tuple[Extent, ...]]:
        """The tiles that a step may use, each the next smaller one: down to the usual, and on."""
        cells, usual = self._cells(index), self.usual(index)
        start = self.bounds[index].at_most(cells)
        sizes = self.widest.sizes
        banded = sizes.far_stores and sizes.accelerated
        least = self.least[index]
        small = shrinking(usual.at_most(cells), least, cells, banded)
        if banded:  # rows in one piece, which no processor copies, are worth more than their halos
            usual = replace(usual, h=least.h, w=start.w)
        return shrinking(start, usual, cells, banded), small

    def _cells(self, index: int) -> Extent:
        """All cells of a step."""
        return self.widest.cell_extent(self.widest.program.steps[index])

    def usual(self, index: int) -> Extent:
        """The smallest tile that is no hindrance, in cells: `REASONABLE_PX`, or all there is."""
        program, step = self.widest.program, self.widest.program.steps[index]
        side = max(REASONABLE_PX // (program.stores[step.dst].px * step.side_made), 1)
        cells, bound, least = self._cells(index), self.bounds[index], self.least[index]
        h = max(min(side, cells.h, bound.h), least.h)
        w = max(min(side, cells.w, bound.w), least.w)
        return Extent(least.t, h, w)

    def rows(self, largest: tuple[Extent, ...]) -> tuple[Projection, ...]:
        """What each step needs in the kind of chunk where it needs the most."""
        kinds = zip(*(memory.project(largest) for memory in self.memories), strict=True)
        return tuple(_worst(rows) for rows in kinds)

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
            need = min((self._need(index, tile), index, tile) for tile in {*large, *small})
            worst = max(worst, need, key=lambda found: found[0])
        return worst

    def _need(self, index: int, tile: Extent) -> int:
        """Bytes on the device while tiles of a step run, in the kind of chunk that needs the
        most.
        """
        step = self.widest.program.steps[index]
        return max(
            fixed[index] + memory.tile_bytes(step, memory.largest_tile(step, tile))
            for memory, fixed in zip(self.memories, self.fixed, strict=True)
        )


def _worst(kinds: tuple[Projection, ...]) -> Projection:
    """What a step needs at the most, in one kind of chunk or another: more is far away where less
    is on the device.
    """
    near = max(kinds, key=lambda row: row.peak_bytes)
    return replace(near, far_bytes=max(row.far_bytes for row in kinds))


def _candidate(
    job: Job,
    settings: Settings,
    chunks: tuple[Chunk, ...],
    placement: Placement,
    machine: Machine,
) -> _Candidate:
    host = machine.apart  # else what lives in host memory lives on the device all the same
    far = placement is Placement.MMAP or (placement is Placement.HOST and host)
    sizes = Sizes(
        job.batch,
        job.element_bytes,
        max(job.element_bytes, 4),
        far_stores=far,
        far_caches=far or (placement is Placement.CACHES_ON_HOST and host),
        far_keys=far or host,
        far_weights=job.far_weights,
        accelerated=machine.accelerated,
        workspaces=machine.workspaces,
    )
    # a device is given its memory back after each chunk
    kept = far or not machine.accelerated
    memories = pooled(memories_of(job, chunks, sizes), kept)
    steps = job.program.steps
    bounds = tuple(_bounds(job, settings, step) for step in steps)
    fixed = tuple(memory.fixed_bytes() for memory in memories)
    bare = _Candidate(placement, memories, fixed, bounds, bounds)
    return replace(bare, least=tuple(_least(job, settings, memories, step) for step in steps))


def _least(job: Job, settings: Settings, memories: tuple[Memory, ...], step: Step) -> Extent:
    """The tile of a step that needs the least; all of it where tiling is off."""
    cells, bounds = _widest(memories).cell_extent(step), _bounds(job, settings, step)
    if settings.tiling is Tiling.OFF:
        return cells
    least = _smallest(job, step, cells)
    whole = bounds.t >= cells.t and bounds.h >= cells.h and bounds.w >= cells.w
    if whole and _workspace(memories, step, cells) <= _workspace(memories, step, least):
        return cells
    return least


def _placements(settings: Settings, machine: Machine) -> tuple[Placement, ...]:
    asked = cast("Placement", settings.placement)
    if asked is Placement.HOST and not machine.apart:
        return (asked, Placement.MMAP)
    if asked is not Placement.AUTO:
        return (asked,)
    return _FASTEST_FIRST if machine.apart else (Placement.DEVICE, Placement.MMAP)


def _budget(settings: Settings, machine: Machine) -> int | None:
    """Bytes allowed on the device; where its memory is the host's, no more than is free."""
    limits = (settings.budget_bytes, None if machine.apart else machine.host_bytes)
    return min((limit for limit in limits if limit is not None), default=None)


def _reasonable(candidate: _Candidate, largest: tuple[Extent, ...]) -> bool:
    """Whether no step has to use tiles that are smaller than it is worth."""
    usual = (candidate.usual(index) for index in range(len(largest)))
    pairs = zip(largest, usual, strict=True)
    return all(tile.h >= least.h and tile.w >= least.w for tile, least in pairs)


def _choose(
    candidates: Iterable[_Candidate], budget: int | None, preferred: int
) -> tuple[_Candidate, tuple[Extent, ...]] | None:
    """The first candidate with reasonable tiles, else the last that fits; None where none does."""
    fallback = None
    for candidate in candidates:
        largest = candidate.tiles(budget, preferred)
        if largest is not None:
            if _reasonable(candidate, largest):
                return candidate, largest
            fallback = (candidate, largest)
    return fallback


def _cost(plan: Plan) -> tuple[int, int, int]:
    """What speaks against a plan: how far away things live, then the bytes copied and held.

    Within a budget moving counts first; where there is none, what is held does, to a tenth.
    """
    place, copied = list(Placement).index(plan.placement), plan.moved_bytes + plan.copied_bytes
    held = plan.peak_bytes.bit_length() * 8 + (plan.peak_bytes * 8 >> plan.peak_bytes.bit_length())
    if plan.settings.budget_bytes is None:
        return place, held, copied
    return place, copied, held


def make_plan(job: Job, settings: Settings, machine: Machine) -> Plan:
    """The plan for `job` under `settings` on `machine`, whose own settings are those that it keeps:
    chunks may be shorter where they do not change the result.

    Raises `BudgetError` where nothing fits, with the worst step and the smallest budget that fits,
    and `SettingsError` where blended tiles cannot be had, or no tiles would be too large a tensor.
    """
    check_mirrors(job)
    settings, found, failed = meant(job.program, settings), list[Plan](), list[BudgetError]()
    for length in chunk_lengths(job, settings):
        try:
            found.append(_plan(job, replace(settings, chunk_frames=length), machine))
        except BudgetError as error:
            failed.append(error)
    if not found:
        raise min(failed, key=lambda error: error.smallest_bytes)
    best = min(found, key=_cost)
    return replace(best, operations=_operations(best))


def _plan(job: Job, settings: Settings, machine: Machine) -> Plan:
    """The plan for chunks of one length, its operations not yet counted."""
    chunks, blend = chunks_of(job, settings), _blend(job, settings)
    widest = job if blend is None else replace(job, source=blend.largest)
    tried: list[_Candidate] = []

    def candidates() -> Iterator[_Candidate]:
        for placement in _placements(settings, machine):
            tried.append(_candidate(widest, settings, chunks, placement, machine))
            yield tried[-1]

    budget = _budget(settings, machine)
    if machine.accelerated and settings.tiling is Tiling.OFF:
        sizes = Sizes(job.batch, job.element_bytes, job.element_bytes)
        check_elements(memories_of(widest, chunks, sizes))
    chosen = _choose(candidates(), budget, machine.workspace_bytes)
    if chosen is None:
        raise _too_small(tried, settings, cast("int", budget))
    candidate, largest = chosen
    if budget is None and machine.apart and not job.program.has_statistics:
        largest = candidate.level(largest, machine.workspace_bytes // 2)
    rows = candidate.rows(largest)
    placement = _spilled(candidate.placement, rows, machine)
    libraries = libraries_of(machine, candidate.memories, largest)
    return Plan(job, settings, chunks, largest, placement, 0, rows, blend, libraries)


def _blend(job: Job, settings: Settings) -> BlendGeometry | None:
    """The crops to be blended; None in the other modes."""
    if settings.tiling is not Tiling.BLEND:
        return None
    stores = job.program.stores
    return blend_geometry(job.source, settings, stores[SOURCE].px, stores[job.program.sink].px)


def _operations(plan: Plan) -> int:
    forward = sum(
        job.program.operations(chunk_extent(job, chunk), chunk) * times
        for job, chunk, times in plan.work()
    )
    outward = sum(crop.program.outward_operations(crop.source, plan.chunks) for crop in plan.crops)
    return plan.job.batch * (forward + outward)


def _spilled(placement: Placement, rows: tuple[Projection, ...], machine: Machine) -> Placement:
    """Disk in place of the host where the host has no room."""
    needed = max(row.far_bytes for row in rows)
    too_much = machine.host_bytes is not None and needed > machine.host_bytes
    return Placement.MMAP if placement is Placement.HOST and too_much else placement


def _too_small(candidates: list[_Candidate], settings: Settings, budget: int) -> BudgetError:
    needs = [(candidate.smallest_budget(), candidate) for candidate in candidates]
    (smallest, index, tile), candidate = min(needs, key=lambda need: need[0][0])
    chunk, needed = candidate.widest.chunk.source.size, size_text(smallest, ceil)
    path, place = candidate.widest.program.steps[index].path, candidate.placement.value
    remedy = "" if settings.placement is Placement.AUTO else ", or let the placement be automatic"
    return BudgetError(
        f"projected {needed} exceeds the budget of {size_text(budget, floor)} at {path}"
        f" (chunk of {chunk} frames, tile of {tile.h}x{tile.w}, {place}); smallest budget that"
        f" fits: {needed}. Allow that much, or fewer frames in a chunk{remedy}.",
        projected_bytes=smallest,
        budget_bytes=budget,
        smallest_bytes=smallest,
        worst_path=path,
    )
