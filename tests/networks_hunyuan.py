"""Random HunyuanVideo 1.5 networks, narrow enough for a test, with norms that are not the identity
and attention that is not even.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLHunyuanVideo, AutoencoderKLHunyuanVideo15

WIDTHS = (8, 16, 16, 16, 16)


def narrow_hunyuan_1_5(
    latent_channels: int = 4, widths: tuple[int, ...] = WIDTHS, blocks: int = 1, **numbers
) -> AutoencoderKLHunyuanVideo15:
    """A HunyuanVideo 1.5 VAE as its class makes it."""
    return AutoencoderKLHunyuanVideo15(
        block_out_channels=widths,
        layers_per_block=blocks,
        latent_channels=latent_channels,
        **numbers,
    )


def random_hunyuan_1_5(
    dtype: torch.dtype = torch.float32, latent_channels: int = 4, **numbers
) -> AutoencoderKLHunyuanVideo15:
    """A HunyuanVideo 1.5 VAE with random weights from a fixed seed."""
    torch.manual_seed(0)
    module = unsettled(narrow_hunyuan_1_5(latent_channels, **numbers))
    return torch.nn.Module.to(module, dtype)


def unsettled(module: torch.nn.Module) -> torch.nn.Module:
    """The module with gammas around one, and queries and keys large enough to prefer places."""
    for name, parameter in module.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.normal_(parameter, 1.0, 0.3)
        elif name.endswith(("to_q.weight", "to_k.weight")):
            torch.nn.init.normal_(parameter, 0.0, 2.0 * parameter.shape[1] ** -0.5)
    return module.eval().requires_grad_(False)


@torch.no_grad()
def whole_encode(module: torch.nn.Module, video: torch.Tensor) -> torch.Tensor:
    """Moments from diffusers' own untiled encode: [b, 2z, n, h/16, w/16]."""
    return module._encode(video)


@torch.no_grad()
def whole_decode(module: torch.nn.Module, latents: torch.Tensor) -> torch.Tensor:
    """Frames from diffusers' own untiled decode: [b, c, t, 16h, 16w]."""
    return module._decode(latents)


def narrow_hunyuan(
    latent_channels: int = 4, widths: tuple[int, ...] = (8, 8, 16, 16), blocks: int = 1, **numbers
) -> AutoencoderKLHunyuanVideo:
    """A HunyuanVideo VAE as its class makes it."""
    count = len(widths)
    return AutoencoderKLHunyuanVideo(
        block_out_channels=widths,
        layers_per_block=blocks,
        latent_channels=latent_channels,
        norm_num_groups=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * count,
        up_block_types=("HunyuanVideoUpBlock3D",) * count,
        **numbers,
    )


def random_hunyuan(
    dtype: torch.dtype = torch.float32, latent_channels: int = 4, **numbers
) -> AutoencoderKLHunyuanVideo:
    """A HunyuanVideo VAE with random weights from a fixed seed."""
    torch.manual_seed(0)
    module = unsettled(narrow_hunyuan(latent_channels, **numbers))
    for name, parameter in module.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, float(name.endswith("weight")), 0.3)
    return torch.nn.Module.to(module, dtype)


@torch.no_grad()
def clip_encode(module: torch.nn.Module, video: torch.Tensor) -> torch.Tensor:
    """Moments of the whole clip by diffusers' own modules of HunyuanVideo: [b, 2z, n, h/8, w/8]."""
    return module.quant_conv(module.encoder(video))


@torch.no_grad()
def clip_decode(module: torch.nn.Module, latents: torch.Tensor) -> torch.Tensor:
    """Frames of the whole clip by the same: [b, c, t, 8h, 8w]."""
    return module.decoder(module.post_quant_conv(latents))
