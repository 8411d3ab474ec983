"""Where does host memory come from that a device reaches by itself, beside its computing?

Such pinned memory is scarce, and not having it is no lack of memory on the device: copies are then
plain ones, which wait. It is said once, and nothing is made smaller for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import torch
from torch import Tensor

_LOG = logging.getLogger("vae_core")


class Pinned:
    """Pinned memory for one run, for as long as it can be had.

    can_pin: whether the device takes copies from such memory at all, and none has failed yet.
    cuda: `torch.cuda`, or what plays it in a test.
    """

    def __init__(self, can_pin: bool, cuda: Any = torch.cuda) -> None:
        self.can_pin = can_pin
        self._cuda, self._used = cuda, False

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """An unwritten tensor [b, c, t, h, w], channels last; None where none can be had."""
        if not self.can_pin:
            return None
        try:
            found = self._allocated(shape, dtype)
        except (RuntimeError, MemoryError) as error:
            self._give_up(error)
            return None
        self._used = True
        return found

    def _allocated(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        layout = torch.channels_last_3d
        return torch.empty(shape, dtype=dtype, device="cpu", pin_memory=True, memory_format=layout)

    def _give_up(self, error: Exception) -> None:
        self.can_pin = False
        _LOG.warning("no pinned memory (%s): copies wait, and the result stays the same", error)
        with suppress(RuntimeError):  # a device reports a failed call once more at the next wait
            self._cuda.synchronize()

    def give_back(self) -> None:
        """Give what the allocator keeps back to the host, where torch can do so."""
        empty_cache = getattr(torch._C, "_host_emptyCache", None)  # pyright: ignore[reportPrivateUsage]
        if self._used and empty_cache is not None:
            with suppress(RuntimeError):
                cast("Callable[[], object]", empty_cache)()
        self._used = False


def in_one_piece(x: Tensor) -> bool:
    """Whether the rows of each frame of x [b, c, t, h, w] lie one by one, channels last."""
    _, c, _, h, w = x.shape
    _, to_c, _, to_h, to_w = x.stride()
    return (c == 1 or to_c == 1) and (w == 1 or to_w == c) and (h == 1 or to_h == w * c)


def copy_frames(source: Tensor, target: Tensor) -> None:
    """Start to copy source [b, c, t, h, w] to `target`, one run of memory for each frame; both are
    `in_one_piece` and of one dtype, and the one on the host is pinned.
    """
    for clip in range(source.shape[0]):
        for frame in range(source.shape[2]):
            one = (slice(clip, clip + 1), slice(None), frame)  # [1, c, h, w]
            target[one].copy_(source[one], non_blocking=True)
