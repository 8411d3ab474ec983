"""How are the pictures and the sound of a media file decoded, on one clock?

1. `Film` opens a container and chooses its streams as a player does: a cover is no video, and of
   several the one that is marked as usual, or the fuller one.
2. Packets pass through a `Clock`. Sound and pictures may be read apart from each other: they go
   through the same one, and count from the same moment, the first picture.
3. Reading begins at the file's start, or at a key frame where the container has an index that leads
   to one before the wanted time. A search by time stamps or bytes, which is what other containers
   have, ends anywhere: there everything before is decoded too.

Threads decode slices of one frame, never several frames: where a header is damaged, FFmpeg's
H.265 decoder waits for ever for a frame that does not come.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from math import floor
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error
from av.stream import Disposition

from ..errors import VideoError
from .clock import Clock

USUAL_FPS = Fraction(8)
"""Rate given to what has none: CogVideoX's own."""

_LEAPING = 0x0200  # FFmpeg's AVFMT_TS_DISCONT
_INDEXED = frozenset({"mov", "matroska"})
_NO_VIDEO = int(Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails)
_FINE_FPS = 1000
"""Edit lists of MP4 usually count milliseconds: off faster clips they would cut frames."""
_SECOND = 1_000_000  # in the time base of whole containers, FFmpeg's AV_TIME_BASE


def _nameable(path: Path) -> bool:
    """Whether FFmpeg can be given that name: it takes UTF-8 alone."""
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def _moving_pictures(container: Any) -> list[Any]:
    """The video streams that can be decoded and are no covers or stills; first the one that a
    player shows."""
    found = [
        one
        for one in container.streams.video
        if one.codec_context is not None and not int(one.disposition) & _NO_VIDEO
    ]
    best = container.streams.best("video", None)
    # A single picture that nobody has marked as a cover is one all the same.
    return sorted(found, key=lambda one: (one.frames == 1, best is None or one.index != best.index))


