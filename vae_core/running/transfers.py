"""How do copies between host memory and the device run beside the computing?

1. `Transfers.fetch` starts the way in of what a tile will read, while the tile before it computes;
   `Arrival.take` lets the computing wait for it, and nothing else.
2. `Transfers.send` starts the way out of a result. It has arrived when the next one sets out, or
   after `flush`; so at most one result is under way beside the tile that computes.
3. What lives on the device already is taken as it is, and written at once.

`CudaLanes` has a stream each way. Where a store is pinned and a tile as wide as the picture, the
rows of each frame are one run of memory, and go straight from one side to the other. All else goes
through pinned memory that is as small as a tile, since a strided copy between host and device is a
blocking one, pinned or not. Streams wait for each other by events; the host waits only where it is
about to write a result itself, and at the end of a step. `PlainLanes` makes the same copies in the
same order, each at once.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from .pinned import Pinned, copy_frames, in_one_piece
from .split import Part, Split


class Lanes(Protocol):
    """The two ways between host and device. A mark stands for a copy that has been started.

    pinned: where host memory comes from that the device reaches by itself.
    """

    pinned: Pinned

    def start_in(self, source: Tensor, out: Tensor) -> Any:
        """Start to copy `source`, on the host, to `out`, on the device and channels last."""
        ...

    def start_across(self, result: Tensor, target: Tensor) -> Any:
        """Start to copy `result` straight to `target`, on the host; None where that cannot be."""
        ...

    def start_out(self, result: Tensor) -> tuple[Tensor, Any]:
        """What will hold `result`, channels last, once `finish` has been called with the mark."""
        ...

    def arrive(self, mark: Any) -> None:
        """Let what the device computes from now on wait for a copy."""
        ...

    def finish(self, mark: Any) -> None:
        """Wait here for a copy out."""
        ...


class PlainLanes:
    """Copies that are over when they have been started, or when their result is written."""

    def __init__(self) -> None:
        self.pinned = Pinned(False)

    def start_in(self, source: Tensor, out: Tensor) -> None:
        """See `Lanes`."""
        out.copy_(source)

    def start_across(self, result: Tensor, target: Tensor) -> None:
        """See `Lanes`; the one who writes it does as much."""
        return

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
        self._in, self._out = _streams(device, cuda)
        self.pinned = Pinned(True, cuda)

    def start_in(self, source: Tensor, out: Tensor) -> Any:
        """See `Lanes`. The memory of `out` may have belonged to work that is still queued, so that
        the copy waits for it; work that is queued later runs beside the copy.
        """
        straight = self._can_go_straight(source, out)
        staged = source if straight else self.pinned.take(tuple(out.shape), out.dtype)
        if staged is None:
            out.copy_(source)
            return None
        if not straight:
            staged.copy_(source)
        queued = self._cuda.current_stream(self._device).record_event()
        with self._cuda.stream(self._in):
            self._in.wait_event(queued)
            if straight:
                copy_frames(source, out)
            else:
                out.copy_(staged, non_blocking=True)  # the allocator keeps it until it is over
            return self._in.record_event()

    def start_across(self, result: Tensor, target: Tensor) -> Any:
        """See `Lanes`."""
        if not self._can_go_straight(target, result):
            return None
        with self._leaving():
            copy_frames(result, target)
            return self._out.record_event()

    def start_out(self, result: Tensor) -> tuple[Tensor, Any]:
        """See `Lanes`."""
        staged = self.pinned.take(tuple(result.shape), result.dtype)
        if staged is None:
            return result, None
        with self._leaving():
            staged.copy_(result, non_blocking=True)
            return staged, self._out.record_event()

    def arrive(self, mark: Any) -> None:
        """See `Lanes`."""
        if mark is not None:
            self._cuda.current_stream(self._device).wait_event(mark)

    def finish(self, mark: Any) -> None:
        """See `Lanes`."""
        if mark is not None:
            mark.synchronize()

    def _leaving(self) -> Any:
        """The stream of copies out, behind what has been computed so far."""
        made = self._cuda.current_stream(self._device).record_event()
        self._out.wait_event(made)
        return self._cuda.stream(self._out)

    def _can_go_straight(self, host: Tensor, near: Tensor) -> bool:
        alike = host.dtype == near.dtype and in_one_piece(host) and in_one_piece(near)
        return alike and self.is_pinned(host)

    def is_pinned(self, host: Tensor) -> bool:
        """Whether the device reaches a tensor on the host by itself."""
        return host.is_pinned()


@lru_cache
def _streams(device: torch.device, cuda: Any) -> tuple[Any, Any]:
    """The two streams of a device, made once."""
    return cuda.Stream(device), cuda.Stream(device)


def lanes_for(device: torch.device) -> Lanes:
    """The ways between the host and `device`."""
    return CudaLanes(device) if device.type == "cuda" else PlainLanes()


@dataclass(slots=True)
class _Leaving:
    """A result on its way out.

    result: kept until it is there, so that its memory is not used for anything else.
    staged, mark: see `Lanes.start_out`; staged is None where it goes straight to the target.
    skip_frames: leading frames that are not wanted.
    """

    result: Tensor
    staged: Tensor | None
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
        if self.under_way:
            self.owner.take(self)
        tensor, self.tensor = self.tensor, None
        assert tensor is not None
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
        return x.is_cpu and self.device.type != "cpu"

    def fetch(self, view: Part) -> Arrival:
        """Start the way in of `view`, a part of a store or of the caller's tensor, of any dtype."""
        if isinstance(view, Split):
            return self._fetch_both(view)
        if not self.is_far(view):
            return Arrival(self, view.to(self.device, self.dtype), False, None)
        out = torch.empty(
            view.shape,
            dtype=self.dtype,
            device=self.device,
            memory_format=torch.channels_last_3d,
        )
        return self._arriving(out, self.lanes.start_in(view, out))

    def _fetch_both(self, view: Split) -> Arrival:
        """Start to put the rows of both sides together."""
        layout = torch.channels_last_3d
        out = torch.empty(view.shape, dtype=self.dtype, device=self.device, memory_format=layout)
        above, mark = view.near.shape[3], None
        for part, rows in zip(
            view.parts, (out[:, :, :, :above], out[:, :, :, above:]), strict=True
        ):
            if self.is_far(part):
                mark = self.lanes.start_in(part, rows) or mark  # a later one is over later
            else:
                rows.copy_(part)
        return self._arriving(out, mark)

    def _arriving(self, out: Tensor, mark: Any) -> Arrival:
        arrival = Arrival(self, out, True, mark)
        self._awaited.append(arrival)
        return arrival

    def take(self, arrival: Arrival) -> None:
        """Let the computing wait for an arrival; it is the taker's from now on."""
        self.lanes.arrive(arrival.mark)
        self._awaited.remove(arrival)  # it is equal to itself alone

    def send(
        self, result: Tensor, target: Tensor, skip_frames: int = 0, addend: Tensor | None = None
    ) -> None:
        """Write `result` [b, c, t, h, w], without its first frames and with `addend` added, to
        `target`, which `addend` may be itself.

        Where that is far away, it is done by the next `send` or `flush`.
        """
        if not self.is_far(target):
            result = result[:, :, skip_frames:]
            if addend is not None and target.device != result.device:  # another card's
                result, addend = result.add_(addend), None
            target.copy_(result) if addend is None else torch.add(result, addend, out=target)
            return
        if addend is not None:
            result.add_(addend)
        self._write()
        mark = self.lanes.start_across(result[:, :, skip_frames:], target)
        staged = None
        if mark is None:
            staged, mark = self.lanes.start_out(result)
        self._leaving = _Leaving(result, staged, mark, skip_frames, target)

    def keep(self, part: Tensor, target: Tensor) -> None:
        """Write a part of something larger to `target`. Where that has far to go it is copied
        first, so that the memory of the whole may be used for something else.
        """
        if self.is_far(target):
            part = part.clone(memory_format=torch.channels_last_3d)
        self.send(part, target)

    def _write(self) -> None:
        leaving = self._leaving
        if leaving is None:
            return
        if leaving.staged is None:
            self.lanes.arrive(leaving.mark)  # what uses the memory of the result next comes after
        else:
            self.lanes.finish(leaving.mark)
            leaving.target.copy_(leaving.staged[:, :, leaving.skip_frames :])
        self._leaving = None

    def flush(self) -> None:
        """Write what is leaving, wait for it, and let go of what was fetched in vain."""
        if self._leaving is not None:
            self.lanes.finish(self._leaving.mark)
        self._write()
        self.forget()

    def forget(self) -> None:
        """Let go of what was fetched in vain, once its copies cannot touch that memory any more."""
        while self._awaited:
            self.take(self._awaited[-1])

    def abandon(self) -> None:
        """Let go of everything, after an error that is to be raised whatever happens here."""
        with suppress(Exception):
            self.flush()
        self._leaving = None
        self._awaited.clear()
