"""What does a run take, whatever machine it would run on?

1. Inside `FakeTensorMode` the device `meta` plays the accelerator, `cpu` the host; nothing is
   computed, so that clips which no machine here could hold can be counted.
2. Every operation passes through `Counter`: live bytes on the device, the operations of every
   convolution, and the bytes that cross between device and host.
3. All sides are counted by the same code, ours and the peers'.

Parameters, which exist before the counting starts, are left out, and so is the workspace of
libraries, which no dispatcher sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from device_bytes import DeviceBytes
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

DEVICE = "meta"

CONVOLUTIONS = frozenset(
    getattr(torch.ops.aten, name)
    for name in ("convolution", "conv1d", "conv2d", "conv3d", "mkldnn_convolution")
)
"""Inference mode hands over `conv3d` whole; elsewhere it arrives as `convolution`."""


def convolution_operations(weight: Tensor, result: Tensor) -> int:
    """Floating point operations of a convolution, an addition and a multiplication being two."""
    return 2 * result.numel() * prod(weight.shape[1:])


@dataclass(frozen=True, slots=True)
class Count:
    """What one run took.

    peak_bytes: on the device, at most. operations: floating point, of convolutions.
    moved_bytes: between device and host, both ways.
    """

    peak_bytes: int
    operations: int
    moved_bytes: int


class Counter(DeviceBytes):
    """Live bytes on the device, operations of convolutions and bytes moved, inside the block."""

    def __init__(self) -> None:
        super().__init__(DEVICE)
        self.operations = self.moved_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if func.overloadpacket in CONVOLUTIONS:
            self.operations += convolution_operations(args[1], out)
        elif isinstance(out, Tensor) and args and isinstance(args[0], Tensor):
            self._move(func, args, out)
        return out

    def _move(self, func, args, out: Tensor) -> None:
        source = args[1] if func.overloadpacket is torch.ops.aten.copy_ else args[0]
        if source.device.type != out.device.type:
            self.moved_bytes += out.numel() * out.element_size()

    def measure(self, run: Callable[[], object]) -> Count:
        """Runs `run` and says what it took by itself, its peak above what was alive before."""
        before = (self.peak_bytes, self.operations, self.moved_bytes)
        live_bytes = self.peak_bytes = self.live_bytes
        run()
        found = Count(
            self.peak_bytes - live_bytes, self.operations - before[1], self.moved_bytes - before[2]
        )
        self.peak_bytes = max(self.peak_bytes, before[0])
        return found

    def add(self, found: Count) -> None:
        """Counts once more what `measure` found, without running it."""
        self.peak_bytes = max(self.peak_bytes, self.live_bytes + found.peak_bytes)
        self.operations += found.operations
        self.moved_bytes += found.moved_bytes


def count(prepare: Callable[[], Callable[[Counter], object]]) -> Count:
    """Counts what `prepare()` returns; the network is made in `prepare`, uncounted."""
    with FakeTensorMode(), torch.inference_mode():
        run = prepare()
        with Counter() as counter:
            run(counter)
    return Count(counter.peak_bytes, counter.operations, counter.moved_bytes)
