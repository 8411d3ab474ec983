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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, floor
from typing import cast

from ..errors import BudgetError
from ..geometry.blend import BlendGeometry, blend_geometry
from ..geometry.grid import Chunk
from ..geometry.region import Extent
from ..program.steps import SOURCE, Step
from ..settings import NormScope, Place, Placement, Settings, Tiling
from .chunking import chunk_lengths, chunks_of, meant
from .elements import MOST_ELEMENTS, check_elements
from .kinds import alike, memories_of, placed
from .machine import Machine
from .memory import Memory
from .places import ALL_NEAR, Kind, Places, Way, corner
from .plan import Job, Plan, chunk_extent, size_text
from .projection import Projection
from .residency import Length, choose
from .sizes import Sizes
from .step_tiles import StepTiles, flows_of
from .tile_sizes import largest_fitting, shrinking

_WHOLE = sys.maxsize
"""A tile side that no picture reaches."""

REASONABLE_PX = 64
"""Below this side, tiles are so small that copying stores is the lesser evil."""

_FASTEST_FIRST = (Placement.DEVICE, Placement.CACHES_ON_HOST, Placement.HOST)


def _bounds(job: Job, settings: Settings, step: Step) -> Extent:
    """The largest tile that `settings` allow a step, in its cells."""
    spec = job.program.stores[step.dst]
    px, frames = spec.px * step.upscale, spec.frames * step.frames_made
    sides = cast("tuple[int, int] | None", settings.tile_px)
    if settings.tiling is not Tiling.EXACT or sides is None:
        sides = (_WHOLE, _WHOLE)
    in_time = settings.norm_scope is NormScope.CLIP and settings.tiling is not Tiling.OFF
    t = settings.chunk_frames // frames if in_time else _WHOLE
    return Extent(max(t, 1), max(sides[0] // px, 1), max(sides[1] // px, 1))


def _smallest(job: Job, step: Step, cells: Extent) -> Extent:
    """The smallest tile that is worth running: 16 pixels, one frame."""
    px = job.program.stores[step.dst].px * step.upscale
    side = max(16 // px, 1)
    return Extent(1, min(side, cells.h), min(side, cells.w))


def _workspace(memories: tuple[Memory, ...], index: int, tile: Extent) -> int:
    """Bytes that tiles of a size take in the kind of chunk where they take the most."""
    return max(memory.tile_bytes(index, tile) for memory in memories)


def _widest(memories: tuple[Memory, ...]) -> Memory:
    """The kind of chunk with the most frames, whose tiles suit the others too."""
    return max(memories, key=lambda memory: memory.chunk.source.size)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Places for one job: their arithmetic, and what every step may use.

    memories: one for each kind of chunk: sizes differ, and so do the caches that come and go.
    fixed: for each of them, bytes that no tile size changes while each step runs.
    bounds, least: the largest and the smallest tile of each step.
    """

    placement: Placement
    places: Places
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
        if self.places.stores:
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
            or largest_fitting(small, fits)
            or next(filter(fits, large + small), None)
        )

    def _fits(self, index: int, tile: Extent, rooms: Sequence[int]) -> bool:
        """Whether tiles of a step find room in every kind of chunk."""
        return all(
            memory.tile_bytes(index, tile) <= room
            and memory.steps[index].elements(tile) < MOST_ELEMENTS
            for memory, room in zip(self.memories, rooms, strict=True)
        )

    def _sizes(self, index: int) -> tuple[tuple[Extent, ...], tuple[Extent, ...]]:
        """The tiles that a step may use, each the next smaller one: down to the usual, and on."""
        far = self.places.of(self.widest.program.steps[index]).store
        return self.sizes(index, far and self.widest.sizes.accelerated)

    def sizes(self, index: int, banded: bool) -> tuple[tuple[Extent, ...], tuple[Extent, ...]]:
        """The same, for tiles that go as bands or not."""
        cells, usual = self._cells(index), self.usual(index)
        start = self.bounds[index].at_most(cells)
        small = shrinking(usual.at_most(cells), self.least[index], cells, banded)
        return shrinking(start, usual, cells, banded), small

    def usable(self, index: int, banded: bool) -> tuple[Extent, ...]:
        """The tiles of a step that are no hindrance, each the next smaller one."""
        return self.sizes(index, banded)[0]

    def _cells(self, index: int) -> Extent:
        """All cells of a step."""
        return self.widest.steps[index].cells

    def usual(self, index: int) -> Extent:
        """The smallest tile that is no hindrance, in cells: `REASONABLE_PX`, or all there is."""
        program, step = self.widest.program, self.widest.program.steps[index]
        side = max(REASONABLE_PX // (program.stores[step.dst].px * step.upscale), 1)
        cells, bound, least = self._cells(index), self.bounds[index], self.least[index]
        h = max(min(side, cells.h, bound.h), least.h)
        w = max(min(side, cells.w, bound.w), least.w)
        return Extent(least.t, h, w)

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
            need = min((self._need(index, tile), index, tile) for tile in {*large, *small})
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
    near, moved = max(kinds, key=lambda row: row.peak_bytes), max(row.moved_bytes for row in kinds)
    return replace(near, far_bytes=max(row.far_bytes for row in kinds), moved_bytes=moved)


def _sizes_of(job: Job, machine: Machine) -> Sizes:
    return Sizes(
        job.batch,
        job.element_bytes,
        max(job.element_bytes, 4),
        far_weights=job.far_weights,
        accelerated=machine.accelerated,
        workspaces=machine.workspaces,
    )


def _bare(job: Job, settings: Settings, memories: tuple[Memory, ...]) -> _Candidate:
    """What every step may use, with nothing counted that is held meanwhile."""
    bounds = tuple(_bounds(job, settings, step) for step in job.program.steps)
    least = tuple(_least(job, settings, memories, index) for index in range(len(bounds)))
    return _Candidate(Placement.DEVICE, ALL_NEAR, memories, (), bounds, least)


def _candidate(
    job: Job,
    settings: Settings,
    bare: tuple[Memory, ...],
    places: Mapping[Kind, Places],
    machine: Machine,
) -> _Candidate:
    """bare: the arithmetic of every kind of chunk, whatever lives where."""
    # a device is given its memory back after each chunk
    memories = placed(bare, places, reused_near=not machine.accelerated)
    here = places[_widest(bare).kind]
    fixed = tuple(memory.fixed_bytes() for memory in memories)
    candidate = _bare(job, settings, memories)
    return replace(candidate, placement=here.placement, places=here, fixed=fixed)


def _corner(job: Job, placement: Placement, machine: Machine) -> Places:
    """The places that a placement names on a machine; where its memory is all one, what lives in
    host memory lives on the device all the same.
    """
    moved = placement is Placement.MMAP or machine.apart
    return corner(job.program, placement) if moved else ALL_NEAR


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
    """What speaks against a plan: the bytes that are moved and held.

    Within a budget moving counts first, but for a file; where there is none, how far away things
    live does, and what is held, to a tenth.
    """
    held = plan.peak_bytes.bit_length() * 8 + (plan.peak_bytes * 8 >> plan.peak_bytes.bit_length())
    if plan.settings.budget_bytes is None:
        return list(Placement).index(plan.placement), held, plan.moved_bytes
    return int(plan.placement is Placement.MMAP), plan.moved_bytes, held


def make_plan(job: Job, settings: Settings, machine: Machine) -> Plan:
    """The plan for `job` under `settings` on `machine`, whose own settings are those that it keeps:
    chunks may be shorter where they do not change the result.

    Raises `BudgetError` where nothing fits, with the worst step and the smallest budget that fits,
    and `SettingsError` where blended tiles cannot be had, or no tiles would be too large a tensor.
    """
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
    bare = memories_of(widest, chunks, _sizes_of(job, machine))
    budget, tried = _budget(settings, machine), list[_Candidate]()

    def candidates() -> Iterator[_Candidate]:
        for placement in _placements(settings, machine):
            places = _corner(job, placement, machine)
            everywhere = {memory.kind: places for memory in bare}
            found = _candidate(widest, settings, bare, everywhere, machine)
            tried.append(replace(found, placement=placement))
            yield tried[-1]

    if machine.accelerated and settings.tiling is Tiling.OFF:
        check_elements(bare)
    chosen = None
    if _is_free(settings, machine) and budget is not None:
        chosen = _between(widest, settings, bare, machine, chunks)
    if chosen is None:
        named = _choose(candidates(), budget, machine.workspace_bytes)
        if named is None:
            raise _too_small(tried, settings, cast("int", budget))
        chosen = _leveled(*named, machine, budget)
    candidate, ways = chosen
    rows = candidate.rows(ways)
    ways = _spilled(ways, rows, machine)
    moved = _moved_by_chunk(candidate.memories, ways, chunks)
    way = ways[candidate.widest.kind]
    spilled = way.places.away is Place.DISK
    name = Placement.MMAP if spilled else candidate.placement
    return Plan(job, settings, chunks, way.tiles, name, 0, rows, blend, ways, moved, machine)


def _moved_by_chunk(
    memories: tuple[Memory, ...], ways: Mapping[Kind, Way], chunks: tuple[Chunk, ...]
) -> tuple[int, ...]:
    """Bytes that are moved in each chunk."""
    found = {
        (memory.kind, memory.has_past, memory.has_future): sum(
            memory.moved_bytes(index, tile) for index, tile in enumerate(ways[memory.kind].tiles)
        )
        for memory in memories
    }
    last = len(chunks) - 1
    return tuple(
        found[(chunk.source.size, chunk.first), index > 0, index < last]
        for index, chunk in enumerate(chunks)
    )


def mended(plan: Plan, index: int, share: float) -> Plan | None:
    """A plan for the same chunks in which no step takes more than a share of what step `index` took
    in `plan`; None where there is none, or no other place for anything to be.

    What was to be on the device may leave it; what was to be away stays there.
    """
    machine, settings = plan.machine, plan.settings
    if machine is None or not machine.apart:
        return None
    if settings.placement in (Placement.DEVICE, Placement.CACHES_ON_HOST):
        settings = replace(settings, placement=Placement.AUTO)
    if settings.tiling is Tiling.BLEND:  # it is one of the crops
        settings = replace(settings, tiling=Tiling.EXACT, tile_px=None)
    budget = int(plan.rows[index].peak_bytes * share)
    try:
        found = _plan(plan.job, replace(settings, budget_bytes=budget), machine)
    except BudgetError:
        return None
    return replace(found, settings=plan.settings, operations=plan.operations, blend=plan.blend)


def _is_free(settings: Settings, machine: Machine) -> bool:
    """Whether each store and cache may have a place of its own."""
    return machine.apart and settings.placement is Placement.AUTO


def _leveled(
    candidate: _Candidate, largest: tuple[Extent, ...], machine: Machine, budget: int | None
) -> tuple[_Candidate, dict[Kind, Way]]:
    """A candidate with its tiles; where no budget asks for less, tiles that decide the peak are
    smaller.
    """
    program = candidate.widest.program
    if budget is None and machine.apart and not program.has_statistics:
        largest = candidate.level(largest, machine.workspace_bytes // 2)
    # on one memory all is near, whatever it is called
    named = corner(program, candidate.placement)
    way = Way(candidate.places if machine.apart else named, largest)
    return candidate, {memory.kind: way for memory in candidate.memories}


def _between(
    job: Job,
    settings: Settings,
    bare: tuple[Memory, ...],
    machine: Machine,
    chunks: tuple[Chunk, ...],
) -> tuple[_Candidate, dict[Kind, Way]] | None:
    """Ways that move the fewest bytes within the budget; None where usual tiles do not fit."""
    lengths = list[Length]()
    for kind, memories in alike(bare).items():
        own = _bare(job, settings, memories)
        flows = flows_of(memories, _flowing(chunks, kind))
        known: dict[tuple[int, Extent, Extent], StepTiles] = {}
        tiles = list[StepTiles]()
        for index, step in enumerate(memories[0].steps):
            key = id(step), own.bounds[index], own.least[index]
            if key not in known:
                sizes = partial(own.usable, index)
                known[key] = StepTiles(step, flows, sizes, machine.workspace_bytes)
            tiles.append(known[key])
        lengths.append(Length(memories, tuple(tiles)))
    ways = choose(tuple(lengths), cast("int", settings.budget_bytes))
    if ways is None:
        return None
    places = {kind: way.places for kind, way in ways.items()}
    return _candidate(job, settings, bare, places, machine), ways


_MOST_ALIKE = 7
"""Chunks of a kind that count: for any more the choice is the same as for these."""


def _flowing(chunks: tuple[Chunk, ...], kind: Kind) -> Counter[tuple[bool, bool]]:
    """How many chunks of a length have caches that come and go, counted as far as it matters."""
    last = len(chunks) - 1
    found = Counter(
        (index > 0, index < last)
        for index, chunk in enumerate(chunks)
        if (chunk.source.size, chunk.first) == kind
    )
    return Counter({flow: min(count, _MOST_ALIKE) for flow, count in found.items()})


def _blend(job: Job, settings: Settings) -> BlendGeometry | None:
    """The crops to be blended; None in the other modes."""
    if settings.tiling is not Tiling.BLEND:
        return None
    stores = job.program.stores
    return blend_geometry(job.source, settings, stores[SOURCE].px, stores[job.program.sink].px)


def _operations(plan: Plan) -> int:
    return plan.job.batch * sum(
        job.program.operations(chunk_extent(job, chunk), chunk) * times
        for job, chunk, times in plan.work()
    )


def _spilled(
    ways: dict[Kind, Way], rows: tuple[Projection, ...], machine: Machine
) -> dict[Kind, Way]:
    """Disk in place of the host where the host has no room."""
    needed = max(row.far_bytes for row in rows)
    stored = any(way.places.stores for way in ways.values())
    if machine.host_bytes is None or needed <= machine.host_bytes or not stored:
        return ways
    return {
        kind: replace(way, places=replace(way.places, away=Place.DISK))
        for kind, way in ways.items()
    }


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
