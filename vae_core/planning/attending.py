"""How many bytes does an attention take: on the device, and for what it looks back at?

1. A tile of queries is attended a frame at a time, to one block of keys after the other; see
   `running.attention`, whose allocations these are.
2. Where queries look back, the keys and values of all frames before the chunk are kept (see
   `running.remembered`). They grow with the clip, and nothing on a device of its own does.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..geometry.region import Extent
from ..program.parts import Attend
from .sizes import Sizes


def keys_bytes(mix: Attend, frames: Extent, sizes: Sizes) -> int:
    """Bytes of the keys and values of `frames`."""
    return sizes.batch * 2 * mix.channels * frames.voxels * sizes.element_bytes


def attended_bytes(mix: Attend, queries: Extent, frame: Extent, sizes: Sizes) -> int:
    """The most that is allocated beside the queries of a tile, while they are attended or their
    keys are sent to be kept.
    """
    count, keys = queries.h * queries.w, mix.key_rows(queries, frame) * frame.w
    sums = count * (3 * mix.channels + 4)  # queries, their sums, and one more of these
    block = keys * 2 * mix.channels + count * keys
    wide = sizes.batch * (sums + block) * sizes.statistics_bytes
    fetches = sizes.far_stores or (mix.looks_back and sizes.far_keys)
    fetched = sizes.batch * 2 * mix.channels * keys * sizes.element_bytes if fetches else 0
    result = sizes.batch * mix.channels * queries.voxels * sizes.element_bytes
    return result + max(wide + fetched, kept_bytes(mix, queries, sizes))


def kept_bytes(mix: Attend, queries: Extent, sizes: Sizes) -> int:
    """Bytes of a tile's own keys and values, copied in one piece where they have far to go."""
    copied = mix.looks_back and sizes.far_keys and not sizes.far_stores
    return keys_bytes(mix, queries, sizes) if copied else 0


def fetched_bytes(mix: Attend, times: int, frames: Extent, before: int, sizes: Sizes) -> int:
    """Bytes of keys and values that all queries of `frames` frames bring in, each frame of them
    `times` times, and of their own that they send away to be kept.

    before: frames before the chunk.
    """
    one = keys_bytes(mix, Extent(1, frames.h, frames.w), sizes)
    own = mix.meetings(frames.t, 0) * sizes.far_stores
    back = mix.meetings(frames.t, before) - mix.meetings(frames.t, 0)
    sent = frames.t * (mix.looks_back and sizes.far_keys and not sizes.far_stores)
    return one * (times * (own + back * sizes.far_keys) + sent)


def remembered_bytes(by_step: Sequence[tuple[int, int]]) -> list[int]:
    """Bytes of keys and values that are kept while each step runs.

    by_step: of each step those that it finds kept, and those that it keeps for later chunks.
    """
    old = sum(found for found, _ in by_step)
    return [old + sum(new for _, new in by_step[: index + 1]) for index in range(len(by_step))]
