"""What lives where, level by level, for a person to see at a glance?

A level is all that has one resolution: its activations, one after the other, and its causal caches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..geometry.grid import Chunk
from ..geometry.region import Extent
from ..program.shares import rows_read
from ..program.steps import Program
from .held import first_written
from .places import Places


@dataclass(frozen=True, slots=True)
class Level:
    """px: sample pixels for each element, along a side. near_bytes, far_bytes: of the stores and
    caches of the largest chunk that live on the device and away from it, whenever they live.
    """

    px: int
    near_bytes: int
    far_bytes: int


def levels_of(
    program: Program, places: Places, source: Extent, chunk: Chunk, *, alone: bool
) -> tuple[Level, ...]:
    """The levels of a chunk with a source of this extent, the one of the highest resolution first.

    alone: whether no other chunk comes before or after, so that nothing is kept. Bytes are those of
    one byte an element and one clip.
    """
    extents = program.extents(source, chunk)
    near, far = Counter[int](), Counter[int]()
    for store, spec in enumerate(program.stores):
        if places.has_own_memory(program, store):
            there = chunk.held(store, extents[store])
            row, rows = spec.channels * there.t * there.w, there.h
            away = places.far_rows(store, rows)
            near[spec.px] += row * (rows - away)
            far[spec.px] += row * away
    for path, store, kept in () if alone else _kept(program, extents, chunk):
        spec, held = program.stores[store], far if path in places.caches else near
        held[spec.px] += spec.channels * kept.voxels
    return tuple(Level(px, near[px], far[px]) for px in sorted(near | far))


def _kept(
    program: Program, extents: tuple[Extent, ...], chunk: Chunk
) -> Iterator[tuple[str, int, Extent]]:
    """What goes to the chunk or band after it: the step that keeps it, of which store it is, and
    how much.
    """
    if chunk.band is None:
        for step in program.steps:
            src = extents[step.src]
            rows = rows_read(step, src, chunk).size
            yield step.path, step.src, Extent(step.history, rows, src.w)
    else:
        for store, index in first_written(program).items():
            there = chunk.held(store, extents[store])
            yield program.steps[index].path, store, replace(there, t=chunk.band.kept[store])
