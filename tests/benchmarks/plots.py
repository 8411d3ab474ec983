"""What do the counted peaks look like over frames, and over megapixels?

1. Two panels, encode and decode, on logarithmic axes; one line a side, named at its end.
2. Horizontal lines mark the memory of common cards; a cross marks where a side fails.
3. A hollow point is projected by a plan and not counted yet.
4. Drawn on a ground of its own, so that it reads on light and dark pages alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .clips import OVER_FRAMES, OVER_MEGAPIXELS, WAN_OVER_FRAMES, Clip
from .rows import ROOT, Row

GIB = 2**30

CARDS_GIB = (6, 8, 12, 24)

TICKS_GIB = (0.25, 0.5, 1, 2, 4, 16, 48, 96)

INK, QUIET, GROUND = "#1f2933", "#7b8794", "#fbfcfd"


@dataclass(frozen=True, slots=True)
class Line:
    """A side, as (side, placement); its label, colour and width."""

    key: tuple[str, str | None]
    label: str
    colour: str
    width: float = 1.6


LINES = (
    Line(("diffusers untiled", None), "diffusers untiled", "#b23a48"),
    Line(("ComfyUI core", None), "ComfyUI core", "#c77d0a"),
    Line(("ComfyUI core tiled", None), "core tiled\n(another result)", "#5f8f5b"),
    Line(("diffusers tiled", None), "diffusers tiled\n(another result)", "#8a6fb0"),
    Line(("ours", "device"), "ours, on the device", "#6fa8dc", 2.4),
    Line(("ours", "caches-on-host"), "ours, caches on host", "#2f6fb2", 2.4),
    Line(("ours", "host"), "ours, stores on host", "#123a6b", 2.4),
)


@dataclass(frozen=True, slots=True)
class Axis:
    """What runs along the bottom of a picture. limits_gib: the least and the most that it shows."""

    clips: tuple[Clip, ...]
    value: Callable[[Clip], float]
    label: str
    title: str
    ticks: tuple[tuple[float, str], ...]
    family: str = "cogvideox"
    limits_gib: tuple[float, float] = (0.15, 150)


FRAMES = Axis(
    OVER_FRAMES,
    lambda clip: clip.frames,
    "sample frames",
    "Peak device memory over clip length, 768x1360, bfloat16",
    tuple((clip.frames, str(clip.frames)) for clip in OVER_FRAMES),
)

MEGAPIXELS = Axis(
    OVER_MEGAPIXELS,
    lambda clip: clip.megapixels,
    "picture (height x width)",
    "Peak device memory over picture size, 49 sample frames, bfloat16",
    tuple((clip.megapixels, f"{clip.height}\nx{clip.width}") for clip in OVER_MEGAPIXELS),
)

WAN_FRAMES = Axis(
    WAN_OVER_FRAMES,
    lambda clip: clip.frames,
    "sample frames",
    "Wan 2.1: peak device memory over clip length, 720x1280, bfloat16",
    tuple((clip.frames, str(clip.frames)) for clip in WAN_OVER_FRAMES),
    "wan",
    (0.15, 30),
)


def _found(rows: dict[tuple, Row], line: Line, kind: str, axis: Axis) -> list[tuple]:
    """(place on the axis, its row) for every clip that has one."""
    side, placement = line.key
    asked = (kind, side, placement, None, None)
    keys = ((clip, (axis.family, str(clip), *asked)) for clip in axis.clips)
    return [(axis.value(clip), rows[key]) for clip, key in keys if key in rows]


def _spread(ends: list[tuple[float, Line]], least: float) -> list[tuple[float, Line]]:
    """Heights of labels, moved up until each is `least` times the one below it."""
    placed: list[tuple[float, Line]] = []
    for height, line in sorted(ends, key=lambda end: end[0]):
        lowest = (
            placed[-1][0] * least * (1.35 if "\n" in placed[-1][1].label else 1) if placed else 0
        )
        placed.append((max(height, lowest), line))
    return placed


def _height(row: Row) -> float | None:
    """GiB as counted, else as projected; None where the run fails."""
    found = row.peak_bytes if row.peak_bytes or row.failure else row.projected_bytes
    return found / GIB if found else None


def _draw_line(panel, line: Line, found: list[tuple[float, Row]]) -> float | None:
    """Draws one side; the height at which its line ends."""
    good = [(x, _height(row), row) for x, row in found if _height(row)]
    if not good:
        return None
    panel.plot([x for x, _, _ in good], [y for _, y, _ in good], color=line.colour, lw=line.width)
    for x, y, row in good:
        fill = line.colour if row.peak_bytes else GROUND
        panel.plot(x, y, "o", ms=4.5, mfc=fill, mec=line.colour, mew=1.3)
    end_x, end_y, _ = good[-1]
    failed = [x for x, row in found if row.failure and x > end_x][:1]
    for x in failed:
        panel.plot((end_x, x), (end_y, end_y), ":", color=line.colour, lw=line.width)
        panel.plot(x, end_y, "x", color=line.colour, ms=8, mew=2)
        panel.annotate(
            "fails",
            (x, end_y),
            (7, 0),
            textcoords="offset points",
            color=line.colour,
            fontsize=8,
            va="center",
        )
    return end_y


def _draw_lines(panel, rows: dict[tuple, Row], kind: str, axis: Axis) -> None:
    drawn = ((_draw_line(panel, line, _found(rows, line, kind, axis)), line) for line in LINES)
    ends = [(height, line) for height, line in drawn if height]
    for height, line in _spread(ends, least=1.3):
        panel.annotate(
            line.label,
            (1.015, height),
            xycoords=("axes fraction", "data"),
            color=line.colour,
            va="center",
            fontsize=8.5,
            linespacing=0.95,
            annotation_clip=False,
        )


def _dress(panel, kind: str, axis: Axis) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_title(kind, loc="left", fontsize=10, color=INK, fontweight="bold")
    panel.set_xticks([place for place, _ in axis.ticks], [text for _, text in axis.ticks])
    ticks = [size for size in TICKS_GIB if size < axis.limits_gib[1]]
    panel.set_yticks(ticks, [f"{size:g}" for size in ticks])
    panel.minorticks_off()
    panel.set_xlim(axis.ticks[0][0] * 0.6, axis.ticks[-1][0] * 1.06)
    panel.set_ylim(*axis.limits_gib)
    panel.set_xlabel(axis.label, fontsize=9, color=INK)
    panel.tick_params(colors=INK, labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(QUIET)
    for size in CARDS_GIB:
        panel.axhline(size, color=QUIET, lw=0.7, ls=(0, (4, 3)), zorder=0)
        panel.annotate(
            f"{size} GB card",
            (0.005, size),
            xycoords=("axes fraction", "data"),
            color=QUIET,
            fontsize=7,
            va="bottom",
        )


def draw(rows: dict[tuple, Row], axis: Axis, path: Path) -> None:
    """One picture with a panel each for encode and decode."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 4.8), facecolor=GROUND, layout="constrained")
    FigureCanvasAgg(figure)
    for panel, kind in zip(figure.subplots(1, 2, sharey=True), ("encode", "decode"), strict=True):
        panel.set_facecolor(GROUND)
        _draw_lines(panel, rows, kind, axis)
        _dress(panel, kind, axis)
        panel.tick_params(labelleft=True)
    figure.axes[0].set_ylabel("GiB, weights left out", fontsize=9, color=INK)
    figure.suptitle(axis.title, fontsize=11, color=INK)
    figure.savefig(path, dpi=150, facecolor=GROUND)


def draw_all(rows: dict[tuple, Row]) -> list[Path]:
    """All pictures, in docs/."""
    pictures = {
        "memory_frames.png": FRAMES,
        "memory_megapixels.png": MEGAPIXELS,
        "memory_frames_wan.png": WAN_FRAMES,
    }
    for name, axis in pictures.items():
        draw(rows, axis, ROOT / "docs" / name)
    return [ROOT / "docs" / name for name in pictures]
