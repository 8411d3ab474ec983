"""Does the engine give what core's own class of LTX gives untiled, where core runs?"""

from __future__ import annotations

import pytest
from host.beside_core import check, found_by

pytestmark = pytest.mark.host

SCRIPT = """
import json, sys
import comfy.options
comfy.options.enable_args_parsing()
import comfy.ops
import torch
from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE
from vae_core import Settings, from_module

def blocks(names, **options):
    return [[name, {"num_layers": 1} if name == "res_x" else dict(options)] for name in names]

DOWN = ("res_x", "compress_space_res", "res_x", "compress_time_res", "res_x", "compress_all_res",
        "res_x", "compress_all_res", "res_x")
UP = ("res_x", "compress_all", "res_x", "compress_all", "res_x", "compress_all", "res_x")
COMMON = {"dims": 3, "latent_channels": 128, "norm_layer": "pixel_norm", "patch_size": 4,
          "latent_log_var": "uniform", "encoder_base_channels": 16, "decoder_base_channels": 8}
SECOND = COMMON | {
    "encoder_blocks": blocks(DOWN, multiplier=2),
    "decoder_blocks": blocks(UP, multiplier=2, residual=True),
}
FIRST = COMMON | {
    "blocks": [["res_x", 1], ["compress_all", 1], ["res_x_y", 1], ["res_x", 1], ["compress_all", 1],
               ["res_x", 1], ["compress_all", 1], ["res_x", 1], ["res_x", 1]],
    "decoder_base_channels": 16,
}
NETWORKS = {
    "2": SECOND,
    "2, causal": SECOND | {"causal_decoder": True},
    "2, zeros": SECOND | {"spatial_padding_mode": "zeros"},
    "2, told of noise": SECOND | {"timestep_conditioning": True, "decode_noise_scale": 0.0},
    "0.9.0": FIRST,
}

def network(config, dtype):
    torch.manual_seed(0)
    module = VideoVAE(config=config)
    for name, parameter in module.named_parameters():
        if name.endswith("multiplier"):
            continue
        norm = "norm" in name and parameter.ndim == 1
        spread = 0.3 if norm or parameter.ndim < 2 else 0.7 * parameter[0].numel() ** -0.5
        torch.nn.init.normal_(parameter, float(norm and name.endswith("weight")), spread)
    statistics = module.per_channel_statistics
    torch.nn.init.normal_(statistics.get_buffer("mean-of-means"), 0.0, 0.3)
    torch.nn.init.uniform_(statistics.get_buffer("std-of-means"), 0.5, 2.0)
    return module.to(dtype).eval().requires_grad_(False)

CUTS = (
    {"chunk_frames": 8, "tile_px": 32},
    {"chunk_frames": 16, "placement": "host", "tile_px": 64},
    {},
)
worst = {}
with torch.no_grad():
    for dtype in (torch.float32, torch.float64):
        for index, (name, config) in enumerate(NETWORKS.items()):
            for frames in (1, 17, 33):
                module = network(config, dtype)
                vae, cut = from_module(module), Settings(**CUTS[(index + frames) % 3])
                video = 2 * torch.rand(1, 3, frames, 96, 64, dtype=dtype) - 1
                latents = torch.randn(1, 128, (frames + 7) // 8, 3, 2, dtype=dtype)
                pairs = {
                    "encode": (vae.encode(video, cut).mean, module.encode(video)),
                    "decode": (vae.decode(latents, cut), module.decode(latents)),
                }
                for kind, (found, expected) in pairs.items():
                    assert found.shape == expected.shape, (found.shape, expected.shape)
                    error = (found - expected).abs().max() / (expected.max() - expected.min())
                    key = f"{kind} {name} {str(dtype)[6:]}"
                    worst[key] = max(worst.get(key, 0.0), float(error))
print(json.dumps(worst))
"""


def test_both_ways_equal_cores_class_untiled() -> None:
    check(found_by(SCRIPT), 20)
