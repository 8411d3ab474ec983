"""Which convolutions make the outputs of a step's cells?

Where an output sees repeated elements, its taps are folded onto those that there are: so each
output of a cell has a convolution of its own, a phase. An accelerator does those of a square of
2x2 outputs as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..program.layouts import Axis, Fold, Packing, Shuffle
from ..program.parts import Attend, Conv, Start
from ..program.steps import Step
from .convolutions import Strides
from .kernels import Kernel, convolution, joined, statistics_dtype
from .taps import ALL_THERE, Ends, Taps
from .weights import Weights


@dataclass(frozen=True, slots=True)
class Phase:
    """One of the convolutions that make the outputs of a cell.

    weight: [out, in, t, h, w]; of a stacked one [4 * out, ...], which makes all outputs of a square
        of 2x2, row by row.
    bias: [out] or None, added by the convolution. shift: [1, out, 1, 1, 1] or None, added to the
        result when it is written.
    frame, row, column: the first output of each cell that it makes. apart: from there to the next
        cell's, in height and width. folded: whether it sees but the neighbours on its side.
    """

    weight: Tensor | Taps
    bias: Tensor | None
    frame: int = 0
    row: int = 0
    column: int = 0
    apart: int = 1
    folded: bool = False
    stacked: bool = False
    shift: Tensor | None = None

    def places(self, made: Tensor) -> Tensor:
        """The places of its outputs among those of all phases [b, c, t, h, w]."""
        if self.apart == 1 or self.stacked:
            return made
        return made[..., self.row :: self.apart, self.column :: self.apart]


def kernel_of(step: Step, weights: Weights) -> Kernel:
    """Weight [out, in, t, h, w] and bias [out] of all that a step's module makes of a place."""
    mix = step.mix
    if isinstance(mix, Attend) or mix.fold:
        return fold_kernel(step, weights.dtype, weights.device)
    kernel = weights.conv(step.path)
    if mix.late:
        kernel = F.pad(kernel[0], (0, 0, 0, 0, 0, mix.late)), kernel[1]
    if mix.statistics:
        kernel = normalised(kernel, *weights.statistics(mix.statistics))
    for path in mix.beside:
        kernel = joined(kernel, weights.conv(path))
    return kernel


def phases_of(kernel: Kernel, step: Step) -> tuple[Phase, ...]:
    """The convolutions of a step's cell: one, or one for each of the outputs that it unfolds to."""
    weight, bias = kernel
    if step.upscale == 2:
        return tuple(
            Phase(squared(seen, sums, (r, c), weight.dtype), bias, f, r, c, apart=2, folded=True)
            for f, seen, sums in _in_time(weight, step)
            for r, c in product((0, 1), (0, 1))
        )
    if step.unfolds:
        return tuple(Phase(folded(weight, 2, 1 - f), bias, frame=f) for f in (0, 1))
    if isinstance(step.mix, Conv) and step.mix.in_blocks:
        rows, biases = _blocks(weight, step), _blocks(bias, step)
    else:
        rows, biases = _runs(*_by_places(weight, bias, step), step)
    if step.still:
        replicated = step.mix.start is Start.FIRST
        rows = [row.sum(2, keepdim=True) if replicated else row[:, :, -1:] for row in rows]
    side = step.side_made
    places = product(range(step.frames_made), range(side), range(side))
    return tuple(
        Phase(row, row_bias, *place, apart=side)
        for row, row_bias, place in zip(rows, biases, places, strict=True)
    )


def tensor_of(phase: Phase) -> Tensor:
    """The weight of a phase that is not packed."""
    assert isinstance(phase.weight, Tensor)
    return phase.weight


