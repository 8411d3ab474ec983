"""Do the benchmarks count what they say, and do the limits hold?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.clips import Clip
from benchmarks.counting import Count, Counter
from benchmarks.families import FAMILIES
from benchmarks.limits import (
    BOUNDS,
    attention_limits,
    length_limits,
    memory_limits,
    operation_limits,
    projection_limits,
)
from benchmarks.quick import (
    counted_operations,
    counted_peak,
    planned_attention,
    planned_operations,
    projected_limits,
    row_of,
)
from benchmarks.recording import Recorder, Replay
from benchmarks.rows import Case
from benchmarks.sides import Diffusers, Ours, attention_operations
from benchmarks.timing import quarter_px

GIB, TERA = 2**30, 1e12
KINDS = ("encode", "decode")
SHORT = Clip(9, 480, 720)

DIFFUSERS_GIB_TFLOP = {
    ("encode", False): (4.88, 29),
    ("decode", False): (11.06, 59),
    ("encode", True): (1.23, 40),
    ("decode", True): (2.78, 82),
}
"""9x480x720 in bfloat16, as counted elsewhere with diffusers 0.42.1."""


AROUND = {"hunyuan": 1.017}
"""A row and a column more, where the convolutions that double the size see three frames each."""


def assert_all_met(limits) -> None:
    failed = [str(limit) for limit in limits if not limit.met]
    assert failed == []


@pytest.mark.parametrize(("kind", "tiled"), DIFFUSERS_GIB_TFLOP)
def test_diffusers_counts_what_was_counted_elsewhere(kind, tiled) -> None:
    found = Diffusers(tiled).count(kind, SHORT)
    gib, tera = DIFFUSERS_GIB_TFLOP[kind, tiled]
    assert found.peak_bytes / GIB == pytest.approx(gib, abs=0.01)
    assert found.operations / TERA == pytest.approx(tera, abs=0.5)


def test_operations_are_those_of_the_flop_counter() -> None:
    with torch.device("meta"):
        conv, x = torch.nn.Conv3d(4, 8, 3, stride=(1, 2, 2)), torch.empty(2, 4, 5, 9, 11)
    with Counter() as counter, FlopCounterMode(display=False) as reference:
        conv(x)
    assert counter.operations == reference.get_total_flops() > 0


def test_moved_bytes_are_those_that_change_devices() -> None:
    x = torch.zeros(3, 5)
    with Counter() as counter:
        y = x.to("meta")
        y.copy_(x)
        x.copy_(x + 1)
        y.half()
    assert counter.moved_bytes == 2 * x.nbytes


def test_a_count_added_again_is_as_though_it_had_run_again() -> None:
    def work() -> None:
        torch.empty(100, device="meta").add(1)

    with Counter() as counter:
        kept = torch.empty(10, device="meta")
        found = counter.measure(work)
        more = torch.empty(30, device="meta")
        counter.add(found)
    assert found == Count(800, 0, 0)
    assert counter.peak_bytes == kept.nbytes + more.nbytes + 800


@pytest.mark.parametrize(
    ("kind", "placement", "clip"),
    [
        ("encode", "caches-on-host", Clip(17, 32, 128)),
        ("decode", "host", Clip(17, 32, 128)),
    ],
)
@pytest.mark.parametrize(
    ("scope", "family"),
    [
        ("chunk", "cogvideox"),
        ("clip", "cogvideox"),
        ("chunk", "wan"),
        ("chunk", "hunyuan15"),
        ("clip", "hunyuan"),
    ],
)
def test_one_tile_of_each_kind_counts_what_all_tiles_count(
    kind, placement, clip, scope, family
) -> None:
    all_tiles, one_of_each = (
        Ours(placement, tile_px=32, every_tile=every, norm_scope=scope).count(kind, clip, family)
        for every in (True, False)
    )
    assert one_of_each == all_tiles


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_counted_operations_are_the_planned_ones(kind, family) -> None:
    grid = FAMILIES[family].grid
    tile_px = grid.px**2  # a border weighs as much where cells are larger
    side, clip = Ours("device", tile_px=tile_px), Clip(9, tile_px, 3 * tile_px // 2).on(grid)
    planned, found = side.plan(kind, clip, family), side.count(kind, clip, family)
    attention = attention_operations(planned)
    # squares of outputs are made at once on a device, with one more row and column of them
    beside = found.operations / (planned.operations - attention)
    assert 0.999 <= beside <= (1.001 if kind == "encode" else AROUND.get(family, 1.006))
    assert found.attention == pytest.approx(attention, rel=1e-3)


def test_an_attention_counts_alike_in_one_call_and_in_products() -> None:
    with torch.device("meta"):
        queries, keys, values = torch.empty(2, 6, 8), torch.empty(2, 10, 8), torch.empty(2, 10, 8)
    with torch.inference_mode(), Counter() as fused, FlopCounterMode(display=False) as reference:
        F.scaled_dot_product_attention(queries, keys, values)
    with Counter() as apart:
        torch.zeros_like(queries).baddbmm_(torch.bmm(queries, keys.transpose(1, 2)), values)
    assert fused.attention == apart.attention == reference.get_total_flops() > 0
    assert fused.operations == apart.operations == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_first_frame_after_zeros_is_computed_with_one_tap_in_time(kind) -> None:
    untiled = Diffusers().count(kind, Clip(5, 64, 96), "wan").operations
    one_frame = Diffusers().count(kind, Clip(1, 64, 96), "wan").operations
    found = Ours("device").count(kind, Clip(5, 64, 96), "wan").operations
    assert untiled - found > 0.5 * one_frame


@pytest.mark.parametrize("family", FAMILIES)
def test_projected_memory_is_within_every_limit(family) -> None:
    assert_all_met(projected_limits(family))


def test_wan_computes_no_more_than_core_at_every_tile_size() -> None:
    bounds = BOUNDS["wan"]
    where = (bounds.tiled, bounds.tiles_px, "wan")
    assert_all_met(operation_limits(planned_operations, *where))
    assert_all_met(attention_limits(planned_attention, *where))


@pytest.mark.slow
def test_counted_memory_is_within_every_limit() -> None:
    assert_all_met(memory_limits(counted_peak))


@pytest.mark.slow
def test_a_long_clip_takes_the_memory_of_a_short_one() -> None:
    assert_all_met(length_limits(counted_peak))


def clip_scope_ratio(kind: str, size: str, long: int, short: int) -> float:
    """Device bytes of a long clip over those of a short one, statistics over the whole clip."""
    side = Ours("host", norm_scope="clip")
    peaks = [side.count(kind, Clip.parse(f"{n}x{size}")).peak_bytes for n in (long, short)]
    print(f"clip scope, host, {kind} {size}: {peaks[0]} bytes at {long}, {peaks[1]} at {short}")
    return peaks[0] / peaks[1]


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_of_a_longer_clip_take_no_more_of_the_device(kind) -> None:
    assert abs(clip_scope_ratio(kind, "64x96", long=49, short=25) - 1) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_statistics_of_249_frames_take_what_those_of_49_take(kind) -> None:
    assert abs(clip_scope_ratio(kind, "480x720", long=249, short=49) - 1) < 0.05


@pytest.mark.slow
def test_exact_tiles_compute_no_more_than_the_untiled_network() -> None:
    bounds = BOUNDS["cogvideox"]
    assert_all_met(operation_limits(counted_operations, bounds.tiled, bounds.tiles_px))


@pytest.mark.slow
def test_projections_are_close_to_what_is_counted() -> None:
    cases = [
        Case(Ours(placement), kind, Clip(17, 480, 720))
        for placement in ("device", "caches-on-host", "host")
        for kind in KINDS
    ]
    assert_all_met(projection_limits(map(row_of, cases)))


def test_a_replay_runs_the_recorded_convolutions() -> None:
    conv, x = torch.nn.Conv3d(4, 8, 3), torch.zeros(1, 4, 5, 9, 11)
    with torch.inference_mode(), Recorder() as recorder:
        conv(x)
        conv(x[..., 1:])
    with Recorder() as again:
        Replay(recorder.calls, torch.float32).run()
    assert again.calls == recorder.calls
    assert len(again.calls) == 2


@pytest.mark.parametrize("clip", [Clip(9, 128, 192), Clip(9, 240, 360)])
def test_four_tiles_of_diffusers_cover_a_timed_clip(clip) -> None:
    height, width = quarter_px(clip)
    assert height % 48 == width % 40 == 0
    assert height < clip.height <= 2 * (height * 5 // 6)
    assert width < clip.width <= 2 * (width * 4 // 5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tiled", [False, True], ids=["untiled", "tiled"])
def test_a_peers_calls_are_counted_once_as_though_each_had_run(kind, tiled) -> None:
    clip = Clip(13, 272, 480)
    found, every = (Diffusers(tiled, every_call).count(kind, clip, "wan") for every_call in (0, 1))
    assert found == every
    assert found.attention > 0
