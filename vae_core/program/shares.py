"""Who makes which rows of every store, and who needs which rows of others, where several ranks do
the work on one clip?

1. A rank makes a band of rows of each store. All bands begin at the same place of the picture, as
   nearly as the rows of a store allow: at rows of the coarsest level that leaves bands about equal.
   So coarser levels may leave a rank with nothing.
2. A step reads rows around those that it makes. What of these another rank makes is a need, for
   what the step before has written; queries need the keys of whole frames, but for those that meet
   their own place alone.
3. What a rank holds of a store is all that it makes or ever needs of it. The source is whole
   everywhere: it is the caller's.

Whole numbers only; how rows get from one rank to another is the executor's business.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from math import lcm

from ..geometry.grid import Chunk
from ..geometry.region import Extent, Interval, Region
from ..geometry.share import Share
from ..settings import Given, Layout, Settings
from .parts import Attend
from .steps import SOURCE, Program, Step

_ONE = Interval(0, 1)
_NOTHING = Interval(0, 0)

_ROWS_EACH = 8
"""Rows of a level with which bands are about equal, though none of these is cut."""


@dataclass(frozen=True, slots=True)
class Need:
    """What ranks read of a store, whoever makes it.

    channels: the first of those that are read, and the one after the last. rows: by rank.
    """

    channels: tuple[int, int]
    rows: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Move:
    """Rows of some channels of a store that go from one rank to another."""

    of: int
    to: int
    channels: tuple[int, int]
    rows: Interval

    @property
    def elements(self) -> int:
        """In each column of each frame."""
        return (self.channels[1] - self.channels[0]) * self.rows.size


@dataclass(frozen=True, slots=True)
class Shares:
    """What every rank does.

    ranks: the share of each. heights: rows of every store. moves: what goes from rank to rank when
    a step has run, by step; the same for every chunk. staged: see `Share`.
    """

    ranks: tuple[Share, ...]
    heights: tuple[int, ...]
    moves: tuple[tuple[Move, ...], ...]
    staged: tuple[int, ...]

    def largest(self) -> Share:
        """One that stands for all: it makes and holds as much of each store as any of them, and
        touches no edge of the picture where that can be.
        """
        own, held = (
            tuple(
                _inner(max(rows.size for rows in column), height)
                for column, height in zip(zip(*bands, strict=True), self.heights, strict=True)
            )
            for bands in ([s.own for s in self.ranks], [s.held for s in self.ranks])
        )
        return Share(own, held, self.staged)

    def portion(self, store: int, rank: int) -> float:
        """Which part of a store's voxels a rank makes."""
        return self.ranks[rank].own[store].size / self.heights[store]


def _inner(size: int, height: int) -> Interval:
    start = (height - size + 1) // 2
    return Interval(start, start + size)


@lru_cache(maxsize=16)
def shares_of(program: Program, height: int, count: int) -> Shares:
    """The shares of `count` ranks in a source of `height` rows."""
    whole = Chunk(_ONE, _ONE, True, Layout.ALIGNED, leads=program.leads)
    extents = program.extents(Extent(1, height, 1), whole)
    own = _bands(program, extents, count)
    bare = [Share(bands, bands) for bands in zip(*own, strict=True)]
    chunks = [replace(whole, share=share) for share in bare]
    needs = [_needs(program, index, extents, chunks) for index in range(len(program.steps))]
    held = [list(share.own) for share in bare]
    for step, found in zip(program.steps, needs, strict=True):
        for need in found:
            for rank, rows in enumerate(need.rows):
                held[rank][step.dst] = held[rank][step.dst].hull(rows)
    for rank in held:
        _together(program, rank)
    ranks = (Share(share.own, tuple(rows)) for share, rows in zip(bare, held, strict=True))
    moves = tuple(
        tuple(_moves(own[step.dst], found))
        for step, found in zip(program.steps, needs, strict=True)
    )
    heights = tuple(extent.h for extent in extents)
    return Shares(tuple(ranks), heights, moves, _staged(program, moves, count))


def _staged(program: Program, moves: tuple[tuple[Move, ...], ...], count: int) -> tuple[int, ...]:
    """See `Share`."""
    found = [0] * len(program.stores)
    for step, after in zip(program.steps, moves, strict=True):
        for rank in range(count):
            mine = sum(move.elements for move in after if rank in (move.of, move.to))
            found[step.dst] = max(found[step.dst], mine)
    return tuple(found)


