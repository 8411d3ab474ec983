"""How is a VIDEO read that was made of pictures and never was a file?

The host would compress it on the way to a reader, and cannot where a side is odd. Here its pictures
are written without loss, in memory, and read like any other file; they have 8 bits a colour then,
as videos do. A VIDEO that has a file of its own is read from there.
"""

from __future__ import annotations

import inspect
import io
from fractions import Fraction
from typing import Any, BinaryIO

from torch import Tensor

from ...vae_core import VideoError
from .images import checked_image


def stream_of(video: Any) -> str | BinaryIO:
    """What of a VIDEO can be opened as a file: its path, or a file in memory.

    Raises `VideoError` for what is no VIDEO or has lost its file, `InputError` for broken pictures.
    """
    give = getattr(video, "get_stream_source", None)
    if give is None:
        raise VideoError(f"video must be a VIDEO, as Load Video gives; got {type(video).__name__}.")
    if _only_pictures(video):
        parts = video.get_components()
        images, _ = checked_image(parts.images)
        return lossless(images, Fraction(parts.frame_rate))
    try:
        return give()
    except (OSError, ValueError) as error:
        raise VideoError(f"the connected video cannot be read: {error}.") from error


def _only_pictures(video: Any) -> bool:
    """Whether its file would be made by the host's default, by compressing what it holds."""
    owner = next(kind for kind in type(video).__mro__ if "get_stream_source" in vars(kind))
    return inspect.isabstract(owner)


def lossless(images: Tensor, fps: Fraction) -> BinaryIO:
    """A file in memory that holds the frames [t, h, w, 3] in [0, 1], to 8 bits: a quarter of what
    the host holds. Compressors without loss take no picture of a few pixels.
    """
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="nut") as container:
        stream: Any = container.add_stream("rawvideo", rate=fps.limit_denominator(1001))
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "rgb24"
        for image in images:
            pixels = (image.float().clamp(0.0, 1.0) * 255.0).round().byte().cpu().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    return file
