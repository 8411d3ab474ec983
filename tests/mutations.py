"""What do damaged files look like? Small good ones of many kinds, and ways to damage them.

Everything comes from seeds, so that a case can be made again by its number.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as saved

from vae_core.media.latent_file import LATENT_KEY
from vae_core.media.video_writing import VideoOptions, write_video

FRAMES = 9
_EXTREMES = (0, 1, 2, 0x7FFF, 0xFFFF, 2**30, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_WORDS: tuple[Any, ...] = (
    "", "nan", "inf", "-1", "0", "1e400", "1e-320", "1/0", "0x10", "many", "9" * 40, "1" * 5000,
    "b t c h w", "b c t h w", "kijai", "aligned", "1/3", "2.5", "\ud800", "\x00", " 8 ", "٣",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    0, 1, 2, 3, 16, 17, -1, 2**31, 2**63, 2**64, 1e300, 1.5, None, True, [], {}, [0], "F32", "F16",
    "BF16", "F64", "I64", "U8", "F8_E4M3", "BOOL", "F7", [1, 16, 3, 4, 6], [1, 16, 0, 4, 6],
    [1, 3, 16, 4, 6], [2**40, 16, 1, 1, 1],
)  # fmt: skip


def clip(height: int = 32, width: int = 48) -> np.ndarray:
    t, y, x = np.mgrid[0:FRAMES, 0:height, 0:width]
    return (
        np.stack([x * 3 + t * 9, y * 4 + t * 5, 255 - x * 2 - y], -1).clip(0, 255).astype(np.uint8)
    )


def _coded(name: str, codec: str, format_: str, **options: str) -> bytes:
    """A clip in a container that our writer does not write."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=name) as container:
        stream = container.add_stream(codec, rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = 48, 32, format_
        for pixels in clip():
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def _pictures(kind: str, **options: Any) -> bytes:
    frames, buffer = [Image.fromarray(one) for one in clip()], io.BytesIO()
    more = {"save_all": True, "append_images": frames[1:]} if options else {}
    frames[0].save(buffer, kind, **more, **options)
    return buffer.getvalue()


def good_clips(folder: Path) -> dict[str, bytes]:
    """A small good clip of every kind, by its suffix (before which there may be more words)."""
    found: dict[str, bytes] = {}
    for name, codec in {
        "h264.mp4": "h264", "h265.mp4": "h265", "ffv1.mkv": "ffv1", "h265.mkv": "h265",
        "vp9.webm": "vp9",
    }.items():  # fmt: skip
        path = folder / name
        write_video(path, clip(), Fraction(24), VideoOptions(codec=codec))
        found[name] = path.read_bytes()
    found["mpeg4.avi"] = _coded("avi", "mpeg4", "yuv420p")
    found["rgb.avi"] = _coded("avi", "rawvideo", "bgr24")
    found["mpeg2.ts"] = _coded("mpegts", "mpeg2video", "yuv420p")
    found["h264.ts"] = _coded("mpegts", "libx264", "yuv420p", g="4")
    found["mpeg2.mpg"] = _coded("mpeg", "mpeg2video", "yuv420p")
    found["flv.flv"] = _coded("flv", "flv1", "yuv420p")
    found["prores.mov"] = _coded("mov", "prores_ks", "yuv422p10le")
    found["yuv.y4m"] = b"YUV4MPEG2 W48 H32 F24:1 Ip A1:1 C444\n" + b"".join(
        b"FRAME\n" + picture.transpose(2, 0, 1).tobytes() for picture in clip()
    )
    found["moving.gif"] = _pictures("GIF", duration=40)
    found["moving.webp"] = _pictures("WEBP", duration=40, lossless=True)
    found["moving.png"] = _pictures("PNG", duration=40)
    found["still.png"] = _pictures("PNG")
    found["still.tiff"] = _pictures("TIFF")
    found["still.bmp"] = _pictures("BMP")
    found["still.jpg"] = _pictures("JPEG")
    return found


def good_latents() -> dict[str, bytes]:
    """A small good latent file of every kind."""
    latents = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    meta = {
        "layout": "b c t h w", "scale": "unscaled", "sample_frames": "9", "height_px": "30",
        "width_px": "45", "network_frames": "9", "network_height_px": "32",
        "network_width_px": "48", "fps": "24000/1001", "vae": "tiny", "chunk_frames": "8",
        "norm_scope": "chunk", "chunk_layout": "aligned", "tiling": "exact", "start_seconds": "1/2",
    }  # fmt: skip
    turned = (latents * 0.7).transpose(1, 2).contiguous()
    return {
        "ours": saved({LATENT_KEY: latents}, meta),
        "plain": saved({LATENT_KEY: latents, "latent_format_version_0": torch.zeros(0)}),
        "half": saved({LATENT_KEY: latents.half()}, meta),
        "double": saved({LATENT_KEY: latents.double()}),
        "brain": saved(
            {LATENT_KEY: latents.bfloat16(), "mean": latents.clone(), "logvar": latents - 1}, meta
        ),
        "kijai": saved({LATENT_KEY: turned}, meta | {"layout": "b t c h w", "scale": "0.7"}),
    }


Damage = Callable[[bytearray, random.Random], None]


def _at(data: bytearray, draw: random.Random) -> int:
    """A place: anywhere, or near the start or the end, where headers and indices lie."""
    reach = draw.choice((len(data), 64, 512))
    at = draw.randrange(max(min(reach, len(data)), 1))
    return at if draw.random() < 0.7 else max(len(data) - 1 - at, 0)


def _flip(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 1, 8, 64))):
        data[_at(data, draw)] ^= 1 << draw.randrange(8)


