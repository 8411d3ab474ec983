"""How many bytes will a chunk need at its worst moment?

Arithmetic over a program's store lifetimes; no tensors:

1. Stores live from the step that first writes them to the last step that touches them.
2. Causal caches live from chunk to chunk, a step's new one beside its old one while it runs.
3. The workspace of a step is what its largest tile allocates, in the order in which
   `tile.TileRunner` does so, the copies that run beside it, and the weights that are folded.

Weights as they are, the caller's own input and the result are not counted: they are the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from ..geometry.grid import Chunk, cells_of, count_tiles, inner_piece, pieces, time_pieces
from ..geometry.region import Extent, Interval, Region
from ..program.parts import Attend, Conv, First, Form, Norm, TimeMap
from ..program.shares import rows_read
from ..program.steps import SOURCE, Program, Step
from .attending import attended_bytes, fetched_bytes, kept_by_step, kept_bytes
from .classes import attends, mapped, mixed, shortcut_class
from .held import Held, held, live_stores
from .lifetimes import waiting_bytes
from .projection import Projection, Reads
from .sizes import Sizes, frame_statistics_bytes, most_cells, staged_bytes, weight_bytes

SLACK_BYTES = 2**20
"""Statistics and the small tensors made of them, beyond what is counted."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The arithmetic for one program and one chunk.

    has_past, has_future: whether causal caches come in from a chunk before it, and go on to one
        after it. clip_frames: of the whole clip, at the program's source.
    pooled: bytes held for stores while each step runs, where memory is reused (see `pool`); None
        where stores come from a device's allocator.
    """

    program: Program
    chunk: Chunk
    extents: tuple[Extent, ...]
    sizes: Sizes
    has_past: bool
    has_future: bool
    clip_frames: int = 0
    pooled: tuple[int, ...] | None = None

    def cell_extent(self, step: Step) -> Extent:
        """All cells that a step's mix is asked for; one frame of them where it is for none."""
        found = step.mixed_extent(self.extents[step.src], self.chunk)
        return replace(found, t=max(found.t, 1))

    def _there(self, store: int) -> Extent:
        return self.chunk.held(store, self.extents[store])

    def _voxels(self, channels: int, voxels: int) -> int:
        return self.sizes.batch * channels * voxels * self.sizes.element_bytes

    def store_bytes(self, store: int) -> int:
        """Bytes of memory that a store has of its own; none inside another or at the two ends."""
        spec = self.program.stores[store]
        if store in (SOURCE, self.program.sink) or spec.inside is not None:
            return 0
        return self._voxels(spec.channels, self._there(store).voxels)

    def cache_bytes(self, step: Step) -> int:
        """Bytes of a step's causal cache."""
        src = self.extents[step.src]
        rows = rows_read(step, src, self.chunk).size
        return self._voxels(step.mix.in_channels, step.history * rows * src.w)

    def held_cache_bytes(self) -> list[int]:
        """Bytes of all causal caches while each step runs: old ones of the steps from it on, and
        new ones of those up to it.
        """
        if self.chunk.band:
            sides = zip(self.program.stores, self.extents, strict=True)
            frames = [self._voxels(spec.channels, e.h * e.w) for spec, e in sides]
            return waiting_bytes(self.program, frames, self.chunk.band.kept)
        sizes = [self.cache_bytes(step) for step in self.program.steps]
        return [
            sum(sizes[index:]) * self.has_past + sum(sizes[: index + 1]) * self.has_future
            for index in range(len(sizes))
        ]

    def live_bytes(self) -> list[dict[int, int]]:
        """The stores with memory of their own while each step runs, and their bytes."""
        sized = ({s: self.store_bytes(s) for s in live} for live in live_stores(self.program))
        return [{s: size for s, size in stores.items() if size} for stores in sized]

    def held_store_bytes(self) -> tuple[int, ...]:
        """Bytes held for stores while each step runs."""
        if self.pooled is not None:
            return self.pooled
        return tuple(sum(stores.values()) for stores in self.live_bytes())

    def tile_bytes(self, step: Step, cells: Region) -> int:
        """The most that is allocated at once while a tile of this size is computed.

        Beside the tile's own, that is what was copied in for the tile after it, and the result of
        the tile before it on its way out (see `transfers`). Of two tiles each has but one of these.
        """
        whole = self.cell_extent(step)
        count = count_tiles(whole, cells.extent)
        if count == 1:
            return self._beside(step, cells, 0, 0)
        if count > 2:
            return self._beside(
                step, cells, self._reads(step, cells).total, self._sent(step, cells)
            )
        pair = (cells, _rest(cells, whole))
        return max(
            most
            for one, other in (pair, pair[::-1])
            for most in (
                self._beside(step, one, self._reads(step, other).total, 0),
                self._beside(step, one, 0, self._sent(step, other)),
            )
        )

    def _stacks(self, step: Step) -> bool:
        """Whether all outputs of a square of 2x2 are made by one convolution."""
        return self.sizes.accelerated and step.upscale == 2

    def _result_bytes(self, step: Step, cells: Region) -> int:
        """Bytes of what one convolution of a tile makes, as it is written."""
        squares = 4 if self._stacks(step) else 1
        return self._voxels(squares * step.mix.out_channels, cells.voxels)

    def _sent(self, step: Step, cells: Region) -> int:
        """Bytes of a tile's result, where it has far to go."""
        far = self.sizes.far_stores or step.dst == self.program.sink
        result = self._result_bytes(step, cells) if far else 0
        mix = step.mix
        kept = kept_bytes(mix, cells.extent, self.sizes) if isinstance(mix, Attend) else 0
        return max(result, kept * self.has_future)

    def _beside(self, step: Step, cells: Region, ahead: int, before: int) -> int:
        """The most that is allocated while a tile is computed.

        ahead: what has been copied in for another. before: the result of another on its way out.
        """
        where, reads = self._read_region(step, cells), self._reads(step, cells)
        if isinstance(step.mix, Attend):
            frame = self.extents[step.src]
            work = attended_bytes(step.mix, cells.extent, frame, self.sizes)
            return ahead + before + reads.total + work
        buffer = self._voxels(step.mix.in_channels, step.seen_region(cells).voxels)
        result, kept = self._result_bytes(step, cells), self._kept_bytes(step, where)
        leaving = kept or before
        if step.phases > (4 if self._stacks(step) else 1):
            leaving = max(leaving, self._sent(step, cells))
        maps = self._norm_bytes(step.norm, step.src, where) if step.norm else 0
        finishing = max(self._shortcut_bytes(step, cells, result), self._measured(result))
        # the input is kept for the next phase, or for the next tile
        finished = reads.added + leaving + buffer
        return ahead + max(
            reads.total + buffer + self._gathered(step, cells, where) + maps + before,
            reads.added + buffer + kept + before,
            finished + self.conv_bytes(step, step.mix, cells, buffer),
            finished + result + finishing,
        )

    def conv_bytes(self, step: Step, conv: Conv, cells: Region, input_bytes: int) -> int:
        """What the convolution of a tile allocates: what it makes, and beside it what its library
        takes, or what it is put in order in.
        """
        made = self._voxels(conv.out_channels, cells.voxels)
        kind = mixed(step, accelerated=self.sizes.accelerated)
        if not self._stacks(step):
            return made + self.sizes.workspaces.bytes(kind, input_bytes, made)
        around = cells.t.size * (cells.h.size + 1) * (cells.w.size + 1)
        stacked = self._voxels(kind.out_channels, around)
        return stacked + max(4 * made, self.sizes.workspaces.bytes(kind, input_bytes, stacked))

    def _reads(self, step: Step, cells: Region) -> Reads:
        """What is copied in for a tile."""
        where, history = self._read_region(step, cells), 0
        if self.sizes.far_caches and self.has_past:
            history = self._voxels(step.mix.in_channels, step.history * where.h.size * where.w.size)
        far = self.sizes.far_stores
        src = self._voxels(step.mix.read_channels, where.voxels)
        return Reads(
            src if far or step.src == SOURCE else 0,
            self._added_bytes(step, cells) if far else 0,
            self._latent_bytes(step.norm, step.src, where) if step.norm else 0,
            history,
        )

    def _added_bytes(self, step: Step, cells: Region) -> int:
        """Bytes of what is added to a tile."""
        if step.residual is None:
            return 0
        store = step.residual.store
        channels, frames = self.program.stores[store].channels, cells.t.size * step.frames_made
        if step.residual.fold:
            return self._voxels(channels, cells.voxels)
        if step.residual.repeated:
            frames = min(most_cells(cells.t.size, 2), self.extents[store].t)
        voxels = frames * cells.h.size * cells.w.size * step.side_made**2
        return self._voxels(channels, voxels)

    def _kept_bytes(self, step: Step, where: Region) -> int:
        """A tile's part of the new cache, copied in one piece where it has far to go."""
        if not (self.sizes.far_caches and self.has_future):
            return 0
        return self._voxels(step.mix.in_channels, step.history * where.h.size * where.w.size)

    def _gathered(self, step: Step, cells: Region, where: Region) -> int:
        """Frames that are repeated in a copy."""
        if step.time_map is not TimeMap.REPEAT_PAIRS:
            return 0
        frames = step.seen_region(cells).t.size
        return self._voxels(step.mix.in_channels, frames * where.h.size * where.w.size)

    def _read_region(self, step: Step, cells: Region) -> Region:
        """What a tile of this size reads at the most.

        One that is not the whole of a side may lie anywhere, so that no picture's edge spares it
        anything; nor does a chunk's first frame, which may be in another chunk.
        """
        seen, whole, src = step.seen_region(cells), self.cell_extent(step), self.extents[step.src]
        h = seen.h if self.chunk.share or cells.h.size < whole.h else seen.h.clip(src.h)
        w = seen.w.clip(src.w) if cells.w.size == whole.w else seen.w
        if self.chunk.band:
            return Region(Interval(0, min(seen.t.size, self._there(step.src).t)), h, w)
        if cells.t.size == whole.t:
            return Region(step.source_region(cells, src, self.chunk).t, h, w)
        later = Interval(seen.t.size, 2 * seen.t.size)
        return Region(step.time_map.source(later, keeps_first=False), h, w)

    def _measured(self, result_bytes: int) -> int:
        if not self.program.measures or self.sizes.accelerated:
            return 0
        return result_bytes * self.sizes.statistics_bytes // self.sizes.element_bytes

    def _shortcut_bytes(self, step: Step, cells: Region, result_bytes: int) -> int:
        """What a residual's convolution makes, and on an accelerator its input in one piece, where
        that is a part of a store.
        """
        shortcut = step.residual.shortcut if step.residual else None
        if shortcut is None:
            return 0
        added = self._added_bytes(step, cells)
        kind = shortcut_class(shortcut)
        beside = self.sizes.workspaces.bytes(kind, added, result_bytes)
        part = cells.extent != self.cell_extent(step) and not self.sizes.far_stores
        return result_bytes + added * (part and self.sizes.accelerated) + beside

    def _latent_cells(self, store: int, where: Region) -> tuple[int, int]:
        """The most latent cells that the elements `where` of a store show: in time times height,
        and in width.
        """
        latents, here = self.program.stores[SOURCE], self.program.stores[store]
        px, first = latents.px // here.px, self.chunk.keeps_first(self.extents[store].t)
        rows = min(most_cells(where.h.size, px), self.extents[SOURCE].h)
        columns = min(most_cells(where.w.size, px), self.extents[SOURCE].w)
        return rows * cells_of(where.t, latents.frames // here.frames, first).size, columns

    def _latent_bytes(self, norm: Norm, store: int, where: Region) -> int:
        if not norm.modulated:
            return 0
        cells, columns = self._latent_cells(store, where)
        return self._voxels(self.program.stores[SOURCE].channels, cells * columns)

    def _norm_bytes(self, norm: Norm, store: int, where: Region) -> int:
        """What a voxel has, or the maps of a modulated norm: small, and with columns gathered."""
        if norm.per_voxel:
            numbers = where.voxels * (1 + (norm.form is Form.LAYER))
            return self.sizes.batch * numbers * self.sizes.statistics_bytes
        if not norm.modulated:
            return 0
        cells, columns = self._latent_cells(store, where)
        narrow = self.sizes.batch * norm.channels * cells * columns
        wide = self.sizes.batch * norm.channels * cells * where.w.size
        made = 2 * narrow * (self.sizes.element_bytes + 2 * self.sizes.statistics_bytes)
        latents = self._latent_bytes(norm, store, where)
        kind, both = mapped(self.program, norm), 2 * narrow * self.sizes.element_bytes
        made += self.sizes.workspaces.bytes(kind, latents, both)
        return made + 2 * wide * self.sizes.statistics_bytes

    def _slack_bytes(self) -> int:
        """Beside what is counted: libraries keep what they took for an attention for good."""
        kept = attends(self.program) * self.sizes.workspaces.attention.base_bytes
        return SLACK_BYTES + kept + frame_statistics_bytes(self.program, self.extents, self.sizes)

    def _weight_bytes(self, step: Step) -> int:
        runs = step.runs(self.extents[step.src], self.chunk)
        apart = len(runs) > 1 and step.rate.first is not First.PICTURE  # which shares its weights
        staged = staged_bytes(step, self.chunk, self.extents, self.sizes)
        return staged + weight_bytes(step, self.sizes, self.program.stores[SOURCE].channels, apart)

    def moved_bytes(self, step: Step, largest: Extent) -> int:
        """Bytes that the tiles of a step copy to and from the device."""
        moves = self.sizes.far_caches * (self.has_past + self.has_future)
        moved = moves * self.cache_bytes(step)
        if isinstance(step.mix, Attend):
            times = count_tiles(replace(self.cell_extent(step), t=1), replace(largest, t=1))
            src, before = self.extents[step.src], self.chunk.source.start
            others = self.program.frames_at(step.src, before) // 2  # on the average
            if step.mix.looks_ahead:
                others = self.program.frames_at(step.src, self.clip_frames) - src.t
            moved += fetched_bytes(step.mix, times, src, others, self.sizes)
        return moved + (self._stored_bytes(step, largest) if self.sizes.far_stores else 0)

    def copied_bytes(self, step: Step, largest: Extent) -> int:
        """Bytes of stores that the processor copies on their way: all, where tiles are narrower
        than the picture, so that their rows do not lie in one piece.
        """
        narrow = largest.w < self.cell_extent(step).w
        return self._stored_bytes(step, largest) if narrow and self.sizes.far_stores else 0

    def _stored_bytes(self, step: Step, largest: Extent) -> int:
        """Bytes that the tiles of a step read from stores, and write to them."""
        read = self._voxels(step.mix.read_channels, self._read_voxels(step, largest))
        made = self._voxels(step.mix.out_channels, self._there(step.dst).voxels)
        return read + made + self._all_added(step)

    def _all_added(self, step: Step) -> int:
        """Bytes of all that is added to what a step makes."""
        if step.residual is None:
            return 0
        store = step.residual.store
        extent = self._there(store if step.residual.fold else step.dst)
        return self._voxels(self.program.stores[store].channels, extent.voxels)

    def _read_voxels(self, step: Step, largest: Extent) -> int:
        """Voxels that all tiles of a step read: tiles are a product of pieces, so is what they
        read.
        """
        extent = self.cell_extent(step)
        read = [0, 0, 0]
        for axis, (size, limit) in enumerate(zip(_sides(extent), _sides(largest), strict=True)):
            for piece in (pieces if axis else time_pieces)(size, limit):
                sides = [Interval(0, 1)] * 3
                sides[axis] = piece
                src = self.extents[step.src]
                where = step.source_region(Region(*sides), src, self.chunk)
                read[axis] += _sides(where.extent)[axis]
        return prod(read)

    def elements(self, step: Step, cells: Region) -> int:
        """Of the largest tensor that a tile is computed in."""
        seen = step.mix.in_channels * step.seen_region(cells).voxels
        made = step.mix.out_channels * step.phases * cells.voxels
        return self.sizes.batch * max(seen, made)

    def largest_tile(self, step: Step, largest: Extent) -> Region:
        """A tile of the greatest size, with a halo on every side where there is one."""
        cells = self.cell_extent(step)
        t = Interval(0, min(largest.t, cells.t))
        if cells.t >= 2 * t.size:
            t = t.shift(t.size)
        t = t.shift(step.lone(self.extents[step.src], self.chunk))
        return Region(t, inner_piece(cells.h, largest.h), inner_piece(cells.w, largest.w))

    def project(self, largest: tuple[Extent, ...]) -> tuple[Projection, ...]:
        """What every step needs, given the largest tile of each."""
        rows, slack = list[Projection](), self._slack_bytes()
        for index, (step, kept) in enumerate(self._held()):
            work = self.tile_bytes(step, self.largest_tile(step, largest[index]))
            rows.append(
                Projection(
                    step.path,
                    kept.stores,
                    kept.caches,
                    work + self._weight_bytes(step) + slack,
                    self.moved_bytes(step, largest[index]),
                    self.copied_bytes(step, largest[index]),
                    kept.far,
                )
            )
        return tuple(rows)

    def _held(self) -> zip[tuple[Step, Held]]:
        keys = kept_by_step(self.program, self.extents, self.chunk, self.clip_frames, self.sizes)
        found = zip(self.held_store_bytes(), self.held_cache_bytes(), keys, strict=True)
        return zip(self.program.steps, (held(*one, self.sizes) for one in found), strict=True)

    def fixed_bytes(self) -> list[int]:
        """Bytes on the device while each step runs that no tile size changes."""
        slack = self._slack_bytes()
        return [kept.near + self._weight_bytes(step) + slack for step, kept in self._held()]


def _sides(extent: Extent) -> tuple[int, int, int]:
    return extent.t, extent.h, extent.w


def _rest(cells: Region, whole: Extent) -> Region:
    """The other of two tiles."""
    sides = zip(_sides(cells.extent), _sides(whole), (cells.t, cells.h, cells.w), strict=True)
    return Region(*(Interval(size, of) if size < of else side for size, of, side in sides))
