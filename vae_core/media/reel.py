"""How is a video, a picture or a folder of pictures opened, and what does it hold?

1. PyAV demuxes and decodes one frame after the other, Pillow pictures; nothing is turned into
   pixels before it is asked for (see `selection.Shot`).
2. Where a window begins late, reading starts at the key frame before it.
3. Time stamps count from the stream's own start. A frame without one follows the frame before it at
   the average rate.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error
import numpy as np

from ..errors import VideoError
from .colour import Converter, Frame, oddities
from .selection import Shot

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
PICTURE_FPS = Fraction(8)
"""Rate given to pictures that have none: CogVideoX's own."""

_SEEK_SECONDS = 1.0
"""A window that begins earlier is not worth seeking for."""


@dataclass(slots=True)
class Reel:
    """An open file.

    name: for sentences. fps, frames: the rate and the number of frames that it says it has.
    timed: whether the rate is its own; pictures have none.
    shots: its frames, to be pulled once. close: releases the file.
    steps: shortest and longest step from frame to frame so far, in seconds; empty before the
        second frame. notes: what is not shown as a player would.
    """

    name: str
    fps: Fraction
    frames: int | None
    timed: bool
    shots: Iterator[Shot]
    close: Callable[[], None]
    steps: list[float] = field(default_factory=list[float])
    notes: list[str] = field(default_factory=list[str])


def _watch_rate(steps: list[float], step: float) -> None:
    """Keep the shortest and the longest of the steps seen so far in `steps`."""
    steps[:] = [min([*steps, step]), max([*steps, step])]


def _seconds(frame: av.VideoFrame, start: int) -> Fraction | None:
    if frame.pts is None or frame.time_base is None:
        return None
    return (frame.pts - start) * frame.time_base


def _seek(container: Any, stream: Any, start_seconds: float) -> None:
    """Go to the key frame before `start_seconds`; where a file cannot, reading starts at 0."""
    if start_seconds < _SEEK_SECONDS or stream.time_base is None:
        return
    target = int(start_seconds / stream.time_base) + (stream.start_time or 0)
    with contextlib.suppress(av.error.FFmpegError):
        container.seek(target, stream=stream)


def _decoded(container: Any, reel: Reel, start_seconds: float) -> Iterator[Shot]:
    """Every frame of the first video stream from `start_seconds` or earlier, in the order shown."""
    stream, converter = container.streams.video[0], Converter()
    start, before, count = stream.start_time or 0, None, 0
    try:
        _seek(container, stream, start_seconds)
        for frame in container.decode(video=0):
            if count == 0:
                reel.notes.extend(oddities(frame, stream.sample_aspect_ratio))
            seconds = _seconds(frame, start)
            if seconds is not None and before is not None:
                _watch_rate(reel.steps, float(seconds - before))
            if seconds is None:
                seconds = Fraction(0) if before is None else before + 1 / reel.fps
            before = seconds
            yield Shot(seconds, partial(converter.rgb, frame))
            count += 1
    except av.error.FFmpegError as error:
        raise VideoError(
            f"{reel.name} cannot be decoded after {count} frames: {error.strerror}."
        ) from error


def open_container(source: Path | BinaryIO, name: str, start_seconds: float) -> Reel:
    """A video file, or an open binary file that holds one.

    Raises `VideoError` for what is no video.
    """
    opened: Any = str(source) if isinstance(source, Path) else source
    try:
        container = av.open(opened, metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{name} is not a video that can be read: {error.strerror}.") from error
    if not container.streams.video:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        container.close()
        raise VideoError(f"{name} is not a video: it has no video stream; it holds {kinds}.")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    fps = Fraction(stream.average_rate or stream.guessed_rate or PICTURE_FPS)
    reel = Reel(name, fps, stream.frames or None, True, iter(()), container.close)
    reel.shots = _decoded(container, reel, start_seconds)
    return reel


def _pictures(paths: list[Path], reel: Reel) -> Iterator[Shot]:
    """Every picture, an animated file giving each of its frames, turned upright by its EXIF tag."""
    from PIL import Image, ImageOps, ImageSequence  # only pictures need it

    number = 0
    for path in paths:
        try:
            with Image.open(path) as image:
                for picture in ImageSequence.Iterator(image):
                    pixels = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
                    yield Shot(number / reel.fps, partial(_same, pixels))
                    number += 1
        except (OSError, SyntaxError, ValueError) as error:
            raise VideoError(f"{path} is not a picture that can be read.") from error


def _same(pixels: Frame) -> Frame:
    return pixels


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sorts frame2 before frame10."""
    digits = "".join(c if c.isdigit() else " " for c in path.name).split()
    return [(0, int(number), "") for number in digits] + [(1, 0, path.name)]


def holds_pictures(path: Path) -> bool:
    """Whether it is a folder, or a file that is named like a picture."""
    return path.is_dir() or path.suffix.lower() in PICTURE_SUFFIXES


def open_pictures(path: Path) -> Reel:
    """One picture, or a folder of them in the order of the numbers in their names.

    Raises `VideoError` for a folder without one.
    """
    paths = [path]
    if path.is_dir():
        paths = sorted(
            (p for p in path.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES), key=_natural
        )
    if not paths:
        raise VideoError(
            f"the folder {path} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})."
        )
    known = len(paths) if path.is_dir() else None
    reel = Reel(str(path), PICTURE_FPS, known, False, iter(()), lambda: None)
    reel.shots = _pictures(paths, reel)
    return reel
