"""Do the nodes take Wan 2.1 and Qwen-Image as they take CogVideoX, pictures and alpha included?"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from images import distance, seen, shown
from networks import random_latents
from networks_wan import (
    random_qwen_image,
    random_wan,
    random_wan_2_2,
    whole_decode,
    whole_encode,
)
from pack import part, run
from safetensors.torch import save_file
from torch import Tensor, nn

core = part("vae_core")
bridge, host = part("nodes.bridge.vae"), part("nodes.bridge.host")
wrapper = part("nodes.bridge.wan_wrapper")

TITLE = "Wan 2.1 and Qwen-Image"
MOST = 1e-4


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return random_wan()


@pytest.fixture(scope="module")
def alpha() -> nn.Module:
    return random_wan(channels=4)


def pictures(frames: int, height: int = 32, width: int = 40, colours: int = 3) -> Tensor:
    """An IMAGE [t, h, w, c] in [0, 1]."""
    return torch.rand(frames, height, width, colours, generator=torch.Generator().manual_seed(1))


def wan_latents(frames: int, rows: int = 4, columns: int = 5, batch: int = 1) -> Tensor:
    return random_latents(frames, rows, columns, batch=batch, channels=16)


@pytest.mark.parametrize("frames", [1, 9])
def test_a_clip_and_a_picture_are_encoded_as_by_the_untiled_network(module: nn.Module, frames: int):
    image = pictures(frames)
    latent, report = run("ExactVAEEncodeTiled", change={"tile_size": 16}, images=image, vae=module)
    wanted = whole_encode(module, seen(image)).chunk(2, dim=1)[0]
    assert distance(latent["samples"], wanted) < MOST
    assert f"VAE: {TITLE}" in report


@pytest.mark.parametrize(("batch", "frames"), [(1, 3), (1, 2), (3, 1)])
def test_latents_are_decoded_as_by_the_untiled_network(module: nn.Module, batch: int, frames: int):
    latents = wan_latents(frames, batch=batch)
    images, report = run(
        "ExactVAEDecodeFramewise",
        change={"tile_size": 16},
        samples={"samples": latents},
        vae=module,
    )
    assert images.shape == (batch * (4 * frames - 3), 32, 40, 3)
    assert distance(images, shown(whole_decode(module, latents))) < MOST
    assert f"VAE: {TITLE}" in report


def test_wan_2_2_goes_through_the_nodes_and_cores_calls():
    module = random_wan_2_2(latent_channels=48)
    image, latents = pictures(5, 32, 48), random_latents(2, 2, 3, channels=48)
    wanted = whole_encode(module, seen(image)).chunk(2, dim=1)[0]
    latent, _ = run("ExactVAEEncodeTiled", change={"tile_size": 16}, images=image, vae=module)
    images, report = run("ExactVAEDecodeFramewise", samples={"samples": latents}, vae=module)
    (vae,) = run("ExactVAEApply", vae=module)
    for got in (latent["samples"], vae.encode(image)):
        assert distance(got, wanted) < MOST
    wanted = shown(whole_decode(module, latents))
    for got in (images, vae.decode(latents)[0]):
        assert distance(got, wanted) < MOST
    assert "VAE: Wan 2.2 5B" in report


def test_qwen_images_own_class_is_taken_too():
    latents = wan_latents(1)
    images, _ = run(
        "ExactVAEDecodeFramewise", samples={"samples": latents}, vae=random_qwen_image()
    )
    assert distance(images, shown(whole_decode(random_wan(), latents))) < MOST


@pytest.mark.parametrize("change", [{"chunk_size": 4}, {"chunk_size": 64}, {"norm_scope": "clip"}])
def test_chunks_and_scopes_change_nothing_of_a_picture(module: nn.Module, change: dict[str, Any]):
    latent = {"samples": wan_latents(4)}
    usual, _ = run("ExactVAEDecodeFramewise", samples=latent, vae=module)
    other, _ = run("ExactVAEDecodeFramewise", change=change, samples=latent, vae=module)
    assert distance(other, usual) < 1e-6


@pytest.mark.parametrize(("colours", "note"), [(3, "Alpha was added"), (4, None)])
def test_a_network_that_knows_alpha_gets_it(alpha: nn.Module, colours: int, note: str | None):
    image = pictures(5, colours=colours)
    opaque = torch.cat([image, torch.ones(*image.shape[:3], 4 - colours)], dim=-1)
    latent, report = run("ExactVAEEncodeTiled", images=image, vae=alpha)
    wanted = whole_encode(alpha, seen(opaque)).chunk(2, dim=1)[0]
    assert distance(latent["samples"], wanted) < MOST
    assert ("Alpha" in report) == (note is not None)
    assert (note or "") in report
    images, _ = run("ExactVAEDecodeFramewise", samples=latent, vae=alpha)
    assert images.shape == (5, 32, 40, 4)


def test_alpha_is_left_out_where_the_network_knows_colours_only(module: nn.Module):
    image = pictures(1, colours=4)
    latent, report = run("ExactVAEEncodeTiled", images=image, vae=module)
    plain, _ = run("ExactVAEEncodeTiled", images=image[..., :3], vae=module)
    assert torch.equal(latent["samples"], plain["samples"])
    assert "Alpha was left out" in report


def test_a_video_goes_through_a_network_that_knows_alpha(alpha: nn.Module):
    change = {"file": run_name(), "count": 5, "width": 48}
    latent, _, _ = run("ExactVAEEncodeVideo", change=change, vae=alpha)
    assert latent["samples"].shape[:3] == (1, 16, 2)
    video, report = run("ExactVAEDecodeVideo", samples=latent, vae=alpha)
    assert "Alpha was left out" in report
    with part("vae_core.media.video").open_video(video) as file:
        assert file.info.frames == 5


def run_name() -> str:
    """What the clip that ships with the pack is called."""
    return part("nodes.video").SHIPPED


# Core's own nodes


def test_cores_calls_give_the_untiled_networks_result(module: nn.Module):
    (vae,) = run("ExactVAEApply", vae=module)
    image, latents = pictures(9, 35, 41), wan_latents(3)
    middle = image[:, 1:33, :40]
    wanted = whole_encode(module, seen(middle)).chunk(2, dim=1)[0]
    for got in (vae.encode(image), vae.encode_tiled(image, tile_x=16, tile_y=32, overlap=8)):
        assert distance(got, wanted) < MOST
    wanted = shown(whole_decode(module, latents))
    for got in (vae.decode(latents), vae.decode_tiled(latents, tile_x=2, tile_y=4, overlap=1)):
        assert distance(got[0], wanted) < MOST


def test_core_is_told_the_networks_own_sizes(alpha: nn.Module):
    vae = bridge.exact_vae(alpha)
    assert [vae.upscale_ratio[0](n) for n in range(4)] == [0, 1, 5, 9]
    assert [vae.downscale_ratio[0](n) for n in (0, 1, 4, 5, 6, 9)] == [0, 1, 1, 2, 2, 3]
    assert vae.upscale_ratio[1:] == vae.downscale_ratio[1:] == (8, 8)
    assert vae.upscale_index_formula == (4, 8, 8)
    assert (vae.latent_dim, vae.latent_channels, vae.output_channels) == (3, 16, 4)
    assert vae.first_stage_model.decode_output_shape((2, 16, 3, 4, 5)) == (2, 4, 9, 32, 40)


def test_core_reserves_what_the_plan_takes(module: nn.Module):
    vae = bridge.exact_vae(module)
    latents, video = (1, 16, 21, 90, 160), (1, 3, 81, 720, 1280)
    plans = (
        (vae.memory_used_decode(latents, torch.float32), vae.video_vae.plan_decode(latents)),
        (vae.memory_used_encode(video, torch.float32), vae.video_vae.plan_encode(video)),
    )
    for reserved, plan in plans:
        assert 1.0 <= reserved / plan.peak_bytes < 1.1


# WanVideoWrapper


class WanVideoVAE(nn.Module):
    """What WanVideoWrapper passes, as far as it is looked at."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.model = network
        self.model.conv2 = self.model.post_quant_conv
        self.upsampling_factor = 8


