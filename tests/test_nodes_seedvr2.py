"""Do the nodes take SeedVR2, whose latents ComfyUI's own VAE scales as soon as it has encoded?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from images import distance, seen, shown
from networks import random_latents
from networks_seedvr2 import random_seedvr2, whole_decode, whole_encode
from pack import part, run
from safetensors.torch import save_file
from torch import Tensor, nn

bridge, host = part("nodes.bridge.vae"), part("nodes.bridge.host")
FACTOR = 0.9152
MOST = 1e-4


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return random_seedvr2(latent_channels=16)


def pictures(frames: int, height: int = 24, width: int = 40) -> Tensor:
    """An IMAGE [t, h, w, 3] in [0, 1]."""
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(1))


def encoded(module: nn.Module, image: Tensor) -> Tensor:
    """What core's VAE hands on."""
    return whole_encode(module, seen(image)).chunk(2, dim=1)[0] * FACTOR


def decoded(module: nn.Module, latents: Tensor) -> Tensor:
    """What it makes of that: [b * t, h, w, 3]."""
    return shown(whole_decode(module, latents / FACTOR))


@pytest.mark.parametrize("frames", [1, 9])
def test_latents_are_given_as_core_scales_them(module: nn.Module, frames: int) -> None:
    image = pictures(frames)
    latent, report = run("ExactVAEEncodeTiled", change={"tile_size": 16}, images=image, vae=module)
    assert distance(latent["samples"], encoded(module, image)) < MOST
    assert "VAE: SeedVR2" in report


def test_latents_are_taken_as_core_scales_them(module: nn.Module) -> None:
    latents = random_latents(3, 3, 5, channels=16)
    images, _ = run("ExactVAEDecodeFramewise", samples={"samples": latents}, vae=module)
    assert distance(images, decoded(module, latents)) < MOST


def test_what_is_sampled_is_scaled_like_what_is_likeliest(module: nn.Module) -> None:
    image = pictures(5)
    found = {
        kind: run(
            "ExactVAEEncodeTiled",
            change={"posterior": kind, "sample_seed": 1},
            images=image,
            vae=module,
        )[0]["samples"]
        for kind in ("mode", "sample")
    }
    mean, log_variance = whole_encode(module, (image * 2 - 1).permute(3, 0, 1, 2)[None]).chunk(2, 1)
    noise = (found["sample"] - found["mode"]) / FACTOR / (log_variance.clamp(-30, 20) / 2).exp()
    assert distance(found["mode"], mean * FACTOR) < MOST
    assert 0.8 < float(noise.std()) < 1.2


def test_cores_calls_give_cores_result(module: nn.Module) -> None:
    (vae,) = run("ExactVAEApply", vae=module)
    image, latents = pictures(9), random_latents(3, 3, 5, channels=16)
    for got in (vae.encode(image), vae.encode_tiled(image, tile_x=16, tile_y=24, overlap=8)):
        assert distance(got, encoded(module, image)) < MOST
    for got in (vae.decode(latents), vae.decode_tiled(latents, tile_x=2, tile_y=4, overlap=1)):
        assert distance(got.flatten(0, 1), decoded(module, latents)) < MOST
    network = vae.first_stage_model
    shown = (network.decode(latents).movedim(1, -1) + 1.0) / 2.0
    assert distance(shown.clamp(0.0, 1.0).flatten(0, 1), decoded(module, latents)) < MOST


def test_latents_of_16_frames_leave_nothing_open(module: nn.Module) -> None:
    latents = random_latents(16, 2, 2, channels=16)
    images, _ = run("ExactVAEDecodeFramewise", samples={"samples": latents}, vae=module)
    assert images.shape[0] == 61


@pytest.mark.parametrize("known", [True, False])
def test_the_host_builds_its_own_where_it_knows_the_network(
    module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    path = tmp_path / "seedvr2_ema_vae_fp16.safetensors"
    save_file(dict(module.state_dict()), path)
    kind = object() if known else None
    monkeypatch.setattr(host, "running", lambda: True)
    monkeypatch.setattr(host, "native_network", lambda *_: kind)
    monkeypatch.setattr(host, "weights_in", lambda path: path)
    monkeypatch.setattr(host, "vae_of", lambda weights, dtype: (weights, dtype))
    found = part("nodes.bridge.core_files").core_vae(path, torch.float32)
    assert found == ((path, torch.float32) if known else None)


def test_a_file_is_loaded_without_a_host(module: nn.Module, tmp_path: Path) -> None:
    save_file(dict(module.state_dict()), tmp_path / "a.safetensors")
    vae = bridge.load_vae(tmp_path / "a.safetensors", "fp32")
    latents = random_latents(2, 2, 3, channels=16)
    assert distance(vae.decode(latents).flatten(0, 1), decoded(module, latents)) < MOST
