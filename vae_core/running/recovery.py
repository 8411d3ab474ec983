"""What happens when the device runs out of memory in the middle of a run?

1. The tile that failed has changed nothing that running it again would not put right: it is cut in
   two, and so are the later tiles of its step.
2. Where tiles cannot be cut further, what lives on the device moves to host memory.
3. Where that does not help either, `DeviceMemoryError` says what was tried.

The failure is looked at outside of the `except` block, since an exception keeps every tensor of the
failed call alive. The result is the same as without it, to rounding.
"""

from __future__ import annotations

import logging

import torch

from .devices import empty_cache

_LOG = logging.getLogger("vae_core")

_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",  # a processor on Windows
    "not enough gpu video memory",  # DirectML
    "alloc_failed",  # cuDNN and cuBLAS
    "allocation_failed",
    "unable to find an engine",  # cuDNN, where no kernel's workspace could be had
    "out_of_device_memory",  # oneAPI
    "out_of_host_memory",
    "out_of_resources",
    "invalid buffer size",  # Metal
)
_ERROR = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is an allocation that failed, on a device or in host memory."""
    if isinstance(error, (MemoryError, _ERROR)):
        return True
    return isinstance(error, RuntimeError) and any(s in str(error).lower() for s in _SIGNS)


def free_unused(device: torch.device) -> None:
    """Give memory that the allocator keeps back to the device, so that other sizes fit."""
    empty_cache(device)


def announce(path: str, measure: str) -> None:
    """Say that memory ran out at a step, and what is done about it."""
    _LOG.warning("out of memory at %s: %s, and going on; the result stays the same", path, measure)
