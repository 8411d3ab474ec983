"""How many rows of each store are on the device in the choice that moves the fewest bytes?

A walk goes from step to step through chunks of several lengths, for several sets of far caches,
side by side in arrays [lengths, sets, ...] of whole numbers. At each step the array has an axis for
every store that lives, of its options: how many rows of it are on the device (see `options`).

1. Where a step writes a new store, the array gets its axis.
2. What the step moves is added (see `tolls`); what there is no room for is ruled out.
3. A store that no later step touches leaves: of its options the best is kept, for each choice of
   the others.

So the way back through what has left finds what is best for the whole (dynamic programming).
"""

from __future__ import annotations

from .arrays import Numbers, np
from .limits import NEVER
from .options import Leaving
from .tolls import Tolls


class Walk:
    """See the module's words.

    far: whose caches are, for each set [sets, steps]. rooms: beside near caches, weights and
        windows [lengths, sets, steps].
    moved: the fewest bytes of stores that chunks of each length move [lengths, sets]; `NEVER` where
        there is no room.
    """

    def __init__(self, tolls: Tolls, far: Numbers, rooms: Numbers) -> None:
        self._tolls, self._left = tolls, list[tuple[Leaving, Numbers]]()
        near = np.where(far, tolls.near[:, 1, None], tolls.near[:, 0, None])
        self._whole: Numbers = np.asarray((tolls.whole[:, None] + near <= rooms).all(-1))
        self.moved: Numbers = np.where(self._whole, 0, self._walked(tolls.costs(rooms, far)))

    def rows(self, length: int, choice: int) -> dict[int, int] | None:
        """How many rows of each store are on the device in chunks of a length; None where all
        are.
        """
        if self._whole[length, choice]:
            return None
        at: dict[int, int] = {}
        for leaving, moved in reversed(self._left):
            others: list[int | slice] = [at[store] for store in leaving.others]
            others.insert(leaving.axis, slice(None))
            at[leaving.store] = int(moved[(length, choice, *others)].argmin())
        return {store: self._tolls.course.rows[store][option] for store, option in at.items()}

    def _walked(self, costs: Numbers) -> Numbers:
        """What has moved in the end; costs: of each step for each choice."""
        sides = costs.shape[:2]
        moved: Numbers = np.zeros(sides, np.int64)
        for stage, start in zip(self._tolls.course.stages, self._tolls.starts, strict=True):
            moved = moved.reshape(*moved.shape, *(1,) * stage.entering)
            cost = costs[:, :, start : start + stage.size].reshape(*sides, *stage.shape)
            moved = np.minimum(moved + cost, NEVER)
            for leaving in stage.leaving:
                self._left.append((leaving, moved))
                moved = moved.min(leaving.axis + 2)
        return moved
