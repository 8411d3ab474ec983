"""Do pictures of every kind come with the values, the number and the rate that a viewer shows?"""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from vae_core.errors import VideoError
from vae_core.media.video import Selection, open_video, read_video

RAMP = np.linspace(0, 1, 64)[None].repeat(16, 0)
GREY = np.stack([np.rint(RAMP * 255)] * 3, -1).astype(int)
COLOURS = np.stack([GREY[..., 0], GREY[:, ::-1, 0], 255 - GREY[..., 0] // 2], -1).astype(np.uint8)


def apart(path: Path, expected: np.ndarray) -> int:
    frames = read_video(path).frames
    assert frames.shape == (1, *expected.shape)
    return int(np.abs(frames[0].astype(int) - expected).max())


def of(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values)


GREYS = {
    "16 bit.png": of(np.rint(RAMP * 65535).astype(np.uint16)),
    "16 bit.tif": of(np.rint(RAMP * 65535).astype(np.uint16)),
    "16 bit, big end first.tif": of(np.rint(RAMP * 65535).astype(">u2")),
    "floating point.tif": of(RAMP.astype(np.float32)),
    "8 bit.png": of(np.rint(RAMP * 255).astype(np.uint8)),
    "8 bit.bmp": of(np.rint(RAMP * 255).astype(np.uint8)),
}


@pytest.mark.parametrize(("name", "image"), GREYS.items(), ids=GREYS)
def test_grey_of_every_depth_has_its_values(tmp_path: Path, name: str, image: Image.Image) -> None:
    image.save(tmp_path / name)
    assert apart(tmp_path / name, GREY) == 0


def test_grey_that_counts_from_white_is_not_negative(tmp_path: Path) -> None:
    path = tmp_path / "white is 0.tif"
    of(np.rint((1 - RAMP) * 65535).astype(np.uint16)).save(path, tiffinfo={262: 0})
    assert apart(path, GREY) == 0


MODES = {
    "RGB.png": ("RGB", 0),
    "RGBA.png": ("RGBA", 0),
    "RGBA.tif": ("RGBA", 0),
    "RGBX.tif": ("RGBX", 0),
    "RGB.bmp": ("RGB", 0),
    "RGB.jpg": ("RGB", 12),
    "CMYK.tif": ("CMYK", 0),
    "CMYK.jpg": ("CMYK", 12),
    "YCbCr.tif": ("YCbCr", 3),
}


@pytest.mark.parametrize(("name", "mode", "most"), [(n, *m) for n, m in MODES.items()], ids=MODES)
def test_colours_of_every_mode_are_kept(tmp_path: Path, name: str, mode: str, most: int) -> None:
    of(COLOURS).convert(mode).save(tmp_path / name, quality=95)
    assert apart(tmp_path / name, COLOURS) <= most


def test_lab_is_shown_as_its_colours(tmp_path: Path) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    greys = of(GREY.astype(np.uint8))
    transform = ImageCms.buildTransform(srgb, lab, "RGB", "LAB")
    ImageCms.applyTransform(greys, transform).save(tmp_path / "lab.tif")
    assert apart(tmp_path / "lab.tif", GREY) <= 3


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(256))])
def test_palettes_are_looked_up(tmp_path: Path, transparency: object) -> None:
    image = of(COLOURS).quantize(64)
    chosen = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "palette.png", **chosen)
    assert apart(tmp_path / "palette.png", np.array(image.convert("RGB")).astype(int)) == 0


