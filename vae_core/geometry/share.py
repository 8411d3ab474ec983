"""Which rows of every store does one of several ranks make, and which does it hold?

Several processes or devices, called ranks, do the work on one clip together. Each makes a band of
rows of every store. Beside those it holds the rows around them that its next steps read, which
other ranks have made. Pure geometry; `program.shares` says which rows these are.
"""

from __future__ import annotations

from dataclasses import dataclass

from .region import Interval


@dataclass(frozen=True, slots=True)
class Share:
    """The rows of one rank, by store.

    own: that it makes. held: that there are with it. staged: the most elements, in each column of
    each frame, that a rank sends and receives at once.
    """

    own: tuple[Interval, ...]
    held: tuple[Interval, ...]
    staged: tuple[int, ...] = ()

    def cells(self, store: int, side: int) -> Interval:
        """The rows of cells that make its rows of a store, where each makes `side` of them."""
        rows = self.own[store]
        return Interval(rows.start // side, rows.stop // side)
