"""Which rows make up the table and the plots?"""

from __future__ import annotations

from dataclasses import dataclass

from .clips import (
    OVER_FRAMES,
    OVER_MEGAPIXELS,
    TABLE,
    WAN_OVER_FRAMES,
    WAN_TABLE,
    Clip,
)
from .rows import Case
from .sides import Core, Diffusers, Ours, Side

GIB = 2**30

KINDS = ("encode", "decode")

PLACEMENTS = ("device", "caches-on-host", "host")

DRAWN = tuple(Ours(placement) for placement in PLACEMENTS)
"""Tiles left to the planner."""

TILED = tuple(Ours("caches-on-host", tile_px=tile_px) for tile_px in (64, 128, 256, 512))

BUDGETS = tuple(Ours("auto", budget_bytes=gib * GIB) for gib in (1, 6))


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a family is counted.

    table: clips with a row for every side. drawn: those of the plots. peers: whom it is compared
    with. tiled: the clip on which every tile size and budget has a row; None where none has.
    long: clips with a row of ours with everything on the host. kinds: what is counted of it.
    """

    table: tuple[Clip, ...]
    drawn: tuple[Clip, ...]
    peers: tuple[Side, ...]
    tiled: Clip | None
    long: tuple[Clip, ...] = ()
    kinds: tuple[str, ...] = KINDS


def _decoded(clip: Clip, long: Clip) -> Choice:
    """Decoding alone, against core, and of a longer clip too."""
    return Choice((clip,), (), (Core(),), None, (long,), ("decode",))


CHOICES = {
    "cogvideox": Choice(
        TABLE,
        (*OVER_FRAMES, *OVER_MEGAPIXELS),
        (Diffusers(), Diffusers(tiled=True), Core()),
        Clip(49, 480, 720),
    ),
    "wan": Choice(
        WAN_TABLE,
        WAN_OVER_FRAMES,
        (Diffusers(), Diffusers(tiled=True), Core(), Core(tiled=True)),
        Clip(81, 720, 1280),
    ),
    "wan22": _decoded(Clip(81, 720, 1280), Clip(241, 720, 1280)),
    "hunyuan": _decoded(Clip(81, 720, 1280), Clip(161, 720, 1280)),
    "hunyuan15": _decoded(Clip(81, 720, 1280), Clip(161, 720, 1280)),
    "seedvr2": _decoded(Clip(21, 1080, 1920), Clip(81, 1080, 1920)),
    "mochi": _decoded(Clip(79, 720, 1280), Clip(163, 720, 1280)),
    "ltx": _decoded(Clip(121, 1088, 1920), Clip(481, 1088, 1920)),
}


def _sides(family: str, clip: Clip) -> tuple[Side, ...]:
    choice = CHOICES[family]
    tiled = TILED if clip == choice.tiled else ()
    budgeted = choice.tiled and clip.frames in (49, 81) and clip.megapixels < 1.1
    budgets = BUDGETS if budgeted else ()
    if clip in choice.long:
        return (Ours("host"),)
    return (*DRAWN, *tiled, *budgets, *choice.peers)


def table_cases(family: str, clips: tuple[Clip, ...] = ()) -> list[Case]:
    """Every side on every clip, in every way that is counted."""
    choice = CHOICES[family]
    return [
        Case(side, kind, clip, family)
        for clip in clips or (*choice.table, *choice.long)
        for kind in choice.kinds
        for side in _sides(family, clip)
    ]


def plot_cases(family: str) -> list[Case]:
    """What the plots need beyond the table."""
    choice = CHOICES[family]
    clips, sides = dict.fromkeys(choice.drawn), (*DRAWN, *choice.peers)
    return [Case(side, kind, clip, family) for clip in clips for kind in KINDS for side in sides]
