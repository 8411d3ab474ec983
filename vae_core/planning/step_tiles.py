"""Which tile does a step take in the room that there is, and what does it move then?

1. Tiles shrink by a good part from one to the next that is tried, down to the usual one.
2. None takes more than is preferred, if the usual one does not.
3. What was worked out for a tile is kept for all that ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..geometry.region import Extent
from .elements import MOST_ELEMENTS
from .memory import Memory
from .places import Far

_SHARE = 0.8
"""Voxels of a tile that is tried next, as a share of the last one's, at the most."""


@dataclass(frozen=True, slots=True)
class TileChoice:
    """A tile; what it needs in kinds of chunk of each extent, and what moves in the one that moves most."""

    tile: Extent
    needs: tuple[int, ...]
    moved_bytes: int


class StepTiles:
    """The tiles that one step may use.

    sizes: for tiles that go as bands or not, each the next smaller one.
    """

    def __init__(
        self,
        index: int,
        memories: tuple[tuple[Memory, ...], ...],
        sizes: Callable[[bool], tuple[Extent, ...]],
        preferred: int,
    ) -> None:
        self._steps = [
            (kinds[0].steps[index], {(m.has_past, m.has_future) for m in kinds})
            for kinds in memories
        ]
        self._sizes, self._preferred = sizes, preferred
        self._banded = memories[0][0].sizes.accelerated
        self._choices: dict[Far, tuple[TileChoice, ...]] = {}

    def first(self, far: Far, rooms: tuple[int, ...]) -> TileChoice | None:
        """The largest tile that there is room for in chunks of every extent; None where there is
        none.
        """
        for choice in self._of(far):
            if all(need <= room for need, room in zip(choice.needs, rooms, strict=True)):
                return choice
        return None

    def _of(self, far: Far) -> tuple[TileChoice, ...]:
        found = self._choices.get(far)
        if found is None:
            sizes = _thinned(self._sizes(self._banded and far.store))
            choices = [self._choice(tile, far) for tile in sizes]
            easy = [choice for choice in choices if max(choice.needs) <= self._preferred]
            found = self._choices[far] = tuple(easy or choices[-1:])
        return found

    def _choice(self, tile: Extent, far: Far) -> TileChoice:
        moved, needs = 0, list[int]()
        for one, kinds in self._steps:
            moved = max(moved, *(one.moved_bytes(tile, far, *kind) for kind in kinds))
            needs.append(max(one.tile_bytes(tile, far, *kind) for kind in kinds))
            if one.elements(tile) >= MOST_ELEMENTS:
                needs[-1] = _NEVER
        return TileChoice(tile, tuple(needs), moved)


_NEVER = 2**62
"""More than there will ever be room for."""


def _thinned(sizes: tuple[Extent, ...]) -> tuple[Extent, ...]:
    """The first, the last, and of those between them as many as differ by enough."""
    found = [sizes[0]]
    for tile in sizes[1:-1]:
        if tile.voxels <= _SHARE * found[-1].voxels:
            found.append(tile)
    return (*found, *sizes[-1:]) if len(sizes) > 1 else tuple(found)
