"""What may a caller choose, and which combinations are legal?

`Settings` is one frozen value, checked once when it is made; afterwards every module may rely on
it. Defaults suit a clip on an ordinary graphics card. Nothing here touches a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import index
from typing import Any, SupportsIndex, TypeVar, cast

from .errors import SettingsError

CHUNK_STEP_FRAMES = 4
"""chunk_frames counts in these: the sample frames of a latent frame of most families."""

SMALLEST_TILE_PX = 16


class Tiling(Enum):
    """How the picture is cut up: `EXACT` tiles never change the result, `OFF` computes whole
    pictures.
    """

    EXACT = "exact"
    BLEND = "blend"
    OFF = "off"


class BlendOrder(Enum):
    """How overlapping tiles are put together where tiling is `BLEND`.

    `NORMALISED`: every tile is weighted by its ramps and the sum divided by the weights.
    `REFERENCE`: diffusers' sequence, each tile faded into its upper and left neighbours in turn.
    """

    NORMALISED = "normalised"
    REFERENCE = "reference"


class Placement(Enum):
    """Where activations live: all on the device, or more and more of them in host memory.

    `AUTO`: the fastest that fits the budget. `CACHES_ON_HOST`: what outlasts a chunk is there; as
    `HOST` where a clip is one chunk. `MMAP`: as `HOST`, the stores in a temporary file.
    """

    AUTO = "auto"
    DEVICE = "device"
    CACHES_ON_HOST = "caches-on-host"
    HOST = "host"
    MMAP = "mmap"


class Place(Enum):
    """Where a single store or cache lives; `DISK` is a temporary file mapped into memory."""

    DEVICE = "device"
    HOST = "host"
    DISK = "disk"


class Layout(Enum):
    """Where chunks begin and how many frames come out.

    `ALIGNED`: n latent frames <-> 4(n-1)+1 sample frames for every n. `DIFFUSERS`: that project's
    boundaries and counts, in which the parity of a chunk decides (autoencoder_kl_cogvideox.py,
    `_encode` and `_decode`).
    """

    ALIGNED = "aligned"
    DIFFUSERS = "diffusers"


class NormScope(Enum):
    """The voxels that GroupNorm statistics are taken over: one chunk at full picture size, or the
    whole clip.
    """

    CHUNK = "chunk"
    CLIP = "clip"


class Reference(Enum):
    """Whose result is meant where implementations of a network differ.

    `OFFICIAL`: its authors', and diffusers'. `CORE`: that of ComfyUI's own class, untiled. They
    differ in HunyuanVideo and where Mochi encodes: the latter's attention sees later frames, too,
    and in HunyuanVideo 1.0 statistics are of a few frames at a time. `CORE_AS_IS`: the same, but
    with 1.0's encoder out of phase, as that class has it.
    """

    OFFICIAL = "official"
    CORE = "core"
    CORE_AS_IS = "core-as-is"


class Given(Enum):
    """What each of several ranks is given of a result.

    `FIRST`: rank 0 all of it, the others none of its rows. `BANDS`: each the rows that it made.
    `ALL`: each all of it.
    """

    FIRST = "first"
    BANDS = "bands"
    ALL = "all"


class Fit(Enum):
    """What to do with sizes that the network cannot take: `PAD` by replication, `CROP`, or refuse
    with an `ERROR`.
    """

    PAD = "pad"
    CROP = "crop"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come.

    done_operations, total_operations: floating point operations of the convolutions; the ratio is
        true to the work. The total is 0 when a stream does not know it yet.
    chunk_index, chunks: the chunk under way (0-based) and how many there are, 0 when a stream does
        not know yet.
    path: module path of the step that has just finished a tile.
    """

    done_operations: int
    total_operations: int
    chunk_index: int
    chunks: int
    path: str


EnumType = TypeVar("EnumType", bound=Enum)


def _choice(kind: type[EnumType], name: str, value: object) -> EnumType:
    """The member of `kind` that `value` is or names; `SettingsError` otherwise."""
    try:
        return kind(value)
    except ValueError:
        names = ", ".join(repr(member.value) for member in kind)
        raise SettingsError(f"{name} must be one of {names}; got {value!r}.") from None


