"""What do the tiles of a step have in common, and what does each of them read?"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..geometry.grid import Chunk
from ..geometry.region import Extent, Region
from ..program.parts import Attend
from ..program.shares import rows_read
from ..program.steps import SOURCE, Step
from . import kernels
from .framewise import Gathered
from .phases import Phase
from .split import Store
from .transfers import Arrival
from .windows import Place, Window


@dataclass(slots=True)
class Pass:
    """One chunk on its way through the program.

    index: of the chunk. extents: of every store; where there are bands, of the whole clip.
    stores: the live activations, by store index; the caller's own tensors at both ends. A video
        may be smaller than its extent: its last elements stand for those that are missing.
    moments: statistics of the stores that a later step normalises.
    """

    chunk: Chunk
    index: int
    extents: tuple[Extent, ...]
    stores: dict[int, Store] = field(default_factory=dict[int, Store])
    moments: dict[int, Gathered] = field(default_factory=dict[int, "Gathered"])

    def src(self, step: Step) -> Extent:
        """The extent of the store that a step reads."""
        return self.extents[step.src]

    def held(self, store: int) -> Extent:
        """The extent of what there is of a store."""
        return self.chunk.held(store, self.extents[store])

    @property
    def kind(self) -> tuple[Extent, bool]:
        """What decides the geometry of all of its steps."""
        return self.extents[SOURCE], self.chunk.first

    def keeps_first(self, store: int) -> bool:
        """Whether the first frame of a store stands alone."""
        return self.chunk.keeps_first(self.extents[store].t)

    @property
    def source(self) -> Tensor:
        """The caller's tensor that goes in."""
        source = self.stores[SOURCE]
        assert isinstance(source, Tensor)
        return source

    def target(self, step: Step, place: Place) -> Tensor:
        """Where a step writes."""
        found = self.stores[step.dst][place]
        assert isinstance(found, Tensor)  # its tiles are cut where rows change sides
        return found

    def whole(self, store: int) -> Tensor:
        """A store that lies in one place."""
        found = self.stores[store]
        assert isinstance(found, Tensor)
        return found

    def view(self, where: Region) -> Tensor:
        """What there is of the elements `where` of the source: the last ones where all of them are
        missing.
        """
        x, where = self.source, self.chunk.here(SOURCE, where)
        sizes = zip((where.t, where.h, where.w), x.shape[2:], strict=True)
        return x[(..., *(slice(min(side.start, n - 1), min(side.stop, n)) for side, n in sizes))]

    def cache_shape(self, step: Step) -> tuple[int, ...]:
        """Of the causal cache of a step: [b, c, history, rows that it reads, w]."""
        src = self.src(step)
        rows = rows_read(step, src, self.chunk).size
        return self.shape(step.mix.in_channels, Extent(step.history, rows, src.w))

    def shape(self, channels: int, extent: Extent) -> tuple[int, ...]:
        """[b, channels, *extent]."""
        return (self.source.shape[0], channels, extent.t, extent.h, extent.w)


@dataclass(slots=True)
class Task:
    """One step of one pass, with everything that its tiles share.

    phases: the convolutions of each cell. shortcut: weight and bias of the residual's own.
    maps: weights and biases of the two modulation convolutions, or of both together; None where it
        has none.
    norm: the affine map of src's finished statistics, or what every voxel goes through by itself;
        None where it normalises nothing.
    groups: groups of channels over which dst's moments are wanted, None where nobody wants them.
    by_frame: whether they are wanted of every frame by itself.
    old_cache, new_cache: [b, c, history, h, w]; None without history, at a clip's start, or its
        end.
    first: what makes the first frame where that is another step, see `Step.runs`.
    keys: keys and values [b, 2c, frames, h, w] of the chunks before, oldest first, or of all chunks
        where queries look ahead; none where they stay within their frame. new_keys: those of this
        one, to be kept; None at a clip's end.
    windows: of the tiles that there have been, in this pass and in others of its kind.
    src: the extent of src. keeps_first: whether its first frame stands alone.
    cell_operations: floating point operations for each cell, of all clips.
    """

    step: Step
    at: Pass
    phases: tuple[Phase, ...]
    shortcut: kernels.Kernel | None
    maps: tuple[kernels.Kernel, ...] | None
    norm: kernels.Affine | kernels.FrameAffine | kernels.VoxelNorm | None
    groups: int | None
    by_frame: bool
    old_cache: Tensor | None = None
    new_cache: Tensor | None = None
    first: Task | None = None
    keys: tuple[Tensor, ...] = ()
    new_keys: Tensor | None = None
    windows: dict[Region, Window] = field(default_factory=dict[Region, Window])
    src: Extent = field(init=False)
    keeps_first: bool = field(init=False)
    cell_operations: int = field(init=False)

    def __post_init__(self) -> None:
        self.src = self.at.extents[self.step.src]
        self.keeps_first = self.at.keeps_first(self.step.src)
        clips = self.at.source.shape[0]
        self.cell_operations = clips * self.step.operations(_ONE, self.src)
        if isinstance(self.step.mix, Attend):
            mix, others = self.step.mix, sum(keys.shape[2] for keys in self.keys)
            others -= self.src.t * mix.looks_ahead  # whose keys are those of all chunks
            met = others * mix.voxels_met(self.src)
            self.cell_operations += clips * 4 * met * mix.channels

    def keep_in(self, cache: Tensor) -> None:
        """Let the newest frames go to `cache`, whichever step makes them."""
        self.new_cache = cache
        if self.first:
            self.first.new_cache = cache

    def of(self, cells: Region) -> Task:
        """The task that makes `cells`, which are all of a first frame, or all of others."""
        return self.first if self.first and cells.t.start == 0 else self


_ONE = Extent(1, 1, 1)


@dataclass(slots=True)
class Inputs:
    """What a tile reads, on its way.

    task: what makes it. latents: for the maps of a modulated norm. past: of the causal cache.
    """

    task: Task
    window: Window
    src: Arrival
    added: Arrival | None
    latents: Arrival | None
    past: Arrival | None
