"""Which sizes of tiles does a step try, and which of them is taken?

1. `shrinking` goes from the largest tile that is allowed to the smallest, one cut after the other.
2. `largest_fitting` takes the first of them that fits.

Extents only: what a tile needs is the caller's question.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache

from ..geometry.region import Extent


def largest_fitting(sizes: tuple[Extent, ...], fits: Callable[[Extent], bool]) -> Extent | None:
    """The first of ever smaller tiles that fits; None where the smaller ones do not either.

    Smaller tiles need less, but for the whole, which may need less than two halves: nothing is
    copied beside a tile that is alone.
    """
    if fits(sizes[0]):
        return sizes[0]
    first = bisect_left(sizes, True, lo=1, key=fits)
    return sizes[first] if first < len(sizes) else None


@lru_cache(maxsize=1024)
def shrinking(
    start: Extent, least: Extent, cells: Extent, banded: bool = False
) -> tuple[Extent, ...]:
    """Tiles from `start` down to `least`, each the next smaller one.

    Rows are cut before columns, since rows are contiguous, until tiles would be flatter than 2:1,
    or, for bands, until there are no fewer; frames come last.
    """
    found = [start]
    while (smaller := _cut(found[-1], least, cells, banded)) is not None:
        found.append(smaller)
    return tuple(found)


def _cut(tile: Extent, least: Extent, whole: Extent, banded: bool) -> Extent | None:
    """The next smaller tile."""
    if tile.h > least.h and (banded or 2 * tile.h >= tile.w or tile.w <= least.w):
        return Extent(tile.t, max(_next(tile.h, whole.h), least.h), tile.w)
    if tile.w > least.w:
        return Extent(tile.t, tile.h, max(_next(tile.w, whole.w), least.w))
    return Extent(_next(tile.t, whole.t), tile.h, tile.w) if tile.t > least.t else None


def _next(side: int, whole: int) -> int:
    """The side of tiles of which one more is needed to cover `whole`; always a smaller one."""
    return min(side - 1, -(-whole // (-(-whole // side) + 1)))
