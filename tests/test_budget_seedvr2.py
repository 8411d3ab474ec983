"""The budget law for a network with statistics of frames: measured peak <= projected peak <= 1.25
measured.

The device is played by `meta` inside `FakeTensorMode` and counted at the dispatcher.
"""

from __future__ import annotations

import pytest
import torch
from device_bytes import DeviceBytes
from torch._subclasses.fake_tensor import FakeTensorMode

from vae_core import Settings, from_module
from vae_core.families.seedvr2_network import SeedVR2VAE
from vae_core.planning.memory import SLACK_BYTES

WIDTHS = (32, 64, 128, 128)


def unmade(dtype: torch.dtype) -> SeedVR2VAE:
    """A SeedVR2 VAE without memory: on the device `meta`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            module = SeedVR2VAE(block_out_channels=WIDTHS, layers_per_block=1)
    finally:
        torch.set_default_dtype(before)
    return module.eval().requires_grad_(False)


def measured_and_plan(
    kind: str, shape: tuple[int, int, int], dtype: torch.dtype, batch: int = 1, **settings
):
    """Peak device bytes of a run for `shape` (sample frames, height, width), and its plan."""
    frames, height, width = shape
    chosen = Settings(**settings)
    with FakeTensorMode():
        vae = from_module(unmade(dtype), device="meta")
        if kind == "encode":
            x = torch.empty(batch, 3, frames, height, width, dtype=dtype)
            plan, run = vae.plan_encode(x.shape, chosen), vae.encode
        else:
            sides = (frames - 1) // 4 + 1, height // 8, width // 8
            x = torch.empty(batch, 16, *sides, dtype=dtype)
            plan, run = vae.plan_decode(x.shape, chosen), vae.decode
        with DeviceBytes("meta") as counter:
            run(x, chosen)
    return counter.peak_bytes, plan


GRID = [
    ((1, 96, 160), {"placement": "device"}),
    ((5, 96, 160), {"placement": "device"}),
    ((9, 96, 160), {"placement": "caches-on-host"}),
    ((9, 96, 160), {"placement": "host"}),
    ((9, 96, 160), {"placement": "host", "tile_px": 32}),
    ((5, 96, 160), {"placement": "host", "tile_px": (48, 160)}),
    ((1, 96, 160), {"placement": "host", "tile_px": 16}),
    ((9, 96, 160), {"placement": "device", "chunk_frames": 4, "tile_px": 64}),
    ((5, 96, 160), {"placement": "host", "batch": 2}),
]


@pytest.mark.parametrize("kind", ["encode", "decode"])
@pytest.mark.parametrize(("shape", "settings"), GRID, ids=str)
def test_measured_is_at_most_projected_and_close_to_it(kind, shape, settings) -> None:
    dtype = torch.float32 if shape[0] == 5 else torch.bfloat16
    measured, plan = measured_and_plan(kind, shape, dtype, **settings)
    assert measured <= plan.peak_bytes
    assert plan.peak_bytes - SLACK_BYTES <= 1.25 * measured
