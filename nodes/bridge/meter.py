"""How much memory does a run take, as far as it can be measured while it goes on?

Counted from where it stood when the run began, so that weights are left out:

- on an accelerator, what torch's allocator holds on that device (`device`): what a plan projects;
- on the processor, what the whole process has grown by (`process`). The result that is being
  written is in it, and memory that an earlier run left to the process is not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import psutil
import torch

from ...vae_core.jobs.peak_memory import peak_bytes, start_peak


class MemoryMeter:
    """Memory that is used on a device since this was made.

    kind: "device" or "process", as above; "" where the device does not tell.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        on_processor = device.type == "cpu"
        self._allocated = None if on_processor else _allocator(device)
        self.kind = "process" if on_processor else "device" if self._allocated else ""
        self._keeps_mark = device.type == "cuda" or (on_processor and sys.platform == "linux")
        if self._keeps_mark:
            start_peak(device)
        self._start = self._held_bytes()
        self._most = 0

    def used_bytes(self) -> int:
        """What is in use now."""
        used = max(self._held_bytes() - self._start, 0)
        self._most = max(self._most, used)
        return used

    def peak_bytes(self) -> int:
        """The most that was in use; where the system keeps no mark, of the moments asked about."""
        self.used_bytes()
        mark = peak_bytes(self._device) if self._keeps_mark else None
        return self._most if mark is None else max(mark - self._start, self._most)

    def _held_bytes(self) -> int:
        if self._allocated is not None:
            return int(self._allocated(self._device))
        return psutil.Process().memory_info().rss if self.kind == "process" else 0


def _allocator(device: torch.device) -> Callable[[torch.device], int] | None:
    """`memory_allocated` of the device's kind, where torch has one."""
    return getattr(getattr(torch, device.type, None), "memory_allocated", None)
