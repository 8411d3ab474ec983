"""How is a store used of which some rows are on the device, and the others away from it?

A `Split` stands where a tensor [b, c, t, h, w] would. What is taken of it lies on one side, and then
is a tensor, or on both. A step that writes one has its tiles cut where it changes over, so that
only what is read ever lies on both.
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

    def __getitem__(self, place: tuple[Any, ...]) -> Store:
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


Store = Tensor | Split
"""A full-extent activation, or a part of one."""


def copy_first_frame(source: Store, target: Store) -> None:
    """target's first frame is source's."""
    bounds = {0, source.shape[3], *(x.near.shape[3] for x in (source, target) if isinstance(x, Split))}
    edges = sorted(bounds)
    for rows in map(slice, edges[:-1], edges[1:]):
        place = (..., slice(0, 1), rows, _ALL)
        one, other = target[place], source[place]
        assert isinstance(one, Tensor)
        assert isinstance(other, Tensor)
        one.copy_(other)
