"""How do frames come out of a file with the colours, the size and the rate that they have there?

`open_video` gives them one at a time, `read_video` all at once:
1. PyAV decodes frame by frame, so memory does not grow with the clip; Pillow opens pictures and
   folders of them.
2. A frame becomes full-range RGB by the matrix and range that it is tagged with. Untagged frames
   are taken as limited range, bt601 below 720 lines and bt709 from there on, as players do.
3. The display matrix (a phone's rotation, a mirror) is applied, so height and width are those that
   a viewer sees.
4. `skip_frames` and `max_frames` choose. Frames are counted, never resampled; a varying rate is
   reported in `notes`.

It does not touch audio, deinterlace, tone-map HDR, stretch non-square pixels or trim by time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import av
import av.error
import numpy as np
import numpy.typing as npt
import torch
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ..errors import VideoError
from .files import check_input

Frame = npt.NDArray[np.uint8]
"""One sample frame, [h, w, 3], RGB, 0 to 255."""

Frames = npt.NDArray[np.uint8]
"""Several of them, [t, h, w, 3]."""

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
PICTURE_FPS = Fraction(8)
"""Rate given to pictures that have none: CogVideoX's own."""

_HD_LINES = 720
_RATE_TOLERANCE = 0.25  # of a frame; what time stamps in whole milliseconds need
_UNTAGGED = frozenset({0, 2})
BT709, BT601 = int(Colorspace.ITU709), int(Colorspace.ITU601)
# FFmpeg's AVColorSpace, which frames are tagged with, to the SWS_CS_* that its converter takes.
_MATRIX_OF_TAG = {1: BT709, 4: 4, 5: BT601, 6: BT601, 7: 7, 9: 9, 10: 9}
CONVERSION = 0x4 | 0x2000 | 0x40000
"""swscale's bicubic, full chroma and accurate rounding; older PyAV has no names for the latter."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of a clip once it is open.

    height_px, width_px: as shown, after rotation.
    fps: average rate, sample frames a second.
    frames: sample frames that the selection leaves, or None where the file does not say how many it
        holds.
    """

    path: Path
    height_px: int
    width_px: int
    fps: Fraction
    frames: int | None


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip in memory.

    frames: [t, h, w, 3], RGB, 0 to 255, t >= 1.
    notes: what a caller should be told.
    """

    frames: Frames
    info: VideoInfo
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Reel:
    """An open file.

    fps, frames: the rate and the number of frames that it says it has.
    pictures: its frames, to be pulled once.
    close: releases the file.
    seconds: shortest and longest step from frame to frame so far; empty before the second frame.
    """

    fps: Fraction
    frames: int | None
    pictures: Iterator[Frame]
    close: Callable[[], None]
    seconds: list[float] = field(default_factory=list[float])


def _check_selection(skip_frames: int, max_frames: int | None) -> None:
    if skip_frames < 0:
        raise VideoError(f"skip_frames must be at least 0; got {skip_frames}.")
    if max_frames is not None and max_frames < 1:
        raise VideoError(f"max_frames must be at least 1; got {max_frames}.")


def _colour(frame: av.VideoFrame) -> tuple[int, int]:
    """The matrix and range to read `frame` by: its tags, or what players assume without them."""
    tag = frame.colorspace
    assumed = BT601 if frame.height < _HD_LINES else BT709
    matrix = assumed if tag in _UNTAGGED else _MATRIX_OF_TAG.get(tag, assumed)
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    return matrix, int(ColorRange.JPEG if full else ColorRange.MPEG)


def _upright(frame: av.VideoFrame, picture: Frame) -> Frame:
    """`picture` as the display matrix shows it, in quarter turns and mirrors.

    The matrix sends (x, y) to (a x + c y, b x + d y), y pointing down.
    """
    side_data = cast("Any", frame.side_data)  # PyAV's stubs lack its look-up by type
    data = side_data.get(SideDataType.DISPLAYMATRIX)
    if data is None:
        return picture
    a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5].tolist()
    turned = abs(b) > abs(a)
    if turned:
        picture, (along_x, along_y) = picture.transpose(1, 0, 2), (c, b)
    else:
        along_x, along_y = a, d
    picture = picture[:, ::-1] if along_x < 0 else picture
    picture = picture[::-1] if along_y < 0 else picture
    return np.ascontiguousarray(picture)


def _rgb(frame: av.VideoFrame, reformatter: VideoReformatter) -> Frame:
    """`frame` as full-range RGB, upright."""
    matrix, colour_range = _colour(frame)
    converted = reformatter.reformat(
        frame,
        format="rgb24",
        src_colorspace=matrix,
        # Means nothing in RGB; but older PyAV leaves the range alone where both matrices are one.
        dst_colorspace=BT709 if matrix != BT709 else BT601,
        src_color_range=colour_range,
        dst_color_range=int(ColorRange.JPEG),
        interpolation=CONVERSION,
    )
    return _upright(frame, cast("Frame", converted.to_ndarray()))


def _watch_rate(seconds: list[float], step: float) -> None:
    """Keep the shortest and the longest of the steps seen so far in `seconds`."""
    seconds[:] = [min([*seconds, step]), max([*seconds, step])]


def _decoded(container: Any, path: Path, seconds: list[float]) -> Iterator[Frame]:
    """Every frame of the first video stream, in the order shown."""
    reformatter = VideoReformatter()
    before: float | None = None
    count = 0
    try:
        for frame in container.decode(video=0):
            if before is not None and frame.time is not None:
                _watch_rate(seconds, frame.time - before)
            before = frame.time
            yield _rgb(frame, reformatter)
            count += 1
    except av.error.FFmpegError as error:
        raise VideoError(
            f"{path} cannot be decoded after {count} frames: {error.strerror}."
        ) from error


def _open_container(path: Path) -> _Reel:
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{path} is not a video that can be read: {error.strerror}.") from error
    if not container.streams.video:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        container.close()
        raise VideoError(f"{path} has no video stream; it holds {kinds}.")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    fps = stream.average_rate or stream.guessed_rate or PICTURE_FPS
    seconds: list[float] = []
    pictures = _decoded(container, path, seconds)
    return _Reel(Fraction(fps), stream.frames or None, pictures, container.close, seconds)


def _picture_frames(paths: list[Path]) -> Iterator[Frame]:
    """Every picture, an animated file giving each of its frames, turned upright by its EXIF tag."""
    from PIL import Image, ImageOps, ImageSequence  # only pictures need it

    for path in paths:
        try:
            with Image.open(path) as image:
                for picture in ImageSequence.Iterator(image):
                    yield np.array(ImageOps.exif_transpose(picture).convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise VideoError(f"{path} is not a picture that can be read.") from error


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sorts frame2 before frame10."""
    digits = "".join(c if c.isdigit() else " " for c in path.name).split()
    return [(0, int(number), "") for number in digits] + [(1, 0, path.name)]


