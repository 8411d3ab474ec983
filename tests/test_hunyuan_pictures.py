"""Do the page on HunyuanVideo and the pictures of its phase and mask say what was measured?

The quick tests read what `docs/hunyuan.py` left behind and measure a small part again; the slow one
measures all of it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

DOCS = Path(__file__).resolve().parent.parent / "docs"
PICTURES = ("hunyuan_phase.png", "hunyuan_mask.png")
LARGEST_PICTURE_BYTES, LARGEST_WEIGHTS_BYTES = 1_500_000, 2_000_000
SHOWN_PX = 900
ROUNDING_SHARE = 1e-4

ENCODERS = {
    "authors', this pack": "authors",
    "core's, in phase": "in_phase",
    "core's as it is": "as_is",
}
DECODERS = {
    "authors', this pack": "authors",
    "authors', without the mask": "no_mask",
    "core's": "core",
}
"""Rows of the page, and what they are called in the figures."""


@pytest.fixture
def numbers() -> dict[str, Any]:
    return json.loads((DOCS / "hunyuan.json").read_text(encoding="utf-8"))


@pytest.fixture
def page() -> str:
    return (DOCS / "hunyuan.md").read_text(encoding="utf-8")


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script in `docs`, which is no package."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("hunyuan_measure")


def rows(page: str, head: str) -> dict[str, list[str]]:
    """The cells behind the first one of each row of the table that begins so."""
    lines = page[page.index(f"| {head} |") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: others for name, *others in cells}


def decibels(value: float | None) -> str:
    return "identical" if value is None else f"{value:.1f} dB"


def test_each_figure_of_the_encoders_is_a_measured_number(page: str, numbers: dict[str, Any]):
    said = rows(page, "encoder")
    assert list(said) == list(ENCODERS)
    for name, cells in said.items():
        case = numbers["phase"]["cases"][ENCODERS[name]]
        assert cells == [
            decibels(case["source_psnr_db"]),
            decibels(case["authors_psnr_db"]),
            f"{case['late']}",
            f"{100 * case['latents_share_of_range']:.1f} %",
        ]


def test_each_figure_of_the_decoders_is_a_measured_number(page: str, numbers: dict[str, Any]):
    said = rows(page, "decoder")
    assert list(said) == list(DECODERS)
    for name, cells in said.items():
        case = numbers["mask"]["cases"][DECODERS[name]]
        levels = case["authors_frame_level"]
        assert cells == [
            decibels(case["source_psnr_db"]),
            decibels(case["authors_psnr_db"]),
            f"{levels[0]:.1f}",
            f"{levels[-1]:.1f}",
        ]


def test_the_page_says_what_was_measured_and_how_near_this_engine_is(
    page: str, numbers: dict[str, Any], measure: ModuleType
):
    t, h, w = numbers["phase"]["size"]
    assert numbers["mask"]["size"] == [t, h, w] == list(measure.source().shape[2:])
    said = " ".join(page.split())
    assert f"{t} sample frames of {h}x{w} px" in said
    cut = measure.CUT
    assert f"chunks of {cut['chunk_frames']} frames and tiles of {cut['tile_px']} px" in said
    assert f"was {numbers['mask']['whole_share_of_range']:.1e} of the range" in said


def test_core_s_pictures_are_late_and_those_put_in_phase_are_not(numbers: dict[str, Any]):
    cases = numbers["phase"]["cases"]
    assert {name: case["late"] for name, case in cases.items()} == {
        "authors": 0, "in_phase": 0, "as_is": 1 + 2,
    }  # fmt: skip
    assert cases["as_is"]["authors_psnr_db"] < cases["in_phase"]["authors_psnr_db"] - 6


def test_this_engine_is_at_rounding_from_the_whole_network_and_no_mask_is_not(
    numbers: dict[str, Any],
):
    mask = numbers["mask"]
    assert mask["whole_share_of_range"] <= ROUNDING_SHARE
    levels = mask["cases"]["no_mask"]["authors_frame_level"]
    assert levels[0] > 100 * 255 * mask["whole_share_of_range"]
    assert levels[0] > levels[-1], "the last frames have no later ones to see"


def test_the_figures_were_measured_on_the_weights_beside_the_page(numbers: dict[str, Any]):
    weights = DOCS / "hunyuan_small" / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_size < LARGEST_WEIGHTS_BYTES
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert numbers["made_with"]["weights_sha256"] == digest, "run python docs/hunyuan.py again"


@pytest.mark.parametrize("name", PICTURES)
def test_each_picture_loads_quickly_and_can_be_read(name: str, page: str):
    assert f"]({name})" in page
    assert (DOCS / name).stat().st_size < LARGEST_PICTURE_BYTES
    with Image.open(DOCS / name) as picture:
        assert picture.width == 2 * SHOWN_PX


def bears_out(measured: dict[str, Any], numbers: dict[str, Any]):
    """That the figures are those of `hunyuan.json`, to what kernels of another processor change."""
    for name in ("phase", "mask"):
        found, wanted = measured[name].numbers, numbers[name]
        assert found["size"] == wanted["size"]
        assert list(found["cases"]) == list(wanted["cases"])
        for way, case in wanted["cases"].items():
            again = found["cases"][way]
            for key in {"source_psnr_db", "authors_psnr_db", "delay_db"} & set(case):
                assert again[key] == pytest.approx(case[key], abs=0.05), (way, key)
            levels = case["authors_frame_level"]
            assert again["authors_frame_level"] == pytest.approx(levels, abs=0.02), way


def test_a_small_part_measured_again_gives_its_figures(
    measure: ModuleType, numbers: dict[str, Any]
):
    bears_out(measure.measure(measure.part_of(measure.source())), numbers["part"])


@pytest.mark.slow
def test_all_of_it_measured_again_gives_the_figures(measure: ModuleType, numbers: dict[str, Any]):
    bears_out(measure.measure(measure.source()), numbers)