class Film:
    """A media file that is read from its start or from a key frame, as often as it takes.

    name: for sentences. picture, sound: the chosen streams; None where there is none. pictures: all
    video streams that could have been chosen. clock: of the reading that goes on.

    Raises `VideoError` for what is no media file.
    """

    def __init__(self, source: Path | BinaryIO, name: str) -> None:
        self.name = name
        self._source = source
        self._options: dict[str, str] = {}
        self._container: Any = None
        self._file: BinaryIO | None = None
        self.picture: Any = None
        self.sound: Any = None
        self.open()
        if self.fps > _FINE_FPS and self._is("mov"):
            self._options = {"advanced_editlist": "0"}
            self.open()

    def open(self) -> None:
        """Open the file, or begin again at its start."""
        self.close()
        try:
            self._container = av.open(
                self._opened(), metadata_errors="replace", options=self._options
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or error
            raise VideoError(f"{self.name} is not a video that can be read: {said}.") from error
        self.pictures = _moving_pictures(self._container)
        self.picture = self.pictures[0] if self.pictures else None
        sound = self._container.streams.best("audio", self.picture)
        self.sound = None if sound is None or sound.codec_context is None else sound
        if self.picture is not None:
            self.picture.thread_type = "SLICE"
        self.clock = Clock(self.ahead_seconds, 1 / self.fps)

    def _opened(self) -> Any:
        """What FFmpeg is given: a file's name, never a protocol's such as `12:30.mp4`."""
        if isinstance(self._source, Path):
            if _nameable(self._source):
                return f"file:{self._source}"
            self._file = self._source.open("rb")
            return self._file
        self._source.seek(0)
        return self._source

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        self.pictures: list[Any] = []
        self.picture = self.sound = None  # streams keep decoders alive, and those a frame
        if self._container is not None:
            self._container.close()
        if self._file is not None:
            self._file.close()

    def _is(self, *formats: str) -> bool:
        return not set(formats).isdisjoint(self._container.format.name.split(","))

    @property
    def _leaps(self) -> bool:
        return bool(int(self._container.format.flags) & _LEAPING)

    @property
    def ahead_seconds(self) -> int:
        """Time that leaps by more has jumped; up to there it stood still. As players have it."""
        return 10 if self._leaps else 3600

    @property
    def fps(self) -> Fraction:
        """The pictures' average rate, as the file says."""
        rate = self.picture and (self.picture.average_rate or self.picture.guessed_rate)
        return Fraction(rate or USUAL_FPS)

    @property
    def promised(self) -> int | None:
        """How many pictures the file says it has; None where it does not, or cannot have them.

        AVI that was written to a pipe says 2^30; clips with an edit list show fewer than they hold.
        """
        said, size = self.picture.frames, self._container.size
        if not 0 < said <= size:
            return None
        if self._is("mov") and self.picture.duration:
            shown = self.picture.duration * self.picture.time_base * self.fps
            return said if abs(shown - said) < 1 else None
        return said

    @property
    def counted(self) -> int | None:
        """`promised`, where the file lists its pictures one by one: what may be planned for."""
        return self.promised if self._is("mov") else None

    @property
    def holds(self) -> str:
        """The kinds of streams, in words."""
        kinds = {one.type for one in self._container.streams if one.type != "video"}
        for one in self._container.streams.video:
            known = one.codec_context is not None
            kinds.add("a cover picture" if known else "video of a codec that nobody knows here")
        return ", ".join(sorted(kinds, key=lambda kind: (" " in kind, kind))) or "nothing"

    def _packets(self, wanted: Any) -> Iterator[Any]:
        """The packets of one stream, on the clock."""
        both = [one for one in (self.picture, self.sound) if one is not None]
        # Where time may leap, the moves depend on the packets of both streams.
        for packet in self._container.demux(both if self._leaps else [wanted]):
            self.clock.settle(packet)
            if packet.stream.index == wanted.index:
                yield packet

    def frames(self) -> Iterator[av.VideoFrame]:
        """The pictures from where the file stands, in the order shown."""
        for packet in self._packets(self.picture):
            yield from packet.decode()

    def sound_packets(self) -> Iterator[Any]:
        """The packets of the sound from where the file stands, and at last an empty one."""
        return self._packets(self.sound)

    def seconds(self, frame: av.VideoFrame) -> Fraction | None:
        """When a picture is shown, on the clock; None where the file does not say."""
        # AVI knows when a picture is decoded, not when it is shown; so it counts in that order.
        stamp = frame.dts if self._is("avi") else frame.pts
        return None if stamp is None or not frame.time_base else stamp * frame.time_base

    def zero(self) -> Fraction:
        """The first picture's time, else the first sound's. The file must stand at its start, and
        stands behind that picture then."""
        first = None
        if self.picture is not None:
            with contextlib.suppress(av.error.FFmpegError):
                first = next(self.frames(), None)
        found = None if first is None else self.seconds(first)
        return Fraction(self._container.start_time or 0, _SECOND) if found is None else found

    def frames_before(self, seconds: Fraction) -> Iterator[av.VideoFrame]:
        """The pictures from a key frame before `seconds` of the clock on, or from the start."""
        frames = self._from_key_frame(seconds) if self._is(*_INDEXED) else None
        if frames is not None:
            return frames
        self.open()
        return self.frames()

    def _from_key_frame(self, seconds: Fraction) -> Iterator[av.VideoFrame] | None:
        """None where the index leads to no picture that can be decoded by itself, or too far."""
        try:
            target = floor(seconds / self.picture.time_base)
            self._container.seek(target, stream=self.picture)
            self.clock = Clock(self.ahead_seconds, 1 / self.fps)
            frames = self.frames()
            first = next(frames, None)
        except av.error.FFmpegError:
            return None
        found = None if first is None else self.seconds(first)
        if first is None or found is None or found > seconds or not first.key_frame:
            return None
        return chain([first], frames)
