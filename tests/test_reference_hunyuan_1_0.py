"""Does `reference` give what ComfyUI core's class of HunyuanVideo 1.0 gives, in phase and as it is?

diffusers' modules are made to do what that class does (`core_hunyuan`); the class itself is
compared in the host tier.
"""

from __future__ import annotations

import pytest
import torch
from contract import assert_close, decode_frames, encode_moments, relative_error
from core_hunyuan import as_core
from networks import random_latents, random_video
from networks_hunyuan import clip_decode, clip_encode, random_hunyuan
from pack import run

from vae_core import Settings, accelerate, from_module, restore

CUTS = (
    {},
    {"chunk_frames": 4, "tile_px": 16, "placement": "host"},
    {"tile_px": (16, 48), "placement": "mmap"},
    {"tiling": "off"},
)


@pytest.fixture(scope="module")
def module():
    return random_hunyuan()


def clip(frames: int, dtype: torch.dtype = torch.float32):
    """A video of 24x40 px, and latents for as many frames."""
    latents = random_latents((frames - 1) // 4 + 1, 3, 5, dtype)
    return random_video(frames, 24, 40, dtype), latents


def core_s(module, video, latents, *, late: bool = False):
    """Moments and pictures as core's class gives them."""
    with as_core(module, latents.shape[2], late=late):
        return clip_encode(module, video), clip_decode(module, latents)


@pytest.mark.parametrize("frames", [1, 5, 9, 13, 17, 21])
def test_core_s_result_is_had_for_every_length(module, frames) -> None:
    """Runs are of two latent frames, so that every other length ends with a lone one."""
    video, latents = clip(frames)
    settings = CUTS[frames // 4 % 4]
    for late, reference in ((False, "core"), (True, "core-as-is")):
        moments, pictures = core_s(module, video, latents, late=late)
        chosen = {"reference": reference, **settings}
        assert_close(encode_moments(module, video, **chosen), moments)
        assert_close(decode_frames(module, latents, **chosen), pictures)


@pytest.mark.parametrize("settings", CUTS, ids=str)
def test_no_cut_and_no_place_changes_it(settings) -> None:
    module = random_hunyuan(torch.float64)
    video, latents = clip(13, torch.float64)
    for late, reference in ((False, "core"), (True, "core-as-is")):
        moments, pictures = core_s(module, video, latents, late=late)
        chosen = {"reference": reference, **settings}
        assert_close(encode_moments(module, video, **chosen), moments)
        assert_close(decode_frames(module, latents, **chosen), pictures)


def test_the_three_results_are_apart_but_for_those_of_a_picture(module) -> None:
    video, latents = clip(13)
    official, core, as_is = (
        encode_moments(module, video, reference=name) for name in ("official", "core", "core-as-is")
    )
    assert min(relative_error(a, b) for a, b in ((core, official), (as_is, core))) > 1e-2
    pictures = [decode_frames(module, latents, reference=n) for n in ("official", "core")]
    assert relative_error(pictures[1], pictures[0]) > 1e-2
    assert torch.equal(decode_frames(module, latents, reference="core-as-is"), pictures[1])
    video, _ = clip(1)
    for name in ("core", "core-as-is"):
        assert torch.equal(
            encode_moments(module, video, reference=name), encode_moments(module, video)
        )


def test_core_s_result_is_had_through_streams(module) -> None:
    vae, settings = from_module(module), Settings(reference="core-as-is")
    video, latents = clip(13)
    moments, pictures = core_s(module, video, latents, late=True)
    runs = video.split([1, 5, 4, 3], dim=2)
    assert_close(torch.cat(list(vae.encode_stream(iter(runs), settings)), 2), moments)
    assert_close(torch.cat(list(vae.decode_stream(latents, settings)), 2), pictures)


def test_clips_of_a_batch_are_those_by_themselves(module) -> None:
    video, latents = (torch.cat((x, -x.flip(2))) for x in clip(9))
    moments, pictures = core_s(module, video, latents)
    assert_close(encode_moments(module, video, reference="core", tile_px=16), moments)
    assert_close(decode_frames(module, latents, reference="core", tile_px=16), pictures)


def test_the_plan_says_whose_result_it_is(module) -> None:
    vae = from_module(module)
    for name, words in (("core", "later frames"), ("core-as-is", "out of phase")):
        plan = vae.plan_encode((1, 3, 13, 24, 40), Settings(reference=name))
        assert plan.as_dict()["reference"] == name
        assert words in plan.describe()
    plan = vae.plan_encode((1, 3, 13, 24, 40))
    assert plan.as_dict()["reference"] == "official"


def test_nodes_and_pipelines_give_it(module) -> None:
    _, latents = clip(9)
    with as_core(module, 3):
        expected = clip_decode(module, latents)
    shown = ((expected[0].permute(1, 2, 3, 0) + 1.0) / 2.0).clamp(0.0, 1.0)
    (vae,) = run("ExactVAEApply", vae=module, reference="core")
    images, told = run("ExactVAEDecodeFramewise", samples={"samples": latents}, vae=vae)
    assert_close(images, shown)
    assert "ComfyUI core's class" in told
    accelerate(module, Settings(reference="core"))
    try:
        assert_close(module.decode(latents).sample, expected)
    finally:
        restore(module)
