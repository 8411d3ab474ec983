"""What does an open video hold, and in which order and at what time do its frames come?

1. `film.py` decodes one frame after the other; nothing is turned into pixels before it is asked for
   (see `selection.Shot`).
2. Time counts from the first frame of the file, wherever reading begins. A frame without a time
   stamp follows the frame before it at the average rate.

Pictures are `pictures.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import av
import av.error

from ..errors import VideoError
from .colour import Converter, oddities
from .film import Film
from .selection import LOOSE_SECONDS, Shot

_SEEK_SECONDS = 1.0
"""A window that begins earlier is not worth seeking for."""


@dataclass(slots=True)
class Reel:
    """An open file.

    name: for sentences. fps: the rate that it says it has.
    frames: how many it has, where it lists them one by one; what may be planned for.
    timed: whether the rate is its own; pictures have none.
    shots: its frames, to be pulled once. close: releases the file.
    promised: how many it says it has; a hint.
    steps: shortest and longest step from frame to frame so far, in seconds; empty before the
        second frame. notes: what is not shown as a player would.
    late_notes: the same, of what has been read so far.
    """

    name: str
    fps: Fraction
    frames: int | None
    timed: bool
    shots: Iterator[Shot]
    close: Callable[[], None]
    promised: int | None = None
    steps: list[float] = field(default_factory=list[float])
    notes: list[str] = field(default_factory=list[str])
    late_notes: Callable[[], tuple[str, ...]] = tuple

    def watch(self, step_seconds: float) -> None:
        """Keep the shortest and the longest of the steps seen so far."""
        seen = [*self.steps, step_seconds]
        self.steps[:] = [min(seen), max(seen)]


Timed = tuple[Fraction, av.VideoFrame]
"""A decoded frame and when it is shown, in seconds since the first frame of its file."""


def _from(film: Film, start_seconds: float) -> tuple[Fraction, Iterator[av.VideoFrame]]:
    """The time of the file's first frame, and its frames from `start_seconds` or earlier."""
    frames = film.frames()
    if start_seconds >= _SEEK_SECONDS:
        zero = film.zero()
        return zero, film.frames_before(zero + Fraction(start_seconds) - LOOSE_SECONDS)
    first = next(frames, None)
    if first is None:
        return Fraction(0), frames
    return film.seconds(first) or Fraction(0), chain([first], frames)


def _timed(film: Film, reel: Reel, start_seconds: float) -> Iterator[Timed]:
    """The frames from `start_seconds` or earlier; time never goes back."""
    zero, frames = _from(film, start_seconds)
    before: Fraction | None = None
    for frame in frames:
        stamp = film.seconds(frame)
        seconds = None if stamp is None else stamp - zero
        if before is not None:
            # Beside a jump demuxers give some frames the time of the other part.
            if seconds is None or not before <= seconds <= before + film.ahead_seconds:
                seconds = before + 1 / reel.fps
            reel.watch(float(seconds - before))
        before = seconds or Fraction(0)
        yield before, frame


def _shots(film: Film, reel: Reel, start_seconds: float) -> Iterator[Shot]:
    """Every frame of the chosen stream from `start_seconds` or earlier, in the order shown."""
    converter, count = Converter(), 0
    try:
        for seconds, frame in _timed(film, reel, start_seconds):
            if count == 0:
                reel.notes.extend(oddities(frame, film.picture.sample_aspect_ratio))
            yield Shot(seconds, partial(converter.rgb, frame))
            count += 1
    except av.error.FFmpegError as error:
        raise VideoError(
            f"{reel.name} cannot be decoded after {count} frames: {error.strerror}."
        ) from error


def _jumps(film: Film) -> tuple[str, ...]:
    """What to say of time that jumped so far."""
    count = film.clock.jumps
    if not count:
        return ()
    places = "in one place" if count == 1 else f"in {count} places"
    return (
        f"time jumps {places}; the parts are taken as one clip, each right after the one before.",
    )


def _choice(film: Film) -> list[str]:
    """What to say of the stream that was chosen; nothing where there was no choice."""
    if len(film.pictures) < 2:
        return []
    taken = film.picture
    return [
        f"the file holds {len(film.pictures)} video streams; stream {taken.index}"
        f" ({taken.width}x{taken.height}) was taken, as a player does."
    ]


def open_container(source: Path | BinaryIO, name: str, start_seconds: float) -> Reel:
    """A video file, or an open binary file that holds one.

    Raises `VideoError` for what is no video.
    """
    film = Film(source, name)
    if film.picture is None:
        holds = film.holds
        film.close()
        raise VideoError(f"{name} is not a video: it has no video stream; it holds {holds}.")
    reel = Reel(name, film.fps, film.counted, True, iter(()), film.close, film.promised)
    reel.notes.extend(_choice(film))
    reel.late_notes = partial(_jumps, film)
    reel.shots = _shots(film, reel, start_seconds)
    return reel
