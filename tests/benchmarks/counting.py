"""What does a run take, whatever machine it would run on?

1. Inside `FakeTensorMode` the device `meta` plays the accelerator, `cpu` the host; nothing is
   computed, so that clips which no machine here could hold can be counted.
2. Every operation passes through `Counter`: live bytes on the device, the operations of every
   convolution and, apart from them, of every attention, and the bytes that cross between device and
   host.
3. All sides are counted by the same code, ours and the peers'.

An attention in one call counts as one that allocates its result alone, as the kernels of graphics
cards do. Parameters, which exist before the counting starts, are left out, and so is the workspace
of libraries, which no dispatcher sees.
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
) | {torch.ops.mkldnn._convolution_pointwise, torch.ops.mkldnn._convolution_pointwise_}
"""Inference mode hands over `conv3d` whole; elsewhere it arrives as `convolution`. Those of oneDNN
take packed weights; the second adds its result to its first argument.
"""


def convolution_operations(weight: Tensor, result: Tensor) -> int:
    """Floating point operations of a convolution, an addition and a multiplication being two."""
    return 2 * result.numel() * prod(weight.shape[1:])


def _product_operations(left: Tensor, right: Tensor) -> int:
    """Of products of matrices: left [..., n, k], right [..., k, m]."""
    return 2 * left.numel() * right.shape[-1]


def _fused_operations(queries: Tensor, keys: Tensor, values: Tensor) -> int:
    """Of an attention in one call: [..., n, c], [..., m, c] and [..., m, c']."""
    rows = queries.numel() // queries.shape[-1]
    return 2 * rows * keys.shape[-2] * (keys.shape[-1] + values.shape[-1])


def _layer_operations(x: Tensor, result: Tensor) -> int:
    """Of a linear layer, which is a convolution of single elements: x [..., k]."""
    return 2 * result.numel() * x.shape[-1]


_ATTENTION = {
    torch.ops.aten.bmm: lambda args: _product_operations(*args[:2]),
    torch.ops.aten.matmul: lambda args: _product_operations(*args[:2]),
    torch.ops.aten.baddbmm_: lambda args: _product_operations(*args[1:3]),
    torch.ops.aten.scaled_dot_product_attention: lambda args: _fused_operations(*args[:3]),
}
"""What attention is made of: no network here multiplies matrices for anything else."""


@dataclass(frozen=True, slots=True)
class Count:
    """What one run took.

    peak_bytes: on the device, at most. operations: floating point, of convolutions.
    moved_bytes: between device and host, both ways. attention: operations of attention.
    """

    peak_bytes: int
    operations: int
    moved_bytes: int
    attention: int = 0


class Counter(DeviceBytes):
    """Live bytes on the device, operations and bytes moved, inside the block; see `Count`."""

    def __init__(self) -> None:
        super().__init__(DEVICE)
        self.operations = self.moved_bytes = self.attention = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if func.overloadpacket in CONVOLUTIONS:
            self.operations += convolution_operations(args[1], out)
        elif func.overloadpacket is torch.ops.aten.linear:
            self.operations += _layer_operations(args[0], out)
        elif func.overloadpacket in _ATTENTION:
            self.attention += _ATTENTION[func.overloadpacket](args)
        elif isinstance(out, Tensor) and args and isinstance(args[0], Tensor):
            self._move(func, args, out)
        return out

    def _move(self, func, args, out: Tensor) -> None:
        source = args[1] if func.overloadpacket is torch.ops.aten.copy_ else args[0]
        if source.device.type != out.device.type:
            self.moved_bytes += out.numel() * out.element_size()

    def so_far(self) -> Count:
        """What the block has taken up to now."""
        return Count(self.peak_bytes, self.operations, self.moved_bytes, self.attention)

    def measure(self, run: Callable[[], object]) -> Count:
        """Runs `run` and says what it took by itself, its peak above what was alive before."""
        before = self.so_far()
        live_bytes = self.peak_bytes = self.live_bytes
        run()
        found = Count(
            self.peak_bytes - live_bytes,
            self.operations - before.operations,
            self.moved_bytes - before.moved_bytes,
            self.attention - before.attention,
        )
        self.peak_bytes = max(self.peak_bytes, before.peak_bytes)
        return found

    def add(self, found: Count) -> None:
        """Counts once more what `measure` found, without running it."""
        self.peak_bytes = max(self.peak_bytes, self.live_bytes + found.peak_bytes)
        self.operations += found.operations
        self.moved_bytes += found.moved_bytes
        self.attention += found.attention


def count(prepare: Callable[[], Callable[[Counter], object]]) -> Count:
    """Counts what `prepare()` returns; the network is made in `prepare`, uncounted."""
    with FakeTensorMode(), torch.inference_mode():
        run = prepare()
        with Counter() as counter:
            run(counter)
    return counter.so_far()
