"""What is a network, once it is nothing but a straight list of steps of one kind?

Every step does the same:

    read(region of src) -> [normalise -> modulate -> SiLU] -> index map -> conv -> [+ residual] ->
    write core to dst

1. `Program` is plain data: which store each step reads, writes and adds, and the geometry of its
   convolution.
2. `Step.source_region` answers the one question an engine asks: which part of src does this part of
   dst need?
3. `verify` states what a legal program is, and is called wherever one is made.

Weights are not here: a step names the module path that holds them. No tensors, no settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .errors import LoweringError
from .grid import Chunk, pooled_frames, repeated_frames
from .region import Extent, Halo, Interval, Region

SOURCE = 0
"""The store that the caller fills: sample frames for an encoder, latents for a decoder."""


class TimeMap(Enum):
    """How the frames that a convolution sees follow from the frames of its store."""

    SAME = "same"
    POOL_PAIRS = "pool pairs"
    REPEAT_PAIRS = "repeat pairs"

    def frames(self, frames: int, keeps_first: bool) -> int:
        """Frames that the convolution sees."""
        if self is TimeMap.POOL_PAIRS:
            return pooled_frames(frames, keeps_first)
        if self is TimeMap.REPEAT_PAIRS:
            return repeated_frames(frames, keeps_first)
        return frames

    def source(self, seen: Interval, keeps_first: bool) -> Interval:
        """The frames of the store that the frames `seen` are made of."""
        if self is TimeMap.SAME or seen.size == 0:
            return seen
        if self is TimeMap.POOL_PAIRS:
            start = 2 * seen.start - keeps_first
            return Interval(max(start, 0), 2 * seen.stop - keeps_first)
        return Interval((seen.start + keeps_first) // 2, (seen.stop - 1 + keeps_first) // 2 + 1)


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

    @property
    def history(self) -> int:
        """Frames kept from chunk to chunk; a kernel of one frame keeps none."""
        return self.kernel_t - 1

    def size(self, seen: int) -> int:
        """Outputs along a side of which the convolution sees `seen` elements."""
        return (seen + self.pad.before + self.pad.after - self.kernel) // self.stride + 1

    def reads(self, core: Interval) -> Interval:
        """What the outputs `core` see along a side; it reaches outside the picture at its edges."""
        start = core.start * self.stride - self.pad.before
        return Interval(start, start + (core.size - 1) * self.stride + self.kernel)

    def operations(self, out: Extent) -> int:
        """Floating point operations for `out`: two for each multiply-add."""
        return (
            2 * out.voxels * self.in_channels * self.out_channels * self.kernel_t * self.kernel**2
        )


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
    """What a step adds to its result: a store, through a 1x1x1 convolution where channels
    change.
    """

    store: int
    shortcut: Conv | None = None


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """A full-extent activation of one chunk.

    channels: how many.
    px: sample pixels for each element, along a side.
    frames: sample frames for each frame of it, the first apart.
    """

    channels: int
    px: int
    frames: int


@dataclass(frozen=True, slots=True)
class Step:
    """One convolution with its fused read and write.

    src, dst: stores read and written.
    upscale: nearest upsampling of what is read, in height and width alike.
    """

    src: int
    dst: int
    conv: Conv
    norm: Norm | None = None
    time_map: TimeMap = TimeMap.SAME
    upscale: int = 1
    residual: Residual | None = None

    @property
    def path(self) -> str:
        """Module path, the step's name in plans and errors."""
        return self.conv.path

    @property
    def in_place(self) -> bool:
        """Whether the result replaces the very store that is added to it."""
        return self.residual is not None and self.residual.store == self.dst

    def seen_extent(self, src: Extent, chunk: Chunk) -> Extent:
        """The extent of the convolution's input, after the index maps and before padding."""
        frames = self.time_map.frames(src.t, chunk.keeps_first(src.t))
        return Extent(frames, src.h * self.upscale, src.w * self.upscale)

    def target_extent(self, src: Extent, chunk: Chunk) -> Extent:
        """The extent of dst."""
        seen = self.seen_extent(src, chunk)
        return Extent(seen.t, self.conv.size(seen.h), self.conv.size(seen.w))

    def seen_region(self, core: Region) -> Region:
        """What the outputs `core` see of the convolution's input; it may reach outside it."""
        t = Interval(core.t.start - self.conv.history, core.t.stop)
        return Region(t, self.conv.reads(core.h), self.conv.reads(core.w))

    def source_region(self, core: Region, src: Extent, chunk: Chunk) -> Region:
        """The part of src that the outputs `core` depend on."""
        seen = self.seen_region(core).clip(self.seen_extent(src, chunk))
        t = self.time_map.source(seen.t, chunk.keeps_first(src.t))
        return Region(t, self._unscale(seen.h), self._unscale(seen.w))

    def _unscale(self, seen: Interval) -> Interval:
        return Interval(seen.start // self.upscale, -(-seen.stop // self.upscale))

    def operations(self, out: Extent) -> int:
        """Floating point operations of its convolutions for outputs of extent `out`."""
        shortcut = self.residual.shortcut if self.residual else None
        return self.conv.operations(out) + (shortcut.operations(out) if shortcut else 0)


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
        return sum(step.operations(extents[step.dst]) for step in self.steps)

    def last_use(self) -> dict[int, int]:
        """For every store the index of the last step that touches it."""
        return {store: i for i, step in enumerate(self.steps) for store in _touched(step)}


def _touched(step: Step) -> tuple[int, ...]:
    return (step.src, step.dst, *((step.residual.store,) if step.residual else ()))


def _fault(program: Program, step: Step, written: set[int]) -> str | None:
    """The rule that `step` breaks, given the stores written before it; None for a legal step."""
    src, dst = program.stores[step.src], program.stores[step.dst]
    if step.src not in written:
        return f"reads store {step.src} before anything wrote it"
    if step.src == step.dst:
        return "writes the store that it reads with a halo"
    if src.channels != step.conv.in_channels or dst.channels != step.conv.out_channels:
        return f"joins {src.channels} to {dst.channels} channels by {step.conv}"
    if step.norm and step.norm.channels != src.channels:
        return f"normalises {src.channels} channels with a norm of {step.norm.channels}"
    if step.norm and (step.time_map is not TimeMap.SAME or step.upscale != 1):
        return "normalises and maps indices in one read"
    if step.conv.history and step.time_map is not TimeMap.SAME:
        return "keeps history of mapped frames"
    if step.dst in written and not step.in_place:
        return f"overwrites store {step.dst}"
    return _residual_fault(program, step, written)


def _residual_fault(program: Program, step: Step, written: set[int]) -> str | None:
    if step.residual is None:
        return None
    added = program.stores[step.residual.store].channels
    shortcut = step.residual.shortcut
    if step.residual.store not in written:
        return f"adds store {step.residual.store} before anything wrote it"
    if shortcut is None:
        return (
            None
            if added == step.conv.out_channels
            else f"adds {added} channels to {step.conv.out_channels}"
        )
    if (shortcut.in_channels, shortcut.out_channels) != (added, step.conv.out_channels):
        return f"adds {added} channels through {shortcut}"
    return None


def verify(program: Program) -> Program:
    """`program` itself when it is legal; `LoweringError` naming the step and the rule it breaks
    otherwise.
    """
    written = {SOURCE}
    for step in program.steps:
        fault = _fault(program, step, written)
        if fault:
            raise LoweringError(f"{program.name}: step {step.path} {fault}.")
        written.add(step.dst)
    if written != set(range(len(program.stores))):
        raise LoweringError(
            f"{program.name}: some of its {len(program.stores)} stores are never written."
        )
    return program
