"""What has been decided for one run, as plain data that a person and a program can read?

A `Plan` is made by `planner.make_plan` and followed by `execute.Execution`; it decides nothing and
runs nothing itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import counted
from ..geometry.blend import BlendGeometry
from ..geometry.grid import Chunk, count_tiles
from ..geometry.region import Extent, Interval
from ..program.bands import largest_band
from ..program.known import cells_of
from ..program.rewrites import referred
from ..program.shares import rows_given
from ..program.steps import Program
from ..settings import Place, Placement, Reference, Settings
from .levels import Level, levels_of
from .machine import Machine
from .places import Kind, Places, Way, cache_paths, kind_of
from .projection import Projection, Traffic
from .rates import USUAL, Rates
from .routes import Libraries

_GIB = 2**30


def size_text(size_bytes: int, rounding: Callable[[float], int] = round) -> str:
    """A number of bytes for a person: GiB, or MiB below a tenth of one.

    rounding: `ceil` for what must not be too little when it is followed, `floor` for what is there.
    """
    if size_bytes / _GIB >= 0.1:
        return f"{rounding(size_bytes / _GIB * 100) / 100:.2f} GiB"
    return f"{rounding(size_bytes / 2**20 * 10) / 10:.1f} MiB"


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be run, apart from how.

    program: encoder or decoder.
    batch: clips side by side.
    source: extent of what goes in.
    element_bytes: of the dtype that is computed in.
    far_weights: whether weights are copied to the device, or to that dtype, when a step runs.
    """

    program: Program
    batch: int
    source: Extent
    element_bytes: int
    far_weights: bool = False


def chunk_extent(job: Job, chunk: Chunk) -> Extent:
    """The extent of a chunk's source; of the whole clip's for a band of it."""
    frames = job.source.t if chunk.band else chunk.source.size
    return Extent(frames, job.source.h, job.source.w)


