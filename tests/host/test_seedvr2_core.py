"""Does the engine give what core's own class of SeedVR2 gives untiled, where core runs?"""

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
try:
    from comfy.ldm.seedvr import vae as seedvr
except ImportError:
    print(json.dumps(None))
    sys.exit()
from vae_core import Settings, from_module
seedvr.BYTEDANCE_BLOCK_OUT_CHANNELS = (32, 32, 64, 64)

def network(dtype):
    torch.manual_seed(0)
    module = seedvr.VideoAutoencoderKLWrapper()
    for name, parameter in module.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, float(name.endswith("weight")), 0.3)
        else:
            far = 2.0 if name.endswith(("to_q.weight", "to_k.weight")) else 0.7
            fan = parameter[0].numel() if parameter.ndim > 1 else 100
            torch.nn.init.normal_(parameter, 0.0, far * fan ** -0.5)
    return module.to(dtype).eval().requires_grad_(False)

CUTS = (
    {"chunk_frames": 4, "tile_px": 16},
    {"chunk_frames": 8, "placement": "host", "tile_px": 24},
    {},
)
worst = {}
with torch.no_grad():
    for dtype in (torch.float32, torch.float64):
        module = network(dtype)
        vae = from_module(module)
        for frames in (1, 5, 9, 13, 21):
            cut = Settings(**CUTS[frames % 3])
            video = 2 * torch.rand(1, 3, frames, 24, 40, dtype=dtype) - 1
            latents = torch.randn(1, 16, (frames + 3) // 4, 3, 5, dtype=dtype)
            whole = module.encode(video)
            pairs = {
                "encode": (vae.encode(video, cut).mean.reshape(whole.shape), whole),
                "decode": (vae.decode(latents, cut), module.decode_(latents)),
            }
            for kind, (found, expected) in pairs.items():
                assert found.shape == expected.shape, (found.shape, expected.shape)
                error = (found - expected).abs().max() / (expected.max() - expected.min())
                key = f"{kind} {vae.family.name} {str(dtype)[6:]}"
                worst[key] = max(worst.get(key, 0.0), float(error))
print(json.dumps(worst))
"""


def test_both_ways_equal_cores_class_untiled(capsys: pytest.CaptureFixture[str]) -> None:
    worst = found_by(SCRIPT)
    if worst is None:
        pytest.skip("this ComfyUI has no SeedVR2")
    with capsys.disabled():
        print(f"\nSeedVR2 against core's class: {worst}")  # noqa: T201
    check(worst, 4)
