"""What has been decided for one run, as plain data that a person and a program can read?

A `Plan` is made by `planner.make_plan` and followed by `execute.Execution`; it decides nothing and
runs nothing itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..errors import counted
from ..geometry.blend import BlendGeometry
from ..geometry.grid import Chunk, count_tiles
from ..geometry.region import Extent, Interval
from ..program.shares import shares_of
from ..program.steps import SOURCE, Program
from ..settings import Given, Place, Placement, Settings
from .projection import Projection
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

    chunks: in order. tiles: for each step its largest tile, in cells of the step.
    placement: where stores and caches live; never `AUTO`.
    operations: floating point operations of all chunks and crops, batch included.
    rows: projected bytes while each step of the largest chunk of the largest crop runs.
    blend: the crops that go through the whole network one by one; None where the picture does.
    libraries: of the device that it is for; None for a processor that was asked for.
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
        program, settings, source = self.job.program, self.settings, self.job.source
        px = program.stores[SOURCE].px, program.stores[program.sink].px
        whole = Interval(0, source.h * px[0] // px[1])
        rank = settings.rank
        if settings.ranks == 1 or settings.parallel_result is Given.ALL:
            return whole
        if settings.parallel_result is Given.BANDS:
            found = shares_of(program, source.h, settings.ranks)
            return found.ranks[rank].own[program.sink]
        return Interval(0, 0) if rank else whole

    @property
    def stores_at(self) -> Place:
        """Where full-extent activations live."""
        far = {Placement.HOST: Place.HOST, Placement.MMAP: Place.DISK}
        return far.get(self.placement, Place.DEVICE)

    @property
    def caches_at(self) -> Place:
        """Where causal caches live."""
        near = self.placement is not Placement.CACHES_ON_HOST
        return self.stores_at if near else Place.HOST

    @property
    def keys_at(self) -> Place:
        """Where keys and values live that later chunks look back at: they grow with the clip."""
        return Place.DISK if self.stores_at is Place.DISK else Place.HOST

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
        """Bytes copied to and from the device, as though all chunks were as large as the
        largest.
        """
        return len(self.chunks) * sum(row.moved_bytes for row in self.rows)

    @property
    def copied_bytes(self) -> int:
        """Of `moved_bytes`, what the processor copies too, on its way to or from the device."""
        return len(self.chunks) * sum(row.copied_bytes for row in self.rows)

    def tile_count(self) -> int:
        """Tiles of all steps and chunks together."""
        return sum(self._tiles_in(job, chunk) * times for job, chunk, times in self.work())

    def _tiles_in(self, job: Job, chunk: Chunk) -> int:
        extents = job.program.extents(chunk_extent(job, chunk), chunk)
        return sum(
            count_tiles(replace(step.mixed_extent(src, chunk), t=frames.size), tile)
            for step, tile in zip(job.program.steps, self.tiles, strict=True)
            for src in [extents[step.src]]
            for _, frames in step.runs(src, chunk)
        )

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
            "reference": "core" if job.program.barrier is not None else "official",
            "operations": self.operations,
            "peak_bytes": self.peak_bytes,
            "store_bytes": worst.store_bytes,
            "cache_bytes": worst.cache_bytes,
            "workspace_bytes": worst.workspace_bytes,
            "far_bytes": self.far_bytes,
            "moved_bytes": self.moved_bytes,
            "copied_bytes": self.copied_bytes,
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
            f"  placement: {_PLACES[self.placement]}",
        ]
        if job.program.barrier is not None:
            lines.append(_OF_CORE)
        if self.blend:
            crop = self.blend.largest
            lines.append(
                f"  blended: {counted(self.blend.count, 'crop')} of at most {crop.h}x{crop.w}"
            )
        if self.settings.ranks > 1:
            lines.append(f"  ranks: {self.settings.ranks}; memory and tiles are those of one")
        if self.far_bytes:
            far, moved = size_text(self.far_bytes), size_text(self.moved_bytes)
            lines.append(f"  away from it: {far}; copied back and forth: {moved}")
        if self.libraries:
            lines.append(f"  device: {_on(self.libraries)}")
        return "\n".join(lines)


_OF_CORE = "  reference: ComfyUI core's class, whose attention sees later frames, too"
"""Said where this is not what the authors' own code does."""

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