@dataclass(frozen=True, slots=True)
class Plan:
    """How one clip will be run.

    chunks: in order. tiles: for each step its largest tile in the largest chunk, in its cells.
    placement: the name of where stores and caches live, the frugal one of those that they lie
        between; never `AUTO`.
    operations: floating point operations of all chunks and crops, batch included.
    rows: projected bytes while each step of the largest chunk of the largest crop runs.
    blend: the crops that go through the whole network one by one; None where the picture does.
    libraries: of the device that it is for; None for a processor that was asked for.
    ways: where each store and cache lives in chunks of each kind, and the tiles there.
    traffic: what is copied in each chunk.
    machine: what it was made for.
    kept_bytes: of weights that are made ready once and kept from chunk to chunk; 0 where each chunk
        makes them ready anew.
    others: of the other devices of this process that do a part of the work, in their order.
    """

    job: Job
    settings: Settings
    chunks: tuple[Chunk, ...]
    tiles: tuple[Extent, ...]
    placement: Placement
    operations: int
    rows: tuple[Projection, ...]
    blend: BlendGeometry | None = None
    libraries: Libraries | None = None
    ways: Mapping[Kind, Way] = field(default_factory=dict[Kind, Way])
    traffic: tuple[Traffic, ...] = ()
    machine: Machine | None = None
    kept_bytes: int = 0
    others: tuple[Plan, ...] = ()

    @property
    def crops(self) -> tuple[Job, ...]:
        """What goes through the whole network by itself: the job, or one for each blended tile."""
        if self.blend is None:
            return (self.job,)
        extents = (tile.source.extent for tile in self.blend.tiles())
        return tuple(replace(self.job, source=extent) for extent in extents)

    def work(self) -> list[tuple[Job, Chunk, int]]:
        """Every kind of crop with every kind of chunk, and how often they meet.

        Crops are of a kind where they are of a size, chunks where they have as many frames and both
        begin the clip or neither does, and bands each by itself.
        """
        crops = Counter(crop.source for crop in self.crops)
        kinds = Counter((chunk.source.size, chunk.first, chunk.band) for chunk in self.chunks)
        chunks = {(chunk.source.size, chunk.first, chunk.band): chunk for chunk in self.chunks}
        return [
            (replace(self.job, source=source), chunks[kind], times * count)
            for source, times in crops.items()
            for kind, count in kinds.items()
        ]

    def for_crop(self, extent: Extent) -> Plan:
        """The same plan for one crop of the picture; tiles are bounds, and so hold for it too."""
        return replace(self, job=replace(self.job, source=extent), blend=None)

    @property
    def result_rows(self) -> Interval:
        """The rows of the result that are given here: all, but for some ranks among several."""
        return rows_given(self.job.program, self.job.source.h, self.settings)

    @property
    def keys_at(self) -> Place:
        """Where keys and values live that later chunks look back at: they grow with the clip."""
        return Place.DISK if self.placement is Placement.MMAP else Place.HOST

    @property
    def reference(self) -> str:
        """Whose result it gives, where implementations differ: a value of `settings.Reference`, or
        diffusers', which no setting asks for.
        """
        meant = referred(self.job.program)
        lone = meant is Reference.OFFICIAL and self.job.program.leads
        return "diffusers" if lone else meant.value

    @property
    def worst(self) -> Projection:
        """The step that needs the most."""
        return max(self.rows, key=lambda row: row.peak_bytes)

    @property
    def peak_bytes(self) -> int:
        """Projected peak on the device, weights, input and result apart."""
        return self.worst.peak_bytes

    @property
    def far_bytes(self) -> int:
        """Projected peak of stores and caches away from the device."""
        return max(row.far_bytes for row in self.rows)

    @property
    def moved_bytes(self) -> int:
        """Bytes copied to and from the device in all chunks; of one crop, where there are more."""
        return sum(chunk.moved_bytes for chunk in self.traffic)

    @property
    def copied_bytes(self) -> int:
        """Of those, what the processor copies too, on its way to or from the device."""
        return sum(chunk.copied_bytes for chunk in self.traffic)

    @property
    def cost_bytes(self) -> int:
        """What is copied in all, twice where the processor copies it too."""
        return sum(chunk.cost for chunk in self.traffic)

    @property
    def seconds(self) -> float | None:
        """How long it is thought to take on a card; None on a processor."""
        crops = self.blend.count if self.blend else 1
        return self.rates.seconds(self.operations, crops * self.cost_bytes) if self.rates else None

    @property
    def rates(self) -> Rates | None:
        """How fast the card is, measured or usual; None on a processor."""
        machine = self.machine
        if machine is None or not machine.apart:
            return None
        return machine.rates or USUAL[self.job.element_bytes]

    def way(self, chunk: Chunk) -> Way:
        """How a chunk is run; one of a length that was not planned for, as a longer one."""
        found = self.ways.get(kind_of(chunk))
        return found or max(self.ways.items(), key=lambda kind: (not kind[0][1], kind[0][0]))[1]

    @property
    def places(self) -> Places:
        """Where things live in the largest chunk."""
        return self.way(self._largest).places

    @property
    def _largest(self) -> Chunk:
        """The largest chunk; one that stands for all bands where there are any."""
        if self.chunks[0].band:
            return largest_band(self.chunks)
        return max(self.chunks, key=lambda chunk: chunk.source.size)

    def levels(self) -> tuple[Level, ...]:
        """What lives where in the largest chunk, by resolution."""
        chunk, alone = self._largest, len(self.chunks) == 1
        job, scale = self.job, self.job.batch * self.job.element_bytes
        extent = chunk_extent(job, chunk)
        found = levels_of(job.program, self.way(chunk).places, extent, chunk, alone=alone)
        return tuple(Level(x.px, x.near_bytes * scale, x.far_bytes * scale) for x in found)

    def tile_count(self) -> int:
        """Tiles of all steps and chunks together."""
        return sum(self._tiles_in(job, chunk) * times for job, chunk, times in self.work())

    def _tiles_in(self, job: Job, chunk: Chunk) -> int:
        every = cells_of(job.program, chunk_extent(job, chunk), chunk)
        pairs = zip(every, self.way(chunk).tiles, strict=True)
        return sum(count_tiles(cells, tile) for some, tile in pairs for cells in some)

    def tile_px(self) -> tuple[int, int]:
        """Height and width of the first step's tiles at full resolution, in sample pixels."""
        sizes = [
            (tile.h * px, tile.w * px)
            for step, tile in zip(self.job.program.steps, self.tiles, strict=True)
            for px in [self.job.program.stores[step.dst].px * step.side_made]
        ]
        return min(sizes)

    def as_dict(self) -> dict[str, Any]:
        """The plan as numbers and names that JSON can hold."""
        job, worst = self.job, self.worst
        return {
            "program": job.program.name,
            "batch": job.batch,
            "source": [job.source.t, job.source.h, job.source.w],
            "chunks": [[chunk.source.size, chunk.target.size] for chunk in self.chunks],
            "steps": len(job.program.steps),
            "tiles": self.tile_count(),
            "blended_crops": self.blend.count if self.blend else 0,
            "placement": self.placement.value,
            "reference": self.reference,
            "operations": self.operations,
            "peak_bytes": self.peak_bytes,
            "store_bytes": worst.store_bytes,
            "cache_bytes": worst.cache_bytes,
            "workspace_bytes": worst.workspace_bytes,
            "far_bytes": self.far_bytes,
            "moved_bytes": self.moved_bytes,
            "copied_bytes": self.copied_bytes,
            "seconds": self.seconds,
            "levels": [[level.px, level.near_bytes, level.far_bytes] for level in self.levels()],
            "far_stores": len(self.places.stores),
            "far_caches": len(self.places.caches),
            "worst_step": worst.path,
            "ranks": self.settings.ranks,
            "steps_by_path": [
                {"path": step.path, "tile": [tile.t, tile.h, tile.w], "peak_bytes": row.peak_bytes}
                for step, tile, row in zip(job.program.steps, self.tiles, self.rows, strict=True)
            ],
            **(self.libraries.as_dict() if self.libraries else {}),
        }

    def _cut(self, unit: str) -> str:
        """How time is cut, for a person."""
        sizes = [chunk.source.size for chunk in self.chunks]
        if self.job.program.looks_ahead:
            return f"bands: {len(sizes)}, with up to {counted(max(sizes), f'{unit} frame')}"
        counts = runs(sizes)
        return f"chunks: {counts} {unit} frame" + ("" if counts == "1" else "s")

    def _places_text(self) -> str:
        """The name of the placement, or how much of what lives on the device."""
        program, places = self.job.program, self.places
        own = [s for s in range(len(program.stores)) if places.has_own_memory(program, s)]
        kept = cache_paths(program)
        near = sum(s not in places.stores for s in own), sum(p not in places.caches for p in kept)
        if (
            not places.rows
            and not places.bands
            and near in ((0, 0), (len(own), 0), (len(own), len(kept)))
        ):
            return _PLACES[self.placement]
        turns = f", {len(places.bands.steps)} steps in bands of rows" if places.bands else ""
        partly = f" ({len(places.rows)} more in part)" if places.rows else ""
        return (
            f"{near[0]} of {counted(len(own), 'store')}{partly} and {near[1]} of"
            f" {counted(len(kept), 'cache')} on the device{turns}, the others in"
            f" {_AWAY[places.away]}"
        )

    def describe(self) -> str:
        """The plan in a few lines for a person."""
        job, worst = self.job, self.worst
        unit = "sample" if job.program.name == "encoder" else "latent"
        steps = counted(len(job.program.steps), "step")
        lines = [
            f"{job.program.name}: {job.source.t}x{job.source.h}x{job.source.w} ({unit} frames x"
            " height"
            f" x width), batch {job.batch}",
            f"  {self._cut(unit)}, {steps} each",
            f"  tiles: {self.tile_count()} in all, none beyond the bound of"
            f" {_bound(self.settings)}",
            f"  work: {self.operations / 1e12:.3g} TFLOP",
            f"  projected peak: {size_text(worst.peak_bytes)} at {worst.path} (stores"
            f" {size_text(worst.store_bytes)}, caches {size_text(worst.cache_bytes)}, workspace"
            f" {size_text(worst.workspace_bytes)}), weights, input and result apart",
            f"  placement: {self._places_text()}",
        ]
        if self.kept_bytes:
            lines.append(f"  weights, made ready once for all chunks: {size_text(self.kept_bytes)}")
        if self.reference in _OF_OTHERS:
            lines.append(_OF_OTHERS[self.reference])
        if self.seconds is not None and self.machine:
            source = "measured rates" if self.machine.rates else "rates of an ordinary card"
            lines.append(f"  projected time: {self.seconds:.3g} s, at {source}")
        if self.blend:
            crop = self.blend.largest
            lines.append(
                f"  blended: {counted(self.blend.count, 'crop')} of at most {crop.h}x{crop.w}"
            )
        if self.settings.ranks > 1:
            who = ", ".join(self.settings.devices) or self.settings.ranks
            lines.append(f"  ranks: {who}; memory and tiles are those of one")
        if self.far_bytes:
            far, moved = size_text(self.far_bytes), size_text(self.moved_bytes)
            lines.append(f"  away from it: {far}; copied back and forth: {moved}")
            lines.append("  on the device by level: " + ", ".join(map(_level, self.levels())))
        if self.libraries:
            lines.append(f"  device: {_on(self.libraries)}")
        return "\n".join(lines)


