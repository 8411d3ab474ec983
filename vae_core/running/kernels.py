"""What is computed inside one tile?

Small functions on tensors [b, c, t, h, w], each with an explicit destination or a result no larger
than a tile. They know nothing of chunks or stores:

1. `affine` turns finished moments and GroupNorm's weights into one scale and shift for each
   channel.
2. `normalise` writes x * scale + shift into a buffer, `modulate` does so with maps at latent
   resolution, and `activate` puts SiLU on all of it.
3. `pool_pairs` and `repeat` write what index maps show.
4. `convolution` convolves what has been put together so; `measure` takes the moments of a result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.grid import cell_runs
from ..geometry.region import Interval
from ..planning.norm_bytes import rows_at_once
from ..program.moments import Moments
from ..program.parts import Form, Waves
from . import devices
from .convolutions import Strides, on_accelerator
from .statistics import Parts, channel_statistics, measured
from .taps import ALL_THERE, Ends, Taps
from .windows import Piece, Place

Kernel = tuple[Tensor, Tensor | None]
"""Weight [out, in, t, h, w] and bias [out] of a convolution."""


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which statistics of `dtype` tensors are accumulated: float32, or float64 for
    float64.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def measure(x: Tensor, groups: int, shift: Tensor | None = None) -> Moments | Parts:
    """Moments of x [b, c, t, h, w] over each of `groups` runs of channels; mean and m2 are [b,
    groups].

    shift: [1, c, 1, 1, 1], what is added to x afterwards. Where no kernel does it in one pass there
    are two, since a one-pass sum of squares loses its digits where the mean is large. Nothing is
    copied where x is a part of something larger.
    """
    if devices.accelerates(x.device) and devices.has_statistics(x.device.type):
        return measured(x, shift)
    if shift is not None:
        x = x + shift
    if x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last_3d):
        return _measured_by_columns(x, groups)
    grouped = cast("Tensor", x.unflatten(1, (groups, -1)))  # [b, groups, c / groups, t, h, w]
    mean = grouped.mean(dim=_WITHIN_GROUP, dtype=statistics_dtype(x.dtype), keepdim=True)
    distance = cast("Tensor", torch.linalg.vector_norm(grouped - mean, dim=_WITHIN_GROUP))
    return Moments(x[0].numel() // groups, mean.flatten(1), distance.square())


_WITHIN_GROUP = (2, 3, 4, 5)


def _measured_by_columns(x: Tensor, groups: int) -> Moments:
    """`measure` where channels lie side by side, [b, t, h, w, c] in memory.

    Each column of each channel has moments of its own over t and h, in one pass over whole rows of
    memory that needs no copy; they are then merged. So sums stay short, and keep their digits.
    """
    b, c, t, h, w = x.shape
    lanes = x.permute(0, 2, 3, 4, 1).reshape(b, t * h, w * c).to(statistics_dtype(x.dtype))
    found = [_over_rows(one) for one in lanes]
    mean, m2 = (torch.stack(part).view(b, w, groups, -1) for part in zip(*found, strict=True))
    merged = mean.mean((1, 3))  # [b, groups]
    apart = (mean - merged[:, None, :, None]).square().sum((1, 3))
    return Moments(x[0].numel() // groups, merged, m2.sum((1, 3)) + apart * (t * h))


def _over_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and summed squares of the distances from it, [n], over the rows of x [rows, n]."""
    as_channels = x.t()[None, :, :, None]  # [1, n, rows, 1], channels last
    unused = torch.zeros(2, x.shape[1], dtype=x.dtype, device=x.device)
    mean, variance = channel_statistics(as_channels, *unused, 0.0)
    return mean, variance * x.shape[0]


@dataclass(frozen=True, slots=True)
class Affine:
    """y = x * scale + shift.

    scale, shift: [b, c, 1, 1, 1] for the same in all voxels, or [b, c, t, h, w] maps at latent
        resolution.
    """

    scale: Tensor
    shift: Tensor


