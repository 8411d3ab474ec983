"""What happens in one tile of one step?

1. Fetch what the tile's cells depend on, unless the tile before it has done so already, and start
   to fetch the same for the tile after it.
2. Normalise, modulate, pool or repeat the region of src straight into the convolution's input,
   beside its history and the picture's edge.
3. Convolve, once for each phase of a cell.
4. Add the residual, measure the result, and send it to dst.

Until its last write a tile has changed nothing that running it again would not put right. What it
allocates is what `memory.Memory.tile_bytes` counts; change both together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..geometry.grid import cells_of
from ..geometry.region import Extent, Interval, Region
from ..program.moments import Moments
from ..program.parts import Attend, Start, TimeMap
from ..program.steps import SOURCE, Program, Step
from ..settings import Place
from . import devices, kernels
from .attention import attend
from .convolutions import laid_out
from .phases import Phase, convolve, for_accelerator, frames_of_phase, phases_of
from .statistics import Parts
from .stores import Room, allocate
from .task import Inputs, Pass, Task
from .transfers import Arrival, Transfers
from .weights import Weights

_STEADY: kernels.Strides = (1, 1, 1)


@dataclass(slots=True)
class TileRunner:
    """Runs tiles of a program's steps with weights.

    Invariant: `_ahead` holds what has been fetched for a tile that is still to be run. `_inputs`
    is what a step's inputs are made in; `_kernel` the same for weights, on a processor alone.
    """

    program: Program
    weights: Weights
    transfers: Transfers
    _ahead: tuple[Task, Region, Inputs] | None = None
    _columns: dict[tuple[Interval, int, int], Tensor] = field(
        default_factory=dict[tuple[Interval, int, int], Tensor]
    )
    _inputs: Room = field(init=False)
    _kernel: Room = field(init=False)

    def __post_init__(self) -> None:
        dtype, device = self.weights.dtype, self.weights.device
        self._inputs, self._kernel = Room(dtype, device), Room(dtype, device)

    def run(self, task: Task, cells: Region, following: Region | None = None) -> None:
        """Compute what `cells` make in the task's step and merge its moments.

        following: the cells that will be run next, if it is known. What is far away may be written
        only by `settle`.
        """
        inputs = self._taken(task, cells)
        if following:
            self.bring(task, following)
        task = task.of(cells)
        if isinstance(task.step.mix, Attend):
            self._attend(task, task.step.mix, cells, inputs)
            return
        buffer, strides = self._input(task, inputs), task.step.strides
        added = inputs.added.take() if inputs.added else None
        merged = task.at.moments.get(task.step.dst)
        *early, last = task.phases
        for phase in early:
            result = convolve(buffer, phase, strides)
            merged = self._finish(task, cells, phase, (result, added), merged)
            del result
        result = convolve(buffer, last, strides)
        del buffer
        merged = self._finish(task, cells, last, (result, added), merged)
        if merged:
            task.at.moments[task.step.dst] = merged

    def _attend(self, task: Task, mix: Attend, cells: Region, inputs: Inputs) -> None:
        """Compute what `cells` attend to, frame by frame, and send it."""
        queries, wide = inputs.src.take(), kernels.statistics_dtype(self.weights.dtype)
        shape = task.at.shape(mix.channels, cells.extent)
        result = allocate(shape, self.weights.dtype, self.weights.device, Place.DEVICE)
        for frame in range(cells.t.size):
            one = slice(frame, frame + 1)
            blocks = self._keys(task, mix, cells, cells.t.start + frame)
            found = attend(queries[:, :, one], blocks, wide)  # [b, h * w, c]
            out = result[:, :, frame].permute(0, 2, 3, 1)  # [b, h, w, c]
            out.copy_(found.view(out.shape))
        del queries
        target = task.at.stores[task.step.dst][(..., *cells.slices)]
        self.transfers.send(result, target, 0)

    def _keys(self, task: Task, mix: Attend, cells: Region, frame: int) -> Iterator[Tensor]:
        """Keys and values of a frame, a block of rows after the other, on the device."""
        whole = task.src
        rows = mix.key_rows(cells.extent, whole)
        store = task.at.stores[task.step.src][:, mix.channels :, frame : frame + 1]
        for start in range(0, whole.h, rows):
            yield self.transfers.fetch(store[:, :, :, start : start + rows]).take()

    def prepare(self, step: Step, at: Pass, largest: Extent) -> None:
        """Expect the inputs of a step's tiles, of which none is larger than `largest` cells; see
        `Room`.
        """
        seen = step.seen_region(largest.region).extent
        self._inputs.expect(prod(at.shape(step.mix.read_channels, seen)))

    def release(self) -> None:
        """Let go of the memory that is kept for inputs and weights to come."""
        self._inputs.expect(0)
        self._kernel.expect(0)
        self._columns.clear()

    def phases(self, step: Step) -> tuple[Phase, ...]:
        """The convolutions of a step's cells, with weights as the device's convolution wants them:
        it would otherwise make its own copy for every tile. None for an attention.
        """
        if isinstance(step.mix, Attend):
            return ()
        found = phases_of(self.weights.conv(step.path), step)
        own = step.phases > 1 or step.still  # memory of their own already
        if devices.accelerates(self.weights.device):
            found, own = for_accelerator(found), True
        lay_out = self._laid_out if own else self._in_room
        return tuple(replace(one, weight=lay_out(one.weight, step.strides)) for one in found)

    def last_taps(self, phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
        """The same convolutions, of the newest frame that they see alone."""
        return tuple(
            replace(one, weight=self._laid_out(one.weight[:, :, -1:], _STEADY)) for one in phases
        )

    def _in_room(self, weight: Tensor, strides: kernels.Strides) -> Tensor:
        del strides  # a processor has one route
        self._kernel.expect(weight.numel())
        return self._kernel.take(weight.shape).copy_(weight)

    def _laid_out(self, weight: Tensor, strides: kernels.Strides) -> Tensor:
        return laid_out(weight, strides, self.weights.layout)

    def settle(self) -> None:
        """Write all that was computed, and forget what was fetched for a tile to come."""
        self._ahead = None
        self.transfers.flush()

    def abandon(self) -> None:
        """Let go of all that is under way, after an error that is to be raised."""
        self._ahead = None
        self.transfers.abandon()

    def bring(self, task: Task, cells: Region) -> None:
        """Start to fetch what a tile will read, unless that is under way."""
        if not self._awaits(task, cells):
            if self._ahead:
                self.transfers.forget()
            self._ahead = (task, cells, self._fetch(task.of(cells), cells))

    def _awaits(self, task: Task, cells: Region) -> bool:
        ahead = self._ahead
        return ahead is not None and ahead[0] is task and ahead[1] == cells

    def _taken(self, task: Task, cells: Region) -> Inputs:
        self.bring(task, cells)
        ahead, self._ahead = self._ahead, None
        assert ahead
        return ahead[2]

    def _fetch(self, task: Task, cells: Region) -> Inputs:
        """Start to bring in what a tile reads."""
        step, at, fetch = task.step, task.at, self.transfers.fetch
        whole, inside = (
            step.seen_region(cells, task.keeps_first),
            step.inside(cells, task.src, at.chunk),
        )
        where = step.source_region(cells, task.src, at.chunk)
        modulated = step.norm is not None and step.norm.modulated
        latent_cells = self._latent_cells(task, where) if modulated else None
        missing = inside.t.start - whole.t.start
        past = task.old_cache if missing else None
        return Inputs(
            whole,
            inside,
            where,
            fetch(at.view(step.src, where)[:, : step.mix.read_channels]),
            self._fetch_added(task, cells),
            fetch(at.stores[SOURCE][(..., *latent_cells.slices)]) if latent_cells else None,
            latent_cells,
            None if past is None else fetch(past[(..., slice(-missing, None), *inside.slices[1:])]),
        )

    def _fetch_added(self, task: Task, cells: Region) -> Arrival | None:
        residual, at = task.step.residual, task.at
        if residual is None:
            return None
        core = task.step.core(cells, task.src, at.chunk)
        where = residual.source(core, at.keeps_first(residual.store))
        return self.transfers.fetch(at.stores[residual.store][(..., *where.slices)])

    def _finish(
        self,
        task: Task,
        cells: Region,
        phase: Phase,
        made: tuple[Tensor, Tensor | None],
        merged: Any,
    ) -> Any:
        """Add the residual to one phase of a tile and send it; `merged` with its moments.

        made: what was convolved, and what is to be added to it. Sending comes last: until it is
        done the tile can be run again.
        """
        step, at, (result, added) = task.step, task.at, made
        core = step.core(cells, task.src, at.chunk)
        if added is not None:
            self._add_residual(task, core, result, added)
        target, skipped = at.stores[step.dst][(..., *core.slices)], 0
        if (ratio := step.frames_made) > 1:
            first = ratio * cells.t.start - (ratio - 1) * task.keeps_first
            skipped, target = frames_of_phase(phase, target, first, ratio)
        for part in self._measured(task, core, phase, result[:, :, skipped:]):
            merged = merged.merge(part) if merged else part
        target = target[..., phase.row :: phase.apart, phase.column :: phase.apart]
        self.transfers.send(result, target, skipped, phase.shift)
        return merged

    def _add_residual(self, task: Task, core: Region, result: Tensor, added: Tensor) -> None:
        residual, at = task.step.residual, task.at
        assert residual
        if task.shortcut:
            added = kernels.convolution(added, task.shortcut)
        if residual.repeated:
            keeps_first = at.keeps_first(residual.store)
            where = residual.source(core, keeps_first)
            kernels.add_pairs(result, added, core.t, where.t, keeps_first)
        else:
            result.add_(added)

    def _measured(
        self, task: Task, core: Region, phase: Phase, result: Tensor
    ) -> list[Moments | Parts]:
        """Moments of a result, with the frames that are shown more than once counted so."""
        if not task.groups:
            return []
        dst = task.step.dst
        shown = self.program.stores[dst].shown
        alone = int(shown > 1 and core.t.start == 0 and task.at.keeps_first(dst))
        parts = ((result[:, :, :alone], 1), (result[:, :, alone:], shown))
        return [
            kernels.measure(part, task.groups, phase.shift).repeated(times)
            for part, times in parts
            if part.shape[2]
        ]

    def _input(self, task: Task, inputs: Inputs) -> Tensor:
        """Everything that a tile's cells see: [b, c, t + history, h + halo, w + halo]."""
        step, whole, inside = task.step, inputs.whole, inputs.inside
        buffer = self._inputs.take(task.at.shape(step.mix.in_channels, whole.extent))
        kernels.zero_outside(buffer, inside, whole)
        self._fill(task, inputs, buffer[(..., *inside.within(whole))])
        if step.norm and step.norm.activated:
            # the edge's zeros stay zeros, and whole rows are quicker than parts of them
            kernels.activate(buffer[:, :, inside.t.start - whole.t.start :])
        self._history(task, inputs, buffer)
        return buffer

    def _fill(self, task: Task, inputs: Inputs, out: Tensor) -> None:
        """out = what the convolution sees of src: normalised, pooled, repeated, or as it is."""
        step, where, x = task.step, inputs.where, inputs.src.take()
        if task.norm:
            self._normalise(task, inputs, x, out)
        elif step.time_map is TimeMap.POOL_PAIRS:
            kernels.pool_pairs(x, task.keeps_first and where.t.start == 0, out)
        elif step.time_map is TimeMap.REPEAT_PAIRS:
            frames = kernels.shown(inputs.inside.t, where.t.start, 2, task.keeps_first, x.device)
            out.copy_(x.index_select(2, frames))
        else:
            kernels.extend(x, out)

    def _normalise(self, task: Task, inputs: Inputs, x: Tensor, out: Tensor) -> None:
        """out = x normalised and modulated, yet to be activated."""
        cells = inputs.cells
        assert task.norm
        if isinstance(task.norm, kernels.VoxelNorm):
            kernels.normalise_voxels(x, task.norm, out)
            return
        if cells is None or inputs.latents is None or task.maps is None:
            kernels.normalise(x, task.norm, out)
            return
        latents, where, ratios = inputs.latents.take(), inputs.where, self._latent_ratios(task)
        if len(task.maps) == 1:
            both = kernels.modulated_together(task.norm, latents, task.maps[0])
            both = kernels.gathered(both, self._shown(where.w, cells.w, ratios.px))
            maps = kernels.Affine(*both.chunk(2, 1))
            kernels.modulate_rows(x, maps, where, cells, ratios, out)
            return
        scale, shift = (kernels.convolution(latents, kernel) for kernel in task.maps)
        maps = kernels.modulated(task.norm, scale, shift)
        kernels.modulate(x, maps, where, cells, ratios, out)

    def _shown(self, elements: Interval, cells: Interval, px: int) -> Tensor:
        """`kernels.shown` for columns, which tiles below each other have in common."""
        key = (elements, cells.start, px)
        if key not in self._columns:
            self._columns[key] = kernels.shown(*key, False, self.weights.device)
        return self._columns[key]

    def _latent_ratios(self, task: Task) -> kernels.Repeats:
        latents, here = self.program.stores[SOURCE], self.program.stores[task.step.src]
        frames, px = latents.frames // here.frames, latents.px // here.px
        return kernels.Repeats(frames, px, task.keeps_first)

    def _latent_cells(self, task: Task, where: Region) -> Region:
        """The latent cells that the elements `where` of src show."""
        ratios = self._latent_ratios(task)
        return Region(
            cells_of(where.t, ratios.frames, ratios.keeps_first),
            cells_of(where.h, ratios.px, keeps_first=False),
            cells_of(where.w, ratios.px, keeps_first=False),
        )

    def _history(self, task: Task, inputs: Inputs, buffer: Tensor) -> None:
        """Fill the frames before the chunk, from the cache or with what lies before a clip, and
        keep the newest ones.
        """
        inside = inputs.inside
        missing = inside.t.start - inputs.whole.t.start
        _, h, w = inside.within(inputs.whole)
        if missing:
            past = buffer[:, :, :missing, h, w]
            if inputs.past is not None:
                past.copy_(inputs.past.take())
            elif task.step.mix.start is Start.ZEROS:
                past.zero_()
            else:
                past.copy_(buffer[:, :, missing : missing + 1, h, w].expand_as(past))
        if task.new_cache is not None and inside.t.stop == task.seen.t:
            kept = buffer[:, :, -task.step.history :, h, w]
            self._keep(kept, task.new_cache[(..., *inside.slices[1:])])

    def _keep(self, kept: Tensor, target: Tensor) -> None:
        """Send a part of the input, which is copied first where it has far to go."""
        if self.transfers.is_far(target):
            kept = kept.contiguous(memory_format=torch.channels_last_3d)
        self.transfers.send(kept, target)
