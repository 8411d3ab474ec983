"""How many bytes will a chunk need at its worst moment?

Arithmetic over a program's store lifetimes; no tensors:

1. Stores live from the step that first writes them to the last step that touches them.
2. Causal caches live from chunk to chunk, a step's new one beside its old one while it runs.
3. Each of them counts where it lives, on the device or away from it (see `places`).
4. The workspace of a step is what its largest tile allocates (see `step_bytes`), and the weights
   that are folded.

Weights as they are, the caller's own input and the result are not counted: they are the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..geometry.grid import Chunk
from ..geometry.region import Extent
from ..program.steps import SOURCE, Program
from .classes import attends
from .places import ALL_NEAR, Kind, Places
from .projection import Projection
from .sizes import Sizes, weight_bytes
from .step_bytes import StepBytes

SLACK_BYTES = 2**20
"""Statistics and the small tensors made of them, beyond what is counted."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The arithmetic for one program and one chunk.

    has_past, has_future: whether causal caches come in from a chunk before it, and go on to one
        after it.
    steps: the arithmetic of each step. live: the stores whose memory is held while it runs.
    slack_bytes: beside what is counted; an attention's libraries keep what they took for good.
    places: where stores and caches live.
    pooled_near, pooled_far: bytes held for stores on the device and away from it while each step
        runs, where memory is reused (see `pool`); None where stores come from an allocator.
    """

    program: Program
    chunk: Chunk
    extents: tuple[Extent, ...]
    sizes: Sizes
    has_past: bool
    has_future: bool
    steps: tuple[StepBytes, ...]
    live: tuple[frozenset[int], ...]
    slack_bytes: int = SLACK_BYTES
    places: Places = ALL_NEAR
    pooled_near: tuple[int, ...] | None = None
    pooled_far: tuple[int, ...] | None = None

    def store_bytes(self, store: int, far: bool) -> int:
        """Bytes of memory of its own that a store has on the device, or away from it; none inside
        another or at the two ends.
        """
        if not self.places.has_own_memory(self.program, store):
            return 0
        whole, rows = self.extent_bytes(store), self.extents[store].h
        away = whole * self.places.far_rows(store, rows) // rows
        return away if far else whole - away

    def extent_bytes(self, store: int) -> int:
        """Bytes of all that a store holds."""
        voxels = self.program.stores[store].channels * self.extents[store].voxels
        return self.sizes.batch * voxels * self.sizes.element_bytes

    def held_caches(self, far: bool) -> list[int]:
        """Bytes of the near or the far causal caches while each step runs: old ones of the steps
        from it on, and new ones of those up to it.
        """
        caches, steps = self.places.caches, zip(self.program.steps, self.steps, strict=True)
        sizes = [one.cache_bytes * ((step.path in caches) is far) for step, one in steps]
        before, whole, found = 0, sum(sizes), list[int]()
        for size in sizes:
            found.append((whole - before) * self.has_past + (before + size) * self.has_future)
            before += size
        return found

    def live_bytes(self, far: bool) -> list[dict[int, int]]:
        """The near or the far stores with memory of their own while each step runs, and their
        bytes.
        """
        stores = range(len(self.program.stores))
        sizes = {store: self.store_bytes(store, far) for store in stores}
        return [
            {store: sizes[store] for store in sorted(live) if sizes[store]}
            for live in self.live
        ]

    def held_stores(self, far: bool) -> tuple[int, ...]:
        """Bytes held for stores while each step runs, on the device or away from it."""
        pooled = self.pooled_far if far else self.pooled_near
        if pooled is not None:
            return pooled
        return tuple(sum(stores.values()) for stores in self.live_bytes(far))

    def tile_bytes(self, index: int, largest: Extent) -> int:
        """The most that is allocated while the tiles of a step, none beyond `largest`, run."""
        far = self.places.of(self.program.steps[index], self.extents)
        return self.steps[index].tile_bytes(largest, far, self.has_past, self.has_future)

    def moved_bytes(self, index: int, largest: Extent) -> int:
        """Bytes that the tiles of a step copy to and from the device."""
        far = self.places.of(self.program.steps[index], self.extents)
        return self.steps[index].moved_bytes(largest, far, self.has_past, self.has_future)

    def moved_in_all(self, tiles: tuple[Extent, ...]) -> int:
        """Bytes that all steps copy, given the largest tile of each."""
        return sum(self.moved_bytes(index, tile) for index, tile in enumerate(tiles))

    @property
    def kind(self) -> Kind:
        """What its chunk is."""
        return self.chunk.source.size, self.chunk.first

    def weight_bytes(self, index: int) -> int:
        """Bytes of the weights of a step as it uses them, and slack."""
        step, channels = self.program.steps[index], self.program.stores[SOURCE].channels
        return weight_bytes(step, self.sizes, channels, self.steps[index].apart) + self.slack_bytes

    def project(self, largest: tuple[Extent, ...]) -> tuple[Projection, ...]:
        """What every step needs, given the largest tile of each."""
        stores, caches = self.held_stores(False), self.held_caches(False)
        far_stores, far_caches = self.held_stores(True), self.held_caches(True)
        return tuple(
            Projection(
                step.path,
                stores[index],
                caches[index],
                self.tile_bytes(index, largest[index]) + self.weight_bytes(index),
                self.moved_bytes(index, largest[index]),
                far_stores[index] + far_caches[index],
            )
            for index, step in enumerate(self.program.steps)
        )

    def fixed_bytes(self) -> list[int]:
        """Bytes on the device while each step runs that no tile size changes."""
        held = zip(self.held_stores(False), self.held_caches(False), strict=True)
        return [sum(both) + self.weight_bytes(index) for index, both in enumerate(held)]


@lru_cache(maxsize=32)
def live_stores(program: Program) -> tuple[frozenset[int], ...]:
    """For every step the stores whose memory is held while it runs, the two ends left out."""
    last = program.last_use()
    for store, spec in enumerate(program.stores):
        if spec.inside is not None:  # the outer memory lives as long as what lies inside it
            last[spec.inside] = max(last[spec.inside], last[store])
    first: dict[int, int] = {}
    for index, step in enumerate(program.steps):
        first.setdefault(step.dst, index)
    inner = set(range(len(program.stores))) - {SOURCE, program.sink}
    return tuple(
        frozenset(s for s in inner if first[s] <= index <= last[s])
        for index in range(len(program.steps))
    )


def slack_bytes(program: Program, sizes: Sizes) -> int:
    """Beside what is counted: libraries keep what they took for an attention for good."""
    return SLACK_BYTES + attends(program) * sizes.workspaces.attention.base_bytes
