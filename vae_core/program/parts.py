"""What is a step put together from: which mix, which norm, which change of the rate of frames?

The closed set of words that a family's file may use. Each answers for its own geometry (how many
outputs, which inputs), and none knows of stores, chunks or tensors. `steps` joins them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..geometry.grid import cells_of, pooled_frames, repeated_frames
from ..geometry.region import Extent, Halo, Interval
from .layouts import Fold, Packing, Shuffle
from .norms import Form as Form
from .norms import Norm as Norm
from .norms import Runs as Runs
from .norms import Scope as Scope
from .norms import Timestep as Timestep


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


def unfolded(cells: Interval, ratio: int, keeps_first: bool) -> Interval:
    """The frames that `cells` show when each lasts for `ratio` of them, the first for one where it
    is kept.
    """
    offset = (ratio - 1) * keeps_first
    return Interval(max(ratio * cells.start - offset, 0), ratio * cells.stop - offset)


def shown_cells(frames: Interval, keeps_first: bool) -> Interval:
    """The stored frames that `frames` show, when each is shown twice."""
    return cells_of(frames, 2, keeps_first)


class Start(Enum):
    """What a convolution sees before a clip's first frame: that frame again, or zeros."""

    FIRST = "its first frame"
    ZEROS = "zeros"


class Edge(Enum):
    """What a convolution sees beyond the picture: zeros, what lies outermost again, or what lies
    within in mirror order, the outermost left out. It is what has been normalised and activated
    that is repeated.
    """

    ZEROS = "zeros"
    REPLICATE = "what lies outermost"
    REFLECT = "what lies within"


class First(Enum):
    """What becomes of a clip's first frame where a step changes the rate of frames.

    `SEEN`: it goes through the mix, and stands alone as a cell. `BYPASS`: it is copied past it, and
    later frames see it. `APART`: it is copied past it, and later frames see what lies before a clip
    in its place. `PICTURE`: it goes through the mix by itself, as if time were not changed: squares
    alone lie in the channels. Of more channels than there is room for the first ones count, and
    fewer are repeated.
    """

    SEEN = "seen"
    BYPASS = "bypass"
    APART = "apart"
    PICTURE = "picture"

    @property
    def copied(self) -> bool:
        """Whether it is copied past the mix."""
        return self in (First.BYPASS, First.APART)


@dataclass(frozen=True, slots=True)
class Rate:
    """How many frames go in and come out of a mix, a clip's first frame apart.

    up: frames made of each one that is seen, each by its own run of the weight's rows.
    down: frames from one output to the next. first: see `First`.
    """

    up: int = 1
    down: int = 1
    first: First = First.SEEN


STEADY = Rate()
"""As many frames out as in."""

PICTURE = Rate(first=First.PICTURE)
"""The same, of a step that is left with a clip's first frame alone."""


@dataclass(frozen=True, slots=True)
class Waves:
    """Sines and cosines that stand beside each value: of 2 pi 2**power times it, for the powers
    [start, stop). All values come first, then the sines of each, then its cosines.
    """

    start: int
    stop: int

    @property
    def channels(self) -> int:
        """Made of each one."""
        return 1 + 2 * (self.stop - self.start)


@dataclass(frozen=True, slots=True)
class Conv:
    """Geometry of one convolution. Causal in time: output frame i sees the frames [i - kernel_t +
    1, i], all of them `ahead` further on where it looks ahead.

    kernel_t, kernel: taps in time, and in height and width alike.
    stride: step between outputs, in height and width alike.
    pad: elements beyond the picture's edges (before, after), in height and width alike.
    start, edge: what it sees before the clip, and beyond the picture.
    sees_px, makes_px: elements along a side of the squares whose values its module has side by side
        in the channels that it reads, or makes. Channels, kernel, stride and pad are those of
        single elements all the same.
    packing: of those values: channel by channel they are laid column by column, place by place in
        time, height and width.
    fold: what it stands for where there is no module with weights.
    shuffle: where the results of a place lie otherwise than as `makes_px` says.
    beside: module paths of more convolutions of the same input, whose channels follow its own.
    ahead: frames by which it looks ahead; the clip's last frame goes on after it.
    in_blocks: whether all that its module makes of a place, frames too, lies side by side in the
        channels, each channel's own in time, height and width.
    repeats: how often its module's last channel is shown beside the first time.
    statistics: path of what its results are normalised by, None for nothing.
    late: frames by which it sees earlier ones than its module: so many taps of zeros, counted in
        kernel_t, come after the module's own.
    waves: what is made of each value that is read, in channels of its own; None for nothing.
    """

    path: str
    in_channels: int
    out_channels: int
    kernel_t: int
    kernel: int
    stride: int
    pad: Halo
    start: Start = Start.FIRST
    sees_px: int = 1
    makes_px: int = 1
    fold: Fold | None = None
    edge: Edge = Edge.ZEROS
    packing: Packing = Packing.CHANNELS
    shuffle: Shuffle | None = None
    beside: tuple[str, ...] = ()
    ahead: int = 0
    in_blocks: bool = False
    repeats: int = 0
    statistics: str | None = None
    late: int = 0
    waves: Waves | None = None

    @property
    def stored_channels(self) -> int:
        """Channels of the store that it reads."""
        return self.in_channels // (self.waves.channels if self.waves else 1)

    @property
    def read_channels(self) -> int:
        """Channels of the store that a tile reads where its cells lie."""
        return self.stored_channels

    def size(self, seen: int) -> int:
        """Outputs along a side of which the convolution sees `seen` elements."""
        return (seen + self.pad.before + self.pad.after - self.kernel) // self.stride + 1

    def reads(self, cells: Interval) -> Interval:
        """What the outputs `cells` see along a side; it reaches outside the picture at its
        edges.
        """
        start = cells.start * self.stride - self.pad.before
        return Interval(start, start + (cells.size - 1) * self.stride + self.kernel)


