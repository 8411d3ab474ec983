"""How does the sound of one file get into another beside its new pictures, in step with them?

1. `Sound` opens the sound that a player would choose. Times count from the file's first picture,
   on the clock that its pictures have (`film.py`), whatever the file counts from; where it has no
   picture, from its first sound. The first picture that is kept is time zero in the new file.
2. Packets are copied as they are where the new container takes them, which is tried in memory; else
   they are decoded and encoded with the container's usual codec. There silence fills what has no
   sound, because some codecs and containers forget a gap.
3. `carry_to` passes on what is heard up to a moment, so that sound and pictures interleave and
   nothing piles up in memory.

Copied sound is cut at packets, to about 20 ms; it is never stretched.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error
import numpy as np
import numpy.typing as npt

from ..errors import VideoError
from .film import Film

_USUAL = {".webm": "libopus"}
_USUAL_ELSEWHERE = "aac"
_FORMATS = {".mkv": "matroska"}  # FFmpeg's names of containers that are not their suffix
_USUAL_RATE = 48000
_TRIED_PACKETS = 8
_TRIED_SECONDS = Fraction(1, 2)
_JITTER_SECONDS = Fraction(1, 20)
"""Sound whose time stamps are off by less goes on without a gap: they may be rounded."""

_SILENCE_SAMPLES = 4096
"""Written at once, at most."""

_LAYOUTS = {1: "mono", 5: "5.0", 6: "5.1", 8: "7.1"}
"""By the number of channels, what every encoder takes; other numbers become stereo."""

_SAMPLES = "fltp"
Samples = npt.NDArray[np.float32]  # [channels, n]


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """Sound to carry over: from `start_seconds` of `source` on, for as long as the pictures last.

    source: a file, or a binary file-like object. start_seconds: when the first picture that is kept
    is shown, counted from the first of the source.
    """

    source: str | Path | BinaryIO
    start_seconds: Fraction | float = 0


def _film(track: AudioTrack) -> Film:
    source = Path(track.source) if isinstance(track.source, str) else track.source
    name = str(source) if isinstance(source, Path) else "the sound"
    try:
        return Film(source, name)
    except VideoError as error:
        raise VideoError(f"no sound can be read from {name}: {error}") from error


def _in_memory(suffix: str) -> Any:
    """A container of that kind that leaves no file."""
    kind = _FORMATS.get(suffix, suffix.removeprefix("."))
    return av.open(io.BytesIO(), "w", format=kind)


def _takes(film: Film, suffix: str) -> bool:
    """Whether a file of that suffix takes packets of `film`'s sound as they are; found out by
    writing some to memory. What a muxer says that it takes is not what it takes."""
    packets = (packet for packet in film.sound_packets() if packet.dts is not None)
    try:
        with _in_memory(suffix) as trial:
            out = trial.add_stream_from_template(film.sound)
            for packet in islice(packets, _TRIED_PACKETS):
                packet.stream = out
                trial.mux(packet)
    except (av.error.FFmpegError, ValueError):
        return False
    finally:
        film.open()
    return True


def _layout(stream: Any) -> str:
    """The name of a stream's channels that every encoder knows: wav may only give their number, and
    speakers at the side or at the back are told apart by some codecs alone."""
    return _LAYOUTS.get(stream.layout.nb_channels, "stereo")


class _Even:
    """Sound without gaps: what comes late is preceded by silence, what overlaps is cut off.

    given: samples handed out so far, which is where the next one lies in the new file.
    """

    def __init__(self, rate: int, channels: int) -> None:
        self._rate = rate
        self._channels = channels
        self._coming = 0  # where the next sample lies if nothing jumps
        self.given = 0

    def moved(self, seconds: Fraction) -> None:
        """Say when the samples that come next are heard."""
        at = round(seconds * self._rate)
        if self._coming == 0 or abs(at - self._coming) > _JITTER_SECONDS * self._rate:
            self._coming = at

    def of(self, samples: Samples) -> Iterator[Samples]:
        """`samples` and the silence before them, in runs."""
        while self._coming > self.given:
            count = min(self._coming - self.given, _SILENCE_SAMPLES)
            yield self._counted(np.zeros((self._channels, count), np.float32))
        overlap = self.given - self._coming
        self._coming += samples.shape[1]
        if samples.shape[1] > overlap:
            yield self._counted(samples[:, overlap:])

    def _counted(self, samples: Samples) -> Samples:
        self.given += samples.shape[1]
        return samples


class Sound:
    """The sound of a file on its way into an open container.

    Invariant: sound up to the last moment of `carry_to`, and no more than a packet beyond, has been
    passed on. Raises `VideoError` for a file that cannot be read.
    """

    def __init__(self, track: AudioTrack, container: Any, suffix: str) -> None:
        self._film = _film(track)
        self._name = self._film.name
        self._container = container
        self._coming: Iterator[tuple[Fraction, Any]] = iter(())
        self._next: tuple[Fraction, Any] | None = None
        self._encodes = False
        self.found = self._film.sound is not None
        if self.found:
            self._start = self._film.zero() + Fraction(track.start_seconds)
            self._film.open()
            self._connect(suffix)

    def _connect(self, suffix: str) -> None:
        """Add the stream to the new container; before its first packet."""
        if _takes(self._film, suffix):
            self._out: Any = self._container.add_stream_from_template(self._film.sound)
            self._coming = self._packets()
        else:
            codec, own = _USUAL.get(suffix, _USUAL_ELSEWHERE), self._film.sound.rate
            rates = av.Codec(codec, "w").audio_rates or [own]
            rate = own if own in rates else _USUAL_RATE
            layout = _layout(self._film.sound)
            self._out = self._container.add_stream(codec, rate=rate, layout=layout)
            self._coming, self._encodes = self._encoded(rate, layout), True

    def _packets(self) -> Iterator[tuple[Fraction, Any]]:
        """Packets from the start on, with their new time in seconds."""
        last: int | None = None
        for packet in self._film.sound_packets():
            if packet.pts is None:
                continue
            seconds = packet.pts * packet.time_base - self._start
            stamp = round(seconds / packet.time_base)
            # At a jump of time the sound of the part before may reach into the one after.
            if seconds < 0 or (last is not None and stamp <= last):
                continue
            packet.pts = packet.dts = last = stamp
            packet.stream = self._out
            yield seconds, packet

    def _heard(self, rate: int, layout: str) -> Iterator[tuple[Fraction | None, Samples]]:
        """Decoded samples, with their new time in seconds where it is known."""
        resampler: Any = av.AudioResampler(format=_SAMPLES, layout=layout, rate=rate)
        for packet in self._film.sound_packets():
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                continue  # as players do: the next packet's time leaves a gap for it
            for frame in frames:
                known = frame.pts is not None and frame.time_base
                seconds = frame.pts * frame.time_base - self._start if known else None
                for part in resampler.resample(frame):
                    yield seconds, part.to_ndarray()
                    seconds = None
        for part in resampler.resample(None):
            yield None, part.to_ndarray()

    def _encoded(self, rate: int, layout: str) -> Iterator[tuple[Fraction, Any]]:
        """As `_packets`, encoded anew."""
        even = _Even(rate, av.AudioLayout(layout).nb_channels)
        for seconds, samples in self._heard(rate, layout):
            if seconds is not None:
                even.moved(seconds)
            for run in even.of(samples):
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(run), _SAMPLES, layout)
                frame.rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = even.given - run.shape[1]
                for packet in self._out.encode(frame):
                    yield Fraction(even.given, rate), packet

    def finish(self, seconds: Fraction) -> None:
        """Pass on the rest of what is heard before `seconds`, the new clip's length."""
        if not self.found:
            return
        self.carry_to(seconds)
        if self._encodes:
            held = [] if self._next is None else [self._next[1]]
            for packet in held + self._out.encode(None):
                self._put(packet)

    def carry_to(self, seconds: Fraction) -> None:
        """Pass on what is heard before `seconds` of the new clip."""
        while True:
            if self._next is None:
                self._next = self._pulled()
            if self._next is None or self._next[0] >= seconds:
                return
            self._put(self._next[1])
            self._next = None

    def _pulled(self) -> tuple[Fraction, Any] | None:
        try:
            return next(self._coming, None)
        except av.error.FFmpegError as error:
            raise VideoError(
                f"the sound of {self._name} cannot be carried over: {error.strerror}."
            ) from error

    def _put(self, packet: Any) -> None:
        try:
            self._container.mux(packet)
        except av.error.ArgumentError as error:  # not a full disk, which is the file's matter
            raise VideoError(
                f"the file cannot take the sound of {self._name}: {error.strerror}."
            ) from error

    def close(self) -> None:
        """Release the file that is read."""
        self._film.close()


def check_sound(track: AudioTrack, suffix: str) -> None:
    """Raise `VideoError` unless the sound can be carried into a file of that suffix, by trying its
    beginning in memory."""
    beginning = replace(track, start_seconds=0)
    try:
        with _in_memory(suffix) as trial, closing(Sound(beginning, trial, suffix)) as sound:
            sound.finish(_TRIED_SECONDS)
    except (av.error.FFmpegError, ValueError) as error:
        said = error.strerror if isinstance(error, av.error.FFmpegError) else error
        raise VideoError(
            f"the sound of {track.source} cannot be written to {suffix}: {said}. Convert it first,"
            " or leave it out."
        ) from error
