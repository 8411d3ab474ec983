"""What is computed inside one tile?

Small functions on tensors [b, c, t, h, w], each with an explicit destination or a result no larger
than a tile. They know nothing of chunks or stores:

1. `affine` turns finished moments and GroupNorm's weights into one scale and shift for each
   channel.
2. `normalise` writes x * scale + shift into a buffer, `modulate` does so with maps at latent
   resolution, and `activate` puts SiLU on all of it.
3. `pool_pairs` and `repeat` write what index maps show.
4. `measure` takes the moments of a result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.grid import cell_runs
from ..geometry.region import Interval, Region
from ..program.moments import Moments
from ..program.parts import Start
from ..program.steps import Step

Kernel = tuple[Tensor, Tensor | None]
"""Weight [out, in, t, h, w] and bias [out] of a convolution."""


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which statistics of `dtype` tensors are accumulated: float32, or float64 for
    float64.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def measure(x: Tensor, groups: int) -> Moments:
    """Moments of x [b, c, t, h, w] over each of `groups` runs of channels; mean and m2 are [b,
    groups].

    Two passes, since a one-pass sum of squares loses its digits where the mean is large. Nothing is
    copied where x is a part of something larger.
    """
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
    mean, variance = _channel_statistics(as_channels, *unused, 0.0)
    return mean, variance * x.shape[0]


_channel_statistics: Callable[..., tuple[Tensor, Tensor]] = torch.batch_norm_update_stats  # pyright: ignore
"""Mean and variance of each channel, and two running ones that it would update."""


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
    repeat = weight.shape[0] // moments.mean.shape[1]
    rstd = torch.rsqrt(moments.variance + eps).repeat_interleave(repeat, dim=1)  # [b, c]
    mean = moments.mean.repeat_interleave(repeat, dim=1)
    scale = rstd * weight
    shift = bias - mean * scale
    return Affine(scale[:, :, None, None, None], shift[:, :, None, None, None])


def modulated(norm: Affine, scale: Tensor, shift: Tensor) -> Affine:
    """(x * norm.scale + norm.shift) * scale + shift as one affine map at the latents' resolution.

    scale, shift: [b, c, t, h, w], the modulation convolutions of the latents.
    """
    wide = scale.to(norm.scale.dtype)
    return Affine(wide * norm.scale, torch.addcmul(shift.to(norm.scale.dtype), wide, norm.shift))


def normalise(x: Tensor, norm: Affine, out: Tensor) -> None:
    """out = x * scale + shift; out [b, c, t, h, w] may be a view of a larger buffer."""
    torch.addcmul(norm.shift, x, norm.scale, out=out)


@dataclass(frozen=True, slots=True)
class VoxelNorm:
    """y = x * sqrt(c) * weight / max(length of x over its channels, eps) + bias.

    weight: [c, 1, 1, 1], sqrt(c) included. bias: the same, None without.
    """

    weight: Tensor
    bias: Tensor | None
    eps: float


def voxel_norm(eps: float, weight: Tensor, bias: Tensor | None) -> VoxelNorm:
    """The norm with parameters [c], in the statistics' dtype."""
    shape = (-1, 1, 1, 1)
    scale = (weight * weight.shape[0] ** 0.5).view(shape)
    return VoxelNorm(scale, None if bias is None else bias.view(shape), eps)


def normalise_voxels(x: Tensor, norm: VoxelNorm, out: Tensor) -> None:
    """out = x normalised, each voxel by itself; out [b, c, t, h, w] may be a view of a larger
    buffer.
    """
    wide = statistics_dtype(x.dtype)
    length = cast("Tensor", torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=wide))
    torch.mul(x, length.clamp_(min=norm.eps).reciprocal_(), out=out)
    out.mul_(norm.weight)
    if norm.bias is not None:
        out.add_(norm.bias)


def activate(x: Tensor) -> None:
    """x = SiLU(x), which leaves zeros alone."""
    F.silu(x, inplace=True)


@dataclass(frozen=True, slots=True)
class Repeats:
    """How elements show the cells of a coarser grid (nearest upsampling).

    frames, px: elements for each cell in time, and along a side.
    keeps_first: whether the first cell in time lasts for one frame only.
    """

    frames: int
    px: int
    keeps_first: bool


def modulate(
    x: Tensor, maps: Affine, where: Region, cells: Region, ratios: Repeats, out: Tensor
) -> None:
    """out = x * scale + shift with maps at latent resolution.

    x, out: the elements `where`; maps: the latent cells `cells`. Columns are gathered, since a
    short innermost dimension is slow; rows and frames are broadcast over the elements of a cell and
    need no gathered copy.
    """
    columns = shown(where.w, cells.w.start, ratios.px, False, x.device)
    scale, shift = (_gathered(m, columns) for m in (maps.scale, maps.shift))
    for t in cell_runs(where.t, ratios.frames, ratios.keeps_first):
        for h in cell_runs(where.h, ratios.px, keeps_first=False):
            box = (..., t.elements.within(where.t), h.elements.within(where.h), slice(None))
            cell = (..., t.cells.within(cells.t), h.cells.within(cells.h), slice(None))
            split = _split(out[box], t.repeat, h.repeat)
            torch.addcmul(
                _broadcast(shift[cell]),
                _split(x[box], t.repeat, h.repeat),
                _broadcast(scale[cell]),
                out=split,
            )


def _gathered(x: Tensor, columns: Tensor) -> Tensor:
    """The columns of x [b, c, t, h, w], laid out as x is."""
    if x.stride(1) == 1:
        return x.permute(0, 2, 3, 4, 1).index_select(3, columns).permute(0, 4, 1, 2, 3)
    return x.index_select(4, columns)