def affine(moments: Moments, eps: float, weight: Tensor, bias: Tensor) -> Affine:
    """GroupNorm with finished `moments` as one multiplication and addition for each channel.

    weight, bias: [c], in the statistics' dtype.
    """
    return Affine(*(x[..., None, None, None] for x in _line(moments, eps, weight, bias)))


def _line(moments: Moments, eps: float, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift [..., c] of moments [..., groups]."""
    groups = moments.mean.shape[-1]
    rstd, mean = torch.rsqrt(moments.variance + eps), moments.mean
    scale = rstd.unsqueeze(-1) * weight.view(groups, -1)  # [..., groups, c / groups]
    shift = bias.view(groups, -1) - mean.unsqueeze(-1) * scale
    return scale.flatten(-2), shift.flatten(-2)


@dataclass(frozen=True, slots=True)
class FrameAffine:
    """y = x * scale + shift, with numbers of each frame's own.

    scale, shift: [b, c, t, 1, 1], of all frames of a store.
    """

    scale: Tensor
    shift: Tensor

    def of(self, frames: Interval) -> Affine:
        """What becomes of those frames."""
        part = slice(frames.start, frames.stop)
        return Affine(self.scale[:, :, part], self.shift[:, :, part])


def frame_affine(moments: Moments, eps: float, weight: Tensor, bias: Tensor) -> FrameAffine:
    """As `affine`, where moments are [b, t, groups]."""
    line = _line(moments, eps, weight, bias)  # [b, t, c] each
    return FrameAffine(*(x.transpose(1, 2)[..., None, None] for x in line))


def modulated(norm: Affine, scale: Tensor, shift: Tensor) -> Affine:
    """(x * norm.scale + norm.shift) * scale + shift as one affine map at the latents' resolution.

    scale, shift: [b, c, t, h, w], the modulation convolutions of the latents.
    """
    wide = scale.to(norm.scale.dtype)
    return Affine(wide * norm.scale, torch.addcmul(shift.to(norm.scale.dtype), wide, norm.shift))


def modulated_together(norm: Affine, latents: Tensor, maps: Kernel) -> Tensor:
    """The scale and the shift of `modulated`, [b, 2 * c, t, h, w], one after the other.

    maps: of both modulation convolutions, likewise.
    """
    both = convolution(latents, maps).to(norm.scale.dtype)
    scale, shift = both.chunk(2, 1)
    shift.addcmul_(scale, norm.shift)
    scale.mul_(norm.scale)
    return both


@dataclass(frozen=True, slots=True)
class VoxelNorm:
    """y = x / size * weight + bias, where the size of a voxel is what its `Form` says.

    weight: [c, 1, 1, 1], sqrt(c) included where the size is a length; None for ones.
    bias: the same, None without.
    """

    weight: Tensor | None
    bias: Tensor | None
    eps: float
    form: Form = Form.L2


def voxel_norm(
    eps: float, weight: Tensor | None, bias: Tensor | None, form: Form = Form.L2
) -> VoxelNorm:
    """The norm with parameters [c], in the statistics' dtype."""
    if form is Form.L2 and weight is not None:
        weight = weight * weight.shape[0] ** 0.5
    scale, shift = (None if one is None else one.view(-1, 1, 1, 1) for one in (weight, bias))
    return VoxelNorm(scale, shift, eps, form)


def normalise(x: Tensor, norm: Affine | VoxelNorm, out: Tensor) -> None:
    """out = x normalised; out [b, c, t, h, w] may be a view of a larger buffer."""
    if isinstance(norm, VoxelNorm):
        normalise_voxels(x, norm, out)
    else:
        torch.addcmul(norm.shift, x, norm.scale, out=out)


def normalise_and_activate(x: Tensor, norm: Affine | VoxelNorm, out: Tensor) -> None:
    """out = SiLU of x normalised, which is rounded once: it is made in float32, a few rows at a
    time.
    """
    b, c, t, h, w = x.shape
    rows = rows_at_once(b * c * t * w, accelerated=devices.accelerates(x.device))
    for start in range(0, h, rows):
        part = (..., slice(start, start + rows), slice(None))
        wide = x[part].to(statistics_dtype(out.dtype))
        normalise(wide, norm, wide)
        activate(wide)
        out[part].copy_(wide)
        del wide  # before there are the next rows


def normalise_voxels(x: Tensor, norm: VoxelNorm, out: Tensor) -> None:
    """out = x normalised, each voxel by itself; out [b, c, t, h, w] may be a view of a larger
    buffer.
    """
    if norm.form is Form.NONE:
        out.copy_(x)
    elif norm.form is Form.LAYER:
        mean = x.mean(1, keepdim=True, dtype=statistics_dtype(x.dtype))
        torch.sub(x, mean, out=out)
        out.mul_(_inverse_size(out, norm))
    else:
        torch.mul(x, _inverse_size(x, norm), out=out)
    if norm.weight is not None:
        out.mul_(norm.weight)
    if norm.bias is not None:
        out.add_(norm.bias)


def _inverse_size(x: Tensor, norm: VoxelNorm) -> Tensor:
    """What each voxel is multiplied by, [b, 1, t, h, w], in the statistics' dtype."""
    wide = statistics_dtype(x.dtype)
    length = cast("Tensor", torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=wide))
    if norm.form is Form.L2:
        return length.clamp_(min=norm.eps).reciprocal_()
    return length.square_().div_(x.shape[1]).add_(norm.eps).rsqrt_()


