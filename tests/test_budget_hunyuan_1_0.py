"""The budget law where statistics are the whole clip's and attention goes back over all of it:
measured <= projected, and nothing on a device that has memory of its own grows with the clip.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from measured import measured_and_plan as measured_of
from networks import unmade
from networks_hunyuan import narrow_hunyuan

from vae_core import BudgetError, Settings, VideoVAE, from_module
from vae_core.planning.memory import SLACK_BYTES

WIDTHS = (16, 32, 64, 64)
LATENTS = 16


def measured_and_plan(kind: str, shape: tuple[int, int, int], dtype: torch.dtype, **settings):
    """Peak device bytes of a run for `shape` (sample frames, height, width), and its plan."""

    def make() -> VideoVAE:
        return from_module(unmade(partial(narrow_hunyuan, LATENTS, WIDTHS), dtype), device="meta")

    return measured_of(make, kind, shape, Settings(**settings))


GRID = [
    ((1, 96, 160), {"placement": "device"}),
    ((9, 96, 160), {"placement": "device"}),
    ((9, 96, 160), {"placement": "caches-on-host"}),
    ((9, 96, 160), {"placement": "host", "tile_px": 48}),
    ((21, 96, 80), {"placement": "host"}),
]


@pytest.mark.parametrize("kind", ["encode", "decode"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("shape", "settings"), GRID, ids=str)
def test_measured_is_at_most_projected_and_close_to_it(kind, dtype, shape, settings) -> None:
    measured, plan = measured_and_plan(kind, shape, dtype, **settings)
    assert measured <= plan.peak_bytes
    assert plan.peak_bytes - SLACK_BYTES <= 1.25 * measured


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_nothing_on_the_device_grows_with_the_clip_where_stores_are_on_the_host(kind) -> None:
    settings = {"placement": "host", "tile_px": 48}
    runs = [
        measured_and_plan(kind, (frames, 48, 48), torch.bfloat16, **settings) for frames in (13, 29)
    ]
    (short, plan), (long, longer) = runs
    assert long == short
    assert longer.peak_bytes == plan.peak_bytes
    assert longer.far_bytes > plan.far_bytes


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_the_smallest_budget_fits_and_a_byte_less_does_not(kind) -> None:
    vae = from_module(narrow_hunyuan(LATENTS, WIDTHS), device="meta")
    plan = vae.plan_encode if kind == "encode" else vae.plan_decode
    shape = (1, 3, 21, 96, 96) if kind == "encode" else (1, LATENTS, 6, 12, 12)
    with pytest.raises(BudgetError) as told:
        plan(shape, Settings(budget_bytes=1))
    least = told.value.smallest_bytes
    assert plan(shape, Settings(budget_bytes=least)).peak_bytes <= least
    with pytest.raises(BudgetError):
        plan(shape, Settings(budget_bytes=least - 1))
