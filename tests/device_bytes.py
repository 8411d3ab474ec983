"""How many bytes of tensors are alive, counted at the dispatcher?

Every operation passes through a `TorchDispatchMode`; each new storage adds its bytes to the live
sum, and a finalizer on the storage takes them off again. It works the same on real, `meta` and fake
tensors, so a device that this machine lacks can be played by `meta` inside `FakeTensorMode`.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable

import card  # noqa: F401, meta has its kernels from here on
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class DeviceBytes(TorchDispatchMode):
    """Counts the storages that come into being inside the block, on one type of device.

    live_bytes, peak_bytes: now, and at most. peak_count: for each size in bytes, the most storages
    of that size that were alive at once. on_new: called after each new storage.
    """

    def __init__(self, device_type: str, on_new: Callable[[], object] | None = None) -> None:
        super().__init__()
        self.device_type = device_type
        self.on_new = on_new
        self.live_bytes = self.peak_bytes = 0
        self.live_count: Counter[int] = Counter()
        self.peak_count: Counter[int] = Counter()
        self._known: dict[int, weakref.finalize] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = {_key(x) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and _key(x) not in before:
                self._add(x)
        return out

    def _add(self, x: torch.Tensor) -> None:
        storage = x if x.is_mkldnn else x.untyped_storage()
        key, size = _key(x), x.numel() * x.itemsize if x.is_mkldnn else storage.nbytes()
        if x.device.type != self.device_type or key in self._known:
            return
        self._known[key] = weakref.finalize(storage, self._remove, key, size)
        self.live_bytes += size
        self.live_count[size] += 1
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        self.peak_count[size] = max(self.peak_count[size], self.live_count[size])
        if self.on_new:
            self.on_new()

    def _remove(self, key: int, size: int) -> None:
        self._known.pop(key, None)
        self.live_bytes -= size
        self.live_count[size] -= 1


def _key(x: torch.Tensor) -> int:
    """Of its memory; an opaque tensor shares its own with no other."""
    return x._cdata if x.is_mkldnn else x.untyped_storage()._cdata
