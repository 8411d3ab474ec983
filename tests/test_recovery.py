"""Running out of memory: is it survived, with the same result, and is it said what was done?"""

from __future__ import annotations

import gc
import logging
from math import prod

import pytest
import torch
from benchmarks.counting import CONVOLUTIONS
from contract import assert_close
from device_bytes import DeviceBytes
from networks import full_size_module, random_latents, random_module, random_video
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from vae_core import Settings, from_module
from vae_core.errors import DeviceMemoryError
from vae_core.running.recovery import is_out_of_memory
from vae_core.running.stores import Room
from vae_core.running.tile import TileRunner

ATEN = torch.ops.aten
VIDEO, LATENTS = random_video(9, 24, 40), random_latents(3, 3, 5)
SETTINGS = Settings(chunk_frames=4, tile_px=16)


class FailAt(TorchDispatchMode):
    """Lets the calls of some operations whose numbers are in `numbers` fail for want of memory.

    calls, failures: of them, so far.
    """

    def __init__(self, operations, numbers) -> None:
        super().__init__()
        self.operations, self.numbers, self.calls, self.failures = operations, numbers, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in self.operations:
            self.calls += 1
            if self.calls - 1 in self.numbers:
                self.failures += 1
                raise torch.OutOfMemoryError("injected")
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def vae():
    return from_module(random_module())


def encode(vae):
    return vae.encode(VIDEO, SETTINGS).moments


def decode(vae):
    return vae.decode(LATENTS, SETTINGS)


STATISTICS = {ATEN.batch_norm_update_stats}
GATHERING = {ATEN.index_select}
"""Of modulation maps; an encoder has none."""


@pytest.mark.parametrize("run", [encode, decode])
@pytest.mark.parametrize("operations", [CONVOLUTIONS, STATISTICS, GATHERING])
@pytest.mark.parametrize("period", [31, 47])
def test_failures_all_along_are_survived_with_the_same_result(vae, run, operations, period) -> None:
    expected = run(vae)
    with FailAt(operations, range(0, 10**6, period)) as mode:
        found = run(vae)
    assert_close(found, expected, 1e-5)
    assert mode.failures > 3 or (run is encode and operations is GATHERING)


class FailIn(FailAt):
    """Lets the first convolution of some steps fail, in each chunk."""

    def __init__(self, paths, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(CONVOLUTIONS, ())
        self.paths, self.failed = set(paths), []
        run_tile = TileRunner.run

        def noted(runner: TileRunner, task, *rest) -> None:
            name = (task.step.path, task.at.index)
            if task.step.path in self.paths and name not in self.failed:
                self.failed.append(name)
                self.numbers = {self.calls}
            run_tile(runner, task, *rest)

        monkeypatch.setattr(TileRunner, "run", noted)


def paths_of(vae, run) -> list[str]:
    program = (vae.encoder if run is encode else vae.decoder).steps
    return [step.path for step in program]


@pytest.mark.parametrize("run", [encode, decode])
def test_a_failure_in_every_step_in_turn_changes_nothing(vae, run, monkeypatch) -> None:
    expected = run(vae)
    for path in paths_of(vae, run):
        with monkeypatch.context() as patch, FailIn([path], patch) as mode:
            assert_close(run(vae), expected, 1e-5)
        assert mode.failures == len(mode.failed) >= 2  # chunks


@pytest.mark.parametrize("start", [0, 1, 2])
@pytest.mark.parametrize("run", [encode, decode])
def test_a_failure_in_every_third_step_changes_nothing(vae, run, start, monkeypatch) -> None:
    expected, paths = run(vae), paths_of(vae, run)[start::3]
    with FailIn(paths, monkeypatch) as mode:
        assert_close(run(vae), expected, 1e-5)
    assert {path for path, _ in mode.failed} == set(paths)
    assert mode.failures == len(mode.failed)


def test_a_room_that_could_not_be_had_asks_for_less() -> None:
    room, shape = Room(torch.float32, torch.device("cpu")), (1, 2, 1, 3, 4)
    room.expect(1000)
    with FailAt({ATEN.empty}, {0}), pytest.raises(torch.OutOfMemoryError):
        room.take(shape)
    assert room.take(shape).untyped_storage().nbytes() == 24 * 4


@pytest.mark.parametrize("run", [encode, decode])
def test_no_memory_for_the_inputs_of_a_step_is_survived(vae, run, monkeypatch) -> None:
    expected, take, failed = run(vae), Room.take, []

    def scarce(self: Room, shape):
        if self.held < prod(shape) and len(failed) < 9:
            failed.append(shape)
            with FailAt({ATEN.empty}, {0}):
                return take(self, shape)
        return take(self, shape)

    monkeypatch.setattr(Room, "take", scarce)
    assert_close(run(vae), expected, 1e-5)
    assert len(failed) == 9


def test_it_is_said_once(vae, caplog) -> None:
    with caplog.at_level(logging.WARNING, "vae_core"), FailAt(CONVOLUTIONS, range(0, 999, 7)):
        decode(vae)
    said = [record.getMessage() for record in caplog.records if record.name == "vae_core"]
    assert len(said) == 1
    assert "out of memory at decoder.conv_in.conv: smaller tiles" in said[0]


def test_failure_after_failure_ends_in_words_and_leaves_nothing(vae) -> None:
    counter = DeviceBytes("cpu")
    with (
        counter,
        FailAt(CONVOLUTIONS, range(10**9)),
        pytest.raises(DeviceMemoryError, match="tiles of one element"),
    ):
        decode(vae)
    gc.collect()
    assert counter.live_bytes == 0


def test_other_errors_are_left_alone(vae) -> None:
    class Fault(RuntimeError):
        pass

    def fail(_progress) -> None:
        raise Fault("something else")

    with pytest.raises(Fault):
        vae.decode(LATENTS, Settings(on_progress=fail))
    assert is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.parametrize("share", [0.7, 0.2])
def test_a_device_that_is_smaller_than_planned_for_is_enough(share: float) -> None:
    """The device, played by `meta`, refuses what goes beyond a share of the projected peak."""
    with FakeTensorMode():
        vae = from_module(full_size_module(), device="meta")
        latents = torch.empty(1, 16, 3, 16, 20, dtype=torch.bfloat16)
        plan = vae.plan_decode(latents.shape, Settings(placement="device"))
        limit = int(share * plan.peak_bytes)

        def refuse() -> None:
            if counter.live_bytes > limit:
                raise torch.OutOfMemoryError("the card is full")

        counter = DeviceBytes("meta", refuse)
        with counter:
            frames = vae.decode(latents, Settings(placement="device"))
    assert frames.shape == (1, 3, 9, 128, 160)
