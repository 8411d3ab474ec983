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

from ..geometry.grid import Chunk, count_tiles, largest_of
from ..geometry.region import Extent, Interval, Region
from ..program.parts import Attend, Conv, First, Keys, TimeMap
from ..program.steps import Program
from .attending import block_bytes, keys_bytes, wide_bytes
from .classes import mixed, shortcut_class
from .norm_bytes import latent_bytes, latent_frames, most_cells, norm_bytes
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


class Side(NamedTuple):
    """A tile along one side: its cells, what they see of the input of the mix, and what of src is
    read for that.
    """

    cells: int
    seen: int
    read: int


class Flags(NamedTuple):
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


def _fetched(reads: Reads, flags: Flags) -> int:
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
        self._tiles: dict[Extent, Tile] = {}
        self._known: tuple[dict[int, Side], ...] = ({}, {}, {})
        self._latents: dict[int, int] = {}
        self._largest: dict[Extent, tuple[int, tuple[Tile, ...]]] = {}
        self._elements: dict[Extent, int] = {}
        self._needs: dict[tuple[Extent, Flags, bool], int] = {}
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

    def elements(self, largest: Extent) -> int:
        """Of the largest tensor that a tile is computed in."""
        found = self._elements.get(largest)
        if found is None:
            t, h, w = self._sides(self._size(largest))
            seen = self.step.mix.in_channels * t.seen * h.seen * w.seen
            made = self.step.mix.out_channels * self.step.phases * t.cells * h.cells * w.cells
            found = self._elements[largest] = self.sizes.batch * max(seen, made)
        return found

    def tile_bytes(self, largest: Extent, far: Far, past: bool, future: bool) -> int:
        """The most that is allocated at once while tiles of no more than `largest` are computed.

        Beside a tile's own, that is what was copied in for the tile after it, and the result of the
        tile before it on its way out (see `transfers`). Of two tiles each has but one of these.
        past, future: whether causal caches come from a chunk before, and go on to one after.
        """
        return self.need(largest, self.flags(far, past, future), cut=far.cut)

    def flags(self, far: Far, past: bool, future: bool) -> Flags:
        """What of its tiles has far to go."""
        keys = far.keys or self.sizes.far_keys
        copied = self._looks_back and keys and not far.src
        return Flags(
            far.src > 0 or self.site.reads_source,
            far.dst > 0 or self.site.writes_sink,
            far.added > 0,
            far.cache and past,
            far.cache and future,
            far.src > 0 or (self._outward and keys),
            copied,
            copied and future,
        )

    def need(self, largest: Extent, flags: Flags, *, cut: bool) -> int:
        """The same, for what has far to go; cut: whether there are others before and after it."""
        key = largest, flags, cut
        found = self._needs.get(key)
        if found is None:
            found = self._needs[key] = self._most_at_once(largest, flags, cut)
        return found

    def _most_at_once(self, largest: Extent, flags: Flags, cut: bool) -> int:
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
            size, whole = self._size(largest), self.cells
            count = count_tiles(whole, size)
            sizes = (size, _rest(size, whole)) if count == 2 else (size,)
            found = count, tuple(map(self._tile, sizes))
            self._largest[largest] = found
        return found

    def _size(self, largest: Extent) -> Extent:
        """The greatest size of tiles of no more than `largest`."""
        return largest_of(self.cells, largest)

    def _sent(self, tile: Tile, flags: Flags) -> int:
        """Bytes of a tile on their way out."""
        kept = tile.kept * flags.sent if self._attends else 0
        return max(tile.result * flags.dst, kept)

    def _beside(self, tile: Tile, flags: Flags, ahead: int, before: int) -> int:
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

    def _tile(self, size: Extent) -> Tile:
        found = self._tiles.get(size)
        if found is None:
            found = self._tiles[size] = self._worked_out(size)
        return found

    def _worked_out(self, size: Extent) -> Tile:
        step, mix, site = self.step, self.step.mix, self.site
        t, h, w = self._sides(size)
        where = Extent(t.read, h.read, w.read)
        history = self.voxels_bytes(mix.in_channels, step.history * h.read * w.read)
        latents = latent_bytes(site, step.norm, where, self._latents[t.cells]) if step.norm else 0
        src = self.voxels_bytes(mix.read_channels, where.voxels)
        reads = Reads(src, self._added_bytes(size), latents, history)
        if isinstance(mix, Attend):
            result = self.voxels_bytes(mix.channels, size.voxels)
            given = mix, size, site.src, self.sizes
            wide, keys = wide_bytes(*given), block_bytes(*given)
            kept = keys_bytes(mix, size, self.sizes)
            return Tile(reads, kept, 0, 0, result, wide, 0, 0, 0, keys)
        buffer = self.voxels_bytes(mix.in_channels, t.seen * h.seen * w.seen)
        result = self.voxels_bytes((4 if self._stacks else 1) * mix.out_channels, size.voxels)
        maps = norm_bytes(site, step.norm, where, self._latents[t.cells]) if step.norm else 0
        shortcut, copied = self._shortcut_bytes(size, reads.added, result)
        return Tile(
            reads,
            history,
            buffer,
            buffer + self._gathered(t.seen, where) + maps,
            result,
            self._conv_bytes(mix, size, buffer),
            self._measured(result),
            shortcut,
            copied,
            0,
        )

    def _conv_bytes(self, conv: Conv, size: Extent, input_bytes: int) -> int:
        """What the convolution of a tile allocates: what it makes, and beside it what its library
        takes, or what it is put in order in.
        """
        made = self.voxels_bytes(conv.out_channels, size.voxels)
        kind = mixed(self.step, accelerated=self.sizes.accelerated)
        if not self._stacks:
            return made + self.sizes.workspaces.bytes(kind, input_bytes, made)
        around = size.t * (size.h + 1) * (size.w + 1)
        stacked = self.voxels_bytes(kind.out_channels, around)
        return stacked + max(4 * made, self.sizes.workspaces.bytes(kind, input_bytes, stacked))

    def _added_bytes(self, size: Extent) -> int:
        """Bytes of what is added to a tile."""
        residual = self.step.residual
        if residual is None:
            return 0
        if residual.fold:
            return self.voxels_bytes(self.site.added_channels, size.voxels)
        frames = size.t * self.step.frames_made
        if residual.repeated:
            frames = min(most_cells(size.t, 2), self.site.added.t)
        voxels = frames * size.h * size.w * self.step.side_made**2
        return self.voxels_bytes(self.site.added_channels, voxels)

    def _gathered(self, frames: int, where: Extent) -> int:
        """So many frames that are repeated in a copy."""
        if self.step.time_map is not TimeMap.REPEAT_PAIRS:
            return 0
        return self.voxels_bytes(self.step.mix.in_channels, frames * where.h * where.w)

    def _sides(self, size: Extent) -> tuple[Side, Side, Side]:
        """What a tile of this size sees and reads along each side, at the most.

        One that is not the whole of a side may lie anywhere, so that no picture's edge spares it
        anything; nor does a chunk's first frame, which may be in another chunk.
        """
        return self._frames(size.t), self._along(1, size.h), self._along(2, size.w)

    def _frames(self, cells: int) -> Side:
        found = self._known[0].get(cells)
        if found is None:
            step, src, chunk = self.step, self.site.src, self.site.chunk
            t = Interval(0, cells).shift(step.lone(src, chunk))
            region = Region(t, _ONE, _ONE)
            seen = step.seen_region(region).t.size
            if chunk.band:
                read = Interval(0, min(seen, self.site.read_frames))
            elif cells == self.cells.t:
                read = step.source_region(region, src, chunk).t
            else:
                read = step.time_map.source(Interval(seen, 2 * seen), keeps_first=False)
            found = self._known[0][cells] = Side(cells, seen, read.size)
            shown = step.norm is not None and step.norm.modulated
            self._latents[cells] = latent_frames(self.site, read) if shown else 0
        return found

    def _along(self, axis: int, cells: int) -> Side:
        found = self._known[axis].get(cells)
        if found is None:
            seen, whole = self.seen_along(Interval(0, cells)), cells == sides_of(self.cells)[axis]
            read = seen.clip(sides_of(self.site.src)[axis]).size if whole else seen.size
            found = self._known[axis][cells] = Side(cells, seen.size, read)
        return found

    def _measured(self, result_bytes: int) -> int:
        if not self.site.measures or self.sizes.accelerated:
            return 0
        return result_bytes * self.sizes.statistics_bytes // self.sizes.element_bytes

    def _shortcut_bytes(self, size: Extent, added: int, result: int) -> tuple[int, int]:
        """What a residual's convolution makes, and on an accelerator its input in one piece, where
        that is a part of a store.
        """
        shortcut = self.step.residual.shortcut if self.step.residual else None
        if shortcut is None:
            return 0, 0
        kind = shortcut_class(shortcut)
        beside = self.sizes.workspaces.bytes(kind, added, result)
        part = size != self.cells
        return result + beside, added * (part and self.sizes.accelerated)


def _rest(size: Extent, whole: Extent) -> Extent:
    """The other of two tiles."""
    pairs = zip(sides_of(size), sides_of(whole), strict=True)
    return Extent(*(of - side if side < of else side for side, of in pairs))


_ONE = Interval(0, 1)
