"""Does the engine give what core's own classes of Wan 2.1 and 2.2 give untiled, where core runs?"""

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
from comfy.ldm.wan import vae2_2
from comfy.ldm.wan.vae import WanVAE
from vae_core import Settings, from_module

def network(channels, dtype):
    torch.manual_seed(0)
    if channels == "2.2":
        numbers = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}
        timed = [False, True, True]
        module = vae2_2.WanVAE(8, 12, z_dim=16, temperal_downsample=timed, **numbers)
    else:
        module = WanVAE(dim=8, z_dim=16, image_channels=channels, conv_out_channels=channels)
    for name, parameter in module.named_parameters():
        spread = 0.3 if name.endswith("gamma") else 0.5 * parameter[0].numel() ** -0.5
        torch.nn.init.normal_(parameter, float(name.endswith("gamma")), spread)
    return module.to(dtype).eval().requires_grad_(False)

CUTS = (
    {"chunk_frames": 4, "tile_px": 16},
    {"chunk_frames": 8, "placement": "host", "tile_px": 24},
    {},
)
worst = {}
with torch.no_grad():
    for dtype in (torch.float32, torch.float64):
        for channels, frames in ((3, 1), (3, 5), (3, 9), (3, 13), (4, 5), ("2.2", 1), ("2.2", 13)):
            module = network(channels, dtype)
            vae, cut = from_module(module), Settings(**CUTS[frames % 3])
            colours, px = (3, 16) if channels == "2.2" else (channels, 8)
            video = 2 * torch.rand(1, colours, frames, 3 * px, 5 * px, dtype=dtype) - 1
            latents = torch.randn(1, 16, (frames + 3) // 4, 3, 5, dtype=dtype)
            pairs = {
                "encode": (vae.encode(video, cut).mean, module.encode(video)),
                "decode": (vae.decode(latents, cut), module.decode(latents)),
            }
            for kind, (found, expected) in pairs.items():
                assert found.shape == expected.shape, (found.shape, expected.shape)
                error = (found - expected).abs().max() / (expected.max() - expected.min())
                key = f"{kind} {vae.family.name} {str(dtype)[6:]}"
                worst[key] = max(worst.get(key, 0.0), float(error))
print(json.dumps(worst))
"""


def test_both_ways_equal_cores_class_untiled() -> None:
    check(found_by(SCRIPT), 8)
