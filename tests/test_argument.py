"""Do the pictures of the argument, their caption and their numbers say the same, and is it true?

The quick tests read what `docs/argument.py` left behind; the slow one measures a small part again.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

import vae_core

DOCS = Path(__file__).resolve().parent.parent / "docs"
PICTURES = ("argument_tiles.png", "argument_time.png")
LARGEST_PICTURE_BYTES = 1_500_000
SHOWN_PX = 900
ROUNDING_SHARE = 1e-4
"""Of the range: what exact tiles may differ from untiled in float32."""

ROWS = {
    "exact tiles": "exact",
    "blended over 0 px": "blend_0",
    "blended over 16 px": "blend_16",
    "blended over 32 px": "blend_32",
}


@pytest.fixture
def numbers() -> dict[str, Any]:
    return json.loads((DOCS / "argument.json").read_text(encoding="utf-8"))


@pytest.fixture
def words() -> str:
    return (DOCS / "argument.md").read_text(encoding="utf-8")


def _module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """One of the scripts in `docs`, which is no package."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module(name)


def _cells(words: str, first: str) -> list[str]:
    """The cells of the one table row that begins with `first`."""
    rows = [line for line in words.splitlines() if line.startswith(f"| {first} |")]
    assert len(rows) == 1
    return [cell.strip() for cell in rows[0].strip("|").split("|")]


def _first_number(text: str) -> float:
    found = re.search(r"[-+]?\d+(\.\d+)?(e[-+]\d+)?", text)
    assert found, text
    return float(found.group())


def test_the_caption_is_written_from_the_numbers_and_nothing_else(
    numbers: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
):
    assert _module("argument_caption", monkeypatch).caption(numbers) == words


def test_a_readme_that_shows_the_picture_has_its_figures(
    numbers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    part = _module("argument_caption", monkeypatch).readme_part(numbers)
    assert "docs/argument_tiles.png" not in readme or part in readme, (
        "put in what python docs/argument.py --readme prints"
    )


@pytest.mark.parametrize("name", ROWS)
def test_each_figure_of_the_tiles_table_is_a_measured_number(
    name: str, numbers: dict[str, Any], words: str
):
    case = numbers["tiles"]["cases"][ROWS[name]]
    keys = (
        "psnr_db", "largest_level", "share_of_range", "shift_level", "source_psnr_db",
        "latents_share_of_range",
    )  # fmt: skip
    for key, cell in zip(keys, _cells(words, name)[1:], strict=True):
        assert _first_number(cell) == pytest.approx(case[key], rel=0.06), key


def test_exact_tiles_differ_by_rounding_and_every_blended_one_by_more(numbers: dict[str, Any]):
    cases = dict(numbers["tiles"]["cases"])
    exact = cases.pop("exact")
    assert exact["share_of_range"] <= ROUNDING_SHARE
    assert exact["latents_share_of_range"] <= ROUNDING_SHARE
    assert len(cases) == 3
    for case in cases.values():
        assert case["share_of_range"] > ROUNDING_SHARE
        assert case["latents_share_of_range"] > ROUNDING_SHARE
        assert case["psnr_db"] < exact["psnr_db"]


def test_tiles_that_are_not_blended_show_their_borders(numbers: dict[str, Any]):
    assert numbers["tiles"]["cases"]["blend_0"]["seam_ratio"] > 1.5


def test_a_dropped_cache_changes_nothing_before_the_first_boundary_and_much_after(
    numbers: dict[str, Any],
):
    caches = numbers["caches"]
    first = caches["boundaries"][0]
    for name in ("encode", "both"):
        gain_db = caches["cases"][name]["frame_gain_db"]
        assert max(map(abs, gain_db[:first])) < 1e-3
        assert max(map(abs, gain_db[first:])) > 0.1
    assert all(gain < 0 for gain in caches["cases"]["both"]["boundary_gain_db"])


def test_a_dropped_cache_makes_the_boundaries_of_chunks_flicker(numbers: dict[str, Any]):
    kept, both = (numbers["caches"]["cases"][name]["flicker_level"] for name in ("kept", "both"))
    assert both["boundary"] > both["elsewhere"]
    assert both["boundary"] > kept["boundary"]


def test_the_numbers_were_measured_on_the_weights_that_ship(numbers: dict[str, Any]):
    weights = vae_core.tiny_vae_path() / "diffusion_pytorch_model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert numbers["made_with"]["weights_sha256"] == digest, "run python docs/argument.py again"


@pytest.mark.parametrize("name", PICTURES)
def test_each_picture_is_shown_small_enough_to_load_and_large_enough_to_read(name: str, words: str):
    assert f"]({name})" in words
    assert (DOCS / name).stat().st_size < LARGEST_PICTURE_BYTES
    with Image.open(DOCS / name) as picture:
        assert picture.width == 2 * SHOWN_PX


@pytest.mark.slow
def test_a_small_part_measured_again_bears_the_argument_out(monkeypatch: pytest.MonkeyPatch):
    measure = _module("argument_measure", monkeypatch)
    vae, video = measure.shipped(measure.Cut(frames=(0, 17), rows=(64, 200), columns=(128, 264)))
    cases = measure.measure_tiles(vae, video[:, :, :5]).numbers["cases"]
    assert cases.pop("exact")["share_of_range"] <= ROUNDING_SHARE
    assert min(case["share_of_range"] for case in cases.values()) > ROUNDING_SHARE
    small = video[..., :64, :64]
    latents = vae.encode(small, measure.WHOLE).mode()
    apart = (measure.encode_pieces(vae, small, (9, 17)) - latents).abs().amax(dim=(0, 1, 3, 4))
    assert apart[:3].max() < 1e-5 < apart[3]
    one_piece = measure.decode_pieces(vae, latents[:, :, :3], (3,))
    assert measure.share_of_range(one_piece, vae.decode(latents[:, :, :3])) <= ROUNDING_SHARE