def of_picture(found: tuple[Phase, ...], step: Step) -> tuple[Phase, ...]:
    """Those convolutions among all of a step's that make a clip's first frame, a picture by itself.

    step: as it is for that frame alone.
    """
    side = step.side_made
    places = product(range(side), range(side))
    own = found[:: len(found) // step.phases]
    return tuple(
        replace(one, frame=0, row=row, column=column)
        for one, (row, column) in zip(own, places, strict=True)
    )


def _in_time(weight: Tensor, step: Step) -> Iterator[tuple[int, Tensor, tuple[int, ...]]]:
    """The frames that a step makes of one, and for each the taps that it sees by, and of how many
    each is the sum. Where taps are summed, it is in float32 or wider.
    """
    wide = statistics_dtype(weight.dtype)
    if step.still:
        yield 0, weight.sum(2, keepdim=True, dtype=wide), (weight.shape[2],)
    elif step.unfolds:
        for frame in (0, 1):
            yield frame, folded(weight.to(wide), 2, 1 - frame), (2 - frame, 1 + frame)
    else:
        yield 0, weight, (1,) * weight.shape[2]


def _by_places(weight: Tensor, bias: Tensor | None, step: Step) -> Kernel:
    """A kernel [out, in, t, h, w] of single elements, for a module whose channels hold squares of
    them: those that it makes one place after the other.
    """
    mix = step.mix
    assert isinstance(mix, Conv)
    if mix.fold or mix.packing is Packing.PLACES:
        return weight, bias  # which are so
    if mix.repeats:
        weight = torch.cat((weight, weight[-1:].expand(mix.repeats, *weight.shape[1:])))
        bias = None if bias is None else torch.cat((bias, bias[-1:].expand(mix.repeats)))
    if mix.shuffle:
        both = (None if x is None else _in_order(x, step, mix.shuffle) for x in (weight, bias))
        return cast("Kernel", tuple(both))
    if mix.sees_px > 1:
        px = mix.sees_px
        squares = cast(
            "Tensor", weight.unflatten(1, (-1, px, px))
        )  # [out, c, columns, rows, t, h, w]
        weight = squares.permute(0, 1, 4, 5, 3, 6, 2).flatten(5).flatten(3, 4)
    if mix.makes_px > 1:
        px = mix.makes_px
        squares = cast(
            "Tensor", weight.unflatten(0, (-1, px, px))
        )  # [c, columns, rows, in, t, h, w]
        weight = squares.permute(2, 1, 0, 3, 4, 5, 6).flatten(0, 2)
        if bias is not None:
            bias = cast("Tensor", bias.unflatten(0, (-1, px, px))).permute(2, 1, 0).flatten()
    return weight, bias


def _in_order(x: Tensor, step: Step, shuffle: Shuffle) -> Tensor:
    """x [out, ...] of a module, with the results of a place one after the other: by frames, rows
    and columns. Of a lone frame there is one.
    """
    lone = step.rate.up < shuffle.frames
    order, px = shuffle.first if lone else shuffle.order, step.mix.makes_px
    sizes = {Axis.FRAME: shuffle.frames, Axis.ROW: px, Axis.COLUMN: px, Axis.CHANNEL: -1}
    apart = cast("Tensor", x.unflatten(0, [sizes[axis] for axis in order]))
    places = Axis.FRAME, Axis.ROW, Axis.COLUMN, Axis.CHANNEL
    laid = apart.permute(*(order.index(axis) for axis in places), *range(4, apart.ndim))
    return (laid[shuffle.takes] if lone else laid.flatten(0, 1)).flatten(0, 2)


def _runs(weight: Tensor, bias: Tensor | None, step: Step) -> tuple[list[Tensor], Any]:
    """Weights and biases of a step's phases, of rows that lie one phase after the other."""
    runs = weight.shape[0] // step.mix.out_channels
    apart = runs // step.phases  # of a picture the first rows of each place count
    rows = list(weight.chunk(runs)[::apart])
    return rows, [None] * len(rows) if bias is None else bias.chunk(runs)[::apart]


def _blocks(rows: Tensor | None, step: Step) -> Any:
    """The rows [c, ...] of each phase among those of blocks [c * frames * side * side, ...], where
    they lie; of a lone frame those of the last of them.
    """
    side, frames = step.side_made, step.frames_made
    places = product(range(frames), range(side), range(side))
    if rows is None:
        return [None] * step.phases
    blocks = cast("Tensor", rows.unflatten(0, (step.mix.out_channels, -1, side, side)))
    blocks = blocks[:, -frames:]
    found = [blocks[:, f, r, c] for f, r, c in places]
    return found if rows.ndim > 1 else [one.contiguous() for one in found]


def normalised(kernel: Kernel, mean: Tensor, std: Tensor) -> Kernel:
    """A kernel whose results are moments of latents [2 * c, ...], for latents with `mean` taken
    away and divided by `std` [c]; its last channel stands for all variances without rows.
    """
    weight, bias = kernel
    missing = 2 * len(mean) - len(weight)
    rows = torch.cat((weight, weight[-1:].expand(missing, *weight.shape[1:])))
    wide = mean.new_zeros(len(rows)) if bias is None else bias.to(mean.dtype)
    wide = torch.cat((wide, wide[-1:].expand(len(rows) - len(wide))))
    scale = torch.cat((1 / std, torch.ones_like(std)))
    shift = torch.cat((-mean / std, -2 * std.log()))
    scaled = rows.to(mean.dtype) * scale.view(-1, 1, 1, 1, 1)
    return scaled.to(weight.dtype), (wide * scale + shift).to(weight.dtype)


def fold_kernel(step: Step, dtype: torch.dtype, device: torch.device) -> Kernel:
    """The kernel [out, in, t, h, w] of a step without weights, which `Fold` describes."""
    mix = step.mix
    fold = mix.fold
    assert fold
    wide, narrow = mix.in_channels, mix.out_channels
    if fold.spreads:
        wide, narrow = narrow, wide
    shape = (fold.frames, fold.side, fold.side)
    by_channels = fold.packing is Packing.CHANNELS
    of = torch.zeros(wide * prod(shape), narrow, dtype=dtype, device=device)
    of = _joined(of, in_turn=fold.in_turn)
    of = of.view(wide, *shape, narrow) if by_channels else of.view(*shape, wide, narrow)
    of = of if by_channels else of.movedim(3, 0)  # [wide, frames, side, side, narrow]
    if not fold.spreads:
        run = max(wide * prod(shape) // narrow, 1)
        return of.mul_(1.0 / run).permute(4, 0, 1, 2, 3), None
    rows = of[:, -step.rate.up :]  # of a lone frame the last of them
    return rows.permute(1, 2, 3, 0, 4).reshape(-1, narrow, 1, 1, 1), None


def _joined(of: Tensor, *, in_turn: bool) -> Tensor:
    """`of` [elements, channels], zeros, with ones where an element belongs to a channel.

    Channels have runs of elements, or elements in turn. Where there are more channels, elements
    come again and again.
    """
    elements, channels = of.shape
    if channels > elements and not in_turn:
        laid = torch.arange(channels, device=of.device)[None]
        return of.scatter_(0, laid % elements, 1.0)
    laid = torch.arange(elements, device=of.device)[:, None]
    return of.scatter_(1, laid % channels if in_turn else laid // (elements // channels), 1.0)


def add_spread(result: Tensor, added: Tensor, fold: Fold, phase: Phase) -> None:
    """result += what `fold`, which spreads place by place, makes of `added` at the places of a
    phase. Both are [b, c, t, h, w], of as many cells.
    """
    run = added.shape[1] // (fold.frames * fold.side**2)
    place = (phase.frame * fold.side + phase.row) * fold.side + phase.column
    part = added.narrow(1, place * run, run)
    split = cast("Tensor", result.unflatten(1, (run, -1)))  # [b, run, repeats, t, h, w]
    split.add_(part.unsqueeze(2))


def for_accelerator(found: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """The same convolutions as an accelerator likes them: those of a square of 2x2 outputs as one,
    which reads its input once, and the bias that all of them have added when results are written.
    """
    first = found[0]
    if first.folded:
        frames = [found[start : start + 4] for start in range(0, len(found), 4)]
        found = tuple(
            Phase(torch.cat([tensor_of(one) for one in square]), first.bias, frame, stacked=True)
            for frame, square in enumerate(frames)
        )
    if first.bias is None or any(phase.bias is not first.bias for phase in found):
        return found
    shift = first.bias[None, :, None, None, None]
    return tuple(replace(phase, bias=None, shift=shift) for phase in found)


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


def squared(
    weight: Tensor, sums: tuple[int, ...], place: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    """Nine taps of which some fall on the same element, as the 2x2 that the output at that row and
    column of a cell sees, in `dtype`. sums: of how many taps each of those in time is the sum.

    What rounding takes from one sum is given to the next, and in the end to the smallest: the taps
    together stay what they were, and so does what a smooth picture becomes. The module's own taps
    are not rounded at all, so that sums rounded each by itself would be further off than they are.
    """
    made = weight.new_empty((*weight.shape[:3], 2, 2), dtype=dtype)
    left = None
    for t, (h, rows), (w, columns) in _largest_first(sums, place):
        tap = _sum([_sum([weight[:, :, t, r, c] for r in rows]) for c in columns])
        tap = tap if left is None else tap + left
        made[:, :, t, h, w] = tap
        left = tap - made[:, :, t, h, w]
    return made


_Tap = tuple[int, tuple[int, tuple[int, ...]], tuple[int, tuple[int, ...]]]


def _largest_first(sums: tuple[int, ...], place: tuple[int, int]) -> list[_Tap]:
    """Each of the taps at a place: its frame; its row, and which rows fall on it; so for columns.
    Those that are sums of the most taps come first.
    """
    row, column = place
    taps = product(range(len(sums)), enumerate(_SEEN[row]), enumerate(_SEEN[column]))
    return sorted(taps, key=lambda tap: -sums[tap[0]] * len(tap[1][1]) * len(tap[2][1]))


def _sum(parts: list[Tensor]) -> Tensor:
    """Their sum, in float32 or wider."""
    first, *others = parts
    return sum(others, first.to(statistics_dtype(first.dtype)))


def convolve(x: Tensor, phase: Phase, strides: Strides, ends: Ends = ALL_THERE) -> Tensor:
    """The convolution of x [b, c, t, h, w], which holds history and the picture's edge already.

    ends: frames of x that are not of the clip.
    """
    if phase.stacked:
        return spread(convolution(x, (phase.weight, None)))
    if phase.folded:  # of the two neighbours on either side, each phase sees one
        x = x[
            ...,
            phase.row : x.shape[3] - 1 + phase.row,
            phase.column : x.shape[4] - 1 + phase.column,
        ]
    kernel = phase.weight, phase.bias
    one_column = x.shape[4] == phase.weight.shape[4]
    if strides[2] > 1 and one_column and x.device.type == "cpu":
        # oneDNN's AMX kernels (torch 2.13) give garbage in 16 bits where a strided result is one
        # column wide; of a second column, computed from padding, nothing is kept.
        return convolution(F.pad(x, (0, strides[2])), kernel, strides, ends)[..., :1]
    return convolution(x, kernel, strides, ends)


def spread(stacked: Tensor) -> Tensor:
    """The outputs [b, c, t, 2 * h, 2 * w] of squares of 2x2 that lie side by side in the channels
    of stacked [b, 4 * c, t, h + 1, w + 1], where the second of a pair is one place further on.
    """
    b, channels, t, h, w = stacked.shape
    c, (to_b, _, to_t, to_h, to_w) = channels // 4, stacked.stride()
    squares = stacked.as_strided(  # [b, t, h - 1, 2, w - 1, 2, c]
        (b, t, h - 1, 2, w - 1, 2, c), (to_b, to_t, to_h, to_h + 2 * c, to_w, to_w + c, 1)
    )
    made = squares.contiguous().view(b, t, 2 * (h - 1), 2 * (w - 1), c)
    return made.permute(0, 4, 1, 2, 3)


def frames_of_phase(phase: Phase, target: Tensor, first: int, made: int) -> tuple[int, Tensor]:
    """How many leading frames of a phase's result do not count, and where the others go in
    `target`, for one of the `made` frames of a cell.

    first: the frame of the clip, below 0 where it is none, that phase 0 of the first cell makes;
    target begins at the first frame that there is.
    """
    skipped, frames = numbers_of_phase(phase, first, made)
    return skipped, target if made == 1 else target[:, :, frames]


def numbers_of_phase(phase: Phase, first: int, made: int) -> tuple[int, slice]:
    """How many leading frames of a phase's result do not count, and which of a tile's frames the
    others are; see `frames_of_phase`.
    """
    start = phase.frame + min(first, 0) if made > 1 else 0
    skipped = int(start < 0)
    return skipped, slice(start + made * skipped, None, made)
