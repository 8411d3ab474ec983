"""Folders of clips, and what `encode-dataset` makes of them, for tests."""

from __future__ import annotations

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from PIL import Image

from vae_core.cli import main
from vae_core.media.video import Frames
from vae_core.media.video_writing import write_video

SIZES = ("--bucket", "5x32x48")
posix = pytest.mark.skipif(os.name != "posix", reason="needs links, pipes and names of bytes")


def moving_clip(
    frames: int, height: int = 32, width: int = 48, seed: int = 0, pace: tuple[int, int] = (2, 1)
) -> Frames:
    """A ramp in each colour. pace: by how much red and green rise from frame to frame."""
    t, y, x = np.mgrid[0:frames, 0:height, 0:width]
    return (
        np.stack([x * 3 + t * pace[0] + seed, y * 4 + t * pace[1], 255 - x * 2 - y], -1)
        .clip(0, 255)
        .astype(np.uint8)
    )


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow random VAE in a folder."""
    folder = tmp_path_factory.mktemp("weights") / "vae"
    torch.manual_seed(0)
    AutoencoderKLCogVideoX(
        block_out_channels=(32, 32, 32, 32), layers_per_block=1, latent_channels=16
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of five frames."""
    path = tmp_path_factory.mktemp("clips") / "good.mp4"
    write_video(path, moving_clip(5), Fraction(24))
    return path


@pytest.fixture
def folder(tmp_path: Path, good: Path) -> Path:
    """A folder of one good clip."""
    (tmp_path / "clips").mkdir()
    shutil.copy(good, tmp_path / "clips" / "good.mp4")
    return tmp_path / "clips"


def encode(folder: Path, vae: Path, *more: object, sizes: tuple[str, ...] = SIZES) -> int:
    argv = ["encode-dataset", folder, "-o", results(folder), "--vae", vae, *sizes, *more]
    return main([str(one) for one in argv])


def results(folder: Path) -> Path:
    return folder.with_name("out")


def index(folder: Path) -> dict[str, dict]:
    lines = (results(folder) / "index.jsonl").read_text().splitlines()
    return {line["source"]: line for line in map(json.loads, lines)}


def skipped(folder: Path) -> dict[str, str]:
    lines = (results(folder) / "skipped.jsonl").read_text().splitlines()
    return {line["source"]: line["reason"] for line in map(json.loads, lines)}


def make_pictures(folder: Path, count: int = 5) -> Path:
    folder.mkdir()
    for number, frame in enumerate(moving_clip(count)):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return folder


# What lies in a folder
