"""How is a picture brought to a wanted height and width?

By one of four policies, see `Framing`; scaling is bicubic and averages where it makes smaller, as
Pillow's. Frames are done one by one, in 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch.nn.functional import interpolate

from ..errors import VideoError
from .colour import Frame


class Framing(Enum):
    """What to do where proportions differ.

    `STRETCH`: scale height and width each for itself. `COVER`: scale until the wanted size is
    covered, and crop the centre. `CONTAIN`: scale until it fits, and put black around it. `CROP`:
    take the centre as it is, without scaling.
    """

    STRETCH = "stretch"
    COVER = "cover"
    CONTAIN = "contain"
    CROP = "crop"


@dataclass(frozen=True, slots=True)
class Resize:
    """A wanted size in pixels, and how to get there.

    Raises `VideoError` for a size below 1 and an unknown policy.
    """

    height_px: int
    width_px: int
    framing: Framing | str = Framing.COVER

    def __post_init__(self) -> None:
        if min(self.height_px, self.width_px) < 1:
            raise VideoError(
                f"a frame's size must be at least 1x1; got {self.height_px}x{self.width_px}."
            )
        names = [one.value for one in Framing]
        if not isinstance(self.framing, Framing) and self.framing not in names:
            raise VideoError(f"framing must be {' or '.join(names)}; got {self.framing!r}.")
        object.__setattr__(self, "framing", Framing(self.framing))

    def scaled(self, height_px: int, width_px: int) -> tuple[int, int]:
        """The size that a picture is scaled to before anything is cut off or put around it.

        Raises `VideoError` where there is less to crop from than is wanted.
        """
        wanted = (self.height_px, self.width_px)
        if self.framing is Framing.STRETCH:
            return wanted
        if self.framing is Framing.CROP:
            if height_px < self.height_px or width_px < self.width_px:
                raise VideoError(
                    f"cannot crop {self.height_px}x{self.width_px} from {height_px}x{width_px};"
                    f" choose a smaller size, or framing {Framing.COVER.value}."
                )
            return height_px, width_px
        covers = self.framing is Framing.COVER
        ratios = (self.height_px / height_px, self.width_px / width_px)
        scale = max(ratios) if covers else min(ratios)
        height, width = round(height_px * scale), round(width_px * scale)
        if covers:
            return max(height, self.height_px), max(width, self.width_px)
        return max(min(height, self.height_px), 1), max(min(width, self.width_px), 1)

    def of(self, picture: Frame) -> Frame:
        """`picture` at the wanted size: uint8 [height_px, width_px, 3]."""
        size = self.scaled(*picture.shape[:2])
        if picture.shape[:2] != size:
            picture = _scale(picture, size)
        return _centred(picture, (self.height_px, self.width_px))


def _scale(picture: Frame, size: tuple[int, int]) -> Frame:
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]  # [1, 3, h, w]
    scaled = interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False)
    return np.ascontiguousarray(scaled[0].permute(1, 2, 0).numpy())


def _centred(picture: Frame, size: tuple[int, int]) -> Frame:
    """The centre of `picture`, with black around it where it is smaller than `size`."""
    height, width = picture.shape[:2]
    top, left = (max(have - want, 0) // 2 for have, want in zip((height, width), size, strict=True))
    picture = picture[top : top + size[0], left : left + size[1]]
    if picture.shape[:2] == size:
        return np.ascontiguousarray(picture)
    canvas = np.zeros((*size, 3), np.uint8)
    top, left = ((want - have) // 2 for have, want in zip(picture.shape, size, strict=False))
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas
