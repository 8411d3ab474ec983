"""How many bytes of a store's frames wait for a later band while each step runs?

Where convolutions look ahead, some of its frames are put aside when it is given up, and put back
when it is made again (see `running.kept`):

1. While a step runs, frames from the band before wait of each store that no step before it has
   made, and frames for the band after of each that no later one touches.
2. What waits moves through the program with a clip's frames, so that no band holds all of what each
   store has waiting at the most: bands are gone through one by one, those that are alike once.
3. A band in which a step makes nothing does without its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from ..geometry.grid import Band, Chunk
from ..program.steps import Program
from .held import first_written


@dataclass(frozen=True, slots=True)
class Waits:
    """What of every store waits in a band. before: frames that come in. after: those that go on.
    makes: for every step whether it makes anything.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    makes: tuple[bool, ...]


def waits_of(program: Program, bands: Sequence[Chunk]) -> tuple[Waits, ...]:
    """What waits in each of the bands of a clip, those that are alike once."""
    parts = [chunk.band for chunk in bands if chunk.band]
    kept = [*(band.kept for band in parts), (0,) * len(program.stores)]
    every = zip(parts, pairwise(kept), strict=True)
    return tuple(dict.fromkeys(Waits(*ends, _makes(program, band)) for band, ends in every))


def _makes(program: Program, band: Band) -> tuple[bool, ...]:
    return tuple(band.cells[step.dst].size > 0 for step in program.steps)


def waiting_bytes(
    program: Program, frame_bytes: Sequence[int], waits: tuple[Waits, ...], idle: Sequence[int]
) -> list[int]:
    """Bytes of frames that wait while each step runs, in the band where they are the most.

    frame_bytes: of a frame of each store. idle: for each step, bytes that are not there where it
    makes nothing.
    """
    first, last = first_written(program), program.last_use()
    stores = [store for store in first if store != program.sink]
    most = [0] * len(program.steps)
    for band in waits:
        change = [0] * (len(program.steps) + 1)
        for store in stores:
            come, go = (kept[store] * frame_bytes[store] for kept in (band.before, band.after))
            change[0] += come
            change[first[store] + 1] -= come
            change[last[store]] += go
        for index, held in enumerate(accumulate(change[:-1])):
            most[index] = max(most[index], held - (0 if band.makes[index] else idle[index]))
    return most
