"""Do the nodes take Mochi as they take the others?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from images import distance, seen, shown
from networks import random_latents, random_module
from networks_mochi import (
    authors_mochi,
    authors_state,
    random_mochi,
    theirs_decode,
    whole_decode,
    whole_encode,
    without_mask,
)
from networks_wan import random_wan
from pack import part, run
from safetensors.torch import save_file
from torch import Tensor, nn

core = part("vae_core")
bridge, planning = part("nodes.bridge.vae"), part("nodes.bridge.planning")
files, host = part("nodes.bridge.core_files"), part("nodes.bridge.host")
MOST = 1e-4


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return random_mochi(latent_channels=12)


def pictures(frames: int, height: int = 16, width: int = 24) -> Tensor:
    """An IMAGE [t, h, w, c] in [0, 1]."""
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("frames", [1, 13])
def test_both_ways_give_what_the_untiled_network_gives(module: nn.Module, frames: int) -> None:
    image, authors = pictures(frames), authors_mochi(module)
    latent, report = run("ExactVAEEncodeTiled", change={"tile_size": 16}, images=image, vae=authors)
    assert distance(latent["samples"], whole_encode(module, seen(image)).chunk(2, dim=1)[0]) < MOST
    assert "VAE: Mochi" in report
    images, report = run(
        "ExactVAEDecodeFramewise", change={"tile_size": 16}, samples=latent, vae=authors
    )
    assert distance(images, shown(whole_decode(module, latent["samples"]))) < MOST
    assert "VAE: Mochi" in report


def test_a_module_of_diffusers_gives_its_own_and_the_report_says_so(module: nn.Module) -> None:
    latents = random_latents(3, 2, 3, channels=12)
    images, report = run("ExactVAEDecodeFramewise", samples={"samples": latents}, vae=module)
    assert distance(images, shown(theirs_decode(module, latents))) < MOST
    assert "first frames are others than the authors'" in report


def test_core_s_file_is_loaded_and_applied(tmp_path: Path, module: nn.Module) -> None:
    save_file(authors_state(module), tmp_path / "mochi_vae.safetensors")
    vae = bridge.load_vae(tmp_path / "mochi_vae.safetensors", "fp32")
    latents = random_latents(3, 2, 3, channels=12)
    wanted = shown(whole_decode(module, latents))
    assert distance(vae.decode(latents).flatten(0, 1), wanted) < MOST
    (applied,) = run("ExactVAEApply", vae=vae)
    assert distance(applied.decode(latents).flatten(0, 1), wanted) < MOST
    assert vae.latent_channels == 12
    assert vae.upscale_ratio[1:] == (8, 8)
    assert vae.upscale_ratio[0](3) == 13
    assert vae.downscale_ratio[0](13) == 3


def test_the_widget_of_loader_and_apply_gives_core_s_latents(module: nn.Module) -> None:
    image = pictures(13)
    with without_mask(module):
        wanted = whole_encode(module, seen(image)).chunk(2, dim=1)[0]
    (vae,) = run("ExactVAEApply", vae=authors_mochi(module), reference="core")
    latent, report = run("ExactVAEEncodeTiled", change={"tile_size": 16}, images=image, vae=vae)
    assert distance(latent["samples"], wanted) < MOST
    assert "ComfyUI core's class" in report
    assert distance(vae.encode(image), wanted) < MOST


@pytest.mark.parametrize(
    ("channels", "whose"),
    [(16, "Wan 2.1 and Qwen-Image"), (48, "Wan 2.2 5B"), (32, "HunyuanVideo 1.5"), (128, "LTX")],
)
def test_latents_of_another_model_get_a_sentence_with_both(module, channels, whose) -> None:
    latent = {"samples": torch.zeros(1, channels, 2, 2, 2)}
    said = rf"latents of Mochi have 12 channels.*Latents of {whose}.* have {channels}\."
    with pytest.raises(core.InputError, match=said):
        run("ExactVAEDecodeFramewise", samples=latent, vae=module)


@pytest.mark.parametrize("make", [random_wan, random_module])
def test_latents_of_12_channels_are_told_to_be_mochi_s(make) -> None:
    latent = {"samples": torch.zeros(1, 12, 2, 2, 2)}
    with pytest.raises(core.InputError, match=r"another model\. Latents of Mochi have 12\."):
        run("ExactVAEDecodeFramewise", samples=latent, vae=make())


def test_the_plan_node_plans_it(module: nn.Module) -> None:
    text, peak, _, _ = run("ExactVAEPlan", vae=module)
    assert peak > 0
    assert text.startswith("decoder:")


def test_the_panel_s_network_is_the_published_one() -> None:
    network = planning.network("mochi")
    vae = core.from_module(network)
    assert (vae.family.name, vae.latent_channels) == ("mochi", 12)
    assert (vae.ratios.px, vae.ratios.frames) == (8, 6)
    assert 3.6e8 < sum(p.numel() for p in network.parameters()) < 5e8


@pytest.mark.parametrize("reference", ["official", "core"])
def test_a_long_clip_is_planned_with_all_that_it_keeps(reference: str) -> None:
    vae = planning.engine("mochi", torch.bfloat16, torch.device("meta"))
    size = core.Extent(301, 480, 848)
    settings = core.Settings(placement="host", chunk_frames=12, reference=reference)
    totals = planning.plan_totals(vae, "encode", size, settings)
    plan = vae.plan_encode((1, 3, 301, 480, 848), settings)
    assert totals.plan.far_bytes == plan.far_bytes
    assert totals.operations == plan.operations
    assert totals.chunks == len(plan.chunks)


@pytest.mark.parametrize("width", [64, 32])
def test_the_host_builds_its_own_of_the_published_widths_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    rows = files.MOCHI | {"encoder.layers.0.weight": width}
    path = tmp_path / "mochi_vae.safetensors"
    save_file({name: torch.zeros(count, 1) for name, count in rows.items()}, path)
    monkeypatch.setattr(host, "running", lambda: True)
    monkeypatch.setattr(host, "weights_in", lambda path: path)
    monkeypatch.setattr(host, "vae_of", lambda weights, dtype: (weights, dtype))
    wanted = (path, torch.float32) if width == 64 else None
    assert files.core_vae(path, torch.float32) == wanted
