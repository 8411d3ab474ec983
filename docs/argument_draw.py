"""How is the argument shown on two pictures that read at the width of a README?

1. `draw_tiles`: one column a way to tile; the decoded picture, a detail where four tiles meet, the
   difference from untiled, and its figures.
2. `draw_time`: the round trip under both norm scopes, then the causal cache: PSNR over time, and
   below it, on the same axis of time, one column of pixels in every sample frame.

Pictures are drawn at twice the width at which they are shown. Every figure comes from the numbers
that were measured; nothing is computed here but the factor of a magnified difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from argument_caption import decibels, level
from argument_measure import TILE_PX, Levels
from PIL import Image, ImageDraw, ImageFont

WIDTH_PX = 1800
MARGIN_PX = 40
GAP_PX = 14
COLUMNS = 5
CELL_PX = (WIDTH_PX - 2 * MARGIN_PX - (COLUMNS - 1) * GAP_PX) // COLUMNS
DETAIL_PX = 66
BACKGROUND = (251, 251, 249)
BORDER = (205, 208, 212)
STRONG = (24, 28, 34)
SOFT = (92, 99, 110)
RULE = (222, 224, 227)
GOOD = (17, 119, 74)
BAD = (190, 50, 32)
TEXT_PX, SMALL_PX, TITLE_PX, FIGURE_PX = 28, 25, 42, 36

TILE_TITLES = {
    "untiled": "untiled",
    "exact": "exact tiles",
    "blend_0": "blended over 0 px",
    "blend_16": "blended over 16 px",
    "blend_32": "blended over 32 px",
}
CACHE_LINES = {
    "kept": ("kept", GOOD),
    "once": ("lost once, after sample frame 0", (38, 98, 168)),
    "encode": ("dropped in encoder", (200, 120, 10)),
    "both": ("in encoder and decoder", BAD),
}
_CACHE_SUBTITLE = (
    "How much nearer to the source each sample frame comes (PSNR) than with the cache kept;"
    " below 0 is farther."
)
_STRIPS = {
    "kept": "cache kept: the same slice of every sample frame",
    "both": "cache dropped in the encoder and the decoder",
    "difference": "difference of the two, x{factor}",
}
_SLICE_ROWS, _SLICE_COLUMNS = (24, 104), (104, 128)
_SCOPE_TOP_PX = 196


class Sheet:
    """A light canvas with a border, so that it stands on a dark page too, and a few ways to
    draw.
    """

    def __init__(self, height_px: int) -> None:
        self.image = Image.new("RGB", (WIDTH_PX, height_px), BACKGROUND)
        self.draw = ImageDraw.Draw(self.image)
        self.draw.rectangle((0, 0, WIDTH_PX - 1, height_px - 1), outline=BORDER, width=2)

    def text(
        self, at: tuple[float, float], text: str, size_px: int = TEXT_PX, *,
        colour: tuple[int, int, int] = STRONG, anchor: str = "la",
    ) -> float:  # fmt: skip
        """Write one line, `at` being the point of it that `anchor` names; returns its width."""
        font = ImageFont.load_default(size_px)
        self.draw.text(at, text, fill=colour, font=font, anchor=anchor)
        return self.draw.textlength(text, font=font)

    def title(self, title: str, lines: Sequence[str], y: int = 34) -> None:
        """A heading and what stands below it."""
        self.text((MARGIN_PX, y), title, TITLE_PX)
        for index, line in enumerate(lines):
            self.text((MARGIN_PX, y + 58 + 36 * index), line, TEXT_PX, colour=SOFT)

    def paste(self, picture: Levels, box: tuple[int, int, int, int]) -> None:
        """`picture` [h, w, 3] in x, y, width, height; whole pixels stay sharp when enlarged."""
        larger = box[2] >= 2 * picture.shape[1]
        how = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
        image = Image.fromarray(np.rint(picture).clip(0, 255).astype(np.uint8))
        self.image.paste(image.resize(box[2:], how), box[:2])


def magnified(a: Levels, b: Levels, factor: int) -> Levels:
    """The absolute difference times `factor`, as levels."""
    return np.minimum(np.abs(a - b) * factor, 255)


def column_x(column: int) -> int:
    """Left edge of a column."""
    return MARGIN_PX + column * (CELL_PX + GAP_PX)


def draw_tiles(numbers: Mapping[str, Any], levels: Mapping[str, Levels]) -> Image.Image:
    """Untiled, exact and blended decoding side by side; the last sample frame of `levels`."""
    height, width = levels["untiled"].shape[1:3]
    cell = round(CELL_PX * height / width)
    tops = (190, 190 + cell + 60, 190 + cell + CELL_PX + 120)
    sheet = Sheet(tops[2] + cell + 156)
    subtitle = (
        f"The same latents, decoded in tiles of {TILE_PX} px. Sample frame {numbers['frame']} of"
        " the clip; PSNR and largest difference from untiled below."
    )
    sheet.title("Tiles that change nothing, and tiles that do", [subtitle])
    rows = (
        f"where tiles meet, x{CELL_PX / DETAIL_PX:.0f}",
        f"difference from untiled, x{numbers['factor']}",
    )
    for top, text in zip(tops[1:], rows, strict=True):
        sheet.text((MARGIN_PX, top - 12), text, SMALL_PX, colour=SOFT, anchor="ls")
    for column, name in enumerate(TILE_TITLES):
        _draw_tile_column(sheet, column_x(column), tops, name, (numbers, levels))
    return sheet.image


def _draw_tile_column(
    sheet: Sheet, x: int, tops: tuple[int, int, int], name: str,
    measured: tuple[Mapping[str, Any], Mapping[str, Levels]],
) -> None:  # fmt: skip
    """One way to tile, from its title down to its figures."""
    numbers, levels = measured
    frame, untiled = levels[name][-1], levels["untiled"][-1]
    height, width = frame.shape[:2]
    cell = round(CELL_PX * height / width)
    corner_px = (numbers["corner_px"][0], numbers["corner_px"][1])
    sheet.text((x, tops[0] - 14), TILE_TITLES[name], TEXT_PX + 2, anchor="ls")
    sheet.paste(frame, (x, tops[0], CELL_PX, cell))
    _mark_detail(sheet, (x, tops[0]), CELL_PX / width, corner_px)
    sheet.paste(_detail(frame, corner_px), (x, tops[1], CELL_PX, CELL_PX))
    figures = (x, tops[2] + cell + 16)
    if name == "untiled":
        _draw_legend(sheet, (x, tops[2]), numbers["factor"])
        _draw_source_psnr(sheet, figures, numbers["untiled"])
    else:
        difference = magnified(frame, untiled, numbers["factor"])
        sheet.paste(difference, (x, tops[2], CELL_PX, cell))
        _draw_tile_figures(sheet, figures, numbers["cases"][name])


def _detail(frame: Levels, corner_px: tuple[int, int]) -> Levels:
    """What lies around a corner of tiles."""
    top, left = (at - DETAIL_PX // 2 for at in corner_px)
    return frame[top : top + DETAIL_PX, left : left + DETAIL_PX]


def _mark_detail(
    sheet: Sheet, at: tuple[int, int], scale: float, corner_px: tuple[int, int]
) -> None:
    """A thin frame around what the detail shows, on the picture whose corner is `at`."""
    top, left = ((side - DETAIL_PX // 2) * scale for side in corner_px)
    side = DETAIL_PX * scale
    box = (at[0] + left, at[1] + top, at[0] + left + side, at[1] + top + side)
    sheet.draw.rectangle(box, outline=(255, 255, 255), width=2)


def _draw_legend(sheet: Sheet, at: tuple[int, int], factor: int) -> None:
    """What stands where the difference of untiled from itself would."""
    lines = [
        "untiled is the reference",
        "",
        "black: no difference",
        f"white: {255 / factor:.0f} of 255 or more",
    ]
    for index, line in enumerate(lines):
        sheet.text((at[0], at[1] + 10 + 38 * index), line, SMALL_PX, colour=SOFT)


def _draw_tile_figures(sheet: Sheet, at: tuple[int, int], case: Mapping[str, Any]) -> None:
    """How far from untiled: green where that is rounding."""
    colour = GOOD if case["overlap_px"] is None else BAD
    sheet.text(at, decibels(case["psnr_db"], 1), FIGURE_PX, colour=colour)
    largest = f"at most {level(case['largest_level'])} of 255 off"
    sheet.text((at[0], at[1] + 46), largest, SMALL_PX)
    _draw_source_psnr(sheet, at, case)


def _draw_source_psnr(sheet: Sheet, at: tuple[int, int], case: Mapping[str, Any]) -> None:
    text = f"from the source: {decibels(case['source_psnr_db'], 1)}"
    sheet.text((at[0], at[1] + 82), text, SMALL_PX, colour=SOFT)


@dataclass(frozen=True, slots=True)
class Plot:
    """Where sample frames and decibels lie on a sheet.

    left, right, top, bottom: in pixels. frames: how many share the width. low, high: in dB.
    """

    left: int
    right: int
    top: int
    bottom: int
    frames: int
    low: float
    high: float

    def x(self, frame: float) -> float:
        """Left edge of a sample frame."""
        return self.left + (self.right - self.left) * frame / self.frames

    def y(self, value_db: float) -> float:
        """Height of a PSNR."""
        share = (value_db - self.low) / (self.high - self.low)
        return self.bottom - (self.bottom - self.top) * share


def draw_time(
    scopes: tuple[Mapping[str, Any], Mapping[str, Levels]],
    caches: tuple[Mapping[str, Any], Mapping[str, Levels]],
) -> Image.Image:
    """Norm scopes above, the causal cache below; each as its numbers and levels."""
    numbers, levels = caches
    frames, height, width = levels["kept"].shape[:3]
    side = (WIDTH_PX - 2 * MARGIN_PX - 3 * GAP_PX) // 4
    cell = (side, round(side * height / width))
    top = _SCOPE_TOP_PX + cell[1] + 84
    values = [db for case in numbers["cases"].values() for db in case["frame_gain_db"]]
    plot = Plot(
        left=MARGIN_PX + 84, right=WIDTH_PX - MARGIN_PX, top=top + 216, bottom=top + 560,
        frames=frames, low=float(np.floor(min(values))), high=float(np.ceil(max(values))),
    )  # fmt: skip
    strips_top = plot.bottom + 130
    sheet = Sheet(strips_top + len(_STRIPS) * (_strip_height(plot) + 50) - 16)
    _draw_scopes(sheet, scopes, cell)
    sheet.draw.line((MARGIN_PX, top, WIDTH_PX - MARGIN_PX, top), fill=RULE, width=2)
    sheet.title("What a dropped causal cache does", [_CACHE_SUBTITLE], y=top + 26)
    _draw_axes(sheet, plot, numbers["boundaries"])
    _draw_curves(sheet, plot, numbers["cases"])
    _draw_strips(sheet, plot, strips_top, caches)
    return sheet.image


def _draw_scopes(
    sheet: Sheet, scopes: tuple[Mapping[str, Any], Mapping[str, Levels]], cell: tuple[int, int]
) -> None:
    """Source, both round trips and their difference, at the frame where that is largest."""
    numbers, levels = scopes
    frame = numbers["frame"]
    sheet.title(
        "Statistics over chunks or over the whole clip",
        [
            f"Encoded and decoded, untiled, {numbers['size'][0]} sample frames; normalisation"
            f" over {numbers['chunk_frames']} frames or all. Sample frame {frame} is shown."
        ],
    )
    source_db = numbers["source_psnr_db"]
    columns = [
        ("source", levels["source"][frame], ""),
        ("chunk scope", levels["chunk"][frame], f"{decibels(source_db['chunk'])} from source"),
        ("clip scope", levels["clip"][frame], f"{decibels(source_db['clip'])} from source"),
        (
            f"their difference, x{numbers['factor']}",
            magnified(levels["chunk"][frame], levels["clip"][frame], numbers["factor"]),
            f"{decibels(numbers['apart_psnr_db'])} apart",
        ),
    ]
    for column, (title, picture, below) in enumerate(columns):
        x = MARGIN_PX + column * (cell[0] + GAP_PX)
        sheet.text((x, _SCOPE_TOP_PX - 14), title, TEXT_PX + 2, anchor="ls")
        sheet.paste(picture, (x, _SCOPE_TOP_PX, *cell))
        sheet.text((x, _SCOPE_TOP_PX + cell[1] + 14), below, FIGURE_PX - 4)


def _draw_axes(sheet: Sheet, plot: Plot, boundaries: Sequence[int]) -> None:
    """Decibels at the left, sample frames below, a line where each chunk begins."""
    step_db = 1 if plot.high - plot.low <= 8 else 2
    for value in range(int(plot.low), int(plot.high) + 1, step_db):
        y = plot.y(value)
        sheet.draw.line((plot.left, y, plot.right, y), fill=RULE, width=2)
        sheet.text(
            (plot.left - 14, y),
            f"{value:+d} dB" if value else "0 dB",
            SMALL_PX - 1,
            colour=SOFT,
            anchor="rm",
        )
    for frame in boundaries:
        x = plot.x(frame)
        for y in range(plot.top, plot.bottom, 14):
            sheet.draw.line((x, y, x, y + 7), fill=SOFT, width=2)
        sheet.text((x, plot.top - 10), "new chunk", SMALL_PX - 1, colour=SOFT, anchor="ms")
    for frame in range(0, plot.frames, 4):
        at = (plot.x(frame + 0.5), plot.bottom + 12)
        sheet.text(at, str(frame), SMALL_PX - 1, colour=SOFT, anchor="ma")
    middle = ((plot.left + plot.right) / 2, plot.bottom + 44)
    sheet.text(middle, "sample frame", SMALL_PX - 1, colour=SOFT, anchor="ma")


def _draw_curves(sheet: Sheet, plot: Plot, cases: Mapping[str, Any]) -> None:
    """One line a run, and the legend above."""
    for name, (_, colour) in reversed(CACHE_LINES.items()):
        gains = cases[name]["frame_gain_db"]
        points = [(plot.x(t + 0.5), plot.y(db)) for t, db in enumerate(gains)]
        sheet.draw.line(points, fill=colour, width=5, joint="curve")
    x, y = float(MARGIN_PX), plot.top - 66
    for name, (label, colour) in CACHE_LINES.items():
        case = cases[name]
        sheet.draw.line((x, y, x + 34, y), fill=colour, width=7)
        text = f"{label}: {decibels(case['source_psnr_db'])}"
        x += 46 + sheet.text((x + 46, y), text, SMALL_PX, anchor="lm") + 34


def _strip_height(plot: Plot) -> int:
    """Pixels that a strip takes, its slices keeping their proportions."""
    rows, columns = (end - start for start, end in (_SLICE_ROWS, _SLICE_COLUMNS))
    return round((plot.right - plot.left) / plot.frames * rows / columns)


def _draw_strips(
    sheet: Sheet, plot: Plot, top: int, caches: tuple[Mapping[str, Any], Mapping[str, Levels]]
) -> None:
    """A slice of each sample frame, under its point on the axis of time."""
    numbers, levels = caches
    factor = numbers["factor"]
    shown = {
        "kept": levels["kept"],
        "both": levels["both"],
        "difference": magnified(levels["both"], levels["kept"], factor),
    }
    height = _strip_height(plot)
    for index, (name, title) in enumerate(_STRIPS.items()):
        y = top + index * (height + 50)
        sheet.text((plot.left, y - 8), title.format(factor=factor), SMALL_PX, anchor="ls")
        for t, frame in enumerate(shown[name]):
            left, right = round(plot.x(t)), round(plot.x(t + 1))
            piece = frame[slice(*_SLICE_ROWS), slice(*_SLICE_COLUMNS)]
            sheet.paste(piece, (left, y, right - left, height))
