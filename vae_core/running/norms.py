"""What does a norm come to in one chunk: which affine map, or which work on each voxel?"""

from __future__ import annotations

from ..program.parts import Norm
from . import devices, kernels
from .framewise import Gathered, moments_of
from .weights import Weights


def norm_of(
    norm: Norm, weights: Weights, gathered: Gathered | None
) -> kernels.Affine | kernels.FrameAffine | kernels.VoxelNorm:
    """What a norm does to each element.

    gathered: statistics of what it reads; None where a voxel is all that counts.
    """
    if norm.per_voxel:
        return kernels.voxel_norm(norm.eps, *weights.voxel_norm(norm), norm.form)
    assert gathered is not None
    made = kernels.frame_affine if norm.per_frame else kernels.affine
    return made(
        moments_of(gathered, norm.groups, norm.together), norm.eps, *weights.affine(norm.path)
    )


def maps_of(norm: Norm | None, weights: Weights) -> tuple[kernels.Kernel, ...] | None:
    """The modulation convolutions of a norm, one on an accelerator; None where it has none."""
    if norm is None or norm.scale_path is None or norm.shift_path is None:
        return None
    maps = weights.conv(norm.scale_path), weights.conv(norm.shift_path)
    return (kernels.joined(*maps),) if devices.accelerates(weights.device) else maps
