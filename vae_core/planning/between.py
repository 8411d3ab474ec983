"""What is the best of all that lies between the placements that have names, within a budget?

1. All on the device, where there is room for that.
2. Else every store and cache in a place of its own, as `residency` chooses.
3. Unless all of it away moves less: it may have tiles that are not tried beside what is near.

Each of them never moves more where there is more room, and so the best of them does not either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from ..geometry.grid import Chunk
from ..geometry.region import Extent
from ..settings import Placement, Settings
from .candidates import Candidate, bare_candidate, candidate_of, is_reasonable
from .kinds import alike, placed
from .ladders import Ladder, Length, all_far, ladder_of
from .machine import Machine
from .memory import Memory
from .places import ALL_NEAR, Kind, Places, Way, corner
from .plan import Job
from .residency import choose

Chosen = tuple[Candidate, Mapping[Kind, Way]]
"""The arithmetic of all that is in its place, and how chunks of each length are run."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be planned, for chunks of one choice of lengths.

    job: with the largest crop. chunks: of the whole clip. bare: the arithmetic of their kinds,
    whatever lives where.
    """

    job: Job
    settings: Settings
    machine: Machine
    chunks: tuple[Chunk, ...]
    bare: tuple[Memory, ...]

    def everywhere(self, places: Places) -> Mapping[Kind, Places]:
        """The same places in every kind of chunk."""
        return {memory.kind: places for memory in self.bare}

    def candidate(self, places: Places) -> Candidate:
        """The same places in every kind of chunk, with their arithmetic."""
        everywhere = self.everywhere(places)
        return candidate_of(self.job, self.settings, self.bare, everywhere, self.machine)

    def counts(self, memories: tuple[Memory, ...]) -> tuple[int, ...]:
        """How many chunks of each of these kinds there are."""
        last = len(self.chunks) - 1
        found = Counter(
            ((chunk.source.size, chunk.first), index > 0, index < last)
            for index, chunk in enumerate(self.chunks)
        )
        return tuple(found[memory.kind, memory.has_past, memory.has_future] for memory in memories)


def between(request: Request, budget: int) -> Chosen | None:
    """The best within a budget; None where there is no room for tiles of a usual size, whatever
    lives where.
    """
    near = _everything(request, ALL_NEAR, budget)
    if near is not None:
        return near
    chosen = _each_by_itself(request, budget)
    if chosen is None or moved_bytes(request, chosen) <= _least_away(request):
        return chosen
    away = _everything(request, corner(request.job.program, Placement.HOST), budget)
    found = (chosen,) if away is None else (chosen, away)
    return min(found, key=partial(moved_bytes, request))


def moved_bytes(request: Request, chosen: Chosen) -> int:
    """Bytes that all chunks move."""
    candidate, ways = chosen
    return sum(
        count * memory.moved_in_all(ways[memory.kind].tiles)
        for memory, count in zip(
            candidate.memories, request.counts(candidate.memories), strict=True
        )
    )


def _least_away(request: Request) -> int:
    """Bytes that all chunks move at the least with everything away: what is read is read once."""
    return sum(
        count
        * sum(
            step.moved_bytes(step.cells, all_far(step), memory.has_past, memory.has_future)
            for step in memory.steps
        )
        for memory, count in zip(request.bare, request.counts(request.bare), strict=True)
    )


def _everything(request: Request, places: Places, budget: int) -> Chosen | None:
    """The same places for all kinds of chunk, where there is room for tiles of a usual size."""
    candidate = request.candidate(places)
    if max(max(fixed) for fixed in candidate.fixed) > budget:
        return None
    largest = candidate.tiles(budget, request.machine.workspace_bytes)
    if largest is None or not is_reasonable(candidate, largest):
        return None
    return candidate, {memory.kind: Way(places, largest) for memory in candidate.memories}


def _each_by_itself(request: Request, budget: int) -> Chosen | None:
    """Every store and cache in a place of its own."""
    kinds, preferred = alike(request.bare), request.machine.workspace_bytes
    owns = {
        kind: bare_candidate(request.job, request.settings, memories)
        for kind, memories in kinds.items()
    }
    lengths = tuple(
        Length(own.memories, request.counts(own.memories), _ladders(own, preferred))
        for own in owns.values()
    )
    found = choose(lengths, budget)
    if found is None:
        return None
    memories = placed(request.bare, found, reused_near=False)
    ways = dict[Kind, Way]()
    for length in lengths:
        there = tuple(memory for memory in memories if memory.kind == length.kind)
        own = owns[length.kind].at(found, there)
        ways[length.kind] = Way(own.places, _tiles(own, length.ladders, budget, preferred))
    widest = owns[max(kinds, key=lambda kind: kind[0])]
    return widest.at(found, memories), ways


def _ladders(own: Candidate, preferred: int) -> tuple[Ladder, ...]:
    """The tiles that each step may use in the chunks of one length; steps that are alike have the
    same.
    """
    flows = frozenset((memory.has_past, memory.has_future) for memory in own.memories)
    known: dict[tuple[int, Extent, Extent], Ladder] = {}
    found = list[Ladder]()
    for index, step in enumerate(own.memories[0].steps):
        key = id(step), own.bounds[index], own.least[index]
        if key not in known:
            known[key] = ladder_of(step, flows, partial(own.usable, index), preferred)
        found.append(known[key])
    return tuple(found)


def _tiles(
    own: Candidate, ladders: tuple[Ladder, ...], budget: int, preferred: int
) -> tuple[Extent, ...]:
    """The largest tiles that there is room for, of those that were tried where stores are far."""
    found, memory = list[Extent](), own.memories[0]
    for index, (step, ladder) in enumerate(zip(memory.program.steps, ladders, strict=True)):
        far = own.places.of(step, memory.extents)
        room = budget - max(fixed[index] for fixed in own.fixed)
        tile = ladder.tile(room, far) if far.store else own.tile(index, budget, preferred)
        assert tile
        found.append(tile)
    return tuple(found)
