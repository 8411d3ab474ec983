"""How does the sound of one file get into another beside its new pictures?

1. `Sound` opens the first audio stream of a file. Packets are copied as they are where the new
   container takes their codec, else decoded and encoded with the container's usual one.
2. `carry_to` passes on what is heard up to a moment, so that sound and pictures interleave and
   nothing piles up in memory.

Copied sound is cut at packets, to about 20 ms; it is never stretched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error

from ..errors import VideoError

_USUAL = {".webm": "libopus"}
_USUAL_ELSEWHERE = "aac"


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """Sound to carry over: from `start_seconds` of `source` on, for as long as the pictures last.

    source: a file, or a binary file-like object.
    """

    source: str | Path | BinaryIO
    start_seconds: Fraction | float = 0


class Sound:
    """The sound of a file on its way into an open container.

    Invariant: sound up to the last moment of `carry_to`, and no more than a packet beyond, has been
    passed on. Raises `VideoError` for a file that cannot be read.
    """

    def __init__(self, track: AudioTrack, container: Any, suffix: str) -> None:
        source: Any = str(track.source) if isinstance(track.source, Path) else track.source
        self._name = str(track.source) if isinstance(track.source, str | Path) else "the sound"
        try:
            if not isinstance(source, str):
                source.seek(0)
            self._source: Any = av.open(source, metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(
                f"no sound can be read from {self._name}: {error.strerror}."
            ) from error
        self._start = Fraction(track.start_seconds)
        self._container = container
        self._coming: Iterator[tuple[Fraction, Any]] = iter(())
        self._next: tuple[Fraction, Any] | None = None
        self._encodes = False
        self.found = bool(self._source.streams.audio)
        if self.found:
            self._connect(suffix)

    def _connect(self, suffix: str) -> None:
        """Add the stream to the new container; before its first packet."""
        stream: Any = self._source.streams.audio[0]
        if stream.codec_context.name in self._container.supported_codecs:
            self._out: Any = self._container.add_stream_from_template(stream)
            self._coming = self._packets(stream)
        else:
            codec = _USUAL.get(suffix, _USUAL_ELSEWHERE)
            rate = 48000 if codec == "libopus" else stream.rate
            self._out = self._container.add_stream(codec, rate=rate)
            self._coming, self._encodes = self._encoded(stream), True

    def _packets(self, stream: Any) -> Iterator[tuple[Fraction, Any]]:
        """Packets of `stream` from the start on, with their new time in seconds."""
        for packet in self._source.demux(stream):
            if packet.pts is None:
                continue
            seconds = packet.pts * packet.time_base - self._start
            if seconds >= 0:
                shift = int(self._start / packet.time_base)
                packet.pts -= shift
                packet.dts = packet.pts
                packet.stream = self._out
                yield seconds, packet

    def _encoded(self, stream: Any) -> Iterator[tuple[Fraction, Any]]:
        """As `_packets`, encoded anew."""
        resampler = av.AudioResampler(
            format=self._out.codec_context.format, layout=stream.layout, rate=self._out.rate
        )
        given = 0
        for frame in self._source.decode(stream):
            if frame.pts is not None and frame.pts * frame.time_base < self._start:
                continue
            for part in resampler.resample(frame):
                part.pts, part.time_base = given, Fraction(1, part.sample_rate)
                given += part.samples
                for packet in self._out.encode(part):
                    yield Fraction(given, part.sample_rate), packet

    def finish(self, seconds: Fraction) -> None:
        """Pass on the rest of what is heard before `seconds`, the new clip's length."""
        if not self.found:
            return
        self.carry_to(seconds)
        if self._encodes:
            for packet in self._out.encode(None):
                self._container.mux(packet)

    def carry_to(self, seconds: Fraction) -> None:
        """Pass on what is heard before `seconds` of the new clip."""
        try:
            while True:
                if self._next is None:
                    self._next = next(self._coming, None)
                if self._next is None or self._next[0] >= seconds:
                    return
                self._container.mux(self._next[1])
                self._next = None
        except av.error.InvalidDataError as error:
            raise VideoError(f"the sound of {self._name} is damaged: {error.strerror}.") from error

    def close(self) -> None:
        """Release the file that is read."""
        self._source.close()
