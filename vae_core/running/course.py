"""Which tiles of a step are run one after the other, in chunks of one kind?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..geometry.grid import Chunk, largest_of, pieces, tiles
from ..geometry.region import Extent, Interval, Region
from ..program.parts import Attend
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
    ordered = _inner_first(step, src, chunk, tuple(every))
    return Course(ordered, largest, step.lone(src, chunk), largest.w == cells.w)


def reads_own(step: Step, src: Extent, chunk: Chunk, rows: Interval) -> bool:
    """Whether what these rows of cells read of src was made by the rank that makes them."""
    if chunk.share is None:
        return True
    seen = step.seen_region(Region(_ONE, rows, _ONE)).h.clip(src.h)
    return chunk.share.own[step.src].contains(seen)


def _inner_first(
    step: Step, src: Extent, chunk: Chunk, every: tuple[Region, ...]
) -> tuple[Region, ...]:
    """Tiles in an order in which those come last that read rows of other ranks."""
    if chunk.share is None:
        return every
    return tuple(sorted(every, key=lambda cells: not reads_own(step, src, chunk, cells.h)))


def cut_inside(
    step: Step, src: Extent, chunk: Chunk, bound: Extent, rows: Interval
) -> tuple[Interval, ...]:
    """Rows of cells in parts, one of which reads nothing that other ranks have made, so that their
    rows can come meanwhile; in one where some of its tiles do so anyway, or there are few rows.
    """
    if chunk.share is None or isinstance(step.mix, Attend) or rows.size < _MANY_ROWS:
        return (rows,)
    if any(
        reads_own(step, src, chunk, one.shift(rows.start)) for one in pieces(rows.size, bound.h)
    ):
        return (rows,)
    first, last = Interval(rows.start, rows.start + 1), Interval(rows.stop - 1, rows.stop)
    start = rows.start if reads_own(step, src, chunk, first) else rows.start + _BORDER_ROWS
    stop = rows.stop if reads_own(step, src, chunk, last) else rows.stop - _BORDER_ROWS
    found = Interval(rows.start, start), Interval(start, stop), Interval(stop, rows.stop)
    return tuple(part for part in found if part.size)


_ONE = Interval(0, 1)

_BORDER_ROWS, _MANY_ROWS = 4, 32
"""Of cells: what is cut off a band where other ranks' rows are read, and of a band that is long
enough for it.
"""


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
