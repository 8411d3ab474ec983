"""The budget law for a network that attends: measured peak <= projected peak <= 1.25 measured.

The device is played by `meta` inside `FakeTensorMode` and counted at the dispatcher.
"""

from __future__ import annotations

import pytest
import torch
from device_bytes import DeviceBytes
from diffusers import AutoencoderKLWan
from torch._subclasses.fake_tensor import FakeTensorMode

from vae_core import Settings, from_module
from vae_core.planning.memory import SLACK_BYTES

WIDTH = 32


OF_2_2 = {
    "decoder_base_dim": 48,
    "in_channels": 12,
    "out_channels": 12,
    "is_residual": True,
    "patch_size": 2,
    "scale_factor_spatial": 16,
}
"""What Wan 2.2 has otherwise."""


def unmade_wan(dtype: torch.dtype, **numbers) -> AutoencoderKLWan:
    """A Wan VAE without memory: on the device `meta`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            module = AutoencoderKLWan(base_dim=WIDTH, **numbers)
    finally:
        torch.set_default_dtype(before)
    return module.eval().requires_grad_(False)


def measured_and_plan(
    kind: str, shape: tuple[int, int, int], dtype: torch.dtype, numbers=None, **settings
):
    """Peak device bytes of a run for `shape` (sample frames, height, width), and its plan."""
    frames, height, width = shape
    chosen = Settings(**settings)
    with FakeTensorMode():
        vae = from_module(unmade_wan(dtype, **(numbers or {})), device="meta")
        px = vae.ratios.px
        if kind == "encode":
            x = torch.empty(1, 3, frames, height, width, dtype=dtype)
            plan, run = vae.plan_encode(x.shape, chosen), vae.encode
        else:
            x = torch.empty(1, 16, (frames - 1) // 4 + 1, height // px, width // px, dtype=dtype)
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
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("kind", ["encode", "decode"])
@pytest.mark.parametrize(("shape", "settings"), GRID, ids=str)
def test_measured_is_at_most_projected_and_close_to_it(kind, shape, settings, dtype) -> None:
    measured, plan = measured_and_plan(kind, shape, dtype, **settings)
    assert measured <= plan.peak_bytes
    assert plan.peak_bytes - SLACK_BYTES <= 1.25 * measured


@pytest.mark.parametrize("kind", ["encode", "decode"])
@pytest.mark.parametrize(("shape", "settings"), GRID, ids=str)
def test_the_law_holds_where_values_move_between_places_and_channels(kind, shape, settings) -> None:
    dtype = torch.bfloat16
    measured, plan = measured_and_plan(kind, shape, dtype, OF_2_2, **settings)
    assert measured <= plan.peak_bytes
    assert plan.peak_bytes - SLACK_BYTES <= 1.25 * measured
