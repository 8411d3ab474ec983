"""How are a picture, an animated picture and a folder of pictures read, whatever they are made of?

1. Pillow opens them one at a time and turns them upright by their EXIF tag.
2. `pixels_of` makes RGB of 8 bits of every kind of pixel by what white is in it: 65535 in grey of
   16 bits, 1.0 in floating point. What has no known white is refused.
3. Animated WebP and PNG come at the times that they say. Other pictures have no rate of their own.

Transparency is left out, as the host's own loader does; so are colour profiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import VideoError
from .colour import Frame
from .film import USUAL_FPS
from .reel import Reel
from .selection import Shot

PICTURE_FPS = USUAL_FPS
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})

_ANIMATED = frozenset({"WEBP", "PNG"})
_SINGLE = frozenset({"JPEG", "MPO"})
"""Formats of one picture. A phone's JPEG may hold more: previews, depth, brightness."""

_UNSAID_MS = 100
"""How long browsers show a picture of an animation that gives it no time."""

_BITS_TAG, _ZERO_TAG, _ZERO_IS_WHITE = 258, 262, 0  # of TIFF
_LOOSE_WHITE = 1.001  # rounding on the way to floating point


def _levels(image: Any) -> tuple[int, int]:
    """Black and white of 16-bit grey; TIFF may use fewer of the bits, or count from white down."""
    tags: dict[int, Any] = getattr(image, "tag_v2", {})
    bits: Any = tags.get(_BITS_TAG, (16,))
    most = 2 ** int(np.max(bits)) - 1
    return (most, 0) if tags.get(_ZERO_TAG) == _ZERO_IS_WHITE else (0, most)


def _grey16(image: Any, levels: tuple[int, int]) -> Frame:
    """[h, w] of 16-bit grey."""
    black, white = levels
    grey = (np.asarray(image).astype(np.float32) - black) * (255 / (white - black))
    return np.rint(grey).clip(0, 255).astype(np.uint8)


def _grey_float(image: Any) -> Frame:
    """[h, w] of floating-point grey, whose white is 1.0."""
    grey = np.asarray(image)
    if not (np.isfinite(grey).all() and grey.max() <= _LOOSE_WHITE):
        raise VideoError(
            "it holds floating-point numbers that are not from 0 to 1, so that nobody knows what"
            " its white is; save it with 8 or 16 bits."
        )
    return np.rint(grey.clip(0, 1) * 255).astype(np.uint8)


def _of_lab(image: Any) -> Any:
    """RGB of CIE L*a*b*."""
    from PIL import ImageCms  # only these pictures need it

    cms: Any = ImageCms  # its stubs are partly untyped
    lab, rgb = cms.createProfile("LAB"), cms.createProfile("sRGB")
    return cms.applyTransform(image, cms.buildTransform(lab, rgb, "LAB", "RGB"))


def pixels_of(opened: Any) -> Frame:
    """uint8 [h, w, 3], upright, of a Pillow image of any mode.

    Raises `VideoError` where its white is not known.
    """
    from PIL import ImageOps

    image: Any = ImageOps.exif_transpose(opened)
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and opened.format == "PNG"):
        return np.stack([_grey16(image, _levels(opened))] * 3, -1)
    if mode == "F":
        return np.stack([_grey_float(image)] * 3, -1)
    if mode == "I":
        raise VideoError(
            "it holds whole numbers of 32 bits, so that nobody knows what its white is; save it"
            " with 8 or 16 bits."
        )
    if mode == "LAB":
        image = _of_lab(image)
    elif mode in ("La", "RGBa"):  # colours times opacity
        image = image.convert(mode.upper())
    elif mode == "P":  # by way of RGBA, or Pillow warns of some transparency
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def _count(image: Any) -> int:
    return 1 if image.format in _SINGLE else getattr(image, "n_frames", 1)


def _first(image: Any) -> int:
    """The number of the first picture that is shown: APNG may keep one for those who cannot."""
    return 1 if image.info.get("default_image") and _count(image) > 1 else 0


