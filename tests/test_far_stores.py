"""What goes between a device and stores on the host: is it the same, copied once, and in good time?

A processor that is treated as an accelerator computes real numbers, with copies that are made when
they are started; `meta` plays the device where only bytes matter.
"""

from __future__ import annotations

import gc

import card  # noqa: F401, meta has its kernels from here on
import pytest
import torch
from benchmarks.families import FAMILIES
from contract import assert_close
from device_bytes import DeviceBytes
from networks import full_size_module, random_latents, random_module
from played_card import MACHINE
from torch._subclasses.fake_tensor import FakeTensorMode
from traffic import Traffic

from vae_core import Settings, from_module
from vae_core.geometry.region import Extent
from vae_core.planning.plan import Job
from vae_core.planning.planner import make_plan
from vae_core.running import kernels
from vae_core.running.pinned import Pinned
from vae_core.running.residence import Residence
from vae_core.running.tile import TileRunner
from vae_core.running.transfers import CudaLanes, Transfers


class NoCuda:
    """What of `torch.cuda` the lanes use, where nothing is late."""

    class Stream:
        def __init__(self, _device: object = None) -> None:
            pass

        def record_event(self) -> NoCuda.Stream:
            return self

        def wait_event(self, event: object) -> None:
            pass

        def synchronize(self) -> None:
            pass

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pass

    def synchronize(self) -> None:
        pass

    def current_stream(self, _device: object) -> NoCuda.Stream:
        return self.Stream()

    def stream(self, stream: NoCuda.Stream) -> NoCuda.Stream:
        return stream


def pinned_lanes(device: torch.device) -> CudaLanes:
    """Lanes to `device`, to which all stores are pinned."""
    return CudaLanes(device, NoCuda())


