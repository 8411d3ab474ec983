"""What turns voxels and weights into bytes?"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..program.parts import Attend, Conv, Start
from ..program.steps import Step
from .workspaces import NO_WORKSPACES, Workspaces


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is computed in.

    batch: clips side by side.
    element_bytes: of the dtype that is computed in. statistics_bytes: of the one for statistics.
    far_weights: whether weights are copied to the device, or to another dtype.
    accelerated: whether it is computed as on an accelerator (see `running.devices`).
    workspaces: what its libraries allocate.
    """

    batch: int
    element_bytes: int
    statistics_bytes: int
    far_weights: bool = False
    accelerated: bool = False
    workspaces: Workspaces = NO_WORKSPACES


def weight_bytes(step: Step, sizes: Sizes, latent_channels: int, apart: bool = False) -> int:
    """Bytes of the weights that are folded and laid out for a step, and copied where they are far.

    latent_channels: what modulation maps are made of. apart: whether a first frame has one of the
        taps in time to itself (see `Step.runs`).
    """
    if isinstance(step.mix, Attend):
        return 0
    kernel = step.mix.in_channels * step.mix.out_channels * prod(step.taps) * step.phases
    # folded ones, and sums of taps, are all there when each is laid out
    summed = step.still and step.mix.start is Start.FIRST
    moved = step.phases > 1 or step.mix.sees_px > 1 or step.mix.fold is not None
    made = kernel * (2 if moved or summed else 1)
    if apart:
        made += kernel // step.taps[0]
    if sizes.far_weights:
        made += _originals(step, step.mix, latent_channels)
    return made * sizes.element_bytes


def _originals(step: Step, conv: Conv, latent_channels: int) -> int:
    """Elements of the weights of a step as they are in the network."""
    shortcut = step.residual.shortcut if step.residual else None
    added = shortcut.in_channels * shortcut.out_channels if shortcut else 0
    own = conv.in_channels * conv.out_channels * conv.kernel_t * conv.kernel**2
    own *= 0 if conv.fold else conv.makes_px**2
    maps = 2 * latent_channels * step.norm.channels if step.norm and step.norm.modulated else 0
    return own + added + maps
