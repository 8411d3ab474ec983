"""What does a norm come to in one chunk: which affine map, or which work on each voxel?"""

from __future__ import annotations

from ..program.moments import Moments
from ..program.parts import Norm
from . import devices, kernels
from .statistics import Parts, finished
from .weights import Weights


def norm_of(
    norm: Norm, weights: Weights, moments: Moments | Parts | None
) -> kernels.Affine | kernels.VoxelNorm:
    """What a norm does to each element.

    moments: statistics of what it reads; None where a voxel is all that counts.
    """
    if norm.per_voxel:
        return kernels.voxel_norm(norm.eps, *weights.voxel_norm(norm.path))
    assert moments is not None
    return kernels.affine(finished(moments, norm.groups), norm.eps, *weights.affine(norm.path))


def maps_of(norm: Norm | None, weights: Weights) -> tuple[kernels.Kernel, ...] | None:
    """The modulation convolutions of a norm, one on an accelerator; None where it has none."""
    if norm is None or norm.scale_path is None or norm.shift_path is None:
        return None
    maps = weights.conv(norm.scale_path), weights.conv(norm.shift_path)
    return (kernels.joined(*maps),) if devices.accelerates(weights.device) else maps