def wave(out: Tensor, waves: Waves) -> None:
    """Fill the channels of out [b, c * waves.channels, t, h, w] behind its first c with the sines
    and cosines of these.

    All is computed in float32 or wider: times 800, what 16 bits round off turns a wave around.
    """
    channels = out.shape[1] // waves.channels
    wide = out[:, :channels].to(statistics_dtype(out.dtype))
    powers = range(waves.start, waves.stop)
    for at, power in enumerate(powers):
        turned = wide * (2.0**power * (2 * math.pi))
        for part, function in enumerate((torch.sin, torch.cos)):
            first = channels * (1 + part * len(powers)) + at
            out[:, first : first + channels * len(powers) : len(powers)].copy_(function(turned))


def activate(x: Tensor) -> None:
    """x = SiLU(x), which leaves zeros alone."""
    F.silu(x, inplace=True)


def surround(buffer: Tensor, inside: Place, mirrors: Iterable[tuple[Place, Place]]) -> None:
    """Fill what lies beyond the picture: each of `mirrors` is a line and the one that it shows;
    where there are none, with what lies outermost.
    """
    if not mirrors:
        replicate(buffer, inside)
    for line, shown in mirrors:
        buffer[line].copy_(buffer[shown])


def replicate(x: Tensor, inside: Place) -> None:
    """Repeat the outermost columns, then rows, of what lies `inside` x [b, c, t, h, w] up to its
    edges, in all of its frames.
    """
    *_, h, w = inside
    for dim, side in ((4, w), (3, h)):
        ends = ((0, side.start, side.start), (side.stop, x.shape[dim], side.stop - 1))
        for start, stop, outermost in ends:
            if start < stop:
                beyond = x.narrow(dim, start, stop - start)
                beyond.copy_(x.narrow(dim, outermost, 1).expand_as(beyond))


def modulate(x: Tensor, maps: Affine, pieces: Iterable[Piece], out: Tensor) -> None:
    """out = x * scale + shift with maps of latent cells whose columns have been `gathered`.

    A short innermost dimension is slow; rows and frames are broadcast over the elements of a cell
    and need no gathered copy. pieces: all elements of x and out.
    """
    b, c = x.shape[:2]
    for piece in pieces:
        shape = (b, c, *piece.sizes)  # [b, c, cells, frames, cells, rows, columns]
        torch.addcmul(
            maps.shift[piece.cells],
            x[piece.elements].view(shape),
            maps.scale[piece.cells],
            out=out[piece.elements].view(shape),
        )