_OF_OTHERS = {
    "core": "  reference: ComfyUI core's class, whose attention sees later frames, too",
    "core-as-is": "  reference: ComfyUI core's class as it is, its encoder out of phase",
    "diffusers": "  reference: diffusers' class, whose first frames are others than the authors'",
}
"""Said where this is not what the authors' own code does."""
_AWAY = {Place.HOST: "host memory", Place.DISK: "a temporary file"}

_PLACES = {
    Placement.DEVICE: "stores and caches on the device",
    Placement.CACHES_ON_HOST: "stores on the device, causal caches in host memory",
    Placement.HOST: "stores and causal caches in host memory",
    Placement.MMAP: "stores and causal caches in a temporary file",
}


def _on(libraries: Libraries) -> str:
    """Where a plan will run, for a person."""
    if libraries.refused:
        return f"the processor, since {libraries.device} is wrong in {libraries.refused}"
    allowed = size_text(libraries.allowance_bytes)
    return (
        f"{libraries.device} ({libraries.route_words}); its libraries are allowed {allowed} of the"
        " workspace"
    )


def _level(level: Level) -> str:
    """How much of a level is on the device; its px are those of an element."""
    whole = level.near_bytes + level.far_bytes
    name = "full size" if level.px == 1 else f"1/{level.px}"
    return f"{name} {100 * level.near_bytes // max(whole, 1)} % of {size_text(whole)}"


def _bound(settings: Settings) -> str:
    sides = settings.tile_px
    return f"{sides[0]}x{sides[1]} px" if isinstance(sides, tuple) else "the whole picture"


def runs(counts: list[int]) -> str:
    """[9, 8, 8, 4] as '9 + 2 x 8 + 4'."""
    parts: list[str] = []
    at = 0
    while at < len(counts):
        same = 1
        while at + same < len(counts) and counts[at + same] == counts[at]:
            same += 1
        parts.append(f"{same} x {counts[at]}" if same > 1 else f"{counts[at]}")
        at += same
    return " + ".join(parts)
