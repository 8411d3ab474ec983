"""How do frames go into a video file, so that a player shows the colours, size and rate they had?

`open_writer` takes them one at a time, `write_video` all of them:
1. RGB becomes limited-range bt709 YUV, and the file is tagged so. H.264 unless asked otherwise.
2. The pixel format is yuv420p, which every player knows. It cannot hold an odd height or width:
   those clips are written as yuv444p, which fewer players know, because the size must stay exact.
3. The file appears under its name when it is complete, never before.

It does not write audio.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import ColorRange, VideoReformatter

from ..errors import VideoError
from .files import whole_file
from .video import BT709, CONVERSION, Frame

_CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
VIDEO_SUFFIXES = frozenset(_CONTAINERS)

_TAG_709 = 1  # in the enumerations of matrices, primaries and transfer curves alike
_RATE_LIMIT = 65535


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How a video is written.

    codec: FFmpeg's name of an encoder, or None for the container's usual one (H.264, in .webm VP9).
    crf: constant quality, smaller is better; 0 is lossless in 8-bit H.264.
    pixel_format: FFmpeg's name, or None for yuv420p, where height or width is odd yuv444p.
    """

    codec: str | None = None
    crf: int = 18
    pixel_format: str | None = None

    def codec_for(self, path: Path) -> str:
        """The encoder for a file of that name; `VideoError` if this FFmpeg has none such."""
        usual = "libvpx-vp9" if path.suffix.lower() == ".webm" else "libx264"
        name = self.codec or usual
        try:
            if av.Codec(name, "w").type == "video":
                return name
        except ValueError:
            pass
        raise VideoError(
            f"{name!r} is not a video encoder of this FFmpeg build; libx264 is the usual one."
        )


class VideoWriter:
    """Adds frames to an open container; made by `open_writer`.

    The first frame fixes the size: [h, w, 3], uint8, RGB, for every frame after it.
    """

    def __init__(self, path: Path, container: Any, fps: Fraction, options: VideoOptions) -> None:
        self._path = path
        self._container = container
        self._fps = fps
        self._options = options
        self._reformatter = VideoReformatter()
        self._stream: Any = None

    def _start(self, height: int, width: int) -> Any:
        codec = self._options.codec_for(self._path)
        stream = self._container.add_stream(
            codec, rate=self._fps, options={"crf": str(self._options.crf)}
        )
        stream.height, stream.width = height, width
        odd = height % 2 or width % 2
        stream.pix_fmt = self._options.pixel_format or ("yuv444p" if odd else "yuv420p")
        context = stream.codec_context
        context.bit_rate = 0
        context.colorspace, context.color_range = _TAG_709, int(ColorRange.MPEG)
        context.color_primaries = context.color_trc = _TAG_709
        return stream

    def add(self, frame: Frame) -> None:
        """Encode one frame. Raises `VideoError` where the codec cannot take it."""
        if self._stream is None:
            self._stream = self._start(frame.shape[0], frame.shape[1])
        size = (self._stream.height, self._stream.width)
        if frame.shape != (*size, 3) or frame.dtype != np.uint8:
            came = f"{frame.dtype} {list(frame.shape)}"
            raise VideoError(f"frames must be uint8 [{size[0]}, {size[1]}, 3]; got {came}.")
        converted = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
            format=self._stream.pix_fmt,
            dst_colorspace=BT709,
            src_color_range=int(ColorRange.JPEG),
            dst_color_range=int(ColorRange.MPEG),
            interpolation=CONVERSION,
        )
        self._container.mux(self._stream.encode(converted))

    def finish(self) -> None:
        """Flush the encoder. Raises `VideoError` if no frame was added."""
        if self._stream is None:
            raise VideoError(f"there is no frame to write to {self._path}.")
        self._container.mux(self._stream.encode())


@contextmanager
def _errors_named(path: Path, options: VideoOptions) -> Generator[None]:
    """Raise what FFmpeg says against writing as `VideoError`."""
    try:
        yield
    except (av.error.FFmpegError, ValueError) as error:
        said = error.strerror if isinstance(error, av.error.FFmpegError) else error
        codec = options.codec_for(path)
        raise VideoError(f"FFmpeg cannot write {path} with {codec}: {said}.") from error


def check_options(path: Path, options: VideoOptions) -> None:
    """Raise `VideoError` unless a file of that name can be written so, by trying in memory."""
    grey = np.full((64, 64, 3), 128, np.uint8)
    kind = _CONTAINERS[path.suffix.lower()]
    with _errors_named(path, options), av.open(io.BytesIO(), "w", format=kind) as container:
        writer = VideoWriter(path, container, Fraction(8), options)
        writer.add(grey)
        writer.finish()


@contextmanager
def open_writer(
    path: str | Path, fps: Fraction, options: VideoOptions | None = None
) -> Generator[VideoWriter]:
    """A writer whose file appears under its name when the block ends without an error.

    After an error nothing is left, and a file that was there before stays. fps: sample frames a
    second. Raises `VideoError` for an unknown codec, one that does not suit the container or the
    size, and a place that cannot be written to.
    """
    path, options = Path(path), options or VideoOptions()
    options.codec_for(path)
    if fps <= 0:
        raise VideoError(f"fps must be more than 0; got {fps}.")
    rate = Fraction(fps).limit_denominator(_RATE_LIMIT)
    with (
        whole_file(path) as part,
        _errors_named(path, options),
        av.open(str(part), "w") as container,
    ):
        writer = VideoWriter(path, container, rate, options)
        yield writer
        writer.finish()


def write_video(
    path: str | Path, frames: Iterable[Frame], fps: Fraction, options: VideoOptions | None = None
) -> None:
    """Write all of `frames`, each uint8 [h, w, 3] RGB, pulled one at a time; see `open_writer`."""
    with open_writer(path, fps, options) as writer:
        for frame in frames:
            writer.add(frame)
