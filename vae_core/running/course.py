"""Which tiles of a step are run one after the other, in chunks of one kind?"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..geometry.grid import Chunk, largest_of, tiles
from ..geometry.region import Extent, Region
from ..program.steps import Program, Step
from .windows import Window


@dataclass(frozen=True, slots=True)
class Course:
    """How a step is gone through; the same for every chunk that is as long, and begins the clip or
    does not.

    tiles: in order. largest: the size of the largest. lone: first frames that are copied past it.
    as_wide: whether tiles are as wide as the picture.
    windows: of those tiles that have been run (see `windows`).
    """

    tiles: tuple[Region, ...]
    largest: Extent
    lone: int
    as_wide: bool
    windows: dict[Region, Window] = field(default_factory=dict[Region, Window], compare=False)


def course_of(step: Step, src: Extent, chunk: Chunk, bound: Extent) -> Course:
    """The course of a step with tiles of at most `bound` cells, for a store of the extent `src`."""
    cells = step.mixed_extent(src, chunk)
    top = chunk.rows(step.dst, step.side_made, cells.h).start
    every = (
        tile.later(frames.start).lower(top)
        for _, frames in step.runs(src, chunk)
        for tile in tiles(replace(cells, t=frames.size), bound)
    )
    largest = largest_of(cells, bound)
    return Course(tuple(every), largest, step.lone(src, chunk), largest.w == cells.w)


def packs(program: Program, index: int) -> bool:
    """Whether a step may write a store inside another one row by row, without gaps.

    Rows of its frames then go from a card to the host in one piece. Those that are written lie
    where rows above them lay, which have been read: so tiles have to be as wide as the picture.
    """
    step = program.steps[index]
    inside, residual = program.stores[step.dst].inside, step.residual
    return inside is not None and residual is not None and residual.store == inside
