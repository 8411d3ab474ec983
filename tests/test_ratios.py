"""Does everything above the families work where a latent element stands for another size?

Networks of Wan's parts with fewer and with more levels: 4 pixels and 2 frames, and 16 and 4.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from contract import assert_close, decode_frames, encode_moments
from diffusers import AutoencoderKLWan
from networks import random_latents, random_video
from networks_wan import NARROW, unsettled, whole_decode, whole_encode
from pack import part, run
from torch import nn

from vae_core import from_module
from vae_core.datasets.buckets import Bucket
from vae_core.datasets.checking import check
from vae_core.datasets.shards import RECIPE, Entry, Shards
from vae_core.errors import SettingsError
from vae_core.geometry.ratios import Ratios

LEVELS = {
    Ratios(px=4, frames=2): {"dim_mult": [1, 2, 2], "temperal_downsample": [False, True]},
    Ratios(px=16, frames=4): {
        "dim_mult": [1, 2, 2, 2, 2],
        "temperal_downsample": [False, False, True, True],
    },
}
SIZE = (10, 27, 33)
"""Of a clip that none of them takes as it is."""


@pytest.fixture(scope="module", params=LEVELS, ids=str)
def ratios(request: pytest.FixtureRequest) -> Ratios:
    return request.param


@pytest.fixture(scope="module")
def network(ratios: Ratios) -> nn.Module:
    torch.manual_seed(0)
    return unsettled(AutoencoderKLWan(base_dim=NARROW, **LEVELS[ratios]))


def padded(ratios: Ratios, size: tuple[int, int, int] = SIZE) -> tuple[int, int, int]:
    """The size that a clip is padded to, counted on."""
    t, h, w = size
    while (t - 1) % ratios.frames:
        t += 1
    while h % ratios.px:
        h += 1
    while w % ratios.px:
        w += 1
    return t, h, w


@pytest.mark.parametrize("settings", [{}, {"chunk_frames": 4, "tile_px": 16}], ids=str)
def test_both_ways_equal_diffusers(network: nn.Module, ratios: Ratios, settings: dict) -> None:
    video = random_video(9, 2 * ratios.px, 3 * ratios.px)
    latents = random_latents(8 // ratios.frames + 1, 2, 3, channels=16)
    assert from_module(network).ratios == ratios
    assert_close(encode_moments(network, video, **settings), whole_encode(network, video))
    assert_close(decode_frames(network, latents, **settings), whole_decode(network, latents))


def test_nodes_pad_and_take_padding_off(
    network: nn.Module, ratios: Ratios, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(part("nodes.bridge.host"), "send", lambda _, event: told.append(event))
    clip = torch.rand(*SIZE, 3, generator=torch.Generator().manual_seed(1))
    latent, _ = run("ExactVAEEncodeTiled", images=clip, vae=network, unique_id="1")
    t, h, w = padded(ratios)
    cells = ((t - 1) // ratios.frames + 1, h // ratios.px, w // ratios.px)
    assert tuple(latent["samples"].shape[2:]) == cells
    images, _ = run("ExactVAEDecodeFramewise", samples=latent, vae=network, unique_id="2")
    assert tuple(images.shape[:3]) == SIZE
    begun = [event["plan"]["sample"] for event in told if event["state"] == "begin"]
    assert begun == [[t, h, w], [t, h, w]]


def test_video_nodes_ask_for_whole_latent_elements(network: nn.Module, ratios: Ratios) -> None:
    change = {"file": part("nodes.video").SHIPPED, "count": 1, "width": 48}
    latent, _, _ = run("ExactVAEEncodeVideo", change=change, vae=network)
    rows = round(272 * 48 / 480 / ratios.px)  # the shipped clip has 272 x 480 pixels
    assert tuple(latent["samples"].shape[3:]) == (rows, 48 // ratios.px)
    assert "exact_video_vae" not in latent  # nothing was padded


@pytest.mark.parametrize("operation", ["encode", "decode"])
@pytest.mark.parametrize("change", [{}, {"tiling": "blend", "tile_px": 32, "overlap_px": 16}])
def test_the_panels_plan_is_the_engines_own(
    network: nn.Module, ratios: Ratios, operation: str, change: dict[str, Any]
) -> None:
    planning, core = part("nodes.bridge.planning"), part("vae_core")
    vae, settings = core.from_module(network), core.Settings(**change)
    t, h, w = padded(ratios, (50, 90, 107))
    found = planning.plan_totals(vae, operation, core.Extent(50, 90, 107), settings)
    if operation == "encode":
        plan = vae.plan_encode((1, 3, 50, 90, 107), settings)
    else:
        cells = ((t - 1) // ratios.frames + 1, h // ratios.px, w // ratios.px)
        plan = vae.plan_decode((1, 16, *cells), settings)
    assert found.chunks == len(plan.chunks)
    assert found.crops == max(plan.as_dict()["blended_crops"], 1)
    assert found.tiles == plan.tile_count()
    assert found.operations == plan.operations
    assert found.plan.peak_bytes == plan.peak_bytes


def test_the_panel_says_what_is_padded(ratios: Ratios) -> None:
    planning, core = part("nodes.bridge.planning"), part("vae_core")
    whole = (2 * ratios.frames + 1, 3 * ratios.px, 2 * ratios.px)
    theirs = planning.Ratios(ratios.px, ratios.frames)
    assert planning._notes(theirs, "encode", core.Extent(*whole)) == []
    odd = core.Extent(whole[0] + 1, whole[1], whole[2] + ratios.px // 2)
    assert planning._notes(theirs, "encode", odd) == ["frames", "size"]


def test_buckets_are_whole_latent_elements(ratios: Ratios) -> None:
    frames, side = 2 * ratios.frames + 1, 3 * ratios.px
    Bucket(frames, side, side).check(ratios)
    wrong = ((frames + 1, side, side), (frames, side + ratios.px // 2, side), (frames, side, 1))
    for size in wrong:
        with pytest.raises(SettingsError, match=f"{ratios.px} pixels|{ratios.frames}k"):
            Bucket(*size).check(ratios)


def test_a_folder_of_latents_is_checked_by_the_ratios_that_it_says(
    ratios: Ratios, tmp_path: Path
) -> None:
    cells = (3, 2, 5)
    size = (2 * ratios.frames + 1, 2 * ratios.px, 5 * ratios.px)
    shards = Shards(tmp_path)
    shards.create()
    shards.prepare({"ratios": {"px": ratios.px, "frames": ratios.frames}})
    entry = Entry("a", "a.mp4", 1, *size, "8", "latents", (16, *cells))
    shards.save(entry, torch.zeros(16, *cells))
    shards.write_lists([entry], [])
    assert [one.complaints for one in check(shards)] == [()]
    (tmp_path / RECIPE).unlink()
    shards.prepare({"ratios": {"px": 2 * ratios.px, "frames": ratios.frames}})
    assert "its bucket makes [16, 3, 1, 2]" in next(check(shards)).complaints[0]
