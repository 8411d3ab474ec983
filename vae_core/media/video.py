"""How do frames come out of a file with the colours, the size and the rate that they have there?

`open_video` gives them one at a time, `read_video` all at once:
1. `reel.py` decodes videos frame by frame, so that memory does not grow with the clip;
   `pictures.py` reads pictures.
2. A `Selection` chooses among them by time and by number, before they are turned into pixels.
3. `colour.py` makes upright full-range RGB of those that are left; a `Resize` brings them to size.

Steps 1 and 2 (`VideoSource.shots`) and step 3 (`VideoSource.picture`) may run in two threads. Sound
is not read here, see `audio.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import torch

from ..errors import VideoError
from .colour import Frame, Frames
from .files import check_input
from .framing import Resize
from .pictures import PICTURE_FPS, PICTURE_SUFFIXES, holds_pictures, open_pictures
from .reel import Reel, open_container
from .selection import Selection, Shot

__all__ = [
    "PICTURE_FPS",
    "PICTURE_SUFFIXES",
    "Clip",
    "Frame",
    "Frames",
    "Resize",
    "Selection",
    "VideoInfo",
    "VideoSource",
    "frames_to_tensor",
    "open_video",
    "read_video",
    "tensor_to_frames",
]

_RATE_TOLERANCE = 0.25  # of a frame; what time stamps in whole milliseconds need
_STILL_SECONDS = 10
"""A picture that lasts longer is probably a jump of time."""

_EVERYTHING = Selection()


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of a clip once it is open.

    path: the file, or what stands for it where it has no name.
    height_px, width_px: as given, after rotation and resizing.
    fps: average rate of the frames given, sample frames a second.
    frames: sample frames that the selection leaves, or None where that takes reading them.
    source_fps: the file's own average rate.
    start_seconds: when the first of them is shown, counted from the file's first frame.
    """

    path: Path
    height_px: int
    width_px: int
    fps: Fraction
    frames: int | None
    source_fps: Fraction
    start_seconds: Fraction


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip in memory.

    frames: [t, h, w, 3], RGB, 0 to 255, t >= 1.
    notes: what a caller should be told.
    """

    frames: Frames
    info: VideoInfo
    notes: tuple[str, ...]


class VideoSource:
    """The chosen frames of one open file, one at a time: a context manager and a one-pass iterator.

    Invariants: every frame is uint8 [info.height_px, info.width_px, 3]; at least one frame comes;
    at most one decoded frame is held here. Raises `VideoError` where the file breaks off or changes
    its size.
    """

    def __init__(self, path: Path, reel: Reel, selection: Selection, resize: Resize | None) -> None:
        self._reel = reel
        self._resize = resize
        self.selection = selection
        self._chosen = selection.of(reel.shots, reel.fps)
        self._first = next(self._chosen, None)
        if self._first is None:
            raise VideoError(f"{reel.name} has no frame to give{_after(selection)}.")
        self._given = 0  # frames handed out
        self._ended = False
        picture = self._first.picture()
        self._size = picture.shape[:2]
        size = self._size if resize is None else (resize.height_px, resize.width_px)
        if resize is not None:
            resize.scaled(*self._size)
        rate = selection.rate(reel.fps)
        frames, start = selection.count(reel.frames), self._first.seconds
        self.info = VideoInfo(path, size[0], size[1], rate, frames, reel.fps, start)

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        return map(self.picture, self.shots())

    def shots(self) -> Iterator[Shot]:
        """The chosen frames as decoded; each becomes pixels by `picture`."""
        first, self._first = self._first, None
        for shot in chain([] if first is None else [first], self._chosen):
            self._given += 1
            yield shot
        self._ended = True

    def picture(self, shot: Shot) -> Frame:
        """The pixels of a shot, uint8 [info.height_px, info.width_px, 3]."""
        picture = shot.picture()
        if picture.shape[:2] != self._size:
            came = f"{picture.shape[0]}x{picture.shape[1]}"
            raise VideoError(
                f"{self._reel.name} changes its size from {self._size[0]}x{self._size[1]} to"
                f" {came}; cut it there."
            )
        return picture if self._resize is None else self._resize.of(picture)

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        self._reel.close()

    @property
    def given(self) -> int:
        """How many frames have been handed out."""
        return self._given

    @property
    def notes(self) -> tuple[str, ...]:
        """What a caller should be told, of the frames read so far."""
        reel = self._reel
        found = (self._count_note(), self._rate_note(), *reel.notes, *reel.late_notes())
        return tuple(note for note in found if note)

    def _count_note(self) -> str | None:
        promised = self.selection.count(self._reel.promised)
        if not self._ended or promised is None or self._given >= promised:
            return None
        return f"the file promises {promised} frames, but only {self._given} could be read."

    def _rate_note(self) -> str | None:
        steps = self._reel.steps
        if self.selection.fps is not None:
            return self._still_note()
        if not steps or steps[1] - steps[0] < _RATE_TOLERANCE / self._reel.fps:
            return None
        shortest, longest = (round(1000 * step) for step in steps)
        return (
            f"the frame rate varies ({shortest} to {longest} ms a frame): frames are taken one by"
            f" one and keep the average rate of {float(self.info.fps):.4g} a second. Ask for a rate"
            " to have them resampled."
        )

    def _still_note(self) -> str | None:
        steps = self._reel.steps
        if not steps or steps[1] < _STILL_SECONDS:
            return None
        return (
            f"a picture stands still for {steps[1]:.0f} seconds, as the file says; it is repeated"
            " all that time."
        )


def _after(selection: Selection) -> str:
    """What was left out, in words."""
    if selection.start_seconds:
        return f" from {selection.start_seconds:g} seconds on"
    return f" after the first {selection.skip_frames}" if selection.skip_frames else ""


def _rate_of_pictures(reel: Reel, selection: Selection) -> Selection:
    """A rate asked of pictures is theirs: they have none that could be resampled."""
    if reel.timed or selection.fps is None:
        return selection
    reel.fps = selection.rate(reel.fps) * selection.stride
    return replace(selection, fps=None)


def open_video(
    source: str | Path | BinaryIO,
    selection: Selection = _EVERYTHING,
    resize: Resize | None = None,
) -> VideoSource:
    """Open a video, a picture or a folder of pictures (in the order of the numbers in their names),
    or a binary file-like object that holds a video.

    Raises `VideoError` for what is missing, empty, unreadable or without a picture.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        check_input(path)
        pictures = holds_pictures(path)
        reel = (
            open_pictures(path)
            if pictures
            else open_container(path, str(path), selection.start_seconds)
        )
    else:
        path = Path(getattr(source, "name", None) or "the video in memory")
        source.seek(0)
        reel = open_container(source, str(path), selection.start_seconds)
    try:
        return VideoSource(path, reel, _rate_of_pictures(reel, selection), resize)
    except BaseException:
        reel.close()
        raise


