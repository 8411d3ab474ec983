"""What is a voxel divided by, and whose statistics are that? The words for it among `parts`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Form(Enum):
    """Which statistics a norm divides by.

    `GROUP`: mean and variance of groups of channels over a `Scope`. `L2`: the length of each
    voxel's own channels, times sqrt(channels). `RMS`: the root of the mean of their squares,
    without parameters. `LAYER`: their deviation, once their mean is taken away. `NONE`: nothing;
    all that is done is to undo how latents were normalised, where the norm has a path.
    """

    GROUP = "group"
    L2 = "l2"
    RMS = "rms"
    LAYER = "layer"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Timestep:
    """How much noise a decoder is told that latents have, as one scale and shift for each channel.

    value: what is told, times what the module `scaled_by` has for it.
    embedder: module path of what makes numbers for each channel of it.
    owner, table: module path, and the name there, of the numbers that are added to those.
    rows: which of them are the shift and the scale.
    """

    value: float
    scaled_by: str
    embedder: str
    owner: str
    table: str
    rows: tuple[int, int]


class Scope(Enum):
    """Whose statistics: a frame's; those of a run of frames (see `Runs`); a chunk's or a clip's by
    `NormScope`; a clip's always.
    """

    FRAME = "frame"
    RUN = "run"
    CHUNK = "chunk"
    CLIP = "clip"


@dataclass(frozen=True, slots=True)
class Runs:
    """A clip's frames in runs: first that many of them, then so many at a time, the last of which
    may be fewer.

    first, frames: at least 1.
    """

    first: int
    frames: int

    def of(self, count: int) -> tuple[range, ...]:
        """The frames of each run in a clip of `count`."""
        starts = (0, *range(self.first, count, self.frames))
        return tuple(map(range, starts, (*starts[1:], count)))


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm, followed by SiLU where it is `activated`; in some decoders modulated by convolutions
    of the latents in between.

    path: module path of the norm. groups: of channels; 1 where a voxel is all that counts.
    eps: added to a variance or a mean of squares, or the least length that is divided by.
    scale_path, shift_path: module paths of the 1x1x1 modulation convolutions, None without.
    timestep: what scales and shifts voxels in place of parameters; see there.
    runs: of frames over which some implementation takes its statistics; they count where the scope
        says so.
    """

    path: str
    channels: int
    groups: int
    eps: float
    scale_path: str | None = None
    shift_path: str | None = None
    form: Form = Form.GROUP
    activated: bool = True
    scope: Scope = Scope.CHUNK
    timestep: Timestep | None = None
    runs: Runs | None = None

    @property
    def per_voxel(self) -> bool:
        """Whether no voxel's result depends on another: there are no statistics to gather."""
        return self.form is not Form.GROUP

    @property
    def per_frame(self) -> bool:
        """Whether statistics are gathered of every frame by itself."""
        return not self.per_voxel and self.scope in (Scope.FRAME, Scope.RUN)

    @property
    def together(self) -> Runs | None:
        """The frames that have statistics in common, where it is not each one or all of them."""
        return self.runs if self.scope is Scope.RUN else None

    @property
    def modulated(self) -> bool:
        """Whether latents scale and shift the normalised values."""
        return self.scale_path is not None
