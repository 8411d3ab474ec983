"""Does `reference` give the result of the implementation that it names, where they differ?

ComfyUI's class of HunyuanVideo 1.5 attends without a mask. diffusers' is run without one here; the
host's own is compared in the host tier.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from contract import assert_close, decode_frames, encode_moments, relative_error
from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import HunyuanVideo15AttnBlock
from networks import NARROW, random_latents, random_video
from networks_hunyuan import random_hunyuan_1_5, whole_decode, whole_encode
from pack import part, run

from vae_core import Reference, Settings, accelerate, from_module, restore
from vae_core.datasets.buckets import Bucket
from vae_core.datasets.encoding import Recipe
from vae_core.errors import SettingsError

CUTS = (
    {},
    {"chunk_frames": 4, "tile_px": 16, "placement": "host"},
    {"chunk_frames": 8, "tile_px": (16, 48), "placement": "mmap"},
    {"tiling": "off"},
)


@contextmanager
def without_mask() -> Iterator[None]:
    """diffusers' class as ComfyUI's is."""
    own = HunyuanVideo15AttnBlock.__dict__["prepare_causal_attention_mask"]
    HunyuanVideo15AttnBlock.prepare_causal_attention_mask = staticmethod(lambda *_, **__: None)
    try:
        yield
    finally:
        HunyuanVideo15AttnBlock.prepare_causal_attention_mask = own


@pytest.fixture(scope="module")
def module():
    return random_hunyuan_1_5()


def latents_of(frames: int) -> torch.Tensor:
    return random_latents((frames - 1) // 4 + 1, 2, 3, channels=4)


@pytest.mark.parametrize("settings", CUTS, ids=str)
def test_core_s_result_is_had_both_ways_in_every_cut(module, settings) -> None:
    video, latents = random_video(13, 32, 48), latents_of(13)
    with without_mask():
        moments, pictures = whole_encode(module, video), whole_decode(module, latents)
    official = whole_decode(module, latents)
    assert relative_error(pictures, official) > 1e-3
    chosen = {"reference": "core", **settings}
    assert_close(encode_moments(module, video, **chosen), moments)
    assert_close(decode_frames(module, latents, **chosen), pictures)


def test_core_s_result_is_had_through_streams(module) -> None:
    vae, settings = from_module(module), Settings(chunk_frames=4, reference="core")
    video, latents = random_video(13, 32, 48), latents_of(13)
    with without_mask():
        moments, pictures = whole_encode(module, video), whole_decode(module, latents)
    runs = video.split([1, 5, 4, 3], dim=2)
    assert_close(torch.cat(list(vae.encode_stream(iter(runs), settings)), 2), moments)
    assert_close(torch.cat(list(vae.decode_stream(latents, settings)), 2), pictures)


def test_in_core_s_result_the_last_latent_reaches_the_first_picture(module) -> None:
    latents = latents_of(13)
    changed = latents.clone()
    changed[:, :, -1] += 1
    for reference, reached in (("core", True), ("official", False)):
        first, other = (
            decode_frames(module, x, reference=reference)[:, :, 0] for x in (latents, changed)
        )
        assert bool((first != other).any()) is reached


def test_of_a_picture_both_are_the_same(module) -> None:
    video = random_video(1, 32, 48)
    assert_close(encode_moments(module, video, reference="core"), whole_encode(module, video))


@pytest.mark.parametrize(
    "family", [name for name in NARROW if not name.startswith(("hunyuan", "mochi"))]
)
def test_it_means_nothing_where_implementations_agree(family: str) -> None:
    vae = from_module(NARROW[family](torch.float32))
    px = vae.ratios.px
    for shape, plan in (
        ((1, vae.sample_channels, 17, 2 * px, 3 * px), vae.plan_encode),
        ((1, vae.latent_channels, 5, 2, 3), vae.plan_decode),
    ):
        usual, *others = (plan(shape, Settings(reference=name)).as_dict() for name in Reference)
        assert others == [usual, usual]
        assert usual["reference"] == "official"


def test_the_plan_says_whose_result_it_is(module) -> None:
    vae = from_module(module)
    plan = vae.plan_decode((1, 4, 5, 2, 3), Settings(reference="core"))
    assert "ComfyUI core's class" in plan.describe()
    assert plan.as_dict()["reference"] == "core"
    assert "ComfyUI core's class" not in vae.plan_decode((1, 4, 5, 2, 3)).describe()


def test_no_other_reference_is_taken() -> None:
    with pytest.raises(
        SettingsError, match="reference must be one of 'official', 'core', 'core-as-is'"
    ):
        Settings(reference="kijai")


def test_a_pipeline_may_ask_for_it(module) -> None:
    latents = latents_of(9)
    with without_mask():
        expected = whole_decode(module, latents)
    accelerate(module, Settings(reference="core"))
    try:
        assert_close(module.decode(latents).sample, expected)
    finally:
        restore(module)


def test_a_folder_of_latents_says_so_where_it_is_not_the_authors(module) -> None:
    buckets = (Bucket(5, 32, 48),)
    vae, usual = from_module(module), Recipe(buckets, Settings())
    other = Recipe(buckets, Settings(reference="core"))
    assert "reference" not in usual.as_dict(vae)
    assert other.as_dict(vae)["reference"] == "core"


def test_the_widget_of_loader_and_apply_counts_in_every_node(module) -> None:
    latents = latents_of(9)
    with without_mask():
        expected = whole_decode(module, latents)
    expected = ((expected[0].permute(1, 2, 3, 0) + 1.0) / 2.0).clamp(0.0, 1.0)
    (vae,) = run("ExactVAEApply", vae=module, reference="core")
    images, told = run("ExactVAEDecodeFramewise", samples={"samples": latents}, vae=vae)
    assert_close(images, expected)
    assert "ComfyUI core's class" in told
    assert_close(vae.decode(latents)[0], expected)
    (official,) = run("ExactVAEApply", vae=vae)
    images, told = run("ExactVAEDecodeFramewise", samples={"samples": latents}, vae=official)
    assert relative_error(images, expected) > 1e-3
    with pytest.raises(part("vae_core").SettingsError, match="reference must be one of"):
        run("ExactVAEApply", vae=module, reference="both")


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_nothing_on_a_card_grows_with_the_clip_for_core_s_result_either(module, kind) -> None:
    vae = from_module(module, device="meta")
    settings = Settings(reference="core", chunk_frames=4, placement="caches-on-host")
    plans = []
    for frames in (13, 33):
        if kind == "encode":
            plans.append(vae.plan_encode((1, 3, frames, 64, 96), settings))
        else:
            plans.append(vae.plan_decode((1, 4, frames // 4 + 1, 4, 6), settings))
    short, long = plans
    assert long.peak_bytes == short.peak_bytes
    # queries, keys, values and what is added of five more latent frames, 16 channels each
    assert long.far_bytes - short.far_bytes == 5 * 4 * 16 * 4 * 6 * 4
