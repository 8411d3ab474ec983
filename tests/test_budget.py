"""The budget law: measured peak <= projected peak <= budget, or an error before the first kernel.

The device is played by `meta` inside `FakeTensorMode` and counted at the dispatcher.
"""

from __future__ import annotations

import math
import re

import pytest
import torch
from device_bytes import DeviceBytes
from measured import measured_and_plan as measured_of
from networks import full_size_module, unmade_module
from torch._subclasses.fake_tensor import FakeTensorMode

from vae_core import BudgetError, Settings, VideoVAE, from_module
from vae_core.families.cogvideox import lower_decoder, lower_encoder
from vae_core.geometry.region import Extent
from vae_core.planning.machine import Machine
from vae_core.planning.memory import SLACK_BYTES
from vae_core.planning.plan import Job
from vae_core.planning.planner import make_plan
from vae_core.program.rewrites import narrow_in_place, unique_frames

MIB, GIB = 2**20, 2**30
FULL_SIZE = full_size_module()
ENCODER = lower_encoder(FULL_SIZE)
DECODER = narrow_in_place(unique_frames(lower_decoder(FULL_SIZE)))
CARD = Machine(apart=True, workspace_bytes=256 * MIB)


def measured_and_plan(kind: str, shape, dtype=torch.bfloat16, **settings):
    """Peak device bytes of a run of the full-size network, and the plan that it followed.

    shape: (sample frames, height, width).
    """

    def make() -> VideoVAE:
        return from_module(full_size_module(dtype), device="meta")

    return measured_of(make, kind, shape, Settings(**{"tile_px": None, **settings}))


def assert_honest(measured: int, plan) -> None:
    """Projected is no less than measured, and no more than 1.15 times it, slack apart."""
    assert measured <= plan.peak_bytes
    assert plan.peak_bytes - SLACK_BYTES <= 1.15 * measured


GRID = [
    ("encode", (1, 64, 96), {}),
    ("decode", (1, 64, 96), {}),
    ("encode", (9, 96, 160), {"placement": "device"}),
    ("decode", (9, 96, 160), {"placement": "device"}),
    ("encode", (9, 96, 160), {"placement": "caches-on-host", "budget_bytes": 120 * MIB}),
    ("decode", (9, 96, 160), {"placement": "caches-on-host", "budget_bytes": 150 * MIB}),
    ("encode", (17, 96, 160), {"placement": "host", "budget_bytes": 30 * MIB}),
    ("decode", (9, 96, 160), {"placement": "host", "budget_bytes": 60 * MIB}),
    ("decode", (9, 64, 96), {"chunk_frames": 4, "tile_px": 48}),
    ("encode", (17, 64, 96), {"norm_scope": "clip", "placement": "host", "tile_px": 48}),
    ("decode", (9, 64, 96), {"norm_scope": "clip", "placement": "host"}),
    ("decode", (16, 64, 96), {"layout": "diffusers", "chunk_frames": 12}),
]


@pytest.mark.parametrize(("kind", "shape", "settings"), GRID)
def test_measured_is_at_most_projected_and_close_to_it(kind, shape, settings) -> None:
    measured, plan = measured_and_plan(kind, shape, **settings)
    assert_honest(measured, plan)
    assert plan.peak_bytes <= settings.get("budget_bytes", plan.peak_bytes)


def narrow(dtype: torch.dtype = torch.bfloat16):
    return unmade_module(dtype, (16, 16, 32, 32), groups=8, layers=1)


ASKED = [
    ("encode", (8, 52, 60), 1, {"placement": "host", "tile_px": 40}),
    ("encode", (6, 45, 61), 2, {"norm_scope": "clip", "placement": "host", "tile_px": (60, 24)}),
    ("decode", (5, 64, 64), 2, {"tile_px": 60}),
    ("decode", (9, 40, 48), 3, {"placement": "caches-on-host", "layout": "diffusers"}),
]


@pytest.mark.parametrize(("kind", "shape", "batch", "settings"), ASKED)
def test_projections_hold_for_what_users_ask(kind, shape, batch, settings) -> None:
    """Odd sizes, several clips, tiles of any size, and a clip that lies on the device; its own
    bytes and those of the result are the caller's.
    """
    frames, h, w = shape
    chosen, dtype = Settings(**settings), torch.bfloat16
    with FakeTensorMode():
        vae = from_module(narrow(), device="meta")
        sizes = (3, *shape) if kind == "encode" else (16, (frames - 1) // 4 + 1, h // 8, w // 8)
        x = torch.empty(batch, *sizes, dtype=dtype, device="meta")
        plan = (vae.plan_encode if kind == "encode" else vae.plan_decode)(x.shape, chosen)
        with DeviceBytes("meta") as counter:
            result = vae.encode(x, chosen).moments if kind == "encode" else vae.decode(x, chosen)
    own = 2 * result.nbytes if kind == "encode" else result.nbytes
    assert counter.peak_bytes - own <= plan.peak_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_projections_hold_in_every_dtype(dtype) -> None:
    for kind in ("encode", "decode"):
        assert_honest(*measured_and_plan(kind, (9, 64, 96), dtype))


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["device", "caches-on-host", "host"])
@pytest.mark.parametrize("kind", ["encode", "decode"])
@pytest.mark.parametrize("shape", [(17, 480, 720), (49, 240, 368), (9, 768, 1360)])
def test_projections_hold_at_real_sizes(kind, shape, placement) -> None:
    assert_honest(*measured_and_plan(kind, shape, placement=placement))


