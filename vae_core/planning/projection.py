"""What is said of the bytes of one step, and of one of its tiles?"""

from __future__ import annotations

from dataclasses import dataclass


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


@dataclass(frozen=True, slots=True)
class Reads:
    """Bytes that are copied to the device for one tile, 0 for what is there already.

    src: of the store that is read. added: of the one that is added. latents: for modulation. past:
    of the causal cache.
    """

    src: int
    added: int
    latents: int
    past: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.src + self.added + self.latents + self.past
