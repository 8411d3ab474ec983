"""The budget law for a network that attends: measured peak <= projected peak <= 1.25 measured.

The device is played by `meta` inside `FakeTensorMode` and counted at the dispatcher.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from diffusers import AutoencoderKLWan
from measured import measured_and_plan as measured_of
from networks import unmade

from vae_core import Settings, VideoVAE, from_module
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


def measured_and_plan(
    kind: str, shape: tuple[int, int, int], dtype: torch.dtype, numbers=None, **settings
):
    """Peak device bytes of a run for `shape` (sample frames, height, width), and its plan."""
    build = partial(AutoencoderKLWan, base_dim=WIDTH, **(numbers or {}))

    def make() -> VideoVAE:
        return from_module(unmade(build, dtype), device="meta")

    return measured_of(make, kind, shape, Settings(**settings))


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