def _bands(program: Program, extents: tuple[Extent, ...], count: int) -> list[tuple[Interval, ...]]:
    """The rows that each of `count` ranks makes, by store."""
    whole_px = extents[SOURCE].h * program.stores[SOURCE].px
    levels = sorted({spec.px for spec in program.stores}, reverse=True)
    level = next((px for px in levels if whole_px // px >= _ROWS_EACH * count), levels[-1])
    starts = [level * (whole_px // level * rank // count) for rank in range(count)]
    found = [(Interval(0, extents[SOURCE].h),) * count]
    for store in range(1, len(program.stores)):
        unit, height = _unit(program, store), extents[store].h
        px = program.stores[store].px * unit
        bounds = [*(min(unit * (start // px), height) for start in starts), height]
        found.append(tuple(map(Interval, bounds, bounds[1:])))
    return found


def _unit(program: Program, store: int) -> int:
    """Rows of a store that are made together, by whichever step, or of one whose memory it
    shares.
    """
    alike = {store, *_inside(program, store)}
    sides = (step.side_made for step in program.steps if step.dst in alike)
    return reduce(lcm, sides, 1)


def _inside(program: Program, store: int) -> set[int]:
    """All stores that share memory with one."""
    found, before = {store}, set[int]()
    while found != before:
        before = set(found)
        for inner, spec in enumerate(program.stores):
            if spec.inside is not None and {inner, spec.inside} & found:
                found |= {inner, spec.inside}
    return found


def _together(program: Program, held: list[Interval]) -> None:
    """Let stores that share memory be held alike."""
    for store in range(len(held)):
        alike = _inside(program, store)
        if len(alike) > 1:
            rows = reduce(Interval.hull, (held[one] for one in sorted(alike)))
            for one in alike:
                held[one] = rows


def rows_given(program: Program, height: int, settings: Settings) -> Interval:
    """The rows of the result that are given here, of a source of `height` rows: all, but for some
    ranks among several processes.
    """
    px = program.stores[SOURCE].px, program.stores[program.sink].px
    whole, rank = Interval(0, height * px[0] // px[1]), settings.rank
    alone = settings.ranks == 1 or settings.devices
    if alone or settings.parallel_result is Given.ALL:
        return whole
    if settings.parallel_result is Given.BANDS:
        return shares_of(program, height, settings.ranks).ranks[rank].own[program.sink]
    return _NOTHING if rank else whole


def rows_read(step: Step, src: Extent, chunk: Chunk) -> Interval:
    """The rows of src that a step's cells depend on, of those cells that `chunk` has it make."""
    if chunk.share is None:
        return Interval(0, src.h)
    rows = chunk.share.cells(step.dst, step.side_made)
    if not rows.size:
        return _NOTHING
    return step.seen_region(Region(_ONE, rows, _ONE)).h.clip(src.h)


def _rows_added(step: Step, chunk: Chunk) -> Interval:
    """The rows of a residual's store that are added to what `chunk` has a step make."""
    assert step.residual
    assert chunk.share
    own = chunk.share.own[step.dst]
    return step.residual.source(Region(_ONE, own, _ONE), True).h if own.size else _NOTHING


def _needs(
    program: Program, index: int, extents: tuple[Extent, ...], chunks: list[Chunk]
) -> tuple[Need, ...]:
    """What ranks read of what step `index` writes, before it is written over."""
    store = program.steps[index].dst
    found: dict[tuple[int, int], tuple[Interval, ...]] = {}
    for step in program.steps[index + 1 :]:
        for channels, rows in _reads(program, step, store, extents[store], chunks):
            before = found.get(channels, (_NOTHING,) * len(chunks))
            found[channels] = tuple(map(Interval.hull, before, rows))
        if step.dst == store:
            break
    return tuple(Need(*item) for item in found.items())


def _reads(
    program: Program, step: Step, store: int, extent: Extent, chunks: list[Chunk]
) -> Iterator[tuple[tuple[int, int], tuple[Interval, ...]]]:
    """Channels of a store that a step reads, and their rows by rank."""
    every = (0, program.stores[store].channels)
    if step.src == store:
        rows = tuple(rows_read(step, extent, chunk) for chunk in chunks)
        if isinstance(step.mix, Attend) and not step.mix.column:
            queries = step.mix.channels
            yield (0, queries), rows
            whole = Interval(0, extent.h)
            rows, every = tuple(whole if own.size else own for own in rows), (queries, every[1])
        yield every, rows
    if step.residual and step.residual.store == store:
        channels = (0, program.stores[store].channels)
        yield channels, tuple(_rows_added(step, chunk) for chunk in chunks)


def _moves(own: tuple[Interval, ...], needs: tuple[Need, ...]) -> Iterator[Move]:
    """What goes from rank to rank, of bands that follow one another."""
    starts = [made.start for made in own]
    for need in needs:
        for to, wanted in enumerate(need.rows):
            first = max(bisect_right(starts, wanted.start) - 1, 0)
            for of in range(first, bisect_left(starts, wanted.stop)):
                rows = wanted.meet(own[of])
                if of != to and rows.size:
                    yield Move(of, to, need.channels, rows)
