"""Which clips are measured, and what shapes do they have?"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Grid:
    """channels: of latents. frames, px: sample frames and pixels of a side to each latent cell."""

    channels: int = 16
    frames: int = 4
    px: int = 8


USUAL = Grid()
"""That of CogVideoX, Wan 2.1 and SeedVR2."""


@dataclass(frozen=True, slots=True, order=True)
class Clip:
    """frames: sample frames, one more than a multiple of the grid's. height, width: in pixels."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"

    @classmethod
    def parse(cls, text: str) -> Clip:
        """'49x480x720' as a clip."""
        frames, height, width = (int(part) for part in text.split("x"))
        return cls(frames, height, width)

    def on(self, grid: Grid) -> Clip:
        """The longest clip of no more frames that `grid` has."""
        return replace(self, frames=self.frames - (self.frames - 1) % grid.frames)

    @property
    def megapixels(self) -> float:
        return self.height * self.width / 1e6

    @property
    def video_shape(self) -> tuple[int, ...]:
        """[b, c, t, h, w]."""
        return (1, 3, self.frames, self.height, self.width)

    def latent_shape(self, grid: Grid) -> tuple[int, ...]:
        """[b, c, n, h/px, w/px]."""
        frames = (self.frames - 1) // grid.frames + 1
        return (1, grid.channels, frames, self.height // grid.px, self.width // grid.px)


TABLE = tuple(
    Clip.parse(text)
    for text in (
        "9x480x720",
        "49x480x720",
        "49x720x1280",
        "81x768x1360",
        "249x768x1360",
        "49x1088x1920",
        "49x2160x3840",
    )
)
"""From a short preview to 10 seconds and to 4K."""

OVER_FRAMES = tuple(Clip(frames, 768, 1360) for frames in (9, 17, 49, 81, 249))

OVER_MEGAPIXELS = tuple(
    Clip(49, *size) for size in ((240, 360), (480, 720), (720, 1280), (1088, 1920), (2160, 3840))
)

WAN_TABLE = tuple(
    Clip.parse(text)
    for text in (
        "1x1440x2560",
        "9x240x416",
        "81x480x832",
        "81x720x1280",
        "241x720x1280",
        "81x2160x3840",
    )
)
"""A single picture, a preview, what the published models make, 15 seconds of it, and 4K."""

WAN_OVER_FRAMES = tuple(Clip(frames, 720, 1280) for frames in (5, 17, 49, 81, 241))
