"""Recordings made by FFmpeg, with every frame numbered: how others' files look, not ours."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from heapq import merge
from pathlib import Path
from typing import Any

import av
import numpy as np

FPS = 25
SOUND_RATE = 32000
_TICKS = Fraction(1, 90000)
_KEYS = {
    "libx264": "keyint={0}:min-keyint={0}:scenecut=0:open-gop=1",
    "libx265": "keyint={0}:min-keyint={0}:open-gop=1:log-level=none",
}
_OPTIONS = {
    "libx264": {"crf": "4"},
    "libx265": {"crf": "4"},
    "libvpx-vp9": {"crf": "4", "b": "0"},
}


def grey(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A frame whose grey is its number times 2."""
    return np.full((height, width, 3), 2 * number, np.uint8)


def numbers(frames: np.ndarray) -> list[int]:
    """What `grey` made, read back."""
    return [round(float(frame.mean()) / 2) for frame in frames]


@dataclass(frozen=True)
class Recording:
    """What is recorded: frames first, first + 1 ... at 25 a second, and a tone.

    start: what the file's clock says at the beginning. picture_late, sound_late: when they begin
    after that; a sound_late of None is silence. tone: when it is heard, after the beginning.
    """

    frames: int = 100
    first: int = 0
    codec: str = "libx264"
    key_every: int = 50
    start: float = 0.0
    picture_late: float = 0.0
    sound_late: float | None = None
    sound_codec: str = "aac"
    tone: float = 2.0
    options: dict[str, str] = field(default_factory=dict)


def _pictures(what: Recording) -> Iterator[tuple[float, int, av.VideoFrame]]:
    for number in range(what.frames):
        frame = av.VideoFrame.from_ndarray(grey(what.first + number), format="rgb24")
        seconds = number / FPS + what.picture_late
        frame.pts, frame.time_base = round((seconds + what.start) / _TICKS), _TICKS
        yield seconds, 0, frame


def _sounds(what: Recording) -> Iterator[tuple[float, int, av.AudioFrame]]:
    length = what.frames / FPS + what.picture_late
    at = np.arange(round(length * SOUND_RATE))
    wave = np.where(at < what.tone * SOUND_RATE, 0, 0.3 * np.sin(at * 0.1)).astype(np.float32)
    for begin in range(round((what.sound_late or 0) * SOUND_RATE), len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, begin : begin + 1024], "fltp", "mono")
        frame.rate, frame.time_base = SOUND_RATE, Fraction(1, SOUND_RATE)
        frame.pts = begin + round(what.start * SOUND_RATE)
        yield begin / SOUND_RATE, 1, frame


class _Pipe:
    """What can be written to, and not gone back in."""

    def __init__(self) -> None:
        self.data = io.BytesIO()

    def write(self, data: bytes) -> int:
        return self.data.write(data)


def _write(container: Any, what: Recording) -> None:
    options = dict(_OPTIONS.get(what.codec, {"qscale": "2"}))
    if what.codec in _KEYS:
        options[f"{what.codec[3:]}-params"] = _KEYS[what.codec].format(what.key_every)
    video = container.add_stream(what.codec, rate=FPS, options=options)
    video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
    video.codec_context.gop_size = what.key_every
    if what.codec in _OPTIONS:
        video.codec_context.time_base = _TICKS
    streams, sounds = [video], iter(())
    if what.sound_late is not None:
        streams.append(container.add_stream(what.sound_codec, rate=SOUND_RATE, layout="mono"))
        sounds = _sounds(what)
    for _, which, frame in merge(_pictures(what), sounds, key=lambda item: item[0]):
        container.mux(streams[which].encode(frame))
    for stream in streams:
        container.mux(stream.encode())


def record(path: Path, what: Recording, piped_as: str | None = None) -> Path:
    """Write a recording to `path`; piped_as: as that format, without going back in the file."""
    target: Any = str(path) if piped_as is None else _Pipe()
    with av.open(target, "w", format=piped_as, options=what.options) as container:
        _write(container, what)
    if piped_as is not None:
        path.write_bytes(target.data.getvalue())
    return path


def joined(path: Path, *parts: Recording) -> Path:
    """Recordings one after the other in one file, as `cat` makes it."""
    pieces = [record(path.with_name(f"{n}{path.suffix}"), part) for n, part in enumerate(parts)]
    path.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    return path


def _loud(path: Path) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        rate, position = stream.rate, 0
        resampler = av.AudioResampler("flt", "mono", rate)
        for frame in container.decode(stream):
            position = round(frame.pts * frame.time_base * rate)
            for part in resampler.resample(frame):
                loud = np.abs(part.to_ndarray()[0]) > 0.1
                yield (position + np.nonzero(loud)[0]) / rate


def tones(path: Path) -> list[float]:
    """When tones begin, in seconds after the first picture of the file."""
    with av.open(str(path)) as container:
        first = next(container.decode(video=0))
        zero = float(first.pts * first.time_base)
    moments = np.concatenate([*_loud(path)])
    begins = np.diff(moments, prepend=-1) > 0.1
    return [float(moment) - zero for moment in moments[begins]]
