"""How many bytes will a chunk need at its worst moment?

Arithmetic over the program's store lifetimes; no tensors:

1. Stores live from the step that first writes them to the last step that touches them.
2. Causal caches live from chunk to chunk, a step's new one beside its old one while it runs.
3. The workspace of a step is its largest tile: the convolution's input, its result, and passing
   copies.

Weights, the caller's own input and the result are not counted: they are the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass

from .grid import Chunk, tiles
from .program import SOURCE, Program, Step
from .region import Extent


@dataclass(frozen=True, slots=True)
class Projection:
    """Projected bytes at the worst step of the worst chunk. Invariant: peak = stores + caches +
    workspace.

    path: module path of that step.
    """

    path: str
    store_bytes: int
    cache_bytes: int
    workspace_bytes: int

    @property
    def peak_bytes(self) -> int:
        """All of it together."""
        return self.store_bytes + self.cache_bytes + self.workspace_bytes

    def describe(self) -> str:
        """The sum and its parts for a person."""
        gib = 2**30
        return (
            f"{self.peak_bytes / gib:.2f} GiB (stores {self.store_bytes / gib:.2f},"
            f" causal caches {self.cache_bytes / gib:.2f}, workspace"
            f" {self.workspace_bytes / gib:.2f}) at {self.path}"
        )


def live_stores(program: Program) -> tuple[frozenset[int], ...]:
    """For every step the stores that are allocated while it runs, the two ends left out."""
    last, first = program.last_use(), {}
    for index, step in reversed(list(enumerate(program.steps))):
        first[step.dst] = index
    inner = set(range(len(program.stores))) - {SOURCE, program.sink}
    return tuple(
        frozenset(s for s in inner if first[s] <= index <= last[s])
        for index in range(len(program.steps))
    )


def _cache_elements(step: Step, src: Extent) -> int:
    return step.conv.history * src.h * src.w * step.conv.in_channels


def _workspace_elements(step: Step, dst: Extent, largest: Extent) -> int:
    """Elements of the largest tile's buffers: what is read, what the convolution sees, and its
    result twice.
    """
    tile = next(iter(tiles(dst, largest)))
    seen = step.seen_region(tile)
    read = seen.voxels * step.conv.in_channels
    return 2 * read + 2 * tile.voxels * step.conv.out_channels


def project(
    program: Program, chunk: Chunk, source: Extent, largest: tuple[Extent, ...], voxel_bytes: int
) -> Projection:
    """The worst moment of one chunk; voxel_bytes: bytes of an element times the batch."""
    extents = program.extents(source, chunk)
    caches = [_cache_elements(step, extents[step.src]) for step in program.steps]
    rows: list[Projection] = []
    for index, (step, live) in enumerate(zip(program.steps, live_stores(program), strict=True)):
        stores = sum(extents[s].voxels * program.stores[s].channels for s in live)
        held = sum(caches) + caches[index]
        work = _workspace_elements(step, extents[step.dst], largest[index])
        rows.append(Projection(step.path, *(n * voxel_bytes for n in (stores, held, work))))
    return max(rows, key=lambda row: row.peak_bytes)
