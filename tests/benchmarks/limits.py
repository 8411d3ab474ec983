"""Which counted figures must hold, and do they?

1. Device bytes: caches on the host, and stores too, at given clips; flat in the clip's length.
2. Operations against untiled diffusers at every tile size.
3. Projections: never below what is counted, and close to it.

Figures come from a function, so that the same limits are checked against rows that were counted and
against plans alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from math import isnan, nan

from vae_core.planning.memory import SLACK_BYTES

from .clips import Clip
from .rows import Case, Row
from .sides import Diffusers, Ours

GIB = 2**30

Figure = Callable[[Case], float]
"""One figure of a case; not a number where there is none."""

DEVICE_GIB = (
    ("caches-on-host", "encode", Clip(49, 480, 720), 2.0),
    ("caches-on-host", "decode", Clip(49, 480, 720), 2.5),
    ("host", "encode", Clip(49, 480, 720), 0.6),
    ("host", "decode", Clip(49, 480, 720), 0.6),
    ("host", "encode", Clip(81, 768, 1360), 0.8),
    ("host", "decode", Clip(81, 768, 1360), 0.8),
    ("host", "encode", Clip(49, 2160, 3840), 1.2),
    ("host", "decode", Clip(49, 2160, 3840), 1.2),
)

LONG, SHORT = Clip(249, 768, 1360), Clip(81, 768, 1360)

OPERATIONS = {"encode": 1.00, "decode": 0.94}
"""Of untiled diffusers, at tiles of 256 pixels and more."""

OPERATIONS_SMALL = 1.10
"""The same at tiles of 64 pixels."""

COUNTED_TILES, TILES_PX = Clip(49, 480, 720), (None, 64, 128, 256, 512)
"""The clip on which every tile size has a row."""


@dataclass(frozen=True, slots=True)
class Limit:
    """what was found, and the bound that it must not exceed."""

    what: str
    found: float
    bound: float
    unit: str

    @property
    def met(self) -> bool:
        return self.found <= self.bound

    def __str__(self) -> str:
        verdict = "met" if self.met else "NOT MET"
        return f"{verdict}: {self.what}: {self.found:.4g} {self.unit}, at most {self.bound:g}"


def memory_limits(peak: Figure, frames: int | None = None) -> Iterator[Limit]:
    """Device bytes; `frames` takes shorter clips of the smaller size in place of all."""
    for placement, kind, clip, bound in DEVICE_GIB:
        if frames is not None and clip.megapixels > 0.5:
            continue
        used = Clip(frames or clip.frames, clip.height, clip.width)
        found = peak(Case(Ours(placement), kind, used)) / GIB
        yield Limit(f"device memory, {placement}, {kind} {used}", found, bound, "GiB")


def length_limits(peak: Figure) -> Iterator[Limit]:
    """A long clip takes what a short one takes."""
    for placement in ("caches-on-host", "host"):
        for kind in ("encode", "decode"):
            long, short = (peak(Case(Ours(placement), kind, clip)) for clip in (LONG, SHORT))
            what = f"{LONG} over {SHORT}, {placement}, {kind}"
            yield Limit(f"device memory, {what}", long / short, 1.02, "times")


def operation_limits(
    operations: Figure, clip: Clip, tiles_px: Iterable[int | None]
) -> Iterator[Limit]:
    """Arithmetic against untiled diffusers."""
    for kind, large in OPERATIONS.items():
        untiled = operations(Case(Diffusers(), kind, clip))
        for tile_px in tiles_px:
            bound = large if tile_px is None or tile_px >= 256 else OPERATIONS_SMALL
            found = operations(Case(Ours("caches-on-host", tile_px), kind, clip)) / untiled
            tile = f"{tile_px} px" if tile_px else "left to the planner"
            yield Limit(f"operations, {kind} {clip}, tiles {tile}", found, bound, "times")


def projection_limits(rows: Iterable[Row]) -> Iterator[Limit]:
    """Of all rows, the one whose projection was the lowest and the one with the highest."""
    pairs = [(r.projected_bytes, r.peak_bytes) for r in rows if r.projected_bytes and r.peak_bytes]
    if pairs:
        lowest = max(counted / projected for projected, counted in pairs)
        highest = max((projected - SLACK_BYTES) / counted for projected, counted in pairs)
        yield Limit(f"counted over projected, {len(pairs)} plans", lowest, 1.0, "times")
        yield Limit(f"projected over counted, {len(pairs)} plans", highest, 1.15, "times")


def of_rows(rows: dict[tuple, Row]) -> Iterator[Limit]:
    """The limits for which counted rows are at hand."""

    def figure(case: Case, name: str) -> float:
        side = case.side
        asked = (side.placement, side.tile_px, None) if isinstance(side, Ours) else (None,) * 3
        row = rows.get((str(case.clip), case.kind, side.name, *asked))
        return nan if row is None or row.failure else getattr(row, name)

    def peak(case: Case) -> float:
        return figure(case, "peak_bytes")

    def operations(case: Case) -> float:
        return figure(case, "operations")

    yield from (
        limit
        for limit in chain(
            memory_limits(peak),
            length_limits(peak),
            operation_limits(operations, COUNTED_TILES, TILES_PX),
            projection_limits(rows.values()),
        )
        if not isnan(limit.found)
    )
