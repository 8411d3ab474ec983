"""What do networks have in common whose norms take the statistics of each frame by itself?

`FrameBuilder` puts their steps; `causal`, `linear` and `group_norm` read single parts, and refuse
what they do not know. How the parts follow each other is the family's business.
"""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from ..errors import LoweringError
from ..geometry.region import Halo
from ..program.parts import STEADY, Attend, Conv, Norm, Rate, Scope
from ..program.steps import Residual, Step
from .building import Builder, geometry, pair

POINT = Halo(0, 0)
"""What a convolution of single voxels sees beside them."""


class FrameBuilder(Builder):
    """Steps from the newest result on."""

    def put(self, mix: Conv | Attend, norm: Norm | None = None, rate: Rate = STEADY) -> None:
        """One step to a store of its own."""
        px = self.spec.px * mix.stride // mix.makes_px
        dst = self.store(mix.out_channels, px, self.spec.frames * rate.down // rate.up)
        self.steps.append(Step(self.at, dst, mix, norm, rate=rate))
        self.at = dst

    def add(
        self, entry: int, mix: Conv, norm: Norm | None = None, shortcut: Conv | None = None
    ) -> None:
        """One step whose result is added to the store `entry`; in its place where channels stay."""
        dst = self.store(mix.out_channels, self.spec.px, self.spec.frames) if shortcut else entry
        self.steps.append(Step(self.at, dst, mix, norm, residual=Residual(entry, shortcut)))
        self.at = dst


def causal(module: nn.Module, path: str, pad: Halo | None = None) -> Conv:
    """A convolution that sees a clip's first frame again before it, and zeros around the picture.

    pad: what its owner pads; else it keeps the size by itself.
    """
    if not isinstance(module, nn.Conv3d):
        raise LoweringError(f"{path} must be a convolution; it is {type(module).__name__}.")
    taps, rows, _ = module.weight.shape[2:]
    half = 0 if pad else rows // 2
    before = getattr(module, "temporal_padding", taps // 2)  # on either side, and all of it before
    if (2 * before, module.padding[0]) != (taps - 1, 0) or pair(module.padding, path) != (
        half,
    ) * 2:
        raise LoweringError(f"{path} must see {taps} frames up to its own; it is {module}.")
    if pad is None and set(module.stride) != {1}:
        raise LoweringError(f"{path} must keep the size of what it reads; it is {module}.")
    return geometry(module, path, pad or Halo(half, half))


def linear(module: nn.Module, path: str) -> Conv:
    """A layer that makes each voxel of that voxel alone."""
    if not isinstance(module, nn.Linear):
        raise LoweringError(f"{path} must be a linear layer; it is {type(module).__name__}.")
    out_channels, in_channels = module.weight.shape
    return Conv(path, in_channels, out_channels, 1, 1, 1, POINT)


def group_norm(module: nn.Module, path: str, *, activated: bool = True) -> Norm:
    """A norm with the statistics of each frame, followed by SiLU where it is activated."""
    if not isinstance(module, nn.GroupNorm):
        raise LoweringError(f"{path} must be a GroupNorm; it is {type(module).__name__}.")
    return Norm(
        path,
        module.num_channels,
        module.num_groups,
        module.eps,
        activated=activated,
        scope=Scope.FRAME,
    )


def channels_of(module: nn.Module) -> tuple[int, int]:
    """How many channels a convolution or a linear layer makes, and reads."""
    made, read, *_ = cast("Any", module).weight.shape
    return int(made), int(read)
