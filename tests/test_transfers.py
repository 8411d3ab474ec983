"""Copies beside the computing: does a result ever depend on when a copy really happens?

No accelerator is needed. `LateCuda` plays `torch.cuda`: a copy on one of its streams is put off
until something waits for it, which is as late as a real one may be.
"""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from benchmarks.counting import CONVOLUTIONS
from contract import assert_close
from networks import random_latents, random_module, random_video
from torch.utils._python_dispatch import TorchDispatchMode

from vae_core import Settings, from_module
from vae_core.errors import ResultError
from vae_core.running.transfers import CudaLanes, Transfers

SETTINGS = Settings(chunk_frames=4, tile_px=16, placement="host")


class LateEvent:
    """Everything that was put on a stream so far."""

    def __init__(self, stream: LateStream) -> None:
        self.stream, self.count = stream, len(stream.work)

    def synchronize(self) -> None:
        """Wait for it: all of it happens now at the latest."""
        work, self.stream.done = self.stream.work, max(self.stream.done, self.count)
        for index in range(self.count):
            task, work[index] = work[index], None
            if task:
                task()


class LateStream:
    """A stream whose work happens when an event after it is waited for."""

    def __init__(self, _device: object = None) -> None:
        self.work: list = []
        self.done = 0

    def record_event(self) -> LateEvent:
        return LateEvent(self)

    def wait_event(self, event: LateEvent) -> None:
        self.work.append(event.synchronize)


class Computing(LateStream):
    """The stream that computes: its own work happens at once, so that it waits at once, too."""

    def wait_event(self, event: LateEvent) -> None:
        event.synchronize()


class PutOff(TorchDispatchMode):
    """Puts every copy inside the block on a stream."""

    def __init__(self, stream: LateStream) -> None:
        super().__init__()
        self.stream = stream

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is torch.ops.aten.copy_.default
        self.stream.work.append(lambda: func(*args, **(kwargs or {})))
        return args[0]


class LateCuda:
    """What of `torch.cuda` the lanes use."""

    Stream = LateStream

    def __init__(self) -> None:
        self.computing = Computing()

    def current_stream(self, _device: object) -> LateStream:
        return self.computing

    @contextmanager
    def stream(self, stream: LateStream):
        with PutOff(stream):
            yield


class UnwrittenPinned(TorchDispatchMode):
    """Plain memory in place of pinned memory; NaN in all that is unwritten."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        kwargs.pop("pin_memory", None)
        out = func(*args, **kwargs)
        if func in (torch.ops.aten.empty.memory_format, torch.ops.aten.empty_like.default):
            torch.ops.aten.fill_.Scalar(out, float("nan"))
        return out


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch):
    """Every run goes through `CudaLanes`, all stores are far, and copies happen late."""
    monkeypatch.setattr(
        "vae_core.running.execute.lanes_for", lambda device: CudaLanes(device, LateCuda())
    )
    monkeypatch.setattr(Transfers, "is_far", lambda self, x: True)


def run(kind: str, settings: Settings) -> torch.Tensor:
    vae = from_module(random_module())
    if kind == "encode":
        return vae.encode(random_video(9, 24, 40), settings).moments
    return vae.decode(random_latents(3, 3, 5), settings)


@pytest.mark.parametrize("scope", ["chunk", "clip"])
@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_copies_that_happen_late_change_nothing(kind, scope, request) -> None:
    settings = Settings(chunk_frames=4, tile_px=16, placement="host", norm_scope=scope)
    expected = run(kind, settings)
    request.getfixturevalue("late")
    with UnwrittenPinned():
        found = run(kind, settings)
    assert torch.equal(found, expected)


def test_the_test_sees_a_wait_that_is_left_out(late, monkeypatch) -> None:
    monkeypatch.setattr(CudaLanes, "arrive", lambda self, mark: None)
    with UnwrittenPinned(), pytest.raises(ResultError, match="NaN"):
        run("decode", SETTINGS)


def test_out_of_memory_is_survived_with_copies_under_way(late) -> None:
    class FailNow(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket in CONVOLUTIONS:
                self.calls += 1
                if self.calls % 51 == 0:  # three to a tile, one for each tap
                    raise torch.OutOfMemoryError("injected")
            return func(*args, **(kwargs or {}))

    with UnwrittenPinned(), FailNow():
        found = run("decode", SETTINGS)
    with UnwrittenPinned():
        assert_close(found, run("decode", SETTINGS), 1e-5)


def test_no_more_than_one_tile_is_fetched_ahead_and_one_result_leaves(late, monkeypatch) -> None:
    most = 0
    fetch = Transfers.fetch

    def counted(self: Transfers, view: torch.Tensor):
        nonlocal most
        found = fetch(self, view)
        most = max(most, len(self._awaited))
        return found

    monkeypatch.setattr(Transfers, "fetch", counted)
    with UnwrittenPinned():
        run("decode", SETTINGS)
    assert 4 < most <= 8  # a tile reads from up to four places
