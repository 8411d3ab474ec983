"""Which kinds of chunk occur in a run, and what is held while each of them runs?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from ..geometry.grid import Chunk
from ..geometry.region import Extent
from ..program.bands import largest_band
from ..program.steps import SOURCE, Program
from .bands import heights_of, turns_of
from .held import live_stores
from .lifetimes import waits_of
from .memory import Memory, slack_bytes
from .places import Kind, Places
from .plan import Job, chunk_extent
from .pool import Pool, held_bytes
from .sizes import Sizes
from .step_bytes import StepBytes, steps_bytes


def memories_of(job: Job, chunks: tuple[Chunk, ...], sizes: Sizes) -> tuple[Memory, ...]:
    """The arithmetic of every kind of chunk that occurs, each for the last one of its kind: that
    has the most frames before it. Of all bands there is one.
    """
    if job.program.looks_ahead:
        band = largest_band(chunks)
        extents = job.program.extents(chunk_extent(job, band), band)
        several = len(chunks) > 1
        steps, live = steps_bytes(job.program, band, extents, sizes), live_stores(job.program)
        given = extents, sizes, several, several, steps, live
        slack, waits = slack_bytes(job.program, extents, sizes), waits_of(job.program, chunks)
        return (Memory(job.program, band, *given, slack, waits=waits),)
    found: dict[tuple[Extent, bool, bool, bool], Memory] = {}
    live = live_stores(job.program)
    for index, chunk in enumerate(chunks):
        source, past, future = chunk_extent(job, chunk), index > 0, index < len(chunks) - 1
        kind = (source, chunk.first, past, future)
        if kind in found:
            found[kind] = replace(found[kind], chunk=chunk)
        else:
            extents, steps = _geometry(job.program, chunk.anywhere, source, sizes)
            slack = slack_bytes(job.program, extents, sizes)
            given = extents, sizes, past, future, steps, live, slack, chunks[-1].source.stop
            found[kind] = Memory(job.program, chunk, *given)
    return tuple(found.values())


def with_sizes(memory: Memory, sizes: Sizes) -> Memory:
    """The same arithmetic in other sizes."""
    source = memory.extents[SOURCE]
    _, steps = _geometry(memory.program, memory.chunk.anywhere, source, sizes)
    return replace(memory, sizes=sizes, steps=steps)


@lru_cache(maxsize=32)
def _geometry(
    program: Program, chunk: Chunk, source: Extent, sizes: Sizes
) -> tuple[tuple[Extent, ...], tuple[StepBytes, ...]]:
    """The extents of all stores, and the arithmetic of all steps, in a chunk that lies anywhere;
    one who plans asks for the same again with other budgets.
    """
    extents = program.extents(source, chunk)
    return extents, steps_bytes(program, chunk, extents, sizes)


def alike(memories: tuple[Memory, ...]) -> dict[Kind, tuple[Memory, ...]]:
    """Those of the same extents together: they differ in the caches that come and go."""
    found: dict[Kind, tuple[Memory, ...]] = {}
    for memory in memories:
        found[memory.kind] = (*found.get(memory.kind, ()), memory)
    return found


def placed(
    memories: tuple[Memory, ...], places: Mapping[Kind, Places], reused_near: bool
) -> tuple[Memory, ...]:
    """`memories`, in the order in which their chunks come, with everything in its place.

    Far memory goes from store to store and on to the next chunk; that of the device does where it
    is `reused_near`, and otherwise comes from its allocator.
    """
    near, far, found = Pool(), Pool(), list[Memory]()
    for memory in memories:
        here = places[memory.kind]
        turns = None
        if here.bands:
            turns = turns_of(memory.program, here.bands, heights_of(memory.extents))
        there = replace(memory, places=here, turns=turns)
        pooled = _steady(near, there.live_bytes(False)) if reused_near else None
        away = _steady(far, there.live_bytes(True))
        found.append(replace(there, pooled_near=pooled, pooled_far=away))
    return tuple(found)


def _steady(pool: Pool, live: list[dict[int, int]]) -> tuple[int, ...]:
    """Bytes that are held while each step runs, in any chunk of a kind."""
    if not any(live):
        return (sum(block.size_bytes for block in pool.blocks),) * len(live)
    rounds = [held_bytes(pool, live) for _ in range(_UNTIL_STEADY)]
    return tuple(map(max, zip(*rounds, strict=True)))


_UNTIL_STEADY = 3
"""Chunks of a kind after which its blocks are what they will be."""
