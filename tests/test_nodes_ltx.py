"""Do the nodes take LTX's VAEs, with latents as core's class has them?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from networks import random_latents
from networks_ltx import LATENTS, random_ltx2, random_ltx_095, whole_decode, whole_encode
from pack import part, run
from test_ltx_files import SECOND, authors_state
from test_nodes_wan import distance, pictures, seen, shown

core = part("vae_core")
bridge, ltx = part("nodes.bridge.vae"), part("nodes.bridge.ltx")

TITLE = "LTX-Video and LTX-2"
MOST = 1e-4


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    return random_ltx2()


def statistics(module: torch.nn.Module) -> list[torch.Tensor]:
    return [getattr(module, name).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std")]


@pytest.mark.parametrize("frames", [1, 17])
def test_a_clip_is_encoded_to_normalised_latents(module, frames) -> None:
    image = pictures(frames, 64, 96)
    latent, report = run("ExactVAEEncodeTiled", change={"tile_size": 32}, images=image, vae=module)
    mean, std = statistics(module)
    wanted = (whole_encode(module, seen(image)).chunk(2, dim=1)[0] - mean) / std
    assert distance(latent["samples"], wanted) < MOST
    assert f"VAE: {TITLE}" in report


@pytest.mark.parametrize("frames", [1, 4])
def test_normalised_latents_are_decoded(module, frames) -> None:
    latents = random_latents(frames, 2, 3, channels=LATENTS)
    images, report = run("ExactVAEDecodeFramewise", samples={"samples": latents}, vae=module)
    mean, std = statistics(module)
    wanted = shown(whole_decode(module, latents * std + mean))
    assert distance(images, wanted) < MOST
    assert f"VAE: {TITLE}" in report
    assert not hasattr(module, "per_channel_statistics"), "another one's network stays as it is"


def test_latents_of_another_model_are_refused(module) -> None:
    latent = {"samples": random_latents(2, 2, 2, channels=16)}
    with pytest.raises(core.InputError, match=rf"latents of {TITLE} have {LATENTS} channels"):
        run("ExactVAEDecodeFramewise", samples=latent, vae=module)


def test_noise_is_added_once_and_from_a_seed() -> None:
    network = random_ltx_095(timestep_conditioning=True)
    network.timestep_conditioning, network.decode_noise_scale = True, 0.025
    network.decode_timestep = 0.05
    latents = random_latents(3, 2, 3, channels=LATENTS)
    first, again = (
        run("ExactVAEDecodeFramewise", samples={"samples": latents}, vae=network)[0]
        for _ in range(2)
    )
    assert torch.equal(first, again)
    mean, std = statistics(network)
    noisy = ltx.noised(latents, {"timestep_conditioning": True, "decode_noise_scale": 0.025})
    assert not torch.equal(noisy, latents)
    with torch.no_grad():
        whole = network.decoder(noisy * std + mean, torch.tensor([0.05]))
    assert distance(first, shown(whole)) < MOST


def test_a_file_is_loaded_as_core_has_it(module, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(authors_state(module, SECOND), tmp_path / "ltx.safetensors")
    vae = bridge.load_vae(tmp_path / "ltx.safetensors", "fp32")
    assert vae.upscale_index_formula == (8, 32, 32)
    latents = random_latents(2, 2, 3, channels=LATENTS)
    mean, std = statistics(module)
    images = vae.decode(latents)
    assert distance(images[0], shown(whole_decode(module, latents * std + mean))) < MOST
