"""How are the phase and the mask of HunyuanVideo 1.0 shown on two pictures?

1. `draw_phase`: one sample frame by three encoders, how far each is from the authors', the PSNR
   from the source over time and by delay, and a slice of every sample frame.
2. `draw_mask`: the same sample frame by three decoders, and how far from the authors' over time.

Canvas and colours are those of `argument_draw`. Nothing is computed here but magnified differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from argument_caption import decibels
from argument_draw import (
    BAD,
    FIGURE_PX,
    GAP_PX,
    GOOD,
    MARGIN_PX,
    RULE,
    SMALL_PX,
    SOFT,
    TEXT_PX,
    WIDTH_PX,
    Plot,
    Sheet,
    magnified,
)
from argument_measure import Levels
from PIL import Image

AMBER = (200, 120, 10)
COLUMNS, TOP_PX, AXIS_PX, PLOT_PX = 4, 232, 84, 300
CELL_PX = (WIDTH_PX - 2 * MARGIN_PX - (COLUMNS - 1) * GAP_PX) // COLUMNS
SLICE_ROWS, SLICE_COLUMNS = (8, 88), (150, 182)

ENCODERS = {
    "authors": ("authors', this pack", GOOD),
    "in_phase": ("core's, in phase", AMBER),
    "as_is": ("core's as it is", BAD),
}
DECODERS = {
    "authors": ("authors', this pack", GOOD),
    "no_mask": ("without the mask", AMBER),
    "core": ("core's", BAD),
}


@dataclass(frozen=True, slots=True)
class Shown:
    """numbers: of one part of `hunyuan.json`. levels: its sample frames. ways: titles and colours
    of those beside the source.
    """

    numbers: Mapping[str, Any]
    levels: Mapping[str, Levels]
    ways: Mapping[str, tuple[str, tuple[int, int, int]]]

    @property
    def frame(self) -> int:
        """The sample frame shown, as it is counted in the run."""
        return self.numbers["frame"]


@dataclass(frozen=True, slots=True)
class Axes:
    """The box of a plot; what stands at its ticks, and below; the unit and step of its values."""

    plot: Plot
    ticks: Mapping[int, str]
    below: str
    unit: str
    step: int


def column_x(column: int) -> int:
    """Left edge of a column."""
    return MARGIN_PX + column * (CELL_PX + GAP_PX)


def cell_height(levels: Mapping[str, Levels]) -> int:
    """Of a picture as wide as a column."""
    height, width = levels["source"].shape[1:3]
    return round(CELL_PX * height / width)


def draw_columns(sheet: Sheet, shown: Shown, key: str, words: str) -> int:
    """Source and each way, below each how far its pictures are from `words`, and differences from
    the authors'. Returns where that ends.
    """
    cell, levels, factor = cell_height(shown.levels), shown.levels, shown.numbers["factor"]
    below = TOP_PX + cell + 70
    titles = {"source": ("source", SOFT), **shown.ways}
    for column, (name, (title, colour)) in enumerate(titles.items()):
        x, picture = column_x(column), levels[name][shown.frame]
        sheet.text((x, TOP_PX - 14), title, TEXT_PX + 2, anchor="ls")
        sheet.paste(picture, (x, TOP_PX, CELL_PX, cell))
        if name not in ("source", "authors"):
            apart = magnified(picture, levels["authors"][shown.frame], factor)
            sheet.paste(apart, (x, below, CELL_PX, cell))
        if name != "source":
            figure = decibels(shown.numbers["cases"][name][key], 1)
            if figure != "identical":
                at = (x, TOP_PX + cell + 14)
                sheet.text(at, f"{figure} from {words}", FIGURE_PX - 6, colour=colour)
    lines = [
        f"difference from the authors', x{factor}", "", "black: no difference",
        f"white: {255 / factor:.0f} of 255 or more",
    ]  # fmt: skip
    for index, line in enumerate(lines):
        sheet.text((column_x(0), below + 8 + 36 * index), line, SMALL_PX, colour=SOFT)
    return below + cell


def draw_axes(sheet: Sheet, axes: Axes) -> None:
    """Values at the left, ticks below."""
    plot = axes.plot
    for value in range(round(plot.low), round(plot.high) + 1, axes.step):
        y = plot.y(value)
        sheet.draw.line((plot.left, y, plot.right, y), fill=RULE, width=2)
        text = f"{value}{axes.unit}"
        sheet.text((plot.left - 14, y), text, SMALL_PX - 1, colour=SOFT, anchor="rm")
    for position, text in axes.ticks.items():
        at = (plot.x(position + 0.5), plot.bottom + 12)
        sheet.text(at, text, SMALL_PX - 1, colour=SOFT, anchor="ma")
    middle = ((plot.left + plot.right) / 2, plot.bottom + 46)
    sheet.text(middle, axes.below, SMALL_PX - 1, colour=SOFT, anchor="ma")


def draw_curves(sheet: Sheet, plot: Plot, shown: Shown, key: str) -> None:
    """A line a way in the colour of its figure; the authors' is thin: one below it shows."""
    for name, (_, colour) in reversed(shown.ways.items()):
        values = shown.numbers["cases"][name][key]
        points = [(plot.x(t + 0.5), plot.y(value)) for t, value in enumerate(values)]
        width = 4 if name == "authors" else 9
        sheet.draw.line(points, fill=colour, width=width, joint="curve")


