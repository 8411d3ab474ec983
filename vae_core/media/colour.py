"""How does a decoded frame become the pixels that a viewer sees?

1. Its matrix and range are those it is tagged with. Untagged frames are taken as limited range,
   bt601 below 720 lines and bt709 from there on, as players do.
2. FFmpeg's converter makes full-range RGB of it, in 8 bits, whatever its depth and subsampling.
3. The display matrix (a phone's rotation, a mirror) turns it upright.

It does not deinterlace, tone-map HDR, or stretch pixels that are not square; `oddities` says so.
"""

from __future__ import annotations

from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

Frame = npt.NDArray[np.uint8]
"""One sample frame, [h, w, 3], RGB, 0 to 255."""

Frames = npt.NDArray[np.uint8]
"""Several of them, [t, h, w, 3]."""

_HD_LINES = 720
_UNTAGGED = frozenset({0, 2})
BT709, BT601 = int(Colorspace.ITU709), int(Colorspace.ITU601)
# FFmpeg's AVColorSpace, which frames are tagged with, to the SWS_CS_* that its converter takes.
_MATRIX_OF_TAG = {1: BT709, 4: 4, 5: BT601, 6: BT601, 7: 7, 9: 9, 10: 9}
_HDR_CURVES = frozenset({16, 18})  # FFmpeg's AVCOL_TRC_SMPTE2084 and _ARIB_STD_B67
CONVERSION = 0x4 | 0x2000 | 0x40000
"""swscale's bicubic, full chroma and accurate rounding; older PyAV has no names for the latter."""


def _tags(frame: av.VideoFrame) -> tuple[int, int]:
    """The matrix and range to read `frame` by: its tags, or what players assume without them."""
    tag = frame.colorspace
    assumed = BT601 if frame.height < _HD_LINES else BT709
    matrix = assumed if tag in _UNTAGGED else _MATRIX_OF_TAG.get(tag, assumed)
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    return matrix, int(ColorRange.JPEG if full else ColorRange.MPEG)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """(a, b, c, d), which send (x, y) to (a x + c y, b x + d y), y pointing down; or None."""
    side_data = cast("Any", frame.side_data)  # PyAV's stubs lack its look-up by type
    data = side_data.get(SideDataType.DISPLAYMATRIX)
    if data is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5].tolist()
    return a, b, c, d


def _upright(picture: Frame, matrix: tuple[int, ...] | None) -> Frame:
    """`picture` as a display matrix shows it, in quarter turns and mirrors."""
    if matrix is None:
        return picture
    a, b, c, d = matrix
    turned = abs(b) > abs(a)
    if turned:
        picture, (along_x, along_y) = picture.transpose(1, 0, 2), (c, b)
    else:
        along_x, along_y = a, d
    picture = picture[:, ::-1] if along_x < 0 else picture
    picture = picture[::-1] if along_y < 0 else picture
    return np.ascontiguousarray(picture)


class Converter:
    """Turns the frames of one clip into full-range RGB, upright."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        # By PyAV's `rotation`. Looking at `side_data` ties a frame into a cycle of references, so
        # that its memory would wait for the garbage collector: once a rotation is enough.
        self._matrices: dict[int, tuple[int, ...] | None] = {}

    def rgb(self, frame: av.VideoFrame) -> Frame:
        """uint8 [h, w, 3] of `frame`."""
        if frame.rotation not in self._matrices:
            self._matrices[frame.rotation] = _display_matrix(frame)
        matrix, colour_range = _tags(frame)
        converted = self._reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=matrix,
            # Means nothing in RGB; but older PyAV leaves the range alone where both are one.
            dst_colorspace=BT709 if matrix != BT709 else BT601,
            src_color_range=colour_range,
            dst_color_range=int(ColorRange.JPEG),
            interpolation=CONVERSION,
        )
        return _upright(cast("Frame", converted.to_ndarray()), self._matrices[frame.rotation])


def oddities(frame: av.VideoFrame, pixel_aspect: object) -> tuple[str, ...]:
    """What of a frame is not shown as a player would, a sentence each.

    pixel_aspect: width over height of a pixel; 0 or None where the file does not say.
    """
    notes: list[str] = []
    if pixel_aspect not in (None, 0, 1):
        notes.append(f"pixels are not square ({pixel_aspect}); the picture is not stretched.")
    if cast("Any", frame).color_trc in _HDR_CURVES:
        notes.append("the clip is HDR; its colours are not mapped to the ordinary range.")
    if frame.interlaced_frame:
        notes.append("the clip is interlaced; its lines are not put apart.")
    return tuple(notes)
