"""Do the nodes take HunyuanVideo, 1.5 and 1.0, as they take the others?"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hunyuan_files import authors_state, core_state
from images import distance, seen, shown
from networks import random_latents
from networks_hunyuan import (
    clip_decode,
    clip_encode,
    random_hunyuan,
    random_hunyuan_1_5,
    whole_decode,
    whole_encode,
)
from pack import part, run
from safetensors.torch import save_file
from torch import Tensor, nn

core = part("vae_core")
bridge, planning = part("nodes.bridge.vae"), part("nodes.bridge.planning")
MOST = 1e-4


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two: its networks, its files, what the untiled network gives.

    module: one whose file needs no config.json. published: its frames, channels and pixels of an
        element, and the least and most parameters that it has.
    """

    family: str
    title: str
    file: str
    module: nn.Module
    state: Callable[[nn.Module], dict[str, Tensor]]
    encode: Callable[[nn.Module, Tensor], Tensor]
    decode: Callable[[nn.Module, Tensor], Tensor]
    channels: int
    px: int
    parameters: tuple[float, float]


def fifth() -> Kind:
    return Kind(
        *("hunyuan15", "HunyuanVideo 1.5", "hunyuanvideo15_vae_fp16.safetensors"),
        *(random_hunyuan_1_5(), authors_state, whole_encode, whole_decode, 32, 16, (1.2e9, 1.3e9)),
    )


def first() -> Kind:
    module = random_hunyuan(widths=(32, 32, 64, 64))
    for part_of in module.modules():
        if isinstance(part_of, nn.GroupNorm):
            part_of.num_groups = 32  # as in all files without a config.json
    return Kind(
        *("hunyuan", "HunyuanVideo", "hunyuan_video_vae_bf16.safetensors"),
        *(module, core_state, clip_encode, clip_decode, 16, 8, (2.4e8, 2.5e8)),
    )


@pytest.fixture(scope="module", params=[fifth, first], ids=["1.5", "1.0"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param()


@pytest.fixture(scope="module")
def module(kind: Kind) -> nn.Module:
    return kind.module


def pictures(frames: int, height: int = 32, width: int = 48) -> Tensor:
    """An IMAGE [t, h, w, c] in [0, 1]."""
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("frames", [1, 9])
def test_both_ways_give_what_the_untiled_network_gives(kind: Kind, frames: int) -> None:
    image, module = pictures(frames), kind.module
    latent, report = run("ExactVAEEncodeTiled", change={"tile_size": 16}, images=image, vae=module)
    assert distance(latent["samples"], kind.encode(module, seen(image)).chunk(2, dim=1)[0]) < MOST
    assert f"VAE: {kind.title}" in report
    images, report = run(
        "ExactVAEDecodeFramewise", change={"tile_size": 32}, samples=latent, vae=module
    )
    assert distance(images, shown(kind.decode(module, latent["samples"]))) < MOST
    assert f"VAE: {kind.title}" in report


def test_core_s_file_is_loaded_and_applied(tmp_path: Path, kind: Kind) -> None:
    save_file(kind.state(kind.module), tmp_path / kind.file)
    vae = bridge.load_vae(tmp_path / kind.file, "fp32")
    latents = random_latents(3, 2, 3, channels=4)
    wanted = shown(kind.decode(kind.module, latents))
    assert distance(vae.decode(latents).flatten(0, 1), wanted) < MOST
    (applied,) = run("ExactVAEApply", vae=vae)
    assert distance(applied.decode(latents).flatten(0, 1), wanted) < MOST
    assert vae.latent_channels == 4
    assert vae.upscale_ratio[1:] == (kind.px, kind.px)
    assert vae.upscale_ratio[0](3) == 9


@pytest.mark.parametrize("channels", [16, 48])
def test_latents_of_another_model_get_a_sentence(kind: Kind, channels: int) -> None:
    latent = {"samples": torch.zeros(1, channels, 2, 2, 2)}
    title = re.escape(kind.title)
    with pytest.raises(core.InputError, match=rf"latents of {title} have 4 channels"):
        run("ExactVAEDecodeFramewise", samples=latent, vae=kind.module)


def test_the_plan_node_plans_it(module: nn.Module) -> None:
    text, peak, _, _ = run("ExactVAEPlan", vae=module)
    assert peak > 0
    assert text.startswith("decoder:")


def test_the_panel_s_network_is_the_published_one(kind: Kind) -> None:
    network = planning.network(kind.family)
    vae = core.from_module(network)
    assert (vae.family.name, vae.latent_channels, vae.ratios.px) == (
        kind.family,
        kind.channels,
        kind.px,
    )
    least, most = kind.parameters
    assert least < sum(p.numel() for p in network.parameters()) < most


def test_a_long_clip_is_planned_with_all_the_keys_that_it_keeps() -> None:
    vae = planning.engine("hunyuan15", torch.bfloat16, torch.device("meta"))
    size = core.Extent(481, 720, 1280)
    settings = core.Settings(placement="host", chunk_frames=4)
    totals = planning.plan_totals(vae, "decode", size, settings)
    plan = vae.plan_decode((1, 32, 121, 45, 80), settings)
    assert totals.plan.far_bytes == plan.far_bytes
    assert totals.operations == plan.operations