def test_wan_video_wrappers_vae_is_built_anew_by_the_host_once(monkeypatch: pytest.MonkeyPatch):
    built: list[set[str]] = []

    def vae_of(weights: dict[str, Tensor], dtype: torch.dtype) -> Any:
        built.append(set(weights))
        vae = host.new_vae(bridge.ExactMixin, dtype).__dict__
        return SimpleNamespace(**{**vae, "first_stage_model": random_wan(), "patcher": None})

    monkeypatch.setattr(host, "vae_of", vae_of)
    theirs, latent = WanVideoVAE(random_wan()), {"samples": wan_latents(2)}
    images, _ = run("ExactVAEDecodeFramewise", samples=latent, vae=theirs)
    run("ExactVAEDecodeFramewise", samples=latent, vae=theirs)
    assert distance(images, shown(whole_decode(random_wan(), latent["samples"]))) < MOST
    assert built == [set(theirs.model.state_dict())]


def test_wan_video_wrappers_other_vaes_are_refused_by_name():
    with pytest.raises(core.InputError, match=r"VAE of WanVideoWrapper .*another"):
        run("ExactVAEApply", vae=WanVideoVAE(random_wan()))


def theirs_of(latents: Tensor, **keys: Any) -> dict[str, Any]:
    """Latents as WanVideoWrapper's sampler gives them, scaled here by its own numbers."""
    mean, std = (
        torch.tensor(one).view(1, 16, 1, 1, 1)
        for one in (wrapper.WAN_2_1.mean, wrapper.WAN_2_1.std)
    )
    own = {"has_ref": False, "drop_last": False, "looped": False, "end_image": None}
    return {"samples": (latents - mean) / std, **own, **keys}


