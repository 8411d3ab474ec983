"""Which counted figures must hold, and do they?

1. Device bytes at given clips and placements; flat in the clip's length.
2. Operations against an untiled peer at every tile size, attention apart.
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
from .sides import Core, Diffusers, Ours, Side
from .timing import OURS

GIB = 2**30

Figure = Callable[[Case], float]
"""One figure of a case; not a number where there is none."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What must hold for a family.

    device_gib: (placement, kind, clip, GiB) at most. long, short: clips that must take the same, at
    these placements. operations: of the peer `against`, at tiles of 256 pixels and more.
    operations_small: the same at tiles of 64 pixels. attention: of the peer's, at every tile size.
    tiled: the clip on which every tile size has a row. tiles_px: those sizes.
    projected: a projection over what is counted, at most.
    """

    device_gib: tuple[tuple[str, str, Clip, float], ...]
    long: Clip
    short: Clip
    placements: tuple[str, ...]
    against: Side
    operations: dict[str, float]
    operations_small: float
    attention: float | None
    tiled: Clip
    tiles_px: tuple[int | None, ...]
    projected: float


def _decoded(short: Clip, long: Clip, core_gib: float) -> Bounds:
    """Decoding with everything on the host, and with caches there in a third of core's bytes."""
    most = (("host", "decode", short, 0.6), ("caches-on-host", "decode", short, core_gib / 3))
    flat = ("caches-on-host", "host")
    return Bounds(most, long, short, flat, Core(), {}, 1.0, None, short, (), 1.15)


_TILES_PX = (None, 64, 128, 256, 512)
_LTX = Clip(121, 1088, 1920)
_WAN_720, _WAN_4K, _PICTURE = (
    Clip(81, 720, 1280),
    Clip(81, 2160, 3840),
    Clip(1, 1440, 2560),
)

BOUNDS = {
    "cogvideox": Bounds(
        (
            ("caches-on-host", "encode", Clip(49, 480, 720), 2.0),
            ("caches-on-host", "decode", Clip(49, 480, 720), 2.5),
            ("host", "encode", Clip(49, 480, 720), 0.6),
            ("host", "decode", Clip(49, 480, 720), 0.6),
            ("host", "encode", Clip(81, 768, 1360), 0.8),
            ("host", "decode", Clip(81, 768, 1360), 0.8),
            ("host", "encode", Clip(49, 2160, 3840), 1.2),
            ("host", "decode", Clip(49, 2160, 3840), 1.2),
        ),
        Clip(249, 768, 1360),
        Clip(81, 768, 1360),
        ("caches-on-host", "host"),
        Diffusers(),
        {"encode": 1.00, "decode": 0.94},
        1.10,
        None,
        Clip(49, 480, 720),
        _TILES_PX,
        1.15,
    ),
    "wan": Bounds(
        (
            ("device", "encode", _WAN_720, 4.21),  # what core takes untiled, and so in decoding
            ("device", "decode", _WAN_720, 6.23),
            ("caches-on-host", "encode", _WAN_720, 1.9),
            ("caches-on-host", "decode", _WAN_720, 2.3),
            ("host", "encode", _WAN_720, 0.4),
            ("host", "decode", _WAN_720, 0.4),
            ("host", "encode", _WAN_4K, 0.6),
            ("host", "decode", _WAN_4K, 0.6),
            ("host", "encode", _PICTURE, 0.5),
            ("host", "decode", _PICTURE, 0.5),
        ),
        Clip(241, 720, 1280),
        _WAN_720,
        ("device", "caches-on-host", "host"),
        Core(),
        {"encode": 1.00, "decode": 1.00},
        1.00,
        1.02,
        _WAN_720,
        _TILES_PX,
        1.25,
    ),
    "wan22": _decoded(_WAN_720, Clip(241, 720, 1280), 7.0),
    "hunyuan": _decoded(_WAN_720, Clip(161, 720, 1280), 19.9),
    "hunyuan15": _decoded(_WAN_720, Clip(161, 720, 1280), 13.5),
    "seedvr2": _decoded(Clip(21, 1080, 1920), Clip(81, 1080, 1920), 34.2),
    "mochi": _decoded(Clip(79, 720, 1280), Clip(163, 720, 1280), 105.0),
    "ltx": Bounds(
        (("host", "decode", _LTX, 0.7), ("device", "decode", _LTX, 1.1 * 6.33)),
        Clip(481, 1088, 1920),
        _LTX,
        ("host",),
        Core(),
        {},
        1.0,
        None,
        _LTX,
        (),
        1.15,
    ),
}


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


def memory_limits(
    peak: Figure, frames: int | None = None, family: str = "cogvideox"
) -> Iterator[Limit]:
    """Device bytes; `frames` takes shorter clips of the smaller size in place of all."""
    for placement, kind, clip, bound in BOUNDS[family].device_gib:
        if frames is not None and clip.megapixels > 0.5:
            continue
        used = Clip(frames or clip.frames, clip.height, clip.width)
        found = peak(Case(Ours(placement), kind, used, family)) / GIB
        yield Limit(f"device memory, {placement}, {kind} {used}", found, bound, "GiB")


