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


def wide_bytes(mix: Attend, queries: Extent, store: Extent, sizes: Sizes) -> int:
    """What is allocated while a tile of queries is attended, beside a block of keys.

    store: the extent of what they are in.
    """
    if mix.column:
        return _column_bytes(mix, queries, store, sizes)
    count, keys = queries.h * queries.w, mix.key_rows(queries, store) * store.w
    sums = count * (3 * mix.channels + 4)  # queries, their sums, and one more of these
    block = keys * 2 * mix.channels + count * keys
    return sizes.batch * (sums + block) * sizes.statistics_bytes


def _column_bytes(mix: Attend, queries: Extent, store: Extent, sizes: Sizes) -> int:
    """The same where keys come by frames; see `running.columns`."""
    keys = min(mix.frames_met, store.t) * queries.h * queries.w
    sums = queries.voxels * (2 * mix.channels + 5 * mix.heads)  # queries, their sums and scales
    weights = mix.heads * keys * (queries.t + 1)
    both = mix.channels * (keys + max(keys, queries.voxels))  # keys go before values are summed
    return sizes.batch * (sums + weights + both) * sizes.statistics_bytes


def block_bytes(mix: Attend, queries: Extent, store: Extent, sizes: Sizes) -> int:
    """Bytes of a block of keys and values, as it is copied in."""
    if mix.column:
        return keys_bytes(mix, replace(queries, t=min(mix.frames_met, store.t)), sizes)
    return keys_bytes(mix, Extent(1, mix.key_rows(queries, store), store.w), sizes)


def key_rounds(mix: Attend, cells: Extent, largest: Extent) -> int:
    """How often tiles go through all keys: once for each piece of a frame, or in a column of
    time.
    """
    if mix.column:
        return count_tiles(replace(cells, h=1, w=1), replace(largest, h=1, w=1))
    return count_tiles(replace(cells, t=1), replace(largest, t=1))


def frames_fetched(mix: Attend, rounds: int, frames: int) -> int:
    """How many frames of a chunk's own keys all queries of its `frames` bring in.

    rounds: see `key_rounds`.
    """
    if not mix.column:
        return rounds * mix.meetings(frames)
    return rounds * (frames if mix.of_clip else -(-frames * (rounds + 1) // (2 * rounds)))


def others_fetched(mix: Attend, rounds: int, frames: int, others: int) -> int:
    """How many of those of so many frames of other chunks, and of its own where all of them come
    from there.
    """
    if mix.column:
        return rounds * others
    met = mix.meetings(frames, others) - mix.meetings(frames) * (not mix.looks_ahead)
    return rounds * met


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
            src = chunk.held(step.src, extents[step.src])
            before = replace(src, t=program.frames_at(step.src, chunk.source.start))
            held += keys_bytes(step.mix, before, sizes)
            if chunk.source.stop < clip_frames:
                more[index] = keys_bytes(step.mix, src, sizes)
    return [held + sum(more[: index + 1]) for index in range(len(more))]
