"""How does a plan become pixels? The only loop that runs kernels.

`Execution` carries one program over the chunks of a clip:

1. The outer loop (the caller's) hands over chunks in order; causal caches go from each to the next.
2. The middle loop takes the program's steps: allocate dst, finish the statistics of src, run the
   tiles, free what no later step reads.
3. The inner loop takes the tiles (see `tile`), each told which one follows, so that copies from and
   to far memory run beside the computing (see `transfers`); in smaller pieces where memory runs out
   (see `recovery`).

Nothing here decides: chunks, tiles and placement come from the plan, geometry from the program.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise

import torch
from torch import Tensor

from ..errors import DeviceMemoryError
from ..geometry.grid import Chunk
from ..geometry.region import Extent, Region
from ..planning.held import first_written, live_stores
from ..planning.plan import Plan, chunk_extent
from ..program.steps import SOURCE, Program, Step
from ..settings import Place, Progress
from . import devices, recovery
from .autocast import no_autocast
from .convolutions import routed
from .course import Course, course_of, packs
from .feedback import Feedback
from .finite import check_result
from .gathered import AllChunks
from .graphs import outside_graphs
from .kept import Kept
from .norms import maps_of, norm_of
from .remembered import Remembered
from .stores import Reused, allocate, packed
from .task import Pass, Task
from .tile import TileRunner
from .transfers import Transfers, lanes_for
from .weights import Weights


class Execution:
    """One program on its way through one clip (or one stream); see the module's words.

    Invariant: after `run` the caches hold the last frames of every causal convolution's input up to
    that chunk.
    """

    def __init__(
        self,
        program: Program,
        weights: Weights,
        plan: Plan,
        on_progress: Callable[[Progress], object] | None = None,
    ) -> None:
        self._program = program
        self._weights = weights
        lanes = lanes_for(weights.device)
        self._pinned = lanes.pinned
        transfers = Transfers(weights.device, weights.dtype, lanes)
        self.tile_runner = TileRunner(program, weights, transfers)
        self._plan, self._on_progress = plan, on_progress
        self._caches: dict[int, Tensor] = {}
        self._kept = Kept(program, weights, plan, lanes.pinned)
        self._remembered = Remembered(weights, plan, lanes.pinned)
        self._gathered = AllChunks(program, weights, plan, lanes.pinned)
        self._last_use = program.last_use()
        self._live = (*live_stores(program), frozenset[int]())
        self._memory = Reused(weights.dtype, weights.device, plan.stores_at, lanes.pinned)
        self._feedback = Feedback(weights.device, weights.dtype, plan)
        self._courses: dict[tuple[int, Extent, bool], Course] = {}
        self._most_cells: dict[int, int] = {}
        self._announced = False
        self._done_operations = 0
        self._chunk_index = 0

    def close(self) -> None:
        """Free the caches and the memory of stores; the execution cannot go on after it."""
        self._caches.clear()
        self._kept.clear()
        self._remembered.clear()
        self._gathered.clear()
        self._memory.clear()
        self._weights.give_back()
        self.tile_runner.release()
        self._pinned.give_back()

    @outside_graphs
    @torch.inference_mode()
    def run(self, chunk: Chunk, source: Tensor, sink: Tensor, *, last: bool) -> None:
        """Push one chunk through: source [b, c, t, h, w] of any dtype and device, into sink [b, c',
        t', h', w']. Where the source is smaller than the plan has it, its last frame, row and
        column stand for those that are missing.

        last: no chunk follows, so that no caches are kept. Raises `ResultError` where what comes
        out is not finite. Whatever is raised in between leaves nothing allocated. Where there is a
        barrier, `gather` has had all chunks before, and of the source its batch alone counts.
        """
        at = self._pass(chunk)
        at.stores = {SOURCE: source, self._program.sink: sink}
        with self._under_way(at):
            self._restore(at)
            for index in range(self._program.barrier or 0, len(self._program.steps)):
                self._run_step(index, at, last)
            check_result(sink, self._program.name, self._weights.dtype, chunk.target.start)
        self._chunk_index += 1

    @outside_graphs
    @torch.inference_mode()
    def gather(self, chunk: Chunk, source: Tensor, *, last: bool) -> None:
        """Push one chunk through all steps before the program's barrier; see `run`."""
        at = self._pass(chunk)
        at.stores = {SOURCE: source}
        with self._under_way(at):
            for index in range(self._program.barrier or 0):
                self._run_step(index, at, last)
            self._gathered.keep(at)
        self._memory.clear()
        self._chunk_index = 0 if last else self._chunk_index + 1

    def _pass(self, chunk: Chunk) -> Pass:
        self._courses = {} if chunk.band else self._courses  # each band has its own tiles
        extents = self._program.extents(chunk_extent(self._plan.job, chunk), chunk)
        return Pass(chunk, self._chunk_index, extents)

    def _restore(self, at: Pass) -> None:
        """Stores that cross the barrier, where there is one, as they were."""
        writers = first_written(self._program)
        for store, kept in self._gathered.of(at.index).items():
            at.stores[store] = self._new_store(writers[store], at).copy_(kept)

    @contextmanager
    def _under_way(self, at: Pass) -> Generator[None]:
        """A block that pushes a chunk; whatever is raised in it leaves nothing allocated."""
        device = self._weights.device
        try:
            held = chain(self._caches.values(), self._kept.frames.values())  # and holds none
            self._feedback.begin(sum(x.nbytes for x in held if x.device.type == device.type))
            with no_autocast(device), devices.unsearched(device), routed(self._weights.routes):
                yield
        except BaseException:
            self.tile_runner.abandon()
            self.close()
            raise
        finally:
            at.stores.clear()
            at.moments.clear()
        if devices.accelerates(device):  # an allocator keeps it for the next chunk, or for others
            self.tile_runner.release()
            if self._plan.stores_at is Place.DEVICE:
                self._memory.clear()

    def _run_step(self, index: int, at: Pass, last: bool) -> None:
        step = self._program.steps[index]
        runs = at.chunk.makes(step.dst)
        if runs:  # what inputs of the step before took may go before there is a store more
            self.tile_runner.prepare(step, at, self._course(index, at).largest)
        if step.dst not in at.stores:
            at.stores[step.dst] = self._new_store(index, at)
        if runs:
            self._run_tiles(index, at, last)
        self._free(index, at)

    def _run_tiles(self, index: int, at: Pass, last: bool) -> None:
        step, course = self._program.steps[index], self._course(index, at)
        task = self._prepared(index, at)
        at.moments.pop(step.src, None)
        if step.history and not last:
            task.keep_in(self._new_cache(step, at))
        task.new_keys = None if last else self._remembered.more(index, step, at)
        if course.lone:
            at.first(step.dst, step.dst).copy_(at.first(step.src, step.dst))
        self._bound(index, self._feedback.limit(index, at, course.largest))
        for tile, following in pairwise(chain(course.tiles, (None,))):
            assert tile
            self._run_pieces(index, task, tile, following)
            if tile is course.tiles[0]:
                self._bound(index, self._feedback.check(index, at, tile))
        self.tile_runner.settle()
        self._feedback.check(index, at, course.largest.region)
        self._weights.give_back()
        self._caches.pop(index, None)
        if task.new_cache is not None:
            self._caches[index] = task.new_cache

    def _course(self, index: int, at: Pass) -> Course:
        """How a step is gone through in chunks of the kind of `at`."""
        key = (index, *at.kind)
        found = self._courses.get(key)
        if found is None:
            step = self._program.steps[index]
            found = course_of(step, at.src(step), at.chunk, self._plan.tiles[index])
            self._courses[key] = found
        return found

    def _prepared(self, index: int, at: Pass) -> Task:
        """The task of a step, with room made for its weights and statistics where there is none."""
        failures = 0
        while True:
            try:
                return self.task(index, at)
            except Exception as error:
                failures += 1
                if failures > _PATIENCE or not recovery.is_out_of_memory(error):
                    raise
            self._make_room()
            self._evict(at)

    def _run_pieces(self, index: int, task: Task, cells: Region, following: Region | None) -> None:
        """Run a tile, in smaller pieces where the device has no room for the whole of it."""
        pending, failures = [cells], 0
        while pending:
            piece = pending.pop()
            most, halves = self._most_cells.get(index), None
            if most is not None and piece.voxels > most:
                halves = self._halves(index, task.at, piece)
            if halves:
                pending += reversed(halves)
            elif self._attempt(task, piece, following if piece is cells else None):
                self._advance(task.of(piece), piece)
                failures = 0
            else:
                failures += 1
                pending += reversed(self._smaller(index, task, piece, failures))

    def _attempt(self, task: Task, cells: Region, following: Region | None) -> bool:
        """Whether a tile could be run; False where memory ran out."""
        try:
            self.tile_runner.run(task, cells, following)
        except Exception as error:
            if not recovery.is_out_of_memory(error):
                raise
            return False
        return True

    def _smaller(self, index: int, task: Task, cells: Region, failures: int) -> tuple[Region, ...]:
        """What to run in place of a tile that does not fit, after so many failures in a row."""
        self.tile_runner.settle()
        self._make_room()
        halves = self._halves(index, task.at, cells)
        if halves:
            if index not in self._most_cells:
                self._announce(task.step.path, "smaller tiles")
            self._bound(index, cells.voxels - 1)
            return halves
        if self._evict(task.at, task):
            self._announce(task.step.path, "activations move to host memory")
        elif failures < _PATIENCE:
            self._announce(task.step.path, "trying again")
        else:
            raise DeviceMemoryError(
                f"out of memory at {task.step.path}, even with tiles of one element, with"
                f" activations in host memory, and after {failures} attempts. Free memory on"
                f" {self._weights.device}, or set chunk_frames or the batch lower."
            )
        return (cells,)

    def _bound(self, index: int, most_cells: int | None) -> None:
        """Let no later tile of a step be of more cells; None: as it was."""
        if most_cells is not None:
            self._most_cells[index] = min(self._most_cells.get(index, most_cells), most_cells)

    def _halves(self, index: int, at: Pass, cells: Region) -> tuple[Region, ...] | None:
        """Two smaller pieces of a tile; None where it cannot be cut further."""
        rows_are_whole = self._packs(index, at)
        return cells.halves(replace(_LEAST, w=cells.w.size) if rows_are_whole else _LEAST)

    def _make_room(self) -> None:
        """Give the device what is kept for later; a smaller piece needs less of it."""
        self.tile_runner.release()
        recovery.free_unused(self._weights.device)

    def _evict(self, at: Pass, task: Task | None = None) -> bool:
        """Move what lives on the device to host memory; whether anything did."""
        moved = False
        for held in (at.stores, self._caches, self._kept.frames):
            for key, tensor in held.items():
                own = held is not at.stores or key not in (SOURCE, self._program.sink)
                if own and tensor.device.type != "cpu":
                    held[key], moved = tensor.cpu(), True
        for name in ("old_cache", "new_cache"):
            cache = getattr(task, name, None)
            if cache is not None and cache.device.type != "cpu":
                setattr(task, name, cache.cpu())
                moved = True
        if task and task.new_cache is not None:
            task.keep_in(task.new_cache)
        if moved and self._plan.stores_at is Place.DEVICE:
            self._memory.clear()
        return moved

    def _announce(self, path: str, measure: str) -> None:
        if not self._announced:
            recovery.announce(path, measure)
        self._announced = True

    def task(self, index: int, at: Pass) -> Task:
        """Step `index` of a pass, with its weights made ready and the statistics of src
        finished.
        """
        step = self._program.steps[index]
        norm = norm_of(step.norm, self._weights, at.moments.get(step.src)) if step.norm else None
        shortcut = step.residual.shortcut if step.residual else None
        wanted = self._program.norm_to_come(index)
        task = Task(
            step,
            at,
            self.tile_runner.phases(step),
            self._weights.conv(shortcut.path) if shortcut else None,
            maps_of(step.norm, self._weights),
            norm,
            wanted.groups if wanted else None,
            wanted is not None and wanted.per_frame,
            self._caches.get(index),
            keys=self._remembered.of(index) or self._gathered.keys(step),
            windows=self._course(index, at).windows,
        )
        (first, _), *_ = step.runs(at.src(step), at.chunk)
        if first is not step:
            phases = self.tile_runner.first_phases(first, task.phases)
            task.first = replace(task, step=first, phases=phases)
        return task

    def _packs(self, index: int, at: Pass) -> bool:
        """Whether a step writes a store inside another one row by row; see `course.packs`."""
        far = self._plan.stores_at is Place.HOST and devices.accelerates(self._weights.device)
        return far and packs(self._program, index) and self._course(index, at).as_wide

    def _new_store(self, index: int, at: Pass) -> Tensor:
        """Unwritten memory for what a step writes, on the host where the device has no room."""
        store = self._program.steps[index].dst
        spec, extent = self._program.stores[store], self._kept.room(store, at)
        if spec.inside is not None:
            outer = at.stores[spec.inside]
            return (
                packed(outer, spec.channels)
                if self._packs(index, at)
                else outer[:, : spec.channels]
            )
        shape = at.shape(spec.channels, extent)
        make = partial(self._memory.take, store, shape)
        return self._kept.restored(store, at, self._or_on_host(make, shape, self._plan.stores_at))

    def _new_cache(self, step: Step, at: Pass) -> Tensor:
        """Unwritten memory for a step's cache, on the host where the device has no room."""
        shape = at.cache_shape(step)
        dtype, device, place = self._weights.dtype, self._weights.device, self._plan.caches_at
        make = partial(allocate, shape, dtype, device, place, self._pinned)
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
        recovery.free_unused(self._weights.device)
        self._announce("an activation's allocation", "it goes to host memory")
        return allocate(shape, self._weights.dtype, self._weights.device, Place.HOST)

    def _free(self, index: int, at: Pass) -> None:
        """Let go of stores that no later step touches, and of their memory where none lies in
        it.
        """
        for store, last_use in self._last_use.items():
            if last_use == index and store not in (SOURCE, self._program.sink):
                self._kept.keep(store, at)
                del at.stores[store]
        for store in self._live[index] - self._live[index + 1]:
            self._memory.give(store)

    def _advance(self, task: Task, cells: Region) -> None:
        step, at = task.step, task.at
        self._done_operations += task.cell_operations * cells.voxels
        if self._on_progress:
            total = max(self._plan.operations, self._done_operations)
            chunks = len(self._plan.chunks)
            self._on_progress(Progress(self._done_operations, total, at.index, chunks, step.path))


_LEAST = Extent(1, 1, 1)
"""The smallest piece that a tile is cut into when memory runs out."""

_PATIENCE = 20
"""Failures in a row, each after something was freed or made smaller, before a run is given up."""