def _overwrite(data: bytearray, draw: random.Random) -> None:
    at, size = _at(data, draw), draw.choice((1, 4, 16, 256))
    data[at : at + size] = draw.randbytes(size)


def _extreme(data: bytearray, draw: random.Random) -> None:
    at, size = _at(data, draw), draw.choice((2, 4, 4, 8))
    number = draw.choice(_EXTREMES) % (1 << 8 * size)
    data[at : at + size] = number.to_bytes(size, draw.choice(("little", "big")))


def _cut(data: bytearray, draw: random.Random) -> None:
    at = _at(data, draw)
    del data[at : at + draw.choice((1, 3, 64, len(data)))]


def _repeat(data: bytearray, draw: random.Random) -> None:
    at, size = _at(data, draw), draw.choice((1, 16, 200, 2000))
    data[at:at] = data[at : at + size] * draw.choice((1, 1, 5))


def _erase(data: bytearray, draw: random.Random) -> None:
    at, size = _at(data, draw), draw.choice((4, 64, 1000))
    data[at : at + size] = bytes((draw.choice((0, 255)),)) * size


def _append(data: bytearray, draw: random.Random) -> None:
    data += draw.randbytes(draw.choice((1, 100, 3000)))


_DAMAGES: tuple[Damage, ...] = (
    _flip,
    _overwrite,
    _extreme,
    _extreme,
    _cut,
    _repeat,
    _erase,
    _append,
)


def damaged(good: bytes, draw: random.Random) -> bytes:
    """A good file with one to three things wrong."""
    data = bytearray(good)
    for _ in range(draw.choice((1, 1, 2, 3))):
        if data:
            draw.choice(_DAMAGES)(data, draw)
    return bytes(data)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key of a piece of JSON."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def damaged_words(good: bytes, draw: random.Random) -> bytes:
    """A good latent file whose header says something else, and is still JSON."""
    size = int.from_bytes(good[:8], "little")
    said = json.loads(good[8 : 8 + size])
    for _ in range(draw.choice((1, 1, 2, 4))):
        where, key = draw.choice(list(_places(said)) or [(said, "x")])
        if isinstance(where, dict) and draw.random() < 0.15:
            where.pop(key, None)
        else:
            is_word = isinstance(where, dict) and isinstance(where.get(key), str)
            where[key] = draw.choice(_WORDS if is_word and draw.random() < 0.8 else _VALUES)
    header = json.dumps(said).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + good[8 + size :]
