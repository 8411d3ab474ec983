"""Random Mochi networks, narrow enough for a test, and the authors' reference out of diffusers' own
blocks.
"""

from __future__ import annotations

from unittest.mock import patch

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLMochi
from diffusers.models.autoencoders import autoencoder_kl_mochi as theirs

WIDTHS = (32, 64, 96, 64)


def narrow_mochi(latent_channels: int = 4, widths: tuple[int, ...] = WIDTHS) -> AutoencoderKLMochi:
    """A Mochi VAE as its class makes it."""
    return AutoencoderKLMochi(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        latent_channels=latent_channels,
        layers_per_block=(1,) * 5,
        latents_mean=(0.0,) * latent_channels,
        latents_std=(1.0,) * latent_channels,
    )


def random_mochi(
    dtype: torch.dtype = torch.float32, latent_channels: int = 4
) -> AutoencoderKLMochi:
    """A Mochi VAE with random weights from a fixed seed."""
    torch.manual_seed(0)
    return torch.nn.Module.to(unsettled(narrow_mochi(latent_channels)), dtype)


def unsettled(module: torch.nn.Module) -> torch.nn.Module:
    """The module with norms that are not the identity, and attention that is not even."""
    for name, parameter in module.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, float(name.endswith("weight")), 0.3)
        elif name.endswith(("to_v.weight", "to_out.0.weight")):
            torch.nn.init.normal_(parameter, 0.0, 1.5 * parameter.shape[1] ** -0.5)
    return module.eval().requires_grad_(False)


def _waves(module: theirs.FourierFeatures, pixels: torch.Tensor) -> torch.Tensor:
    """diffusers' own, without the detour over float32 on which it sends float64."""
    powers = 2.0 ** torch.arange(module.start, module.stop, dtype=pixels.dtype) * (2 * torch.pi)
    many = pixels.repeat_interleave(len(powers), 1)
    turned = many * powers.repeat(pixels.shape[1]).view(1, -1, 1, 1, 1)
    return torch.cat([pixels, torch.sin(turned), torch.cos(turned)], 1)


@torch.no_grad()
def whole_encode(module: AutoencoderKLMochi, video: torch.Tensor) -> torch.Tensor:
    """Moments from diffusers' own untiled encode: [b, 2z, n, h/8, w/8]."""
    with patch.object(theirs.FourierFeatures, "forward", _waves):
        return module._encode(video)


@torch.no_grad()
def whole_decode(module: AutoencoderKLMochi, latents: torch.Tensor) -> torch.Tensor:
    """Frames [b, c, t, 8h, 8w] from diffusers' own blocks, as the authors' decoder runs them: what
    a clip's first frame has too many is left out of each level's result.
    """
    net = module.decoder
    x, _ = net.block_in(net.conv_in(latents))
    for level in net.up_blocks:
        x, _ = level(x)
        x = x[:, :, level.temporal_expansion - 1 :]
    x, _ = net.block_out(x)
    return net.proj_out(F.silu(x).movedim(1, -1)).movedim(-1, 1)
