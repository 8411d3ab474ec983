"""What does a round trip look like, on one picture?

1. `chosen_frames` spreads a few frames evenly over the clip, its first and last among them.
2. `magnification` finds the largest factor by which the difference can be shown without clipping.
3. `contact_sheet` draws one column a frame: source, reconstruction, difference times the factor;
   a header with the figures, the PSNR of each frame below its column.

It measures nothing; PNG is the only format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import counted
from ..media.files import whole_file
from ..media.video import Frames
from .report import Report, decibels, gibibytes

_COLUMNS = 5
_CELL_PX = (340, 340)  # the largest width and height of a picture on the sheet
_GAP_PX = 8
_MARGIN_PX = 32
_FIGURE_GAP_PX = 48
_SMALLEST_WIDTH_PX = 1180  # the header needs it
_LABEL_PX = 138  # the column that names the rows
_HEADER_PX = 132
_CAPTION_PX = 30
_FACTORS = (64, 32, 16, 8, 4, 2)
_CLIPPED_SHARE = 0.1  # percent of the values that may go past white
_BACKGROUND = (18, 20, 24)
_RULE = (52, 57, 66)
_STRONG = (240, 242, 245)
_SOFT = (150, 158, 170)


def chosen_frames(frames: int, columns: int = _COLUMNS) -> list[int]:
    """At most `columns` frame indices, evenly spread over [0, frames) and never one twice."""
    count = min(frames, columns)
    return [round(index * (frames - 1) / max(count - 1, 1)) for index in range(count)]


def magnification(difference: Frames) -> int:
    """The largest of 64, 32 ... 2, 1 that keeps all but 0.1 % of the values at or below 255."""
    high = float(np.percentile(difference, 100 - _CLIPPED_SHARE))
    return next((factor for factor in _FACTORS if high * factor <= 255), 1)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where things lie on the sheet, in pixels. cell: width and height of one picture."""

    cell: tuple[int, int]
    columns: int

    @classmethod
    def of(cls, height_px: int, width_px: int, columns: int) -> _Grid:
        """Cells of the picture's proportions, as large as fits, small pictures enlarged."""
        scale = min(_CELL_PX[0] / width_px, _CELL_PX[1] / height_px)
        cell = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
        return cls(cell, columns)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet, at least as wide as the header needs."""
        pictures = self.columns * (self.cell[0] + _GAP_PX) - _GAP_PX
        width = max(2 * _MARGIN_PX + _LABEL_PX + pictures, _SMALLEST_WIDTH_PX)
        return width, self.corner(0, 3)[1] - _GAP_PX + _CAPTION_PX + _MARGIN_PX

    def corner(self, column: int, row: int) -> tuple[int, int]:
        """Upper left corner of a picture."""
        x = _MARGIN_PX + _LABEL_PX + column * (self.cell[0] + _GAP_PX)
        return x, _MARGIN_PX + _HEADER_PX + _CAPTION_PX + row * (self.cell[1] + _GAP_PX)


def _fitted(frame: Frames, cell: tuple[int, int]) -> Image.Image:
    """The frame at the size of a cell: averaged when made smaller, blocky when made larger."""
    smaller = cell[0] < frame.shape[1]
    how = Image.Resampling.BOX if smaller else Image.Resampling.NEAREST
    return Image.fromarray(frame).resize(cell, how)


class _Sheet:
    """A canvas with a few sizes of text."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.image = Image.new("RGB", size, _BACKGROUND)
        self._draw = ImageDraw.Draw(self.image)

    def text(self, at: tuple[int, int], text: str, size_px: int = 15, soft: bool = False) -> int:
        """Write one line with its upper left corner at `at`; returns its right end."""
        font = ImageFont.load_default(size_px)
        self._draw.text(at, text, fill=_SOFT if soft else _STRONG, font=font)
        return at[0] + round(self._draw.textlength(text, font=font))

    def rule(self, y: int) -> None:
        """A thin line across."""
        self._draw.line((_MARGIN_PX, y, self.image.width - _MARGIN_PX, y), fill=_RULE)


