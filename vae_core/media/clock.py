"""How do the time stamps of a file that jumps become one clock, the same for pictures and sound?

Recordings that were joined, and captures that broke off, jump: a part begins again at its own zero,
or far ahead. Packets pass through a `Clock` in the order of the file:
1. Where a stream's stamps go back, or leap further ahead than its format makes likely, a new part
   has begun: it is moved so that it follows what came before.
2. The move is found by the stream that jumps first. The others take over the same one when they
   jump too, so that sound stays with its pictures.

It knows nothing of what packets hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_BACK_SECONDS = Fraction(1, 10)
"""A stream that goes back by more has begun again."""

_TOGETHER_SECONDS = 10
"""Streams of one file are not further apart than that where a part begins."""

_PARTS_LOOKED_AT = 8
"""Streams are not further apart than that; damaged files may jump at every packet."""


@dataclass(slots=True)
class _Track:
    """Where a stream has come to, on the clock: its newest stamp, the next expected, its part."""

    last: Fraction
    expected: Fraction
    part: int = 0


class Clock:
    """Moves the packets of one file, in place, onto one clock.

    Invariant: on the clock no stream goes back by more than 0.1 s, but for sound that outlasted
    its pictures before a jump. jumps: how often time has jumped so far.
    """

    def __init__(self, ahead_seconds: int, usual_seconds: Fraction) -> None:
        """ahead_seconds: who leaps further has broken off; a picture or a pause may last so long.
        usual_seconds: the length of a packet that does not say."""
        self._ahead = ahead_seconds
        self._usual = usual_seconds
        self._tracks: dict[int, _Track] = {}
        self._moves = [Fraction(0)]

    @property
    def jumps(self) -> int:
        return len(self._moves) - 1

    def settle(self, packet: Any) -> None:
        """Move a packet's stamps. Jumps are told by when it is decoded, which is in order."""
        if not packet.time_base:
            return
        index = packet.stream.index
        track = self._tracks.get(index)
        if packet.dts is not None:
            raw = packet.dts * packet.time_base
            if track is None:
                track = self._tracks[index] = _Track(raw, raw)
            self._advance(track, raw, (packet.duration or 0) * packet.time_base or self._usual)
        if track is not None and self._moves[track.part]:
            _move(packet, round(self._moves[track.part] / packet.time_base))

    def _advance(self, track: _Track, raw: Fraction, length: Fraction) -> None:
        if self._jumped(track, raw + self._moves[track.part]):
            track.part = self._next_part(track, raw)
        track.last = raw + self._moves[track.part]
        track.expected = track.last + length

    def _jumped(self, track: _Track, seconds: Fraction) -> bool:
        leaps = seconds - track.expected > self._ahead
        return leaps or seconds < track.last - _BACK_SECONDS

    def _next_part(self, track: _Track, raw: Fraction) -> int:
        """The part that begins here: one that another stream is in already, or a new one."""
        known = len(self._moves)
        for part in range(max(track.part + 1, known - _PARTS_LOOKED_AT), known):
            if abs(raw + self._moves[part] - track.expected) <= _TOGETHER_SECONDS:
                return part
        self._moves.append(track.expected - raw)
        return known


def _move(packet: Any, ticks: int) -> None:
    if packet.pts is not None:
        packet.pts += ticks
    if packet.dts is not None:
        packet.dts += ticks
