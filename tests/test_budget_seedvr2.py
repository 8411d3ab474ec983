"""The budget law for a network with statistics of frames: measured peak <= projected peak <= 1.25
measured.

The device is played by `meta` inside `FakeTensorMode` and counted at the dispatcher.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from measured import measured_and_plan as measured_of
from networks import unmade

from vae_core import Settings, VideoVAE, from_module
from vae_core.families.seedvr2_network import SeedVR2VAE
from vae_core.planning.memory import SLACK_BYTES

WIDTHS = (32, 64, 128, 128)


def measured_and_plan(
    kind: str, shape: tuple[int, int, int], dtype: torch.dtype, batch: int = 1, **settings
):
    """Peak device bytes of a run for `shape` (sample frames, height, width), and its plan."""
    build = partial(SeedVR2VAE, block_out_channels=WIDTHS, layers_per_block=1)

    def make() -> VideoVAE:
        return from_module(unmade(build, dtype), device="meta")

    return measured_of(make, kind, shape, Settings(**settings), batch)


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
