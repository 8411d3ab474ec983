"""Where are the stores and caches of a run made, and which of them leave when the device is full?

1. A store or cache is made where the plan has it for the chunk under way; where the device has no
   room for it after all, in host memory.
2. Far stores, and on a processor all of them, take what memory earlier ones have left. Near ones
   come from the device's allocator, which does as much.
3. When memory runs out, the plan is mended: one is made for a little less than the step that failed
   takes, and what is to be away in it leaves at once. So that which costs least leaves first, no
   more than is needed, and the rest of the run goes by the new plan. Before anything leaves, tiles
   are as small as that takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain

from torch import Tensor

from ..planning.bands import Bands, heights_of, turns_of
from ..planning.held import first_written
from ..planning.places import Way
from ..planning.plan import Plan
from ..planning.planner import eased
from ..program.steps import SOURCE, Program, Step
from ..settings import Place
from . import devices, recovery
from .kept import Kept
from .pinned import Pinned
from .split import Rolling, Split, Store
from .stores import Reused, allocate, packed
from .task import Pass, Task
from .weights import Weights

Announce = Callable[[str, str], None]
"""Says where memory ran out, and what is done about it."""


class Residence:
    """Memory for the stores and caches of one run.

    plan: what the run follows; another one once it was mended. caches: of the last chunk, by step;
        fresh: those that are being made for the next one.
    """

    def __init__(
        self, program: Program, weights: Weights, plan: Plan, pinned: Pinned, announce: Announce
    ) -> None:
        self.plan = plan
        self.caches: dict[int, Tensor] = {}
        self.fresh: dict[int, Tensor] = {}
        self._program, self._dtype, self._device = program, weights.dtype, weights.device
        self._pinned, self._announce = pinned, announce
        self._reused: dict[Place, Reused] = {}
        self.kept = Kept(program, weights, plan, pinned)
        self._writers = first_written(program)

    @property
    def can_mend(self) -> bool:
        """Whether there is another place to go to."""
        machine = self.plan.machine
        return machine is not None and machine.apart

    def way(self, at: Pass) -> Way:
        """How the chunk under way is run."""
        return self.plan.way(at.chunk)

    def clear(self) -> None:
        """Let go of all memory that no tensor uses, and of the caches."""
        self.caches.clear()
        self.fresh.clear()
        self.kept.clear()
        self.release()

    def near_bytes(self) -> int:
        """Bytes on the device of what goes from chunk to chunk."""
        held = chain(self.caches.values(), self.kept.frames.values())
        return sum(x.nbytes for x in held if x.device.type == self._device.type)

    def release(self) -> None:
        """Let go of memory that is kept for stores to come."""
        for memory in self._reused.values():
            memory.clear()

    def give(self, store: int) -> None:
        """A store is gone."""
        for memory in self._reused.values():
            memory.give(store)

    def new_store(self, store: int, at: Pass, *, packs: bool) -> Store:
        """Unwritten memory for a store; packs: whether one inside another is packed there, as far
        as that is away.
        """
        spec, places = self._program.stores[store], self.way(at).places
        if spec.inside is not None and not places.has_own_memory(self._program, store):
            return _inside(at.stores[spec.inside], spec.channels, packs=packs)
        extent = self.kept.room(store, at)
        away = places.far_rows(store, extent.h)
        shapes = [at.shape(spec.channels, replace(extent, h=h)) for h in (extent.h - away, away)]
        if not away:
            return self.kept.restored(store, at, self._near_store(store, shapes[0]))
        far = self._reuse(places.away).take(store, shapes[1])
        if away < extent.h:
            return Split(self._made(shapes[0], Place.DEVICE), far)
        return self.kept.restored(store, at, far)

    def _near_store(self, store: int, shape: tuple[int, ...]) -> Tensor:
        if devices.accelerates(self._device):
            return self._made(shape, Place.DEVICE)
        place = Place.DEVICE
        return self._or_on_host(partial(self._reuse(place).take, store, shape), shape, place)

    def new_cache(self, step: Step, at: Pass) -> Tensor:
        """Unwritten memory for a step's cache."""
        return self._made(at.cache_shape(step), self.way(at).places.of_cache(step))

    def keep(self, store: int, at: Pass) -> None:
        """Put aside what the next band will read of a store that is given up."""
        writer = self._program.steps[self._writers[store]]
        self.kept.keep(store, at, self.way(at).places.of_cache(writer))

    def fresh_cache(self, index: int, at: Pass) -> Tensor:
        """The cache that a step makes for the next chunk; the same in each of its turns."""
        if index not in self.fresh:
            self.fresh[index] = self.new_cache(self._program.steps[index], at)
        return self.fresh[index]

    def window(self, store: int, bands: Bands, at: Pass) -> Rolling:
        """The window of a store that steps in turns alone touch."""
        if store not in at.stores:
            turns = turns_of(self._program, bands, heights_of(at.extents))
            assert turns
            shape = at.shape(
                self._program.stores[store].channels,
                replace(at.extents[store], h=turns.rows[store]),
            )
            at.stores[store] = Rolling(self._made(shape, Place.DEVICE))
        found = at.stores[store]
        assert isinstance(found, Rolling)
        return found

    def mend(self, index: int, share: float) -> bool:
        """Go by a plan in which step `index` takes no more than a share of what it was to take, or
        somewhat more where that leaves all in its place; whether there is one.
        """
        found = eased(self.plan, index, share)
        if found is not None:
            self.plan = found
        return found is not None

    def leave(self, at: Pass, task: Task | None, *, every: bool = False) -> bool:
        """Move to host memory what the plan has there, or all that there is; whether anything
        moved.
        """
        places, moved = self.way(at).places, False
        for store, held in at.stores.items():
            if store in (SOURCE, self._program.sink) or isinstance(held, Rolling):
                continue
            rows = held.shape[3]
            away = rows if every else places.far_rows(store, rows)
            if away > self._away(held):
                at.stores[store], moved = self._all_on_host(held), True
        for caches in (self.caches, self.fresh):
            for step, cache in caches.items():
                far = every or self._program.steps[step].path in places.caches
                if far and self.is_near(cache):
                    caches[step], moved = self.on_host(cache), True
        for store, frames in self.kept.frames.items():
            far = every or self._program.steps[self._writers[store]].path in places.caches
            if far and self.is_near(frames):
                self.kept.frames[store], moved = self.on_host(frames), True
        far = every or task is None or task.step.path in places.caches
        return self._leave_task(task, far) or moved

    def _away(self, held: Tensor | Split) -> int:
        """Rows of a store that are away."""
        parts = held.parts if isinstance(held, Split) else (held,)
        return sum(part.shape[3] for part in parts if not self.is_near(part))

    def _all_on_host(self, held: Tensor | Split) -> Tensor:
        """A store in host memory."""
        if not isinstance(held, Split):
            return self.on_host(held)
        whole = allocate(held.shape, self._dtype, self._device, Place.HOST)
        above = held.near.shape[3]
        whole[:, :, :, :above].copy_(held.near)
        whole[:, :, :, above:].copy_(held.far)
        return whole

    def is_near(self, x: Tensor) -> bool:
        """Whether a tensor lives on a device that is not the host."""
        return not x.is_cpu

    def on_host(self, x: Tensor) -> Tensor:
        """A tensor in host memory."""
        return x.cpu()

    def _leave_task(self, task: Task | None, far: bool) -> bool:
        moved = False
        for name in ("old_cache", "new_cache"):
            cache = getattr(task, name, None)
            if far and cache is not None and self.is_near(cache):
                setattr(task, name, self.on_host(cache))
                moved = True
        if task is not None and task.new_cache is not None:
            task.keep_in(task.new_cache)
        return moved

    def _reuse(self, place: Place) -> Reused:
        if place not in self._reused:
            self._reused[place] = Reused(self._dtype, self._device, place, self._pinned)
        return self._reused[place]

    def _made(self, shape: tuple[int, ...], place: Place) -> Tensor:
        """A tensor of its own."""
        make = partial(allocate, shape, self._dtype, self._device, place, self._pinned)
        return self._or_on_host(make, shape, place)

    def _or_on_host(
        self, make: Callable[[], Tensor], shape: tuple[int, ...], place: Place
    ) -> Tensor:
        """What `make` gives; a tensor of `shape` in host memory where `place`, a device, has no
        room for it.
        """
        try:
            return make()
        except Exception as error:
            if place is not Place.DEVICE or not recovery.is_out_of_memory(error):
                raise
        recovery.free_unused(self._device)
        self._announce("an activation's allocation", "it goes to host memory")
        return allocate(shape, self._dtype, self._device, Place.HOST)


def _inside(outer: Store, channels: int, *, packs: bool) -> Store:
    """The first channels of a store; packs: row by row, without gaps, as far as it is away."""
    if isinstance(outer, Split):
        return Split(outer.near[:, :channels], _inside_one(outer.far, channels, packs=packs))
    assert isinstance(outer, Tensor)
    return _inside_one(outer, channels, packs=packs)


def _inside_one(outer: Tensor, channels: int, *, packs: bool) -> Tensor:
    return packed(outer, channels) if packs else outer[:, :channels]
