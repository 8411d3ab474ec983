"""What is said of the bytes of one step, and of one of its tiles?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that are moved between device and host, and of those what the processor copies, too."""

    moved_bytes: int
    copied_bytes: int

    @property
    def cost(self) -> int:
        """What speaks against it: a byte that is copied twice counts twice."""
        return self.moved_bytes + self.copied_bytes


@dataclass(frozen=True, slots=True)
class Projection:
    """Projected device bytes while one step of the largest chunk runs.

    path: module path of the step.
    store_bytes, cache_bytes: those that live on the device. workspace_bytes: of its largest tile.
    moved_bytes: copied to and from the device by all of its tiles.
    copied_bytes: of those, what the processor copies first or last, since it is not in one piece.
    far_bytes: stores and caches that live away from the device.
    """

    path: str
    store_bytes: int
    cache_bytes: int
    workspace_bytes: int
    moved_bytes: int
    copied_bytes: int
    far_bytes: int

    @property
    def peak_bytes(self) -> int:
        """All of it together on the device."""
        return self.store_bytes + self.cache_bytes + self.workspace_bytes