def job(program, frames: int, height: int, width: int) -> Job:
    encoding = program is ENCODER
    source = Extent(frames, height, width)
    latents = Extent((frames - 1) // 4 + 1, height // 8, width // 8)
    return Job(program, 1, source if encoding else latents, 2)


@pytest.mark.parametrize("program", [ENCODER, DECODER], ids=["encode", "decode"])
@pytest.mark.parametrize("shape", [(49, 480, 720), (9, 256, 256), (81, 768, 1360)])
def test_a_larger_budget_never_makes_a_slower_plan(program, shape) -> None:
    with pytest.raises(BudgetError) as refusal:
        make_plan(job(program, *shape), Settings(tile_px=None, budget_bytes=MIB), CARD)
    budget, before = refusal.value.smallest_bytes, None
    while budget < 24 * GIB:
        plan = make_plan(job(program, *shape), Settings(tile_px=None, budget_bytes=budget), CARD)
        assert plan.peak_bytes <= budget
        cost = (plan.operations, plan.moved_bytes + plan.copied_bytes)
        assert before is None or cost <= before, f"{budget} bytes: {cost} after {before}"
        before, budget = cost, int(budget * 1.31)
    assert plan.moved_bytes == 0


@pytest.mark.parametrize("program", [ENCODER, DECODER], ids=["encode", "decode"])
def test_a_byte_less_than_the_smallest_budget_is_refused(program) -> None:
    clip = job(program, 49, 480, 720)
    with pytest.raises(BudgetError) as refusal:
        make_plan(clip, Settings(budget_bytes=MIB), CARD)
    error = refusal.value
    assert error.worst_path in str(error)
    shown = math.ceil(error.smallest_bytes / MIB * 10) / 10
    assert f"smallest budget that fits: {shown:.1f} MiB" in str(error)
    make_plan(clip, Settings(budget_bytes=error.smallest_bytes), CARD)
    with pytest.raises(BudgetError):
        make_plan(clip, Settings(budget_bytes=error.smallest_bytes - 1), CARD)


KINDS = {
    "caches that come and go": (DECODER, (77, 216, 344), {"placement": "caches-on-host"}),
    "tiles of a size": (ENCODER, (69, 48, 392), {"placement": "caches-on-host", "tile_px": 64}),
    "whole pictures": (ENCODER, (73, 16, 88), {"tiling": "off", "chunk_frames": 16}),
    "crops": (ENCODER, (33, 72, 80), {"tiling": "blend", "tile_px": 64, "overlap_px": 16}),
    "an odd tail": (DECODER, (13, 240, 80), {"chunk_frames": 4}),
    "diffusers": (DECODER, (77, 400, 176), {"layout": "diffusers", "chunk_frames": 12}),
    "clip": (ENCODER, (33, 240, 80), {"norm_scope": "clip", "tile_px": (48, 300)}),
    "a long narrow one": (ENCODER, (77, 440, 24), {"chunk_frames": 16}),
}
PROCESSOR = Machine(apart=False, workspace_bytes=48 * MIB)


@pytest.mark.parametrize("machine", [CARD, PROCESSOR], ids=["card", "processor"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_budget_fits_and_so_does_every_larger_one(kind: str, machine) -> None:
    program, shape, settings = KINDS[kind]

    def fits(budget: int) -> bool:
        try:
            plan = make_plan(
                job(program, *shape), Settings(**settings, budget_bytes=budget), machine
            )
        except BudgetError:
            return False
        assert plan.peak_bytes <= budget
        return True

    with pytest.raises(BudgetError) as refusal:
        make_plan(job(program, *shape), Settings(**settings, budget_bytes=1), machine)
    smallest = refusal.value.smallest_bytes
    assert not fits(smallest - 1)
    assert all(fits(int(smallest * factor)) for factor in (1, 1.0001, 1.03, 1.2, 1.7, 3, 9))
    printed = re.search(r"smallest budget that fits: ([0-9.]+) (GiB|MiB)", str(refusal.value))
    assert printed
    assert fits(int(float(printed[1]) * {"GiB": GIB, "MiB": MIB}[printed[2]]))


def test_device_bytes_are_flat_in_clip_length() -> None:
    for norm_scope in ("chunk", "clip"):
        settings = Settings(norm_scope=norm_scope, placement="host")
        peaks = [
            make_plan(job(program, frames, 480, 720), settings, CARD).peak_bytes
            for program in (ENCODER, DECODER)
            for frames in (49, 249)
        ]
        assert peaks[1] <= 1.05 * peaks[0]
        assert peaks[3] <= 1.05 * peaks[2]


def test_stores_go_to_disk_where_the_host_has_no_room() -> None:
    clip, tight = job(DECODER, 249, 480, 720), Machine(True, 256 * MIB, host_bytes=4 * GIB)
    settings = Settings(norm_scope="clip", placement="auto", budget_bytes=GIB)
    assert make_plan(clip, settings, CARD).placement.value == "host"
    assert make_plan(clip, settings, tight).placement.value == "mmap"


def test_a_processor_spills_to_disk_before_it_gives_up() -> None:
    processor = Machine(apart=False, workspace_bytes=24 * MIB, host_bytes=2 * GIB)
    plan = make_plan(job(DECODER, 49, 480, 720), Settings(), processor)
    assert plan.placement.value == "mmap"
    assert plan.peak_bytes <= 2 * GIB
