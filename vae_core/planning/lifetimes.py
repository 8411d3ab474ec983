"""How many bytes of a store's frames wait for a later band while each step runs?

Where convolutions look ahead, some of its frames are put aside when it is given up, and put back
when it is made again (see `running.kept`).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..program.steps import Program
from .held import first_written


def waiting_bytes(program: Program, frame_bytes: Sequence[int], kept: tuple[int, ...]) -> list[int]:
    """Bytes of frames that wait while each step runs.

    frame_bytes: of a frame of each store. kept: how many wait, by store.
    """
    first, last = first_written(program), program.last_use()
    sizes = {s: kept[s] * frame_bytes[s] for s in first if s != program.sink}
    return [
        sum(size for s, size in sizes.items() if not first[s] < index < last[s])
        for index in range(len(program.steps))
    ]
