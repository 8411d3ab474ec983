"""How is a store used of which some rows are on the device, and the others away from it?

A `Split` stands where a tensor [b, c, t, h, w] would, and so does a `Rolling`, of which no more
than a window is there at all. What is taken of a `Split` lies on one side, and then is a tensor, or
on both. A step that writes one has its tiles cut where it changes over, so that only what is read
ever lies on both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

_ALL = slice(None)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """near: [b, c, t, rows, w], on the device. far: the rows below, [b, c, t, h - rows, w]."""

    near: Tensor
    far: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of both together: [b, c, t, h, w]."""
        b, c, t, rows, w = self.near.shape
        return b, c, t, rows + self.far.shape[3], w

    @property
    def parts(self) -> tuple[Tensor, Tensor]:
        """Both sides, from the top."""
        return self.near, self.far

    def __getitem__(self, place: tuple[Any, ...]) -> Part:
        """What lies at `place`, which ends with slices in time, height and width."""
        *before, h, w = place
        rows = self.near.shape[3]
        start, stop, _ = h.indices(self.shape[3])
        if stop <= rows:
            return self.near[(*before, slice(start, stop), w)]
        below = slice(max(start - rows, 0), stop - rows)
        if start >= rows:
            return self.far[(*before, below, w)]
        return Split(self.near[(*before, slice(start, rows), w)], self.far[(*before, below, w)])


class Rolling:
    """A store of which a window of rows is there, which moves down: [b, c, t, rows, w]."""

    def __init__(self, memory: Tensor) -> None:
        self._memory, self._start, self._stop = memory, 0, 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is there."""
        return tuple(self._memory.shape)

    def roll(self, start: int, stop: int) -> None:
        """Let the window be [start, stop) from now on; what both have in common stays."""
        kept, by = self._stop - start, start - self._start
        for top in range(0, kept, by) if by else ():  # no more rows at a time than they move by
            rows = min(by, kept - top)
            below = self._memory[:, :, :, top + by : top + by + rows]
            self._memory[:, :, :, top : top + rows].copy_(below)
        self._start, self._stop = start, stop

    def __getitem__(self, place: tuple[Any, ...]) -> Tensor:
        """What lies at `place`, which ends with slices in time, height and width."""
        *before, h, w = place
        assert self._start <= h.start <= h.stop <= self._start + self._memory.shape[3]
        return self._memory[(*before, slice(h.start - self._start, h.stop - self._start), w)]


Part = Tensor | Split
"""What is taken of a store."""

Store = Tensor | Split | Rolling
"""A full-extent activation."""


def copy_first_frame(source: Store, target: Store, start: int, stop: int) -> None:
    """target's first frame is source's, in the rows [start, stop)."""
    cuts = (x.near.shape[3] for x in (source, target) if isinstance(x, Split))
    edges = sorted({start, stop, *(cut for cut in cuts if start < cut < stop)})
    for rows in map(slice, edges[:-1], edges[1:]):
        place = (..., slice(0, 1), rows, _ALL)
        one, other = target[place], source[place]
        assert isinstance(one, Tensor)
        assert isinstance(other, Tensor)
        one.copy_(other)
