"""Which frames of stores go from one band of a clip to the next?

Where convolutions look ahead, a store's frames are read in a later band than the one in which they
were made (see `program.bands`). Those are put aside when the store is given up, and put back where
the store is made again.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ..geometry.grid import Band
from ..geometry.region import Extent
from ..planning.plan import Plan
from ..program.bands import largest_band
from ..program.steps import Program
from ..settings import Place
from .pinned import Pinned
from .stores import allocate
from .task import Pass
from .weights import Weights


class Kept:
    """Frames [b, c, t, h, w] of stores that wait for the next band.

    frames: by store. largest: the most frames that each store ever holds; empty where there are no
    bands.
    """

    def __init__(
        self, program: Program, weights: Weights, plan: Plan, pinned: Pinned | None
    ) -> None:
        self.frames: dict[int, Tensor] = {}
        self._bands = [chunk.band for chunk in plan.chunks]
        self._dtype, self._device, self._pinned = weights.dtype, weights.device, pinned
        self.largest: tuple[int, ...] = ()
        if program.looks_ahead:
            band = largest_band(plan.chunks).band
            assert band
            self.largest = tuple(held.size for held in band.held)

    def clear(self) -> None:
        """Let go of all."""
        self.frames.clear()

    def room(self, store: int, at: Pass) -> Extent:
        """How large the memory of a store is: the same in every band, so that one block serves all
        of them.
        """
        extent = at.held(store)
        return replace(extent, t=self.largest[store]) if at.chunk.band else extent

    def restored(self, store: int, at: Pass, made: Tensor) -> Tensor:
        """What a store has of `made`, its memory: frames that were put aside come first."""
        kept = self.frames.pop(store, None)
        if kept is not None:
            made[:, :, : kept.shape[2]].copy_(kept)
        return made[:, :, : at.held(store).t]

    def keep(self, store: int, at: Pass, place: Place) -> None:
        """Put aside at `place` what the next band will read of a store."""
        following = self._after(at)
        count = following.kept[store] if following else 0
        if not count:
            return
        frames = at.whole(store)
        shape = (*frames.shape[:2], count, *frames.shape[3:])
        aside = allocate(shape, self._dtype, self._device, place, self._pinned)
        self.frames[store] = aside.copy_(frames[:, :, frames.shape[2] - count :])

    def _after(self, at: Pass) -> Band | None:
        """The band after the one of `at`; None where there is none."""
        if at.chunk.band is None or at.index + 1 >= len(self._bands):
            return None
        return self._bands[at.index + 1]
