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

from collections.abc import Callable
from dataclasses import replace
from itertools import chain, pairwise

import torch
from torch import Tensor

from ..errors import DeviceMemoryError
from ..geometry.grid import Chunk
from ..geometry.region import Extent, Region
from ..planning.memory import live_stores
from ..planning.plan import Plan, chunk_extent
from ..program.parts import Norm
from ..program.steps import SOURCE, Program
from ..settings import Place, Progress
from . import devices, kernels, recovery
from .autocast import no_autocast
from .convolutions import routed
from .course import Course, course_of
from .feedback import Feedback
from .finite import check_result
from .graphs import outside_graphs
from .residence import Residence
from .split import copy_first_frame
from .statistics import finished
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
        transfers = Transfers(weights.device, weights.dtype, lanes)
        self.tile_runner = TileRunner(program, weights, transfers)
        self._on_progress = on_progress
        self._last_use = program.last_use()
        self._live = (*live_stores(program), frozenset[int]())
        self._feedback = Feedback(weights.device, weights.dtype, plan)
        self._packed: set[int] = set()
        self._courses: dict[tuple[int, Extent, bool], Course] = {}
        self._most_cells: dict[int, int] = {}
        self._announced = False
        self._done_operations = 0
        self._chunk_index = 0

    def close(self) -> None:
        """Free the caches and the memory of stores; the execution cannot go on after it."""
        self._residence.clear()
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
        """
        extents = self._program.extents(chunk_extent(self._residence.plan.job, chunk), chunk)
        at = Pass(chunk, self._chunk_index, extents)
        at.stores = {SOURCE: source, self._program.sink: sink}
        try:
            device = self._weights.device
            self._feedback.begin(sum(cache.nbytes for cache in self._near_caches()))
            with no_autocast(device), devices.unsearched(device), routed(self._weights.routes):
                for index in range(len(self._program.steps)):
                    self._run_step(index, at, last)
                check_result(sink, self._program.name, self._weights.dtype, chunk.target.start)
        except BaseException:
            self.tile_runner.abandon()
            self.close()
            raise
        finally:
            at.stores.clear()
            at.moments.clear()
            self._packed.clear()
        if devices.accelerates(self._weights.device):
            self.tile_runner.release()  # an allocator keeps it for the next chunk, or for others
        self._chunk_index += 1

    def _run_step(self, index: int, at: Pass, last: bool) -> None:
        step, course = self._program.steps[index], self._course(index, at)
        self.tile_runner.prepare(step, at, course.largest)
        if step.dst not in at.stores:
            if self._packs(index, at):
                self._packed.add(index)
            packs = index in self._packed
            at.stores[step.dst] = self._residence.new_store(step.dst, at, packs=packs)
        task = self._prepared(index, at)
        at.moments.pop(step.src, None)
        if step.history and not last:
            task.new_cache = self._residence.new_cache(step, at)
        if course.lone:
            copy_first_frame(at.stores[step.src], at.stores[step.dst])
        self._bound(index, self._feedback.limit(index, at, course.largest))
        for tile, following in pairwise(chain(course.tiles, (None,))):
            assert tile
            self._run_pieces(index, task, tile, following)
            if tile is course.tiles[0]:
                self._bound(index, self._feedback.check(index, at, tile))
        self.tile_runner.settle()
        self._feedback.check(index, at, course.largest.region)
        self._weights.give_back()
        self._residence.caches.pop(index, None)
        if task.new_cache is not None:
            self._residence.caches[index] = task.new_cache
        self._free(index, at)

    def _course(self, index: int, at: Pass) -> Course:
        """How a step is gone through in chunks of the kind of `at`."""
        key = (index, *at.kind)
        found = self._courses.get(key)
        if found is None:
            step, way = self._program.steps[index], self._residence.way(at)
            height = at.extents[step.dst].h
            near = height - way.places.far_rows(step.dst, height)
            found = course_of(step, at.src(step), at.chunk, way.tiles[index], near)
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
            if failures > 1 and not self._mend(index, failures):
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
        if residence.can_mend:
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

    def _near_caches(self) -> list[Tensor]:
        """The caches that lie on the device."""
        where = self._weights.device.type
        return [cache for cache in self._residence.caches.values() if cache.device.type == where]

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
        """Step `index` of a pass, with its weights made ready and the statistics of src
        finished.
        """
        step = self._program.steps[index]
        norm = self._norm(step.norm, at, step.src) if step.norm else None
        shortcut = step.residual.shortcut if step.residual else None
        task = Task(
            step,
            at,
            self.tile_runner.phases(step),
            self._weights.conv(shortcut.path) if shortcut else None,
            self._maps(step.norm),
            norm,
            _groups_wanted(self._program, index),
            self._residence.caches.get(index),
            windows=self._course(index, at).windows,
        )
        (first, _), *later = step.runs(at.src(step), at.chunk)
        if later:
            phases = self.tile_runner.last_taps(task.phases)
            task.first = replace(task, step=first, phases=phases)
        return task

    def _packs(self, index: int, at: Pass) -> bool:
        """Whether a step writes a store inside another one row by row, without gaps.

        Rows of its frames then go from a card to the host in one piece. Those that are written lie
        where rows above them lay, which have been read: so tiles are as wide as the picture.
        """
        step = self._program.steps[index]
        inside, residual = self._program.stores[step.dst].inside, step.residual
        if inside is None or residual is None or residual.store != inside:
            return False
        places = self._residence.way(at).places
        if places.has_own_memory(self._program, step.dst):
            return False
        far = places.of_store(step.dst) is Place.HOST and devices.accelerates(self._weights.device)
        return far and self._course(index, at).as_wide

    def _free(self, index: int, at: Pass) -> None:
        """Let go of stores that no later step touches, and of their memory where none lies in
        it.
        """
        for store, last_use in self._last_use.items():
            if last_use == index and store not in (SOURCE, self._program.sink):
                del at.stores[store]
        for store in self._live[index] - self._live[index + 1]:
            self._residence.give(store)

    def _advance(self, task: Task, cells: Region) -> None:
        step, at = task.step, task.at
        self._done_operations += task.cell_operations * cells.voxels
        if self._on_progress:
            plan = self._residence.plan
            total, chunks = max(plan.operations, self._done_operations), len(plan.chunks)
            self._on_progress(Progress(self._done_operations, total, at.index, chunks, step.path))

    def _norm(self, norm: Norm, at: Pass, src: int) -> kernels.Affine | kernels.VoxelNorm:
        """What a norm does to each element, once the statistics of what it reads are known."""
        if norm.per_voxel:
            return kernels.voxel_norm(norm.eps, *self._weights.voxel_norm(norm.path))
        moments = finished(at.moments[src], norm.groups)
        return kernels.affine(moments, norm.eps, *self._weights.affine(norm.path))

    def _maps(self, norm: Norm | None) -> tuple[kernels.Kernel, ...] | None:
        """The modulation convolutions of a norm, one on an accelerator; None where it has none."""
        if norm is None or norm.scale_path is None or norm.shift_path is None:
            return None
        maps = self._weights.conv(norm.scale_path), self._weights.conv(norm.shift_path)
        together = devices.accelerates(self._weights.device)
        return (kernels.joined(*maps),) if together else maps


_LEAST = Extent(1, 1, 1)
"""The smallest piece that a tile is cut into when memory runs out."""

_LESS, _MUCH_LESS, _HASTE = 15 / 16, 3 / 4, 6
"""What a step is planned for, of what it took when it failed; and after how many failures in a row
it is the lesser share.
"""

_PATIENCE = 20
"""Failures in a row, each after something was freed or made smaller, before a run is given up."""


def _groups_wanted(program: Program, index: int) -> int | None:
    """Groups of the norm that reads what step `index` writes; None where no step normalises it."""
    dst = program.steps[index].dst
    for step in program.steps[index + 1 :]:
        if step.src == dst and step.norm:
            return None if step.norm.per_voxel else step.norm.groups
        if step.dst == dst:
            return None
    return None
