"""Random LTX networks, narrow enough for a test, in both of diffusers' classes: as LTX-2 has it, as
LTX-Video 0.9.5 and later, and as 0.9.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderKLLTX2Video, AutoencoderKLLTXVideo

LATENTS = 8
_RATIOS = {"spatial_compression_ratio": 32, "temporal_compression_ratio": 8}
_DOWN = ("spatial", "temporal", "spatiotemporal", "spatiotemporal")


def narrow_ltx2(**changes: Any) -> AutoencoderKLLTX2Video:
    """LTX-2 as its class makes it, its decoder looking ahead."""
    return AutoencoderKLLTX2Video(
        **{
            "latent_channels": LATENTS,
            "block_out_channels": (16, 32, 64, 128),
            "decoder_block_out_channels": (16, 32, 64),
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1),
            "decoder_causal": False,
            **_RATIOS,
            **changes,
        }
    )


def random_ltx2(dtype: torch.dtype = torch.float32, **changes: Any) -> AutoencoderKLLTX2Video:
    """LTX-2 with random weights from a fixed seed."""
    torch.manual_seed(0)
    return _unsettled(narrow_ltx2(**changes), dtype)


def random_ltx_095(dtype: torch.dtype = torch.float32, **changes: Any) -> AutoencoderKLLTXVideo:
    """LTX-Video 0.9.5 with random weights from a fixed seed."""
    torch.manual_seed(0)
    module = AutoencoderKLLTXVideo(
        **{
            "latent_channels": LATENTS,
            "block_out_channels": (8, 16, 32, 64, 128),
            "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
            "downsample_type": _DOWN,
            "spatio_temporal_scaling": (True,) * 4,
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_block_out_channels": (16, 32, 64),
            "decoder_spatio_temporal_scaling": (True,) * 3,
            "decoder_layers_per_block": (1, 1, 1, 1),
            "decoder_inject_noise": (False,) * 4,
            "upsample_residual": (True,) * 3,
            "upsample_factor": (2, 2, 2),
            **_RATIOS,
            **changes,
        }
    )
    return _unsettled(module, dtype)


def random_ltx_090(dtype: torch.dtype = torch.float32, **changes: Any) -> AutoencoderKLLTXVideo:
    """LTX-Video 0.9.0 with random weights from a fixed seed."""
    torch.manual_seed(0)
    module = AutoencoderKLLTXVideo(
        **{
            "latent_channels": LATENTS,
            "block_out_channels": (8, 16, 24, 24),
            "decoder_block_out_channels": (8, 16, 24, 24),
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1, 1),
            **changes,
        }
    )
    return _unsettled(module, dtype)


def _unsettled(module: Any, dtype: torch.dtype) -> Any:
    """The module with layer norms that are not the identity, and statistics likewise."""
    for name, parameter in module.named_parameters():
        if "norm3" in name:
            torch.nn.init.normal_(parameter, float(name.endswith("weight")), 0.3)
    torch.nn.init.normal_(module.latents_mean, 0.0, 0.3)
    torch.nn.init.uniform_(module.latents_std, 0.5, 2.0)
    return torch.nn.Module.to(module, dtype).eval().requires_grad_(False)


@torch.no_grad()
def whole_encode(module: torch.nn.Module, video: torch.Tensor) -> torch.Tensor:
    """Moments from diffusers' own untiled graph: [b, 2z, n, h/32, w/32]."""
    with _precise(module):
        return module.encoder(video)


@torch.no_grad()
def whole_decode(
    module: torch.nn.Module, latents: torch.Tensor, temb: torch.Tensor | None = None
) -> torch.Tensor:
    """Frames from diffusers' own untiled graph: [b, 3, t, 32h, 32w]."""
    with _precise(module):
        return module.decoder(latents, temb)


@contextmanager
def _precise(module: torch.nn.Module) -> Iterator[None]:
    """Inside the block, no detour over float32 on which the module's norms send float64."""
    norms: list[Any] = [part for part in module.modules() if type(part).__name__ == "RMSNorm"]
    for norm in norms:
        norm.forward = _root_mean_square(norm.eps)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _root_mean_square(eps: float):
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)

    return forward
