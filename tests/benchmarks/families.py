"""Whose networks are measured, and what is known about each of them?

A family's full-size network comes twice: without memory, on the device `meta`, for counting; and
with random weights, for timing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan
from networks import full_size_module, unmade
from networks_wan import unsettled

FULL_WIDTH = 96
"""The base width of the published Wan 2.1."""


@dataclass(frozen=True, slots=True)
class Family:
    """One family's network, full size.

    name: as `--family` takes it. title: as tables have it.
    unmade: on the device `meta`, in a dtype. made: random weights from a fixed seed, float32.
    code: the module of vae_core that its figures depend on beside the engine's own.
    clamps: what diffusers clamps to [-1, 1], "decode" or nothing.
    """

    name: str
    title: str
    unmade: Callable[[torch.dtype], Any]
    made: Callable[[], Any]
    code: str
    clamps: str | None = None


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
    return unsettled(AutoencoderKLWan(base_dim=FULL_WIDTH))


COGVIDEOX = Family(
    "cogvideox", "CogVideoX", full_size_module, _random_cogvideox, "families/cogvideox"
)
WAN = Family("wan", "Wan 2.1 and Qwen-Image", _unmade_wan, _random_wan, "families/wan", "decode")

FAMILIES = {family.name: family for family in (COGVIDEOX, WAN)}
