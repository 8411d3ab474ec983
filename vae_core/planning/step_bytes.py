"""How many bytes does a tile of a step take, and how many do all of its tiles copy?

Arithmetic over the geometry of one step in one kind of chunk:

1. A `Site` is all that decides it. Steps that differ in nothing but their names share one.
2. What a tile needs of each thing is worked out once for each size of it (`Tile`).
3. What is far away is copied, and so decides how these add up, in the order in which
   `tile.TileRunner` allocates; change both together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from ..geometry.grid import Chunk, count_tiles, longest_piece
from ..geometry.region import Extent, Interval, Region
from ..program.parts import Attend, Conv, First, Keys, TimeMap
from ..program.steps import Program
from .attending import block_bytes, keys_bytes, wide_bytes
from .classes import mixed, shortcut_class
from .norm_bytes import latent_bytes, most_cells, norm_bytes
from .places import Far
from .projection import Reads
from .site import Site, site_of
from .sizes import Sizes, weight_bytes
from .step_traffic import StepTraffic, sides_of


@dataclass(frozen=True, slots=True)
class Tile:
    """Bytes of what a tile uses.

    reads: what it would copy in, were all of it far. kept: its part of the new cache. buffer: the
        input of its mix. before: of that, while the input is made (maps and gathered frames
        included). result: what one convolution makes, as it is written. mixed: what its mix
        allocates. measured: for statistics. shortcut: of the residual's convolution, its copied
        input apart, which takes copied; 0 without. keys: of a block, where it attends.
    """

    reads: Reads
    kept: int
    buffer: int
    before: int
    result: int
    mixed: int
    measured: int
    shortcut: int
    copied: int
    keys: int


class _Flags(NamedTuple):
    """What of a tile has far to go: what it reads, writes and adds, the cache that comes and the
    one that is kept, keys that are met, and its own where those are copied to be kept, and sent.
    """

    src: bool
    dst: bool
    added: bool
    past: bool
    kept: bool
    keys: bool
    copied: bool
    sent: bool


def _fetched(reads: Reads, flags: _Flags) -> int:
    """Bytes that are copied in for a tile."""
    found = reads.src * flags.src + reads.added * flags.added
    return found + reads.latents + reads.past * flags.past


def steps_bytes(
    program: Program, chunk: Chunk, extents: tuple[Extent, ...], sizes: Sizes
) -> tuple[StepBytes, ...]:
    """The arithmetic of every step of a program for a chunk."""
    known: dict[Site, StepBytes] = {}
    sites = (site_of(program, step, chunk, extents, sizes) for step in program.steps)
    return tuple(known.setdefault(site, StepBytes(site)) for site in sites)


class StepBytes(StepTraffic):
    """The arithmetic of one step in one kind of chunk."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._tiles: dict[Region, Tile] = {}
        self._largest: dict[Extent, tuple[int, tuple[Tile, ...]]] = {}
        self._elements: dict[Extent, int] = {}
        self._needs: dict[tuple[Extent, _Flags, bool], int] = {}
        self._stacks = self.sizes.accelerated and self.step.upscale == 2
        mix = self.step.mix
        self._attends = isinstance(mix, Attend)
        self._looks_back = isinstance(mix, Attend) and mix.looks_back
        self._outward = isinstance(mix, Attend) and mix.keys is not Keys.FRAME
        self._leaves_early = self.step.phases > (4 if self._stacks else 1)

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of the weights as a step uses them."""
        # a first frame may have one of the taps in time to itself
        runs = self.step.runs(self.site.src, self.site.chunk)
        apart = len(runs) > 1 and self.step.rate.first is not First.PICTURE  # which shares them
        return weight_bytes(self.step, self.sizes, self.site.ends.channels, apart)

    def largest_tile(self, largest: Extent) -> Region:
        """A tile of the greatest size, with a halo on every side where there is one."""
        cells = self.cells
        t = Interval(0, min(largest.t, cells.t))
        if cells.t >= 2 * t.size:
            t = t.shift(t.size)
        t = t.shift(self.step.lone(self.site.src, self.site.chunk))
        return Region(t, _inner(cells.h, largest.h), _inner(cells.w, largest.w))

    def elements(self, largest: Extent) -> int:
        """Of the largest tensor that a tile is computed in."""
        found = self._elements.get(largest)
        if found is None:
            found = self._elements[largest] = self._elements_of(largest)
        return found

    def _elements_of(self, largest: Extent) -> int:
        cells = self.largest_tile(largest)
        seen = self.step.mix.in_channels * self.step.seen_region(cells).voxels
        made = self.step.mix.out_channels * self.step.phases * cells.voxels
        return self.sizes.batch * max(seen, made)

    def tile_bytes(self, largest: Extent, far: Far, past: bool, future: bool) -> int:
        """The most that is allocated at once while tiles of no more than `largest` are computed.

        Beside a tile's own, that is what was copied in for the tile after it, and the result of the
        tile before it on its way out (see `transfers`). Of two tiles each has but one of these.
        past, future: whether causal caches come from a chunk before, and go on to one after.
        """
        keys = far.keys or self.sizes.far_keys
        copied = self._looks_back and keys and not far.src
        flags = _Flags(
            far.src > 0 or self.site.reads_source,
            far.dst > 0 or self.site.writes_sink,
            far.added > 0,
            far.cache and past,
            far.cache and future,
            far.src > 0 or (self._outward and keys),
            copied,
            copied and future,
        )
        key = largest, flags, far.cut
        found = self._needs.get(key)
        if found is None:
            found = self._needs[key] = self._most_at_once(largest, flags, far.cut)
        return found

    def _most_at_once(self, largest: Extent, flags: _Flags, cut: bool) -> int:
        count, tiles = self._counted(largest)
        one = tiles[0]
        if count > 2 or cut:
            ahead = _fetched(one.reads, flags)
            return self._beside(one, flags, ahead, self._sent(one, flags))
        if count == 1:
            return self._beside(one, flags, 0, 0)
        return max(
            most
            for one, other in (tiles, tiles[::-1])
            for most in (
                self._beside(one, flags, _fetched(other.reads, flags), 0),
                self._beside(one, flags, 0, self._sent(other, flags)),
            )
        )

    def count(self, largest: Extent) -> int:
        """How many tiles of no more than `largest` there are."""
        return self._counted(largest)[0]

    def _counted(self, largest: Extent) -> tuple[int, tuple[Tile, ...]]:
        """How many tiles there are, and what one of them takes; or each, where there are two."""
        found = self._largest.get(largest)
        if found is None:
            cells = self.largest_tile(largest)
            count = count_tiles(self.cells, cells.extent)
            regions = (cells, _rest(cells, self.cells)) if count == 2 else (cells,)
            found = count, tuple(self._tile(region) for region in regions)
            self._largest[largest] = found
        return found

    def _sent(self, tile: Tile, flags: _Flags) -> int:
        """Bytes of a tile on their way out."""
        kept = tile.kept * flags.sent if self._attends else 0
        return max(tile.result * flags.dst, kept)

    def _beside(self, tile: Tile, flags: _Flags, ahead: int, before: int) -> int:
        """The most that is allocated while a tile is computed.

        ahead: what has been copied in for another. before: the result of another on its way out.
        """
        reads, added = _fetched(tile.reads, flags), tile.reads.added * flags.added
        if self._attends:
            work = max(tile.mixed + tile.keys * flags.keys, tile.kept * flags.copied)
            return ahead + before + reads + tile.result + work
        kept = tile.kept * flags.kept
        leaving = kept or before
        if self._leaves_early:
            leaving = max(leaving, tile.result * flags.dst)
        shortcut = tile.shortcut + tile.copied * (not flags.added)
        # the input is kept for the next phase, or for the next tile
        finished = added + leaving + tile.buffer
        return ahead + max(
            reads + tile.before + before,
            added + tile.buffer + kept + before,
            finished + tile.mixed,
            finished + tile.result + max(shortcut, tile.measured),
        )

    def _tile(self, cells: Region) -> Tile:
        found = self._tiles.get(cells)
        if found is None:
            found = self._tiles[cells] = self._worked_out(cells)
        return found

    def _worked_out(self, cells: Region) -> Tile:
        step, mix, where = self.step, self.step.mix, self._read_region(cells)
        history = self.voxels_bytes(mix.in_channels, step.history * where.h.size * where.w.size)
        latents = latent_bytes(self.site, step.norm, where) if step.norm else 0
        src = self.voxels_bytes(mix.read_channels, where.voxels)
        reads = Reads(src, self._added_bytes(cells), latents, history)
        if isinstance(mix, Attend):
            result = self.voxels_bytes(mix.channels, cells.voxels)
            given = mix, cells.extent, self.site.src, self.sizes
            wide, keys = wide_bytes(*given), block_bytes(*given)
            kept = keys_bytes(mix, cells.extent, self.sizes)
            return Tile(reads, kept, 0, 0, result, wide, 0, 0, 0, keys)
        buffer = self.voxels_bytes(mix.in_channels, step.seen_region(cells).voxels)
        result = self.voxels_bytes((4 if self._stacks else 1) * mix.out_channels, cells.voxels)
        maps = norm_bytes(self.site, step.norm, where) if step.norm else 0
        shortcut, copied = self._shortcut_bytes(cells, reads.added, result)
        return Tile(
            reads,
            history,
            buffer,
            buffer + self._gathered(cells, where) + maps,
            result,
            self._conv_bytes(mix, cells, buffer),
            self._measured(result),
            shortcut,
            copied,
            0,
        )

    def _conv_bytes(self, conv: Conv, cells: Region, input_bytes: int) -> int:
        """What the convolution of a tile allocates: what it makes, and beside it what its library
        takes, or what it is put in order in.
        """
        made = self.voxels_bytes(conv.out_channels, cells.voxels)
        kind = mixed(self.step, accelerated=self.sizes.accelerated)
        if not self._stacks:
            return made + self.sizes.workspaces.bytes(kind, input_bytes, made)
        around = cells.t.size * (cells.h.size + 1) * (cells.w.size + 1)
        stacked = self.voxels_bytes(kind.out_channels, around)
        return stacked + max(4 * made, self.sizes.workspaces.bytes(kind, input_bytes, stacked))

    def _added_bytes(self, cells: Region) -> int:
        """Bytes of what is added to a tile."""
        residual = self.step.residual
        if residual is None:
            return 0
        if residual.fold:
            return self.voxels_bytes(self.site.added_channels, cells.voxels)
        frames = cells.t.size * self.step.frames_made
        if residual.repeated:
            frames = min(most_cells(cells.t.size, 2), self.site.added.t)
        voxels = frames * cells.h.size * cells.w.size * self.step.side_made**2
        return self.voxels_bytes(self.site.added_channels, voxels)

    def _gathered(self, cells: Region, where: Region) -> int:
        """Frames that are repeated in a copy."""
        if self.step.time_map is not TimeMap.REPEAT_PAIRS:
            return 0
        frames = self.step.seen_region(cells).t.size
        return self.voxels_bytes(self.step.mix.in_channels, frames * where.h.size * where.w.size)

    def _read_region(self, cells: Region) -> Region:
        """What a tile of this size reads at the most.

        One that is not the whole of a side may lie anywhere, so that no picture's edge spares it
        anything; nor does a chunk's first frame, which may be in another chunk.
        """
        step, whole, src = self.step, self.cells, self.site.src
        seen = step.seen_region(cells)
        h = seen.h.clip(src.h) if cells.h.size == whole.h else seen.h
        w = seen.w.clip(src.w) if cells.w.size == whole.w else seen.w
        if self.site.chunk.band:
            return Region(Interval(0, min(seen.t.size, self.site.read_frames)), h, w)
        if cells.t.size == whole.t:
            return Region(step.source_region(cells, src, self.site.chunk).t, h, w)
        later = Interval(seen.t.size, 2 * seen.t.size)
        return Region(step.time_map.source(later, keeps_first=False), h, w)

    def _measured(self, result_bytes: int) -> int:
        if not self.site.measures or self.sizes.accelerated:
            return 0
        return result_bytes * self.sizes.statistics_bytes // self.sizes.element_bytes

    def _shortcut_bytes(self, cells: Region, added: int, result: int) -> tuple[int, int]:
        """What a residual's convolution makes, and on an accelerator its input in one piece, where
        that is a part of a store.
        """
        shortcut = self.step.residual.shortcut if self.step.residual else None
        if shortcut is None:
            return 0, 0
        kind = shortcut_class(shortcut)
        beside = self.sizes.workspaces.bytes(kind, added, result)
        part = cells.extent != self.cells
        return result + beside, added * (part and self.sizes.accelerated)


def _rest(cells: Region, whole: Extent) -> Region:
    """The other of two tiles."""
    sides = zip(sides_of(cells.extent), sides_of(whole), (cells.t, cells.h, cells.w), strict=True)
    return Region(*(Interval(size, of) if size < of else side for size, of, side in sides))


def _inner(size: int, limit: int) -> Interval:
    """The longest piece of [0, size), one that touches no edge where there are three or more."""
    longest = longest_piece(size, limit)
    start = min(longest, size - longest) if size > 2 * limit else 0
    return Interval(start, start + longest)