def _open_pictures(path: Path) -> _Reel:
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
    return _Reel(PICTURE_FPS, known, _picture_frames(paths), lambda: None)


class VideoSource:
    """The chosen frames of one open file, one at a time: a context manager and a one-pass iterator.

    Invariants: every frame is uint8 [info.height_px, info.width_px, 3]; at least one frame comes;
    at most one decoded frame is held here. Raises `VideoError` where the file breaks off or changes
    its size.
    """

    def __init__(self, path: Path, reel: _Reel, skip_frames: int, max_frames: int | None) -> None:
        self._reel = reel
        self._path = path
        self._chosen = islice(
            reel.pictures, skip_frames, None if max_frames is None else skip_frames + max_frames
        )
        self._first = next(self._chosen, None)
        if self._first is None:
            after = f" after the first {skip_frames}" if skip_frames else ""
            raise VideoError(f"{path} has no frame to give{after}.")
        self._given = 0  # frames handed out
        self._ended = False
        left = None if reel.frames is None else max(reel.frames - skip_frames, 1)
        known = left if max_frames is None or left is None else min(left, max_frames)
        self.info = VideoInfo(path, self._first.shape[0], self._first.shape[1], reel.fps, known)

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
        first, self._first = self._first, None
        for picture in chain([] if first is None else [first], self._chosen):
            self._check_size(picture)
            self._given += 1
            yield picture
        self._ended = True

    def _check_size(self, picture: Frame) -> None:
        size = (self.info.height_px, self.info.width_px)
        if picture.shape[:2] != size:
            came = f"{picture.shape[0]}x{picture.shape[1]}"
            raise VideoError(
                f"{self._path} changes its size from {size[0]}x{size[1]} to {came}; cut it there."
            )

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        self._reel.close()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a caller should be told, of the frames read so far."""
        return tuple(note for note in (self._count_note(), self._rate_note()) if note)

    def _count_note(self) -> str | None:
        if not self._ended or self.info.frames is None or self._given >= self.info.frames:
            return None
        return f"the file promises {self.info.frames} frames, but only {self._given} could be read."

    def _rate_note(self) -> str | None:
        seconds = self._reel.seconds
        if not seconds or seconds[1] - seconds[0] < _RATE_TOLERANCE / self.info.fps:
            return None
        shortest, longest = (round(1000 * step) for step in seconds)
        return (
            f"the frame rate varies ({shortest} to {longest} ms a frame): frames are taken one by"
            f" one and keep the average rate of {float(self.info.fps):.4g} a second."
        )


def open_video(
    path: str | Path, skip_frames: int = 0, max_frames: int | None = None
) -> VideoSource:
    """Open a video, a picture or a folder of pictures (in the order of the numbers in their names).

    skip_frames, max_frames: sample frames to leave out at the start, and to take at most.
    Raises `VideoError` for what is missing, empty, unreadable or without a picture.
    """
    path = Path(path)
    _check_selection(skip_frames, max_frames)
    check_input(path)
    pictures = path.is_dir() or path.suffix.lower() in PICTURE_SUFFIXES
    reel = _open_pictures(path) if pictures else _open_container(path)
    try:
        return VideoSource(path, reel, skip_frames, max_frames)
    except BaseException:
        reel.close()
        raise


def read_video(path: str | Path, skip_frames: int = 0, max_frames: int | None = None) -> Clip:
    """The whole selection at once; see `open_video`."""
    with open_video(path, skip_frames, max_frames) as source:
        frames = np.stack(list(source))
        return Clip(frames, source.info, source.notes)


def frames_to_tensor(frames: Frames) -> torch.Tensor:
    """uint8 [t, h, w, 3], 0 to 255 -> float32 [1, 3, t, h, w], -1 to 1."""
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2).to(torch.float32)  # [3, t, h, w]
    return pixels.contiguous().div_(127.5).sub_(1)[None]


def tensor_to_frames(video: torch.Tensor) -> Frames:
    """[1, 3, t, h, w], -1 to 1 -> uint8 [t, h, w, 3], rounded, with what lies outside clamped.

    Inverse of `frames_to_tensor`. Raises `VideoError` for another shape and for values that are not
    finite.
    """
    if video.ndim != 5 or video.shape[0] != 1 or video.shape[1] != 3:
        raise VideoError(f"a video has the shape [1, 3, t, h, w]; got {list(video.shape)}.")
    if not bool(torch.isfinite(video).all()):
        raise VideoError(
            "the decoded video holds NaN or infinity; with float16, try bfloat16 or float32."
        )
    pixels = video[0].permute(1, 2, 3, 0).to(torch.float32)  # [t, h, w, 3]
    return pixels.add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()
