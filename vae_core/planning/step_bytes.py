"""How many bytes does a tile of a step take, and how many do all of its tiles copy?

Arithmetic over the geometry of one step in one kind of chunk:

1. A `Site` is all that decides it. Steps that differ in nothing but their names share one.
2. What a tile needs of each thing is worked out once for each size of it (`Tile`).
3. What is far away is copied, and so decides how these add up, in the order in which
   `tile.TileRunner` allocates; change both together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from ..geometry.grid import Chunk, cells_of, count_tiles, longest_piece, pieces, time_pieces
from ..geometry.region import Extent, Interval, Region
from ..program.parts import Attend, Conv, Norm, TimeMap
from ..program.steps import Program
from .classes import mapped, mixed, shortcut_class
from .places import Far
from .projection import Reads
from .site import Site, site_of
from .sizes import Sizes


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


def steps_bytes(
    program: Program, chunk: Chunk, extents: tuple[Extent, ...], sizes: Sizes
) -> tuple[StepBytes, ...]:
    """The arithmetic of every step of a program for a chunk."""
    known: dict[Site, StepBytes] = {}
    sites = (site_of(program, step, chunk, extents, sizes) for step in program.steps)
    return tuple(known.setdefault(site, StepBytes(site)) for site in sites)


class StepBytes:
    """The arithmetic of one step in one kind of chunk."""

    def __init__(self, site: Site) -> None:
        self.site, self.step, self.sizes = site, site.step, site.sizes
        cells = self.step.mixed_extent(site.src, site.chunk)
        self.cells = replace(cells, t=max(cells.t, 1))
        """All cells that the mix is asked for; one frame of them where it is for none."""
        self._tiles: dict[Region, Tile] = {}
        self._largest: dict[Extent, tuple[int, tuple[Tile, ...]]] = {}
        self._read: dict[Extent, int] = {}
        self._along: dict[tuple[int, int], int] = {}
        self._stacks = self.sizes.accelerated and self.step.upscale == 2

    def _voxels(self, channels: int, voxels: int) -> int:
        return self.sizes.batch * channels * voxels * self.sizes.element_bytes

    @property
    def cache_bytes(self) -> int:
        """Bytes of the causal cache."""
        src = self.site.src
        return self._voxels(self.step.mix.in_channels, self.step.history * src.h * src.w)

    @property
    def apart(self) -> bool:
        """Whether a first frame has one of the taps in time to itself."""
        return len(self.step.runs(self.site.src, self.site.chunk)) > 1

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
        kept = far.cache and future
        came = far if past or not far.cache else replace(far, cache=False)
        count, tiles = self._counted(largest)
        one = tiles[0]
        if count > 2 or far.cut:
            ahead = self._fetched(one, came).total
            return self._beside(one, came, kept, ahead, self._sent(one, far))
        if count == 1:
            return self._beside(one, came, kept, 0, 0)
        return max(
            most
            for one, other in (tiles, tiles[::-1])
            for most in (
                self._beside(one, came, kept, self._fetched(other, came).total, 0),
                self._beside(one, came, kept, 0, self._sent(other, far)),
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

    def _fetched(self, tile: Tile, far: Far) -> Reads:
        """What is copied in for a tile."""
        reads = tile.reads
        return Reads(
            reads.src if far.src or self.site.reads_source else 0,
            reads.added if far.added else 0,
            reads.latents,
            reads.past if far.cache else 0,
        )

    def _sent(self, tile: Tile, far: Far) -> int:
        """Bytes of a tile's result, where it has far to go."""
        return tile.result if far.dst or self.site.writes_sink else 0

    def _beside(self, tile: Tile, far: Far, keeps: bool, ahead: int, before: int) -> int:
        """The most that is allocated while a tile is computed.

        far: of which the cache is one that comes from a chunk before. keeps: whether one that goes
        on is far. ahead: what has been copied in for another. before: the result of another on its
        way out.
        """
        reads = self._fetched(tile, far)
        if isinstance(self.step.mix, Attend):
            keys = tile.keys if far.src else 0
            return ahead + before + reads.total + tile.result + tile.mixed + keys
        kept = tile.kept if keeps else 0
        leaving = kept or before
        if self.step.phases > (4 if self._stacks else 1):
            leaving = max(leaving, self._sent(tile, far))
        shortcut = tile.shortcut + (0 if far.added else tile.copied)
        # the input is kept for the next phase, or for the next tile
        finished = reads.added + leaving + tile.buffer
        return ahead + max(
            reads.total + tile.before + before,
            reads.added + tile.buffer + kept + before,
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
        history = self._voxels(mix.in_channels, step.history * where.h.size * where.w.size)
        latents = self._latent_bytes(step.norm, where) if step.norm else 0
        src = self._voxels(mix.read_channels, where.voxels)
        reads = Reads(src, self._added_bytes(cells), latents, history)
        if isinstance(mix, Attend):
            result = self._voxels(mix.channels, cells.voxels)
            wide, keys = self._attended(mix, cells)
            return Tile(reads, 0, 0, 0, result, wide, 0, 0, 0, keys)
        buffer = self._voxels(mix.in_channels, step.seen_region(cells).voxels)
        result = self._voxels((4 if self._stacks else 1) * mix.out_channels, cells.voxels)
        maps = self._norm_bytes(step.norm, where) if step.norm else 0
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
        made = self._voxels(conv.out_channels, cells.voxels)
        kind = mixed(self.step, accelerated=self.sizes.accelerated)
        if not self._stacks:
            return made + self.sizes.workspaces.bytes(kind, input_bytes, made)
        around = cells.t.size * (cells.h.size + 1) * (cells.w.size + 1)
        stacked = self._voxels(kind.out_channels, around)
        return stacked + max(4 * made, self.sizes.workspaces.bytes(kind, input_bytes, stacked))

    def _attended(self, mix: Attend, cells: Region) -> tuple[int, int]:
        """What is allocated while a tile of queries is attended, and a block of keys where it is
        copied in; see `attention`.
        """
        frame, queries = self.site.src, cells.h.size * cells.w.size
        keys = mix.key_rows(cells.extent, frame) * frame.w
        sums = queries * (3 * mix.channels + 4)  # queries, their sums, and one more of these
        block = keys * 2 * mix.channels + queries * keys
        wide = self.sizes.batch * (sums + block) * self.sizes.statistics_bytes
        return wide, self._voxels(2 * mix.channels, keys)

    def _added_bytes(self, cells: Region) -> int:
        """Bytes of what is added to a tile."""
        residual = self.step.residual
        if residual is None:
            return 0
        frames = cells.t.size * self.step.frames_made
        if residual.repeated:
            frames = min(_most_cells(cells.t.size, 2), self.site.added_frames)
        voxels = frames * cells.h.size * cells.w.size * self.step.side_made**2
        return self._voxels(self.site.added_channels, voxels)

    def _gathered(self, cells: Region, where: Region) -> int:
        """Frames that are repeated in a copy."""
        if self.step.time_map is not TimeMap.REPEAT_PAIRS:
            return 0
        frames = self.step.seen_region(cells).t.size
        return self._voxels(self.step.mix.in_channels, frames * where.h.size * where.w.size)

    def _read_region(self, cells: Region) -> Region:
        """What a tile of this size reads at the most.

        One that is not the whole of a side may lie anywhere, so that no picture's edge spares it
        anything; nor does a chunk's first frame, which may be in another chunk.
        """
        step, whole, src = self.step, self.cells, self.site.src
        seen = step.seen_region(cells)
        h = seen.h.clip(src.h) if cells.h.size == whole.h else seen.h
        w = seen.w.clip(src.w) if cells.w.size == whole.w else seen.w
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

    def _latent_cells(self, where: Region) -> tuple[int, int]:
        """The most latent cells that the elements `where` of src show: in time times height, and in
        width.
        """
        ends, here, all_of = self.site.ends, self.site.here, self.site.latents
        px, first = ends.px // here.px, self.site.chunk.keeps_first(self.site.src.t)
        rows = min(_most_cells(where.h.size, px), all_of.h)
        columns = min(_most_cells(where.w.size, px), all_of.w)
        return rows * cells_of(where.t, ends.frames // here.frames, first).size, columns

    def _latent_bytes(self, norm: Norm, where: Region) -> int:
        if not norm.modulated:
            return 0
        cells, columns = self._latent_cells(where)
        return self._voxels(self.site.ends.channels, cells * columns)

    def _norm_bytes(self, norm: Norm, where: Region) -> int:
        """The length of each voxel, or the maps of a modulated norm: at latent resolution, and with
        their columns gathered.
        """
        if norm.per_voxel:
            return self.sizes.batch * where.voxels * self.sizes.statistics_bytes
        if not norm.modulated:
            return 0
        cells, columns = self._latent_cells(where)
        narrow = self.sizes.batch * norm.channels * cells * columns
        wide = self.sizes.batch * norm.channels * cells * where.w.size
        made = 2 * narrow * (self.sizes.element_bytes + 2 * self.sizes.statistics_bytes)
        kind, both = mapped(self.site.ends.channels, norm), 2 * narrow * self.sizes.element_bytes
        latents = self._latent_bytes(norm, where)
        made += self.sizes.workspaces.bytes(kind, latents, both)
        return made + 2 * wide * self.sizes.statistics_bytes

    def moved_bytes(self, largest: Extent, far: Far, past: bool, future: bool) -> int:
        """Bytes that all tiles of no more than `largest` copy to and from the device."""
        moved = far.cache * (past + future) * self.cache_bytes
        if not far.store:
            return moved
        site = self.site
        if far.src:
            moved += self.read_bytes(largest) * far.src // site.src.h
        if far.dst:
            moved += self.written_bytes * far.dst // site.dst.h
        if far.added:
            moved += self.added_bytes * far.added // site.dst.h
        return moved

    @property
    def written_bytes(self) -> int:
        """Bytes of all that it writes."""
        return self._voxels(self.step.mix.out_channels, self.site.dst.voxels)

    @property
    def added_bytes(self) -> int:
        """Bytes of all that it adds."""
        return self._voxels(self.site.added_channels, self.site.dst.voxels)

    def read_bytes(self, largest: Extent) -> int:
        """Bytes that all tiles read of src, keys included."""
        found = self._read.get(largest)
        if found is None:
            mix, keys = self.step.mix, 0
            if isinstance(mix, Attend):
                times = count_tiles(replace(self.cells, t=1), replace(largest, t=1))
                keys = times * self._voxels(2 * mix.channels, self.site.src.voxels)
            read = self._voxels(mix.read_channels, self._read_voxels(largest))
            found = self._read[largest] = read + keys
        return found

    def _read_voxels(self, largest: Extent) -> int:
        """Voxels that all tiles read: tiles are a product of pieces, so is what they read."""
        return prod(self._read_along(axis, limit) for axis, limit in enumerate(_sides(largest)))

    def _read_along(self, axis: int, limit: int) -> int:
        """What all pieces of one side read."""
        found = self._along.get((axis, limit))
        if found is None:
            found, sides = 0, [Interval(0, 1)] * 3
            for piece in (pieces if axis else time_pieces)(_sides(self.cells)[axis], limit):
                sides[axis] = piece
                where = self.step.source_region(Region(*sides), self.site.src, self.site.chunk)
                found += _sides(where.extent)[axis]
            self._along[axis, limit] = found
        return found


def _sides(extent: Extent) -> tuple[int, int, int]:
    return extent.t, extent.h, extent.w


def _rest(cells: Region, whole: Extent) -> Region:
    """The other of two tiles."""
    sides = zip(_sides(cells.extent), _sides(whole), (cells.t, cells.h, cells.w), strict=True)
    return Region(*(Interval(size, of) if size < of else side for size, of, side in sides))


def _most_cells(size: int, ratio: int) -> int:
    """The most cells that `size` elements can touch, wherever they lie."""
    return (size + ratio - 2) // ratio + 1


def _inner(size: int, limit: int) -> Interval:
    """The longest piece of [0, size), one that touches no edge where there are three or more."""
    longest = longest_piece(size, limit)
    start = min(longest, size - longest) if size > 2 * limit else 0
    return Interval(start, start + longest)
