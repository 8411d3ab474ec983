"""How many bytes does an attention take: on the device, and for what it looks back at?

1. A tile of queries is attended a frame at a time, to one block of keys after the other; see
   `running.attention`, whose allocations these are.
2. Where queries look back, the keys and values of all frames before the chunk are kept (see
   `running.remembered`); where they look ahead, all that is needed of every chunk (see
   `running.gathered`). That grows with the clip, and nothing on a device of its own does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..geometry.grid import Chunk, count_tiles
from ..geometry.region import Extent
from ..program.parts import Attend
from ..program.steps import Program
from .sizes import Sizes


def keys_bytes(mix: Attend, frames: Extent, sizes: Sizes) -> int:
    """Bytes of the keys and values of `frames`."""
    return sizes.batch * 2 * mix.channels * frames.voxels * sizes.element_bytes


def attended_bytes(mix: Attend, queries: Extent, frame: Extent, sizes: Sizes) -> int:
    """The most that is allocated beside the queries of a tile, while they are attended or their
    keys are sent to be kept.

    frame: the extent of the store that they are in.
    """
    if mix.column:
        return _column_bytes(mix, queries, frame, sizes)
    count, keys = queries.h * queries.w, mix.key_rows(queries, frame) * frame.w
    sums = count * (3 * mix.channels + 4)  # queries, their sums, and one more of these
    block = keys * 2 * mix.channels + count * keys
    wide = sizes.batch * (sums + block) * sizes.statistics_bytes
    fetched = _block_bytes(mix, keys, sizes)
    result = sizes.batch * mix.channels * queries.voxels * sizes.element_bytes
    return result + max(wide + fetched, kept_bytes(mix, queries, sizes))


def _column_bytes(mix: Attend, queries: Extent, store: Extent, sizes: Sizes) -> int:
    """The same where keys come by frames; see `running.columns`."""
    keys = min(mix.frames_met, store.t) * queries.h * queries.w
    sums = queries.voxels * (2 * mix.channels + 5 * mix.heads)  # queries, their sums and scales
    weights = mix.heads * keys * (queries.t + 1)
    both = mix.channels * (keys + max(keys, queries.voxels))  # keys go before values are summed
    wide = sizes.batch * (sums + weights + both) * sizes.statistics_bytes
    result = sizes.batch * mix.channels * queries.voxels * sizes.element_bytes
    return result + max(wide + _block_bytes(mix, keys, sizes), kept_bytes(mix, queries, sizes))


def _block_bytes(mix: Attend, keys: int, sizes: Sizes) -> int:
    """Bytes of so many keys with their values, copied in where they have far to come."""
    fetches = sizes.far_stores or (mix.looks_outward and sizes.far_keys)
    return sizes.batch * 2 * mix.channels * keys * sizes.element_bytes if fetches else 0


def kept_bytes(mix: Attend, queries: Extent, sizes: Sizes) -> int:
    """Bytes of a tile's own keys and values, copied in one piece where they have far to go."""
    copied = mix.looks_back and sizes.far_keys and not sizes.far_stores
    return keys_bytes(mix, queries, sizes) if copied else 0


def key_rounds(mix: Attend, cells: Extent, largest: Extent) -> int:
    """How often tiles go through all keys: once for each piece of a frame, or in a column of
    time.
    """
    if mix.column:
        return count_tiles(replace(cells, h=1, w=1), replace(largest, h=1, w=1))
    return count_tiles(replace(cells, t=1), replace(largest, t=1))


def fetched_bytes(mix: Attend, times: int, frames: Extent, others: int, sizes: Sizes) -> int:
    """Bytes of keys and values that all queries of `frames` frames bring in, each frame of them
    `times` times, and of their own that they send away to be kept.

    times: see `key_rounds`.
    others: frames before the chunk, or around it where queries look ahead.
    """
    one = keys_bytes(mix, Extent(1, frames.h, frames.w), sizes)
    if mix.column:
        own = frames.t if mix.of_clip else -(-frames.t * (times + 1) // (2 * times))
        met = own * sizes.far_stores + others * sizes.far_keys
        sent = frames.t * (mix.looks_back and sizes.far_keys and not sizes.far_stores)
        return one * (times * met + sent)
    own = mix.meetings(frames.t)
    away = mix.meetings(frames.t, others) - own
    sent = frames.t * (mix.looks_back and sizes.far_keys and not sizes.far_stores)
    near = not (sizes.far_stores or (mix.looks_ahead and sizes.far_keys))
    return one * (times * ((0 if near else own) + away * sizes.far_keys) + sent)


def gathered_bytes(program: Program, extents: Sequence[Extent], frames: int, sizes: Sizes) -> int:
    """Bytes of all that is kept of every chunk of a clip of which so many frames go in, where
    queries look ahead.

    extents: of all stores for one chunk.
    """
    kept = 0
    for store in program.crossing if program.barrier is not None else ():
        extent, count = extents[store], program.frames_at(store, frames)
        kept += program.stores[store].channels * count * extent.h * extent.w
    return sizes.batch * kept * sizes.element_bytes


def kept_by_step(
    program: Program, extents: Sequence[Extent], chunk: Chunk, clip_frames: int, sizes: Sizes
) -> list[int]:
    """Bytes that are kept of other chunks, or for them, while each step of `chunk` runs.

    clip_frames: of the whole clip, at the program's source.
    """
    held = gathered_bytes(program, extents, clip_frames, sizes)
    more = [0] * len(program.steps)
    for index, step in enumerate(program.steps):
        if isinstance(step.mix, Attend) and step.mix.looks_back:
            src = extents[step.src]
            before = replace(src, t=program.frames_at(step.src, chunk.source.start))
            held += keys_bytes(step.mix, before, sizes)
            if chunk.source.stop < clip_frames:
                more[index] = keys_bytes(step.mix, src, sizes)
    return [held + sum(more[: index + 1]) for index in range(len(more))]
