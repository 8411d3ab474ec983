"""How do copies between host memory and the device run beside the computing?

1. `Transfers.fetch` starts the way in of what a tile will read, while the tile before it computes;
   `Arrival.take` lets the computing wait for it, and nothing else.
2. `Transfers.send` starts the way out of a result. It is written where it belongs when the next one
   sets out, or by `flush`; so at most one result is under way beside the tile that computes.
3. What lives on the device already is taken as it is, and written at once.

`CudaLanes` has a stream each way. It copies through pinned memory that is as small as a tile: parts
of a store are strided, and a strided copy between host and device is a blocking one, pinned or not.
Streams wait for each other by events; the host waits for one event only, that of a result which it
is about to write. `PlainLanes` makes the same copies in the same order, each at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor


class Lanes(Protocol):
    """The two ways between host and device. A mark stands for a copy that has been started."""

    def start_in(self, source: Tensor, out: Tensor) -> Any:
        """Start to copy `source`, on the host, to `out`, on the device and contiguous."""
        ...

    def start_out(self, result: Tensor) -> tuple[Tensor, Any]:
        """What will hold `result`, contiguous, once `finish` has been called with the mark."""
        ...

    def arrive(self, mark: Any) -> None:
        """Let what the device computes from now on wait for a copy in."""
        ...

    def finish(self, mark: Any) -> None:
        """Wait here for a copy out."""
        ...


class PlainLanes:
    """Copies that are over when they have been started, or when their result is written."""

    def start_in(self, source: Tensor, out: Tensor) -> None:
        """See `Lanes`."""
        out.copy_(source)

    def start_out(self, result: Tensor) -> tuple[Tensor, None]:
        """See `Lanes`; the copy is that of the one who writes it."""
        return result, None

    def arrive(self, mark: None) -> None:
        """Nothing to wait for."""

    def finish(self, mark: None) -> None:
        """Nothing to wait for."""


class CudaLanes:
    """A stream each way beside the one that computes, which is whatever stream is current.

    cuda: `torch.cuda`, or what plays it in a test.
    """

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        self._device, self._cuda = device, cuda
        self._in, self._out = cuda.Stream(device), cuda.Stream(device)

    def start_in(self, source: Tensor, out: Tensor) -> Any:
        """See `Lanes`. The memory of `out` may have belonged to work that is still queued, so that
        the copy waits for it; work that is queued later runs beside the copy.
        """
        staged = torch.empty(out.shape, dtype=out.dtype, device="cpu", pin_memory=True)
        staged.copy_(source)
        queued = self._cuda.current_stream(self._device).record_event()
        with self._cuda.stream(self._in):
            self._in.wait_event(queued)
            out.copy_(staged, non_blocking=True)  # the allocator keeps `staged` until it is over
            return self._in.record_event()

    def start_out(self, result: Tensor) -> tuple[Tensor, Any]:
        """See `Lanes`."""
        staged = torch.empty_like(result, device="cpu", pin_memory=True)
        made = self._cuda.current_stream(self._device).record_event()
        with self._cuda.stream(self._out):
            self._out.wait_event(made)
            staged.copy_(result, non_blocking=True)
            return staged, self._out.record_event()

    def arrive(self, mark: Any) -> None:
        """See `Lanes`."""
        self._cuda.current_stream(self._device).wait_event(mark)

    def finish(self, mark: Any) -> None:
        """See `Lanes`."""
        mark.synchronize()


def lanes_for(device: torch.device) -> Lanes:
    """The ways between the host and `device`."""
    return CudaLanes(device) if device.type == "cuda" else PlainLanes()


@dataclass(slots=True)
class _Leaving:
    """A result on its way out.

    result: kept until it is there, so that its memory is not used for anything else.
    staged, mark: see `Lanes.start_out`. skip_frames: leading frames that are not wanted.
    """

    result: Tensor
    staged: Tensor
    mark: Any
    skip_frames: int
    target: Tensor


@dataclass(slots=True, eq=False)
class Arrival:
    """What has been fetched; it can be taken once."""

    owner: Transfers
    tensor: Tensor | None
    under_way: bool
    mark: Any

    def take(self) -> Tensor:
        """The tensor, on the device; the memory of a copy is free when the caller drops it."""
        tensor, self.tensor = self.tensor, None
        assert tensor is not None
        if self.under_way:
            self.owner.take(self)
        return tensor


@dataclass(slots=True)
class Transfers:
    """Copies between far memory and `device`, where they are of `dtype`.

    Invariant: every copy in that was started and not yet taken is in `_awaited`, which keeps its
    memory; and no more than one result is leaving.
    """

    device: torch.device
    dtype: torch.dtype
    lanes: Lanes
    _awaited: list[Arrival] = field(default_factory=list[Arrival])
    _leaving: _Leaving | None = None

    def is_far(self, x: Tensor) -> bool:
        """Whether `x` lives on the host and the computing does not."""
        return x.device.type != self.device.type and x.device.type == "cpu"

    def fetch(self, view: Tensor) -> Arrival:
        """Start the way in of `view`, a part of a store or of the caller's tensor, of any dtype."""
        if not self.is_far(view):
            return Arrival(self, view.to(self.device, self.dtype), False, None)
        out = torch.empty(view.shape, dtype=self.dtype, device=self.device)
        arrival = Arrival(self, out, True, self.lanes.start_in(view, out))
        self._awaited.append(arrival)
        return arrival

    def take(self, arrival: Arrival) -> None:
        """Let the computing wait for an arrival; it is the taker's from now on."""
        self.lanes.arrive(arrival.mark)
        self._awaited.remove(arrival)

    def send(self, result: Tensor, target: Tensor, skip_frames: int = 0) -> None:
        """Write `result` [b, c, t, h, w], without its first frames, to `target`.

        Where that is far away, it is done by the next `send` or `flush`.
        """
        if not self.is_far(target):
            target.copy_(result[:, :, skip_frames:])
            return
        self._write()
        staged, mark = self.lanes.start_out(result)
        self._leaving = _Leaving(result, staged, mark, skip_frames, target)

    def _write(self) -> None:
        leaving, self._leaving = self._leaving, None
        if leaving:
            self.lanes.finish(leaving.mark)
            leaving.target.copy_(leaving.staged[:, :, leaving.skip_frames :])

    def flush(self) -> None:
        """Write what is leaving, and let go of what was fetched in vain."""
        self._write()
        self.forget()

    def forget(self) -> None:
        """Let go of what was fetched in vain, once its copies cannot touch that memory any more."""
        while self._awaited:
            self.take(self._awaited[-1])
