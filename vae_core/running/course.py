"""Which tiles of a step are run one after the other, in chunks of one kind?"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..geometry.grid import Chunk, largest_of, tiles
from ..geometry.region import Extent, Interval, Region
from ..program.steps import Step
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


def course_of(step: Step, src: Extent, chunk: Chunk, bound: Extent, rows: int = 0) -> Course:
    """The course of a step with tiles of at most `bound` cells, for a store of the extent `src`.

    rows: of dst that lie apart from those below, so that no tile has both; 0: none.
    """
    cells = step.mixed_extent(src, chunk)
    parts = _parts(cells.h, rows // step.side_made)
    every = (
        replace(tile, h=tile.h.shift(part.start)).later(frames.start)
        for _, frames in step.runs(src, chunk)
        for part in parts
        for tile in tiles(replace(cells, t=frames.size, h=part.size), bound)
    )
    sizes = [largest_of(replace(cells, h=part.size), bound) for part in parts]
    largest = max(sizes, key=lambda size: size.h)
    return Course(tuple(every), largest, step.lone(src, chunk), largest.w == cells.w)


def _parts(height: int, above: int) -> tuple[Interval, ...]:
    """[0, height), cut where `above` ends."""
    if not 0 < above < height:
        return (Interval(0, height),)
    return Interval(0, above), Interval(above, height)
