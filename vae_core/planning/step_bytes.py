"""How many bytes does a tile of a step take, and how many do all of its tiles copy?

Arithmetic over the geometry of one step in one kind of chunk:

1. A `Site` is all that decides it. Steps that differ in nothing but their names share one.
2. What a tile needs of each thing is worked out once for each size of it (`Tile`).
3. What is far away is copied, and so decides how these add up, in the order in which
   `tile.TileRunner` allocates; change both together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from ..geometry.grid import Chunk, count_tiles, largest_of
from ..geometry.region import Extent, Interval, Region
from ..program.parts import Attend, Conv, First, Start, TimeMap
from ..program.steps import Program
from .arrays import Numbers, Whole, least, most, np
from .attending import block_bytes, keys_bytes, wide_bytes
from .classes import mixed, shortcut_class
from .limits import MOST_ELEMENTS, NEVER
from .norm_bytes import latent_bytes, latent_frames, most_cells, norm_bytes
from .places import Far
from .site import Site, sites_of
from .sizes import Sizes, wave_bytes, weight_bytes
from .step_traffic import StepTraffic, sides_of
from .tile_numbers import Flags, Side, Tile


def steps_bytes(
    program: Program, chunk: Chunk, extents: tuple[Extent, ...], sizes: Sizes
) -> tuple[StepBytes, ...]:
    """The arithmetic of every step of a program for a chunk."""
    known: dict[Site, StepBytes] = {}
    found = list[StepBytes]()
    for site in sites_of(program, chunk, extents, sizes):
        step = known.get(site)
        if step is None:
            step = known[site] = StepBytes(site)
        found.append(step)
    return tuple(found)


class StepBytes(StepTraffic):
    """The arithmetic of one step in one kind of chunk."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._tiles: dict[Extent, Tile] = {}
        self._by_frames: dict[int, Side] = {}
        self._largest: dict[Extent, tuple[int, tuple[Tile, ...]]] = {}
        self._elements: dict[Extent, int] = {}
        self._needs: dict[tuple[Extent, Flags, bool], int] = {}
        self._stacks = self.sizes.accelerated and self.step.upscale == 2
        self._attends = isinstance(mix := self.step.mix, Attend)
        self._looks_back = isinstance(mix, Attend) and mix.looks_back
        self._outward = isinstance(mix, Attend) and mix.looks_outward
        self._leaves_early = self.step.phases > (4 if self._stacks else 1)

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of the weights as a step uses them, and of the rows that ranks hand each other."""
        # a first frame may have one of the taps in time to itself
        runs = self.step.runs(self.site.src, self.site.chunk)
        apart = len(runs) > 1 and self.step.rate.first is not First.PICTURE  # which shares them
        latent_channels = self.site.ends.channels
        return weight_bytes(self.step, self.sizes, latent_channels, apart) + self.staged_bytes

    def elements(self, largest: Extent) -> int:
        """Of the largest tensor that a tile is computed in."""
        found = self._elements.get(largest)
        if found is None:
            sides = self._sides(largest_of(self.cells, largest))
            found = self._elements[largest] = self._elements_of(*sides)
        return found

    def _elements_of(self, t: Side, h: Side, w: Side) -> Whole:
        mix = self.step.mix
        seen = mix.in_channels * t.seen * h.seen * w.seen
        made = mix.out_channels * self.step.phases * t.cells * h.cells * w.cells
        return self.sizes.batch * most(seen, made)

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

    def needs(
        self, sizes: Sequence[Extent], flags: Sequence[Flags], cut: Sequence[bool]
    ) -> Numbers:
        """The same of every size, for each of `flags` and `cut` [flags, sizes]; more than there
        will ever be room for where a tile would be computed in too large a tensor.
        """
        counts, sides, whole = *_cut(self.cells, sizes), np.array(sides_of(self.cells))[:, None]
        far, inner = Flags(*np.array(flags, np.int64).T[..., None]), np.array(cut)[:, None]
        pairs: Numbers = np.flatnonzero(counts == _PAIR)
        one = sides[:, pairs]
        others = np.where(one < whole, whole - one, one)
        tiles, elements = self._all_worked_out(np.concatenate([sides, others], 1))
        count, each = len(sizes), self._around(tiles, far)
        around = [what[:, :count] * ((counts > _PAIR) | inner) for what in each]
        found: Numbers = self._beside(_some(tiles, slice(count)), far, *around)
        if pairs.size:
            places = pairs, np.arange(count, len(elements))
            found[:, pairs] = np.where(inner, found[:, pairs], self._of_pairs(tiles, places, far))
        return np.where(elements[:count] < MOST_ELEMENTS, found, NEVER)

    def _of_pairs(self, tiles: Tile, places: tuple[Numbers, Numbers], flags: Flags) -> Numbers:
        """The same where one of two tiles runs before the other, each at its place [flags,
        pairs].
        """
        one, other = places
        here = np.concatenate([one, one, other, other])
        there = np.concatenate([other, other, one, one])
        ahead, before = self._around(_some(tiles, there), flags)
        first = np.repeat([True, False, True, False], len(one))
        found = self._beside(_some(tiles, here), flags, ahead * first, before * ~first)
        return found.reshape(len(found), 4, len(one)).max(1)

    def _most_at_once(self, largest: Extent, flags: Flags, cut: bool) -> int:
        count, tiles = self._counted(largest)
        one = tiles[0]
        if count > _PAIR or cut:
            return self._beside(one, flags, *self._around(one, flags))
        if count == 1:
            return self._beside(one, flags, 0, 0)
        return max(
            self._beside(here, flags, *beside)
            for here, there in (tiles, tiles[::-1])
            for ahead, before in [self._around(there, flags)]
            for beside in ((ahead, 0), (0, before))
        )

    def count(self, largest: Extent) -> int:
        """How many tiles of no more than `largest` there are."""
        return count_tiles(self.cells, largest)

    def _counted(self, largest: Extent) -> tuple[int, tuple[Tile, ...]]:
        """How many tiles there are, and what one of them takes; or each, where there are two."""
        found = self._largest.get(largest)
        if found is None:
            size, whole = largest_of(self.cells, largest), self.cells
            count = count_tiles(whole, size)
            sizes = (size, _rest(size, whole)) if count == 2 else (size,)
            found = count, tuple(map(self._tile, sizes))
            self._largest[largest] = found
        return found

    def _around(self, tile: Tile, flags: Flags) -> tuple[Whole, Whole]:
        """Bytes that are copied in ahead for a tile, and those on their way out of it."""
        kept = tile.kept * flags.sent if self._attends else 0
        return self._fetched(tile, flags), most(tile.result * flags.dst, kept)

    @staticmethod
    def _fetched(tile: Tile, flags: Flags) -> Whole:
        """Bytes that are copied in for a tile."""
        found = tile.src * flags.src + tile.added * flags.added
        return found + tile.latents + tile.past * flags.past

    def _beside(self, tile: Tile, flags: Flags, ahead: Whole, before: Whole) -> Whole:
        """The most that is allocated while a tile is computed.

        ahead: what has been copied in for another. before: the result of another on its way out.
        """
        reads, added = self._fetched(tile, flags), tile.added * flags.added
        if self._attends:
            work = most(tile.mixed + tile.keys * flags.keys, tile.kept * flags.copied)
            return ahead + before + reads + tile.result + work
        kept = tile.kept * flags.kept
        leaving = kept + before * (kept == 0)
        if self._leaves_early:
            leaving = most(leaving, tile.result * flags.dst)
        shortcut = tile.shortcut + tile.copied * (1 - flags.added)
        # the input is kept for the next phase, or for the next tile
        finished = added + leaving + tile.buffer
        coming = most(reads + tile.before, added + tile.buffer + kept) + before
        going = finished + most(tile.mixed, tile.result + most(shortcut, tile.measured))
        return ahead + most(coming, going)

    def _tile(self, size: Extent) -> Tile:
        found = self._tiles.get(size)
        if found is None:
            found = self._tiles[size] = self._worked_out(size, *self._sides(size))
        return found

    def _all_worked_out(self, sides: Numbers) -> tuple[Tile, Numbers]:
        """What tiles of these sides [3, tiles] take, and their elements."""
        frames, places = np.unique(sides[0], return_inverse=True)
        t = Side(*np.array([self._frames(size) for size in frames.tolist()], np.int64).T[:, places])
        h, w = self._along(1, sides[1]), self._along(2, sides[2])
        elements = self._elements_of(t, h, w)
        if self._attends:
            some = [self._tile(Extent(*of)) for of in sides.T.tolist()]
            return Tile(*np.array(some, np.int64).T), elements
        return self._worked_out(Extent(t.cells, h.cells, w.cells), t, h, w), elements

    def _worked_out(self, size: Extent, t: Side, h: Side, w: Side) -> Tile:
        """A tile of this size, or many, whose sides are arrays."""
        step, mix, site = self.step, self.step.mix, self.site
        where = Extent(t.read, h.read, w.read)
        history = self.voxels_bytes(mix.in_channels, step.history * h.read * w.read)
        latents = latent_bytes(site, step.norm, where, t.latents) if step.norm else 0
        src, added = self.voxels_bytes(mix.read_channels, where.voxels), self._added_bytes(size)
        reads = src, added, latents, history
        if isinstance(mix, Attend):
            result = self.voxels_bytes(mix.channels, size.voxels)
            given = mix, size, site.src, self.sizes
            wide, keys = wide_bytes(*given), block_bytes(*given)
            kept = keys_bytes(mix, size, self.sizes)
            return Tile(*reads, kept, 0, 0, result, wide, 0, 0, 0, keys)
        buffer = self.voxels_bytes(mix.in_channels, t.seen * h.seen * w.seen)
        result = self.voxels_bytes((4 if self._stacks else 1) * mix.out_channels, size.voxels)
        maps = norm_bytes(site, step.norm, where, t.latents) if step.norm else 0
        shortcut, copied = self._shortcut_bytes(size, added, result)
        return Tile(
            *reads,
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

    def _conv_bytes(self, conv: Conv, size: Extent, input_bytes: Whole) -> Whole:
        """What the convolution of a tile allocates: what it makes, and beside it what its library
        takes, or what it is put in order in.
        """
        made = self.voxels_bytes(conv.out_channels, size.voxels)
        kind = mixed(self.step, accelerated=self.sizes.accelerated)
        if self.sizes.packed:
            return made + self._packed_bytes(conv, size, input_bytes)
        if not self._stacks:
            return made + self.sizes.workspaces.bytes(kind, input_bytes, made)
        around = size.t * (size.h + 1) * (size.w + 1)
        stacked = self.voxels_bytes(kind.out_channels, around)
        return stacked + most(4 * made, self.sizes.workspaces.bytes(kind, input_bytes, stacked))

    def _packed_bytes(self, conv: Conv, size: Extent, input_bytes: Whole) -> Whole:
        """Beside a result of taps: what one makes of a repeated frame, and what a phase sees."""
        seen = input_bytes * (self.step.upscale == 2)
        repeats = self.step.taps[0] > 1 and (conv.start is Start.FIRST or conv.ahead > 0)
        return seen + self.voxels_bytes(repeats * conv.out_channels, size.h * size.w)

    def _added_bytes(self, size: Extent) -> Whole:
        """Bytes of what is added to a tile."""
        residual = self.step.residual
        if residual is None:
            return 0
        if residual.fold:
            return self.voxels_bytes(self.site.added_channels, size.voxels)
        frames = size.t * self.step.frames_made
        if residual.repeated:
            frames = least(most_cells(size.t, 2), self.site.added.t)
        voxels = frames * size.h * size.w * self.step.side_made**2
        return self.voxels_bytes(self.site.added_channels, voxels)

    def _gathered(self, frames: Whole, where: Extent) -> Whole:
        """So many frames that are repeated in a copy, or what waves are made in."""
        if self.step.time_map is not TimeMap.REPEAT_PAIRS:
            return wave_bytes(self.step.mix, where, self.sizes)
        return self.voxels_bytes(self.step.mix.in_channels, frames * where.h * where.w)

    def _sides(self, size: Extent) -> tuple[Side, Side, Side]:
        """What a tile of this size sees and reads along each side, at the most.

        One that is not the whole of a side may lie anywhere, so that no picture's edge spares it
        anything; nor does a chunk's first frame, which may be in another chunk.
        """
        return self._frames(size.t), self._along(1, size.h), self._along(2, size.w)

    def _frames(self, cells: int) -> Side:
        found = self._by_frames.get(cells)
        if found is None:
            step, src, chunk = self.step, self.site.src, self.site.chunk
            t = Interval(0, cells).shift(step.unmixed(src, chunk))
            region = Region(t, _ONE, _ONE)
            seen = step.seen_region(region).t.size
            if chunk.band:
                read = Interval(0, min(seen, self.site.there.t))
            elif cells == self.cells.t:
                read = step.source_region(region, src, chunk).t
            else:
                read = step.time_map.source(Interval(seen, 2 * seen), keeps_first=False)
            shown = step.norm is not None and step.norm.modulated
            latents = latent_frames(self.site, read) if shown else 0
            found = self._by_frames[cells] = Side(cells, seen, read.size, latents)
        return found

    def _along(self, axis: int, cells: Whole) -> Side:
        beyond, (_, stride, size) = self._beyond[axis], self.reach
        seen = (cells - 1) * stride + size
        return Side(cells, seen, seen - beyond * (cells == sides_of(self.cells)[axis]))

    @cached_property
    def _beyond(self) -> tuple[int, int, int]:
        """Rows and columns beyond the picture's edges that all cells together see."""
        cells, src = self.cells, self.site.src
        h, w = self.seen_along(Interval(0, cells.h)), self.seen_along(Interval(0, cells.w))
        above = 0 if self.site.chunk.share else h.size - h.clip(src.h).size
        return 0, above, w.size - w.clip(src.w).size

    def _measured(self, result_bytes: Whole) -> Whole:
        if not self.site.measures or self.sizes.accelerated:
            return 0
        return result_bytes * self.sizes.statistics_bytes // self.sizes.element_bytes

    def _shortcut_bytes(self, size: Extent, added: Whole, result: Whole) -> tuple[int, int]:
        """What a residual's convolution makes, and on an accelerator its input in one piece, where
        that is a part of a store.
        """
        shortcut = self.step.residual.shortcut if self.step.residual else None
        if shortcut is None:
            return 0, 0
        kind = shortcut_class(shortcut)
        beside = self.sizes.workspaces.bytes(kind, added, result)
        whole = self.cells
        part = (size.t < whole.t) | (size.h < whole.h) | (size.w < whole.w)
        return result + beside, added * (part & self.sizes.accelerated)


def _cut(whole: Extent, sizes: Sequence[Extent]) -> tuple[Numbers, Numbers]:
    """How many tiles there are of each size, and the sides of the largest [3, sizes]."""
    bounds: Numbers = np.array([sides_of(size) for size in sizes], np.int64).T
    every: Numbers = np.array(sides_of(whole), np.int64)[:, None]
    counts = -(-every // bounds)
    sides = -(-every // counts)
    sides[0] = np.minimum(bounds[0], every[0])
    return counts.prod(0), sides


def _some(tiles: Tile, places: Whole) -> Tile:
    """Those of many tiles that are in some places."""
    return Tile(*(what[places] if isinstance(what, np.ndarray) else what for what in tiles))


def _rest(size: Extent, whole: Extent) -> Extent:
    """The other of two tiles."""
    pairs = zip(sides_of(size), sides_of(whole), strict=True)
    return Extent(*(of - side if side < of else side for side, of in pairs))


_ONE = Interval(0, 1)

_PAIR = 2
"""Of so many tiles each has one other, before it or after it."""