def _split(x: Tensor, frames: int, rows: int) -> Tensor:
    """x [b, c, t, h, w] as a view [b, c, t/frames, frames, h/rows, rows, w]."""
    split = cast("Tensor", x.unflatten(3, (x.shape[3] // rows, rows)))
    return cast("Tensor", split.unflatten(2, (x.shape[2] // frames, frames)))


def _broadcast(x: Tensor) -> Tensor:
    """x [b, c, t, h, w] as [b, c, t, 1, h, 1, w]."""
    return x.unsqueeze(4).unsqueeze(3)


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


@dataclass(frozen=True, slots=True)
class Phase:
    """One of the convolutions that make the outputs of a cell.

    weight: [out, in, t, h, w]. bias: [out] or None.
    frame, row, column: which output of each cell it makes.
    """

    weight: Tensor
    bias: Tensor | None
    frame: int = 0
    row: int = 0
    column: int = 0


def phases(kernel: Kernel, step: Step) -> tuple[Phase, ...]:
    """The convolutions of a step's cell: one, or one for each of the outputs that it unfolds to."""
    weight, bias = kernel
    if step.upscale == 2:
        places = product((0, 1), (0, 1))
        return tuple(Phase(squared(weight, r, c), bias, row=r, column=c) for r, c in places)
    if step.still:
        replicated = step.mix.start is Start.FIRST
        taps = weight.sum(2, keepdim=True) if replicated else weight[:, :, -1:]
        return (Phase(taps, bias),)
    if step.unfolds:
        return tuple(Phase(folded(weight, 2, 1 - f), bias, frame=f) for f in (0, 1))
    if step.rate.up > 1:
        rows = weight.chunk(step.rate.up)
        biases = [None] * len(rows) if bias is None else bias.chunk(step.rate.up)
        return tuple(map(Phase, rows, biases, range(len(rows))))
    return (Phase(weight, bias),)


def folded(weight: Tensor, dim: int, side: int) -> Tensor:
    """Three taps of which two fall on the same element, as two taps along `dim`.

    side 0: (w0, w1 + w2), the element and its predecessor seen by the first of a pair in space, or
    by the second in causal time. side 1: (w0 + w1, w2).
    """
    first, middle, last = weight.unbind(dim)
    pair = (first, middle + last) if side == 0 else (first + middle, last)
    return torch.stack(pair, dim)


_SEEN = (((0,), (1, 2)), ((0, 1), (2,)))
"""For the first and the second of a pair: which of three taps fall on its two elements."""


def squared(weight: Tensor, row: int, column: int) -> Tensor:
    """Nine taps of which some fall on the same element, as the 2x2 that the output at (row, column)
    of a cell sees.

    Sums are rounded once: what is rounded twice shifts whole pictures in 16 bits.
    """
    made = weight.new_empty((*weight.shape[:3], 2, 2))
    for (h, rows), (w, columns) in product(enumerate(_SEEN[row]), enumerate(_SEEN[column])):
        made[..., h, w] = _sum([_sum([weight[..., r, c] for r in rows]) for c in columns])
    return made


def _sum(parts: list[Tensor]) -> Tensor:
    """Their sum, in float32 or wider."""
    first, *others = parts
    return sum(others, first.to(statistics_dtype(first.dtype)))


Strides = tuple[int, int, int]
"""From one output of a convolution to the next, in (frames, rows, columns)."""


def convolve(x: Tensor, phase: Phase, strides: Strides) -> Tensor:
    """The convolution of x [b, c, t, h, w], which holds history and the picture's edge already."""
    if phase.weight.shape[3] == 2:  # of the two neighbours on either side, each phase sees one
        x = x[
            ...,
            phase.row : x.shape[3] - 1 + phase.row,
            phase.column : x.shape[4] - 1 + phase.column,
        ]
    kernel = phase.weight, phase.bias
    if strides[2] == 2 and x.shape[4] == 3 and x.device.type == "cpu":
        # oneDNN's AMX kernels (torch 2.13) give garbage in 16 bits where a strided result is one
        # column wide; of a second column, computed from padding, nothing is kept.
        return convolution(F.pad(x, (0, 2)), kernel, strides)[..., :1]
    return convolution(x, kernel, strides)


def convolution(x: Tensor, kernel: Kernel, strides: Strides = (1, 1, 1)) -> Tensor:
    """x [b, c, t, h, w] convolved, without padding."""
    weight, bias = kernel
    if x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        # torch's own choice for few channels is several times slower, and contiguous in its result
        x = x.contiguous(memory_format=torch.channels_last_3d)
        return _one_dnn(x, weight, bias, (0, 0, 0), strides, (1, 1, 1), 1)
    return F.conv3d(x, weight, bias, stride=strides)


_one_dnn: Callable[..., Tensor] = torch.mkldnn_convolution  # pyright: ignore[reportAttributeAccessIssue]


def frames_of_phase(phase: Phase, target: Tensor, first: int, made: int) -> tuple[int, Tensor]:
    """How many leading frames of a phase's result do not count, and where the others go in
    `target`, for one of the `made` frames of a cell.

    first: the frame of the clip, below 0 where it is none, that phase 0 of the first cell makes;
    target begins at the first frame that there is.
    """
    start = phase.frame + min(first, 0)
    skipped = int(start < 0)
    return skipped, target[:, :, start + made * skipped :: made]


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


def zero_outside(buffer: Tensor, inside: Region, whole: Region) -> None:
    """Zeros in `buffer`, which holds `whole`, left and right of and above and below `inside`."""
    _, h, w = inside.within(whole)
    buffer[:, :, :, : h.start].zero_()
    buffer[:, :, :, h.stop :].zero_()
    buffer[:, :, :, h, : w.start].zero_()
    buffer[:, :, :, h, w.stop :].zero_()
