"""Does a plan count its work as if every crop and every chunk were walked?"""

from __future__ import annotations

import pytest
from networks import random_module

from vae_core import Settings, from_module
from vae_core.geometry.grid import count_tiles
from vae_core.planning.plan import Plan, chunk_extent
from vae_core.program.known import operations_of

VAE = from_module(random_module())
SETTINGS = [
    Settings(tile_px=16),
    Settings(tiling="blend", tile_px=48, overlap_px=16),
    Settings(tiling="blend", tile_px=48, overlap_px=16, blend_order="reference"),
    Settings(layout="diffusers", chunk_frames=12, frame_fit="error"),
    Settings(norm_scope="clip", tile_px=32),
]


def walked(plan: Plan) -> tuple[int, int]:
    """Operations and tiles, crop by crop and chunk by chunk."""
    operations = tiles = 0
    for crop in plan.crops:
        for chunk in plan.chunks:
            extent = chunk_extent(crop, chunk)
            operations += crop.batch * operations_of(crop.program, extent, chunk)
            extents = crop.program.extents(extent, chunk)
            for step, largest in zip(crop.program.steps, plan.tiles, strict=True):
                tiles += count_tiles(step.cell_extent(extents[step.src], chunk), largest)
    return operations, tiles


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.tiling.value)
@pytest.mark.parametrize("frames", [1, 7, 12])
def test_work_of_a_kind_is_counted_once_and_multiplied(settings: Settings, frames: int) -> None:
    for plan in (
        VAE.plan_decode((2, 4, frames, 15, 22), settings),
        VAE.plan_encode((2, 3, 4 * frames - 3, 120, 176), settings),
    ):
        assert (plan.operations, plan.tile_count()) == walked(plan)
        met = sum(times for _, _, times in plan.work())
        assert met == len(plan.crops) * len(plan.chunks)
