"""Which frames of a clip are wanted, and at which rate?

Choices are made in this order, on frames that have not been turned into pixels yet:
1. `start_seconds` and `stop_seconds` cut a window out of the clip, by time stamps.
2. `fps` resamples the window to a constant rate: each tick shows the frame that a player would show
   at that time. Without it frames are taken one by one, whatever their time stamps.
3. `skip_frames` leaves some out, `stride` takes each so-manieth, `max_frames` ends it.

It opens no file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice

from ..errors import VideoError
from .colour import Frame

LOOSE_SECONDS = Fraction(1, 2000)
"""What time stamps in whole milliseconds need."""

_FPS_FROM, _FPS_TO = Fraction(1, 1000), 1_000_000
_LONGEST_SECONDS = 1e9  # 31 years; beyond, sums in floating point lose milliseconds
_FINEST = 65535
"""The largest denominator of a rate."""


def _loose(fps: Fraction) -> Fraction:
    """By how much a time stamp may be off, in seconds: never by half a frame."""
    return min(LOOSE_SECONDS, 1 / (4 * fps))


@dataclass(frozen=True, slots=True)
class Shot:
    """A decoded frame before it is turned into pixels.

    seconds: when it is shown, from the clip's start. picture: turns it into pixels.
    """

    seconds: Fraction
    picture: Callable[[], Frame]


@dataclass(frozen=True, slots=True)
class Selection:
    """The frames that are wanted; see the module's words for the order.

    skip_frames, max_frames: sample frames left out first, and taken at most (None: all).
    stride: 2 takes every other frame. fps: resampled to so many a second; None takes all.
    start_seconds, stop_seconds: the window [start, stop); None for the clip's end.

    Raises `VideoError` for what leaves nothing.
    """

    skip_frames: int = 0
    max_frames: int | None = None
    stride: int = 1
    fps: Fraction | float | None = None
    start_seconds: float = 0.0
    stop_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.skip_frames < 0:
            raise VideoError(f"skip_frames must be at least 0; got {self.skip_frames}.")
        if self.max_frames is not None and self.max_frames < 1:
            raise VideoError(f"max_frames must be at least 1; got {self.max_frames}.")
        if self.stride < 1:
            raise VideoError(f"stride must be at least 1; got {self.stride}.")
        if self.fps is not None and not self.fps > 0:
            raise VideoError(f"fps must be more than 0; got {self.fps}.")
        if self.fps is not None and not _FPS_FROM <= self.fps <= _FPS_TO:
            raise VideoError(
                f"fps must be from {float(_FPS_FROM):g} to {_FPS_TO}; got {float(self.fps):g}."
            )
        if not self.start_seconds >= 0:
            raise VideoError(f"start_seconds must be at least 0; got {self.start_seconds}.")
        if self.start_seconds > _LONGEST_SECONDS:
            raise VideoError(
                f"start_seconds must be at most {_LONGEST_SECONDS:.0f}; got {self.start_seconds}."
            )
        if self.stop_seconds is not None and not self.stop_seconds > self.start_seconds:
            raise VideoError(
                f"stop_seconds must be after start_seconds; got {self.start_seconds} to"
                f" {self.stop_seconds}."
            )

    @property
    def whole(self) -> bool:
        """Whether frames are only counted: no window, and no other rate."""
        return self.fps is None and self.start_seconds == 0 and self.stop_seconds is None

    def rate(self, fps: Fraction) -> Fraction:
        """Frames a second that are left of a clip that has `fps`."""
        wanted = fps if self.fps is None else Fraction(self.fps).limit_denominator(_FINEST)
        return wanted / self.stride

    def count(self, frames: int | None) -> int | None:
        """How many of `frames` are left; None where that takes reading them."""
        if frames is None or not self.whole:
            return None
        left = max(-(-(frames - self.skip_frames) // self.stride), 1)
        return left if self.max_frames is None else min(left, self.max_frames)

    def of(self, shots: Iterable[Shot], fps: Fraction) -> Iterator[Shot]:
        """Those of `shots` that are wanted. fps: how fast they come where nothing else says so."""
        loose = _loose(fps)
        shots = self._window(shots, loose)
        if self.fps is not None:
            shots = _resampled(shots, self.rate(fps) * self.stride, 1 / fps)
        skip, stride = min(self.skip_frames, sys.maxsize), min(self.stride, sys.maxsize)
        stop = None
        if self.max_frames is not None:
            stop = min(skip + self.max_frames * stride, sys.maxsize)
        return islice(shots, skip, stop, stride)

    def _window(self, shots: Iterable[Shot], loose: Fraction) -> Iterator[Shot]:
        for shot in shots:
            seconds = shot.seconds + loose
            if self.stop_seconds is not None and seconds >= self.stop_seconds:
                return
            if seconds >= self.start_seconds:
                yield shot


def _resampled(shots: Iterable[Shot], fps: Fraction, last_seconds: Fraction) -> Iterator[Shot]:
    """The shot that is on show at each tick of a clock that starts with the first of them, at the
    time of the tick.

    last_seconds: how long the last one is shown.
    """
    shown: Shot | None = None
    tick, loose = Fraction(0), min(_loose(fps), _loose(1 / last_seconds))
    for shot in shots:
        if shown is None:
            tick = shot.seconds
        while shown is not None and tick + loose < shot.seconds:
            yield replace(shown, seconds=tick)
            tick += 1 / fps
        shown = shot
    while shown is not None and tick + loose < shown.seconds + last_seconds:
        yield replace(shown, seconds=tick)
        tick += 1 / fps
