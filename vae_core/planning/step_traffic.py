"""How many bytes do all tiles of a step copy, of whatever is far away?

Arithmetic over the geometry of one step in one kind of chunk; see `step_bytes` for what a tile
allocates.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from ..geometry.region import Extent, Halo, Interval
from ..program.parts import Attend, TimeMap
from ..program.shares import rows_read
from .arrays import Whole
from .attending import frames_fetched, key_rounds, keys_bytes, others_fetched
from .places import Far
from .site import Site


class StepTraffic:
    """What one step copies in one kind of chunk."""

    def __init__(self, site: Site) -> None:
        self.site, self.step, self.sizes = site, site.step, site.sizes
        cells = self.step.mixed_extent(site.src, site.chunk)
        self.cells = replace(cells, t=max(cells.t, 1))
        """All cells that the mix is asked for; one frame of them where it is for none."""
        self._read: dict[Extent, int] = {}
        self._read_so_far: dict[tuple[int, int], int] = {}

    def voxels_bytes(self, channels: int, voxels: Whole) -> Whole:
        """Bytes of so many voxels of all clips."""
        return self.sizes.batch * channels * voxels * self.sizes.element_bytes

    @cached_property
    def cache_bytes(self) -> int:
        """Bytes of the causal cache."""
        step, src = self.step, self.site.src
        rows = rows_read(step, src, self.site.chunk).size
        return self.voxels_bytes(step.mix.in_channels, step.history * rows * src.w)

    @property
    def staged_bytes(self) -> int:
        """Bytes of rows that a rank sends and receives, copied in one piece: of what it reads while
        it runs, of what it writes once it has run.
        """
        share, step, site = self.site.chunk.share, self.step, self.site
        if share is None:
            return 0
        ends = ((step.src, site.src), (step.dst, site.dst))
        return max(self.voxels_bytes(share.staged[store], x.t * x.w) for store, x in ends)

    def moved_bytes(self, largest: Extent, far: Far, past: bool, future: bool) -> int:
        """Bytes that all tiles of no more than `largest` copy to and from the device."""
        cache = far.cache * (past + future) * self.cache_bytes
        return cache + (self._stored_bytes(largest, far) if far.store else 0)

    def copied_bytes(self, largest: Extent, far: Far) -> int:
        """Bytes of stores that the processor copies on their way: all, where tiles are narrower
        than the picture, so that their rows do not lie in one piece.
        """
        return self._stored_bytes(largest, far) if far.store and self.is_narrow(largest) else 0

    def cost(self, largest: Extent, far: Far) -> int:
        """Bytes of stores that all tiles move, those twice that the processor copies too."""
        return self._stored_bytes(largest, far) * (1 + self.is_narrow(largest))

    def is_narrow(self, largest: Extent) -> bool:
        """Whether tiles are narrower than the picture."""
        return largest.w < self.cells.w

    def _stored_bytes(self, largest: Extent, far: Far) -> int:
        """Bytes that tiles read from stores that are far, and write to them."""
        site, moved = self.site, 0
        if far.src:
            moved += self.read_bytes(largest) * far.src // site.there.h
        if far.dst:
            moved += self.written_bytes * far.dst // site.dst.h
        if far.added:
            moved += self.added_bytes * far.added // site.added.h
        return moved

    @cached_property
    def written_bytes(self) -> int:
        """Bytes of all that it writes."""
        return self.voxels_bytes(self.step.mix.out_channels, self.site.dst.voxels)

    @cached_property
    def added_bytes(self) -> int:
        """Bytes of all that it adds."""
        residual, site = self.step.residual, self.site
        extent = site.added if residual and residual.fold else site.dst
        return self.voxels_bytes(site.added_channels, extent.voxels)

    def read_bytes(self, largest: Extent) -> int:
        """Bytes that all tiles read of src, keys included."""
        found = self._read.get(largest)
        if found is None:
            mix, keys = self.step.mix, 0
            if isinstance(mix, Attend) and not mix.looks_ahead:
                rounds = key_rounds(mix, self.cells, largest)
                fetched = frames_fetched(mix, rounds, self.site.src.t)
                keys = fetched * self._frame_of_keys(mix)
            read = self.voxels_bytes(mix.read_channels, self._read_voxels(largest))
            found = self._read[largest] = read + keys
        return found

    def _frame_of_keys(self, mix: Attend) -> int:
        return keys_bytes(mix, replace(self.site.there, t=1), self.sizes)

    def kept_moved_bytes(self, largest: Extent, far: Far, others: int) -> int:
        """Bytes of keys and values of so many frames outside of the chunk that queries bring in,
        of those inside where all of them come from there, and of their own that are sent to be
        kept.
        """
        mix, keys = self.step.mix, far.keys or self.sizes.far_keys
        if not isinstance(mix, Attend) or not keys:
            return 0
        frames = self.site.src.t
        met = others_fetched(mix, key_rounds(mix, self.cells, largest), frames, others)
        sent = frames * (mix.looks_back and not far.src)
        return self._frame_of_keys(mix) * (met + sent)

    def _read_voxels(self, largest: Extent) -> int:
        """Voxels that all tiles read: tiles are a product of pieces, so is what they read."""
        rows, columns = self._read_along(1, largest.h), self._read_along(2, largest.w)
        return self._read_along(0, largest.t) * rows * columns

    def _read_along(self, axis: int, limit: int) -> int:
        """What all pieces of one side read."""
        found = self._read_so_far.get((axis, limit))
        if found is None:
            size = sides_of(self.cells)[axis]
            read = self._read_in_pieces(axis, size, limit) if axis else self._in_time(size, limit)
            found = self._read_so_far[axis, limit] = read
        return found

    def _in_time(self, size: int, limit: int) -> int:
        step, src, chunk = self.step, self.site.src, self.site.chunk
        there, keeps_first = step.visible(src, chunk).t, chunk.keeps_first(src.t)
        changed = step.time_map in (TimeMap.POOL_PAIRS, TimeMap.REPEAT_PAIRS)
        (start, down, taps), found = self._seen_in_time, 0
        for at in range(0, size, limit):
            first = start + at * down
            last = first + (min(limit, size - at) - 1) * down + taps
            first = min(max(first, there.start), there.stop)
            last = min(max(last, first), there.stop)
            if changed:
                seen = step.time_map.source(Interval(first, last), keeps_first)
                first, last = seen.start, seen.stop
            found += last - first
        return found

    @cached_property
    def _seen_in_time(self) -> tuple[int, int, int]:
        """The first frame that the first cell sees, from there to that of the next cell, and how
        many it sees.
        """
        keeps_first = self.site.chunk.keeps_first(self.site.src.t)
        seen = self.step.seen_frames(Interval(0, 1), keeps_first)
        return seen.start, self.step.rate.down, seen.size

    def _read_in_pieces(self, axis: int, size: int, limit: int) -> int:
        start, stride, seen = self.reach
        count, of = -(-size // limit), sides_of(self.site.src)[axis]
        found = (size - count) * stride + count * seen  # of which a few see beyond the picture
        for one in range(count):
            beyond = -(start + size * one // count * stride)
            if beyond <= 0:
                break
            found -= beyond
        for last in range(count, 0, -1):
            beyond = start + (size * last // count - 1) * stride + seen - of
            if beyond <= 0:
                break
            found -= beyond
        return found

    @cached_property
    def reach(self) -> tuple[int, int, int]:
        """The first that a cell sees of the mix's input along a side of the picture, from there to
        the first of the next cell, and how much it sees.
        """
        first, second = (self.seen_along(Interval(at, at + 1)) for at in range(2))
        return first.start, second.start - first.start, first.size

    def seen_along(self, cells: Interval) -> Interval:
        """What cells see of the mix's input along a side of the picture."""
        return _AROUND.around(cells) if self.step.upscale == 2 else self.step.mix.reads(cells)


_AROUND = Halo(1, 1)
"""What is seen around elements that are shown twice."""


def sides_of(extent: Extent) -> tuple[int, int, int]:
    """Frames, rows and columns."""
    return extent.t, extent.h, extent.w
