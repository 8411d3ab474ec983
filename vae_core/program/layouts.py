"""How do the values of several places lie in the channels of one?

The words for it: `Packing` and `Fold` where they lie in regular order, `Shuffle` where a module has
an order of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Packing(Enum):
    """How the values of neighbours lie side by side in the channels: each channel's own after those
    of another channel, or all channels of a place after those of another place.
    """

    CHANNELS = "channel by channel"
    PLACES = "place by place"


@dataclass(frozen=True, slots=True)
class Fold:
    """A change of size by moving values between places and channels alone; it has no weights.

    Where elements become places, those of `frames` x `side` x `side` neighbours lie side by side in
    the channels by their `packing`, and in time, height and width. Channels are then cut into runs
    of equal length: of each the mean is a result. `spreads` is the way back: each channel is
    repeated so that there are enough, or with `in_turn` all of them one after the other, and they
    are laid out again.
    """

    frames: int
    side: int
    spreads: bool
    packing: Packing = Packing.CHANNELS
    in_turn: bool = False

    def as_picture(self) -> Fold:
        """The same for single frames."""
        return replace(self, frames=1)


class Axis(Enum):
    """Along what the results of a place lie beside each other."""

    FRAME = "frame"
    ROW = "row"
    COLUMN = "column"
    CHANNEL = "channel"


Order = tuple[Axis, Axis, Axis, Axis]
"""All axes, the outermost first."""


@dataclass(frozen=True, slots=True)
class Shuffle:
    """How several frames and squares of results, made of each place, lie in a module's channels.

    frames: made of each one that is seen. order: in which they lie.
    first, takes: of a clip's first frame one is made: in which order all of them lie there, and
        which of the frames it is.
    """

    frames: int
    order: Order
    first: Order
    takes: int
