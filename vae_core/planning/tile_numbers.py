"""What is said of a tile, or of many at once?

Whole numbers of one tile, or arrays of many tiles'; `step_bytes` works them out and adds them up.
"""

from __future__ import annotations

from typing import NamedTuple

from .arrays import Whole


class Tile(NamedTuple):
    """Bytes of what a tile uses, as whole numbers or as arrays of many tiles'.

    src, added, latents, past: what it would copy in, were all of it far, of the store that it
        reads, of the one that it adds, of latents and of the cache that came. kept: its part of the
        new cache. buffer: the input of its mix. before: of that, while the input is made (maps and
        gathered frames included). result: what one convolution makes, as it is written. mixed: what
        its mix allocates. measured: for statistics. shortcut: of the residual's convolution, its
        copied input apart, which takes copied; 0 without. keys: of a block, where it attends.
    """

    src: Whole
    added: Whole
    latents: Whole
    past: Whole
    kept: Whole
    buffer: Whole
    before: Whole
    result: Whole
    mixed: Whole
    measured: Whole
    shortcut: Whole
    copied: Whole
    keys: Whole


class Side(NamedTuple):
    """A tile along one side: its cells, what they see of the input of the mix, and what of src is
    read for that. latents: in time, frames of latents that these show.
    """

    cells: Whole
    seen: Whole
    read: Whole
    latents: Whole = 0


class Flags(NamedTuple):
    """What of a tile has far to go: what it reads, writes and adds, the cache that comes and the
    one that is kept, keys that are met, and its own where those are copied to be kept, and sent.
    """

    src: Whole
    dst: Whole
    added: Whole
    past: Whole
    kept: Whole
    keys: Whole
    copied: Whole
    sent: Whole
