"""What is a network, once it is nothing but a straight list of steps of one kind?

Every step does the same:

    read(region of src) -> [normalise -> modulate -> activate] -> index map -> mix ->
    [+ residual] -> write core to dst

1. `Program` is plain data: which store each step reads, writes and adds, and the geometry of its
   convolution.
2. `Step.source_region` answers the one question an engine asks: which part of src does this part of
   dst need?

Weights are not here: a step names the module path that holds them. No tensors, no settings;
`verify.py` says which programs are legal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ..geometry.grid import Chunk
from ..geometry.ratios import Ratios
from ..geometry.region import Extent, Halo, Interval, Region
from .parts import (
    PICTURE,
    STEADY,
    Attend,
    Conv,
    First,
    Norm,
    Rate,
    Start,
    TimeMap,
    unfolded,
)
from .stores import SOURCE, Residual, StoreSpec


@dataclass(frozen=True, slots=True)
class Step:
    """One convolution with its fused read and write.

    Work is cut up in *cells*. A cell is one output, but where a step unfolds time or space it is
    what all outputs made from one place share: a pair of frames, a square of 2x2 elements.

    src, dst: stores read and written.
    rate: where the mix changes the number of frames.
    upscale: 2 where the convolution sees src by nearest upsampling in height and width, else 1. It
        is computed as one convolution for each of the 2x2 phases, on src itself.
    leaves_out: frames that are made of a clip's beginning and belong to no result.
    still: whether there is one frame and no other before or after it, so that all taps in time see
        it and act as their sum (see `rewrites.still_frame`), or but one where others see zeros.
    """

    src: int
    dst: int
    mix: Conv | Attend
    norm: Norm | None = None
    time_map: TimeMap = TimeMap.SAME
    upscale: int = 1
    residual: Residual | None = None
    still: bool = False
    rate: Rate = STEADY
    leaves_out: int = 0

    @property
    def path(self) -> str:
        """Module path, the step's name in plans and errors."""
        return self.mix.path

    @property
    def unfolds(self) -> bool:
        """Whether it makes a pair of frames for each unique one that it sees."""
        return self.time_map is TimeMap.UNFOLD_PAIRS

    @property
    def frames_made(self) -> int:
        """Frames that it makes of each one that it sees."""
        return 2 if self.unfolds else self.rate.up

    @property
    def side_made(self) -> int:
        """Elements along a side that it makes of each place that it sees."""
        return self.upscale * self.mix.makes_px

    @property
    def in_place(self) -> bool:
        """Whether the result replaces the very store that is added to it."""
        return self.residual is not None and self.residual.store == self.dst

    @property
    def taps(self) -> tuple[int, int, int]:
        """Size of the kernel that is really run, in (frames, rows, columns)."""
        side = 2 if self.upscale == 2 else self.mix.kernel
        if self.still:
            return 1, side, side
        return (2 if self.unfolds else self.mix.kernel_t), side, side

    @property
    def rounds_once(self) -> bool:
        """Whether its norm and activation are to be rounded together where there are few digits:
        sums of taps are rounded, which the taps themselves are not.
        """
        summed = self.still and self.mix.kernel_t > 1 and self.mix.start is Start.FIRST
        return summed and self.norm is not None and self.norm.activated and not self.norm.modulated

    @property
    def strides(self) -> tuple[int, int, int]:
        """From one output of the mix to the next, in (frames, rows, columns)."""
        return self.rate.down, self.mix.stride, self.mix.stride

    @property
    def phases(self) -> int:
        """Convolutions for each cell."""
        return self.frames_made * self.side_made**2

    @property
    def ahead(self) -> int:
        """Frames by which the mix looks ahead."""
        return 0 if self.still else self.mix.ahead

    @property
    def behind(self) -> int:
        """Frames that the mix sees before those at whose place its outputs are."""
        return self.taps[0] - self.rate.down - self.ahead

    @property
    def history(self) -> int:
        """Frames kept from chunk to chunk: none where convolutions look ahead, or see one frame."""
        return 0 if self.ahead else self.behind

    def lone(self, src: Extent, chunk: Chunk) -> int:
        """First cells of a chunk that are copied past the mix: one where the clip's first frame is,
        else none.
        """
        return int(self.rate.first.copied and chunk.keeps_first(src.t))

    def unmixed(self, src: Extent, chunk: Chunk) -> int:
        """First cells of a chunk that the mix is not asked for."""
        return self.lone(src, chunk) + self.left_out(chunk)

    def left_out(self, chunk: Chunk) -> int:
        """First cells of a chunk that make nothing."""
        return self.leaves_out * chunk.first

    def visible(self, src: Extent, chunk: Chunk) -> Region:
        """What there is of the mix's input: all of it, but for a first frame that stands apart."""
        whole = self.seen_extent(src, chunk).region
        apart = self.rate.first is First.APART and chunk.keeps_first(src.t)
        return replace(whole, t=Interval(int(apart), whole.t.stop))

    def seen_extent(self, src: Extent, chunk: Chunk) -> Extent:
        """The extent of the convolution's input, after the map of time and before padding."""
        return Extent(self.time_map.seen(src.t, chunk.keeps_first(src.t)), src.h, src.w)

    def cell_extent(self, src: Extent, chunk: Chunk) -> Extent:
        """The extent of all cells."""
        seen, first = self.seen_extent(src, chunk), chunk.keeps_first(src.t)
        t = first + (seen.t - first) // self.rate.down
        if self.upscale == 2:
            return Extent(t, seen.h, seen.w)
        return Extent(t, self.mix.size(seen.h), self.mix.size(seen.w))

    def mixed_extent(self, src: Extent, chunk: Chunk) -> Extent:
        """The extent of the cells that the mix is asked for."""
        whole = self.cell_extent(src, chunk)
        t = chunk.band.cells[self.dst].size if chunk.band else whole.t - self.unmixed(src, chunk)
        return Extent(t, chunk.rows(self.dst, self.side_made, whole.h).size, whole.w)

    def runs(self, src: Extent, chunk: Chunk) -> tuple[tuple[Step, Interval], ...]:
        """The frames of cells that the mix is asked for, each run with the step that makes it.

        That is the step itself, but for a clip's first frame where it is a picture by itself, where
        of several results one is made, or where nothing but zeros lies before it: of all taps in
        time the last one sees something.
        """
        if chunk.band:
            return ((self, chunk.band.cells[self.dst]),)
        whole, lone = self.cell_extent(src, chunk).t, self.unmixed(src, chunk)
        own = self.as_picture()
        if self.mix.shuffle and self.rate.up > 1:
            own = replace(self, still=True, rate=STEADY)
        if own is not self and chunk.keeps_first(src.t):
            first = own, Interval(0, 1)
            return (first, (self, Interval(1, whole))) if whole > 1 else (first,)
        zeros = self.mix.start is Start.ZEROS and self.rate == STEADY and chunk.first
        if not zeros or self.taps[0] == 1 or whole == 1:
            return ((self, Interval(lone, whole)),)
        return (replace(self, still=True), Interval(0, 1)), (self, Interval(1, whole))

    def as_picture(self) -> Step:
        """The step for a clip's first frame alone; itself where that is nothing of its own."""
        if self.rate.first is not First.PICTURE or self.rate == PICTURE:
            return self
        mix, residual = self.mix, self.residual
        if isinstance(mix, Conv) and mix.fold:
            mix = replace(mix, kernel_t=1, fold=mix.fold.as_picture())
        if residual and residual.fold:
            residual = replace(residual, fold=residual.fold.as_picture())
        return replace(self, mix=mix, residual=residual, rate=PICTURE)

    def core(self, cells: Region, src: Extent, chunk: Chunk) -> Region:
        """The outputs that `cells` make."""
        t = unfolded(cells.t, self.frames_made, chunk.keeps_first(src.t))
        side, left_out = self.side_made, self.left_out(chunk)
        t = Interval(max(t.start - left_out, 0), t.stop - left_out)
        h, w = (Interval(c.start * side, c.stop * side) for c in (cells.h, cells.w))
        return Region(t, h, w)

    def target_extent(self, src: Extent, chunk: Chunk) -> Extent:
        """The extent of dst."""
        return self.core(self.cell_extent(src, chunk).region, src, chunk).extent

    def seen_region(self, cells: Region, keeps_first: bool = False) -> Region:
        """What `cells` see of the mix's input; it may reach outside it.

        keeps_first: whether the chunk's first frame stands alone, which moves the others up where
        frames are passed over.
        """
        t = self.seen_frames(cells.t, keeps_first)
        if self.upscale == 2:
            return Region(t, _WITH_NEIGHBOURS.around(cells.h), _WITH_NEIGHBOURS.around(cells.w))
        return Region(t, self.mix.reads(cells.h), self.mix.reads(cells.w))

    def seen_frames(self, cells: Interval, keeps_first: bool) -> Interval:
        """The same of frames alone."""
        start = cells.start * self.rate.down - self.behind - keeps_first * (self.rate.down - 1)
        return Interval(start, start + (cells.size - 1) * self.rate.down + self.taps[0])

    def source_region(self, cells: Region, src: Extent, chunk: Chunk) -> Region:
        """The part of src that `cells` depend on."""
        seen = self.inside(cells, src, chunk)
        return Region(self.time_map.source(seen.t, chunk.keeps_first(src.t)), seen.h, seen.w)

    def inside(self, cells: Region, src: Extent, chunk: Chunk) -> Region:
        """What `cells` see of what there is of the mix's input."""
        return self.seen_region(cells, chunk.keeps_first(src.t)).meet(self.visible(src, chunk))

    def operations(self, cells: Extent, src: Extent) -> int:
        """Floating point operations of its mix for so many cells: two a multiply-add.

        src: of the whole store, whose frames hold the keys of an attention. Those outside of
        the chunk are left out, see `Program.outward_operations`.
        """
        if isinstance(self.mix, Attend):
            met = self.mix.meetings(src.t)
            return 4 * cells.voxels * met * self.mix.voxels_met(src) * self.mix.channels // src.t
        taps = self.taps[0] * self.taps[1] * self.taps[2]
        main = self.phases * taps * self.mix.in_channels * self.mix.out_channels
        shortcut = self.residual.shortcut if self.residual else None
        added = shortcut.in_channels * shortcut.out_channels if shortcut else 0
        return 2 * cells.voxels * (main + added)


