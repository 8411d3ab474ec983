"""What is held while a step runs, whatever the tile, and on which side of the device's edge?"""

from __future__ import annotations

from dataclasses import dataclass

from ..program.steps import SOURCE, Program
from .sizes import Sizes


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes that are held while a step runs.

    stores, caches: on the device, with keys and values among the caches where these are there.
    far: away from it.
    """

    stores: int
    caches: int
    far: int

    @property
    def near(self) -> int:
        """All on the device."""
        return self.stores + self.caches


def held(stores: int, caches: int, keys: int, sizes: Sizes) -> Held:
    """So many bytes of each, where `sizes` has them."""
    return Held(
        0 if sizes.far_stores else stores,
        (0 if sizes.far_caches else caches) + (0 if sizes.far_keys else keys),
        stores * sizes.far_stores + caches * sizes.far_caches + keys * sizes.far_keys,
    )


def live_stores(program: Program) -> tuple[frozenset[int], ...]:
    """For every step the stores whose memory is held while it runs, the two ends left out."""
    first, last = first_written(program), program.last_use()
    for store, spec in enumerate(program.stores):
        if spec.inside is not None:  # the outer memory lives as long as what lies inside it
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
