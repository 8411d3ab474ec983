"""Do the pictures of HunyuanVideo's phase and mask, the page and the figures say the same, and is it
true?

The quick tests read what `docs/hunyuan.py` left behind and measure a small part again; the slow one
measures all of it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
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
def measure(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script in `docs`, which is no package."""
    monkeypatch.syspath_prepend(DOCS)
    with torch.no_grad():
        yield importlib.import_module("hunyuan_measure")


def rows(page: str, head: str) -> dict[str, list[str]]:
    """The cells behind the first one of each row of the table that begins so."""
    lines = page[page.index(f"| {head} |") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: others for name, *others in cells}


def decibels(value: float | None) -> str:
    return "identical" if value is None else f"{value:.1f} dB"


def late(case: dict[str, Any], delays: list[int]) -> int:
    """By how many sample frames the pictures are late: where they are nearest the source."""
    return delays[max(range(len(delays)), key=case["delay_db"].__getitem__)]


def test_each_figure_of_the_encoders_is_a_measured_number(page: str, numbers: dict[str, Any]):
    phase, said = numbers["phase"], rows(page, "encoder")
    assert list(said) == list(ENCODERS)
    for name, cells in said.items():
        case = phase["cases"][ENCODERS[name]]
        assert cells == [
            decibels(case["source_psnr_db"]),
            decibels(case["authors_psnr_db"]),
            f"{late(case, phase['delays'])}",
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


def test_core_s_pictures_are_late_and_those_put_in_phase_are_not(numbers: dict[str, Any]):
    phase = numbers["phase"]
    found = {name: late(case, phase["delays"]) for name, case in phase["cases"].items()}
    assert found["authors"] == found["in_phase"] == 0 < found["as_is"] < max(phase["delays"])
    aside = {name: case["authors_psnr_db"] for name, case in phase["cases"].items()}
    assert aside["as_is"] < aside["in_phase"] - 3


def test_this_engine_is_at_rounding_from_the_whole_network_and_no_mask_is_not(
    numbers: dict[str, Any],
):
    mask = numbers["mask"]
    assert mask["whole_share_of_range"] <= ROUNDING_SHARE
    levels = mask["cases"]["no_mask"]["authors_frame_level"]
    assert min(levels[:4]) > 100 * 255 * ROUNDING_SHARE / 100
    assert levels[0] > levels[-1]


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


@pytest.mark.slow
def test_all_of_it_measured_again_gives_the_figures(measure: ModuleType, numbers: dict[str, Any]):
    (vae, module), video = measure.shipped(), measure.source()
    phase = measure.measure_phase(vae, video)
    mask = measure.measure_mask(vae, module, video, phase.levels["authors"])
    for name, measured in (("phase", phase), ("mask", mask)):
        for way, case in measured.numbers["cases"].items():
            wanted = numbers[name]["cases"][way]
            for key in ("source_psnr_db", "authors_psnr_db"):
                assert case[key] == pytest.approx(wanted[key], abs=0.02), (way, key)
            assert case.get("delay_db") == pytest.approx(wanted.get("delay_db"), abs=0.02)
