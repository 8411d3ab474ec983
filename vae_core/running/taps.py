"""How does a processor convolve? One tap in time after the other, in float32.

1. `packed` puts the weights of each tap in the order in which oneDNN's kernels read them, which
   these would do otherwise for every tile.
2. `Taps.convolve` adds up what the taps make of the frames that they see. That is quicker than
   oneDNN's own convolutions in three dimensions, and frames that are not of the clip cost next to
   nothing: zeros before it are left out, and a frame that is repeated is convolved once.

Elsewhere, and in other dtypes, kernels stay tensors (see `kernels.convolution`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..geometry.region import Extent
from .convolutions import Strides, lies_channels_last
from .stores import Room

_LAST = torch.channels_last_3d
_ONE_DNN: Any = torch.ops.mkldnn
_EVERY = 1, 1, 1
_NONE = 0, 0, 0


def serve(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether convolutions on a device and in a dtype are computed so."""
    here = device.type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return here and hasattr(_ONE_DNN, "_convolution_pointwise_")


def packed(weight: Tensor, seen: Extent, strides: Strides, room: Room) -> Taps:
    """The taps of a weight [out, in, t, h, w].

    seen: what a tile's convolution reads of one clip; the order of weights is best for that, and
    right for all. room: what each tap passes through where it lies among others, which is quicker.
    """
    shape = tuple(weight.shape)
    of_tap, frames = (*shape[:2], 1, *shape[3:]), seen.t - shape[2] + 1
    given = _NONE, strides, _EVERY, 1, (1, shape[1], max(frames, 1), seen.h, seen.w)
    apart = shape[2] > 1
    if apart:
        room.expect(prod(of_tap))
    made: list[Tensor] = []
    for at in range(shape[2]):
        tap = weight.narrow(2, at, 1)
        source = room.take(of_tap).copy_(tap) if apart else tap
        made.append(_ONE_DNN._reorder_convolution_weight(source, *given))
    return Taps(shape, tuple(made))


@dataclass(frozen=True, slots=True)
class Ends:
    """Frames of a convolution's input that are not of the clip.

    before, after: how many there are. zeros: whether those before it are zeros. All others repeat
    the frame beside them.
    """

    before: int = 0
    after: int = 0
    zeros: bool = False


ALL_THERE = Ends()


@dataclass(frozen=True, slots=True)
class Taps:
    """The weights of a convolution [out, in, t, h, w], packed.

    shape: of all of them. packed: of each tap in time.
    """

    shape: tuple[int, ...]
    packed: tuple[Tensor, ...]

    @property
    def newest(self) -> Taps:
        """Those of the newest frame alone."""
        return replace(self, shape=(*self.shape[:2], 1, *self.shape[3:]), packed=self.packed[-1:])

    def convolve(self, x: Tensor, bias: Tensor | None, strides: Strides, ends: Ends) -> Tensor:
        """x [b, c, t, h, w] convolved, without padding; channels last.

        ends: what of x is not of the clip.
        """
        x = x.contiguous(memory_format=_LAST)
        made = (x.shape[2] - len(self.packed)) // strides[0] + 1
        ends = ends if strides[0] == 1 or ends.zeros else ALL_THERE
        whole = _seen(x, ends.before, made, strides[0])  # by a tap that sees the clip alone
        if lies_channels_last(whole):
            out = _convolved(whole, self.packed[ends.before], bias, strides)
        else:
            out = self._begun(x, made, bias, strides)
        for clip, its in ((x[b : b + 1], out[b : b + 1]) for b in range(x.shape[0])):
            for tap, weight in enumerate(self.packed):
                if tap != ends.before or not lies_channels_last(whole):
                    _add(its, clip, (tap, weight), strides, ends)
        return out

    def _begun(self, x: Tensor, made: int, bias: Tensor | None, strides: Strides) -> Tensor:
        """The bias everywhere in a result of `made` frames."""
        sides = zip(x.shape[3:], self.shape[3:], strides[1:], strict=True)
        h, w = ((size - kernel) // stride + 1 for size, kernel, stride in sides)
        shape = (x.shape[0], self.shape[0], made, h, w)
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_LAST)
        return out.zero_() if bias is None else out.copy_(bias[None, :, None, None, None])


def _seen(x: Tensor, first: int, count: int, stride: int) -> Tensor:
    """The frames of x that a tap sees from frame `first` on, for so many results."""
    return x[:, :, first : first + (count - 1) * stride + 1]


def _add(out: Tensor, x: Tensor, tap: tuple[int, Tensor], strides: Strides, ends: Ends) -> None:
    """out += what a tap makes of x, one clip each."""
    (at, weight), stride = tap, strides[0]
    if ends.zeros:
        skipped = max(-((at - ends.before) // stride), 0)
        _add_steady(out[:, :, skipped:], x[:, :, at + skipped * stride :], weight, strides)
        return
    first, last = ends.before, x.shape[2] - ends.after - 1  # of the clip
    made = out.shape[2]
    head = min(max(first + 1 - at, 0), made) if at < first else 0
    tail = min(max(at + made - last, 0), made - head) if at + made - 1 > last else 0
    _add_steady(out[:, :, head : made - tail], x[:, :, at + head :], weight, strides)
    for frames, shown in ((out[:, :, :head], first), (out[:, :, made - tail :], last)):
        if frames.shape[2]:
            frames.add_(_convolved(x[:, :, shown : shown + 1], weight, None, strides))


def _add_steady(out: Tensor, x: Tensor, weight: Tensor, strides: Strides) -> None:
    """out += what a tap makes of the first frames of x."""
    if out.shape[2]:
        _accumulate(out, _seen(x, 0, out.shape[2], strides[0]), weight, strides)


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, strides: Strides) -> Tensor:
    given = _NONE, strides, _EVERY, 1
    return _ONE_DNN._convolution_pointwise(x, weight, bias, *given, "none", (), "")


def _accumulate(out: Tensor, x: Tensor, weight: Tensor, strides: Strides) -> None:
    given = _NONE, strides, _EVERY, 1
    added = _ONE_DNN._convolution_pointwise_.binary
    added(out, x, weight, None, *given, "add", 1.0, None, (), "")
