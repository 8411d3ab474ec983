"""Are the figures of a round trip right, and does the contact sheet show what it says?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_core.errors import VideoError
from vae_core.jobs.contact_sheet import chosen_frames, contact_sheet, magnification
from vae_core.jobs.report import Difference, Likeness, Report, compare
from vae_core.media.video import Frames


def some_frames(count: int = 3, height: int = 32, width: int = 48) -> Frames:
    generator = np.random.default_rng(0)
    return generator.integers(40, 200, (count, height, width, 3), dtype=np.uint8)


def report(source: Frames, likeness: Likeness, **changes: object) -> Report:
    figures: dict[str, object] = {
        "clip": "clip.mp4",
        "vae": "tiny_vae",
        "dtype": "float32",
        "device": "cpu",
        "sample_frames": len(source),
        "height_px": source.shape[1],
        "width_px": source.shape[2],
        "fps": 24.0,
        "latent_shape": (1, 16, 1, 4, 6),
        "likeness": likeness,
        "tiling": "exact",
        "latents_apart": Difference(1e-6, 20.0),
        "pixels_apart": Difference(4e-6, 2.0),
        "plan": {"encode": {}, "decode": {}},
        "peak_bytes": 2**30,
        "peak_kind": "resident",
        "encode_seconds": 1.0,
        "decode_seconds": 2.5,
        "notes": ("Frames padded.",),
    }
    return Report(**{**figures, **changes})  # type: ignore[arg-type]


def test_psnr_is_that_of_the_definition() -> None:
    source = some_frames()
    likeness = compare(source, source + np.uint8(5))
    assert likeness.psnr_db == pytest.approx(10 * np.log10(255**2 / 25))
    assert likeness.frame_psnr_db == pytest.approx([likeness.psnr_db] * 3)


def test_psnr_of_all_frames_comes_from_their_mean_square() -> None:
    source = some_frames(2)
    changed = source.copy()
    changed[1] += 10
    likeness = compare(source, changed)
    assert likeness.psnr_db == pytest.approx(10 * np.log10(255**2 / 50))
    assert likeness.frame_psnr_db[0] is None
    assert likeness.worst_frame_db == pytest.approx(10 * np.log10(255**2 / 100))


def test_differences_do_not_wrap_around() -> None:
    black, white = np.zeros((1, 8, 8, 3), np.uint8), np.full((1, 8, 8, 3), 255, np.uint8)
    assert compare(black, white).psnr_db == pytest.approx(0)


def test_identical_clips_have_no_psnr_and_say_so() -> None:
    source = some_frames()
    text = report(source, compare(source, source)).text()
    assert "identical" in text


def test_json_has_the_keys_that_are_promised() -> None:
    source = some_frames()
    figures = report(source, compare(source, source)).as_dict()
    promised = "psnr_db latent_shape sample_frames max_difference tiling plan peak_bytes seconds"
    assert set(promised.split()) <= set(figures)
    assert figures["max_difference"] == pytest.approx(2e-6)
    assert figures["seconds"] == 3.5
    assert json.loads(json.dumps(figures))["psnr_db"] is None


def test_results_that_do_not_differ_are_zero_apart_whatever_their_range() -> None:
    assert Difference(0.0, 0.0).share == 0


def test_what_was_not_measured_is_not_claimed() -> None:
    source = some_frames()
    changes = {"latents_apart": None, "pixels_apart": None, "peak_bytes": None}
    sheet = report(source, compare(source, source), **changes)
    assert sheet.max_difference is None
    assert "not compared" in sheet.text()
    assert "unknown" in sheet.text()


@pytest.mark.parametrize(
    ("frames", "chosen"),
    [(1, [0]), (2, [0, 1]), (5, [0, 1, 2, 3, 4]), (49, [0, 12, 24, 36, 48])],
)
def test_frames_are_spread_from_first_to_last(frames: int, chosen: list[int]) -> None:
    assert chosen_frames(frames) == chosen


@pytest.mark.parametrize(("largest", "factor"), [(0, 64), (3, 64), (4, 32), (60, 4), (200, 1)])
def test_differences_are_magnified_as_far_as_they_fit(largest: int, factor: int) -> None:
    assert magnification(np.full((1, 8, 8, 3), largest, np.uint8)) == factor


@pytest.mark.parametrize("size", [(32, 48), (48, 32), (272, 640), (1, 1)])
def test_the_sheet_shows_source_and_magnified_difference(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    source = np.full((2, *size, 3), 100, np.uint8)
    reconstruction = source + np.uint8(7)
    path = tmp_path / "sheet.png"
    contact_sheet(path, source, reconstruction, report(source, compare(source, reconstruction)))
    colours = {colour for _, colour in Image.open(path).convert("RGB").getcolors(1 << 20) or []}
    assert {(100, 100, 100), (107, 107, 107), (7 * 32, 7 * 32, 7 * 32)} <= colours


def test_the_sheet_is_whole_or_absent(tmp_path: Path) -> None:
    source = some_frames()
    with pytest.raises(VideoError, match="cannot write"):
        contact_sheet(
            tmp_path / "nowhere" / "a.png", source, source, report(source, compare(source, source))
        )
    assert list(tmp_path.iterdir()) == []
