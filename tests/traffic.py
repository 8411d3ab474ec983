"""How many bytes does a device read and write for a run, in how many operations?

Every operation on `meta` tensors passes through `Traffic`. It reads each of its tensors once, as
far as elements differ (a broadcast one is read once), and writes its result. What a library does
around a convolution is added as it is known to do it: a copy of an input that is no whole tensor,
transforms where nothing is channels last, and a pass over the result for the bias.
"""

from __future__ import annotations

from collections import Counter

import torch
from benchmarks.counting import CONVOLUTIONS
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ATEN = torch.ops.aten
_ONLY_WRITE = {ATEN.copy_, ATEN.zero_, ATEN.fill_}
_NO_WORK = {ATEN.empty, ATEN.empty_like, ATEN.empty_strided, ATEN.new_empty}


def size_bytes(x: Tensor) -> int:
    """Bytes of the elements of `x` that differ: those of a broadcast side count once."""
    count = 1
    for size, stride in zip(x.shape, x.stride(), strict=True):
        count *= size if stride or not size else 1
    return count * x.element_size()


def storage_of(x: Tensor) -> int:
    """What tells the memory of `x` from that of other tensors."""
    return x.untyped_storage()._cdata


def is_channels_last(x: Tensor) -> bool:
    """Whether [b, c, ...] lies so that channels are side by side, without gaps."""
    return x.movedim(1, -1).is_contiguous()


def convolution_bytes(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> int:
    """What a convolution and the passes around it read and write."""
    data = size_bytes(x) + size_bytes(out)
    total = data + size_bytes(weight)
    if not x.is_contiguous() and not is_channels_last(x):
        total += 2 * size_bytes(x)
    if not is_channels_last(x) and not is_channels_last(weight):
        total += 2 * data
    return total + (2 * size_bytes(out) if bias is not None else 0)


class Traffic(TorchDispatchMode):
    """Counts what a device does inside the block.

    device_bytes: read and written by it. operations: its kernels, one for each convolution.
    host_bytes: written by copies within the host. moved_bytes: copied between the two.
    """

    def __init__(self, device_type: str = "meta") -> None:
        super().__init__()
        self.device_type = device_type
        self.device_bytes = self.operations = self.host_bytes = self.moved_bytes = 0
        self.by_operation, self.calls = Counter[str](), Counter[str]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.overloadpacket in _NO_WORK:
            return out
        read = [x for x in tree_leaves(args) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        if func.is_view:  # or a copy, as `contiguous` may be
            known = {storage_of(x) for x in read}
            made = [x for x in made if storage_of(x) not in known]
        if sum(map(size_bytes, made)):
            self._count(func.overloadpacket, args, read, made)
        return out

    def _count(self, kind, args, read: list[Tensor], made: list[Tensor]) -> None:
        written = sum(map(size_bytes, made))
        kinds = {x.device.type for x in (*read, *made) if x.ndim}
        if kinds == {self.device_type}:
            found = self._bytes(kind, args, read, made)
            self.device_bytes += found
            self.operations += 1
            self.by_operation[str(kind)] += found
            self.calls[str(kind)] += 1
        elif kinds == {"cpu"}:
            self.host_bytes += written
        else:
            self.moved_bytes += written

    @staticmethod
    def _bytes(kind, args, read: list[Tensor], made: list[Tensor]) -> int:
        if kind in CONVOLUTIONS:
            return convolution_bytes(args[0], args[1], (*args, None)[2], made[0])
        read = read[1:] if kind in _ONLY_WRITE else read
        return sum(map(size_bytes, (*read, *made)))
