"""How does a processor convolve? One tap in time after the other, in float32.

1. `packed` puts the weights of each tap in the order in which oneDNN's kernels read them, which
   these would do otherwise for every tile; a tap that sees nothing but zeros is never asked for.
2. `Taps.convolve` adds up what the taps make of the frames that they see. That is quicker than
   oneDNN's own convolutions in three dimensions, and frames that are not of the clip cost next to
   nothing: zeros before it are left out, and a frame that is repeated is convolved once.

Elsewhere, and in other dtypes, kernels stay tensors (see `kernels.convolution`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes  # pyright: ignore

from ..geometry.region import Extent
from . import devices
from .convolutions import Strides, lies_channels_last
from .graphs import outside_graphs
from .stores import Room

_LAST = torch.channels_last_3d
_ONE_DNN: Any = torch.ops.mkldnn
_EVERY = 1, 1, 1
_NONE = 0, 0, 0


def serve(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether convolutions on a device and in a dtype are computed so."""
    return dtype == torch.float32 and not devices.accelerates(device) and _tried()


@outside_graphs
@functools.cache
def _tried() -> bool:
    """Whether this torch does with oneDNN what is asked of it here. These operations are not among
    those that torch promises to keep.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    with _disable_current_modes(), torch.inference_mode():
        x, weight = (torch.ones(2, 2, 3, 3, 3, device="cpu") for _ in range(2))
        try:
            kernel = packed(weight, Extent(3, 3, 3), _EVERY, Room(x.dtype, x.device))
            made = kernel.convolve(x, None, _EVERY, ALL_THERE)
        except (AttributeError, NotImplementedError, RuntimeError, TypeError):
            return False
        return bool(torch.equal(made, torch.full_like(made, 2 * 27)))


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


class Taps:
    """The weights of a convolution, packed tap by tap when they are first wanted.

    shape: [out, in, t, h, w] of all of them.
    """

    def __init__(self, shape: tuple[int, ...], pack: Callable[[int], Tensor]) -> None:
        """pack: makes one of them, by its place in time."""
        self.shape = shape
        self._pack: Callable[[int], Tensor] | None = pack
        self._packed: dict[int, Tensor] = {}

    def tap(self, at: int) -> Tensor:
        """A tap in time, packed: [out, in, 1, h, w]."""
        if at not in self._packed:
            assert self._pack
            self._packed[at] = self._pack(at)
            if len(self._packed) == self.shape[2]:
                self._pack = None  # what they are made of is not needed any more
        return self._packed[at]

    def complete(self) -> Taps:
        """The same with all of them packed."""
        for at in range(self.shape[2]):
            self.tap(at)
        return self

    @property
    def newest(self) -> Taps:
        """Those of the newest frame alone."""
        last = self.shape[2] - 1
        return Taps((*self.shape[:2], 1, *self.shape[3:]), lambda _: self.tap(last))

    def convolve(self, x: Tensor, bias: Tensor | None, strides: Strides, ends: Ends) -> Tensor:
        """x [b, c, t, h, w] convolved, without padding; channels last.

        ends: what of x is not of the clip.
        """
        x = x.contiguous(memory_format=_LAST)
        made = (x.shape[2] - self.shape[2]) // strides[0] + 1
        ends = ends if strides[0] == 1 or ends.zeros else ALL_THERE
        whole = _seen(x, ends.before, made, strides[0])  # by a tap that sees the clip alone
        if lies_channels_last(whole):
            out = _convolved(whole, self.tap(ends.before), bias, strides)
        else:
            out = self._begun(x, made, bias, strides)
        for clip, its in ((x[b : b + 1], out[b : b + 1]) for b in range(x.shape[0])):
            for tap in range(self.shape[2]):
                if tap != ends.before or not lies_channels_last(whole):
                    self._add(tap, its, clip, strides, ends)
        return out

    def _begun(self, x: Tensor, made: int, bias: Tensor | None, strides: Strides) -> Tensor:
        """The bias everywhere in a result of `made` frames."""
        sides = zip(x.shape[3:], self.shape[3:], strides[1:], strict=True)
        h, w = ((size - kernel) // stride + 1 for size, kernel, stride in sides)
        shape = (x.shape[0], self.shape[0], made, h, w)
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_LAST)
        return out.zero_() if bias is None else out.copy_(bias[None, :, None, None, None])

    def _add(self, at: int, out: Tensor, x: Tensor, strides: Strides, ends: Ends) -> None:
        """out += what a tap makes of x, one clip each."""
        stride, made = strides[0], out.shape[2]
        if ends.zeros:
            skipped = max(-((at - ends.before) // stride), 0)
            if skipped < made:
                seen = x[:, :, at + skipped * stride :]
                _add_steady(out[:, :, skipped:], seen, self.tap(at), strides)
            return
        first, last = ends.before, x.shape[2] - ends.after - 1  # of the clip
        head = min(max(first + 1 - at, 0), made) if at < first else 0
        tail = min(max(at + made - last, 0), made - head) if at + made - 1 > last else 0
        weight = self.tap(at)
        _add_steady(out[:, :, head : made - tail], x[:, :, at + head :], weight, strides)
        for frames, shown in ((out[:, :, :head], first), (out[:, :, made - tail :], last)):
            if frames.shape[2]:
                frames.add_(_convolved(x[:, :, shown : shown + 1], weight, None, strides))


def packed(weight: Tensor, seen: Extent, strides: Strides, room: Room) -> Taps:
    """The taps of a weight [out, in, t, h, w].

    seen: what a tile's convolution reads of one clip; the order of weights is best for that, and
    right for all. room: what each tap passes through where it lies among others, which is quicker.
    """
    of_tap = (*weight.shape[:2], 1, *weight.shape[3:])
    x = 1, weight.shape[1], max(seen.t - weight.shape[2] + 1, 1), seen.h, seen.w

    def pack(at: int) -> Tensor:
        tap = weight.narrow(2, at, 1)
        if weight.shape[2] > 1:
            room.expect(prod(of_tap))
            tap = room.take(of_tap).copy_(tap)
        return _ONE_DNN._reorder_convolution_weight(tap, _NONE, strides, _EVERY, 1, x)

    return Taps(tuple(weight.shape), pack)


def _seen(x: Tensor, first: int, count: int, stride: int) -> Tensor:
    """The frames of x that a tap sees from frame `first` on, for so many results."""
    return x[:, :, first : first + (count - 1) * stride + 1]


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
