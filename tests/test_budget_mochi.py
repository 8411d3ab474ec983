"""Does a Mochi VAE stay within what was projected, and is that close to what it takes?"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from measured import measured_and_plan as measured_of
from networks import unmade
from networks_mochi import narrow_mochi

from vae_core import Settings, VideoVAE, from_module
from vae_core.families.mochi_network import MochiVAE
from vae_core.planning.memory import SLACK_BYTES

NUMBERS = {
    "encoder_block_out_channels": (32, 64, 96, 128),
    "decoder_block_out_channels": (64, 96, 128, 128),
    "layers_per_block": (1, 1, 1, 1, 1),
}


def measured_and_plan(
    kind: str, shape: tuple[int, int, int], dtype: torch.dtype, batch: int = 1, **settings
):
    """Peak device bytes of a run for `shape` (sample frames, height, width), and its plan."""

    def make() -> VideoVAE:
        return from_module(unmade(partial(MochiVAE, **NUMBERS), dtype), device="meta")

    return measured_of(make, kind, shape, Settings(**settings), batch)


GRID = [
    ((1, 96, 160), {"placement": "device"}),
    ((7, 96, 160), {"placement": "device"}),
    ((31, 64, 96), {"placement": "device", "chunk_frames": 12}),
    ((31, 64, 96), {"placement": "caches-on-host", "chunk_frames": 12}),
    ((25, 96, 160), {"placement": "host", "chunk_frames": 24}),
    ((25, 96, 160), {"placement": "host", "tile_px": 32}),
    ((7, 96, 160), {"placement": "host", "tile_px": (48, 160)}),
    ((1, 96, 160), {"placement": "host", "tile_px": 16}),
    ((13, 96, 160), {"placement": "device", "tile_px": 64}),
    ((7, 96, 160), {"placement": "host", "batch": 2}),
]


def check(measured: int, projected: int) -> None:
    assert measured <= projected
    assert projected - SLACK_BYTES <= 1.25 * measured


@pytest.mark.parametrize("kind", ["encode", "decode"])
@pytest.mark.parametrize(("shape", "settings"), GRID, ids=str)
def test_measured_is_at_most_projected_and_close_to_it(kind, shape, settings) -> None:
    dtype = torch.float32 if shape[0] == 7 else torch.bfloat16
    measured, plan = measured_and_plan(kind, shape, dtype, **settings)
    check(measured, plan.peak_bytes)


@pytest.mark.parametrize("placement", ["device", "host"])
def test_so_is_diffusers_class_whose_first_frames_are_more(placement) -> None:
    def make() -> VideoVAE:
        return from_module(unmade(narrow_mochi, torch.bfloat16), device="meta")

    settings = Settings(placement=placement, chunk_frames=12)
    measured, plan = measured_of(make, "decode", (19, 96, 160), settings)
    assert plan.reference == "diffusers"
    check(measured, plan.peak_bytes)


@pytest.mark.parametrize("placement", ["caches-on-host", "host"])
def test_so_is_core_s_encoder_which_takes_the_clip_as_one_chunk(placement) -> None:
    settings = {"placement": placement, "chunk_frames": 12, "reference": "core"}
    measured, plan = measured_and_plan("encode", (31, 64, 96), torch.bfloat16, **settings)
    assert len(plan.chunks) == 1
    check(measured, plan.peak_bytes)


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_a_budget_is_kept(kind) -> None:
    shape, dtype = (25, 96, 160), torch.bfloat16
    free = measured_and_plan(kind, shape, dtype, placement="host")[1].peak_bytes
    for share in (0.5, 0.8):
        budget = int(share * free)
        measured, plan = measured_and_plan(kind, shape, dtype, budget_bytes=budget)
        assert measured <= plan.peak_bytes <= budget