_WITH_NEIGHBOURS = Halo(1, 1)
"""What a 3x3 convolution of upsampled elements sees of the elements themselves."""


@dataclass(frozen=True, slots=True)
class Program:
    """An encoder or a decoder: its steps in order, and the stores that they use.

    Invariants: see `verify`. The source is store `SOURCE`, the sink is the last step's dst.
    """

    name: str
    steps: tuple[Step, ...]
    stores: tuple[StoreSpec, ...]
    _hash: int = field(default=0, init=False, repr=False, compare=False)

    def __hash__(self) -> int:
        """Worked out once, since much is looked up by it."""
        if not self._hash:
            object.__setattr__(self, "_hash", hash((self.name, self.steps, self.stores)))
        return self._hash

    @property
    def sink(self) -> int:
        """The store that holds the result."""
        return self.steps[-1].dst

    def extents(self, source: Extent, chunk: Chunk) -> tuple[Extent, ...]:
        """The extent of every store for a chunk whose source has the extent `source`."""
        found = {SOURCE: source}
        for step in self.steps:
            found[step.dst] = step.target_extent(found[step.src], chunk)
        return tuple(found[store] for store in range(len(self.stores)))

    def frames_at(self, store: int, frames: int) -> int:
        """How many frames a store has had once so many of a clip have gone in."""
        samples = (frames - 1) * self.stores[SOURCE].frames
        return samples // self.stores[store].frames + 1 if frames else 0

    def outward_operations(self, source: Extent, chunks: Iterable[Chunk]) -> int:
        """Floating point operations of attention to frames outside of the chunk, of all `chunks` of
        a clip of the extent `source`, for a batch of one.
        """
        found = 0
        for step in self.steps:
            mix = step.mix
            if isinstance(mix, Attend) and mix.looks_outward:
                side = self.stores[SOURCE].px, self.stores[step.src].px
                frame = Extent(1, *(n * side[0] // side[1] for n in (source.h, source.w)))
                times = sum(self._outward(mix, step.src, source.t, chunk) for chunk in chunks)
                found += 4 * times * frame.voxels * mix.voxels_met(frame) * mix.channels
        return found

    def _outward(self, mix: Attend, store: int, whole: int, chunk: Chunk) -> int:
        """How often a frame of a chunk meets one outside of it."""
        ends = (chunk.source.start, chunk.source.stop, whole)
        start, stop, end = (self.frames_at(store, frames) for frames in ends)
        return mix.meetings(stop - start, start, end - stop) - mix.meetings(stop - start)

    @property
    def ratios(self) -> Ratios:
        """What one of its latent elements stands for, at whichever end they are."""
        ends = self.stores[SOURCE], self.stores[self.sink]
        px, frames = (max(spec.px for spec in ends), max(spec.frames for spec in ends))
        return Ratios(px, frames)

    @property
    def encodes(self) -> bool:
        """Whether samples go in and latents come out."""
        return self.stores[SOURCE].px == 1

    @property
    def looks_ahead(self) -> bool:
        """Whether results depend on later frames than those at their own place."""
        return any(step.ahead for step in self.steps)

    @property
    def whole(self) -> bool:
        """Whether it is run for a clip as one chunk, since steps look at all of its frames."""
        return any(isinstance(step.mix, Attend) and step.mix.of_clip for step in self.steps)

    @property
    def collects(self) -> bool:
        """Whether all of a clip has to be there before there is any result."""
        return self.whole or self.barrier is not None

    @property
    def leads(self) -> bool:
        """Whether a clip's first frame is made of as many as any other, some of which are then left
        out.
        """
        return any(step.leaves_out for step in self.steps)

    @property
    def has_statistics(self) -> bool:
        """Whether results depend on the statistics of a chunk or a clip."""
        norms = (step.norm for step in self.steps if step.norm)
        return any(not (norm.per_voxel or norm.per_frame) for norm in norms)

    @property
    def measures(self) -> bool:
        """Whether statistics are gathered, of whatever."""
        return any(step.norm and not step.norm.per_voxel for step in self.steps)

    @property
    def barrier(self) -> int | None:
        """The first step that needs what it reads of all chunks at once; None where none does."""
        mixes = enumerate(step.mix for step in self.steps)
        ahead = (i for i, mix in mixes if isinstance(mix, Attend) and mix.looks_ahead)
        return next(ahead, None)

    @property
    def crossing(self) -> tuple[int, ...]:
        """The stores that are written before the barrier and used from there on."""
        barrier = self.barrier or 0
        written = {step.dst for step in self.steps[:barrier]}
        return tuple(s for s, last in self.last_use().items() if s in written and last >= barrier)

    def norm_to_come(self, index: int) -> Norm | None:
        """The norm that wants statistics of what step `index` writes; None where none does."""
        dst = self.steps[index].dst
        for step in self.steps[index + 1 :]:
            if step.src == dst and step.norm:
                return None if step.norm.per_voxel else step.norm
            if step.dst == dst:
                return None
        return None

    def last_use(self) -> dict[int, int]:
        """For every store the index of the last step that touches it."""
        return {store: i for i, step in enumerate(self.steps) for store in _touched(step)}


def _touched(step: Step) -> tuple[int, ...]:
    return (step.src, step.dst, *((step.residual.store,) if step.residual else ()))
