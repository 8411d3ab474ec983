"""What lives where, level by level, for a person to see at a glance?

A level is all that has one resolution: its activations, one after the other, and its causal caches.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..geometry.grid import Chunk
from ..geometry.region import Extent
from ..program.steps import Program
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
            row, rows = spec.channels * extents[store].t * extents[store].w, extents[store].h
            away = places.far_rows(store, rows)
            near[spec.px] += row * (rows - away)
            far[spec.px] += row * away
    for step in () if alone else program.steps:
        src, held = extents[step.src], far if step.path in places.caches else near
        kept = step.mix.in_channels * step.history * src.h * src.w
        held[program.stores[step.src].px] += kept
    return tuple(Level(px, near[px], far[px]) for px in sorted(near | far))
