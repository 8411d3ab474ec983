"""The budget law where a decoder looks ahead: measured peak <= projected peak, whatever is cut.

The device is played by `meta` inside `FakeTensorMode` and counted at the dispatcher.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from measured import measured_and_plan as measured_of
from networks import unmade
from networks_ltx import narrow_ltx2

from vae_core import Settings, VideoVAE, from_module
from vae_core.planning.memory import SLACK_BYTES

LATENTS = 32
WIDER = {
    "latent_channels": LATENTS,
    "block_out_channels": (64, 128, 128, 256),
    "decoder_block_out_channels": (32, 64, 128),
}


def vae_on_meta(dtype: torch.dtype, **numbers) -> VideoVAE:
    """LTX-2 without memory."""
    return from_module(unmade(partial(narrow_ltx2, **WIDER, **numbers), dtype), device="meta")


def measured_and_plan(
    kind: str, shape: tuple[int, int, int], dtype: torch.dtype, numbers=None, **settings
):
    """Peak device bytes of a run for `shape` (sample frames, height, width), and its plan."""
    make = partial(vae_on_meta, dtype, **(numbers or {}))
    return measured_of(make, kind, shape, Settings(**settings))


GRID = [
    ((1, 128, 192), {"placement": "device"}),
    ((25, 128, 192), {"placement": "device"}),
    ((25, 128, 192), {"placement": "device", "chunk_frames": 8, "tile_px": 64}),
    ((25, 128, 192), {"placement": "caches-on-host", "chunk_frames": 8}),
    ((25, 128, 192), {"placement": "host", "chunk_frames": 8}),
    ((41, 128, 192), {"placement": "host", "chunk_frames": 16, "tile_px": (64, 96)}),
    ((9, 128, 192), {"placement": "host", "chunk_frames": 8, "tile_px": 32}),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("kind", ["encode", "decode"])
@pytest.mark.parametrize(("shape", "settings"), GRID, ids=str)
def test_measured_is_at_most_projected_and_close_to_it(kind, shape, settings, dtype) -> None:
    measured, plan = measured_and_plan(kind, shape, dtype, **settings)
    assert measured <= plan.peak_bytes
    assert plan.peak_bytes - SLACK_BYTES <= 1.25 * measured


@pytest.mark.parametrize(("shape", "settings"), GRID[2:5], ids=str)
def test_the_law_holds_where_a_decoder_is_causal(shape, settings) -> None:
    numbers = {"decoder_causal": True}
    measured, plan = measured_and_plan("decode", shape, torch.bfloat16, numbers, **settings)
    assert measured <= plan.peak_bytes
    assert plan.peak_bytes - SLACK_BYTES <= 1.25 * measured


@pytest.mark.parametrize("shape", [(17, 128, 192), (17, 192, 320), (25, 128, 192)], ids=str)
def test_frames_wait_where_a_short_clip_has_come_to_and_nowhere_else(shape) -> None:
    """A deep network, no two levels of which have frames of so short a clip at a time."""
    numbers, settings = {"decoder_layers_per_block": (5, 5, 5, 5)}, {"placement": "device"}
    measured, plan = measured_and_plan(
        "decode", shape, torch.bfloat16, numbers, chunk_frames=8, **settings
    )
    assert measured <= plan.peak_bytes
    assert plan.peak_bytes - SLACK_BYTES <= 1.25 * measured


def test_a_longer_clip_takes_no_more() -> None:
    settings = Settings(placement="host", chunk_frames=8)
    vae = vae_on_meta(torch.bfloat16)
    plans = [vae.plan_decode((1, LATENTS, n, 8, 8), settings) for n in (41, 121)]
    assert plans[0].peak_bytes == plans[1].peak_bytes
    assert plans[0].far_bytes == plans[1].far_bytes