def gathered(x: Tensor, columns: Tensor) -> Tensor:
    """The columns of x [b, c, t, h, w], laid out as x is."""
    if x.stride(1) == 1:
        return x.permute(0, 2, 3, 4, 1).index_select(3, columns).permute(0, 4, 1, 2, 3)
    return x.index_select(4, columns)


def pool_pairs(x: Tensor, keeps_first: bool, out: Tensor) -> None:
    """out = means of neighbouring frames of x; its first frame is copied where `keeps_first`."""
    if keeps_first:
        out[:, :, :1].copy_(x[:, :, :1])
        x, out = x[:, :, 1:], out[:, :, 1:]
    if out.shape[2]:
        torch.mul(x[:, :, 0::2], 0.5, out=out)  # halved before the sum, which then cannot overflow
        out.add_(x[:, :, 1::2], alpha=0.5)


def shown(
    elements: Interval, first_cell: int, ratio: int, keeps_first: bool, device: torch.device
) -> Tensor:
    """For each of `elements` the place of the cell that it shows, counted from `first_cell`; int64
    on `device`.
    """
    offset = ratio - 1 if keeps_first else 0
    index = torch.arange(elements.start + offset, elements.stop + offset, device=device)
    return index.div(ratio, rounding_mode="floor") - first_cell


def joined(one: Kernel, other: Kernel) -> Kernel:
    """Both convolutions as one, their results side by side."""
    (weight, bias), (beside, its_bias) = one, other
    weights = torch.cat((weight, beside))
    if bias is None or its_bias is None:
        assert bias is its_bias
        return weights, None
    return weights, torch.cat((bias, its_bias))


def convolution(
    x: Tensor,
    kernel: tuple[Tensor | Taps, Tensor | None],
    strides: Strides = (1, 1, 1),
    ends: Ends = ALL_THERE,
) -> Tensor:
    """x [b, c, t, h, w] convolved, without padding.

    ends: what of x is known not to be of the clip.
    """
    weight, bias = kernel
    if isinstance(weight, Taps):
        return weight.convolve(x, bias, strides, ends)
    if devices.accelerates(x.device):
        return on_accelerator(x, weight, bias, strides)
    if x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        # torch's own choice for few channels is several times slower, and contiguous in its result
        x = x.contiguous(memory_format=torch.channels_last_3d)
        return _one_dnn(x, weight, bias, (0, 0, 0), strides, (1, 1, 1), 1)
    return F.conv3d(x, weight, bias, stride=strides)


_one_dnn: Callable[..., Tensor] = torch.mkldnn_convolution  # pyright: ignore[reportAttributeAccessIssue]


def add_pairs(
    result: Tensor, added: Tensor, frames: Interval, unique: Interval, keeps_first: bool
) -> None:
    """result, the frames `frames`, += added, whose frames `unique` are each shown twice."""
    for run in cell_runs(frames, 2, keeps_first):
        part = result[:, :, run.elements.within(frames)]
        split = cast("Tensor", part.unflatten(2, (run.cells.size, run.repeat)))
        split.add_(added[:, :, run.cells.within(unique)].unsqueeze(3))


def extend(x: Tensor, out: Tensor) -> None:
    """out = x, whose last frame, row and column are repeated as far as out goes on."""
    t, h, w = x.shape[2:]
    out[:, :, :t, :h, :w].copy_(x)
    for dim, size in ((4, w), (3, h), (2, t)):
        missing = out.shape[dim] - size
        if missing:
            last = out.narrow(dim, size - 1, 1)
            out.narrow(dim, size, missing).copy_(last.expand_as(out.narrow(dim, size, missing)))