def draw_legend(sheet: Sheet, shown: Shown, y: int) -> None:
    """What each line is."""
    x = float(MARGIN_PX + AXIS_PX)
    for label, colour in shown.ways.values():
        sheet.draw.line((x, y, x + 34, y), fill=colour, width=7)
        x += 46 + sheet.text((x + 46, y), label, SMALL_PX, anchor="lm") + 34


def bounds(shown: Shown, key: str, step: int) -> tuple[float, float]:
    """Multiples of `step` that all values of the ways lie between."""
    every = [value for name in shown.ways for value in shown.numbers["cases"][name][key]]
    return float(min(every) // step * step), float(-(-max(every) // step) * step)


def frame_axes(shown: Shown, top: int, right: int, scale: tuple[str, str, int]) -> Axes:
    """Over time; `scale`: the values, their unit and their step."""
    key, unit, step = scale
    frames, (low, high) = len(shown.levels["source"]), bounds(shown, key, step)
    plot = Plot(MARGIN_PX + AXIS_PX, right, top, top + PLOT_PX, frames, low, high)
    return Axes(plot, {t: str(t) for t in range(0, frames, 4)}, "sample frame", unit, step)


def delay_axes(shown: Shown, top: int, left: int) -> Axes:
    """By delay."""
    delays, (low, high) = shown.numbers["delays"], bounds(shown, "delay_db", 2)
    plot = Plot(left, WIDTH_PX - MARGIN_PX, top, top + PLOT_PX, len(delays), low, high)
    ticks = {index: f"{delay:+d}" if delay else "0" for index, delay in enumerate(delays)}
    return Axes(plot, ticks, "sample frames late", " dB", 2)


def draw_strips(sheet: Sheet, shown: Shown, top: int) -> None:
    """A slice of every sample frame, side by side: the source's, the authors' and core's."""
    strips = {"source": "source", "authors": "authors' encoder", "as_is": "core's as it is"}
    left, right = MARGIN_PX, WIDTH_PX - MARGIN_PX
    frames, height = len(shown.levels["source"]), strip_height(shown)
    for index, (name, title) in enumerate(strips.items()):
        y = top + index * (height + 50)
        sheet.text((left, y - 8), title, SMALL_PX, anchor="ls")
        for t, frame in enumerate(shown.levels[name]):
            start, stop = (left + (right - left) * side // frames for side in (t, t + 1))
            piece = frame[slice(*SLICE_ROWS), slice(*SLICE_COLUMNS)]
            sheet.paste(piece, (start, y, stop - start, height))


def strip_height(shown: Shown) -> int:
    """Pixels that a strip takes, its slices keeping their proportions."""
    rows, columns = (stop - start for start, stop in (SLICE_ROWS, SLICE_COLUMNS))
    width = (WIDTH_PX - 2 * MARGIN_PX) / len(shown.levels["source"])
    return round(width * rows / columns)


def draw_phase(numbers: Mapping[str, Any], levels: Mapping[str, Levels]) -> Image.Image:
    """Three encoders, the authors' decoder."""
    shown = Shown(numbers, levels, ENCODERS)
    plots = TOP_PX + 2 * cell_height(levels) + 260
    strips = plots + PLOT_PX + 150
    sheet = Sheet(strips + 3 * (strip_height(shown) + 50) - 16)
    lines = [
        "HunyuanVideo 1.0: one clip by three encoders, all decoded as the authors do. Core's passes"
        " on a frame too many where",
        f"time is halved: its pictures are {numbers['cases']['as_is']['late']} sample frames late."
        f" Sample frame {shown.frame} is shown.",
    ]
    sheet.title("Core's video encoder is out of phase", lines)
    draw_columns(sheet, shown, "source_psnr_db", "the source")
    time = frame_axes(shown, plots, MARGIN_PX + 2 * (CELL_PX + GAP_PX) + 140, (
        "source_frame_db", " dB", 2))  # fmt: skip
    delay = delay_axes(shown, plots, time.plot.right + 150)
    draw_legend(sheet, shown, plots - 100)
    for axes, key, title in (
        (time, "source_frame_db", "PSNR from the source"),
        (delay, "delay_db", "PSNR from the source so many frames earlier"),
    ):
        sheet.text((axes.plot.left, plots - 40), title, SMALL_PX, colour=SOFT, anchor="ls")
        draw_axes(sheet, axes)
        draw_curves(sheet, axes.plot, shown, key)
    draw_strips(sheet, shown, strips)
    return sheet.image


def draw_mask(numbers: Mapping[str, Any], levels: Mapping[str, Levels]) -> Image.Image:
    """The authors' latents by three decoders."""
    shown = Shown(numbers, levels, DECODERS)
    top = TOP_PX + 2 * cell_height(levels) + 230
    sheet = Sheet(top + PLOT_PX + 110)
    lines = [
        "HunyuanVideo 1.0: the same latents by three decoders. Without the mask, attention in the"
        " middle of the network sees later",
        f"frames, too; core's decoder has other statistics beside that. Sample frame {shown.frame}"
        " is shown.",
    ]
    sheet.title("Core's attention has no mask", lines)
    draw_columns(sheet, shown, "authors_psnr_db", "the authors'")
    scale = ("authors_frame_level", "", 1)
    axes = frame_axes(shown, top, WIDTH_PX - MARGIN_PX, scale)
    draw_legend(sheet, shown, top - 84)
    title = "mean difference from the authors' pictures, of 255"
    sheet.text((axes.plot.left, top - 26), title, SMALL_PX, colour=SOFT, anchor="ls")
    draw_axes(sheet, axes)
    draw_curves(sheet, axes.plot, shown, "authors_frame_level")
    return sheet.image
