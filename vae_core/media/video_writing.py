"""How do frames go into a video file, so that a player shows the colours, size and rate they had?

`open_writer` takes them one at a time, `write_video` all of them:
1. RGB becomes limited-range bt709 YUV, and the file is tagged so. H.264 unless asked otherwise.
2. The pixel format is yuv420p, which every player knows. It cannot hold an odd height or width:
   those clips are written as yuv444p, which fewer players know, because the size must stay exact.
3. Sound of another file goes beside it where it is asked for, see `audio.py`.
4. The file appears under its name when it is complete, never before.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import av.error
import numpy as np
from av.video.reformatter import ColorRange, VideoReformatter

from ..errors import VideoError
from .audio import AudioTrack, Sound, check_sound
from .colour import BT709, CONVERSION, Frame
from .files import whole_file

_CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
VIDEO_SUFFIXES = frozenset(_CONTAINERS)

_TAG_709 = 1  # in the enumerations of matrices, primaries and transfer curves alike
_RATE_LIMIT = 65535
_HIGHEST_RATE = 1_000_000
_TICKS = 10_000  # a second, at least

_ENCODERS = {
    "h264": "libx264",
    "h265": "libx265",
    "hevc": "libx265",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
    "prores": "prores_ks",
}
QUALITIES = ("small", "good", "high", "best")
# The constant quality that each name means; codecs count differently. The usual one is "high".
_CRF = {
    "libx264": (28, 23, 18, 12),
    "libx265": (31, 26, 21, 15),
    "libvpx-vp9": (41, 33, 24, 15),
    "libsvtav1": (45, 36, 26, 15),
}
_PRORES, _PRORES_444 = "yuv422p10le", "yuv444p10le"
_PRORES_BLOCK_PX = 16
_X265 = "libx265"
# Clips of fewer frames than this come out of x265 4.2 with headers that no container takes where
# they may have B frames; smaller pictures than this break its memory where it weighs blocks by what
# later frames take from them.
_X265_FRAMES, _X265_PX = 3, 64


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How a video is written.

    codec: h264, h265, vp9, av1, prores, ffv1 or FFmpeg's name of an encoder; None for the
        container's usual one (H.264, in .webm VP9).
    crf: constant quality, smaller is better; 0 is lossless in 8-bit H.264.
    pixel_format: FFmpeg's name, or None for yuv420p, where height or width is odd yuv444p.
    quality: in place of `crf`, one of `QUALITIES`, which means about the same for every codec.
    metadata: what the container shall say by name, such as {"workflow": ...}.
    """

    codec: str | None = None
    crf: int = 18
    pixel_format: str | None = None
    quality: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        if self.quality is not None and self.quality not in QUALITIES:
            raise VideoError(f"quality must be {' or '.join(QUALITIES)}; got {self.quality!r}.")

    def codec_for(self, path: Path) -> str:
        """The encoder for a file of that name; `VideoError` if this FFmpeg has none such."""
        usual = "libvpx-vp9" if path.suffix.lower() == ".webm" else "libx264"
        name = self.codec or usual
        name = _ENCODERS.get(name.lower(), name)
        try:
            if av.Codec(name, "w").type == "video":
                return name
        except ValueError:
            pass
        raise VideoError(
            f"{name!r} is not a video encoder of this FFmpeg build; libx264 is the usual one."
        )

    def crf_for(self, encoder: str) -> int:
        """The constant quality as that encoder counts it."""
        if self.quality is None:
            return self.crf
        return _CRF.get(encoder, _CRF["libx264"])[QUALITIES.index(self.quality)]

    def encoder_options(self, encoder: str, size: tuple[int, int], count: int) -> dict[str, str]:
        """What the encoder is told for frames of that height and width, at least so many."""
        told = {"crf": str(self.crf_for(encoder))}
        if encoder == _X265:
            few, small = count < _X265_FRAMES, min(size) < _X265_PX
            quirks = few * ["bframes=0"] + small * ["cutree=0"]
            told["x265-params"] = ":".join([*quirks, "log-level=error"])
        return told

    def format_for(self, encoder: str, height: int, width: int) -> str:
        """FFmpeg's name of the pixel format for frames of that size."""
        if self.pixel_format:
            return self.pixel_format
        if encoder == "prores_ks":
            # The encoder leaves colours out of a last block that is one pixel wide.
            return _PRORES_444 if width % _PRORES_BLOCK_PX == 1 else _PRORES
        return "yuv444p" if height % 2 or width % 2 else "yuv420p"


@dataclass(frozen=True, slots=True)
class _Target:
    """What is written: where, at which rate, how, and with whose sound."""

    path: Path
    fps: Fraction
    options: VideoOptions
    audio: AudioTrack | None = None


