"""Where in the tensors of its step does a tile read and write?

`window_of` turns the geometry of a step into places in tensors [b, c, t, h, w], once for a tile:
the same tile comes again in every chunk of a kind, and nothing of it is worked out in between. No
tensor is touched here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..geometry.grid import Chunk, cell_runs, cells_of
from ..geometry.region import Extent, Interval, Region
from ..program.parts import Edge
from ..program.shares import rows_read
from ..program.steps import SOURCE, Program, Step

Place = tuple[Any, ...]
"""What a tensor [b, c, t, h, w] is indexed with."""

Extents = tuple[Extent, ...]
"""Of every store of a program."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements of a tile of which each latent cell covers as many rows and frames.

    elements: their place in the tile. cells: the place of what covers them, with axes of length 1
        for the frames and the rows of a cell.
    sizes: of the elements as [cells, frames, cells, rows, columns].
    """

    elements: Place
    cells: Place
    sizes: tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Cover:
    """The latent cells that scale and shift what a tile reads.

    source: their place in the latents. columns, first, px: the tile's columns, the first cell's,
        and how many of them a cell covers. pieces: all elements of the tile.
    """

    source: Place
    columns: Interval
    first: int
    px: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """The places of one tile.

    extent: of the convolution's input, with history and the picture's edge.
    edges: what lies beyond the picture there, where it is zeros.
    mirrors: where it is a mirror: each line of it, and the line that it shows, columns first.
    inside: what there is to be read. seen: the frames of that. missing: how many frames lie before
        them. beyond: those after the clip, None where there are none.
    where, source: what it is made of in src.
    added: in the store that is added; None for nothing. cover: for a modulated norm.
    past: the missing frames in the cache that came. filled: in the input. kept: the newest frames
        in the input, and cached: in the cache to come; None where others are newer.
    core, target: what it makes, in dst. alone: frames of that which count once in statistics, where
        the others count as often as they are shown.
    """

    extent: Extent
    edges: tuple[Place, ...]
    mirrors: tuple[tuple[Place, Place], ...]
    inside: Place
    seen: Interval
    missing: int
    beyond: Place | None
    where: Region
    source: Place
    added: Place | None
    cover: Cover | None
    past: Place
    filled: Place
    kept: Place
    cached: Place | None
    core: Region
    target: Place
    alone: int


def window_of(
    program: Program, step: Step, chunk: Chunk, extents: Extents, cells: Region
) -> Window:
    """The window of a step's tile `cells` in a chunk, for which stores have `extents`."""
    src = extents[step.src]
    first = chunk.keeps_first(src.t)
    whole, inside = step.seen_region(cells, first), step.inside(cells, src, chunk)
    where, core = step.source_region(cells, src, chunk), step.core(cells, src, chunk)
    box, missing = inside.within(whole), inside.t.start - whole.t.start
    cached = inside.lower(-rows_read(step, src, chunk).start) if chunk.share else inside
    sides = cached.slices[1:]
    newest = inside.t.stop == step.seen_extent(src, chunk).t
    mirrored = step.mix.edge is Edge.REFLECT
    after = whole.t.stop - inside.t.stop
    apart = program.stores[step.dst].shown > 1 and chunk.keeps_first(extents[step.dst].t)
    return Window(
        whole.extent,
        () if mirrored else _edges(box, whole.extent),
        _mirrors(box, whole.extent) if mirrored else (),
        (..., *box),
        inside.t,
        missing,
        (..., slice(-after, None), *box[1:]) if after else None,
        where,
        placed(chunk.here(step.src, where)),
        _added(step, chunk, extents, core),
        _cover(program, step, where, first) if step.norm and step.norm.modulated else None,
        (..., slice(-missing, None), *sides),
        (..., slice(0, missing), *box[1:]),
        (..., slice(-step.history, None), *box[1:]),
        (..., *sides) if newest else None,
        core,
        placed(chunk.here(step.dst, core)),
        int(apart and core.t.start == 0),
    )


def _edges(inside: tuple[slice, slice, slice], whole: Extent) -> tuple[Place, ...]:
    """What lies above and below, left and right of `inside` in all frames of `whole`."""
    _, h, w = inside
    found: list[Place] = []
    if h.start:
        found.append((..., slice(0, h.start), slice(None)))
    if h.stop < whole.h:
        found.append((..., slice(h.stop, None), slice(None)))
    if w.start:
        found.append((..., h, slice(0, w.start)))
    if w.stop < whole.w:
        found.append((..., h, slice(w.stop, None)))
    return tuple(found)


def _mirrors(inside: tuple[slice, slice, slice], whole: Extent) -> tuple[tuple[Place, Place], ...]:
    """The columns, then the rows beside `inside` in `whole`, each with the one that it shows."""
    _, h, w = inside
    columns = (
        ((..., h, slice(to, to + 1)), (..., h, slice(of, of + 1)))
        for to, of in _mirrored(w, whole.w)
    )
    rows = (
        ((..., slice(to, to + 1), slice(None)), (..., slice(of, of + 1), slice(None)))
        for to, of in _mirrored(h, whole.h)
    )
    return (*columns, *rows)


def _mirrored(inside: slice, size: int) -> list[tuple[int, int]]:
    """For each place beside `inside` in [0, size) that which it shows."""
    start, stop = int(inside.start), int(inside.stop)
    before = [(at, 2 * start - at) for at in range(start)]
    return before + [(at, 2 * (stop - 1) - at) for at in range(stop, size)]


def _added(step: Step, chunk: Chunk, extents: Extents, core: Region) -> Place | None:
    residual = step.residual
    if residual is None:
        return None
    where = residual.source(core, chunk.keeps_first(extents[residual.store].t))
    return placed(chunk.here(residual.store, where))


def _cover(program: Program, step: Step, where: Region, keeps_first: bool) -> Cover:
    """The latent cells that the elements `where` of a step's src show (nearest upsampling), the
    first of them in time for one frame where it is kept.
    """
    latents, here = program.stores[SOURCE], program.stores[step.src]
    frames, px = latents.frames // here.frames, latents.px // here.px
    t = cells_of(where.t, frames, keeps_first)
    h, w = (cells_of(side, px, keeps_first=False) for side in (where.h, where.w))
    pieces = tuple(
        Piece(
            (..., rt.elements.within(where.t), rh.elements.within(where.h), slice(None)),
            (..., rt.cells.within(t), None, rh.cells.within(h), None, slice(None)),
            (rt.cells.size, rt.repeat, rh.cells.size, rh.repeat, where.w.size),
        )
        for rt in cell_runs(where.t, frames, keeps_first)
        for rh in cell_runs(where.h, px, keeps_first=False)
    )
    return Cover(placed(Region(t, h, w)), where.w, w.start, px, pieces)


def placed(region: Region) -> Place:
    """Where a region lies in a tensor that begins at the origin."""
    return (..., *region.slices)
