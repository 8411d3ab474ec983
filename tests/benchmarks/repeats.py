"""How can a run of forty thousand tiles be counted in minutes?

1. Two tiles are of one kind where nothing that decides about allocation, arithmetic or copies
   differs: the step, the chunk's extents and caches (and the chunk and the frames themselves for an
   attention that meets other frames), the tile's size, the picture's edges that it touches, the
   latent cells that it sees, and the same of the tile that is fetched beside it.
2. The first tile of a kind runs under the counter; for the others the same figures are added, and
   empty statistics stand in for those of a step whose tiles all came before.
3. Where the tile before it did not run, what that one would have fetched is fetched uncounted, and
   the memory that it would have left for the next tile's input is taken.

`test_counted.py` shows that the figures are those of running every tile.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch

from vae_core.geometry.grid import cells_of
from vae_core.geometry.region import Interval, Region
from vae_core.program.moments import Moments
from vae_core.program.parts import Attend, Keys
from vae_core.program.steps import SOURCE, Step
from vae_core.running.devices import accelerates
from vae_core.running.framewise import Framewise
from vae_core.running.statistics import Parts
from vae_core.running.task import Task
from vae_core.running.tile import TileRunner

from .counting import Count, Counter


def _side_kind(side: Interval, whole: int, seen: Interval, px: int) -> Hashable:
    """px: elements of a side to each latent cell."""
    latent_cells = cells_of(seen, px, keeps_first=False).size
    return side.size, side.start == 0, side.stop == whole, latent_cells


def _kind(runner: TileRunner, task: Task, cells: Region) -> Hashable:
    step, at, stores = task.step, task.at, runner.program.stores
    whole = step.cell_extent(task.src, at.chunk)
    seen = step.source_region(cells, task.src, at.chunk)
    px = max(stores[SOURCE].px // stores[step.src].px, 1)
    return (
        (step.path, step.src, step.dst, at.extents, at.chunk.first),
        (task.old_cache is None, task.new_cache is None),
        _meets_others(step) and (at.chunk.source, cells.t),
        (cells.t.size, min(cells.t.start, 2), cells.t.start % 8, cells.t.stop == whole.t),
        _side_kind(cells.h, whole.h, seen.h, px),
        _side_kind(cells.w, whole.w, seen.w, px),
    )


def _meets_others(step: Step) -> bool:
    """Whether it is an attention to other frames, of which each frame has its own number."""
    return isinstance(step.mix, Attend) and step.mix.keys is not Keys.FRAME


def _stand_in(task: Task) -> None:
    """Statistics of dst, empty but of the size that later steps expect."""
    dst, moments = task.step.dst, task.at.moments
    clips = task.at.stores[SOURCE].shape[0]
    if task.groups and task.by_frame:
        frames = range(task.at.extents[dst].t)
        found = moments.get(dst, Framewise({}))
        if frames not in found.found:
            all_of_them = Framewise({frames: _empty(task, task.groups, clips * len(frames))})
            moments[dst] = found.merge(all_of_them)
    elif task.groups and dst not in moments:
        moments[dst] = _empty(task, task.groups, clips)


def _empty(task: Task, groups: int, clips: int) -> Moments | Parts:
    """Statistics of nothing, for so many clips, or frames of them."""
    phase = task.phases[0]
    device = phase.weight.device
    if not accelerates(device):
        return Moments(1, *(torch.empty(clips, groups) for _ in range(2)))
    shape = (clips, task.step.mix.out_channels)
    parts = ((torch.empty(*shape, device=device),) for _ in range(2))
    return Parts((1,), *parts, phase.shift)


def _make_room(runner: TileRunner, task: Task) -> None:
    """Take the memory for inputs that the first tile of a step takes."""
    if not isinstance(task.step.mix, Attend):
        runner._inputs.take((1, 1, 1, 1, 1))


def _bring(runner: TileRunner, task: Task, cells: Region, counter: Counter) -> None:
    """Have ready what the tile before, had it run, would have fetched for this one."""
    (_, frames), *_ = task.step.runs(task.src, task.at.chunk)
    if cells.t.start > frames.start or cells.h.start or cells.w.start:
        moved_bytes = counter.moved_bytes
        runner.bring(task, cells)
        counter.moved_bytes = moved_bytes


def _run(runner: TileRunner, run_tile: Callable[..., None], tile: tuple[Any, ...]) -> None:
    """Run a tile; the last one of a step with what is then still to be written."""
    run_tile(runner, *tile)
    if tile[-1] is None:
        runner.settle()


@contextmanager
def each_kind_once(counter: Counter) -> Iterator[None]:
    """Inside the block `TileRunner` runs one tile of each kind and counts the others like it."""
    known: dict[Hashable, Count] = {}
    run_tile = TileRunner.run

    def run_or_add(
        self: TileRunner, task: Task, cells: Region, following: Region | None = None
    ) -> None:
        _make_room(self, task)
        kind = _kind(self, task, cells), following and _kind(self, task, following)
        if kind in known:
            counter.add(known[kind])
            _stand_in(task)
        else:
            _bring(self, task, cells, counter)
            known[kind] = counter.measure(partial(_run, self, run_tile, (task, cells, following)))

    with patch.object(TileRunner, "run", run_or_add):
        yield
