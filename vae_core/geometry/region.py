"""Which voxels does a piece of work own, and which does it read?

Half-open intervals and boxes of them, in whole numbers. An interval [start, stop) may reach outside
a tensor (a halo at the picture's edge does); `clip` brings it back and the caller fills the rest.
Pure geometry: no tensors, no settings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Interval:
    """The whole numbers [start, stop). Invariant: start <= stop."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if self.start > self.stop:
            raise ValueError(f"an interval needs start <= stop; got [{self.start}, {self.stop})")

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return self.stop - self.start

    def clip(self, size: int) -> Interval:
        """The part inside [0, size); empty at the nearer end when there is none."""
        start = min(max(self.start, 0), size)
        return Interval(start, min(max(self.stop, start), size))

    def meet(self, other: Interval) -> Interval:
        """The part inside `other`; empty at the nearer end when there is none."""
        start = min(max(self.start, other.start), other.stop)
        return Interval(start, min(max(self.stop, start), other.stop))

    def shift(self, by: int) -> Interval:
        """The same length, `by` further on."""
        return Interval(self.start + by, self.stop + by)

    def hull(self, other: Interval) -> Interval:
        """The shortest interval that holds both; the other one where one of them is empty."""
        if not self.size or not other.size:
            return self if self.size else other
        return Interval(min(self.start, other.start), max(self.stop, other.stop))

    def contains(self, other: Interval) -> bool:
        """Whether every number of `other` is in this one."""
        return self.start <= other.start and other.stop <= self.stop

    def within(self, outer: Interval) -> slice:
        """Where this interval lies in a tensor dimension that holds `outer`."""
        if not outer.contains(self):
            raise ValueError(f"{self} does not lie within {outer}")
        return slice(self.start - outer.start, self.stop - outer.start)


@dataclass(frozen=True, slots=True)
class Halo:
    """How many elements a kernel reads beyond what it writes, on either side of one dimension."""

    before: int
    after: int

    def around(self, core: Interval) -> Interval:
        """`core` widened by the halo; it may reach outside the tensor."""
        return Interval(core.start - self.before, core.stop + self.after)


@dataclass(frozen=True, slots=True)
class Extent:
    """The size of a tensor in (frames, height, width), in its own elements."""

    t: int
    h: int
    w: int

    @property
    def voxels(self) -> int:
        """How many elements one channel holds."""
        return self.t * self.h * self.w

    def at_most(self, other: Extent) -> Extent:
        """The smaller of both along every side."""
        return Extent(min(self.t, other.t), min(self.h, other.h), min(self.w, other.w))

    @property
    def region(self) -> Region:
        """All of it."""
        return Region(Interval(0, self.t), Interval(0, self.h), Interval(0, self.w))


@dataclass(frozen=True, slots=True)
class Region:
    """A box of voxels: an interval of frames, of rows and of columns."""

    t: Interval
    h: Interval
    w: Interval

    @property
    def extent(self) -> Extent:
        """Its size."""
        return Extent(self.t.size, self.h.size, self.w.size)

    @property
    def voxels(self) -> int:
        """How many voxels it holds."""
        return self.extent.voxels

    def clip(self, extent: Extent) -> Region:
        """The part inside a tensor of `extent`."""
        return Region(self.t.clip(extent.t), self.h.clip(extent.h), self.w.clip(extent.w))

    def later(self, frames: int) -> Region:
        """The same rows and columns, so many frames later."""
        return replace(self, t=self.t.shift(frames))

    def lower(self, rows: int) -> Region:
        """The same frames and columns, so many rows further down."""
        return replace(self, h=self.h.shift(rows))

    def meet(self, other: Region) -> Region:
        """The part inside `other`."""
        return Region(self.t.meet(other.t), self.h.meet(other.h), self.w.meet(other.w))

    def within(self, outer: Region) -> tuple[slice, slice, slice]:
        """Where this region lies in a tensor that holds `outer`."""
        return self.t.within(outer.t), self.h.within(outer.h), self.w.within(outer.w)

    def halves(self, least: Extent) -> tuple[Region, Region] | None:
        """This region cut in two across rows, columns or frames, whichever is the longest beside
        `least`; None where no side is longer than that.
        """
        smallest = {"h": least.h, "w": least.w, "t": least.t}
        spare = {name: getattr(self, name).size / size for name, size in smallest.items()}
        name = max(spare, key=lambda key: spare[key])
        if spare[name] <= 1:
            return None
        side: Interval = getattr(self, name)
        middle = (side.start + side.stop) // 2
        parts = (Interval(side.start, middle), Interval(middle, side.stop))
        first, second = (replace(self, **{name: part}) for part in parts)
        return first, second

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Where this region lies in a tensor that begins at the origin."""
        return (
            slice(self.t.start, self.t.stop),
            slice(self.h.start, self.h.stop),
            slice(self.w.start, self.w.stop),
        )
