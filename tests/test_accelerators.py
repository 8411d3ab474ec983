"""What is done on an accelerator: is it the same, and is nothing done there that costs it?

A processor that is treated as an accelerator computes real numbers; `meta` plays the device where
only its operations and its memory matter.
"""

from __future__ import annotations

import gc

import card  # noqa: F401, meta has its kernels from here on
import pytest
import torch
from benchmarks.counting import CONVOLUTIONS
from contract import assert_close
from device_bytes import DeviceBytes
from networks import full_size_module, random_latents, random_module, random_video
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from traffic import Traffic, is_channels_last

from vae_core import Settings, SettingsError, from_module
from vae_core.geometry.region import Extent
from vae_core.planning.machine import Machine, machine_for
from vae_core.planning.plan import Job
from vae_core.planning.planner import make_plan
from vae_core.planning.workspaces import CONTIGUOUS, ConvClass, Workspace, Workspaces, unrolled
from vae_core.running import devices, kernels
from vae_core.running.kernels import affine, measure
from vae_core.running.pinned import Pinned
from vae_core.running.recovery import is_out_of_memory
from vae_core.running.residence import Residence
from vae_core.running.statistics import finished, measured
from vae_core.running.tile import TileRunner
from vae_core.running.transfers import CudaLanes, Transfers
from vae_core.running.weights import Weights

SETTINGS = [
    {"chunk_frames": 4, "tile_px": 16},
    {"chunk_frames": 8, "tile_px": None},
    {"norm_scope": "clip", "tile_px": 16, "placement": "host"},
]


@pytest.fixture
def accelerated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor is treated as an accelerator."""
    monkeypatch.setattr(devices, "accelerates", lambda device: True)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("batch", [1, 2])
def test_an_accelerator_computes_what_a_processor_does(settings, batch, request) -> None:
    vae, chosen = from_module(random_module(torch.float64)), Settings(**settings)
    video = random_video(9, 24, 40, torch.float64, batch)
    latents = random_latents(3, 3, 5, torch.float64, batch)
    expected = vae.encode(video, chosen).moments, vae.decode(latents, chosen)
    request.getfixturevalue("accelerated")
    assert_close(vae.encode(video, chosen).moments, expected[0])
    assert_close(vae.decode(latents, chosen), expected[1])


def test_statistics_by_parts_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 3, 6, 5, dtype=torch.float64) + 7
    shift = torch.randn(1, 8, 1, 1, 1, dtype=torch.float64)
    merged = None
    for part in x.split((1, 2, 3), dim=3):
        found = measured(part, shift)
        merged = merged.merge(found) if merged else found
    assert merged
    for _ in range(40):  # more parts than are kept side by side
        merged = merged.merge(measured(x, shift))
    ones = torch.ones(8, dtype=torch.float64)
    got = affine(finished(merged, 4), 1e-6, ones, 0 * ones)
    whole = affine(finished(measure(x + shift, 4), 4), 1e-6, ones, 0 * ones)
    assert_close(got.scale, whole.scale, 1e-9)
    assert_close(got.shift, whole.shift, 1e-9)


def on_meta():
    with torch.device("meta"):
        return from_module(random_module(), device="meta")


@pytest.fixture
def meta_vae(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vae_core.vae.check_values", lambda *_: None)
    monkeypatch.setattr("vae_core.running.execute.check_result", lambda *_: None)
    return on_meta()


def run(vae, kind: str, settings: Settings, device: str = "meta") -> None:
    if kind == "encode":
        vae.encode(torch.empty(1, 3, 17, 32, 48, device=device), settings)
    else:
        vae.decode(torch.empty(1, 4, 5, 4, 6, device=device), settings)


class Seen(TorchDispatchMode):
    """Remembers the inputs of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[torch.Tensor] = []
        self.weights: list[torch.Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in CONVOLUTIONS:
            self.inputs.append(args[0])
            self.weights.append(args[1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_every_convolution_has_whole_tensors_with_channels_last(meta_vae, kind) -> None:
    with torch.inference_mode(), Seen() as seen:
        run(meta_vae, kind, Settings(tile_px=16, placement="device"))
    assert len(seen.inputs) > 20
    assert all(map(is_channels_last, (*seen.inputs, *seen.weights)))


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_a_tile_asks_for_no_weight(meta_vae, kind, monkeypatch) -> None:
    inside, asked = [], []
    run_tile, parameter = TileRunner.run, Weights._parameter

    def noted(self, *args) -> None:
        inside.append(True)
        run_tile(self, *args)
        inside.pop()

    def looked_up(self, path, *rest):
        asked.append(bool(inside))
        return parameter(self, path, *rest)

    monkeypatch.setattr(TileRunner, "run", noted)
    monkeypatch.setattr(Weights, "_parameter", looked_up)
    run(meta_vae, kind, Settings(tile_px=16, placement="device"))
    assert asked
    assert not any(asked)


@pytest.mark.slow
def test_a_card_reads_and_writes_little_in_few_operations(meta_vae, monkeypatch) -> None:
    tiles, run_tile = [], TileRunner.run

    def noted(self, task, cells, *rest) -> None:
        tiles.append(cells)
        run_tile(self, task, cells, *rest)

    monkeypatch.setattr(TileRunner, "run", noted)
    with torch.device("meta"):
        vae = from_module(full_size_module(torch.bfloat16), device="meta")
        latents = torch.empty(1, 16, 13, 60, 90, dtype=torch.bfloat16)
    with torch.inference_mode(), Traffic() as traffic:
        vae.decode(latents, Settings(placement="device", tile_px=None))
    assert traffic.device_bytes <= 900e9
    assert traffic.operations <= 24 * len(tiles)


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


def test_a_tensor_of_more_elements_than_32_bits_count_is_refused_without_tiles() -> None:
    vae = on_meta()
    settings = Settings(tiling="off")
    job = Job(vae.decoder, 1, Extent(3, 1080, 1920), 2)
    with pytest.raises(SettingsError, match="billion elements"):
        make_plan(job, settings, Machine(True, 2**28))
    make_plan(job, Settings(), Machine(True, 2**28))


def test_workspaces_are_lines_by_class_with_a_default() -> None:
    known, other = ConvClass(8, 16, (3, 3, 3)), ConvClass(8, 8, (1, 3, 3))
    table = Workspaces(CONTIGUOUS, {known: Workspace(100, 0.5, 2.0)})
    assert table.bytes(known, 10, 20) == 100 + 5 + 40
    assert table.bytes(other, 10, 20) == 30
    assert unrolled(other).bytes(10, 20) == 90


def test_memory_that_is_the_hosts_is_not_apart() -> None:
    assert not machine_for(torch.device("mps")).apart
    assert machine_for(torch.device("mps")).accelerated
    assert not machine_for(torch.device("cuda"), integrated=True).apart
    assert machine_for(torch.device("cuda")).apart
    assert machine_for(torch.device("cuda")).workspaces.default == CONTIGUOUS


@pytest.mark.parametrize(
    "message",
    [
        "GET was unable to find an engine to execute this computation",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "not enough memory: you tried to allocate 12 bytes.",
        "Native API failed: UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY",
        "UR_RESULT_ERROR_OUT_OF_RESOURCES",
        "Invalid buffer size: 5.00 GB",
        "Could not allocate tensor: not enough GPU video memory available!",
    ],
)
def test_what_backends_say_of_missing_memory_is_understood(message) -> None:
    assert is_out_of_memory(RuntimeError(message))
