"""The budget law where statistics are the whole clip's and attention goes back over all of it:
measured <= projected, and nothing on a device that has memory of its own grows with the clip.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from measured import measured_and_plan as measured_of
from networks import unmade
from networks_hunyuan import narrow_hunyuan

from vae_core import BudgetError, Settings, VideoVAE, from_module
from vae_core.planning.memory import SLACK_BYTES
from vae_core.planning.plan import Plan

WIDTHS = (16, 32, 64, 64)
LATENTS = 16
STATISTICS_BYTES = 1024
"""Of tiles whose statistics are still to be taken together; they never are many."""


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
@pytest.mark.parametrize(
    "settings", [{"placement": "device"}, {"placement": "host", "tile_px": 48}]
)
def test_the_law_holds_for_core_s_result(kind, settings) -> None:
    """Statistics are gathered of every frame, and an encoder's halves in time have a tap more."""
    chosen = {"reference": "core-as-is", **settings}
    measured, plan = measured_and_plan(kind, (21, 96, 80), torch.bfloat16, **chosen)
    assert measured <= plan.peak_bytes
    assert plan.peak_bytes - SLACK_BYTES <= 1.25 * measured


def least_of(kind: str, frames: int, **settings) -> tuple[int, Callable[..., Plan]]:
    """The smallest budget that a plan for so many sample frames fits, and what plans it."""
    vae = from_module(narrow_hunyuan(LATENTS, WIDTHS), device="meta")
    if kind == "encode":
        plan, shape = vae.plan_encode, (1, 3, frames, 96, 96)
    else:
        plan, shape = vae.plan_decode, (1, LATENTS, frames // 4 + 1, 12, 12)
    with pytest.raises(BudgetError) as told:
        plan(shape, Settings(budget_bytes=1, **settings))
    return told.value.smallest_bytes, partial(plan, shape)


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_the_smallest_budget_does_not_grow_with_the_clip(kind) -> None:
    """Stores lie on the host, and tiles are cut in time as well."""
    (short, _), (long, plan) = (least_of(kind, frames) for frames in (13, 61))
    assert long == short
    assert plan(Settings(budget_bytes=long)).peak_bytes <= long


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_the_smallest_budget_fits_and_a_byte_less_does_not(kind) -> None:
    least, plan = least_of(kind, 21)
    assert plan(Settings(budget_bytes=least)).peak_bytes <= least
    with pytest.raises(BudgetError):
        plan(Settings(budget_bytes=least - 1))


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_a_run_in_the_smallest_budget_takes_no_more(kind) -> None:
    vae = from_module(narrow_hunyuan(LATENTS, WIDTHS).bfloat16(), device="meta")
    shape = (1, 3, 13, 48, 48) if kind == "encode" else (1, LATENTS, 4, 6, 6)
    with pytest.raises(BudgetError) as told:
        getattr(vae, f"plan_{kind}")(shape, Settings(budget_bytes=1))
    least = told.value.smallest_bytes
    measured, plan = measured_and_plan(kind, (13, 48, 48), torch.bfloat16, budget_bytes=least)
    assert measured <= plan.peak_bytes <= least


@pytest.mark.parametrize("kind", ["encode", "decode"])
@pytest.mark.parametrize("placement", ["caches-on-host", "host"])
def test_a_longer_clip_takes_no_more_of_the_device(kind, placement) -> None:
    """What there is of all of it lies on the host: its stores too, since it is one chunk."""
    short, long = (
        measured_and_plan(kind, (frames, 48, 48), torch.bfloat16, placement=placement)
        for frames in (25, 61)
    )
    assert long[0] <= short[0] + STATISTICS_BYTES
    assert long[1].peak_bytes == short[1].peak_bytes
