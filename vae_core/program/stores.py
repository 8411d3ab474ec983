"""What are the activations that a program's steps read, write and add?

Numbers and shapes only; a store is named by its place among the stores of its program.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..geometry.grid import cells_of
from ..geometry.region import Region
from .layouts import Fold
from .parts import Conv, shown_cells

SOURCE = 0
"""The store that the caller fills: sample frames for an encoder, latents for a decoder."""


@dataclass(frozen=True, slots=True)
class Residual:
    """What a step adds to its result: a store, through a 1x1x1 convolution where channels change.

    repeated: the store holds unique frames, each of which is added to a pair of results.
    fold: which results each of its elements is added to, where it is one for each cell; it spreads.
    """

    store: int
    shortcut: Conv | None = None
    repeated: bool = False
    fold: Fold | None = None

    def source(self, core: Region, keeps_first: bool) -> Region:
        """The part of the store that is added to the results `core`."""
        if self.fold:
            h, w = (cells_of(side, self.fold.side, False) for side in (core.h, core.w))
            return Region(cells_of(core.t, self.fold.frames, keeps_first), h, w)
        return Region(shown_cells(core.t, keeps_first), core.h, core.w) if self.repeated else core


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """A full-extent activation of one chunk.

    channels: how many.
    px: sample pixels for each element, along a side.
    frames: sample frames for each frame of it, the first apart.
    shown: how often each frame counts in statistics, the first apart where it stands alone.
    inside: the store whose first channels it overwrites, None for memory of its own.
    """

    channels: int
    px: int
    frames: int
    shown: int = 1
    inside: int | None = None