def copied_by_the_processor(kind: str, shape, monkeypatch, **settings) -> float:
    """Bytes that the processor copies for each byte that is moved, with stores in host memory.

    shape: (sample frames, height, width).
    """
    monkeypatch.setattr("vae_core.running.execute.lanes_for", pinned_lanes)
    monkeypatch.setattr(CudaLanes, "is_pinned", lambda self, x: x.shape[1] > 4)  # no store is less
    (frames, height, width), dtype = shape, torch.bfloat16
    with FakeTensorMode(), torch.inference_mode():
        vae = from_module(full_size_module(dtype), device="meta")
        chosen = Settings(**{"placement": "host", "tile_px": None, **settings})
        with Traffic() as traffic:
            if kind == "encode":
                vae.encode(torch.empty(1, 3, frames, height, width, dtype=dtype), chosen)
            else:
                sizes = ((frames - 1) // 4 + 1, height // 8, width // 8)
                vae.decode(torch.empty(1, 16, *sizes, dtype=dtype), chosen)
    assert traffic.moved_bytes
    return traffic.host_bytes / traffic.moved_bytes


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_the_processor_copies_little_of_what_goes_to_host_stores(kind, monkeypatch) -> None:
    assert copied_by_the_processor(kind, (9, 64, 96), monkeypatch, tile_px=(32, 4096)) <= 0.1


@pytest.mark.parametrize("clip", [(17, 480, 720), (49, 1088, 1920)])
@pytest.mark.parametrize("family", ["cogvideox", "wan"])
@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_tiles_beside_host_stores_are_as_wide_as_the_picture(kind, family, clip) -> None:
    """So that their rows lie in one piece, and the processor copies none."""
    with torch.device("meta"):
        vae = from_module(FAMILIES[family].unmade(torch.bfloat16), device="meta")
    program = vae.encoder if kind == "encode" else vae.decoder
    size = clip if kind == "encode" else ((clip[0] - 1) // 4 + 1, clip[1] // 8, clip[2] // 8)
    job = Job(program, 1, Extent(*size), 2)
    plan = make_plan(job, Settings(placement="host", tile_px=None), MACHINE)
    cut = 0
    for step, tile in zip(program.steps, plan.tiles, strict=True):
        made = program.stores[step.dst].px * step.side_made
        assert tile.w * made >= clip[2]
        cut += tile.h * made < clip[1]
    assert cut
    assert plan.moved_bytes > plan.copied_bytes == 0
    narrow = make_plan(job, Settings(placement="host", tile_px=64), MACHINE)
    assert 0 < narrow.copied_bytes <= narrow.moved_bytes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_the_processor_copies_as_little_of_a_real_clip(kind, monkeypatch) -> None:
    assert copied_by_the_processor(kind, (49, 480, 720), monkeypatch) <= 0.1


FAILING = {
    "copies in": (CudaLanes, "start_in"),
    "copies out": (CudaLanes, "start_out"),
    "straight copies": (CudaLanes, "start_across"),
    "pinned memory": (Pinned, "_allocated"),
    "convolutions": (kernels, "convolution"),
}
SIGNS = {
    "pinned memory": "CUDA error: out of memory",
    "convolutions": "unable to find an engine to execute this computation",
}


@pytest.fixture
def far(accelerated, monkeypatch: pytest.MonkeyPatch) -> None:
    """All stores are far away, and pinned; no device is needed."""
    monkeypatch.setattr("vae_core.running.execute.lanes_for", pinned_lanes)
    monkeypatch.setattr(CudaLanes, "is_pinned", lambda self, x: x.shape[1] > 4)
    monkeypatch.setattr(Transfers, "is_far", lambda self, x: True)
    monkeypatch.setattr(
        Pinned,
        "_allocated",
        lambda self, shape, dtype: torch.empty(
            shape, dtype=dtype, memory_format=torch.channels_last_3d
        ),
    )


class Fault:
    """Lets the call number `number` of a function fail, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, what: str, number: int) -> None:
        self.calls, (owner, name) = 0, FAILING[what]
        original = getattr(owner, name)

        def faulty(*args, **kwargs):
            self.calls += 1
            if self.calls == number:
                raise RuntimeError(SIGNS.get(what, "CUDA out of memory"))
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, faulty)


def small_run(vae) -> torch.Tensor:
    settings = Settings(chunk_frames=4, tile_px=16, placement="host")
    return vae.decode(random_latents(2, 2, 3), settings)


def check_failures(vae, what: str, numbers, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = small_run(vae)
    for number in numbers:
        with monkeypatch.context() as patch:
            fault = Fault(patch, what, number)
            assert_close(small_run(vae), expected, 1e-5)
        assert fault.calls >= number


def calls_of(vae, what: str, monkeypatch: pytest.MonkeyPatch) -> int:
    with monkeypatch.context() as patch:
        fault = Fault(patch, what, 0)
        small_run(vae)
    return fault.calls


BANDS = [
    {"tile_px": (16, 4096)},
    {"tile_px": (16, 4096), "norm_scope": "clip"},
    {"tile_px": (16, 24)},
]


@pytest.mark.parametrize("settings", BANDS)
@pytest.mark.parametrize("batch", [1, 2])
def test_stores_of_which_rows_go_in_one_piece_hold_the_same(settings, batch, request) -> None:
    vae, latents = (
        from_module(random_module(torch.float64)),
        random_latents(3, 5, 6, torch.float64, batch),
    )
    chosen = Settings(chunk_frames=4, placement="host", **settings)
    expected = vae.decode(latents, chosen)
    request.getfixturevalue("far")
    assert_close(vae.decode(latents, chosen), expected)


def test_what_is_kept_for_the_next_chunk_is_safe_from_the_next_tile(
    accelerated, monkeypatch
) -> None:
    """Of a tile inside the picture all that it has read is kept, as it lies in reused memory."""
    vae, latents = from_module(random_module(torch.float64)), random_latents(3, 5, 6, torch.float64)
    chosen, new_cache, caches = Settings(chunk_frames=4, tile_px=16), Residence.new_cache, []
    expected = vae.decode(latents, chosen)

    def noted(self, *args):
        caches.append(new_cache(self, *args))
        return caches[-1]

    def is_a_cache(self, x) -> bool:
        return any(x.untyped_storage()._cdata == cache.untyped_storage()._cdata for cache in caches)

    monkeypatch.setattr(Residence, "new_cache", noted)
    monkeypatch.setattr(Transfers, "is_far", is_a_cache)
    assert_close(vae.decode(latents, chosen), expected)
    assert caches


def test_rows_that_lie_in_one_piece_are_never_cut(far, monkeypatch) -> None:
    """What a cut row would be written over has not been read."""
    vae, latents = from_module(random_module(torch.float64)), random_latents(2, 5, 6, torch.float64)
    chosen = Settings(chunk_frames=4, placement="host", tile_px=(16, 4096))
    expected, run_tile, runs = vae.decode(latents, chosen), TileRunner.run, []

    def small(self, task, cells, *rest) -> None:
        runs.append(cells)
        if cells.h.size > 1:
            raise RuntimeError("CUDA out of memory")
        run_tile(self, task, cells, *rest)

    monkeypatch.setattr(TileRunner, "run", small)
    assert_close(vae.decode(latents, chosen), expected)
    assert any(cells.h.size == 1 for cells in runs)


@pytest.mark.parametrize("what", FAILING)
def test_a_failure_here_and_there_is_survived(what, far, monkeypatch) -> None:
    vae = from_module(random_module())
    calls = calls_of(vae, what, monkeypatch)
    assert calls > 10
    check_failures(vae, what, (1, 2, calls // 3, calls), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("what", FAILING)
def test_a_failure_anywhere_is_survived(what, far, monkeypatch) -> None:
    vae = from_module(random_module())
    calls = calls_of(vae, what, monkeypatch)
    check_failures(vae, what, range(1, calls + 1), monkeypatch)


def test_pinned_memory_that_cannot_be_had_is_said_once_and_makes_no_tile_smaller(
    far, monkeypatch, caplog
) -> None:
    vae, tiles, run_tile = from_module(random_module()), [], TileRunner.run

    def noted(self, task, cells, *rest) -> None:
        tiles.append(cells)
        run_tile(self, task, cells, *rest)

    monkeypatch.setattr(TileRunner, "run", noted)
    expected = small_run(vae)
    before, tiles[:] = list(tiles), []

    def never(self, shape, dtype):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(Pinned, "_allocated", never)
    with caplog.at_level("WARNING", "vae_core"):
        assert torch.equal(small_run(vae), expected)
    assert tiles == before
    said = [r.getMessage() for r in caplog.records if r.name == "vae_core"]
    assert [message.split(" (")[0] for message in said] == ["no pinned memory"]


def test_the_first_error_is_the_one_that_is_raised(far, monkeypatch) -> None:
    def fails_again(self) -> None:
        raise RuntimeError("the second error")

    def fail(_progress) -> None:
        monkeypatch.setattr(Transfers, "flush", fails_again)
        raise ValueError("the first error")

    vae, latents = from_module(random_module()), random_latents(2, 2, 3)
    counter = DeviceBytes("cpu")
    with counter, pytest.raises(ValueError, match="the first error"):
        vae.decode(latents, Settings(tile_px=16, placement="host", on_progress=fail))
    gc.collect()
    assert counter.live_bytes == 0
