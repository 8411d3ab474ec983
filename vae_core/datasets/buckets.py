"""Which size is a clip brought to, so that clips of one size make batches?

1. Height and width: of the sizes that buckets have, the one whose proportions are nearest to the
   clip's; among those the largest that does not enlarge it, else the smallest.
2. Frames: the largest count, of the buckets of that size, that the clip can fill.
3. The clip is scaled to cover its bucket and the centre is cropped; its first frames are taken, or
   frames spread evenly over it, from its first to its last.

A clip that is too short for every bucket of its size has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import SettingsError
from ..geometry.ratios import Ratios

_SAME = 1e-6


@dataclass(frozen=True, slots=True)
class Bucket:
    """Sample frames, height and width that some clips are brought to, each at least 1."""

    frames: int
    height_px: int
    width_px: int

    def __post_init__(self) -> None:
        if min(self.frames, self.height_px, self.width_px) < 1:
            raise SettingsError(f"a bucket is at least one pixel of one frame; got {self}.")

    def check(self, ratios: Ratios) -> None:
        """Raises `SettingsError` unless it is whole latent elements, in time and in space."""
        if (self.frames - 1) % ratios.frames:
            raise SettingsError(
                f"a bucket needs {ratios.frames}k+1 sample frames, such as"
                f" {ratios.sample_frames(13)}; got {self.frames} in {self}."
            )
        for side in self.size:
            if side % ratios.px:
                raise SettingsError(
                    f"a bucket's sides must be multiples of {ratios.px} pixels; got {side} in"
                    f" {self}."
                )

    def __str__(self) -> str:
        return f"{self.frames}x{self.height_px}x{self.width_px}"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height_px, self.width_px


def size_for(buckets: Sequence[Bucket], height_px: int, width_px: int) -> tuple[int, int]:
    """The height and width, of those that `buckets` have, for a clip of that size."""

    def rank(size: tuple[int, int]) -> tuple[float, bool, int]:
        apart = abs(math.log(size[0] / size[1]) - math.log(height_px / width_px))
        enlarges = size[0] > height_px or size[1] > width_px
        area = size[0] * size[1]
        return round(apart / _SAME), enlarges, area if enlarges else -area

    return min({bucket.size for bucket in buckets}, key=rank)


def frames_for(buckets: Sequence[Bucket], size: tuple[int, int], frames: int) -> Bucket | None:
    """The largest bucket of that size that a clip of so many frames fills; None without one."""
    filled = [one for one in buckets if one.size == size and one.frames <= frames]
    return max(filled, key=lambda bucket: bucket.frames, default=None)


def shortest(buckets: Sequence[Bucket], size: tuple[int, int]) -> int:
    """The fewest frames that a bucket of that size takes."""
    return min(bucket.frames for bucket in buckets if bucket.size == size)


def longest(buckets: Sequence[Bucket], size: tuple[int, int]) -> int:
    """The most frames that a bucket of that size takes."""
    return max(bucket.frames for bucket in buckets if bucket.size == size)


def spread(count: int, wanted: int) -> list[int]:
    """Which of `count` frames are taken where `wanted` of them are spread over all.

    The first and the last are among them, and steps differ by one at most; a single frame is the
    middle one. 1 <= wanted <= count.
    """
    if wanted == 1:
        return [(count - 1) // 2]
    return [(2 * i * (count - 1) + wanted - 1) // (2 * (wanted - 1)) for i in range(wanted)]
