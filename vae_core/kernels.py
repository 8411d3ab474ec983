"""What is computed inside one tile?

Small functions on tensors [b, c, t, h, w], each with an explicit destination or a result no larger
than a tile. They know nothing of chunks, stores or programs:

1. `affine` turns finished moments and GroupNorm's weights into one scale and shift for each
   channel.
2. `normalise` writes SiLU(x * scale + shift) into a buffer; `modulate` does so with maps at latent
   resolution.
3. `pool_pairs` and `repeat` write what index maps show.
4. `measure` takes the moments of a result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .grid import cell_runs
from .moments import Moments
from .region import Interval, Region


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which statistics of `dtype` tensors are accumulated: float32, or float64 for
    float64.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def measure(x: Tensor, groups: int) -> Moments:
    """Moments of x [b, c, t, h, w] over each of `groups` runs of channels; mean and m2 are [b,
    groups].

    Two passes, since a one-pass sum of squares loses its digits where the mean is large.
    """
    dtype = statistics_dtype(x.dtype)
    flat = x.reshape(x.shape[0], groups, -1)  # [b, groups, voxels]
    mean = flat.mean(dim=-1, dtype=dtype)
    centred = torch.sub(flat, mean.unsqueeze(-1))
    norm: Tensor = torch.linalg.vector_norm(centred, dim=-1)
    return Moments(flat.shape[-1], mean, norm.square())


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
    """out = SiLU(x * scale + shift); out [b, c, t, h, w] may be a view of a larger buffer."""
    torch.addcmul(norm.shift, x, norm.scale, out=out)
    F.silu(out, inplace=True)


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
    """out = SiLU(x * scale + shift) with maps at latent resolution.

    x, out: the elements `where`; maps: the latent cells `cells`. Columns are gathered, since a
    short innermost dimension is slow; rows and frames are broadcast over the elements of a cell and
    need no gathered copy.
    """
    columns = shown(where.w, cells.w.start, ratios.px, False, x.device)
    scale, shift = (m.index_select(4, columns) for m in (maps.scale, maps.shift))
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
    F.silu(out, inplace=True)


def _split(x: Tensor, frames: int, rows: int) -> Tensor:
    """x [b, c, t, h, w] as a view [b, c, t/frames, frames, h/rows, rows, w]."""
    return x.unflatten(3, (x.shape[3] // rows, rows)).unflatten(2, (x.shape[2] // frames, frames))


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


def repeat(x: Tensor, source: Region, seen: Region, ratios: Repeats, out: Tensor) -> None:
    """out, the elements `seen`, shows x, the elements `source`, by nearest upsampling."""
    if ratios.frames > 1:
        x = x.index_select(
            2, shown(seen.t, source.t.start, ratios.frames, ratios.keeps_first, x.device)
        )
    x = x.index_select(3, shown(seen.h, source.h.start, ratios.px, False, x.device))
    out.copy_(x.index_select(4, shown(seen.w, source.w.start, ratios.px, False, x.device)))


def zero_outside(buffer: Tensor, inside: Region, whole: Region) -> None:
    """Zeros in `buffer`, which holds `whole`, left and right of and above and below `inside`."""
    _, h, w = inside.within(whole)
    buffer[:, :, :, : h.start].zero_()
    buffer[:, :, :, h.stop :].zero_()
    buffer[:, :, :, h, : w.start].zero_()
    buffer[:, :, :, h, w.stop :].zero_()
