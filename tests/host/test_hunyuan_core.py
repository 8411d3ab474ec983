"""Does the engine give what core's own class of HunyuanVideo 1.5 gives untiled, where core runs?

Core's attention has no mask. So it is given one for clips of more than a latent frame; a lone
latent frame needs none.
"""

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
import torch.nn.functional as F
from comfy.ldm.models.autoencoder import AutoencodingEngine
from vae_core import Settings, from_module

PLACE = "comfy.ldm.hunyuan_video.vae_refiner."
NUMBERS = {
    "block_out_channels": [8, 16, 16, 16, 16], "in_channels": 3, "out_channels": 3,
    "num_res_blocks": 2, "ffactor_spatial": 16, "ffactor_temporal": 4, "z_channels": 4,
}

def network(dtype):
    torch.manual_seed(0)
    module = AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.EmptyRegularizer"},
        encoder_config={"target": PLACE + "Encoder", "params": NUMBERS},
        decoder_config={"target": PLACE + "Decoder", "params": NUMBERS},
    )
    for name, parameter in module.named_parameters():
        spread = 0.3 if name.endswith("gamma") else parameter[0].numel() ** -0.5
        if name.endswith(("attn_1.q.weight", "attn_1.k.weight")):
            spread *= 2
        torch.nn.init.normal_(parameter, float(name.endswith("gamma")), spread)
    return module.to(dtype).eval().requires_grad_(False)

def masked(q, k, v):
    b, c, t, h, w = q.shape
    frames = torch.arange(t).repeat_interleave(h * w)
    q, k, v = (x.reshape(b, 1, c, -1).transpose(2, 3) for x in (q, k, v))
    found = F.scaled_dot_product_attention(q, k, v, attn_mask=frames[:, None] >= frames)
    return found.transpose(2, 3).reshape(b, c, t, h, w)

CUTS = (
    {"chunk_frames": 4, "tile_px": 16},
    {"chunk_frames": 8, "placement": "host", "tile_px": 32},
    {},
)
worst, apart = {}, 0.0
with torch.no_grad():
    for dtype in (torch.float32, torch.float64):
        module = network(dtype)
        vae = from_module(module)
        for frames in (1, 5, 9, 21):
            cut = Settings(**CUTS[frames % 3])
            video = 2 * torch.rand(1, 3, frames, 48, 80, dtype=dtype) - 1
            latents = torch.randn(1, 4, (frames + 3) // 4, 3, 5, dtype=dtype)
            theirs = {"encode": module.encode(video), "decode": module.decode(latents)}
            if frames > 1:
                blocks = module.encoder.mid.attn_1, module.decoder.mid.attn_1
                usual = blocks[0].optimized_attention
                for block in blocks:
                    block.optimized_attention = masked
                unmasked = theirs["decode"]
                theirs = {"encode": module.encode(video), "decode": module.decode(latents)}
                spread = unmasked.max() - unmasked.min()
                apart = max(apart, float((unmasked - theirs["decode"]).abs().max() / spread))
                for block in blocks:
                    block.optimized_attention = usual
            ours = {"encode": vae.encode(video, cut).mean, "decode": vae.decode(latents, cut)}
            for kind, expected in theirs.items():
                found = ours[kind]
                assert found.shape == expected.shape, (found.shape, expected.shape)
                error = (found - expected).abs().max() / (expected.max() - expected.min())
                key = f"{kind} {vae.family.name} {str(dtype)[6:]}"
                worst[key] = max(worst.get(key, 0.0), float(error))
print(json.dumps([worst, apart]))
"""


def test_both_ways_equal_cores_class_with_the_mask_that_it_lacks(capsys) -> None:
    worst, apart = found_by(SCRIPT, "comfy/ldm/hunyuan_video/vae_refiner.py")
    with capsys.disabled():
        print(f"\n{worst}; without the mask {apart:.2g} of the range apart")  # noqa: T201
    check(worst, 4)
    assert apart > 1e-3, "core has the mask now: README and help pages need a word"
