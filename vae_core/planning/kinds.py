"""Which kinds of chunk occur in a run, and what is held while each of them runs?"""

from __future__ import annotations

from dataclasses import replace

from ..geometry.grid import Chunk
from ..geometry.region import Extent
from ..program.bands import largest_band
from .memory import Memory
from .plan import Job, chunk_extent
from .pool import Pool, held_bytes
from .sizes import Sizes


def memories_of(job: Job, chunks: tuple[Chunk, ...], sizes: Sizes) -> tuple[Memory, ...]:
    """The arithmetic of every kind of chunk that occurs, each for the last one of its kind: that
    has the most frames before it. Of all bands there is one.
    """
    if job.program.looks_ahead:
        band = largest_band(chunks)
        extents = job.program.extents(chunk_extent(job, band), band)
        several = len(chunks) > 1
        return (Memory(job.program, band, extents, sizes, several, several),)
    found: dict[tuple[Extent, bool, bool, bool], Memory] = {}
    for index, chunk in enumerate(chunks):
        source, past, future = chunk_extent(job, chunk), index > 0, index < len(chunks) - 1
        kind = (source, chunk.first, past, future)
        if kind in found:
            found[kind] = replace(found[kind], chunk=chunk)
        else:
            extents = job.program.extents(source, chunk)
            found[kind] = Memory(
                job.program, chunk, extents, sizes, past, future, chunks[-1].source.stop
            )
    return tuple(found.values())


def pooled(memories: tuple[Memory, ...], kept: bool) -> tuple[Memory, ...]:
    """`memories`, in the order in which their chunks come, with blocks that go from each to the
    next where they are `kept`.
    """
    pool, found = Pool(), list[Memory]()
    for memory in memories:
        if not kept:
            found.append(replace(memory, pooled=held_bytes(Pool(), memory.live_bytes())))
            continue
        live = memory.live_bytes()
        rounds = [held_bytes(pool, live) for _ in range(_UNTIL_STEADY)]
        found.append(replace(memory, pooled=tuple(map(max, zip(*rounds, strict=True)))))
    return tuple(found)


_UNTIL_STEADY = 3
"""Chunks of a kind after which its blocks are what they will be."""
