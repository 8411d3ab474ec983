"""What is a network, once it is nothing but a straight list of steps of one kind?

Every step does the same:

    read(region of src) -> [normalise -> modulate -> SiLU] -> index map -> conv -> [+ residual] ->
    write core to dst

1. `Program` is plain data: which store each step reads, writes and adds, and the geometry of its
   convolution.
2. `Step.source_region` answers the one question an engine asks: which part of src does this part of
   dst need?

Weights are not here: a step names the module path that holds them. No tensors, no settings;
`verify.py` says which programs are legal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..geometry.grid import Chunk, cells_of, pooled_frames, repeated_frames
from ..geometry.region import Extent, Halo, Interval, Region

SOURCE = 0
"""The store that the caller fills: sample frames for an encoder, latents for a decoder."""


class TimeMap(Enum):
    """How the frames that a convolution sees, and makes, follow from the frames of its store.

    `SAME`: one for one. `POOL_PAIRS`: it sees means of pairs. `REPEAT_PAIRS`: it sees each frame
    twice. `UNFOLD_PAIRS`: it sees each frame once and makes two of it, as if it had been there
    twice (see `rewrites.unique_frames`). A chunk's first frame stands alone where the chunk says
    so.
    """

    SAME = "same"
    POOL_PAIRS = "pool pairs"
    REPEAT_PAIRS = "repeat pairs"
    UNFOLD_PAIRS = "unfold pairs"

    def seen(self, frames: int, keeps_first: bool) -> int:
        """Frames that the convolution sees of a store with `frames`."""
        if self is TimeMap.POOL_PAIRS:
            return pooled_frames(frames, keeps_first)
        return repeated_frames(frames, keeps_first) if self is TimeMap.REPEAT_PAIRS else frames

    def source(self, seen: Interval, keeps_first: bool) -> Interval:
        """The frames of the store that the frames `seen` are made of."""
        if self is TimeMap.POOL_PAIRS:
            return Interval(max(2 * seen.start - keeps_first, 0), 2 * seen.stop - keeps_first)
        return shown_cells(seen, keeps_first) if self is TimeMap.REPEAT_PAIRS else seen

    def made(self, seen: Interval, keeps_first: bool) -> Interval:
        """The frames that the convolution makes where it has seen the newest frames `seen`."""
        if self is not TimeMap.UNFOLD_PAIRS:
            return seen
        return Interval(max(2 * seen.start - keeps_first, 0), 2 * seen.stop - keeps_first)


def shown_cells(frames: Interval, keeps_first: bool) -> Interval:
    """The stored frames that `frames` show, when each is shown twice."""
    return cells_of(frames, 2, keeps_first)


@dataclass(frozen=True, slots=True)
class Conv:
    """Geometry of one convolution. Causal in time: output frame i sees the frames [i - kernel_t +
    1, i].

    kernel_t, kernel: taps in time, and in height and width alike.
    stride: step between outputs, in height and width alike.
    pad: zeros at the picture's edges (before, after), in height and width alike.
    """

    path: str
    in_channels: int
    out_channels: int
    kernel_t: int
    kernel: int
    stride: int
    pad: Halo

    def size(self, seen: int) -> int:
        """Outputs along a side of which the convolution sees `seen` elements."""
        return (seen + self.pad.before + self.pad.after - self.kernel) // self.stride + 1

    def reads(self, cells: Interval) -> Interval:
        """What the outputs `cells` see along a side; it reaches outside the picture at its
        edges.
        """
        start = cells.start * self.stride - self.pad.before
        return Interval(start, start + (cells.size - 1) * self.stride + self.kernel)


@dataclass(frozen=True, slots=True)
class Norm:
    """GroupNorm followed by SiLU; in the decoder modulated by convolutions of the latents in
    between.

    path: module path of the GroupNorm.
    scale_path, shift_path: module paths of the 1x1x1 modulation convolutions, None in an encoder.
    """

    path: str
    channels: int
    groups: int
    eps: float
    scale_path: str | None = None
    shift_path: str | None = None

    @property
    def modulated(self) -> bool:
        """Whether latents scale and shift the normalised values."""
        return self.scale_path is not None


@dataclass(frozen=True, slots=True)
class Residual:
    """What a step adds to its result: a store, through a 1x1x1 convolution where channels change.

    repeated: the store holds unique frames, each of which is added to a pair of results.
    """

    store: int
    shortcut: Conv | None = None
    repeated: bool = False

    def source(self, core: Region, keeps_first: bool) -> Region:
        """The part of the store that is added to the results `core`."""
        return Region(shown_cells(core.t, keeps_first), core.h, core.w) if self.repeated else core


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """A full-extent activation of one chunk.

    channels: how many.
    px: sample pixels for each element, along a side.
    frames: sample frames for each frame of it, the first apart.
    shown: how often each frame counts in statistics, the first apart where it stands alone.
    inside: the store whose first channels it overwrites, None for memory of its own.
    """

    channels: int
    px: int
    frames: int
    shown: int = 1
    inside: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One convolution with its fused read and write.

    Work is cut up in *cells*. A cell is one output, but where a step unfolds time or space it is
    what all outputs made from one place share: a pair of frames, a square of 2x2 elements.

    src, dst: stores read and written.
    upscale: 2 where the convolution sees src by nearest upsampling in height and width, else 1. It
        is computed as one convolution for each of the 2x2 phases, on src itself.
    still: whether there is one frame and no other before or after it, so that all taps in time see
        it and act as their sum (see `rewrites.still_frame`).
    """

    src: int
    dst: int
    mix: Conv
    norm: Norm | None = None
    time_map: TimeMap = TimeMap.SAME
    upscale: int = 1
    residual: Residual | None = None
    still: bool = False

    @property
    def path(self) -> str:
        """Module path, the step's name in plans and errors."""
        return self.mix.path

    @property
    def unfolds(self) -> bool:
        """Whether it makes a pair of frames for each that it sees."""
        return self.time_map is TimeMap.UNFOLD_PAIRS

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
    def phases(self) -> int:
        """Convolutions for each cell."""
        return (2 if self.unfolds else 1) * self.upscale**2

    @property
    def history(self) -> int:
        """Frames kept from chunk to chunk; a kernel of one frame keeps none."""
        return self.taps[0] - 1

    def seen_extent(self, src: Extent, chunk: Chunk) -> Extent:
        """The extent of the convolution's input, after the map of time and before padding."""
        return Extent(self.time_map.seen(src.t, chunk.keeps_first(src.t)), src.h, src.w)

    def cell_extent(self, src: Extent, chunk: Chunk) -> Extent:
        """The extent of all cells."""
        seen = self.seen_extent(src, chunk)
        if self.upscale == 2:
            return seen
        return Extent(seen.t, self.mix.size(seen.h), self.mix.size(seen.w))

    def core(self, cells: Region, src: Extent, chunk: Chunk) -> Region:
        """The outputs that `cells` make."""
        t = self.time_map.made(cells.t, chunk.keeps_first(src.t))
        h, w = (Interval(c.start * self.upscale, c.stop * self.upscale) for c in (cells.h, cells.w))
        return Region(t, h, w)

    def target_extent(self, src: Extent, chunk: Chunk) -> Extent:
        """The extent of dst."""
        return self.core(self.cell_extent(src, chunk).region, src, chunk).extent

    def seen_region(self, cells: Region) -> Region:
        """What `cells` see of the convolution's input; it may reach outside it."""
        t = Interval(cells.t.start - self.history, cells.t.stop)
        if self.upscale == 2:
            return Region(t, _WITH_NEIGHBOURS.around(cells.h), _WITH_NEIGHBOURS.around(cells.w))
        return Region(t, self.mix.reads(cells.h), self.mix.reads(cells.w))

    def source_region(self, cells: Region, src: Extent, chunk: Chunk) -> Region:
        """The part of src that `cells` depend on."""
        seen = self.seen_region(cells).clip(self.seen_extent(src, chunk))
        return Region(self.time_map.source(seen.t, chunk.keeps_first(src.t)), seen.h, seen.w)

    def operations(self, cells: Extent) -> int:
        """Floating point operations of its convolutions for so many cells: two a multiply-add."""
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

    def operations(self, source: Extent, chunk: Chunk) -> int:
        """Floating point operations of one chunk, for a batch of one."""
        extents = self.extents(source, chunk)
        return sum(
            step.operations(step.cell_extent(extents[step.src], chunk)) for step in self.steps
        )

    def last_use(self) -> dict[int, int]:
        """For every store the index of the last step that touches it."""
        return {store: i for i, step in enumerate(self.steps) for store in _touched(step)}


def _touched(step: Step) -> tuple[int, ...]:
    return (step.src, step.dst, *((step.residual.store,) if step.residual else ()))
