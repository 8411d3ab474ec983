"""Do the nodes take HunyuanVideo 1.5 as they take the others?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hunyuan_files import authors_state
from networks import random_latents
from networks_hunyuan import random_hunyuan_1_5, whole_decode, whole_encode
from pack import part, run
from safetensors.torch import save_file
from torch import Tensor, nn

core = part("vae_core")
bridge, planning = part("nodes.bridge.vae"), part("nodes.bridge.planning")
MOST = 1e-4


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return random_hunyuan_1_5()


def pictures(frames: int, height: int = 32, width: int = 48) -> Tensor:
    """An IMAGE [t, h, w, c] in [0, 1]."""
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(1))


def seen(image: Tensor) -> Tensor:
    """An IMAGE [t, h, w, c] as the network sees it: [1, c, t, h, w] in [-1, 1]."""
    return (image * 2.0 - 1.0).permute(3, 0, 1, 2).unsqueeze(0)


def shown(video: Tensor) -> Tensor:
    """[b, c, t, h, w] in about [-1, 1] as the host's pictures [b * t, h, w, c]."""
    return ((video.movedim(1, -1) + 1.0) / 2.0).clamp(0.0, 1.0).flatten(0, 1)


def distance(got: Tensor, wanted: Tensor) -> float:
    """The largest difference as a share of the range."""
    assert got.shape == wanted.shape
    return float((got - wanted).abs().max() / (wanted.max() - wanted.min()))


@pytest.mark.parametrize("frames", [1, 9])
def test_both_ways_give_what_the_untiled_network_gives(module: nn.Module, frames: int) -> None:
    image = pictures(frames)
    latent, report = run("ExactVAEEncodeTiled", change={"tile_size": 16}, images=image, vae=module)
    assert distance(latent["samples"], whole_encode(module, seen(image)).chunk(2, dim=1)[0]) < MOST
    assert "VAE: HunyuanVideo 1.5" in report
    images, report = run(
        "ExactVAEDecodeFramewise", change={"tile_size": 32}, samples=latent, vae=module
    )
    assert distance(images, shown(whole_decode(module, latent["samples"]))) < MOST
    assert "VAE: HunyuanVideo 1.5" in report


def test_core_s_file_is_loaded_and_applied(tmp_path: Path, module: nn.Module) -> None:
    save_file(authors_state(module), tmp_path / "hunyuanvideo15_vae_fp16.safetensors")
    vae = bridge.load_vae(tmp_path / "hunyuanvideo15_vae_fp16.safetensors", "fp32")
    latents = random_latents(3, 2, 3, channels=4)
    wanted = shown(whole_decode(module, latents))
    assert distance(vae.decode(latents).flatten(0, 1), wanted) < MOST
    (applied,) = run("ExactVAEApply", vae=vae)
    assert distance(applied.decode(latents).flatten(0, 1), wanted) < MOST
    assert vae.latent_channels == 4
    assert vae.upscale_ratio[1:] == (16, 16)
    assert vae.upscale_ratio[0](3) == 9


@pytest.mark.parametrize("channels", [16, 48])
def test_latents_of_another_model_get_a_sentence(module: nn.Module, channels: int) -> None:
    latent = {"samples": torch.zeros(1, channels, 2, 2, 2)}
    with pytest.raises(core.InputError, match=r"latents of HunyuanVideo 1\.5 have 4 channels"):
        run("ExactVAEDecodeFramewise", samples=latent, vae=module)


def test_the_plan_node_plans_it(module: nn.Module) -> None:
    text, peak, _, _ = run("ExactVAEPlan", vae=module)
    assert peak > 0
    assert text.startswith("decoder:")


def test_the_panel_s_network_is_the_published_one() -> None:
    network = planning.network("hunyuan15")
    vae = core.from_module(network)
    assert (vae.family.name, vae.latent_channels, vae.ratios.px) == ("hunyuan15", 32, 16)
    assert sum(p.numel() for p in network.parameters()) > 1.2e9


def test_a_long_clip_is_planned_with_all_the_keys_that_it_keeps() -> None:
    vae = planning.engine("hunyuan15", torch.bfloat16, torch.device("meta"))
    size = core.Extent(481, 720, 1280)
    settings = core.Settings(placement="host", chunk_frames=4)
    totals = planning.plan_totals(vae, "decode", size, settings)
    plan = vae.plan_decode((1, 32, 121, 45, 80), settings)
    assert totals.plan.far_bytes == plan.far_bytes
    assert totals.operations == plan.operations
