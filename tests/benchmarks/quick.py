"""Which limits can be checked in a minute or two?

1. Those on memory as plans project it, for every clip that is named: arithmetic, milliseconds.
2. The same counted at the dispatcher on 17 frames of the smallest of them: a first and a last chunk
   with causal caches between, each as large as any other chunk, and caches that are on the host
   take nothing on the device.
3. Those on operations, counted on 9 frames: they are the same in every chunk.
4. What was counted lies below what was projected.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from .clips import Clip
from .limits import Limit, length_limits, memory_limits, operation_limits, projection_limits
from .rows import Case, Row, measured

COUNTED_FRAMES = 17

SMALL = Clip(9, 240, 368)


def projected_peak(case: Case) -> int:
    """What the plan says; only ours have one."""
    return case.side.plan(case.kind, case.clip).peak_bytes


@lru_cache(maxsize=64)
def row_of(case: Case) -> Row:
    """A case counted once in this process; what fails raises here."""
    row = measured(case)
    if row.failure:
        raise RuntimeError(f"{case}: {row.failure}")
    return row


def counted_peak(case: Case) -> int:
    return row_of(case).peak_bytes or 0


def counted_operations(case: Case) -> int:
    return row_of(case).operations or 0


def projected_limits() -> Iterator[Limit]:
    """The limits on memory, from plans alone."""
    for limit in (*memory_limits(projected_peak), *length_limits(projected_peak)):
        yield Limit(f"{limit.what}, projected", limit.found, limit.bound, limit.unit)


def quick_limits() -> Iterator[Limit]:
    """All of the module's words."""
    yield from projected_limits()
    rows: list[Row] = []

    def peak(case: Case) -> int:
        rows.append(row_of(case))
        return counted_peak(case)

    yield from memory_limits(peak, frames=COUNTED_FRAMES)
    yield from operation_limits(counted_operations, SMALL, (None, 256, 64))
    yield from projection_limits(rows)
