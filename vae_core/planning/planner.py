"""Which chunks, tiles and places shall a run use, for one shape and one choice of settings?

1. The layout cuts the clip into chunks; `NormScope.CLIP` takes it whole and tiles it in time too.
2. Every step gets the largest tile whose workspace fits what the budget leaves beside stores and
   caches, and never one larger than asked for.
3. Within a budget each store and cache has a place of its own (`between`). A placement that has a
   name, or no budget: the first of them, from fast to frugal, with tiles of a reasonable size; else
   the first that fits at all; else `BudgetError` names the worst step and the smallest budget that
   would do.

Operations are the same for every tile size, so that a plan is the slower the more it copies, and a
larger budget never copies more. A plan is plain data: no tensor is touched, and nothing is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import ceil, floor
from typing import cast

from ..errors import BudgetError
from ..geometry.blend import BlendGeometry, blend_geometry
from ..geometry.grid import Chunk
from ..geometry.region import Extent
from ..program.known import operations_of
from ..program.parts import Attend, Keys
from ..program.steps import SOURCE, Program
from ..settings import Place, Placement, Settings, Tiling
from .between import Request, between, request_of
from .candidates import Candidate, is_reasonable
from .chunking import check_mirrors, chunk_lengths, chunks_of, meant, takes_whole
from .elements import check_elements
from .keeping import keeping
from .libraries import libraries_of
from .limits import NEVER
from .machine import Machine
from .memory import Memory
from .places import Kind, Way, corner, kind_of
from .plan import Job, Plan, chunk_extent, size_text
from .projection import Projection, Traffic

_FASTEST_FIRST = (Placement.DEVICE, Placement.CACHES_ON_HOST, Placement.HOST)


def _placements(job: Job, settings: Settings, machine: Machine) -> tuple[Placement, ...]:
    asked = cast("Placement", settings.placement)
    if asked is Placement.CACHES_ON_HOST and machine.apart and takes_whole(job.program, settings):
        return (Placement.HOST,)  # stores of a whole clip are what grows with it
    if asked is Placement.HOST and not machine.apart:
        return (asked, Placement.MMAP)
    if asked is not Placement.AUTO:
        return (asked,)
    return _FASTEST_FIRST if machine.apart else (Placement.DEVICE, Placement.MMAP)


def _budget(settings: Settings, machine: Machine) -> int | None:
    """Bytes allowed on the device; where its memory is the host's, no more than is free."""
    limits = (settings.budget_bytes, None if machine.apart else machine.host_bytes)
    return min((limit for limit in limits if limit is not None), default=None)


def _choose(
    candidates: Iterable[Candidate], budget: int | None, preferred: int
) -> tuple[Candidate, tuple[Extent, ...]] | None:
    """The first candidate with reasonable tiles, else the last that fits; None where none does."""
    fallback = None
    for candidate in candidates:
        largest = candidate.tiles(budget, preferred)
        if largest is not None:
            if is_reasonable(candidate, largest):
                return candidate, largest
            fallback = (candidate, largest)
    return fallback


def _cost(plan: Plan) -> tuple[int, int, int]:
    """What speaks against a plan: the bytes that are copied and held.

    Within a budget moving counts first, but for a file; where there is none, how far away things
    live does, and what is held, to a tenth.
    """
    held = plan.peak_bytes.bit_length() * 8 + (plan.peak_bytes * 8 >> plan.peak_bytes.bit_length())
    if plan.settings.budget_bytes is None:
        return list(Placement).index(plan.placement), held, plan.cost_bytes
    return int(plan.placement is Placement.MMAP), plan.cost_bytes, held


def make_plan(job: Job, settings: Settings, machine: Machine) -> Plan:
    """The plan for `job` under `settings` on `machine`, whose own settings are those that it keeps:
    chunks may be shorter where they do not change the result.

    Raises `BudgetError` where nothing fits, with the worst step and the smallest budget that fits,
    and `SettingsError` where blended tiles cannot be had, or no tiles would be too large a tensor.
    """
    check_mirrors(job)
    settings, found, failed = meant(job.program, settings), list[Plan](), list[BudgetError]()
    lengths = chunk_lengths(job, settings)
    every = [replace(settings, chunk_frames=length) for length in lengths]

    def least(asked: Settings) -> int:
        return _least(job, asked, machine, longest=asked is every[0])

    for asked in sorted(every, key=least):  # beside the best others need not be looked at
        kept = (plan.cost_bytes for plan in found if plan.placement is not Placement.MMAP)
        try:
            plan = _plan(job, asked, machine, min(kept, default=NEVER), longest=asked is every[0])
            found += [plan] if plan else []
        except BudgetError as error:
            failed.append(error)
    if not found:
        raise min(failed, key=lambda error: error.smallest_bytes)
    best = min(found, key=lambda plan: (*_cost(plan), -plan.settings.chunk_frames))
    return keeping(replace(best, operations=_operations(best)), machine)


