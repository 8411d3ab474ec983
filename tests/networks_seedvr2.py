"""Random SeedVR2 networks, narrow enough for a test, and what they compute over a whole clip, in
the plainest words: every activation in full, nothing cut, sharing no code with the engine.

The host tier compares with ComfyUI's own class (`host/test_seedvr2_core.py`); diffusers has none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_core.families.seedvr2_network import SeedVR2VAE

WIDTHS = (32, 32, 64, 64)


def narrow_seedvr2(latent_channels: int = 4, layers: int = 1) -> SeedVR2VAE:
    """A SeedVR2 VAE as its class makes it."""
    return SeedVR2VAE(
        block_out_channels=WIDTHS, layers_per_block=layers, latent_channels=latent_channels
    )


def random_seedvr2(
    dtype: torch.dtype = torch.float32, latent_channels: int = 4, layers: int = 1
) -> SeedVR2VAE:
    """A SeedVR2 VAE with random weights from a fixed seed: norms that are not the identity, and
    attention that is not even.
    """
    torch.manual_seed(0)
    return unsettled(narrow_seedvr2(latent_channels, layers)).to(dtype)


def unsettled(module: nn.Module) -> nn.Module:
    """The module with weights that hide nothing."""
    for name, parameter in module.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter, float(name.endswith("weight")), 0.3)
        elif name.endswith(("to_q.weight", "to_k.weight")):
            nn.init.normal_(parameter, 0.0, 2.0 * parameter.shape[1] ** -0.5)
    return module.eval().requires_grad_(False)


def _frames(x: Tensor) -> Tensor:
    """[b, c, t, h, w] as pictures [b * t, c, h, w]."""
    return x.transpose(1, 2).flatten(0, 1)


def _clip(x: Tensor, batch: int) -> Tensor:
    return x.unflatten(0, (batch, -1)).transpose(1, 2)


def _norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    return _clip(norm(_frames(x)), x.shape[0])


def _conv(conv: nn.Conv3d, x: Tensor) -> Tensor:
    past = x[:, :, :1].expand(-1, -1, conv.weight.shape[2] - 1, -1, -1)
    return F.conv3d(torch.cat([past, x], 2), conv.weight, conv.bias, conv.stride, conv.padding)


def _resnet(block: nn.Module, x: Tensor) -> Tensor:
    y = _conv(block.conv1, F.silu(_norm(block.norm1, x)))
    y = _conv(block.conv2, F.silu(_norm(block.norm2, y)))
    return y + (x if block.conv_shortcut is None else _conv(block.conv_shortcut, x))


def _attention(block: nn.Module, x: Tensor) -> Tensor:
    tokens = _frames(_norm(block.group_norm, x)).flatten(2).transpose(1, 2)  # [b * t, h * w, c]
    q, k, v = (getattr(block, name)(tokens) for name in ("to_q", "to_k", "to_v"))
    weights = (q @ k.transpose(1, 2) * q.shape[2] ** -0.5).softmax(2)
    made = block.to_out[0](weights @ v).transpose(1, 2).unflatten(2, x.shape[3:])
    return x + _clip(made, x.shape[0])


def _middle(block: nn.Module, x: Tensor) -> Tensor:
    x = _attention(block.attentions[0], _resnet(block.resnets[0], x))
    return _resnet(block.resnets[1], x)


def _up(sampler: nn.Module, x: Tensor) -> Tensor:
    made = _conv(sampler.upscale_conv, x)
    frames = made.shape[1] // (4 * x.shape[1])
    b, _, t, h, w = made.shape
    split = made.reshape(b, 2, 2, frames, -1, t, h, w)  # rows, columns, frames, channels
    laid = split.permute(0, 4, 5, 3, 6, 1, 7, 2).reshape(b, -1, frames * t, 2 * h, 2 * w)
    if frames == 2:
        laid = torch.cat([laid[:, :, :1], laid[:, :, 2:]], 2)
    return _conv(sampler.conv, laid)


def _ended(net: nn.Module, x: Tensor) -> Tensor:
    return _conv(net.conv_out, F.silu(_norm(net.conv_norm_out, x)))


@torch.no_grad()
def whole_encode(module: nn.Module, video: Tensor) -> Tensor:
    """Moments [b, 2z, n, h/8, w/8] of a clip, as one graph."""
    net = module.encoder
    x = _conv(net.conv_in, video)
    for level in net.down_blocks:
        for block in level.resnets:
            x = _resnet(block, x)
        for sampler in level.downsamplers or ():
            x = _conv(sampler.conv, F.pad(x, (0, 1, 0, 1)))
    return _ended(net, _middle(net.mid_block, x))


@torch.no_grad()
def whole_decode(module: nn.Module, latents: Tensor) -> Tensor:
    """Frames [b, c, t, 8h, 8w] of latents, as one graph."""
    net = module.decoder
    x = _middle(net.mid_block, _conv(net.conv_in, latents))
    for level in net.up_blocks:
        for block in level.resnets:
            x = _resnet(block, x)
        for sampler in level.upsamplers or ():
            x = _up(sampler, x)
    return _ended(net, x)
