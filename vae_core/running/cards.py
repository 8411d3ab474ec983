"""What does the engine ask of a device beside its tensors? Its name, its memory and the time.

A `Card` is the one way to them, so that something else can play it where there is no such device.
"""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any, Protocol

import torch

from .devices import multiplies_in_tf32


class Card(Protocol):
    """A device that computes beside the processor."""

    device: torch.device

    def title(self) -> str:
        """Its name for a person."""
        ...

    def facts(self, dtype: torch.dtype) -> dict[str, str]:
        """All that decides which kernels its libraries choose, and how they behave."""
        ...

    def start_peak(self) -> None:
        """Set the mark of `peak_bytes` back to what is held now."""
        ...

    def allocated_bytes(self) -> int | None:
        """Bytes of tensors and of libraries' workspaces now; None where the device does not say."""
        ...

    def peak_bytes(self) -> int | None:
        """The most bytes since the mark was set; None where the device does not say."""
        ...

    def seconds(self) -> float:
        """A clock, once all that was asked of the device is done."""
        ...


class TorchCard:
    """A device of torch's: CUDA and ROCm, XPU, MPS, and whatever has the same calls."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._backend: Any = getattr(torch, device.type, None)

    def title(self) -> str:
        """Its name for a person."""
        name = self._asked("get_device_name", self.device)
        return str(name) if name else f"{self.device.type} of {platform.machine()}"

    def facts(self, dtype: torch.dtype) -> dict[str, str]:
        """See `Card`."""
        cudnn = torch.backends.cudnn
        narrow = multiplies_in_tf32(self.device, dtype)
        return {
            "device": self.title(),
            "kind": self.device.type,
            "driver": _driver(self.device),
            "torch": torch.__version__,
            "cuda": str(torch.version.cuda or getattr(torch.version, "hip", None)),
            "cudnn": str(cudnn.version() if cudnn.is_available() else None),
            "flags": f"{cudnn.enabled} {cudnn.deterministic} {narrow}",
            "allocator": str(self._asked("get_allocator_backend")),
            "dtype": str(dtype),
        }

    def start_peak(self) -> None:
        """See `Card`."""
        self._asked("reset_peak_memory_stats", self.device)

    def allocated_bytes(self) -> int | None:
        """See `Card`."""
        return self._asked("memory_allocated", self.device)

    def peak_bytes(self) -> int | None:
        """See `Card`."""
        return self._asked("max_memory_allocated", self.device)

    def seconds(self) -> float:
        """See `Card`."""
        wait = getattr(self._backend, "synchronize", None)
        if wait is not None:
            wait()
        return time.perf_counter()

    def _asked(self, name: str, *arguments: object) -> Any:
        """What the backend's function `name` says; None where it has none."""
        ask = getattr(self._backend, name, None)
        return None if ask is None else ask(*arguments)


def card_for(device: torch.device) -> Card | None:
    """The card that `device` is; None for a processor, and for what only has shapes."""
    return None if device.type in ("cpu", "meta") else TorchCard(device)


_NVIDIA = Path("/sys/module/nvidia/version")


def _driver(device: torch.device) -> str:
    """The version of what stands between torch and the device, as far as the system tells."""
    found = [platform.system(), platform.release()]
    if device.type == "cuda":
        ask = getattr(torch._C, "_cuda_getDriverVersion", None)  # pyright: ignore[reportPrivateUsage]
        found = [str(ask()) if ask else ""]
        if _NVIDIA.is_file():
            found.append(_NVIDIA.read_text(encoding="ascii", errors="replace").strip())
    return " ".join(found)