def _least(job: Job, settings: Settings, machine: Machine, *, longest: bool) -> int:
    """No fewer bytes move in chunks of one length; 0 where that is not known before they are
    planned.
    """
    budget = _budget(settings, machine)
    if budget is None or not _is_free(job.program, settings, machine):
        return 0
    return _request(job, settings, machine, longest=longest).least(budget)


def _request(job: Job, settings: Settings, machine: Machine, *, longest: bool) -> Request:
    """What is to be planned for chunks of one length."""
    blend = _blend(job, settings)
    widest = job if blend is None else replace(job, source=blend.largest)
    return request_of(widest, settings, machine, chunks_of(job, settings), longest=longest)


def _plan(
    job: Job, settings: Settings, machine: Machine, most: int = NEVER, *, longest: bool = True
) -> Plan | None:
    """The plan for chunks of one length, its operations not yet counted; None where it would copy
    more than `most`. longest: whether there are no longer ones to choose from.
    """
    request, budget = _request(job, settings, machine, longest=longest), _budget(settings, machine)
    chunks, blend, tried = request.chunks, _blend(job, settings), list[Candidate]()

    def candidates() -> Iterator[Candidate]:
        for placement in _placements(job, settings, machine):
            tried.append(request.named(placement))
            yield tried[-1]

    if machine.accelerated and settings.tiling is Tiling.OFF:
        check_elements(request.bare)
    chosen = None
    if _is_free(job.program, settings, machine) and budget is not None:
        if request.least(budget) > most:
            return None
        # where none is so good there may still be others, beside which the named ones do not count
        chosen = between(request, budget, most) or between(request, budget, NEVER)
    if chosen is None:
        named = _choose(candidates(), budget, machine.workspace_bytes)
        if named is None:
            raise _too_small(tried, settings, cast("int", budget))
        chosen = _leveled(*named, machine, budget)
    candidate, ways = chosen
    rows = candidate.rows(ways)
    ways = _spilled(ways, rows, machine)
    traffic = _traffic_by_chunk(candidate.memories, ways, chunks)
    way = ways[candidate.widest.kind]
    spilled = way.places.away is Place.DISK
    name = Placement.MMAP if spilled else candidate.placement
    libraries = libraries_of(machine, candidate.memories, ways)
    return Plan(
        job, settings, chunks, way.tiles, name, 0, rows, blend, libraries, ways, traffic, machine
    )


def _traffic_by_chunk(
    memories: tuple[Memory, ...], ways: Mapping[Kind, Way], chunks: tuple[Chunk, ...]
) -> tuple[Traffic, ...]:
    """What is copied in each chunk."""
    found = {
        (memory.kind, memory.has_past, memory.has_future): memory.traffic(ways[memory.kind].tiles)
        for memory in memories
    }
    last = len(chunks) - 1
    if chunks[0].band:
        return tuple(found.values()) * len(chunks)
    return tuple(
        found[kind_of(chunk), index > 0, index < last] for index, chunk in enumerate(chunks)
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
    assert found
    return replace(found, settings=plan.settings, operations=plan.operations, blend=plan.blend)


def _is_free(program: Program, settings: Settings, machine: Machine) -> bool:
    """Whether each store and cache may have a place of its own. Not where keys of other chunks are
    met, or frames wait for later bands: how often these come in is not in what `residency` weighs.
    Nor where ranks share the work, whose rows it does not know.
    """
    if program.looks_ahead or settings.ranks > 1:
        return False
    outward = any(isinstance(s.mix, Attend) and s.mix.keys is not Keys.FRAME for s in program.steps)
    return machine.apart and settings.placement is Placement.AUTO and not outward


def _leveled(
    candidate: Candidate, largest: tuple[Extent, ...], machine: Machine, budget: int | None
) -> tuple[Candidate, dict[Kind, Way]]:
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


def _blend(job: Job, settings: Settings) -> BlendGeometry | None:
    """The crops to be blended; None in the other modes."""
    if settings.tiling is not Tiling.BLEND:
        return None
    stores = job.program.stores
    return blend_geometry(job.source, settings, stores[SOURCE].px, stores[job.program.sink].px)


def _operations(plan: Plan) -> int:
    forward = sum(
        operations_of(job.program, chunk_extent(job, chunk), chunk) * times
        for job, chunk, times in plan.work()
    )
    outward = sum(crop.program.outward_operations(crop.source, plan.chunks) for crop in plan.crops)
    return plan.job.batch * (forward + outward)


def _spilled(
    ways: Mapping[Kind, Way], rows: tuple[Projection, ...], machine: Machine
) -> Mapping[Kind, Way]:
    """Disk in place of the host where the host has no room."""
    needed = max(row.far_bytes for row in rows)
    stored = any(way.places.stores for way in ways.values())
    if machine.host_bytes is None or needed <= machine.host_bytes or not stored:
        return ways
    return {
        kind: replace(way, places=replace(way.places, away=Place.DISK))
        for kind, way in ways.items()
    }


def _too_small(candidates: list[Candidate], settings: Settings, budget: int) -> BudgetError:
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
