"""Is what a tile is made of, beside its convolutions, right on a device?

Some backends write nothing, or the wrong elements, where the result is a part of a larger tensor,
or lies with its channels last, and say nothing of it. Each of the engine's own kernels is run once
on such tensors and compared with the same in float32 on the processor.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..geometry.region import Interval
from . import kernels
from .attention import attend
from .cards import Card
from .phases import spread
from .recovery import is_out_of_memory
from .statistics import finished
from .tolerance import distance, tolerance
from .windows import Piece

_SHAPE = (1, 32, 4, 18, 24)
_PIECES = (
    Piece(
        (..., slice(0, 4), slice(0, 18), slice(None)),
        (..., slice(0, 1), None, slice(0, 9), None, slice(None)),
        (1, 4, 9, 2, 24),
    ),
)
"""All elements of it, under cells of four frames and two rows each."""


def wrong_operations(card: Card, dtype: torch.dtype) -> list[str]:
    """What is wrong there, in words; what the device refuses is."""
    wide = kernels.statistics_dtype(dtype)
    x = _numbers(_SHAPE).to(dtype)
    found: list[str] = []
    for name, run in OPERATIONS.items():
        wanted = run(_laid_out(x.to(wide), torch.device("cpu")))
        try:
            got = run(_laid_out(x, card.device)).cpu()
        except Exception as error:
            if is_out_of_memory(error):
                raise
            found.append(name)
            continue
        if distance(got, wanted) > tolerance(dtype):
            found.append(name)
    return found


def _numbers(shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.randn(shape, generator=generator, device="cpu")


def _laid_out(x: Tensor, device: torch.device) -> Tensor:
    return x.to(device).contiguous(memory_format=torch.channels_last_3d)


def _inner(x: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor of zeros larger than x, and the part of it that x would fill."""
    b, c, t, h, w = x.shape
    whole = _laid_out(x.new_zeros((b, c, t + 2, h + 2, w + 2)), x.device)
    return whole, whole[:, :, 2:, 1:-1, 1:-1]


def _by_channel(x: Tensor, seed: int) -> Tensor:
    """[1, c, 1, 1, 1] of the statistics' dtype, beside x."""
    generator = torch.Generator("cpu").manual_seed(seed)
    made = torch.rand(1, x.shape[1], 1, 1, 1, generator=generator, device="cpu") + 0.5
    return made.to(x.device, kernels.statistics_dtype(x.dtype))


def _normalised(x: Tensor) -> Tensor:
    whole, part = _inner(x)
    kernels.normalise(x, kernels.Affine(_by_channel(x, 1), _by_channel(x, 2)), part)
    kernels.activate(whole[:, :, 2:])
    return whole


def _normalised_by_voxel(x: Tensor) -> Tensor:
    whole, part = _inner(x)
    weight, bias = (_by_channel(x, seed).flatten() for seed in (1, 2))
    kernels.normalise_voxels(x, kernels.voxel_norm(1e-12, weight, bias), part)
    return whole


def _modulated(x: Tensor) -> Tensor:
    whole, part = _inner(x)
    wide = kernels.statistics_dtype(x.dtype)
    coarse = _laid_out(x[:, :, :1, :9, :12].to(wide), x.device)
    columns = kernels.shown(Interval(0, 24), 0, 2, False, x.device)
    scale, shift = (kernels.gathered(one, columns) for one in (coarse, coarse + 1))
    kernels.modulate(x, kernels.Affine(scale, shift), _PIECES, part)
    return whole


def _pooled(x: Tensor) -> Tensor:
    whole, part = _inner(x)
    kernels.pool_pairs(x, False, part[:, :, :2])
    return whole


def _repeated(x: Tensor) -> Tensor:
    whole, part = _inner(x)
    frames = kernels.shown(Interval(0, 4), 0, 2, False, x.device)
    part.copy_(x.index_select(2, frames))
    return whole


def _scattered(x: Tensor) -> Tensor:
    whole = _laid_out(x.new_zeros((*x.shape[:3], 2 * x.shape[3], 2 * x.shape[4])), x.device)
    whole[..., 1::2, ::2].copy_(x)
    whole[..., ::2, 1::2].add_(x)
    return whole


def _spread(x: Tensor) -> Tensor:
    return spread(x)


def _statistics(x: Tensor) -> Tensor:
    moments = finished(kernels.measure(x, 8), 8)
    return torch.cat((moments.mean, moments.variance))


def _attended(x: Tensor) -> Tensor:
    queries, keys, values = (x[:, :8, frame : frame + 1] for frame in range(3))
    both = torch.cat((keys, values), 1)
    blocks = (both[:, :, :, rows : rows + 9] for rows in (0, 9))
    return attend(queries, blocks, kernels.statistics_dtype(x.dtype))


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "norms": _normalised,
    "norms of voxels": _normalised_by_voxel,
    "modulation": _modulated,
    "means of pairs of frames": _pooled,
    "repeated frames": _repeated,
    "copies into parts of tensors": _scattered,
    "upsampling": _spread,
    "statistics": _statistics,
    "attention": _attended,
}
"""What a tile is made of, on x [1, c, t, h, w], by what a person calls it."""