class VideoWriter:
    """Adds frames to an open container; made by `open_writer`.

    The first frame fixes the size: [h, w, 3], uint8, RGB, for every frame after it.
    """

    def __init__(self, target: _Target, container: Any) -> None:
        self._target = target
        self._container = container
        self._reformatter = VideoReformatter()
        self._stream: Any = None
        self._sound: Sound | None = None
        # Frames that wait until it is known how the encoder has to be told to begin.
        self._first: list[Frame] = []
        self._size: tuple[int, int] | None = None
        self.frames = 0

    def _start(self, height: int, width: int, codec: str) -> Any:
        target = self._target
        told = target.options.encoder_options(codec, (height, width), len(self._first))
        stream = self._container.add_stream(codec, rate=target.fps, options=told)
        stream.height, stream.width = height, width
        stream.pix_fmt = target.options.format_for(codec, height, width)
        context = stream.codec_context
        context.bit_rate = 0
        context.colorspace, context.color_range = _TAG_709, int(ColorRange.MPEG)
        context.color_primaries = context.color_trc = _TAG_709
        if target.audio is not None:
            self._sound = Sound(target.audio, self._container, target.path.suffix.lower())
        return stream

    @property
    def silent(self) -> bool:
        """Whether sound was asked for, and there was none."""
        return self._sound is not None and not self._sound.found

    def close(self) -> None:
        """Release the file that sound comes from."""
        if self._sound is not None:
            self._sound.close()

    def add(self, frame: Frame) -> None:
        """Take one frame. Raises `VideoError` where the codec cannot take it."""
        height, width = frame.shape[:2] if self._size is None else self._size
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            came = f"{frame.dtype} {list(frame.shape)}"
            raise VideoError(f"frames must be uint8 [{height}, {width}, 3]; got {came}.")
        self._size = height, width
        if self._stream is not None:
            self._encode(frame)
            return
        self._first.append(frame.copy())
        codec = self._target.options.codec_for(self._target.path)
        if codec != _X265 or len(self._first) == _X265_FRAMES:
            self._begin()

    def _begin(self) -> None:
        """Open the stream and encode what waited for it."""
        target = self._target
        height, width = self._first[0].shape[:2]
        self._stream = self._start(height, width, target.options.codec_for(target.path))
        for frame in self._first:
            self._encode(frame)
        self._first.clear()

    def _encode(self, frame: Frame) -> None:
        converted = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
            format=self._stream.pix_fmt,
            dst_colorspace=BT709,
            src_color_range=int(ColorRange.JPEG),
            dst_color_range=int(ColorRange.MPEG),
            interpolation=CONVERSION,
        )
        self._container.mux(self._stream.encode(converted))
        self.frames += 1
        if self._sound is not None:
            self._sound.carry_to(self.frames / self._target.fps)

    def finish(self) -> None:
        """Flush the encoder. Raises `VideoError` if no frame was added."""
        if self._stream is None and not self._first:
            raise VideoError(f"there is no frame to write to {self._target.path}.")
        if self._stream is None:
            self._begin()
        self._container.mux(cast("Any", self._stream).encode())
        if self._sound is not None:
            self._sound.finish(self.frames / self._target.fps)


@contextmanager
def _errors_named(path: Path, options: VideoOptions) -> Generator[None]:
    """Raise what FFmpeg says against writing as `VideoError`."""
    try:
        yield
    except (av.error.FFmpegError, ValueError) as error:
        said = error.strerror if isinstance(error, av.error.FFmpegError) else error
        codec = options.codec_for(path)
        raise VideoError(f"FFmpeg cannot write {path} with {codec}: {said}.") from error


def check_options(
    path: Path,
    options: VideoOptions,
    size: tuple[int, int] = (64, 64),
    fps: Fraction = Fraction(8),
) -> None:
    """Raise `VideoError` unless a file of that name can be written so, by trying in memory.

    size: height and width of its frames. fps: sample frames a second.
    """
    grey = np.full((*size, 3), 128, np.uint8)
    kind = _CONTAINERS[path.suffix.lower()]
    with _errors_named(path, options), av.open(io.BytesIO(), "w", format=kind) as container:
        target = _Target(path, Fraction(fps).limit_denominator(_RATE_LIMIT), options)
        writer = VideoWriter(target, container)
        writer.add(grey)
        writer.finish()


def _flags(path: Path, fps: Fraction) -> dict[str, str]:
    """What the muxer is told: keep every name of the metadata, put the index first, and count the
    edit list in ticks that no frame falls between; its usual ones are milliseconds."""
    if path.suffix.lower() not in {".mp4", ".mov"}:
        return {}
    ticks = fps.numerator * -(-_TICKS // fps.numerator)
    return {"movflags": "use_metadata_tags+faststart", "movie_timescale": str(ticks)}


@contextmanager
def open_writer(
    path: str | Path,
    fps: Fraction,
    options: VideoOptions | None = None,
    audio: AudioTrack | None = None,
) -> Generator[VideoWriter]:
    """A writer whose file appears under its name when the block ends without an error.

    After an error nothing is left, and a file that was there before stays. fps: sample frames a
    second. audio: sound to carry over; where the file has none, `writer.silent` says so. Raises
    `VideoError` for an unknown codec, one that does not suit the container or the size, and a place
    that cannot be written to.
    """
    path, options = Path(path), options or VideoOptions()
    options.codec_for(path)
    if not Fraction(1, _RATE_LIMIT) <= fps <= _HIGHEST_RATE:
        raise VideoError(f"fps must be from 1/{_RATE_LIMIT} to {_HIGHEST_RATE}; got {fps}.")
    if audio is not None:
        check_sound(audio, path.suffix.lower())
    target = _Target(path, Fraction(fps).limit_denominator(_RATE_LIMIT), options, audio)
    with (
        whole_file(path) as part,
        _errors_named(path, options),
        av.open(f"file:{part}", "w", options=_flags(path, target.fps)) as container,
    ):
        container.metadata.update(options.metadata)
        writer = VideoWriter(target, container)
        with closing(writer):
            yield writer
            writer.finish()


def write_video(
    path: str | Path, frames: Iterable[Frame], fps: Fraction, options: VideoOptions | None = None
) -> None:
    """Write all of `frames`, each uint8 [h, w, 3] RGB, pulled one at a time; see `open_writer`."""
    with open_writer(path, fps, options) as writer:
        for frame in frames:
            writer.add(frame)
