"""How do steps of HunyuanVideo, 1.0 and 1.5, follow each other where both have the same?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import LoweringError
from ..program.parts import STEADY, Attend, Conv, Keys, Norm, Rate
from ..program.steps import Residual, Step
from .building import Builder


@dataclass(slots=True)
class HunyuanBuilder(Builder):
    """Steps that make a store each, and attention to this frame and those before."""

    def put(
        self,
        mix: Conv | Attend,
        norm: Norm | None = None,
        rate: Rate = STEADY,
        residual: Residual | None = None,
    ) -> None:
        """One step from the newest result to a store of its own."""
        px = self.spec.px * mix.stride // mix.makes_px
        dst = self.store(mix.out_channels, px, self.spec.frames * rate.down // rate.up)
        self.steps.append(Step(self.at, dst, mix, norm, rate=rate, residual=residual))
        self.at = dst

    def attend(self, path: str, norm: Norm, parts: Sequence[Conv]) -> None:
        """Queries, keys and values; attention to this frame and those before; the projection,
        added.

        parts: these four, by their convolutions of 1x1x1.
        """
        entry, channels = self.at, self.spec.channels
        if {one.out_channels for one in parts} != {channels}:
            raise LoweringError(f"{path} must attend with one head of {channels} channels.")
        first, *others, proj = parts
        beside = tuple(one.path for one in others)
        self.put(replace(first, out_channels=3 * channels, beside=beside), norm)
        self.put(Attend(path, channels, Keys.EARLIER))
        self.steps.append(Step(self.at, entry, proj, residual=Residual(entry)))
        self.at = entry
