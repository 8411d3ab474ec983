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
    with. tiled: the clip on which every tile size has a row.
    """

    table: tuple[Clip, ...]
    drawn: tuple[Clip, ...]
    peers: tuple[Side, ...]
    tiled: Clip


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
}


def _sides(family: str, clip: Clip) -> tuple[Side, ...]:
    choice = CHOICES[family]
    tiled = TILED if clip == choice.tiled else ()
    budgets = BUDGETS if clip.frames in (49, 81) and clip.megapixels < 1.1 else ()
    return (*DRAWN, *tiled, *budgets, *choice.peers)


def table_cases(family: str, clips: tuple[Clip, ...] = ()) -> list[Case]:
    """Every side on every clip, both ways."""
    return [
        Case(side, kind, clip, family)
        for clip in clips or CHOICES[family].table
        for kind in KINDS
        for side in _sides(family, clip)
    ]


def plot_cases(family: str) -> list[Case]:
    """What the plots need beyond the table."""
    choice = CHOICES[family]
    clips, sides = dict.fromkeys(choice.drawn), (*DRAWN, *choice.peers)
    return [Case(side, kind, clip, family) for clip in clips for kind in KINDS for side in sides]
