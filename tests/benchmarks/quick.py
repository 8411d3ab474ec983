"""Which limits can be checked in a minute or two?

1. Those on memory as plans project it, for every clip that is named: arithmetic, milliseconds.
2. CogVideoX counted at the dispatcher on 17 frames of the smallest of them: a first and a last
   chunk with causal caches between, each as large as any other chunk, and caches that are on the
   host take nothing on the device. Its operations, counted on 9 frames: they are the same in every
   chunk.
3. Wan counted on a preview, and its operations as plans have them against those of ComfyUI core,
   which are kept in docs/benchmarks.json.
4. What was counted lies below what was projected.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import nan

from .cases import KINDS, PLACEMENTS
from .clips import Clip
from .families import FAMILIES
from .limits import (
    BOUNDS,
    Limit,
    attention_limits,
    length_limits,
    memory_limits,
    operation_limits,
    projection_limits,
)
from .rows import Case, Row, load, measured, projected
from .sides import Ours

COUNTED_FRAMES = 17

SMALL = Clip(9, 240, 368)

PREVIEW = Clip(17, 240, 416)


def projected_peak(case: Case) -> int:
    """What the plan says; only ours have one."""
    return case.side.plan(case.kind, case.clip, case.family).peak_bytes


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


def planned_operations(case: Case) -> float:
    """Of convolutions as the plan has them; of a peer as its kept row has them."""
    return _planned(case).operations or nan


def planned_attention(case: Case) -> float:
    """The same of attention."""
    return _planned(case).attention or nan


def _planned(case: Case) -> Row:
    row = projected(case)
    return row if isinstance(case.side, Ours) else load().get(row.key, row)


def projected_limits(family: str = "cogvideox") -> Iterator[Limit]:
    """The limits on memory, from plans alone."""
    memory = memory_limits(projected_peak, family=family)
    for limit in (*memory, *length_limits(projected_peak, family)):
        yield Limit(f"{limit.what}, projected", limit.found, limit.bound, limit.unit)


def quick_limits(family: str) -> Iterator[Limit]:
    """All of the module's words."""
    yield from projected_limits(family)
    if family == "cogvideox":
        yield from _counted_cogvideox()
    else:
        yield from _planned_work(family)
        clip = PREVIEW.on(FAMILIES[family].grid)
        cases = (Case(Ours(place), kind, clip, family) for place in PLACEMENTS for kind in KINDS)
        yield from projection_limits([row_of(case) for case in cases], family)


def _counted_cogvideox() -> Iterator[Limit]:
    rows: list[Row] = []

    def peak(case: Case) -> int:
        rows.append(row_of(case))
        return counted_peak(case)

    yield from memory_limits(peak, frames=COUNTED_FRAMES)
    yield from operation_limits(counted_operations, SMALL, (None, 256, 64))
    yield from projection_limits(rows)


def _planned_work(family: str) -> Iterator[Limit]:
    bounds = BOUNDS[family]
    where = (bounds.tiled, bounds.tiles_px, family)
    yield from operation_limits(planned_operations, *where)
    yield from attention_limits(planned_attention, *where)