def test_latents_of_wan_video_wrappers_sampler_are_known_and_rescaled(module: nn.Module):
    latents = wan_latents(4)
    images, report = run("ExactVAEDecodeFramewise", samples=theirs_of(latents), vae=module)
    assert distance(images, shown(whole_decode(module, latents))) < MOST
    assert "Latents of WanVideoWrapper: brought to core's scale." in report
    marked = theirs_of(latents, has_ref=True, drop_last=True)
    images, report = run("ExactVAEDecodeFramewise", samples=marked, vae=module)
    assert distance(images, shown(whole_decode(module, latents[:, :, 1:3]))) < MOST
    assert "no part of the clip left out: 2" in report


def test_latents_are_converted_both_ways(module: nn.Module):
    latents = wan_latents(3)
    to, back = (
        {"direction": name} for name in ("core to WanVideoWrapper", "WanVideoWrapper to core")
    )
    (theirs,) = run("ExactVAELatentConvert", change=to, samples={"samples": latents})
    assert distance(theirs["samples"], theirs_of(latents)["samples"]) < 1e-6
    known, _ = run("ExactVAEDecodeFramewise", samples=theirs, vae=module)
    (ours,) = run("ExactVAELatentConvert", change=back, samples=theirs)
    assert set(ours) == {"samples"}
    assert distance(ours["samples"], latents) < 1e-6
    plain, _ = run("ExactVAEDecodeFramewise", samples=ours, vae=module)
    assert distance(known, plain) < 1e-6
    with pytest.raises(core.InputError, match="WanVideoWrapper's already"):
        run("ExactVAELatentConvert", change=to, samples=theirs)


@pytest.mark.parametrize("keys", [{"looped": True}, {"end_image": torch.zeros(1)}], ids=str)
def test_what_only_wan_video_wrapper_can_decode_is_refused(module: nn.Module, keys: dict[str, Any]):
    with pytest.raises(core.InputError, match="its own decoder"):
        run("ExactVAEDecodeFramewise", samples=theirs_of(wan_latents(2), **keys), vae=module)


def test_latents_of_16_frames_are_no_riddle_where_the_vae_is_wans(module: nn.Module):
    latents = wan_latents(16, 2, 2)
    images, _ = run("ExactVAEDecodeFramewise", samples={"samples": latents}, vae=module)
    assert images.shape[0] == 61