def _integer(name: str, value: object, at_least: int) -> int:
    """`value`, of whatever kind of integer, as an int of at least `at_least`; `SettingsError`
    otherwise.
    """
    number = as_integer(value)
    if number is None:
        raise SettingsError(f"{name} must be a whole number; got {value!r}.")
    if number < at_least:
        raise SettingsError(f"{name} must be at least {at_least}; got {number}.")
    return number


def as_integer(value: object) -> int | None:
    """`value` as an int if it is an integer, Python's or numpy's; None for truth values too."""
    if isinstance(value, bool):
        return None
    try:
        return index(cast("SupportsIndex", value))
    except TypeError:
        return None


def check_settings(settings: object) -> None:
    """`SettingsError` for what is no `Settings`."""
    if not isinstance(settings, Settings):
        raise SettingsError(
            f"settings must be a vae_core.Settings; got {type(settings).__name__}. Write"
            " Settings(chunk_frames=8), Settings(**values), or leave it out."
        )


def _chunk(value: object) -> int:
    frames = _integer("chunk_frames", value, 1)
    step = CHUNK_STEP_FRAMES
    if frames % step:
        below = max(step, frames // step * step)
        raise SettingsError(
            f"chunk_frames must be a multiple of {step}, whatever the family; got {frames}. Use"
            f" {below} or {below + step}."
        )
    return frames


def _is_count(value: object) -> bool:
    """Whether it is a number of ranks; `SettingsError` for one below 1, or of more than there are
    rows in any picture.
    """
    if as_integer(value) is None:
        return False
    if _integer("parallel", value, 1) > _MOST_RANKS:
        raise SettingsError(f"parallel must be at most {_MOST_RANKS:,} ranks; got {value!r}.")
    return True


def _device_names(devices: Sequence[object]) -> tuple[str, ...]:
    """The names of devices that share a run; `SettingsError` where they cannot be any."""
    names = tuple(str(device) for device in devices)
    if len(names) < 2:
        raise SettingsError(
            "a run is shared by two devices or more, and on one it needs no parallel; got"
            f" {', '.join(names) or 'none'}. Name another one beside it, or leave parallel out."
        )
    twice = next((name for name in names if names.count(name) > 1 and name != "cpu"), None)
    if twice:
        raise SettingsError(
            f"each device has one part of a shared run; got {twice} twice in {', '.join(names)}."
            " Name it once."
        )
    return names


def _pair(name: str, value: object, at_least: int) -> tuple[int, int]:
    """`value`, one number or two, as (height, width); `SettingsError` otherwise."""
    sides = cast("tuple[object, ...]", value) if isinstance(value, tuple | list) else (value, value)
    if len(sides) != 2:
        raise SettingsError(
            f"{name} must be a number of pixels or a pair (height, width); got {value!r}."
        )
    height, width = (_integer(name, side, at_least) for side in sides)
    return height, width


@dataclass(frozen=True, slots=True)
class Settings:
    """Every choice that a caller has; strings are accepted where an enum is named.

    chunk_frames: sample frames pushed through together, a multiple of 4, for encode and decode
        alike: as many latent frames as they make whole, but at least one.
    tiling: see `Tiling`.
    tile_px: the largest tile, in sample pixels, as one number or (height, width); None leaves it to
        the planner (where tiles are blended, it means 256).
    overlap_px: sample pixels that neighbouring tiles share, as one number or (height, width); used
        only where tiling is `BLEND`, exact tiles have none.
    blend_order: see `BlendOrder`.
    norm_scope: the voxels over which GroupNorm statistics are taken, see `NormScope`.
    layout: see `Layout`.
    size_fit: for heights and widths that are no multiple of 8, see `Fit`.
    frame_fit: for frame counts that are not 4(n-1)+1, see `Fit`; the diffusers layout takes any
        count.
    budget_bytes: bound on what activations and workspace take on the device; None for no bound.
    placement: see `Placement`.
    on_progress: called with a `Progress` after every tile. What it raises ends the run within that
        tile.
    reference: see `Reference`. Where it is core's and means something, all chunks go through a part
        of the network before any result is there.
    parallel: who does the work together. A group of `torch.distributed`, in which each process has
        these settings and the same clip; or the names of two or more devices of this process, the
        VAE's own among them, which are given the result as one is. A number of ranks will do for
        plans. Never saved.
    parallel_result: see `Given`.
    parallel_timeout_s: how many seconds a rank may take for a step before the others give up.

    Raises `SettingsError` with the rule, the value and a remedy.
    """

    chunk_frames: int = 8
    tiling: Tiling | str = Tiling.EXACT
    tile_px: int | tuple[int, int] | None = None
    overlap_px: int | tuple[int, int] = 64
    blend_order: BlendOrder | str = BlendOrder.NORMALISED
    norm_scope: NormScope | str = NormScope.CHUNK
    layout: Layout | str = Layout.ALIGNED
    size_fit: Fit | str = Fit.PAD
    frame_fit: Fit | str = Fit.PAD
    budget_bytes: int | None = None
    placement: Placement | str = Placement.AUTO
    on_progress: Callable[[Progress], Any] | None = None
    reference: Reference | str = Reference.OFFICIAL
    parallel: Any = None
    parallel_result: Given | str = Given.FIRST
    parallel_timeout_s: float = 300.0

    def __post_init__(self) -> None:
        put = object.__setattr__  # the one moment in which a frozen value may be written
        put(self, "chunk_frames", _chunk(self.chunk_frames))
        for name, kind in _ENUM_FIELDS.items():
            put(self, name, _choice(kind, name, getattr(self, name)))
        if self.tile_px is not None:
            put(self, "tile_px", _pair("tile_px", self.tile_px, SMALLEST_TILE_PX))
        put(self, "overlap_px", _pair("overlap_px", self.overlap_px, at_least=0))
        if self.budget_bytes is not None:
            put(self, "budget_bytes", _integer("budget_bytes", self.budget_bytes, 1))
        if self.on_progress is not None and not callable(self.on_progress):
            raise SettingsError(f"on_progress must be callable; got {self.on_progress!r}.")

        self._check_parallel()

    def _check_parallel(self) -> None:
        group, seconds = self.parallel, self.parallel_timeout_s
        if isinstance(group, list | tuple):
            object.__setattr__(self, "parallel", _device_names(cast("Sequence[object]", group)))
        elif not (group is None or _is_count(group) or callable(getattr(group, "size", None))):
            raise SettingsError(
                "parallel must be a group of torch.distributed, names of devices, a number of ranks"
                f" to plan for, or None; got {group!r}."
            )
        number = cast("object", seconds)
        known = isinstance(number, int | float) and not isinstance(number, bool)
        if not (known and 0 < seconds <= _LONGEST_S):
            raise SettingsError(
                "parallel_timeout_s must be a number of seconds above 0, at most"
                f" {_LONGEST_S:,}; got {seconds!r}."
            )
        if self.ranks > 1 and self.tiling is Tiling.BLEND:
            raise SettingsError(
                "blended tiles cannot be shared, since each is a clip by itself; use exact tiles,"
                " or let one device do the work."
            )

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices of this process that do the work together; none where there is a group."""
        named: Any = self.parallel
        return cast("tuple[str, ...]", named) if isinstance(named, tuple) else ()

    @property
    def ranks(self) -> int:
        """How many do the work together."""
        if self.parallel is None or self.devices:
            return max(len(self.devices), 1)
        number = as_integer(self.parallel)
        return self.parallel.size() if number is None else number

    @property
    def rank(self) -> int:
        """Its own number among those, from 0 on."""
        group: Any = self.parallel
        if group is None or self.devices or as_integer(group) is not None:
            return 0
        return group.rank()

    @property
    def chunk_latent_frames(self) -> int:
        """Latent frames that a full chunk holds, where each stands for `CHUNK_STEP_FRAMES`."""
        return self.chunk_frames // CHUNK_STEP_FRAMES


_MOST_RANKS = 16_384

_LONGEST_S = 10_000_000
"""Four months; systems count no longer than so many years."""

_ENUM_FIELDS: dict[str, type[Enum]] = {
    "tiling": Tiling,
    "norm_scope": NormScope,
    "layout": Layout,
    "size_fit": Fit,
    "frame_fit": Fit,
    "blend_order": BlendOrder,
    "placement": Placement,
    "reference": Reference,
    "parallel_result": Given,
}
