"""Blended tiles through the public calls: the same executor run on crops, in every combination."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from contract import assert_close
from networks import random_module, random_video, replicated

from vae_core import Extent, Settings, from_module
from vae_core.geometry.blend import blend_geometry, blend_tiles

ORDERS = ("normalised", "reference")


@pytest.fixture(scope="module")
def vae():
    return from_module(random_module())


@pytest.fixture(scope="module")
def video():
    return random_video(11, 61, 75)  # padded in every direction


def blended(**settings) -> Settings:
    return Settings(tiling="blend", tile_px=(48, 40), overlap_px=16, **settings)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", ["aligned", "diffusers"])
@pytest.mark.parametrize("scope", ["chunk", "clip"])
def test_each_crop_is_run_as_a_picture_of_its_own(vae, video, order, layout, scope) -> None:
    settings = blended(blend_order=order, layout=layout, norm_scope=scope)
    whole = replace(settings, tiling="off")
    posterior = vae.encode(video, settings)
    network = posterior.fitted.network
    padded = replicated(video, network)
    expected = torch.empty_like(posterior.moments)
    blend_tiles(
        blend_geometry(network, settings, 1, 8),
        lambda crop: vae.encode(padded[(..., *crop.slices)], whole).moments,
        expected,
    )
    assert_close(posterior.moments, expected, 1e-5)
    latents = posterior.mode()
    frames = vae.decode(latents, settings)
    expected = torch.empty_like(frames)
    blend_tiles(
        blend_geometry(Extent(*latents.shape[2:]), settings, 8, 1),
        lambda crop: vae.decode(latents[(..., *crop.slices)], whole),
        expected,
    )
    assert_close(frames, expected, 1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_progress_goes_on_from_crop_to_crop(vae, video, order) -> None:
    seen = []
    vae.encode(video, blended(blend_order=order, on_progress=seen.append))
    done = [progress.done_operations for progress in seen]
    assert done == sorted(set(done))
    assert {progress.total_operations for progress in seen} == {done[-1]}


def test_streamed_frames_are_the_blended_ones_and_a_budget_changes_nothing(vae) -> None:
    latents = torch.randn(1, 4, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    frames = vae.decode(latents, blended())
    assert torch.equal(torch.cat(list(vae.decode_stream(latents, blended())), dim=2), frames)
    budget_bytes = vae.plan_decode(latents.shape, blended()).peak_bytes * 9 // 10
    assert_close(vae.decode(latents, blended(budget_bytes=budget_bytes)), frames)


def test_the_plan_says_how_many_crops_there_are(vae) -> None:
    plan = vae.plan_encode((1, 3, 9, 96, 120), blended())
    assert plan.as_dict()["blended_crops"] == 3 * 5
    assert "blended: 15 crops of at most 48x40" in plan.describe()
