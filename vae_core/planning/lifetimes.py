"""Which stores live while each step runs, and which of their frames wait for a later band?

1. A store lives from the step that first writes it to the last one that touches it, or what lies
   inside it.
2. Where convolutions look ahead, some of its frames are put aside when it is given up, and put back
   when it is made again (see `running.kept`).
"""

from __future__ import annotations

from collections.abc import Callable

from ..program.steps import SOURCE, Program


def live_stores(program: Program) -> tuple[frozenset[int], ...]:
    """For every step the stores whose memory is held while it runs, the two ends left out."""
    first, last = _made(program), program.last_use()
    for store, spec in enumerate(program.stores):
        if spec.inside is not None:  # the outer memory lives as long as what lies inside it
            last[spec.inside] = max(last[spec.inside], last[store])
    inner = set(range(len(program.stores))) - {SOURCE, program.sink}
    return tuple(
        frozenset(s for s in inner if first[s] <= index <= last[s])
        for index in range(len(program.steps))
    )


def kept_bytes(
    program: Program, frame_bytes: Callable[[int], int], kept: tuple[int, ...]
) -> list[int]:
    """Bytes of frames that wait while each step runs.

    frame_bytes: of a frame of a store. kept: how many wait, by store.
    """
    first, last = _made(program), program.last_use()
    sizes = {s: kept[s] * frame_bytes(s) for s in first if s != program.sink}
    return [
        sum(size for s, size in sizes.items() if not first[s] < index < last[s])
        for index in range(len(program.steps))
    ]


def _made(program: Program) -> dict[int, int]:
    """For every store but the source the first step that writes it."""
    first: dict[int, int] = {}
    for index, step in enumerate(program.steps):
        first.setdefault(step.dst, index)
    return first
