"""How much memory did a stretch of work hold at its worst?

1. `start_peak` sets the high-water mark back to what is held now.
2. `peak_bytes` reads it: on CUDA what PyTorch had allocated on the device, elsewhere the resident
   set of this process, weights and libraries included.

The resident set is read from Linux' /proc, elsewhere from getrusage, whose mark cannot be set back
and so covers the whole process so far. Windows has neither: there the answer is None.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # Documentation/filesystems/proc.rst: resets VmHWM to the current resident set


def start_peak(device: torch.device) -> None:
    """Set the high-water mark back, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            _CLEAR.write_text(_RESET_PEAK)


def _resident_peak_bytes() -> int | None:
    """VmHWM from /proc, else ru_maxrss, else None."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def peak_bytes(device: torch.device) -> int | None:
    """The most bytes held since `start_peak`, or None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _resident_peak_bytes()


def peak_kind(device: torch.device) -> str:
    """What `peak_bytes` counts, in words."""
    return "allocated on the GPU" if device.type == "cuda" else "resident, weights included"
