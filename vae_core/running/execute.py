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
from itertools import chain, pairwise

import torch
from torch import Tensor

from ..errors import DeviceMemoryError
from ..geometry.grid import Chunk
from ..geometry.region import Extent, Interval, Region
from ..planning.bands import Band, Bands, heights_of, schedule
from ..planning.held import live_stores
from ..planning.plan import Plan, chunk_extent
from ..program.steps import SOURCE, Program, Step
from ..settings import Progress
from . import devices, recovery
from .autocast import no_autocast
from .convolutions import routed
from .courses import Courses
from .feedback import Feedback
from .finite import check_result
from .gathered import AllChunks
from .graphs import outside_graphs
from .norms import maps_of, norm_of
from .ready import Ready
from .remembered import Remembered
from .residence import Residence
from .split import copy_first_frame
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
        self._residence = Residence(program, weights, plan, lanes.pinned, self._announce)
        self._remembered = Remembered(weights, plan, lanes.pinned)
        self._gathered = AllChunks(program, weights, plan, lanes.pinned)
        ready = self._ready = Ready(weights, keeps=plan.kept_bytes > 0)
        transfers = Transfers(weights.device, weights.dtype, lanes)
        self.tile_runner = TileRunner(program, ready, transfers)
        self._on_progress = on_progress
        self._last_use = program.last_use()
        self._live = (*live_stores(program), frozenset[int]())
        self._feedback = Feedback(weights.device, weights.dtype, plan)
        self._packed: set[int] = set()
        self._courses = Courses(program, self._residence, weights.device)
        self._most_cells: dict[int, int] = {}
        self._turning = False
        self._failed: int | None = None
        self._announced = False
        self._done_operations = 0
        self._chunk_index = 0

    def close(self) -> None:
        """Free the caches and the memory of stores; the execution cannot go on after it."""
        self._residence.clear()
        self._remembered.clear()
        self._gathered.clear()
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
        out is not finite. Whatever is raised in between leaves nothing allocated.

        Where the program has a barrier, all chunks have to be given to `gather` before, and of the
        source no more than its batch counts.
        """
        at = self._pass(chunk)
        at.stores = {SOURCE: source, self._program.sink: sink}
        with self._under_way(at):
            self._restore(at)
            self._run_all(range(self._program.barrier or 0, len(self._program.steps)), at, last)
            check_result(sink, self._program.name, self._weights.dtype, chunk.target.start)
        self._chunk_index += 1

    @outside_graphs
    @torch.inference_mode()
    def gather(self, chunk: Chunk, source: Tensor, *, last: bool) -> None:
        """Push one chunk through all steps before the program's barrier; see `run`."""
        at = self._pass(chunk)
        at.stores = {SOURCE: source}
        with self._under_way(at):
            self._run_all(range(self._program.barrier or 0), at, last)
            self._gathered.keep(at)
        self._residence.release()
        self._chunk_index = 0 if last else self._chunk_index + 1

    def _pass(self, chunk: Chunk) -> Pass:
        if chunk.band:  # each has its own tiles
            self._courses.clear()
        extents = self._program.extents(chunk_extent(self._residence.plan.job, chunk), chunk)
        return Pass(chunk, self._chunk_index, extents)

    def _restore(self, at: Pass) -> None:
        """Stores that cross the barrier, where there is one, as they were."""
        for store, kept in self._gathered.of(at.index).items():
            made = at.stores[store] = self._residence.new_store(store, at, packs=False)
            assert isinstance(made, Tensor)
            made.copy_(kept)

    @contextmanager
    def _under_way(self, at: Pass) -> Generator[None]:
        """A block that pushes a chunk; whatever is raised in it leaves nothing allocated."""
        device = self._weights.device
        try:
            self._feedback.begin(self._residence.near_bytes())
            with no_autocast(device), devices.unsearched(device), routed(self._weights.routes):
                yield
        except BaseException:
            self.tile_runner.abandon()
            self.close()
            raise
        finally:
            at.stores.clear()
            at.moments.clear()
            self._packed.clear()
        if devices.accelerates(device):
            self.tile_runner.release()  # an allocator keeps it for the next chunk, or for others

    def _run_all(self, steps: range, at: Pass, last: bool) -> None:
        """Steps of the program, some of which may take turns."""
        index = steps.start
        while index < steps.stop:
            bands = self._residence.way(at).places.bands
            turns = ()
            if bands and bands.start == index:
                turns = schedule(self._program, bands, heights_of(at.extents))
            if bands and turns:
                self._run_turns(bands, turns, at, last)
                index = bands.stop
            else:
                self._run_rows(index, at, last)
                self._end(index, at)
                index += 1

    def _run_turns(self, bands: Bands, turns: tuple[Band, ...], at: Pass, last: bool) -> None:
        """The steps of a run, a band of rows after the other."""
        self._turning = True
        for turn in turns:
            for store, rows in turn.windows.items():
                self._residence.window(store, bands, at).roll(rows.start, rows.stop)
            for index, cells in zip(bands.steps, turn.cells, strict=True):
                if cells:
                    self._run_rows(index, at, last, cells)
        self._turning = False
        for index in bands.steps:
            self._end(index, at)
        if self._failed is not None:
            self._mend(self._failed, 1)
            self._residence.leave(at, None)
            self._failed = None

    def _run_rows(self, index: int, at: Pass, last: bool, rows: Interval | None = None) -> None:
        """The tiles of a step, or those of some of its rows of cells."""
        step = self._program.steps[index]
        runs = at.chunk.makes(step.dst)
        if runs:  # what inputs of the step before took may go before there is a store more
            self.tile_runner.prepare(step, at, self._courses.of(index, at, rows).largest)
        if step.dst not in at.stores:
            packs = self._courses.packs(index, at)
            self._packed |= {index} if packs else set()
            at.stores[step.dst] = self._residence.new_store(step.dst, at, packs=packs)
        if runs:
            self._run_tiles(index, at, last, rows)

    def _run_tiles(self, index: int, at: Pass, last: bool, rows: Interval | None) -> None:
        step, course = self._program.steps[index], self._courses.of(index, at, rows)
        task = self._prepared(index, at)
        at.moments.pop(step.src, None)
        if step.history and not last:
            task.keep_in(self._residence.fresh_cache(index, at))
        task.new_keys = None if last else self._remembered.more(index, step, at)
        if course.lone:
            self._copy_first(step, at, rows or Interval(0, at.src(step).h))
        self._feedback.start()
        self._bound(index, self._feedback.limit(index, at, course.largest))
        for tile, following in pairwise(chain(course.tiles, (None,))):
            assert tile
            self._run_pieces(index, task, tile, following)
            if tile is course.tiles[0]:
                self._bound(index, self._feedback.check(index, at, tile))
        self.tile_runner.settle()
        self._feedback.check(index, at, course.largest.region)
        self._weights.give_back()
        if task.new_cache is not None:
            self._residence.fresh[index] = task.new_cache

    def _copy_first(self, step: Step, at: Pass, rows: Interval) -> None:
        """Rows of a first frame that stands alone are copied past the step."""
        copy_first_frame(at.stores[step.src], at.stores[step.dst], rows.start, rows.stop)

    def _end(self, index: int, at: Pass) -> None:
        """A step has run: its new cache takes the place of the old one."""
        self._residence.caches.pop(index, None)
        if index in self._residence.fresh:
            self._residence.caches[index] = self._residence.fresh.pop(index)
        self._free(index, at)

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
            if failures > 1 and (self._turning or not self._mend(index, failures)):
                self._residence.leave(at, None, every=True)
            self._residence.leave(at, None)

    def _run_pieces(self, index: int, task: Task, cells: Region, following: Region | None) -> None:
        """Run a tile, in smaller pieces where the device has no room for the whole of it."""
        pending, failures = [cells], 0
        while pending:
            piece = pending.pop()
            most = self._most_cells.get(index)
            if most is not None and piece.voxels > most and (halves := self._halves(index, piece)):
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
        residence, at = self._residence, task.at
        if self._turning:
            self._failed = index
        elif residence.can_mend:
            if failures == 1:
                return (cells,)  # what was freed may be enough
            if self._mend(index, failures):
                left = residence.leave(at, task)
                measure = "activations move to host memory" if left else "smaller tiles"
                self._announce(task.step.path, measure)
                self._most_cells[index] = residence.way(at).tiles[index].voxels
                return (cells,)
        halves = self._halves(index, cells)
        if halves:
            if index not in self._most_cells:
                self._announce(task.step.path, "smaller tiles")
            self._bound(index, cells.voxels - 1)
            return halves
        if residence.leave(at, task, every=True):
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

    def _mend(self, index: int, failures: int) -> bool:
        """Go by a plan for less memory from now on, and for the more so the more has failed."""
        mended = self._residence.mend(index, _LESS if failures < _HASTE else _MUCH_LESS)
        if mended:
            self._feedback.plan = self._residence.plan
            self._courses.clear()
            self._most_cells.clear()
        return mended

    def _halves(self, index: int, cells: Region) -> tuple[Region, ...] | None:
        """Two smaller pieces of a tile; None where it cannot be cut further."""
        rows_are_whole = index in self._packed
        return cells.halves(replace(_LEAST, w=cells.w.size) if rows_are_whole else _LEAST)

    def _make_room(self) -> None:
        """Give the device what is kept for later; a smaller piece needs less of it."""
        self.tile_runner.release()
        recovery.free_unused(self._weights.device)

    def _announce(self, path: str, measure: str) -> None:
        if not self._announced:
            recovery.announce(path, measure)
        self._announced = True

    def task(self, index: int, at: Pass) -> Task:
        """Step `index` of a pass, its weights made ready and the statistics of src finished."""
        step = self._program.steps[index]
        norm = norm_of(step.norm, self._weights, at.moments.get(step.src)) if step.norm else None
        shortcut = step.residual.shortcut if step.residual else None
        wanted = self._program.norm_to_come(index)
        course = self._courses.of(index, at)
        task = Task(
            step,
            at,
            self._ready.phases(step, course.largest),
            self._weights.conv(shortcut.path) if shortcut else None,
            maps_of(step.norm, self._weights),
            norm,
            wanted.groups if wanted else None,
            wanted is not None and wanted.per_frame,
            self._residence.caches.get(index),
            keys=self._remembered.of(index) or self._gathered.keys(step),
            windows=course.windows,
        )
        (first, _), *_ = step.runs(at.src(step), at.chunk)
        if first is not step:
            phases = self._ready.first_phases(first, task.phases, course.largest)
            task.first = replace(task, step=first, phases=phases)
        return task

    def _free(self, index: int, at: Pass) -> None:
        """Let go of stores that no later step touches, and of their memory where none lies in
        it.
        """
        for store, last_use in self._last_use.items():
            if last_use == index and store not in (SOURCE, self._program.sink):
                self._residence.keep(store, at)
                del at.stores[store]
        for store in self._live[index] - self._live[index + 1]:
            self._residence.give(store)

    def _advance(self, task: Task, cells: Region) -> None:
        step, at = task.step, task.at
        self._done_operations += task.cell_operations * cells.voxels
        if self._on_progress:
            plan, done = self._residence.plan, self._done_operations
            chunks, path = len(plan.chunks), step.path
            self._on_progress(Progress(done, max(plan.operations, done), at.index, chunks, path))


_LEAST = Extent(1, 1, 1)
"""The smallest piece that a tile is cut into when memory runs out."""

_LESS, _MUCH_LESS, _HASTE = 15 / 16, 3 / 4, 6
"""What a step is planned for, of what it took when it failed; and after how many failures in a row
it is the lesser share.
"""

_PATIENCE = 20
"""Failures in a row, each after something was freed or made smaller, before a run is given up."""
