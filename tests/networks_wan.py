"""Random Wan 2.1 networks, narrow enough for a test, in both of diffusers' classes, with norms that
are not the identity and attention that is not even.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLQwenImage, AutoencoderKLWan

NARROW = 8


def random_wan(
    width: int = NARROW, channels: int = 3, dtype: torch.dtype = torch.float32
) -> AutoencoderKLWan:
    """A Wan 2.1 VAE with random weights from a fixed seed; four channels are RGBA."""
    torch.manual_seed(0)
    module = AutoencoderKLWan(base_dim=width, in_channels=channels, out_channels=channels)
    return torch.nn.Module.to(unsettled(module), dtype)


def narrow_wan_2_2(latent_channels: int = 6, blocks: int = 1) -> AutoencoderKLWan:
    """A Wan 2.2 VAE as its class makes it."""
    return AutoencoderKLWan(
        base_dim=NARROW,
        decoder_base_dim=NARROW + 4,
        z_dim=latent_channels,
        num_res_blocks=blocks,
        in_channels=12,
        out_channels=12,
        is_residual=True,
        patch_size=2,
        scale_factor_spatial=16,
        latents_mean=[0.0] * latent_channels,
        latents_std=[1.0] * latent_channels,
    )


def random_wan_2_2(
    dtype: torch.dtype = torch.float32, latent_channels: int = 6, blocks: int = 1
) -> AutoencoderKLWan:
    """A Wan 2.2 VAE with random weights from a fixed seed."""
    torch.manual_seed(0)
    return torch.nn.Module.to(unsettled(narrow_wan_2_2(latent_channels, blocks)), dtype)


def random_qwen_image(
    width: int = NARROW, channels: int = 3, dtype: torch.dtype = torch.float32
) -> AutoencoderKLQwenImage:
    """A Qwen-Image VAE with the weights of `random_wan`."""
    module = AutoencoderKLQwenImage(base_dim=width, input_channels=channels)
    module.load_state_dict(random_wan(width, channels).state_dict())
    return torch.nn.Module.to(module, dtype).eval().requires_grad_(False)


def unsettled(module: torch.nn.Module) -> torch.nn.Module:
    """The module with gammas around one, and queries and keys large enough to prefer places."""
    for name, parameter in module.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.normal_(parameter, 1.0, 0.3)
        elif name.endswith("to_qkv.weight"):
            torch.nn.init.normal_(parameter, 0.0, 2.0 * parameter.shape[1] ** -0.5)
    return module.eval().requires_grad_(False)


@torch.no_grad()
def whole_encode(module: torch.nn.Module, video: torch.Tensor) -> torch.Tensor:
    """Moments from diffusers' own untiled encode: [b, 2z, n, h/8, w/8]."""
    return module._encode(video)


@torch.no_grad()
def whole_decode(module: torch.nn.Module, latents: torch.Tensor) -> torch.Tensor:
    """Frames from diffusers' own untiled decode: [b, c, t, 8h, 8w].

    Without the last clamp, which would hide errors where random pixels leave [-1, 1], and without
    the detour over float32 on which its upsampling sends float64.
    """
    for block in module.decoder.modules():
        if getattr(block, "mode", "").startswith("upsample"):
            block.resample[0] = torch.nn.Upsample(scale_factor=(2.0, 2.0), mode="nearest-exact")
    clamp = torch.clamp
    torch.clamp = lambda values, **_: values
    try:
        return module._decode(latents).sample
    finally:
        torch.clamp = clamp
