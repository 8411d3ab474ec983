"""The budget law for a network that looks back at all earlier frames: measured <= projected, and
neither grows with the clip on a device that has memory of its own.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from measured import measured_and_plan as measured_of
from networks import unmade
from networks_hunyuan import narrow_hunyuan_1_5

from vae_core import Settings, VideoVAE, from_module
from vae_core.planning.memory import SLACK_BYTES

WIDTHS = (32, 64, 64, 64, 64)
LATENTS = 16


def measured_and_plan(kind: str, shape: tuple[int, int, int], dtype: torch.dtype, **settings):
    """Peak device bytes of a run for `shape` (sample frames, height, width), and its plan."""

    def make() -> VideoVAE:
        return from_module(
            unmade(partial(narrow_hunyuan_1_5, LATENTS, WIDTHS), dtype), device="meta"
        )

    return measured_of(make, kind, shape, Settings(**settings))


GRID = [
    ((1, 96, 160), {"placement": "device"}),
    ((9, 96, 160), {"placement": "caches-on-host"}),
    ((9, 96, 160), {"placement": "host", "tile_px": 48}),
    ((9, 96, 160), {"placement": "device", "chunk_frames": 4, "tile_px": 64}),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encode", "decode"])
@pytest.mark.parametrize(("shape", "settings"), GRID, ids=str)
def test_measured_is_at_most_projected_and_close_to_it(kind, shape, settings) -> None:
    measured, plan = measured_and_plan(kind, shape, torch.bfloat16, **settings)
    assert measured <= plan.peak_bytes
    assert plan.peak_bytes - SLACK_BYTES <= 1.25 * measured


@pytest.mark.parametrize("kind", ["encode", "decode"])
@pytest.mark.parametrize("placement", ["device", "host"])
def test_nothing_on_the_device_grows_with_the_clip(kind, placement) -> None:
    settings = {"placement": placement, "chunk_frames": 4, "tile_px": 48}
    runs = [
        measured_and_plan(kind, (frames, 48, 48), torch.bfloat16, **settings) for frames in (13, 21)
    ]
    (short, plan), (long, longer) = runs
    assert long == short
    assert longer.peak_bytes == plan.peak_bytes
    frame_bytes = 2 * WIDTHS[-1] * 3 * 3 * 2  # keys and values of a latent frame, in 16 bits
    assert longer.far_bytes - plan.far_bytes == 2 * frame_bytes


def test_where_memory_is_the_processor_s_own_the_keys_count_in_the_budget() -> None:
    vae = from_module(narrow_hunyuan_1_5(LATENTS, WIDTHS), device="cpu")
    settings = Settings(placement="device", chunk_frames=4)
    plans = [vae.plan_decode((1, LATENTS, frames, 6, 6), settings) for frames in (9, 29)]
    frame_bytes = 2 * WIDTHS[-1] * 6 * 6 * 4
    assert plans[1].peak_bytes - plans[0].peak_bytes == 20 * frame_bytes


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_the_law_holds_where_all_chunks_are_gathered_first(kind) -> None:
    settings = {"placement": "device", "chunk_frames": 4, "reference": "core"}
    runs = [
        measured_and_plan(kind, (frames, 48, 48), torch.bfloat16, **settings) for frames in (13, 21)
    ]
    for measured, plan in runs:
        assert measured <= plan.peak_bytes
        assert plan.peak_bytes - SLACK_BYTES <= 1.25 * measured
    assert runs[0][0] == runs[1][0]