def read_video(
    source: str | Path | BinaryIO,
    selection: Selection = _EVERYTHING,
    resize: Resize | None = None,
) -> Clip:
    """The whole selection at once; see `open_video`."""
    with open_video(source, selection, resize) as video:
        frames = np.stack(list(video))
        return Clip(frames, video.info, video.notes)


def frames_to_tensor(frames: Frames) -> torch.Tensor:
    """uint8 [t, h, w, 3], 0 to 255 -> float32 [1, 3, t, h, w], -1 to 1."""
    pixels = frames.transpose(3, 0, 1, 2).astype(np.float32, order="C")  # [3, t, h, w]
    # In numpy, which makes no threads of its own: this runs beside a network that uses them all.
    pixels /= np.float32(127.5)
    pixels -= np.float32(1)
    return torch.from_numpy(pixels)[None]


def tensor_to_frames(video: torch.Tensor) -> Frames:
    """[1, 3, t, h, w], -1 to 1 -> uint8 [t, h, w, 3], rounded, with what lies outside clamped.

    Inverse of `frames_to_tensor`. Raises `VideoError` for another shape and for values that are not
    finite.
    """
    if video.ndim != 5 or video.shape[0] != 1 or video.shape[1] != 3:
        raise VideoError(f"a video has the shape [1, 3, t, h, w]; got {list(video.shape)}.")
    pixels = video[0].to("cpu", torch.float32).permute(1, 2, 3, 0).numpy()  # [t, h, w, 3]
    if not np.isfinite(pixels).all():
        raise VideoError(
            "the decoded video holds NaN or infinity; with float16, try bfloat16 or float32."
        )
    scaled = (pixels + np.float32(1)) * np.float32(127.5)
    return np.rint(scaled).clip(0, 255).astype(np.uint8, order="C")
