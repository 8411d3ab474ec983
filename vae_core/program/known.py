"""What comes of a program for one kind of chunk?

Whoever plans asks it again with other budgets, places and tiles, so that it is worked out once.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from ..geometry.grid import Chunk
from ..geometry.region import Extent
from .steps import Program, Step


def extents_of(program: Program, source: Extent, chunk: Chunk) -> tuple[Extent, ...]:
    """`Program.extents`; of a band those of the clip."""
    return _extents(program, source, replace(chunk.anywhere, band=None))


def operations_of(program: Program, source: Extent, chunk: Chunk) -> int:
    """Floating point operations of one chunk, for a batch of one."""
    return _operations(program, source, chunk.anywhere)


def cells_of(program: Program, source: Extent, chunk: Chunk) -> tuple[tuple[Extent, ...], ...]:
    """For every step the cells that are run together, see `Step.runs`."""
    return tuple(tuple(cells for _, cells in runs) for runs in _runs_of(program, source, chunk))


@lru_cache(maxsize=128)
def _extents(program: Program, source: Extent, chunk: Chunk) -> tuple[Extent, ...]:
    return program.extents(source, chunk)


@lru_cache(maxsize=256)
def _operations(program: Program, source: Extent, chunk: Chunk) -> int:
    extents = extents_of(program, source, chunk)
    every = zip(program.steps, _runs_of(program, source, chunk), strict=True)
    return sum(
        run.operations(cells, extents[step.src]) for step, runs in every for run, cells in runs
    )


_Runs = tuple[tuple[tuple[Step, Extent], ...], ...]
"""For every step those that make its frames, each with the extent of its cells."""


def _runs_of(program: Program, source: Extent, chunk: Chunk) -> _Runs:
    """Bands of a clip differ in nothing but their frames."""
    alike = _runs(program, source, replace(chunk.anywhere, band=None))
    if chunk.band is None:
        return alike
    frames = [cells.size for cells in chunk.band.cells]
    return tuple(
        ((step, replace(runs[0][1], t=frames[step.dst])),)
        for step, runs in zip(program.steps, alike, strict=True)
    )


@lru_cache(maxsize=256)
def _runs(program: Program, source: Extent, chunk: Chunk) -> _Runs:
    extents = _extents(program, source, chunk)
    return tuple(
        tuple((run, replace(cells, t=frames.size)) for run, frames in step.runs(src, chunk))
        for step in program.steps
        for src in [extents[step.src]]
        for cells in [step.mixed_extent(src, chunk)]
    )
