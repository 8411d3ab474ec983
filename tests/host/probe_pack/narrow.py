"""How does core come by a VAE that is narrower than any file of that family?

1. Inside a patch core's class, or what builds it, has narrow widths in place of the published ones.
2. One is made with random weights from a fixed seed, and its weights go through core's own loader,
   which finds the family by their names.

Core's modules are imported where they are used: not every version has all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch

_PLACE = "comfy.ldm.hunyuan_video.vae_refiner."
_HUNYUAN = {
    "block_out_channels": [16, 32, 64, 64, 64],
    "in_channels": 3,
    "out_channels": 3,
    "num_res_blocks": 2,
    "ffactor_spatial": 16,
    "ffactor_temporal": 4,
    "z_channels": 32,
}


def _blocks(names: tuple[str, ...], **options: object) -> list[list[object]]:
    return [[name, {"num_layers": 1} if name == "res_x" else dict(options)] for name in names]


_LTX = {
    "dims": 3,
    "latent_channels": 128,
    "norm_layer": "pixel_norm",
    "patch_size": 4,
    "latent_log_var": "uniform",
    "encoder_base_channels": 16,
    "decoder_base_channels": 8,
    "encoder_blocks": _blocks(
        (
            "res_x",
            "compress_space_res",
            "res_x",
            "compress_time_res",
            "res_x",
            "compress_all_res",
            "res_x",
            "compress_all_res",
            "res_x",
        ),
        multiplier=2,
    ),
    "decoder_blocks": _blocks(
        ("res_x", "compress_all") * 3 + ("res_x",), multiplier=2, residual=True
    ),
}


@contextmanager
def _wan_2_2() -> Iterator[Callable[[], torch.nn.Module]]:
    from comfy.ldm.wan import vae2_2

    usual = vae2_2.WanVAE

    def made(**numbers: object) -> torch.nn.Module:
        return usual(**{**numbers, "dim": 8, "dec_dim": 12})

    with patch.object(vae2_2, "WanVAE", made):
        yield partial(made, z_dim=48, temperal_downsample=[False, True, True])


@contextmanager
def _hunyuan_1_5() -> Iterator[Callable[[], torch.nn.Module]]:
    import comfy.sd

    usual = comfy.sd.AutoencodingEngine

    def made(**_: object) -> torch.nn.Module:
        return usual(
            regularizer_config={"target": "comfy.ldm.models.autoencoder.EmptyRegularizer"},
            encoder_config={"target": _PLACE + "Encoder", "params": dict(_HUNYUAN)},
            decoder_config={"target": _PLACE + "Decoder", "params": dict(_HUNYUAN)},
        )

    with patch.object(comfy.sd, "AutoencodingEngine", made):
        yield made


@contextmanager
def _seedvr2() -> Iterator[Callable[[], torch.nn.Module]]:
    from comfy.ldm.seedvr import vae

    with patch.object(vae, "BYTEDANCE_BLOCK_OUT_CHANNELS", (32, 32, 64, 64)):
        yield vae.VideoAutoencoderKLWrapper


@contextmanager
def _ltx() -> Iterator[Callable[[], torch.nn.Module]]:
    from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE

    yield partial(VideoVAE, config=dict(_LTX))


_MOCHI = {
    "base_channels": 32,
    "num_res_blocks": [3, 1, 1, 1, 1],
    "latent_dim": 12,
    "padding_mode": "replicate",
}
_MOCHI_ENCODER = {
    "in_channels": 15,
    "channel_multipliers": [1, 2, 3, 2],
    "temporal_reductions": [1, 2, 3],
    "spatial_reductions": [2, 2, 2],
    "prune_bottlenecks": [False] * 5,
    "has_attentions": [False, True, True, True, True],
    "input_is_conv_1x1": True,
}
_MOCHI_DECODER = {
    "channel_multipliers": [2, 3, 2, 1],
    "temporal_expansions": [1, 2, 3],
    "spatial_expansions": [2, 2, 2],
    "has_attention": [False] * 5,
    "output_norm": False,
}


@contextmanager
def _mochi() -> Iterator[Callable[[], torch.nn.Module]]:
    from comfy.ldm.genmo.vae import model

    usual = model.VideoVAE

    class Narrow(usual):
        """Three resnets come first: by a name among them core knows the family."""

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.encoder = model.Encoder(**_MOCHI, **_MOCHI_ENCODER)
            self.decoder = model.Decoder(**_MOCHI, **_MOCHI_DECODER)

    with patch.object(model, "VideoVAE", Narrow):
        yield Narrow


NETWORKS = {
    "wan22": _wan_2_2,
    "hunyuan15": _hunyuan_1_5,
    "seedvr2": _seedvr2,
    "ltx": _ltx,
    "mochi": _mochi,
}

METADATA = {"ltx": {"config": json.dumps({"vae": _LTX})}}
"""What files say of a network beside its weights."""


def vae_of(family: str) -> object:
    """A VAE of core's, of `family`."""
    import comfy.sd

    with NETWORKS[family]() as build:
        state = _unsettled(build()).state_dict()
        return comfy.sd.VAE(sd=state, metadata=METADATA.get(family))


def _unsettled(module: torch.nn.Module) -> torch.nn.Module:
    """The module with random weights: norms around one, the rest by how much is summed."""
    torch.manual_seed(0)
    for name, one in module.state_dict().items():
        norm = name.endswith("gamma") or ("norm" in name and one.ndim == 1)
        if name.endswith("std-of-means"):
            torch.nn.init.uniform_(one, 0.5, 2.0)
        elif norm or one.ndim < 2:
            torch.nn.init.normal_(one, float(norm and not name.endswith("bias")), 0.3)
        else:
            torch.nn.init.normal_(one, 0.0, 0.7 * one[0].numel() ** -0.5)
    return module.requires_grad_(False)
