"""Which tiles of a step are run one after the other, in chunks of one kind?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..geometry.grid import Chunk, largest_of, tiles
from ..geometry.region import Extent, Interval, Region
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


def course_of(
    step: Step, src: Extent, chunk: Chunk, bound: Extent, parts: Sequence[Interval] | None = None
) -> Course:
    """The course of a step with tiles of at most `bound` cells, for a store of the extent `src`.

    parts: rows of cells that are gone through one after the other, such that no tile is in two of
        them; None: all of them.
    """
    cells = step.mixed_extent(src, chunk)
    parts = parts or (chunk.rows(step.dst, step.side_made, cells.h),)
    every = (
        replace(tile, h=tile.h.shift(part.start)).later(frames.start)
        for _, frames in step.runs(src, chunk)
        for part in parts
        for tile in tiles(replace(cells, t=frames.size, h=part.size), bound)
    )
    sizes = [largest_of(replace(cells, h=part.size), bound) for part in parts]
    largest = max(sizes, key=lambda size: size.h)
    return Course(tuple(every), largest, step.lone(src, chunk), largest.w == cells.w)


def packs(program: Program, index: int) -> bool:
    """Whether a step may write a store inside another one row by row, without gaps.

    Rows of its frames then go from a card to the host in one piece. Those that are written lie
    where rows above them lay, which have been read: so tiles have to be as wide as the picture.
    """
    step = program.steps[index]
    inside, residual = program.stores[step.dst].inside, step.residual
    return inside is not None and residual is not None and residual.store == inside


def cut_at(rows: Interval, cut: int) -> tuple[Interval, ...]:
    """An interval, in two where `cut` lies inside it."""
    if not rows.start < cut < rows.stop:
        return (rows,)
    return Interval(rows.start, cut), Interval(cut, rows.stop)
