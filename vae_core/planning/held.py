"""Which stores are held while each step runs, whatever the tile?"""

from __future__ import annotations

from functools import lru_cache

from ..program.steps import SOURCE, Program


@lru_cache(maxsize=32)
def live_stores(program: Program) -> tuple[frozenset[int], ...]:
    """For every step the stores whose memory is held while it runs, the two ends left out."""
    first, last = first_written(program), program.last_use()
    for store, spec in reversed(tuple(enumerate(program.stores))):
        if spec.inside is not None:  # the outer memory lives as long as all that lies inside it
            last[spec.inside] = max(last[spec.inside], last[store])
    inner = set(range(len(program.stores))) - {SOURCE, program.sink}
    return tuple(
        frozenset(s for s in inner if first[s] <= index <= last[s])
        for index in range(len(program.steps))
    )


def first_written(program: Program) -> dict[int, int]:
    """For every store but the source the index of the first step that writes it."""
    first: dict[int, int] = {}
    for index, step in enumerate(program.steps):
        first.setdefault(step.dst, index)
    return first
