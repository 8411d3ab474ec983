"""How does a plan become pixels? The only loop that runs kernels.

`Execution` carries one program over the chunks of a clip:

1. The outer loop (the caller's) hands over chunks in order; causal caches go from each to the next.
2. The middle loop takes the program's steps: allocate dst, finish the statistics of src, run the
   tiles, free what no later step reads.
3. The inner loop takes the tiles: read a region of src, normalise it, put it into the convolution's
   input beside its history and the picture's edge, convolve, add the residual, write the core, and
   merge its moments.

Nothing here decides: chunks, tiles and placement come from the plan, geometry from the program.
What a tile allocates is what `memory.tile_bytes` counts; change both together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from . import kernels
from .grid import Chunk, cells_of, tiles
from .moments import Moments
from .plan import Plan
from .program import SOURCE, Norm, Program, Step, TimeMap
from .region import Extent, Region
from .settings import Place, Progress
from .stores import allocate
from .weights import Weights


@dataclass(slots=True)
class Pass:
    """One chunk on its way through the program.

    index: of the chunk. extents: of every store.
    stores: the live activations, by store index; the caller's own tensors at both ends.
    moments: statistics of the stores that a later step normalises.
    """

    chunk: Chunk
    index: int
    extents: tuple[Extent, ...]
    stores: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    moments: dict[int, Moments] = field(default_factory=dict[int, Moments])

    def keeps_first(self, store: int) -> bool:
        """Whether the first frame of a store stands alone."""
        return self.chunk.keeps_first(self.extents[store].t)


@dataclass(slots=True)
class Task:
    """One step of one pass, with everything that its tiles share.

    phases: the convolutions of each cell. shortcut: weight and bias of the residual's own.
    norm: the affine map of src's finished statistics, None where it normalises nothing.
    groups: groups of channels over which dst's moments are wanted, None where nobody wants them.
    old_cache, new_cache: [b, c, history, h, w]; None without history, at a clip's start, or its
        end.
    """

    step: Step
    at: Pass
    phases: tuple[kernels.Phase, ...]
    shortcut: kernels.Kernel | None
    norm: kernels.Affine | None
    groups: int | None
    old_cache: Tensor | None = None
    new_cache: Tensor | None = None

    @property
    def src(self) -> Extent:
        return self.at.extents[self.step.src]

    @property
    def keeps_first(self) -> bool:
        return self.at.keeps_first(self.step.src)


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
        self._plan = plan
        self._on_progress = on_progress
        self._caches: dict[int, Tensor] = {}
        self._last_use = program.last_use()
        self._done_operations = 0
        self._chunk_index = 0

    def close(self) -> None:
        """Free the caches; the execution cannot go on after it."""
        self._caches.clear()

    @torch.inference_mode()
    def run(self, chunk: Chunk, source: Tensor, sink: Tensor, *, last: bool) -> None:
        """Push one chunk through: source [b, c, t, h, w] of any dtype and device, into sink [b, c',
        t', h', w'].

        last: no chunk follows, so that no caches are kept. Whatever is raised in between leaves
        nothing allocated.
        """
        extent = Extent(*source.shape[2:])
        at = Pass(chunk, self._chunk_index, self._program.extents(extent, chunk))
        at.stores = {SOURCE: source, self._program.sink: sink}
        try:
            for index in range(len(self._program.steps)):
                self._run_step(index, at, last)
        except BaseException:
            self.close()
            raise
        finally:
            at.stores.clear()
            at.moments.clear()
        self._chunk_index += 1

    def _run_step(self, index: int, at: Pass, last: bool) -> None:
        step = self._program.steps[index]
        if step.dst not in at.stores:
            at.stores[step.dst] = self._new_store(step.dst, at)
        task = self.task(index, at)
        if step.history and not last:
            src = at.extents[step.src]
            extent = Extent(step.history, src.h, src.w)
            task.new_cache = self._empty(step.conv.in_channels, extent, at, self._plan.caches_at)
        for cells in tiles(step.cell_extent(task.src, at.chunk), self._plan.tiles[index]):
            self.run_tile(task, cells)
            self._advance(step, cells, at)
        self._caches.pop(index, None)
        if task.new_cache is not None:
            self._caches[index] = task.new_cache
        self._free(index, at)

    def task(self, index: int, at: Pass) -> Task:
        """Step `index` of a pass, with its weights made ready and the statistics of src
        finished.
        """
        step = self._program.steps[index]
        norm = self._affine(step.norm, at.moments.pop(step.src)) if step.norm else None
        shortcut = step.residual.shortcut if step.residual else None
        return Task(
            step,
            at,
            kernels.phases(self._weights.conv(step.path), step.upscale == 2, step.unfolds),
            self._weights.conv(shortcut.path) if shortcut else None,
            norm,
            _groups_wanted(self._program, index),
            self._caches.get(index),
        )

    def _new_store(self, store: int, at: Pass) -> Tensor:
        spec = self._program.stores[store]
        if spec.inside is not None:
            return at.stores[spec.inside][:, : spec.channels]
        return self._empty(spec.channels, at.extents[store], at, self._plan.stores_at)

    def _empty(self, channels: int, extent: Extent, at: Pass, place: Place) -> Tensor:
        batch = at.stores[SOURCE].shape[0]
        shape = (batch, channels, extent.t, extent.h, extent.w)
        return allocate(shape, self._weights.dtype, self._weights.device, place)

    def _free(self, index: int, at: Pass) -> None:
        for store, last_use in self._last_use.items():
            if last_use == index and store not in (SOURCE, self._program.sink):
                del at.stores[store]

    def _advance(self, step: Step, cells: Region, at: Pass) -> None:
        self._done_operations += at.stores[SOURCE].shape[0] * step.operations(cells.extent)
        if self._on_progress:
            total = max(self._plan.operations, self._done_operations)
            chunks = len(self._plan.chunks)
            self._on_progress(Progress(self._done_operations, total, at.index, chunks, step.path))

    def _affine(self, norm: Norm, moments: Moments) -> kernels.Affine:
        return kernels.affine(moments, norm.eps, *self._weights.affine(norm.path))

    def run_tile(self, task: Task, cells: Region) -> None:
        """Compute what `cells` make in the task's step and merge its moments."""
        buffer = self._input(task, cells)
        *early, last = task.phases
        for phase in early:
            self._finish(task, cells, phase, kernels.convolve(buffer, phase, task.step.conv.stride))
        result = kernels.convolve(buffer, last, task.step.conv.stride)
        del buffer
        self._finish(task, cells, last, result)

    def _finish(self, task: Task, cells: Region, phase: kernels.Phase, result: Tensor) -> None:
        """Add the residual to one phase of a tile, write it, and merge its moments."""
        step, at = task.step, task.at
        core = step.core(cells, task.src, at.chunk)
        if step.residual:
            self._add_residual(task, core, result)
        target = at.stores[step.dst][(..., *core.slices)]
        if step.unfolds:
            first = 2 * cells.t.start - task.keeps_first
            result, target = kernels.frames_of_phase(phase, result, target, first)
        target[..., phase.row :: step.upscale, phase.column :: step.upscale].copy_(result)
        if task.groups:
            self._measure(task, core, result)

    def _add_residual(self, task: Task, core: Region, result: Tensor) -> None:
        residual, at = task.step.residual, task.at
        assert residual
        keeps_first = at.keeps_first(residual.store)
        where = residual.source(core, keeps_first)
        added = self._read(at.stores[residual.store], where)
        if task.shortcut:
            added = F.conv3d(added, *task.shortcut)
        if residual.repeated:
            kernels.add_pairs(result, added, core.t, where.t, keeps_first)
        else:
            result.add_(added)

    def _measure(self, task: Task, core: Region, result: Tensor) -> None:
        groups, dst, moments = task.groups, task.step.dst, task.at.moments
        assert groups
        shown = self._program.stores[dst].shown
        alone = shown > 1 and core.t.start == 0 and task.at.keeps_first(dst)
        parts = result.split((1, result.shape[2] - 1), dim=2) if alone else (result,)
        for part, times in zip(parts, (1, shown) if alone else (shown,), strict=True):
            if part.shape[2]:
                found = kernels.measure(part, groups).repeated(times)
                moments[dst] = moments[dst].merge(found) if dst in moments else found

    def _read(self, store: Tensor, region: Region) -> Tensor:
        """A region of a store, on the run's device and in its dtype: a view where it is so
        already.
        """
        found = store[(..., *region.slices)]
        return found.to(self._weights.device, self._weights.dtype, non_blocking=True)

    def _input(self, task: Task, cells: Region) -> Tensor:
        """Everything that `cells` see: [b, c, t + history, h + halo, w + halo]."""
        step = task.step
        whole = step.seen_region(cells)
        inside = whole.clip(step.seen_extent(task.src, task.at.chunk))
        buffer = self._empty(step.conv.in_channels, whole.extent, task.at, Place.DEVICE)
        kernels.zero_outside(buffer, inside, whole)
        self._fill(task, cells, inside, buffer[(..., *inside.within(whole))])
        self._history(task, inside, whole, buffer)
        return buffer

    def _fill(self, task: Task, cells: Region, inside: Region, out: Tensor) -> None:
        """out = what the convolution sees of src: normalised, pooled, repeated, or as it is."""
        step = task.step
        where = step.source_region(cells, task.src, task.at.chunk)
        x = self._read(task.at.stores[step.src], where)
        if task.norm:
            self._normalise(task, x, where, out)
        elif step.time_map is TimeMap.POOL_PAIRS:
            kernels.pool_pairs(x, task.keeps_first and where.t.start == 0, out)
        elif step.time_map is TimeMap.REPEAT_PAIRS:
            frames = kernels.shown(inside.t, where.t.start, 2, task.keeps_first, x.device)
            out.copy_(x.index_select(2, frames))
        else:
            out.copy_(x)

    def _normalise(self, task: Task, x: Tensor, where: Region, out: Tensor) -> None:
        norm = task.step.norm
        assert norm
        assert task.norm
        if not norm.modulated:
            kernels.normalise(x, task.norm, out)
            return
        ratios = self._latent_ratios(task)
        cells = Region(
            cells_of(where.t, ratios.frames, ratios.keeps_first),
            cells_of(where.h, ratios.px, keeps_first=False),
            cells_of(where.w, ratios.px, keeps_first=False),
        )
        kernels.modulate(x, self._maps(norm, task, cells), where, cells, ratios, out)

    def _latent_ratios(self, task: Task) -> kernels.Repeats:
        latents, here = self._program.stores[SOURCE], self._program.stores[task.step.src]
        frames, px = latents.frames // here.frames, latents.px // here.px
        return kernels.Repeats(frames, px, task.keeps_first)

    def _maps(self, norm: Norm, task: Task, cells: Region) -> kernels.Affine:
        """GroupNorm and modulation as one scale and shift for each of the latent `cells`."""
        assert norm.scale_path
        assert norm.shift_path
        assert task.norm
        latents = self._read(task.at.stores[SOURCE], cells)
        scale, shift = (
            F.conv3d(latents, *self._weights.conv(path))
            for path in (norm.scale_path, norm.shift_path)
        )
        return kernels.modulated(task.norm, scale, shift)

    def _history(self, task: Task, inside: Region, whole: Region, buffer: Tensor) -> None:
        """Fill the frames before the chunk, from the cache or with the clip's first frame, and keep
        the newest ones.
        """
        missing = inside.t.start - whole.t.start
        _, h, w = inside.within(whole)
        if missing:
            past = buffer[:, :, :missing, h, w]
            if task.old_cache is None:
                past.copy_(buffer[:, :, missing : missing + 1, h, w].expand_as(past))
            else:
                past.copy_(task.old_cache[(..., slice(-missing, None), *inside.slices[1:])])
        seen = task.step.seen_extent(task.src, task.at.chunk)
        if task.new_cache is not None and inside.t.stop == seen.t:
            kept = buffer[:, :, -task.step.history :, h, w]
            task.new_cache[(..., *inside.slices[1:])].copy_(kept)


def _groups_wanted(program: Program, index: int) -> int | None:
    """Groups of the norm that reads what step `index` writes; None where no step normalises it."""
    dst = program.steps[index].dst
    for step in program.steps[index + 1 :]:
        if step.src == dst and step.norm:
            return step.norm.groups
        if step.dst == dst:
            return None
    return None
