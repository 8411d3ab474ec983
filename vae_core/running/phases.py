"""Which convolutions make the outputs of a step's cells?

Where an output sees repeated elements, its taps are folded onto those that there are: so each
output of a cell has a convolution of its own, a phase. An accelerator does those of a square of
2x2 outputs as one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..program.parts import Start
from ..program.steps import Step
from .kernels import Kernel, Strides, convolution


@dataclass(frozen=True, slots=True)
class Phase:
    """One of the convolutions that make the outputs of a cell.

    weight: [out, in, t, h, w]; of a stacked one [4 * out, ...], which makes all outputs of a square
        of 2x2, row by row.
    bias: [out] or None, added by the convolution. shift: [1, out, 1, 1, 1] or None, added to the
        result when it is written.
    frame, row, column: the first output of each cell that it makes. apart: from there to the next
        cell's, in height and width.
    """

    weight: Tensor
    bias: Tensor | None
    frame: int = 0
    row: int = 0
    column: int = 0
    apart: int = 1
    stacked: bool = False
    shift: Tensor | None = None


def phases_of(kernel: Kernel, step: Step) -> tuple[Phase, ...]:
    """The convolutions of a step's cell: one, or one for each of the outputs that it unfolds to."""
    weight, bias = kernel
    if step.upscale == 2:
        rows = [folded(weight, 3, side) for side in (0, 1)]
        return tuple(
            Phase(folded(row, 4, c), bias, row=r, column=c, apart=2)
            for r, row in enumerate(rows)
            for c in (0, 1)
        )
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


def for_accelerator(found: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """The same convolutions as an accelerator likes them: those of a square of 2x2 outputs as one,
    which reads its input once, and the bias that all of them have added when results are written.
    """
    first = found[0]
    if first.apart == 2:
        found = (Phase(torch.cat([phase.weight for phase in found]), first.bias, stacked=True),)
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


def convolve(x: Tensor, phase: Phase, strides: Strides) -> Tensor:
    """The convolution of x [b, c, t, h, w], which holds history and the picture's edge already."""
    if phase.stacked:
        return spread(convolution(x, (phase.weight, None)))
    if phase.apart == 2:  # of the two neighbours on either side, each phase sees one
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
    start = phase.frame + min(first, 0)
    skipped = int(start < 0)
    return skipped, target[:, :, start + made * skipped :: made]