def length_limits(peak: Figure, family: str = "cogvideox") -> Iterator[Limit]:
    """A long clip takes what a short one takes."""
    bounds = BOUNDS[family]
    for placement in bounds.placements:
        for kind in ("encode", "decode"):
            pair = (bounds.long, bounds.short)
            long, short = (peak(Case(Ours(placement), kind, clip, family)) for clip in pair)
            what = f"{bounds.long} over {bounds.short}, {placement}, {kind}"
            yield Limit(f"device memory, {what}", long / short, 1.0, "times")


def operation_limits(
    operations: Figure,
    clip: Clip,
    tiles_px: Iterable[int | None],
    family: str = "cogvideox",
) -> Iterator[Limit]:
    """Arithmetic of convolutions against the peer's."""
    bounds = BOUNDS[family]
    for kind, large in bounds.operations.items():
        untiled = operations(Case(bounds.against, kind, clip, family))
        for tile_px in tiles_px:
            bound = large if tile_px is None or tile_px >= 256 else bounds.operations_small
            ours = Case(Ours("caches-on-host", tile_px), kind, clip, family)
            what = f"operations, {kind} {clip}, tiles {_tile(tile_px)}"
            yield Limit(what, operations(ours) / untiled, bound, "times")


def attention_limits(
    attention: Figure, clip: Clip, tiles_px: Iterable[int | None], family: str
) -> Iterator[Limit]:
    """Arithmetic of attention against the peer's; nothing where a family has none."""
    bounds = BOUNDS[family]
    if bounds.attention is None:
        return
    for kind in bounds.operations:
        untiled = attention(Case(bounds.against, kind, clip, family))
        for tile_px in tiles_px:
            ours = Case(Ours("caches-on-host", tile_px), kind, clip, family)
            what = f"attention, {kind} {clip}, tiles {_tile(tile_px)}"
            yield Limit(what, attention(ours) / untiled, bounds.attention, "times")


def _tile(tile_px: int | None) -> str:
    return f"{tile_px} px" if tile_px else "left to the planner"


def projection_limits(rows: Iterable[Row], family: str = "cogvideox") -> Iterator[Limit]:
    """Of all rows, the one whose projection was the lowest and the one with the highest."""
    found = [row for row in rows if row.projected_bytes and row.peak_bytes]
    if found:
        low = max(found, key=lambda row: row.peak_bytes / row.projected_bytes)
        high = max(found, key=_over)
        lowest, bound = low.peak_bytes / low.projected_bytes, BOUNDS[family].projected
        yield Limit(f"counted over projected, {_of(low, found)}", lowest, 1.0, "times")
        yield Limit(f"projected over counted, {_of(high, found)}", _over(high), bound, "times")


def _over(row: Row) -> float:
    return (row.projected_bytes - SLACK_BYTES) / row.peak_bytes


def _of(row: Row, found: list[Row]) -> str:
    return f"{len(found)} plans, at most in {row.kind} {row.clip} {row.placement}"


def of_rows(rows: dict[tuple, Row], family: str = "cogvideox") -> Iterator[Limit]:
    """The limits for which counted rows are at hand."""
    bounds = BOUNDS[family]

    def figure(case: Case, name: str) -> float:
        side = case.side
        asked = (side.placement, side.tile_px, None) if isinstance(side, Ours) else (None,) * 3
        row = rows.get((family, str(case.clip), case.kind, side.name, *asked))
        found = None if row is None or row.failure else getattr(row, name)
        return nan if found is None else found

    def peak(case: Case) -> float:
        return figure(case, "peak_bytes")

    def operations(case: Case) -> float:
        return figure(case, "operations")

    def attention(case: Case) -> float:
        return figure(case, "attention")

    yield from (
        limit
        for limit in chain(
            memory_limits(peak, family=family),
            length_limits(peak, family),
            operation_limits(operations, bounds.tiled, bounds.tiles_px, family),
            attention_limits(attention, bounds.tiled, bounds.tiles_px, family),
            projection_limits((row for row in rows.values() if row.family == family), family),
        )
        if not isnan(limit.found)
    )


TIMES = {
    "wan": (
        (("of_whole", "of_core"), 0.85),
        (("of_core_tiled",), 0.70),
        (("of_bare",), 1.12),
    ),
    "wan22": ((("of_whole", "of_core"), 0.90),),
    "hunyuan": ((("of_whole", "of_core"), 0.90),),
    "hunyuan15": ((("of_whole", "of_core"), 0.90),),
    "seedvr2": ((("of_core",), 0.90),),
    "mochi": ((("of_core",), 0.90),),
    "ltx": ((("of_core",), 0.95),),
}
"""For a family: ratios of medians, of which the largest holds, and its bound."""


def of_times(rows: Iterable[dict], family: str) -> Iterator[Limit]:
    """The limits on seconds, of rows as they are kept."""
    side = OURS[family][0]
    ours = [row for row in rows if row.get("family") == family and row["side"] == side]
    for row in ours:
        for names, bound in TIMES.get(family, ()):
            found = [row[name] for name in names if row.get(name)]
            if found:
                what = f"time, {row['kind']} {row['clip']}, {' and '.join(names)}"
                yield Limit(what, max(found), bound, "times")
