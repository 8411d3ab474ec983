"""What does a tile of queries come to, whose keys lie in its own chunk and in others?

1. `attended` goes through the frames of a tile. The keys that a frame meets come block by block,
   from wherever they are kept.
2. `remember` keeps the keys and values of a tile for later chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, product

from torch import Tensor

from ..geometry.region import Region
from ..program.parts import Attend
from ..settings import Place
from .attention import attend
from .columns import attend_columns, by_heads
from .kernels import statistics_dtype
from .stores import allocate
from .task import Task
from .transfers import Transfers


def attended(
    task: Task, mix: Attend, cells: Region, queries: Tensor, transfers: Transfers
) -> Tensor:
    """What `queries` [b, c, t, h, w], those of `cells`, attend to: of the same shape."""
    dtype, device = transfers.dtype, transfers.device
    shape = task.at.shape(mix.channels, cells.extent)
    result = allocate(shape, dtype, device, Place.DEVICE)
    if mix.column:
        first = cells.t.start + sum(keys.shape[2] for keys in task.keys)
        blocks = _columns(task, mix, cells, transfers)
        wide = statistics_dtype(dtype)
        found = attend_columns(queries, None if mix.of_clip else first, blocks, mix, wide)
        by_heads(result, mix).copy_(found)
        return result
    for frame in range(cells.t.size):
        one = slice(frame, frame + 1)
        blocks = _keys(task, mix, cells, cells.t.start + frame, transfers)
        found = attend(queries[:, :, one], blocks, statistics_dtype(dtype))  # [b, h * w, c]
        out = result[:, :, frame].permute(0, 2, 3, 1)  # [b, h, w, c]
        out.copy_(found.view(out.shape))
    return result


def _keys(
    task: Task, mix: Attend, cells: Region, frame: int, transfers: Transfers
) -> Iterator[Tensor]:
    """Keys and values that a frame meets, a block of rows after the other, on the device."""
    rows, seen = mix.key_rows(cells.extent, task.src), mix.seen(frame)
    store = task.at.whole(task.step.src)[:, mix.channels :, seen.start : seen.stop]
    for kept in task.keys if mix.looks_ahead else chain(task.keys, (store,)):
        for t, start in product(range(kept.shape[2]), range(0, task.src.h, rows)):
            block = kept[:, :, t : t + 1, start : start + rows]
            yield transfers.fetch(block).take()


def _columns(task: Task, mix: Attend, cells: Region, transfers: Transfers) -> Iterator[Tensor]:
    """Keys and values at the places of a tile, a block of frames after the other, on the device."""
    seen = slice(None) if mix.of_clip else slice(cells.t.stop)
    own = task.at.whole(task.step.src)[:, mix.channels :, seen]
    _, h, w = task.at.chunk.here(task.step.src, cells).slices
    for kept in chain(task.keys, (own,)):
        here = kept[..., h, w]
        for start in range(0, here.shape[2], mix.frames_met):
            yield transfers.fetch(here[:, :, start : start + mix.frames_met]).take()


def remember(task: Task, mix: Attend, cells: Region, transfers: Transfers) -> None:
    """Keep the keys and values of a tile where later chunks want them."""
    if task.new_keys is None:
        return
    where = (..., *task.at.chunk.here(task.step.src, cells).slices)
    kept = task.at.whole(task.step.src)[:, mix.channels :][where]
    if transfers.is_far(kept):
        task.new_keys[where].copy_(kept)
    else:
        transfers.keep(kept, task.new_keys[where])
