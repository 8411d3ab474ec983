"""Which rows make up the table and the plots?"""

from __future__ import annotations

from .clips import OVER_FRAMES, OVER_MEGAPIXELS, TABLE, Clip
from .rows import Case
from .sides import Core, Diffusers, Ours, Side

GIB = 2**30

KINDS = ("encode", "decode")

PLACEMENTS = ("device", "caches-on-host", "host")

PEERS = (Diffusers(), Diffusers(tiled=True), Core())

DRAWN = tuple(Ours(placement) for placement in PLACEMENTS)
"""Tiles left to the planner."""

TILED = tuple(Ours("caches-on-host", tile_px=tile_px) for tile_px in (64, 128, 256, 512))

BUDGETS = tuple(Ours("auto", budget_bytes=gib * GIB) for gib in (1, 6))


def _sides(clip: Clip) -> tuple[Side, ...]:
    tiled = TILED if clip == Clip(49, 480, 720) else ()
    budgets = BUDGETS if clip.frames in (49, 81) and clip.megapixels < 1.1 else ()
    return (*DRAWN, *tiled, *budgets, *PEERS)


def table_cases(clips: tuple[Clip, ...] = TABLE) -> list[Case]:
    """Every side on every clip, both ways."""
    return [Case(side, kind, clip) for clip in clips for kind in KINDS for side in _sides(clip)]


def plot_cases() -> list[Case]:
    """What the plots need beyond the table."""
    clips = dict.fromkeys((*OVER_FRAMES, *OVER_MEGAPIXELS))
    sides = (*DRAWN, *PEERS)
    return [Case(side, kind, clip) for clip in clips for kind in KINDS for side in sides]