def _figures(report: Report) -> list[tuple[str, str]]:
    """The header's figures: a name, and a value that is read first."""
    difference = report.max_difference
    against = "not compared" if difference is None else f"{difference:.1e} of range"
    return [
        ("PSNR", decibels(report.likeness.psnr_db)),
        ("worst frame", decibels(report.likeness.worst_frame_db)),
        ("tiled vs untiled", against if report.tiling != "off" else "untiled"),
        ("latents", " x ".join(map(str, report.latent_shape))),
        ("peak memory", gibibytes(report.peak_bytes)),
        ("encode + decode", f"{report.encode_seconds:.1f} + {report.decode_seconds:.1f} s"),
    ]


def _draw_header(sheet: _Sheet, report: Report) -> None:
    sheet.text((_MARGIN_PX, _MARGIN_PX - 8), report.clip, 24)
    about = (
        f"{counted(report.sample_frames, 'frame')}, {report.width_px} x {report.height_px} px,"
        f" {report.fps:.4g} fps    VAE {report.vae}, {report.dtype} on {report.device}"
    )
    sheet.text((_MARGIN_PX, _MARGIN_PX + 26), about, soft=True)
    sheet.rule(_MARGIN_PX + 56)
    x = _MARGIN_PX
    for name, value in _figures(report):
        ends = (
            sheet.text((x, _MARGIN_PX + 68), name, 13, soft=True),
            sheet.text((x, _MARGIN_PX + 86), value, 20),
        )
        x = max(ends) + _FIGURE_GAP_PX


def _draw_row(sheet: _Sheet, grid: _Grid, row: int, title: Sequence[str], frames: Frames) -> None:
    """One picture a column, the row's title, in lines, beside the first."""
    x, y = _MARGIN_PX, grid.corner(0, row)[1]
    for index, line in enumerate(title):
        sheet.text((x, y + 20 * index), line, 16 if index == 0 else 13, soft=index > 0)
    for column, frame in enumerate(frames):
        sheet.image.paste(_fitted(frame, grid.cell), grid.corner(column, row))


def _draw_captions(sheet: _Sheet, grid: _Grid, chosen: list[int], report: Report) -> None:
    """Frame and time above each column, its PSNR below."""
    for column, frame in enumerate(chosen):
        x, y = grid.corner(column, 0)
        end = sheet.text((x, y - 22), f"frame {frame}")
        if grid.cell[0] > 150:
            sheet.text((end + 10, y - 22), f"{frame / report.fps:.2f} s", soft=True)
        below = grid.corner(column, 3)[1] - _GAP_PX + 8
        sheet.text((x, below), decibels(report.likeness.frame_psnr_db[frame]))


def contact_sheet(path: Path, source: Frames, reconstruction: Frames, report: Report) -> None:
    """Write the sheet of two clips, uint8 [t, h, w, 3] of one shape, as a PNG.

    Raises `VideoError` for a place that cannot be written to.
    """
    chosen = chosen_frames(len(source))
    draw_sheet(path, chosen, source[chosen], reconstruction[chosen], report)


def draw_sheet(
    path: Path, chosen: list[int], before: Frames, after: Frames, report: Report
) -> None:
    """As `contact_sheet`, from the frames that are shown alone. chosen: their numbers."""
    grid = _Grid.of(before.shape[1], before.shape[2], len(chosen))
    sheet = _Sheet(grid.size)
    difference = np.abs(before.astype(np.int16) - after).astype(np.uint8)
    factor = magnification(difference)
    magnified = np.minimum(difference.astype(np.int32) * factor, 255).astype(np.uint8)
    _draw_header(sheet, report)
    _draw_row(sheet, grid, 0, ["source"], before)
    _draw_row(sheet, grid, 1, ["reconstruction", f"mean error {difference.mean():.1f}/255"], after)
    _draw_row(sheet, grid, 2, [f"difference x{factor}", "black: none"], magnified)
    _draw_captions(sheet, grid, chosen, report)
    with whole_file(path) as part:
        sheet.image.save(part, format="PNG", optimize=True)