@pytest.mark.parametrize(
    ("latent", "match"),
    [
        ({"samples": torch.zeros(1, 16, 4, 4, 4), "additional_frames": 0}, "CogVideoXWrapper"),
        ({"samples": torch.zeros(1, 48, 2, 4, 4)}, "16 channels in dimension 1"),
        ({"samples": torch.zeros(1, 4, 16, 4, 4)}, "belong to another model"),
        ({"samples": torch.zeros(1, 16, 4, 4)}, "five dimensions"),
        ({"samples": torch.full((1, 16, 1, 4, 4), torch.nan)}, "NaN"),
        ({}, "must be a LATENT"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_latents_of_another_model_are_refused(module: nn.Module, latent: dict, match: str):
    with pytest.raises(core.InputError, match=match):
        run("ExactVAEDecodeFramewise", samples=latent, vae=module)


def test_wan_latents_are_refused_where_the_vae_is_cogvideox(cogvideox: Any):
    with pytest.raises(core.InputError, match="for a Wan VAE"):
        run("ExactVAEDecodeFramewise", samples=theirs_of(wan_latents(2)), vae=cogvideox)


@pytest.fixture(scope="module")
def cogvideox() -> Any:
    return run("ExactVAELoader")[0]


# Loading

SHIPPED = "tiny_wan_vae (ships with this pack, for trying out)"


def test_the_shipped_wan_vae_works_in_every_job():
    (vae,) = run("ExactVAELoader", change={"vae_name": SHIPPED, "dtype": "fp32"})
    assert vae.video_vae.family.title == TITLE
    image = pictures(5)
    latent, _ = run("ExactVAEEncodeTiled", images=image, vae=vae)
    images, _ = run("ExactVAEDecodeFramewise", samples=latent, vae=vae)
    assert images.shape == image.shape
    assert torch.equal(vae.decode(vae.encode(image))[0], images)
    text, peak, _, _ = run("ExactVAEPlan", vae=vae)
    assert peak > 0
    assert text.startswith("decoder:")


WAN_KEYS = {"decoder.middle.0.residual.0.gamma": torch.ones(8, 1, 1, 1)}
WAN_22_KEYS = {**WAN_KEYS, "decoder.upsamples.0.upsamples.0.residual.2.weight": torch.ones(1)}
HUNYUAN_KEYS = {
    "decoder.mid.attn_1.norm.weight": torch.ones(512),
    "encoder.conv_in.conv.weight": torch.ones(128, 3),
    "decoder.conv_in.conv.weight": torch.ones(512, 16),
    "post_quant_conv.weight": torch.ones(16, 16),
}
HUNYUAN_15_KEYS = {
    "decoder.mid.attn_1.norm.gamma": torch.ones(1024, 1, 1, 1),
    "encoder.conv_in.conv.weight": torch.ones(128, 3),
    "encoder.conv_out.conv.weight": torch.ones(64, 1),
}


@pytest.mark.parametrize(
    ("name", "weights", "asked"),
    [
        ("wan.safetensors", WAN_KEYS, True),
        ("Wan2.1_VAE.pth", WAN_KEYS, True),
        ("wan22.safetensors", WAN_22_KEYS | {"encoder.conv1.weight": torch.ones(160, 12)}, True),
        ("narrow22.safetensors", WAN_22_KEYS | {"encoder.conv1.weight": torch.ones(8, 12)}, False),
        ("hunyuan15.safetensors", HUNYUAN_15_KEYS, True),
        (
            "narrow15.safetensors",
            HUNYUAN_15_KEYS | {"encoder.conv_in.conv.weight": torch.ones(8, 3)},
            False,
        ),
        ("hunyuan.safetensors", HUNYUAN_KEYS, True),
        (
            "narrow.safetensors",
            HUNYUAN_KEYS | {"encoder.conv_in.conv.weight": torch.ones(32, 3)},
            False,
        ),
        ("diffusers.safetensors", {"decoder.conv_in.weight": torch.ones(1)}, False),
        ("nested.pt", {"state_dict": WAN_KEYS}, False),
        ("damaged.safetensors", None, False),
        ("damaged.pth", None, False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_host_builds_what_it_knows_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, weights: Any, asked: bool
):
    path = tmp_path / name
    if weights is None:
        path.write_bytes(b"\x10 no weights at all")
    elif path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    monkeypatch.setattr(host, "running", lambda: True)
    monkeypatch.setattr(host, "weights_in", lambda path: path)
    monkeypatch.setattr(host, "vae_of", lambda weights, dtype: (weights, dtype))
    found = part("nodes.bridge.core_files").core_vae(path, torch.bfloat16)
    assert found == ((path, torch.bfloat16) if asked else None)
    assert part("nodes.bridge.core_files").core_vae(tmp_path, None) is None
