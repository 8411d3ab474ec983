"""The budget law where the device's memory is the host's: measured <= projected <= budget.

Real runs of narrow networks, counted at the dispatcher, with what a user can ask for.
"""

from __future__ import annotations

import pytest
import torch
from device_bytes import DeviceBytes
from networks import random_latents, random_module, random_video

from vae_core import BudgetError, Settings, from_module


def network(dtype: torch.dtype, channels=(16, 16, 32, 32)):
    return from_module(random_module(dtype, channels, groups=8, latent_channels=4))


def source(kind: str, shape: tuple[int, int, int], batch: int, dtype: torch.dtype):
    """A video of `shape` (sample frames, height, width), or latents of one."""
    frames, h, w = shape
    if kind == "encode":
        return random_video(frames, h, w, dtype, batch)
    return random_latents((frames - 1) // 4 + 1, h // 8, w // 8, dtype, batch)


def measured(vae, kind: str, x: torch.Tensor, settings: Settings) -> int:
    """Peak bytes of a run, its result apart."""
    with DeviceBytes("cpu") as counter:
        result = vae.encode(x, settings).mean if kind == "encode" else vae.decode(x, settings)
    whole = 2 * result.nbytes if kind == "encode" else result.nbytes  # variances beside the means
    return counter.peak_bytes - whole


ASKED = [
    ("encode", (9, 64, 64), 1, {"tile_px": 60}),
    ("decode", (9, 64, 64), 1, {"tile_px": 60}),
    ("encode", (8, 37, 45), 2, {}),
    ("decode", (9, 40, 56), 2, {"tile_px": (16, 40)}),
    ("encode", (9, 43, 30), 2, {"norm_scope": "clip", "tile_px": 24}),
    ("encode", (7, 45, 61), 1, {"placement": "mmap"}),
    ("decode", (9, 40, 40), 1, {"placement": "host", "tile_px": 24}),
    ("decode", (9, 72, 72), 3, {"placement": "caches-on-host", "layout": "diffusers"}),
    ("encode", (9, 40, 40), 1, {"tiling": "off"}),
]


@pytest.mark.parametrize(("kind", "shape", "batch", "settings"), ASKED)
def test_measured_is_at_most_projected_on_a_processor(kind, shape, batch, settings) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        vae, x = network(dtype), source(kind, shape, batch, dtype)
        plan = (vae.plan_encode if kind == "encode" else vae.plan_decode)(
            x.shape, Settings(**settings)
        )
        assert measured(vae, kind, x, Settings(**settings)) <= plan.peak_bytes


def test_room_is_made_for_the_largest_tile_that_occurs() -> None:
    """Of a bound of 60 pixels, two tiles of 32 make up a picture of 64."""
    vae, video = network(torch.float32), source("encode", (9, 64, 64), 1, torch.float32)
    peaks = [measured(vae, "encode", video, Settings(tile_px=side)) for side in (60, 32)]
    assert peaks[0] == peaks[1]


@pytest.mark.parametrize("placement", ["host", "caches-on-host", "device"])
def test_host_memory_is_no_way_out_of_a_budget_on_a_processor(placement: str) -> None:
    vae, latents = network(torch.float32), random_latents(2, 4, 5)
    with pytest.raises(BudgetError) as refusal:
        vae.plan_decode(latents.shape, Settings(placement=placement, budget_bytes=1))
    budget = refusal.value.smallest_bytes
    settings = Settings(placement=placement, budget_bytes=budget)
    assert measured(vae, "decode", latents, settings) <= budget


@pytest.mark.parametrize("size", [(7, 61, 91), (8, 64, 88)])
def test_a_padded_clip_on_disk_is_never_in_memory(size: tuple[int, int, int]) -> None:
    """What is collected from a stream stays in its file, however it is padded."""
    vae, video = network(torch.float32), random_video(*size)
    settings = Settings(norm_scope="clip", placement="mmap", tile_px=16)
    plan = vae.plan_encode(video.shape, settings)
    with DeviceBytes("cpu") as counter:
        for _ in vae.encode_stream(iter(video.unbind(2)), settings):
            pass
    assert counter.peak_bytes <= plan.peak_bytes
