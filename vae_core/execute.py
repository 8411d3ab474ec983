"""How does a plan become pixels? The only loop that runs kernels.

`Execution` carries one program over the chunks of a clip:

1. The outer loop (the caller's) hands over chunks in order; causal caches go from each to the next.
2. The middle loop takes the program's steps: allocate dst, finish the statistics of src, run the
   tiles, free what no later step reads.
3. The inner loop takes the tiles of dst: read a region of src, normalise it, put it into the
   convolution's input beside its history and the picture's edge, convolve, add the residual, write
   the core, and merge its moments.

Nothing here decides: chunks, tiles and placement come from the plan, geometry from the program.
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
from .planner import Plan
from .program import SOURCE, Conv, Norm, Program, Step, TimeMap
from .region import Extent, Region
from .settings import Progress
from .weights import Weights


@dataclass(slots=True)
class Pass:
    """One chunk on its way through the program.

    stores: the live activations, by store index; the caller's own tensors at both ends.
    moments: statistics of the stores that a later step normalises.
    extents: of every store.
    """

    chunk: Chunk
    index: int
    extents: tuple[Extent, ...]
    stores: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    moments: dict[int, Moments] = field(default_factory=dict[int, Moments])


@dataclass(slots=True)
class Task:
    """One step of one pass, with everything that its tiles share.

    norm: the affine map of its finished statistics, None where it normalises nothing.
    groups: groups of channels over which dst's moments are wanted, None where nobody normalises
        dst.
    old_cache, new_cache: [b, c, k_t - 1, h, w]; None without history, at a clip's start, or at its
        end.
    """

    step: Step
    at: Pass
    norm: kernels.Affine | None
    groups: int | None
    old_cache: Tensor | None
    new_cache: Tensor | None

    @property
    def src(self) -> Extent:
        return self.at.extents[self.step.src]

    @property
    def keeps_first(self) -> bool:
        return self.at.chunk.keeps_first(self.src.t)


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
        self._groups = [_groups_wanted(program, index) for index in range(len(program.steps))]
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
            for index, step in enumerate(self._program.steps):
                self._run_step(index, step, at, last)
        except BaseException:
            self.close()
            raise
        finally:
            at.stores.clear()
            at.moments.clear()
        self._chunk_index += 1

    def _run_step(self, index: int, step: Step, at: Pass, last: bool) -> None:
        batch = at.stores[SOURCE].shape[0]
        if step.dst not in at.stores:
            at.stores[step.dst] = self._empty(batch, step.conv.out_channels, at.extents[step.dst])
        old, new = self._caches.get(index), None
        if step.conv.history and not last:
            new = self._empty(batch, step.conv.in_channels, _cache_extent(step, at))
        norm = self._affine(step.norm, at.moments.pop(step.src)) if step.norm else None
        task = Task(step, at, norm, self._groups[index], old, new)
        for core in tiles(at.extents[step.dst], self._plan.tiles[index]):
            self.run_tile(task, core)
            self._advance(step, core, batch, at)
        if new is not None:
            self._caches[index] = new
        self._free(index, at)

    def _free(self, index: int, at: Pass) -> None:
        for store, last_use in self._last_use.items():
            if last_use == index and store not in (SOURCE, self._program.sink):
                del at.stores[store]

    def _empty(self, batch: int, channels: int, extent: Extent) -> Tensor:
        shape = (batch, channels, extent.t, extent.h, extent.w)
        return torch.empty(shape, dtype=self._weights.dtype, device=self._weights.device)

    def _advance(self, step: Step, core: Region, batch: int, at: Pass) -> None:
        self._done_operations += batch * step.operations(core.extent)
        if self._on_progress:
            total = max(self._plan.operations, self._done_operations)
            chunks = len(self._plan.chunks)
            self._on_progress(Progress(self._done_operations, total, at.index, chunks, step.path))

    def _affine(self, norm: Norm, moments: Moments) -> kernels.Affine:
        return kernels.affine(moments, norm.eps, *self._weights.affine(norm.path))

    def run_tile(self, task: Task, core: Region) -> None:
        """Compute the outputs `core` of the task's step and merge their moments."""
        step, at = task.step, task.at
        result = self._convolve(step.conv, self._input(task, core))
        target = at.stores[step.dst][(..., *core.slices)]
        if step.residual:
            added = self._read(at.stores[step.residual.store], core)
            result += (
                self._convolve(step.residual.shortcut, added) if step.residual.shortcut else added
            )
        target.copy_(result)
        if task.groups:
            self._measure(task, result)

    def _measure(self, task: Task, result: Tensor) -> None:
        assert task.groups
        part, dst = kernels.measure(result, task.groups), task.step.dst
        fresh = dst not in task.at.moments
        task.at.moments[dst] = part if fresh else task.at.moments[dst].merge(part)

    def _convolve(self, conv: Conv, x: Tensor) -> Tensor:
        """The convolution of x, whose edges and history are in it already."""
        weight, bias = self._weights.conv(conv.path)
        return F.conv3d(x, weight, bias, stride=(1, conv.stride, conv.stride))

    def _read(self, store: Tensor, region: Region) -> Tensor:
        """A region of a store, on the run's device and in its dtype: a view where it is so
        already.
        """
        return store[(..., *region.slices)].to(
            self._weights.device, self._weights.dtype, non_blocking=True
        )

    def _input(self, task: Task, core: Region) -> Tensor:
        """Everything that the outputs `core` see: [b, c, t + k_t - 1, h + halo, w + halo]."""
        step = task.step
        whole = step.seen_region(core)
        inside = whole.clip(step.seen_extent(task.src, task.at.chunk))
        batch = task.at.stores[SOURCE].shape[0]
        buffer = self._empty(batch, step.conv.in_channels, whole.extent)
        kernels.zero_outside(buffer, inside, whole)
        self._fill(task, core, inside, buffer[(..., *inside.within(whole))])
        self._history(task, inside, whole, buffer)
        return buffer

    def _fill(self, task: Task, core: Region, inside: Region, out: Tensor) -> None:
        """out = what the convolution sees of src: normalised, pooled, repeated, or as it is."""
        step = task.step
        where = step.source_region(core, task.src, task.at.chunk)
        x = self._read(task.at.stores[step.src], where)
        if task.norm:
            self._normalise(task, x, where, out)
        elif step.time_map is TimeMap.POOL_PAIRS:
            kernels.pool_pairs(x, task.keeps_first and where.t.start == 0, out)
        elif step.upscale > 1:
            frames = 2 if step.time_map is TimeMap.REPEAT_PAIRS else 1
            ratios = kernels.Repeats(frames, step.upscale, task.keeps_first)
            kernels.repeat(x, where, inside, ratios, out)
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
        maps = self._maps(norm, task, cells)
        kernels.modulate(x, maps, where, cells, ratios, out)

    def _latent_ratios(self, task: Task) -> kernels.Repeats:
        latents, here = self._program.stores[SOURCE], self._program.stores[task.step.src]
        return kernels.Repeats(
            latents.frames // here.frames, latents.px // here.px, task.keeps_first
        )

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
        """Fill the frames before the chunk: from the cache, or with the clip's first frame; keep
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
        if task.new_cache is not None and inside.t.stop == task.at.extents[task.step.dst].t:
            kept = buffer[:, :, -task.step.conv.history :, h, w]
            task.new_cache[(..., *inside.slices[1:])].copy_(kept)


def _cache_extent(step: Step, at: Pass) -> Extent:
    src = at.extents[step.src]
    return Extent(step.conv.history, src.h, src.w)


def _groups_wanted(program: Program, index: int) -> int | None:
    """Groups of the norm that reads what step `index` writes; None where no step normalises it."""
    dst = program.steps[index].dst
    for step in program.steps[index + 1 :]:
        if step.src == dst and step.norm:
            return step.norm.groups
        if step.dst == dst:
            return None
    return None
