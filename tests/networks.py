"""Random networks of the real architecture, narrow enough for a test, with norms that are not the
identity.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from diffusers import AutoencoderKLCogVideoX
from networks_hunyuan import random_hunyuan, random_hunyuan_1_5
from networks_ltx import random_ltx2
from networks_mochi import random_mochi
from networks_seedvr2 import random_seedvr2
from networks_wan import random_wan, random_wan_2_2

TINY = {"channels": (8, 8, 16, 16), "groups": 4, "layers": 1, "latent_channels": 4}


def random_module(
    dtype: torch.dtype = torch.float32,
    channels: tuple[int, ...] = TINY["channels"],
    groups: int = TINY["groups"],
    layers: int = TINY["layers"],
    latent_channels: int = TINY["latent_channels"],
) -> AutoencoderKLCogVideoX:
    """A CogVideoX VAE with random weights from a fixed seed."""
    torch.manual_seed(0)
    module = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=channels,
        layers_per_block=layers,
        norm_num_groups=groups,
        latent_channels=latent_channels,
    )
    for name, parameter in module.named_parameters():
        if "norm" in name and parameter.ndim == 1:
            torch.nn.init.normal_(parameter, float(name.endswith("weight")), 0.3)
    return module.to(dtype).eval().requires_grad_(False)


def narrow_wan(dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """A Wan 2.1 VAE of the least width, with random weights from a fixed seed."""
    return random_wan(dtype=dtype)


NARROW: dict[str, Callable[[torch.dtype], torch.nn.Module]] = {
    "cogvideox": random_module,
    "wan": narrow_wan,
    "wan22": random_wan_2_2,
    "ltx": random_ltx2,
    "hunyuan15": random_hunyuan_1_5,
    "hunyuan": random_hunyuan,
    "seedvr2": random_seedvr2,
    "mochi": random_mochi,
}
"""A narrow network of every family, with random weights: the laws are put to each of them."""


def diffusers_encode(
    module: AutoencoderKLCogVideoX, video: torch.Tensor, chunk_frames: int
) -> torch.Tensor:
    """Moments from diffusers' own framewise encode, both of its batch sizes set alike."""
    module.num_sample_frames_batch_size = chunk_frames
    return module._encode(video)


def diffusers_decode(
    module: AutoencoderKLCogVideoX, latents: torch.Tensor, chunk_frames: int
) -> torch.Tensor:
    """Frames from diffusers' own framewise decode."""
    module.num_latent_frames_batch_size = chunk_frames // 4
    return module._decode(latents).sample


def random_video(
    frames: int, height: int, width: int, dtype: torch.dtype = torch.float32, batch: int = 1
):
    """Pixels in [-1, 1] with structure in time and space: [batch, 3, frames, height, width]."""
    generator = torch.Generator().manual_seed(frames * 7 + height)
    coarse = torch.rand(
        batch, 3, -(-frames // 2) + 1, height // 8 + 1, width // 8 + 1, generator=generator
    )
    smooth = torch.nn.functional.interpolate(coarse, size=(frames, height, width), mode="trilinear")
    return (
        (2 * smooth - 1 + 0.1 * torch.randn(smooth.shape, generator=generator))
        .clamp(-1, 1)
        .to(dtype)
    )


def replicated(video: torch.Tensor, size) -> torch.Tensor:
    """`video` [b, c, t, h, w] with its last elements repeated up to the extent `size`."""
    missing = [n - have for n, have in zip((size.t, size.h, size.w), video.shape[2:], strict=True)]
    sides = (0, missing[2], 0, missing[1], 0, missing[0])
    return torch.nn.functional.pad(video, sides, mode="replicate")


def random_latents(
    frames: int,
    height: int,
    width: int,
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
    channels: int = 4,
):
    """Standard normal latents [batch, channels, frames, height, width]."""
    generator = torch.Generator().manual_seed(frames * 11 + height)
    return torch.randn(batch, channels, frames, height, width, generator=generator).to(dtype)


def full_size_module(dtype: torch.dtype = torch.bfloat16) -> AutoencoderKLCogVideoX:
    """The network of the published models, without memory: on the device `meta`."""
    return unmade_module(dtype, channels=(128, 256, 256, 512), groups=32, layers=3)


def unmade(build: Callable[[], torch.nn.Module], dtype: torch.dtype) -> torch.nn.Module:
    """What `build` gives, on `meta` and in `dtype`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            module = build()
    finally:
        torch.set_default_dtype(before)
    return module.eval().requires_grad_(False)


def unmade_module(dtype: torch.dtype, channels, groups: int, layers: int, latent_channels=16):
    """A CogVideoX VAE without memory: on the device `meta`."""
    build = partial(
        AutoencoderKLCogVideoX,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=channels,
        norm_num_groups=groups,
        layers_per_block=layers,
        latent_channels=latent_channels,
    )
    return unmade(build, dtype)
