"""How are a step's weights made ready for the device's convolutions, and how long are they kept?

1. A processor that convolves tap by tap has them packed (see `taps`). Where the plan has room they
   are kept from chunk to chunk, until the run is over: what takes their place in the module is seen
   by the next run.
2. Elsewhere they are laid out as the device's convolutions read them, which would otherwise make
   copies of their own for every tile.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ..geometry.region import Extent
from ..program.parts import PICTURE, Attend
from ..program.steps import Step
from . import devices, taps
from .convolutions import Strides, laid_out
from .phases import Phase, for_accelerator, kernel_of, of_picture, phases_of, tensor_of
from .stores import Room
from .taps import Taps
from .weights import Weights

_STEADY: Strides = (1, 1, 1)


class Ready:
    """The weights of one run, made ready.

    Invariant: of what is kept nothing was made before the run began.
    """

    def __init__(self, weights: Weights, *, keeps: bool) -> None:
        self._weights, self._keeps = weights, keeps
        self._room = Room(weights.dtype, weights.device)
        self._kept: dict[Step, tuple[Phase, ...]] = {}
        self._packs = taps.serve(weights.device, weights.dtype)

    def release(self) -> None:
        """Let go of what is kept, and of memory for what is to come."""
        self._room.expect(0)
        self._kept.clear()

    def phases(self, step: Step, largest: Extent) -> tuple[Phase, ...]:
        """The convolutions of a step's cells; none of an attention.

        largest: of its tiles, in cells.
        """
        found = self._kept.get(step)
        if found is None:
            found = self._made(step, largest)
            if self._keeps:
                self._kept[step] = found
        return found

    def first_phases(
        self, first: Step, phases: tuple[Phase, ...], largest: Extent
    ) -> tuple[Phase, ...]:
        """The convolutions of a clip's first frame, by a step of its own: as a picture, with
        results that lie otherwise, or of the newest frame that they see alone.
        """
        if first.mix.shuffle or (first.rate == PICTURE and first.mix.fold):
            return self._made(first, largest)
        if first.rate == PICTURE:
            return of_picture(phases, first)
        return tuple(replace(one, weight=self._newest(one.weight)) for one in phases)

    def _made(self, step: Step, largest: Extent) -> tuple[Phase, ...]:
        if isinstance(step.mix, Attend):
            return ()
        found = phases_of(kernel_of(step, self._weights), step)
        if self._packs:
            return self._packed(list(found), step, step.seen_region(largest.region).extent)
        # memory of their own already, or beside those of another step
        own = step.phases > 1 or step.still or step.rate == PICTURE or step.mix.repeats
        if devices.accelerates(self._weights.device):
            found, own = for_accelerator(found), True
        lay_out = self._laid_out if own else self._in_room
        return tuple(replace(one, weight=lay_out(tensor_of(one), step.strides)) for one in found)

    def _packed(self, found: list[Phase], step: Step, seen: Extent) -> tuple[Phase, ...]:
        """Phases whose weights are packed, tap by tap."""
        made: list[Phase] = []
        while found:  # none is kept beside its own copy
            one = found.pop(0)
            sides = replace(seen, h=seen.h - 1, w=seen.w - 1) if one.folded else seen
            weight = taps.packed(tensor_of(one), sides, step.strides, self._room)
            made.append(replace(one, weight=weight.complete() if self._keeps else weight))
        return tuple(made)

    def _newest(self, weight: Tensor | Taps) -> Tensor | Taps:
        """What the newest frame is seen by."""
        if isinstance(weight, Taps):
            return weight.newest
        return self._laid_out(weight[:, :, -1:], _STEADY)

    def _in_room(self, weight: Tensor, strides: Strides) -> Tensor:
        del strides  # a processor has one route
        self._room.expect(weight.numel())
        return self._room.take(weight.shape).copy_(weight)

    def _laid_out(self, weight: Tensor, strides: Strides) -> Tensor:
        return laid_out(weight, strides, self._weights.layout)
