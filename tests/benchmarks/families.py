"""Whose networks are measured, and what is known about each of them?

A family's full-size network comes without memory, on the device `meta`, for counting; one with
random weights is for timing: full-size too, but where that would take gigabytes, as deep and
narrower.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import networks_hunyuan
import networks_mochi
import networks_seedvr2
import networks_wan
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTX2Video,
    AutoencoderKLWan,
)
from networks import full_size_module, unmade

from vae_core.families.family import BY_NAME
from vae_core.families.mochi_network import MochiVAE
from vae_core.families.seedvr2_network import SeedVR2VAE

from .clips import USUAL, Grid

FULL_WIDTH = 96
"""The base width of the published Wan 2.1."""


@dataclass(frozen=True, slots=True)
class Family:
    """One family's networks.

    name: as the engine has it and `--family` takes it. title: as tables have it.
    unmade: full-size, on the device `meta`, in a dtype. made: random weights from a fixed seed,
        float32.
    code: the module of vae_core that its figures depend on beside the engine's own.
    clamps: what diffusers clamps to [-1, 1], "decode" or nothing. grid: of its latents.
    width: of what `made` gives, in words, where it is not the published one.
    """

    name: str
    title: str
    unmade: Callable[[torch.dtype], Any]
    made: Callable[[], Any]
    code: str
    clamps: str | None = None
    grid: Grid = USUAL
    width: str | None = None


def _random_cogvideox() -> AutoencoderKLCogVideoX:
    torch.manual_seed(0)
    module = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(128, 256, 256, 512),
        layers_per_block=3,
        latent_channels=16,
    )
    return module.eval().requires_grad_(False)


def _unmade_wan(dtype: torch.dtype) -> torch.nn.Module:
    return unmade(partial(AutoencoderKLWan, base_dim=FULL_WIDTH), dtype)


def _random_wan() -> torch.nn.Module:
    torch.manual_seed(0)
    return networks_wan.unsettled(AutoencoderKLWan(base_dim=FULL_WIDTH))


def _published(name: str) -> Callable[[torch.dtype], torch.nn.Module]:
    return lambda dtype: unmade(BY_NAME[name].published.network, dtype)


def _random_wan_2_2() -> torch.nn.Module:
    torch.manual_seed(0)
    return networks_wan.unsettled(BY_NAME["wan22"].published.network())


def _whole_clips(module: torch.nn.Module) -> torch.nn.Module:
    """The module, whose class would blend runs of frames by itself, with its network as it is."""
    module.use_framewise_encoding = module.use_framewise_decoding = False
    return module


def _unmade_hunyuan_1_0(dtype: torch.dtype) -> torch.nn.Module:
    return _whole_clips(unmade(BY_NAME["hunyuan"].published.network, dtype))


def _random_hunyuan_1_0() -> torch.nn.Module:
    torch.manual_seed(0)
    return _whole_clips(networks_hunyuan.unsettled(AutoencoderKLHunyuanVideo()))


def _random_hunyuan_1_5() -> torch.nn.Module:
    torch.manual_seed(0)
    return networks_hunyuan.unsettled(AutoencoderKLHunyuanVideo15())


def _random_seedvr2() -> torch.nn.Module:
    torch.manual_seed(0)
    return networks_seedvr2.unsettled(SeedVR2VAE())


def _random_mochi() -> torch.nn.Module:
    torch.manual_seed(0)
    return networks_mochi.unsettled(MochiVAE())


def _half_wide_ltx() -> torch.nn.Module:
    torch.manual_seed(0)
    module = AutoencoderKLLTX2Video(
        block_out_channels=(128, 256, 512, 1024),
        decoder_block_out_channels=(128, 256, 512),
        decoder_causal=False,
    )
    return module.eval().requires_grad_(False)


COGVIDEOX = Family(
    "cogvideox", "CogVideoX", full_size_module, _random_cogvideox, "families/cogvideox"
)
WAN = Family("wan", "Wan 2.1 and Qwen-Image", _unmade_wan, _random_wan, "families/wan", "decode")
WAN_2_2 = Family(
    "wan22",
    "Wan 2.2 5B",
    _published("wan22"),
    _random_wan_2_2,
    "families/wan",
    "decode",
    Grid(48, 4, 16),
)
HUNYUAN_1_0 = Family(
    "hunyuan",
    "HunyuanVideo 1.0",
    _unmade_hunyuan_1_0,
    _random_hunyuan_1_0,
    "families/hunyuan",
)
HUNYUAN_1_5 = Family(
    "hunyuan15",
    "HunyuanVideo 1.5",
    _published("hunyuan15"),
    _random_hunyuan_1_5,
    "families/hunyuan15",
    grid=Grid(32, 4, 16),
)
SEEDVR2 = Family("seedvr2", "SeedVR2", _published("seedvr2"), _random_seedvr2, "families/seedvr2")
MOCHI = Family(
    "mochi",
    "Mochi",
    _published("mochi"),
    _random_mochi,
    "families/mochi",
    grid=Grid(12, 6, 8),
)
LTX = Family(
    "ltx",
    "LTX-2",
    _published("ltx"),
    _half_wide_ltx,
    "families/ltx",
    grid=Grid(128, 8, 32),
    width="half-width",
)

FAMILIES = {
    family.name: family
    for family in (COGVIDEOX, WAN, WAN_2_2, HUNYUAN_1_0, HUNYUAN_1_5, SEEDVR2, MOCHI, LTX)
}