class Keys(Enum):
    """Whose keys a query meets: those of its own frame, of all frames before it, too, or of all
    frames there are.
    """

    FRAME = "its frame"
    EARLIER = "its frame and earlier ones"
    ALL = "all frames"


@dataclass(frozen=True, slots=True)
class Attend:
    """Attention among voxels. It has no weights: its store holds queries, keys and values,
    `channels` of each, side by side.

    A tile of queries meets the keys of whole frames, a block of rows after the other, or in a
    `column` those at its own place alone, a block of frames after the other. Those of frames before
    the chunk are kept for it, all of them. In a column all keys are those of a chunk, which is the
    whole clip then.

    heads: runs of channels that attend each by themselves. least: queries and keys are divided by
    their length, or by this where that is less; None where they are not.
    """

    path: str
    channels: int
    keys: Keys = Keys.FRAME
    column: bool = False
    heads: int = 1
    least: float | None = None

    @property
    def frames_met(self) -> int:
        """Frames of keys in a block, in a column."""
        return 8

    @property
    def looks_back(self) -> bool:
        """Whether queries meet keys of frames before the chunk, and of none after it."""
        return self.keys is Keys.EARLIER

    @property
    def looks_ahead(self) -> bool:
        """Whether queries meet keys of frames after the chunk, too."""
        return self.keys is Keys.ALL and not self.column

    @property
    def looks_outward(self) -> bool:
        """Whether queries meet keys of other chunks."""
        return self.looks_back or self.looks_ahead

    @property
    def of_clip(self) -> bool:
        """Whether queries meet keys of all frames in their own chunk."""
        return self.keys is Keys.ALL and self.column

    def voxels_met(self, frame: Extent) -> int:
        """How many voxels of a frame of keys a query meets."""
        return 1 if self.column else frame.h * frame.w

    def meetings(self, frames: int, before: int = 0, after: int = 0) -> int:
        """How often a frame of queries meets a frame of keys, in a chunk of `frames` that has so
        many frames before and after it. In a column those that are hidden are met, too.
        """
        if self.keys is Keys.ALL:
            return frames * (before + frames + after)
        if self.column:
            return frames * (before + frames)
        return frames * (2 * before + frames + 1) // 2 if self.looks_back else frames

    def seen(self, frame: int) -> Interval:
        """The frames of its chunk whose keys the queries of one meet, where they look no further
        ahead.
        """
        return Interval(0 if self.looks_back else frame, frame + 1)

    @property
    def in_channels(self) -> int:
        """Channels of the store that it reads."""
        return 3 * self.channels

    @property
    def stored_channels(self) -> int:
        """The same."""
        return self.in_channels

    @property
    def out_channels(self) -> int:
        """Channels of its result."""
        return self.channels

    @property
    def read_channels(self) -> int:
        """Channels of the store that a tile reads where its cells lie: the queries."""
        return self.channels

    kernel_t = kernel = stride = sees_px = makes_px = 1
    pad = Halo(0, 0)
    start = Start.ZEROS
    edge = Edge.ZEROS
    fold = statistics = waves = None
    shuffle = None
    ahead = repeats = late = 0
    in_blocks = False

    @staticmethod
    def size(seen: int) -> int:
        """Outputs along a side: one for each query."""
        return seen

    @staticmethod
    def reads(cells: Interval) -> Interval:
        """Queries along a side."""
        return cells

    @staticmethod
    def key_rows(queries: Extent, frame: Extent) -> int:
        """Rows of keys in a block, for a tile of so many queries: about as many keys as queries."""
        return min(max(queries.h * queries.w // frame.w, 1), frame.h)
