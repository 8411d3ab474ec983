"""What is the best of all that lies between the placements that have names, within a budget?

1. All on the device, where there is room for that.
2. Else every store and cache in a place of its own, as `residency` chooses; and where steps can
   take turns (`bands`), the same beside their windows, for bands of several sizes.
3. Unless all of it away moves less: it may have tiles that are not tried beside what is near.

Each of them never moves more where there is more room, and so the best of them does not either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import cast

from ..geometry.grid import Chunk
from ..geometry.region import Extent
from ..settings import Placement, Settings, Tiling
from .bands import Bands, heights_of, run_of, turns_of
from .candidates import Candidate, bare_candidate, candidate_of, is_reasonable
from .floor import floor_of
from .kinds import alike, memories_of, placed
from .ladders import Ladder, Length, Usable, all_far, ladder_of
from .limits import NEVER
from .machine import Machine
from .memory import Memory
from .places import ALL_NEAR, Far, Kind, Way, corner, kind_of, places_of
from .plan import Job
from .residency import Search, choose
from .sizes import Sizes

Chosen = tuple[Candidate, Mapping[Kind, Way]]
"""The arithmetic of all that is in its place, and how chunks of each length are run."""


class Request:
    """What is to be planned for chunks of one choice of lengths, and all of it that no budget
    changes.

    job: with the largest crop. chunks: of the whole clip. longest: whether there may be no longer
    ones. bare: the arithmetic of the kinds of chunk, whatever lives where.
    """

    def __init__(
        self,
        job: Job,
        settings: Settings,
        machine: Machine,
        chunks: tuple[Chunk, ...],
        longest: bool,
    ) -> None:
        self.longest = longest
        self.job, self.settings, self.machine, self.chunks = job, settings, machine, chunks
        self.bare = memories_of(job, chunks, sizes_of(job, machine))
        self._named: dict[Placement, Candidate] = {}

    def named(self, placement: Placement) -> Candidate:
        """All of it where a placement says that it is, with the arithmetic; where memory is all
        one, what lives in host memory lives on the device all the same.
        """
        found = self._named.get(placement)
        if found is None:
            moved = placement is Placement.MMAP or self.machine.apart
            places = corner(self.job.program, placement) if moved else ALL_NEAR
            everywhere = {memory.kind: places for memory in self.bare}
            given = self.job, self.settings, self.bare, everywhere, self.machine
            found = replace(candidate_of(*given), placement=placement)
            self._named[placement] = found
        return found

    def counts(self, memories: tuple[Memory, ...]) -> tuple[int, ...]:
        """How many chunks of each of these kinds there are."""
        last = len(self.chunks) - 1
        found = Counter(
            (kind_of(chunk), index > 0, index < last) for index, chunk in enumerate(self.chunks)
        )
        return tuple(found[memory.kind, memory.has_past, memory.has_future] for memory in memories)

    @cached_property
    def near_bytes(self) -> int:
        """Bytes on the device with all of it there, tiles apart."""
        there = {memory.kind: ALL_NEAR for memory in self.bare}
        reused = not self.machine.accelerated
        memories = placed(self.bare, there, reused_near=reused)
        return max(max(memory.fixed_bytes()) for memory in memories)

    @cached_property
    def near(self) -> Candidate:
        """All of it on the device."""
        return self.named(Placement.DEVICE)

    @cached_property
    def away(self) -> Candidate:
        """All of it away."""
        return self.named(Placement.HOST)

    @cached_property
    def least_away(self) -> int:
        """Bytes that all chunks move at the least with everything away: what is read is read
        once.
        """
        return sum(
            count
            * sum(
                step.moved_bytes(step.cells, all_far(step), memory.has_past, memory.has_future)
                for step in memory.steps
            )
            for memory, count in zip(self.bare, self.counts(self.bare), strict=True)
        )

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        """The ways to go through the steps: in turns, by bands of several heights, or not."""
        heights = _BAND_PX if self.longest else _BAND_PX[:1]
        found = (_in_turns(self, one) for one in (*_bands(self, heights), None))
        return tuple(Variant(self, there) for there in found if there)

    def least(self, budget: int) -> int:
        """No fewer bytes move within a budget."""
        if self.near_bytes <= budget:
            return 0
        return min(self.least_away, *(variant.least(budget) for variant in self.variants))


class Variant:
    """One way to go through the steps.

    there: the arithmetic of all kinds of chunk, with windows in place. floor: what moves at the
    least. known: budgets that were asked for, and the fewest bytes that move within them.
    """

    def __init__(self, request: Request, there: tuple[Memory, ...]) -> None:
        self.there, self.known = there, dict[int, int]()
        self._request, self.floor = request, floor_of(there, request.counts(there))

    @cached_property
    def owns(self) -> dict[Kind, Candidate]:
        """For chunks of each length, what each step may use."""
        job, settings = self._request.job, self._request.settings
        kinds = alike(self.there).items()
        return {kind: _bounded(bare_candidate(job, settings, some)) for kind, some in kinds}

    @cached_property
    def lengths(self) -> tuple[Length, ...]:
        """The same as it is chosen from."""
        preferred = self._request.machine.workspace_bytes
        return tuple(
            Length(own.memories, self._request.counts(own.memories), _ladders(own, preferred))
            for own in self.owns.values()
        )

    @cached_property
    def search(self) -> Search:
        """What is chosen from in them."""
        return Search(self.lengths)

    def least(self, budget: int) -> int:
        """No fewer bytes move within a budget, as far as that is known: a larger one moves no
        more.
        """
        known = list(self.known.items())  # others may plan at the same time
        before = max((moved for asked, moved in known if asked >= budget), default=0)
        return max(before, self.floor.least(budget))


@lru_cache(maxsize=24)
def _request(
    job: Job, settings: Settings, machine: Machine, chunks: tuple[Chunk, ...], longest: bool
) -> Request:
    return Request(job, settings, machine, chunks, longest)


def request_of(
    job: Job, settings: Settings, machine: Machine, chunks: tuple[Chunk, ...], *, longest: bool
) -> Request:
    """The request for chunks of a clip; the same again where nothing but the budget is another."""
    settings = replace(settings, budget_bytes=None, on_progress=None)
    bare = Machine(machine.apart, machine.workspace_bytes, None, machine.shared, machine.workspaces)
    return _request(job, settings, bare, chunks, longest)


def sizes_of(job: Job, machine: Machine) -> Sizes:
    """What a job is computed in on a machine."""
    return Sizes(
        job.batch,
        job.element_bytes,
        max(job.element_bytes, 4),
        far_keys=machine.apart,
        far_weights=job.far_weights,
        accelerated=machine.accelerated,
        packed=not machine.accelerated and job.element_bytes == _PACKED_BYTES,
        workspaces=machine.workspaces,
    )


_PACKED_BYTES = 4
"""Of an element of the dtype in which a processor convolves tap by tap (see `running.taps`)."""


def between(request: Request, budget: int, most: int) -> Chosen | None:
    """The best within a budget; None where there is no room for tiles of a usual size, whatever
    lives where, or where more than `most` would be copied.
    """
    if request.near_bytes <= budget and (near := _everything(request, request.near, budget)):
        return near
    best, moved = cast("Chosen | None", None), NEVER
    for variant in sorted(request.variants, key=lambda variant: variant.floor.least(budget)):
        least = variant.least(budget)
        if least >= moved or least > most:
            continue
        chosen = _each_by_itself(request, variant, budget)
        variant.known[budget] = _cost(request, chosen) if chosen else NEVER
        if variant.known[budget] < moved:
            best, moved = chosen, variant.known[budget]
    if best is None or moved <= request.least_away:
        return best
    away = _everything(request, request.away, budget, flat=True)
    return away if away and _cost(request, away) < moved else best


def _cost(request: Request, chosen: Chosen) -> int:
    """Bytes that all chunks move, those twice that the processor copies too."""
    candidate, ways = chosen
    return sum(
        count * memory.traffic(ways[memory.kind].tiles).cost
        for memory, count in zip(
            candidate.memories, request.counts(candidate.memories), strict=True
        )
    )


def _everything(
    request: Request, candidate: Candidate, budget: int, *, flat: bool = False
) -> Chosen | None:
    """The same places for all kinds of chunk, where there is room for tiles of a usual size, or for
    any; flat: tiles may be.
    """
    if max(max(fixed) for fixed in candidate.fixed) > budget:
        return None
    largest = candidate.tiles(budget, request.machine.workspace_bytes)
    if largest is None or not (flat or is_reasonable(candidate, largest)):
        return None
    way = Way(candidate.places, largest)
    return candidate, {memory.kind: way for memory in candidate.memories}


_BAND_PX = (16, 32)
"""Heights of bands that are tried: low ones have small windows, high ones read less twice. In
chunks that are shorter than they may be, what is kept from chunk to chunk counts more than that.
"""


def _bands(request: Request, heights: Sequence[int]) -> Iterator[Bands]:
    """How steps may take turns."""
    program, settings = request.job.program, request.settings
    run = run_of(program)
    if run is None or settings.tiling is Tiling.OFF or request.job.far_weights:
        return
    last = program.steps[run[1] - 1]
    px = program.stores[last.dst].px * last.side_made
    for height in heights:
        yield Bands(*run, max(height // px, 1))


def _in_turns(request: Request, bands: Bands | None) -> tuple[Memory, ...] | None:
    """The arithmetic of all kinds of chunk with windows in place; None where there can be none."""
    if bands is None:
        return request.bare
    places, found = (
        places_of(request.job.program, frozenset(), frozenset(), bands=bands),
        list[Memory](),
    )
    for memory in request.bare:
        turns = turns_of(memory.program, bands, heights_of(memory.extents))
        if turns is None:
            return None
        found.append(replace(memory, places=places, turns=turns))
    return tuple(found)


def _each_by_itself(request: Request, variant: Variant, budget: int) -> Chosen | None:
    """Every store and cache in a place of its own."""
    owns, preferred = variant.owns, request.machine.workspace_bytes
    found = choose(variant.search, budget)
    if found is None:
        return None
    memories = placed(request.bare, found, reused_near=False)
    ways = dict[Kind, Way]()
    for length in variant.lengths:
        there = tuple(memory for memory in memories if memory.kind == length.kind)
        own = owns[length.kind].at(found, there)
        ways[length.kind] = Way(own.places, _tiles(own, length.ladders, budget, preferred))
    widest = owns[max(owns, key=lambda kind: kind[0])]
    return widest.at(found, memories), ways


def _bounded(own: Candidate) -> Candidate:
    """The same with no tile higher than what its step makes in a turn."""
    turns = own.memories[0].turns
    if turns is None:
        return own
    bounds = list(own.bounds)
    for index, rows in zip(turns.bands.steps, turns.made, strict=True):
        bounds[index] = replace(bounds[index], h=min(bounds[index].h, rows))
    return replace(own, bounds=tuple(bounds), alike=tuple(range(len(bounds))), easy={})


def _most(memory: Memory, index: int) -> Far:
    """All that may be far of what a step touches."""
    far, step, rolled = (
        all_far(memory.steps[index]),
        memory.program.steps[index],
        memory.places.rolled,
    )
    if memory.turns is None or index not in memory.turns.bands.steps:
        return far
    added = step.residual is not None and step.residual.store not in rolled
    src, dst = step.src not in rolled, step.dst not in rolled
    return Far(far.src * src, far.dst * dst, far.added * added, far.cache, cut=True)


def _ladders(own: Candidate, preferred: int) -> tuple[Ladder, ...]:
    """The tiles that each step may use in the chunks of one length; steps that are alike have the
    same.
    """
    flows = frozenset((memory.has_past, memory.has_future) for memory in own.memories)
    known: dict[tuple[int, Extent, Extent, Far], Ladder] = {}
    found = list[Ladder]()
    for index, step in enumerate(own.memories[0].steps):
        most = _most(own.memories[0], index)
        key = id(step), own.bounds[index], own.least[index], most
        if key not in known:
            banded = step.sizes.accelerated
            flat = own.flat(index) if banded else ()
            usable = Usable(own.usable(index, banded), flat, own.usable(index, False))
            known[key] = ladder_of(step, flows, usable, preferred, most)
        found.append(known[key])
    return tuple(found)


def _tiles(
    own: Candidate, ladders: tuple[Ladder, ...], budget: int, preferred: int
) -> tuple[Extent, ...]:
    """The best tiles that there is room for, of those that were tried."""
    memory, fixed = own.memories[0], [max(some) for some in zip(*own.fixed, strict=True)]
    return tuple(
        ladder.tile(budget - held, far, preferred)
        for far, ladder, held in zip(memory.far, ladders, fixed, strict=True)
    )
