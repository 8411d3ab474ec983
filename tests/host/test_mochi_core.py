"""Does the engine give what core's own class of Mochi gives untiled, where core runs?

Core's encoder attends without a mask over time. So it is given one for the authors' result; as it
is, it is the reference that is called core's.
"""

from __future__ import annotations

import pytest
from host.beside_core import check, found_by

pytestmark = pytest.mark.host

SCRIPT = """
import json
import comfy.options
comfy.options.enable_args_parsing()
import comfy.ops
import torch
import torch.nn.functional as F
from comfy.ldm.genmo.vae import model as genmo
from vae_core import Settings, from_module

COMMON = {"base_channels": 32, "num_res_blocks": [1, 2, 1, 1, 1], "padding_mode": "replicate"}

class Narrow(genmo.VideoVAE):
    def __init__(self):
        torch.nn.Module.__init__(self)
        self.encoder = genmo.Encoder(
            in_channels=15, channel_multipliers=[1, 2, 3, 4], latent_dim=12,
            temporal_reductions=[1, 2, 3], spatial_reductions=[2, 2, 2],
            prune_bottlenecks=[False] * 5, has_attentions=[False, True, True, True, True],
            input_is_conv_1x1=True, **COMMON,
        )
        self.decoder = genmo.Decoder(
            channel_multipliers=[2, 1, 3, 4], latent_dim=12, temporal_expansions=[1, 2, 3],
            spatial_expansions=[2, 2, 2], has_attention=[False] * 5, output_norm=False, **COMMON,
        )

def network(dtype):
    torch.manual_seed(0)
    module = Narrow()
    for name, parameter in module.named_parameters():
        if "norm" in name or (".stack.0." in name or ".stack.3." in name):
            torch.nn.init.normal_(parameter, float(name.endswith("weight")), 0.3)
        else:
            fan = parameter[0].numel() if parameter.ndim > 1 else 100
            far = 1.5 if ".attn." in name else 0.7
            torch.nn.init.normal_(parameter, 0.0, far * fan ** -0.5)
    return module.to(dtype).eval().requires_grad_(False)

def masked(q, k, v, heads, skip_reshape=True, **_):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)

CUTS = (
    {"chunk_frames": 12, "tile_px": 16},
    {"chunk_frames": 24, "placement": "host", "tile_px": 24},
    {},
)
worst, apart = {}, 0.0
own = genmo.optimized_attention
with torch.no_grad():
    for dtype in (torch.float32, torch.float64):
        module = network(dtype)
        vae = from_module(module)
        for frames in (1, 7, 13, 19, 31):
            cut = CUTS[frames // 6 % 3]
            video = 2 * torch.rand(1, 3, frames, 24, 40, dtype=dtype) - 1
            latents = torch.randn(1, 12, (frames + 5) // 6, 3, 5, dtype=dtype)
            core = module.encode(video)
            genmo.optimized_attention = masked
            authors = module.encode(video)
            genmo.optimized_attention = own
            if frames > 1:
                spread = authors.max() - authors.min()
                apart = max(apart, float((core - authors).abs().max() / spread))
            asked = Settings(reference="core", **cut)
            pairs = {
                "encode": (vae.encode(video, Settings(**cut)).mean, authors),
                "encode as core": (vae.encode(video, asked).mean, core),
                "decode": (vae.decode(latents, Settings(**cut)), module.decode(latents)),
            }
            for kind, (found, expected) in pairs.items():
                assert found.shape == expected.shape, (found.shape, expected.shape)
                error = (found - expected).abs().max() / (expected.max() - expected.min())
                key = f"{kind} {vae.family.name} {str(dtype)[6:]}"
                worst[key] = max(worst.get(key, 0.0), float(error))
print(json.dumps([worst, apart]))
"""


def test_both_ways_equal_cores_class_with_and_without_the_mask_that_it_lacks(capsys) -> None:
    worst, apart = found_by(SCRIPT, "comfy/ldm/genmo/vae/model.py")
    with capsys.disabled():
        print(f"\n{worst}; without the mask {apart:.2g} of the range apart")  # noqa: T201
    check(worst, 6)
    assert apart > 1e-3, "core has the mask now: README and help pages need a word"
