"""What turns voxels and weights into bytes?"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..geometry.region import Extent
from ..program.parts import Attend, Conv, First, Packing, Start, Timestep
from ..program.steps import Program, Step
from .arrays import Whole
from .workspaces import NO_WORKSPACES, Workspaces


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is computed in.

    batch: clips side by side.
    element_bytes: of the dtype that is computed in. statistics_bytes: of the one for statistics.
    far_keys: whether keys that later chunks look back at live away from the device.
    far_weights: whether weights are copied to the device, or to another dtype.
    accelerated: whether it is computed as on an accelerator (see `running.devices`).
    packed: whether kernels are packed, one tap in time after the other (see `running.taps`).
    workspaces: what its libraries allocate.
    """

    batch: int
    element_bytes: int
    statistics_bytes: int
    far_keys: bool = False
    far_weights: bool = False
    accelerated: bool = False
    packed: bool = False
    workspaces: Workspaces = NO_WORKSPACES


def weight_bytes(step: Step, sizes: Sizes, latent_channels: int, apart: bool = False) -> int:
    """Bytes of the weights that are folded and laid out for a step, and copied where they are far.

    latent_channels: what modulation maps are made of. apart: whether a first frame has one of the
        taps in time to itself (see `Step.runs`).
    """
    if isinstance(step.mix, Attend):
        return 0
    kernel = kernel_elements(step)
    # folded ones, sums of taps and joined ones are all there when each is laid out
    summed = step.still and step.mix.start is Start.FIRST
    mix = step.mix
    # rows that lie otherwise are moved, but for those of blocks, which are taken where they lie
    parted = step.phases > 1 and mix.packing is Packing.CHANNELS and not mix.in_blocks
    moved = parted or mix.sees_px > 1 or mix.repeats > 0 or mix.late > 0
    moved = moved or bool(mix.fold or mix.shuffle or mix.beside or mix.statistics)
    made = kernel * (2 if moved or summed else 1)
    of_tap = kernel // step.taps[0]
    if sizes.packed:
        made += of_tap // step.phases * (step.taps[0] > 1)  # what one of them passes through
    elif apart and not mix.shuffle:
        made += of_tap
    if sizes.far_weights:
        made += _originals(step, step.mix, latent_channels)
    return made * sizes.element_bytes


def kernel_elements(step: Step) -> int:
    """Of the weights of all phases of a step, as it uses them; none of an attention."""
    if isinstance(step.mix, Attend):
        return 0
    return step.mix.in_channels * step.mix.out_channels * prod(step.taps) * step.phases


def wave_bytes(mix: Conv | Attend, read: Extent, sizes: Sizes) -> Whole:
    """Bytes in which the waves of what a tile reads are made, where there are any: a copy, what it
    is turned by, and one of them.
    """
    if mix.waves is None:
        return 0
    return sizes.batch * mix.stored_channels * read.voxels * 3 * sizes.statistics_bytes


def frame_statistics_bytes(program: Program, extents: tuple[Extent, ...], sizes: Sizes) -> int:
    """Bytes of the statistics of single frames, of two stores: the one that is normalised by them,
    and the one that they are gathered of. See `running.framewise`.
    """
    norms = ((step.norm, extents[step.src].t) for step in program.steps if step.norm)
    most = max((norm.channels * frames for norm, frames in norms if norm.per_frame), default=0)
    kept = MOST_PARTS if sizes.accelerated else 1
    return 2 * sizes.batch * most * (2 * kept + _FINISHING) * sizes.statistics_bytes


MOST_PARTS = 8
"""Parts of a frame whose statistics are kept side by side (see `running.framewise`)."""

_FINISHING = 6
"""Numbers for each channel of a frame beside those: parts as one, and what is made of them."""


def _originals(step: Step, conv: Conv, latent_channels: int) -> int:
    """Elements of the weights of a step as they are in the network."""
    shortcut = step.residual.shortcut if step.residual else None
    added = shortcut.in_channels * shortcut.out_channels if shortcut else 0
    own = conv.in_channels * conv.out_channels * conv.kernel_t * conv.kernel**2
    own *= 0 if conv.fold else conv.makes_px**2 * (conv.shuffle.frames if conv.shuffle else 1)
    own *= 2 if step.rate.first is First.PICTURE else 1  # rows for pairs of frames are there
    own *= step.frames_made if conv.in_blocks else 1
    told = _told(step.norm.channels, step.norm.timestep) if step.norm else 0
    maps = 2 * latent_channels * step.norm.channels if step.norm and step.norm.modulated else 0
    return own + added + maps + told


def _told(channels: int, timestep: Timestep | None) -> int:
    """Elements of what makes a scale and a shift of a timestep."""
    wide = _TOLD * channels if timestep else 0
    return wide * (wide + _WAVES)


_TOLD, _WAVES = 4, 256
"""Numbers that are made of a timestep for each channel, and those that it is made of first."""
