"""What is done on an accelerator: is it the same, and is nothing done there that costs it?

A processor that is treated as an accelerator computes real numbers; `meta` plays the device where
only its operations and its memory matter.
"""

from __future__ import annotations

import card  # noqa: F401, meta has its kernels from here on
import pytest
import torch
from benchmarks.counting import CONVOLUTIONS
from contract import assert_close
from networks import full_size_module, random_latents, random_module, random_video
from torch.utils._python_dispatch import TorchDispatchMode
from traffic import Traffic, is_channels_last

from vae_core import Settings, SettingsError, from_module
from vae_core.geometry.region import Extent
from vae_core.planning.machine import Machine, machine_for
from vae_core.planning.plan import Job
from vae_core.planning.planner import make_plan
from vae_core.planning.workspaces import CONTIGUOUS, ConvClass, Workspace, Workspaces, unrolled
from vae_core.running.kernels import affine, measure
from vae_core.running.recovery import is_out_of_memory
from vae_core.running.statistics import finished, measured
from vae_core.running.tile import TileRunner
from vae_core.running.weights import Weights
from vae_core.running.windows import window_of

SETTINGS = [
    {"chunk_frames": 4, "tile_px": 16},
    {"chunk_frames": 8, "tile_px": None},
    {"norm_scope": "clip", "tile_px": 16, "placement": "host"},
]


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


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_a_tile_that_comes_again_is_not_worked_out_again(meta_vae, kind, monkeypatch) -> None:
    made, tiles, run_tile = [], [], TileRunner.run

    def counted(*args):
        made.append(args[-1])
        return window_of(*args)

    def noted(self, task, cells, *rest) -> None:
        tiles.append((task.step.path, cells, task.at.chunk.first, task.at.extents))
        run_tile(self, task, cells, *rest)

    monkeypatch.setattr("vae_core.running.tile.window_of", counted)
    monkeypatch.setattr(TileRunner, "run", noted)
    run(meta_vae, kind, Settings(tile_px=16, chunk_frames=4, placement="device"))
    assert len(made) == len(set(tiles)) < len(tiles)


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
