"""What does LTX's network keep beside its parts, that core's latents depend on?

1. Core's class normalises latents inside by the statistics of each channel. diffusers' class holds
   these beside its parts, for its pipelines; here they go inside, so that a LATENT means the same
   whichever loader a VAE comes from.
2. Some decoders are told how much noise is left in latents, and core's class adds that much before
   it decodes: other noise in every run. Here it is drawn from one seed, for the whole clip at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_TOLD = ("timestep_conditioning", "decode_timestep", "decode_noise_scale")
STATISTICS = "per_channel_statistics"
"""What core's class calls that part."""

_SEED = 0


def statistics_of(network: nn.Module) -> nn.Module | None:
    """The part in which core's network has the statistics of its latents, for one of diffusers that
    has them beside its parts; None for any other.
    """
    own = dict(network.named_buffers(recurse=False))
    if not own.keys() >= {"latents_mean", "latents_std"}:
        return None
    inside = nn.Module()
    inside.register_buffer("mean-of-means", own["latents_mean"])
    inside.register_buffer("std-of-means", own["latents_std"])
    return inside


def told_of(network: nn.Module) -> dict[str, Any]:
    """What a network has beside its parts that its decoder depends on."""
    own = vars(network)  # a class of diffusers warns of what it has in its config
    return {name: own[name] for name in _TOLD if name in own}


def noised(latents: Tensor, told: Mapping[str, Any]) -> Tensor:
    """Latents [b, c, t, h, w] as a network that was told so wants them."""
    scale = told.get("decode_noise_scale", 0.0) if told.get("timestep_conditioning") else 0.0
    if not scale:
        return latents
    generator = torch.Generator("cpu").manual_seed(_SEED)
    noise = torch.randn(latents.shape, generator=generator, device="cpu").to(latents)
    return noise * scale + (1.0 - scale) * latents