def _pictures_of(path: Path) -> Iterator[Frame]:
    """Every picture that a file shows."""
    from PIL import Image  # only pictures need it

    with Image.open(path) as image:
        for number in range(_first(image), _count(image)):
            image.seek(number)
            yield pixels_of(image)


def _milliseconds(path: Path) -> list[float]:
    """How long each picture of an animation is shown; empty for what is none.

    Only decoding tells: all of an animation is read here once.
    """
    from PIL import Image

    with Image.open(path) as image:
        numbers = range(_first(image), _count(image))
        if image.format not in _ANIMATED or len(numbers) < 2:
            return []
        found: list[float] = []
        for number in numbers:
            image.seek(number)
            image.load()
            found.append(float(image.info.get("duration") or _UNSAID_MS))
        return found


def _starts(milliseconds: list[float]) -> list[Fraction]:
    """When each picture of an animation begins, and when the last ends; in seconds."""
    starts = [Fraction(0)]
    for one in milliseconds:
        starts.append(starts[-1] + Fraction(one).limit_denominator(1000) / 1000)
    return starts


def _unreadable(path: Path, error: Exception) -> VideoError:
    """Pillow raises all kinds of things over damaged files."""
    if isinstance(error, VideoError):
        return VideoError(f"{path} cannot be used: {error}")
    if type(error).__name__.startswith("DecompressionBomb"):
        return VideoError(f"{path} has more pixels than Pillow reads; make it smaller. ({error})")
    return VideoError(f"{path} is not a picture that can be read: {error}.")


def _pixels(paths: list[Path]) -> Iterator[Frame]:
    for path in paths:
        pictures = _pictures_of(path)
        while True:
            try:
                picture = next(pictures, None)
            except Exception as error:
                raise _unreadable(path, error) from error
            if picture is None:
                break
            yield picture


def _same(pixels: Frame) -> Frame:
    return pixels


def _shots(paths: list[Path], reel: Reel, starts: list[Fraction]) -> Iterator[Shot]:
    """Every picture at its time; starts: where an animation says them, else empty."""
    for before, after in pairwise(starts[:-1]):
        reel.watch(float(after - before))
    for number, pixels in enumerate(_pixels(paths)):
        seconds = starts[number] if starts else number / reel.fps
        yield Shot(seconds, partial(_same, pixels))


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sorts frame2 before frame10."""
    digits = "".join(c if c.isdecimal() else " " for c in path.name).split()
    return [(0, int(number), "") for number in digits] + [(1, 0, path.name)]


def holds_pictures(path: Path) -> bool:
    """Whether it is a folder, or a file that is named like a picture."""
    return path.is_dir() or path.suffix.lower() in PICTURE_SUFFIXES


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of the numbers in their names; hidden files, such as
    the `._0.png` that macOS puts beside `0.png`, are none.

    Raises `VideoError` where there is none, or the folder may not be read.
    """
    try:
        found = [one for one in folder.iterdir() if one.name[0] != "."]
    except OSError as error:
        raise VideoError(f"the folder {folder} cannot be read: {error.strerror}.") from error
    pictures = [one for one in found if one.suffix.lower() in PICTURE_SUFFIXES]
    if not pictures:
        raise VideoError(
            f"the folder {folder} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})."
        )
    return sorted(pictures, key=_natural)


def open_pictures(path: Path) -> Reel:
    """One picture, animated or not, or a folder of pictures.

    Raises `VideoError` for a folder without one, and for an animation that cannot be read.
    """
    if path.is_dir():
        paths = pictures_in(path)
        reel = Reel(str(path), PICTURE_FPS, len(paths), False, iter(()), lambda: None)
        reel.promised, reel.shots = reel.frames, _shots(paths, reel, [])
        return reel
    try:
        milliseconds = _milliseconds(path)
    except Exception as error:
        raise _unreadable(path, error) from error
    starts = _starts(milliseconds) if milliseconds else []
    fps = len(milliseconds) / starts[-1] if starts else PICTURE_FPS
    reel = Reel(str(path), fps, len(milliseconds) or None, bool(starts), iter(()), lambda: None)
    reel.promised, reel.shots = reel.frames, _shots([path], reel, starts)
    return reel
