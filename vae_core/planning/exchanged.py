"""How many bytes do ranks that share the work hand each other?

Rows around bands, as `program.shares` has them, and the statistics of what norms will read; nothing
else, but for the result.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..geometry.grid import Chunk
from ..geometry.region import Extent, Interval, Region
from ..program.shares import shares_of
from ..program.steps import Program, Step
from .plan import Plan, chunk_extent


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What goes from rank to rank once a step has run, in all chunks together.

    rows_bytes: of rows, sent by all ranks. statistics_bytes: of the numbers of every rank to every
    other one.
    """

    path: str
    rows_bytes: int
    statistics_bytes: int


def _statistics(program: Program, index: int, dst: Extent) -> int:
    """Numbers of a clip that a rank tells of what step `index` has written."""
    norm = program.norm_to_come(index)
    return 2 * norm.groups * (dst.t if norm.per_frame else 1) if norm else 0


def frames_made(step: Step, src: Extent, chunk: Chunk) -> Interval:
    """The frames that a chunk or a band makes of a step's dst."""
    cells = step.cell_extent(src, chunk).region
    if chunk.band:
        cells = Region(chunk.band.cells[step.dst], cells.h, cells.w)
    return step.core(cells, src, chunk).t


def exchanged(plan: Plan) -> tuple[Exchanged, ...]:
    """What all ranks of a plan hand each other, by step."""
    job, ranks = plan.job, plan.settings.ranks
    if ranks == 1:
        return ()
    moves = shares_of(job.program, job.source.h, ranks).moves
    found: list[Exchanged] = []
    for index, step in enumerate(job.program.steps):
        rows = statistics = 0
        for chunk in plan.chunks:
            extents = job.program.extents(chunk_extent(job, chunk), chunk)
            frames = frames_made(step, extents[step.src], chunk).size
            line = job.batch * frames * extents[step.dst].w * job.element_bytes
            rows += line * sum(move.elements for move in moves[index])
            numbers = _statistics(job.program, index, extents[step.dst]) if frames else 0
            statistics += ranks * (ranks - 1) * job.batch * numbers * max(job.element_bytes, 4)
        found.append(Exchanged(step.path, rows, statistics))
    return tuple(found)
