"""Random Mochi networks, narrow enough for a test: diffusers' class, the authors' names for the
same weights, and the authors' reference out of diffusers' own blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLMochi
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders import autoencoder_kl_mochi as theirs
from torch import Tensor, nn

from vae_core.families.mochi_network import MochiVAE

WIDTHS = (32, 64, 96, 64)
LAYERS = (1, 2, 1, 1, 1)


def narrow_mochi(latent_channels: int = 4, layers: tuple[int, ...] = LAYERS) -> AutoencoderKLMochi:
    """A Mochi VAE as diffusers' class makes it."""
    return AutoencoderKLMochi(
        encoder_block_out_channels=WIDTHS,
        decoder_block_out_channels=WIDTHS[::-1],
        latent_channels=latent_channels,
        layers_per_block=layers,
        latents_mean=tuple(0.1 * i for i in range(latent_channels)),
        latents_std=tuple(1.0 + 0.1 * i for i in range(latent_channels)),
    )


def random_mochi(
    dtype: torch.dtype = torch.float32, latent_channels: int = 4
) -> AutoencoderKLMochi:
    """A Mochi VAE of diffusers' class with random weights from a fixed seed."""
    torch.manual_seed(0)
    return nn.Module.to(unsettled(narrow_mochi(latent_channels)), dtype)


def unsettled(module: nn.Module) -> nn.Module:
    """The module with norms that are not the identity, and attention that counts."""
    for name, parameter in module.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter, float(name.endswith("weight")), 0.3)
        elif name.endswith(("to_v.weight", "to_out.0.weight")):
            nn.init.normal_(parameter, 0.0, 1.5 * parameter.shape[1] ** -0.5)
    return module.eval().requires_grad_(False)


def authors_mochi(module: AutoencoderKLMochi) -> MochiVAE:
    """The authors' network with a module's weights."""
    config, state = module.config, authors_state(module)
    with torch.device("meta"):
        own = MochiVAE.from_config(config)
    own.load_state_dict(state, assign=True)
    return own.eval().requires_grad_(False)


def authors_state(module: AutoencoderKLMochi) -> dict[str, Tensor]:
    """A module's weights by the authors' names, part by part."""
    found: dict[str, Tensor] = {}
    encoder, decoder = module.encoder, module.decoder
    blocks = [*_resnets(encoder.block_in)]
    _put(found, "encoder.layers.0", encoder.proj_in)
    for at, block in enumerate(blocks, 1):
        _put_all(found, f"encoder.layers.{at}", block)
    at = 1 + len(blocks)
    for level in encoder.down_blocks:
        _put(found, f"encoder.layers.{at}.layers.0", level.conv_in.conv)
        for inner, block in enumerate(_resnets(level), 1):
            _put_all(found, f"encoder.layers.{at}.layers.{inner}", block)
        at += 1
    for more, block in enumerate(_resnets(encoder.block_out), at):
        _put_all(found, f"encoder.layers.{more}", block)
    _put(found, "encoder.output_norm", encoder.norm_out.norm_layer)
    _put(found, "encoder.output_proj", encoder.proj_out)
    _put(found, "decoder.blocks.0.0", decoder.conv_in)
    for at, block in enumerate(_resnets(decoder.block_in), 1):
        _put_all(found, f"decoder.blocks.0.{at}", block)
    for at, level in enumerate(decoder.up_blocks, 1):
        for inner, block in enumerate(_resnets(level)):
            _put_all(found, f"decoder.blocks.{at}.blocks.{inner}", block)
        _put(found, f"decoder.blocks.{at}.proj", level.proj)
    for at, block in enumerate(_resnets(decoder.block_out)):
        _put_all(found, f"decoder.blocks.{len(decoder.up_blocks) + 1}.{at}", block)
    _put(found, "decoder.output_proj", decoder.proj_out)
    return found


def _resnets(block: nn.Module) -> Iterator[dict[str, nn.Module | Tensor]]:
    """The parts of each resnet of a block, and of the attention after it, by the authors' names."""
    nothing = [None] * len(block.resnets)
    norms, attentions = (getattr(block, name, nothing) for name in ("norms", "attentions"))
    for resnet, norm, attention in zip(block.resnets, norms, attentions, strict=True):
        parts = {
            "stack.0": resnet.norm1.norm_layer,
            "stack.2": resnet.conv1.conv,
            "stack.3": resnet.norm2.norm_layer,
            "stack.5": resnet.conv2.conv,
        }
        if attention is not None:
            layers = attention.to_q, attention.to_k, attention.to_v
            parts["attn_block.norm"] = norm.norm_layer
            parts["attn_block.attn.qkv.weight"] = torch.cat([one.weight for one in layers])
            parts["attn_block.attn.out"] = attention.to_out[0]
        yield parts


def _put_all(found: dict[str, Tensor], where: str, parts: Mapping[str, nn.Module | Tensor]) -> None:
    for name, part in parts.items():
        if isinstance(part, Tensor):
            found[f"{where}.{name}"] = part
        else:
            _put(found, f"{where}.{name}", part)


def _put(found: dict[str, Tensor], where: str, part: nn.Module) -> None:
    for kind, weight in part.named_parameters(recurse=False):
        found[f"{where}.{kind}"] = weight.detach()


def _waves(module: theirs.FourierFeatures, pixels: Tensor) -> Tensor:
    """diffusers' own, without the detour over float32 on which it sends float64."""
    powers = 2.0 ** torch.arange(module.start, module.stop, dtype=pixels.dtype) * (2 * torch.pi)
    many = pixels.repeat_interleave(len(powers), 1)
    turned = many * powers.repeat(pixels.shape[1]).view(1, -1, 1, 1, 1)
    return torch.cat([pixels, torch.sin(turned), torch.cos(turned)], 1)


@torch.no_grad()
def whole_encode(module: AutoencoderKLMochi, video: Tensor) -> Tensor:
    """Moments from diffusers' own untiled encode: [b, 2z, n, h/8, w/8]."""
    with patch.object(theirs.FourierFeatures, "forward", _waves):
        return module._encode(video)


@contextmanager
def without_mask(module: AutoencoderKLMochi) -> Iterator[None]:
    """Places see themselves in later frames, too, as in ComfyUI's encoder."""
    attentions = [part for part in module.modules() if isinstance(part, Attention)]
    for one in attentions:
        one.is_causal = False
    try:
        yield
    finally:
        for one in attentions:
            one.is_causal = True


@torch.no_grad()
def theirs_decode(module: AutoencoderKLMochi, latents: Tensor) -> Tensor:
    """Frames [b, c, t, 8h, 8w] from diffusers' own untiled decode."""
    return module._decode(latents).sample


@torch.no_grad()
def whole_decode(module: AutoencoderKLMochi, latents: Tensor) -> Tensor:
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
