"""What happens in one tile of one step?

1. Fetch what the tile's cells depend on, unless the tile before it has done so already, and start
   to fetch the same for the tile after it.
2. Normalise, modulate, pool or repeat the region of src straight into the convolution's input,
   beside its history and the picture's edge.
3. Convolve, once for each phase of a cell.
4. Add the residual, measure the result, and send it to dst.

Until its last write a tile has changed nothing that running it again would not put right. What it
allocates is what `step_bytes.StepBytes.tile_bytes` counts; change both together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import Tensor

from ..geometry.region import Extent, Interval, Region
from ..planning.norm_bytes import FULL_BYTES
from ..program.parts import Attend, Edge, Start, TimeMap
from ..program.steps import SOURCE, Program, Step
from . import kernels
from .attended import attended, remember
from .framewise import measured_by_frame
from .phases import Phase, add_spread, convolve, frames_of_phase, numbers_of_phase
from .ready import Ready
from .stores import Room
from .taps import Ends
from .task import Inputs, Pass, Task
from .transfers import Transfers
from .windows import Cover, Window, window_of


@dataclass(slots=True)
class TileRunner:
    """Runs tiles of a program's steps.

    Invariant: `_ahead` holds what has been fetched for a tile that is still to be run. `_inputs`
    is what a step's inputs are made in.
    """

    program: Program
    ready: Ready
    transfers: Transfers
    _ahead: tuple[Task, Region, Inputs] | None = None
    _columns: dict[tuple[Interval, int, int], Tensor] = field(
        default_factory=dict[tuple[Interval, int, int], Tensor]
    )
    _inputs: Room = field(init=False)

    def __post_init__(self) -> None:
        self._inputs = Room(self.transfers.dtype, self.transfers.device)

    def run(self, task: Task, cells: Region, following: Region | None = None) -> None:
        """Compute what `cells` make in the task's step and merge its moments.

        following: the cells that will be run next, if it is known. What is far away may be written
        only by `settle`.
        """
        inputs = self._taken(task, cells)
        if following:
            self.bring(task, following)
        task = inputs.task
        if isinstance(task.step.mix, Attend):
            self._attend(task, task.step.mix, cells, inputs)
            return
        buffer, strides, ends = self._input(inputs), task.step.strides, _ends(inputs)
        added = inputs.added.take() if inputs.added else None
        merged = task.at.moments.get(task.step.dst)
        *early, last = task.phases
        for phase in early:
            result = convolve(buffer, phase, strides, ends)
            merged = self._finish(inputs, cells, phase, (result, added), merged)
            del result
        result = convolve(buffer, last, strides, ends)
        del buffer
        merged = self._finish(inputs, cells, last, (result, added), merged)
        if merged:
            task.at.moments[task.step.dst] = merged

    def _attend(self, task: Task, mix: Attend, cells: Region, inputs: Inputs) -> None:
        """Compute what `cells` attend to, and send it."""
        result = attended(task, mix, cells, inputs.src.take(), self.transfers)
        self.transfers.send(result, task.at.target(task.step, inputs.window.target))
        del result
        remember(task, mix, cells, self.transfers)

    def prepare(self, step: Step, at: Pass, largest: Extent) -> None:
        """Expect the inputs of a step's tiles, of which none is larger than `largest` cells; see
        `Room`.
        """
        seen = step.seen_region(largest.region).extent
        mix = step.mix
        attends = isinstance(mix, Attend)  # which puts nothing together
        self._inputs.expect(0 if attends else prod(at.shape(mix.in_channels, seen)))

    def release(self) -> None:
        """Let go of the memory that is kept for inputs and weights to come."""
        self._inputs.expect(0)
        self.ready.release()
        self._columns.clear()

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

    def _window(self, task: Task, cells: Region) -> Window:
        """Where a tile reads and writes."""
        window = task.windows.get(cells)
        if window is None:
            at = task.at
            window = window_of(self.program, task.step, at.chunk, at.extents, cells)
            task.windows[cells] = window
        return window

    def _fetch(self, task: Task, cells: Region) -> Inputs:
        """Start to bring in what a tile reads."""
        step, at, fetch, window = (
            task.step,
            task.at,
            self.transfers.fetch,
            self._window(task, cells),
        )
        src = at.view(window.where) if step.src == SOURCE else at.stores[step.src][window.source]
        if isinstance(step.mix, Attend):
            assert isinstance(src, Tensor)
            src = src[:, : step.mix.read_channels]
        past, cover, added = task.old_cache if window.missing else None, window.cover, window.added
        return Inputs(
            task,
            window,
            fetch(src),
            fetch(at.stores[step.residual.store][added]) if step.residual and added else None,
            fetch(at.source[cover.source]) if cover else None,
            None if past is None else fetch(past[window.past]),
        )

    def _finish(
        self,
        inputs: Inputs,
        cells: Region,
        phase: Phase,
        made: tuple[Tensor, Tensor | None],
        merged: Any,
    ) -> Any:
        """Add the residual to one phase of a tile and send it; `merged` with its moments.

        made: what was convolved, and what is to be added to it. Sending comes last: until it is
        done the tile can be run again.
        """
        task, window, (result, added) = inputs.task, inputs.window, made
        step = task.step
        target, first = task.at.target(step, window.target), self._first(task, cells)
        skipped, target = frames_of_phase(phase, target, first, step.frames_made)
        addend = phase.shift
        if added is not None and step.residual and step.residual.fold:
            add_spread(result, added, step.residual.fold, phase)
        elif added is not None and step.phases > 1:
            _, part = frames_of_phase(phase, added, first, step.frames_made)
            result[:, :, skipped:].add_(phase.places(part))
        elif added is not None:
            added = self._residual(task, window.core, result, added)
            if added is not None and addend is None and not task.groups:
                addend = added  # which is added on the way: the result is not gone over twice
            elif added is not None:
                result.add_(added)
        if task.groups:
            counted = result[:, :, skipped:] if skipped else result
            measure = self._measured_by_frame if task.by_frame else self._measured
            merged = measure(inputs, phase, first, counted, merged)
        self.transfers.send(result, phase.places(target), skipped, addend)
        return merged

    @staticmethod
    def _first(task: Task, cells: Region) -> int:
        """The frame that the first phase of a tile's first cell makes; below 0 where it is none."""
        ratio = task.step.frames_made
        return ratio * cells.t.start - (ratio - 1) * task.keeps_first

    def _residual(self, task: Task, core: Region, result: Tensor, added: Tensor) -> Tensor | None:
        """What is to be added to `result`; None where it has been added, frames that repeat."""
        residual, at = task.step.residual, task.at
        assert residual
        if task.shortcut:
            added = kernels.convolution(added, task.shortcut)
        if not residual.repeated:
            return added
        keeps_first = at.keeps_first(residual.store)
        where = residual.source(core, keeps_first)
        kernels.add_pairs(result, added, core.t, where.t, keeps_first)
        return None

    @staticmethod
    def _measured_by_frame(
        inputs: Inputs, phase: Phase, first: int, result: Tensor, merged: Any
    ) -> Any:
        """`merged` with the moments of each frame of a result."""
        task, t = inputs.task, inputs.window.core.t
        _, numbers = numbers_of_phase(phase, first, task.step.frames_made)
        frames = range(t.start, t.stop)[numbers]
        if not frames or not task.groups:
            return merged
        found = measured_by_frame(result, frames, task.groups, phase.shift)
        return merged.merge(found) if merged else found

    def _measured(
        self, inputs: Inputs, phase: Phase, first: int, result: Tensor, merged: Any
    ) -> Any:
        """`merged` with the moments of a result, of which the frames that are alone count once, and
        the others as often as they are shown.
        """
        del first
        task, alone = inputs.task, inputs.window.alone
        assert task.groups
        shown = self.program.stores[task.step.dst].shown
        parts = ((result, shown),)
        if alone:
            parts = ((result[:, :, :alone], 1), (result[:, :, alone:], shown))
        for part, times in parts:
            if part.shape[2]:
                moments = kernels.measure(part, task.groups, phase.shift)
                moments = moments.repeated(times) if times > 1 else moments
                merged = merged.merge(moments) if merged else moments
        return merged

    def _input(self, inputs: Inputs) -> Tensor:
        """Everything that a tile's cells see: [b, c, t + history, h + halo, w + halo]."""
        task, window = inputs.task, inputs.window
        norm = task.step.norm
        buffer = self._inputs.take(task.at.shape(task.step.mix.in_channels, window.extent))
        zeros = task.step.mix.edge is Edge.ZEROS
        for edge in window.edges if zeros else ():
            buffer[edge].zero_()
        waves = task.step.mix.waves
        inside = buffer[window.inside]
        self._fill(inputs, inside[:, : task.step.mix.stored_channels])
        if waves:
            kernels.wave(inside, waves)
        if norm and norm.activated and not self._rounds_once(task.step):
            # the edge's zeros stay zeros, and whole rows are quicker than parts of them
            kernels.activate(buffer[:, :, window.missing :] if window.missing else buffer)
        self._history(inputs, buffer)
        if not zeros:
            kernels.surround(buffer, window.inside, window.mirrors)
        return buffer

    def _fill(self, inputs: Inputs, out: Tensor) -> None:
        """out = what the convolution sees of src: normalised, pooled, repeated, or as it is."""
        task, window, x = inputs.task, inputs.window, inputs.src.take()
        step, start = task.step, window.where.t.start
        if task.norm:
            self._normalise(inputs, x, out)
        elif step.time_map is TimeMap.POOL_PAIRS:
            kernels.pool_pairs(x, task.keeps_first and start == 0, out)
        elif step.time_map is TimeMap.REPEAT_PAIRS:
            frames = kernels.shown(window.seen, start, 2, task.keeps_first, x.device)
            out.copy_(x.index_select(2, frames))
        else:
            kernels.extend(x, out)

    def _normalise(self, inputs: Inputs, x: Tensor, out: Tensor) -> None:
        """out = x normalised and modulated; activated where both are rounded together."""
        norm, cover, maps = inputs.task.norm, inputs.window.cover, inputs.task.maps
        assert norm
        if isinstance(norm, kernels.FrameAffine):
            norm = norm.of(inputs.window.where.t)
        if cover and inputs.latents and maps and isinstance(norm, kernels.Affine):
            affine = self._modulated(norm, inputs.latents.take(), maps, cover)
            kernels.modulate(x, affine, cover.pieces, out)
        elif self._rounds_once(inputs.task.step):
            kernels.normalise_and_activate(x, norm, out)
        else:
            kernels.normalise(x, norm, out)

    def _rounds_once(self, step: Step) -> bool:
        """Whether a norm and what follows it are rounded together, see `Step.rounds_once`."""
        return step.rounds_once and self.transfers.dtype.itemsize < FULL_BYTES

    def _modulated(
        self, norm: kernels.Affine, latents: Tensor, maps: tuple[kernels.Kernel, ...], cover: Cover
    ) -> kernels.Affine:
        """A norm and its modulation as one scale and shift for each latent cell of each column."""
        columns = self._shown(cover)
        if len(maps) == 1:
            both = kernels.modulated_together(norm, latents, maps[0])
            return kernels.Affine(*kernels.gathered(both, columns).chunk(2, 1))
        scale, shift = (kernels.convolution(latents, kernel) for kernel in maps)
        narrow = kernels.modulated(norm, scale, shift)
        return kernels.Affine(
            kernels.gathered(narrow.scale, columns), kernels.gathered(narrow.shift, columns)
        )

    def _shown(self, cover: Cover) -> Tensor:
        """`kernels.shown` for columns, which tiles below each other have in common."""
        key = cover.columns, cover.first, cover.px
        if key not in self._columns:
            self._columns[key] = kernels.shown(*key, False, self.transfers.device)
        return self._columns[key]

    def _history(self, inputs: Inputs, buffer: Tensor) -> None:
        """Fill the frames before the chunk, or around a clip, and keep the newest ones."""
        task, window = inputs.task, inputs.window
        if window.missing:
            past = buffer[window.filled]
            if inputs.past is not None:
                past.copy_(inputs.past.take())
            elif task.step.mix.start is Start.ZEROS:
                past.zero_()
            else:
                past.copy_(buffer[window.inside][:, :, :1].expand_as(past))
        if window.beyond:
            buffer[window.beyond].copy_(buffer[window.inside][:, :, -1:])
        if task.new_cache is not None and window.cached:
            self.transfers.keep(buffer[window.kept], task.new_cache[window.cached])


def _ends(inputs: Inputs) -> Ends:
    """What of a tile's input is not of the clip."""
    window = inputs.window
    before = window.missing if inputs.past is None else 0
    after = window.extent.t - window.missing - window.seen.size
    return Ends(before, after, inputs.task.step.mix.start is Start.ZEROS)
