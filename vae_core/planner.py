"""Which chunks and tiles shall a run use, for one shape and one choice of settings?

1. The layout cuts the clip into chunks; `NormScope.CLIP` takes it whole and tiles it in time as
   well.
2. Every step gets the largest tile that it may use, in elements of what it writes.
3. Operations are counted, so that progress and comparisons rest on work done.

A plan is plain data. No tensor is touched, and nothing is run.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, cast

from .grid import Chunk, decode_chunks, encode_chunks, tiles
from .memory import Projection, project
from .moments import NormScope
from .program import SOURCE, Program, Step
from .region import Extent
from .settings import Layout, Settings, Tiling

_WHOLE = sys.maxsize
"""A tile side that no picture reaches."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be run, apart from how.

    program: encoder or decoder.
    batch: clips side by side.
    source: extent of what goes in.
    element_bytes: of the dtype that is computed in.
    """

    program: Program
    batch: int
    source: Extent
    element_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How one clip will be run.

    chunks: in order. tiles: for each step the largest tile, in elements of its dst.
    operations: floating point operations of all chunks, batch included.
    projection: projected bytes, see `memory.Projection`.
    """

    job: Job
    settings: Settings
    chunks: tuple[Chunk, ...]
    tiles: tuple[Extent, ...]
    operations: int
    projection: Projection

    def tile_count(self) -> int:
        """Tiles of all steps and chunks together."""
        counts = (self._tiles_in(chunk) for chunk in self.chunks)
        return sum(counts)

    def _tiles_in(self, chunk: Chunk) -> int:
        extents = self.job.program.extents(chunk_extent(self.job, chunk), chunk)
        pairs = zip(self.job.program.steps, self.tiles, strict=True)
        return sum(1 for step, tile in pairs for _ in tiles(extents[step.dst], tile))

    def as_dict(self) -> dict[str, Any]:
        """The plan as numbers and names that JSON can hold."""
        job = self.job
        return {
            "program": job.program.name,
            "batch": job.batch,
            "source": [job.source.t, job.source.h, job.source.w],
            "chunks": [[chunk.source.size, chunk.target.size] for chunk in self.chunks],
            "steps": len(job.program.steps),
            "tiles": self.tile_count(),
            "operations": self.operations,
            "peak_bytes": self.projection.peak_bytes,
            "worst_step": self.projection.path,
            "steps_by_path": [
                {"path": step.path, "tile": [tile.t, tile.h, tile.w]}
                for step, tile in zip(job.program.steps, self._shown_tiles(), strict=True)
            ],
        }

    def _shown_tiles(self) -> list[Extent]:
        """The largest tile that really occurs, for each step."""
        chunk = max(self.chunks, key=lambda c: c.source.size)
        extents = self.job.program.extents(chunk_extent(self.job, chunk), chunk)
        return [
            _fitting(extents[s.dst], t)
            for s, t in zip(self.job.program.steps, self.tiles, strict=True)
        ]

    def describe(self) -> str:
        """The plan in a few sentences for a person."""
        job, counts = self.job, [chunk.source.size for chunk in self.chunks]
        unit = "sample" if job.program.name == "encoder" else "latent"
        went_in = f"{job.source.t}x{job.source.h}x{job.source.w}"
        return "\n".join(
            (
                f"{job.program.name}: {went_in} ({unit} frames x height x width), batch"
                f" {job.batch}",
                f"  chunks: {_runs(counts)} {unit} frames; {len(job.program.steps)} steps each,"
                f" {self.tile_count()} tiles in all",
                f"  work: {self.operations / 1e12:.2f} TFLOP",
                f"  projected peak: {self.projection.describe()}",
            )
        )


def _fitting(extent: Extent, largest: Extent) -> Extent:
    first = next(iter(tiles(extent, largest)))
    return first.extent


def _runs(counts: list[int]) -> str:
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


def chunk_extent(job: Job, chunk: Chunk) -> Extent:
    """The extent of a chunk's source."""
    return Extent(chunk.source.size, job.source.h, job.source.w)


def _chunks(job: Job, settings: Settings) -> tuple[Chunk, ...]:
    """The chunks of the clip; one alone where statistics run over all of it."""
    layout, frames = cast("Layout", settings.layout), job.source.t
    encoding = job.program.stores[SOURCE].frames == 1
    whole = settings.norm_scope is NormScope.CLIP
    chunk_frames = -(-4 * frames // 4) * 4 if whole else settings.chunk_frames
    return (encode_chunks if encoding else decode_chunks)(frames, chunk_frames, layout)


def _tile(job: Job, settings: Settings, step: Step) -> Extent:
    """The largest tile of `step`, in elements of its dst."""
    dst = job.program.stores[step.dst]
    sides = cast("tuple[int, int] | None", settings.tile_px)
    if settings.tiling is Tiling.OFF or sides is None:
        sides = (_WHOLE, _WHOLE)
    frames = (
        settings.chunk_frames // dst.frames if settings.norm_scope is NormScope.CLIP else _WHOLE
    )
    return Extent(max(frames, 1), max(sides[0] // dst.px, 1), max(sides[1] // dst.px, 1))


def make_plan(job: Job, settings: Settings) -> Plan:
    """The plan for `job` under `settings`."""
    chunks = _chunks(job, settings)
    largest = tuple(_tile(job, settings, step) for step in job.program.steps)
    operations = job.batch * sum(
        job.program.operations(chunk_extent(job, chunk), chunk) for chunk in chunks
    )
    widest = max(chunks, key=lambda chunk: chunk.source.size)
    load = project(
        job.program, widest, chunk_extent(job, widest), largest, job.batch * job.element_bytes
    )
    return Plan(job, settings, chunks, largest, operations, load)