def png(depth: int, colour_type: int, rows: np.ndarray) -> bytes:
    """A PNG from the bytes of its rows; Pillow writes no colours of 16 bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", 64, 16, depth, colour_type, 0, 0, 0)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(data)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colours_of_16_bits_come_within_one(
    tmp_path: Path, colour_type: int, channels: int
) -> None:
    grey = np.rint(RAMP * 65535)
    rows = np.stack([grey] * channels, -1).astype(">u2")
    (tmp_path / "deep.png").write_bytes(png(16, colour_type, rows))
    assert apart(tmp_path / "deep.png", GREY) <= 1


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((RAMP * 255).astype(np.float32), "not from 0 to 1"),
        ((RAMP * np.nan).astype(np.float32), "not from 0 to 1"),
        ((RAMP * 65535).astype(np.int32), "32 bits"),
    ],
)
def test_pictures_whose_white_nobody_knows_are_refused(
    tmp_path: Path, values: np.ndarray, sentence: str
) -> None:
    of(values).save(tmp_path / "a.tif")
    with pytest.raises(VideoError, match=sentence):
        read_video(tmp_path / "a.tif")


def steps(count: int = 6) -> list[Image.Image]:
    return [Image.new("RGB", (64, 48), (20 * number,) * 3) for number in range(count)]


def animated(path: Path, milliseconds: object, **options: object) -> Path:
    first, *rest = steps()
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    first.save(
        path, save_all=True, append_images=rest, duration=milliseconds, **lossless, **options
    )
    return path


@pytest.mark.parametrize("suffix", [".webp", ".png"])
@pytest.mark.parametrize(("milliseconds", "fps"), [(40, 25), (8, 125), (1000, 1), (0, 10)])
def test_animations_come_at_the_rate_that_they_say(
    tmp_path: Path, suffix: str, milliseconds: int, fps: int
) -> None:
    clip = read_video(animated(tmp_path / f"a{suffix}", milliseconds))
    assert [int(frame[0, 0, 0]) for frame in clip.frames] == [0, 20, 40, 60, 80, 100]
    assert clip.info.fps == clip.info.source_fps == fps
    assert clip.info.frames == 6
    assert clip.notes == ()


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_an_uneven_animation_is_resampled_as_a_player_shows_it(tmp_path: Path, suffix: str) -> None:
    path = animated(tmp_path / f"a{suffix}", [100, 100, 400, 100, 100, 100])
    assert "100 to 400 ms" in read_video(path).notes[0]
    assert read_video(path).info.fps == Fraction(6000, 900)
    frames = read_video(path, Selection(fps=10)).frames
    assert [int(frame[0, 0, 0]) // 20 for frame in frames[:8]] == [0, 1, 2, 2, 2, 2, 3, 4]


def test_the_picture_for_those_who_cannot_animate_is_left_out(tmp_path: Path) -> None:
    clip = read_video(animated(tmp_path / "a.png", 20, default_image=True))
    assert [int(frame[0, 0, 0]) for frame in clip.frames] == [20, 40, 60, 80, 100]
    assert clip.info.fps == 50


def test_a_phone_s_picture_is_one_picture(tmp_path: Path) -> None:
    """A JPEG may hold a preview, or a map of brightness, behind its picture."""
    first, small = of(COLOURS), Image.new("RGB", (32, 24))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[small])
    assert read_video(tmp_path / "a.jpg").frames.shape == (1, 16, 64, 3)


def test_what_a_system_leaves_beside_pictures_is_no_picture(tmp_path: Path) -> None:
    for number, image in enumerate(steps(3)):
        image.save(tmp_path / f"{number}.png")
        (tmp_path / f"._{number}.png").write_bytes(b"\0\5\x16\7 of a Macintosh")
    with open_video(tmp_path) as video:
        assert video.info.frames == len(list(video)) == 3


def test_numbers_that_are_no_digits_are_letters(tmp_path: Path) -> None:
    for name, image in zip(("1 m²", "2 m²", "10 m²"), steps(3), strict=True):
        image.save(tmp_path / f"{name}.png")
    assert [int(frame[0, 0, 0]) for frame in read_video(tmp_path).frames] == [0, 20, 40]


def test_a_picture_that_is_too_large_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    of(COLOURS).save(tmp_path / "a.png")
    with pytest.raises(VideoError, match="more pixels than Pillow reads"):
        read_video(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp", ".bmp"])
def test_damaged_pictures_end_in_a_picture_or_a_sentence(tmp_path: Path, suffix: str) -> None:
    """Pillow raises all kinds of things over them."""
    path, chance = tmp_path / f"a{suffix}", np.random.default_rng(0)
    of(COLOURS).save(path)
    whole, refused = path.read_bytes(), 0
    for _ in range(60):
        damaged = bytearray(whole)
        for at in chance.integers(0, len(whole), chance.integers(1, 9)):
            damaged[at] = chance.integers(0, 256)
        path.write_bytes(damaged[: chance.integers(len(whole) // 2, len(whole) + 1)])
        try:
            assert read_video(path).frames.dtype == np.uint8
        except VideoError:
            refused += 1
    assert refused
