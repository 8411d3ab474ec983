"""What does the engine do otherwise on an accelerator than on a processor?

1. Convolutions are handed over without their bias, which is added where the result is written, and
   the phases of an upsampling are one convolution (see `phases.phases_of`).
2. Statistics are kept by channel and part, and put together when a step needs them (see
   `statistics`): small operations cost an accelerator as much as large ones.

On a processor neither pays: its convolutions add the bias in passing, and each of its operations
costs what it computes.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import lru_cache
from typing import cast

import torch


def accelerates(device: torch.device) -> bool:
    """Whether `device` is something beside a processor."""
    return device.type != "cpu"


def is_integrated(device: torch.device) -> bool:
    """Whether `device` is a card whose memory is the host's."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    properties = cast("object", torch.cuda.get_device_properties(device))
    return bool(getattr(properties, "is_integrated", False))


def multiplies_in_tf32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether convolutions of float32 multiply 10 bits of it alone, which is as a process asks for:
    torch does it on NVIDIA cards unless `torch.backends.cudnn.allow_tf32` is off.
    """
    allowed = torch.backends.cudnn.allow_tf32
    return dtype == torch.float32 and device.type == "cuda" and allowed


def dtype_words(device: torch.device, dtype: torch.dtype) -> str:
    """What `device` computes in where it is asked for `dtype`, for a person."""
    name = str(dtype).removeprefix("torch.")
    return f"{name} (TF32 products)" if multiplies_in_tf32(device, dtype) else name


@lru_cache
def has_statistics(device_type: str) -> bool:
    """Whether devices of a type take the statistics of channels in one pass."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(  # pyright: ignore
        "aten::batch_norm_update_stats", _DISPATCH_KEYS.get(device_type, device_type.upper())
    )


_DISPATCH_KEYS = {"meta": "Meta"}


@contextmanager
def unsearched(device: torch.device) -> Generator[None]:
    """Inside the block cuDNN takes the kernel that it thinks best, and tries none.

    A run has about a hundred shapes of convolutions; a host that has asked for a search would wait
    for each of them, and a search allocates as much as it likes.
    """
    searched = device.type == "cuda" and torch.backends.cudnn.benchmark
    if searched:
        _search(False)
    try:
        yield
    finally:
        if searched:
            _search(True)


def _search(wanted: bool) -> None:
    with suppress(RuntimeError):  # a host may have frozen the flags
        torch.backends.cudnn.benchmark = wanted


def empty_cache(device: torch.device) -> None:
    """Give memory that the allocator keeps back to the device, where its kind can do so."""
    backend = getattr(torch, device.type, None)
    emptied = getattr(backend, "empty_cache", None)
    if emptied is not None:
        emptied()


def numbered(device: torch.device) -> torch.device:
    """`device` with its number, where its kind has numbers and it has been named without one."""
    if device.type == "cpu" or _number(device) is not None:
        return device
    backend = getattr(torch, device.type, None)
    current = getattr(backend, "current_device", None)
    return torch.device(device.type, current() if current and is_there(device) else 0)


def is_there(device: torch.device) -> bool:
    """Whether this process can compute on `device`."""
    if device.type == "cpu":
        return True
    backend = getattr(torch, device.type, None)
    available = getattr(backend, "is_available", None)
    if available is None or not available():
        return False
    count = getattr(backend, "device_count", None)
    number = _number(device)
    return number is None or count is None or number < count()


def _number(device: torch.device) -> int | None:
    return cast("int | None", device.index)  # whatever torch's types say


def all_there() -> list[torch.device]:
    """All devices that this process can compute on."""
    cards = (torch.device(kind, n) for kind in _KINDS for n in range(_MOST))
    return [torch.device("cpu"), *(card for card in cards if is_there(card))]


_KINDS, _MOST = ("cuda", "xpu", "mps"), 64


def current(device: torch.device) -> AbstractContextManager[object]:
    """A block in which a thread's work is `device`'s unless it says otherwise."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def synchronise(device: torch.device) -> None:
    """Wait until a device has done all that it was given; nothing for a processor."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
