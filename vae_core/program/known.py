"""What comes of a program for one kind of chunk?

Whoever plans asks it again with other budgets, places and tiles, so that it is worked out once.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from ..geometry.grid import Chunk
from ..geometry.region import Extent
from .steps import Program


def extents_of(program: Program, source: Extent, chunk: Chunk) -> tuple[Extent, ...]:
    """`Program.extents`; of a band those of the clip."""
    return _extents(program, source, replace(chunk.anywhere, band=None))


def operations_of(program: Program, source: Extent, chunk: Chunk) -> int:
    """`Program.operations`."""
    return _operations(program, source, chunk.anywhere)


@lru_cache(maxsize=128)
def _extents(program: Program, source: Extent, chunk: Chunk) -> tuple[Extent, ...]:
    return program.extents(source, chunk)


@lru_cache(maxsize=256)
def _operations(program: Program, source: Extent, chunk: Chunk) -> int:
    return program.operations(source, chunk)
