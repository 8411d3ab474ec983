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

from dataclasses import dataclass, field, replace

from ..geometry.grid import Chunk
from ..geometry.region import Extent
from ..program.parts import Attend
from ..program.steps import Program
from .attending import kept_by_step
from .bands import Bands, Turns
from .classes import attends
from .held import first_written
from .lifetimes import Waits, waiting_bytes
from .places import ALL_NEAR, Far, Kind, Places, kind_of
from .projection import Projection, Traffic
from .sizes import Sizes, frame_statistics_bytes
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
    clip_frames: of the whole clip, at the program's source.
    places: where stores and caches live.
    pooled_near, pooled_far: bytes held for stores on the device and away from it while each step
        runs, where memory is reused (see `pool`); None where stores come from an allocator.
    turns: what the steps that take turns come to, if any do.
    waits: what waits in each of the bands that `chunk` stands for, if it stands for any.
    far: what each step has far away.
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
    clip_frames: int = 0
    places: Places = ALL_NEAR
    pooled_near: tuple[int, ...] | None = None
    pooled_far: tuple[int, ...] | None = None
    turns: Turns | None = None
    waits: tuple[Waits, ...] = ()
    far: tuple[Far, ...] = field(init=False)

    def __post_init__(self) -> None:
        there = self.chunk.all_held(self.extents)
        far = tuple(self.places.of(step, there) for step in self.program.steps)
        object.__setattr__(self, "far", far)

    def store_bytes(self, store: int, far: bool) -> int:
        """Bytes of memory of its own that a store has on the device, or away from it; none inside
        another or at the two ends.
        """
        if store in self.places.rolled:
            return 0 if far else self._window_bytes(store)
        if not self.places.has_own_memory(self.program, store):
            return 0
        whole, rows = self.extent_bytes(store), self.extents[store].h
        away = whole * self.places.far_rows(store, rows) // rows
        return away if far else whole - away

    def _window_bytes(self, store: int) -> int:
        """Bytes of what is there at once of a store that steps in turns alone touch."""
        assert self.turns
        return self.extent_bytes(store) // self.extents[store].h * self.turns.rows[store]

    @property
    def windows_bytes(self) -> int:
        """Bytes of all windows together."""
        return sum(map(self._window_bytes, self.places.rolled))

    def extent_bytes(self, store: int) -> int:
        """Bytes of all that a store holds."""
        there = self.chunk.held(store, self.extents[store])
        return self._bytes(self.program.stores[store].channels * there.voxels)

    def _bytes(self, elements: int) -> int:
        return self.sizes.batch * elements * self.sizes.element_bytes

    def held_caches(self, far: bool) -> list[int]:
        """Bytes of the near or the far causal caches while each step runs: old ones of the steps
        from it on, and new ones of those up to it.
        """
        if self.chunk.band:
            return self._waiting(far)
        caches, steps = self.places.caches, zip(self.program.steps, self.steps, strict=True)
        sizes = [one.cache_bytes * ((step.path in caches) is far) for step, one in steps]
        before, whole, found = 0, sum(sizes), list[int]()
        for size in sizes:
            found.append((whole - before) * self.has_past + (before + size) * self.has_future)
            before += size
        for run in self._runs:  # all of its old ones, and all of its new ones
            old, new = sum(sizes[run.start :]), sum(sizes[: run.stop])
            held = old * self.has_past + new * self.has_future
            found[run.start : run.stop] = [held] * (run.stop - run.start)
        return found

    def _waiting(self, far: bool) -> list[int]:
        """The same of frames that wait for the next band."""
        frames = [0] * len(self.program.stores)
        for store, index in first_written(self.program).items():
            if (self.program.steps[index].path in self.places.caches) is far:
                side = self.chunk.held(store, self.extents[store])
                channels = self.program.stores[store].channels
                frames[store] = self._bytes(channels * side.h * side.w)
        idle = [0 if far else step.weight_bytes for step in self.steps]
        return waiting_bytes(self.program, frames, self.waits, idle)

    @property
    def _runs(self) -> tuple[Bands, ...]:
        """The steps that take turns, if any do."""
        return (self.turns.bands,) if self.turns else ()

    def live_bytes(self, far: bool) -> list[dict[int, int]]:
        """The near or the far stores with memory of their own while each step runs, and their
        bytes.
        """
        stores = range(len(self.program.stores))
        sizes = {store: self.store_bytes(store, far) for store in stores}
        there = [live - self.places.rolled for live in self.live]
        for run in self._runs:
            every = frozenset[int]().union(*there[run.start : run.stop]) | self.places.rolled
            there[run.start : run.stop] = [every] * (run.stop - run.start)
        return [{store: sizes[store] for store in sorted(live) if sizes[store]} for live in there]

    def held_stores(self, far: bool) -> tuple[int, ...]:
        """Bytes held for stores while each step runs, on the device or away from it."""
        pooled = self.pooled_far if far else self.pooled_near
        if pooled is not None:
            return pooled
        return tuple(sum(stores.values()) for stores in self.live_bytes(far))

    def tile_bytes(self, index: int, largest: Extent) -> int:
        """The most that is allocated while the tiles of a step, none beyond `largest`, run."""
        far = self.far[index]
        if any(index in run.steps for run in self._runs):
            far = replace(far, cut=True)  # there are always others before and after it
        return self.steps[index].tile_bytes(largest, far, self.has_past, self.has_future)

    def moved_bytes(self, index: int, largest: Extent) -> int:
        """Bytes that the tiles of a step copy to and from the device."""
        far = self.far[index]
        moved = self.steps[index].moved_bytes(largest, far, self.has_past, self.has_future)
        moved += self._kept_moved(index, largest, far)
        passes = far.cache * (self.has_past + self.has_future)
        return moved + passes * self.more_of_cache(index)

    def copied_bytes(self, index: int, largest: Extent) -> int:
        """Of those, bytes that the processor copies, too."""
        return self.steps[index].copied_bytes(largest, self.far[index])

    def _kept_moved(self, index: int, largest: Extent, far: Far) -> int:
        """Bytes of keys and values of other chunks that a step copies, and of its own that it
        keeps for them.
        """
        step = self.program.steps[index]
        if not isinstance(step.mix, Attend):
            return 0
        others = self.program.frames_at(step.src, self.chunk.source.start) // 2  # on the average
        if step.mix.looks_ahead:
            others = self.program.frames_at(step.src, self.clip_frames) - self.extents[step.src].t
        return self.steps[index].kept_moved_bytes(largest, far, others)

    def more_of_cache(self, index: int) -> int:
        """Bytes of a step's cache that are copied once more, since turns overlap."""
        turns = self.turns
        if turns is None or index not in turns.bands.steps:
            return 0
        rows, cache = self.steps[index].site.src.h, self.steps[index].cache_bytes
        return cache * (turns.read[index - turns.bands.start] - rows) // rows

    def traffic(self, tiles: tuple[Extent, ...]) -> Traffic:
        """What all steps copy, given the largest tile of each."""
        every = tuple(enumerate(tiles))
        moved = sum(self.moved_bytes(index, tile) for index, tile in every)
        return Traffic(moved, sum(self.copied_bytes(index, tile) for index, tile in every))

    @property
    def kind(self) -> Kind:
        """What its chunk is."""
        return kind_of(self.chunk)

    def weight_bytes(self, index: int) -> int:
        """Bytes of the weights of a step as it uses them, and slack."""
        return self.steps[index].weight_bytes + self.slack_bytes

    def _held_keys(self, far: bool) -> list[int]:
        """Bytes of keys and values of other chunks, on the device or away from it."""
        if self._keys_far is not far:
            return [0] * len(self.steps)
        given = self.extents, self.chunk, self.clip_frames, self.sizes
        return kept_by_step(self.program, *given)

    @property
    def _keys_far(self) -> bool:
        return self.sizes.far_keys or self.places.keys_far

    def project(self, largest: tuple[Extent, ...]) -> tuple[Projection, ...]:
        """What every step needs, given the largest tile of each."""
        stores, caches = self.held_stores(False), self.held_caches(False)
        keys, far_keys = self._held_keys(False), self._held_keys(True)
        far_stores, far_caches = self.held_stores(True), self.held_caches(True)
        return tuple(
            Projection(
                step.path,
                stores[index],
                caches[index] + keys[index],
                self.tile_bytes(index, largest[index]) + self.weight_bytes(index),
                self.moved_bytes(index, largest[index]),
                self.copied_bytes(index, largest[index]),
                far_stores[index] + far_caches[index] + far_keys[index],
            )
            for index, step in enumerate(self.program.steps)
        )

    def fixed_bytes(self) -> list[int]:
        """Bytes on the device while each step runs that no tile size changes."""
        near = self.held_stores(False), self.held_caches(False), self._held_keys(False)
        held = zip(*near, strict=True)
        return [sum(all_of_it) + self.weight_bytes(index) for index, all_of_it in enumerate(held)]


def slack_bytes(program: Program, extents: tuple[Extent, ...], sizes: Sizes) -> int:
    """Beside what is counted: libraries keep what they took for an attention for good."""
    kept = attends(program) * sizes.workspaces.attention.base_bytes
    return SLACK_BYTES + kept + frame_statistics_bytes(program, extents, sizes)
