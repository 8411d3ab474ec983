"""What happens in one tile of one step?

1. Read the region of src that the tile's cells depend on, and normalise, modulate, pool or repeat
   it straight into the convolution's input, beside its history and the picture's edge.
2. Convolve, once for each phase of a cell.
3. Add the residual, measure the result, and write it.

Until its last write a tile has changed nothing that running it again would not put right. What it
allocates is what `memory.Memory.tile_bytes` counts; change both together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from . import kernels
from .grid import Chunk, cells_of
from .moments import Moments
from .program import SOURCE, Norm, Program, Step, TimeMap
from .region import Extent, Region
from .settings import Place
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

    def empty(self, weights: Weights, channels: int, extent: Extent, place: Place) -> Tensor:
        """An unwritten tensor [b, channels, *extent] in `place`, as the run needs it."""
        shape = (self.stores[SOURCE].shape[0], channels, extent.t, extent.h, extent.w)
        return allocate(shape, weights.dtype, weights.device, place)


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


@dataclass(frozen=True, slots=True)
class TileRunner:
    """Runs tiles of a program's steps with weights."""

    program: Program
    weights: Weights

    def run(self, task: Task, cells: Region) -> None:
        """Compute what `cells` make in the task's step and merge its moments."""
        buffer, stride = self._input(task, cells), task.step.conv.stride
        merged = task.at.moments.get(task.step.dst)
        *early, last = task.phases
        for phase in early:
            result = kernels.convolve(buffer, phase, stride)
            merged = self._finish(task, cells, phase, result, merged)
            del result
        result = kernels.convolve(buffer, last, stride)
        del buffer
        merged = self._finish(task, cells, last, result, merged)
        if merged:
            task.at.moments[task.step.dst] = merged

    def _finish(
        self,
        task: Task,
        cells: Region,
        phase: kernels.Phase,
        result: Tensor,
        merged: Moments | None,
    ) -> Moments | None:
        """Add the residual to one phase of a tile and write it; `merged` with its moments.

        Writing comes last: it allocates nothing, and until it is done the tile can be run again.
        """
        step, at = task.step, task.at
        core = step.core(cells, task.src, at.chunk)
        if step.residual:
            self._add_residual(task, core, result)
        target = at.stores[step.dst][(..., *core.slices)]
        if step.unfolds:
            first = 2 * cells.t.start - task.keeps_first
            result, target = kernels.frames_of_phase(phase, result, target, first)
        for part in self._measured(task, core, result):
            merged = merged.merge(part) if merged else part
        target[..., phase.row :: step.upscale, phase.column :: step.upscale].copy_(result)
        return merged

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

    def _measured(self, task: Task, core: Region, result: Tensor) -> list[Moments]:
        """Moments of a result, with the frames that are shown more than once counted so."""
        if not task.groups:
            return []
        dst = task.step.dst
        shown = self.program.stores[dst].shown
        alone = int(shown > 1 and core.t.start == 0 and task.at.keeps_first(dst))
        parts = ((result[:, :, :alone], 1), (result[:, :, alone:], shown))
        return [
            kernels.measure(part, task.groups).repeated(times)
            for part, times in parts
            if part.shape[2]
        ]

    def _read(self, store: Tensor, region: Region) -> Tensor:
        """A region of a store, on the run's device and in its dtype: a view where it is so
        already.
        """
        found = store[(..., *region.slices)]
        return found.to(self.weights.device, self.weights.dtype, non_blocking=True)

    def _input(self, task: Task, cells: Region) -> Tensor:
        """Everything that `cells` see: [b, c, t + history, h + halo, w + halo]."""
        step = task.step
        whole = step.seen_region(cells)
        inside = whole.clip(step.seen_extent(task.src, task.at.chunk))
        buffer = task.at.empty(self.weights, step.conv.in_channels, whole.extent, Place.DEVICE)
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
        latents, here = self.program.stores[SOURCE], self.program.stores[task.step.src]
        frames, px = latents.frames // here.frames, latents.px // here.px
        return kernels.Repeats(frames, px, task.keeps_first)

    def _maps(self, norm: Norm, task: Task, cells: Region) -> kernels.Affine:
        """GroupNorm and modulation as one scale and shift for each of the latent `cells`."""
        assert norm.scale_path
        assert norm.shift_path
        assert task.norm
        latents = self._read(task.at.stores[SOURCE], cells)
        scale, shift = (
            F.conv3d(latents, *self.weights.conv(path))
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
